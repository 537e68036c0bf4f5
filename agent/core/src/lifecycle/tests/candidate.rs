//! Certificates that do not fit, proofs that fail.

use std::vec::Vec;

use super::super::{Action, BrokerProof, Command, Input, Phase, Timer};
use super::rig::{LIFETIME_S, Rig, identity, serial};
use crate::event::{Event, Failure, Operation, Unfit};
use crate::policy::{BAD_LUCK_FAILURES_MAX, REFUSALS_MAX};
use crate::record::{Kind, Slot, SlotState};

impl Rig {
    fn renewing(n: u8) -> Self {
        let mut rig = Self::active();
        rig.command(Command::Renew);
        rig.persist();
        rig.key(n);
        rig
    }

    fn proving(n: u8) -> Self {
        let mut rig = Self::renewing(n);
        let id = rig.enroll_action();
        rig.answer(Input::Enrolled { id, identity: &identity(n, rig.wall()), server_time: None });
        rig.persist();
        rig
    }

    fn failures_reported(&mut self) -> Vec<(Operation, Failure)> {
        self.events
            .drain(..)
            .filter_map(|event| match event {
                Event::Failed { operation, failure, .. } => Some((operation, failure)),
                _ => None,
            })
            .collect()
    }

    /// Waits out retries (and the writes of their count) until the next action of another kind.
    fn retry(&mut self) {
        if !self.machine.is_durable() {
            self.persist();
        }
        assert_eq!(self.next(), None);
        assert_eq!(self.pass_to_deadline(), Timer::Retry);
    }
}

#[test]
fn a_certificate_for_another_key_is_refused_and_the_request_stays() {
    let mut rig = Rig::renewing(2);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(3, rig.wall()), server_time: None });
    rig.persist();
    assert!(matches!(rig.durable.slot(Slot::B), SlotState::Requesting(_)));
    assert_eq!(
        rig.failures_reported(),
        [(Operation::Enroll, Failure::CertificateUnfit(Unfit::Key))]
    );
    rig.retry();
    rig.enroll_action();
}

#[test]
fn a_certificate_that_is_over_is_refused_and_one_in_its_last_second_is_not() {
    for (late_s, fits) in [(0, true), (1, false)] {
        let mut rig = Rig::renewing(2);
        let not_before = rig.wall().minus_s(LIFETIME_S + late_s);
        let id = rig.enroll_action();
        rig.answer(Input::Enrolled { id, identity: &identity(2, not_before), server_time: None });
        assert_eq!(rig.machine.record().identity(Slot::B).is_some(), fits);
        let _next = rig.next();
        let (time, not_after) = (rig.wall(), rig.wall().minus_s(late_s));
        let unfit = Failure::CertificateUnfit(Unfit::Expired { time, not_after });
        let told = rig.failures_reported().contains(&(Operation::Enroll, unfit));
        assert_eq!(told, !fits);
    }
}

#[test]
fn a_proof_for_another_serial_is_no_proof() {
    let mut rig = Rig::proving(2);
    rig.prove(3, BrokerProof::Connected);
    assert_eq!(rig.machine.record().active, Some(Slot::A));
    rig.persist();
    assert_eq!(rig.failures_reported(), [(Operation::Prove, Failure::WrongCertificateSeen)]);
    assert_eq!(rig.machine.phase(rig.now), Phase::Proving);
    rig.retry();
    rig.prove(2, BrokerProof::Connected);
    assert_eq!(rig.machine.record().active, Some(Slot::B));
    assert_eq!(rig.machine.last_failure(), None);
}

#[test]
fn a_broker_that_is_away_is_waited_for_while_the_old_identity_is_good() {
    let mut rig = Rig::proving(2);
    rig.prove(2, BrokerProof::Unreachable);
    assert_eq!(rig.machine.record().active, Some(Slot::A));
    rig.persist();
    assert_eq!(rig.failures_reported(), [(Operation::Prove, Failure::Unreachable)]);
    // Nobody refused it: however often, the new identity is not given up for that.
    for _ in 0..2 * REFUSALS_MAX {
        rig.retry();
        if rig.machine.record().active_identity().unwrap().validity.not_after < rig.wall() {
            break;
        }
        rig.prove(2, BrokerProof::Unreachable);
    }
    assert!(rig.machine.record().identity(Slot::B).is_some());
}

