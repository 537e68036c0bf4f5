//! Public keys of endorsement, as one octet string each: what [`EkId`] is the SHA-256 of.
//!
//! **What it is.** The same endorsement key reaches us in two forms: as `SubjectPublicKeyInfo` of
//! a certificate and as `TPMT_PUBLIC` of the TPM. A [`Key`] is made from either, holds the numbers
//! only, and writes them as one *canonical* `SubjectPublicKeyInfo`:
//!
//! * RSA (2048, 3072 or 4096 bits): algorithm rsaEncryption with a NULL parameter (RFC 3279
//!   §2.3.1), modulus and exponent as minimal INTEGERs. Certificates in the field say
//!   id-RSAES-OAEP (RFC 4055 §4.1) for some keys and rsaEncryption for others; the numbers are the
//!   same, and so is what we write.
//! * P-256, P-384, P-521: id-ecPublicKey with the named curve, the point uncompressed (RFC 5480
//!   §2), each coordinate with all its leading zeros.
//!
//! For a certificate that says rsaEncryption or holds an elliptic curve key, the hash is therefore
//! what `openssl x509 -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum` prints. For
//! id-RSAES-OAEP it is not: there, the hash of the TPM's public area, written this way, counts.
//!
//! **What it must never do.** Give two names to one key: an allow-list would miss it, and a bound
//! endorsement key could be bound a second time. So nothing of the source's encoding (algorithm
//! name, parameters, stripped or added zeros) gets through.
//!
//! **Why that is sound.** [`Key`] can be made by its three constructors alone; each checks size,
//! exponent and that a point lies on its curve, and the writer sees nothing but the numbers.

use std::fmt;

use der::asn1::ObjectIdentifier;

use super::EkId;
use crate::authority::der::{
    BIT_STRING, INTEGER, OID, SEQUENCE, content, element, elements, split_element,
};

/// Bits of an RSA key that an endorsement key or its issuer may have.
pub const RSA_BITS: [usize; 3] = [2048, 3072, 4096];

/// The least public exponent of RSA.
pub const RSA_EXPONENT_MIN: u32 = 3;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

const NULL: [u8; 2] = [0x05, 0];

/// First octet of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// An elliptic curve that an endorsement key or its issuer may be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Curve {
    /// NIST P-256, secp256r1.
    P256,
    /// NIST P-384, secp384r1.
    P384,
    /// NIST P-521, secp521r1.
    P521,
}

/// A public key: the numbers, without what an encoding adds to them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Numbers);

/// What a [`Key`] consists of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Numbers {
    /// A point, uncompressed: `04 ‖ x ‖ y`.
    Ec { curve: Curve, point: Vec<u8> },
    /// A modulus, big-endian, its first octet not zero.
    Rsa { modulus: Vec<u8>, exponent: u32 },
}

/// Why something is no key that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// It is for another algorithm.
    Algorithm {
        /// Which.
        found: ObjectIdentifier,
    },
    /// A coordinate is longer than its curve has room for.
    Coordinate {
        /// The curve.
        curve: Curve,
        /// Octets of the longer one.
        found_len: usize,
    },
    /// It is on another curve, or its parameters are spelt out.
    Curve {
        /// Which, if it is named.
        found: Option<ObjectIdentifier>,
    },
    /// The public exponent is even, less than [`RSA_EXPONENT_MIN`], or has more than 32 bits.
    Exponent {
        /// The exponent, if it has no more.
        found: Option<u32>,
    },
    /// It is no DER of a `SubjectPublicKeyInfo`.
    Malformed,
    /// The modulus is of another length.
    ModulusBits {
        /// Its length.
        found: usize,
    },
    /// The point is not an uncompressed one, or not on its curve.
    Point {
        /// The curve.
        curve: Curve,
    },
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// Octets of a coordinate.
    #[must_use]
    pub const fn coordinate_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// Its object identifier (RFC 5480 §2.1.1.1).
    #[must_use]
    pub const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
            Self::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
            Self::P521 => ObjectIdentifier::new_unwrap("1.3.132.0.35"),
        }
    }

    fn contains(self, point: &[u8]) -> bool {
        match self {
            Self::P256 => p256::PublicKey::from_sec1_bytes(point).is_ok(),
            Self::P384 => p384::PublicKey::from_sec1_bytes(point).is_ok(),
            Self::P521 => p521::PublicKey::from_sec1_bytes(point).is_ok(),
        }
    }
}

