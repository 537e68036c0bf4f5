//! Waits for a future by asking it again.
//!
//! The core's ports are asynchronous in their signatures; this firmware's futures never wait for
//! each other, because there is one thread of control and every port blocks until its own deadline
//! (decision 0013). So a future that is asked is ready, and one that is not is asked again at once:
//! nothing else could make it ready in the meantime.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

/// What `future` comes to.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use core::future::poll_fn;

    use super::*;

    /// Goal: a future that is not ready at once is asked until it is.
    #[test]
    fn a_future_is_asked_until_it_is_ready() {
        let mut left = 3;
        let value = block_on(poll_fn(|_| {
            left -= 1;
            if left == 0 { Poll::Ready("ready") } else { Poll::Pending }
        }));
        assert_eq!((value, left), ("ready", 0));
    }
}
