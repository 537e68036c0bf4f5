//! What firmware sends for the application: a numbered sign of health, and who has heard which.
//!
//! A message is known by the number of the session in which it was first sent and by its own, which
//! begins anew with each start of the board. The broker may deliver one twice (QoS 1), which counts
//! once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::serial::Boot;
use crate::subscriber::Hear;

/// The channel below the device's data topics.
const TOPIC: &str = "data/health";

/// The messages that a backend has heard, of every device.
#[derive(Debug, Default)]
pub struct Telemetry {
    heard: BTreeMap<String, BTreeSet<Message>>,
    anything: bool,
}

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    generation: u64,
    number: u64,
}

impl Telemetry {
    /// How many different messages `device` was heard to send.
    #[must_use]
    pub fn received(&self, device: &str) -> u64 {
        let count = self.heard.get(device).map_or(0, BTreeSet::len);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// The messages that `device` was told to have arrived, in one of its boots, and that were never
    /// heard: numbers, lowest first.
    #[must_use]
    pub fn missing(&self, device: &str, boot: &Boot) -> Vec<u64> {
        let heard = self.heard.get(device);
        let was_heard = |number| {
            let sessions = boot.generations.iter();
            let mut messages = sessions.map(|&generation| Message { generation, number });
            heard.is_some_and(|heard| messages.any(|message| heard.contains(&message)))
        };
        boot.acknowledged.iter().copied().filter(|number| !was_heard(*number)).collect()
    }

    /// Whether anything was heard, of whatever kind.
    #[must_use]
    pub const fn has_heard_anything(&self) -> bool {
        self.anything
    }
}

impl Hear for Telemetry {
    fn hear(&mut self, topic: &str, payload: &str) {
        self.anything = true;
        let Some(device) = device_of(topic) else { return };
        if let Some(message) = Message::read(payload) {
            self.heard.entry(device.to_owned()).or_default().insert(message);
        }
    }
}

impl Message {
    fn read(payload: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(payload).ok()?;
        let number = |name: &str| message[name].as_u64();
        (number("schema") == Some(1)).then_some(())?;
        Some(Self { generation: number("generation")?, number: number("number")? })
    }
}

/// The device that speaks on a telemetry topic.
fn device_of(topic: &str) -> Option<&str> {
    let (device, channel) = topic.strip_prefix("fleetcert/v1/")?.split_once('/')?;
    (channel == TOPIC).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(generation: u64, number: u64) -> String {
        format!(r#"{{"schema":1,"generation":{generation},"number":{number},"uptime_ms":7}}"#)
    }

    /// Goal: a message counts once a session and number, for its own device, and nothing else does.
    #[test]
    fn messages_are_told_apart_by_device_session_and_number() {
        let mut telemetry = Telemetry::default();
        assert!(!telemetry.has_heard_anything());
        for (device, generation, number) in [("a", 1, 1), ("a", 1, 1), ("a", 2, 1), ("b", 1, 1)] {
            let topic = format!("fleetcert/v1/{device}/data/health");
            telemetry.hear(&topic, &payload(generation, number));
        }
        telemetry.hear("fleetcert/v1/a/data/other", &payload(3, 1));
        telemetry.hear("fleetcert/v1/a/data/health", "garbage");
        telemetry.hear("fleetcert/v1/a/data/health", r#"{"schema":2,"generation":3,"number":1}"#);
        let received = ["a", "b", "c"].map(|device| telemetry.received(device));
        assert_eq!(received, [2, 1, 0]);
        assert!(telemetry.has_heard_anything());
    }

    /// Goal: what was acknowledged in a boot has to have arrived from one of that boot's sessions.
    #[test]
    fn an_acknowledged_message_that_never_came_is_missed() {
        let mut telemetry = Telemetry::default();
        for (generation, number) in [(7, 1), (8, 2), (9, 3)] {
            telemetry.hear("fleetcert/v1/a/data/health", &payload(generation, number));
        }
        let boot = Boot {
            generations: BTreeSet::from([7, 8]),
            acknowledged: BTreeSet::from([1, 2, 3, 4]),
            ..Boot::default()
        };
        assert_eq!(telemetry.missing("a", &boot), [3, 4]);
        assert_eq!(telemetry.missing("b", &boot), [1, 2, 3, 4]);
    }
}
