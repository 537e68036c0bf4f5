//! A stream whose reader has to keep reading.
//!
//! Reading from a peer has deadlines of its own (the head's and the body's). Writing to one that
//! has stopped reading would hold a connection for ever: here a write that makes no progress for
//! the given time fails. Progress starts the time again: a long list on a slow link is no attack.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::Timer;

use crate::clock::timer;

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its peer stops reading.
#[derive(Debug)]
pub(crate) struct Stall<T> {
    inner: T,
    limit: Duration,
    waiting: Option<Timer>,
}

impl<T> Stall<T> {
    /// A stream whose writes wait at most `limit` for progress.
    pub(crate) const fn new(inner: T, limit: Duration) -> Self {
        Self { inner, limit, waiting: None }
    }

    /// Passes progress on; without any, fails once the limit has passed since the last.
    fn judge<R>(
        &mut self,
        cx: &mut Context<'_>,
        progress: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if progress.is_ready() {
            self.waiting = None;
            return progress;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| timer(limit));
        let _late = ready!(Pin::new(waiting).poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, progress)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.inner).poll_close(cx);
        self.judge(cx, progress)
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::{AsyncWriteExt, future};

    use super::*;

    /// A peer that takes `room` octets and then nothing.
    struct Full {
        room: usize,
    }

    impl AsyncWrite for Full {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            self.room -= taken;
            if taken == 0 { Poll::Pending } else { Poll::Ready(Ok(taken)) }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    // Goal: a peer that stops reading ends the connection instead of holding it.
    #[test]
    fn a_write_without_progress_fails_in_time() {
        let mut stream = Stall::new(Full { room: 3 }, Duration::from_millis(5));
        let error = future::block_on(stream.write_all(b"four")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    // Goal: progress is not punished.
    #[test]
    fn a_write_with_progress_succeeds() {
        let mut stream = Stall::new(Full { room: 8 }, Duration::ZERO);
        future::block_on(stream.write_all(b"four")).unwrap();
        assert!(stream.waiting.is_none());
    }
}
