//! Which servers are believed, and whose fault a failed handshake is.

use std::sync::Arc;

use fleetcert_agent::keystore::{KeyFailure, Signer};
use fleetcert_agent::net::{NetError, dial, verdict};
use fleetcert_agent::tls::Client;
use fleetcert_core::event::Failure;
use fleetcert_core::record::Slot;
use fleetcert_core::time::server::Server as Role;
use fleetcert_core::time::{Confidence, Reading, Wall};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::CertificateError;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::device::{Device, loopback, trust};
use crate::support::pki::{Authority, Issued, Leaf, SERVER, device_leaf};
use crate::support::server::{self, Server};
use crate::support::{NOW, TRUSTED, run};

/// Dials a server with this chain as an anonymous device, and says what came of it.
fn dial_to(
    role: Role,
    root: &Authority,
    issued: &Issued,
    above: &[&Authority],
    reading: Reading,
) -> Result<(), NetError> {
    let devices = Authority::new("devices");
    let executor = Device::new(root, 1, None).context.executor;
    run(&executor.clone(), async {
        let server = Server::new(issued, above, &devices).await;
        let port = server.serve(&executor, |connection| server::answer(connection, b""));
        let client = Client::anonymous(&trust(root), role).unwrap();
        dial(&loopback(port), &client, reading).await.map(drop)
    })
}

