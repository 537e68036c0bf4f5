use fleetcert_core::lifecycle::{Action, Input};
use fleetcert_core::policy::Policy;
use fleetcert_core::record::{Record, SlotState};
use fleetcert_core::time::Validity;

use super::*;

/// A device certificate as the provisioner issues it.
const LEAF: &[u8] = include_bytes!("../../core/testdata/leaf.der");

const NOW: Now = Now { mono: Mono(5_000), wall: Some(Wall(1_800_000_000)), synchronised: true };

fn device() -> DeviceId {
    DeviceId::parse("gw-1").unwrap()
}

fn record() -> Record {
    let identity = Identity {
        serial: [0, 0xab, 1].into_iter().collect(),
        validity: Validity { not_before: Wall(1_799_999_000), not_after: Wall(1_800_009_000) },
        spki_sha256: [7; 32],
        certificate: LEAF.iter().copied().collect(),
    };
    let slots = [SlotState::Certified(identity), SlotState::Empty];
    Record { active: Some(Slot::A), slots, ..Record::new(Wall(1_799_999_000)) }
}

fn machine(record: Record) -> Machine {
    Machine::new(Policy::default(), device(), record, [0; 32], NOW)
}

fn board(machine: &Machine, now: Now) -> Board {
    let board = Board::new(device(), KeyStore::in_memory());
    board.show(View::of(machine, now));
    board
}

// Goal: without an agent the record alone tells identity, renewal and clock.
#[test]
fn a_device_at_rest_tells_its_identity_and_its_renewal() {
    let machine = machine(record());
    let view = View::of(&machine, NOW);
    let status = view.at_rest(&device(), KeyStatus::software(), NOW.mono);
    let identity = status.identity.as_ref().unwrap();
    assert_eq!((identity.serial.as_str(), identity.slot.as_str()), ("ab01", "a"));
    assert_eq!(identity.not_after, "2027-01-15T10:30:00Z");
    assert_eq!((identity.expired, identity.expiring), (Some(false), Some(false)));
    assert_eq!(identity.spki_sha256, "07".repeat(32));
    assert!(identity.subject.starts_with("CN="), "{}", identity.subject);
    let next = status.next.as_ref().unwrap();
    assert_eq!((next.action.as_str(), next.at_s), ("renew", identity.renew_at_s));
    assert_eq!(status.clock.confidence, "trusted");
    assert_eq!(status.clock.wall.as_deref(), Some("2027-01-15T08:00:00Z"));
    assert_eq!((status.phase.as_str(), status.running), ("active", false));
    assert!(status.to_string().contains("active (no agent is running)"));
}

// Goal: a device that has never enrolled says so, and that starting the agent is what is next.
#[test]
fn a_device_without_a_record_is_unenrolled() {
    let machine = machine(Record::new(Wall(0)));
    let status = View::of(&machine, NOW).at_rest(&device(), KeyStatus::software(), NOW.mono);
    assert_eq!((status.phase.as_str(), status.identity.as_ref()), ("unenrolled", None));
    assert_eq!(status.next.as_ref().unwrap().action, "start");
}

// Goal: an unknown clock judges nothing.
#[test]
fn without_a_believable_clock_nothing_is_called_expired() {
    let now = Now { wall: Some(Wall(1_000)), ..NOW };
    let machine = machine(record());
    let status = View::of(&machine, now).at_rest(&device(), KeyStatus::software(), now.mono);
    assert_eq!((status.clock.confidence.as_str(), status.clock.wall_s), ("unknown", None));
    let identity = status.identity.as_ref().unwrap();
    assert_eq!((identity.expired, identity.expiring), (None, None));
    assert!(status.to_string().contains("no believable time"));
}

// Goal: expiry is told as soon as the believed clock says so, and its approach before.
#[test]
fn expiry_and_its_approach_are_told() {
    for (wall, expired, expiring) in
        [(1_800_007_999, false, false), (1_800_008_001, false, true), (1_800_009_001, true, true)]
    {
        let now = Now { wall: Some(Wall(wall)), ..NOW };
        let machine = machine(record());
        let status = View::of(&machine, now).at_rest(&device(), KeyStatus::software(), now.mono);
        let identity = status.identity.unwrap();
        assert_eq!((identity.expired, identity.expiring), (Some(expired), Some(expiring)));
    }
}

