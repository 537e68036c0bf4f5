//! Keys in a TPM: made there, used there, never seen outside.
//!
//! **What it is.** Each slot's key is a blob in a sector of flash, wrapped by the TPM under a
//! storage primary that it makes again from its seed whenever it is needed. Two more sectors hold
//! the [`anchor`], which says which TPM the blobs belong to. It is the agent's key store, with the
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
use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::transact::Transact;
use fleetcert_tpm::vault::{
    CERTIFIED_LEN_MAX, EkKey, KEY_BLOB_LEN_MAX, KeyBlob, Options, Vault, VaultError,
};
use log::{error, info, warn};
use sha2::{Digest as _, Sha256};

use self::anchor::{ANCHOR_LEN_MAX, Anchor};
use self::content::{Found, content_len};
use self::trouble::{Hex, Told};
use super::sectors::Sectors;
use super::{INTRODUCTION_LEN_MAX, Introduction, KeyStore, LayoutError, SIGNATURE_LEN, SPKI_LEN};

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

impl<F: NorFlash, T: Transact<Error: fmt::Display>> TpmKeys<F, T> {
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
        let parent = match self.anchor()? {
            Found::Body(anchor) => {
                // With one copy it is as good an anchor, until something happens to that.
                let _mended = self.keep(&anchor);
                Some(anchor.parent)
            }
            Found::Damaged => {
                warn!("keys: both copies of the anchor are damaged");
                None
            }
            Found::Nothing => None,
        };
        self.is_anchored = parent.is_some();
        self.vault.expect(parent);
        let started = self.vault.start().and_then(|()| self.vault.properties());
        let found = started.map_err(|error| self.told(&error))?;
        info!(
            "TPM: {}, firmware {}, {} of {} failed authorizations",
            found.manufacturer(),
            found.firmware,
            found.lockout.counter,
            found.lockout.max
        );
        self.is_open = true;
        Ok(())
    }

    /// The first whole copy of the anchor.
    #[inline(never)]
    fn anchor(&mut self) -> Result<Found<Anchor>, Failure> {
        let mut content = [0; ANCHOR_LEN_MAX];
        let mut found = Found::Nothing;
        for index in ANCHORS {
            self.sectors.read(index, &mut content)?;
            match Anchor::find(&content) {
                Found::Body(anchor) => return Ok(Found::Body(anchor)),
                Found::Damaged => found = Found::Damaged,
                Found::Nothing => {}
            }
        }
        Ok(found)
    }

    /// Makes both copies this one, the first before the second.
    #[inline(never)]
    fn keep(&mut self, anchor: &Anchor) -> Result<(), Failure> {
        let mut content = [0; ANCHOR_LEN_MAX];
        let content = anchor.write(&mut content).ok_or(Failure::KeyUnavailable)?;
        for index in ANCHORS {
            if !self.sectors.holds(index, content)? {
                self.sectors.replace(index, content)?;
            }
        }
        Ok(())
    }

    /// Makes sure that the TPM is the one that is anchored, and anchors one where there is none.
    fn anchored(&mut self) -> Result<(), Failure> {
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
        let surveyed = self.survey();
        let anchor = surveyed.map_err(|error| self.told(&error))?;
        self.keep(&anchor)?;
        (self.is_open, self.is_anchored) = (true, true);
        info!("keys: they live in the TPM with storage key {} from now on", Hex(&anchor.parent));
        Ok(())
    }

    #[inline(never)]
    fn survey(&mut self) -> Result<Anchor, VaultError<T::Error>> {
        let parent = self.vault.parent()?;
        let mut room = [0; INTRODUCTION_LEN_MAX];
        let ek = self.vault.endorsement(&mut room)?.key;
        Ok(Anchor { parent, ek, ak: self.vault.make(Template::AttestationKey)? })
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
        let blob = KeyBlob::parse(octets).ok().filter(|blob| blob.is(Template::DeviceKey));
        blob.ok_or_else(|| {
            warn!("keys: slot {slot:?} holds no whole key: it was cut off, or changed");
            Failure::KeyLost
        })
    }

    /// Puts a key into the slot.
    fn put(&mut self, slot: Slot, source: KeySource) -> Result<(), Failure> {
        let blob = match source {
            KeySource::Fresh => {
                let made = self.vault.make(Template::DeviceKey);
                made.map_err(|error| self.told(&error))?
            }
            KeySource::Other => {
                self.probe(slot.other())?;
                self.blob(slot.other())?
            }
        };
        self.write(slot, &blob)
    }

    #[inline(never)]
    fn write(&mut self, slot: Slot, blob: &KeyBlob) -> Result<(), Failure> {
        let mut content = [0; SLOT_LEN_MAX];
        let content = content::write(HEAD, &[blob.as_bytes()], &mut content);
        self.sectors.replace(slot.index(), content.ok_or(Failure::KeyUnavailable)?)
    }

    fn ensured(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        self.anchored()?;
        match self.probe(slot) {
            Err(Failure::KeyLost) => self.put(slot, source)?,
            outcome => outcome?,
        }
        Ok(Sha256::digest(self.spki(slot)?).into())
    }

    /// Solves the challenge, and has the attestation key state that the key is in this TPM.
    #[inline(never)]
    fn evidence(
        &mut self,
        blob: &KeyBlob,
        anchor: &Anchor,
        challenge: &Challenge<'_>,
        out: &mut [u8],
    ) -> Result<Option<usize>, VaultError<T::Error>> {
        let Challenge { id, nonce, credential, encrypted_secret, .. } = challenge;
        let ek = self.introduced.unwrap_or(anchor.ek);
        let secret = self.vault.activate(&ek, &anchor.ak, credential, encrypted_secret)?;
        let Ok(spki) = spki_of(blob) else { return Ok(None) };
        let qualifying = qualifying_data(secret.as_bytes(), id, nonce, &spki);
        let mut room = [0; CERTIFIED_LEN_MAX];
        let statement = self.vault.certify(blob, &anchor.ak, &qualifying, &mut room)?;
        let (attest, signature) = (statement.attest, statement.signature);
        let evidence = Evidence { attest, signature, public: blob.public_area() };
        Ok(evidence.attribute(out).map(<[u8]>::len).ok())
    }

    /// The anchor, which is there once a key was made.
    fn known_anchor(&mut self) -> Result<Anchor, Failure> {
        match self.anchor()? {
            Found::Body(anchor) => Ok(anchor),
            Found::Damaged | Found::Nothing => {
                error!("keys: the TPM is not known yet; it is with the first key");
                Err(Failure::KeyUnavailable)
            }
        }
    }

    /// Says what is in the way, and whether a key is lost by it.
    fn told(&mut self, error: &VaultError<T::Error>) -> Failure {
        match error.trouble() {
            // The TPM is the one that is anchored, so it is the blob that is not what it was.
            Trouble::ForeignKey if self.is_anchored => {
                warn!("keys: the TPM does not take a blob that it has made: it was changed");
                Failure::KeyLost
            }
            Trouble::ParentChanged { found, expected } if self.is_anchored => {
                self.explain(&found, &expected)
            }
            Trouble::ParentChanged { .. } => {
                self.is_open = false;
                say(error)
            }
            _ => say(error),
        }
    }

    /// The same TPM with other keys, or another TPM? Its endorsement key knows.
    #[inline(never)]
    fn explain(&mut self, found: &Name, expected: &Name) -> Failure {
        let anchor = match self.known_anchor() {
            Ok(anchor) => anchor,
            Err(failure) => return failure,
        };
        match self.vault.recognises(&anchor.ek) {
            Ok(true) => {
                warn!(
                    "TPM cleared: its storage key is {}, recorded was {}; nothing to do, where a \
                     first contact needs no token: new keys are made",
                    Hex(found),
                    Hex(expected)
                );
                Failure::KeyLost
            }
            Ok(false) => {
                error!(
                    "TPM swapped: the keys are in the one with endorsement key {}; put that back, \
                     or have this one admitted with `fleetcert-provisioner device replace` and \
                     erase the keys' region",
                    Hex(&anchor.ek.name)
                );
                Failure::KeyUnavailable
            }
            Err(error) => say(&error),
        }
    }
}

