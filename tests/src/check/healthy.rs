//! Everybody is well within a bound after all faults healed.
//!
//! Once nothing goes wrong any more, each device has power, a durable identity that is valid by
//! true time, and a broker connection with exactly that certificate: after four days
//! ([`RECOVERY_MS`](crate::sim::world::RECOVERY_MS)) and still at the end of the run. Excused are
//! devices that an operator revoked and those whose durable record says that they were
//! decommissioned.

use fleetcert_core::record::Standing;

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact};

#[derive(Clone, Copy, Debug, Default)]
struct State {
    revoked: bool,
    decommissioned: bool,
}

/// The checker.
#[derive(Debug, Default)]
pub struct Healthy {
    devices: PerDevice<State>,
}

impl Check for Healthy {
    const NAME: &'static str = "healthy";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        let state = self.devices.of(device);
        match entry.fact {
            Fact::Revoked => state.revoked = true,
            Fact::Durable(record) => {
                state.decommissioned = record.standing == Standing::Decommissioned;
            }
            Fact::Health { powered, active, connected }
                if !state.revoked && !state.decommissioned =>
            {
                let now = entry.at.wall();
                let valid = active.is_some_and(|leaf| !leaf.validity.is_expired_at(now));
                if !(powered && valid && connected) {
                    return Err(format!(
                        "is not well: powered {powered}, valid {valid}, connected {connected}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::record::Standing;

    use super::Healthy;
    use crate::check::made_up::{blank, judge, judge_at, leaf};
    use crate::event_log::{DurableRecord, Fact};
    use crate::sim::clock::{At, DAY_MS};

    const WELL: Fact = Fact::Health { powered: true, active: None, connected: true };

    #[test]
    fn a_connected_device_with_a_valid_identity_is_well() {
        let well = Fact::Health { powered: true, active: Some(leaf(1, 1)), connected: true };
        assert_eq!(judge(&mut Healthy::default(), &[well]), Ok(()));
        assert!(judge_at(&mut Healthy::default(), &[(At(31 * DAY_MS), well)]).is_err());
    }

    #[test]
    fn a_device_without_power_identity_or_connection_is_seen() {
        let active = Some(leaf(1, 1));
        for (powered, active, connected) in
            [(false, active, true), (true, None, true), (true, active, false)]
        {
            let ill = Fact::Health { powered, active, connected };
            assert!(judge(&mut Healthy::default(), &[ill]).is_err(), "{ill:?}");
        }
    }

    #[test]
    fn the_revoked_and_the_decommissioned_are_excused() {
        let record = DurableRecord { standing: Standing::Decommissioned, ..blank(1) };
        for excuse in [Fact::Revoked, Fact::Durable(record)] {
            assert_eq!(judge(&mut Healthy::default(), &[excuse, WELL]), Ok(()));
        }
        assert!(judge(&mut Healthy::default(), &[Fact::Decommissioned, WELL]).is_err());
    }
}
