//! What an issuance costs beside the cryptography that it cannot do without.
//!
//! `issue core N` issues N certificates through the authority: parse the request, verify its
//! signature, build, lint, sign. `issue floor N` does N raw verifications and signatures. Both set
//! up the same, so the difference of two counts of each is the cost of the work alone; under
//! `valgrind --tool=callgrind` the ratio of the two is the same on every machine.
//!
//! `issue enroll N CLIENTS PATH` enrolls N devices by token into a SQLite database at PATH and
//! tells the time, the rate and the commits. `issue fixtures PATH` writes a certificate of each
//! kind, a CRL and the authorities to PATH, for other people's linters.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement, not the product: it stops at the first surprise and prints"
)]

use std::{hint::black_box, path::Path, time::Instant};

use fleetcert_core::{device_id::DeviceId, time::Wall};
use fleetcert_provisioner::{
    authority::{
        Authority, Identity, Profile, PublicKey, Revocation, RevocationReason, Serial,
        profile::{DnsName, Kind, TrustDomain},
        tree::{self, NewTree, TreeKind, TreeSettings},
    },
    csr::Csr,
    enroll::{
        Admission, Answer, Basic, Group, Operation, Peer, Provisioner, Request, Settings,
        TokenOrder,
    },
    inventory::Name,
    random::Random,
    store::{Scope, Store, Verdict, View, memory::MemoryStore, sqlite::SqliteStore},
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature,
};

const NOW: Wall = Wall(1_767_225_600);

struct System(SystemRandom);

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes).unwrap();
    }
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|text| text != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["core", count] => core(count.parse().unwrap()),
        ["floor", count] => floor(count.parse().unwrap()),
        ["enroll", count, clients, path] => {
            smol::block_on(enroll(
                count.parse().unwrap(),
                clients.parse().unwrap(),
                Path::new(path),
            ));
        }
        ["fixtures", path] => fixtures(Path::new(path)),
        _ => {
            core(100);
            floor(100);
        }
    }
}

fn random() -> System {
    System(SystemRandom::new())
}

fn new_tree(kind: TreeKind) -> NewTree {
    let settings = TreeSettings {
        organisation: "Acme".into(),
        root_lifetime_s: 20 * 365 * 86_400,
        issuing_lifetime_s: 10 * 365 * 86_400,
    };
    tree::create(kind, &settings, "correct horse battery", NOW, &mut random()).unwrap()
}

fn authority_of(tree: &NewTree) -> Authority {
    let key = tree::key_from_pem(&tree.issuing_key_pem).unwrap();
    Authority::from_der(&tree.issuing_certificate, &key).unwrap()
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("acme.example").unwrap()
}

fn device(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn profile(kind: Kind) -> Profile {
    let mut profile = Profile::new(kind);
    profile.crl_urls = vec!["http://ca.example/device.crl".into()];
    profile.issuer_urls = vec!["http://ca.example/device.crt".into()];
    profile
}

fn identity(id: &str) -> Identity {
    Identity::Device { id: device(id), trust_domain: trust_domain(), dns: None }
}

fn csr(key: &KeyPair, id: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id);
    params.serialize_request(key).unwrap().der().to_vec()
}

/// What both of the counted modes do first, so that it cancels out.
fn prelude() -> (Authority, Vec<u8>) {
    let authority = authority_of(&new_tree(TreeKind::Device));
    (authority, csr(&KeyPair::generate().unwrap(), "gw-000001"))
}

fn core(count: u32) {
    let (authority, csr) = prelude();
    let (profile, identity) = (profile(Kind::Device), identity("gw-000001"));
    let (store, mut rng) = (MemoryStore::new(), random());
    for _ in 0..count {
        let csr = Csr::verify(black_box(&csr)).unwrap();
        let serial = Serial::draw(&mut rng);
        let prepared = authority.prepare(&profile, &identity, csr.key(), serial, NOW).unwrap();
        let decide =
            move |_: &View| Verdict { reserve: Some(prepared.clone()), ..Verdict::new(()) };
        let committed = smol::block_on(store.transact(Scope::default(), decide)).unwrap();
        black_box(authority.issue(committed.reserved.unwrap()).unwrap());
    }
}

fn floor(count: u32) {
    let (_authority, csr) = prelude();
    let rng = SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let key = signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
    let point = signature::KeyPair::public_key(&key);
    let public =
        signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point.as_ref());
    let request_signature = key.sign(&rng, &csr).unwrap();
    let tbs = [0; 500];
    for _ in 0..count {
        public.verify(black_box(&csr), black_box(request_signature.as_ref())).unwrap();
        black_box(key.sign(&rng, black_box(&tbs)).unwrap());
    }
}

fn settings() -> Settings {
    let group = Group {
        admission: Admission::Token,
        profile: profile(Kind::Device),
        dns_domain: None,
        recovery_window_s: 0,
        recovery_interval_s: 0,
        retry_after_s: 60,
        allow_virtual_tpm: false,
    };
    Settings {
        trust_domain: trust_domain(),
        groups: [(name("tokens"), group)].into(),
        labels: [].into(),
        default_group: Some(name("tokens")),
        pending_max: 1,
        crl_validity_s: 86_400,
    }
}

