//! What happened to the identity: its facts in a row for people, and JSON for the fleet with the
//! members that the Linux agent gives it (`docs/design/mqtt.md`).
//!
//! **What it must never do.** Say what is no JSON, whatever a peer has put into a reason.
//!
//! **Why that is sound.** Strings need no escapes: what goes into them is our own words, digits, and
//! a provisioner's reason code, of which the core takes none but `[a-z0-9-]`; and each is looked at
//! once more when it is written. The room suffices for the longest event: all that goes into one is
//! limited by its type.

use core::fmt::{self, Display};

use fleetcert_core::device_id::{DEVICE_ID_LEN_MAX, DeviceId};
use fleetcert_core::event::{Event, Failure};
use fleetcert_core::record::Serial;
use fleetcert_core::time::Wall;

use super::json::{JSON_LEN_MAX, Json};
use super::outbox::PUBLISH_LEN_MAX;

/// Octets of a PUBLISH around its payload: header, length, identifier, and the topic of events.
const AROUND_LEN_MAX: usize = 1 + 2 + 2 + 2 + "fleetcert/v1//event".len() + DEVICE_ID_LEN_MAX;

const _: () = assert!(JSON_LEN_MAX + AROUND_LEN_MAX <= PUBLISH_LEN_MAX);

/// What is told of an event, for people: the names and values of its facts.
#[derive(Clone, Copy, Debug)]
pub struct Told<'e>(pub &'e Event);

/// The value of a fact.
#[derive(Clone, Copy)]
enum Value<'v> {
    /// A number or a truth value.
    Plain(&'v dyn Display),
    /// A text.
    Text(&'v dyn Display),
}

/// Takes the facts of an event, one by one.
type Taker<'t> = &'t mut dyn FnMut(&str, Value<'_>);

/// A serial number in hexadecimal digits, without the zero that only says that it is positive.
struct Digits<'s>(&'s Serial);

/// An event as JSON; `at` is when it happened, as far as that is known.
#[must_use]
pub fn event(device_id: &DeviceId, at: Option<Wall>, event: &Event) -> Json {
    let mut json = Json::begin();
    json.string("event", &event.code());
    json.string("device_id", &device_id.as_str());
    match at {
        Some(at) => json.string("at", &at),
        None => json.value("at", &"null"),
    }
    json.string("text", &Told(event));
    facts(event, &mut |name, value| match value {
        Value::Plain(value) => json.value(name, value),
        Value::Text(value) => json.string(name, value),
    });
    json.end()
}

/// What there is to say of an event besides its name.
fn facts(event: &Event, take: Taker<'_>) {
    use Value::{Plain, Text};
    if let Event::Adopted { slot, .. }
    | Event::CandidateDiscarded { slot }
    | Event::Enrolled { slot, .. }
    | Event::Proven { slot, .. }
    | Event::Requested { slot, .. } = event
    {
        take("slot", Text(&slot.as_str()));
    }
    match event {
        Event::Adopted { serial, .. }
        | Event::Enrolled { serial, .. }
        | Event::Proven { serial, .. } => take("serial", Text(&Digits(serial))),
        Event::ClockJudged { known } => take("known", Plain(known)),
        Event::ClockRefused { offered } => take("offered", Text(offered)),
        Event::Expired { time, .. } => take("time", Text(time)),
        Event::Failed { operation, failure, retry_in_s } => {
            take("operation", Text(&operation.code()));
            take("code", Text(&failure.code()));
            take("retry_in_s", Plain(retry_in_s));
        }
        Event::Requested { kind, .. } => take("kind", Text(&kind.code())),
        Event::CandidateDiscarded { .. } | Event::Decommissioned | Event::Quarantined => {}
    }
    if let Event::Enrolled { not_after, .. } | Event::Expired { not_after, .. } = event {
        take("not_after", Text(not_after));
    }
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut told, mut separator) = (Ok(()), "");
        facts(self.0, &mut |name, value| {
            let (Value::Plain(value) | Value::Text(value)) = value;
            told = told.and_then(|()| write!(f, "{separator}{name} {value}"));
            separator = ", ";
        });
        told?;
        match self.0 {
            Event::Failed { failure: Failure::Refused { status, reason }, .. } => {
                write!(f, ", status {status}, reason {reason}")
            }
            _ => Ok(()),
        }
    }
}

