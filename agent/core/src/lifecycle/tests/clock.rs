//! Clocks that are unknown, wrong, or step.

use super::super::{Action, BrokerProof, Input, Phase, Timer};
use super::rig::{LIFETIME_S, Rig, START, identity, serial};
use crate::event::{Event, Failure};
use crate::policy::FLOOR_STEP_S;
use crate::record::{Kind, Record, Slot, SlotState};
use crate::time::{Confidence, Mono, Now, Wall};

#[test]
fn without_a_clock_nothing_runs_out_and_nothing_is_due() {
    let rig = Rig::active();
    let mut rig = Rig::boot(rig.durable, Now::without_wall(Mono(5)));
    assert_eq!(rig.machine.reading(rig.now).confidence, Confidence::Unknown);
    rig.adopt(Slot::A);
    rig.erase(Slot::B);
    let id = rig.consult_action();
    rig.fail(id, Failure::Unreachable);
    rig.pass_s(2 * LIFETIME_S);
    let id = rig.consult_action();
    rig.fail(id, Failure::Unreachable);
    assert_eq!(rig.machine.phase(rig.now), Phase::Active);
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Expired { .. })));
    assert!(rig.events.contains(&Event::ClockJudged { known: false }));
}

#[test]
fn a_device_without_a_clock_learns_the_time_by_asking_and_then_decides() {
    let rig = Rig::active();
    let mut rig = Rig::boot(rig.durable, Now::without_wall(Mono(5)));
    rig.adopt(Slot::A);
    rig.erase(Slot::B);
    let id = rig.consult_action();
    let server_time = Some(START.plus_s(LIFETIME_S - 1));
    rig.answer(Input::Consulted { id, window: None, retry_after_s: 60, server_time });
    rig.persist();
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else {
        panic!("no renewal in the last second")
    };
    assert_eq!(request.kind, Kind::Renew);
}

#[test]
fn a_wall_clock_below_the_floor_counts_as_none() {
    let rig = Rig::active();
    let floor = rig.durable.floor;
    assert_eq!(floor, START, "the certificate's notBefore became the floor");
    let below = Now { mono: Mono(0), wall: Some(floor.minus_s(1)), synchronised: true };
    let rig_below = Rig::boot(rig.durable.clone(), below);
    assert_eq!(rig_below.machine.reading(below).confidence, Confidence::Unknown);
    let on = Now { wall: Some(floor), ..below };
    assert_eq!(Rig::boot(rig.durable, on).machine.reading(on).confidence, Confidence::Trusted);
}

#[test]
fn the_floor_is_the_latest_of_build_record_and_certificates() {
    let built = Rig::boot(Record::new(Wall(5)), Now::without_wall(Mono(0)));
    assert_eq!(built.machine.reading(built.now).floor, super::rig::POLICY.build_time);
    let stored = Rig::boot(Record::new(START), Now::without_wall(Mono(0)));
    assert_eq!(stored.machine.reading(stored.now).floor, START);
    let mut record = Rig::active().durable;
    record.floor = Wall(0);
    let certified = Rig::boot(record, Now::without_wall(Mono(0)));
    assert_eq!(certified.machine.reading(certified.now).floor, START);
}

#[test]
fn a_time_below_the_floor_is_not_taken_even_from_the_provisioner() {
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let before = rig.machine.reading(rig.now);
    let id = rig.consult_action();
    let offered = before.floor.minus_s(1);
    rig.answer(Input::Consulted {
        id,
        window: None,
        retry_after_s: 60,
        server_time: Some(offered),
    });
    assert_eq!(rig.machine.reading(rig.now), before);
    assert_eq!(rig.next(), None);
    assert!(rig.events.contains(&Event::ClockRefused { offered }));
}

#[test]
fn once_the_provisioner_told_the_time_a_stepping_wall_clock_changes_nothing() {
    let mut rig = Rig::active();
    let told = rig.machine.reading(rig.now);
    assert_eq!(told.confidence, Confidence::Trusted);
    for wall in [0, START.0 + 10 * 31_536_000, START.0 - 10 * 31_536_000] {
        rig.now.wall = Some(Wall(wall));
        rig.tick();
        assert_eq!(rig.next(), None);
        assert_eq!(rig.machine.reading(rig.now), told);
    }
}

#[test]
fn a_failure_tells_the_time_too() {
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let id = rig.consult_action();
    let told = START.plus_s(200_000);
    let server_time = Some(told);
    rig.answer(Input::Failed { id, failure: Failure::Unreachable, server_time });
    assert_eq!(rig.machine.reading(rig.now).wall, Some(told));
}

#[test]
fn an_identity_that_ran_out_is_told_once_kept_in_use_and_recovered() {
    let mut rig = Rig::active();
    let not_after = identity(1, START).validity.not_after;
    rig.pass_s(LIFETIME_S);
    while let Some(action) = rig.next() {
        match action {
            Action::Consult { id, .. } | Action::Enroll { id, .. } => {
                rig.fail(id, Failure::Unreachable);
            }
            Action::Persist { id } => {
                rig.durable = rig.machine.record().clone();
                rig.done(id);
            }
            Action::EnsureKey { id, .. } => {
                rig.answer(Input::KeyReady { id, spki_sha256: super::rig::key(2) });
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Expired { .. })));
    rig.pass_s(1);
    let time = not_after.plus_s(1);
    assert_eq!(rig.machine.phase(rig.now), Phase::Recovering);
    assert_eq!(rig.machine.adopted(), rig.durable.active, "nothing is thrown away");
    let told = |rig: &Rig| {
        rig.events.iter().filter(|event| matches!(event, Event::Expired { .. })).count()
    };
    let _due = rig.next();
    assert!(rig.events.contains(&Event::Expired { time, not_after }));
    rig.tick();
    assert_eq!(told(&rig), 1);
}

