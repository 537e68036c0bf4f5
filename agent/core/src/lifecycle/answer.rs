//! Inputs: what an answer changes.

use crate::event::{Event, Failure, Unfit};
use crate::policy::{
    self, CONSULT_WAIT_MS_MAX, FAILURES_MAX, QUARANTINE_WAIT_MS, RETRY_AFTER_S_MAX,
    RETRY_AFTER_S_MIN, RETRY_WAIT_LOCAL_MS_MAX, Window,
};
use crate::record::{Identity, KeySource, Retry, Serial, Slot, SlotState, Standing};
use crate::time::{Now, Wall};

use super::gate::Lane;
use super::{ActionId, BrokerProof, Command, Durable, Input, Machine, Step, Unexpected};

impl Machine {
    /// Applies an input without planning what follows.
    pub(super) fn take(&mut self, now: Now, input: Input<'_>) -> Result<(), Unexpected> {
        match input {
            Input::Command(command) => self.command(command),
            Input::Tick => {}
            Input::Failed { id, failure, server_time } => {
                let step = self.answered(id, |_| true)?;
                self.learn_time(now, server_time);
                self.failed(now, step, failure);
            }
            Input::Done { id } => {
                let step = self.answered(id, is_plain)?;
                self.succeeded(step);
                self.done(step);
            }
            Input::KeyReady { id, spki_sha256 } => {
                let step = self.answered(id, |step| matches!(step, Step::EnsureKey(..)))?;
                self.succeeded(step);
                self.candidate_key = Some(spki_sha256);
            }
            Input::Enrolled { id, identity, server_time } => {
                let step = self.answered(id, |step| matches!(step, Step::Enroll(..)))?;
                self.learn_time(now, server_time);
                self.enrolled(now, step, identity);
            }
            Input::Proven { id, serial, broker, server_time } => {
                let step = self.answered(id, |step| matches!(step, Step::Prove(_)))?;
                self.learn_time(now, server_time);
                self.proven(now, step, serial, broker);
            }
            Input::Consulted { id, window, retry_after_s, server_time } => {
                let step = self.answered(id, |step| matches!(step, Step::Consult(_)))?;
                self.learn_time(now, server_time);
                self.succeeded(step);
                self.advised(now, window, retry_after_s);
            }
        }
        Ok(())
    }

    /// The step that `id` names, if it is in flight, was polled, and this is its kind of answer.
    fn answered(&mut self, id: ActionId, fits: fn(Step) -> bool) -> Result<Step, Unexpected> {
        match self.in_flight {
            Some(in_flight) if in_flight.polled && in_flight.id == id && fits(in_flight.step) => {
                self.in_flight = None;
                Ok(in_flight.step)
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
            Step::Consult(_) | Step::Enroll(..) | Step::EnsureKey(..) | Step::Prove(_) => {}
        }
    }

    fn now_adopted(&mut self, slot: Slot) {
        self.adopted = Some(slot);
        self.active_lost = false;
        if let Some(serial) = self.record.identity(slot).map(|identity| identity.serial.clone()) {
            self.report(Event::Adopted { slot, serial });
        }
    }

    fn enrolled(&mut self, now: Now, step: Step, identity: &Identity) {
        let Step::Enroll(slot, _) = step else { return };
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

    fn proven(&mut self, now: Now, step: Step, serial: &Serial, broker: BrokerProof) {
        let Step::Prove(slot) = step else { return };
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
        self.consult_at = now.mono.plus_ms(1000 * u64::from(wait_s));
        self.reschedule(window);
    }

    fn failed(&mut self, now: Now, step: Step, failure: Failure) {
        match (&failure, step) {
            (Failure::Revoked, Step::Enroll(..) | Step::Prove(_) | Step::Consult(_)) => {
                self.quarantine(step);
            }
            (Failure::KeyLost, Step::Adopt(_) | Step::EnsureKey(_, KeySource::Other)) => {
                self.active_lost = true;
            }
            (Failure::KeyLost, Step::Prove(slot)) => self.discard(slot),
            // The key in use may be the lost one: adopting it again will tell.
            (Failure::KeyLost, Step::Consult(_)) => self.adopted = None,
            (Failure::KeyLost, Step::Enroll(slot, _)) => {
                self.discard(slot);
                self.adopted = None;
            }
            (_, Step::Prove(_) | Step::Enroll(..)) if is_verdict(&failure) => {
                self.refusals = self.refusals.saturating_add(1);
            }
            _ => {}
        }
        let wait_ms = self.close_gate(now, step, &failure);
        self.last_failure = Some((step.operation(), failure.clone()));
        let retry_in_s = u32::try_from(wait_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        self.report(Event::Failed { operation: step.operation(), failure, retry_in_s });
    }

    /// Closes the lane for the next wait, and returns that wait in milliseconds.
    fn close_gate(&mut self, now: Now, step: Step, failure: &Failure) -> u64 {
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
        self.gates.close(lane, now.mono.plus_ms(wait_ms));
        wait_ms
    }

    /// Advice does not get more urgent while the identity in use runs out; the time does, for a
    /// device that does not know it.
    fn consult_wait_ms_max(&self, now: Now) -> u64 {
        match self.reading(now).wall {
            Some(_) => CONSULT_WAIT_MS_MAX,
            None => policy::RETRY_WAIT_URGENT_MS_MAX,
        }
    }

    /// The wait of the identity on its way; its count of failures survives restarts.
    fn candidate_wait_ms(&mut self, now: Now, step: Step, failure: &Failure, uniform: u64) -> u64 {
        let before = self.record.retry;
        let failures = before.failures.saturating_add(1).min(FAILURES_MAX);
        let wait_ms = if self.record.standing == Standing::Quarantined {
            QUARANTINE_WAIT_MS
        } else if matches!((step, failure), (Step::Enroll(..), Failure::Unreachable)) {
            policy::request_backoff_ms(failures, self.urgency(now), uniform)
        } else {
            policy::retry_wait_ms(failure, failures, self.urgency(now).wait_ms_max(), uniform)
        };
        let wall = self.reading(now).wall;
        let asked = failure.retry_after_s().and(wall);
        let not_before = asked.map(|wall| wall.plus_s(wait_ms.div_ceil(1000)));
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
            (Some(then), Some(wall)) => 1000 * then.s_since(wall).min(u64::from(RETRY_AFTER_S_MAX)),
            _ => {
                let uniform = self.entropy.uniform();
                policy::backoff_ms(failures, self.urgency(now).wait_ms_max(), uniform)
            }
        };
        self.gates.close(Lane::Candidate, now.mono.plus_ms(wait_ms));
    }
}

const fn is_plain(step: Step) -> bool {
    matches!(step, Step::Adopt(_) | Step::EraseKey(_) | Step::Persist | Step::Release)
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
