//! The evidence as an attribute of a request: that it is there, once, and of the one kind that is
//! understood.

use fleetcert_core::est::csr::P256Signature;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::base64;
use fleetcert_tests::lab::claimant::{Claimant, Given, Request, Stated, hex, spki};
use fleetcert_tests::lab::pki::element;
use sha2::{Digest as _, Sha256};

use crate::bench::{Bench, DEVICE};

/// id-aa-attestation and tcg-attest-tpm-certify, as elements.
const ID_AA_ATTESTATION: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x3b";
const TCG_ATTEST_TPM_CERTIFY: &[u8] = b"\x06\x05\x67\x81\x05\x14\x01";

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OCTET_STRING: u8 = 0x04;

/// The attribute with these values.
fn attribute(values: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[ID_AA_ATTESTATION, &element(SET, values)].concat())
}

/// A bundle with these statements.
fn bundle(statements: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &element(SEQUENCE, statements))
}

/// The three parts of a statement.
fn parts(stated: &Stated) -> [Vec<u8>; 3] {
    [&stated.attest, &stated.signature, &stated.public].map(|part| element(OCTET_STRING, part))
}

/// A statement of some type with this content.
fn statement(kind: &[u8], content: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[kind, &element(SEQUENCE, content)].concat())
}

/// A device, its challenge, and the honest answer.
struct Answering {
    bench: Bench,
    device: Claimant,
    given: Given,
    stated: Stated,
}

impl Answering {
    fn new() -> Self {
        let bench = Bench::new();
        let mut device = bench.device("tpm");
        let given = bench.open(&mut device).given;
        let stated = device.stated(&given);
        Self { bench, device, given, stated }
    }

    /// Sends a request with these attributes that names that challenge; it is refused so.
    #[track_caller]
    fn refused(&mut self, attributes: &[u8], challenge: Option<[u8; 16]>, expected: (u16, &str)) {
        let (attributes, spki) = (attributes.to_vec(), spki(&self.device.key));
        let request = Request { device: DEVICE, spki, attributes, challenge };
        let csr = self.device.signed(&request);
        let https = self.bench.lab.https();
        let reply = request.send(&https, "/.well-known/est/simpleenroll", &csr);
        self.bench.no_certificate(&reply, expected);
    }

    /// Those values of the attribute are refused with that code.
    #[track_caller]
    fn refused_values(&mut self, values: &[&[u8]], code: &str) {
        for values in values {
            let challenge = Some(self.given.id);
            self.refused(&attribute(values), challenge, (400, code));
        }
    }

    #[track_caller]
    fn then_enrolls(mut self) {
        self.bench.honest_answer_enrolls(&mut self.device, &self.given);
    }
}

/// Goal: what is built here by hand is what a device sends, or the rest would prove nothing.
#[test]
fn the_attribute_by_hand_is_that_of_a_device() {
    let stated = Stated { attest: vec![1; 200], signature: vec![2; 72], public: vec![3; 88] };
    let by_hand = statement(TCG_ATTEST_TPM_CERTIFY, &parts(&stated).concat());
    assert_eq!(attribute(&bundle(&by_hand)), stated.attribute());
}

/// Goal: who was challenged answers.
#[test]
fn a_challenge_without_evidence_is_refused() {
    let mut answering = Answering::new();
    let challenge = Some(answering.given.id);
    answering.refused(&[], challenge, (400, "evidence-missing"));
    answering.then_enrolls();
}

/// Goal: evidence answers a challenge, or it is nothing.
#[test]
fn evidence_without_a_challenge_is_refused() {
    let mut answering = Answering::new();
    let attribute = answering.stated.attribute();
    answering.refused(&attribute, None, (400, "challenge-missing"));
    answering.then_enrolls();
}

/// Goal: two statements, or two values, could be read two ways.
#[test]
fn two_statements_are_refused() {
    let mut answering = Answering::new();
    let one = statement(TCG_ATTEST_TPM_CERTIFY, &parts(&answering.stated).concat());
    let two_statements = bundle(&one.repeat(2));
    let two_values = bundle(&one).repeat(2);
    answering.refused_values(&[&two_statements, &two_values], "evidence-several");
    answering.then_enrolls();
}

