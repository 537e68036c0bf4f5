//! What each admission policy takes for a first certificate, and what it does with evidence that it
//! did not ask for.

use fleetcert_tests::lab::by_hand::SIMPLE_ENROLL;
use fleetcert_tests::lab::claimant::{Request, spki};
use fleetcert_tests::lab::pki;
use fleetcert_tests::lab::{OrFail, Plan};
use serde_json::Value;

use crate::bench::{Bench, DEVICE, enrolled};

fn admitting(admission: &str) -> Bench {
    Bench::with(Plan { admission, ..Plan::default() })
}

/// The manufacturer that swtpm_setup certifies its TPMs as.
const SOFTWARE_MAKER: &str = "id:00001014";

/// Goal: where a TPM is asked for, nothing else will do: not nothing, and not a token.
#[test]
fn a_request_without_evidence_is_refused_where_a_tpm_is_asked_for() {
    for admission in ["ek-chain", "ek-allowlist"] {
        let bench = admitting(admission);
        let mut device = bench.device("tpm");
        let https = bench.lab.https();
        let reply = bench.enroll_bare(&https, SIMPLE_ENROLL, &mut device, DEVICE);
        bench.no_certificate(&reply, (403, "evidence-required"));
        let token = bench.lab.operate(&["token", "issue", DEVICE, "--group", "default"]);
        let https = https.basic(DEVICE, token.trim());
        let reply = bench.enroll_bare(&https, SIMPLE_ENROLL, &mut device, DEVICE);
        assert_eq!(reply.verdict(), (403, "evidence-required"), "{admission}");
        assert_eq!(bench.lab.issued(DEVICE), 0);
    }
}

/// Goal: both means both.
#[test]
fn token_and_ek_takes_neither_alone() {
    let bench = admitting("token+ek");
    let mut device = bench.device("tpm");
    let https = bench.lab.https();
    let reply = bench.enroll(&mut device, DEVICE);
    bench.no_certificate(&reply, (401, "credentials-required"));
    let token = bench.lab.operate(&["token", "issue", DEVICE, "--group", "default"]);
    let with_token = https.basic(DEVICE, token.trim());
    let reply = bench.enroll_bare(&with_token, SIMPLE_ENROLL, &mut device, DEVICE);
    assert_eq!(reply.verdict(), (403, "evidence-required"), "{}", reply.text());
    assert_eq!(bench.lab.issued(DEVICE), 0);
    enrolled(&bench.enroll_over(&with_token, SIMPLE_ENROLL, &mut device, DEVICE));
    assert_eq!(bench.tpm(DEVICE)["bound"]["admission"], "token+ek");
}

/// Goal: wrong evidence is refused where none was needed, and the token is not used up by it.
#[test]
fn wrong_evidence_is_refused_where_a_token_would_do() {
    let bench = admitting("token");
    let mut device = bench.device("tpm");
    let token = bench.lab.operate(&["token", "issue", DEVICE, "--group", "default"]);
    let https = bench.lab.https().basic(DEVICE, token.trim());
    let given = bench.open(&mut device).given;
    let mut stated = device.stated(&given);
    *stated.signature.last_mut().or_fail("s") ^= 1;
    let (attributes, challenge) = (stated.attribute(), Some(given.id));
    let request = Request { device: DEVICE, spki: spki(&device.key), attributes, challenge };
    let csr = device.signed(&request);
    let reply = request.send(&https, SIMPLE_ENROLL, &csr);
    assert_eq!(reply.verdict(), (403, "signature-wrong"), "{}", reply.text());
    assert_eq!((bench.lab.issued(DEVICE), &bench.tpm(DEVICE)["bound"]), (0, &Value::Null));
    enrolled(&bench.enroll_over(&https, SIMPLE_ENROLL, &mut device, DEVICE));
}

/// Goal: right evidence is recorded where none was needed; without a token it admits nobody there.
#[test]
fn evidence_that_nobody_asked_for_is_recorded() {
    let bench = admitting("token");
    let mut device = bench.device("tpm");
    let reply = bench.enroll(&mut device, DEVICE);
    bench.no_certificate(&reply, (401, "credentials-required"));
    let token = bench.lab.operate(&["token", "issue", DEVICE, "--group", "default"]);
    let https = bench.lab.https().basic(DEVICE, token.trim());
    enrolled(&bench.enroll_over(&https, SIMPLE_ENROLL, &mut device, DEVICE));
    let bound = &bench.tpm(DEVICE)["bound"];
    assert_eq!(
        (&bound["ekSha256"], &bound["admission"]),
        (&device.ek_id().into(), &"token".into())
    );
}

