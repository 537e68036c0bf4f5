//! What is said over MQTT in our own name: JSON payloads with a schema version.
//!
//! `docs/design/mqtt.md` gives each with an example. Consumers ignore members that they do not
//! know; a change of meaning is a new schema number.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::generation::GENERATION_MAX;

/// The version of every payload here.
const SCHEMA: u64 = 1;

/// Octets of a command, at most.
pub(super) const COMMAND_LEN_MAX: usize = 4 * 1024;

/// Octets of a command's id, at most: a UUID and then some.
const COMMAND_ID_LEN_MAX: usize = 64;

/// What a device may be told over MQTT. The broker's ACL decides who may tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Renew the identity now.
    Renew,
}

/// Why an order was not taken; its code is for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Other commands are still waiting.
    Busy,
    /// Not JSON of the form of a command, or too long.
    Malformed,
    /// The broker kept it for us from an earlier time; a command is for now.
    Retained,
    /// A schema that we do not know.
    Schema,
    /// A command that we do not know.
    Unknown,
}

impl Refusal {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Retained => "retained",
            Self::Schema => "unknown-schema",
            Self::Unknown => "unknown-command",
        }
    }
}

/// A command as it was read: its id, where it had one, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) id: Option<String>,
    pub(super) order: Result<Order, Refusal>,
}

/// The shape of a command.
#[derive(Deserialize)]
struct Command {
    schema: u64,
    id: String,
    command: String,
}

/// Reads a command.
pub(super) fn parse_command(payload: &[u8]) -> Asked {
    let malformed = Asked { id: None, order: Err(Refusal::Malformed) };
    if payload.len() > COMMAND_LEN_MAX {
        return malformed;
    }
    let Ok(Command { schema, id, command }) = serde_json::from_slice(payload) else {
        return malformed;
    };
    if id.is_empty() || id.len() > COMMAND_ID_LEN_MAX {
        return malformed;
    }
    let order = match (schema, command.as_str()) {
        (SCHEMA, "renew") => Ok(Order::Renew),
        (SCHEMA, _) => Err(Refusal::Unknown),
        _ => Err(Refusal::Schema),
    };
    Asked { id: Some(id), order }
}

/// What came of a command, for the log.
pub(super) const fn verdict(outcome: Result<Order, Refusal>) -> &'static str {
    match outcome {
        Ok(Order::Renew) => "renew",
        Err(refusal) => refusal.code(),
    }
}

/// The answer to a command.
pub(super) fn result(id: Option<&str>, outcome: Result<Order, Refusal>) -> Vec<u8> {
    let id = id.map_or(Value::Null, Value::from);
    let answer = match outcome {
        Ok(_) => json!({ "schema": SCHEMA, "id": id, "ok": true }),
        Err(refusal) => json!({ "schema": SCHEMA, "id": id, "ok": false, "error": refusal.code() }),
    };
    answer.to_string().into_bytes()
}

/// Birth: the device is connected, with what it last said of its state.
pub(super) fn birth(generation: u64, details: &Map<String, Value>) -> Vec<u8> {
    state(generation, true, details)
}

/// Death: the last will, and what a device says before it leaves.
pub(super) fn death(generation: u64) -> Vec<u8> {
    state(generation, false, &Map::new())
}

fn state(generation: u64, online: bool, details: &Map<String, Value>) -> Vec<u8> {
    let mut members = details.clone();
    members.insert("schema".into(), SCHEMA.into());
    members.insert("generation".into(), generation.into());
    members.insert("online".into(), online.into());
    Value::Object(members).to_string().into_bytes()
}

/// A state, as far as its order among others is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Seen {
    pub(super) generation: u64,
    pub(super) online: bool,
}

/// Reads a state of this device as the broker has it.
pub(super) fn parse_state(payload: &[u8]) -> Option<Seen> {
    serde_json::from_slice(payload).ok().filter(|seen: &Seen| seen.generation <= GENERATION_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{
        Asked, COMMAND_LEN_MAX, Order, Refusal, Seen, birth, death, parse_command, parse_state,
        result,
    };

    fn asked(id: &str, order: Result<Order, Refusal>) -> Asked {
        Asked { id: Some(id.into()), order }
    }

    #[test]
    fn a_command_is_known_by_schema_and_name_and_members_that_we_do_not_know_are_ignored() {
        let renew = br#"{"schema":1,"id":"a","command":"renew","later":[]}"#;
        assert_eq!(parse_command(renew), asked("a", Ok(Order::Renew)));
        let unknown = br#"{"schema":1,"id":"a","command":"reboot"}"#;
        assert_eq!(parse_command(unknown), asked("a", Err(Refusal::Unknown)));
        let later = br#"{"schema":2,"id":"a","command":"renew"}"#;
        assert_eq!(parse_command(later), asked("a", Err(Refusal::Schema)));
    }

    #[test]
    fn what_is_no_command_is_malformed_and_has_no_id() {
        let long_id = json!({ "schema": 1, "id": "x".repeat(65), "command": "renew" }).to_string();
        let mut long = br#"{"schema":1,"id":"a","command":"renew"}"#.to_vec();
        long.resize(COMMAND_LEN_MAX + 1, b' ');
        let cases: [&[u8]; 8] = [
            b"",
            b"renew",
            b"[1]",
            br#"{"schema":1,"id":"a"}"#,
            br#"{"schema":1,"id":"","command":"renew"}"#,
            br#"{"schema":1,"id":7,"command":"renew"}"#,
            long_id.as_bytes(),
            &long,
        ];
        for payload in cases {
            assert_eq!(parse_command(payload), Asked { id: None, order: Err(Refusal::Malformed) });
        }
    }

    #[test]
    fn results_say_what_came_of_which_command() {
        let read = |octets: Vec<u8>| serde_json::from_slice::<Value>(&octets).unwrap();
        let done = read(result(Some("a"), Ok(Order::Renew)));
        assert_eq!(done, json!({ "schema": 1, "id": "a", "ok": true }));
        let refused = read(result(None, Err(Refusal::Malformed)));
        assert_eq!(refused, json!({ "schema": 1, "id": null, "ok": false, "error": "malformed" }));
    }

    /// Goal: no detail that somebody publishes can change the order of births and deaths.
    #[test]
    fn the_members_that_order_states_cannot_be_overwritten() {
        let details = json!({ "phase": "active", "generation": 99, "online": false });
        let details = details.as_object().unwrap();
        let seen: Value = serde_json::from_slice(&birth(7, details)).unwrap();
        assert_eq!(
            seen,
            json!({ "schema": 1, "generation": 7, "online": true, "phase": "active" })
        );
    }

    #[test]
    fn births_and_deaths_are_read_back_and_absurd_numbers_are_not() {
        let alive = parse_state(&birth(7, &Map::new()));
        assert_eq!(alive, Some(Seen { generation: 7, online: true }));
        assert_eq!(parse_state(&death(7)), Some(Seen { generation: 7, online: false }));
        let absurd = json!({ "generation": u64::MAX, "online": true }).to_string();
        assert_eq!(parse_state(absurd.as_bytes()), None);
        assert_eq!(parse_state(b"offline"), None);
    }
}
