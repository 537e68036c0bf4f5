//! TLS at the edge: who may come in, and who they then are.
//!
//! **What it is.** The server's side of TLS 1.3 and 1.2 with an optional client certificate:
//! a first contact has none. A client certificate must chain to the *device* root; the server tree
//! is no client of ours. An expired but otherwise valid chain is admitted, because TLS refuses
//! before any path is known and an expired device must be able to ask for recovery; what such a
//! peer may do is the domain's to say, request by request.
//!
//! **What it must never do.** Judge revocation: that is asked of the database at every request, so
//! that a revocation counts at once and a resumed session, whose chain is not verified again,
//! gains nothing. Nor remember "was valid at the handshake": [`Identity::is_expired_at`] is asked
//! at every request for the same reason.
//!
//! **Why it is sound.** Verification is rustls' webpki verifier, both times: once at the true
//! time, and, only if that says "expired" and the *leaf* is what has expired, once more at the
//! leaf's last second. Everything else that can be wrong with a chain is wrong then too.
//!
//! The issuing CA is a trust anchor beside the root, which saves the verification of a signature in
//! each handshake. Nothing is lost by it: it is the authority whose key this service signs with,
//! named by the same file. What webpki does not ask of an anchor need not be asked of it: it may
//! issue (checked when it is read), it issues no CA (the lint of each certificate), and nothing
//! that it issues outlives it ([`IssueError::AuthorityValidity`]). An issuing CA is revoked here by
//! leaving it out of that file; certificates by it are good only if the database has them.
//!
//! [`IssueError::AuthorityValidity`]: crate::authority::IssueError::AuthorityValidity

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use der::{
    AnyRef, Decode, Header, Reader, SliceReader, Tag, TagNumber,
    asn1::{GeneralizedTime, UtcTime},
};
use futures_rustls::TlsAcceptor;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, UnixTime,
    pem::{self, PemObject},
};

use fleetcert_core::time::{Validity, Wall};

use crate::clock::{Clock, TlsClock};

/// Session tickets sent after a TLS 1.3 handshake: each is a certificate chain long, and a device
/// comes back once.
const TICKETS: usize = 1;

/// What the edge needs to speak TLS.
#[derive(Debug)]
pub struct Material {
    /// Our certificate and its issuing CA, leaf first.
    pub server_chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub server_key: PrivateKeyDer<'static>,
    /// The device tree, issuing CAs first, the self-signed root last. All are trusted: a device may
    /// send its leaf alone, or a chain by an earlier issuing CA of the same root.
    pub device_chain: Vec<CertificateDer<'static>>,
}

/// Why there is no TLS to speak.
#[derive(Debug)]
pub enum TlsError {
    /// A device tree without a root: nobody could ever be authenticated.
    NoDeviceRoot,
    /// A file that cannot be read or holds no PEM of the kind expected.
    Pem {
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        expected: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// rustls refuses the certificates or the key.
    Rustls(Error),
}

impl Material {
    /// Reads the three PEM files.
    ///
    /// # Errors
    ///
    /// [`TlsError::Pem`] names the file.
    pub fn read(server_chain: &Path, server_key: &Path, device: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            server_chain: read_chain(server_chain)?,
            server_key: PrivateKeyDer::from_pem_file(server_key).map_err(|source| {
                TlsError::Pem { path: server_key.into(), expected: "a private key", source }
            })?,
            device_chain: read_chain(device)?,
        })
    }
}

/// Reads the certificates of a PEM file, in their order.
///
/// # Errors
///
/// [`TlsError::Pem`] if it cannot be read or holds none.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error =
        |source| TlsError::Pem { path: path.into(), expected: "a certificate chain", source };
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(error)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(error)?;
    if chain.is_empty() { Err(error(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

/// The acceptor of a service.
///
/// # Errors
///
/// [`TlsError`] if the certificates do not make sense.
pub fn acceptor(material: Material, clock: &Arc<dyn Clock>) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = DeviceVerifier::new(material.device_chain, Arc::clone(&provider))?;
    let time = Arc::new(TlsClock(Arc::clone(clock)));
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(material.server_chain, material.server_key)?;
    config.send_tls13_tickets = TICKETS;
    config.ticketer = ring::Ticketer::new()?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Admits devices of one tree, valid or expired, and peers without a certificate.
#[derive(Debug)]
struct DeviceVerifier(Arc<dyn ClientCertVerifier>);

impl DeviceVerifier {
    fn new(
        anchors: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for anchor in anchors {
            roots.add(anchor)?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            // A client that holds its leaf alone finds no issuer of its own in a list of roots,
            // and would send nothing.
            .clear_root_hint_subjects()
            .build()
            .map_err(|_| TlsError::NoDeviceRoot)?;
        Ok(Self(inner))
    }
}

impl ClientCertVerifier for DeviceVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = self.0.verify_client_cert(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = verdict
        else {
            return verdict;
        };
        match validity(end_entity) {
            Some(leaf) if leaf.is_expired_at(Wall(now.as_secs())) => {
                let last = UnixTime::since_unix_epoch(Duration::from_secs(leaf.not_after.0));
                self.0.verify_client_cert(end_entity, intermediates, last)
            }
            _ => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A device that has proven, in the handshake, that it holds the key of this certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    leaf: Arc<[u8]>,
    validity: Validity,
}

impl Identity {
    /// The identity behind the first certificate of a verified chain; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`CertificateError::BadEncoding`] for a certificate whose validity cannot be read.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Result<Option<Self>, CertificateError> {
        let Some(leaf) = chain.and_then(<[_]>::first) else { return Ok(None) };
        let validity = validity(leaf).ok_or(CertificateError::BadEncoding)?;
        Ok(Some(Self { leaf: leaf.as_ref().into(), validity }))
    }

    /// The device's certificate, DER.
    #[must_use]
    pub fn leaf_der(&self) -> &[u8] {
        &self.leaf
    }

    /// Whether the certificate is past its `notAfter`.
    #[must_use]
    pub fn is_expired_at(&self, wall: Wall) -> bool {
        self.validity.is_expired_at(wall)
    }
}

/// The validity period of a certificate (RFC 5280 §4.1.2.5), if it is one at all.
#[must_use]
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    const VERSION: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };
    let mut reader = SliceReader::new(certificate).ok()?;
    let _certificate = Header::decode(&mut reader).ok()?;
    let _tbs_certificate = Header::decode(&mut reader).ok()?;
    if reader.peek_tag().ok()? == VERSION {
        AnyRef::decode(&mut reader).ok()?;
    }
    for _serial_signature_issuer in 0..3 {
        AnyRef::decode(&mut reader).ok()?;
    }
    let _validity = Header::decode(&mut reader).ok()?;
    Some(Validity { not_before: time(&mut reader)?, not_after: time(&mut reader)? })
}

fn time(reader: &mut SliceReader<'_>) -> Option<Wall> {
    let since_epoch = match reader.peek_tag().ok()? {
        Tag::UtcTime => UtcTime::decode(reader).ok()?.to_unix_duration(),
        Tag::GeneralizedTime => GeneralizedTime::decode(reader).ok()?.to_unix_duration(),
        _ => return None,
    };
    Some(Wall(since_epoch.as_secs()))
}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::Rustls(error)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDeviceRoot => {
                f.write_str("the device CA file ends in no root certificate to verify devices by")
            }
            Self::Pem { path, expected, source } => {
                write!(f, "{} holds no {expected} in PEM: {source}", path.display())
            }
            Self::Rustls(error) => write!(f, "certificates or key not usable for TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Whether a handshake that ended so is worth an operator's eye: a peer that merely left is not.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}
