//! Keys in a TPM: made there, used there, never seen outside.
//!
//! **What it is.** Each slot's key is a blob in a file, wrapped by the TPM under a storage primary
//! that it makes again from its seed whenever it is needed: no persistent handle is taken, so none
//! can be in anybody's way. The [`anchor`] says which TPM the blobs belong to.
//!
//! **What it must never do.** Touch a blob because its TPM is out of reach, or is another one. Make
//! a key outside of the TPM instead.
//!
//! **Why that is sound.** A new key is made where there is none, where its blob does not load in
//! the TPM that the anchor names, and where that TPM was cleared, which its endorsement key proves.
//! In all other states the answer is the name of the state, and the files stay as they are.

mod anchor;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleetcert_core::est::csr::{P256Signature, p256_spki};
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::vault::{KEY_BLOB_LEN_MAX, KeyBlob};
use ring::digest::{SHA256, digest};

use super::{KeyFailure, Signer, read_owned};
use crate::disk::{self, Disk, DiskFailure};
use crate::status::hex;
use crate::tpm::chip::{Challenge, Chip, Credentials, Statement, Witness};
use crate::tpm::{Standing, Tpm, TpmTrouble, Way};

use anchor::{Anchor, Found};

pub(super) use anchor::ANCHOR_FILES;

/// The files of slots A and B.
pub(super) const BLOB_FILES: [&str; 2] = ["key.a.tpm", "key.b.tpm"];

const fn file(slot: Slot) -> &'static str {
    BLOB_FILES[slot.index()]
}

/// The key store in the TPM of a state directory.
#[derive(Debug)]
pub(super) struct TpmKeys {
    disk: Rc<dyn Disk>,
    tpm: Tpm,
    anchor: RefCell<Option<Anchor>>,
}

/// With what a device introduces its TPM to a provisioner.
#[derive(Clone, Debug)]
pub struct Introduction {
    ek: Credentials,
    ak: KeyBlob,
}

/// What a provisioner is told of a key, beside its certificate request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// `TPMT_PUBLIC` of the key.
    pub public: Vec<u8>,
}

/// A key in the TPM.
struct TpmSigner {
    way: Way,
    slot: Slot,
    path: PathBuf,
    is_anchored: bool,
    blob: KeyBlob,
    spki: Vec<u8>,
}

impl TpmKeys {
    /// Reads the anchor; the TPM is not asked for anything yet.
    pub(super) fn new(disk: Rc<dyn Disk>, tpm: Tpm) -> Result<Self, DiskFailure> {
        let anchor = match Anchor::read(&*disk)? {
            Found::Anchor(anchor) => Some(*anchor),
            Found::Damaged => {
                let [a, b] = ANCHOR_FILES.map(|name| disk.path(name));
                log::warn!("{} and {} are damaged", a.display(), b.display());
                None
            }
            Found::Nothing => None,
        };
        tpm.expect(anchor.as_ref().map(Anchor::expected));
        Ok(Self { disk, tpm, anchor: RefCell::new(anchor) })
    }

    pub(super) fn signer(&self, slot: Slot) -> Result<Arc<dyn Signer>, KeyFailure> {
        let blob = self.read(slot)?;
        let spki = spki(&blob).ok_or_else(|| self.corrupt(slot))?;
        let way = self.tpm.way().map_err(KeyFailure::Tpm)?;
        let is_anchored = self.anchor.borrow().is_some();
        let path = self.disk.path(file(slot));
        Ok(Arc::new(TpmSigner { way, slot, path, is_anchored, blob, spki }))
    }

    /// Whether the slot's key can be used now.
    pub(super) async fn probe(&self, slot: Slot) -> Result<(), KeyFailure> {
        let blob = self.read(slot)?;
        self.ask(slot, move |chip| chip.probe(&blob)).await
    }

    pub(super) async fn ensure(
        &self,
        slot: Slot,
        source: KeySource,
    ) -> Result<Vec<u8>, KeyFailure> {
        self.anchored().await?;
        let kept = match self.probe(slot).await {
            Ok(()) => true,
            Err(KeyFailure::Absent { .. }) => false,
            Err(failure) if failure.is_loss() => {
                log::warn!("{failure}: it gets a new one");
                false
            }
            Err(failure) => return Err(failure),
        };
        if kept {
            // Perhaps a process that was killed has left it in the page cache only.
            disk::settle(&*self.disk, file(slot)).map_err(KeyFailure::Disk)?;
        } else {
            self.put(slot, source).await?;
        }
        spki(&self.read(slot)?).ok_or_else(|| self.corrupt(slot))
    }

