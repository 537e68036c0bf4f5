//! The certs-only CMS message, which EST answers with (RFC 7030 §4.1.3 and §4.2.3).
//!
//! RFC 5652 §5.1 with nothing signed and nobody signing: a bag of certificates. A message that
//! carries content or signers is refused: who reads a bag of certificates would not check either.

use core::fmt;

use crate::der;
use crate::der::reader::{Reader, Tag};

/// Certificates in one message, at most: a root, an issuing authority, and during a rollover the
/// new ones and those that link them (RFC 4210 §4.4), of two trees, with room to spare.
pub const CERTIFICATES_MAX: usize = 16;

/// `id-signedData`, content octets (RFC 5652 §5.1).
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// `id-data`, content octets (RFC 5652 §4).
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// The version of a message with X.509 certificates and `id-data` (RFC 5652 §5.1).
const VERSION: &[u8] = &[1];

/// The certificates of a message, each DER with its header, in the order of the message.
#[derive(Clone, Debug)]
pub struct CertificateBag<'a> {
    rest: Option<Reader<'a>>,
    len: usize,
}

/// Why bytes are no bag of certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmsError {
    /// There are other than one certificate where one is wanted, or more than
    /// [`CERTIFICATES_MAX`].
    Count {
        /// How many there are.
        found: usize,
    },
    /// Not a SignedData in DER, or of a version that is not for certificates alone.
    Malformed,
    /// It carries content or signers.
    NotCertsOnly,
}

impl<'a> CertificateBag<'a> {
    /// Reads a message, which must be all of `message`.
    ///
    /// # Errors
    ///
    /// [`CmsError`] if it is anything but a bag of at most [`CERTIFICATES_MAX`] certificates. What
    /// is in the certificates is not looked at.
    pub fn parse(message: &'a [u8]) -> Result<Self, CmsError> {
        let signed_data = read_content_info(message).ok_or(CmsError::Malformed)?;
        let mut fields = der::inside(signed_data, Tag::SEQUENCE).ok_or(CmsError::Malformed)?;
        let version = fields.content(Tag::INTEGER).ok_or(CmsError::Malformed)?;
        if version != VERSION {
            return Err(CmsError::Malformed);
        }
        read_empty_set(&mut fields)?;
        read_absent_content(&mut fields)?;
        let bag = read_certificates(&mut fields)?;
        skip_crls(&mut fields)?;
        read_empty_set(&mut fields)?;
        if fields.is_finished() { Ok(bag) } else { Err(CmsError::Malformed) }
    }

    /// How many certificates are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no certificate is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The certificate, if there is exactly one: an answer to an enrollment holds the issued
    /// certificate and nothing else (RFC 7030 §4.2.3).
    ///
    /// # Errors
    ///
    /// [`CmsError::Count`] if there is none or more than one.
    pub fn only(mut self) -> Result<&'a [u8], CmsError> {
        let count = CmsError::Count { found: self.len };
        match (self.len, self.next()) {
            (1, Some(certificate)) => Ok(certificate),
            _ => Err(count),
        }
    }
}

impl<'a> Iterator for CertificateBag<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let certificate = self.rest.as_mut()?.whole(Tag::SEQUENCE)?;
        self.len -= 1;
        Some(certificate)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for CertificateBag<'_> {}

/// RFC 5652 §3: the content of `[0] EXPLICIT`, DER with its header.
fn read_content_info(message: &[u8]) -> Option<&[u8]> {
    let mut fields = der::inside(message, Tag::SEQUENCE)?;
    let kind = fields.identifier()?;
    let content = fields.content(Tag::context(0))?;
    (kind == SIGNED_DATA && fields.is_finished()).then_some(content)
}

/// `digestAlgorithms` and `signerInfos`: nobody signs, so both are empty.
fn read_empty_set(fields: &mut Reader<'_>) -> Result<(), CmsError> {
    match fields.content(Tag::SET) {
        Some([]) => Ok(()),
        Some(_) => Err(CmsError::NotCertsOnly),
        None => Err(CmsError::Malformed),
    }
}

/// RFC 5652 §5.2, `encapContentInfo`: of type `id-data`, and absent.
fn read_absent_content(fields: &mut Reader<'_>) -> Result<(), CmsError> {
    let mut content = fields.enter(Tag::SEQUENCE).ok_or(CmsError::Malformed)?;
    let kind = content.identifier().ok_or(CmsError::Malformed)?;
    if kind == DATA && content.is_finished() { Ok(()) } else { Err(CmsError::NotCertsOnly) }
}

