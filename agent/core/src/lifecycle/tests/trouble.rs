//! Peers, storage and key store that fail.

use super::super::{Action, BrokerProof, Command, Input, Phase, Timer};
use super::rig::{POLICY, Rig, START, at, identity, key};
use crate::event::{Event, Failure, Operation};
use crate::policy::{
    CONSULT_WAIT_MS_MAX, Policy, RETRY_WAIT_LOCAL_MS_MAX, RETRY_WAIT_URGENT_MS_MAX, Rekey,
};
use crate::record::{KeySource, Kind, Record, Slot, SlotState};
use crate::time::Wall;

impl Rig {
    fn asking() -> Self {
        let mut rig = Self::first_boot();
        rig.erase(Slot::A);
        rig.erase(Slot::B);
        rig.persist();
        rig.key(1);
        rig
    }

    fn wait_ms(&self) -> u64 {
        self.machine.deadline().unwrap().0.ms_since(self.now.mono)
    }
}

#[test]
fn retries_grow_are_capped_by_urgency_and_never_stop() {
    let mut rig = Rig::asking();
    let mut longest = 0;
    for failures in 1..40_u32 {
        let id = rig.enroll_action();
        rig.fail(id, Failure::Unreachable);
        if !rig.machine.is_durable() {
            rig.persist();
        }
        let wait = rig.wait_ms();
        let whole = (1000 << (failures - 1).min(20)).min(u64::from(RETRY_WAIT_URGENT_MS_MAX));
        assert!(wait >= whole / 2 && wait <= whole, "failure {failures}: {wait} of {whole}");
        longest = longest.max(wait);
        assert_eq!(rig.machine.phase(rig.now), Phase::Waiting);
        assert_eq!(rig.pass_to_deadline(), Timer::Retry);
    }
    assert!(longest > u64::from(RETRY_WAIT_URGENT_MS_MAX / 2));
    assert_eq!(rig.machine.failures(), 17);
    assert_eq!(rig.machine.last_failure(), Some(&(Operation::Enroll, Failure::Unreachable)));
}

#[test]
fn a_peers_retry_after_is_obeyed_within_its_limits_and_survives_a_restart() {
    let mut rig = Rig::asking();
    let id = rig.enroll_action();
    rig.fail(id, Failure::Pending { retry_after_s: 600 });
    rig.persist();
    assert!((600_000..=660_000).contains(&rig.wait_ms()), "{}", rig.wait_ms());
    let not_before = rig.durable.retry.not_before.unwrap();
    let mut again = rig.power_cut();
    again.erase(Slot::B);
    assert_eq!(again.next(), None);
    assert_eq!(again.wait_ms(), 1000 * not_before.s_since(again.wall()));
    // The count did not start anew either, without anybody's Retry-After.
    let mut rig = Rig::asking();
    for _ in 0..6 {
        let id = rig.enroll_action();
        rig.fail(id, Failure::Unreachable);
        rig.persist();
        rig.pass_to_deadline();
    }
    let id = rig.enroll_action();
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    let mut again = rig.power_cut();
    again.erase(Slot::B);
    assert_eq!(again.next(), None);
    assert!((32_000..=64_000).contains(&again.wait_ms()), "{}", again.wait_ms());
}

#[test]
fn a_wait_that_a_record_says_ends_years_ahead_is_cut_to_a_day() {
    let mut record = Rig::asking().durable;
    record.retry.failures = 1;
    record.retry.not_before = Some(START.plus_s(10 * 86_400));
    let mut rig = Rig::boot(record, at(0));
    rig.erase(Slot::B);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.wait_ms(), 86_400_000);
}

#[test]
fn a_command_to_renew_does_not_wait() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.persist();
    rig.key(2);
    let id = rig.enroll_action();
    rig.fail(id, Failure::Busy { retry_after_s: Some(7200) });
    rig.persist();
    assert_eq!(rig.next(), None);
    rig.command(Command::Renew);
    rig.enroll_action();
}

#[test]
fn what_cannot_be_made_durable_is_not_acted_upon_and_the_identity_stays_in_use() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    for _ in 0..20 {
        let Some(Action::Persist { id }) = rig.next() else { panic!("acts on what is lost") };
        rig.fail(id, Failure::StorageUnavailable);
        assert!(!rig.machine.is_durable());
        assert_eq!(rig.machine.adopted(), Some(Slot::A));
        assert!(rig.wait_ms() <= u64::from(RETRY_WAIT_LOCAL_MS_MAX));
        assert_eq!(rig.pass_to_deadline(), Timer::RetryLocal);
    }
    rig.persist();
    rig.key(2);
}

