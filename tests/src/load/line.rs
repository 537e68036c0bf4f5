//! A line between a client and a server, with a stopwatch for TLS handshakes.
//!
//! **What it is.** A relay on loopback that sees when a client says hello, when the server has
//! answered, and when the client has proved that it has its key (TLS 1.3, RFC 8446 §2). The time
//! from the server's last word to the client's is the client's own: it checks the server's chain
//! and signs. Handshakes in which no certificate is shown, resumed ones among them, are passed over.
//!
//! **What it must never do.** Change what passes, or hold it up: a part is passed on as it came.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The type of an encrypted record. RFC 8446 §5.1
const APPLICATION_DATA: u8 = 23;

/// A client's last flight without a certificate is shorter, one with a certificate is longer.
const CERTIFICATE_FLIGHT_LEN_MIN: usize = 300;

/// One handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// From the client's hello to the end of its last flight.
    pub whole: Duration,
    /// From the server's last word to that: the client's own part.
    pub own: Duration,
}

/// A relay to one port; it ends with this guard.
#[derive(Debug)]
pub struct Line {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    quit: AtomicBool,
    seen: Mutex<Vec<Handshake>>,
}

/// What has been seen of one connection's handshake.
#[derive(Debug, Default)]
struct Watch {
    hello: Option<Instant>,
    answered: Option<Instant>,
    client: Records,
    is_over: bool,
}

/// Finds the records in one direction of a stream.
#[derive(Debug, Default)]
struct Records {
    header: Vec<u8>,
    left: usize,
}

impl Line {
    /// Listens on a free loopback port and relays to `to`.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub fn start(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, to, &shared)
        });
        Ok(Self { port, shared, thread: Some(thread) })
    }

    /// The loopback port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The handshakes with a client's certificate so far, in their order.
    #[must_use]
    pub fn handshakes(&self) -> Vec<Handshake> {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        // The listener waits in accept: this is what wakes it.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Watch {
    fn server_spoke(&mut self, now: Instant) {
        if !self.is_over {
            self.answered = Some(now);
        }
    }

    /// The handshake, once its last flight is seen.
    fn client_spoke(&mut self, part: &[u8], now: Instant) -> Option<Handshake> {
        let hello = *self.hello.get_or_insert(now);
        let (_, len) = self.client.pass(part).find(|(kind, _)| *kind == APPLICATION_DATA)?;
        if self.is_over {
            return None;
        }
        self.is_over = true;
        (len >= CERTIFICATE_FLIGHT_LEN_MIN)
            .then_some(Handshake { whole: now - hello, own: now - self.answered? })
    }
}

impl Records {
    /// Type and length of each record that begins in `part`.
    fn pass(&mut self, part: &[u8]) -> impl Iterator<Item = (u8, usize)> + use<> {
        let mut found = Vec::new();
        for &octet in part {
            if self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.header.push(octet);
            // Type, version, length.
            if let [kind, _, _, high, low] = self.header[..] {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                found.push((kind, self.left));
                self.header.clear();
            }
        }
        found.into_iter()
    }
}

fn accept(listener: &TcpListener, to: u16, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.quit.load(Ordering::Relaxed) {
            return;
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to));
        // A server that is away is to its client as if nobody relayed.
        let (Ok(client), Ok(server)) = (client, server) else { continue };
        // What of this fails is the connection, and both peers see that it ends.
        let _ended = relay(client, server, shared);
    }
}

fn relay(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
    let watch = Arc::new(Mutex::new(Watch::default()));
    let (of_client, shared) = (Arc::clone(&watch), Arc::clone(shared));
    thread::spawn(move || {
        pass(from_client, server, |part, now| {
            let handshake = lock(&of_client).client_spoke(part, now);
            lock(&shared.seen).extend(handshake);
        });
    });
    thread::spawn(move || {
        pass(from_server, client, |_, now| lock(&watch).server_spoke(now));
    });
    Ok(())
}

/// Passes on what comes, part by part; `seen` is told of each before.
#[expect(clippy::disallowed_methods, reason = "handshakes are measured by the clock")]
fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8], Instant)) {
    let mut part = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut part) {
        seen(&part[..len], Instant::now());
        if to.write_all(&part[..len]).is_err() {
            break;
        }
    }
    // Whoever has gone already needs no telling.
    let _gone = to.shutdown(Shutdown::Write);
}

/// A thread that panicked leaves what it has seen until then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, len: u16) -> Vec<u8> {
        let [high, low] = len.to_be_bytes();
        [vec![kind, 3, 3, high, low], vec![0; usize::from(len)]].concat()
    }

    /// Goal: the last flight is found wherever the parts begin, and its times are those of the peers.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "any beginning will do")]
    fn a_handshake_is_told_by_its_records() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let last = [record(20, 1), record(23, 700)].concat();
        for cut in 1..last.len() {
            let mut watch = Watch::default();
            assert_eq!(watch.client_spoke(&record(22, 250), at(1)), None);
            watch.server_spoke(at(3));
            watch.server_spoke(at(5));
            let parts = last.split_at(cut);
            let found = watch.client_spoke(parts.0, at(12)).or(watch.client_spoke(parts.1, at(12)));
            let ms = Duration::from_millis;
            assert_eq!(found, Some(Handshake { whole: ms(11), own: ms(7) }));
            assert_eq!(watch.client_spoke(&record(23, 700), at(20)), None, "that is a request");
        }
    }

    /// Goal: a client that shows no certificate is passed over, and so are its requests.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "any beginning will do")]
    fn resumed_handshakes_are_passed_over() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        watch.client_spoke(&record(22, 500), now);
        watch.server_spoke(now);
        assert_eq!(watch.client_spoke(&record(23, 53), now), None);
        assert_eq!(watch.client_spoke(&record(23, 700), now), None);
    }
}
