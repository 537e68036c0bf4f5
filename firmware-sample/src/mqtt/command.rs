//! Commands to this device, and what came of them, as `docs/design/mqtt.md` gives them.
//!
//! **What it must never do.** Take a command from a message that is not, all of it, of the form of
//! one; do a command twice because it was delivered twice; let who asks make up what a result, or
//! a serial line, looks like.
//!
//! **Why that is sound.** The reader is strict about the whole message (`json`). A [`CommandId`] is
//! made by reading one, and holds it as it stood between its quotation marks: with nothing to
//! escape when it goes between quotation marks again, and nothing in it that ends a line.
//! [`Heard`] knows the ids of the last commands that were taken.

use core::fmt;

use heapless::String;

use super::json::{self, Json};

/// The version of commands and results.
const SCHEMA: u64 = 1;

/// Octets of a command's id as it is written in JSON, at most: a UUID and then some.
pub const COMMAND_ID_LEN_MAX: usize = 64;

/// Ids of commands that are remembered.
pub const HEARD_LEN_MAX: usize = 4;

/// What who asks calls a command: 1 to [`COMMAND_ID_LEN_MAX`] octets, as they stood in its JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandId(String<COMMAND_ID_LEN_MAX>);

/// What a device may be told over MQTT. The broker's ACL decides who may tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Renew the identity now.
    Renew,
}

/// Why an order was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another command is still waiting.
    Busy,
    /// Not JSON of the form of a command.
    Malformed,
    /// The broker kept it for us from an earlier time; a command is for now.
    Retained,
    /// A schema that we do not know.
    Schema,
    /// A command that we do not know.
    Unknown,
}

/// A command as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its id, where it had one.
    pub id: Option<CommandId>,
    /// What is asked, or why it is not taken.
    pub order: Result<Order, Refusal>,
}

/// The ids of the last commands that were taken: a second delivery is not a second command.
#[derive(Debug)]
pub struct Heard {
    /// One that is empty is nobody's.
    ids: [CommandId; HEARD_LEN_MAX],
    /// The place of the next one: that of the oldest.
    next: usize,
}

impl Refusal {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Retained => "retained",
            Self::Schema => "unknown-schema",
            Self::Unknown => "unknown-command",
        }
    }
}

impl Asked {
    /// Reads a command. `is_retained` says that the broker had kept it.
    #[must_use]
    pub fn parse(payload: &[u8], is_retained: bool) -> Self {
        let malformed = Self { id: None, order: Err(Refusal::Malformed) };
        let mut asked = Self::read(payload).unwrap_or(malformed);
        if is_retained {
            asked.order = Err(Refusal::Retained);
        }
        asked
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let [schema, id, command] = json::members(payload, [b"schema", b"id", b"command"])?;
        let (id, command) = (CommandId::new(json::string(id)?)?, json::string(command)?);
        let order = match (json::unsigned(schema)?, command) {
            (SCHEMA, b"renew") => Ok(Order::Renew),
            (SCHEMA, _) => Err(Refusal::Unknown),
            _ => Err(Refusal::Schema),
        };
        Some(Self { id: Some(id), order })
    }
}

impl CommandId {
    const NONE: Self = Self(String::new());

    fn new(string: &[u8]) -> Option<Self> {
        let text = core::str::from_utf8(string).ok().filter(|text| !text.is_empty())?;
        String::try_from(text).map(Self).ok()
    }
}

impl Heard {
    /// No commands yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { ids: [CommandId::NONE; HEARD_LEN_MAX], next: 0 }
    }

    /// Whether a command of this id was taken before: then there is nothing to do or to say.
    #[must_use]
    pub fn contains(&self, id: &CommandId) -> bool {
        self.ids.contains(id)
    }

    /// Remembers the id of a command that was taken, in the place of the oldest one.
    pub fn note(&mut self, id: CommandId) {
        if let Some(place) = self.ids.get_mut(self.next) {
            *place = id;
        }
        self.next = (self.next + 1) % HEARD_LEN_MAX;
    }
}

