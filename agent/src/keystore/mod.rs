//! The key store: two slots, private keys that never leave it.
//!
//! **What it is.** [`KeyStore`] is the port through which the machine makes and erases keys, and
//! the place where TLS and enrollment get a [`Signer`]. The backend behind it is a matter of
//! configuration; nothing outside this room knows which one it is.
//!
//! **What it must never do.** Hand a private key out, print one, or call a key lost that is merely
//! out of reach: the machine gives an identity up when its key is lost.

mod file;

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use fleetcert_core::event::Failure;
use fleetcert_core::port::Keys;
use fleetcert_core::record::{KeySource, Slot};
use ring::digest::{SHA256, digest};

use crate::cause::Causes;
use crate::disk::{Disk, DiskFailure};
use crate::entropy::{Entropy, NoEntropy};

pub(crate) use file::KEY_FILES;

/// A key that signs, without being seen.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public key: SubjectPublicKeyInfo, DER (RFC 5280 §4.1.2.7), P-256.
    fn spki(&self) -> &[u8];

    /// ECDSA over P-256 with SHA-256 of `message`: a DER `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
    ///
    /// # Errors
    ///
    /// [`KeyFailure`] when the key is gone or the key store refuses.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure>;

    /// Whether a signature takes so long (a TPM: up to 200 ms) that it must not be made on the
    /// executor's thread.
    fn is_slow(&self) -> bool;
}

/// What a kind of key store does; see the port `Keys` for the promises.
trait Backend: fmt::Debug {
    fn signer(&self, slot: Slot) -> Result<Arc<dyn Signer>, KeyFailure>;

    /// The SubjectPublicKeyInfo of the key that is in the slot afterwards.
    fn ensure(&self, slot: Slot, source: KeySource) -> Result<Vec<u8>, KeyFailure>;

    fn erase(&self, slot: Slot) -> Result<(), KeyFailure>;
}

/// Why the key store did not do what it was asked.
#[derive(Debug)]
pub enum KeyFailure {
    /// There is no key in the slot.
    Absent {
        /// The slot.
        slot: Slot,
    },
    /// What is in the slot is no key.
    Corrupt {
        /// The slot.
        slot: Slot,
        /// Where it is.
        path: PathBuf,
    },
    /// The store could not be read or written.
    Disk(DiskFailure),
    /// Others than the owner may read the key.
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits; 0600 or less was expected.
        mode: u32,
    },
    /// The key belongs to another user.
    ForeignOwner {
        /// Where it is.
        path: PathBuf,
        /// The owner's user id.
        found: u32,
        /// Our user id.
        expected: u32,
    },
    /// The operating system gave no random bytes.
    NoEntropy,
    /// The cryptographic library refused to make a key or a signature.
    Refused,
}

/// The key store of this device; clones share it.
#[derive(Clone, Debug)]
pub struct KeyStore {
    backend: Rc<dyn Backend>,
    causes: Causes,
}

impl KeyStore {
    /// Keys in files of the state directory.
    #[must_use]
    pub fn files(disk: Rc<dyn Disk>, entropy: Entropy, causes: Causes) -> Self {
        Self { backend: Rc::new(file::FileKeys::new(disk, entropy)), causes }
    }

    /// The signer of a slot's key.
    ///
    /// # Errors
    ///
    /// [`KeyFailure`], of which [`KeyFailure::is_loss`] says whether the key is gone for good.
    pub fn signer(&self, slot: Slot) -> Result<Arc<dyn Signer>, KeyFailure> {
        self.backend.signer(slot)
    }

    fn told(&self, failure: &KeyFailure) -> Failure {
        self.causes.note(failure);
        failure.into()
    }
}

impl Keys for KeyStore {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        let spki = self.backend.ensure(slot, source).map_err(|failure| self.told(&failure))?;
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, &spki).as_ref());
        Ok(name)
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        self.backend.erase(slot).map_err(|failure| self.told(&failure))
    }
}

impl KeyFailure {
    /// Whether the key is gone for good, and not merely out of reach.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Corrupt { .. } => true,
            Self::Disk(_)
            | Self::Exposed { .. }
            | Self::ForeignOwner { .. }
            | Self::NoEntropy
            | Self::Refused => false,
        }
    }
}

impl From<&KeyFailure> for Failure {
    fn from(failure: &KeyFailure) -> Self {
        if failure.is_loss() { Self::KeyLost } else { Self::KeyUnavailable }
    }
}

impl From<NoEntropy> for KeyFailure {
    fn from(NoEntropy: NoEntropy) -> Self {
        Self::NoEntropy
    }
}

impl fmt::Display for KeyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { slot } => write!(f, "no key in slot {}", slot.as_str()),
            Self::Corrupt { slot, path } => {
                write!(f, "key of slot {} is damaged: {}", slot.as_str(), path.display())
            }
            Self::Disk(failure) => failure.fmt(f),
            Self::Exposed { path, mode } => {
                write!(f, "{} has mode {mode:04o}, expected 0600", path.display())
            }
            Self::ForeignOwner { path, found, expected } => {
                write!(f, "{} belongs to uid {found}, expected {expected}", path.display())
            }
            Self::NoEntropy => NoEntropy.fmt(f),
            Self::Refused => f.write_str("the cryptographic library refused the key"),
        }
    }
}

impl std::error::Error for KeyFailure {}
