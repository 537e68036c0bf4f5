use std::string::ToString;
use std::vec::Vec;

use ::der::asn1::ObjectIdentifier;

use super::{
    CERTIFICATE_LEN_MAX, Certificate, CertificateError, CommonNameError, Part, RENEWAL_ID_LEN_MAX,
    RenewalIdError, renewal_id,
};
use crate::der::Purpose;
use crate::der::testing::tlv;
use crate::time::{Validity, Wall};

const AUTHORITY: &[u8] = include_bytes!("../../../testdata/authority.der");
const BARE: &[u8] = include_bytes!("../../../testdata/bare.der");
const CA: &[u8] = include_bytes!("../../../testdata/ca.der");
const GATEWAY: &[u8] = include_bytes!("../../../testdata/gateway.der");
const LEAF: &[u8] = include_bytes!("../../../testdata/leaf.der");
const SERVER: &[u8] = include_bytes!("../../../testdata/server.der");
const VERSION_1: &[u8] = include_bytes!("../../../testdata/version1.der");

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// What the committed authority is called by its leaves.
const CA_KEY_ID: [u8; 20] = [
    0xc4, 0x21, 0x65, 0x4b, 0x04, 0xfd, 0x67, 0x60, 0xc0, 0xcd, 0xe6, 0xcc, 0xf8, 0x6a, 0x16, 0x94,
    0xab, 0x15, 0xd8, 0xb8,
];

fn leaf() -> Certificate<'static> {
    Certificate::parse(LEAF).unwrap()
}

#[test]
fn every_part_of_a_leaf_of_openssl_is_found() {
    let leaf = leaf();
    assert_eq!(leaf.as_der(), LEAF);
    assert_eq!(leaf.to_be_signed(), &LEAF[4..405]);
    let serial = b"\x00\xf1\xe2\xd3\xc4\xb5\xa6\x97\x88\x79\x6a\x5b\x4c\x3d\x2e\x1f";
    assert_eq!(leaf.serial(), serial);
    assert_eq!(leaf.issuer(), &LEAF[43..93]);
    assert_eq!(leaf.subject(), &LEAF[125..145]);
    assert_eq!(leaf.common_name(), Ok("gw-0001"));
    assert_eq!(leaf.spki(), &LEAF[145..236]);
    assert_eq!(leaf.signature_algorithm(), Some(ECDSA_WITH_SHA256));
    assert_eq!(leaf.signature(), &LEAF[420..491]);
    assert_eq!(leaf.authority_key_id(), Some(&CA_KEY_ID[..]));
    assert_eq!(leaf.subject_key_id().unwrap()[..4], [0x84, 0x76, 0x46, 0x92]);
    assert_eq!(leaf.subject_key_id().unwrap().len(), 20);
    let (not_before, not_after) = (Wall(1_795_304_662), Wall(1_803_080_662));
    assert_eq!(leaf.validity(), Validity { not_before, not_after });
    assert!(!leaf.is_authority());
    assert!(leaf.is_for(Purpose::ClientAuth));
    assert!(!leaf.is_for(Purpose::ServerAuth));
    assert!(leaf.uris().eq(["spiffe://example.org/device/gw-0001"]));
    assert_eq!(leaf.dns_names().next(), None);
}

/// The digest is the one that `openssl x509 -pubkey | openssl pkey -outform DER | sha256sum` gives.
#[test]
fn the_key_of_a_leaf_has_the_digest_that_openssl_gives() {
    let hex: std::string::String =
        leaf().spki_sha256().iter().map(|octet| std::format!("{octet:02x}")).collect();
    assert_eq!(hex, "e978f6040ac91840630cb5bcbfa2ad40dc0dd20ae3c2fec961b93a74a5f4bb81");
}

#[test]
fn a_gateway_has_both_purposes_more_names_and_a_time_behind_2050() {
    let gateway = Certificate::parse(GATEWAY).unwrap();
    assert_eq!(gateway.common_name(), Ok("gw-0002"));
    assert!(gateway.is_for(Purpose::ClientAuth) && gateway.is_for(Purpose::ServerAuth));
    assert!(gateway.uris().eq(["spiffe://example.org/device/gw-0002"]));
    assert!(gateway.dns_names().eq(["gw-0002.example.org"]));
    assert_eq!(gateway.validity().not_after, Wall(3_523_304_662));
    assert_eq!(gateway.authority_key_id(), Some(&CA_KEY_ID[..]));
}

