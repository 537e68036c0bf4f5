//! Waiting for a condition, with a deadline.

use fleetcert_rig::wait::Stop;

use super::OrFail;

/// Asks `probe` until it answers, at most `limit_ms` long; then the story has failed.
#[track_caller]
pub fn until<T>(
    waited_for: &'static str,
    limit_ms: u64,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    Stop::default().until(waited_for, limit_ms, || Ok(probe())).or_fail("a story waits")
}
