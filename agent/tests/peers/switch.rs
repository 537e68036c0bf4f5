//! The switch from one identity to the next, with messages on their way.

use std::cell::Cell;
use std::rc::Rc;

use fleetcert_agent::link::{Link, Publication};
use fleetcert_agent::peers::Peers;
use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::BrokerProof;
use fleetcert_core::port::Peers as _;
use fleetcert_core::record::{Identity, Slot};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::support::broker::{Mosquitto, Observer};
use crate::support::device::Device;
use crate::support::pki::{Authority, SERVER};
use crate::support::server::{Connection, Server, whoami, whoami_as};
use crate::support::{NOW, TRUSTED, run, soon, until};

/// Messages that run during a switch.
const MESSAGES: usize = 200;

/// Both trees, and a provisioner that answers whoami.
struct Stage {
    servers: Authority,
    devices: Authority,
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
        Self { servers, devices, dir: tempfile::tempdir().unwrap() }
    }

    fn mosquitto(&self) -> Mosquitto {
        let issued = self.servers.issue(&SERVER);
        Mosquitto::start(self.dir.path(), &issued, &self.devices, None)
    }

    /// A device whose provisioner admits both `self.devices` and, if it differs, `admitted`.
    fn device(&self, broker: u16, admitted: &Authority) -> (Device, Peers) {
        let issued = self.servers.issue(&SERVER);
        let server = smol::block_on(Server::new(&issued, &[], admitted));
        let device = Device::new(&self.servers, server.port, Some(broker));
        server.serve(&device.context.executor, whoami);
        let _entered = device.context.executor.try_tick();
        let peers = Peers::new(device.context.clone()).unwrap();
        (device, peers)
    }
}

fn numbered(n: usize) -> Publication {
    Publication { topic: "data/n".into(), payload: n.to_string().into(), retain: false }
}

async fn adopted(peers: &mut Peers, identity: &Identity) -> Rc<dyn Link> {
    peers.adopt(Slot::A, identity, TRUSTED).await.unwrap();
    let link = peers.link();
    until(|| link.status().connected_since.is_some()).await;
    link
}

/// Goal: messages run without a pause while the identity changes; each of them arrives, and each
/// sender is told so.
#[test]
fn no_message_is_lost_when_the_identity_changes_under_traffic() {
    let stage = Stage::new();
    let mosquitto = stage.mosquitto();
    let (device, mut peers) = stage.device(mosquitto.port, &stage.devices);
    let executor = device.context.executor.clone();
    run(&executor, async {
        let mut observer = Observer::new(&mosquitto).await;
        let old = device.identity(Slot::A, &stage.devices);
        let new = device.identity(Slot::B, &stage.devices);
        let link = adopted(&mut peers, &old).await;
        let acknowledged = Rc::new(Cell::new(0));
        let (publisher, counter) = (Rc::clone(&link), Rc::clone(&acknowledged));
        let publishing = executor.spawn(async move {
            for n in 0..MESSAGES {
                publisher.publish(numbered(n)).await.unwrap();
                counter.set(n);
            }
        });
        until(|| acknowledged.get() >= MESSAGES / 4).await;
        let answer = soon(peers.prove(Slot::B, &new, TRUSTED)).await;
        assert!(acknowledged.get() < MESSAGES - 1, "the switch was not under traffic");
        let proof = answer.outcome.unwrap();
        assert_eq!((proof.serial, proof.broker), (new.serial.clone(), BrokerProof::Connected));
        assert_eq!(answer.server_time, Some(NOW));
        let since = link.status().connected_since;
        peers.adopt(Slot::B, &new, TRUSTED).await.unwrap();
        soon(publishing).await;
        let mut missing: std::collections::BTreeSet<_> = (0..MESSAGES).collect();
        while !missing.is_empty() {
            let payload = observer.message("/data/n").await.payload;
            let n: usize = std::str::from_utf8(&payload).unwrap().parse().unwrap();
            missing.remove(&n);
        }
        let status = link.status();
        assert_eq!(status.connected_since, since, "adopting what is proven ended its session");
        println!("gap: {:?} ms", status.gap_ms_max);
        assert!(status.gap_ms_last.is_some_and(|ms| ms < 1000), "{status:?}");
    });
}

