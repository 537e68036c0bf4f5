use crate::{
    authority::der::{INTEGER, SEQUENCE, element},
    csr::{AltNames, CSR_LEN_MAX, Csr, CsrError, DirectoryName, KeyKind},
    testing::{
        csr, csr_of, extension_request, key_pair, public, signed, subject, subject_of, uri_name,
    },
};
use rcgen::PublicKeyData;

const BASIC_CONSTRAINTS: u8 = 19;
const SUBJECT_ALT_NAME: u8 = 17;

fn verify_with(attributes: &[u8]) -> Result<Csr, CsrError> {
    Csr::verify(&csr_of(&key_pair(7), &subject(&[(3, "gw-1")]), attributes))
}

#[test]
fn a_request_gives_its_key_and_the_names_it_asks_for() {
    let key = key_pair(7);
    let names = uri_name("spiffe://acme.example/device/gw-1");
    let attributes = extension_request(&[(SUBJECT_ALT_NAME, &names)]);
    let csr = Csr::verify(&csr_of(&key, &subject(&[(3, "gw-1")]), &attributes)).unwrap();
    assert_eq!(*csr.key(), public(&key));
    assert_eq!(csr.common_name(), Some("gw-1"));
    assert_eq!(csr.alt_names().cloned(), AltNames::parse(&names));
    assert_eq!(csr.alt_names().unwrap().uris(), ["spiffe://acme.example/device/gw-1"]);
}

#[test]
fn requests_of_rcgen_are_read() {
    let mut params = rcgen::CertificateParams::new(vec!["gw-1.example".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "gw-1");
    let der = params.serialize_request(&key_pair(7)).unwrap();
    assert_eq!(Csr::verify(der.der()).unwrap().common_name(), Some("gw-1"));
}

#[test]
fn an_empty_subject_and_missing_attributes_are_fine() {
    let key = key_pair(7);
    let version = element(INTEGER, &[&[0]]);
    let spki = key.subject_public_key_info();
    let info = element(SEQUENCE, &[&version, &subject(&[]), &spki]);
    let csr = Csr::verify(&signed(&key, &info)).unwrap();
    assert_eq!(csr.common_name(), None);
    assert!(csr.subject().is_empty());
    assert_eq!(csr.alt_names(), None);
}

#[test]
fn a_signature_by_another_key_proves_no_possession() {
    let (own, other) = (key_pair(7), key_pair(8));
    let version = element(INTEGER, &[&[0]]);
    let spki = own.subject_public_key_info();
    let info = element(SEQUENCE, &[&version, &subject(&[(3, "gw-1")]), &spki, &[0xa0, 0]]);
    assert!(Csr::verify(&signed(&own, &info)).is_ok());
    assert_eq!(Csr::verify(&signed(&other, &info)), Err(CsrError::Signature));
}

#[test]
fn no_octet_of_a_request_can_be_changed() {
    let good = csr(&key_pair(7), "gw-1");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(Csr::verify(&bad).is_err(), "octet {at}");
    }
}

#[test]
fn no_part_of_a_request_is_enough_and_nothing_may_follow_it() {
    let good = csr(&key_pair(7), "gw-1");
    for len in 0..good.len() {
        assert_eq!(Csr::verify(&good[..len]), Err(CsrError::Malformed), "{len}");
    }
    assert_eq!(Csr::verify(&[&good[..], &[0]].concat()), Err(CsrError::Malformed));
}

#[test]
fn a_request_may_have_8_kib_and_no_octet_more() {
    let found_len = CSR_LEN_MAX + 1;
    assert_eq!(Csr::verify(&vec![0; found_len]), Err(CsrError::TooLong { found_len }));
    assert_eq!(Csr::verify(&vec![0; CSR_LEN_MAX]), Err(CsrError::Malformed));
}

#[test]
fn a_request_for_an_authority_is_refused_however_true_is_spelled() {
    for yes in [&[0x30, 3, 1, 1, 0xff][..], &[0x30, 3, 1, 1, 1], &[0x30, 3, 2, 1, 0]] {
        let attributes = extension_request(&[(BASIC_CONSTRAINTS, yes)]);
        assert_eq!(verify_with(&attributes), Err(CsrError::AsksCa), "{yes:02x?}");
    }
    for no in [&[0x30, 0][..], &[0x30, 3, 1, 1, 0]] {
        let attributes = extension_request(&[(BASIC_CONSTRAINTS, no)]);
        assert!(verify_with(&attributes).is_ok(), "{no:02x?}");
    }
}

#[test]
fn two_common_names_are_refused_wherever_they_stand() {
    let key = key_pair(7);
    let apart = csr_of(&key, &subject(&[(3, "gw-1"), (10, "Acme"), (3, "gw-2")]), &[]);
    assert_eq!(Csr::verify(&apart), Err(CsrError::CommonNames { found: 2 }));
    let one = subject(&[(3, "gw-1")]);
    let attribute = &one[4..];
    let set = element(0x31, &[attribute, attribute]);
    let together = csr_of(&key, &element(SEQUENCE, &[&set]), &[]);
    assert_eq!(Csr::verify(&together), Err(CsrError::CommonNames { found: 2 }));
}

