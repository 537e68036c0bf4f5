//! The session with a real mosquitto, and with brokers that are none.

use fleetcert_agent::clock::within;
use fleetcert_agent::config::Mqtt;
use fleetcert_agent::context::Executor;
use fleetcert_agent::link::{Link as _, PAYLOAD_LEN_MAX, Publication, PublishFailure};
use fleetcert_agent::mqtt::{Broker, QUEUE_LEN_MAX};
use fleetcert_agent::net::{NetError, dial, verdict};
use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::Command;
use fleetcert_core::record::Slot;
use fleetcert_core::time::server::Server as Role;
use rustls::AlertDescription;
use serde_json::json;
use smol::LocalExecutor;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::support::broker::{Mosquitto, Observer, QUIET, free_port};
use crate::support::device::Device;
use crate::support::pki::{Authority, SERVER};
use crate::support::server::Server;
use crate::support::{TRUSTED, run, soon, until};

/// A device, its broker, and the trees of both.
struct Stage {
    servers: Authority,
    devices: Authority,
    device: Device,
    dir: TempDir,
    port: u16,
}

impl Stage {
    fn new() -> Self {
        let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
        let port = free_port();
        let device = Device::new(&servers, 1, Some(port));
        Self { servers, devices, device, dir: tempfile::tempdir().unwrap(), port }
    }

    fn start_broker(&self) -> Mosquitto {
        let issued = self.servers.issue(&SERVER);
        Mosquitto::start_at(self.port, self.dir.path(), &issued, &self.devices)
    }

    /// The session, told to use the identity of slot A.
    async fn adopt(&self) -> Broker {
        let broker = Broker::start(&self.device.context, self.mqtt());
        broker.judge(TRUSTED);
        let identity = self.device.identity(Slot::A, &self.devices);
        let client = self.device.client(&self.servers, Role::Broker, Slot::A, &identity);
        broker.adopt(client).await;
        broker
    }

    fn mqtt(&self) -> &Mqtt {
        self.device.context.config.mqtt.as_ref().unwrap()
    }

    fn run<T>(&self, test: impl Future<Output = T>) -> T {
        run(&self.device.context.executor, test)
    }
}

fn data(payload: &str) -> Publication {
    Publication { topic: "data/x".into(), payload: payload.into(), retain: false }
}

#[test]
fn a_message_arrives_and_its_sender_is_told() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        let broker = stage.adopt().await;
        assert_eq!(broker.publish(data("hello")).await, Ok(()));
        assert_eq!(observer.message("/data/x").await.payload, "hello");
        let status = broker.status();
        assert!(status.connected_since.is_some());
        assert_eq!(status.broker, Some(format!("127.0.0.1:{}", stage.port)));
        assert_eq!(status.gap_ms_last, None);
    });
}

/// Goal: births carry what the daemon describes, grow in number, and a clean end says so itself.
#[test]
fn births_are_retained_and_numbered_and_a_planned_end_is_a_death() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        let broker = stage.adopt().await;
        let birth = observer.json("/gw-1/state").await;
        assert_eq!(birth, json!({ "schema": 1, "generation": 1, "online": true }));
        broker.describe(json!({ "phase": "active" }).as_object().unwrap().clone());
        let described = observer.json("/gw-1/state").await;
        assert_eq!(described["phase"], "active");
        assert_eq!(described["generation"], 1);
        broker.close().await;
        let death = observer.json("/gw-1/state").await;
        assert_eq!(death, json!({ "schema": 1, "generation": 1, "online": false }));
        assert_eq!(broker.status().connected_since, None);
        let identity = stage.device.identity(Slot::A, &stage.devices);
        let client = stage.device.client(&stage.servers, Role::Broker, Slot::A, &identity);
        broker.adopt(client).await;
        let again = observer.json("/gw-1/state").await;
        assert_eq!(
            again,
            json!({ "schema": 1, "generation": 2, "online": true, "phase": "active" })
        );
        let mut late = Observer::new(&mosquitto).await;
        let retained = late.message("/gw-1/state").await;
        assert!(retained.retain);
    });
}