/// Goal: another kind of statement is named, not guessed at.
#[test]
fn a_statement_of_another_type_is_refused() {
    let mut answering = Answering::new();
    let content = parts(&answering.stated).concat();
    let other = bundle(&statement(b"\x06\x05\x67\x81\x05\x14\x02", &content));
    let long = bundle(&statement(b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x15\x01\x01", &content));
    answering.refused_values(&[&other, &long], "evidence-type");
    answering.then_enrolls();
}

/// Goal: nothing inside is nothing.
#[test]
fn empty_evidence_is_refused() {
    let mut answering = Answering::new();
    let no_statement = bundle(&[]);
    answering.refused_values(&[&[], &no_statement], "evidence-empty");
    answering.then_enrolls();
}

/// Goal: no other form than the one that is written down, empty sequences included.
#[test]
fn malformed_evidence_is_refused() {
    let mut answering = Answering::new();
    let [attest, signature, public] = parts(&answering.stated);
    let three = [&attest[..], &signature, &public].concat();
    let of = |content: &[u8]| bundle(&statement(TCG_ATTEST_TPM_CERTIFY, content));
    let honest = statement(TCG_ATTEST_TPM_CERTIFY, &three);
    let with_certificates =
        element(SEQUENCE, &[element(SEQUENCE, &honest), element(0xA0, &[])].concat());
    let no_type = bundle(&element(SEQUENCE, &element(SEQUENCE, &three)));
    let bundle_cut = bundle(&honest)[..40].to_vec();
    let values: [&[u8]; 11] = [
        &element(SEQUENCE, &[]),
        &bundle(&element(SEQUENCE, &[])),
        &of(&[]),
        &of(&[&attest[..], &signature].concat()),
        &of(&[&three[..], &public].concat()),
        &of(&three.iter().map(|octet| octet ^ 0x20).collect::<Vec<_>>()),
        &with_certificates,
        &no_type,
        &bundle_cut,
        &[0xFF; 30],
        &element(SET, &honest),
    ];
    answering.refused_values(&values, "evidence-malformed");
    answering.then_enrolls();
}

/// A request with attributes that no device would write, signed with the device key.
fn request_by_hand(device: &mut Claimant, attributes: &[u8]) -> Vec<u8> {
    let common_name = [b"\x06\x03\x55\x04\x03", &element(0x0C, DEVICE.as_bytes())[..]].concat();
    let name = element(SEQUENCE, &element(SET, &element(SEQUENCE, &common_name)));
    let version = element(0x02, &[0]);
    let content = [&version[..], &name, &spki(&device.key), &element(0xA0, attributes)].concat();
    let content = element(SEQUENCE, &content);
    let key = device.key.clone();
    let raw = device.vault.sign(&key, &Sha256::digest(&content).into()).or_fail("a signature");
    let signature = P256Signature::from_raw(&raw).or_fail("r and s");
    let bits = element(0x03, &[&[0], signature.as_der()].concat());
    let ecdsa_with_sha256 = element(SEQUENCE, b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02");
    element(SEQUENCE, &[content, ecdsa_with_sha256, bits].concat())
}

/// Goal: the attribute comes once.
#[test]
fn a_duplicate_attribute_is_refused() {
    let mut answering = Answering::new();
    let once = answering.stated.attribute();
    for (attributes, expected) in [(once.repeat(2), (400, "csr-malformed")), (once, (200, ""))] {
        let csr = base64(&request_by_hand(&mut answering.device, &attributes));
        let id = hex(&answering.given.id);
        let https = answering.bench.lab.https().field("Fleetcert-Challenge", &id);
        let reply = https.post("/.well-known/est/simpleenroll", csr.as_bytes());
        assert_eq!(reply.verdict(), expected, "{}", reply.text());
        assert_eq!(answering.bench.lab.issued(DEVICE), usize::from(expected.0 == 200));
    }
}

/// Goal: parts in each other's place are not taken for what they are.
#[test]
fn parts_in_each_others_place_are_refused() {
    let mut answering = Answering::new();
    let [attest, signature, public] = parts(&answering.stated);
    let orders = [
        ([&signature, &attest, &public], "attest-magic"),
        ([&public, &signature, &attest], "attest-magic"),
        ([&attest, &public, &signature], "key-malformed"),
    ];
    for (order, code) in orders {
        let content = order.map(|part| part.as_slice()).concat();
        let values = bundle(&statement(TCG_ATTEST_TPM_CERTIFY, &content));
        let challenge = Some(answering.given.id);
        answering.refused(&attribute(&values), challenge, (403, code));
    }
    answering.then_enrolls();
}

/// Goal: a challenge is named by its 32 digits, and by nothing else.
#[test]
fn a_malformed_name_of_a_challenge_is_refused() {
    let mut answering = Answering::new();
    let attributes = answering.stated.attribute();
    let spki = spki(&answering.device.key);
    let request = Request { device: DEVICE, spki, attributes, challenge: None };
    let csr = answering.device.signed(&request);
    for name in ["0", "xyz", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32)] {
        let https = answering.bench.lab.https().field("Fleetcert-Challenge", name);
        let reply = request.send(&https, "/.well-known/est/simpleenroll", &csr);
        assert_eq!(reply.verdict(), (400, "challenge-id"), "{name:?}");
        assert_eq!(answering.bench.lab.issued(DEVICE), 0);
    }
    answering.then_enrolls();
}
