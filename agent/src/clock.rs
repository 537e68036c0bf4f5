//! The clocks of the machine, and the only places that wait for them.

use std::future::Future;
use std::time::Duration;

use fleetcert_core::port::Clock;
use fleetcert_core::time::{Mono, Now, Wall};
use rustix::time::{ClockId, clock_gettime};
use smol::Timer;

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
}

impl Clock for SystemClock {
    fn now(&mut self) -> Now {
        Now { mono: self.mono(), wall: self.wall(), synchronised: false }
    }
}

/// A timer for the deadline of one exchange with a peer: not for anything that lasts.
#[expect(clippy::disallowed_methods, reason = "this is the one place that waits")]
pub(crate) fn timer(duration: Duration) -> Timer {
    Timer::after(duration)
}

/// What `future` gives, or `None` if it takes longer than `limit`.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let late = async {
        timer(limit).await;
        None
    };
    smol::future::or(async { Some(future.await) }, late).await
}
