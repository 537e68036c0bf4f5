//! Inputs: what an answer changes.

use crate::event::{Event, Failure, Unfit};
use crate::policy::{
    self, CONSULT_WAIT_MS_MAX, FAILURES_MAX, QUARANTINE_WAIT_MS, RETRY_AFTER_S_MAX,
    RETRY_AFTER_S_MIN, RETRY_WAIT_LOCAL_MS_MAX, Window,
};
use crate::record::{Identity, KeySource, Retry, Serial, Slot, SlotState, Standing};
use crate::time::{Now, Wall};

use super::gate::Lane;
use super::{ActionId, BrokerProof, Command, Durable, InFlight, Input, Machine, Step, Unexpected};

impl Machine {
    /// Applies an input without planning what follows.
    pub(super) fn take(&mut self, now: Now, input: Input<'_>) -> Result<(), Unexpected> {
        let (id, server_time) = match input {
            Input::Command(command) => {
                self.command(command);
                return Ok(());
            }
            Input::Tick => return Ok(()),
            Input::Done { id } | Input::KeyReady { id, .. } => (id, None),
            Input::Consulted { id, server_time, .. }
            | Input::Enrolled { id, server_time, .. }
            | Input::Failed { id, server_time, .. }
            | Input::Proven { id, server_time, .. } => (id, server_time),
        };
        let step = self.answered(id, &input)?;
        self.learn_time(now, server_time);
        match (input, step) {
            (Input::Failed { failure, .. }, _) => self.failed(now, step, failure),
            (Input::Enrolled { identity, .. }, Step::Enroll(slot)) => {
                self.enrolled(now, slot, identity);
            }
            (Input::Proven { serial, broker, .. }, Step::Prove(slot)) => {
                self.proven(now, slot, serial, broker);
            }
            (input, _) => {
                self.succeeded(step);
                match input {
                    Input::KeyReady { spki_sha256, .. } => self.candidate_key = Some(spki_sha256),
                    Input::Consulted { window, retry_after_s, .. } => {
                        self.advised(now, window, retry_after_s);
                    }
                    _ => self.done(step),
                }
            }
        }
        Ok(())
    }

    /// The step that `id` names, if it is in flight, was polled, and `input` is its kind of answer.
    fn answered(&mut self, id: ActionId, input: &Input<'_>) -> Result<Step, Unexpected> {
        match self.in_flight {
            Some(InFlight { id: expected, step, polled: true })
                if expected == id && is_answer_to(input, step) =>
            {
                self.in_flight = None;
                Ok(step)
            }
            other => Err(Unexpected {
                expected: other.map(|in_flight| (in_flight.id, in_flight.step.operation())),
                found: id,
            }),
        }
    }

    fn succeeded(&mut self, step: Step) {
        self.gates.reset(step.lane());
        if self.last_failure.as_ref().is_some_and(|(failed, _)| *failed == step.operation()) {
            self.last_failure = None;
        }
    }

    fn command(&mut self, command: Command) {
        if self.record.standing == Standing::Decommissioned {
            return;
        }
        match command {
            Command::Renew => {
                self.renew_wanted = true;
                if self.record.standing == Standing::Member {
                    self.gates.reset(Lane::Candidate);
                }
            }
            Command::Decommission => self.decommission_wanted = true,
        }
    }

    fn learn_time(&mut self, now: Now, server_time: Option<Wall>) {
        if let Some(offered) = server_time
            && self.time.anchor(now.mono, offered).is_err()
        {
            self.report(Event::ClockRefused { offered });
        }
    }

    fn done(&mut self, step: Step) {
        match step {
            Step::Adopt(slot) => self.now_adopted(slot),
            Step::Release => self.adopted = None,
            Step::EraseKey(slot) => {
                self.swept[slot.index()] = true;
                if self.swept == [true; 2] && self.record.standing == Standing::Decommissioned {
                    self.report(Event::Decommissioned);
                }
            }
            Step::Persist => {
                if self.durable.active != self.record.active {
                    // Another identity: what kept the old one from use says nothing about it.
                    self.gates.reset(Lane::Use);
                }
                self.dirty = false;
                self.durable = Durable::of(&self.record);
                if let Some(event) = self.announcement.take() {
                    self.report(event);
                }
            }
            Step::Consult(_) | Step::Enroll(_) | Step::EnsureKey(..) | Step::Prove(_) => {}
        }
    }

