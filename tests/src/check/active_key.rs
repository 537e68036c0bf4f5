//! The active key exists and is the one in the certificate.
//!
//! Whenever a record is durable that has an identity in use, the key store holds, in that slot, the
//! key that the certificate is for. A key that a fault took from the store is excused until a new
//! one is made there: no software can keep what the hardware lost.

use fleetcert_core::record::Slot;

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact, Leaf, Mark};

/// What a device's key store holds, and what its record names.
#[derive(Clone, Debug, Default)]
struct State {
    held: [Option<Mark>; 2],
    lost: [bool; 2],
    active: Option<(Slot, Leaf)>,
}

/// The checker.
#[derive(Debug, Default)]
pub struct ActiveKey {
    devices: PerDevice<State>,
}

impl Check for ActiveKey {
    const NAME: &'static str = "active_key";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        let state = self.devices.of(device);
        match entry.fact {
            Fact::KeyHeld { slot, key } => {
                state.held[slot.index()] = Some(key);
                state.lost[slot.index()] = false;
            }
            Fact::KeyErased { slot, .. } => state.held[slot.index()] = None,
            Fact::KeyLost { slot } => {
                state.held[slot.index()] = None;
                state.lost[slot.index()] = true;
            }
            Fact::Durable(record) => state.active = record.active,
            _ => return Ok(()),
        }
        state.judge()
    }
}

impl State {
    fn judge(&self) -> Result<(), String> {
        let Some((slot, leaf)) = self.active else { return Ok(()) };
        let held = self.held[slot.index()];
        if held == Some(leaf.key) || self.lost[slot.index()] {
            return Ok(());
        }
        Err(format!("slot {} holds {held:?}, its certificate is for {:?}", slot.as_str(), leaf.key))
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::record::Slot;

    use super::ActiveKey;
    use crate::check::made_up::{active, judge, leaf};
    use crate::event_log::{Fact, Mark};

    const HELD: Fact = Fact::KeyHeld { slot: Slot::A, key: Mark(1) };

    #[test]
    fn a_key_that_is_there_and_matches_passes() {
        let facts = [HELD, Fact::Durable(active(1, leaf(9, 1)))];
        assert_eq!(judge(&mut ActiveKey::default(), &facts), Ok(()));
    }

    #[test]
    fn an_active_certificate_for_another_key_is_seen() {
        let facts = [HELD, Fact::Durable(active(1, leaf(9, 2)))];
        assert!(judge(&mut ActiveKey::default(), &facts).is_err());
    }

    #[test]
    fn an_active_key_that_was_erased_is_seen() {
        let erased = Fact::KeyErased { slot: Slot::A, named: false };
        let facts = [HELD, Fact::Durable(active(1, leaf(9, 1))), erased];
        assert!(judge(&mut ActiveKey::default(), &facts).is_err());
    }

    #[test]
    fn a_key_that_a_fault_took_is_excused_until_another_takes_its_place() {
        let lost = Fact::KeyLost { slot: Slot::A };
        let facts = [HELD, Fact::Durable(active(1, leaf(9, 1))), lost];
        let mut checker = ActiveKey::default();
        assert_eq!(judge(&mut checker, &facts), Ok(()));
        let other = Fact::KeyHeld { slot: Slot::A, key: Mark(3) };
        assert!(judge(&mut checker, &[other]).is_err());
    }
}
