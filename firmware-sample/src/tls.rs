//! TLS 1.3 as a microcontroller speaks it: one cipher suite, one curve, one pinned root, no heap.
//!
//! **What it is.** A [`Connection`] over any transport that reads and writes: [`Connection::open`]
//! makes the handshake with a [`Peer`], shows our [`Identity`] if there is one, and leaves a
//! stream. The protocol is embedded-tls (AES-128-GCM, ECDHE on P-256); the judgement of the server
//! is the [`Verifier`]'s; the signature is a [`Signer`]'s, which may be a TPM.
//!
//! **What it must never do.** Say anything to a server that has not proven who it is: not our
//! certificate, not an octet of the application's. Panic: not for what a server sends, nor because
//! a key store failed. Wait for an answer longer than its transport does.
//!
//! **Why that is sound.** embedded-tls is a good codec and no strict protocol machine: it would
//! accept a server that leaves its certificate out, it calls a signer that may not fail, and it
//! panics on some records. So it stands between two rooms of ours. `handshake` judges the server
//! in the right order and gives out certificate and signature only afterwards. `gate` sees every
//! record first and lets through what may come now and fits; nothing leaves it after a fault. Both
//! write into one ledger, and [`Connection::open`] believes that rather than the library.
//!
//! What remains of the library's panics: a server *that has proven itself* and then sends, protected,
//! a handshake message which has no place after the handshake. A board that panics starts again
//! from its record, so such a server can make a device of its own fleet start again, no more.
//!
//! We ask for fragments of 4096 octets (RFC 6066 §4), so that a record fits [`READ_LEN`]. A server
//! that does not know the extension may send longer ones; they are refused by their header.
//! Nothing is resumed: each connection proves the key anew.

mod fault;
mod gate;
mod handshake;

use core::fmt;

use embedded_io::{ErrorType, Read, ReadReady, Write};
use embedded_tls::blocking::{
    Aes128GcmSha256, MaxFragmentLength, TlsConfig, TlsConnection, TlsContext,
    TlsError as LibraryError,
};
use fleetcert_core::record::CERTIFICATE_LEN_MAX;
use fleetcert_core::time::{Reading, Validity, Wall};
use p256::elliptic_curve::rand_core::CryptoRngCore;

use self::gate::{Gate, Ledger};
use self::handshake::Handshake;
use crate::keystore::KeyFault;
use crate::verifier::{Ecdsa, SIGNATURE_LEN, Server, ServerName, Verified, Verifier};

pub use self::fault::{RecordFault, TlsError};

/// Octets of a record's content, at most: a fragment of 4096, and what RFC 8446 §5.2 may add.
pub const READ_LEN: usize = 4_096 + 256;

/// Octets of what is written at once: a certificate of ours with what is around it.
pub const WRITE_LEN: usize = CERTIFICATE_LEN_MAX + 256;

/// The octets of one connection: all zero at first, so that they cost no flash.
pub struct Buffers {
    read: [u8; READ_LEN],
    write: [u8; WRITE_LEN],
}

/// The memory of one connection.
pub struct Workspace<'w> {
    buffers: &'w mut Buffers,
    ledger: Ledger,
}

/// Whom a connection is to, and what its certificate has to be.
#[derive(Debug)]
pub struct Peer<'p, E> {
    /// The pinned roots.
    pub verifier: &'p Verifier<'p, E>,
    /// Its name; a DNS name is also told to the server.
    pub name: ServerName<'p>,
    /// What it is to us.
    pub server: Server,
    /// What we know of the time.
    pub reading: Reading,
}

/// Who we are.
pub struct Identity<'i> {
    /// Our certificate, DER, alone: servers hold the issuing authority.
    pub certificate: &'i [u8],
    /// Its key.
    pub signer: &'i mut dyn Signer,
}

