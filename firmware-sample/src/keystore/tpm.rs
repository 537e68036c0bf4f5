//! Keys in a TPM: made there, used there, never seen outside.
//!
//! **What it is.** Each slot's key is a blob in a sector of flash, wrapped by the TPM under a
//! storage primary that it makes again from its seed whenever it is needed. Two more sectors hold
//! the anchor, which says which TPM the blobs belong to. It is the agent's key store, with the
//! same decisions, in less memory: nothing is kept but the TPM's buffer and one saved context.
//!
//! **What it must never do.** Touch a blob because its TPM is out of reach, or is another one. Make
//! a key outside of the TPM instead. Keep trouble to itself: what is in the way goes to the serial
//! line, with what to do about it.
//!
//! **Why that is sound.** A new key is made where there is none, where its blob does not load in
//! the TPM that the anchor names, and where that TPM was cleared, which its endorsement key proves.
//! In all other states the answer is [`Failure::KeyUnavailable`], and the flash stays as it is. A
//! digest stands over every content, so that a write that was cut off counts as none; the anchor
//! has two copies, of which one is whole at any time once there was one.

mod anchor;
mod content;
mod trouble;

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::est::csr::p256_spki;
use fleetcert_core::est::evidence::Evidence;
use fleetcert_core::event::Failure;
use fleetcert_core::port::Keys;
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_core::wire::Challenge;
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::fault::Trouble;
use fleetcert_tpm::name::{Name, NameHead};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::transact::Transact;
use fleetcert_tpm::vault::{
    CERTIFIED_LEN_MAX, EkKey, KEY_BLOB_LEN_MAX, KeyBlob, Options, Statement, Vault, VaultError,
};
use sha2::{Digest as _, Sha256};

use self::anchor::{ANCHOR_LEN_MAX, Anchor};
use self::content::{Found, content_len};
use self::trouble::Told;
use super::sectors::Sectors;
use super::{INTRODUCTION_LEN_MAX, Introduction, KeyStore, LayoutError, SIGNATURE_LEN, SPKI_LEN};
use crate::console::{error, info, warn};

/// Saved contexts of 1 KiB: the parent's. A second one would save two of a signature's five
/// commands, and cost a kilobyte of memory for good.
const CONTEXTS: usize = 1;

/// Sectors of the region: a slot each, and the anchor twice.
const SECTORS: usize = 4;

/// The sectors of the anchor's copies, in the order in which they are written and preferred.
const ANCHORS: [usize; 2] = [2, 3];

/// What a slot's content begins with: "FCTK" and the version.
const HEAD: [u8; 5] = *b"FCTK\x01";

/// Octets of a sector's front that a slot's content takes, at most.
const SLOT_LEN_MAX: usize = content_len(KEY_BLOB_LEN_MAX);

/// Two slots of keys in a TPM, their blobs in four sectors of flash.
pub struct TpmKeys<F, T> {
    sectors: Sectors<F, SECTORS>,
    vault: Vault<T, CONTEXTS>,
    is_open: bool,
    is_anchored: bool,
    /// The endorsement key that was introduced last: the one that challenges are for.
    introduced: Option<EkKey>,
}

impl<F: NorFlash<Error: fmt::Display>, T: Transact<Error: fmt::Display>> TpmKeys<F, T> {
    /// Keys in the TPM behind `transport`, which is ours alone, and their blobs in the four sectors
    /// of `flash` from `base` on. Neither is asked for anything yet.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when they do not fit there.
    pub fn new(flash: F, base: u32, transport: T) -> Result<Self, LayoutError> {
        let options = Options { parent: None, sharing: Sharing::Exclusive };
        Ok(Self {
            sectors: Sectors::new(flash, base, ANCHOR_LEN_MAX)?,
            vault: Vault::new(transport, options),
            is_open: false,
            is_anchored: false,
            introduced: None,
        })
    }

    /// Reads the anchor and starts the TPM, which is not used without its storage key having been
    /// compared with the anchored one from then on.
    fn open(&mut self) -> Result<(), Failure> {
        if self.is_open {
            return Ok(());
        }
        let parent = self.anchored_parent();
        self.is_anchored = parent.is_some();
        self.vault.expect(parent);
        let started = self.start();
        started.map_err(|error| self.told(&error))?;
        self.is_open = true;
        Ok(())
    }

    /// Starts the TPM, and says what it is.
    #[inline(never)]
    fn start(&mut self) -> Result<(), VaultError<T::Error>> {
        self.vault.start()?;
        let found = self.vault.properties()?;
        let lockout = found.lockout;
        info(format_args!(
            "TPM: {} {}, lockout {} of {}",
            found.manufacturer(),
            found.firmware,
            lockout.counter,
            lockout.max
        ));
        Ok(())
    }