async fn enroll(count: usize, clients: usize, path: &Path) {
    let store = SqliteStore::open(path).await.unwrap();
    let authority = authority_of(&new_tree(TreeKind::Device));
    let provisioner = Provisioner::new(store.clone(), settings(), authority);
    let key = KeyPair::generate().unwrap();
    let mut requests = Vec::new();
    for n in 0..count {
        requests.push(order(&provisioner, &format!("gw-{n:06}"), &key).await);
    }
    let (before, started) = (store.commits(), Instant::now());
    let executor = smol::LocalExecutor::new();
    let provisioner = &provisioner;
    let share = count.div_ceil(clients);
    let tasks: Vec<_> = requests
        .chunks(share)
        .map(|requests| executor.spawn(client(provisioner, requests.to_vec())))
        .collect();
    executor
        .run(async {
            for task in tasks {
                task.await;
            }
        })
        .await;
    let (commits, elapsed) = (store.commits() - before, started.elapsed());
    store.close().await;
    let rate = count as f64 / elapsed.as_secs_f64();
    println!(
        "{count} enrollments, {clients} clients: {elapsed:.2?}, {rate:.0}/s, {:.3} commits each",
        commits as f64 / count as f64
    );
}

async fn order(provisioner: &Provisioner<SqliteStore>, id: &str, key: &KeyPair) -> Request {
    let order =
        TokenOrder { device: device(id), group: Some(name("tokens")), label: None, ttl_s: 3_600 };
    let token = provisioner.issue_token(order, "bench", NOW, &mut random()).await.unwrap();
    Request {
        operation: Operation::Enroll,
        label: None,
        peer: Peer::Anonymous,
        basic: Some(Basic { user: id.to_owned(), password: token.text() }),
        csr_der: csr(key, id),
        request_id: Some([7; 16]),
        challenge: None,
    }
}

async fn client(provisioner: &Provisioner<SqliteStore>, requests: Vec<Request>) {
    let mut rng = random();
    for request in requests {
        let answer = provisioner.enroll(request, NOW, &mut rng).await.unwrap();
        assert!(matches!(answer, Answer::Issued { .. }));
    }
}

fn fixtures(path: &Path) {
    let (device_tree, server_tree) = (new_tree(TreeKind::Device), new_tree(TreeKind::Server));
    let write = |file: &str, bytes: &[u8]| std::fs::write(path.join(file), bytes).unwrap();
    for (file, tree) in [("device", &device_tree), ("server", &server_tree)] {
        write(&format!("{file}-root.der"), &tree.root_certificate);
        write(&format!("{file}-issuing.der"), &tree.issuing_certificate);
        write(&format!("{file}-root-key.pem"), tree.root_key_encrypted_pem.as_bytes());
    }
    let (devices, servers) = (authority_of(&device_tree), authority_of(&server_tree));
    let dns = DnsName::parse("broker.example").unwrap();
    let domain = DnsName::parse("gw-1.fleet.example").unwrap();
    let trust_domain = trust_domain();
    let (id, local) = (device("gw-1"), std::net::Ipv4Addr::LOCALHOST.into());
    let gateway = Identity::Device { id, trust_domain: trust_domain.clone(), dns: Some(domain) };
    let backend = Identity::Backend { name: name("mqtt"), trust_domain };
    let server = Identity::Server { dns: vec![dns], addresses: vec![local] };
    let bare = Identity::Server { dns: Vec::new(), addresses: vec![local] };
    for (file, authority, kind, identity) in [
        ("leaf-backend.der", &devices, Kind::Backend, backend),
        ("leaf-device.der", &devices, Kind::Device, identity("gw-1")),
        ("leaf-gateway.der", &devices, Kind::Gateway, gateway),
        ("leaf-server.der", &servers, Kind::Server, server),
        ("leaf-bare.der", &servers, Kind::Server, bare),
    ] {
        write(file, &certificate(authority, &profile(kind), &identity));
    }
    let line = |reason| Revocation {
        serial: Serial::draw(&mut random()),
        at: NOW,
        reason,
        not_after: NOW.plus_s(9),
    };
    let lines = [line(RevocationReason::KeyCompromise), line(RevocationReason::Unspecified)];
    write("empty.crl", &devices.publish(1, &[], NOW, 86_400).unwrap().der);
    write("two.crl", &devices.publish(200, &lines, NOW, 86_400).unwrap().der);
}

fn certificate(authority: &Authority, profile: &Profile, identity: &Identity) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let key = PublicKey::from_spki(&key.subject_public_key_info()).unwrap();
    let serial = Serial::draw(&mut random());
    let prepared = authority.prepare(profile, identity, &key, serial, NOW).unwrap();
    let decide = move |_: &View| Verdict { reserve: Some(prepared.clone()), ..Verdict::new(()) };
    let committed = smol::block_on(MemoryStore::new().transact(Scope::default(), decide)).unwrap();
    authority.issue(committed.reserved.unwrap()).unwrap().der
}
