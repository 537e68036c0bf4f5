//! The first contact: a device with a token, without one, with a wrong one, and too early.

use std::fs;

use fleetcert_rig::wait::Stopwatch;
use fleetcert_tests::lab::by_hand::{openssl, serial};
use fleetcert_tests::lab::device::Device;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use serde_json::Value;

/// Exit codes of `fleetcert-agent`.
const NOT_ENROLLED: i32 = 3;
const REFUSED: i32 = 5;
const TRY_LATER: i32 = 75;

/// A group that needs an operator, and asks its devices to come back every second.
const APPROVAL: &str = "[groups.approved]\npolicy = \"approval\"\nretry_after_s = 1\n";

/// The counted codes of refused requests of `device`.
fn refusals(lab: &Lab, device: &str, code: &str) -> usize {
    let begins = |entry: &&Value| {
        entry["event"] == "refused"
            && entry["detail"].as_str().is_some_and(|detail| detail.starts_with(code))
    };
    lab.audit(device).iter().filter(begins).count()
}

/// Goal: token, certificate, proof, adoption, birth: and the status tells all of it.
#[test]
fn a_device_enrolls_by_token_and_is_born() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    assert_eq!(device.run(&["status"]).code, Some(NOT_ENROLLED));
    device.start();
    let status = device.await_online();
    let (_, code) = device.status_command();
    assert_eq!(code, Some(0));
    let text = |pointer: &str| status.text(pointer).or_fail(pointer).to_owned();
    assert_eq!(text("/device_id"), "dev-1");
    assert_eq!(text("/identity/subject"), "CN=dev-1");
    assert_eq!(text("/identity/spiffe_id"), "spiffe://lab.example/device/dev-1");
    assert_eq!(text("/next/action"), "consult");
    assert_eq!(text("/clock/confidence"), "trusted");
    assert_eq!(text("/key/backend"), "software");
    assert_eq!(status.failure(), None);
    assert!(text("/identity/renew_at") < text("/identity/not_after"));

    let inspected = device.run(&["inspect", "--json"]).expect_success().stdout;
    let inspected: Value = serde_json::from_str(&inspected).or_fail("JSON from inspect");
    for pointer in ["/identity/serial", "/identity/not_after", "/next/action", "/next/at"] {
        assert!(inspected.pointer(pointer).is_some_and(Value::is_string), "{pointer}");
    }
    assert_eq!(inspected["clock"]["confidence"], "trusted");
    assert!(inspected["last_failure"].is_null() && inspected["certificate"]["pem"].is_string());
    let pem = lab.path("inspected.pem");
    fs::write(&pem, device.run(&["inspect", "--pem"]).expect_success().stdout).or_fail("a file");
    assert_eq!(Some(serial(&pem).as_str()), status.serial());
    assert_eq!(lab.issued("dev-1"), 1);

    // Heard by a listener that comes later: the birth is retained.
    let backend = lab.backend("fleet");
    let topic = "fleetcert/v1/dev-1/state";
    let mut listener = broker.listen(&backend, topic, &lab.path("state.heard"));
    let birth = listener
        .await_message("the birth", 5_000, topic, |payload| payload.contains("\"online\":true"));
    let birth: Value = serde_json::from_str(&birth).or_fail("JSON");
    assert_eq!(birth["serial"].as_str(), status.serial());
    assert_eq!(birth["schema"], 1);

    device.stop();
    listener.await_message("the death", 5_000, topic, |it| it.contains("\"online\":false"));
}

/// Goal: `enroll` gets the certificate and ends; `run` goes on with it.
#[test]
fn enroll_alone_gets_the_certificate_and_ends() {
    let lab = Lab::new();
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    let outcome = device.run(&["enroll"]).expect_success();
    assert!(outcome.stdout.contains("enrolled"), "{}", outcome.text());
    let (at_rest, code) = device.status_command();
    assert_eq!((code, at_rest.phase()), (Some(0), "active"));
    assert_eq!(at_rest.0["running"], false);
    device.run(&["enroll"]).expect_success();
    device.start();
    assert_eq!(device.await_active().serial(), at_rest.serial());
    assert_eq!(lab.issued("dev-1"), 1);
    let shown = device.run(&["inspect", "--pem"]).expect_success().stdout;
    let dates = openssl(&["x509", "-noout", "-checkend", "60"], shown.as_bytes());
    assert!(dates.stdout.contains("will not expire"), "{}", dates.text());
}

