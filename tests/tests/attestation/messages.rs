//! The request for a challenge as octets: what is no such message, and what is too much of one.

use fleetcert_core::wire::{CHALLENGE_PATH, ChallengeRequest, MEDIA_TYPE};
use fleetcert_tests::lab::claimant::{Asking, Request, post_challenge, spki};
use fleetcert_tests::lab::pki::element;
use fleetcert_tests::lab::{OrFail, Plan};

use crate::bench::{Bench, DEVICE};

/// That body is refused so, and leaves no challenge.
#[track_caller]
fn refused(bench: &Bench, body: &[u8], expected: (u16, &str)) {
    let reply = post_challenge(&bench.lab.https(), body);
    assert_eq!(reply.verdict(), expected, "{}", reply.text());
    assert_eq!(bench.sql("SELECT count(*) FROM challenge"), "0");
}

/// Goal: a message that was cut anywhere is no message.
#[test]
fn a_truncated_request_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let whole = device.asking(DEVICE).body();
    for len in [0, 1, 2, 6, 7, 100, whole.len() / 2, whole.len() - 1] {
        refused(&bench, &whole[..len], (400, "challenge-malformed"));
    }
    assert_eq!(post_challenge(&bench.lab.https(), &whole).status, 200);
}

/// Goal: octets behind a message are no part of it.
#[test]
fn trailing_octets_are_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let whole = device.asking(DEVICE).body();
    for more in [&[0][..], &whole] {
        refused(&bench, &[&whole[..], more].concat(), (400, "challenge-malformed"));
    }
}

/// Goal: what a later version says is not guessed at.
#[test]
fn another_version_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let mut whole = device.asking(DEVICE).body();
    for version in [0, 2, 0x7F] {
        whole[0] = version;
        refused(&bench, &whole, (400, "challenge-version"));
    }
}

/// Goal: a body of another type is not looked into.
#[test]
fn another_media_type_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let whole = device.asking(DEVICE).body();
    for media_type in ["application/json", "application/octet-stream", "application/pkcs10"] {
        let https = bench.lab.https().field("Content-Type", media_type);
        let reply = https.post(CHALLENGE_PATH, &whole);
        assert_eq!(reply.verdict(), (415, "content-type"), "{media_type}");
    }
    let https = bench.lab.https().field("Content-Type", &format!("{MEDIA_TYPE}; v=1"));
    assert_eq!(https.post(CHALLENGE_PATH, &whole).status, 200);
}

/// Goal: a challenge is asked for by POST.
#[test]
fn another_method_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.lab.https().get(CHALLENGE_PATH).status, 405);
}

/// Goal: a body longer than any message is not read to its end.
#[test]
fn an_oversized_request_is_refused() {
    let bench = Bench::new();
    refused(&bench, &vec![1; ChallengeRequest::MAX_LEN + 1], (413, "too-large"));
    refused(&bench, &vec![1; ChallengeRequest::MAX_LEN], (400, "challenge-malformed"));
}

/// Goal: each part has its own limit, below that of the message.
#[test]
fn an_oversized_part_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let honest = device.asking(DEVICE);
    let spoilt: [&dyn Fn(&mut Asking); 4] = [
        &|asking| asking.ek_public.resize(1025, 0),
        &|asking| asking.ak_public.resize(1025, 0),
        &|asking| asking.ek_certificates.resize(8193, 0),
        &|asking| asking.device = "a".repeat(65),
    ];
    for spoil in spoilt {
        let mut asking = honest.clone();
        spoil(&mut asking);
        bench.no_challenge(&asking, (400, "challenge-malformed"));
    }
}

/// Goal: the longest parts that are let through are judged as what they are.
#[test]
fn parts_at_their_limits_are_judged() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let honest = device.asking(DEVICE);
    let mut asking = honest.clone();
    asking.ek_public.resize(1024, 0);
    bench.no_challenge(&asking, (403, "ek-malformed"));
    let mut asking = honest.clone();
    asking.ak_public.resize(1024, 0);
    bench.no_challenge(&asking, (403, "ak-malformed"));
    let mut asking = honest;
    asking.ek_certificates.resize(8192, 0);
    bench.no_challenge(&asking, (403, "ek-certificate-malformed"));
}

/// Goal: keys are not optional, and a device has a name.
#[test]
fn a_request_without_a_key_or_a_name_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let honest = device.asking(DEVICE);
    let spoilt: [&dyn Fn(&mut Asking); 4] = [
        &|asking| asking.ek_public.clear(),
        &|asking| asking.ak_public.clear(),
        &|asking| asking.device.clear(),
        &|asking| asking.device = "not a name".to_owned(),
    ];
    for spoil in spoilt {
        let mut asking = honest.clone();
        spoil(&mut asking);
        bench.no_challenge(&asking, (400, "challenge-malformed"));
    }
}

/// Goal: no TPM makes a backend of a device.
#[test]
fn a_reserved_name_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    bench.no_challenge(&device.asking("backend.orders"), (400, "device-name"));
}

/// Goal: who shows a certificate asks for itself.
#[test]
fn a_challenge_for_another_device_than_that_of_the_certificate_is_refused() {
    let tokens = "[groups.tokens]\nadmission = \"token\"";
    let bench = Bench::with(Plan { more: tokens, ..Plan::attested() });
    let device = bench.device("tpm");
    let identity = bench.lab.enroll_by_hand_in("tokens", "sw-1");
    let https = bench.lab.https_as(&identity);
    let refusal = device.asking(DEVICE).ask(&https).err().or_fail("a refusal");
    assert_eq!(refusal.verdict(), (403, "challenge-device"));
    assert!(device.asking("sw-1").ask(&https).is_ok());
}

/// Goal: the request that brings the evidence has limits too: as a whole, and the evidence in it.
#[test]
fn an_oversized_certification_request_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let mut stated = device.stated(&given);
    let honest = stated.clone();
    stated.attest.resize(2400, 0);
    bench.refused(&mut device, &given, &stated, (400, "evidence-too-long"));
    stated.attest = honest.attest.clone();
    stated.attest.resize(600, 0);
    bench.refused(&mut device, &given, &stated, (403, "attest-malformed"));
    stated.clone_from(&honest);
    stated.public.resize(1025, 0);
    bench.refused(&mut device, &given, &stated, (403, "key-malformed"));

    let unstructured_name = element(0x06, b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x02");
    let values = element(0x31, &element(0x0C, &[b'a'; 8192]));
    let padding = element(0x30, &[unstructured_name, values].concat());
    let attributes = [honest.attribute(), padding].concat();
    let challenge = Some(given.id);
    let request = Request { device: DEVICE, spki: spki(&device.key), attributes, challenge };
    let csr = device.signed(&request);
    let path = "/.well-known/est/simpleenroll";
    let reply = request.send(&bench.lab.https(), path, &csr);
    bench.no_certificate(&reply, (413, "csr-too-long"));
    bench.honest_answer_enrolls(&mut device, &given);
}
