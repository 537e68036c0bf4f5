//! The way things usually go.

use std::format;

use super::super::{Action, BrokerProof, Command, Input, Machine, Phase, Timer};
use super::rig::{POLICY, Rig, START, device, identity, key, serial};
use crate::event::Event;
use crate::policy::{IDLE_MS_MAX, Policy, Rekey, Schedule, Window};
use crate::record::{KeySource, Kind, Record, RequestId, Slot, SlotState, Standing};
use crate::time::{Confidence, Wall};

/// Goal: a machine that is given its record where it lies is the one that was made with it.
#[test]
fn a_machine_that_recalls_a_record_is_the_one_that_was_made_with_it() {
    let rig = Rig::active();
    let mut waiting = rig.durable.clone();
    waiting.retry.failures = 3;
    for record in [rig.durable.clone(), waiting, Record::new(Wall(9))] {
        let made = Machine::new(POLICY, device(), record.clone(), [7; 32], rig.now);
        let mut recalling = Machine::new(POLICY, device(), Record::new(Wall(0)), [7; 32], rig.now);
        let read = |place: &mut Record| {
            *place = record;
            Ok::<(), ()>(())
        };
        assert_eq!(recalling.recall(rig.now, read), Ok(()));
        assert_eq!(format!("{recalling:?}"), format!("{made:?}"));
    }
    let mut machine = rig.machine;
    assert_eq!(machine.recall(rig.now, |_| Err("damaged")), Err("damaged"));
}

#[test]
fn the_first_boot_clears_both_slots_then_persists_a_request_before_it_makes_a_key() {
    let mut rig = Rig::first_boot();
    assert_eq!(rig.machine.phase(rig.now), Phase::Unenrolled);
    rig.erase(Slot::A);
    rig.erase(Slot::B);
    assert_eq!(rig.machine.phase(rig.now), Phase::Enrolling);
    assert!(!rig.machine.is_durable());
    rig.persist();
    assert!(rig.machine.is_durable());
    assert_eq!(rig.durable.generation, 1);
    let requested = Event::Requested { slot: Slot::A, kind: Kind::First };
    let Some(Action::EnsureKey { id, slot, source }) = rig.next() else { panic!() };
    assert_eq!((slot, source), (Slot::A, KeySource::Fresh));
    assert!(rig.events.contains(&requested));
    rig.answer(Input::KeyReady { id, spki_sha256: key(1) });
    let Some(Action::Enroll { slot: Slot::A, .. }) = rig.next() else { panic!() };
    let request = rig.machine.record().request(Slot::A);
    assert_eq!(request.map(|request| request.kind), Some(Kind::First));
    assert_eq!(rig.durable.request(Slot::A), request);
}

#[test]
fn a_first_certificate_is_durable_then_proven_then_durably_active_then_adopted() {
    let mut rig = Rig::first_boot();
    rig.issue(1);
    rig.persist();
    assert_eq!(rig.machine.phase(rig.now), Phase::Proving);
    let not_after = identity(1, START).validity.not_after;
    assert_eq!(rig.durable.active, None);
    rig.prove(1, BrokerProof::Connected);
    assert_eq!(rig.machine.adopted(), None, "adopted before the switch is durable");
    rig.persist();
    rig.adopt(Slot::A);
    rig.consult_action_after_erasure();
    assert_eq!(rig.machine.adopted(), Some(Slot::A));
    assert_eq!(rig.machine.phase(rig.now), Phase::Active);
    assert_eq!(
        rig.events[2..],
        [
            Event::Enrolled { slot: Slot::A, serial: serial(1), not_after },
            Event::Proven { slot: Slot::A, serial: serial(1) },
            Event::Adopted { slot: Slot::A, serial: serial(1) },
        ]
    );
}

#[test]
fn an_active_device_waits_for_the_earliest_of_advice_and_renewal() {
    let mut rig = Rig::active();
    assert_eq!(rig.machine.deadline(), Some((rig.now.mono.plus_ms(IDLE_MS_MAX), Timer::Idle)));
    rig.pass_s(86_000);
    assert_eq!(rig.next(), None, "an early tick does nothing");
    assert_eq!(rig.machine.deadline().unwrap().1, Timer::Consult);
    rig.pass_s(400);
    rig.consult(None, 86_400);
    let schedule = rig.machine.schedule().unwrap();
    let before = schedule.renew_at.s_since(rig.wall()) - 3_600;
    rig.pass_s(before);
    rig.consult(None, 86_400);
    rig.persist();
    assert_eq!(rig.pass_to_deadline(), Timer::Renew);
    assert!(matches!(rig.next(), Some(Action::Persist { .. })));
}

