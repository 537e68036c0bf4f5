//! A PKCS#10 request, written without its signer (RFC 2986, RFC 7030 §4.2.1).
//!
//! **What it is.** [`UnsignedRequest`] lays the `CertificationRequestInfo` out in a caller's
//! buffer; the caller signs those bytes with a key that this module never sees (a file, a TPM);
//! [`UnsignedRequest::finish`] puts request, algorithm and signature together in the same buffer.
//!
//! **What it must never do.** Ask for rights: the subject is the device id and nothing else. What
//! a certificate says is decided by policy and by the authenticated identity, not by its request.
//!
//! **Why that is sound.** Lengths are known before the first octet is written, so a buffer is
//! either large enough or untouched; the token is consumed by its signature.

use core::fmt;

use crate::der::reader::{Reader, Tag};
use crate::der::{self, TooSmall, Writer, lay_out};
use crate::device_id::DeviceId;

/// Octets of an uncompressed P-256 point: `04 ‖ x ‖ y` (SEC 1 §2.3.3).
pub const P256_POINT_LEN: usize = 65;

/// Octets of the `SubjectPublicKeyInfo` of a P-256 key.
pub const P256_SPKI_LEN: usize = P256_SPKI_PREFIX.len() + P256_POINT_LEN;

/// Octets of the raw signature `r ‖ s` of a P-256 key.
pub const P256_RAW_SIGNATURE_LEN: usize = 2 * P256_SCALAR_LEN;

/// Octets of an `ECDSA-Sig-Value` of a P-256 key, at most: two INTEGERs of 33 octets.
pub const P256_SIGNATURE_LEN_MAX: usize = 72;

/// Octets of a coordinate or a scalar of P-256.
const P256_SCALAR_LEN: usize = 32;

/// `id-ecPublicKey` on `prime256v1`, and the head of the BIT STRING (RFC 5480 §2).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// `ecdsa-with-SHA256`, without parameters (RFC 5758 §3.2), DER with its header.
const ECDSA_WITH_SHA256: [u8; 12] =
    [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// The version of PKCS#10, 0, DER with its header (RFC 2986 §4.1).
const VERSION: [u8; 3] = [0x02, 0x01, 0x00];

/// `id-at-commonName`, DER with its header.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

/// The tag of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 0x04;

/// The attributes of a request, `[0] IMPLICIT SET OF Attribute` (RFC 2986 §4.1).
const ATTRIBUTES: Tag = Tag::context(0);

/// Why a request cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CsrError {
    /// The attributes are not SEQUENCEs in the order of a DER SET OF (X.690 §11.6).
    Attributes,
    /// The caller's buffer is too small.
    Buffer {
        /// The octets it has.
        found: usize,
        /// The octets it should have.
        needed: usize,
    },
    /// The public key is not one `SubjectPublicKeyInfo`, or not an uncompressed point.
    PublicKey,
    /// The signature is no `ECDSA-Sig-Value` on P-256: a part is zero, negative, longer than 32
    /// octets or not in its shortest form.
    Signature,
}

/// A signature by a P-256 key: an `ECDSA-Sig-Value` (RFC 5480 appendix A) that DER admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "ECDSA-Sig-Value")]
pub struct P256Signature {
    der: [u8; P256_SIGNATURE_LEN_MAX],
    len: usize,
}

/// A request in a caller's buffer that waits for its signature.
#[derive(Debug)]
pub struct UnsignedRequest<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

/// The `SubjectPublicKeyInfo` of a P-256 key, DER, from its uncompressed point.
///
/// # Errors
///
/// [`CsrError::PublicKey`] if the point is not of that form. Whether it lies on the curve is not
/// checked.
pub fn p256_spki(point: &[u8; P256_POINT_LEN]) -> Result<[u8; P256_SPKI_LEN], CsrError> {
    if point.first() != Some(&UNCOMPRESSED) {
        return Err(CsrError::PublicKey);
    }
    let mut spki = [0; P256_SPKI_LEN];
    let (prefix, rest) = spki.split_at_mut(P256_SPKI_PREFIX.len());
    prefix.copy_from_slice(&P256_SPKI_PREFIX);
    rest.copy_from_slice(point);
    Ok(spki)
}

impl P256Signature {
    /// Octets of a signature, at most.
    pub const MAX_LEN: usize = P256_SIGNATURE_LEN_MAX;

    /// Takes a signature that is already an `ECDSA-Sig-Value`.
    ///
    /// # Errors
    ///
    /// [`CsrError::Signature`] if it is not the only one that its two numbers have.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        let signature = Self::read(der).ok_or(CsrError::Signature)?;
        if signature.as_der() == der { Ok(signature) } else { Err(CsrError::Signature) }
    }

    fn read(der: &[u8]) -> Option<Self> {
        let mut parts = der::inside(der, Tag::SEQUENCE)?;
        let r = parts.content(Tag::INTEGER)?;
        let s = parts.content(Tag::INTEGER)?;
        Self::from_parts(r, s).ok()
    }

    /// Takes `r ‖ s`, each of 32 octets, big-endian (PKCS#11 and most libraries).
    ///
    /// # Errors
    ///
    /// [`CsrError::Signature`] if a part is zero.
    pub fn from_raw(raw: &[u8; P256_RAW_SIGNATURE_LEN]) -> Result<Self, CsrError> {
        let (r, s) = raw.split_at(P256_SCALAR_LEN);
        Self::from_parts(r, s)
    }

    /// Takes `r` and `s`, big-endian, with or without leading zeros (a TPM gives either).
    ///
    /// # Errors
    ///
    /// [`CsrError::Signature`] if a part is zero or needs more than 32 octets.
    pub fn from_parts(r: &[u8], s: &[u8]) -> Result<Self, CsrError> {
        let (r, s) = (Unsigned::new(r)?, Unsigned::new(s)?);
        let mut der = [0; P256_SIGNATURE_LEN_MAX];
        let written = lay_out(&mut der, &mut |writer| {
            s.put(writer);
            r.put(writer);
            writer.wrap(Tag::SEQUENCE, 0);
        });
        let len = written.map_err(|_| CsrError::Signature)?.len();
        Ok(Self { der, len })
    }

    /// The `ECDSA-Sig-Value`, DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        self.der.get(..self.len).unwrap_or_default()
    }
}

