//! What must hold in every run, each in a file of its own.
//!
//! **What it is.** A checker reads the entries of a run in order and says which of them must not
//! have happened. It sees the world from outside: what the disk would give, what the key store
//! holds, what broker and provisioner saw.
//!
//! **What it must never do.** Ask the machine. A checker that believed the code under test would
//! agree with its mistakes. Nor may a checker be loosened so that a run passes: what it allows is
//! argued in its own file.

use std::fmt;

use crate::event_log::Entry;
use crate::sim::clock::At;

pub mod active_key;
pub mod healthy;
pub mod late_renewal;
pub mod named_slot;
pub mod one_certificate;
pub mod one_enrollment;
pub mod peak;
pub mod progress;
pub mod record_kept;
pub mod revoked;
pub mod stale_answer;
pub mod wall_time;

/// One rule.
pub trait Check {
    /// Its name, as in its file's.
    const NAME: &'static str;

    /// Takes the next entry.
    ///
    /// # Errors
    ///
    /// Why it must not have happened.
    fn see(&mut self, entry: &Entry) -> Result<(), String>;

    /// The run is over: what only the whole of it shows.
    ///
    /// # Errors
    ///
    /// When and why the run must not have been like that.
    fn end(&mut self, at: At) -> Result<(), (At, String)> {
        let _ = at;
        Ok(())
    }
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// When.
    pub at: At,
    /// By which device, if by one.
    pub device: Option<u32>,
    /// How.
    pub why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, device, why } = self;
        match device {
            Some(device) => write!(f, "{rule}: {at} device {device}: {why}"),
            None => write!(f, "{rule}: {at}: {why}"),
        }
    }
}

/// Something about each device, made when it is first asked for.
#[derive(Clone, Debug, Default)]
pub struct PerDevice<T>(Vec<T>);

impl<T: Clone + Default> PerDevice<T> {
    /// What is kept about a device.
    pub fn of(&mut self, device: u32) -> &mut T {
        let index = device as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, T::default());
        }
        &mut self.0[index]
    }

    /// What is kept about all devices seen.
    pub fn all(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Entries for tests: a log of things that happened to device 0, a second apart.

    use fleetcert_core::record::{Slot, Standing};
    use fleetcert_core::time::{Validity, Wall};

    use super::Check;
    use crate::event_log::{DurableRecord, Entry, Fact, Leaf, Mark};
    use crate::sim::clock::{At, BUILD_TIME, DAY_MS};

    /// What a checker says of facts that happened to device 0, each a second after the last.
    pub(crate) fn judge<C: Check>(checker: &mut C, facts: &[Fact]) -> Result<(), String> {
        let entries = facts.iter().zip(1..).map(|(fact, second)| (At(1000 * second), *fact));
        judge_at(checker, &entries.collect::<Vec<_>>())
    }

    /// The same, with the times given.
    pub(crate) fn judge_at<C: Check>(checker: &mut C, facts: &[(At, Fact)]) -> Result<(), String> {
        facts.iter().try_for_each(|(at, fact)| {
            checker.see(&Entry { at: *at, device: Some(0), fact: *fact })
        })
    }

    /// A certificate from the beginning, for thirty days.
    pub(crate) fn leaf(serial: u64, key: u64) -> Leaf {
        let validity = Validity { not_before: At(0).wall(), not_after: At(30 * DAY_MS).wall() };
        Leaf { serial: Mark(serial), key: Mark(key), validity }
    }

    /// A record with an identity in slot A.
    pub(crate) fn active(generation: u64, leaf: Leaf) -> DurableRecord {
        DurableRecord { active: Some((Slot::A, leaf)), named: [true, false], ..blank(generation) }
    }

    /// A record with nothing in it.
    pub(crate) fn blank(generation: u64) -> DurableRecord {
        DurableRecord {
            generation,
            standing: Standing::Member,
            active: None,
            named: [false, false],
            request: None,
            floor: BUILD_TIME,
        }
    }

    /// A wall clock that says so.
    pub(crate) fn clocks(wall: Option<Wall>) -> crate::event_log::Clocks {
        crate::event_log::Clocks { wall, synchronised: false }
    }
}