#[test]
fn the_advice_of_the_provisioner_moves_the_renewal_both_ways() {
    let device = device();
    for (from, to) in [(10, 11), (80, 81)] {
        let mut rig = Rig::active();
        let window = Window::new(START.plus_s(from * 86_400), START.plus_s(to * 86_400));
        rig.pass_s(86_400);
        rig.consult(window, 3_600);
        let active = identity(1, START);
        let schedule = rig.machine.schedule().unwrap();
        assert_eq!(schedule, Schedule::new(&POLICY, &device, &active, window));
        assert!(schedule.renew_at >= window.unwrap().start);
        assert!(schedule.renew_at <= window.unwrap().end);
        assert_eq!(rig.machine.deadline(), Some((rig.now.mono.plus_ms(3_600_000), Timer::Consult)));
    }
}

#[test]
fn advice_is_asked_for_again_within_a_second_and_a_day() {
    for (asked, waited_s) in [(0, 1), (1, 1), (7, 7), (90_000, 86_400), (u32::MAX, 86_400)] {
        let mut rig = Rig::active();
        rig.pass_s(86_400);
        rig.consult(None, asked);
        let (at, _) = rig.machine.deadline().unwrap();
        assert_eq!(at.ms_since(rig.now.mono), 1000 * waited_s, "asked for {asked}");
    }
}

#[test]
fn a_renewal_keeps_the_old_identity_until_the_new_one_is_proven_and_durable() {
    let mut rig = Rig::active();
    rig.command(Command::Renew);
    rig.persist();
    assert_eq!(rig.machine.phase(rig.now), Phase::Renewing);
    assert_eq!(rig.key(2), Slot::B);
    let id = rig.enroll_action();
    assert_eq!(rig.machine.adopted(), Some(Slot::A));
    rig.answer(Input::Enrolled { id, identity: &identity(2, rig.wall()), server_time: None });
    rig.persist();
    assert_eq!(rig.durable.active, Some(Slot::A));
    rig.prove(2, BrokerProof::Connected);
    assert_eq!(rig.durable.active, Some(Slot::A));
    assert_eq!(rig.machine.adopted(), Some(Slot::A));
    rig.persist();
    assert_eq!(rig.durable.active, Some(Slot::B));
    assert!(!rig.durable.names(Slot::A));
    rig.adopt(Slot::B);
    rig.erase(Slot::A);
    rig.consult(None, 86_400);
    assert_eq!(rig.next(), None, "one command renews once");
    assert_eq!(
        rig.events.iter().filter(|event| matches!(event, Event::Requested { .. })).count(),
        1
    );
}

#[test]
fn renewals_alternate_between_the_slots_and_each_request_has_a_name_of_its_own() {
    let mut rig = Rig::active();
    let mut names = std::collections::BTreeSet::new();
    for n in 2..6 {
        rig.command(Command::Renew);
        rig.persist();
        let slot = rig.durable.candidate().unwrap();
        let SlotState::Requesting(request) = *rig.durable.slot(slot) else { panic!() };
        assert_eq!(request.kind, Kind::Renew);
        let RequestId(name) = request.id;
        assert!(names.insert(name));
        rig.key(n);
        let id = rig.enroll_action();
        rig.answer(Input::Enrolled { id, identity: &identity(n, rig.wall()), server_time: None });
        rig.persist();
        rig.prove(n, BrokerProof::NotConfigured);
        rig.persist();
        assert_eq!(rig.durable.active, Some(slot));
        rig.finish_switch();
        rig.consult(None, 86_400);
    }
    assert_eq!(names.len(), 4);
}

#[test]
fn with_rekey_never_a_renewal_copies_the_key_and_a_first_enrollment_makes_one() {
    let policy = Policy { rekey: Rekey::Never, ..POLICY };
    let mut rig = Rig::boot_with(policy, Record::new(Wall(0)), super::rig::at(0));
    rig.erase(Slot::A);
    rig.erase(Slot::B);
    rig.persist();
    let SlotState::Requesting(request) = *rig.durable.slot(Slot::A) else { panic!() };
    assert_eq!(request.source, KeySource::Fresh);
    rig.key(1);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(1, START), server_time: None });
    rig.persist();
    rig.prove(1, BrokerProof::Connected);
    rig.persist();
    rig.finish_switch();
    rig.command(Command::Renew);
    rig.consult(None, 86_400);
    rig.persist();
    let Some(Action::EnsureKey { slot, source, .. }) = rig.next() else { panic!() };
    assert_eq!((slot, source), (Slot::B, KeySource::Other));
}

