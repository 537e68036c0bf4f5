//! Late and doubled answers are refused and change nothing.
//!
//! The world hands the machine each answer that came after the device gave up waiting, or twice.
//! The machine must say that it did not expect it, and its record, its deadline, the identity in
//! use and its count of failures must be what they were.

use super::Check;
use crate::event_log::{Entry, Fact};

/// The checker.
#[derive(Debug, Default)]
pub struct StaleAnswer;

impl Check for StaleAnswer {
    const NAME: &'static str = "stale_answer";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        match entry.fact {
            Fact::Stale { refused: true, changed: false } => Ok(()),
            Fact::Stale { refused, changed } => {
                Err(format!("a stale answer was refused: {refused}, changed something: {changed}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StaleAnswer;
    use crate::check::made_up::judge;
    use crate::event_log::Fact;

    #[test]
    fn a_stale_answer_must_be_refused_without_a_trace() {
        let stale = |refused, changed| [Fact::Stale { refused, changed }];
        assert_eq!(judge(&mut StaleAnswer, &stale(true, false)), Ok(()));
        assert!(judge(&mut StaleAnswer, &stale(false, false)).is_err());
        assert!(judge(&mut StaleAnswer, &stale(true, true)).is_err());
    }
}
