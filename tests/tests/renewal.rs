//! Renewals: under traffic, on command, cut off in the middle, and with a provisioner that is away
//! or not itself. Through all of it the identity in use stays in use.

use std::fs;

use fleetcert_rig::subscriber::{Access, Subscriber};
use fleetcert_rig::traffic::{Numbers, Traffic};
use fleetcert_rig::wait::Stopwatch;
use fleetcert_tests::lab::by_hand::serial;
use fleetcert_tests::lab::device::{Device, Status};
use fleetcert_tests::lab::fake::{FakeServer, Manner};
use fleetcert_tests::lab::relay::Relay;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use serde_json::json;

/// From an order to renew to the next identity, on a busy machine.
const RENEWAL_MS_MAX: u64 = 20_000;

/// No switch leaves a device without its session for longer, in milliseconds. A busy machine.
const GAP_MS_MAX: u64 = 2_000;

/// How often the agent is killed, and how much later after the order each time, milliseconds:
/// together they span a renewal.
const KILLS: u64 = 10;
const KILL_STEP_MS: u64 = 10;

#[track_caller]
fn order_renewal(device: &Device) {
    assert_eq!(device.ask(&json!({"renew": {}}))["ok"], true);
}

#[track_caller]
fn used(status: &Status) -> String {
    status.serial().or_fail("a serial number").to_owned()
}

/// How many sessions with the broker the agent has begun so far.
fn sessions(device: &Device) -> usize {
    device.log().matches("connected to the broker at").count()
}

/// Goal: renewals by schedule and by order, under steady QoS 1 traffic, lose nothing, and the time
/// without a session is measured and short.
#[test]
fn slow_renewals_under_traffic_lose_nothing() {
    let lab = Lab::with(Plan { lifetime_s: 12, ..Plan::default() });
    let broker = lab.broker();
    let backend = lab.backend("fleet");
    let access = Access {
        port: broker.port(),
        server_root: lab.server_root(),
        certificate: backend.certificate,
        key: backend.key,
    };
    let subscriber = Subscriber::<Numbers>::start(&access, lab.path("subscriber.log"));
    let mut subscriber = subscriber.or_fail("a subscriber");
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let mut serials = vec![used(&device.await_online())];
    let traffic = Traffic::start(device.socket());
    until("the first message", 10_000, || (traffic.acknowledged() > 0).then_some(()));
    for ordered in [false, true, true] {
        if ordered {
            order_renewal(&device);
        }
        let before = serials.last().or_fail("a serial number").clone();
        serials.push(used(&device.await_other_than(&before, RENEWAL_MS_MAX)));
    }
    let goal = traffic.acknowledged() + 5;
    until("messages after the renewals", 10_000, || (traffic.acknowledged() >= goal).then_some(()));
    let tally = traffic.finish().or_fail("the sender");
    until("the last messages", 10_000, || {
        subscriber.check().or_fail("the subscriber");
        let received = subscriber.heard().received(tally.acknowledged);
        (received == tally.acknowledged).then_some(())
    });
    let gap_ms = device.status().and_then(|status| status.gap_ms_max()).or_fail("a measured gap");
    assert!(gap_ms <= GAP_MS_MAX, "{gap_ms} ms without a session");
    assert_eq!(serials.len(), 4);
    assert!(lab.issued("dev-1") >= 4);
}

/// Goal: whoever may order a renewal gets one, and hears what came of the order.
#[test]
fn a_renewal_is_ordered_by_command_line_and_by_mqtt() {
    let lab = Lab::new();
    let broker = lab.broker();
    let (backend, orders) = (lab.backend("fleet"), lab.backend("orders"));
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let first = used(&device.await_online());
    device.run(&["renew"]).expect_success();
    let second = used(&device.await_active());
    assert_ne!(first, second);

    let (command, result) = ("fleetcert/v1/dev-1/command", "fleetcert/v1/dev-1/result");
    let mut results = broker.listen(&backend, result, &lab.path("result.heard"));
    let order = json!({"schema": 1, "id": "order-7", "command": "renew"}).to_string();
    broker.publish(Some(&orders), command, &order).expect_success();
    let done = |it: &str| it.contains("order-7") && it.contains("\"ok\":true");
    results.await_message("the result", 10_000, result, done);
    let third = used(&device.await_other_than(&second, RENEWAL_MS_MAX));
    let nonsense = json!({"schema": 1, "id": "order-8", "command": "dance"}).to_string();
    broker.publish(Some(&orders), command, &nonsense).expect_success();
    let refused = |it: &str| it.contains("order-8") && it.contains("unknown-command");
    results.await_message("the refusal", 10_000, result, refused);
    assert_eq!(device.status().as_ref().and_then(Status::serial), Some(third.as_str()));
    assert_eq!(lab.issued("dev-1"), 3);
}