#[test]
fn authorities_are_known_by_their_basic_constraints() {
    let ca = Certificate::parse(CA).unwrap();
    assert!(ca.is_authority());
    assert_eq!((ca.authority_key_id(), ca.subject_key_id()), (None, Some(&CA_KEY_ID[..])));
    assert!(!ca.is_for(Purpose::ClientAuth) && !ca.is_for(Purpose::ServerAuth));
    assert!(Certificate::parse(AUTHORITY).unwrap().is_authority());
}

#[test]
fn a_subject_without_one_common_name_identifies_nobody() {
    let count = |der| Certificate::parse(der).unwrap().common_name();
    assert_eq!(count(BARE), Err(CommonNameError::Count { found: 0 }));
    assert_eq!(count(SERVER), Err(CommonNameError::Count { found: 2 }));
}

#[test]
fn a_certificate_of_version_1_is_refused_as_such() {
    assert_eq!(Certificate::parse(VERSION_1), Err(CertificateError::Version { found: 1 }));
}

#[test]
fn a_certificate_cut_at_any_length_or_with_more_behind_it_is_refused() {
    for der in [LEAF, GATEWAY, CA] {
        for len in 0..der.len() {
            let error = Certificate::parse(&der[..len]);
            assert_eq!(error, Err(malformed(Part::Outline)), "cut at {len}");
        }
        let longer = [der, b"\0"].concat();
        assert_eq!(Certificate::parse(&longer), Err(malformed(Part::Outline)));
    }
}

/// Reads whatever can be read of a certificate: none of it may panic.
fn exercise(der: &[u8]) {
    let Ok(certificate) = Certificate::parse(der) else { return };
    let _ = certificate.common_name();
    let _ = certificate.renewal_id(&mut [0; RENEWAL_ID_LEN_MAX]);
    let names = certificate.uris().count() + certificate.dns_names().count();
    assert!(names < der.len());
    assert!((1..=20).contains(&certificate.serial().len()));
    let _ = certificate.is_for(Purpose::ClientAuth);
}

#[test]
fn every_changed_octet_is_survived() {
    for der in [LEAF, GATEWAY] {
        for at in 0..der.len() {
            for octet in [0x00, 0x01, 0x02, 0x1f, 0x30, 0x7f, 0x80, 0x82, 0x84, 0xa0, 0xff] {
                let mut changed = der.to_vec();
                changed[at] = octet;
                exercise(&changed);
            }
        }
    }
}

/// Every element emptied in turn, with the lengths around it set right.
#[test]
fn every_element_may_be_empty_without_a_panic() {
    fn emptied(der: &[u8]) -> Vec<Vec<u8>> {
        let Some((tag, content)) = split(der).map(|(tag, content, _)| (tag, content)) else {
            return Vec::new();
        };
        let mut all = Vec::from([tlv(tag, b"")]);
        if tag & 0x20 != 0 {
            let mut before = Vec::new();
            let mut rest = content;
            while let Some((_, _, len)) = split(rest) {
                for inner in emptied(&rest[..len]) {
                    all.push(tlv(tag, &[&before[..], &inner, &rest[len..]].concat()));
                }
                before.extend_from_slice(&rest[..len]);
                rest = &rest[len..];
            }
        }
        all
    }
    let all = emptied(GATEWAY);
    assert!(all.len() > 60);
    for der in all {
        exercise(&der);
    }
}