#[test]
fn a_full_disk_does_not_keep_a_device_from_using_its_identity_and_learning_the_time() {
    let mut record = Rig::active().durable;
    *record.slot_mut(Slot::B) = SlotState::Empty;
    let mut rig = Rig::boot(record, at(0));
    rig.command(Command::Renew);
    rig.adopt(Slot::A);
    rig.erase(Slot::B);
    let Some(Action::Persist { id }) = rig.next() else { panic!() };
    rig.fail(id, Failure::StorageUnavailable);
    rig.consult(None, 86_400);
    assert_eq!(rig.next(), None);
}

#[test]
fn a_switch_that_is_not_durable_is_not_adopted_and_erases_nothing() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.issue(2);
    rig.persist();
    rig.prove(2, BrokerProof::Connected);
    let Some(Action::Persist { id }) = rig.next() else { panic!() };
    rig.fail(id, Failure::StorageUnavailable);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.machine.adopted(), Some(Slot::A));
    let mut cut = rig.power_cut();
    cut.adopt(Slot::A);
    cut.prove_action();
}

#[test]
fn a_key_store_that_does_not_answer_is_asked_again() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.persist();
    let Some(Action::EnsureKey { id, .. }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyUnavailable);
    rig.persist();
    assert_eq!(rig.machine.last_failure(), Some(&(Operation::EnsureKey, Failure::KeyUnavailable)));
    assert_eq!(rig.next(), None);
    assert_eq!(rig.pass_to_deadline(), Timer::Retry);
    rig.key(2);
    assert_eq!(rig.machine.last_failure(), None);
}

#[test]
fn an_erasure_that_fails_is_tried_again_and_holds_the_next_request_up() {
    let mut rig = Rig::first_boot();
    let Some(Action::EraseKey { id, slot: Slot::A }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyUnavailable);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.pass_to_deadline(), Timer::RetryLocal);
    rig.erase(Slot::A);
    rig.erase(Slot::B);
    rig.persist();
}

#[test]
fn a_lost_key_is_replaced_by_a_first_contact_and_its_certificate_is_kept_until_then() {
    let mut rig = Rig::active().power_cut();
    let Some(Action::Adopt { id, slot: Slot::A }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyLost);
    assert_eq!(rig.machine.phase(rig.now), Phase::Recovering);
    rig.erase(Slot::B);
    rig.persist();
    assert_eq!(rig.durable.active, Some(Slot::A));
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!((request.kind, request.source), (Kind::First, KeySource::Fresh));
    rig.key(2);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(2, START), server_time: None });
    rig.persist();
    rig.prove(2, BrokerProof::Unreachable);
    rig.persist();
    assert_eq!(rig.durable.active, Some(Slot::B));
    rig.adopt(Slot::B);
    rig.erase(Slot::A);
    assert_eq!(rig.machine.phase(rig.now), Phase::Active);
}

#[test]
fn a_key_store_that_is_only_away_is_asked_again_and_nothing_is_replaced() {
    let mut rig = Rig::active().power_cut();
    let Some(Action::Adopt { id, .. }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyUnavailable);
    rig.erase(Slot::B);
    assert_eq!(rig.next(), None, "no request for a new identity");
    assert_eq!(rig.pass_to_deadline(), Timer::RetryLocal);
    rig.adopt(Slot::A);
}

#[test]
fn a_lost_key_that_comes_back_ends_the_first_contact() {
    let mut rig = Rig::active().power_cut();
    let Some(Action::Adopt { id, .. }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyLost);
    rig.erase(Slot::B);
    rig.persist();
    rig.key(2);
    let id = rig.enroll_action();
    rig.fail(id, Failure::Refused { status: 401, reason: heapless::String::new() });
    rig.persist();
    rig.pass_s(3600);
    rig.adopt(Slot::A);
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!(request.kind, Kind::Renew);
}

#[test]
fn a_kept_key_that_turns_out_to_be_lost_becomes_a_new_one() {
    let mut rig =
        Rig::boot_with(Policy { rekey: Rekey::Never, ..POLICY }, Record::new(Wall(0)), at(0));
    rig.obtain(1);
    rig.finish_switch();
    rig.consult(None, 86_400);
    rig.command(Command::Renew);
    rig.persist();
    let Some(Action::EnsureKey { id, source: KeySource::Other, .. }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyLost);
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!((request.kind, request.source), (Kind::First, KeySource::Fresh));
}