/// `certificates [0] IMPLICIT CertificateSet OPTIONAL`, of the choice `certificate` only.
fn read_certificates<'a>(fields: &mut Reader<'a>) -> Result<CertificateBag<'a>, CmsError> {
    if fields.peek() != Some(Tag::context(0)) {
        return Ok(CertificateBag { rest: None, len: 0 });
    }
    let rest = fields.enter(Tag::context(0)).ok_or(CmsError::Malformed)?;
    let mut counted = rest;
    let mut found = 0;
    while !counted.is_finished() {
        counted.whole(Tag::SEQUENCE).ok_or(CmsError::Malformed)?;
        found += 1;
    }
    if found > CERTIFICATES_MAX {
        return Err(CmsError::Count { found });
    }
    Ok(CertificateBag { rest: Some(rest), len: found })
}

/// `crls [1] IMPLICIT RevocationInfoChoices OPTIONAL`: allowed, and of no use here.
fn skip_crls(fields: &mut Reader<'_>) -> Result<(), CmsError> {
    if fields.peek() == Some(Tag::context(1)) {
        fields.content(Tag::context(1)).ok_or(CmsError::Malformed)?;
    }
    Ok(())
}

impl fmt::Display for CmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count { found } => write!(f, "message has {found} certificates"),
            Self::Malformed => f.write_str("message is no CMS SignedData in DER"),
            Self::NotCertsOnly => f.write_str("message carries more than certificates"),
        }
    }
}