#[test]
fn empty_sequences_are_refused_and_never_a_panic() {
    let key = key_pair(7);
    let empty_rdn = csr_of(&key, &element(SEQUENCE, &[&[0x31, 0]]), &[]);
    assert_eq!(Csr::verify(&empty_rdn), Err(CsrError::Malformed));
    for attributes in [&[0x30, 0][..], &[0x30, 2, 6, 0], &[0x31, 0], &[0x30]] {
        assert_eq!(verify_with(attributes), Err(CsrError::Malformed), "{attributes:02x?}");
    }
    for bad in [&[][..], &[0x31, 0], &[0x30, 1, 0x86]] {
        let bad_names = extension_request(&[(SUBJECT_ALT_NAME, bad)]);
        assert_eq!(verify_with(&bad_names), Err(CsrError::Malformed), "{bad:02x?}");
    }
    let empty_usage = extension_request(&[(37, &[0x30, 0])]);
    assert!(verify_with(&empty_usage).is_ok(), "extensions that we ignore are not looked into");
}

#[test]
fn what_could_be_read_two_ways_is_refused() {
    let names = uri_name("spiffe://acme.example/device/gw-1");
    let twice = extension_request(&[(SUBJECT_ALT_NAME, &names), (SUBJECT_ALT_NAME, &names)]);
    assert_eq!(verify_with(&twice), Err(CsrError::Malformed));
    let once = extension_request(&[(SUBJECT_ALT_NAME, &names)]);
    assert_eq!(verify_with(&[&once[..], &once].concat()), Err(CsrError::Malformed));
}

#[test]
fn another_version_is_refused() {
    let key = key_pair(7);
    let spki = key.subject_public_key_info();
    let version = element(INTEGER, &[&[1]]);
    let info = element(SEQUENCE, &[&version, &subject(&[]), &spki, &[0xa0, 0]]);
    assert_eq!(Csr::verify(&signed(&key, &info)), Err(CsrError::Malformed));
}

#[test]
fn keys_that_we_do_not_certify_are_named() {
    for (file, found) in [
        (&include_bytes!("../../testdata/ed25519.csr")[..], KeyKind::Edwards),
        (include_bytes!("../../testdata/p384.csr"), KeyKind::OtherCurve),
        (include_bytes!("../../testdata/secp256k1.csr"), KeyKind::OtherCurve),
        (include_bytes!("../../testdata/rsa1024.csr"), KeyKind::Rsa),
        (include_bytes!("../../testdata/rsa2048.csr"), KeyKind::Rsa),
        (include_bytes!("../../testdata/compressed.csr"), KeyKind::Point),
        (include_bytes!("../../testdata/dsa.csr"), KeyKind::Unknown),
    ] {
        assert_eq!(Csr::verify(file), Err(CsrError::Key { found }));
    }
}

#[test]
fn another_hash_than_sha256_is_refused() {
    let sha384 = include_bytes!("../../testdata/sha384.csr");
    assert_eq!(Csr::verify(sha384), Err(CsrError::SignatureAlgorithm));
}

#[test]
fn requests_of_openssl_are_read() {
    let csr = Csr::verify(include_bytes!("../../testdata/p256.csr")).unwrap();
    assert_eq!(csr.common_name(), Some("gw-1"));
}

#[test]
fn requests_of_strongswan_are_read_with_the_name_that_it_could_not_encode() {
    let csr = Csr::verify(include_bytes!("../../testdata/strongswan.csr")).unwrap();
    assert_eq!(csr.common_name(), Some("gw-1"));
    assert_eq!(csr.alt_names().cloned(), AltNames::parse(&[0x30, 0]));
}

#[test]
fn subjects_are_compared_rdn_by_rdn_and_not_as_text() {
    let name = |attributes: &[(u8, &str)]| DirectoryName::parse(&subject(attributes)).unwrap();
    assert_eq!(name(&[(3, "a")]), name(&[(3, "a")]));
    assert_ne!(name(&[(3, "a,OU=b")]), name(&[(3, "a"), (11, "b")]));
    assert_ne!(name(&[(3, "a"), (11, "b")]), name(&[(11, "b"), (3, "a")]));
    assert_ne!(name(&[(3, "a")]), name(&[(3, "A")]));
    assert_ne!(name(&[(3, "a")]), name(&[(3, "a "),]));
    assert_ne!(name(&[(3, "a")]), name(&[]));
    let printable = DirectoryName::parse(&subject_of(0x13, &[(3, "a")])).unwrap();
    assert_eq!(printable, name(&[(3, "a")]));
    let bmp = DirectoryName::parse(&subject_of(0x1e, &[(3, "a")])).unwrap();
    assert_ne!(bmp, name(&[(3, "a")]));
}

#[test]
fn a_common_name_that_is_no_text_is_refused() {
    let key = key_pair(7);
    assert_eq!(
        Csr::verify(&csr_of(&key, &subject_of(0x1e, &[(3, "a")]), &[])),
        Err(CsrError::Malformed)
    );
}

#[test]
fn alternative_names_are_equal_in_any_order_only() {
    let (a, b) = (element(0x86, &[b"a:"]), element(0x82, &[b"b"]));
    let names = |parts: &[&[u8]]| AltNames::parse(&element(SEQUENCE, parts)).unwrap();
    assert_eq!(names(&[&a, &b]), names(&[&b, &a]));
    assert_ne!(names(&[&a, &b]), names(&[&a]));
    assert_ne!(names(&[&a, &b]), names(&[&a, &a]));
    assert!(names(&[&b]).are_among(&names(&[&a, &b])));
    assert!(names(&[]).are_among(&names(&[&a])));
    assert!(!names(&[&a, &b]).are_among(&names(&[&a])));
}
