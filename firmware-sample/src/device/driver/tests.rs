//! The loop's decisions; and its orders, on a board without a cable, in virtual time.

mod bench;

use fleetcert_core::event::Operation;
use fleetcert_core::record::{
    CertificateBytes, Identity, KeySource, Kind, Record, Request, RequestId, SlotState,
};
use fleetcert_core::time::Validity;

use super::*;

use self::bench::{Bench, World};

const NOW: Mono = Mono(10);

/// Goal: a command that was taken from the desk is never left lying, whatever the time is.
#[test]
fn a_command_comes_before_the_time() {
    for deadline in [None, Some(Mono(9)), Some(NOW), Some(Mono(11))] {
        for command in [Command::Renew, Command::Decommission] {
            let woken = waking(Some(command), deadline, NOW);
            assert_eq!(woken, Some(Input::Command(command)), "{deadline:?}");
        }
    }
}

/// Goal: without a command the machine is woken at its time, not before it, and not without one.
#[test]
fn a_machine_is_woken_at_its_time() {
    assert_eq!(waking(None, Some(NOW), NOW), Some(Input::Tick));
    assert_eq!(waking(None, Some(Mono(9)), NOW), Some(Input::Tick), "late is not never");
    assert_eq!(waking(None, Some(Mono(11)), NOW), None);
    assert_eq!(waking(None, None, NOW), None);
}

/// Goal: keys are erased when nothing can ask for them any more, and once.
#[test]
fn keys_are_erased_once_and_not_before_the_end_is_durable() {
    assert!(is_to_wipe(Phase::Decommissioned, true, false));
    assert!(!is_to_wipe(Phase::Decommissioned, true, true), "once");
    assert!(!is_to_wipe(Phase::Decommissioned, false, false), "power may be lost");
    for phase in [
        Phase::Active,
        Phase::Enrolling,
        Phase::Proving,
        Phase::Quarantined,
        Phase::Recovering,
        Phase::Renewing,
        Phase::Unenrolled,
        Phase::Waiting,
    ] {
        assert!(!is_to_wipe(phase, true, false), "{phase:?}");
    }
}

/// An identity that is good for long.
fn certified(serial: u8) -> SlotState {
    SlotState::Certified(Identity {
        serial: Serial::from_slice(&[serial]).unwrap(),
        validity: Validity { not_before: bench::START, not_after: bench::START.plus_s(1_000_000) },
        spki_sha256: [serial; 32],
        certificate: CertificateBytes::new(),
    })
}

/// What a device with these slots remembers.
fn record(active: Option<Slot>, slots: [SlotState; 2]) -> Record {
    Record { active, slots, ..Record::new(bench::START) }
}

fn member() -> Record {
    record(Some(Slot::A), [certified(1), SlotState::Empty])
}

/// Lets the machine go on until it wants something of its peers: that.
fn ordered(driver: &mut Driver<'_, Bench>) -> Order {
    for _ in 0..100 {
        driver.room.turn();
        assert_eq!(driver.room.fault, None);
        if let Some(order) = driver.room.wanted.take() {
            return order;
        }
        driver.room.context.clock.pass(1_000);
    }
    panic!("nothing is wanted");
}

/// Goal: whatever is ordered is answered, and not twice: the machine takes the answer, and would take
/// no other to the same order.
#[test]
fn each_order_is_answered_once() {
    let request = Request { id: RequestId([1; 16]), kind: Kind::Renew, source: KeySource::Fresh };
    let candidate = |slot| record(Some(Slot::A), [certified(1), slot]);
    for (begin, names) in [
        (record(None, [SlotState::Empty, SlotState::Empty]), &["enroll"][..]),
        (member(), &["adopt", "consult"]),
        (candidate(SlotState::Requesting(request)), &["adopt", "enroll"]),
        (candidate(certified(2)), &["adopt", "prove"]),
    ] {
        for name in names {
            let world = World::new();
            let driver = &mut world.driver(begin.clone());
            driver.room.tell(Input::Tick);
            let (order, id) = loop {
                let order = ordered(driver);
                let (is, id) = named(order);
                if is == *name {
                    break (order, id);
                }
                driver.serve(order);
            };
            driver.serve(order);
            assert_eq!(driver.room.fault, None, "{name}: answered twice, or wrongly");
            driver.room.tell(Input::failed(id, Failure::Unreachable));
            assert!(driver.room.fault.is_some(), "{name}: not answered");
        }
    }
}

/// Goal: round by round, each order is served once, and the time between them passes.
#[test]
fn rounds_go_on_without_a_fault() {
    let world = World::new();
    let driver = &mut world.driver(member());
    driver.room.tell(Input::Tick);
    for round in 0..100 {
        assert_eq!(driver.round(), None, "round {round}");
    }
    assert_eq!(driver.room.in_use, Some(Slot::A));
    let failed = driver.room.machine.last_failure();
    assert_eq!(failed, Some(&(Operation::Consult, Failure::Unreachable)));
    assert!(driver.room.context.now() > Mono(10 * LOOK_MS));
    assert!(driver.lasting.dial_at() > Mono(0), "the broker was tried");
}

/// Goal: an order stays the one that is wanted until somebody takes it.
#[test]
fn an_order_waits_to_be_taken() {
    let world = World::new();
    let driver = &mut world.driver(member());
    driver.room.tell(Input::Tick);
    driver.room.turn();
    let wanted = driver.room.wanted;
    assert!(matches!(wanted, Some(Order::Adopt { slot: Slot::A, .. })), "{wanted:?}");
    assert!(driver.room.context.desk.command(Command::Renew));
    driver.room.turn();
    assert_eq!((driver.room.wanted, driver.room.fault), (wanted, None));
    assert_eq!(driver.room.context.desk.take_command(), Some(Command::Renew), "it waits, too");
}

/// Goal: the end of a life is durable before the keys are erased, and they are erased once.
#[test]
fn a_decommissioned_device_erases_its_keys_once_that_is_durable() {
    let world = World::new();
    let driver = &mut world.driver(member());
    assert!(driver.room.context.desk.command(Command::Decommission));
    let held = world.store.borrow_mut();
    driver.room.turn();
    let order = ordered(driver);
    assert_eq!(named(order).0, "adopt", "what is durable says that it is in use");
    driver.serve(order);
    driver.room.turn();
    assert_eq!(driver.room.context.desk.phase(), Phase::Decommissioned);
    assert_eq!((driver.room.in_use, world.wiped()), (Some(Slot::A), 0), "power may be lost");
    drop(held);
    let order = ordered(driver);
    assert_eq!(named(order).0, "release");
    driver.serve(order);
    assert_eq!(driver.room.machine.adopted(), None, "it was answered");
    for _ in 0..10 {
        driver.room.turn();
        driver.room.context.clock.pass(100_000);
    }
    assert_eq!((driver.room.in_use, world.wiped()), (None, 1));
    assert_eq!((driver.room.wanted, driver.room.fault), (None, None));
}

fn named(order: Order) -> (&'static str, ActionId) {
    match order {
        Order::Adopt { id, .. } => ("adopt", id),
        Order::Consult { id, .. } => ("consult", id),
        Order::Enroll { id, .. } => ("enroll", id),
        Order::Prove { id, .. } => ("prove", id),
        Order::Release { id } => ("release", id),
    }
}
