//! A TLS server that does one wrong thing, and remembers what it was told.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::OrFail;
use super::forge::Chain;

/// How long the server waits for a client's next octet.
const READ_MS_MAX: u64 = 3_000;

/// What the server does with each connection.
#[derive(Clone, Debug)]
pub enum Manner {
    /// It hears a request and says these octets, whatever the request was.
    Answer(Vec<u8>),
    /// It hangs up when it has heard the beginning of the handshake.
    HangUp,
    /// It hears anything at all and says these octets; then it hears the client out.
    Say(Vec<u8>),
}

/// What the server has been told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Connections that were accepted.
    pub connections: usize,
    /// Handshakes that came to their end on both sides.
    pub handshakes: usize,
    /// What clients said inside TLS.
    pub said: Vec<u8>,
}

/// A running server; it ends with this guard.
#[derive(Debug)]
pub struct FakeServer {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    quit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Listens on loopback port `port` (0: any that is free).
    #[must_use]
    pub fn start(port: u16, chain: &Chain, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_fail("a listener");
        let port = listener.local_addr().or_fail("its address").port();
        let config = Arc::new(config(chain));
        let (seen, quit) =
            (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, quit) = (Arc::clone(&seen), Arc::clone(&quit));
            move || accept(&listener, &config, &manner, &seen, &quit)
        });
        Self { port, seen, quit, thread: Some(thread) }
    }

    /// The loopback port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it has been told so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        // The listener waits in accept: this is what wakes it.
        let _woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn config(chain: &Chain) -> ServerConfig {
    let certificates = CertificateDer::pem_slice_iter(chain.certificates.as_bytes());
    let certificates = certificates.collect::<Result<_, _>>().or_fail("a chain");
    let key = PrivateKeyDer::from_pem_slice(chain.key.as_bytes()).or_fail("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail("protocol versions")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .or_fail("a server configuration")
}

fn accept(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
    manner: &Manner,
    seen: &Arc<Mutex<Seen>>,
    quit: &AtomicBool,
) {
    for stream in listener.incoming() {
        if quit.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        lock(seen).connections += 1;
        let (config, manner, seen) = (Arc::clone(config), manner.clone(), Arc::clone(seen));
        // A client that leaves ends its conversation with an error, which is what it is for.
        thread::spawn(move || converse(stream, config, &manner, &seen));
    }
}

fn converse(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    manner: &Manner,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(READ_MS_MAX)))?;
    let (Manner::Answer(answer) | Manner::Say(answer)) = manner else {
        return stream.read(&mut [0; 64]).map(drop);
    };
    let is_patient = matches!(manner, Manner::Say(_));
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    lock(seen).handshakes += 1;
    let mut stream = StreamOwned::new(connection, stream);
    let mut part = [0; 4096];
    let mut heard = Vec::new();
    let is_enough = |heard: &[u8]| match manner {
        Manner::Say(_) => !heard.is_empty(),
        _ => heard.windows(4).any(|four| four == b"\r\n\r\n"),
    };
    while !is_enough(&heard) {
        let len = stream.read(&mut part)?;
        if len == 0 {
            break;
        }
        heard.extend_from_slice(&part[..len]);
        lock(seen).said.extend_from_slice(&part[..len]);
    }
    stream.write_all(answer)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    // To close a connection on octets that nobody has read would take ours from the client.
    while is_patient && stream.sock.read(&mut part)? > 0 {}
    Ok(())
}

/// What was counted before a panic elsewhere is still true.
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
