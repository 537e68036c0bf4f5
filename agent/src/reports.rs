//! Where the machine's reports go: the log, the status, and the fleet by MQTT.
//!
//! A report is told once and never waited for: what the broker does not take in time is in the
//! log. Its topic is `event` below the device's prefix; the payload is JSON with a schema version.

use std::rc::Rc;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Event, Failure};
use fleetcert_core::port::Reports;
use fleetcert_core::time::Now;
use serde_json::{Value, json};

use crate::cause::Causes;
use crate::context::Executor;
use crate::link::{Link, Publication};
use crate::status::{Board, FailureNote, SCHEMA, serial_text};

/// The topic of reports below the device's prefix.
const EVENT: &str = "event";

/// The port of the machine's reports.
pub struct Reporter {
    device: DeviceId,
    board: Board,
    causes: Causes,
    link: Rc<dyn Link>,
    executor: Executor,
}

impl Reporter {
    /// A reporter of one device to its board and its broker.
    #[must_use]
    pub fn new(
        device: DeviceId,
        board: Board,
        causes: Causes,
        link: Rc<dyn Link>,
        executor: Executor,
    ) -> Self {
        Self { device, board, causes, link, executor }
    }

    fn publish(&self, now: Now, name: &str, facts: Value, text: &str) {
        let mut payload = json!({
            "schema": SCHEMA,
            "event": name,
            "device_id": self.device.as_str(),
            "at": now.wall.map(|wall| wall.to_string()),
            "text": text,
        });
        if let (Value::Object(payload), Value::Object(facts)) = (&mut payload, facts) {
            payload.extend(facts);
        }
        let payload = payload.to_string().into_bytes();
        let publication = Publication { topic: EVENT.to_owned(), payload, retain: false };
        let acknowledged = self.link.publish(publication);
        let name = name.to_owned();
        let told = async move {
            if let Err(failure) = acknowledged.await {
                log::debug!("event {name} not told to the broker: {failure}");
            }
        };
        self.executor.spawn(told).detach();
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Reports for Reporter {
    fn report(&mut self, now: Now, event: Event) {
        let event = &event;
        let cause = match event {
            Event::Failed { .. } => self.causes.take(),
            _ => None,
        };
        let what_to_do = match event {
            Event::Failed { operation, failure, .. } => self.board.what_to_do(*operation, failure),
            _ => "",
        };
        let text = text(event, cause.as_deref(), what_to_do);
        log::log!(level(event), "{text}");
        self.publish(now, event.code(), facts(event, what_to_do), &text);
        if let Event::Failed { operation, failure, retry_in_s } = event {
            self.board.fail(FailureNote {
                operation: *operation,
                failure: failure.clone(),
                cause,
                at: now.mono,
                retry_at: now.mono.plus_ms(1000 * u64::from(*retry_in_s)),
            });
        }
    }
}

const fn level(event: &Event) -> log::Level {
    match event {
        Event::CandidateDiscarded { .. }
        | Event::ClockRefused { .. }
        | Event::Expired { .. }
        | Event::Quarantined => log::Level::Warn,
        Event::Failed { failure, .. } => match failure {
            Failure::Busy { .. } | Failure::Pending { .. } => log::Level::Info,
            _ => log::Level::Warn,
        },
        Event::Adopted { .. }
        | Event::ClockJudged { .. }
        | Event::Decommissioned
        | Event::Enrolled { .. }
        | Event::Proven { .. }
        | Event::Requested { .. } => log::Level::Info,
    }
}

/// The particulars of an event, as members of its JSON.
fn facts(event: &Event, what_to_do: &str) -> Value {
    match event {
        Event::Adopted { slot, serial } | Event::Proven { slot, serial } => {
            json!({"slot": slot.as_str(), "serial": serial_text(serial)})
        }
        Event::CandidateDiscarded { slot } => json!({"slot": slot.as_str()}),
        Event::ClockJudged { known } => json!({"known": known}),
        Event::ClockRefused { offered } => json!({"offered": offered.to_string()}),
        Event::Decommissioned | Event::Quarantined => json!({}),
        Event::Enrolled { slot, serial, not_after } => json!({
            "slot": slot.as_str(),
            "serial": serial_text(serial),
            "not_after": not_after.to_string(),
        }),
        Event::Expired { time, not_after } => {
            json!({"time": time.to_string(), "not_after": not_after.to_string()})
        }
        Event::Failed { operation, failure, retry_in_s } => json!({
            "operation": operation.code(),
            "code": failure.code(),
            "retry_in_s": retry_in_s,
            "what_to_do": what_to_do,
        }),
        Event::Requested { slot, kind } => {
            json!({"slot": slot.as_str(), "kind": kind.code()})
        }
    }
}

/// One sentence for people.
fn text(event: &Event, cause: Option<&str>, what_to_do: &str) -> String {
    match event {
        Event::Adopted { slot, serial } => {
            format!("certificate {} in slot {} is in use", serial_text(serial), slot.as_str())
        }
        Event::CandidateDiscarded { slot } => {
            format!("the new identity in slot {} was given up unproven", slot.as_str())
        }
        Event::ClockJudged { known: true } => "the wall clock is believed".to_owned(),
        Event::ClockJudged { known: false } => {
            "the wall clock is not believed; nothing is judged by it".to_owned()
        }
        Event::ClockRefused { offered } => {
            format!("the provisioner's time {offered} lies in the past; not taken")
        }
        Event::Decommissioned => "decommissioned; the keys are erased".to_owned(),
        Event::Enrolled { serial, not_after, .. } => {
            format!("certificate {} issued, until {not_after}", serial_text(serial))
        }
        Event::Expired { time, not_after } => {
            format!("the certificate ran out at {not_after}, it is {time}")
        }
        Event::Failed { operation, failure, retry_in_s } => {
            failed(&format!("{}: {failure}", operation.code()), cause, what_to_do, *retry_in_s)
        }
        Event::Proven { slot, serial } => {
            format!("certificate {} in slot {} is proven", serial_text(serial), slot.as_str())
        }
        Event::Quarantined => "revoked; nothing is used until an operator approves".to_owned(),
        Event::Requested { slot, kind } => {
            format!("asking for a certificate for slot {} ({})", slot.as_str(), kind.code())
        }
    }
}

fn failed(what: &str, cause: Option<&str>, what_to_do: &str, retry_in_s: u32) -> String {
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{what}{cause}; again in {retry_in_s} s; to do: {what_to_do}")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use fleetcert_core::event::Operation;
    use fleetcert_core::record::{Kind, Slot};
    use fleetcert_core::time::{Mono, Wall};
    use futures_lite::future::BoxedLocal;
    use serde_json::Map;

    use super::*;
    use crate::keystore::KeyStore;
    use crate::link::{LinkStatus, PublishFailure};

    #[derive(Default)]
    struct Recorder(RefCell<Vec<Publication>>);

    impl Link for Recorder {
        fn publish(&self, publication: Publication) -> BoxedLocal<Result<(), PublishFailure>> {
            self.0.borrow_mut().push(publication);
            Box::pin(async { Err(PublishFailure::NotConfigured) })
        }

        fn describe(&self, _state: Map<String, Value>) {}

        fn judge(&self, _reading: fleetcert_core::time::Reading) {}

        fn status(&self) -> LinkStatus {
            LinkStatus::default()
        }

        fn close(&self) -> BoxedLocal<()> {
            Box::pin(async {})
        }
    }

    fn events() -> Vec<Event> {
        let (slot, serial) = (Slot::B, [0, 0xfe].into_iter().collect());
        let serial = || -> fleetcert_core::record::Serial { Clone::clone(&serial) };
        vec![
            Event::Adopted { slot, serial: serial() },
            Event::CandidateDiscarded { slot },
            Event::ClockJudged { known: true },
            Event::ClockJudged { known: false },
            Event::ClockRefused { offered: Wall(1) },
            Event::Decommissioned,
            Event::Enrolled { slot, serial: serial(), not_after: Wall(1_800_000_000) },
            Event::Expired { time: Wall(2), not_after: Wall(1) },
            Event::Failed {
                operation: Operation::Enroll,
                failure: Failure::Unreachable,
                retry_in_s: 8,
            },
            Event::Proven { slot, serial: serial() },
            Event::Quarantined,
            Event::Requested { slot, kind: Kind::Renew },
        ]
    }

    // Goal: every event reaches the fleet as JSON with a schema, a name and a text.
    #[test]
    fn every_event_is_published_with_its_facts() {
        let link = Rc::new(Recorder::default());
        let device = DeviceId::parse("gw-1").unwrap();
        let board = Board::new(device.clone(), KeyStore::in_memory());
        let causes = Causes::default();
        let shared = Rc::clone(&link) as Rc<dyn Link>;
        let mut reporter =
            Reporter::new(device, board, causes.clone(), shared, Executor::default());
        let now = Now { mono: Mono(1), wall: Some(Wall(1_800_000_000)), synchronised: false };
        causes.note("connection refused by 127.0.0.1:1");
        for event in events() {
            reporter.report(now, event);
        }
        let published = link.0.borrow();
        assert_eq!(published.len(), events().len());
        for (publication, event) in published.iter().zip(events()) {
            assert_eq!((publication.topic.as_str(), publication.retain), (EVENT, false));
            let json: Value = serde_json::from_slice(&publication.payload).unwrap();
            assert_eq!(json["event"], event.code());
            assert_eq!((&json["schema"], &json["device_id"]), (&json!(1), &json!("gw-1")));
            assert_eq!(json["at"], "2027-01-15T08:00:00Z");
            assert!(json["text"].as_str().unwrap().len() > 10);
        }
        let failed: Value = serde_json::from_slice(&published[8].payload).unwrap();
        assert_eq!((&failed["code"], &failed["retry_in_s"]), (&json!("unreachable"), &json!(8)));
        let text = failed["text"].as_str().unwrap();
        assert!(text.contains("127.0.0.1:1; again in 8 s; to do: check network"), "{text}");
        let enrolled: Value = serde_json::from_slice(&published[6].payload).unwrap();
        assert_eq!((&enrolled["serial"], &enrolled["slot"]), (&json!("fe"), &json!("b")));
        assert_eq!(causes.take(), None);
    }
}