fn untrusted(outcome: Result<(), NetError>) -> CertificateError {
    let error = outcome.expect_err("the server was believed");
    assert_eq!(error.failure(), Failure::ServerUntrusted, "{error}");
    match error {
        NetError::ServerUntrusted(rustls::Error::InvalidCertificate(error)) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_server_under_the_pinned_root_is_believed() {
    let root = Authority::new("servers");
    for role in [Role::Broker, Role::Provisioner] {
        dial_to(role, &root, &root.issue(&SERVER), &[], TRUSTED).unwrap();
    }
}

/// Goal: the device tree is no server's, and a leaf of either tree signs nothing.
#[test]
fn a_server_certified_by_a_device_or_by_another_server_is_refused() {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let cases = [(&devices, device_leaf("gw-7")), (&servers, SERVER)];
    for (tree, leaf) in cases {
        let pretender = Authority::pretender(tree.issue(&leaf), leaf.name);
        let issued = pretender.issue(&SERVER);
        let refused = dial_to(Role::Broker, &servers, &issued, &[&pretender], TRUSTED);
        let error = refused.expect_err("a leaf certified a server");
        assert_eq!(error.failure(), Failure::ServerUntrusted, "{error}");
    }
}

#[test]
fn a_certificate_that_is_for_clients_only_is_no_servers() {
    let root = Authority::new("servers");
    let leaf = Leaf { purpose: ExtendedKeyUsagePurpose::ClientAuth, ..SERVER };
    let refused = dial_to(Role::Broker, &root, &root.issue(&leaf), &[], TRUSTED);
    let error = untrusted(refused);
    assert!(matches!(error, CertificateError::InvalidPurposeContext { .. }), "{error:?}");
}

#[test]
fn a_server_of_another_name_is_refused() {
    let root = Authority::new("servers");
    let leaf = Leaf { hosts: &["127.0.0.2", "localhost"], ..SERVER };
    let refused = dial_to(Role::Broker, &root, &root.issue(&leaf), &[], TRUSTED);
    let error = untrusted(refused);
    assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{error:?}");
}

#[test]
fn a_server_under_another_root_of_the_same_name_is_refused() {
    let (root, other) = (Authority::new("servers"), Authority::new("servers"));
    let refused = dial_to(Role::Broker, &root, &other.issue(&SERVER), &[&other], TRUSTED);
    let error = refused.expect_err("another root was believed");
    assert_eq!(error.failure(), Failure::ServerUntrusted, "{error}");
}

/// Goal: `docs/decisions/0003-server-time.md`, with real chains: a leaf of 2020 and a floor in it.
#[test]
fn the_time_that_a_server_is_judged_by_depends_on_who_it_is_and_how_sure_we_are() {
    let root = Authority::new("servers");
    let old = root.issue(&Leaf { years: (2020, 2021), ..SERVER });
    let floor = Wall(1_590_000_000);
    let trusted = Reading { floor, ..TRUSTED };
    let floored = Reading { confidence: Confidence::Floored, ..trusted };
    let unknown = Reading { wall: None, confidence: Confidence::Unknown, floor };
    let cases = [
        (Role::Broker, trusted, false),
        (Role::Provisioner, trusted, false),
        (Role::Broker, floored, false),
        (Role::Provisioner, floored, true),
        (Role::Broker, unknown, true),
        (Role::Provisioner, unknown, true),
    ];
    for (role, reading, believed) in cases {
        let outcome = dial_to(role, &root, &old, &[], reading);
        assert_eq!(outcome.is_ok(), believed, "{role:?} {reading:?}");
        if !believed {
            let error = untrusted(outcome);
            assert!(matches!(error, CertificateError::ExpiredContext { .. }), "{error:?}");
        }
    }
    let stranger = Authority::new("servers").issue(&Leaf { years: (2020, 2021), ..SERVER });
    assert!(dial_to(Role::Provisioner, &root, &stranger, &[], floored).is_err());
}

#[test]
fn nobody_at_home_is_unreachable_and_not_untrusted() {
    let root = Authority::new("servers");
    let device = Device::new(&root, 1, None);
    let port = crate::support::broker::free_port();
    let outcome = run(&device.context.executor, async {
        let client = Client::anonymous(&trust(&root), Role::Broker).unwrap();
        dial(&loopback(port), &client, TRUSTED).await.map(drop)
    });
    assert_eq!(outcome.unwrap_err().failure(), Failure::Unreachable);
}

/// Goal: a server that does not know our authority is a refusal of us, seen before a word is said.
#[test]
fn an_alert_about_our_certificate_is_a_refusal_of_us() {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let device = Device::new(&servers, 1, None);
    let identity = device.identity(Slot::A, &Authority::new("devices"));
    let executor = device.context.executor.clone();
    let outcome = run(&executor, async {
        let server = Server::new(&servers.issue(&SERVER), &[], &devices).await;
        let port = server.serve(&executor, |connection| server::answer(connection, b""));
        let client = device.client(&servers, Role::Broker, Slot::A, &identity);
        let mut stream = dial(&loopback(port), &client, TRUSTED).await?;
        verdict(&mut stream).await
    });
    let error = outcome.expect_err("a stranger was let in");
    assert_eq!(error.failure(), Failure::OurIdentityRefused, "{error}");
}

/// Goal: one identity resumes its own sessions, and never another's.
#[test]
fn each_identity_is_seen_as_itself_at_every_connection() {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let device = Device::new(&servers, 1, None);
    let executor = device.context.executor.clone();
    run(&executor, async {
        let server = Server::new(&servers.issue(&SERVER), &[], &devices).await;
        let port = server.serve(&executor, async |connection| {
            let seen = server::shown(&connection).map(|seen| seen.to_vec());
            server::answer(connection, &seen.unwrap_or_default()).await;
        });
        let slots = Slot::ALL.map(|slot| (slot, device.identity(slot, &devices)));
        let clients = [Role::Broker, Role::Provisioner].map(|role| {
            slots.each_ref().map(|(slot, identity)| {
                (device.client(&servers, role, *slot, identity), &identity.certificate)
            })
        });
        for (client, certificate) in clients.iter().flatten().cycle().take(12) {
            let mut stream = dial(&loopback(port), client, TRUSTED).await.unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).await.unwrap();
            assert_eq!(seen, certificate.as_slice());
        }
    });
}

/// A signer that is as slow as it says, or does not sign.
#[derive(Debug)]
struct Odd {
    inner: Arc<dyn Signer>,
    refuses: bool,
    executor: std::thread::ThreadId,
}

impl Signer for Odd {
    fn spki(&self) -> &[u8] {
        self.inner.spki()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyFailure> {
        assert_ne!(std::thread::current().id(), self.executor, "signing stalls the executor");
        if self.refuses { Err(KeyFailure::Refused) } else { self.inner.sign(message) }
    }

    fn is_slow(&self) -> bool {
        true
    }
}

#[test]
fn a_slow_key_signs_on_another_thread_and_one_that_fails_is_our_own_fault() {
    let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
    let device = Device::new(&servers, 1, None);
    let identity = device.identity(Slot::A, &devices);
    let executor = device.context.executor.clone();
    run(&executor, async {
        let server = Server::new(&servers.issue(&SERVER), &[], &devices).await;
        let port = server.serve(&executor, async |mut connection| {
            let mut octet = [0];
            connection.read_exact(&mut octet).await.unwrap();
            server::answer(connection, &octet).await;
        });
        for refuses in [false, true] {
            let inner = device.context.keys.signer(Slot::A).unwrap();
            let signer = Arc::new(Odd { inner, refuses, executor: std::thread::current().id() });
            let certificate = &identity.certificate;
            let client =
                Client::identified(&trust(&servers), Role::Broker, certificate, signer).unwrap();
            match dial(&loopback(port), &client, TRUSTED).await {
                Ok(mut stream) => {
                    assert!(!refuses);
                    stream.write_all(b"x").await.unwrap();
                    stream.flush().await.unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).await.unwrap();
                    assert_eq!(answer, b"x");
                }
                Err(error) => {
                    assert!(refuses, "{error}");
                    assert_eq!(error.failure(), Failure::KeyUnavailable, "{error}");
                }
            }
        }
    });
}

#[test]
fn a_time_is_believed_inside_the_certificate_that_it_was_told_under_only() {
    let root = Authority::new("servers");
    let leaf = root.issue(&Leaf { years: (2020, 2021), ..SERVER }).certificate;
    let (first, last) = (Wall(1_577_836_800), Wall(1_609_459_200));
    for (told, believed) in [
        (first, true),
        (last, true),
        (first.minus_s(1), false),
        (last.plus_s(1), false),
        (NOW, false),
    ] {
        assert_eq!(fleetcert_agent::tls::believable(told, &leaf).is_some(), believed, "{told:?}");
    }
    assert_eq!(fleetcert_agent::tls::believable(first, b"no certificate"), None);
}
