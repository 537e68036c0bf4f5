//! The key store: two slots, private keys that never leave it.
//!
//! **What it is.** [`KeyStore`] is the port through which the machine makes and erases keys, and
//! the place where TLS and enrollment get a [`Signer`]. Keys are in files or in a TPM; outside of
//! this room that matters to nobody but to who is told about it.
//!
//! **What it must never do.** Hand a private key out, print one, or call a key lost that is merely
//! out of reach: the machine gives an identity up when its key is lost. Replace an identity that
//! lives in a TPM by one in files, or the other way round, without a person having said so.
//!
//! **Why that is sound.** Where the keys of a state directory live is told by the files in it,
//! before anything else is asked: once the first key was made, nothing decides anew (`home`). A
//! configuration that says otherwise is refused before the agent runs.

mod file;
mod home;
mod tpm;

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleetcert_core::event::Failure;
use fleetcert_core::port::Keys;
use fleetcert_core::record::{KeySource, Record, Slot};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use crate::cause::Causes;
use crate::config::{self, KeyBackend};
use crate::disk::{self, Act, Disk, DiskFailure};
use crate::entropy::{Entropy, NoEntropy};
use crate::status::KeyStatus;
use crate::tpm::chip::Challenge;
use crate::tpm::{Tpm, TpmTrouble};

use self::file::FileKeys;
use self::tpm::TpmKeys;

pub use self::home::HomeError;
pub use self::tpm::{Evidence, Introduction};

/// Every file that may hold a key, of whatever kind.
pub(crate) const KEY_FILES: [&str; 4] =
    [file::KEY_FILES[0], file::KEY_FILES[1], tpm::BLOB_FILES[0], tpm::BLOB_FILES[1]];

/// What group and others may do with a key: nothing. Also with one that is wrapped: whoever reads
/// it and may open the TPM can use it.
const FOREIGN_BITS: u32 = 0o077;

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
    /// The TPM is in the way.
    Tpm(TpmTrouble),
}

/// The key store of this device; clones share it.
#[derive(Clone, Debug)]
pub struct KeyStore {
    inner: Rc<Inner>,
    causes: Causes,
}

#[derive(Debug)]
struct Inner {
    /// [`KeyBackend::Auto`] until the first key is made.
    backend: Cell<KeyBackend>,
    files: FileKeys,
    tpm: Option<TpmKeys>,
}

impl KeyStore {
    /// Keys in files of the state directory, whatever else may be in it.
    #[must_use]
    pub fn files(disk: Rc<dyn Disk>, entropy: Entropy, causes: Causes) -> Self {
        let files = FileKeys::new(disk, entropy);
        Self::over(KeyBackend::Software, files, None, causes)
    }