#[test]
fn a_broker_that_is_away_does_not_matter_once_the_old_identity_is_over() {
    let mut rig = Rig::proving(2);
    rig.prove(2, BrokerProof::Unreachable);
    rig.persist();
    let candidate = rig.durable.identity(Slot::B).unwrap().validity.not_after;
    let active = rig.durable.identity(Slot::A).unwrap().validity.not_after;
    assert_eq!(candidate, active, "the story needs both to end at once");
    // A first enrollment has no old identity at all.
    let mut first = Rig::first_boot();
    first.issue(1);
    first.persist();
    first.prove(1, BrokerProof::Unreachable);
    assert_eq!(first.machine.record().active, Some(Slot::A));
}

#[test]
fn an_identity_that_its_peers_refuse_is_given_up_after_eight_tries_and_asked_for_anew() {
    let mut rig = Rig::proving(2);
    for attempt in 1..=REFUSALS_MAX {
        let id = rig.prove_action();
        rig.fail(id, Failure::WrongCertificateSeen);
        let kept = rig.machine.record().identity(Slot::B).is_some();
        assert_eq!(kept, attempt < REFUSALS_MAX, "attempt {attempt}");
        if kept {
            rig.retry();
        }
    }
    rig.persist();
    assert!(rig.events.contains(&Event::CandidateDiscarded { slot: Slot::B }));
    assert_eq!(rig.durable.retry.discarded, 1);
    assert_eq!(rig.machine.adopted(), Some(Slot::A), "the old identity stays");
    rig.erase(Slot::B);
    rig.persist();
    rig.retry();
    rig.key(3);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(3, rig.wall()), server_time: None });
    rig.persist();
    assert_eq!(rig.durable.retry.failures, REFUSALS_MAX, "the second one waits longer");
    rig.prove(3, BrokerProof::Connected);
    rig.persist();
    assert_eq!(rig.durable.retry, crate::record::Retry::default());
}

#[test]
fn the_refusals_of_one_identity_do_not_count_for_the_next() {
    let mut rig = Rig::proving(2);
    for _ in 1..REFUSALS_MAX {
        let id = rig.prove_action();
        rig.fail(id, Failure::AnswerMalformed);
        rig.retry();
    }
    rig.prove(2, BrokerProof::Connected);
    rig.persist();
    rig.finish_switch();
    rig.consult(None, 86_400);
    rig.command(Command::Renew);
    rig.persist();
    rig.key(3);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(3, rig.wall()), server_time: None });
    rig.persist();
    let id = rig.prove_action();
    rig.fail(id, Failure::WrongCertificateSeen);
    assert!(rig.machine.record().identity(Slot::A).is_some());
}

#[test]
fn only_verdicts_on_the_identity_count_against_it() {
    use Failure as F;
    let refused = F::Refused { status: 403, reason: heapless::String::new() };
    let verdicts = [F::AnswerMalformed, refused, F::WrongCertificateSeen];
    let others = [
        F::Busy { retry_after_s: None },
        F::KeyUnavailable,
        F::OurIdentityRefused,
        F::ServerUntrusted,
        F::StorageUnavailable,
        F::Unreachable,
    ];
    for (failure, counts) in
        verdicts.map(|failure| (failure, true)).into_iter().chain(others.map(|f| (f, false)))
    {
        let mut rig = Rig::proving(2);
        for _ in 0..REFUSALS_MAX {
            let id = rig.prove_action();
            rig.fail(id, failure.clone());
            if rig.machine.record().identity(Slot::B).is_some() {
                rig.retry();
            }
        }
        assert_eq!(rig.machine.record().identity(Slot::B).is_none(), counts, "{failure:?}");
    }
}

