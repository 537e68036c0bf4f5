//! How many refusals of strangers are written down.
//!
//! A peer without a client certificate can be refused as often as it likes, and the audit table
//! only grows. Of its refusals [`STRANGER_REFUSALS_PER_MIN_MAX`] a minute get a row each; the rest
//! are counted, and the count gets a row with the first refusal of a later minute. What happened
//! thus stays in the table, and what a stranger can make it cost is bounded.
//!
//! It must never ration what changes something, nor refusals of peers that have proven who they
//! are: those are few, and the reason why there is a table. The log has every refusal.

use std::sync::{Mutex, PoisonError};

use fleetcert_core::time::Wall;

use crate::audit::{Actor, Entry, Event};

/// Refusals of strangers that are written down each minute, at most: more than people who mistype
/// tokens make, and some 2 GiB in a year of nothing else.
pub const STRANGER_REFUSALS_PER_MIN_MAX: u32 = 30;

/// Seconds of a minute.
const MIN_S: u64 = 60;

/// The count of the current minute.
#[derive(Debug, Default)]
pub(super) struct Ration(Mutex<Minute>);

#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    began: Wall,
    written: u32,
    left_out: u64,
}

impl Ration {
    /// The entries to write for a stranger's refusal: that of what was left out before, if
    /// anything was, and `refusal`; none if `refusal` is left out too.
    pub(super) fn entries(&self, refusal: Entry) -> Vec<Entry> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        // A clock that went back begins a minute as well.
        if refusal.at < minute.began || refusal.at.s_since(minute.began) >= MIN_S {
            entries.extend(minute.summary(refusal.at));
            *minute = Minute { began: refusal.at, ..Minute::default() };
        }
        if minute.written == STRANGER_REFUSALS_PER_MIN_MAX {
            minute.left_out += 1;
            return Vec::new();
        }
        minute.written += 1;
        entries.push(refusal);
        entries
    }
}

impl Minute {
    fn summary(&self, now: Wall) -> Option<Entry> {
        let detail = format!(
            "left-out: {} more requests without a client certificate were refused in the minute \
             from {}",
            self.left_out, self.began
        );
        let entry = Entry::new(now, Event::Refused, Actor::Anonymous).saying(&detail);
        (self.left_out > 0).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(at: u64) -> Entry {
        Entry::new(Wall(at), Event::Refused, Actor::Anonymous).saying("token-unknown")
    }

    // Goal: a minute has so many rows and no more, and the next one says how many it left out.
    #[test]
    fn what_exceeds_the_ration_of_a_minute_is_counted_for_the_next() {
        let ration = Ration::default();
        for _ in 0..STRANGER_REFUSALS_PER_MIN_MAX {
            assert_eq!(ration.entries(refusal(100)), [refusal(100)]);
        }
        for at in [100, 130, 159] {
            assert_eq!(ration.entries(refusal(at)), []);
        }
        let entries = ration.entries(refusal(160));
        assert_eq!(entries.len(), 2);
        assert!(entries[0].detail.starts_with("left-out: 3 more"), "{}", entries[0].detail);
        assert!(entries[0].detail.ends_with("1970-01-01T00:01:40Z"), "{}", entries[0].detail);
        assert_eq!(ration.entries(refusal(300)), [refusal(300)]);
    }

    // Goal: a clock that went back does not silence the table until it has caught up.
    #[test]
    fn a_clock_that_goes_back_begins_a_new_minute() {
        let ration = Ration::default();
        for _ in 0..=STRANGER_REFUSALS_PER_MIN_MAX {
            ration.entries(refusal(1_000));
        }
        assert_eq!(ration.entries(refusal(10)).len(), 2);
    }
}
