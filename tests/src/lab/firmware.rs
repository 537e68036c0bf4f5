//! The firmware's TLS on a host: over TCP, with keys in memory and randomness from a seed.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use fleetcert_core::time::{Reading, Wall};
use fleetcert_firmware::board::Clock;
use fleetcert_firmware::keystore::KeyFault;
use fleetcert_firmware::tls::{Connection, Identity, Peer, Signer, TlsError, Workspace};
use fleetcert_firmware::verifier::{Portable, Server, ServerName, Verifier};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::{CryptoRng, RngCore};
use p256::pkcs8::DecodePrivateKey as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::pki::Node;
use super::{Lab, OrFail};
use crate::verify_chain::{trusted, unknown};

/// 2026-11-22T00:00:00Z; what tests make by hand is valid from 2020 to 2040.
pub const NOW: Wall = Wall(1_795_305_600);

/// No answer of a server on this machine takes longer, milliseconds.
pub const ANSWER_MS_MAX: u64 = 5_000;

/// A TCP connection as the firmware has it.
#[derive(Debug)]
pub struct Wire(TcpStream);

impl Wire {
    /// A connection to a loopback port.
    #[must_use]
    pub fn to(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).or_fail("a connection");
        let limit = Some(Duration::from_millis(ANSWER_MS_MAX));
        stream.set_read_timeout(limit).or_fail("a limit");
        Self(stream)
    }
}

/// What the firmware's network would say of it.
#[must_use]
pub fn kind(error: io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => ErrorKind::ConnectionReset,
        _ => ErrorKind::Other,
    }
}

impl ErrorType for Wire {
    type Error = ErrorKind;
}

impl Read for Wire {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(octets).map_err(kind)
    }
}

impl ReadReady for Wire {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        self.0.set_nonblocking(true).map_err(kind)?;
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).map_err(kind)?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(kind(error)),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, octets: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(octets).map_err(kind)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.0.flush().map_err(kind)
    }
}

/// The host's clock since a beginning, as a board has one.
#[derive(Clone, Copy, Debug)]
pub struct HostClock(Instant);

impl HostClock {
    /// A clock that begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a deadline in a test is in real time")]
    pub fn started() -> Self {
        Self(Instant::now())
    }
}

impl Clock for HostClock {
    #[expect(clippy::disallowed_methods, reason = "a deadline in a test is in real time")]
    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn rest(&self) {}
}

/// Randomness from a seed: a failure can be replayed.
#[derive(Debug)]
pub struct Seeded(pub u64);

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        self.next_u64().to_le_bytes()[..4].iter().fold(0, |all, octet| all << 8 | u32::from(*octet))
    }

    /// SplitMix64.
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill_bytes(&mut self, octets: &mut [u8]) {
        for part in octets.chunks_mut(8) {
            part.copy_from_slice(&self.next_u64().to_le_bytes()[..part.len()]);
        }
    }

    fn try_fill_bytes(
        &mut self,
        octets: &mut [u8],
    ) -> Result<(), p256::elliptic_curve::rand_core::Error> {
        self.fill_bytes(octets);
        Ok(())
    }
}

impl CryptoRng for Seeded {}

/// A key store in memory.
pub fn software(key: &SigningKey) -> impl FnMut(&[u8; 32]) -> Result<[u8; 64], KeyFault> {
    move |digest| {
        let signature: Signature = key.sign_prehash(digest).map_err(|_| KeyFault::Unavailable)?;
        Ok(signature.to_bytes().into())
    }
}

/// A device that pins `root` and looks for `localhost`.
pub struct Device {
    /// The root of servers, DER.
    pub root: Vec<u8>,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// The key of that.
    pub key: SigningKey,
    /// What it knows of the time.
    pub reading: Reading,
    /// What it takes the server for.
    pub server: Server,
    workspace: Workspace<'static>,
}

impl Device {
    /// The device `node`, at [`NOW`], on its way to a broker under `root`.
    #[must_use]
    pub fn new(root: &[u8], node: &Node) -> Self {
        let key = SigningKey::from_pkcs8_der(&node.key.serialize_der()).or_fail("a key");
        Self {
            root: root.to_vec(),
            certificate: node.der.clone(),
            key,
            reading: trusted(NOW),
            server: Server::Broker,
            workspace: Workspace::new(Box::leak(Box::default())),
        }
    }

    /// The same device once more, as a thief of its key would be.
    #[must_use]
    pub fn clone_of(other: &Self) -> Self {
        let Self { root, certificate, key, reading, server, .. } = other;
        Self {
            root: root.clone(),
            certificate: certificate.clone(),
            key: key.clone(),
            reading: *reading,
            server: *server,
            workspace: Workspace::new(Box::leak(Box::default())),
        }
    }

    /// Opens a connection with its certificate.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    pub fn open<T: Read + ReadReady + Write>(
        &mut self,
        transport: T,
    ) -> Result<Connection<'_, T>, TlsError> {
        let key = self.key.clone();
        self.open_with(transport, Some(&mut software(&key)))
    }

    /// Opens a connection with its certificate, if `signer` has the key, or without.
    ///
    /// # Errors
    ///
    /// As [`Connection::open`].
    pub fn open_with<T: Read + ReadReady + Write>(
        &mut self,
        transport: T,
        signer: Option<&mut dyn Signer>,
    ) -> Result<Connection<'_, T>, TlsError> {
        let verifier = Verifier::new(&[&self.root], Portable).or_fail("a verifier");
        let name = ServerName::try_from("localhost").or_fail("a name");
        let (server, reading) = (self.server, self.reading);
        let peer = Peer { verifier: &verifier, name, server, reading };
        let certificate = self.certificate.as_slice();
        let identity = signer.map(|signer| Identity { certificate, signer });
        Connection::open(transport, &mut self.workspace, &peer, identity, &mut Seeded(1))
    }
}

/// A device that the lab knows. It has no clock: what the lab issues begins now, whenever that is.
#[must_use]
pub fn dev_1(lab: &Lab) -> Device {
    let credential = lab.enroll_by_hand("dev-1");
    let root = CertificateDer::from_pem_file(lab.server_root()).or_fail("a root");
    let certificate = CertificateDer::from_pem_file(credential.certificate).or_fail("a leaf");
    let key = PrivateKeyDer::from_pem_file(credential.key).or_fail("a key");
    Device {
        root: root.to_vec(),
        certificate: certificate.to_vec(),
        key: SigningKey::from_pkcs8_der(key.secret_der()).or_fail("a key"),
        reading: unknown(NOW),
        server: Server::Broker,
        workspace: Workspace::new(Box::leak(Box::default())),
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device")
    }
}