#[test]
fn an_expired_device_does_not_ask_for_advice_but_for_a_certificate() {
    let active = Rig::active();
    let later = Now { wall: Some(START.plus_s(LIFETIME_S + 1)), ..active.now };
    let mut rig = Rig::boot(active.durable, later);
    rig.adopt(Slot::A);
    rig.erase(Slot::B);
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::B) else { panic!() };
    assert_eq!(request.kind, Kind::Recover);
    rig.key(2);
    let id = rig.enroll_action();
    let fresh = identity(2, rig.wall());
    rig.answer(Input::Enrolled { id, identity: &fresh, server_time: None });
    rig.persist();
    rig.prove(2, BrokerProof::Connected);
    rig.persist();
    rig.finish_switch();
    assert_eq!(rig.machine.phase(rig.now), Phase::Active);
    assert_eq!(rig.durable.active_identity().unwrap().serial, serial(2));
}

#[test]
fn an_idle_device_wakes_to_renew_and_one_that_cannot_renew_wakes_when_its_certificate_runs_out() {
    let mut rig = Rig::active();
    let renew_at = rig.machine.schedule().unwrap().renew_at;
    rig.pass_s(renew_at.s_since(rig.wall()) - 10);
    rig.consult(None, 86_400);
    rig.persist();
    assert_eq!(rig.machine.deadline(), Some((rig.now.mono.plus_ms(10_000), Timer::Renew)));
    assert_eq!(rig.pass_to_deadline(), Timer::Renew);
    rig.persist();
}

#[test]
fn a_floor_that_moved_a_week_is_worth_a_write_and_less_is_not() {
    let mut rig = Rig::active();
    let floor = rig.durable.floor;
    rig.pass_s(6 * FLOOR_STEP_S);
    let id = rig.consult_action();
    rig.fail(id, Failure::Unreachable);
    assert_eq!(rig.next(), None, "passing time alone proves nothing");
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let id = rig.consult_action();
    let (window, retry_after_s) = (None, 60);
    let server_time = Some(floor.plus_s(FLOOR_STEP_S - 1));
    rig.answer(Input::Consulted { id, window, retry_after_s, server_time });
    assert_eq!(rig.next(), None);
    rig.pass_s(60);
    let id = rig.consult_action();
    let server_time = Some(floor.plus_s(FLOOR_STEP_S));
    rig.answer(Input::Consulted { id, window, retry_after_s, server_time });
    rig.persist();
    assert_eq!(rig.durable.floor, floor.plus_s(FLOOR_STEP_S));
}

impl Rig {
    /// A device of certificate 1 that starts at `wall`, learns the time and cannot erase.
    fn hindered(wall: Wall) -> Self {
        let active = Rig::active();
        let mut rig = Rig::boot(active.durable, Now { wall: Some(wall), ..active.now });
        rig.adopt(Slot::A);
        rig.fail_erasure();
        rig.consult(None, 86_400);
        rig
    }

    fn fail_erasure(&mut self) {
        let Some(Action::EraseKey { id, .. }) = self.next() else { panic!("no EraseKey") };
        self.fail(id, Failure::KeyUnavailable);
    }
}

#[test]
fn a_renewal_that_is_due_and_hindered_does_not_ask_to_be_woken_at_once() {
    let schedule = Rig::active().machine.schedule().unwrap();
    let mut rig = Rig::hindered(schedule.renew_at);
    while !rig.machine.is_durable() || rig.machine.deadline().is_none() {
        let Some(Action::Persist { id }) = rig.next() else { panic!() };
        rig.done(id);
    }
    let (at, timer) = rig.machine.deadline().unwrap();
    assert!(at > rig.now.mono, "a hot loop");
    assert_eq!(timer, Timer::RetryLocal);
}

#[test]
fn a_hindered_device_wakes_when_its_certificate_runs_out() {
    let not_after = identity(1, START).validity.not_after;
    let mut rig = Rig::hindered(not_after.minus_s(400));
    loop {
        while let Some(action) = rig.next() {
            match action {
                Action::EraseKey { id, .. } => rig.fail(id, Failure::KeyUnavailable),
                Action::Persist { id } => rig.done(id),
                other => panic!("{other:?}"),
            }
        }
        match rig.machine.deadline().unwrap() {
            (_, Timer::RetryLocal) => rig.pass_to_deadline(),
            (at, timer) => {
                assert_eq!(timer, Timer::Expiry);
                let left_s = not_after.plus_s(1).s_since(rig.wall());
                assert_eq!(at, rig.now.mono.plus_ms(1000 * left_s));
                break;
            }
        };
        assert!(rig.wall() <= not_after, "slept through the end");
    }
}