    /// Keys in files of a directory that is gone with the process.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let disk = Rc::new(disk::cut::CutDisk::default());
        Self::files(disk, Entropy::system(), Causes::default())
    }

    /// The keys of a state directory, where they are, or where the configuration wants the first
    /// one to be made. The TPM is not asked for anything yet.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if the directory cannot be read, or the keys live elsewhere than they are
    /// configured to.
    pub fn open(
        disk: Rc<dyn Disk>,
        key: &config::Key,
        record: &Record,
        entropy: Entropy,
        causes: Causes,
    ) -> Result<Self, HomeError> {
        let is_certified = Slot::ALL.into_iter().any(|slot| record.identity(slot).is_some());
        let backend = home::of(&*disk, is_certified, key.backend)?;
        let tpm = match backend {
            KeyBackend::Software => None,
            KeyBackend::Auto | KeyBackend::Tpm => {
                let tpm = Tpm::new(key, entropy.clone());
                Some(TpmKeys::new(Rc::clone(&disk), tpm).map_err(HomeError::Disk)?)
            }
        };
        Ok(Self::over(backend, FileKeys::new(disk, entropy), tpm, causes))
    }

    fn over(backend: KeyBackend, files: FileKeys, tpm: Option<TpmKeys>, causes: Causes) -> Self {
        Self { inner: Rc::new(Inner { backend: Cell::new(backend), files, tpm }), causes }
    }

    /// Where the keys are; [`KeyBackend::Auto`] where that is not decided yet.
    #[must_use]
    pub fn backend(&self) -> KeyBackend {
        self.inner.backend.get()
    }

    /// The TPM's part, if the keys are there.
    fn tpm(&self) -> Option<&TpmKeys> {
        self.inner.tpm.as_ref().filter(|_| self.backend() == KeyBackend::Tpm)
    }

    /// The signer of a slot's key. Whether a TPM still has the key only using it tells.
    ///
    /// # Errors
    ///
    /// [`KeyFailure`], of which [`KeyFailure::is_loss`] says whether the key is gone for good.
    pub fn signer(&self, slot: Slot) -> Result<Arc<dyn Signer>, KeyFailure> {
        match self.tpm() {
            Some(tpm) => tpm.signer(slot),
            None => self.inner.files.signer(slot),
        }
    }

    /// Whether a slot's key can be used now.
    ///
    /// # Errors
    ///
    /// [`KeyFailure`], as [`KeyStore::signer`].
    pub async fn probe(&self, slot: Slot) -> Result<(), KeyFailure> {
        match self.tpm() {
            Some(tpm) => tpm.probe(slot).await,
            None => self.inner.files.signer(slot).map(drop),
        }
    }

    /// With what to introduce the TPM to a provisioner; `None` if the keys are not in one.
    ///
    /// # Errors
    ///
    /// [`KeyFailure`].
    pub async fn introduction(&self) -> Result<Option<Introduction>, KeyFailure> {
        match self.tpm() {
            Some(tpm) => tpm.introduction().await.map(Some),
            None => Ok(None),
        }
    }

    /// Solves a challenge that was made for an introduction, and states that the slot's key is in
    /// the TPM that was introduced.
    ///
    /// # Errors
    ///
    /// [`KeyFailure`].
    pub(crate) async fn vouch(
        &self,
        slot: Slot,
        introduction: Introduction,
        challenge: Challenge,
    ) -> Result<Evidence, KeyFailure> {
        match self.tpm() {
            Some(tpm) => tpm.vouch(slot, introduction, challenge).await,
            None => Err(KeyFailure::Absent { slot }),
        }
    }

    /// Notes whether a certificate was issued for the slot's key, with this
    /// SubjectPublicKeyInfo, on such a statement: for the status.
    pub(crate) fn note(&self, slot: Slot, spki: &[u8], is_attested: bool) {
        let Some(tpm) = self.tpm() else { return };
        if let Err(failure) = tpm.note(slot, spki, is_attested) {
            log::warn!("whether the key is attested was not noted: {failure}");
        }
    }

    /// Asks the TPM, if there is one, how it stands, and waits for no longer than `limit`.
    pub async fn look(&self, limit: Duration) {
        if let Some(tpm) = self.tpm() {
            tpm.look(limit).await;
        }
    }

    /// Where the keys are and how that stands, as far as it was seen; `active` is the SHA-256 of
    /// the SubjectPublicKeyInfo of the identity in use.
    #[must_use]
    pub fn status(&self, active: Option<&[u8; 32]>) -> KeyStatus {
        let backend = self.backend();
        let Some(tpm) = &self.inner.tpm else { return KeyStatus::software() };
        if backend == KeyBackend::Software {
            return KeyStatus::software();
        }
        let is_attested = active.is_some_and(|active| tpm.is_attested(active));
        KeyStatus::in_tpm(backend, is_attested, tpm.names(), &tpm.standing())
    }

    /// What is in the way of the TPM that the keys are in, or are to be in.
    #[must_use]
    pub fn trouble(&self) -> Option<TpmTrouble> {
        let tpm = self.inner.tpm.as_ref()?;
        if self.backend() == KeyBackend::Software { None } else { tpm.standing().trouble }
    }

    /// Ends the use of the TPM in order.
    pub async fn close(&self) {
        if let Some(tpm) = &self.inner.tpm {
            tpm.close().await;
        }
    }

    /// A TPM where there is one; otherwise files. Once, before the first key is made.
    async fn decide(&self) -> Result<(), KeyFailure> {
        let (KeyBackend::Auto, Some(tpm)) = (self.backend(), &self.inner.tpm) else {
            return Ok(());
        };
        if tpm.is_there().await? {
            log::info!("the keys of this device are made in its TPM, from now on");
            self.inner.backend.set(KeyBackend::Tpm);
        } else {
            log::info!("there is no TPM: the keys of this device are made in files, from now on");
            tpm.close().await;
            self.inner.backend.set(KeyBackend::Software);
        }
        Ok(())
    }

    async fn make(&self, slot: Slot, source: KeySource) -> Result<[u8; 32], KeyFailure> {
        self.decide().await?;
        let spki = match self.tpm() {
            Some(tpm) => tpm.ensure(slot, source).await?,
            None => self.inner.files.ensure(slot, source)?,
        };
        let mut name = [0; 32];
        name.copy_from_slice(digest(&SHA256, &spki).as_ref());
        Ok(name)
    }

    fn scrap(&self, slot: Slot) -> Result<(), KeyFailure> {
        if self.backend() != KeyBackend::Tpm {
            self.inner.files.erase(slot)?;
        }
        match &self.inner.tpm {
            Some(tpm) if self.backend() != KeyBackend::Software => tpm.erase(slot),
            _ => Ok(()),
        }
    }

    fn told(&self, failure: &KeyFailure) -> Failure {
        self.causes.note(failure);
        failure.into()
    }
}