/// Goal: a death of an earlier session that comes late does not stay the last word.
#[test]
fn a_late_death_is_answered_by_another_birth() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        let broker = stage.adopt().await;
        let birth = observer.json("/gw-1/state").await;
        assert_eq!(broker.publish(data("subscribed by now")).await, Ok(()));
        let late = r#"{"schema":1,"generation":0,"online":false}"#;
        observer.publish("fleetcert/v1/gw-1/state", true, late).await;
        assert_eq!(observer.json("/gw-1/state").await["online"], false);
        assert_eq!(observer.json("/gw-1/state").await, birth);
    });
}

/// Goal: a device that lost its numbers finds out from the broker, and begins behind them.
#[test]
fn a_number_that_is_behind_what_the_broker_has_is_passed() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        let earlier = r#"{"schema":1,"generation":700,"online":false}"#;
        observer.publish("fleetcert/v1/gw-1/state", true, earlier).await;
        observer.message("/gw-1/state").await;
        let _broker = stage.adopt().await;
        let mut state = observer.json("/gw-1/state").await;
        while state["generation"] != 701 {
            state = observer.json("/gw-1/state").await;
        }
        assert_eq!(state["online"], true);
    });
}

#[test]
fn commands_are_taken_once_and_answered() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        let broker = stage.adopt().await;
        assert_eq!(broker.publish(data("subscribed by now")).await, Ok(()));
        let topic = "fleetcert/v1/gw-1/command";
        let renew = r#"{"schema":1,"id":"a","command":"renew"}"#;
        observer.publish(topic, false, renew).await;
        assert_eq!(soon(stage.device.commands.recv()).await, Ok(Command::Renew));
        let done = json!({ "schema": 1, "id": "a", "ok": true });
        assert_eq!(observer.json("/result").await, done);
        observer.publish(topic, false, renew).await;
        observer.publish(topic, false, r#"{"schema":1,"id":"b","command":"reboot"}"#).await;
        let unknown = observer.json("/result").await;
        assert_eq!(
            unknown,
            json!({ "schema": 1, "id": "b", "ok": false, "error": "unknown-command" })
        );
        assert!(stage.device.commands.is_empty(), "the same command was taken twice");
        observer.publish(topic, false, "renew").await;
        assert_eq!(observer.json("/result").await["error"], "malformed");
    });
}

/// Goal: messages wait for a broker that is down, in a queue that has an end.
#[test]
fn a_broker_that_comes_later_gets_everything_that_was_queued() {
    let stage = Stage::new();
    stage.run(async {
        let broker = stage.adopt().await;
        let mut sent: Vec<_> =
            (0..QUEUE_LEN_MAX).map(|n| broker.publish(data(&n.to_string()))).collect();
        let full = broker.publish(data("too many")).await;
        assert_eq!(full, Err(PublishFailure::QueueFull));
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        for (n, sent) in sent.drain(..).enumerate() {
            assert_eq!(sent.await, Ok(()), "message {n}");
            assert_eq!(observer.message("/data/x").await.payload, n.to_string());
        }
    });
}

#[test]
fn what_is_not_a_devices_to_say_is_refused_at_once() {
    let stage = Stage::new();
    stage.run(async {
        let broker = stage.adopt().await;
        for topic in ["command", "state", "data/", "data/+", "../other", "", "data/a/#"] {
            let publication = Publication { topic: topic.into(), ..data("x") };
            let refused = broker.publish(publication).await;
            assert_eq!(refused, Err(PublishFailure::Malformed), "{topic}");
        }
        let long = Publication { payload: vec![0; PAYLOAD_LEN_MAX + 1], ..data("") };
        assert_eq!(broker.publish(long).await, Err(PublishFailure::Malformed));
    });
}

#[test]
fn a_broker_that_restarts_gets_the_device_back_by_itself() {
    let stage = Stage::new();
    stage.run(async {
        let mosquitto = stage.start_broker();
        let broker = stage.adopt().await;
        assert_eq!(broker.publish(data("before")).await, Ok(()));
        drop(mosquitto);
        until(|| broker.status().connected_since.is_none()).await;
        let waiting = broker.publish(data("after"));
        let mosquitto = stage.start_broker();
        let mut observer = Observer::new(&mosquitto).await;
        assert_eq!(waiting.await, Ok(()));
        assert_eq!(observer.message("/data/x").await.payload, "after");
    });
}

