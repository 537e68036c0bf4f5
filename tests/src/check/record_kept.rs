//! An acknowledged record is never lost.
//!
//! A boot finds the last record that was durable, or a newer one that was being written when power
//! failed. Damage of one copy is no excuse: that is what the other one is for.

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact};

/// The checker.
#[derive(Debug, Default)]
pub struct RecordKept {
    generations: PerDevice<Option<u64>>,
}

impl Check for RecordKept {
    const NAME: &'static str = "record_kept";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        let kept = self.generations.of(device);
        match entry.fact {
            Fact::Durable(record) => *kept = Some(record.generation),
            Fact::Booted { generation, .. } if generation < *kept => {
                return Err(format!("found generation {generation:?}, {kept:?} was durable"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::RecordKept;
    use crate::check::made_up::{blank, judge};
    use crate::event_log::Fact;

    fn booted(generation: Option<u64>) -> Fact {
        Fact::Booted { generation, readable: 1 }
    }

    #[test]
    fn the_durable_record_or_a_newer_one_may_be_found() {
        let facts = [booted(None), Fact::Durable(blank(1)), booted(Some(1)), booted(Some(2))];
        assert_eq!(judge(&mut RecordKept::default(), &facts), Ok(()));
    }

    #[test]
    fn an_older_record_or_none_is_seen() {
        for found in [None, Some(1)] {
            let facts = [Fact::Durable(blank(2)), booted(found)];
            assert!(judge(&mut RecordKept::default(), &facts).is_err());
        }
    }
}
