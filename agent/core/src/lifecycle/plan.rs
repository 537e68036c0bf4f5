//! What next: the comparison of what is with what should be.

use crate::event::Event;
use crate::policy::{FLOOR_STEP_S, IDLE_MS_MAX, REFUSALS_MAX, Urgency};
use crate::record::{KeySource, Kind, Request, Slot, SlotState, Standing};
use crate::time::{Mono, Now, Wall};

use super::gate::Lane;
use super::{ActionId, InFlight, Machine, Step, Timer};

impl Machine {
    /// Names the next action, or else the instant at which there may be one.
    pub(super) fn plan(&mut self, now: Now) {
        self.deadline = None;
        if self.in_flight.is_some() {
            return;
        }
        self.look_at_the_clock(now);
        self.settle(now);
        if self.is_over() {
            return;
        }
        self.look_again(now.mono.plus_ms(IDLE_MS_MAX), Timer::Idle);
        let step = self
            .next_use(now)
            .or_else(|| self.next_persist(now))
            .or_else(|| self.next_erasure(now))
            .or_else(|| self.next_of_candidate(now))
            .or_else(|| self.next_consult(now));
        if let Some(step) = step {
            self.begin(step);
        }
    }

    fn begin(&mut self, step: Step) {
        if step == Step::Persist {
            self.record.generation += 1;
            self.record.floor = self.time.floor();
        }
        self.last_id = self.last_id.wrapping_add(1);
        self.in_flight = Some(InFlight { id: ActionId(self.last_id), step, polled: false });
        self.deadline = None;
    }

    #[inline(never)]
    fn look_again(&mut self, at: Mono, timer: Timer) {
        if self.deadline.is_none_or(|(earlier, _)| at < earlier) {
            self.deadline = Some((at, timer));
        }
    }

    /// Whether the lane may go now; otherwise notes when.
    #[inline(never)]
    fn may(&mut self, lane: Lane, timer: Timer, now: Now) -> bool {
        let open = self.gates.is_open(lane, now.mono);
        if !open {
            self.look_again(self.gates.closed_until(lane), timer);
        }
        open
    }

    fn is_over(&self) -> bool {
        self.durable.standing == Standing::Decommissioned
            && self.adopted.is_none()
            && self.swept == [true; 2]
    }

    fn look_at_the_clock(&mut self, now: Now) {
        let wall = self.reading(now).wall;
        if self.clock_known.replace(wall.is_some()) != Some(wall.is_some()) {
            self.report(Event::ClockJudged { known: wall.is_some() });
        }
        let not_after = self.schedule.map(|schedule| schedule.not_after);
        if let (Some(time), Some(not_after)) = (wall, not_after) {
            let expired = time > not_after;
            if expired && !self.expiry_told {
                self.report(Event::Expired { time, not_after });
            }
            self.expiry_told = expired;
        }
        let floor = self.time.floor();
        if floor.s_since(self.durable.floor) >= FLOOR_STEP_S {
            self.dirty = true;
        }
    }

    /// Changes of the record that follow from what is known, without anybody's answer.
    fn settle(&mut self, now: Now) {
        if self.record.standing == Standing::Decommissioned {
            return;
        }
        if self.decommission_wanted {
            self.decommission();
            return;
        }
        match self.record.candidate() {
            None => self.settle_without_candidate(now),
            Some(slot) => self.settle_candidate(slot, now),
        }
    }

    fn decommission(&mut self) {
        self.record.standing = Standing::Decommissioned;
        self.record.active = None;
        self.record.slots = [SlotState::Empty, SlotState::Empty];
        self.swept = [false; 2];
        self.candidate_key = None;
        self.dirty = true;
        self.reschedule(None);
    }

    fn settle_without_candidate(&mut self, now: Now) {
        let clean = |slot: Slot| self.record.names(slot) || self.swept[slot.index()];
        if !self.wants_identity(now) || self.dirty || !Slot::ALL.into_iter().all(clean) {
            return;
        }
        let spare = self.record.spare();
        let kind = self.kind(now);
        let active = if kind == Kind::First { None } else { self.record.active };
        let source = self.policy.key_source(active);
        let id = self.entropy.request_id();
        *self.record.slot_mut(spare) = SlotState::Requesting(Request { id, kind, source });
        self.candidate_key = None;
        self.dirty = true;
        self.announcement = Some(Event::Requested { slot: spare, kind });
    }

