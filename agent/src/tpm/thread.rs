//! One thread that owns one thing which blocks: opens it, works with it, opens it again.
//!
//! **What it is.** [`Owner`] is the way to the thread: work is sent to it, and its outcome comes
//! back, to a future ([`Owner::ask`]) or to a thread that waits ([`Owner::ask_and_wait`]). The
//! thread opens the thing when the first work comes, and closes it in order at the end.
//!
//! **What it must never do.** Let anybody else touch the thing. Do half of a piece of work because
//! nobody waits for it any more. Try without end, or without a pause, to open what does not open.
//!
//! **Why that is sound.** The thing never leaves the thread's stack. Work is taken from a queue one
//! piece at a time and done to its end; an outcome that nobody hears is dropped. What breaks is
//! opened anew and the work tried once more; an attempt to open that did not succeed is followed by
//! a pause, in which all work is answered with the reason, and the pauses grow to a limit.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use fleetcert_core::time::Mono;
use smol::channel::{Receiver, Sender, TrySendError, bounded};

use crate::clock::{SystemClock, within};

/// Pieces of work that wait, at most: more than handshakes and enrollment have at a time.
const QUEUE_LEN_MAX: usize = 16;

/// A piece of work is begun so often, at most: once more after what broke was opened anew.
const ATTEMPTS_MAX: usize = 2;

/// After so many failures in a row the thing is closed and opened again, whatever they were.
const FAILURES_MAX: u32 = 3;

/// The pause after the first attempt to open that did not succeed; it doubles with each.
const PAUSE_MS_MIN: u64 = 100;

/// The longest pause.
const PAUSE_MS_MAX: u64 = 5_000;

/// Stack of the thread, octets: command sequences keep their buffers on it.
const STACK_LEN: usize = 512 * 1024;

/// What a failure says about the thing that failed.
pub(crate) trait Fault: Clone + Send + 'static {
    /// Whether the thing is of no use any more: it is opened anew, and the work tried once more.
    fn is_break(&self) -> bool;

    /// Whether the thing itself had no part in it: it answers, and the answer was no.
    fn is_plain_refusal(&self) -> bool;

    /// The queue is full, or the thread has ended.
    fn overrun() -> Self;
}

/// What the thread does with the thing.
pub(crate) trait Keep: Send + 'static {
    /// The thing.
    type Thing;
    /// Why it is not opened, or does not work.
    type Fault: Fault;

    /// Opens it.
    fn open(&mut self) -> Result<Self::Thing, Self::Fault>;

    /// Hears how the last work went: `None` is well.
    fn heard(&mut self, thing: Option<&mut Self::Thing>, fault: Option<&Self::Fault>);

    /// Closes it in order.
    fn close(&mut self, thing: Self::Thing);
}

/// The way to the thread; clones share it. When the last one is gone the thread ends.
pub(crate) struct Owner<K: Keep> {
    queue: Sender<Job<K>>,
}

/// The thread itself, for who ends it.
#[derive(Debug)]
pub(crate) struct Ending {
    thread: RefCell<Option<JoinHandle<()>>>,
    ended: Receiver<()>,
}

type Job<K> = Box<dyn Work<K> + Send>;

/// A piece of work with somebody who waits for it, perhaps.
trait Work<K: Keep> {
    /// Does it; an error that is answered by trying again is given back instead of told.
    fn attempt(&mut self, thing: &mut K::Thing) -> Result<(), K::Fault>;

    /// Tells that it was not done.
    fn give_up(&mut self, fault: K::Fault);
}

struct Task<F, T, E> {
    work: F,
    done: Sender<Result<T, E>>,
}

impl<K, F, T> Work<K> for Task<F, T, K::Fault>
where
    K: Keep,
    F: FnMut(&mut K::Thing) -> Result<T, K::Fault>,
{
    fn attempt(&mut self, thing: &mut K::Thing) -> Result<(), K::Fault> {
        let outcome = (self.work)(thing)?;
        // Nobody may be waiting any more.
        let _unheard = self.done.try_send(Ok(outcome));
        Ok(())
    }

    fn give_up(&mut self, fault: K::Fault) {
        let _unheard = self.done.try_send(Err(fault));
    }
}

impl<K: Keep> Clone for Owner<K> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<K: Keep> Owner<K> {
    /// Starts the thread, which opens nothing yet.
    ///
    /// # Errors
    ///
    /// When the kernel gives no thread.
    pub(crate) fn start(name: &str, keep: K) -> io::Result<(Self, Rc<Ending>)> {
        let (queue, jobs) = bounded(QUEUE_LEN_MAX);
        let (end, ended) = bounded(1);
        let thread =
            Builder::new().name(name.to_owned()).stack_size(STACK_LEN).spawn(move || {
                Worker { keep, thing: None, failures: 0, pause: None }.run(&jobs);
                drop(end);
            })?;
        Ok((Self { queue }, Rc::new(Ending { thread: RefCell::new(Some(thread)), ended })))
    }