    async fn put(&self, slot: Slot, source: KeySource) -> Result<(), KeyFailure> {
        let blob = match source {
            KeySource::Fresh => self.ask(slot, |chip| chip.make(Template::DeviceKey)).await?,
            KeySource::Other => {
                self.probe(slot.other()).await?;
                self.read(slot.other())?
            }
        };
        disk::replace(&*self.disk, file(slot), blob.as_bytes()).map_err(KeyFailure::Disk)
    }

    pub(super) fn erase(&self, slot: Slot) -> Result<(), KeyFailure> {
        disk::erase(&*self.disk, file(slot)).map_err(KeyFailure::Disk)
    }

    /// Whether there is a TPM to be used; an absent one is no failure.
    pub(super) async fn is_there(&self) -> Result<bool, KeyFailure> {
        match self.tpm.ask(|chip| chip.parent().map(drop)).await {
            Ok(()) => Ok(true),
            Err(TpmTrouble::Absent { .. }) => Ok(false),
            Err(trouble) => Err(KeyFailure::Tpm(trouble)),
        }
    }

    /// What a provisioner is to know of the TPM, before it asks for evidence.
    pub(super) async fn introduction(&self) -> Result<Introduction, KeyFailure> {
        let ak = self.anchor.borrow().as_ref().map(|anchor| anchor.ak.clone());
        let ak = ak.ok_or(KeyFailure::Tpm(TpmTrouble::ForeignKey))?;
        let ek = self.tpm.ask(|chip| chip.endorsement()).await.map_err(KeyFailure::Tpm)?;
        Ok(Introduction { ek, ak })
    }

    /// Solves a challenge, and states that the slot's key is in this TPM.
    pub(super) async fn vouch(
        &self,
        slot: Slot,
        introduction: Introduction,
        challenge: Challenge,
    ) -> Result<Evidence, KeyFailure> {
        let Introduction { ek, ak } = introduction;
        let blob = self.read(slot)?;
        let spki = spki(&blob).ok_or_else(|| self.corrupt(slot))?;
        let public = blob.public_area().to_vec();
        let witness = Witness { ek: ek.id, ak, challenge, spki };
        let Statement { attest, signature } =
            self.ask(slot, move |chip| chip.vouch(&blob, &witness)).await?;
        Ok(Evidence { attest, signature, public })
    }

    /// Notes whether the certificate for the slot's key was issued on evidence. A key that is in
    /// both slots keeps what was noted of it.
    pub(super) fn note(
        &self,
        slot: Slot,
        spki: &[u8],
        is_attested: bool,
    ) -> Result<(), KeyFailure> {
        let Some(anchor) = self.anchor.borrow().clone() else { return Ok(()) };
        let name = sha256(spki);
        let is_attested = is_attested || anchor.is_attested(&name);
        let noted = anchor.clone().with(slot, is_attested.then_some(name));
        if noted != anchor {
            noted.write(&*self.disk).map_err(KeyFailure::Disk)?;
            self.anchor.replace(Some(noted));
        }
        Ok(())
    }

    pub(super) fn is_attested(&self, spki_sha256: &[u8; 32]) -> bool {
        self.anchor.borrow().as_ref().is_some_and(|anchor| anchor.is_attested(spki_sha256))
    }

    /// The endorsement key's name and the attestation key's, both hexadecimal.
    pub(super) fn names(&self) -> Option<(String, String)> {
        let anchor = self.anchor.borrow();
        let anchor = anchor.as_ref()?;
        Some((anchor.ek.to_string(), hex(anchor.ak.name().as_bytes())))
    }

    pub(super) fn standing(&self) -> Standing {
        self.tpm.standing()
    }

    pub(super) async fn look(&self, limit: Duration) {
        self.tpm.look(limit).await;
    }

    pub(super) async fn close(&self) {
        self.tpm.close().await;
    }

    fn read(&self, slot: Slot) -> Result<KeyBlob, KeyFailure> {
        let content = read_owned(&*self.disk, file(slot), KEY_BLOB_LEN_MAX, slot)?;
        KeyBlob::parse(&content).map_err(|_| self.corrupt(slot))
    }