impl core::error::Error for CmsError {}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec::Vec;

    use super::{CERTIFICATES_MAX, CertificateBag, CmsError};
    use crate::der::testing::tlv;

    const LEAF: &[u8] = include_bytes!("../../testdata/leaf.der");
    const LEAF_P7: &[u8] = include_bytes!("../../testdata/leaf.p7");
    const CA: &[u8] = include_bytes!("../../testdata/ca.der");
    const GATEWAY: &[u8] = include_bytes!("../../testdata/gateway.der");
    const TWO_P7: &[u8] = include_bytes!("../../testdata/two.p7");

    /// A message from its parts: version, digests, content, certificates, crls, signers.
    fn message(parts: &[&[u8]]) -> Vec<u8> {
        let oid = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
        let explicit = tlv(0xa0, &tlv(0x30, &parts.concat()));
        tlv(0x30, &[&oid[..], &explicit].concat())
    }

    const V1: &[u8] = b"\x02\x01\x01";
    const EMPTY_SET: &[u8] = b"\x31\x00";
    const ABSENT: &[u8] = b"\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
    const ONE: &[u8] = b"\xa0\x02\x30\x00";

    fn error(parts: &[&[u8]]) -> CmsError {
        CertificateBag::parse(&message(parts)).unwrap_err()
    }

    #[test]
    fn the_certificate_in_an_enrollment_answer_of_openssl_is_found() {
        let bag = CertificateBag::parse(LEAF_P7).unwrap();
        assert_eq!((bag.len(), bag.is_empty()), (1, false));
        assert_eq!(bag.only(), Ok(LEAF));
    }

    #[test]
    fn both_certificates_of_a_bag_of_two_are_found_in_order() {
        let mut bag = CertificateBag::parse(TWO_P7).unwrap();
        assert_eq!(bag.clone().only(), Err(CmsError::Count { found: 2 }));
        assert_eq!((bag.size_hint(), bag.next()), ((2, Some(2)), Some(CA)));
        assert_eq!((bag.size_hint(), bag.next()), ((1, Some(1)), Some(GATEWAY)));
        assert_eq!((bag.len(), bag.is_empty(), bag.next()), (0, true, None));
    }

    #[test]
    fn a_message_cut_at_any_length_or_with_more_behind_it_is_refused() {
        for len in 0..LEAF_P7.len() {
            let error = CertificateBag::parse(&LEAF_P7[..len]).unwrap_err();
            assert_eq!(error, CmsError::Malformed, "cut at {len}");
        }
        let longer = [LEAF_P7, b"\0"].concat();
        assert_eq!(CertificateBag::parse(&longer).unwrap_err(), CmsError::Malformed);
    }

    #[test]
    fn every_changed_octet_is_survived() {
        for at in 0..LEAF_P7.len() {
            for octet in [0x00, 0x01, 0x30, 0x31, 0x7f, 0x80, 0x84, 0xa0, 0xff] {
                let mut bytes = LEAF_P7.to_vec();
                bytes[at] = octet;
                if let Ok(bag) = CertificateBag::parse(&bytes) {
                    assert_eq!(bag.len(), bag.count());
                }
            }
        }
    }

    #[test]
    fn a_bag_may_be_empty_or_absent_and_has_then_no_only_certificate() {
        for certificates in [&b""[..], b"\xa0\x00"] {
            let bytes = message(&[V1, EMPTY_SET, ABSENT, certificates, EMPTY_SET]);
            let mut bag = CertificateBag::parse(&bytes).unwrap();
            assert_eq!((bag.len(), bag.is_empty(), bag.next()), (0, true, None));
            assert_eq!(bag.only(), Err(CmsError::Count { found: 0 }));
        }
    }

    #[test]
    fn sixteen_certificates_are_taken_and_seventeen_are_not() {
        let most = tlv(0xa0, &b"\x30\x00".repeat(CERTIFICATES_MAX));
        let bytes = message(&[V1, EMPTY_SET, ABSENT, &most, EMPTY_SET]);
        assert_eq!(CertificateBag::parse(&bytes).unwrap().count(), 16);
        let more = tlv(0xa0, &b"\x30\x00".repeat(CERTIFICATES_MAX + 1));
        let found = error(&[V1, EMPTY_SET, ABSENT, &more, EMPTY_SET]);
        assert_eq!(found, CmsError::Count { found: 17 });
    }

    #[test]
    fn revocation_lists_are_passed_over() {
        let crls = b"\xa1\x02\x30\x00";
        let bytes = message(&[V1, EMPTY_SET, ABSENT, ONE, crls, EMPTY_SET]);
        assert_eq!(CertificateBag::parse(&bytes).unwrap().only(), Ok(&b"\x30\x00"[..]));
    }

    #[test]
    fn content_and_signers_are_refused() {
        let full = tlv(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x02\x04\x00");
        let other = tlv(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03");
        let signer = tlv(0x31, b"\x30\x00");
        for parts in [
            [V1, EMPTY_SET, &full, ONE, EMPTY_SET],
            [V1, EMPTY_SET, &other, ONE, EMPTY_SET],
            [V1, EMPTY_SET, ABSENT, ONE, &signer],
            [V1, &signer, ABSENT, ONE, EMPTY_SET],
        ] {
            assert_eq!(error(&parts), CmsError::NotCertsOnly);
        }
    }

    #[test]
    fn what_is_out_of_place_is_malformed() {
        let attribute_certificate = b"\xa0\x02\xa1\x00";
        for parts in [
            [b"\x02\x01\x03", EMPTY_SET, ABSENT, ONE, EMPTY_SET],
            [b"\x04\x01\x01", EMPTY_SET, ABSENT, ONE, EMPTY_SET],
            [V1, b"\x30\x00", ABSENT, ONE, EMPTY_SET],
            [V1, EMPTY_SET, b"\x30\x00", ONE, EMPTY_SET],
            [V1, EMPTY_SET, b"\x31\x00", ONE, EMPTY_SET],
            [V1, EMPTY_SET, ABSENT, attribute_certificate, EMPTY_SET],
            [V1, EMPTY_SET, ABSENT, b"\xa0\x01\x30", EMPTY_SET],
            [V1, EMPTY_SET, ABSENT, ONE, b"\x31\x00\x05\x00"],
            [V1, EMPTY_SET, ABSENT, ONE, b"\x30\x00"],
            [V1, EMPTY_SET, ABSENT, ONE, b"\xa1\x01\x31\x00"],
            [V1, EMPTY_SET, ABSENT, ONE, b""],
        ] {
            assert_eq!(error(&parts), CmsError::Malformed, "{parts:02x?}");
        }
    }

    #[test]
    fn another_content_type_is_malformed_and_so_is_more_behind_the_content() {
        let good = message(&[V1, EMPTY_SET, ABSENT, ONE, EMPTY_SET]);
        assert!(CertificateBag::parse(&good).is_ok());
        let mut other = good.clone();
        other[12] = 0x03;
        assert_eq!(CertificateBag::parse(&other).unwrap_err(), CmsError::Malformed);
        let mut longer = [&good[..], b"\x05\x00"].concat();
        longer[1] += 2;
        assert_eq!(CertificateBag::parse(&longer).unwrap_err(), CmsError::Malformed);
    }

    #[test]
    fn errors_read_as_text() {
        for (error, text) in [
            (CmsError::Count { found: 17 }, "message has 17 certificates"),
            (CmsError::Malformed, "message is no CMS SignedData in DER"),
            (CmsError::NotCertsOnly, "message carries more than certificates"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