    fn settle_candidate(&mut self, slot: Slot, now: Now) {
        if self.refusals >= REFUSALS_MAX {
            self.discard(slot);
            return;
        }
        let kind = self.kind(now);
        match self.record.slot_mut(slot) {
            SlotState::Requesting(request) => {
                // The current certificate cannot authenticate any more, or can again.
                if (request.kind == Kind::First) != (kind == Kind::First) {
                    request.kind = kind;
                    if kind == Kind::First {
                        request.source = KeySource::Fresh;
                    }
                    self.dirty = true;
                }
            }
            SlotState::Certified(identity) => {
                let validity = identity.validity;
                let wall = self.reading(now).wall;
                let expired = wall.is_some_and(|wall| validity.is_expired_at(wall));
                if expired {
                    self.discard(slot);
                }
            }
            SlotState::Empty => {}
        }
    }

    /// Gives the identity on its way up; its key is erased once that is durable.
    pub(super) fn discard(&mut self, slot: Slot) {
        *self.record.slot_mut(slot) = SlotState::Empty;
        self.record.retry.discarded = self.record.retry.discarded.saturating_add(1);
        self.swept[slot.index()] = false;
        self.candidate_key = None;
        self.refusals = 0;
        self.dirty = true;
        self.report(Event::CandidateDiscarded { slot });
    }

    fn wants_identity(&self, now: Now) -> bool {
        let due = self.schedule.is_some_and(|schedule| {
            self.reading(now).wall.is_some_and(|wall| wall >= schedule.renew_at)
        });
        let standing = self.record.standing;
        due || self.renew_wanted
            || self.active_lost
            || self.record.active.is_none()
            || standing == Standing::Quarantined
    }

    /// How a request made now would be authenticated.
    fn kind(&self, now: Now) -> Kind {
        if self.record.active.is_none() || self.active_lost {
            Kind::First
        } else if self.record.standing == Standing::Quarantined || !self.active_is_usable(now) {
            Kind::Recover
        } else {
            Kind::Renew
        }
    }

    /// How long the fleet can do without the identity on its way.
    pub(super) fn urgency(&self, now: Now) -> Urgency {
        let wall = self.reading(now).wall;
        match (self.record.active_identity(), wall) {
            (Some(identity), Some(wall)) if self.active_is_usable(now) => {
                Urgency::Slack { remaining_s: identity.validity.not_after.s_since(wall) }
            }
            _ => Urgency::Urgent,
        }
    }

    fn next_persist(&mut self, now: Now) -> Option<Step> {
        (self.dirty && self.may(Lane::Storage, Timer::RetryLocal, now)).then_some(Step::Persist)
    }

    fn next_use(&mut self, now: Now) -> Option<Step> {
        let member = self.durable.standing == Standing::Member;
        let wanted = self.durable.active.filter(|_| member);
        if self.adopted == wanted || !self.may(Lane::Use, Timer::RetryLocal, now) {
            return None;
        }
        Some(wanted.map_or(Step::Release, Step::Adopt))
    }

    /// Erases what the durable record does not name; this also clears what a power cut left.
    fn next_erasure(&mut self, now: Now) -> Option<Step> {
        if self.dirty {
            return None;
        }
        let slot = Slot::ALL.into_iter().find(|&slot| {
            !self.record.names(slot) && !self.swept[slot.index()] && self.adopted != Some(slot)
        })?;
        self.may(Lane::Erase, Timer::RetryLocal, now).then_some(Step::EraseKey(slot))
    }

    fn next_of_candidate(&mut self, now: Now) -> Option<Step> {
        if self.dirty || self.record.standing == Standing::Decommissioned {
            return None;
        }
        let Some(slot) = self.record.candidate() else {
            self.await_renewal(now);
            return None;
        };
        if !self.may(Lane::Candidate, Timer::Retry, now) {
            return None;
        }
        match self.record.slot(slot) {
            SlotState::Empty => None,
            SlotState::Certified(_) => Some(Step::Prove(slot)),
            SlotState::Requesting(_) if self.candidate_key.is_some() => Some(Step::Enroll(slot)),
            SlotState::Requesting(request) => Some(Step::EnsureKey(slot, request.source)),
        }
    }

    fn await_renewal(&mut self, now: Now) {
        if let (Some(schedule), Some(wall)) = (self.schedule, self.reading(now).wall) {
            let at = |then: Wall| now.mono.plus_ms(then.s_since(wall).saturating_mul(1000));
            if schedule.renew_at > wall {
                self.look_again(at(schedule.renew_at), Timer::Renew);
            }
            if schedule.not_after >= wall {
                self.look_again(at(schedule.not_after.plus_s(1)), Timer::Expiry);
            }
        }
    }

    /// RFC 9773 §4.3: not once the certificate has run out or was replaced.
    fn next_consult(&mut self, now: Now) -> Option<Step> {
        let slot = self.adopted.filter(|&slot| self.record.active == Some(slot))?;
        if !self.active_is_usable(now) {
            return None;
        }
        if now.mono < self.consult_at {
            self.look_again(self.consult_at, Timer::Consult);
            return None;
        }
        self.may(Lane::Consult, Timer::Consult, now).then_some(Step::Consult(slot))
    }
}