    fn now_adopted(&mut self, slot: Slot) {
        self.adopted = Some(slot);
        self.active_lost = false;
        if let Some(serial) = self.record.identity(slot).map(|identity| identity.serial.clone()) {
            self.report(Event::Adopted { slot, serial });
        }
    }

    fn enrolled(&mut self, now: Now, slot: Slot, identity: &Identity) {
        let step = Step::Enroll(slot);
        if let Err(unfit) = self.check(now, identity) {
            self.failed(now, step, Failure::CertificateUnfit(unfit));
            return;
        }
        self.succeeded(step);
        let discarded = self.record.retry.discarded;
        let failures = discarded.saturating_mul(policy::REFUSALS_MAX).min(FAILURES_MAX);
        self.record.retry = Retry { failures, discarded, not_before: None };
        self.record.slot_mut(slot).certify().copy_from(identity);
        self.time.raise_floor(identity.validity.not_before);
        self.candidate_key = None;
        self.refusals = 0;
        self.dirty = true;
        let (serial, not_after) = (identity.serial.clone(), identity.validity.not_after);
        self.announcement = Some(Event::Enrolled { slot, serial, not_after });
    }

    fn check(&self, now: Now, identity: &Identity) -> Result<(), Unfit> {
        if self.candidate_key != Some(identity.spki_sha256) {
            return Err(Unfit::Key);
        }
        let not_after = identity.validity.not_after;
        match self.reading(now).wall {
            Some(time) if time > not_after => Err(Unfit::Expired { time, not_after }),
            _ => Ok(()),
        }
    }

    fn proven(&mut self, now: Now, slot: Slot, serial: &Serial, broker: BrokerProof) {
        let step = Step::Prove(slot);
        if self.record.identity(slot).is_none_or(|identity| identity.serial != *serial) {
            self.failed(now, step, Failure::WrongCertificateSeen);
            return;
        }
        // With the old identity still good, a broker that is away can be waited for.
        if broker == BrokerProof::Unreachable && self.active_is_usable(now) {
            self.failed(now, step, Failure::Unreachable);
            return;
        }
        self.succeeded(step);
        self.switch_to(slot, now);
        self.announcement = Some(Event::Proven { slot, serial: serial.clone() });
    }

    fn switch_to(&mut self, slot: Slot, now: Now) {
        *self.record.slot_mut(slot.other()) = SlotState::Empty;
        self.swept[slot.other().index()] = false;
        self.record.active = Some(slot);
        self.record.standing = Standing::Member;
        self.record.retry = Retry::default();
        self.active_lost = false;
        self.renew_wanted = false;
        self.expiry_told = false;
        self.refusals = 0;
        self.consult_at = now.mono;
        self.dirty = true;
        self.reschedule(None);
    }

    fn advised(&mut self, now: Now, window: Option<Window>, retry_after_s: u32) {
        let wait_s = retry_after_s.clamp(RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX);
        self.consult_at = now.mono.plus_ms((1000 * wait_s).into());
        self.reschedule(window);
    }

    fn failed(&mut self, now: Now, step: Step, failure: Failure) {
        match (&failure, step) {
            (Failure::Revoked, Step::Enroll(_) | Step::Prove(_) | Step::Consult(_)) => {
                self.quarantine(step);
            }
            (Failure::KeyLost, Step::Adopt(_) | Step::EnsureKey(_, KeySource::Other)) => {
                self.active_lost = true;
            }
            (Failure::KeyLost, Step::Prove(slot)) => self.discard(slot),
            // The key in use may be the lost one: adopting it again will tell.
            (Failure::KeyLost, Step::Consult(_)) => self.adopted = None,
            (Failure::KeyLost, Step::Enroll(slot)) => {
                self.discard(slot);
                self.adopted = None;
            }
            (_, Step::Prove(_) | Step::Enroll(_)) if is_verdict(&failure) => {
                self.refusals = self.refusals.saturating_add(1);
            }
            _ => {}
        }
        let wait_ms = self.close_gate(now, step, &failure);
        self.last_failure = Some((step.operation(), failure.clone()));
        let retry_in_s = wait_ms.div_ceil(1000);
        self.report(Event::Failed { operation: step.operation(), failure, retry_in_s });
    }