/// Goal: `renew` works without a running agent too, and the next start uses what it got.
#[test]
fn a_renewal_without_a_running_agent() {
    let lab = Lab::new();
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    device.run(&["renew"]).expect_code(3);
    device.run(&["enroll"]).expect_success();
    let first = used(&device.status_command().0);
    device.run(&["renew"]).expect_success();
    let second = used(&device.status_command().0);
    assert_ne!(first, second);
    device.start();
    assert_eq!(used(&device.await_active()), second);
    assert_eq!(lab.issued("dev-1"), 2);
}

/// Goal: `kill -9` at any moment of a renewal: the same device comes back with an identity that
/// works, and no order ever leads to two certificates.
#[test]
fn slow_kills_in_the_middle_of_renewals_cost_nothing() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    device.await_online();
    let mut cut_off = 0;
    for kill in 0..KILLS {
        let before = used(&device.await_online());
        order_renewal(&device);
        let watch = Stopwatch::start();
        until("the moment to kill", 5_000, || {
            (watch.elapsed_ms() >= kill * KILL_STEP_MS).then_some(())
        });
        device.kill();
        let (at_rest, _) = device.status_command();
        cut_off += usize::from(at_rest.phase() != "active");
        device.start();
        let after = used(&device.await_online());
        let orders = usize::try_from(kill).unwrap_or_default() + 1;
        let issued = lab.issued("dev-1");
        let killed_after_ms = kill * KILL_STEP_MS;
        assert!(
            issued <= orders + 1,
            "killed after {killed_after_ms} ms: {issued} certificates for {orders} orders, had \
             {before}, has {after}"
        );
        let audit = lab.audit("dev-1");
        let count = |event: &str| audit.iter().filter(|entry| entry["event"] == event).count();
        assert_eq!(count("requested"), count("issued"), "{audit:#?}");
    }
    assert!(cut_off > 0, "no kill fell into the middle of a renewal");
    let pem = lab.path("inspected.pem");
    fs::write(&pem, device.run(&["inspect", "--pem"]).expect_success().stdout).or_fail("a file");
    assert_eq!(serial(&pem), used(&device.await_online()));
}

/// Goal: an answer that is lost with the agent is given again: one request, one certificate.
#[test]
fn a_lost_answer_costs_no_second_certificate() {
    let lab = Lab::new();
    let relay = Relay::start(lab.provisioner_port());
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| {
        settings.provisioner_url = format!("https://localhost:{}", relay.port());
        settings.token_file = Some(token_file);
    });
    // Nothing is on its way and advice was taken: the next request is the ordered one.
    let is_idle = |status: &Status| {
        status.phase() == "active" && status.0["next"]["in_s"].as_u64().is_some_and(|s| s > 60)
    };
    for round in 1..=3 {
        if round == 1 {
            relay.lose_answers(true);
            device.start();
        } else {
            device.await_status("an idle agent", RENEWAL_MS_MAX, is_idle);
            relay.lose_answers(true);
            order_renewal(&device);
        }
        until("the certificate to be issued", 10_000, || {
            (lab.issued("dev-1") == round).then_some(())
        });
        device.kill();
        relay.lose_answers(false);
        device.start();
        let fresh = until("the certificate that was issued", RENEWAL_MS_MAX, || {
            let status = device.status().filter(|status| status.phase() == "active");
            status
                .as_ref()
                .and_then(Status::serial)
                .map(str::to_owned)
                .filter(|serial| lab.shown("dev-1")["serial"].as_str() == Some(serial))
        });
        assert_eq!(lab.issued("dev-1"), round, "{fresh}");
    }
}

