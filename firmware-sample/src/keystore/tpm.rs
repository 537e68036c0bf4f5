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
//! In all other states the answer is [`KeyFault::Unavailable`], and the flash stays as it is. A
//! digest stands over every content, so that a write that was cut off counts as none; the anchor
//! has two copies, of which one is whole at any time once there was one.

mod anchor;
mod content;
mod trouble;

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::est::csr::p256_spki;
use fleetcert_core::est::evidence::Evidence;
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_core::sha256::sha256;
use fleetcert_core::wire::Challenge;
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::fault::Trouble;
use fleetcert_tpm::name::{Name, NameHead};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::transact::Transact;
use fleetcert_tpm::vault::{
    self, CERTIFIED_LEN_MAX, EkKey, KEY_BLOB_LEN_MAX, KeyBlob, KeyRoom, Options, Statement,
    VaultError,
};

use self::anchor::{ANCHOR_LEN_MAX, Anchor};
use self::content::{Found, content_len};
use self::trouble::Told;
use super::sectors::Sectors;
use super::{
    INTRODUCTION_LEN_MAX, Introduction, KeyFault, KeyStore, LayoutError, SIGNATURE_LEN, SPKI_LEN,
};
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

/// The TPM, as it is used here.
type Vault<T> = vault::Vault<T, CONTEXTS>;

/// What a TPM does with a key.
type Work<'w, T> =
    &'w mut dyn FnMut(&mut Vault<T>, &KeyBlob) -> Result<(), VaultError<<T as Transact>::Error>>;