/// Goal: a group that is closed is closed to TPMs.
#[test]
fn a_closed_group_lets_no_tpm_in() {
    let bench = admitting("deny");
    let mut device = bench.device("tpm");
    let reply = bench.enroll(&mut device, DEVICE);
    bench.no_certificate(&reply, (401, "credentials-required"));
}

/// Goal: software is no TPM, unless the operator says that it will do.
#[test]
fn a_virtual_tpm_is_refused_where_it_is_not_allowed() {
    for (admission, allow_virtual_tpm, expected) in [
        ("ek-chain", false, (403, "virtual-tpm")),
        ("approval", false, (403, "virtual-tpm")),
        ("ek-chain", true, (200, "")),
    ] {
        let bench = Bench::with(Plan { admission, allow_virtual_tpm, ..Plan::default() });
        let mut device = bench.bare_device("tpm");
        let params = pki::endorsement(SOFTWARE_MAKER);
        device.certificates = bench.maker.signs_for(&params, &device.ek_spki());
        let reply = bench.enroll(&mut device, DEVICE);
        assert_eq!(reply.verdict(), expected, "{}", reply.text());
        let issued = usize::from(expected.0 == 200);
        assert_eq!(bench.lab.issued(DEVICE), issued);
        if issued == 1 {
            assert_eq!(bench.tpm(DEVICE)["bound"]["tpm"]["virtual"], true);
        }
    }
}

/// Goal: an operator sees what TPM a key came with before approving it, and the key that was
/// approved, in the TPM that was shown, gets the certificate.
#[test]
fn an_operator_sees_the_evidence_before_approving() {
    let bench = admitting("approval");
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let waiting = device.answer(&bench.lab, DEVICE, &given, &stated);
    assert_eq!(waiting.status, 202, "{}", waiting.text());
    assert!(waiting.field("retry-after").is_some());

    let shown = bench.lab.ask(&["device", "show", DEVICE]);
    assert_eq!((&shown["attested"], &shown["tpm"]["bound"]), (&false.into(), &Value::Null));
    let record = &shown["tpm"]["waiting"];
    assert_eq!(record["ekSha256"], device.ek_id());
    assert_eq!(record["evidence"]["key"], shown["device"]["approval"]["key"]);
    let text = bench.lab.operate(&["device", "show", DEVICE]);
    assert!(text.contains("waits with the key: TPM IFX"), "{text}");

    let again = device.answer(&bench.lab, DEVICE, &given, &stated);
    assert_eq!(again.status, 202, "asking again changes nothing");
    let key = shown["device"]["approval"]["key"].as_str().or_fail("a key").to_owned();
    bench.lab.operate(&["device", "approve", DEVICE, "--key", &key]);
    enrolled(&device.answer(&bench.lab, DEVICE, &given, &stated));
    let tpm = bench.tpm(DEVICE);
    assert_eq!(
        (&tpm["bound"]["ekSha256"], &tpm["waiting"]),
        (&device.ek_id().into(), &Value::Null)
    );
    assert_eq!(tpm["bound"]["admission"], "approval");
}

/// Goal: what was shown to the operator cannot become another TPM's before it is approved.
#[test]
fn another_tpm_does_not_take_the_place_of_the_one_that_waits() {
    let bench = admitting("approval");
    let mut device = bench.device("tpm");
    let mut thief = bench.device("thief");
    assert_eq!(bench.enroll(&mut device, DEVICE).status, 202);
    let reply = bench.enroll(&mut thief, DEVICE);
    assert_eq!(reply.verdict(), (409, "approval-conflict"), "{}", reply.text());
    assert_eq!(bench.tpm(DEVICE)["waiting"]["ekSha256"], device.ek_id());
    bench.lab.operate(&["device", "reject", DEVICE]);
    assert_eq!(bench.tpm(DEVICE)["waiting"], Value::Null);
}

/// Goal: wrong evidence is not put before an operator.
#[test]
fn wrong_evidence_does_not_wait_for_an_operator() {
    let bench = admitting("approval");
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let mut stated = device.stated(&given);
    stated.attest[0] ^= 1;
    bench.refused(&mut device, &given, &stated, (403, "attest-magic"));
}
