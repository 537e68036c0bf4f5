//! No key is erased whose slot the durable record names.
//!
//! "Durable" is what a boot at that instant would find on the modelled disk, not what the machine
//! remembers. The rule is checked twice: by what the disk says at the erasure, and by the last
//! record that was seen to be durable.

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact};

/// The checker.
#[derive(Debug, Default)]
pub struct NamedSlot {
    named: PerDevice<[bool; 2]>,
}

impl Check for NamedSlot {
    const NAME: &'static str = "named_slot";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        match entry.fact {
            Fact::Durable(record) => *self.named.of(device) = record.named,
            Fact::KeyErased { slot, named } if named || self.named.of(device)[slot.index()] => {
                return Err(format!("erased slot {}, which is named", slot.as_str()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::record::Slot;

    use super::NamedSlot;
    use crate::check::made_up::{active, blank, judge, leaf};
    use crate::event_log::Fact;

    fn erased(slot: Slot, named: bool) -> Fact {
        Fact::KeyErased { slot, named }
    }

    #[test]
    fn erasing_what_no_record_names_passes() {
        let facts = [Fact::Durable(active(1, leaf(1, 1))), erased(Slot::B, false)];
        assert_eq!(judge(&mut NamedSlot::default(), &facts), Ok(()));
    }

    #[test]
    fn erasing_what_the_disk_names_is_seen() {
        assert!(judge(&mut NamedSlot::default(), &[erased(Slot::B, true)]).is_err());
    }

    #[test]
    fn erasing_what_the_last_durable_record_names_is_seen_until_a_newer_one_does_not() {
        let mut checker = NamedSlot::default();
        let facts = [Fact::Durable(active(1, leaf(1, 1))), erased(Slot::A, false)];
        assert!(judge(&mut checker, &facts).is_err());
        let facts = [Fact::Durable(blank(2)), erased(Slot::A, false)];
        assert_eq!(judge(&mut checker, &facts), Ok(()));
    }
}
