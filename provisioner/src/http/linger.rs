//! A stream that ends so that its peer can still read what it was told.
//!
//! An answer may come before its request has: a body that is too long is refused unread. To close
//! the connection then would have the kernel answer what is still on its way with a reset, and a
//! reset makes the peer's kernel throw away what the peer has not read yet: the answer. So closing
//! is to say that nothing more will come (close_notify and FIN), to read and discard what comes
//! until the peer ends too, and only then to let go (RFC 9112 §9.6).
//!
//! What that costs has two limits, of time and of octets; past either the peer gets the reset that
//! it asked for. Nobody is waited for who has said nothing that was not answered: a connection that
//! ends between two requests ends at once.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, ready},
};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::Timer;

use super::server::Limits;
use crate::clock::timer;

/// Octets discarded at a time: a TLS record's content (RFC 8446 §5.1).
const DISCARDED_LEN: usize = 16 * 1024;

/// Whether a peer has said something that was not answered to its end.
#[derive(Debug, Default)]
pub(crate) struct Heard(AtomicBool);

impl Heard {
    /// Everything that was said was read, and is answered.
    pub(crate) fn all(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn something(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream that hears a peer out, within limits, before it is closed.
#[derive(Debug)]
pub(crate) struct Linger<'a, T> {
    inner: T,
    heard: &'a Heard,
    limits: Limits,
    ending: Option<Ending>,
}

/// The end, once nothing more will be written.
#[derive(Debug)]
struct Ending {
    late: Timer,
    left: usize,
}

impl<'a, T> Linger<'a, T> {
    /// A stream that is closed within these limits once its last word was written.
    pub(crate) const fn new(inner: T, heard: &'a Heard, limits: Limits) -> Self {
        Self { inner, heard, limits, ending: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Linger<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        if matches!(read, Ok(1..)) {
            self.heard.something();
        }
        Poll::Ready(read)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, heard, limits, ending } = &mut *self;
        if ending.is_none() {
            ready!(Pin::new(&mut *inner).poll_close(cx))?;
            if !heard.is_open() {
                return Poll::Ready(Ok(()));
            }
        }
        ending.get_or_insert_with(|| Ending::within(*limits)).poll(inner, cx).map(Ok)
    }
}

impl Ending {
    fn within(limits: Limits) -> Self {
        Self { late: timer(limits.linger), left: limits.linger_len_max }
    }

    /// Discards what comes until the peer ends, by whatever means, or a limit is reached.
    fn poll(&mut self, from: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut discarded = [0; DISCARDED_LEN];
        while Pin::new(&mut self.late).poll(cx).is_pending() {
            let Ok(len @ 1..) = ready!(Pin::new(&mut *from).poll_read(cx, &mut discarded)) else {
                break;
            };
            self.left = self.left.saturating_sub(len);
            if self.left == 0 {
                break;
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

    use super::*;

    /// A peer that says so much, in pieces of at most a thousand octets, and then ends or waits.
    struct Talker {
        says: usize,
        ends: bool,
        is_closed: bool,
    }

    impl Talker {
        const fn new(says: usize, ends: bool) -> Self {
            Self { says, ends, is_closed: false }
        }
    }

    impl AsyncRead for Talker {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let len = self.says.min(buf.len()).min(1_000);
            self.says -= len;
            if len == 0 && !self.ends { Poll::Pending } else { Poll::Ready(Ok(len)) }
        }
    }

    impl AsyncWrite for Talker {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.is_closed = true;
            Poll::Ready(Ok(()))
        }
    }

    const LONG: Duration = Duration::from_secs(3_600);

    /// Hears `heard` octets of the peer, answers and closes; what the peer could not say any more.
    fn left_unsaid(mut peer: Talker, heard: usize, limits: Limits) -> usize {
        let (state, mut first) = (Heard::default(), vec![0; heard]);
        let mut stream = Linger::new(&mut peer, &state, limits);
        future::block_on(async {
            stream.read_exact(&mut first).await.unwrap();
            stream.close().await.unwrap();
        });
        assert!(peer.is_closed, "the peer was told that nothing more will come");
        peer.says
    }

    // Goal: a peer that ends is heard to its end.
    #[test]
    fn a_peer_that_ends_is_heard_out() {
        let limits = Limits { linger: LONG, linger_len_max: 10_000, ..Limits::default() };
        assert_eq!(left_unsaid(Talker::new(9_000, true), 10, limits), 0);
    }

    // Goal: neither a peer that goes on for ever nor one that never ends is waited for.
    #[test]
    fn a_peer_that_does_not_end_is_left_within_the_limits() {
        let limits = Limits { linger: LONG, linger_len_max: 10_000, ..Limits::default() };
        assert_eq!(left_unsaid(Talker::new(50_010, false), 10, limits), 40_000);
        let soon = Limits { linger: Duration::from_millis(5), ..limits };
        assert_eq!(left_unsaid(Talker::new(9_000, false), 10, soon), 0);
        let at_once = Limits { linger: Duration::ZERO, ..limits };
        assert_eq!(left_unsaid(Talker::new(9_010, false), 10, at_once), 9_000);
    }

    // Goal: a peer that has said nothing new is not waited for.
    #[test]
    fn a_peer_that_was_answered_is_left_at_once() {
        let limits = Limits { linger: LONG, ..Limits::default() };
        assert_eq!(left_unsaid(Talker::new(0, false), 0, limits), 0);
        let state = Heard::default();
        let mut stream = Linger::new(Talker::new(20, false), &state, limits);
        future::block_on(async {
            stream.read_exact(&mut [0; 20]).await.unwrap();
            state.all();
            stream.close().await.unwrap();
        });
    }
}
