//! Evidence about a key, as an attribute of the request that asks for its certificate.
//!
//! **What it is.** The attribute `id-aa-attestation` of draft-ietf-lamps-csr-attestation with one
//! statement, `tcg-attest-tpm-certify`: what `TPM2_Certify` said of the key, the signature over
//! that, and the key's public area. An EST server that knows nothing of it leaves it alone.
//! `docs/design/attestation.md` lays it out byte by byte.
//!
//! **What it must never do.** Judge: what is in the three parts is the TPM's and the verifier's
//! affair. They are carried as they are, octet for octet, since one of them is signed.
//!
//! **Why that is sound.** Lengths are known before the first octet is written, so a buffer is
//! either large enough or untouched.

use core::fmt;

use ::der::asn1::ObjectIdentifier;

use crate::der::reader::Tag;
use crate::der::{TooSmall, Writer, lay_out};

/// `id-aa-attestation`: the attribute of a PKCS#10 request.
pub const ID_AA_ATTESTATION: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.59");

/// `tcg-attest-tpm-certify`: the kind of statement.
pub const TCG_ATTEST_TPM_CERTIFY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.20.1");

/// Octets of the attribute with the evidence of a P-256 key, certified by a key of at most
/// RSA-4096, at most. With P-256 for both it takes some 370.
pub const EVIDENCE_ATTRIBUTE_LEN_MAX: usize = 1280;

/// What a TPM said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "Tcg-attest-tpm-certify")]
pub struct Evidence<'a> {
    /// What was signed: a `TPMS_ATTEST` of `TPM2_Certify`.
    pub attest: &'a [u8],
    /// By whom and how: a `TPMT_SIGNATURE`.
    pub signature: &'a [u8],
    /// The key it is about: a `TPMT_PUBLIC`.
    pub public: &'a [u8],
}

/// A buffer that does not hold the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// The octets it has.
    pub found: usize,
    /// The octets it should have.
    pub needed: usize,
}

impl Evidence<'_> {
    /// Writes the attribute to the front of `out`, for
    /// [`UnsignedRequest::new`](super::csr::UnsignedRequest::new).
    ///
    /// # Errors
    ///
    /// [`BufferTooSmall`], with nothing that may be used in `out`.
    pub fn attribute<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], BufferTooSmall> {
        let written = lay_out(out, &mut |writer| self.write(writer));
        written.map_err(|TooSmall { found, needed }| BufferTooSmall { found, needed })
    }

    /// Octets that the attribute takes.
    #[must_use]
    pub fn attribute_len(&self) -> usize {
        let mut counted = Writer::counting();
        self.write(&mut counted);
        counted.len()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        for part in [self.public, self.signature, self.attest] {
            writer.element(Tag::OCTET_STRING, part);
        }
        writer.wrap(Tag::SEQUENCE, 0);
        for level in &LEVELS {
            if let Some(oid) = level.oid {
                writer.element(Tag::OBJECT_IDENTIFIER, oid.as_bytes());
            }
            writer.wrap(level.tag, 0);
        }
    }
}

/// What stands around the statement's content: a tag, and an identifier first of what is inside.
struct Level {
    tag: Tag,
    oid: Option<&'static ObjectIdentifier>,
}

impl Level {
    const fn of(tag: Tag) -> Self {
        Self { tag, oid: None }
    }
}

/// From the innermost: `AttestationStatement`, `SEQUENCE OF`, `AttestationBundle`, the set of the
/// attribute's values, `Attribute`.
const LEVELS: [Level; 5] = [
    Level { tag: Tag::SEQUENCE, oid: Some(&TCG_ATTEST_TPM_CERTIFY) },
    Level::of(Tag::SEQUENCE),
    Level::of(Tag::SEQUENCE),
    Level::of(Tag::SET),
    Level { tag: Tag::SEQUENCE, oid: Some(&ID_AA_ATTESTATION) },
];

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evidence needs {} octets, there are {}", self.needed, self.found)
    }
}

impl core::error::Error for BufferTooSmall {}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::der::testing::tlv;
    use crate::device_id::DeviceId;
    use crate::est::csr::{UnsignedRequest, p256_spki};

    /// The same, put together the plain way.
    fn by_hand(evidence: &Evidence<'_>) -> Vec<u8> {
        let parts = [evidence.attest, evidence.signature, evidence.public];
        let parts: Vec<u8> = parts.iter().flat_map(|part| tlv(0x04, part)).collect();
        let certify = [b"\x06\x05\x67\x81\x05\x14\x01".to_vec(), tlv(0x30, &parts)].concat();
        let bundle = tlv(0x30, &tlv(0x30, &tlv(0x30, &certify)));
        let attestation = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x3b";
        tlv(0x30, &[attestation.to_vec(), tlv(0x31, &bundle)].concat())
    }

    // Goal: the attribute is the DER that docs/design/attestation.md shows.
    #[test]
    fn evidence_is_these_octets() {
        let evidence = Evidence { attest: &[0xa1, 0xa2], signature: &[0x51], public: &[0x70] };
        let expected: &[u8] = b"\x30\x28\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x3b\
            \x31\x19\x30\x17\x30\x15\x30\x13\x06\x05\x67\x81\x05\x14\x01\
            \x30\x0a\x04\x02\xa1\xa2\x04\x01\x51\x04\x01\x70";
        assert_eq!(evidence.attribute(&mut [0; 64]), Ok(expected));
        assert_eq!(by_hand(&evidence), expected);
    }

    // Goal: lengths are right on both sides of each boundary of DER, at every level.
    #[test]
    fn evidence_of_any_length_is_der() {
        let octets = vec![7; 700];
        for len in 0..=700 {
            let evidence =
                Evidence { attest: &octets[..len], signature: &octets[..len / 3], public: &[1] };
            let mut out = vec![0; evidence.attribute_len()];
            assert_eq!(evidence.attribute(&mut out).unwrap(), by_hand(&evidence), "{len}");
            let short = evidence.attribute(&mut out[1..]).unwrap_err();
            let needed = evidence.attribute_len();
            assert_eq!(short, BufferTooSmall { found: needed - 1, needed });
        }
    }

    // Goal: a request takes it as it is, and the largest that we make fits the limit.
    #[test]
    fn a_request_carries_evidence() {
        let (attest, signature, public) = ([1; 256], [2; 4 + 2 + 512], [3; 128]);
        let evidence = Evidence { attest: &attest, signature: &signature, public: &public };
        let mut out = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
        let attribute = evidence.attribute(&mut out).unwrap();
        let (device, mut point) = (DeviceId::parse("gw-1").unwrap(), [4; 65]);
        point[0] = 4;
        let spki = p256_spki(&point).unwrap();
        let mut buffer = [0; 2048];
        let request = UnsignedRequest::new(&device, &spki, attribute, &mut buffer).unwrap();
        assert!(request.to_be_signed().ends_with(attribute));
    }
}