/// Tag, content and length of the first element; the test data is sound.
fn split(der: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (header, len) = match *der {
        [_, len @ 0..=127, ..] => (2, usize::from(len)),
        [_, 0x81, len, ..] => (3, usize::from(len)),
        [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    Some((der[0], der.get(header..header + len)?, header + len))
}

fn malformed(part: Part) -> CertificateError {
    CertificateError::Malformed { part }
}

/// A certificate by its parts, each DER with its header; those of a valid one to begin with.
struct Draft {
    version: Vec<u8>,
    serial: Vec<u8>,
    inner: Vec<u8>,
    issuer: Vec<u8>,
    validity: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    extensions: Vec<u8>,
    outer: Vec<u8>,
    signature: Vec<u8>,
}

const ALGORITHM: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const SPRING: &[u8] = b"\x17\x0d260301000000Z";

impl Draft {
    fn new() -> Self {
        Self {
            version: b"\xa0\x03\x02\x01\x02".to_vec(),
            serial: b"\x02\x01\x07".to_vec(),
            inner: ALGORITHM.to_vec(),
            issuer: b"\x30\x00".to_vec(),
            validity: tlv(0x30, &SPRING.repeat(2)),
            subject: b"\x30\x00".to_vec(),
            spki: b"\x30\x00".to_vec(),
            extensions: Vec::new(),
            outer: ALGORITHM.to_vec(),
            signature: b"\x03\x02\x00\x2a".to_vec(),
        }
    }

    fn with_extension(oid: &[u8], value: &[u8]) -> Self {
        Self::with_extensions(&extension(oid, value))
    }

    fn with_extensions(list: &[u8]) -> Self {
        Self { extensions: tlv(0xa3, &tlv(0x30, list)), ..Self::new() }
    }

    fn with_names(attributes: &[&[u8]]) -> Self {
        let sets: Vec<u8> = attributes.iter().flat_map(|set| tlv(0x31, set)).collect();
        Self { subject: tlv(0x30, &sets), ..Self::new() }
    }

    fn der(&self) -> Vec<u8> {
        let fields = [
            &self.version[..],
            &self.serial,
            &self.inner,
            &self.issuer,
            &self.validity,
            &self.subject,
            &self.spki,
            &self.extensions,
        ];
        let to_be_signed = tlv(0x30, &fields.concat());
        tlv(0x30, &[&to_be_signed[..], &self.outer, &self.signature].concat())
    }

    fn error(&self) -> CertificateError {
        Certificate::parse(&self.der()).unwrap_err()
    }

    fn common_name(&self) -> Result<std::string::String, CommonNameError> {
        Certificate::parse(&self.der()).unwrap().common_name().map(Into::into)
    }
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x06, oid), tlv(0x04, value)].concat())
}

fn attribute(value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[COMMON_NAME, value].concat())
}

const AKI: &[u8] = b"\x55\x1d\x23";
const BC: &[u8] = b"\x55\x1d\x13";
const EKU: &[u8] = b"\x55\x1d\x25";
const SAN: &[u8] = b"\x55\x1d\x11";
const SKI: &[u8] = b"\x55\x1d\x0e";
const CLIENT_AUTH: &[u8] = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02";

#[test]
fn the_smallest_certificate_has_nothing_optional() {
    let der = Draft::new().der();
    let certificate = Certificate::parse(&der).unwrap();
    assert_eq!(certificate.common_name(), Err(CommonNameError::Count { found: 0 }));
    assert_eq!((certificate.authority_key_id(), certificate.subject_key_id()), (None, None));
    assert_eq!((certificate.uris().next(), certificate.dns_names().next()), (None, None));
    assert!(!certificate.is_authority() && !certificate.is_for(Purpose::ClientAuth));
    let mut out = [0; RENEWAL_ID_LEN_MAX];
    assert_eq!(certificate.renewal_id(&mut out), Err(RenewalIdError::NoAuthorityKeyId));
}

#[test]
fn a_certificate_of_2048_octets_is_taken_and_one_of_2049_is_not() {
    let of = |len: usize| {
        let padded = |octets| Draft { spki: tlv(0x30, &std::vec![0; octets]), ..Draft::new() };
        let draft = padded(1500 + len - padded(1500).der().len());
        draft.der()
    };
    let (most, more) = (of(CERTIFICATE_LEN_MAX), of(CERTIFICATE_LEN_MAX + 1));
    assert_eq!((most.len(), more.len()), (2048, 2049));
    assert!(Certificate::parse(&most).is_ok());
    assert_eq!(Certificate::parse(&more), Err(CertificateError::Length { found: 2049 }));
}

