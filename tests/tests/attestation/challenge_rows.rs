//! A challenge is good once, for a while, for one device and one attestation key.

use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::{certificates, openssl};
use fleetcert_tests::lab::claimant::{Request, SoftwareKey, hex, spki};
use fleetcert_tests::lab::https::Reply;
use fleetcert_tpm::template::Template;

use crate::bench::{Bench, DEVICE, enrolled};

/// Goal: a challenge that nobody gave is none.
#[test]
fn an_unknown_challenge_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let mut unknown = given.clone();
    unknown.id[15] ^= 1;
    bench.refused(&mut device, &unknown, &stated, (403, "challenge-unknown"));
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: a device that asks again has given up what it asked before.
#[test]
fn a_challenge_that_was_replaced_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let first = bench.challenge(&device.asking(DEVICE));
    let stated = device.stated(&first);
    let second = bench.challenge(&device.asking(DEVICE));
    bench.refused(&mut device, &first, &stated, (403, "challenge-unknown"));
    bench.honest_answer_enrolls(&mut device, &second);
}

/// Goal: one challenge, one certificate: not the same request twice, nor another for another key.
#[test]
fn a_challenge_that_was_used_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let stated = device.stated(&open.given);
    enrolled(&device.answer(&bench.lab, DEVICE, &open.given, &stated));
    let same = device.answer(&bench.lab, DEVICE, &open.given, &stated);
    assert_eq!(same.verdict(), (409, "challenge-used"), "{}", same.text());

    let key = device.vault.make(Template::DeviceKey).or_fail("another key");
    let qualifying = open.given.qualifying(&open.secret, &spki(&key));
    let stated = device.certify(&key, &qualifying);
    device.key = key;
    let other = device.answer(&bench.lab, DEVICE, &open.given, &stated);
    assert_eq!(other.verdict(), (409, "challenge-used"), "{}", other.text());
    assert_eq!(bench.lab.issued(DEVICE), 1);
}

/// Goal: its secret is forgotten with its use, and nobody's database gives it away.
#[test]
fn the_secret_of_a_used_challenge_is_forgotten() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let query = format!("SELECT hex(secret) FROM challenge WHERE id = x'{}'", hex(&open.given.id));
    assert_eq!(bench.sql(&query).to_lowercase(), hex(&open.secret));
    bench.honest_answer_enrolls(&mut device, &open.given);
    assert_eq!(bench.sql(&query), "");
    let database = std::fs::read(bench.lab.path("provisioner/fleetcert.db")).or_fail("it");
    assert!(!database.windows(32).any(|window| window == open.secret), "it is in the file");
}

/// Goal: the same request, sent again because its answer was lost, gets the same certificate.
#[test]
fn a_request_that_is_repeated_by_its_name_gets_its_answer_again() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let (attributes, challenge) = (stated.attribute(), Some(given.id));
    let request = Request { device: DEVICE, spki: spki(&device.key), attributes, challenge };
    let csr = device.signed(&request);
    let https = bench.lab.https().field("Fleetcert-Request", &"5a".repeat(16));
    let send = || request.send(&https, "/.well-known/est/simpleenroll", &csr);
    let (first, second) = (send(), send());
    enrolled(&first);
    enrolled(&second);
    let said = |reply: &Reply| {
        let pem = certificates(&reply.body);
        let arguments = ["x509", "-noout", "-serial", "-dates", "-subject", "-pubkey"];
        openssl(&arguments, pem.as_bytes()).stdout
    };
    assert_eq!(said(&first), said(&second));
    assert_eq!(bench.lab.issued(DEVICE), 1);
}

