//! One device: a key, a connection, and the core's requests over it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{self, Enrollment, Provisioner, Token};
use fleetcert_core::est::csr::{P256Signature, UnsignedRequest, p256_spki};
use fleetcert_core::http::{Progress, Response, ResponseReader};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What can go wrong with a load, in words: nothing depends on which.
pub type LoadError = Box<dyn std::error::Error + Send + Sync>;

/// A whole exchange fits: the longest request and the longest answer of an enrollment.
const EXCHANGE_LEN_MAX: usize = 8192;

/// Where the provisioner is and how it is recognised.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub host: String,
    /// The root of the server tree.
    pub root: CertificateDer<'static>,
}

/// A device under load.
pub struct Device {
    id: DeviceId,
    target: Target,
    rng: SystemRandom,
    pkcs8: Vec<u8>,
    key: EcdsaKeyPair,
    certificate: Option<Vec<u8>>,
    connection: Option<StreamOwned<ClientConnection, Counted>>,
    wire: Arc<Wire>,
}

/// What went over the network, TLS and its handshakes included, TCP's own headers not.
#[derive(Debug, Default)]
pub struct Wire {
    /// Octets sent.
    pub sent: AtomicUsize,
    /// Octets received.
    pub received: AtomicUsize,
    /// Times the direction turned from sending to receiving: round trips that were waited for.
    pub turns: AtomicUsize,
    sending: AtomicBool,
}

impl Wire {
    /// Octets both ways so far.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.sent.load(Ordering::Relaxed) + self.received.load(Ordering::Relaxed)
    }
}

/// A TCP stream that counts.
struct Counted {
    inner: TcpStream,
    wire: Arc<Wire>,
}

impl Read for Counted {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(space)?;
        self.wire.received.fetch_add(count, Ordering::Relaxed);
        if self.wire.sending.swap(false, Ordering::Relaxed) {
            self.wire.turns.fetch_add(1, Ordering::Relaxed);
        }
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(octets)?;
        self.wire.sent.fetch_add(count, Ordering::Relaxed);
        self.wire.sending.store(true, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Device {
    /// A device with a new key and no certificate.
    ///
    /// # Errors
    ///
    /// When `id` is no device id.
    #[expect(clippy::disallowed_methods, reason = "a load is no simulation: its keys are real")]
    pub fn new(id: &str, target: &Target) -> Result<Self, LoadError> {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng)
            .map_err(|_| "no key")?;
        let pkcs8 = pkcs8.as_ref().to_vec();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &rng)
            .map_err(|_| "no key")?;
        let (id, target) = (DeviceId::parse(id)?, target.clone());
        let (certificate, connection, wire) = (None, None, Arc::default());
        Ok(Self { id, target, rng, pkcs8, key, certificate, connection, wire })
    }

    /// Enrolls by token and keeps the certificate.
    ///
    /// # Errors
    ///
    /// Whatever is not a certificate, in words.
    pub fn enroll(&mut self, token: &str) -> Result<(), LoadError> {
        let token = Token::parse(token).map_err(|error| error.to_string())?;
        let (id, host) = (self.id.clone(), self.target.host.clone());
        self.ask(|enrollment, buffer| {
            enroll::simpleenroll(provisioner(&host), enrollment, Some((&id, token)), buffer)
                .map(<[u8]>::len)
        })?;
        self.connection = None;
        Ok(())
    }

    /// Re-enrolls with the present certificate and keeps the new one, for the same key.
    ///
    /// # Errors
    ///
    /// Whatever is not a certificate, in words.
    pub fn reenroll(&mut self) -> Result<(), LoadError> {
        let host = self.target.host.clone();
        self.ask(|enrollment, buffer| {
            enroll::simplereenroll(provisioner(&host), enrollment, buffer).map(<[u8]>::len)
        })
    }

    /// What this device has sent and received so far.
    #[must_use]
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Ends the connection; the next request makes a new one.
    pub fn hang_up(&mut self) {
        self.connection = None;
    }

    fn ask(
        &mut self,
        write: impl FnOnce(
            Enrollment<'_>,
            &mut [u8],
        ) -> Result<usize, fleetcert_core::http::RequestError>,
    ) -> Result<(), LoadError> {
        let mut name = [0; 16];
        self.rng.fill(&mut name).map_err(|_| "no randomness")?;
        let csr = self.csr()?;
        let mut buffer = [0; EXCHANGE_LEN_MAX];
        let len = write(Enrollment { id: name, csr: &csr, challenge: None }, &mut buffer)?;
        let mut reader_space = [0; EXCHANGE_LEN_MAX];
        let response = self.exchange(&buffer[..len], &mut reader_space)?;
        let certificate = enroll::read_enroll(response).answer;
        let certificate = certificate.map_err(|error| format!("no certificate: {error:?}"))?;
        self.certificate = Some(certificate.as_der().to_vec());
        Ok(())
    }

    fn exchange<'b>(
        &mut self,
        request: &[u8],
        space: &'b mut [u8],
    ) -> Result<Response<'b>, LoadError> {
        if self.connection.is_none() {
            self.connection = Some(self.connect()?);
        }
        let stream = self.connection.as_mut().ok_or("no connection")?;
        stream.write_all(request)?;
        stream.flush()?;
        let mut reader = ResponseReader::new(space);
        loop {
            let received = stream.read(reader.space())?;
            if reader.advance(received).map_err(|error| error.to_string())? == Progress::Done {
                return Ok(reader.finish().map_err(|error| error.to_string())?);
            }
        }
    }

    fn connect(&self) -> Result<StreamOwned<ClientConnection, Counted>, LoadError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.target.root.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.certificate {
            Some(certificate) => builder.with_client_auth_cert(
                vec![CertificateDer::from(certificate.clone())],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.clone())),
            )?,
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        let (name, _) = self.target.host.rsplit_once(':').ok_or("no port")?;
        let name = ServerName::try_from(name.to_owned())?;
        let tls = ClientConnection::new(Arc::new(config), name)?;
        let inner = TcpStream::connect(&self.target.host)?;
        inner.set_nodelay(true)?;
        Ok(StreamOwned::new(tls, Counted { inner, wire: Arc::clone(&self.wire) }))
    }

    fn csr(&self) -> Result<Vec<u8>, LoadError> {
        let point: &[u8; 65] = self.key.public_key().as_ref().try_into()?;
        let spki = p256_spki(point).map_err(|error| error.to_string())?;
        let mut buffer = [0; 1024];
        let request = UnsignedRequest::new(&self.id, &spki, &[], &mut buffer)
            .map_err(|error| error.to_string())?;
        let signature =
            self.key.sign(&self.rng, request.to_be_signed()).map_err(|_| "no signature")?;
        let signature =
            P256Signature::parse(signature.as_ref()).map_err(|error| error.to_string())?;
        Ok(request.finish(&signature).map_err(|error| error.to_string())?.to_vec())
    }
}

const fn provisioner(host: &str) -> Provisioner<'_> {
    Provisioner { host, label: None }
}
