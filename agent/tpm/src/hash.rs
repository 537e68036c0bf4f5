//! The hash algorithms that a Name, a seed or a policy of ours may use.

use core::fmt;

use hmac::digest::KeyInit;
use hmac::{Mac, SimpleHmac};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Octets of the longest digest of [`HashAlg`].
pub const DIGEST_LEN_MAX: usize = 64;

/// A hash algorithm. SHA-1 is left out on purpose: no key that we trust is named by it. The others
/// of the TPM's registry (SM3, SHA-3) name no key of a profile that we know how to use.
#[doc(alias = "TPMI_ALG_HASH")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlg {
    /// `TPM_ALG_SHA256`
    Sha256,
    /// `TPM_ALG_SHA384`
    Sha384,
    /// `TPM_ALG_SHA512`
    Sha512,
}

impl HashAlg {
    /// The identifier on the wire. TPM 2.0 Part 2 §6.3.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// The algorithm of an identifier; `None` for one that we do not use.
    #[must_use]
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x000B => Some(Self::Sha256),
            0x000C => Some(Self::Sha384),
            0x000D => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Octets of its digest.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of the concatenated `parts`, in the first [`HashAlg::digest_len`] octets.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> [u8; DIGEST_LEN_MAX] {
        match self {
            Self::Sha256 => digest_with::<Sha256>(parts),
            Self::Sha384 => digest_with::<Sha384>(parts),
            Self::Sha512 => digest_with::<Sha512>(parts),
        }
    }

    /// The HMAC (RFC 2104) of the concatenated `parts`, in the first [`HashAlg::digest_len`]
    /// octets. By the implementation that TLS has, too, so that a device needs no second one.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_LEN_MAX] {
        match self {
            Self::Sha256 => hmac_with::<SimpleHmac<Sha256>>(key, parts),
            Self::Sha384 => hmac_with::<SimpleHmac<Sha384>>(key, parts),
            Self::Sha512 => hmac_with::<SimpleHmac<Sha512>>(key, parts),
        }
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104 §2)")]
fn hmac_with<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_LEN_MAX] {
    let mut mac = <M as Mac>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    let mut octets = [0; DIGEST_LEN_MAX];
    octets[..M::output_size()].copy_from_slice(&mac.finalize().into_bytes());
    octets
}

impl fmt::Display for HashAlg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        })
    }
}

fn digest_with<D: Digest>(parts: &[&[u8]]) -> [u8; DIGEST_LEN_MAX] {
    let mut hasher = D::new();
    for part in parts {
        hasher.update(part);
    }
    let mut digest = [0; DIGEST_LEN_MAX];
    digest[..<D as Digest>::output_size()].copy_from_slice(&hasher.finalize());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an algorithm is found again by its identifier, and SHA-1 by none.
    #[test]
    fn identifiers_lead_back_to_their_algorithm() {
        for alg in [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512] {
            assert_eq!(HashAlg::from_id(alg.id()), Some(alg));
        }
        assert_eq!(HashAlg::from_id(0x0004), None);
    }

    /// Goal: each algorithm gives its own digest of the whole length: the first and last octets of
    /// the answers to "abc" in FIPS 180-4.
    #[test]
    fn digests_are_those_of_the_standard() {
        for (alg, first, last) in [
            (HashAlg::Sha256, 0xba, 0xad),
            (HashAlg::Sha384, 0xcb, 0xa7),
            (HashAlg::Sha512, 0xdd, 0x9f),
        ] {
            let digest = alg.digest(&[b"a", b"bc"]);
            assert_eq!((digest[0], digest[alg.digest_len() - 1]), (first, last), "{alg:?}");
            assert!(digest[alg.digest_len()..].iter().all(|octet| *octet == 0), "{alg:?}");
        }
    }
}