/// Goal: a broker that does not know the new identity's authority says so in TLS, before the old
/// session is touched.
#[test]
fn a_new_identity_that_tls_refuses_leaves_the_old_session_as_it_is() {
    let stage = Stage::new();
    let mosquitto = stage.mosquitto();
    let strange = Authority::new("devices");
    let (device, mut peers) = stage.device(mosquitto.port, &strange);
    run(&device.context.executor, async {
        let old = device.identity(Slot::A, &stage.devices);
        let new = device.identity(Slot::B, &strange);
        let link = adopted(&mut peers, &old).await;
        let before = link.status();
        let answer = soon(peers.prove(Slot::B, &new, TRUSTED)).await;
        assert_eq!(answer.outcome, Err(Failure::OurIdentityRefused));
        assert_eq!(link.status(), before);
        assert_eq!(link.publish(numbered(1)).await, Ok(()));
        let cause = device.context.causes.take().unwrap();
        assert!(cause.starts_with("broker 127.0.0.1:"), "{cause}");
    });
}

/// Reads the packets of a client up to one of this type, and gives that one.
async fn packet_of(connection: &mut Connection, kind: u8) -> Vec<u8> {
    loop {
        let mut header = [0; 2];
        soon(connection.read_exact(&mut header)).await.unwrap();
        let mut len = usize::from(header[1] & 0x7f);
        if header[1] & 0x80 != 0 {
            let mut more = [0];
            connection.read_exact(&mut more).await.unwrap();
            len += usize::from(more[0]) << 7;
        }
        let mut body = vec![0; len];
        connection.read_exact(&mut body).await.unwrap();
        if header[0] >> 4 == kind {
            return body;
        }
    }
}

async fn connack(connection: &mut Connection, code: u8) {
    packet_of(connection, 1).await;
    connection.write_all(&[0x20, 2, 0, code]).await.unwrap();
    connection.flush().await.unwrap();
}

/// Goal: the old session ends cleanly first; a refusal of the new one brings the old identity back
/// before the machine gets its answer, and what was in flight is sent again under its number.
#[test]
fn a_refusal_in_connack_brings_the_old_identity_back_with_its_messages() {
    let stage = Stage::new();
    let issued = stage.servers.issue(&SERVER);
    let broker = smol::block_on(Server::new(&issued, &[], &stage.devices));
    let (device, mut peers) = stage.device(broker.port, &stage.devices);
    let executor = device.context.executor.clone();
    run(&executor, async {
        let old = device.identity(Slot::A, &stage.devices);
        let new = device.identity(Slot::B, &stage.devices);
        let shows = |connection: &Connection, identity: &Identity| {
            let shown = crate::support::server::shown(connection).unwrap();
            assert_eq!(*shown, identity.certificate[..]);
        };
        let (certificates, link) = ((old.clone(), new.clone()), peers.link());
        let serving = executor.spawn(async move {
            let (old, new) = certificates;
            let mut first = broker.accept().await;
            shows(&first, &old);
            connack(&mut first, 0).await;
            let unacknowledged = packet_of(&mut first, 3).await;
            let mut second = broker.accept().await;
            shows(&second, &new);
            packet_of(&mut first, 14).await;
            drop(first);
            connack(&mut second, 5).await;
            let mut third = broker.accept().await;
            shows(&third, &old);
            connack(&mut third, 0).await;
            assert_eq!(packet_of(&mut third, 3).await, unacknowledged);
            third
        });
        peers.adopt(Slot::A, &old, TRUSTED).await.unwrap();
        until(|| link.status().connected_since.is_some()).await;
        let answer = soon(peers.prove(Slot::B, &new, TRUSTED)).await;
        assert_eq!(answer.outcome, Err(Failure::OurIdentityRefused));
        assert!(link.status().connected_since.is_some(), "the old identity is not back");
        assert_eq!(link.status().gap_ms_last, None, "a switch that failed was measured");
        drop(soon(serving).await);
    });
}