#[test]
fn a_candidate_that_runs_out_unproven_is_given_up() {
    let mut rig = Rig::proving(2);
    let id = rig.prove_action();
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    rig.pass_s(LIFETIME_S);
    assert!(rig.machine.record().identity(Slot::B).is_some(), "its last second counts");
    let id = rig.prove_action();
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    rig.consult(None, 86_400);
    rig.persist();
    rig.pass_s(1);
    assert!(rig.machine.record().identity(Slot::B).is_none());
    rig.persist();
    assert_eq!(rig.machine.phase(rig.now), Phase::Recovering);
    rig.erase(Slot::B);
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!(request.kind, Kind::Recover);
}

#[test]
fn a_candidate_whose_key_is_gone_is_given_up() {
    let mut rig = Rig::proving(2);
    let id = rig.prove_action();
    rig.fail(id, Failure::KeyLost);
    assert!(!rig.machine.record().names(Slot::B));
    rig.persist();
    rig.erase(Slot::B);
    let mut rig = Rig::renewing(2);
    let id = rig.enroll_action();
    rig.fail(id, Failure::KeyLost);
    assert!(!rig.machine.record().names(Slot::B));
    rig.adopt(Slot::A);
}

#[test]
fn a_power_cut_while_proving_proves_again_and_keeps_both() {
    let rig = Rig::proving(2);
    let mut again = rig.power_cut();
    again.adopt(Slot::A);
    again.prove(2, BrokerProof::Connected);
    again.persist();
    assert_eq!(again.durable.active, Some(Slot::B));
    assert_eq!(again.durable.identity(Slot::B).unwrap().serial, serial(2));
}

#[test]
fn a_power_cut_while_asking_asks_again_by_the_same_name() {
    let rig = Rig::renewing(2);
    let asked = rig.durable.slot(Slot::B).clone();
    let mut again = rig.power_cut();
    again.adopt(Slot::A);
    assert_eq!(again.key(2), Slot::B);
    let Some(Action::Enroll { slot, .. }) = again.next() else { panic!() };
    assert_eq!(again.machine.record().slot(slot), &asked);
}

#[test]
fn a_request_that_is_refused_eight_times_is_given_up_for_another_name_and_key() {
    let refused = Failure::Refused { status: 409, reason: heapless::String::new() };
    let unfit = Failure::CertificateUnfit(Unfit::Form);
    let busy = Failure::Busy { retry_after_s: None };
    for (failure, counts) in [(refused, true), (unfit, true), (busy, false)] {
        let mut rig = Rig::renewing(2);
        let before = rig.durable.slot(Slot::B).clone();
        for attempt in 1..=REFUSALS_MAX {
            assert_eq!(rig.machine.record().slot(Slot::B), &before, "attempt {attempt}");
            let id = rig.enroll_action();
            rig.fail(id, failure.clone());
            if attempt < REFUSALS_MAX {
                rig.retry();
            }
        }
        assert_eq!(rig.machine.record().names(Slot::B), !counts, "{failure:?}");
        if counts {
            rig.persist();
            rig.erase(Slot::B);
            rig.persist();
            assert!(matches!(rig.durable.slot(Slot::B), SlotState::Requesting(_)));
            assert_ne!(rig.durable.slot(Slot::B), &before);
            rig.retry();
            rig.key(3);
        }
    }
}

// Goal: a fleet does not come back in the first hour after an outage, nor ask for advice ever faster.
#[test]
fn a_provisioner_that_stays_away_is_asked_seldom_while_the_identity_in_use_is_good() {
    let mut rig = Rig::renewing(2);
    for _ in 0..=BAD_LUCK_FAILURES_MAX {
        let id = rig.enroll_action();
        rig.fail(id, Failure::Unreachable);
        rig.persist();
        if rig.machine.failures() <= BAD_LUCK_FAILURES_MAX {
            rig.retry();
        }
    }
    let waits: Vec<u32> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Failed { retry_in_s, .. } => Some(*retry_in_s),
            _ => None,
        })
        .collect();
    assert!(waits[..4].iter().all(|wait_s| *wait_s <= 8), "{waits:?}");
    assert!(waits[4] >= 6 * 3600, "{waits:?}");
}