impl Keys for KeyStore {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        self.make(slot, source).await.map_err(|failure| self.told(&failure))
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        self.scrap(slot).map_err(|failure| self.told(&failure))
    }
}

/// Erases every key of a state directory, of whatever kind, for a device that starts over.
///
/// # Errors
///
/// [`DiskFailure`] names the operation that failed.
pub fn erase_keys(disk: &dyn Disk) -> Result<(), DiskFailure> {
    KEY_FILES.into_iter().try_for_each(|name| disk::erase(disk, name))
}

/// Forgets which TPM the keys of a state directory were in, if they were in one: after its keys
/// and its record are erased.
///
/// # Errors
///
/// [`DiskFailure`] names the operation that failed.
pub fn erase_anchor(disk: &dyn Disk) -> Result<(), DiskFailure> {
    tpm::ANCHOR_FILES.into_iter().try_for_each(|name| disk::erase(disk, name))
}

/// Reads a slot's file, which must be ours alone.
fn read_owned(
    disk: &dyn Disk,
    name: &str,
    len_max: usize,
    slot: Slot,
) -> Result<Zeroizing<Vec<u8>>, KeyFailure> {
    let content = disk
        .read(name, len_max + 1)
        .map_err(|error| KeyFailure::Disk(DiskFailure::of(disk, Act::Read, name)(error)))?
        .ok_or(KeyFailure::Absent { slot })?;
    let path = disk.path(name);
    if content.owner != disk.user() {
        let (found, expected) = (content.owner, disk.user());
        return Err(KeyFailure::ForeignOwner { path, found, expected });
    }
    if content.mode & FOREIGN_BITS != 0 {
        return Err(KeyFailure::Exposed { path, mode: content.mode });
    }
    Ok(content.octets)
}

impl KeyFailure {
    /// Whether the key is gone for good, and not merely out of reach.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Absent { .. } | Self::Corrupt { .. } => true,
            Self::Tpm(trouble) => trouble.is_loss(),
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
            Self::Tpm(trouble) => trouble.fmt(f),
        }
    }
}

impl std::error::Error for KeyFailure {}
