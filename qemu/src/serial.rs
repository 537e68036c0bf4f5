//! What a board says on its serial line, from power to its end.
//!
//! **What it is.** A reader of text: `<milliseconds> <level> <text>`, a line at a time, gathered into
//! a [`Boot`]. The words are those of the firmware's lifecycle; `docs/rig.md` lists them.
//!
//! **What it must never do.** Take half a line for a whole one: power is cut in the midst of a line,
//! and "data: 1" may have been the beginning of "data: 17 acknowledged". Nor stumble over a line that
//! it does not know: people read along, and the firmware says more to them than to us.
//!
//! **Why that is sound.** A line counts when its end has come, and only if all of it is as expected;
//! any other is kept as text and means nothing.

use std::collections::{BTreeMap, BTreeSet};

/// What the firmware says when something happened that never should.
const CRASHES: [&str; 3] = ["exception ", "panicked at ", "trap: cause "];

/// One life of a board between power and power cut, as told by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Where the keys are: `tpm` or `software`.
    pub key_backend: Option<String>,
    /// The identity that was found at the start; `Some(None)` when there was none.
    pub identity: Option<Option<String>>,
    /// What happened to the identity, in order.
    pub events: Vec<Event>,
    /// The sessions with the broker, by their numbers.
    pub generations: BTreeSet<u64>,
    /// The numbers of the messages that the broker acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// The most that the stack has held, octets.
    pub stack_peak_len: Option<u64>,
    /// The fewest instructions of a handshake, by the server's role.
    pub handshakes: BTreeMap<String, u64>,
    /// Whether everything has been erased.
    pub is_decommissioned: bool,
    /// The line that says that the program broke, if it did.
    pub crash: Option<String>,
}

/// Something that happened to the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its stable name: `requested`, `enrolled`, `proven`, `adopted`, `failed`, ….
    pub name: String,
    /// The sentence for people.
    pub text: String,
}

impl Boot {
    /// Reads everything that was said since power came.
    #[must_use]
    pub fn read(said: &str) -> Self {
        let mut boot = Self::default();
        for line in said.split_inclusive('\n') {
            if let Some(line) = line.strip_suffix('\n') {
                boot.hear(line.trim_end_matches('\r'));
            }
        }
        boot
    }

    /// How often `event` happened.
    #[must_use]
    pub fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|found| found.name == event).count()
    }

    /// The event of this name that happened last.
    #[must_use]
    pub fn last(&self, event: &str) -> Option<&Event> {
        self.events.iter().rev().find(|found| found.name == event)
    }

    /// What happened last.
    #[must_use]
    pub fn last_event(&self) -> Option<&Event> {
        self.events.last()
    }

    /// Whether it has said that it durably is somebody: from the start, or since it was proven.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        matches!(self.identity, Some(Some(_))) || self.count("proven") > 0
    }

    fn hear(&mut self, line: &str) {
        if self.crash.is_none() && CRASHES.iter().any(|crash| line.contains(crash)) {
            self.crash = Some(line.to_owned());
        }
        if let Some(text) = text_of(line) {
            // A line that means nothing to us is for people.
            let _ = self.take(text);
        }
    }

    fn take(&mut self, text: &str) -> Option<()> {
        let (subject, what) = text.split_once(": ").unwrap_or((text, ""));
        match subject.split_once(' ').unwrap_or((subject, "")) {
            ("identity", "") => self.identity = Some(identity(what)?),
            ("event", name) => {
                self.events.push(Event { name: name.to_owned(), text: what.to_owned() });
            }
            ("handshake", _) => self.handshake(subject, what)?,
            ("broker", "") => {
                self.generations.insert(what.strip_prefix("connected, generation ")?.parse().ok()?);
            }
            ("data", "") => {
                self.acknowledged.insert(what.strip_suffix(" acknowledged")?.parse().ok()?);
            }
            ("stack", "") => self.stack(what)?,
            ("device", _) => {
                self.key_backend.get_or_insert(what.strip_prefix("keys in ")?.to_owned());
            }
            ("decommissioned", "") if what.is_empty() => self.is_decommissioned = true,
            _ => {}
        }
        Some(())
    }

    fn handshake(&mut self, subject: &str, what: &str) -> Option<()> {
        let server = subject.strip_prefix("handshake with ")?;
        let instructions = what.strip_suffix(" instructions")?.parse().ok()?;
        let fewest = self.handshakes.entry(server.to_owned()).or_insert(instructions);
        *fewest = instructions.min(*fewest);
        Some(())
    }

    fn stack(&mut self, what: &str) -> Option<()> {
        let (peak, _) = what.strip_suffix(" octets at its peak")?.split_once(" of ")?;
        self.stack_peak_len = self.stack_peak_len.max(Some(peak.parse().ok()?));
        Some(())
    }
}

/// `none`, or the serial number before ` in slot `.
fn identity(what: &str) -> Option<Option<String>> {
    if what == "none" {
        return Some(None);
    }
    let (serial, _) = what.split_once(" in slot ")?;
    Some(Some(serial.to_owned()))
}

