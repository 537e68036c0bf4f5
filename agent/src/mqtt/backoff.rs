//! How long to stay away from a broker.

use std::time::Duration;

use fleetcert_core::policy;

/// No wait is longer: a broker that comes back has its fleet back within this.
pub(super) const WAIT_MS_MAX: u32 = 120_000;

/// A session that lived so long was a good one: the next failure is counted as the first.
pub(super) const LIVED_MS_MIN: u64 = 60_000;

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u8,
}

impl Backoff {
    /// A session ended after so long.
    pub(super) const fn lived(&mut self, ms: u64) {
        if ms >= LIVED_MS_MIN {
            self.failures = 0;
        }
    }

    /// Counts a failure; the wait that follows it doubles with each, from one second to
    /// [`WAIT_MS_MAX`], its upper half drawn by `uniform` so that a fleet does not come back at
    /// one instant.
    pub(super) fn next(&mut self, uniform: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait_ms = policy::backoff_ms(self.failures, WAIT_MS_MAX, uniform);
        Duration::from_millis(wait_ms.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, LIVED_MS_MIN, WAIT_MS_MAX};

    #[test]
    fn waits_double_from_a_second_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..300).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(waits[..9], [1, 2, 4, 8, 16, 32, 64, 120, 120].map(|s| s * 1000));
        assert!(waits[9..].iter().all(|&wait| wait == u128::from(WAIT_MS_MAX)));
    }

    #[test]
    fn half_of_a_wait_is_drawn() {
        assert_eq!(Backoff::default().next(0).as_millis(), 500);
    }

    #[test]
    fn only_a_session_that_lived_a_while_is_a_new_beginning() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.next(0);
        }
        backoff.lived(LIVED_MS_MIN - 1);
        assert_eq!(backoff.next(u64::MAX).as_millis(), 16_000);
        backoff.lived(LIVED_MS_MIN);
        assert_eq!(backoff.next(u64::MAX).as_millis(), 1_000);
    }
}