#[test]
fn a_missing_or_foreign_part_is_named() {
    let foreign = || b"\x05\x00".to_vec();
    let new = Draft::new;
    for (draft, part) in [
        (Draft { serial: foreign(), ..new() }, Part::Serial),
        (Draft { inner: foreign(), ..new() }, Part::Algorithm),
        (Draft { inner: b"\x30\x00".to_vec(), ..new() }, Part::Algorithm),
        (Draft { issuer: foreign(), ..new() }, Part::Issuer),
        (Draft { validity: foreign(), ..new() }, Part::Validity),
        (Draft { subject: foreign(), ..new() }, Part::Subject),
        (Draft { spki: foreign(), ..new() }, Part::SubjectPublicKey),
        (Draft { extensions: foreign(), ..new() }, Part::Extensions),
        (Draft { outer: foreign(), ..new() }, Part::Algorithm),
        (Draft { signature: foreign(), ..new() }, Part::Signature),
        (Draft { signature: b"\x03\x02\x01\x2a".to_vec(), ..new() }, Part::Signature),
        (Draft { signature: b"\x03\x02\x00\x2a\x05\x00".to_vec(), ..new() }, Part::Outline),
    ] {
        assert_eq!(draft.error(), malformed(part));
    }
    let doubled = [Draft::with_extension(SKI, b"\x04\x00").extensions, foreign()].concat();
    assert_eq!(Draft { extensions: doubled, ..new() }.error(), malformed(Part::Outline));
    for der in [tlv(0x30, b""), tlv(0x30, b"\x05\x00"), tlv(0x31, b""), Vec::new()] {
        assert_eq!(Certificate::parse(&der), Err(malformed(Part::Outline)));
    }
}

#[test]
fn two_algorithms_for_one_signature_are_refused() {
    let other = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03".to_vec();
    let error = Draft { inner: other, ..Draft::new() }.error();
    assert_eq!(error, CertificateError::Algorithm);
}

#[test]
fn only_version_3_is_taken() {
    let version = |content: &[u8]| Draft { version: tlv(0xa0, content), ..Draft::new() }.error();
    assert_eq!(version(b"\x02\x01\x00"), CertificateError::Version { found: 1 });
    assert_eq!(version(b"\x02\x01\x01"), CertificateError::Version { found: 2 });
    assert_eq!(version(b"\x02\x01\xff"), CertificateError::Version { found: 256 });
    for content in [&b""[..], b"\x02\x00", b"\x04\x01\x02", b"\x02\x01\x02\x05\x00"] {
        assert_eq!(version(content), malformed(Part::Version));
    }
    let absent = Draft { version: Vec::new(), ..Draft::new() }.error();
    assert_eq!(absent, CertificateError::Version { found: 1 });
}

#[test]
fn a_serial_number_has_one_to_twenty_octets_in_its_shortest_form() {
    let serial = |content: &[u8]| Draft { serial: tlv(0x02, content), ..Draft::new() }.der();
    for content in [&[0][..], &[0x7f], &[0x80], &[0, 0x80], &[0xff, 0x7f], &[0xff], &[1; 20]] {
        assert_eq!(Certificate::parse(&serial(content)).unwrap().serial(), content);
    }
    for content in [&[][..], &[0, 0], &[0, 0x7f], &[0xff, 0x80], &[0xff, 0xff]] {
        let error = Certificate::parse(&serial(content)).unwrap_err();
        assert_eq!(error, malformed(Part::Serial), "{content:02x?}");
    }
    let error = Certificate::parse(&serial(&[1; 21])).unwrap_err();
    assert_eq!(error, CertificateError::Serial { found: 21 });
}

#[test]
fn both_kinds_of_time_are_read_and_no_other() {
    let validity = |times: &[u8]| {
        let der = Draft { validity: tlv(0x30, times), ..Draft::new() }.der();
        Certificate::parse(&der).map(|certificate| certificate.validity())
    };
    let late = b"\x18\x0f99991231235959Z";
    let (not_before, not_after) = (Wall(1_772_323_200), Wall(253_402_300_799));
    let expected = Validity { not_before, not_after };
    assert_eq!(validity(&[SPRING, late].concat()), Ok(expected));
    let bad = Err(malformed(Part::Validity));
    for times in [
        &b""[..],
        SPRING,
        &SPRING.repeat(3),
        b"\x17\x0d260301000000Z\x17\x0d260231000000Z",
        b"\x17\x0d260301000000Z\x17\x0b2603010000Z",
        b"\x17\x0d260301000000Z\x13\x0d260301000000Z",
        b"\x17\x0d260301000000Z\x17\x0d690101000000Z",
    ] {
        assert_eq!(validity(times), bad, "{}", times.escape_ascii());
    }
}

