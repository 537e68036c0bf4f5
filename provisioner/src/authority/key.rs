//! Public keys as certificates carry them: P-256 points and their names.

use std::fmt;

use ring::{digest, signature};

/// Octets of an uncompressed P-256 point (SEC 1 §2.3.3).
pub(crate) const POINT_LEN: usize = 65;

/// The DER of `SubjectPublicKeyInfo` before the point: id-ecPublicKey, prime256v1, BIT STRING
/// (RFC 5480 §2).
pub(crate) const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// SHA-256 of a `SubjectPublicKeyInfo`: how requests, tokens and operators name a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyFingerprint(pub [u8; 32]);

/// A key identifier: the leftmost 160 bits of the SHA-256 of the point (RFC 7093 §2, method 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 20]);

/// A P-256 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; SPKI_PREFIX.len() + POINT_LEN]);

/// Why octets are no key that we certify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyError {
    /// The point is not an uncompressed point of the curve.
    Point,
    /// The algorithm or its curve is not P-256.
    Algorithm,
}

impl PublicKey {
    /// Takes the DER of a `SubjectPublicKeyInfo`, whole.
    ///
    /// Whether the point lies on the curve is for the first signature check to find out.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] unless it is an uncompressed P-256 point.
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        let Some(point) = der.strip_prefix(&SPKI_PREFIX[..]) else {
            let same_algorithm = der.get(2..23) == SPKI_PREFIX.get(2..23);
            return Err(if same_algorithm {
                PublicKeyError::Point
            } else {
                PublicKeyError::Algorithm
            });
        };
        if point.len() != POINT_LEN || point[0] != 4 {
            return Err(PublicKeyError::Point);
        }
        let mut spki = [0; SPKI_PREFIX.len() + POINT_LEN];
        spki.copy_from_slice(der);
        Ok(Self(spki))
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    #[must_use]
    pub const fn spki(&self) -> &[u8] {
        &self.0
    }

    /// The uncompressed point, 65 octets.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.0[SPKI_PREFIX.len()..]
    }

    /// The name of the key in requests, tokens and approvals.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint(sha256(&self.0))
    }

    /// The name of the key in certificates.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut id = [0; 20];
        id.copy_from_slice(&sha256(self.point())[..20]);
        KeyId(id)
    }

    /// Whether `signature` (ECDSA-Sig-Value, SHA-256) over `message` is by this key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, self.point())
            .verify(message, signature)
            .is_ok()
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({self})")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl fmt::Display for PublicKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Algorithm => "the public key is of another kind, expected EC P-256",
            Self::Point => "the public key is no uncompressed point of P-256",
        })
    }
}

impl std::error::Error for PublicKeyError {}
