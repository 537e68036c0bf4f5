//! The rig's only clock: waiting for a condition, never for a while.
//!
//! A probe is asked again and again until it answers, its deadline passes, or the user interrupts.
//! The pause between two questions ([`PROBE_PAUSE_MS`]) costs at most itself; nothing is correct
//! only because a pause was long enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::RigError;

/// Between two questions: short beside anything that the rig waits for, long beside a system call.
pub const PROBE_PAUSE_MS: u64 = 10;

/// Measures from its making.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the rig measures real programs in real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the rig measures real programs in real time")]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Whether the rig has been asked to stop; clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks everyone who waits to give up.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until somebody asks.
    pub fn wait(&self) {
        while !self.is_requested() {
            pause(PROBE_PAUSE_MS);
        }
    }

    /// Asks `probe` until it answers with a value, at most `limit_ms` long.
    ///
    /// # Errors
    ///
    /// What the probe fails with; [`RigError::TimedOut`] with `waited_for`;
    /// [`RigError::Interrupted`] once a stop is requested.
    pub fn until<T>(
        &self,
        waited_for: &'static str,
        limit_ms: u64,
        mut probe: impl FnMut() -> Result<Option<T>, RigError>,
    ) -> Result<T, RigError> {
        let watch = Stopwatch::start();
        loop {
            if self.is_requested() {
                return Err(RigError::Interrupted);
            }
            if let Some(value) = probe()? {
                return Ok(value);
            }
            if watch.elapsed_ms() >= limit_ms {
                return Err(RigError::TimedOut { waited_for, limit_ms });
            }
            pause(PROBE_PAUSE_MS);
        }
    }
}

/// Lets `ms` milliseconds pass: between two questions, or between two messages of steady traffic.
#[expect(clippy::disallowed_methods, reason = "the one place that gives up the processor")]
pub fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a condition that comes true ends the wait with its value, at the first true answer.
    #[test]
    fn a_wait_ends_with_the_first_answer() {
        let mut asked = 0;
        let answer = Stop::default().until("three questions", 10_000, || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(answer.unwrap(), 3);
    }

    /// Goal: a condition that never comes true is named in the error.
    #[test]
    fn a_wait_in_vain_names_what_it_waited_for() {
        let error = Stop::default().until::<()>("godot", 0, || Ok(None)).unwrap_err();
        assert!(matches!(error, RigError::TimedOut { waited_for: "godot", limit_ms: 0 }));
    }

    /// Goal: a request to stop beats the condition and every deadline.
    #[test]
    fn a_requested_stop_ends_every_wait() {
        let stop = Stop::default();
        let clone = stop.clone();
        clone.request();
        let error = stop.until::<()>("godot", u64::MAX, || Ok(None)).unwrap_err();
        assert!(matches!(error, RigError::Interrupted));
    }
}
