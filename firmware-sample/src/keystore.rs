//! Software keys on flash, one sector a slot: for boards without a TPM.
//!
//! A slot's sector holds a P-256 private key and a checksum over it, or nothing. The sector is the
//! unit on purpose: erasing a key must leave no copy of it, and a log that merely marks an entry
//! as old keeps it until its sector is needed again. A key that was cut off while it was written
//! does not match its checksum and counts as none; it cannot have been used yet, because the core
//! uses a key only after this port has answered.
//!
//! The flash must not be readable from outside: switch the board's debug port off. The private
//! key never leaves this room; [`FlashKeys::sign`] is the only use of it.

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::Failure;
use fleetcert_core::port::Keys;
use fleetcert_core::record::{KeySource, Slot};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::rand_core::CryptoRngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Octets of a P-256 private key.
const KEY_LEN: usize = 32;

/// Octets of a slot's content: the key and a checksum. A multiple of every common word length.
const CONTENT_LEN: usize = 2 * KEY_LEN;

/// Octets of an uncompressed P-256 point.
const POINT_LEN: usize = 65;

/// Octets of the SubjectPublicKeyInfo of a P-256 key.
pub const SPKI_LEN: usize = SPKI_HEAD.len() + POINT_LEN;

/// What stands before the point in the SubjectPublicKeyInfo of a P-256 key (RFC 5480 §2).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Two slots of software keys in two sectors of flash.
pub struct FlashKeys<F, R> {
    flash: F,
    rng: R,
    base: u32,
}

/// Why the flash cannot hold the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The base is not the beginning of a sector.
    Unaligned {
        /// The base given.
        base: u32,
        /// Octets of a sector.
        sector_len: usize,
    },
    /// The two sectors do not fit between base and end.
    OutOfBounds {
        /// The base given.
        base: u32,
        /// Octets of the flash.
        capacity: usize,
    },
    /// The flash is programmed in words that the content is no multiple of.
    Word {
        /// Octets of a word.
        found: usize,
    },
}

impl<F: NorFlash, R: CryptoRngCore> FlashKeys<F, R> {
    /// Keys in the two sectors of `flash` from `base` on, made with `rng`.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when they do not fit there.
    pub fn new(flash: F, base: u32, rng: R) -> Result<Self, LayoutError> {
        let (sector_len, word_len, capacity) = (F::ERASE_SIZE, F::WRITE_SIZE, flash.capacity());
        if !CONTENT_LEN.is_multiple_of(word_len) || CONTENT_LEN > sector_len {
            return Err(LayoutError::Word { found: word_len });
        }
        let start = usize::try_from(base).unwrap_or(usize::MAX);
        if !start.is_multiple_of(sector_len) {
            return Err(LayoutError::Unaligned { base, sector_len });
        }
        match start.checked_add(2 * sector_len) {
            Some(end) if end <= capacity => Ok(Self { flash, rng, base }),
            _ => Err(LayoutError::OutOfBounds { base, capacity }),
        }
    }

    /// The SubjectPublicKeyInfo of the slot's key; `None` for an empty slot.
    ///
    /// # Errors
    ///
    /// [`Failure::KeyUnavailable`] when the flash does not answer.
    pub async fn spki(&mut self, slot: Slot) -> Result<Option<[u8; SPKI_LEN]>, Failure> {
        Ok(self.key(slot).await?.map(|key| spki_of(key.verifying_key())))
    }

    /// Signs a SHA-256 digest with the slot's key.
    ///
    /// # Errors
    ///
    /// [`Failure::KeyLost`] for an empty slot, [`Failure::KeyUnavailable`] when the flash does not
    /// answer.
    pub async fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<Signature, Failure> {
        let key = self.key(slot).await?.ok_or(Failure::KeyLost)?;
        key.sign_prehash(digest).map_err(|_| Failure::KeyUnavailable)
    }

    async fn key(&mut self, slot: Slot) -> Result<Option<SigningKey>, Failure> {
        let mut content = Zeroizing::new([0; CONTENT_LEN]);
        let offset = self.offset(slot);
        self.flash.read(offset, &mut *content).await.map_err(|_| Failure::KeyUnavailable)?;
        let (key, checksum) = content.split_at(KEY_LEN);
        if checksum != checksum_of(key) {
            return Ok(None);
        }
        Ok(SigningKey::from_slice(key).ok())
    }

