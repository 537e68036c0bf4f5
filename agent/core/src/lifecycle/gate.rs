//! Gates: when a lane of actions that failed may be tried again.

use crate::policy::FAILURES_MAX;
use crate::time::Mono;

/// Actions that wait together after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Key, certificate and proof of the identity on its way.
    Candidate,
    /// Time and advice.
    Consult,
    /// Erasing what no record names.
    Erase,
    /// Making the record durable.
    Storage,
    /// Taking into use, and ending the use of, an identity.
    Use,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    failures: u8,
    closed_until: Mono,
}

/// The gates of all lanes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gates([Gate; 5]);

impl Gates {
    pub(super) const fn is_open(&self, lane: Lane, now: Mono) -> bool {
        now.0 >= self.0[lane as usize].closed_until.0
    }

    pub(super) const fn closed_until(&self, lane: Lane) -> Mono {
        self.0[lane as usize].closed_until
    }

    /// Counts a failure, and returns how many there have been in a row.
    pub(super) fn count(&mut self, lane: Lane) -> u8 {
        let gate = &mut self.0[lane as usize];
        gate.failures = gate.failures.saturating_add(1).min(FAILURES_MAX);
        gate.failures
    }

    pub(super) const fn close(&mut self, lane: Lane, until: Mono) {
        self.0[lane as usize].closed_until = until;
    }

    /// Opens the gate and forgets the failures.
    pub(super) fn reset(&mut self, lane: Lane) {
        self.0[lane as usize] = Gate::default();
    }
}
