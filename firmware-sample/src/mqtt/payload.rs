//! Births and deaths, as `docs/design/mqtt.md` gives them.

use core::fmt::Write as _;

use heapless::String;

/// Octets of a phase, at most.
pub const PHASE_LEN_MAX: usize = 32;

/// Octets of a birth or a death, at most: its members, and the longest number and phase.
pub const STATE_LEN_MAX: usize = 128;

/// A birth; `phase` is of the form `[a-z-]{1,32}`, else there is none.
#[must_use]
pub fn birth(generation: u64, phase: &str) -> Option<String<STATE_LEN_MAX>> {
    let is_plain = |octet: u8| octet.is_ascii_lowercase() || octet == b'-';
    let is_sound = (1..=PHASE_LEN_MAX).contains(&phase.len()) && phase.bytes().all(is_plain);
    let mut text = String::new();
    let written =
        write!(text, r#"{{"schema":1,"generation":{generation},"online":true,"phase":"{phase}"}}"#);
    (is_sound && written.is_ok()).then_some(text)
}

/// A death: the last will, or what is said before a planned end.
#[must_use]
pub fn death(generation: u64) -> String<STATE_LEN_MAX> {
    let mut text = String::new();
    let written = write!(text, r#"{{"schema":1,"generation":{generation},"online":false}}"#);
    debug_assert!(written.is_ok(), "a death is longer than it can be");
    text
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
        for phase in ["", "A", "a\"", "a b", &std::format!("{longest}x")] {
            assert_eq!(birth(1, phase), None, "{phase}");
        }
    }
}
