//! Bounded steps in each virtual minute: no device spins.
//!
//! A step is an action asked for or a timer that went off. The busiest honest minute is a restart
//! into a first enrollment on a bad network: two erasures, adoption, key, requests with a growing
//! wait, each with a save of its count. That stays below half the limit.

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact};
use crate::sim::clock::MINUTE_MS;

/// Steps of one device in one minute, at most.
pub const STEPS_PER_MINUTE_MAX: u32 = 60;

/// Beyond this the run is ended: the device would never leave the instant.
const STUCK_STEPS: u32 = 10_000;

/// The checker.
#[derive(Debug, Default)]
pub struct Progress {
    devices: PerDevice<(u64, u32)>,
    /// Whether a device spins in one minute for ever.
    pub stuck: bool,
}

impl Check for Progress {
    const NAME: &'static str = "progress";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let (Some(device), Fact::Acted { .. } | Fact::Ticked { .. }) = (entry.device, entry.fact)
        else {
            return Ok(());
        };
        let (minute, steps) = self.devices.of(device);
        let now = entry.at.0 / MINUTE_MS;
        if *minute != now {
            (*minute, *steps) = (now, 0);
        }
        *steps += 1;
        self.stuck |= *steps > STUCK_STEPS;
        if *steps == STEPS_PER_MINUTE_MAX + 1 {
            return Err(format!("more than {STEPS_PER_MINUTE_MAX} steps in one minute"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Progress, STEPS_PER_MINUTE_MAX};
    use crate::check::made_up::judge_at;
    use crate::event_log::Fact;
    use crate::sim::clock::{At, MINUTE_MS};

    const TICK: Fact = Fact::Ticked { timer: "idle" };

    #[test]
    fn as_many_steps_as_allowed_in_each_minute_pass() {
        let steps = u64::from(STEPS_PER_MINUTE_MAX);
        let facts: Vec<_> =
            (0..3 * steps).map(|step| (At(step * MINUTE_MS / steps), TICK)).collect();
        assert_eq!(judge_at(&mut Progress::default(), &facts), Ok(()));
    }

    #[test]
    fn a_device_that_spins_is_seen() {
        let facts = vec![(At(0), TICK); STEPS_PER_MINUTE_MAX as usize + 1];
        assert!(judge_at(&mut Progress::default(), &facts).is_err());
    }
}