    /// Closes the lane for the next wait, and returns that wait in milliseconds.
    fn close_gate(&mut self, now: Now, step: Step, failure: &Failure) -> u32 {
        let lane = step.lane();
        let uniform = self.entropy.uniform();
        let failures = self.gates.count(lane);
        let wait_ms = match lane {
            Lane::Candidate => self.candidate_wait_ms(now, step, failure, uniform),
            Lane::Consult if failure.is_retryable() => {
                policy::retry_wait_ms(failure, failures, self.consult_wait_ms_max(now), uniform)
            }
            Lane::Consult => self.consult_wait_ms_max(now),
            Lane::Erase | Lane::Storage | Lane::Use => {
                policy::retry_wait_ms(failure, failures, RETRY_WAIT_LOCAL_MS_MAX, uniform)
            }
        };
        self.gates.close(lane, now.mono.plus_ms(wait_ms.into()));
        wait_ms
    }

    /// Advice does not get more urgent while the identity in use runs out; the time does, for a
    /// device that does not know it.
    fn consult_wait_ms_max(&self, now: Now) -> u32 {
        match self.reading(now).wall {
            Some(_) => CONSULT_WAIT_MS_MAX,
            None => policy::RETRY_WAIT_URGENT_MS_MAX,
        }
    }

    /// The wait of the identity on its way; its count of failures survives restarts.
    fn candidate_wait_ms(&mut self, now: Now, step: Step, failure: &Failure, uniform: u64) -> u32 {
        let before = self.record.retry;
        let failures = before.failures.saturating_add(1).min(FAILURES_MAX);
        let wait_ms = if self.record.standing == Standing::Quarantined {
            QUARANTINE_WAIT_MS
        } else if matches!((step, failure), (Step::Enroll(_), Failure::Unreachable)) {
            policy::request_backoff_ms(failures, self.urgency(now), uniform)
        } else {
            policy::retry_wait_ms(failure, failures, self.urgency(now).wait_ms_max(), uniform)
        };
        let wall = self.reading(now).wall;
        let asked = failure.retry_after_s().and(wall);
        let not_before = asked.map(|wall| wall.plus_s(wait_ms.div_ceil(1000).into()));
        self.record.retry = Retry { failures, not_before, ..before };
        self.dirty |= self.record.retry != before;
        wait_ms
    }

    fn quarantine(&mut self, step: Step) {
        if let Step::Prove(slot) = step {
            self.discard(slot);
        }
        if self.record.standing == Standing::Member {
            self.record.standing = Standing::Quarantined;
            self.dirty = true;
            self.announcement = Some(Event::Quarantined);
        }
    }

    /// After a restart: the wait that was left, as far as it can be known.
    pub(super) fn resume_retry(&mut self, now: Now) {
        let Retry { failures, not_before, .. } = self.record.retry;
        if failures == 0 {
            return;
        }
        let wait_ms = match (not_before, self.reading(now).wall) {
            (Some(then), Some(wall)) => {
                let wait_s = u32::try_from(then.s_since(wall)).unwrap_or(u32::MAX);
                1000 * wait_s.min(RETRY_AFTER_S_MAX)
            }
            _ => {
                let uniform = self.entropy.uniform();
                policy::backoff_ms(failures, self.urgency(now).wait_ms_max(), uniform)
            }
        };
        self.gates.close(Lane::Candidate, now.mono.plus_ms(wait_ms.into()));
    }
}

/// Whether an input is of the kind that answers a step.
const fn is_answer_to(input: &Input<'_>, step: Step) -> bool {
    match step {
        _ if matches!(input, Input::Failed { .. }) => true,
        Step::Adopt(_) | Step::EraseKey(_) | Step::Persist | Step::Release => {
            matches!(input, Input::Done { .. })
        }
        Step::Consult(_) => matches!(input, Input::Consulted { .. }),
        Step::Enroll(_) => matches!(input, Input::Enrolled { .. }),
        Step::EnsureKey(..) => matches!(input, Input::KeyReady { .. }),
        Step::Prove(_) => matches!(input, Input::Proven { .. }),
    }
}

/// Whether a failure says something about the request or the identity that met it, so that
/// another one may fare better.
///
/// A handshake that was refused says nothing: a broker whose CRL expired refuses everybody, and a
/// new certificate for each would help nobody.
const fn is_verdict(failure: &Failure) -> bool {
    match failure {
        Failure::AnswerMalformed
        | Failure::CertificateUnfit(_)
        | Failure::Refused { .. }
        | Failure::WrongCertificateSeen => true,
        Failure::Busy { .. }
        | Failure::KeyLost
        | Failure::KeyUnavailable
        | Failure::OurIdentityRefused
        | Failure::Pending { .. }
        | Failure::Revoked
        | Failure::ServerUntrusted
        | Failure::StorageUnavailable
        | Failure::Unreachable => false,
    }
}
