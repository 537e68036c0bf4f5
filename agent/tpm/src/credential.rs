//! The symmetric half of a credential: a secret that only one TPM gives out, and only while it
//! holds one object.
//!
//! **What it is.** From a seed that only the endorsement key can recover, two keys: one encrypts
//! the secret, one authenticates it together with the Name of the object for which it may be given
//! out. How the seed gets to the endorsement key is public-key arithmetic and not done here.
//!
//! **What it must never do.** Use a seed twice: the initialisation vector is always zero, and the
//! key must therefore always be new.
//!
//! **Why that is sound.** The Name is in the derivation of the encryption key and under the HMAC.
//! A TPM that is asked to open the credential for another object derives another key and refuses
//! the HMAC before it decrypts anything. TPM 2.0 Part 1 §24.

use core::fmt;

use aes::cipher::KeyInit;
use aes::{Aes128, Aes256};
use zeroize::Zeroizing;

use crate::cfb::{self, Cipher, Direction};
use crate::hash::{DIGEST_LEN_MAX, HashAlg};
use crate::kdf::{Label, kdf_a};
use crate::name::Name;
use crate::public::AesKey;

/// Octets of a credential, at most: an HMAC of SHA-512 with its length, and an encrypted secret of
/// as many octets with its own.
pub const CREDENTIAL_LEN_MAX: usize = 2 * (LEN_LEN + DIGEST_LEN_MAX);

/// Octets of the length of a `TPM2B`.
const LEN_LEN: usize = 2;

/// The content of a `TPM2B_ID_OBJECT`: `TPM2B(HMAC) ‖ AES-CFB(TPM2B(secret))`.
#[doc(alias = "TPMS_ID_OBJECT")]
#[derive(Clone, PartialEq, Eq)]
pub struct IdObject {
    octets: [u8; CREDENTIAL_LEN_MAX],
    len: usize,
}

/// A secret longer than the digest of the endorsement key's algorithm: no TPM takes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretTooLong {
    /// Octets of the secret.
    pub found: usize,
    /// Octets allowed.
    pub max: usize,
}

impl IdObject {
    /// The octets, as `TPM2_ActivateCredential` takes them behind a length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// Wraps `secret` for the object of that Name. `name_alg` and `aes` are those of the endorsement
/// key's public area; `seed` has the length of that algorithm's digest. TPM 2.0 Part 1 §24.4.
///
/// # Errors
///
/// [`SecretTooLong`].
#[doc(alias = "MakeCredential")]
pub fn wrap(
    name_alg: HashAlg,
    seed: &[u8],
    aes: AesKey,
    object: &Name,
    secret: &[u8],
) -> Result<IdObject, SecretTooLong> {
    let (found, max) = (secret.len(), name_alg.digest_len());
    if found > max {
        return Err(SecretTooLong { found, max });
    }
    let hmac_len = LEN_LEN + name_alg.digest_len();
    let len = hmac_len + LEN_LEN + found;
    let mut octets = [0; CREDENTIAL_LEN_MAX];
    let (hmac, identity) = octets[..len].split_at_mut(hmac_len);
    put_sized(identity, secret);
    encrypt(name_alg, seed, aes, object, identity);
    put_sized(hmac, &integrity(name_alg, seed, object, identity)[..name_alg.digest_len()]);
    Ok(IdObject { octets, len })
}

/// Encrypts in place. TPM 2.0 Part 1 §24.4, equation (38).
fn encrypt(name_alg: HashAlg, seed: &[u8], aes: AesKey, object: &Name, identity: &mut [u8]) {
    let mut key = Zeroizing::new([0; 32]);
    let key = &mut key[..aes.key_len()];
    kdf_a(name_alg, seed, Label::Storage, object.as_bytes(), &[], key);
    match aes {
        AesKey::Bits128 => encrypt_with::<Aes128>(key, identity),
        AesKey::Bits256 => encrypt_with::<Aes256>(key, identity),
    }
}

#[expect(clippy::expect_used, reason = "the key has the length of its cipher")]
fn encrypt_with<C: KeyInit + Cipher>(key: &[u8], octets: &mut [u8]) {
    let cipher = C::new_from_slice(key).expect("a key of this length");
    cfb::apply(&cipher, Direction::Encrypt, &[0; 16], octets);
}

/// The HMAC over what is encrypted and the Name. TPM 2.0 Part 1 §24.4, equations (39) and (40).
fn integrity(
    name_alg: HashAlg,
    seed: &[u8],
    object: &Name,
    identity: &[u8],
) -> [u8; DIGEST_LEN_MAX] {
    let mut key = Zeroizing::new([0; DIGEST_LEN_MAX]);
    let key = &mut key[..name_alg.digest_len()];
    kdf_a(name_alg, seed, Label::Integrity, &[], &[], key);
    name_alg.hmac(key, &[identity, object.as_bytes()])
}

/// Writes the length of `content` and `content`: together exactly what `out` holds.
fn put_sized(out: &mut [u8], content: &[u8]) {
    let (len, rest) = out.split_at_mut(LEN_LEN);
    len.copy_from_slice(&(content.len() as u16).to_be_bytes());
    rest.copy_from_slice(content);
}

impl fmt::Debug for IdObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdObject({} octets)", self.len)
    }
}

impl fmt::Display for SecretTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret of {} octets, a credential carries at most {}", self.found, self.max)
    }
}

impl core::error::Error for SecretTooLong {}

#[cfg(test)]
mod tests;
