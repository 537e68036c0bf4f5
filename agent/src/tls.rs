//! TLS as a device speaks it: to servers under one pinned root, with a key that may be in a TPM.
//!
//! **What it is.** A [`Trust`] is the pinned server root. A [`Client`] is one identity, or none,
//! towards one kind of [`Server`]; it owns the rustls configuration, and with that its session
//! tickets.
//!
//! **What it must never do.** Trust any root but the pinned one: the roots of the platform are
//! never read, and the device tree is no server's. Carry a session from one identity to another: a
//! ticket belongs to the certificate it was given to, so every identity has its own `Client`, and
//! nothing here changes the identity of one. Judge our own certificate by what a server says of it
//! ([`crate::net::NetError::OurIdentityRefused`] is a report, no verdict).
//!
//! **Why that is sound.** Chains are verified by rustls' webpki verifier: signatures, names,
//! `basicConstraints`, key usage, `serverAuth`. What is ours is only *when* a chain has to be
//! valid, a pure function in `server` that `docs/decisions/0003-server-time.md` argues. The private
//! key is never seen: rustls is handed a signer.

mod key;
mod server;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::TlsConnector;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use fleetcert_core::time::server::Server;
use fleetcert_core::time::{Reading, Wall};

use crate::keystore::Signer;

pub(crate) use self::key::SigningFailed;
use self::key::StoredKey;
use self::server::PinnedRoot;

/// Sessions that a broker's tickets are kept for: there is one broker.
const SESSIONS_MAX: usize = 1;

/// The roots that a server's certificate may lead to, and the cryptography to verify it with.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// Why there is no TLS to speak.
#[derive(Debug)]
pub enum SetupError {
    /// A file that cannot be read, or holds no certificate in PEM.
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// rustls refuses a certificate or a root.
    Rustls(rustls::Error),
    /// There is no server root, so no server could ever be believed.
    NoServerRoot,
}

impl Trust {
    /// Trusts these self-signed server roots, DER, and nothing else.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if there is none, or one is no certificate.
    pub fn new<'a>(
        roots: impl IntoIterator<Item = CertificateDer<'a>>,
    ) -> Result<Self, SetupError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.into_owned())?;
        }
        if store.is_empty() {
            return Err(SetupError::NoServerRoot);
        }
        Ok(Self { roots: Arc::new(store), provider: Arc::new(ring::default_provider()) })
    }

    /// Trusts the server roots of a PEM file: one, or two during a rollover.
    ///
    /// # Errors
    ///
    /// [`SetupError`] names the file.
    pub fn read(path: &Path) -> Result<Self, SetupError> {
        let error = |source| SetupError::Pem { path: path.into(), source };
        let roots = CertificateDer::pem_file_iter(path)
            .map_err(error)?
            .collect::<Result<Vec<_>, _>>()
            .map_err(error)?;
        Self::new(roots)
    }
}

/// One identity, or none, towards one kind of server.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    root: Arc<PinnedRoot>,
    certificate: Option<Arc<[u8]>>,
    is_slow: bool,
}

impl Client {
    /// A client that shows no certificate.
    ///
    /// # Errors
    ///
    /// [`SetupError::Rustls`] if rustls will not have the roots.
    pub fn anonymous(trust: &Trust, server: Server) -> Result<Self, SetupError> {
        Self::build(trust, server, None)
    }

    /// A client that shows `certificate`, DER, alone: servers hold the issuing CA. `signer` holds
    /// its key.
    ///
    /// # Errors
    ///
    /// [`SetupError::Rustls`] if rustls will not have the roots.
    pub fn identified(
        trust: &Trust,
        server: Server,
        certificate: &[u8],
        signer: Arc<dyn Signer>,
    ) -> Result<Self, SetupError> {
        Self::build(trust, server, Some((certificate, signer)))
    }

    fn build(
        trust: &Trust,
        server: Server,
        identity: Option<(&[u8], Arc<dyn Signer>)>,
    ) -> Result<Self, SetupError> {
        let provider = Arc::clone(&trust.provider);
        let root = Arc::new(PinnedRoot::new(trust, server)?);
        let time = Arc::clone(&root);
        let builder = ClientConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&root) as _);
        let is_slow = identity.as_ref().is_some_and(|(_, signer)| signer.is_slow());
        let certificate = identity.as_ref().map(|(certificate, _)| Arc::from(*certificate));
        let mut config = match identity {
            Some((certificate, signer)) => {
                let chain = vec![CertificateDer::from(certificate.to_vec())];
                let key = CertifiedKey::new(chain, Arc::new(StoredKey(signer)));
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = match server {
            Server::Broker => Resumption::in_memory_sessions(SESSIONS_MAX),
            // Each connection proves possession of the key anew; there are few.
            Server::Provisioner => Resumption::disabled(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), root, certificate, is_slow })
    }

    /// Whether it shows this certificate, DER.
    #[must_use]
    pub fn shows(&self, certificate: &[u8]) -> bool {
        self.certificate.as_deref() == Some(certificate)
    }

    /// Whether it shows the same certificate as another; none is no identity.
    #[must_use]
    pub fn is_same_identity(&self, other: &Self) -> bool {
        other.certificate.as_deref().is_some_and(|certificate| self.shows(certificate))
    }

    /// Whether a handshake waits for a key store that answers in more than a few milliseconds.
    pub(crate) const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// What drives the next handshake; servers are judged by `reading`.
    pub(crate) fn connector(&self, reading: Reading) -> TlsConnector {
        self.root.set_reading(reading);
        self.connector.clone()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("root", &self.root)
            .field("is_anonymous", &self.certificate.is_none())
            .finish_non_exhaustive()
    }
}

/// A host as TLS verifies it: a DNS name or an IP address.
///
/// # Errors
///
/// [`SetupError::Rustls`] if it is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, SetupError> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| SetupError::Rustls(rustls::Error::UnsupportedNameType))
}

/// `told` if it lies inside the validity of the server's `leaf`, DER, that it was told under.
///
/// A server whose own certificate is not valid at the time it tells has either a wrong clock or an
/// old key; neither may set ours.
#[must_use]
pub fn believable(told: Wall, leaf: &[u8]) -> Option<Wall> {
    let leaf = fleetcert_core::der::Certificate::parse(leaf).ok()?;
    let validity = leaf.validity();
    (validity.not_before <= told && told <= validity.not_after).then_some(told)
}

impl From<rustls::Error> for SetupError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem { path, source } => {
                write!(f, "{}: expected certificates in PEM, found: {source}", path.display())
            }
            Self::Rustls(error) => write!(f, "TLS cannot be set up: {error}"),
            Self::NoServerRoot => f.write_str("no server root: expected at least one, found none"),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pem { source, .. } => Some(source),
            Self::Rustls(error) => Some(error),
            Self::NoServerRoot => None,
        }
    }
}