#[test]
fn a_common_name_is_utf8_or_printable_and_in_any_company() {
    let utf8 = attribute(b"\x0c\x03g\xc3\xbc");
    let printable = attribute(b"\x13\x02gw");
    let company = b"\x30\x08\x06\x03\x55\x04\x0a\x0c\x01O".to_vec();
    assert_eq!(Draft::with_names(&[&utf8]).common_name().unwrap(), "gü");
    assert_eq!(Draft::with_names(&[&printable]).common_name().unwrap(), "gw");
    let both = [&company[..], &printable].concat();
    assert_eq!(Draft::with_names(&[&both]).common_name().unwrap(), "gw");
    assert_eq!(Draft::with_names(&[&company, &printable, &company]).common_name().unwrap(), "gw");
    let twice = Draft::with_names(&[&printable, &company, &utf8]).common_name();
    assert_eq!(twice, Err(CommonNameError::Count { found: 2 }));
    let twice = Draft::with_names(&[&printable.repeat(2)]).common_name();
    assert_eq!(twice, Err(CommonNameError::Count { found: 2 }));
}

#[test]
fn a_common_name_of_another_kind_or_content_is_no_text() {
    for value in
        [&b"\x0c\x01\xff"[..], b"\x13\x01@", b"\x1e\x02\x00g", b"\x16\x02gw", b"\x04\x02gw"]
    {
        let text = Draft::with_names(&[&attribute(value)]).common_name();
        assert_eq!(text, Err(CommonNameError::Text), "{value:02x?}");
    }
}

#[test]
fn a_subject_that_is_no_name_is_malformed() {
    let printable = attribute(b"\x13\x02gw");
    let more = tlv(0x30, &[COMMON_NAME, b"\x13\x02gw\x05\x00"].concat());
    for set in [&b"\x05\x00"[..], b"\x30\x00", COMMON_NAME, &tlv(0x30, COMMON_NAME), &more] {
        let name = Draft::with_names(&[&printable, set]).common_name();
        assert_eq!(name, Err(CommonNameError::Malformed), "{set:02x?}");
    }
    let loose = Draft { subject: tlv(0x30, &printable), ..Draft::new() };
    assert_eq!(loose.common_name(), Err(CommonNameError::Malformed));
}

#[test]
fn a_list_of_extensions_is_neither_empty_nor_loose() {
    let bad = malformed(Part::Extensions);
    let sound = extension(SKI, b"\x04\x00");
    let critical =
        tlv(0x30, &[&tlv(0x06, SKI)[..], b"\x01\x01\xff", &tlv(4, b"\x04\x00")].concat());
    let not_critical = [&tlv(0x06, SKI)[..], b"\x01\x01\x00", &tlv(4, b"\x04\x00")].concat();
    for list in [&sound, &critical, &tlv(0x30, &not_critical)] {
        let der = Draft::with_extensions(list).der();
        assert_eq!(Certificate::parse(&der).unwrap().subject_key_id(), Some(&b""[..]));
    }
    for list in [
        Vec::new(),
        [&sound[..], b"\x05\x00"].concat(),
        tlv(0x30, b""),
        tlv(0x30, &tlv(0x06, SKI)),
        tlv(0x30, &[&tlv(0x06, SKI)[..], b"\x01\x01\x42", &tlv(4, b"\x04\x00")].concat()),
        tlv(0x30, &[&tlv(0x06, SKI)[..], &tlv(4, b"\x04\x00"), b"\x05\x00"].concat()),
        tlv(0x31, &[&tlv(0x06, SKI)[..], &tlv(4, b"\x04\x00")].concat()),
    ] {
        assert_eq!(Draft::with_extensions(&list).error(), bad, "{list:02x?}");
    }
    for extensions in [tlv(0xa3, b""), tlv(0xa3, &sound), tlv(0xa2, &tlv(0x30, &sound))] {
        assert_eq!(Draft { extensions, ..Draft::new() }.error(), bad);
    }
}

