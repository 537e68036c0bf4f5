//! Waiting: until a deadline, a command, or the setting of a clock.

use std::io;
use std::os::fd::OwnedFd;

use fleetcert_core::lifecycle::Command;
use fleetcert_core::port::{Wait, Wake};
use fleetcert_core::time::Mono;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use smol::Async;
use smol::channel::Receiver;
use smol::future::or;

/// A civil time that no clock is set to, 2242: the timer that watches for steps never expires.
const NEVER_S: i64 = 1 << 33;

/// Two kernel timers and the queue of commands. It costs nothing while it waits: the kernel wakes
/// us at the deadline, also after a suspend, and when somebody sets the wall clock.
#[derive(Debug)]
pub struct Waiter {
    deadline: Async<OwnedFd>,
    steps: Async<OwnedFd>,
    commands: Receiver<Command>,
}

impl Waiter {
    /// Timers of this process, and the queue that commands come from. When the queue is closed,
    /// waiting ends with [`Wake::Stop`].
    ///
    /// # Errors
    ///
    /// When the kernel gives no timer.
    pub fn new(commands: Receiver<Command>) -> io::Result<Self> {
        let steps = timer(TimerfdClockId::Realtime)?;
        watch_steps(&steps)?;
        Ok(Self { deadline: timer(TimerfdClockId::Boottime)?, steps, commands })
    }

    async fn deadline_or_step(&self) -> io::Result<()> {
        let due = async { self.deadline.readable().await };
        let stepped = async {
            self.steps.readable().await?;
            // Reading tells ECANCELED, which is the news; the timer must be set again.
            watch_steps(&self.steps)
        };
        or(due, stepped).await
    }
}

fn timer(clock: TimerfdClockId) -> io::Result<Async<OwnedFd>> {
    Async::new_nonblocking(timerfd_create(clock, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)
}

/// Setting the timer also takes back what made it readable.
fn watch_steps(timer: &Async<OwnedFd>) -> io::Result<()> {
    let at = Timespec { tv_sec: NEVER_S, tv_nsec: 0 };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    match timerfd_settime(timer, flags, &once(at)) {
        // The clock was set just before: it is watched all the same (timerfd_create(2)).
        Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn wake_at(timer: &Async<OwnedFd>, deadline: Mono) -> io::Result<()> {
    // Zero would mean never; a deadline of the first millisecond after boot has passed anyway.
    let ms = deadline.0.max(1);
    let tv_sec = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let at = Timespec { tv_sec: tv_sec.min(NEVER_S), tv_nsec: nanoseconds(ms % 1000) };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once(at))?;
    Ok(())
}

const fn once(at: Timespec) -> Itimerspec {
    Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at }
}

/// Of less than a second, so that it fits any `c_long`.
fn nanoseconds(ms: u64) -> rustix::time::Nsecs {
    rustix::time::Nsecs::try_from(ms * 1_000_000).unwrap_or(0)
}

impl Wait for Waiter {
    async fn wait(&mut self, deadline: Mono) -> Wake {
        if let Err(error) = wake_at(&self.deadline, deadline) {
            log::error!("the kernel takes no timer: {error}; stopping");
            return Wake::Stop;
        }
        let command = async { self.commands.recv().await.map_or(Wake::Stop, Wake::Command) };
        let tick = async {
            match self.deadline_or_step().await {
                Ok(()) => Wake::Tick,
                Err(error) => {
                    log::error!("waiting for a timer: {error}; stopping");
                    Wake::Stop
                }
            }
        };
        or(command, tick).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smol::block_on;

    use super::*;
    use crate::clock::{SystemClock, within};

    const LONG: Duration = Duration::from_secs(30);

    // Goal: the shell wakes at the deadline, not before, and again at the next one.
    #[test]
    fn a_deadline_wakes_when_it_has_passed_and_not_before() {
        let (_commands, queue) = smol::channel::bounded(1);
        let mut waiter = Waiter::new(queue).unwrap();
        for ms in [20, 0, 5] {
            let deadline = SystemClock.mono().plus_ms(ms);
            let wake = block_on(within(LONG, waiter.wait(deadline)));
            assert_eq!(wake, Some(Wake::Tick));
            assert!(SystemClock.mono() >= deadline);
        }
        let past = block_on(within(LONG, waiter.wait(Mono(0))));
        assert_eq!(past, Some(Wake::Tick));
    }

    // Goal: a command ends the wait, however far the deadline; so does the end of all senders.
    #[test]
    fn commands_and_their_end_wake_at_once() {
        let (commands, queue) = smol::channel::bounded(1);
        let mut waiter = Waiter::new(queue).unwrap();
        commands.try_send(Command::Renew).unwrap();
        let never = Mono(u64::MAX);
        let wake = block_on(within(LONG, waiter.wait(never)));
        assert_eq!(wake, Some(Wake::Command(Command::Renew)));
        let still = block_on(within(Duration::from_millis(5), waiter.wait(never)));
        assert_eq!(still, None, "neither a command nor a deadline nor a step");
        drop(commands);
        assert_eq!(block_on(within(LONG, waiter.wait(never))), Some(Wake::Stop));
    }
}
