//! Software keys on flash, one sector a slot: for boards without a TPM.
//!
//! A slot's sector holds a P-256 private key and a checksum over it, or nothing. A key that was cut
//! off while it was written does not match its checksum and counts as none; it cannot have been
//! used yet, because the core uses a key only after this port has answered.
//!
//! The flash must not be readable from outside: switch the board's debug port off. A private key is
//! read from flash for each use of it, goes from here to nobody but the board's [`Signing`], and is
//! overwritten in memory afterwards. The same digest has the same signature (RFC 6979): no
//! generator of random numbers is needed after the key was made.

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::est::csr::p256_spki;
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_core::sha256::sha256;
use fleetcert_core::wire::Challenge;
use p256::SecretKey;
use p256::elliptic_curve::rand_core::CryptoRngCore;
use zeroize::Zeroizing;

use super::sectors::Sectors;
use super::{Introduction, KeyFault, KeyStore, LayoutError, SIGNATURE_LEN, SPKI_LEN};
use crate::ecdsa::{self, Ecdsa, SECRET_LEN, Signing};

/// Octets of the checksum, a SHA-256.
const CHECKSUM_LEN: usize = 32;

/// Octets of a slot's content: the key and a checksum.
const CONTENT_LEN: usize = SECRET_LEN + CHECKSUM_LEN;

/// A private key, big-endian: above zero and below the order of the curve.
type Secret = Zeroizing<[u8; SECRET_LEN]>;

/// Two slots of software keys in two sectors of flash, used by the board's `E`.
pub struct SoftwareKeys<F, R, E> {
    slots: Sectors<F, 2>,
    rng: R,
    ecdsa: E,
}

impl<F: NorFlash<Error: fmt::Display>, R: CryptoRngCore, E: Default + Signing>
    SoftwareKeys<F, R, E>
{
    /// Keys in the two sectors of `flash` from `base` on, made with `rng`.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when they do not fit there.
    pub fn new(flash: F, base: u32, rng: R) -> Result<Self, LayoutError> {
        Ok(Self { slots: Sectors::new(flash, base, CONTENT_LEN)?, rng, ecdsa: E::default() })
    }

    /// The key in the slot.
    fn key(&mut self, slot: Slot) -> Result<Secret, KeyFault> {
        self.find(slot)?.ok_or(KeyFault::Lost)
    }

    fn find(&mut self, slot: Slot) -> Result<Option<Secret>, KeyFault> {
        let mut content = Zeroizing::new([0; CONTENT_LEN]);
        self.slots.read(slot.index(), &mut *content)?;
        let (key, checksum) = content.split_at(SECRET_LEN);
        if checksum != checksum_of(key) {
            return Ok(None);
        }
        Ok(SecretKey::from_slice(key).ok().map(|key| secret_of(&key)))
    }

    fn made(&mut self, slot: Slot, source: KeySource) -> Result<Secret, KeyFault> {
        let key = match source {
            KeySource::Fresh => secret_of(&SecretKey::random(&mut self.rng)),
            KeySource::Other => self.key(slot.other())?,
        };
        let mut content = Zeroizing::new([0; CONTENT_LEN]);
        content[..SECRET_LEN].copy_from_slice(&*key);
        content[SECRET_LEN..].copy_from_slice(&checksum_of(&*key));
        self.slots.replace(slot.index(), &*content)?;
        Ok(key)
    }

    fn spki_of(&self, key: &Secret) -> Result<[u8; SPKI_LEN], KeyFault> {
        let point = self.ecdsa.point(key).ok_or(KeyFault::Unavailable)?;
        p256_spki(&point).map_err(|_| KeyFault::Unavailable)
    }
}

