//! Whose certificates come in, and what revoked and expired ones still get.

use std::sync::Arc;

use rustls::{HandshakeKind, version::TLS12};

use fleetcert_core::{device_id::DeviceId, wire};
use fleetcert_provisioner::authority::{RevocationReason, tree::TreeKind};

use crate::world::{Credential, Csr, LIFETIME_S, RECOVERY_WINDOW_S, World, get, tree_of};

fn whoami() -> String {
    format!("{}?nonce=00112233445566778899aabbccddeeff", wire::WHOAMI_PATH)
}

fn revoke<S: fleetcert_provisioner::store::Store>(
    provisioner: &fleetcert_provisioner::enroll::Provisioner<S>,
    device: &str,
    now: fleetcert_core::time::Wall,
) {
    let device = DeviceId::parse(device).unwrap();
    let reason = RevocationReason::KeyCompromise;
    smol::block_on(provisioner.revoke(device, reason, "test", now)).unwrap();
}

// Goal: a device that holds its leaf alone is known, because we complete its chain.
#[test]
fn a_leaf_without_its_issuer_is_enough() {
    let world = World::new();
    let Credential { mut chain, pkcs8 } = world.enrolled("dev1");
    chain.truncate(1);
    assert_eq!(world.get(Some(&Credential { chain, pkcs8 }), &whoami()).status, 200);
}

// Goal: the issuing CA is trusted to issue to devices, not a device to issue to others: a chain by a
// device's key is refused, whether it is completed or not.
#[test]
fn a_device_is_no_authority() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let signer = rcgen::KeyPair::try_from(device.pkcs8.as_slice()).unwrap();
    let leaf = rustls_pki_types::CertificateDer::from(device.chain[0].clone());
    let issuer = rcgen::Issuer::from_ca_cert_der(&leaf, signer).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let forged = rcgen::CertificateParams::default().signed_by(&pair, &issuer).unwrap();
    let whole = [&[forged.der().to_vec()][..], &device.chain].concat();
    for len in 1..=whole.len() {
        let chain = whole[..len].to_vec();
        let forged = Credential { chain, pkcs8: pair.serialize_der() };
        assert!(world.try_ask(Some(&forged), get("/healthz").as_bytes()).is_err(), "{len}");
    }
}

// Goal: TLS 1.2 identifies a device as 1.3 does.
#[test]
fn tls_1_2_is_spoken_too() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(world.server_tree.root_certificate.clone().into()).unwrap();
    let config = world.client(Some(&device));
    let provider = Arc::clone(config.crypto_provider());
    let resolver = Arc::clone(&config.client_auth_cert_resolver);
    let config =
        rustls::ClientConfig::builder_with_details(provider, Arc::clone(&config.time_provider))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
    let mut connection = world.connect(Arc::new(config));
    connection.send(get(&whoami()));
    assert_eq!(connection.answer().unwrap().status, 200);
}

// Goal: a certificate of the server tree, though valid, is no client's.
#[test]
fn a_server_certificate_is_no_client_certificate() {
    let world = World::new();
    let server = world.server.clone();
    assert!(world.try_ask(Some(&server), get("/healthz").as_bytes()).is_err());
}

// Goal: a device of another tree, or of none, is refused before any path is known.
#[test]
fn certificates_of_other_trees_are_refused() {
    let (world, other) = (World::new(), World::new());
    let stranger = other.enrolled("dev1");
    assert!(world.try_ask(Some(&stranger), get("/healthz").as_bytes()).is_err());
    let pair = rcgen::KeyPair::generate().unwrap();
    let itself = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let itself = Credential { chain: vec![itself.der().to_vec()], pkcs8: pair.serialize_der() };
    assert!(world.try_ask(Some(&itself), get("/healthz").as_bytes()).is_err());
    assert_ne!(tree_of(TreeKind::Device).root_certificate, world.device_tree.root_certificate);
}

// Goal: an expired certificate of another tree is not let in by the door made for recovery.
#[test]
fn expired_certificates_of_other_trees_are_refused() {
    let (world, other) = (World::new(), World::new());
    let stranger = other.enrolled("dev1");
    world.advance_s(LIFETIME_S + 60);
    assert!(world.try_ask(Some(&stranger), get("/healthz").as_bytes()).is_err());
}

// Goal: who revokes a device is obeyed at the next request, over a proper connection that says so.
#[test]
fn a_revoked_device_is_told_so() {
    let world = World::new();
    let device = world.enrolled("dev1");
    revoke(&world.provisioner, "dev1", world.now());
    for request in [get(&whoami()).into_bytes(), Csr::again("dev1").post("simplereenroll", None)] {
        let answer = world.ask(Some(&device), &request);
        assert_eq!((answer.status, answer.reason()), (403, wire::REASON_REVOKED), "{answer:?}");
    }
}

// Goal: neither a kept-alive connection nor a resumed session outlives a revocation.
#[test]
fn a_revocation_counts_on_open_and_resumed_connections() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let config = Arc::new(world.client(Some(&device)));
    let mut open = world.connect(Arc::clone(&config));
    open.send(get(&whoami()).replace("Connection: close\r\n", ""));
    assert_eq!(open.answer().unwrap().status, 200);
    revoke(&world.provisioner, "dev1", world.now());
    open.send(get(&whoami()));
    assert_eq!(open.answer().unwrap().reason(), wire::REASON_REVOKED);
    let mut resumed = world.connect(config);
    resumed.send(get(&whoami()));
    let answer = resumed.answer().unwrap();
    assert_eq!(resumed.0.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!((answer.status, answer.reason()), (403, wire::REASON_REVOKED));
}

// Goal: an expired device gets nothing but a new certificate, and that within the window only.
#[test]
fn an_expired_device_recovers_within_its_window() {
    let world = World::new();
    let device = world.enrolled("dev1");
    world.advance_s(LIFETIME_S + 60);
    let answer = world.get(Some(&device), &whoami());
    assert_eq!(answer.status, 403, "{answer:?}");
    let recovered = world.ask(Some(&device), &Csr::again("dev1").post("simplereenroll", None));
    assert_eq!(recovered.status, 200, "{recovered:?}");
}

// Goal: after the window an operator decides.
#[test]
fn a_device_expired_for_long_waits_for_an_operator() {
    let world = World::new();
    let device = world.enrolled("dev1");
    world.advance_s(LIFETIME_S + RECOVERY_WINDOW_S + 60);
    let answer = world.ask(Some(&device), &Csr::again("dev1").post("simplereenroll", None));
    assert_eq!(answer.status, 202, "{answer:?}");
}

// Goal: a certificate that expires during a connection is expired for the next request on it.
#[test]
fn expiry_is_judged_at_each_request() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let mut connection = world.connect(Arc::new(world.client(Some(&device))));
    connection.send(get(&whoami()).replace("Connection: close\r\n", ""));
    assert_eq!(connection.answer().unwrap().status, 200);
    world.advance_s(LIFETIME_S + 60);
    connection.send(get(&whoami()));
    assert_eq!(connection.answer().unwrap().status, 403);
}
