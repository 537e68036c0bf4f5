//! Log lines on standard error, one event each.
//!
//! Under systemd a line begins with its priority (sd-daemon(3)) and the journal knows the time;
//! elsewhere it begins with the time and the level. Control characters are escaped, so that a peer
//! cannot write lines or colours of its own.

use std::fmt::Write as _;
use std::io::Write as _;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::clock::SystemClock;

/// What the modules of this product begin with; others are heard from when something is wrong.
const OURS: &str = "fleetcert";

/// Writes log records to standard error.
#[derive(Debug)]
struct Logger {
    level: LevelFilter,
    journal: bool,
}

/// Makes the log go to standard error, for the life of the process. A second call is ignored.
pub fn install(level: LevelFilter) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    if log::set_boxed_logger(Box::new(Logger { level, journal })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = metadata.target().starts_with(OURS);
        let limit = if is_ours { self.level } else { self.level.min(LevelFilter::Warn) };
        metadata.level() <= limit
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.line(record);
        // Whoever reads standard error may be gone; there is nobody left to tell.
        let _unheard = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

impl Logger {
    fn line(&self, record: &Record<'_>) -> String {
        let mut line = if self.journal {
            format!("<{}>", priority(record.level()))
        } else {
            let time = SystemClock.wall().map(|wall| wall.to_string()).unwrap_or_default();
            format!("{time} {:5} ", record.level().as_str().to_ascii_lowercase())
        };
        for c in record.args().to_string().chars() {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        if record.level() >= Level::Debug {
            let _infallible = write!(line, " [{}]", record.target());
        }
        line.push('\n');
        line
    }
}

/// The priorities of syslog(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(journal: bool, text: &str) -> String {
        let logger = Logger { level: LevelFilter::Info, journal };
        let args = format_args!("{text}");
        logger.line(&Record::builder().level(Level::Warn).args(args).build())
    }

    // Goal: a peer's text stays within its line.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line(true, "a\nb\u{1b}[31mc"), "<4>a\\nb\\u{1b}[31mc\n");
    }

    // Goal: without a journal the line tells time and level.
    #[test]
    fn a_line_on_a_terminal_begins_with_time_and_level() {
        let line = line(false, "text");
        assert!(line.ends_with("Z warn  text\n"), "{line}");
        assert_eq!(line.find('T'), Some(10));
    }

    // Goal: what libraries say is kept out unless something is wrong.
    #[test]
    fn other_crates_are_heard_from_warnings_up() {
        let logger = Logger { level: LevelFilter::Debug, journal: false };
        let enabled = |target: &str, level| {
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(enabled("fleetcert_agent::store", Level::Debug));
        assert!(!enabled("fleetcert_agent::store", Level::Trace));
        assert!(enabled("rustls", Level::Warn) && !enabled("rustls", Level::Info));
    }
}
