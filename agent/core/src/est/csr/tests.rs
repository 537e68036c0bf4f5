use std::string::ToString;
use std::vec;
use std::vec::Vec;

use p256::PublicKey;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::EncodePublicKey as _;

use super::{CsrError, P256_SPKI_LEN, P256Signature, UnsignedRequest, p256_spki};
use crate::device_id::DeviceId;

fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

fn spki() -> [u8; P256_SPKI_LEN] {
    let point = key().verifying_key().to_encoded_point(false);
    p256_spki(point.as_bytes().try_into().unwrap()).unwrap()
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn signed(request: &UnsignedRequest<'_>) -> P256Signature {
    let signature: Signature = key().sign(request.to_be_signed());
    P256Signature::parse(signature.to_der().as_bytes()).unwrap()
}

#[test]
fn the_public_key_is_encoded_as_others_encode_it() {
    let other = PublicKey::from(key().verifying_key()).to_public_key_der().unwrap();
    assert_eq!(spki().as_slice(), other.as_bytes());
}

#[test]
fn a_point_that_is_not_uncompressed_is_refused() {
    for first in [0x00, 0x02, 0x03, 0x05] {
        assert_eq!(p256_spki(&[first; 65]), Err(CsrError::PublicKey));
    }
}

#[test]
fn a_request_is_laid_out_as_rfc_2986_says_and_its_signature_holds() {
    let mut buffer = [0xee; 512];
    let request = UnsignedRequest::new(&id("gw-1"), &spki(), b"", &mut buffer).unwrap();
    let info = [
        b"\x30\x71\x02\x01\x00".as_slice(),
        b"\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x0c\x04gw-1",
        &spki(),
        b"\xa0\x00",
    ]
    .concat();
    assert_eq!(request.to_be_signed(), info);
    let signature = signed(&request);
    let csr = request.finish(&signature).unwrap();
    let der = signature.as_der();
    let len = u8::try_from(der.len()).unwrap();
    let tail = [
        b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02".as_slice(),
        &[0x03, len + 1, 0x00],
        der,
    ]
    .concat();
    let content = u8::try_from(info.len() + tail.len()).unwrap();
    assert_eq!(csr, [&[0x30, 0x81, content], info.as_slice(), &tail].concat());
    let verifying = VerifyingKey::from(&key());
    assert!(verifying.verify(&info, &Signature::from_der(der).unwrap()).is_ok());
}

/// `openssl req -verify -inform DER` accepts what this test writes.
#[test]
fn a_request_with_the_longest_id_and_attributes_is_the_committed_one() {
    let attribute = b"\x30\x0f\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e\x31\x02\x30\x00";
    let mut buffer = [0; 512];
    let name = id(&"x".repeat(64));
    let request = UnsignedRequest::new(&name, &spki(), attribute, &mut buffer).unwrap();
    let signature = signed(&request);
    let csr = request.finish(&signature).unwrap();
    assert_eq!(csr, include_bytes!("../../../testdata/request.csr"));
}

#[test]
fn attributes_stand_in_the_request_and_must_be_in_the_order_of_a_set() {
    let (a, b): (&[u8], &[u8]) = (b"\x30\x03\x06\x01\x01", b"\x30\x03\x06\x01\x02");
    let mut buffer = [0; 512];
    let both = [a, b].concat();
    let request = UnsignedRequest::new(&id("a"), &spki(), &both, &mut buffer).unwrap();
    assert!(request.to_be_signed().ends_with(&[b"\xa0\x0a", a, b].concat()));
    let cases: [&[&[u8]]; 5] =
        [&[b, a], &[a, a], &[b"\x02\x01\x00"], &[a, b"\x30"], &[b"\x30\x05"]];
    for wrong in cases {
        let error = UnsignedRequest::new(&id("a"), &spki(), &wrong.concat(), &mut buffer);
        assert_eq!(error.unwrap_err(), CsrError::Attributes);
    }
}

#[test]
fn a_public_key_that_is_not_one_sequence_is_refused() {
    let longer = [&spki()[..], b"\0"].concat();
    for wrong in [&b""[..], b"\x04\x00", &spki()[..90], &longer] {
        let error = UnsignedRequest::new(&id("a"), wrong, b"", &mut [0; 512]).unwrap_err();
        assert_eq!(error, CsrError::PublicKey);
    }
}

#[test]
fn a_buffer_one_octet_too_small_is_refused_with_both_sizes() {
    let info = 113 + 2;
    let mut small = [0xee; 114];
    let error = UnsignedRequest::new(&id("gw-1"), &spki(), b"", &mut small).unwrap_err();
    assert_eq!(error, CsrError::Buffer { found: info - 1, needed: info });
    assert_eq!(small, [0xee; 114], "a buffer that is too small is left as it was");

    let signature = P256Signature::from_raw(&[1; 64]).unwrap();
    let needed = info + 12 + 2 + 1 + signature.as_der().len() + 3;
    for found in info..needed {
        let mut buffer = vec![0; found];
        let request = UnsignedRequest::new(&id("gw-1"), &spki(), b"", &mut buffer).unwrap();
        let error = request.finish(&signature).unwrap_err();
        assert_eq!(error, CsrError::Buffer { found, needed });
    }
    let mut buffer = vec![0; needed];
    let request = UnsignedRequest::new(&id("gw-1"), &spki(), b"", &mut buffer).unwrap();
    assert_eq!(request.finish(&signature).unwrap().len(), needed);
}

#[test]
fn every_length_of_a_request_is_framed_in_its_shortest_form() {
    for len in [10, 140, 250, 400] {
        let attribute = attribute_of(len);
        let mut buffer = [0; 1024];
        let request = UnsignedRequest::new(&id("a"), &spki(), &attribute, &mut buffer).unwrap();
        let signature = signed(&request);
        let csr = request.finish(&signature).unwrap();
        assert!(
            crate::der::only(csr, crate::der::reader::Tag::SEQUENCE).is_some(),
            "attribute of {len}"
        );
    }
}

fn attribute_of(len: usize) -> Vec<u8> {
    let len = u8::try_from(len).map_or_else(
        |_| Vec::from([0x30, 0x82, 0x01, 0x90]),
        |len| if len < 128 { Vec::from([0x30, len]) } else { Vec::from([0x30, 0x81, len]) },
    );
    let octets = match len.as_slice() {
        [_, 0x82, ..] => 400,
        [.., last] => usize::from(*last),
        [] => 0,
    };
    [len, vec![0; octets]].concat()
}

#[test]
fn a_raw_signature_becomes_two_shortest_integers() {
    let mut raw = [0; 64];
    raw[31] = 0x7f;
    raw[63] = 0x80;
    let signature = P256Signature::from_raw(&raw).unwrap();
    assert_eq!(signature.as_der(), b"\x30\x07\x02\x01\x7f\x02\x02\x00\x80");
    let longest = P256Signature::from_raw(&[0xff; 64]).unwrap();
    assert_eq!(longest.as_der().len(), P256Signature::MAX_LEN);
    assert_eq!(longest.as_der()[..5], *b"\x30\x46\x02\x21\x00");
}

#[test]
fn parts_may_be_short_or_padded() {
    let short = P256Signature::from_parts(&[1], &[0x80, 0]).unwrap();
    assert_eq!(short.as_der(), b"\x30\x08\x02\x01\x01\x02\x03\x00\x80\x00");
    let padded = P256Signature::from_parts(&[0, 0, 1], &[0, 0x80, 0]).unwrap();
    assert_eq!(padded, short);
    let long = [[0].as_slice(), &[9; 32]].concat();
    assert_eq!(P256Signature::from_parts(&long, &long).unwrap().as_der().len(), 70);
}

#[test]
fn a_part_that_is_zero_or_longer_than_the_curve_is_refused() {
    for part in [&b""[..], &[0], &[0; 32], &[1; 33]] {
        assert_eq!(P256Signature::from_parts(part, &[1]), Err(CsrError::Signature));
        assert_eq!(P256Signature::from_parts(&[1], part), Err(CsrError::Signature));
    }
    assert_eq!(P256Signature::from_raw(&[0; 64]), Err(CsrError::Signature));
}

#[test]
fn signatures_of_another_library_are_taken_and_given_alike() {
    for message in 0..64_u8 {
        let signature: Signature = key().sign(&[message]);
        let raw: [u8; 64] = signature.to_bytes().into();
        let der = signature.to_der();
        let taken = P256Signature::from_raw(&raw).unwrap();
        assert_eq!(taken.as_der(), der.as_bytes());
        assert_eq!(P256Signature::parse(der.as_bytes()), Ok(taken));
    }
}

#[test]
fn a_signature_in_any_but_its_only_form_is_refused() {
    let good = b"\x30\x06\x02\x01\x01\x02\x01\x02";
    assert!(P256Signature::parse(good).is_ok());
    for len in 0..good.len() {
        assert_eq!(P256Signature::parse(&good[..len]), Err(CsrError::Signature));
    }
    for wrong in [
        &b"\x30\x07\x02\x02\x00\x01\x02\x01\x02"[..],
        b"\x30\x06\x02\x01\x81\x02\x01\x02",
        b"\x30\x06\x02\x01\x00\x02\x01\x02",
        b"\x30\x06\x02\x01\x01\x02\x01\x02\x00",
        b"\x30\x07\x02\x01\x01\x02\x01\x02\x00",
        b"\x30\x08\x02\x01\x01\x02\x01\x02\x05\x00",
        b"\x31\x06\x02\x01\x01\x02\x01\x02",
        b"\x30\x06\x04\x01\x01\x02\x01\x02",
    ] {
        assert_eq!(P256Signature::parse(wrong), Err(CsrError::Signature), "{wrong:02x?}");
    }
}

#[test]
fn errors_read_as_text() {
    for (error, text) in [
        (CsrError::Attributes, "request attributes are no DER SET OF SEQUENCEs"),
        (CsrError::Buffer { found: 1, needed: 2 }, "request needs 2 octets, there are 1"),
        (CsrError::PublicKey, "public key is not in the form of a request"),
        (CsrError::Signature, "signature is not one of a P-256 key"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