/// Two slots of keys in a TPM, their blobs in four sectors of flash.
pub struct TpmKeys<F, T> {
    sectors: Sectors<F, SECTORS>,
    vault: Vault<T>,
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
    fn open(&mut self) -> Result<(), KeyFault> {
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
    ) -> Result<Anchor<'c>, KeyFault> {
        match self.anchor(content) {
            Found::Body(anchor) => Ok(anchor),
            Found::Damaged | Found::Nothing => {
                error(format_args!("keys: TPM not anchored yet"));
                Err(KeyFault::Unavailable)
            }
        }
    }

    /// Makes both copies of the anchor this one, the first before the second.
    fn keep(&mut self, content: &[u8]) -> Result<(), KeyFault> {
        for index in ANCHORS {
            if self.sectors.holds(index, content) != Ok(true) {
                self.sectors.replace(index, content)?;
            }
        }
        Ok(())
    }

    /// Makes sure that the TPM is the one that is anchored, and anchors one where there is none.
    fn anchored(&mut self) -> Result<(), KeyFault> {
        // One that could not be read a while ago is not given up before another look.
        self.is_open &= self.is_anchored;
        self.open()?;
        if !self.is_anchored {
            self.recognise()?;
            return self.drop_anchor();
        }
        match self.parent() {
            // It was cleared: nothing else is a loss where no key is asked for.
            Err(KeyFault::Lost) => self.drop_anchor(),
            outcome => outcome.map(drop),
        }
    }

    fn parent(&mut self) -> Result<Name, KeyFault> {
        let parent = self.vault.parent();
        parent.map_err(|error| self.told(&error))
    }

    /// Without an anchor, keys that are there must be of this TPM before it is anchored.
    fn recognise(&mut self) -> Result<(), KeyFault> {
        for slot in Slot::ALL {
            match self.probe(slot) {
                Ok(()) | Err(KeyFault::Lost) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Ties the region to the TPM that is there.
    fn drop_anchor(&mut self) -> Result<(), KeyFault> {
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
    fn anchor_to(&mut self, parent: Name, ek: EkKey) -> Result<(), KeyFault> {
        let (mut room, mut content) = (KeyRoom::new(), [0; ANCHOR_LEN_MAX]);
        let content = match self.vault.make_in(Template::AttestationKey, &mut room) {
            Ok(ak) => Anchor { parent, ek, ak: ak.as_bytes() }.write(&mut content),
            Err(error) => return Err(self.told(&error)),
        };
        self.keep(content.ok_or(KeyFault::Unavailable)?)
    }

    /// The endorsement key of the TPM. What else is told about it is not kept.
    #[inline(never)]
    fn endorsement(&mut self) -> Result<EkKey, VaultError<T::Error>> {
        let mut room = [0; INTRODUCTION_LEN_MAX];
        Ok(self.vault.endorsement(&mut room)?.key)
    }

    /// Reads the blob in the slot.
    #[inline(never)]
    fn read<'k>(&mut self, slot: Slot, room: &'k mut KeyRoom) -> Result<&'k KeyBlob, KeyFault> {
        let mut content = [0; SLOT_LEN_MAX];
        self.sectors.read(slot.index(), &mut content)?;
        let octets = match content::find(HEAD, &content) {
            Found::Body(octets) => octets,
            Found::Damaged => &[],
            Found::Nothing => return Err(KeyFault::Lost),
        };
        match room.parse(octets) {
            Ok(key) if key.is(Template::DeviceKey) => Ok(key),
            _ => {
                warn(format_args!("keys: slot {} damaged", slot.as_str()));
                Err(KeyFault::Lost)
            }
        }
    }

    /// Whether there is a blob in the slot. One that cannot be read was cut off when it was written,
    /// before anybody was told of it.
    #[inline(never)]
    fn is_whole(&mut self, slot: Slot) -> bool {
        self.read(slot, &mut KeyRoom::new()).is_ok()
    }

    /// Has the TPM work with the slot's key.
    // The blob is not kept on the stack while the TPM is started, or looked at for what is wrong.
    fn with_key(&mut self, slot: Slot, work: Work<'_, T>) -> Result<(), KeyFault> {
        self.open()?;
        let outcome = self.work(slot, work)?;
        outcome.map_err(|error| self.told(&error))
    }

    #[inline(never)]
    fn work(
        &mut self,
        slot: Slot,
        work: Work<'_, T>,
    ) -> Result<Result<(), VaultError<T::Error>>, KeyFault> {
        let mut room = KeyRoom::new();
        let key = self.read(slot, &mut room)?;
        Ok(work(&mut self.vault, key))
    }

    /// Puts a key into the slot.
    fn put(&mut self, slot: Slot, source: KeySource) -> Result<(), KeyFault> {
        match source {
            KeySource::Fresh => self.make(slot),
            KeySource::Other => {
                self.probe(slot.other())?;
                self.copy(slot)
            }
        }
    }

    #[inline(never)]
    fn make(&mut self, slot: Slot) -> Result<(), KeyFault> {
        let mut room = KeyRoom::new();
        match self.vault.make_in(Template::DeviceKey, &mut room) {
            Ok(key) => self.write(slot, key),
            Err(error) => Err(self.told(&error)),
        }
    }

    #[inline(never)]
    fn copy(&mut self, slot: Slot) -> Result<(), KeyFault> {
        let mut room = KeyRoom::new();
        let key = self.read(slot.other(), &mut room)?;
        self.write(slot, key)
    }

    #[inline(never)]
    fn write(&mut self, slot: Slot, blob: &KeyBlob) -> Result<(), KeyFault> {
        let mut content = [0; SLOT_LEN_MAX];
        let content = content::write(HEAD, &[blob.as_bytes()], &mut content);
        self.sectors.replace(slot.index(), content.ok_or(KeyFault::Unavailable)?)
    }

    /// Says what is in the way, and whether a key is lost by it.
    fn told(&mut self, error: &VaultError<T::Error>) -> KeyFault {
        match error.trouble() {
            // The TPM is the one that is anchored, so it is the blob that is not what it was.
            Trouble::ForeignKey if self.is_anchored => {
                warn(format_args!("keys: blob changed"));
                KeyFault::Lost
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
    fn anchored_ek(&mut self) -> Result<EkKey, KeyFault> {
        Ok(self.known_anchor(&mut [0; ANCHOR_LEN_MAX])?.ek)
    }

    #[inline(never)]
    fn anchored_ak<'k>(&mut self, room: &'k mut KeyRoom) -> Result<&'k KeyBlob, KeyFault> {
        let mut content = [0; ANCHOR_LEN_MAX];
        let anchor = self.known_anchor(&mut content)?;
        anchor.key(room).ok_or(KeyFault::Unavailable)
    }

    /// The same TPM with other keys, or another TPM? Its endorsement key knows.
    #[inline(never)]
    fn explain(&mut self, found: NameHead, expected: NameHead) -> KeyFault {
        let ek = match self.anchored_ek() {
            Ok(ek) => ek,
            Err(failure) => return failure,
        };
        match self.vault.recognises(&ek) {
            Ok(true) => {
                warn(format_args!("TPM cleared: {found}, was {expected}"));
                KeyFault::Lost
            }
            Ok(false) => {
                error(format_args!("TPM swapped: expected {}", ek.name.head()));
                KeyFault::Unavailable
            }
            Err(error) => say(&error),
        }
    }
}

fn say<E: fmt::Display>(error: &VaultError<E>) -> KeyFault {
    warn(format_args!("TPM {}", Told(error)));
    KeyFault::Unavailable
}

fn spki_of(blob: &KeyBlob) -> Result<[u8; SPKI_LEN], KeyFault> {
    p256_spki(&blob.point()).map_err(|_| KeyFault::Lost)
}

/// Solves the challenge, and has the attestation key state that the key is in this TPM; 0 octets
/// where there is no room for that.
#[inline(never)]
fn evidence<T: Transact>(
    vault: &mut Vault<T>,
    key: &KeyBlob,
    (ek, ak): (&EkKey, &KeyBlob),
    challenge: &Challenge<'_>,
    out: &mut [u8],
) -> Result<usize, VaultError<T::Error>> {
    let Challenge { id, nonce, credential, encrypted_secret, .. } = challenge;
    let secret = vault.activate(ek, ak, credential, encrypted_secret)?;
    let Ok(spki) = spki_of(key) else { return Ok(0) };
    let qualifying = qualifying_data(secret.as_bytes(), id, nonce, &spki);
    let mut room = [0; CERTIFIED_LEN_MAX];
    let Statement { attest, signature } = vault.certify(key, ak, &qualifying, &mut room)?;
    let evidence = Evidence { attest, signature, public: key.public_area() };
    Ok(evidence.attribute(out).map_or(0, <[u8]>::len))
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

    fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], KeyFault> {
        self.anchored()?;
        let probed = if self.is_whole(slot) { self.probe(slot) } else { Err(KeyFault::Lost) };
        match probed {
            Err(KeyFault::Lost) => self.put(slot, source)?,
            outcome => outcome?,
        }
        Ok(sha256(&[&self.spki(slot)?]))
    }

    fn erase(&mut self, slot: Slot) -> Result<(), KeyFault> {
        self.sectors.erase(slot.index())
    }

    fn spki(&mut self, slot: Slot) -> Result<[u8; SPKI_LEN], KeyFault> {
        let mut room = KeyRoom::new();
        spki_of(self.read(slot, &mut room)?)
    }

    fn probe(&mut self, slot: Slot) -> Result<(), KeyFault> {
        self.with_key(slot, &mut |vault, key| vault.probe(key))
    }

    fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault> {
        let mut signature = [0; SIGNATURE_LEN];
        self.with_key(slot, &mut |vault, key| {
            signature = vault.sign(key, digest)?;
            Ok(())
        })?;
        Ok(signature)
    }

    fn introduction<'b>(
        &mut self,
        out: &'b mut [u8],
    ) -> Result<Option<Introduction<'b>>, KeyFault> {
        self.open()?;
        // Nothing is told of a TPM that is not the anchored one.
        self.parent()?;
        let mut room = KeyRoom::new();
        let ak = self.anchored_ak(&mut room)?;
        let ak_public = ak.public_area();
        let split = out.len().checked_sub(ak_public.len());
        let parts = split.and_then(|at| out.split_at_mut_checked(at));
        let (front, back) = parts.ok_or(KeyFault::Unavailable)?;
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
    ) -> Result<usize, KeyFault> {
        self.open()?;
        let ek = self.introduced.map_or_else(|| self.anchored_ek(), Ok)?;
        let mut room = KeyRoom::new();
        let ak = self.anchored_ak(&mut room)?;
        let mut len = 0;
        self.with_key(slot, &mut |vault, key| {
            len = evidence(vault, key, (&ek, ak), challenge, out)?;
            Ok(())
        })?;
        if len == 0 { Err(KeyFault::Unavailable) } else { Ok(len) }
    }

    fn wipe(&mut self) -> Result<(), KeyFault> {
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