impl Key {
    /// An RSA key of a modulus, big-endian, and an exponent.
    ///
    /// Zeros before the modulus do not count. A TPM writes 65537 as exponent 0 (TPM 2.0 Part 2
    /// §12.2.3.5): that is for its reader to undo, 0 is refused here.
    ///
    /// # Errors
    ///
    /// [`KeyError::ModulusBits`] unless its length is one of [`RSA_BITS`],
    /// [`KeyError::Exponent`].
    pub fn rsa(modulus: &[u8], exponent: u32) -> Result<Self, KeyError> {
        let modulus = stripped(modulus);
        let found = bits(modulus);
        if !RSA_BITS.contains(&found) {
            return Err(KeyError::ModulusBits { found });
        }
        if exponent < RSA_EXPONENT_MIN || exponent.is_multiple_of(2) {
            return Err(KeyError::Exponent { found: Some(exponent) });
        }
        Ok(Self(Numbers::Rsa { modulus: modulus.to_vec(), exponent }))
    }

    /// A key of a curve and the coordinates of a point, big-endian. A coordinate may lack leading
    /// zeros or have too many of them.
    ///
    /// # Errors
    ///
    /// [`KeyError::Coordinate`] if one is too long, [`KeyError::Point`] if they are of no point of
    /// that curve.
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let mut point = vec![UNCOMPRESSED];
        for coordinate in [stripped(x), stripped(y)] {
            let found_len = coordinate.len();
            let padding = curve.coordinate_len().checked_sub(found_len);
            let padding = padding.ok_or(KeyError::Coordinate { curve, found_len })?;
            point.resize(point.len() + padding, 0);
            point.extend_from_slice(coordinate);
        }
        Self::of_point(curve, &point)
    }

    /// Reads the DER of a `SubjectPublicKeyInfo`, whole: rsaEncryption or id-RSAES-OAEP, whose
    /// parameters say how the key may be used and not which one it is, or id-ecPublicKey.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let Spki { algorithm, parameters, key } = Spki::parse(der).ok_or(KeyError::Malformed)?;
        match algorithm {
            RSA_ENCRYPTION | RSAES_OAEP => Self::from_rsa_public_key(key),
            EC_PUBLIC_KEY => Self::of_point(named_curve(parameters)?, key),
            found => Err(KeyError::Algorithm { found }),
        }
    }

    fn of_point(curve: Curve, point: &[u8]) -> Result<Self, KeyError> {
        if point.first() != Some(&UNCOMPRESSED) || !curve.contains(point) {
            return Err(KeyError::Point { curve });
        }
        Ok(Self(Numbers::Ec { curve, point: point.to_vec() }))
    }

    /// Reads the DER of an `RSAPublicKey` (RFC 8017 appendix A.1.1), whole.
    fn from_rsa_public_key(der: &[u8]) -> Result<Self, KeyError> {
        let numbers = content(SEQUENCE, der).and_then(elements).ok_or(KeyError::Malformed)?;
        let [modulus, exponent] = numbers[..] else { return Err(KeyError::Malformed) };
        let modulus = unsigned(modulus).ok_or(KeyError::Malformed)?;
        let exponent = unsigned(exponent).ok_or(KeyError::Malformed)?;
        let exponent = small(exponent).ok_or(KeyError::Exponent { found: None })?;
        Self::rsa(modulus, exponent)
    }

    /// The canonical `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        let (algorithm, key) = match &self.0 {
            Numbers::Ec { curve, point } => {
                ([oid_der(EC_PUBLIC_KEY), oid_der(curve.oid())].concat(), point.clone())
            }
            Numbers::Rsa { modulus, exponent } => {
                let numbers = [integer(modulus), integer(stripped(&exponent.to_be_bytes()))];
                let key = element(SEQUENCE, &[&numbers[0], &numbers[1]]);
                ([oid_der(RSA_ENCRYPTION), NULL.to_vec()].concat(), key)
            }
        };
        let algorithm = element(SEQUENCE, &[&algorithm]);
        element(SEQUENCE, &[&algorithm, &element(BIT_STRING, &[&[0], &key])])
    }

    /// The name under which an endorsement key of this key is listed and bound.
    #[must_use]
    pub fn ek_id(&self) -> EkId {
        EkId::of_spki(&self.spki_der())
    }

    /// Whether it is an RSA key; else it is on an elliptic curve.
    #[must_use]
    pub const fn is_rsa(&self) -> bool {
        matches!(self.0, Numbers::Rsa { .. })
    }

    pub(super) const fn numbers(&self) -> &Numbers {
        &self.0
    }
}