impl Default for Heard {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of a command, for people.
#[must_use]
pub const fn verdict(outcome: Result<Order, Refusal>) -> &'static str {
    match outcome {
        Ok(Order::Renew) => "renew",
        Err(refusal) => refusal.code(),
    }
}

/// The answer to a command.
#[must_use]
pub fn result(id: Option<&CommandId>, outcome: Result<Order, Refusal>) -> Json {
    let mut json = Json::begin();
    match id {
        Some(id) => json.value("id", &format_args!("\"{id}\"")),
        None => json.value("id", &"null"),
    }
    json.value("ok", &outcome.is_ok());
    if let Err(refusal) = outcome {
        json.string("error", &refusal.code());
    }
    json.end()
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String as Text, ToString};

    use serde_json::{Value, json};

    use super::*;

    fn id(text: &str) -> CommandId {
        CommandId::new(text.as_bytes()).unwrap()
    }

    fn asked(text: &str, order: Result<Order, Refusal>) -> Asked {
        Asked { id: Some(id(text)), order }
    }

    fn parse(payload: impl AsRef<[u8]>) -> Asked {
        Asked::parse(payload.as_ref(), false)
    }

    fn malformed() -> Asked {
        Asked { id: None, order: Err(Refusal::Malformed) }
    }

    /// A command whose id is written like this.
    fn renew(id: &str) -> Asked {
        parse(format!(r#"{{"schema":1,"id":"{id}","command":"renew"}}"#))
    }

    /// The result as another reader of JSON understands it.
    fn said(id: Option<&CommandId>, outcome: Result<Order, Refusal>) -> Value {
        serde_json::from_str(result(id, outcome).as_str()).unwrap()
    }

    #[test]
    fn a_command_is_known_by_schema_and_name_and_members_that_we_do_not_know_are_ignored() {
        let renew = br#"{"schema":1,"id":"a","command":"renew","later":[{}],"":null}"#;
        assert_eq!(parse(renew), asked("a", Ok(Order::Renew)));
        let unknown = br#"{"schema":1,"id":"a","command":"reboot"}"#;
        assert_eq!(parse(unknown), asked("a", Err(Refusal::Unknown)));
        let later = br#"{"schema":2,"id":"a","command":"renew"}"#;
        assert_eq!(parse(later), asked("a", Err(Refusal::Schema)));
    }

    #[test]
    fn what_is_no_command_is_malformed_and_has_no_id() {
        let cases: [&[u8]; 17] = [
            b"",
            b"renew",
            b"[1]",
            br#"[1,"a","renew"]"#,
            br#"{"schema":1,"id":"a"}"#,
            br#"{"id":"a","command":"renew"}"#,
            br#"{"schema":1,"command":"renew"}"#,
            br#"{"schema":1,"id":"","command":"renew"}"#,
            br#"{"schema":1,"id":7,"command":"renew"}"#,
            br#"{"schema":1,"id":null,"command":"renew"}"#,
            br#"{"schema":"1","id":"a","command":"renew"}"#,
            br#"{"schema":1.0,"id":"a","command":"renew"}"#,
            br#"{"schema":1,"id":"a","command":["renew"]}"#,
            br#"{"schema":1,"id":"a","command":"renew","id":"b"}"#,
            br#"{"schema":1,"id":"a","command":"renew"} "later""#,
            br#"{"schema":1,"id":"a","command":"renew","x":[}}"#,
            b"{\"schema\":1,\"id\":\"\xff\",\"command\":\"renew\"}",
        ];
        for payload in cases {
            assert_eq!(parse(payload), malformed(), "{}", Text::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn a_command_that_the_broker_kept_is_refused_whatever_it_is() {
        let renew = br#"{"schema":1,"id":"a","command":"renew"}"#;
        assert_eq!(Asked::parse(renew, true), asked("a", Err(Refusal::Retained)));
        assert_eq!(Asked::parse(b"", true), Asked { id: None, order: Err(Refusal::Retained) });
    }

    /// Goal: what a peer nests costs no stack, and is malformed beyond the limit.
    #[test]
    fn a_command_that_is_all_brackets_is_malformed() {
        for bracket in ["[", r#"{"a":"#] {
            let deep = bracket.repeat(100_000);
            assert_eq!(parse(&deep), malformed());
            let around = format!(r#"{{"schema":1,"id":"a","command":"renew","x":{deep}"#);
            assert_eq!(parse(around), malformed());
        }
    }

    #[test]
    fn ids_that_are_long_or_no_json_are_malformed() {
        assert_eq!(renew(&"x".repeat(64)), asked(&"x".repeat(64), Ok(Order::Renew)));
        let broken = ["\n", "\0", r"\", r"\x41", r"\u00", r"\ud800", r"\udc00\ud800"];
        let long = ["x".repeat(65), "é".repeat(33), r"\u0061".repeat(11)];
        for id in long.into_iter().chain(broken.map(Text::from)) {
            assert_eq!(renew(&id), malformed(), "{id}");
        }
    }

    #[test]
    fn results_say_what_came_of_which_command() {
        let id = id("8f1c");
        let renewed = result(Some(&id), Ok(Order::Renew));
        assert_eq!(renewed.as_str(), r#"{"schema":1,"id":"8f1c","ok":true}"#);
        let expected = r#"{"schema":1,"id":"8f1c","ok":false,"error":"unknown-command"}"#;
        assert_eq!(result(Some(&id), Err(Refusal::Unknown)).as_str(), expected);
        let refused = said(None, Err(Refusal::Malformed));
        assert_eq!(refused, json!({ "schema": 1, "id": null, "ok": false, "error": "malformed" }));
    }

    /// Goal: whatever an id is made of, and however it is escaped, it comes back the same, in a
    /// result that is JSON, fits, and is one line.
    #[test]
    fn every_id_comes_back_in_json() {
        let single = ('\0'..='\u{ff}').chain(['\u{2028}', '\u{ffff}', '😀']).map(Text::from);
        let hostile = [r#"","ok":true,"x":""#, r#"\"#, r#"","id":null,""#].map(Text::from);
        let longest = [r#"""#.repeat(32), r"\".repeat(32), "a".repeat(64), "\0".repeat(10)];
        for meant in single.chain(hostile).chain(longest) {
            let plain = json!(meant).to_string();
            let units: Text = meant.encode_utf16().map(|unit| format!(r"\u{unit:04x}")).collect();
            let fits = |text: &&str| text.len() <= COMMAND_ID_LEN_MAX;
            for written in [&plain[1..plain.len() - 1], &units].into_iter().filter(fits) {
                let Asked { id: Some(id), order: Ok(Order::Renew) } = renew(written) else {
                    panic!("{written} is no id");
                };
                for outcome in [Ok(Order::Renew), Err(Refusal::Unknown)] {
                    assert_eq!(said(Some(&id), outcome)["id"], json!(meant), "{written}");
                    assert_eq!(said(Some(&id), outcome)["ok"], json!(outcome.is_ok()));
                    assert!(!result(Some(&id), outcome).as_str().contains(['\n', '\r', '\0']));
                }
            }
        }
    }

    #[test]
    fn refusals_have_the_codes_of_the_documentation() {
        use Refusal as R;
        let codes = [R::Busy, R::Malformed, R::Retained, R::Schema, R::Unknown]
            .map(|refusal| verdict(Err(refusal)));
        let documented = ["busy", "malformed", "retained", "unknown-schema", "unknown-command"];
        assert_eq!(codes, documented);
        assert_eq!(verdict(Ok(Order::Renew)), "renew");
    }

    #[test]
    fn the_last_commands_are_remembered_and_older_ones_are_not() {
        let id = |number: usize| id(&format!("id-{number}"));
        let mut heard = Heard::new();
        for number in 0..3 * HEARD_LEN_MAX {
            assert!(!heard.contains(&id(number)));
            heard.note(id(number));
            let known = (0..=number).filter(|number| heard.contains(&id(*number)));
            assert!(known.eq((number + 1).saturating_sub(HEARD_LEN_MAX)..=number));
        }
    }
}
