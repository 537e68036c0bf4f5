//! The clock of the service against the newest certificate that it has issued.
//!
//! Devices take their time from every answer, and none goes back behind the `notBefore` of a
//! certificate it was given (`docs/decisions/0002-authenticated-floor.md`). A service whose clock
//! stands below that has a wrong clock, or had one when it issued; either way a person has to
//! look. It must never date an answer or a certificate by such a clock.
//!
//! Asking is one atomic load, so that every request can. What is held only rises, and only by
//! what was stored.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use fleetcert_core::time::Wall;

/// How far the clock may stand below the newest certificate, seconds: what a time service corrects
/// in one step, and what clocks of machines on one database differ by. A certificate that was
/// backdated leaves as much again.
pub const CLOCK_BEHIND_S_MAX: u64 = 60;

/// A clock that cannot be right, or was not when the newest certificate was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockBehind {
    /// What the clock says.
    pub now: Wall,
    /// The `notBefore` of the newest certificate.
    pub newest: Wall,
}

/// The newest `notBefore` that is known, seconds.
#[derive(Debug, Default)]
pub(super) struct Guard(AtomicU64);

impl Guard {
    /// A certificate was issued, or found in the database.
    pub(super) fn raise(&self, not_before: Wall) {
        self.0.fetch_max(not_before.0, Ordering::Relaxed);
    }

    /// Whether `now` can be. The answer changes with `now` and with [`Guard::raise`].
    pub(super) fn check(&self, now: Wall) -> Result<(), ClockBehind> {
        let newest = Wall(self.0.load(Ordering::Relaxed));
        if now.plus_s(CLOCK_BEHIND_S_MAX) < newest {
            return Err(ClockBehind { now, newest });
        }
        Ok(())
    }
}

impl fmt::Display for ClockBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the clock says {}, the newest certificate began at {}: set the clock (`timedatectl`), \
             and if the clock was ahead when that was issued, restore the database from before",
            self.now, self.newest
        )
    }
}

impl std::error::Error for ClockBehind {}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: Wall = Wall(1_767_225_600);

    // Goal: a correction by the time service is let pass, one second more is not.
    #[test]
    fn a_clock_may_stand_a_little_below_the_newest_certificate() {
        let guard = Guard::default();
        assert_eq!(guard.check(Wall(0)), Ok(()));
        guard.raise(NEWEST);
        guard.raise(Wall(5));
        let lowest = Wall(NEWEST.0 - CLOCK_BEHIND_S_MAX);
        assert_eq!(guard.check(lowest), Ok(()));
        let now = Wall(lowest.0 - 1);
        assert_eq!(guard.check(now), Err(ClockBehind { now, newest: NEWEST }));
    }

    // Goal: an operator reads both times and what to do.
    #[test]
    fn the_error_says_both_times_and_what_to_do() {
        let text = ClockBehind { now: Wall(0), newest: NEWEST }.to_string();
        for part in ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "timedatectl"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
