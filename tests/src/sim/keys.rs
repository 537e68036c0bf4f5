//! Key stores: real P-256 keys, from the seed.
//!
//! **What it is.** Each device has two slots, as on a real one. The keys in them are taken from a
//! pool that is made once a run from its seed: making a key is the dearest step of an enrollment,
//! and nothing that is simulated depends on a key's being anybody's alone. A device takes its keys
//! one after the other, so neighbours in its life always differ.
//!
//! **What it must never do.** Hand a private key out: whoever wants a signature asks for one.

use std::fmt;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::est::csr::{self, P256Signature, UnsignedRequest};
use fleetcert_core::record::Slot;
use p256::ecdsa::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use sha2::{Digest, Sha256};

use super::random::Dice;

/// Keys in the pool. A device makes about forty in two years.
const POOL_LEN: usize = 512;

/// Octets of a request, at most.
const REQUEST_LEN_MAX: usize = 512;

/// Which key of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNumber(u16);

/// The keys of a run.
pub struct Pool {
    keys: Vec<Key>,
    random: SystemRandom,
}

struct Key {
    pair: EcdsaKeyPair,
    spki: [u8; csr::P256_SPKI_LEN],
    spki_sha256: [u8; 32],
}

/// Why there is no pool or no request: a fault of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The drawn octets are no key, or the libraries disagree about what one is.
    Key,
    /// A request could not be written.
    Request,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "drawn octets are no P-256 key",
            Self::Request => "certification request could not be written",
        })
    }
}

impl std::error::Error for KeyError {}

impl Pool {
    /// Draws the keys.
    ///
    /// # Errors
    ///
    /// [`KeyError::Key`] if the octets are no key, which one draw in 2^32 would be.
    #[expect(
        clippy::disallowed_methods,
        reason = "ring signs with a nonce of its own; no event \
        depends on it"
    )]
    pub fn draw(dice: &mut Dice) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let keys = (0..POOL_LEN).map(|_| Key::new(&dice.octets(), &random)).collect();
        Ok(Self { keys: keys_or_error(keys)?, random })
    }

    fn key(&self, number: KeyNumber) -> &Key {
        &self.keys[usize::from(number.0) % POOL_LEN]
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self, number: KeyNumber) -> [u8; 32] {
        self.key(number).spki_sha256
    }

    /// A PKCS#10 request of `device` for the key, signed by it.
    ///
    /// # Errors
    ///
    /// [`KeyError::Request`] if it cannot be written.
    pub fn request(&self, number: KeyNumber, device: &DeviceId) -> Result<Vec<u8>, KeyError> {
        let key = self.key(number);
        let mut buffer = [0; REQUEST_LEN_MAX];
        let unsigned = UnsignedRequest::new(device, &key.spki, &[], &mut buffer)
            .map_err(|_| KeyError::Request)?;
        let signature =
            key.pair.sign(&self.random, unsigned.to_be_signed()).map_err(|_| KeyError::Request)?;
        let signature = P256Signature::parse(signature.as_ref()).map_err(|_| KeyError::Request)?;
        unsigned.finish(&signature).map(<[u8]>::to_vec).map_err(|_| KeyError::Request)
    }
}

fn keys_or_error(keys: Vec<Option<Key>>) -> Result<Vec<Key>, KeyError> {
    keys.into_iter().collect::<Option<Vec<_>>>().ok_or(KeyError::Key)
}

impl Key {
    fn new(secret: &[u8; 32], random: &SystemRandom) -> Option<Self> {
        let signing = SigningKey::from_slice(secret).ok()?;
        let point = signing.verifying_key().to_encoded_point(false);
        let point: [u8; csr::P256_POINT_LEN] = point.as_bytes().try_into().ok()?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            secret,
            &point,
            random,
        );
        let spki = csr::p256_spki(&point).ok()?;
        Some(Self { pair: pair.ok()?, spki, spki_sha256: Sha256::digest(spki).into() })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("len", &self.keys.len()).finish_non_exhaustive()
    }
}

/// The key store of one device.
#[derive(Clone, Debug)]
pub struct KeyStore {
    slots: [Option<KeyNumber>; 2],
    next: KeyNumber,
}

impl KeyStore {
    /// An empty key store; its first key will be one of the pool's.
    #[must_use]
    pub fn draw(dice: &mut Dice) -> Self {
        let first = u16::try_from(dice.below(POOL_LEN as u64)).unwrap_or(0);
        Self { slots: [None; 2], next: KeyNumber(first) }
    }

    /// The key in a slot.
    #[must_use]
    pub const fn key(&self, slot: Slot) -> Option<KeyNumber> {
        self.slots[slot.index()]
    }

    /// Makes a key, unless the slot has one.
    pub fn make(&mut self, slot: Slot) -> KeyNumber {
        let next = self.next;
        let key = *self.slots[slot.index()].get_or_insert(next);
        if key == next {
            self.next = KeyNumber((next.0 + 1) % POOL_LEN as u16);
        }
        key
    }

    /// Makes the slot hold the other slot's key, unless it has one; `None` if the other has none.
    pub fn copy(&mut self, slot: Slot) -> Option<KeyNumber> {
        let other = self.key(slot.other());
        let held = &mut self.slots[slot.index()];
        *held = held.or(other);
        *held
    }

    /// Erases a slot's key, or loses it.
    pub const fn erase(&mut self, slot: Slot) {
        self.slots[slot.index()] = None;
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::record::Slot;
    use fleetcert_provisioner::authority::PublicKey;

    use super::{Key, KeyStore, SystemRandom};
    use crate::sim::random::Dice;

    // Goal: both libraries mean the same key, and the provisioner takes it for one.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "as in the pool")]
    fn a_key_is_the_same_to_every_library() {
        let random = SystemRandom::new();
        let key = Key::new(&Dice::new(1, 0).octets(), &random).unwrap();
        let public = PublicKey::from_spki(&key.spki).unwrap();
        assert_eq!(public.fingerprint().0, key.spki_sha256);
        let signature = key.pair.sign(&random, b"message").unwrap();
        assert!(public.verifies(b"message", signature.as_ref()));
    }

    // Goal: a key stays until it is erased, and the next one is another.
    #[test]
    fn a_slot_keeps_its_key_until_it_is_erased() {
        let mut store = KeyStore::draw(&mut Dice::new(1, 0));
        assert_eq!(store.copy(Slot::B), None);
        let first = store.make(Slot::A);
        assert_eq!(store.make(Slot::A), first);
        assert_eq!(store.copy(Slot::B), Some(first));
        store.erase(Slot::A);
        assert_ne!(store.make(Slot::A), first);
        assert_eq!(store.key(Slot::B), Some(first));
    }
}
