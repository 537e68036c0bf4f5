//! mosquitto with the configuration that the provisioner writes: each device its own topics, its
//! own session, and nobody else's.

use std::fs;

use fleetcert_tests::lab::broker::Broker;
use fleetcert_tests::lab::by_hand::{Credential, try_openssl};
use fleetcert_tests::lab::run::run;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail};

fn topic(device: &str, rest: &str) -> String {
    format!("fleetcert/v1/{device}/{rest}")
}

/// The client is told at once that it may not, and is not let in.
#[track_caller]
fn assert_refused(broker: &Broker, credential: Option<&Credential>) {
    let outcome = broker.publish(credential, &topic("dev-1", "data/x"), "1");
    assert_ne!(outcome.code, Some(0), "{}", outcome.text());
}

/// Goal: a device publishes and hears under its own name, and a backend hears it.
#[test]
fn a_device_has_its_own_topics() {
    let lab = Lab::new();
    let broker = lab.broker();
    let (device, backend) = (lab.enroll_by_hand("dev-1"), lab.backend("fleet"));
    let mut fleet = broker.listen(&backend, "fleetcert/v1/#", &lab.path("fleet.heard"));
    let (data, command) = (topic("dev-1", "data/t"), topic("dev-1", "command"));
    broker.publish(Some(&device), &data, "21").expect_success();
    fleet.await_message("the device's data", 5_000, &data, |payload| payload == "21");
    let mut own = broker.listen(&device, &command, &lab.path("own.heard"));
    broker.publish(Some(&backend), &command, "renew").expect_success();
    own.await_message("the backend's command", 5_000, &command, |payload| payload == "renew");
}

/// Goal: whatever client id another device gives, it is itself: it throws nobody out, and hears
/// and says nothing under another's name.
#[test]
fn another_device_with_our_client_id_stays_another_device() {
    let lab = Lab::new();
    let broker = lab.broker();
    let (one, two) = (lab.enroll_by_hand("dev-1"), lab.enroll_by_hand("dev-2"));
    let backend = lab.backend("fleet");
    let (ours, theirs) = (topic("dev-1", "command"), topic("dev-2", "command"));
    let mut victim = broker.listen(&one, &ours, &lab.path("one.heard"));
    let mut thief =
        broker.listen_with(&two, &["-i", "dev-1", "-t", "fleetcert/v1/#"], &lab.path("two.heard"));
    for (topic, payload) in [(&ours, "first"), (&theirs, "second"), (&ours, "third")] {
        broker.publish(Some(&backend), topic, payload).expect_success();
    }
    victim.await_message("what is for it", 5_000, &ours, |payload| payload == "third");
    thief.await_message("what is for it", 5_000, &theirs, |payload| payload == "second");
    assert_eq!(victim.heard(&ours), ["first", "third"]);
    assert!(thief.heard(&ours).is_empty(), "{}", thief.text());
    assert!(victim.is_undisturbed(), "{}", victim.text());

    // mosquitto acknowledges what it drops; only a listener can tell.
    let mut fleet = broker.listen(&backend, "fleetcert/v1/#", &lab.path("fleet.heard"));
    broker.publish(Some(&two), &topic("dev-1", "state"), "forged");
    broker.publish(Some(&two), &topic("dev-2", "state"), "own").expect_success();
    fleet.await_message("its own", 5_000, &topic("dev-2", "state"), |payload| payload == "own");
    assert!(fleet.heard(&topic("dev-1", "state")).is_empty(), "{}", fleet.text());
}

/// Goal: the story above can fail: without the line that ties the client id to the certificate,
/// the other device throws this one out.
#[test]
fn without_the_tie_another_device_throws_us_out() {
    let lab = Lab::new();
    let mut broker = lab.stopped_broker();
    let config = broker.file("mosquitto.conf");
    let text = fs::read_to_string(&config).or_fail("the configuration");
    let untied = text.replace("use_username_as_clientid true\n", "");
    assert_ne!(untied, text);
    fs::write(&config, untied).or_fail("another configuration");
    broker.start();
    let (one, two) = (lab.enroll_by_hand("dev-1"), lab.enroll_by_hand("dev-2"));
    let heard = lab.path("one.heard");
    let mut victim =
        broker.listen_with(&one, &["-i", "dev-1", "-t", &topic("dev-1", "command")], &heard);
    let mut thief = broker.client("mosquitto_pub", Some(&two));
    thief.args(["-i", "dev-1", "-t", &topic("dev-2", "data/x"), "-m", "1"]);
    run(thief, b"").expect_success();
    until("the victim to be thrown out", 5_000, || (!victim.is_undisturbed()).then_some(()));
}

/// Goal: no certificate, and one of the server tree, are nobody.
#[test]
fn strangers_are_refused() {
    let lab = Lab::new();
    let broker = lab.broker();
    assert_refused(&broker, None);
    assert_refused(&broker, Some(&lab.server("localhost")));
    let device = lab.enroll_by_hand("dev-1");
    broker.publish(Some(&device), &topic("dev-1", "data/x"), "1").expect_success();
}

/// Goal: TLS before 1.2 is not spoken.
#[test]
fn old_tls_is_not_spoken() {
    let lab = Lab::new();
    let broker = lab.broker();
    let address = format!("localhost:{}", broker.port());
    let hello = |version: &str| {
        let ciphers = ["-cipher", "ALL:@SECLEVEL=0"];
        try_openssl(&[&["s_client", "-connect", &address, version], &ciphers[..]].concat(), b"")
    };
    let old = hello("-tls1_1").text();
    assert!(old.contains("alert protocol version"), "{old}");
    let new = hello("-tls1_2").text();
    assert!(new.contains("Protocol  : TLSv1.2"), "{new}");
}

/// Goal: who is revoked is refused from the next connection on, once the broker has the list.
#[test]
fn a_revoked_device_is_refused_once_the_broker_has_the_list() {
    let lab = Lab::new();
    let broker = lab.broker();
    let (one, two) = (lab.enroll_by_hand("dev-1"), lab.enroll_by_hand("dev-2"));
    let data = topic("dev-1", "data/x");
    broker.publish(Some(&one), &data, "before").expect_success();
    lab.operate(&["device", "revoke", "dev-1"]);
    lab.publish_crl(&broker);
    broker.reload();
    until("the broker to refuse it", 5_000, || {
        let outcome = broker.publish(Some(&one), &data, "after");
        (outcome.code != Some(0)).then_some(())
    });
    broker.publish(Some(&two), &topic("dev-2", "data/x"), "still").expect_success();
}