/// Goal: a name of a request that was used lets no other key in.
#[test]
fn a_used_challenge_under_the_name_of_the_same_request_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let https = bench.lab.https().field("Fleetcert-Request", &"5a".repeat(16));
    let (attributes, challenge) = (stated.attribute(), Some(given.id));
    let path = "/.well-known/est/simpleenroll";
    let request = Request { device: DEVICE, spki: spki(&device.key), attributes, challenge };
    let csr = device.signed(&request);
    enrolled(&request.send(&https, path, &csr));
    let thief = SoftwareKey::new();
    let request = Request { spki: thief.spki(), ..request };
    let csr = request.signed(|content| thief.sign(content));
    let reply = request.send(&https, path, &csr);
    assert_eq!(reply.verdict(), (409, "request-conflict"), "{}", reply.text());
    assert_eq!(bench.lab.issued(DEVICE), 1);
}

/// Goal: a challenge that is older than two minutes is over.
#[test]
fn an_expired_challenge_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let life = bench.sql("SELECT expires_at - created_at FROM challenge");
    assert_eq!(life, "120");
    bench.sql(
        "UPDATE challenge SET created_at = created_at - 121, expires_at = expires_at - 121 \
         RETURNING id",
    );
    bench.refused(&mut device, &given, &stated, (403, "challenge-expired"));
    let given = bench.challenge(&device.asking(DEVICE));
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: what is long past is cleared away by who asks next.
#[test]
fn a_challenge_that_is_long_past_is_forgotten() {
    let bench = Bench::new();
    let (mut device, other) = (bench.device("tpm"), bench.device("other"));
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    bench.sql("UPDATE challenge SET expires_at = expires_at - 500 RETURNING id");
    bench.challenge(&other.asking("gw-2"));
    assert_eq!(bench.sql("SELECT count(*) FROM challenge"), "1");
    bench.refused(&mut device, &given, &stated, (403, "challenge-unknown"));
}

/// Goal: the challenge of one device is not another's, though the TPM is the right one.
#[test]
fn the_challenge_of_another_device_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let reply = device.answer(&bench.lab, "gw-2", &given, &stated);
    bench.no_certificate(&reply, (403, "challenge-other-device"));
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: a refusal uses nothing up, so that nobody's bad answer spoils a good one.
#[test]
fn a_refused_answer_leaves_the_challenge_open() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let mut stated = device.stated(&given);
    stated.attest[0] ^= 1;
    for _ in 0..3 {
        bench.refused(&mut device, &given, &stated, (403, "attest-magic"));
    }
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: who knows a certificate, and has no TPM, cannot keep its owner from enrolling: the
/// challenges of one endorsement key are four, and the oldest gives way.
#[test]
fn strangers_who_ask_in_a_tpms_name_lock_nobody_out() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let mut other = bench.device("other");
    for _ in 0..6 {
        other.ak = other.vault.make(Template::AttestationKey).or_fail("a key");
        let mut asking = device.asking(DEVICE);
        asking.ak_public = other.ak.public_area().to_vec();
        bench.challenge(&asking);
    }
    assert_eq!(bench.sql("SELECT count(*) FROM challenge"), "4");
    let given = bench.challenge(&device.asking(DEVICE));
    assert_eq!(bench.sql("SELECT count(*) FROM challenge"), "4");
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: the database does not grow with who asks: at the limit strangers are told to come again,
/// and a device that has a challenge gets a new one in its place.
#[test]
fn as_many_challenges_are_open_as_may_be() {
    const COPIES: &str = "\
        INSERT INTO challenge (id, device, ek, source, chain, ak_name, ak_public, nonce, secret,
            created_at, expires_at)
        SELECT randomblob(16), device, randomblob(32), source, chain, ak_name, ak_public, nonce,
            secret, created_at, expires_at
        FROM challenge,
            (WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 4096)
            SELECT i FROM n)
        RETURNING 1";
    let bench = Bench::new();
    let (device, other) = (bench.device("tpm"), bench.device("other"));
    bench.challenge(&device.asking(DEVICE));
    bench.sql(COPIES);
    assert_eq!(bench.sql("SELECT count(*) FROM challenge"), "4096");
    bench.no_challenge(&other.asking("gw-2"), (503, "challenges-full"));
    bench.challenge(&device.asking(DEVICE));
    bench.sql("UPDATE challenge SET expires_at = expires_at - 121 RETURNING 1");
    bench.challenge(&other.asking("gw-2"));
}
