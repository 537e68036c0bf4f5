//! Signatures as a TPM writes them.
//!
//! A view of a marshalled `TPMT_SIGNATURE` in one of the three schemes that a verifier of ours
//! knows. Numbers are left as they came: whether they are in range for a key, and whether the
//! signature is right, takes the key.

use core::fmt;

use crate::public::{COORDINATE_LEN_MAX, HashId, MODULUS_LEN_MAX, Scheme};
use crate::reader::{Framing, Reader};

/// Octets of a signature, at most: RSA-4096 with scheme, hash and length.
pub const SIGNATURE_LEN_MAX: usize = 6 + MODULUS_LEN_MAX;

/// A signature of a TPM.
#[doc(alias = "TPMT_SIGNATURE")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature<'a> {
    /// `TPM_ALG_ECDSA`
    Ecdsa {
        /// What hashed the message.
        hash: HashId,
        /// A number, big-endian; zeros in front may be left out.
        r: &'a [u8],
        /// The other one.
        s: &'a [u8],
    },
    /// `TPM_ALG_RSAPSS`
    RsaPss {
        /// What hashed the message.
        hash: HashId,
        /// A number, big-endian.
        signature: &'a [u8],
    },
    /// `TPM_ALG_RSASSA`
    RsaSsa {
        /// What hashed the message.
        hash: HashId,
        /// A number, big-endian.
        signature: &'a [u8],
    },
}

/// Why octets are no signature that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// It is too long, too short, or has something behind it.
    Framing(Framing),
    /// It is in another scheme.
    Scheme {
        /// The identifier of the scheme.
        found: u16,
    },
}

const RSASSA: u16 = 0x0014;
const RSAPSS: u16 = 0x0016;
const ECDSA: u16 = 0x0018;

impl<'a> Signature<'a> {
    /// Reads a signature, whole. TPM 2.0 Part 2 §11.3.4.
    ///
    /// # Errors
    ///
    /// [`SignatureError`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, SignatureError> {
        let mut reader = Reader::new(octets);
        let parsed = match reader.u16()? {
            ECDSA => Self::Ecdsa {
                hash: HashId(reader.u16()?),
                r: reader.sized(COORDINATE_LEN_MAX)?,
                s: reader.sized(COORDINATE_LEN_MAX)?,
            },
            RSAPSS => Self::RsaPss {
                hash: HashId(reader.u16()?),
                signature: reader.sized(MODULUS_LEN_MAX)?,
            },
            RSASSA => Self::RsaSsa {
                hash: HashId(reader.u16()?),
                signature: reader.sized(MODULUS_LEN_MAX)?,
            },
            found => return Err(SignatureError::Scheme { found }),
        };
        reader.finish()?;
        Ok(parsed)
    }

    /// The scheme that it says it is in, as the public area of its key would have it.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        match *self {
            Self::Ecdsa { hash, .. } => Scheme::Ecdsa(hash),
            Self::RsaPss { hash, .. } => Scheme::RsaPss(hash),
            Self::RsaSsa { hash, .. } => Scheme::RsaSsa(hash),
        }
    }
}

impl From<Framing> for SignatureError {
    fn from(framing: Framing) -> Self {
        Self::Framing(framing)
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(framing) => framing.fmt(f),
            Self::Scheme { found } => {
                write!(f, "signature scheme {found:#06x} is none of ECDSA, RSASSA and RSAPSS")
            }
        }
    }
}

impl core::error::Error for SignatureError {}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const SHA256: HashId = HashId(0x000B);

    fn sized(octets: &[u8]) -> Vec<u8> {
        [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat()
    }

    /// Goal: each scheme is read as itself.
    #[test]
    fn every_scheme_is_read() {
        let ecdsa = [&b"\0\x18\0\x0b"[..], &sized(&[1; 32]), &sized(&[2; 31])].concat();
        let parsed = Signature::Ecdsa { hash: SHA256, r: &[1; 32], s: &[2; 31] };
        assert_eq!(Signature::parse(&ecdsa), Ok(parsed));

        let pss = [&b"\0\x16\0\x0b"[..], &sized(&[3; 256])].concat();
        let parsed = Signature::RsaPss { hash: SHA256, signature: &[3; 256] };
        assert_eq!(Signature::parse(&pss), Ok(parsed));

        let ssa = [&b"\0\x14\0\x04"[..], &sized(&[4; 512])].concat();
        let parsed = Signature::RsaSsa { hash: HashId(4), signature: &[4; 512] };
        assert_eq!(Signature::parse(&ssa), Ok(parsed));
        assert_eq!(ssa.len(), SIGNATURE_LEN_MAX);
    }

    /// Goal: each prefix is refused, and so is anything behind.
    #[test]
    fn only_whole_signatures_are_read() {
        let octets = [&b"\0\x18\0\x0b"[..], &sized(&[1; 4]), &sized(&[2; 4])].concat();
        for len in 0..octets.len() {
            let refused = Signature::parse(&octets[..len]);
            assert!(
                matches!(refused, Err(SignatureError::Framing(Framing::Truncated { .. }))),
                "{len}: {refused:?}"
            );
        }
        let longer = [octets, vec![0]].concat();
        let refused = SignatureError::Framing(Framing::Trailing { found: 1 });
        assert_eq!(Signature::parse(&longer), Err(refused));
    }

    /// Goal: numbers too long for any key, and other schemes, are refused with what was found.
    #[test]
    fn foreign_signatures_are_refused() {
        let long = [&b"\0\x18\0\x0b"[..], &sized(&[1; 67])].concat();
        let refused = Signature::parse(&long).unwrap_err();
        assert_eq!(refused.to_string(), "a part of 67 octets, at most 66 are allowed");
        let long = [&b"\0\x14\0\x0b"[..], &sized(&[1; 513])].concat();
        let refused = Signature::parse(&long).unwrap_err();
        assert_eq!(refused.to_string(), "a part of 513 octets, at most 512 are allowed");
        let refused = Signature::parse(&[0, 5, 0, 0x0b]).unwrap_err();
        let said = "signature scheme 0x0005 is none of ECDSA, RSASSA and RSAPSS";
        assert_eq!(refused.to_string(), said);
    }
}
