//! The particulars of the last failure, for people.
//!
//! The core's `Failure` says what the machine has to know and no more. What a person has to know
//! besides (which file, which address, which alert) is left here by the port that failed, in
//! words, just before it answers; the report of the failure that follows takes it away. It must
//! never carry a secret, and nothing is ever decided by it.
//!
//! The machine has one action in flight at a time, so the last note is always about the failure
//! that is reported next.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Octets of a cause, at most: it goes into logs and into one line of the control socket.
pub const CAUSE_LEN_MAX: usize = 512;

/// Where ports leave the particulars of a failure; clones share one place.
#[derive(Clone, Debug, Default)]
pub struct Causes(Rc<RefCell<Option<String>>>);

impl Causes {
    /// Leaves the particulars of a failure that is about to be answered.
    pub fn note(&self, cause: impl fmt::Display) {
        let mut text = cause.to_string();
        text.truncate(text.floor_char_boundary(CAUSE_LEN_MAX));
        *self.0.borrow_mut() = Some(text);
    }

    /// Takes what was left last.
    #[must_use]
    pub fn take(&self) -> Option<String> {
        self.0.borrow_mut().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a cause is told once, and a later failure without one does not inherit it.
    #[test]
    fn a_cause_is_taken_once_and_is_shared_by_clones() {
        let causes = Causes::default();
        causes.clone().note("disk full");
        assert_eq!(causes.take().as_deref(), Some("disk full"));
        assert_eq!(causes.take(), None);
    }

    // Goal: a peer cannot make a log line endless, and no character is cut in half.
    #[test]
    fn a_long_cause_is_cut_at_a_character() {
        let causes = Causes::default();
        causes.note("é".repeat(CAUSE_LEN_MAX));
        assert_eq!(causes.take().unwrap().len(), CAUSE_LEN_MAX);
        causes.note(format!("x{}", "é".repeat(CAUSE_LEN_MAX)));
        assert_eq!(causes.take().unwrap().len(), CAUSE_LEN_MAX - 1);
    }
}
