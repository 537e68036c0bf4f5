//! The attribute of a request that carries a statement.

use fleetcert_core::est::evidence::{EVIDENCE_ATTRIBUTE_LEN_MAX, Evidence};

use crate::{
    attest::evidence::{STATEMENT_LEN_MAX, Statement, StatementError},
    authority::der::{OCTET_STRING, OID, SEQUENCE, content, element, elements},
};

/// tcg-attest-tpm-certify, and its sibling tcg-attest-tpm-quote, content octets.
const CERTIFY: &[u8] = &[0x67, 0x81, 0x05, 0x14, 1];
const QUOTE: &[u8] = &[0x67, 0x81, 0x05, 0x14, 2];

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

fn octets(content: &[u8]) -> Vec<u8> {
    element(OCTET_STRING, &[content])
}

/// The three parts of a statement.
fn parts() -> Vec<u8> {
    sequence(&[&octets(b"attest"), &octets(b"signature"), &octets(b"public")])
}

fn statement(oid: &[u8], parts: &[u8]) -> Vec<u8> {
    sequence(&[&element(OID, &[oid]), parts])
}

/// A bundle of statements.
fn bundle(statements: &[&[u8]]) -> Vec<u8> {
    sequence(&[&sequence(statements)])
}

fn parse(values: &[u8]) -> Result<Statement, StatementError> {
    Statement::from_attribute_values(values)
}

fn genuine() -> Vec<u8> {
    bundle(&[&statement(CERTIFY, &parts())])
}

// Goal: what the device writes is read back, part by part.
#[test]
fn what_a_device_writes_is_read() {
    let evidence = Evidence { attest: &[1; 173], signature: &[2; 72], public: &[3; 88] };
    let mut out = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
    let attribute = evidence.attribute(&mut out).unwrap();
    let attribute = elements(content(SEQUENCE, attribute).unwrap()).unwrap();
    let values = content(0x31, attribute[1]).unwrap();
    let read = parse(values).unwrap();
    let written = Statement { attest: vec![1; 173], signature: vec![2; 72], public: vec![3; 88] };
    assert_eq!(read, written);
}

// Goal: by hand it is the same.
#[test]
fn a_bundle_with_one_statement_is_read() {
    let read = parse(&genuine()).unwrap();
    assert_eq!(read.attest, b"attest");
    assert_eq!(read.signature, b"signature");
    assert_eq!(read.public, b"public");
}

// Goal: more than one value or statement is refused, whichever would be right.
#[test]
fn more_than_one_statement_is_refused() {
    let certify = statement(CERTIFY, &parts());
    let two = Err(StatementError::Several { found: 2 });
    assert_eq!(parse(&bundle(&[&certify, &certify])), two);
    assert_eq!(parse(&[genuine(), genuine()].concat()), two);
}

// Goal: none at all is refused as that.
#[test]
fn no_statement_is_refused() {
    assert_eq!(parse(&[]), Err(StatementError::Empty));
    assert_eq!(parse(&bundle(&[])), Err(StatementError::Empty));
}

// Goal: another type of statement is refused by its name.
#[test]
fn a_statement_of_another_type_is_refused() {
    let found = der::asn1::ObjectIdentifier::from_bytes(QUOTE).unwrap();
    let refused = parse(&bundle(&[&statement(QUOTE, &parts())]));
    assert_eq!(refused, Err(StatementError::Type { found }));
}

// Goal: a statement longer than any is refused before it is looked at, and the longest is not.
#[test]
fn an_oversized_statement_is_refused() {
    let of = |len: usize| {
        let parts = sequence(&[&octets(&vec![0; len]), &octets(b""), &octets(b"")]);
        bundle(&[&statement(CERTIFY, &parts)])
    };
    let framing = of(1000).len() - 1000;
    assert!(parse(&of(STATEMENT_LEN_MAX - framing)).is_ok());
    let found = STATEMENT_LEN_MAX + 1;
    let refused = parse(&of(found - framing));
    assert_eq!(refused, Err(StatementError::TooLong { found }));
}

// Goal: everything that is no such bundle is refused.
#[test]
fn anything_else_is_refused() {
    let certify = statement(CERTIFY, &parts());
    let (a, b) = (octets(b"attest"), octets(b"signature"));
    let certificates = element(0xa0, &[&sequence(&[])]);
    for (what, values) in [
        ("trailing octets", [genuine(), vec![0]].concat()),
        ("certificates", sequence(&[&sequence(&[&certify]), &certificates])),
        ("an empty bundle", sequence(&[])),
        ("an empty statement", bundle(&[&sequence(&[])])),
        ("no parts", bundle(&[&statement(CERTIFY, &[])])),
        ("empty parts", bundle(&[&statement(CERTIFY, &sequence(&[]))])),
        ("two parts", bundle(&[&statement(CERTIFY, &sequence(&[&a, &b]))])),
        ("four parts", bundle(&[&statement(CERTIFY, &sequence(&[&a, &a, &a, &a]))])),
        ("other parts", bundle(&[&statement(CERTIFY, &sequence(&[&a, &a, &sequence(&[])]))])),
        ("something behind", bundle(&[&statement(CERTIFY, &[parts(), a.clone()].concat())])),
        ("no identifier", bundle(&[&sequence(&[&octets(CERTIFY), &parts()])])),
        ("a bad identifier", bundle(&[&statement(&[0x80], &parts())])),
        ("no bundle", octets(&genuine())),
    ] {
        assert_eq!(parse(&values), Err(StatementError::Malformed), "{what}");
    }
}

// Goal: no beginning of a bundle is one, and no octets make the parser panic.
#[test]
fn only_whole_bundles_are_read() {
    let genuine = genuine();
    for len in 0..genuine.len() {
        assert!(parse(&genuine[..len]).is_err(), "{len}");
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut changed = genuine.clone();
            changed[len] ^= flip;
            let _ = parse(&changed);
        }
    }
}