/// Goal: each token that does not let in says so by exit code, code and advice, and `run` keeps
/// trying: once the token is right, it gets in without a restart.
#[test]
fn a_token_that_does_not_let_in_is_told_and_tried_again() {
    let lab = Lab::new();
    let token_file = lab.path("token");
    let mut device = lab.device("dev-1", |it| it.token_file = Some(token_file.clone()));
    let good = lab.token("dev-1");
    let expired = lab.operate(&["token", "issue", "dev-1", "--ttl-s", "1"]);
    let watch = Stopwatch::start();
    for (token, code) in [
        ("A".repeat(good.len()), "token-unknown"),
        (lab.token("dev-2"), "token-wrong-device"),
        (expired.trim().to_owned(), "token-expired"),
    ] {
        until("the token to expire", 5_000, || (watch.elapsed_ms() >= 2_000).then_some(()));
        fs::write(&token_file, format!("{token}\n")).or_fail("the token's file");
        let asked = Stopwatch::start();
        let told = device.run(&["enroll"]).expect_code(REFUSED).stderr;
        assert!(asked.elapsed_ms() < 4_000, "who asks waits for {} ms", asked.elapsed_ms());
        assert!(told.contains(code), "{told}");
        assert!(told.contains("to do:") && told.contains("token"), "{told}");
        assert!(!told.contains(&token), "a token in the output: {told}");
    }
    device.run(&["wipe", "--yes"]).expect_success();
    device.start();
    let status = device.await_failure("enroll", "refused");
    assert!(status.cause().or_fail("a cause").contains("token-expired"), "{:#}", status.0);
    assert_eq!(device.status_command().1, Some(NOT_ENROLLED));
    fs::write(&token_file, &good).or_fail("the token's file");
    device.await_active();
    assert!(!device.log().contains(&good), "a token in the log");
}

/// Goal: a device that lost everything is not let in by its old token: each is good once.
#[test]
fn a_used_token_lets_nobody_in() {
    let lab = Lab::new();
    let token_file = lab.token_file("dev-1");
    let device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    device.run(&["enroll"]).expect_success();
    device.run(&["wipe", "--yes"]).expect_success();
    let told = device.run(&["enroll"]).expect_code(REFUSED).stderr;
    assert!(told.contains("token-used") && told.contains("to do:"), "{told}");
    assert_eq!(lab.issued("dev-1"), 1);
}

/// Goal: a file that holds no token, or none at all, is named.
#[test]
fn a_missing_token_is_named() {
    let lab = Lab::new();
    let token_file = lab.path("missing.token");
    lab.operate(&["device", "add", "dev-1"]);
    let device = lab.device("dev-1", |settings| settings.token_file = Some(token_file.clone()));
    let outcome = device.run(&["enroll"]);
    assert_ne!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("missing.token"), "{}", outcome.text());
    let device = lab.device("dev-1", |_| {});
    let outcome = device.run(&["enroll"]).expect_code(REFUSED);
    assert!(outcome.stderr.contains("credentials-required"), "{}", outcome.text());
}

/// Goal: a device that needs approval waits with its key, and gets in with that same key.
#[test]
fn a_device_that_needs_approval_waits_for_it() {
    let lab = Lab::with(Plan { more: APPROVAL, ..Plan::default() });
    lab.operate(&["device", "add", "dev-1", "--group", "approved"]);
    let mut device = lab.device("dev-1", |_| {});
    let outcome = device.run(&["enroll"]).expect_code(TRY_LATER);
    assert!(outcome.stderr.contains("device approve"), "{}", outcome.text());
    assert_eq!(lab.shown("dev-1")["status"], "pending");
    device.start();
    let status = device.await_failure("enroll", "pending");
    assert!(status.text("/last_failure/what_to_do").or_fail("advice").contains("device approve"));
    assert_eq!(lab.issued("dev-1"), 0);
    lab.operate(&["device", "approve", "dev-1"]);
    let status = device.await_active();
    assert_eq!(lab.issued("dev-1"), 1);
    let approved = lab.audit("dev-1");
    let detail = |event: &str| {
        let entry = approved.iter().find(|entry| entry["event"] == event).or_fail(event);
        entry["detail"].as_str().or_fail("a detail").to_owned()
    };
    let key = status.text("/identity/spki_sha256").or_fail("a key").to_owned();
    assert!(detail("pending").contains(&key), "{}", detail("pending"));
    assert!(detail("issued").contains(&key), "{}", detail("issued"));
}

/// Goal: with the provisioner down at the start the agent tries again, and comes up when it does.
#[test]
fn a_provisioner_that_comes_late_is_waited_for() {
    let mut lab = Lab::stopped(Plan::default());
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    let outcome = device.run(&["enroll"]).expect_code(TRY_LATER);
    assert!(outcome.stderr.contains("provisioner localhost:"), "{}", outcome.text());
    device.start();
    device.await_failure("enroll", "unreachable");
    lab.start_provisioner();
    device.await_active();
    assert_eq!((lab.issued("dev-1"), refusals(&lab, "dev-1", "")), (1, 0));
}

/// Goal: with the broker down at the start the device gets its identity all the same, and its
/// session when the broker comes.
#[test]
fn a_broker_that_comes_late_is_waited_for() {
    let lab = Lab::new();
    let mut broker = lab.stopped_broker();
    let mut device: Device = lab.expected_device("dev-1", &broker);
    device.start();
    let before = device.await_active();
    assert!(!before.is_connected());
    broker.start();
    let after = device.await_online();
    assert_eq!(after.serial(), before.serial());
    assert_eq!(lab.issued("dev-1"), 1);
}