/// A private key on P-256, wherever it is.
pub trait Signer {
    /// Signs a SHA-256 digest: r and s, big-endian, 32 octets each.
    ///
    /// # Errors
    ///
    /// [`KeyFault`]: the connection is then not made.
    fn sign(&mut self, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault>;
}

impl<F: FnMut(&[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault>> Signer for F {
    fn sign(&mut self, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault> {
        self(digest)
    }
}

/// A protected stream to a server that has proven who it is.
///
/// In TLS 1.3 the handshake is over for us before the server has judged *our* certificate: if it
/// refuses it, the first read says so.
pub struct Connection<'a, T: Read + ReadReady + Write> {
    /// `None` once it is closed. The library's close takes its connection by value, and we have room
    /// for one copy while it works, not all the time.
    tls: Option<TlsConnection<'a, Gate<'a, T>, Aes128GcmSha256>>,
    ledger: &'a Ledger,
    /// When the server's certificate is valid, from the handshake on.
    server: Option<Validity>,
    is_ended: bool,
}

impl<'a, T: Read + ReadReady + Write + 'a> Connection<'a, T> {
    /// Makes a connection over `transport`: [`Connection::new`] and [`Connection::shake_hands`].
    ///
    /// # Errors
    ///
    /// Those of [`Connection::shake_hands`]. The transport is spent: pass a `&mut` to keep it.
    pub fn open<E: Ecdsa, R: CryptoRngCore>(
        transport: T,
        workspace: &'a mut Workspace<'_>,
        peer: &Peer<'_, E>,
        identity: Option<Identity<'_>>,
        rng: &mut R,
    ) -> Result<Self, TlsError> {
        let mut connection = Self::new(transport, workspace);
        match connection.shake_hands(peer, identity, rng) {
            Ok(()) => Ok(connection),
            Err(fault) => {
                connection.close();
                Err(fault)
            }
        }
    }

    /// A connection over `transport` on which nothing was said yet, and nothing can be before
    /// [`Connection::shake_hands`]. On a small stack it is made where it stays.
    #[inline(never)]
    pub fn new(transport: T, workspace: &'a mut Workspace<'_>) -> Self {
        let Workspace { buffers: Buffers { read, write }, ledger } = workspace;
        *ledger = Ledger::new();
        let ledger: &Ledger = ledger;
        let tls = TlsConnection::new(Gate::new(transport, ledger, READ_LEN), read, write);
        Self { tls: Some(tls), ledger, server: None, is_ended: false }
    }

    /// Makes the handshake.
    ///
    /// # Errors
    ///
    /// [`TlsError`]. Whatever it is, the server has seen nothing of `identity` unless it had proven
    /// itself. The connection can only be closed then, which tells the server an alert where there
    /// is one for it.
    #[inline(never)]
    pub fn shake_hands<E: Ecdsa, R: CryptoRngCore>(
        &mut self,
        peer: &Peer<'_, E>,
        identity: Option<Identity<'_>>,
        rng: &mut R,
    ) -> Result<(), TlsError> {
        let found = identity.as_ref().map_or(0, |identity| identity.certificate.len());
        let verified = if found > CERTIFICATE_LEN_MAX {
            let found = u16::try_from(found).unwrap_or(u16::MAX);
            Err(TlsError::LocalCertificateTooLong { found })
        } else if let Some(tls) = &mut self.tls {
            shake_hands(tls, peer, identity, rng, self.ledger)
        } else {
            Err(TlsError::PeerEnded)
        };
        match verified {
            Ok(Verified { validity, .. }) => {
                self.server = Some(validity);
                self.ledger.set_open();
                Ok(())
            }
            Err(fault) => {
                self.ledger.fail(fault);
                Err(fault)
            }
        }
    }

    /// When the server's certificate is valid: a time that it tells is believed inside it only.
    /// At no time, before the handshake.
    #[must_use]
    pub fn server_validity(&self) -> Validity {
        self.server.unwrap_or(Validity { not_before: Wall(u64::MAX), not_after: Wall(0) })
    }

    /// Reads what is there, without waiting for a record to begin: `None` if none has. What has
    /// begun is read to its end, and waited for as the transport does.
    ///
    /// # Errors
    ///
    /// [`TlsError`], as [`Read::read`].
    pub fn read_if_ready(&mut self, octets: &mut [u8]) -> Result<Option<usize>, TlsError> {
        self.ledger.set_impatient(true);
        let outcome = self.read(octets);
        self.ledger.set_impatient(false);
        match outcome {
            Err(TlsError::Transport(embedded_io::ErrorKind::TimedOut))
                if self.ledger.fault().is_none() =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Ends the connection; a transport that was lent is still to be closed. After a fault in the
    /// handshake the server is told an alert: the library's own farewell stays behind the gate then.
    /// Whatever is tried afterwards is [`TlsError::PeerEnded`], or the fault.
    #[inline(never)]
    pub fn close(&mut self) {
        let fault = self.ledger.fault().filter(|_| self.server.is_none());
        let Some(tls) = self.tls.take() else { return };
        let (Ok(mut gate) | Err((mut gate, _))) = tls.close();
        if let Some(alert) = fault.and_then(|fault| fault.alert()) {
            gate.alert(alert);
        }
    }

    fn usable(&self) -> Result<(), TlsError> {
        match self.ledger.fault() {
            Some(fault) => Err(fault),
            None if self.server.is_none() => Err(TlsError::PeerUnproven),
            None => Ok(()),
        }
    }

    /// What an error of the library's was. All but a timeout between two records is the end.
    fn fault(&self, error: LibraryError) -> TlsError {
        let fault = self.ledger.fault().unwrap_or_else(|| translate(error));
        if fault != TlsError::Transport(embedded_io::ErrorKind::TimedOut) {
            self.ledger.fail(fault);
        }
        fault
    }
}

/// The handshake; what it proved is in the ledger, and nowhere else.
fn shake_hands<'a, T: Read + ReadReady + Write + 'a, E: Ecdsa, R: CryptoRngCore>(
    tls: &mut TlsConnection<'a, Gate<'a, T>, Aes128GcmSha256>,
    peer: &Peer<'_, E>,
    identity: Option<Identity<'_>>,
    rng: &mut R,
    ledger: &Ledger,
) -> Result<Verified, TlsError> {
    let mut config = TlsConfig::new().with_max_fragment_length(MaxFragmentLength::Bits12);
    // RFC 6066 §3: an address is no server name.
    if let ServerName::DnsName(name) = &peer.name {
        config = config.with_server_name(name.as_ref());
    }
    let mut handshake = Handshake::new(peer, identity, rng, ledger);
    let outcome = tls.open(TlsContext::new(&config, &mut handshake));
    match (ledger.fault(), outcome) {
        (Some(fault), _) => Err(fault),
        (None, Err(error)) => Err(translate(error)),
        (None, Ok(())) => handshake.verified().ok_or(TlsError::PeerUnproven),
    }
}

/// The library's words for what is neither the gate's nor the handshake's.
fn translate(error: LibraryError) -> TlsError {
    match error {
        LibraryError::HandshakeAborted(_, alert) => {
            TlsError::PeerAlert { description: Some(alert as u8) }
        }
        // Its word for every alert after the handshake but the one that ends a connection.
        LibraryError::InternalError => TlsError::PeerAlert { description: None },
        LibraryError::ConnectionClosed | LibraryError::IoError | LibraryError::MissingHandshake => {
            TlsError::PeerEnded
        }
        LibraryError::Io(kind) => TlsError::Transport(kind),
        _ => TlsError::PeerProtocol,
    }
}

impl<'a, T: Read + ReadReady + Write + 'a> ErrorType for Connection<'a, T> {
    type Error = TlsError;
}

/// Zero octets mean that the server has ended the stream, and said so. After
/// [`TlsError::Transport`] with `TimedOut` one may read again: nothing was lost.
impl<'a, T: Read + ReadReady + Write + 'a> Read for Connection<'a, T> {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, TlsError> {
        self.usable()?;
        if self.is_ended || octets.is_empty() {
            return Ok(0);
        }
        let tls = self.tls.as_mut().ok_or(TlsError::PeerEnded)?;
        match tls.read(octets) {
            Err(LibraryError::ConnectionClosed) => {
                self.is_ended = true;
                Ok(0)
            }
            outcome => outcome.map_err(|error| self.fault(error)),
        }
    }
}

impl<'a, T: Read + ReadReady + Write + 'a> Write for Connection<'a, T> {
    fn write(&mut self, octets: &[u8]) -> Result<usize, TlsError> {
        self.usable()?;
        if octets.is_empty() {
            return Ok(0);
        }
        let tls = self.tls.as_mut().ok_or(TlsError::PeerEnded)?;
        tls.write(octets).map_err(|error| self.fail(error))
    }

    fn flush(&mut self) -> Result<(), TlsError> {
        self.usable()?;
        let tls = self.tls.as_mut().ok_or(TlsError::PeerEnded)?;
        tls.flush().map_err(|error| self.fail(error))
    }
}

impl<'a, T: Read + ReadReady + Write + 'a> Connection<'a, T> {
    /// A record that was begun and not sent cannot be sent again: any error ends the connection.
    fn fail(&self, error: LibraryError) -> TlsError {
        let fault = self.ledger.fault().unwrap_or_else(|| translate(error));
        self.ledger.fail(fault);
        fault
    }
}

impl Buffers {
    /// Octets that nobody uses yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { read: [0; READ_LEN], write: [0; WRITE_LEN] }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

impl<'w> Workspace<'w> {
    /// Memory for one connection at a time.
    #[must_use]
    pub const fn new(buffers: &'w mut Buffers) -> Self {
        Self { buffers, ledger: Ledger::new() }
    }
}

impl fmt::Debug for Buffers {
    /// They hold what was decrypted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffers")
    }
}

impl fmt::Debug for Workspace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl<'a, T: Read + ReadReady + Write + 'a> fmt::Debug for Connection<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}
