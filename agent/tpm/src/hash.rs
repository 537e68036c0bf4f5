//! The hash algorithms that a Name, a seed or a policy of ours may use.

use sha2::{Digest, Sha256, Sha384};

/// Octets of the longest digest of [`HashAlg`].
pub const DIGEST_LEN_MAX: usize = 48;

/// A hash algorithm. SHA-1 is left out on purpose: no key that we trust is named by it.
#[doc(alias = "TPMI_ALG_HASH")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlg {
    /// `TPM_ALG_SHA256`
    Sha256,
    /// `TPM_ALG_SHA384`
    Sha384,
}

impl HashAlg {
    /// The identifier on the wire. TPM 2.0 Part 2 §6.3.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
        }
    }

    /// The algorithm of an identifier; `None` for one that we do not use.
    #[must_use]
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x000B => Some(Self::Sha256),
            0x000C => Some(Self::Sha384),
            _ => None,
        }
    }

    /// Octets of its digest.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    /// The digest of the concatenated `parts`, in the first [`HashAlg::digest_len`] octets.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> [u8; DIGEST_LEN_MAX] {
        match self {
            Self::Sha256 => digest_with::<Sha256>(parts),
            Self::Sha384 => digest_with::<Sha384>(parts),
        }
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
        for alg in [HashAlg::Sha256, HashAlg::Sha384] {
            assert_eq!(HashAlg::from_id(alg.id()), Some(alg));
        }
        assert_eq!(HashAlg::from_id(0x0004), None);
    }
}