// Goal: a status asked for later than the view was made tells the time of the question.
#[test]
fn times_are_those_of_the_question() {
    let mut machine = machine(record());
    machine.handle(NOW, Input::Tick).unwrap();
    while machine.poll().is_some() {}
    let board = board(&machine, NOW);
    let link = LinkStatus {
        broker: Some("broker:8883".into()),
        connected_since: Some(NOW.mono),
        gap_ms_last: Some(31),
        gap_ms_max: Some(40),
        trouble: None,
    };
    let status = board.status(NOW.mono.plus_ms(60_000), link).unwrap();
    assert_eq!(status.clock.wall_s, Some(1_800_000_060));
    let mqtt = status.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.since.as_deref(), Some("2027-01-15T08:00:00Z"));
    assert!(mqtt.connected && status.running);
    assert!(status.to_string().contains("last identity switch took 31 ms"));
}

fn note() -> FailureNote {
    FailureNote {
        operation: Operation::EraseKey,
        failure: Failure::KeyUnavailable,
        cause: Some("key.b has mode 0644, expected 0600".into()),
        at: NOW.mono,
        retry_at: NOW.mono.plus_ms(1_500),
    }
}

/// A machine whose first erasure has failed.
fn failed_machine() -> Machine {
    let mut machine = machine(Record::new(Wall(0)));
    machine.handle(NOW, Input::Tick).unwrap();
    loop {
        match machine.poll().unwrap() {
            Action::EraseKey { id, .. } => {
                let failure = Failure::KeyUnavailable;
                machine.handle(NOW, Input::Failed { id, failure, server_time: None }).unwrap();
                return machine;
            }
            Action::Report(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

// Goal: a failure is told with what happened, when, when again, and what to do.
#[test]
fn a_failure_is_told_with_cause_and_advice_until_it_is_over() {
    let board = board(&failed_machine(), NOW);
    board.fail(note());
    let status = board.status(NOW.mono.plus_ms(500), LinkStatus::default()).unwrap();
    let failure = status.last_failure.as_ref().unwrap();
    assert_eq!(
        (failure.operation.as_str(), failure.code.as_str()),
        ("erase-key", "key-unavailable")
    );
    assert!(failure.cause.ends_with("answer: key.b has mode 0644, expected 0600"), "{failure:?}");
    assert_eq!((failure.at.as_deref(), failure.retry_in_s), (Some("2027-01-15T08:00:00Z"), 1));
    assert!(failure.what_to_do.contains("0600"));
    assert!(status.to_string().contains("to do     check owner"));

    board.show(View::of(&machine(record()), NOW));
    let status = board.status(NOW.mono, LinkStatus::default()).unwrap();
    assert_eq!(status.last_failure, None);
    assert_eq!(board.0.borrow().note, None);
}

// Goal: the particulars of another failure are not passed off as those of this one.
#[test]
fn a_note_about_another_failure_is_not_used() {
    let board = board(&failed_machine(), NOW);
    board.fail(FailureNote { operation: Operation::Persist, ..note() });
    let failure = board.status(NOW.mono, LinkStatus::default()).unwrap().last_failure.unwrap();
    assert_eq!(failure.cause, Failure::KeyUnavailable.to_string());
}

// Goal: programs can rely on the names and on reading back what was written.
#[test]
fn the_json_has_a_schema_and_is_read_back() {
    let board = board(&failed_machine(), NOW);
    board.fail(note());
    let status = board.status(NOW.mono, LinkStatus::default()).unwrap();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(
        (json["schema"].as_u64(), json["key"]["backend"].as_str()),
        (Some(1), Some("software"))
    );
    assert!(json["identity"].is_null() && json["mqtt"].is_null());
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}

// Goal: a serial number reads as in other tools: without the octet of the sign.
#[test]
fn serial_numbers_are_written_without_their_sign() {
    assert_eq!(serial_text(&[0, 0x80]), "80");
    assert_eq!(serial_text(&[0]), "00");
    assert_eq!(serial_text(&[1, 2]), "0102");
}

// Goal: while a peer is asked, that is what people see, and afterwards what the machine shows.
#[test]
fn a_phase_is_shown_while_it_lasts() {
    let board = board(&machine(record()), NOW);
    let phase = || board.status(NOW.mono, LinkStatus::default()).unwrap().phase;
    let during = board.during(Phase::Proving);
    assert_eq!(phase(), "proving");
    drop(during);
    assert_eq!(phase(), "active");
}