    fn corrupt(&self, slot: Slot) -> KeyFailure {
        KeyFailure::Corrupt { slot, path: self.disk.path(file(slot)) }
    }

    /// Asks the TPM for something with the slot's key.
    async fn ask<T: Send + 'static>(
        &self,
        slot: Slot,
        work: impl FnMut(&mut dyn Chip) -> Result<T, TpmTrouble> + Send + 'static,
    ) -> Result<T, KeyFailure> {
        let outcome = self.tpm.ask(work).await;
        let is_anchored = self.anchor.borrow().is_some();
        outcome.map_err(|trouble| match trouble {
            // The TPM is the one that is anchored, so it is the blob that is not what it was.
            TpmTrouble::ForeignKey if is_anchored => self.corrupt(slot),
            trouble => KeyFailure::Tpm(trouble),
        })
    }

    /// Makes sure that the TPM is the one that is anchored, and anchors one where there is none.
    async fn anchored(&self) -> Result<(), KeyFailure> {
        if self.anchor.borrow().is_none() {
            self.recognise().await?;
            return self.drop_anchor().await;
        }
        match self.tpm.ask(|chip| chip.parent().map(drop)).await {
            Ok(()) => Ok(()),
            Err(cleared @ TpmTrouble::Cleared { .. }) => {
                log::warn!("{cleared}: this device gets new keys");
                self.drop_anchor().await
            }
            Err(trouble) => Err(KeyFailure::Tpm(trouble)),
        }
    }

    /// Without an anchor, keys that are there must be of this TPM before it is anchored.
    async fn recognise(&self) -> Result<(), KeyFailure> {
        for slot in Slot::ALL {
            match self.probe(slot).await {
                Ok(()) | Err(KeyFailure::Absent { .. } | KeyFailure::Corrupt { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Ties the state directory to the TPM that is there.
    async fn drop_anchor(&self) -> Result<(), KeyFailure> {
        self.tpm.expect(None);
        let made = self.tpm.ask(|chip| {
            let parent = chip.parent()?;
            let ek = chip.endorsement()?.id;
            Ok((parent, ek, chip.make(Template::AttestationKey)?))
        });
        let made = made.await.map_err(KeyFailure::Tpm);
        let anchor = made.and_then(|(parent, ek, ak)| {
            let anchor = Anchor::new(parent, ek, ak);
            anchor.write(&*self.disk).map_err(KeyFailure::Disk)?;
            Ok(anchor)
        });
        if let Ok(anchor) = &anchor {
            self.anchor.replace(Some(anchor.clone()));
        }
        // Also when it was not anchored: then it is still the old one that is expected.
        self.tpm.expect(self.anchor.borrow().as_ref().map(Anchor::expected));
        anchor.map(drop)
    }
}

/// The key's SubjectPublicKeyInfo, if it has one.
fn spki(blob: &KeyBlob) -> Option<Vec<u8>> {
    p256_spki(&blob.point()).ok().map(Vec::from)
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut name = [0; 32];
    name.copy_from_slice(digest(&SHA256, octets).as_ref());
    name
}

impl Introduction {
    /// The endorsement key's public area.
    #[must_use]
    pub fn ek_public(&self) -> &[u8] {
        &self.ek.public
    }

    /// The endorsement key's certificates, DER, its own first.
    #[must_use]
    pub fn ek_certificates(&self) -> &[u8] {
        &self.ek.certificates
    }

    /// The attestation key's public area.
    #[must_use]
    pub fn ak_public(&self) -> &[u8] {
        self.ak.public_area()
    }
}

impl Signer for TpmSigner {
    fn spki(&self) -> &[u8] {
        &self.spki
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        let (blob, digest) = (self.blob.clone(), sha256(message));
        let raw = self.way.ask_and_wait(move |chip| chip.sign(&blob, &digest));
        let raw = raw.map_err(|trouble| match trouble {
            TpmTrouble::ForeignKey if self.is_anchored => {
                KeyFailure::Corrupt { slot: self.slot, path: self.path.clone() }
            }
            trouble => KeyFailure::Tpm(trouble),
        })?;
        let signature = P256Signature::from_raw(&raw).map_err(|_| KeyFailure::Refused)?;
        Ok(signature.as_der().to_vec())
    }

    fn is_slow(&self) -> bool {
        true
    }
}

impl fmt::Debug for TpmSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmSigner").field("slot", &self.slot).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
