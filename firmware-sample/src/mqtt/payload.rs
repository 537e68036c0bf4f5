//! Births and deaths, said and heard, as `docs/design/mqtt.md` gives them; and the sample
//! application's telemetry.

use fleetcert_core::lifecycle::Phase;

use crate::store::GENERATION_MAX;

use super::json::{self, Json};

/// A state, as far as its order among others is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The session that it is of.
    pub generation: u64,
    /// Whether it is a birth.
    pub online: bool,
}

/// A birth.
#[must_use]
pub fn birth(generation: u64, phase: Phase) -> Json {
    let mut json = state(generation, true);
    json.string("phase", &phase.code());
    json.end()
}

/// A death: the last will, or what is said before a planned end.
#[must_use]
pub fn death(generation: u64) -> Json {
    state(generation, false).end()
}

fn state(generation: u64, online: bool) -> Json {
    let mut json = Json::begin();
    json.value("generation", &generation);
    json.value("online", &online);
    json
}

/// Reads a state of this device as the broker has it.
#[must_use]
pub fn parse_state(payload: &[u8]) -> Option<Seen> {
    let [generation, online] = json::members(payload, [b"generation", b"online"])?;
    let (generation, online) = (json::unsigned(generation)?, json::boolean(online)?);
    (generation <= GENERATION_MAX).then_some(Seen { generation, online })
}

/// A sign of life of the sample application: what it says below `data/health`. `generation` is that
/// of the session in which it is first sent, `number` counts up from 1 at each start, so that the
/// two together are never said twice.
#[must_use]
pub fn telemetry(generation: u64, number: u64, uptime_ms: u64, phase: Phase) -> Json {
    let mut json = Json::begin();
    for (name, number) in [("generation", generation), ("number", number), ("uptime_ms", uptime_ms)]
    {
        json.value(name, &number);
    }
    json.string("phase", &phase.code());
    json.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_and_deaths_are_as_documented() {
        let expected = r#"{"schema":1,"generation":4711,"online":true,"phase":"active"}"#;
        assert_eq!(birth(4711, Phase::Active).as_str(), expected);
        assert_eq!(death(4711).as_str(), r#"{"schema":1,"generation":4711,"online":false}"#);
    }

    #[test]
    fn the_longest_of_them_fit() {
        let (most, phase) = (u64::MAX, Phase::Decommissioned);
        for json in [birth(most, phase), telemetry(most, most, most, phase)] {
            assert!(json.as_str().ends_with(r#":"decommissioned"}"#));
        }
        assert!(death(most).as_str().ends_with(":false}"));
    }

    #[test]
    fn telemetry_is_as_documented() {
        let expected =
            r#"{"schema":1,"generation":257,"number":17,"uptime_ms":85000,"phase":"active"}"#;
        assert_eq!(telemetry(257, 17, 85_000, Phase::Active).as_str(), expected);
    }

    #[test]
    fn births_and_deaths_are_read_back_and_absurd_numbers_are_not() {
        let seen = |generation, online| Some(Seen { generation, online });
        let alive = birth(GENERATION_MAX, Phase::Active);
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
