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
//! piece at a time and done to its end; an outcome is told last, when all it changed is changed
//! and what the work held is let go; one that nobody hears is dropped. What breaks is
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
    /// Does it, and keeps what it gave; it may be tried again after an error.
    fn attempt(&mut self, thing: &mut K::Thing) -> Result<(), K::Fault>;

    /// Lets go what the work holds, and tells what it gave, or the fault that the last attempt met.
    fn tell(self: Box<Self>, last: Result<(), K::Fault>);
}

struct Task<F, T, E> {
    work: F,
    gave: Option<T>,
    done: Sender<Result<T, E>>,
}

impl<K, F, T> Work<K> for Task<F, T, K::Fault>
where
    K: Keep,
    F: FnMut(&mut K::Thing) -> Result<T, K::Fault>,
{
    fn attempt(&mut self, thing: &mut K::Thing) -> Result<(), K::Fault> {
        self.gave = Some((self.work)(thing)?);
        Ok(())
    }

    fn tell(self: Box<Self>, last: Result<(), K::Fault>) {
        let Self { work, gave, done } = *self;
        drop(work);
        let outcome = last.and_then(|()| gave.ok_or_else(K::Fault::overrun));
        // Nobody may be waiting any more.
        let _unheard = done.try_send(outcome);
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
        match self.queue.try_send(Box::new(Task { work, gave: None, done })) {
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
            let last = self.serve(&mut *job);
            job.tell(last);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::sync::{Arc, Mutex};

    use smol::block_on;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Oops {
        Broken,
        Refused,
        Strange,
        Overrun,
    }

    impl Fault for Oops {
        fn is_break(&self) -> bool {
            *self == Self::Broken
        }

        fn is_plain_refusal(&self) -> bool {
            *self == Self::Refused
        }

        fn overrun() -> Self {
            Self::Overrun
        }
    }

    /// What a thing's life was, what its next attempts to open give, and how often it did well.
    type Notes = (Vec<&'static str>, Vec<Oops>, u32);

    /// The notes, for all who write them.
    #[derive(Clone, Debug, Default)]
    struct Diary(Arc<Mutex<Notes>>);

    impl Diary {
        fn write(&self, what: &'static str) {
            self.0.lock().unwrap().0.push(what);
        }

        fn read(&self) -> Vec<&'static str> {
            self.0.lock().unwrap().0.clone()
        }

        fn will_not_open(&self, faults: &[Oops]) {
            self.0.lock().unwrap().1 = faults.to_vec();
        }
    }

    impl Keep for Diary {
        type Thing = u32;
        type Fault = Oops;

        fn open(&mut self) -> Result<u32, Oops> {
            self.write("open");
            self.0.lock().unwrap().1.pop().map_or(Ok(0), Err)
        }

        fn heard(&mut self, _thing: Option<&mut u32>, fault: Option<&Oops>) {
            self.0.lock().unwrap().2 += u32::from(fault.is_none());
        }

        fn close(&mut self, _thing: u32) {
            self.write("close");
        }
    }

    fn owner() -> (Owner<Diary>, Rc<Ending>, Diary) {
        let diary = Diary::default();
        let (owner, ending) = Owner::start("test", diary.clone()).unwrap();
        (owner, ending, diary)
    }

    /// Counts what the thing was used for.
    fn count(thing: &mut u32) -> Result<u32, Oops> {
        *thing += 1;
        Ok(*thing)
    }

    // Goal: nothing is opened before it is needed; one thread has it, and closes it at the end.
    #[test]
    fn one_thread_opens_uses_and_closes() {
        let (owner, ending, diary) = owner();
        assert_eq!(diary.read(), [""; 0]);
        assert_eq!(block_on(owner.ask(count)), Ok(1));
        assert_eq!(owner.ask_and_wait(count), Ok(2));
        let here = std::thread::current().id();
        let there = block_on(owner.ask(|_| Ok(std::thread::current().id()))).unwrap();
        assert_ne!(here, there);
        owner.close();
        assert!(block_on(ending.wait(SOON)));
        assert_eq!(diary.read(), ["open", "close"]);
        assert_eq!(block_on(owner.ask(count)), Err(Oops::Overrun));
    }

    // Goal: work that nobody waits for any more is done all the same, and in its turn.
    #[test]
    fn what_was_given_up_is_finished() {
        let (owner, _ending, _diary) = owner();
        let (go, gate) = mpsc::channel::<()>();
        let held = owner.send(move |thing| {
            gate.recv_timeout(SOON).unwrap();
            count(thing)
        });
        drop(held);
        let given_up = owner.send(count);
        drop(given_up);
        go.send(()).unwrap();
        assert_eq!(block_on(owner.ask(count)), Ok(3));
    }

    // Goal: who has the outcome sees all that came of it: the keeper has heard of it, and what the
    // work held is free.
    #[test]
    fn an_outcome_is_told_last() {
        let (owner, _ending, diary) = owner();
        for round in 1..=1_000 {
            let held = Arc::new(());
            let kept = Arc::clone(&held);
            let outcome = block_on(owner.ask(move |thing| {
                let _kept = &kept;
                count(thing)
            }));
            assert_eq!(outcome, Ok(round));
            assert_eq!((diary.0.lock().unwrap().2, Arc::strong_count(&held)), (round, 1));
        }
    }

    // Goal: what broke is opened anew, without a close, and the work is tried once more; no more.
    #[test]
    fn what_breaks_is_opened_anew_once() {
        let (owner, _ending, diary) = owner();
        let mut left = 1;
        let mended = block_on(owner.ask(move |thing| {
            left -= 1;
            if left == 0 { Err(Oops::Broken) } else { count(thing) }
        }));
        assert_eq!(mended, Ok(1));
        assert_eq!(diary.read(), ["open", "open"]);
        assert_eq!(block_on(owner.ask(|_| Err::<(), _>(Oops::Broken))), Err(Oops::Broken));
        assert_eq!(diary.read(), ["open"; 3]);
    }

    // Goal: an attempt to open that failed is not repeated at once, whoever asks, and is later.
    #[test]
    fn what_does_not_open_is_left_alone_for_a_while() {
        let (owner, _ending, diary) = owner();
        diary.will_not_open(&[Oops::Broken]);
        assert_eq!(block_on(owner.ask(count)), Err(Oops::Broken));
        assert_eq!(block_on(owner.ask(count)), Err(Oops::Broken));
        assert_eq!(diary.read(), ["open"]);
        let back = async { while owner.ask(count).await.is_err() {} };
        block_on(within(SOON, back)).unwrap();
        assert_eq!(diary.read(), ["open", "open"]);
    }

    // Goal: what answers may be asked again at once, also where it does not let itself be opened.
    #[test]
    fn a_refusal_to_open_costs_no_pause() {
        let (owner, _ending, diary) = owner();
        diary.will_not_open(&[Oops::Strange]);
        assert_eq!(block_on(owner.ask(count)), Err(Oops::Strange));
        assert_eq!(block_on(owner.ask(count)), Ok(1));
    }

    // Goal: failures without a break, several in a row, have the thing opened anew; answers in
    // between, and refusals, do not count.
    #[test]
    fn failures_in_a_row_open_it_anew() {
        let (owner, _ending, diary) = owner();
        let fail = |fault: Oops| block_on(owner.ask(move |_| Err::<(), _>(fault.clone())));
        for _ in 0..2 {
            fail(Oops::Strange).unwrap_err();
            fail(Oops::Strange).unwrap_err();
            block_on(owner.ask(count)).unwrap();
        }
        for _ in 0..9 {
            fail(Oops::Refused).unwrap_err();
        }
        assert_eq!(diary.read(), ["open"]);
        for _ in 0..FAILURES_MAX {
            fail(Oops::Strange).unwrap_err();
        }
        assert_eq!(diary.read(), ["open", "close"]);
        assert_eq!(block_on(owner.ask(count)), Ok(1));
        assert_eq!(diary.read(), ["open", "close", "open"]);
    }

    // Goal: a thread that is stuck takes so much work and no more, and ends nobody's wait late.
    #[test]
    fn a_stuck_thread_holds_nobody_up() {
        let (owner, ending, _diary) = owner();
        let (go, gate) = mpsc::channel::<()>();
        let stuck = owner.send(move |_| gate.recv_timeout(SOON).map_err(|_| Oops::Strange));
        let overrun = (0..=QUEUE_LEN_MAX + 1).any(|_| owner.send(count).is_err());
        assert!(overrun, "the queue has an end");
        owner.close();
        assert!(!block_on(ending.wait(Duration::from_millis(5))));
        go.send(()).unwrap();
        assert_eq!(stuck.unwrap().recv_blocking(), Ok(Ok(())));
        assert!(block_on(ending.wait(SOON)));
    }
}
