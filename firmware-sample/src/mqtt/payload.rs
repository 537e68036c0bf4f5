//! Births and deaths, said and heard, as `docs/design/mqtt.md` gives them; and the sample
//! application's telemetry.

use core::fmt::Write as _;

use heapless::String;

use crate::store::GENERATION_MAX;

use super::json::{Malformed, Object};

/// Octets of a phase, at most.
pub const PHASE_LEN_MAX: usize = 32;

/// Octets of a birth or a death, at most: its members, and the longest number and phase.
pub const STATE_LEN_MAX: usize = 128;

/// Octets of a message of telemetry, at most: its members, three numbers and a phase.
pub const TELEMETRY_LEN_MAX: usize = 160;

/// A state, as far as its order among others is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The session that it is of.
    pub generation: u64,
    /// Whether it is a birth.
    pub online: bool,
}

/// A birth; `phase` is of the form `[a-z-]{1,32}`, else there is none.
#[must_use]
pub fn birth(generation: u64, phase: &str) -> Option<String<STATE_LEN_MAX>> {
    let mut text = String::new();
    let written =
        write!(text, r#"{{"schema":1,"generation":{generation},"online":true,"phase":"{phase}"}}"#);
    (is_phase(phase) && written.is_ok()).then_some(text)
}

fn is_phase(phase: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_lowercase() || octet == b'-';
    (1..=PHASE_LEN_MAX).contains(&phase.len()) && phase.bytes().all(is_plain)
}

/// A death: the last will, or what is said before a planned end.
#[must_use]
pub fn death(generation: u64) -> String<STATE_LEN_MAX> {
    let mut text = String::new();
    let written = write!(text, r#"{{"schema":1,"generation":{generation},"online":false}}"#);
    debug_assert!(written.is_ok(), "a death is longer than it can be");
    text
}

/// Reads a state of this device as the broker has it.
#[must_use]
pub fn parse_state(payload: &[u8]) -> Option<Seen> {
    read_state(payload).ok().filter(|seen| seen.generation <= GENERATION_MAX)
}

fn read_state(payload: &[u8]) -> Result<Seen, Malformed> {
    let (mut generation, mut online) = (None, None);
    let mut object = Object::open(payload)?;
    while let Some(name) = object.next_name()? {
        let is_new = match name {
            b"generation" => generation.replace(object.unsigned()?).is_none(),
            b"online" => online.replace(object.boolean()?).is_none(),
            _ => object.skip().map(|()| true)?,
        };
        if !is_new {
            return Err(Malformed);
        }
    }
    let (Some(generation), Some(online)) = (generation, online) else { return Err(Malformed) };
    Ok(Seen { generation, online })
}

/// A sign of life of the sample application: what it says below `data/health`. `generation` is that
/// of the session in which it is first sent, `number` counts up from 1 at each start, so that the
/// two together are never said twice. `phase` as in a [`birth`], else there is none.
#[must_use]
pub fn telemetry(
    generation: u64,
    number: u64,
    uptime_ms: u64,
    phase: &str,
) -> Option<String<TELEMETRY_LEN_MAX>> {
    let mut text = String::new();
    let written = write!(text, r#"{{"schema":1,"generation":{generation},"number":{number},"#)
        .and_then(|()| write!(text, r#""uptime_ms":{uptime_ms},"phase":"{phase}"}}"#));
    (is_phase(phase) && written.is_ok()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_and_deaths_are_as_documented() {
        let expected = r#"{"schema":1,"generation":4711,"online":true,"phase":"active"}"#;
        assert_eq!(birth(4711, "active").unwrap(), expected);
        assert_eq!(death(4711), r#"{"schema":1,"generation":4711,"online":false}"#);
    }

    #[test]
    fn the_longest_of_them_fit_and_what_is_no_phase_gives_none() {
        let longest = std::string::String::from("x").repeat(PHASE_LEN_MAX);
        assert!(birth(u64::MAX, &longest).unwrap().ends_with("x\"}"));
        assert!(death(u64::MAX).ends_with("false}"));
        assert!(telemetry(u64::MAX, u64::MAX, u64::MAX, &longest).unwrap().ends_with("x\"}"));
        for phase in ["", "A", "a\"", "a b", &std::format!("{longest}x")] {
            assert_eq!((birth(1, phase), telemetry(1, 1, 1, phase)), (None, None), "{phase}");
        }
    }

    #[test]
    fn telemetry_is_as_documented() {
        let expected =
            r#"{"schema":1,"generation":257,"number":17,"uptime_ms":85000,"phase":"active"}"#;
        assert_eq!(telemetry(257, 17, 85_000, "active").unwrap(), expected);
    }

    #[test]
    fn births_and_deaths_are_read_back_and_absurd_numbers_are_not() {
        let seen = |generation, online| Some(Seen { generation, online });
        let alive = birth(GENERATION_MAX, "active").unwrap();
        assert_eq!(parse_state(alive.as_bytes()), seen(GENERATION_MAX, true));
        assert_eq!(parse_state(death(7).as_bytes()), seen(7, false));
        assert_eq!(parse_state(death(GENERATION_MAX + 1).as_bytes()), None);
        assert_eq!(parse_state(br#"{"later":[{}],"online":true,"generation":0}"#), seen(0, true));
    }

    #[test]
    fn what_is_no_state_is_none() {
        let cases: [&[u8]; 9] = [
            b"",
            b"offline",
            br#"{"generation":7}"#,
            br#"{"online":true}"#,
            br#"{"generation":-7,"online":true}"#,
            br#"{"generation":7,"online":1}"#,
            br#"{"generation":7,"online":true,"generation":8}"#,
            br#"{"generation":7,"online":true"#,
            br#"[7,true]"#,
        ];
        for payload in cases {
            assert_eq!(parse_state(payload), None, "{}", payload.escape_ascii());
        }
    }
}
