//! Renewals are late only when something kept the device from renewing.
//!
//! The policy puts every renewal before the last tenth of a certificate's life, whatever anybody
//! hints, and lets no retry wait longer than a day. So, counted from whichever is later, the
//! beginning of that last tenth or the end of the last thing that kept the device from its peers, a
//! new identity is durable within a day and two hours for the exchange itself.
//!
//! What counts as keeping: no power, network, provisioner, broker, disk or key store; a wrong
//! clock; sleep; a lost message or key; and a refusal or wait that an operator has to end. Revoked
//! and decommissioned devices are not renewed.

use fleetcert_core::record::Standing;

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact, Leaf};
use crate::sim::clock::{At, BEGINNING, HOUR_MS};

/// How late a renewal may be, milliseconds.
pub const LATE_MS_MAX: u64 = 26 * HOUR_MS;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    leaf: Option<Leaf>,
    kept_until: At,
    excused: bool,
    told: bool,
}

/// The checker.
#[derive(Debug, Default)]
pub struct LateRenewal {
    devices: PerDevice<State>,
    /// What keeps everybody.
    all_kept_until: At,
}

impl Check for LateRenewal {
    const NAME: &'static str = "late_renewal";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else {
            if let Fact::Impaired { until, .. } = entry.fact {
                self.all_kept_until = self.all_kept_until.max(until);
            }
            return Ok(());
        };
        let all_kept_until = self.all_kept_until;
        let state = self.devices.of(device);
        let at = entry.at;
        match entry.fact {
            Fact::Impaired { until, .. } => state.kept_until = state.kept_until.max(until),
            Fact::Booted { .. }
            | Fact::CopyDamaged
            | Fact::KeyLost { .. }
            | Fact::MessageLost
            | Fact::Pending
            | Fact::Refused { .. } => state.kept_until = state.kept_until.max(at),
            Fact::Revoked => state.excused = true,
            Fact::Acted { .. } | Fact::Health { .. } => return state.judge(at, all_kept_until),
            Fact::Durable(record) => {
                let late = state.judge(at, all_kept_until);
                let leaf = record.active.map(|(_, leaf)| leaf);
                if state.leaf != leaf {
                    (state.leaf, state.told) = (leaf, false);
                }
                state.excused |= record.standing == Standing::Decommissioned;
                return late;
            }
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn judge(&mut self, at: At, all_kept_until: At) -> Result<(), String> {
        let Some(leaf) = self.leaf else { return Ok(()) };
        let latest = leaf.validity.not_after.minus_s(leaf.validity.lifetime_s() / 10);
        let latest = At(1000 * latest.s_since(BEGINNING));
        let late_ms = at.ms_since(latest.max(self.kept_until).max(all_kept_until));
        if late_ms <= LATE_MS_MAX || self.excused || self.told {
            return Ok(());
        }
        self.told = true;
        Err(format!("certificate {:?} is {} h late", leaf.serial, late_ms / HOUR_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::{LATE_MS_MAX, LateRenewal};
    use crate::check::made_up::{active, judge_at, leaf};
    use crate::event_log::{Fact, Impairment};
    use crate::sim::clock::{At, DAY_MS};

    const FIRST: Fact = Fact::Health { powered: true, active: None, connected: true };
    const LATEST: At = At(27 * DAY_MS);

    fn old() -> (At, Fact) {
        (At(0), Fact::Durable(active(1, leaf(1, 1))))
    }

    #[test]
    fn a_renewal_within_the_bound_passes_and_one_beyond_is_seen() {
        let renewed = Fact::Durable(active(2, leaf(2, 2)));
        let in_time = LATEST.plus_ms(LATE_MS_MAX);
        let facts = [old(), (in_time, renewed), (in_time.plus_ms(1), FIRST)];
        assert!(judge_at(&mut LateRenewal::default(), &facts[..2]).is_ok());
        let late = [old(), (in_time.plus_ms(1), renewed)];
        assert!(judge_at(&mut LateRenewal::default(), &late).is_err());
        let never = [old(), (in_time.plus_ms(1), FIRST)];
        assert!(judge_at(&mut LateRenewal::default(), &never).is_err());
    }

    #[test]
    fn what_keeps_a_device_moves_the_bound_by_as_long_as_it_lasts() {
        let until = LATEST.plus_ms(DAY_MS);
        let kept = (At(1), Fact::Impaired { by: Impairment::Partition, until });
        let at = |ms| (until.plus_ms(LATE_MS_MAX + ms), FIRST);
        assert!(judge_at(&mut LateRenewal::default(), &[old(), kept, at(0)]).is_ok());
        assert!(judge_at(&mut LateRenewal::default(), &[old(), kept, at(1)]).is_err());
    }

    #[test]
    fn a_revoked_device_is_not_renewed() {
        let facts = [old(), (At(1), Fact::Revoked), (At(40 * DAY_MS), FIRST)];
        assert!(judge_at(&mut LateRenewal::default(), &facts).is_ok());
    }
}