/// The text of a line: what follows time and level.
fn text_of(line: &str) -> Option<&str> {
    let (time, rest) = line.trim_start().split_once(' ')?;
    let (level, text) = rest.split_once(' ')?;
    let is_level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
    let is_time = !time.is_empty() && time.bytes().all(|octet| octet.is_ascii_digit());
    (is_time && is_level).then(|| text.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = concat!(
        "      0 INFO  fleetcert firmware 0.1.0 on riscv32-virt\r\n",
        "      3 INFO  device pump-7: keys in tpm\r\n",
        "      4 INFO  identity: none\r\n",
        "     41 INFO  event requested: asking for a certificate for slot A (first)\r\n",
        "    700 INFO  handshake with provisioner: 38123456 instructions\r\n",
        "    900 INFO  event enrolled: certificate 0a1b issued, until 2026-11-22T00:00:00Z\r\n",
        "    910 WARN  event failed: prove: unreachable: again in 3 s\r\n",
        "   1000 INFO  handshake with provisioner: 38000000 instructions\r\n",
        "   1200 INFO  handshake with broker: 39000001 instructions\r\n",
        "   1201 INFO  broker: connected, generation 257\r\n",
        "   1202 INFO  stack: 20480 of 49152 octets at its peak\r\n",
        "   1210 INFO  data: 1 acknowledged\r\n",
        "   1220 INFO  data: 17 acknowledged\r\n",
        "   1300 INFO  stack: 20992 of 49152 octets at its peak\r\n",
    );

    /// Goal: all that is counted is found in what a board says.
    #[test]
    fn a_boot_is_read_from_its_lines() {
        let boot = Boot::read(SAID);
        assert_eq!(boot.key_backend.as_deref(), Some("tpm"));
        assert_eq!(boot.identity, Some(None));
        let names: Vec<&str> = boot.events.iter().map(|event| &*event.name).collect();
        assert_eq!(names, ["requested", "enrolled", "failed"]);
        assert_eq!(boot.last("failed").unwrap().text, "prove: unreachable: again in 3 s");
        assert!(!boot.has_identity(), "enrolled, but not proven");
        assert_eq!(boot.generations, BTreeSet::from([257]));
        assert_eq!(boot.acknowledged, BTreeSet::from([1, 17]));
        assert_eq!(boot.stack_peak_len, Some(20_992));
        assert_eq!(boot.handshakes["provisioner"], 38_000_000);
        assert_eq!(boot.handshakes["broker"], 39_000_001);
        assert!(!boot.is_decommissioned && boot.crash.is_none());
    }

    /// Goal: an identity at the start is told by its serial number; no line is no identity either way.
    #[test]
    fn an_identity_is_told_from_none_and_from_silence() {
        let said = "7 INFO  identity: 0a1b in slot B until 2026-11-22T00:00:00Z\n";
        assert_eq!(Boot::read(said).identity, Some(Some("0a1b".to_owned())));
        assert!(Boot::read(said).has_identity());
        let proven = "7 INFO  identity: none\n9 INFO  event proven: certificate 0a1b is proven\n";
        assert!(Boot::read(proven).has_identity());
        assert_eq!(Boot::read("7 INFO  self-test passed\n").identity, None);
    }

    /// Goal: wherever the power is cut, what was read is what had been said in whole lines.
    #[test]
    fn a_cut_line_means_nothing() {
        for end in 0..SAID.len() {
            let whole = SAID[..end].rfind('\n').map_or(0, |at| at + 1);
            assert_eq!(Boot::read(&SAID[..end]), Boot::read(&SAID[..whole]), "cut at {end}");
        }
    }

    /// Goal: foreign lines, and lines that are almost ours, change nothing.
    #[test]
    fn lines_that_are_not_ours_mean_nothing() {
        for line in [
            "",
            "data: 5 acknowledged",
            "1 LOUD data: 5 acknowledged",
            "x INFO data: 5 acknowledged",
            "1 INFO  data: five acknowledged",
            "1 INFO  data: 5 acknowledged, or not",
            "1 INFO  metadata: 5 acknowledged",
            "1 INFO  broker: connected, generation -1",
            "1 INFO  stack: 1 of many",
            "1 INFO  handshake with broker: soon",
            "1 INFO  identity: lost",
            "1 INFO  decommissioned: not yet",
        ] {
            assert_eq!(Boot::read(&format!("{line}\n")), Boot::default(), "{line:?}");
        }
    }

    /// Goal: an end that never should be is noticed, whatever the line's form; the last line too.
    #[test]
    fn a_crash_is_noticed() {
        for line in [
            "panicked at src/net.rs:1:1:",
            "trap: cause 5, at 0x80001234, value 0x00000000",
            "    12 INFO  daexception 4, at 0x00000000 (0: the stack overflowed)",
        ] {
            let boot = Boot::read(&format!("{line}\r\nmore\r\n"));
            assert_eq!(boot.crash.as_deref(), Some(line));
        }
        assert!(Boot::read("1 INFO  decommissioned\n").is_decommissioned);
    }
}