    /// Has the thread do `work`. The executor is not held up; a future that is dropped takes
    /// nothing back.
    ///
    /// # Errors
    ///
    /// The fault that the last attempt met.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut K::Thing) -> Result<T, K::Fault> + Send + 'static,
    ) -> Result<T, K::Fault> {
        let outcome = self.send(work)?;
        outcome.recv().await.unwrap_or_else(|_| Err(K::Fault::overrun()))
    }

    /// The same for a thread that has nothing else to do.
    ///
    /// # Errors
    ///
    /// The fault that the last attempt met.
    pub(crate) fn ask_and_wait<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut K::Thing) -> Result<T, K::Fault> + Send + 'static,
    ) -> Result<T, K::Fault> {
        let outcome = self.send(work)?;
        outcome.recv_blocking().unwrap_or_else(|_| Err(K::Fault::overrun()))
    }

    fn send<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut K::Thing) -> Result<T, K::Fault> + Send + 'static,
    ) -> Result<Receiver<Result<T, K::Fault>>, K::Fault> {
        let (done, outcome) = bounded(1);
        match self.queue.try_send(Box::new(Task { work, done })) {
            Ok(()) => Ok(outcome),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Err(K::Fault::overrun()),
        }
    }

    /// Takes no more work; the thread ends after what it has.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

impl Ending {
    /// Waits until the thread has ended, for no longer than `limit`; says whether it has.
    pub(crate) async fn wait(&self, limit: Duration) -> bool {
        // Nothing is ever sent: the end of the sender is the news.
        if within(limit, self.ended.recv()).await.is_none() {
            return false;
        }
        let thread = self.thread.borrow_mut().take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

/// What runs on the thread.
struct Worker<K: Keep> {
    keep: K,
    thing: Option<K::Thing>,
    failures: u32,
    pause: Option<Pause<K::Fault>>,
}

/// After an attempt to open that did not succeed.
struct Pause<E> {
    fault: E,
    ms: u64,
    until: Mono,
}

impl<K: Keep> Worker<K> {
    fn run(mut self, jobs: &Receiver<Job<K>>) {
        while let Ok(mut job) = jobs.recv_blocking() {
            if let Err(fault) = self.serve(&mut *job) {
                job.give_up(fault);
            }
        }
        self.close();
    }

    fn serve(&mut self, job: &mut dyn Work<K>) -> Result<(), K::Fault> {
        let mut outcome = self.attempt(job);
        for _ in 1..ATTEMPTS_MAX {
            match &outcome {
                // It was open and broke; what does not open will not open at once either.
                Err(fault) if fault.is_break() && self.pause.is_none() => {}
                _ => break,
            }
            outcome = self.attempt(job);
        }
        outcome
    }

    fn attempt(&mut self, job: &mut dyn Work<K>) -> Result<(), K::Fault> {
        let mut thing = match self.thing.take() {
            Some(thing) => thing,
            None => self.open()?,
        };
        let outcome = job.attempt(&mut thing);
        let fault = outcome.as_ref().err();
        self.keep.heard(Some(&mut thing), fault);
        match fault {
            None => self.failures = 0,
            Some(fault) if fault.is_break() => {
                self.failures = 0;
                return outcome;
            }
            Some(fault) if fault.is_plain_refusal() => {}
            Some(_) => self.failures += 1,
        }
        if self.failures >= FAILURES_MAX {
            self.failures = 0;
            self.keep.close(thing);
        } else {
            self.thing = Some(thing);
        }
        outcome
    }

    fn open(&mut self) -> Result<K::Thing, K::Fault> {
        let now = SystemClock.mono();
        if let Some(pause) = &self.pause
            && now < pause.until
        {
            return Err(pause.fault.clone());
        }
        match self.keep.open() {
            Ok(thing) => {
                self.pause = None;
                Ok(thing)
            }
            Err(fault) => {
                self.keep.heard(None, Some(&fault));
                if !fault.is_break() {
                    // It answers: asking again costs nobody anything.
                    self.pause = None;
                    return Err(fault);
                }
                let before = self.pause.as_ref().map_or(PAUSE_MS_MIN / 2, |pause| pause.ms);
                let ms = (2 * before).min(PAUSE_MS_MAX);
                let until = SystemClock.mono().plus_ms(ms);
                self.pause = Some(Pause { fault: fault.clone(), ms, until });
                Err(fault)
            }
        }
    }

    fn close(&mut self) {
        if let Some(thing) = self.thing.take() {
            self.keep.close(thing);
        }
    }
}

impl<K: Keep> std::fmt::Debug for Owner<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}