    /// Erases before it writes: what is there may be half a key.
    async fn write(&mut self, slot: Slot, key: &SigningKey) -> Result<(), Failure> {
        self.erase(slot).await?;
        let mut content = Zeroizing::new([0; CONTENT_LEN]);
        let octets = Zeroizing::new(<[u8; KEY_LEN]>::from(key.to_bytes()));
        content[..KEY_LEN].copy_from_slice(&*octets);
        content[KEY_LEN..].copy_from_slice(&checksum_of(&*octets));
        let offset = self.offset(slot);
        self.flash.write(offset, &*content).await.map_err(|_| Failure::KeyUnavailable)
    }

    fn offset(&self, slot: Slot) -> u32 {
        let sector_len = u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX);
        match slot {
            Slot::A => self.base,
            // Inside the flash, as `new` has checked.
            Slot::B => self.base.saturating_add(sector_len),
        }
    }
}

impl<F: NorFlash, R: CryptoRngCore> Keys for FlashKeys<F, R> {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        let key = match self.key(slot).await? {
            Some(key) => key,
            None => {
                let key = match source {
                    KeySource::Fresh => SigningKey::random(&mut self.rng),
                    KeySource::Other => self.key(slot.other()).await?.ok_or(Failure::KeyLost)?,
                };
                self.write(slot, &key).await?;
                key
            }
        };
        Ok(Sha256::digest(spki_of(key.verifying_key())).into())
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        let from = self.offset(slot);
        let to = from.saturating_add(u32::try_from(F::ERASE_SIZE).unwrap_or(u32::MAX));
        self.flash.erase(from, to).await.map_err(|_| Failure::KeyUnavailable)
    }
}

/// A prefix keeps it from being a hash of the key that something else might use, too.
fn checksum_of(key: &[u8]) -> [u8; KEY_LEN] {
    Sha256::new().chain_update(b"fleetcert flash key").chain_update(key).finalize().into()
}

fn spki_of(key: &VerifyingKey) -> [u8; SPKI_LEN] {
    let mut spki = [0; SPKI_LEN];
    spki[..SPKI_HEAD.len()].copy_from_slice(&SPKI_HEAD);
    spki[SPKI_HEAD.len()..].copy_from_slice(key.to_encoded_point(false).as_bytes());
    spki
}