/// A positive number without leading zeros, of at most [`P256_SCALAR_LEN`] octets.
struct Unsigned<'a>(&'a [u8]);

impl<'a> Unsigned<'a> {
    fn new(octets: &'a [u8]) -> Result<Self, CsrError> {
        let zeros = octets.iter().take_while(|octet| **octet == 0).count();
        match octets.get(zeros..) {
            Some(octets) if (1..=P256_SCALAR_LEN).contains(&octets.len()) => Ok(Self(octets)),
            _ => Err(CsrError::Signature),
        }
    }

    fn put(&self, writer: &mut Writer<'_>) {
        let since = writer.len();
        writer.put(self.0);
        if self.0.first().is_some_and(|octet| octet & 0x80 != 0) {
            writer.put(&[0]);
        }
        writer.wrap(Tag::INTEGER, since);
    }
}

impl<'b> UnsignedRequest<'b> {
    /// Writes what is to be signed to `buffer`: the device id as the only common name, the public
    /// key, and `attributes`: each an `Attribute` in DER, one behind the other, or none.
    ///
    /// # Errors
    ///
    /// [`CsrError`] names what does not fit.
    pub fn new(
        device_id: &DeviceId,
        spki: &[u8],
        attributes: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<Self, CsrError> {
        der::only(spki, Tag::SEQUENCE).ok_or(CsrError::PublicKey)?;
        check_attributes(attributes)?;
        let info = lay_out(buffer, &mut |writer| {
            writer.element(ATTRIBUTES, attributes);
            writer.put(spki);
            put_name(writer, device_id);
            writer.put(&VERSION);
            writer.wrap(Tag::SEQUENCE, 0);
        })?;
        let len = info.len();
        Ok(Self { buffer, len })
    }

    /// The `CertificationRequestInfo`: sign SHA-256 of this with ECDSA.
    #[must_use]
    #[doc(alias = "CertificationRequestInfo")]
    pub fn to_be_signed(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Puts the request together; it begins at the front of the buffer (RFC 2986 §4.2).
    ///
    /// # Errors
    ///
    /// [`CsrError::Buffer`] if the signature does not fit behind what it signs.
    pub fn finish(self, signature: &P256Signature) -> Result<&'b [u8], CsrError> {
        let Self { buffer, len: info } = self;
        let request = lay_out(buffer, &mut |writer| {
            writer.put(signature.as_der());
            // No bit of the last octet is unused (X.690 §8.6.2).
            writer.put(&[0]);
            writer.wrap(Tag::BIT_STRING, 0);
            writer.put(&ECDSA_WITH_SHA256);
            writer.put_front(info);
            writer.wrap(Tag::SEQUENCE, 0);
        })?;
        Ok(request)
    }
}

/// X.690 §11.6: the elements of a SET OF stand in ascending order of their encodings.
fn check_attributes(attributes: &[u8]) -> Result<(), CsrError> {
    let mut reader = Reader::new(attributes);
    let mut previous: &[u8] = &[];
    while !reader.is_finished() {
        let attribute = reader.whole(Tag::SEQUENCE).ok_or(CsrError::Attributes)?;
        if attribute <= previous {
            return Err(CsrError::Attributes);
        }
        previous = attribute;
    }
    Ok(())
}

/// A distinguished name of one common name, a UTF8String (RFC 5280 §4.1.2.4).
fn put_name(writer: &mut Writer<'_>, device_id: &DeviceId) {
    let since = writer.len();
    writer.element(Tag::UTF8_STRING, device_id.as_str().as_bytes());
    writer.put(&COMMON_NAME);
    for tag in [Tag::SEQUENCE, Tag::SET, Tag::SEQUENCE] {
        writer.wrap(tag, since);
    }
}

impl From<TooSmall> for CsrError {
    fn from(TooSmall { found, needed }: TooSmall) -> Self {
        Self::Buffer { found, needed }
    }
}

impl fmt::Display for CsrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Attributes => f.write_str("request attributes are no DER SET OF SEQUENCEs"),
            Self::Buffer { found, needed } => {
                write!(f, "request needs {needed} octets, there are {found}")
            }
            Self::PublicKey => f.write_str("public key is not in the form of a request"),
            Self::Signature => f.write_str("signature is not one of a P-256 key"),
        }
    }
}

impl core::error::Error for CsrError {}

#[cfg(test)]
mod tests;