/// Goal: a broker whose CRL ran out tells every device that *its* certificate expired. That is
/// reported as hearsay, and nobody asks for a renewal because of it.
#[test]
fn a_broker_with_an_expired_crl_is_no_reason_to_renew() {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let dir = tempfile::tempdir().unwrap();
    let crl = devices.expired_crl();
    let mosquitto = Mosquitto::start(dir.path(), &servers.issue(&SERVER), &devices, Some(&crl));
    let device = Device::new(&servers, 1, Some(mosquitto.port));
    run(&device.context.executor, async {
        let identity = device.identity(Slot::A, &devices);
        let client = device.client(&servers, Role::Broker, Slot::A, &identity);
        let refused = async {
            let mut stream = dial(&mosquitto.endpoint(), &client, TRUSTED).await?;
            verdict(&mut stream).await
        };
        let error = refused.await.expect_err("an expired CRL refuses nobody");
        let alert = AlertDescription::CertificateExpired;
        assert!(matches!(error, NetError::OurIdentityRefused(a) if a == alert), "{error}");
        assert_eq!(error.failure(), Failure::OurIdentityRefused);
        let broker = Broker::start(&device.context, device.context.config.mqtt.as_ref().unwrap());
        broker.judge(TRUSTED);
        broker.adopt(client).await;
        assert_eq!(within(QUIET, device.commands.recv()).await, None);
        assert_eq!(broker.status().connected_since, None);
    });
}

/// Plays brokers that answer the n-th CONNECT with the n-th of these, and then one that is true.
fn left_and_tried_again(answers: &[&[u8]]) {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let executor = Executor::new(LocalExecutor::new());
    run(&executor, async {
        let server = Server::new(&servers.issue(&SERVER), &[], &devices).await;
        let mut device = Device::new(&servers, 1, Some(server.port));
        device.context.executor = executor.clone();
        let mqtt = device.context.config.mqtt.clone().unwrap();
        let broker = Broker::start(&device.context, &mqtt);
        broker.judge(TRUSTED);
        let identity = device.identity(Slot::A, &devices);
        broker.adopt(device.client(&servers, Role::Broker, Slot::A, &identity)).await;
        let waiting = broker.publish(data("survives"));
        for octets in answers {
            let mut connection = soon(server.accept()).await;
            let mut connect = [0; 64];
            assert_ne!(connection.read(&mut connect).await.unwrap(), 0);
            assert_eq!(connect[0], 0x10);
            connection.write_all(octets).await.unwrap();
            connection.flush().await.unwrap();
            let mut rest = Vec::new();
            // How it ends does not matter; that it ends does.
            let _end = soon(connection.read_to_end(&mut rest)).await;
        }
        let mut connection = soon(server.accept()).await;
        connection.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        connection.flush().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"survives") {
            let mut octet = [0];
            soon(connection.read_exact(&mut octet)).await.unwrap();
            seen.push(octet[0]);
        }
        drop(waiting);
        assert!(device.commands.is_empty());
    });
}

/// Goal: what is no MQTT, or a refusal, ends an attempt, not the task.
#[test]
fn a_broker_that_does_not_accept_us_is_tried_again() {
    left_and_tried_again(&[b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0x20, 2, 0, 5]]);
}

/// Goal: impossible acknowledgements and lengths end a session, not the task.
#[test]
fn a_broker_that_breaks_the_protocol_is_left_and_tried_again() {
    left_and_tried_again(&[
        &[0x20, 2, 0, 0, 0x40, 2, 0, 99],
        &[0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f],
    ]);
}

/// Goal: a broker that takes everything and answers no ping is found out.
#[test]
fn slow_a_broker_that_answers_no_ping_is_left_and_tried_again() {
    left_and_tried_again(&[&[0x20, 2, 0, 0]]);
}

/// Goal: a session ticket of the same identity is as good as a handshake, to a real broker too.
#[test]
fn the_same_identity_comes_back_after_a_planned_end() {
    let stage = Stage::new();
    stage.run(async {
        let _mosquitto = stage.start_broker();
        let broker = Broker::start(&stage.device.context, stage.mqtt());
        broker.judge(TRUSTED);
        let identity = stage.device.identity(Slot::A, &stage.devices);
        let client = stage.device.client(&stage.servers, Role::Broker, Slot::A, &identity);
        for n in 0..3 {
            broker.adopt(client.clone()).await;
            assert_eq!(broker.publish(data("here")).await, Ok(()), "session {n}");
            broker.release().await;
            assert_eq!(broker.status().connected_since, None);
        }
    });
}