impl<F, R> fmt::Debug for FlashKeys<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashKeys").field("base", &self.base).finish_non_exhaustive()
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds { base, capacity } => {
                write!(f, "two sectors from {base} on do not fit into {capacity} octets")
            }
            Self::Unaligned { base, sector_len } => {
                write!(f, "base {base} is not a multiple of the sector's {sector_len} octets")
            }
            Self::Word { found } => {
                write!(f, "words of {found} octets do not divide {CONTENT_LEN} octets of a sector")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    use p256::elliptic_curve::rand_core::{CryptoRng, RngCore};
    use p256::pkcs8::{DecodePublicKey, EncodePublicKey};

    use super::*;
    use crate::flash_model::{FlashModel, SECTOR_LEN};

    const BASE: u32 = SECTOR_LEN;

    /// Counts; good enough to tell keys apart.
    struct Counter(u8);

    impl RngCore for Counter {
        fn next_u32(&mut self) -> u32 {
            u32::from_le_bytes([0; 4].map(|_: u8| self.step()))
        }
        fn next_u64(&mut self) -> u64 {
            u64::from_le_bytes([0; 8].map(|_: u8| self.step()))
        }
        fn fill_bytes(&mut self, octets: &mut [u8]) {
            octets.fill_with(|| self.step());
        }
        fn try_fill_bytes(
            &mut self,
            octets: &mut [u8],
        ) -> Result<(), p256::elliptic_curve::rand_core::Error> {
            self.fill_bytes(octets);
            Ok(())
        }
    }

    impl CryptoRng for Counter {}

    impl Counter {
        fn step(&mut self) -> u8 {
            self.0 = self.0.wrapping_add(1);
            self.0
        }
    }

    fn keys(flash: &mut FlashModel, seed: u8) -> FlashKeys<&mut FlashModel, Counter> {
        FlashKeys::new(flash, BASE, Counter(seed)).unwrap()
    }

    fn blank() -> FlashModel {
        FlashModel::blank(3 * SECTOR_LEN)
    }

    /// Goal: a key that was made is the same after a restart, whatever is asked for then.
    #[test]
    fn a_key_survives_a_restart() {
        let mut flash = blank();
        let made = block_on(keys(&mut flash, 0).ensure(Slot::A, KeySource::Fresh)).unwrap();
        for source in [KeySource::Fresh, KeySource::Other] {
            assert_eq!(block_on(keys(&mut flash, 99).ensure(Slot::A, source)), Ok(made));
        }
    }

    /// Goal: slots have keys of their own unless the key is to be kept.
    #[test]
    fn a_fresh_key_differs_and_a_kept_key_does_not() {
        let mut flash = blank();
        let mut keys = keys(&mut flash, 0);
        let a = block_on(keys.ensure(Slot::A, KeySource::Fresh)).unwrap();
        let b = block_on(keys.ensure(Slot::B, KeySource::Fresh)).unwrap();
        assert_ne!(a, b);
        block_on(keys.erase(Slot::B)).unwrap();
        assert_eq!(block_on(keys.ensure(Slot::B, KeySource::Other)), Ok(a));
    }

    /// Goal: the public key is the one another implementation encodes, and verifies what we sign.
    #[test]
    fn the_public_key_is_well_formed_and_verifies_signatures() {
        let mut flash = blank();
        let mut keys = keys(&mut flash, 0);
        let hash = block_on(keys.ensure(Slot::A, KeySource::Fresh)).unwrap();
        let spki = block_on(keys.spki(Slot::A)).unwrap().unwrap();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(spki)), hash);
        let public = p256::PublicKey::from_public_key_der(&spki).unwrap();
        assert_eq!(public.to_public_key_der().unwrap().as_bytes(), spki);
        let signature = block_on(keys.sign(Slot::A, &[7; 32])).unwrap();
        VerifyingKey::from(public).verify_prehash(&[7; 32], &signature).unwrap();
    }

    /// Goal: an erased key is gone from the chip, octet by octet, and cannot sign.
    #[test]
    fn an_erased_key_leaves_no_copy() {
        let mut flash = blank();
        let untouched = flash.octets().to_vec();
        let mut keys = keys(&mut flash, 0);
        block_on(keys.ensure(Slot::B, KeySource::Fresh)).unwrap();
        block_on(keys.erase(Slot::B)).unwrap();
        assert_eq!(block_on(keys.sign(Slot::B, &[7; 32])), Err(Failure::KeyLost));
        assert_eq!(block_on(keys.ensure(Slot::A, KeySource::Other)), Err(Failure::KeyLost));
        assert_eq!(flash.octets(), untouched);
    }

    /// Goal: wherever the power is cut while a key is made, the slot is empty or holds a key that
    /// works, the other slot is untouched, and the next try succeeds.
    #[test]
    fn a_power_cut_at_any_operation_leaves_no_half_key() {
        let mut flash = blank();
        let other = block_on(keys(&mut flash, 0).ensure(Slot::A, KeySource::Fresh)).unwrap();
        for operations in 0.. {
            let mut copy = flash.clone();
            copy.cut_power_after(operations);
            let made = block_on(keys(&mut copy, 50).ensure(Slot::B, KeySource::Fresh));
            copy.restore_power();
            let found = block_on(keys(&mut copy, 0).spki(Slot::B)).unwrap();
            assert_eq!(found.is_some(), made.is_ok(), "cut {operations}");
            assert!(block_on(keys(&mut copy, 90).ensure(Slot::B, KeySource::Fresh)).is_ok());
            assert_eq!(block_on(keys(&mut copy, 0).ensure(Slot::A, KeySource::Fresh)), Ok(other));
            if made.is_ok() {
                assert!(operations >= 2, "an erasure and a write can be cut");
                break;
            }
        }
    }

    /// Goal: a layout that would reach beyond the flash or into a neighbour is refused.
    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let refused = |base| FlashKeys::new(blank(), base, Counter(0)).unwrap_err();
        let sector_len = usize::try_from(SECTOR_LEN).unwrap();
        assert_eq!(refused(1), LayoutError::Unaligned { base: 1, sector_len });
        let (base, capacity) = (2 * SECTOR_LEN, 3 * sector_len);
        assert_eq!(refused(base), LayoutError::OutOfBounds { base, capacity });
    }
}