#[test]
fn an_extension_that_we_read_may_stand_once() {
    let client = tlv(0x30, CLIENT_AUTH);
    for (oid, value) in [
        (AKI, &b"\x30\x00"[..]),
        (BC, b"\x30\x00"),
        (EKU, &client),
        (SAN, b"\x30\x03\x82\x01a"),
        (SKI, b"\x04\x01\x07"),
    ] {
        assert!(Certificate::parse(&Draft::with_extension(oid, value).der()).is_ok());
        let twice = Draft::with_extensions(&extension(oid, value).repeat(2)).error();
        assert_eq!(twice, malformed(Part::Extensions), "{oid:02x?}");
    }
    let unknown = extension(b"\x55\x1d\x20", b"").repeat(2);
    assert!(Certificate::parse(&Draft::with_extensions(&unknown).der()).is_ok());
}

#[test]
fn a_malformed_extension_is_named() {
    let client = tlv(0x30, CLIENT_AUTH);
    let surplus = [&client[..], b"\x05\x00"].concat();
    let mixed = tlv(0x30, &[CLIENT_AUTH, b"\x05\x00"].concat());
    for (oid, part, values) in [
        (AKI, Part::AuthorityKeyId, [&b""[..], b"\x31\x00", b"\x30\x02\x80\x01"]),
        (BC, Part::BasicConstraints, [b"", b"\x05\x00", b"\x30\x03\x01\x01\x01"]),
        (EKU, Part::ExtendedKeyUsage, [b"\x30\x00", &surplus, &mixed]),
        (SAN, Part::SubjectAltName, [b"\x30\x00", b"\x30\x03\x86\x01\xe9", b"\x30\x02\x82\x01"]),
        (SKI, Part::SubjectKeyId, [b"", b"\x05\x00", b"\x04\x01\x07\x00"]),
    ] {
        for value in values {
            let error = Draft::with_extension(oid, value).error();
            assert_eq!(error, malformed(part), "{value:02x?}");
        }
    }
    let dns = Draft::with_extension(SAN, b"\x30\x03\x82\x01\xe9").error();
    assert_eq!(dns, malformed(Part::SubjectAltName));
}

#[test]
fn an_authority_key_identifier_may_be_absent_beside_its_issuer() {
    let key_id = |value: &[u8]| {
        let der = Draft::with_extension(AKI, value).der();
        Certificate::parse(&der).unwrap().authority_key_id().map(<[u8]>::to_vec)
    };
    assert_eq!(key_id(b"\x30\x03\x80\x01\x07"), Some(Vec::from([7])));
    assert_eq!(key_id(b"\x30\x06\x80\x01\x07\x82\x01\x05"), Some(Vec::from([7])));
    assert_eq!(key_id(b"\x30\x03\x82\x01\x05"), None);
}

#[test]
fn basic_constraints_say_authority_or_not() {
    let is_authority = |value: &[u8]| {
        Certificate::parse(&Draft::with_extension(BC, value).der()).unwrap().is_authority()
    };
    assert!(is_authority(b"\x30\x03\x01\x01\xff"));
    assert!(is_authority(b"\x30\x06\x01\x01\xff\x02\x01\x00"));
    assert!(!is_authority(b"\x30\x03\x01\x01\x00"));
    assert!(!is_authority(b"\x30\x03\x02\x01\x00"));
    assert!(!is_authority(b"\x30\x00"));
}

#[test]
fn any_purpose_is_not_ours() {
    let any = tlv(0x30, b"\x06\x04\x55\x1d\x25\x00");
    let der = Draft::with_extension(EKU, &any).der();
    let certificate = Certificate::parse(&der).unwrap();
    assert!(!certificate.is_for(Purpose::ClientAuth) && !certificate.is_for(Purpose::ServerAuth));
}

#[test]
fn names_come_in_their_order_past_those_of_other_kinds() {
    let list =
        tlv(0x30, b"\x86\x01a\x82\x01b\x81\x01\xe9\x86\x01c\x87\x04\x7f\x00\x00\x01\x82\x01d");
    let der = Draft::with_extension(SAN, &list).der();
    let certificate = Certificate::parse(&der).unwrap();
    assert!(certificate.uris().eq(["a", "c"]));
    assert!(certificate.dns_names().eq(["b", "d"]));
}