impl<F, R, E> KeyStore for SoftwareKeys<F, R, E>
where
    F: NorFlash<Error: fmt::Display>,
    R: CryptoRngCore,
    E: Default + Ecdsa + Signing,
{
    fn is_sound() -> bool {
        ecdsa::is_sound(&E::default())
    }

    fn backend(&self) -> &'static str {
        "software"
    }

    fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], KeyFault> {
        let key = match self.find(slot) {
            Ok(Some(key)) => key,
            // What cannot be read was cut off when it was written, before anybody was told of it.
            Ok(None) | Err(_) => self.made(slot, source)?,
        };
        Ok(sha256(&[&self.spki_of(&key)?]))
    }

    fn erase(&mut self, slot: Slot) -> Result<(), KeyFault> {
        self.slots.erase(slot.index())
    }

    fn spki(&mut self, slot: Slot) -> Result<[u8; SPKI_LEN], KeyFault> {
        let key = self.key(slot)?;
        self.spki_of(&key)
    }

    fn probe(&mut self, slot: Slot) -> Result<(), KeyFault> {
        self.key(slot).map(drop)
    }

    fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault> {
        let key = self.key(slot)?;
        self.ecdsa.sign(&key, digest).ok_or(KeyFault::Unavailable)
    }

    fn introduction<'b>(
        &mut self,
        _out: &'b mut [u8],
    ) -> Result<Option<Introduction<'b>>, KeyFault> {
        Ok(None)
    }

    fn vouch(
        &mut self,
        _slot: Slot,
        _challenge: &Challenge<'_>,
        _out: &mut [u8],
    ) -> Result<usize, KeyFault> {
        Err(KeyFault::Unavailable)
    }

    fn wipe(&mut self) -> Result<(), KeyFault> {
        Slot::ALL.into_iter().try_for_each(|slot| self.slots.erase(slot.index()))
    }

    fn close(&mut self) {}
}

/// A prefix keeps it from being a hash of the key that something else might use, too.
fn checksum_of(key: &[u8]) -> [u8; CHECKSUM_LEN] {
    sha256(&[b"fleetcert flash key", key])
}

fn secret_of(key: &SecretKey) -> Secret {
    Zeroizing::new(key.to_bytes().into())
}