    /// The storage key that is anchored; both copies of the anchor are made whole.
    #[inline(never)]
    fn anchored_parent(&mut self) -> Option<Name> {
        let mut content = [0; ANCHOR_LEN_MAX];
        let parent = match self.anchor(&mut content) {
            Found::Body(anchor) => anchor.parent,
            Found::Damaged => {
                warn(format_args!("keys: anchor damaged"));
                return None;
            }
            Found::Nothing => return None,
        };
        if let Some(content) = Anchor::whole(&content) {
            // With one copy it is as good an anchor, until something happens to that.
            let _mended = self.keep(content);
        }
        Some(parent)
    }

    /// Reads the first whole copy of the anchor.
    #[inline(never)]
    fn anchor<'c>(&mut self, content: &'c mut [u8; ANCHOR_LEN_MAX]) -> Found<Anchor<'c>> {
        let mut is_damaged = false;
        for index in ANCHORS {
            // A chip that checks what it reads does not read what was cut off.
            let read = self.sectors.read(index, content);
            match read.map_or(Found::Damaged, |()| Anchor::find(content)) {
                Found::Body(_) => return Anchor::find(content),
                Found::Damaged => is_damaged = true,
                Found::Nothing => {}
            }
        }
        if is_damaged { Found::Damaged } else { Found::Nothing }
    }

    /// The anchor, which is there once a key was made.
    fn known_anchor<'c>(
        &mut self,
        content: &'c mut [u8; ANCHOR_LEN_MAX],
    ) -> Result<Anchor<'c>, Failure> {
        match self.anchor(content) {
            Found::Body(anchor) => Ok(anchor),
            Found::Damaged | Found::Nothing => {
                error(format_args!("keys: TPM not anchored yet"));
                Err(Failure::KeyUnavailable)
            }
        }
    }

    /// Makes both copies of the anchor this one, the first before the second.
    fn keep(&mut self, content: &[u8]) -> Result<(), Failure> {
        for index in ANCHORS {
            if self.sectors.holds(index, content) != Ok(true) {
                self.sectors.replace(index, content)?;
            }
        }
        Ok(())
    }

    /// Makes sure that the TPM is the one that is anchored, and anchors one where there is none.
    fn anchored(&mut self) -> Result<(), Failure> {
        // One that could not be read a while ago is not given up before another look.
        self.is_open &= self.is_anchored;
        self.open()?;
        if !self.is_anchored {
            self.recognise()?;
            return self.drop_anchor();
        }
        match self.parent() {
            // It was cleared: nothing else is a loss where no key is asked for.
            Err(Failure::KeyLost) => self.drop_anchor(),
            outcome => outcome.map(drop),
        }
    }

    fn parent(&mut self) -> Result<Name, Failure> {
        let parent = self.vault.parent();
        parent.map_err(|error| self.told(&error))
    }

    /// Without an anchor, keys that are there must be of this TPM before it is anchored.
    fn recognise(&mut self) -> Result<(), Failure> {
        for slot in Slot::ALL {
            match self.probe(slot) {
                Ok(()) | Err(Failure::KeyLost) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Ties the region to the TPM that is there.
    fn drop_anchor(&mut self) -> Result<(), Failure> {
        // Until that is done it is still the old one that is expected.
        self.is_open = false;
        self.vault.expect(None);
        let parent = self.parent()?;
        let ek = self.endorsement();
        let ek = ek.map_err(|error| self.told(&error))?;
        self.anchor_to(parent, ek)?;
        (self.is_open, self.is_anchored) = (true, true);
        info(format_args!("keys: anchored to this TPM"));
        Ok(())
    }

    #[inline(never)]
    fn anchor_to(&mut self, parent: Name, ek: EkKey) -> Result<(), Failure> {
        let mut content = [0; ANCHOR_LEN_MAX];
        let content = match &self.vault.make(Template::AttestationKey) {
            Ok(ak) => Anchor { parent, ek, ak: ak.as_bytes() }.write(&mut content),
            Err(error) => return Err(self.told(error)),
        };
        self.keep(content.ok_or(Failure::KeyUnavailable)?)
    }

    /// The endorsement key of the TPM. What else is told about it is not kept.
    #[inline(never)]
    fn endorsement(&mut self) -> Result<EkKey, VaultError<T::Error>> {
        let mut room = [0; INTRODUCTION_LEN_MAX];
        Ok(self.vault.endorsement(&mut room)?.key)
    }

    /// The blob in the slot.
    #[inline(never)]
    fn blob(&mut self, slot: Slot) -> Result<KeyBlob, Failure> {
        let mut content = [0; SLOT_LEN_MAX];
        self.sectors.read(slot.index(), &mut content)?;
        let octets = match content::find(HEAD, &content) {
            Found::Body(octets) => octets,
            Found::Damaged => &[],
            Found::Nothing => return Err(Failure::KeyLost),
        };
        match KeyBlob::parse(octets) {
            Ok(blob) if blob.is(Template::DeviceKey) => Ok(blob),
            _ => {
                warn(format_args!("keys: slot {} damaged", slot.as_str()));
                Err(Failure::KeyLost)
            }
        }
    }

    /// Whether there is a blob in the slot. One that cannot be read was cut off when it was written,
    /// before anybody was told of it.
    #[inline(never)]
    fn is_whole(&mut self, slot: Slot) -> bool {
        self.blob(slot).is_ok()
    }

    /// Has the TPM work with the slot's key.
    // The blob is not kept on the stack while the TPM is started, or looked at for what is wrong.
    fn with_key<R>(
        &mut self,
        slot: Slot,
        work: impl FnOnce(&mut Self, &KeyBlob) -> Result<R, VaultError<T::Error>>,
    ) -> Result<R, Failure> {
        self.open()?;
        let outcome = self.work(slot, work)?;
        outcome.map_err(|error| self.told(&error))
    }

    #[inline(never)]
    fn work<R>(
        &mut self,
        slot: Slot,
        work: impl FnOnce(&mut Self, &KeyBlob) -> Result<R, VaultError<T::Error>>,
    ) -> Result<Result<R, VaultError<T::Error>>, Failure> {
        match &self.blob(slot) {
            Ok(blob) => Ok(work(self, blob)),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Puts a key into the slot.
    fn put(&mut self, slot: Slot, source: KeySource) -> Result<(), Failure> {
        match source {
            KeySource::Fresh => self.make(slot),
            KeySource::Other => {
                self.probe(slot.other())?;
                self.copy(slot)
            }
        }
    }

    #[inline(never)]
    fn make(&mut self, slot: Slot) -> Result<(), Failure> {
        match &self.vault.make(Template::DeviceKey) {
            Ok(blob) => self.write(slot, blob),
            Err(error) => Err(self.told(error)),
        }
    }

    #[inline(never)]
    fn copy(&mut self, slot: Slot) -> Result<(), Failure> {
        match &self.blob(slot.other()) {
            Ok(blob) => self.write(slot, blob),
            Err(failure) => Err(failure.clone()),
        }
    }

    #[inline(never)]
    fn write(&mut self, slot: Slot, blob: &KeyBlob) -> Result<(), Failure> {
        let mut content = [0; SLOT_LEN_MAX];
        let content = content::write(HEAD, &[blob.as_bytes()], &mut content);
        self.sectors.replace(slot.index(), content.ok_or(Failure::KeyUnavailable)?)
    }

    fn ensured(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        self.anchored()?;
        let probed = if self.is_whole(slot) { self.probe(slot) } else { Err(Failure::KeyLost) };
        match probed {
            Err(Failure::KeyLost) => self.put(slot, source)?,
            outcome => outcome?,
        }
        Ok(Sha256::digest(self.spki(slot)?).into())
    }

    /// Solves the challenge, and has the attestation key state that the key is in this TPM; `None`
    /// where there is no room for that.
    #[inline(never)]
    fn evidence(
        &mut self,
        blob: &KeyBlob,
        (ek, ak): (&EkKey, &KeyBlob),
        challenge: &Challenge<'_>,
        out: &mut [u8],
    ) -> Result<Option<usize>, VaultError<T::Error>> {
        let Challenge { id, nonce, credential, encrypted_secret, .. } = challenge;
        let secret = self.vault.activate(ek, ak, credential, encrypted_secret)?;
        let Ok(spki) = spki_of(blob) else { return Ok(None) };
        let qualifying = qualifying_data(secret.as_bytes(), id, nonce, &spki);
        let mut room = [0; CERTIFIED_LEN_MAX];
        let Statement { attest, signature } =
            self.vault.certify(blob, ak, &qualifying, &mut room)?;
        let evidence = Evidence { attest, signature, public: blob.public_area() };
        Ok(evidence.attribute(out).map(<[u8]>::len).ok())
    }

    /// Says what is in the way, and whether a key is lost by it.
    fn told(&mut self, error: &VaultError<T::Error>) -> Failure {
        match error.trouble() {
            // The TPM is the one that is anchored, so it is the blob that is not what it was.
            Trouble::ForeignKey if self.is_anchored => {
                warn(format_args!("keys: blob changed"));
                Failure::KeyLost
            }
            Trouble::ParentChanged { found, expected } if self.is_anchored => {
                self.explain(found, expected)
            }
            Trouble::ParentChanged { .. } => {
                self.is_open = false;
                say(error)
            }
            _ => say(error),
        }
    }

    #[inline(never)]
    fn anchored_ek(&mut self) -> Result<EkKey, Failure> {
        Ok(self.known_anchor(&mut [0; ANCHOR_LEN_MAX])?.ek)
    }

    #[inline(never)]
    fn anchored_ak(&mut self) -> Result<KeyBlob, Failure> {
        let key = self.known_anchor(&mut [0; ANCHOR_LEN_MAX])?.key();
        key.ok_or(Failure::KeyUnavailable)
    }

    /// The same TPM with other keys, or another TPM? Its endorsement key knows.
    #[inline(never)]
    fn explain(&mut self, found: NameHead, expected: NameHead) -> Failure {
        let ek = match self.anchored_ek() {
            Ok(ek) => ek,
            Err(failure) => return failure,
        };
        match self.vault.recognises(&ek) {
            Ok(true) => {
                warn(format_args!("TPM cleared: {found}, was {expected}"));
                Failure::KeyLost
            }
            Ok(false) => {
                error(format_args!("TPM swapped: expected {}", ek.name.head()));
                Failure::KeyUnavailable
            }
            Err(error) => say(&error),
        }
    }
}

fn say<E: fmt::Display>(error: &VaultError<E>) -> Failure {
    warn(format_args!("TPM {}", Told(error)));
    Failure::KeyUnavailable
}

fn spki_of(blob: &KeyBlob) -> Result<[u8; SPKI_LEN], Failure> {
    p256_spki(&blob.point()).map_err(|_| Failure::KeyLost)
}

impl<F: NorFlash<Error: fmt::Display>, T: Transact<Error: fmt::Display>> Keys for TpmKeys<F, T> {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        self.ensured(slot, source)
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        self.sectors.erase(slot.index())
    }
}

impl<F: NorFlash<Error: fmt::Display>, T: Transact<Error: fmt::Display>> KeyStore
    for TpmKeys<F, T>
{
    fn is_sound() -> bool {
        true
    }

    fn backend(&self) -> &'static str {
        "tpm"
    }

    fn spki(&mut self, slot: Slot) -> Result<[u8; SPKI_LEN], Failure> {
        match &self.blob(slot) {
            Ok(blob) => spki_of(blob),
            Err(failure) => Err(failure.clone()),
        }
    }

    fn probe(&mut self, slot: Slot) -> Result<(), Failure> {
        self.with_key(slot, |keys, blob| keys.vault.probe(blob))
    }

    fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], Failure> {
        self.with_key(slot, |keys, blob| keys.vault.sign(blob, digest))
    }

    fn introduction<'b>(&mut self, out: &'b mut [u8]) -> Result<Option<Introduction<'b>>, Failure> {
        self.open()?;
        // Nothing is told of a TPM that is not the anchored one.
        self.parent()?;
        let ak = self.anchored_ak()?;
        let ak_public = ak.public_area();
        let split = out.len().checked_sub(ak_public.len());
        let parts = split.and_then(|at| out.split_at_mut_checked(at));
        let (front, back) = parts.ok_or(Failure::KeyUnavailable)?;
        back.copy_from_slice(ak_public);
        let found = self.vault.endorsement(front);
        let found = found.map_err(|error| self.told(&error))?;
        self.introduced = Some(found.key);
        Ok(Some(Introduction {
            ek_public: found.public_area,
            ek_certificates: found.certificates,
            ak_public: back,
        }))
    }

    fn vouch(
        &mut self,
        slot: Slot,
        challenge: &Challenge<'_>,
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        self.open()?;
        let ek = self.introduced.map_or_else(|| self.anchored_ek(), Ok)?;
        let ak = self.anchored_ak()?;
        let written =
            self.with_key(slot, |keys, blob| keys.evidence(blob, (&ek, &ak), challenge, out))?;
        written.ok_or(Failure::KeyUnavailable)
    }

    fn wipe(&mut self) -> Result<(), Failure> {
        (self.is_open, self.introduced) = (false, None);
        (0..SECTORS).try_for_each(|index| self.sectors.erase(index))
    }

    fn close(&mut self) {
        if self.is_open
            && let Err(error) = self.vault.shutdown()
        {
            warn(format_args!("TPM not shut down: {}", Told(&error)));
        }
    }
}

impl<F: NorFlash<Error: fmt::Display>, T> fmt::Debug for TpmKeys<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKeys").field("base", &self.sectors.base()).finish_non_exhaustive()
    }
}