/// The example of RFC 9773 §4.1.
#[test]
fn the_renewal_identifier_is_that_of_the_rfc() {
    let key_id =
        b"\x69\x88\x5b\x6b\x87\x46\x40\x41\xe1\xb3\x7b\x84\x7b\xa0\xae\x2c\xde\x01\xc8\xd4";
    let serial = b"\x00\x87\x65\x43\x21";
    let expected = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
    let mut out = [b'#'; RENEWAL_ID_LEN_MAX];
    assert_eq!(renewal_id(key_id, serial, &mut out), Ok(expected));
    let mut exact = [0; 35];
    assert_eq!(renewal_id(key_id, serial, &mut exact), Ok(expected));
    let mut small = [0; 34];
    let error = renewal_id(key_id, serial, &mut small);
    assert_eq!(error, Err(RenewalIdError::Buffer { found: 34, needed: 35 }));
}

#[test]
fn the_longest_renewal_identifier_and_that_of_a_leaf_fit() {
    let mut out = [0; RENEWAL_ID_LEN_MAX];
    assert_eq!(renewal_id(&[0xff; 32], &[0xff; 20], &mut out).unwrap().len(), RENEWAL_ID_LEN_MAX);
    assert_eq!(renewal_id(b"", b"", &mut out), Ok("."));
    let expected = "xCFlSwT9Z2DAzebM-GoWlKsV2Lg.APHi08S1ppeIeWpbTD0uHw";
    assert_eq!(leaf().renewal_id(&mut out), Ok(expected));
}

#[test]
fn errors_read_as_text() {
    for (error, text) in [
        (CertificateError::Algorithm, "certificate names two algorithms for its signature"),
        (
            CertificateError::Length { found: 2049 },
            "certificate has 2049 octets, at most 2048 may be",
        ),
        (CertificateError::Serial { found: 21 }, "serial number has 21 octets, at most 20 may be"),
        (CertificateError::Version { found: 1 }, "certificate has version 1, not 3"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (error, text) in [
        (CommonNameError::Count { found: 2 }, "subject has 2 common names, not one"),
        (CommonNameError::Malformed, "subject is not a distinguished name"),
        (CommonNameError::Text, "common name is not readable text"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (error, text) in [
        (
            RenewalIdError::Buffer { found: 1, needed: 2 },
            "renewal identifier needs 2 octets, there are 1",
        ),
        (
            RenewalIdError::NoAuthorityKeyId,
            "certificate has no authority key identifier to renew it by",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn every_part_has_a_name_for_people() {
    for (part, name) in [
        (Part::Algorithm, "signature algorithm"),
        (Part::AuthorityKeyId, "authority key identifier"),
        (Part::BasicConstraints, "basic constraints"),
        (Part::ExtendedKeyUsage, "extended key usage"),
        (Part::Extensions, "list of extensions"),
        (Part::Issuer, "issuer"),
        (Part::Outline, "outline"),
        (Part::Serial, "serial number"),
        (Part::Signature, "signature"),
        (Part::Subject, "subject"),
        (Part::SubjectAltName, "subject alternative name"),
        (Part::SubjectKeyId, "subject key identifier"),
        (Part::SubjectPublicKey, "public key"),
        (Part::Validity, "validity period"),
        (Part::Version, "version"),
    ] {
        let text = malformed(part).to_string();
        assert_eq!(text, std::format!("certificate has a malformed {name}"));
    }
}

/// Goal: a renewal identifier is written as another writer of base64url writes it, at every length.
#[test]
fn renewal_identifiers_are_as_another_writer_has_them() {
    use base64ct::{Base64UrlUnpadded, Encoding as _};
    let octets: Vec<u8> =
        (0..=255).cycle().map(|octet: u8| octet.wrapping_mul(151)).take(600).collect();
    for len in 0..300 {
        let (key_id, serial) = (&octets[..len], &octets[len..len + 300 - len]);
        let mut out = [0; 1024];
        let mut place = [0; 1024];
        let mut encoded =
            |octets| Base64UrlUnpadded::encode(octets, &mut place).unwrap().to_string();
        let expected = [encoded(key_id), encoded(serial)].join(".");
        assert_eq!(renewal_id(key_id, serial, &mut out), Ok(expected.as_str()));
    }
}