#[test]
fn the_provisioners_time_is_trusted_from_each_kind_of_answer() {
    let mut rig = Rig::first_boot();
    assert_eq!(rig.machine.reading(rig.now).confidence, Confidence::Floored);
    rig.erase(Slot::A);
    rig.erase(Slot::B);
    rig.persist();
    rig.key(1);
    let told = Wall(1_900_000_000);
    let id = rig.enroll_action();
    rig.answer(Input::Enrolled { id, identity: &identity(1, told), server_time: Some(told) });
    assert_eq!(rig.machine.reading(rig.now).wall, Some(told));
    assert_eq!(rig.machine.reading(rig.now).confidence, Confidence::Trusted);
    rig.persist();
    assert_eq!(rig.durable.floor, told);
    let id = rig.prove_action();
    let later = told.plus_s(10);
    rig.answer(Input::Proven {
        id,
        serial: &serial(1),
        broker: BrokerProof::Connected,
        server_time: Some(later),
    });
    assert_eq!(rig.machine.reading(rig.now).wall, Some(later));
    rig.persist();
    rig.finish_switch();
    let id = rig.consult_action();
    let server_time = Some(later.plus_s(5));
    rig.answer(Input::Consulted { id, window: None, retry_after_s: 60, server_time });
    assert_eq!(rig.machine.reading(rig.now).wall, server_time);
}

#[test]
fn answers_that_were_not_asked_for_are_refused_and_change_nothing() {
    let mut rig = Rig::first_boot();
    let Some(Action::EraseKey { id, .. }) = rig.next() else { panic!() };
    let error = rig.try_answer(Input::KeyReady { id, spki_sha256: key(1) }).unwrap_err();
    assert_eq!(error.found, id);
    assert_eq!(error.expected, Some((id, crate::event::Operation::EraseKey)));
    rig.done(id);
    let before = rig.machine.record().clone();
    let doubled = rig.try_answer(Input::Done { id }).unwrap_err();
    assert_ne!(doubled.expected.unwrap().0, id);
    assert_eq!(rig.machine.record(), &before);
    rig.erase(Slot::B);
    rig.persist();
    rig.key(1);
    let id = rig.enroll_action();
    for input in [
        Input::Done { id },
        Input::KeyReady { id, spki_sha256: key(9) },
        Input::Proven {
            id,
            serial: &serial(1),
            broker: BrokerProof::Connected,
            server_time: Some(START.plus_s(1_000_000)),
        },
        Input::Consulted { id, window: None, retry_after_s: 1, server_time: None },
    ] {
        rig.try_answer(input).unwrap_err();
    }
    assert_eq!(rig.machine.reading(rig.now).confidence, Confidence::Floored);
    assert_eq!(rig.next(), None, "the request is still in flight");
}

#[test]
fn an_answer_to_an_action_that_was_not_polled_yet_is_refused() {
    let mut rig = Rig::first_boot();
    let Some(Action::EraseKey { id, .. }) = rig.next() else { panic!() };
    let mut other = Rig::first_boot();
    other.try_answer(Input::Done { id }).unwrap_err();
}

#[test]
fn while_an_action_is_in_flight_there_is_no_deadline_and_commands_wait() {
    let mut rig = Rig::active();
    rig.pass_s(86_400);
    let id = rig.consult_action();
    assert_eq!(rig.machine.deadline(), None);
    rig.command(Command::Renew);
    assert_eq!(rig.next(), None);
    rig.answer(Input::Consulted { id, window: None, retry_after_s: 60, server_time: None });
    assert!(matches!(rig.next(), Some(Action::Persist { .. })));
}

#[test]
fn a_member_stays_a_member() {
    let rig = Rig::active();
    assert_eq!(rig.durable.standing, Standing::Member);
    assert_eq!(rig.machine.failures(), 0);
    assert_eq!(rig.machine.last_failure(), None);
}

impl Rig {
    fn consult_action_after_erasure(&mut self) {
        self.erase(Slot::B);
        self.consult_action();
    }
}