/// Goal: a broker that is away, or is not the broker, says nothing about the new identity.
#[test]
fn a_broker_that_is_away_or_false_is_unreachable_and_no_verdict() {
    let stage = Stage::new();
    let elsewhere = Authority::new("servers");
    let issued = elsewhere.issue(&SERVER);
    let false_broker = smol::block_on(Server::new(&issued, &[], &stage.devices));
    for port in [crate::support::broker::free_port(), false_broker.port] {
        let (device, mut peers) = stage.device(port, &stage.devices);
        run(&device.context.executor, async {
            let identity = device.identity(Slot::A, &stage.devices);
            let accepting = async {
                false_broker.accept().await;
                panic!("the device spoke to a false broker");
            };
            let answer =
                smol::future::or(soon(peers.prove(Slot::A, &identity, TRUSTED)), accepting).await;
            assert_eq!(answer.outcome.unwrap().broker, BrokerProof::Unreachable);
        });
    }
}

/// Goal: what the provisioner did not see to be right is shown to no broker.
#[test]
fn an_identity_that_the_provisioner_saw_wrongly_does_not_reach_the_broker() {
    let stage = Stage::new();
    let issued = stage.servers.issue(&SERVER);
    let broker = smol::block_on(Server::new(&issued, &[], &stage.devices));
    for device_id in ["gw-1", "gw-2"] {
        let provisioner = smol::block_on(Server::new(&issued, &[], &stage.devices));
        let device = Device::new(&stage.servers, provisioner.port, Some(broker.port));
        let executor = device.context.executor.clone();
        provisioner.serve(&executor, move |connection| whoami_as(connection, &[7], device_id));
        run(&executor, async {
            let mut peers = Peers::new(device.context.clone()).unwrap();
            let identity = device.identity(Slot::A, &stage.devices);
            let disturbed = async {
                broker.accept().await;
                panic!("the identity was shown to the broker");
            };
            let proving = soon(peers.prove(Slot::A, &identity, TRUSTED));
            let answer = smol::future::or(proving, disturbed).await;
            match answer.outcome {
                Ok(proof) => {
                    assert_eq!(device_id, "gw-1");
                    assert_eq!(
                        (&proof.serial[..], proof.broker),
                        (&[7][..], BrokerProof::Unreachable)
                    );
                }
                Err(failure) => {
                    assert_eq!((device_id, failure), ("gw-2", Failure::WrongCertificateSeen));
                }
            }
        });
    }
}

#[test]
fn a_device_without_a_broker_is_proven_by_the_provisioner_alone() {
    let stage = Stage::new();
    let issued = stage.servers.issue(&SERVER);
    let server = smol::block_on(Server::new(&issued, &[], &stage.devices));
    let device = Device::new(&stage.servers, server.port, None);
    let executor = device.context.executor.clone();
    server.serve(&executor, whoami);
    run(&executor, async {
        let mut peers = Peers::new(device.context.clone()).unwrap();
        let identity = device.identity(Slot::A, &stage.devices);
        let proof = peers.prove(Slot::A, &identity, TRUSTED).await.outcome.unwrap();
        assert_eq!(proof.broker, BrokerProof::NotConfigured);
        peers.adopt(Slot::A, &identity, TRUSTED).await.unwrap();
        assert_eq!(peers.adopt(Slot::B, &identity, TRUSTED).await, Err(Failure::KeyLost));
        peers.release().await.unwrap();
    });
}
