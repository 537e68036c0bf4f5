//! Work that blocks, on a thread of its own.
//!
//! Name lookups and the signatures of slow keys must not hold the executor's thread up. A pool would
//! keep its threads, and wake them twice a second to look for more work, on a device that does such
//! work once a day; so each piece gets a thread that ends with it. Callers have one or two pieces at
//! a time, which keeps the threads within the budget.

use std::io;
use std::thread;

use smol::channel::bounded;

/// Does `work` on another thread, and gives its result.
///
/// Dropping the future does not end the work; its result is dropped then.
///
/// # Errors
///
/// When the kernel gives no thread, or `work` ended without a result.
pub(crate) async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = bounded(1);
    thread::Builder::new().name("fleetcert-work".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _unheard = done.try_send(work());
    })?;
    result.recv().await.map_err(|_| io::ErrorKind::Interrupted.into())
}

#[cfg(test)]
mod tests {
    use smol::block_on;

    use super::*;

    // Goal: the result comes back from another thread.
    #[test]
    fn work_is_done_elsewhere() {
        let here = thread::current().id();
        let there = block_on(offload(move || thread::current().id())).unwrap();
        assert_ne!(here, there);
    }

    // Goal: work that panics is an error, not a wait without end.
    #[test]
    fn work_that_ends_without_a_result_is_an_error() {
        let error = block_on(offload(|| -> u8 { panic!("on purpose") })).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    // Goal: no thread stays behind to wake up for nothing.
    #[test]
    fn the_thread_ends_with_its_work() {
        let (gone, ended) = std::sync::mpsc::channel::<()>();
        thread_local! {
            static LAST: std::cell::RefCell<Option<std::sync::mpsc::Sender<()>>> =
                const { std::cell::RefCell::new(None) };
        }
        block_on(offload(move || LAST.with(|last| *last.borrow_mut() = Some(gone)))).unwrap();
        let waited = ended.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(waited, Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
