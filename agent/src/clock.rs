//! The clocks of the machine, and the only places that wait for them.
//!
//! Nothing here is a decision: [`SystemClock`] says what the kernel says, unjudged, and
//! [`Waiter`] wakes the shell no later than it wished. Deadlines are kept on `CLOCK_BOOTTIME`, so
//! a device that slept for a month wakes to a deadline that has passed, and not a month late.

mod ntp;
mod wait;

use std::time::Duration;

use fleetcert_core::port::Clock;
use fleetcert_core::time::{Mono, Now, Wall};
use rustix::time::{ClockId, clock_gettime};
use smol::Timer;

pub use wait::Waiter;

/// The kernel's clocks: `CLOCK_BOOTTIME`, which counts suspend, and `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The monotonic clock.
    #[must_use]
    pub fn mono(self) -> Mono {
        let now = clock_gettime(ClockId::Boottime);
        let s = u64::try_from(now.tv_sec).unwrap_or(0);
        let ms = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
        Mono(s.saturating_mul(1000).saturating_add(ms))
    }

    /// What the kernel calls civil time. A time before 1970 reads as none.
    #[must_use]
    pub fn wall(self) -> Option<Wall> {
        u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).ok().map(Wall)
    }

    /// Both clocks, and whether the kernel believes in the second.
    #[must_use]
    pub fn read(self) -> Now {
        Now { mono: self.mono(), wall: self.wall(), synchronised: ntp::is_synchronised() }
    }
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        self.read()
    }
}

/// A timer for the deadline of one exchange with a peer: not for anything that lasts.
#[expect(clippy::disallowed_methods, reason = "this is the one place that waits")]
pub(crate) fn timer(duration: Duration) -> Timer {
    Timer::after(duration)
}

/// What `future` gives, or `None` if it takes longer than `limit`.
///
/// The future is put on the heap. Limits stand inside of limits here, and an `async fn` holds a
/// future that it is given more than once: nested, they would outgrow a stack.
pub fn within<F: Future>(limit: Duration, future: F) -> impl Future<Output = Option<F::Output>> {
    let future = Box::pin(future);
    async move {
        let late = async {
            timer(limit).await;
            None
        };
        smol::future::or(async { Some(future.await) }, late).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the two clocks are the kernel's and in the units that the core expects.
    #[test]
    fn the_clocks_are_read_in_milliseconds_and_seconds() {
        let (before, now, after) = (SystemClock.mono(), SystemClock.read(), SystemClock.mono());
        assert!(before <= now.mono && now.mono <= after);
        assert!(after.ms_since(before) < 60_000);
        // 2026-01-01: later than that this was written, earlier than year 9999.
        assert!(now.wall.is_some_and(|wall| (1_767_225_600..253_402_300_799).contains(&wall.0)));
    }

    // Goal: a limit ends what does not end by itself, and leaves alone what does.
    #[test]
    fn a_limit_ends_only_what_takes_longer() {
        let limit = Duration::from_millis(1);
        let endless = within(limit, smol::future::pending::<()>());
        assert_eq!(smol::block_on(endless), None);
        assert_eq!(smol::block_on(within(Duration::from_secs(60), async { 7 })), Some(7));
    }
}