/// Goal: a provisioner that is gone for longer than half a lifetime is waited for; the session
/// goes on, and the renewal follows when it is back.
#[test]
fn slow_a_provisioner_gone_for_half_a_lifetime_is_waited_for() {
    let lifetime_s = 14;
    let mut lab = Lab::with(Plan { lifetime_s, ..Plan::default() });
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let first = device.await_online();
    let (begun, serial) = (sessions(&device), used(&first));
    lab.provisioner.kill();
    let watch = Stopwatch::start();
    let status = device.await_status("a renewal that fails", 20_000, |status| {
        status.failure() == Some(("enroll", "unreachable"))
    });
    status.assert_failure_is_explained();
    let half_ms = u64::from(lifetime_s) * 500;
    until("half a lifetime", 20_000, || (watch.elapsed_ms() > half_ms).then_some(()));
    let status = device.status().or_fail("a status");
    assert_eq!((sessions(&device), used(&status)), (begun, serial.clone()));
    assert!(status.is_connected());
    assert_eq!(device.status_command().1, Some(4), "degraded");
    lab.start_provisioner();
    device.await_other_than(&serial, RENEWAL_MS_MAX);
    assert_eq!(lab.issued("dev-1"), 2);
}

/// Goal: a broker that is gone for a whole lifetime delays the switch, and does not prevent it: the
/// device is not left with an identity that ran out.
#[test]
fn slow_a_broker_gone_for_a_lifetime_costs_no_identity() {
    let lab = Lab::with(Plan { lifetime_s: 12, ..Plan::default() });
    let mut broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let serial = used(&device.await_online());
    broker.kill();
    let status = device.await_failure("prove", "unreachable");
    assert!(status.cause().or_fail("a cause").contains("broker"), "{:#}", status.0);
    assert_eq!(used(&status), serial);
    device.await_other_than(&serial, RENEWAL_MS_MAX);
    broker.start();
    device.await_status("the session", RENEWAL_MS_MAX, Status::is_connected);
}

/// Goal: whatever a provisioner says that is not itself, the identity and the session stay, the
/// failure has its name, and the renewal follows when it is itself again.
#[test]
fn a_provisioner_that_is_not_itself_changes_nothing() {
    let mut lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let first = device.await_online();
    let (begun, serial) = (sessions(&device), used(&first));
    let chain = lab.flawless();
    lab.provisioner.kill();
    let busy = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n";
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello";
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    // No two neighbours fail alike, so that each failure is seen to be new.
    for (manner, code) in [
        (Manner::Answer(b"220 mail.example ESMTP\r\n".to_vec()), "answer-malformed"),
        (Manner::HangUp, "unreachable"),
        (Manner::Answer(html.into()), "answer-malformed"),
        (Manner::Answer(Vec::new()), "unreachable"),
        (Manner::Answer(endless.into_bytes()), "answer-malformed"),
        (Manner::Answer(busy.into()), "busy"),
    ] {
        let what = format!("{manner:?}");
        let fake = FakeServer::start(lab.provisioner_port(), &chain, manner);
        order_renewal(&device);
        let status = device.await_failure("enroll", code);
        assert!(fake.seen().connections > 0, "{what}");
        assert_eq!((sessions(&device), used(&status)), (begun, serial.clone()), "{what}");
        assert!(status.is_connected(), "{what}");
        if code == "busy" {
            let wait_s = status.0["last_failure"]["retry_in_s"].as_u64().or_fail("a wait");
            assert!((595..=660).contains(&wait_s), "Retry-After was 600, the wait is {wait_s}");
        }
    }
    assert_eq!(lab.issued("dev-1"), 1);
    lab.start_provisioner();
    order_renewal(&device);
    device.await_other_than(&serial, RENEWAL_MS_MAX);
    assert_eq!(lab.issued("dev-1"), 2);
}
