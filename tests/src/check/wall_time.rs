//! No decision about validity without wall time.
//!
//! Only a device that can know the time may say that its certificate ran out, ask for another one
//! because it is time, or recover an expired one. It can know the time if the provisioner told it
//! since it booted, or if its own clock is not before a time that is certainly past. Of these the
//! checker takes the earliest that the durable record proves, so it may let a wrong decision pass,
//! and never blames a right one.
//!
//! A renewal that was commanded needs no clock, nor does the recovery of a revoked device, nor a
//! first enrollment.

use fleetcert_core::record::{Kind, Standing};
use fleetcert_core::time::Wall;

use super::{Check, PerDevice};
use crate::event_log::{Clocks, DurableRecord, Entry, Fact, Report};
use crate::sim::clock::BUILD_TIME;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// The provisioner told the time since the last boot.
    told: bool,
    floor: Wall,
    commanded: bool,
    quarantined: bool,
}

/// The checker.
#[derive(Debug, Default)]
pub struct WallTime {
    devices: PerDevice<State>,
}

impl Check for WallTime {
    const NAME: &'static str = "wall_time";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        let state = self.devices.of(device);
        match entry.fact {
            Fact::Answered { told: Some(told), .. } => {
                state.told |= told >= state.floor.max(BUILD_TIME);
            }
            Fact::Booted { .. } => state.told = false,
            Fact::Durable(record) => state.durable(&record),
            Fact::RenewCommanded => state.commanded = true,
            Fact::Reported { report: Report::Expired, clocks } if !state.knows(clocks) => {
                return Err(format!("said that it expired by {:?}", clocks.wall));
            }
            Fact::Reported { report: Report::Proven, .. } => state.commanded = false,
            Fact::Wanted { kind, clocks } if !state.may_want(kind, clocks) => {
                return Err(format!("wants a certificate ({kind:?}) by {:?}", clocks.wall));
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn durable(&mut self, record: &DurableRecord) {
        let not_before = record.active.map(|(_, leaf)| leaf.validity.not_before);
        self.floor = record.floor.max(not_before.unwrap_or_default());
        self.quarantined = record.standing == Standing::Quarantined;
    }

    fn knows(&self, clocks: Clocks) -> bool {
        self.told || clocks.wall.is_some_and(|wall| wall >= self.floor.max(BUILD_TIME))
    }

    fn may_want(&self, kind: Kind, clocks: Clocks) -> bool {
        match kind {
            Kind::First => true,
            Kind::Recover => self.quarantined || self.knows(clocks),
            Kind::Renew => self.commanded || self.knows(clocks),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::event::Operation;
    use fleetcert_core::record::Kind;
    use fleetcert_core::time::Wall;

    use super::WallTime;
    use crate::check::made_up::{active, clocks, judge, leaf};
    use crate::event_log::{Doing, Fact, Outcome, Report};
    use crate::sim::clock::At;

    fn expired(wall: Option<Wall>) -> Fact {
        Fact::Reported { report: Report::Expired, clocks: clocks(wall) }
    }

    fn wanted(kind: Kind, wall: Option<Wall>) -> Fact {
        Fact::Wanted { kind, clocks: clocks(wall) }
    }

    fn told(wall: Wall) -> Fact {
        let doing = Doing(Operation::Consult);
        Fact::Answered { doing, outcome: Outcome::Done, told: Some(wall) }
    }

    const BOOTED: Fact = Fact::Booted { generation: Some(1), readable: 2 };

    #[test]
    fn a_decision_by_a_clock_above_the_floor_or_by_the_provisioners_passes() {
        let record = Fact::Durable(active(1, leaf(1, 1)));
        let now = Some(At(5).wall());
        let facts = [record, expired(now), wanted(Kind::Renew, now), wanted(Kind::First, None)];
        assert_eq!(judge(&mut WallTime::default(), &facts), Ok(()));
        let facts = [record, told(At(5).wall()), expired(None), wanted(Kind::Recover, None)];
        assert_eq!(judge(&mut WallTime::default(), &facts), Ok(()));
        let facts = [record, Fact::RenewCommanded, wanted(Kind::Renew, None)];
        assert_eq!(judge(&mut WallTime::default(), &facts), Ok(()));
    }

    #[test]
    fn a_decision_without_a_clock_or_by_1970_is_seen() {
        let record = Fact::Durable(active(1, leaf(1, 1)));
        for wall in [None, Some(Wall(60))] {
            for fact in [expired(wall), wanted(Kind::Renew, wall), wanted(Kind::Recover, wall)] {
                assert!(judge(&mut WallTime::default(), &[record, fact]).is_err(), "{fact:?}");
            }
        }
    }

    #[test]
    fn what_was_told_before_a_restart_or_lies_below_the_floor_does_not_count() {
        let record = Fact::Durable(active(1, leaf(1, 1)));
        let facts = [record, told(At(5).wall()), BOOTED, record, expired(None)];
        assert!(judge(&mut WallTime::default(), &facts).is_err());
        assert!(judge(&mut WallTime::default(), &[record, told(Wall(5)), expired(None)]).is_err());
    }
}