impl<F: NorFlash<Error: fmt::Display>, R, E> fmt::Debug for SoftwareKeys<F, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKeys").field("base", &self.slots.base()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use p256::ecdsa::{Signature, VerifyingKey};
    use p256::elliptic_curve::rand_core::{CryptoRng, RngCore};
    use p256::pkcs8::{DecodePublicKey, EncodePublicKey};

    use super::*;
    use crate::ecdsa::Portable;
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

    type Software<F> = SoftwareKeys<F, Counter, Portable>;

    fn keys(flash: &mut FlashModel, seed: u8) -> Software<&mut FlashModel> {
        Software::new(flash, BASE, Counter(seed)).unwrap()
    }

    fn blank() -> FlashModel {
        FlashModel::blank(3 * SECTOR_LEN)
    }

    /// Goal: a key that was made is the same after a restart, whatever is asked for then.
    #[test]
    fn a_key_survives_a_restart() {
        let mut flash = blank();
        let made = keys(&mut flash, 0).ensure(Slot::A, KeySource::Fresh).unwrap();
        for source in [KeySource::Fresh, KeySource::Other] {
            assert_eq!(keys(&mut flash, 99).ensure(Slot::A, source), Ok(made));
        }
    }

    /// Goal: slots have keys of their own unless the key is to be kept.
    #[test]
    fn a_fresh_key_differs_and_a_kept_key_does_not() {
        let mut flash = blank();
        let mut keys = keys(&mut flash, 0);
        let a = keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        let b = keys.ensure(Slot::B, KeySource::Fresh).unwrap();
        assert_ne!(a, b);
        keys.erase(Slot::B).unwrap();
        assert_eq!(keys.ensure(Slot::B, KeySource::Other), Ok(a));
    }

    /// Goal: the public key is the one another implementation encodes, and verifies what we sign.
    #[test]
    fn the_public_key_is_well_formed_and_verifies_signatures() {
        let mut flash = blank();
        let mut keys = keys(&mut flash, 0);
        let hash = keys.ensure(Slot::A, KeySource::Fresh).unwrap();
        let spki = keys.spki(Slot::A).unwrap();
        assert_eq!(sha256(&[&spki]), hash);
        let public = p256::PublicKey::from_public_key_der(&spki).unwrap();
        assert_eq!(public.to_public_key_der().unwrap().as_bytes(), spki);
        let signature = keys.sign(Slot::A, &[7; 32]).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        VerifyingKey::from(public).verify_prehash(&[7; 32], &signature).unwrap();
    }

    /// Goal: an erased key is gone from the chip, octet by octet, and cannot sign.
    #[test]
    fn an_erased_key_leaves_no_copy() {
        let mut flash = blank();
        let untouched = flash.octets().to_vec();
        let mut keys = keys(&mut flash, 0);
        keys.ensure(Slot::B, KeySource::Fresh).unwrap();
        keys.erase(Slot::B).unwrap();
        assert_eq!(keys.sign(Slot::B, &[7; 32]), Err(KeyFault::Lost));
        assert_eq!(keys.ensure(Slot::A, KeySource::Other), Err(KeyFault::Lost));
        assert_eq!(flash.octets(), untouched);
    }

    /// Goal: of a device that was decommissioned nothing is left, in no slot.
    #[test]
    fn a_wiped_store_is_blank() {
        let mut flash = blank();
        let untouched = flash.octets().to_vec();
        let mut keys = keys(&mut flash, 0);
        for slot in Slot::ALL {
            keys.ensure(slot, KeySource::Fresh).unwrap();
        }
        keys.wipe().unwrap();
        assert_eq!(flash.octets(), untouched);
    }

    /// Goal: software keys have no TPM to introduce, and nobody who could vouch for them.
    #[test]
    fn nothing_vouches_for_a_software_key() {
        let mut flash = blank();
        let mut keys = keys(&mut flash, 0);
        assert_eq!((keys.backend(), keys.introduction(&mut [])), ("software", Ok(None)));
    }

    /// Goal: wherever the power is cut while a key is made, the slot is empty or holds a key that
    /// works, the other slot is untouched, and the next try succeeds; on a chip that reads what was
    /// cut off, and on one that does not.
    #[test]
    fn a_power_cut_at_any_octet_leaves_no_half_key() {
        let mut flash = blank();
        let other = keys(&mut flash, 0).ensure(Slot::A, KeySource::Fresh).unwrap();
        // A prime: each part of a word is hit.
        for steps in (0..).step_by(31) {
            let mut copy = flash.clone();
            copy.cut_power_at(steps, steps);
            if steps.is_multiple_of(2) {
                copy.hide_torn_words();
            }
            let made = keys(&mut copy, 50).ensure(Slot::B, KeySource::Fresh);
            copy.restore_power();
            let found = keys(&mut copy, 0).probe(Slot::B);
            let again = keys(&mut copy, 90).ensure(Slot::B, KeySource::Fresh).unwrap();
            assert!(keys(&mut copy, 0).sign(Slot::B, &[7; 32]).is_ok(), "cut {steps}");
            assert_eq!(keys(&mut copy, 0).ensure(Slot::A, KeySource::Fresh), Ok(other));
            if let Ok(made) = made {
                assert_eq!((found, made), (Ok(()), again));
                assert!(steps > u64::from(SECTOR_LEN), "an erasure and a write can be cut");
                break;
            }
            assert!(found.is_err(), "cut {steps}");
        }
    }

    /// Goal: a layout that would reach beyond the flash or into a neighbour is refused.
    #[test]
    fn a_layout_that_does_not_fit_is_refused() {
        let refused = |base| Software::new(blank(), base, Counter(0)).unwrap_err();
        let sector_len = usize::try_from(SECTOR_LEN).unwrap();
        assert_eq!(refused(1), LayoutError::Unaligned { base: 1, sector_len });
        let (base, capacity) = (2 * SECTOR_LEN, 3 * sector_len);
        assert_eq!(refused(base), LayoutError::OutOfBounds { base, sectors: 2, capacity });
    }
}
