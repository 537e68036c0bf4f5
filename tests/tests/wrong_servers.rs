//! Servers that are not ours: they are never spoken to, and the status says why.

use fleetcert_tests::lab::device::IDENTITY_MS_MAX;
use fleetcert_tests::lab::fake::{FakeServer, Manner};
use fleetcert_tests::lab::forge::{Chain, Flaw};
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail};

/// What a provisioner with anything to say would say.
const GREETING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn fake(port: u16, chain: &Chain) -> FakeServer {
    FakeServer::start(port, chain, Manner::Answer(GREETING.to_vec()))
}

/// What the cause of each flaw has to tell a person.
const fn told(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::ClientOnly => "extended key usage",
        Flaw::Expired => "expired",
        Flaw::OtherName => "other.example",
        Flaw::SignedByDevice | Flaw::WrongAuthority => "",
    }
}

/// Goal: a first contact tells nothing, its token least of all, to a server that is not ours.
#[test]
fn no_wrong_provisioner_hears_a_word() {
    let lab = Lab::new();
    let signer = lab.enroll_by_hand("signer");
    for (number, flaw) in Flaw::ALL.into_iter().enumerate() {
        let server = fake(0, &lab.forged(flaw, &signer));
        let id = format!("dev-{number}");
        let token_file = lab.token_file(&id);
        let mut device = lab.device(&id, |settings| {
            settings.provisioner_url = format!("https://localhost:{}", server.port());
            settings.token_file = Some(token_file);
        });
        let outcome = device.run(&["enroll"]).expect_code(1);
        assert!(outcome.stderr.contains("to do:"), "{flaw:?}: {}", outcome.text());
        device.start();
        let status = device.await_failure("enroll", "server-untrusted");
        let cause = status.cause().or_fail("a cause");
        assert!(cause.contains(told(flaw)) && cause.contains("localhost"), "{flaw:?}: {cause}");
        let seen = server.seen();
        assert!(seen.connections > 0, "{flaw:?}");
        assert_eq!((seen.handshakes, seen.said), (0, Vec::new()), "{flaw:?}");
        assert_eq!(lab.issued(&id), 0);
    }
}

/// Goal: the flawless chain is spoken to, so that the silence above means something.
#[test]
fn the_right_chain_is_spoken_to() {
    let lab = Lab::new();
    let token_file = lab.token_file("dev-1");
    let server = fake(0, &lab.flawless());
    let mut device = lab.device("dev-1", |settings| {
        settings.provisioner_url = format!("https://localhost:{}", server.port());
        settings.token_file = Some(token_file);
    });
    device.start();
    until("a request", IDENTITY_MS_MAX, || {
        server.seen().said.starts_with(b"POST /.well-known/est/simpleenroll ").then_some(())
    });
    device.await_failure("enroll", "answer-malformed");
}

/// Goal: a device with an identity keeps it when another server stands in the provisioner's place,
/// and does not show its certificate there.
#[test]
fn a_renewal_tells_a_wrong_provisioner_nothing() {
    let mut lab = Lab::new();
    let signer = lab.enroll_by_hand("signer");
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    device.start();
    let serial = device.await_active().serial().or_fail("a serial number").to_owned();
    lab.provisioner.kill();
    let server = fake(lab.provisioner_port(), &lab.forged(Flaw::SignedByDevice, &signer));
    device.ask(&serde_json::json!({"renew": {}}));
    let status = device.await_failure("enroll", "server-untrusted");
    assert_eq!(status.serial(), Some(serial.as_str()));
    assert_eq!((server.seen().handshakes, server.seen().said), (0, Vec::new()));
    drop(server);
    lab.start_provisioner();
    device.ask(&serde_json::json!({"renew": {}}));
    device.await_other_than(&serial, IDENTITY_MS_MAX);
}

/// Goal: a broker that is not ours gets no CONNECT, and the status says what is wrong with it; the
/// identity is not doubted for it.
#[test]
fn no_wrong_broker_hears_a_word() {
    let lab = Lab::new();
    let signer = lab.enroll_by_hand("signer");
    for (number, flaw) in Flaw::ALL.into_iter().enumerate() {
        let server = fake(0, &lab.forged(flaw, &signer));
        let id = format!("dev-{number}");
        let token_file = lab.token_file(&id);
        let mut device = lab.device(&id, |settings| {
            settings.token_file = Some(token_file);
            settings.broker_port = Some(server.port());
        });
        device.start();
        let status = device.await_status("the broker's flaw", IDENTITY_MS_MAX, |status| {
            status.phase() == "active" && status.broker_failure() == Some("server-untrusted")
        });
        let cause = status.text("/mqtt/last_failure/cause").or_fail("a cause");
        assert!(cause.contains(told(flaw)), "{flaw:?}: {cause}");
        assert!(status.text("/mqtt/last_failure/what_to_do").is_some_and(|it| !it.is_empty()));
        assert!(!status.is_connected());
        assert_eq!(device.status_command().1, Some(4), "degraded");
        let seen = server.seen();
        assert!(seen.connections > 0, "{flaw:?}");
        assert_eq!((seen.handshakes, seen.said), (0, Vec::new()), "{flaw:?}");
        assert_eq!(lab.issued(&id), 1, "{flaw:?}");
    }
}
