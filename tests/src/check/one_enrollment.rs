//! One unanswered enrollment a device.
//!
//! A request is sent only while no other is under way in this run of the machine, and only if it is
//! the one that the durable record names. The second half is what makes the first one survive a
//! power cut: after a restart the same request is sent again, never a second one beside it.

use fleetcert_core::event::Operation;

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact, Mark};

#[derive(Clone, Copy, Debug, Default)]
struct State {
    under_way: Option<Mark>,
    durable: Option<Mark>,
}

/// The checker.
#[derive(Debug, Default)]
pub struct OneEnrollment {
    devices: PerDevice<State>,
}

impl Check for OneEnrollment {
    const NAME: &'static str = "one_enrollment";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(device) = entry.device else { return Ok(()) };
        let state = self.devices.of(device);
        match entry.fact {
            Fact::Answered { doing, .. } if doing.0 == Operation::Enroll => state.under_way = None,
            Fact::Booted { .. } => *state = State::default(),
            Fact::Durable(record) => state.durable = record.request,
            Fact::Sent { request, .. } => return state.sent(request),
            _ => {}
        }
        Ok(())
    }
}

impl State {
    fn sent(&mut self, request: Mark) -> Result<(), String> {
        let State { under_way, durable } = *self;
        self.under_way = Some(request);
        if let Some(earlier) = under_way {
            return Err(format!("sent {request:?} while {earlier:?} is unanswered"));
        }
        if durable != Some(request) {
            return Err(format!("sent {request:?}, the durable record has {durable:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::event::Operation;
    use fleetcert_core::record::Kind;

    use super::OneEnrollment;
    use crate::check::made_up::{blank, clocks, judge};
    use crate::event_log::{Doing, DurableRecord, Fact, Mark, Outcome};

    fn sent(request: u64) -> Fact {
        Fact::Sent { request: Mark(request), kind: Kind::First, clocks: clocks(None) }
    }

    fn durable(request: u64) -> Fact {
        Fact::Durable(DurableRecord { request: Some(Mark(request)), ..blank(1) })
    }

    const ANSWERED: Fact = Fact::Answered {
        doing: Doing(Operation::Enroll),
        outcome: Outcome::Failed("unreachable"),
        told: None,
    };

    #[test]
    fn a_durable_request_may_be_sent_again_once_it_was_answered_or_the_device_restarted() {
        let restart = Fact::Booted { generation: Some(1), readable: 2 };
        let facts = [durable(1), sent(1), ANSWERED, sent(1), restart, durable(1), sent(1)];
        assert_eq!(judge(&mut OneEnrollment::default(), &facts), Ok(()));
    }

    #[test]
    fn a_request_beside_an_unanswered_one_is_seen() {
        let facts = [durable(1), sent(1), sent(1)];
        assert!(judge(&mut OneEnrollment::default(), &facts).is_err());
    }

    #[test]
    fn a_request_that_is_not_the_durable_one_is_seen() {
        let facts = [durable(1), sent(2)];
        assert!(judge(&mut OneEnrollment::default(), &facts).is_err());
        assert!(judge(&mut OneEnrollment::default(), &[sent(2)]).is_err());
    }
}