fn say<E: fmt::Display>(error: &VaultError<E>) -> Failure {
    warn!("TPM {}", Told(error));
    Failure::KeyUnavailable
}

fn spki_of(blob: &KeyBlob) -> Result<[u8; SPKI_LEN], Failure> {
    p256_spki(&blob.point()).map_err(|_| Failure::KeyLost)
}

impl<F: NorFlash, T: Transact<Error: fmt::Display>> Keys for TpmKeys<F, T> {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        self.ensured(slot, source)
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        self.sectors.erase(slot.index())
    }
}

impl<F: NorFlash, T: Transact<Error: fmt::Display>> KeyStore for TpmKeys<F, T> {
    fn backend(&self) -> &'static str {
        "tpm"
    }

    fn spki(&mut self, slot: Slot) -> Result<[u8; SPKI_LEN], Failure> {
        spki_of(&self.blob(slot)?)
    }

    fn probe(&mut self, slot: Slot) -> Result<(), Failure> {
        let blob = self.blob(slot)?;
        self.open()?;
        let probed = self.vault.probe(&blob);
        probed.map_err(|error| self.told(&error))
    }

    fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], Failure> {
        let blob = self.blob(slot)?;
        self.open()?;
        let signed = self.vault.sign(&blob, digest);
        signed.map_err(|error| self.told(&error))
    }

    fn introduction<'b>(&mut self, out: &'b mut [u8]) -> Result<Option<Introduction<'b>>, Failure> {
        self.open()?;
        let ak = self.known_anchor()?.ak;
        // Nothing is told of a TPM that is not the anchored one.
        self.parent()?;
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
        let blob = self.blob(slot)?;
        self.open()?;
        let anchor = self.known_anchor()?;
        let written = self.evidence(&blob, &anchor, challenge, out);
        let written = written.map_err(|error| self.told(&error))?;
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
            warn!("TPM not shut down in order: {}", Told(&error));
        }
    }
}

impl<F: NorFlash, T> fmt::Debug for TpmKeys<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKeys").field("base", &self.sectors.base()).finish_non_exhaustive()
    }
}
