//! What happened when, as a person would tell it.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::wait::Stopwatch;

/// Prints one line an event, with the time since the start. Clones print to the same place.
#[derive(Clone)]
pub struct Timeline {
    watch: Stopwatch,
    out: Arc<Mutex<dyn Write + Send>>,
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl Timeline {
    /// A timeline that begins now, on the standard error stream.
    #[must_use]
    pub fn to_stderr() -> Self {
        Self::to(io::stderr())
    }

    fn to(out: impl Write + Send + 'static) -> Self {
        Self { watch: Stopwatch::start(), out: Arc::new(Mutex::new(out)) }
    }

    /// Something happened: who, and what.
    pub fn note(&self, who: &str, what: &str) {
        let ms = self.watch.elapsed_ms();
        self.line(&format!("{:>4}.{:03} s  {who:<12} {what}", ms / 1000, ms % 1000));
    }

    /// A new chapter.
    pub fn chapter(&self, title: &str) {
        self.line(&format!("\n── {title}"));
    }

    fn line(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Who closed the stream does not want the story; the run goes on.
        let _ = writeln!(out, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line carries time, actor and event, in columns.
    #[test]
    fn a_line_says_when_who_and_what() {
        let out = Arc::new(Mutex::new(Vec::new()));
        let timeline = Timeline { watch: Stopwatch::start(), out: out.clone() };
        timeline.note("agent", "enrolled");
        let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with(" s  agent        enrolled\n"), "{text:?}");
    }
}
