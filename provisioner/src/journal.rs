//! The service's log: one line a message on standard error.
//!
//! It must never hold a request body, a token or a key: callers log facts about a request, and
//! the domain's types for secrets have no `Display`. The level comes from [`LEVEL_VARIABLE`]
//! (`off`, `error`, `warn`, `info`, `debug`, `trace`); anything else means `info`. There is no time
//! stamp: the journal that collects standard error has one.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

/// The environment variable that sets the level.
pub const LEVEL_VARIABLE: &str = "FLEETCERT_LOG";

struct Journal;

static JOURNAL: Journal = Journal;

/// Starts the log with the level that the environment asks for, once per process.
pub fn start() {
    let level = std::env::var(LEVEL_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(LevelFilter::Info);
    if log::set_logger(&JOURNAL).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn || metadata.target().starts_with("fleetcert")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{:<5} {}\n", record.level(), record.args());
            // Nobody is left to be told that standard error is gone.
            let _gone = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