impl Display for Digits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = match self.0.as_slice() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            whole => whole,
        };
        octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use fleetcert_core::event::{Failure, Operation, Reason, Unfit};
    use fleetcert_core::record::{Kind, Slot};
    use serde_json::{Value, json};

    use super::{DEVICE_ID_LEN_MAX, DeviceId, Event, Serial, Told, Wall, event};

    /// As late as a time can be written, and as long as a serial number can be.
    const LATE: Wall = Wall(u64::MAX);

    fn serial() -> Serial {
        Serial::from_slice(&[0xfe; 20]).unwrap()
    }

    fn failed(failure: Failure) -> Event {
        Event::Failed { operation: Operation::EnsureKey, failure, retry_in_s: u32::MAX }
    }

    /// Every event, as long as it can be, and what it has besides what all have.
    fn all() -> Vec<(Event, Value)> {
        let (slot, written, digits) = (Slot::B, LATE.to_string(), "fe".repeat(20));
        let reason = Reason::try_from("x".repeat(32).as_str()).unwrap();
        let refused = Failure::Refused { status: 599, reason };
        let unfit = Unfit::Expired { time: LATE, not_after: LATE };
        let failure =
            |code: &str| json!({"operation": "ensure-key", "code": code, "retry_in_s": u32::MAX});
        std::vec![
            (Event::Adopted { slot, serial: serial() }, json!({"slot": "b", "serial": digits})),
            (Event::CandidateDiscarded { slot }, json!({"slot": "b"})),
            (Event::ClockJudged { known: true }, json!({"known": true})),
            (Event::ClockJudged { known: false }, json!({"known": false})),
            (Event::ClockRefused { offered: LATE }, json!({"offered": written})),
            (Event::Decommissioned, json!({})),
            (
                Event::Enrolled { slot, serial: serial(), not_after: LATE },
                json!({"slot": "b", "serial": digits, "not_after": written}),
            ),
            (
                Event::Expired { time: LATE, not_after: LATE },
                json!({"time": written, "not_after": written}),
            ),
            (failed(Failure::CertificateUnfit(Unfit::Form)), failure("certificate-unfit")),
            (failed(Failure::CertificateUnfit(unfit)), failure("certificate-unfit")),
            (failed(refused), failure("refused")),
            (failed(Failure::ServerUntrusted), failure("server-untrusted")),
            (failed(Failure::WrongCertificateSeen), failure("wrong-certificate-seen")),
            (Event::Proven { slot, serial: serial() }, json!({"slot": "b", "serial": digits})),
            (Event::Quarantined, json!({})),
            (
                Event::Requested { slot, kind: Kind::Recover },
                json!({"slot": "b", "kind": "recover"})
            ),
        ]
    }

    /// Goal: every event is JSON with the members that the agent gives it, from the device with the
    /// longest name too, and can be sent.
    #[test]
    fn every_event_is_json_with_its_facts_and_fits() {
        let device_id = DeviceId::parse(&"d".repeat(DEVICE_ID_LEN_MAX)).unwrap();
        for (happened, facts) in all() {
            let json = event(&device_id, Some(LATE), &happened);
            let json = json.as_str();
            let Value::Object(mut said) = serde_json::from_str(json).unwrap() else { panic!() };
            let text = said.remove("text").unwrap();
            assert_eq!(text, Told(&happened).to_string(), "{json}");
            let common = json!({
                "schema": 1, "event": happened.code(), "device_id": "d".repeat(DEVICE_ID_LEN_MAX),
                "at": LATE.to_string(),
            });
            let (Value::Object(mut expected), Value::Object(facts)) = (common, facts) else {
                panic!()
            };
            expected.extend(facts);
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn an_event_at_an_unknown_time_says_so() {
        let device_id = DeviceId::parse("pump-7").unwrap();
        let serial = Serial::from_slice(&[0, 0xfe]).unwrap();
        let json = event(&device_id, None, &Event::Proven { slot: Slot::A, serial });
        let expected = concat!(
            r#"{"schema":1,"event":"proven","device_id":"pump-7","at":null,"#,
            r#""text":"slot a, serial fe","slot":"a","serial":"fe"}"#
        );
        assert_eq!(json.as_str(), expected);
    }

    /// Goal: a text that would leave its string, or its line, is said by nobody.
    #[test]
    fn what_has_a_meaning_in_json_is_not_said() {
        let device_id = DeviceId::parse("pump-7").unwrap();
        let with = |reason: &str| {
            let reason = Reason::try_from(reason).unwrap();
            event(&device_id, None, &failed(Failure::Refused { status: 403, reason }))
        };
        assert!(with("token-used").as_str().contains("status 403, reason token-used"));
        for reason in [r#"",""#, r"\", "\n", "\0", "\u{1f}"] {
            assert_eq!(with(reason).as_str(), "", "{reason:?}");
        }
    }

    #[test]
    fn the_facts_are_told_in_a_row() {
        let told = |event| Told(&event).to_string();
        assert_eq!(
            told(failed(Failure::Unreachable)),
            "operation ensure-key, code unreachable, retry_in_s 4294967295"
        );
        assert_eq!(
            told(Event::Expired { time: Wall(9), not_after: Wall(5) }),
            "time 1970-01-01T00:00:09Z, not_after 1970-01-01T00:00:05Z"
        );
        assert_eq!(told(Event::Quarantined), "");
    }
}
