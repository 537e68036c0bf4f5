//! A line between two peers that counts what passes, and can lose what one of them says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::OrFail;

/// Relays TCP connections to another port; it ends with this guard.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    quit: AtomicBool,
    loses_answers: AtomicBool,
    /// Octets that have passed, by connection.
    passed: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Relay {
    /// Listens on a free loopback port and relays to `to`.
    #[must_use]
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fail("a listener");
        let port = listener.local_addr().or_fail("its address").port();
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, to, &shared)
        });
        Self { port, shared, thread: Some(thread) }
    }

    /// The loopback port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on what a server says after its part of the handshake is lost, or is not.
    pub fn lose_answers(&self, lose: bool) {
        self.shared.loses_answers.store(lose, Ordering::Relaxed);
    }

    /// Octets that have passed in both directions, of each connection in the order of their
    /// beginnings.
    #[must_use]
    pub fn passed(&self) -> Vec<u64> {
        let passed = self.shared.passed.lock().or_fail("the counts");
        passed.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        // The listener waits in accept: this is what wakes it.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ended = self.thread.take().map(JoinHandle::join);
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
        relay(client, server, Arc::clone(shared));
    }
}

/// A client speaks twice in a handshake: its hello, and, when it has heard the server's whole
/// part, its own. What the server says after that is the answer to a request.
fn relay(client: TcpStream, server: TcpStream, shared: Arc<Shared>) {
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let answering = Arc::new(AtomicBool::new(false));
    let spoke = Arc::clone(&answering);
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    shared.passed.lock().or_fail("the counts").push(Arc::clone(&count));
    thread::spawn(move || {
        let mut parts = 0;
        pass(from_client, server, &count, || {
            parts += 1;
            spoke.store(parts > 1, Ordering::Relaxed);
            true
        });
    });
    thread::spawn(move || {
        pass(from_server, client, &counted, || {
            !(answering.load(Ordering::Relaxed) && shared.loses_answers.load(Ordering::Relaxed))
        });
    });
}

/// Passes on what comes, part by part, as far as `wanted` says so before each, and counts it.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    count: &AtomicU64,
    mut wanted: impl FnMut() -> bool,
) {
    let mut part = [0; 16 * 1024];
    while let Ok(len @ 1..) = from.read(&mut part) {
        if !wanted() {
            continue;
        }
        // Before it is passed on: who has it may ask for the count.
        count.fetch_add(len as u64, Ordering::Relaxed);
        if to.write_all(&part[..len]).is_err() {
            break;
        }
    }
    // Whoever has gone already needs no telling.
    let _gone = to.shutdown(Shutdown::Write);
}