/// A `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7), taken apart.
struct Spki<'a> {
    algorithm: ObjectIdentifier,
    parameters: &'a [u8],
    key: &'a [u8],
}

impl<'a> Spki<'a> {
    fn parse(der: &'a [u8]) -> Option<Self> {
        let [algorithm, key] = elements(content(SEQUENCE, der)?)?[..] else { return None };
        let (algorithm, parameters) = split_element(content(SEQUENCE, algorithm)?)?;
        let algorithm = ObjectIdentifier::from_bytes(content(OID, algorithm)?).ok()?;
        let key = content(BIT_STRING, key)?.strip_prefix(&[0])?;
        Some(Self { algorithm, parameters, key })
    }
}

fn named_curve(parameters: &[u8]) -> Result<Curve, KeyError> {
    let found = content(OID, parameters).and_then(|oid| ObjectIdentifier::from_bytes(oid).ok());
    let curve = Curve::ALL.into_iter().find(|curve| Some(curve.oid()) == found);
    curve.ok_or(KeyError::Curve { found })
}

/// The magnitude of an INTEGER that is not negative and not longer than it has to be.
fn unsigned(integer: &[u8]) -> Option<&[u8]> {
    match content(INTEGER, integer)? {
        [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => None,
        octets => Some(stripped(octets)),
    }
}

fn small(magnitude: &[u8]) -> Option<u32> {
    let mut octets = [0; 4];
    let start = octets.len().checked_sub(magnitude.len())?;
    octets[start..].copy_from_slice(magnitude);
    Some(u32::from_be_bytes(octets))
}

/// A number without the zeros before it.
pub(super) fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    &number[zeros..]
}

fn bits(magnitude: &[u8]) -> usize {
    let first_zeros = magnitude.first().map_or(0, |octet| octet.leading_zeros() as usize);
    magnitude.len() * 8 - first_zeros
}

fn integer(magnitude: &[u8]) -> Vec<u8> {
    let sign: &[u8] =
        if magnitude.first().is_some_and(|octet| *octet >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &[sign, magnitude])
}

fn oid_der(oid: ObjectIdentifier) -> Vec<u8> {
    element(OID, &[oid.as_bytes()])
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        })
    }
}

/// `RSA-2048` or `EC P-384`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Numbers::Ec { curve, .. } => write!(f, "EC {curve}"),
            Numbers::Rsa { modulus, .. } => write!(f, "RSA-{}", bits(modulus)),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self}, {})", self.ek_id())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm { found } => {
                write!(f, "the key is for algorithm {found}, expected RSA or EC")
            }
            Self::Coordinate { curve, found_len } => {
                let max = curve.coordinate_len();
                write!(f, "a coordinate has {found_len} octets, {curve} has at most {max}")
            }
            Self::Curve { found: Some(found) } => {
                write!(f, "the key is on curve {found}, expected P-256, P-384 or P-521")
            }
            Self::Curve { found: None } => {
                f.write_str("the key's curve has no name, expected P-256, P-384 or P-521")
            }
            Self::Exponent { found: Some(found) } => {
                write!(f, "the public exponent is {found}, expected an odd one from 3 on")
            }
            Self::Exponent { found: None } => {
                f.write_str("the public exponent has more than 32 bits")
            }
            Self::Malformed => f.write_str("the key is no SubjectPublicKeyInfo in DER"),
            Self::ModulusBits { found } => {
                write!(f, "the modulus has {found} bits, expected 2048, 3072 or 4096")
            }
            Self::Point { curve } => {
                write!(f, "the key is no uncompressed point of {curve}")
            }
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests;