#[test]
fn advice_that_fails_is_asked_for_again_soon_and_a_refusal_after_hours() {
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let id = rig.consult_action();
    rig.fail(id, Failure::Unreachable);
    assert!((500..=1000).contains(&rig.wait_ms()));
    assert_eq!(rig.machine.deadline().unwrap().1, Timer::Consult);
    rig.pass_s(1);
    let id = rig.consult_action();
    rig.fail(id, Failure::Refused { status: 404, reason: heapless::String::new() });
    assert_eq!(rig.wait_ms(), u64::from(CONSULT_WAIT_MS_MAX));
    for _ in 0..30 {
        rig.pass_to_deadline();
        let id = rig.consult_action();
        rig.fail(id, Failure::Unreachable);
        assert!(rig.wait_ms() <= u64::from(CONSULT_WAIT_MS_MAX));
    }
    assert_eq!(rig.machine.phase(rig.now), Phase::Active, "advice is not needed");
}

#[test]
fn a_failure_is_reported_with_its_operation_and_its_wait_rounded_up() {
    let mut rig = Rig::asking();
    let id = rig.enroll_action();
    rig.fail(id, Failure::ServerUntrusted);
    let wait_s = rig.machine.record().retry.failures;
    assert_eq!(wait_s, 1);
    let _persist = rig.next();
    assert!(rig.events.contains(&Event::Failed {
        operation: Operation::Enroll,
        failure: Failure::ServerUntrusted,
        retry_in_s: 1,
    }));
}

#[test]
fn a_release_and_an_adoption_that_fail_share_a_wait() {
    let mut rig = Rig::active();
    rig.command(Command::Decommission);
    rig.persist();
    let Some(Action::Release { id }) = rig.next() else { panic!() };
    rig.fail(id, Failure::KeyUnavailable);
    // What no connection uses may go at once; the key in use waits for its release.
    rig.erase(Slot::B);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.pass_to_deadline(), Timer::RetryLocal);
    let Some(Action::Release { id }) = rig.next() else { panic!() };
    rig.done(id);
    rig.erase(Slot::A);
}

#[test]
fn keys_are_made_once_for_one_request() {
    let mut rig = Rig::asking();
    let id = rig.enroll_action();
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    rig.pass_to_deadline();
    assert!(matches!(rig.next(), Some(Action::Enroll { .. })), "the key is known already");
    let mut again = rig.power_cut();
    again.pass_s(60);
    again.erase(Slot::B);
    let Some(Action::EnsureKey { id, slot: Slot::A, .. }) = again.next() else { panic!() };
    again.answer(Input::KeyReady { id, spki_sha256: key(1) });
    again.enroll_action();
}

#[test]
fn a_key_that_vanishes_while_in_use_is_noticed_and_replaced_by_a_first_contact() {
    let mut asking = Rig::active();
    asking.command(Command::Renew);
    asking.persist();
    asking.key(2);
    let id = asking.enroll_action();
    asking.fail(id, Failure::KeyLost);
    let mut consulting = Rig::active();
    consulting.pass_s(86_400);
    let id = consulting.consult_action();
    consulting.fail(id, Failure::KeyLost);
    for mut rig in [asking, consulting] {
        let Some(Action::Adopt { id, slot: Slot::A }) = rig.next() else { panic!("trusts it") };
        rig.fail(id, Failure::KeyLost);
        let request = loop {
            match rig.next() {
                Some(Action::EraseKey { id, .. }) => rig.done(id),
                Some(Action::Persist { id }) => {
                    rig.durable = rig.machine.record().clone();
                    rig.done(id);
                }
                other => panic!("{other:?}"),
            }
            match rig.durable.slot(Slot::B) {
                SlotState::Requesting(request) if request.kind == Kind::First => break *request,
                _ => {}
            }
        };
        assert_eq!(rig.durable.active, Some(Slot::A), "its certificate is kept until then");
        assert_eq!((request.kind, request.source), (Kind::First, KeySource::Fresh));
    }
}

#[test]
fn a_key_that_was_only_said_to_be_lost_is_taken_into_use_again() {
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let id = rig.consult_action();
    rig.fail(id, Failure::KeyLost);
    rig.adopt(Slot::A);
    assert_eq!(rig.next(), None);
    assert_eq!(rig.machine.phase(rig.now), Phase::Active);
}

#[test]
fn an_identity_that_ran_out_does_not_make_the_retries_hot() {
    let active = Rig::active();
    let over = identity(1, START).validity.not_after.plus_s(1);
    let now = crate::time::Now { wall: Some(over), ..active.now };
    let mut rig = Rig::boot(active.durable, now);
    rig.adopt(Slot::A);
    rig.erase(Slot::B);
    rig.persist();
    rig.key(2);
    for _ in 0..5 {
        let id = rig.enroll_action();
        rig.fail(id, Failure::Unreachable);
        rig.persist();
        rig.pass_to_deadline();
    }
    let id = rig.enroll_action();
    rig.fail(id, Failure::Unreachable);
    rig.persist();
    assert!((16_000..=32_000).contains(&rig.wait_ms()), "{}", rig.wait_ms());
}
