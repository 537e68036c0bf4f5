use fleetcert_core::time::Wall;
use futures_lite::future::block_on;
use rcgen::KeyPair;

use super::{
    Admission, Answer, Basic, Group, Operation, Peer, Provisioner, Refusal, Request, ServerOrder,
    ServiceError, StatusClass, TokenOrder,
};
use crate::{
    audit::{Actor, Event},
    authority::{
        Identity, IssueError, Leaf, Profile, RevocationReason, Serial,
        der::element,
        profile::{DnsName, Kind, TrustDomain},
        tree::TreeKind,
    },
    csr::CSR_LEN_MAX,
    inventory::{Device, Status, StepError},
    store::{Change, RequestId, Scope, Store, Verdict, View, memory::MemoryStore},
    testing::{
        DAY_S, NOW, Seeded, authority, csr, csr_of, device, extension_request, key_pair, name,
        public, settings, subject, subject_of, uri_name,
    },
    token::{TOKEN_TTL_S_MAX, TokenError},
};

mod codes;
mod limits;
mod soft_tpm;
mod tpm;

const OPERATOR: &str = "olga";

struct Rig {
    provisioner: Provisioner<MemoryStore>,
    rng: Seeded,
}

impl Rig {
    fn new() -> Self {
        let authority = authority(TreeKind::Device);
        let provisioner = Provisioner::new(MemoryStore::new(), settings(), authority);
        Self { provisioner, rng: Seeded(100) }
    }

    fn token_at(&mut self, id: &str, group: &str, label: Option<&str>) -> String {
        let order = TokenOrder {
            device: device(id),
            group: Some(name(group)),
            label: label.map(name),
            ttl_s: DAY_S,
        };
        let token = self.provisioner.issue_token(order, OPERATOR, NOW, &mut self.rng);
        block_on(token).unwrap().text().to_string()
    }

    fn token(&mut self, id: &str) -> String {
        self.token_at(id, "tokens", None)
    }

    fn enroll(&mut self, request: Request, now: Wall) -> Result<Answer, ServiceError> {
        block_on(self.provisioner.enroll(request, now, &mut self.rng))
    }

    fn leaf(&mut self, request: Request, now: Wall) -> Vec<u8> {
        match self.enroll(request, now).unwrap() {
            Answer::Issued { leaf_der, .. } => leaf_der,
            Answer::Pending { .. } => panic!("the request waits"),
        }
    }

    fn refusal(&mut self, request: Request, now: Wall) -> Refusal {
        match self.enroll(request, now) {
            Err(ServiceError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn enrolled(&mut self, id: &str, key: &KeyPair) -> Vec<u8> {
        let token = self.token(id);
        self.leaf(by_token(id, &token, key), NOW)
    }

    fn device(&self, id: &str) -> Option<Device> {
        let scope = Scope { device: Some(device(id)), ..Scope::default() };
        block_on(self.provisioner.store().view(scope)).unwrap().device
    }

    fn events(&self) -> Vec<(Event, Actor, String)> {
        let rows = block_on(self.provisioner.store().audit(0, 1000)).unwrap();
        rows.into_iter().map(|row| (row.entry.event, row.entry.actor, row.entry.detail)).collect()
    }

    fn last_event(&self) -> (Event, Actor, String) {
        self.events().pop().unwrap()
    }

    fn revoke(&self, id: &str, now: Wall) -> Result<Device, ServiceError> {
        let reason = RevocationReason::KeyCompromise;
        block_on(self.provisioner.revoke(device(id), reason, OPERATOR, now))
    }

    fn approve(&self, id: &str) -> Result<Device, ServiceError> {
        block_on(self.provisioner.approve(device(id), None, OPERATOR, NOW))
    }
}

fn anonymous(csr_der: Vec<u8>) -> Request {
    Request {
        operation: Operation::Enroll,
        label: None,
        peer: Peer::Anonymous,
        basic: None,
        csr_der,
        request_id: None,
        challenge: None,
    }
}

fn basic(user: &str, password: &str) -> Option<Basic> {
    Some(Basic { user: user.into(), password: password.to_owned().into() })
}

fn by_token(id: &str, token: &str, key: &KeyPair) -> Request {
    Request { basic: basic(id, token), ..anonymous(csr(key, id)) }
}

fn walk_in(id: &str, key: &KeyPair) -> Request {
    Request { label: Some(name("walk-in")), ..anonymous(csr(key, id)) }
}

fn peer(leaf_der: &[u8], expired: bool) -> Peer {
    Peer::Device { leaf_der: leaf_der.to_vec(), expired }
}

fn reenroll(leaf: &[u8], csr_der: Vec<u8>) -> Request {
    Request { operation: Operation::Reenroll, peer: peer(leaf, false), ..anonymous(csr_der) }
}

fn named(request: Request, id: RequestId) -> Request {
    Request { request_id: Some(id), ..request }
}

fn serial_of(leaf: &[u8]) -> Serial {
    Leaf::parse(leaf).unwrap().serial
}

fn expect(refusal: &Refusal, code: &str, status: u16) {
    assert_eq!((refusal.code(), refusal.status().http()), (code, status), "{refusal}");
}

fn nonce() -> [u8; 16] {
    [9; 16]
}

#[test]
fn a_token_gets_its_device_one_certificate_and_everything_is_recorded() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let parsed = Leaf::parse(&leaf).unwrap();
    assert_eq!(parsed.device(&settings().trust_domain), Some(device("gw-1")));
    assert_eq!(parsed.key, public(&key));
    let device = rig.device("gw-1").unwrap();
    assert_eq!((device.status, device.serial), (Status::Active, Some(parsed.serial)));
    assert_eq!(device.last_seen_at, Some(NOW));
    let events: Vec<_> = rig.events().into_iter().map(|(event, actor, _)| (event, actor)).collect();
    assert_eq!(
        events,
        [
            (Event::TokenIssued, Actor::Operator(OPERATOR.into())),
            (Event::Requested, Actor::Device),
            (Event::TokenUsed, Actor::Device),
            (Event::Issued, Actor::Device),
        ]
    );
}

#[test]
fn the_audit_table_never_holds_a_token() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    rig.leaf(by_token("gw-1", &token, &key_pair(1)), NOW);
    rig.refusal(by_token("gw-1", &token, &key_pair(2)), NOW);
    assert!(rig.events().iter().all(|(_, _, detail)| !detail.contains(&token)));
    let shown = format!("{:?}", by_token("gw-1", &token, &key_pair(1)));
    assert!(!shown.contains(&token), "{shown}");
}

#[test]
fn an_unknown_token_is_refused_whether_it_looks_like_one_or_not() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    let other: String = token.chars().rev().collect();
    for bad in [other.as_str(), "", "secret", &token[1..]] {
        expect(&rig.refusal(by_token("gw-1", bad, &key_pair(1)), NOW), "token-unknown", 401);
    }
    assert_eq!(rig.last_event().0, Event::Refused);
    assert!(rig.last_event().2.starts_with("token-unknown: "));
}

#[test]
fn a_used_token_is_refused_to_everybody_but_the_request_that_used_it() {
    let mut rig = Rig::new();
    let (key, other) = (key_pair(1), key_pair(2));
    let token = rig.token("gw-1");
    let first = named(by_token("gw-1", &token, &key), [1; 16]);
    let leaf = rig.leaf(first.clone(), NOW);
    let late = NOW.plus_s(2 * DAY_S);
    let again = rig.leaf(first, late);
    assert_eq!(Leaf::parse(&again).unwrap().tbs, Leaf::parse(&leaf).unwrap().tbs);
    let renamed = named(by_token("gw-1", &token, &key), [2; 16]);
    expect(&rig.refusal(renamed, NOW), "token-used", 401);
    let unnamed = by_token("gw-1", &token, &key);
    expect(&rig.refusal(unnamed, NOW), "token-used", 401);
    let rekeyed = named(by_token("gw-1", &token, &other), [1; 16]);
    expect(&rig.refusal(rekeyed, NOW), "request-conflict", 409);
    let stored = block_on(rig.provisioner.store().certificates(device("gw-1"), 9)).unwrap();
    assert_eq!(stored.len(), 1);
}

#[test]
fn a_token_that_an_unnamed_request_used_cannot_come_again() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    rig.leaf(by_token("gw-1", &token, &key_pair(1)), NOW);
    expect(&rig.refusal(by_token("gw-1", &token, &key_pair(1)), NOW), "token-used", 401);
}

#[test]
fn a_token_is_good_to_the_last_second_and_no_longer() {
    let mut rig = Rig::new();
    let (first, second) = (rig.token("gw-1"), rig.token("gw-1"));
    let end = NOW.plus_s(DAY_S);
    rig.leaf(by_token("gw-1", &first, &key_pair(1)), end);
    let refusal = rig.refusal(by_token("gw-1", &second, &key_pair(1)), end.plus_s(1));
    expect(&refusal, "token-expired", 401);
    let error = TokenError::Expired { expires_at: end, now: end.plus_s(1) };
    assert_eq!(refusal, Refusal::Token(error));
}

#[test]
fn a_token_of_another_device_is_refused() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    rig.token("gw-2");
    expect(&rig.refusal(by_token("gw-2", &token, &key_pair(1)), NOW), "token-wrong-device", 401);
    let leaf = rig.enrolled("gw-3", &key_pair(3));
    let request = by_token("gw-1", &token, &key_pair(1));
    let stolen = Request { peer: peer(&leaf, false), ..request };
    expect(&rig.refusal(stolen, NOW), "token-wrong-device", 401);
}

#[test]
fn a_token_of_one_label_is_refused_at_another_and_at_none() {
    let mut rig = Rig::new();
    let token = rig.token_at("gw-1", "tokens", Some("tokens"));
    let request = by_token("gw-1", &token, &key_pair(1));
    let at = |label: Option<&str>| Request { label: label.map(name), ..request.clone() };
    expect(&rig.refusal(at(Some("walk-in")), NOW), "token-wrong-label", 401);
    expect(&rig.refusal(at(None), NOW), "token-wrong-label", 401);
    rig.leaf(at(Some("tokens")), NOW);
}

#[test]
fn a_token_for_any_label_still_belongs_to_the_group_of_its_device() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    let request = by_token("gw-1", &token, &key_pair(1));
    let elsewhere = Request { label: Some(name("walk-in")), ..request };
    expect(&rig.refusal(elsewhere, NOW), "label-mismatch", 403);
}

#[test]
fn a_label_that_does_not_exist_is_not_found() {
    let mut rig = Rig::new();
    let request = Request { label: Some(name("nowhere")), ..anonymous(csr(&key_pair(1), "gw-1")) };
    expect(&rig.refusal(request, NOW), "label-unknown", 404);
}

#[test]
fn a_closed_group_lets_nobody_in_not_even_with_a_token() {
    let mut rig = Rig::new();
    let token = rig.token_at("gw-1", "closed", None);
    expect(&rig.refusal(by_token("gw-1", &token, &key_pair(1)), NOW), "policy-denied", 403);
}

#[test]
fn a_group_that_was_taken_away_denies() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let gone = Device { group: name("gone"), ..rig.device("gw-1").unwrap() };
    let decide =
        move |_: &View| Verdict { changes: vec![Change::Device(gone.clone())], ..Verdict::new(()) };
    block_on(rig.provisioner.store().transact(Scope::default(), decide)).unwrap();
    let request = reenroll(&leaf, csr(&key_pair(1), "gw-1"));
    expect(&rig.refusal(request, NOW), "policy-denied", 403);
}

#[test]
fn without_credentials_a_device_is_asked_for_them_and_nothing_is_written() {
    let mut rig = Rig::new();
    let nameless = anonymous(csr_of(&key_pair(1), &subject(&[]), &[]));
    let refusal = rig.refusal(nameless, NOW);
    expect(&refusal, "credentials-required", 401);
    expect(&rig.refusal(anonymous(csr(&key_pair(1), "gw-1")), NOW), "credentials-required", 401);
    assert_eq!((rig.events(), rig.device("gw-1")), (vec![], None));
}

#[test]
fn names_that_no_device_can_have_are_refused() {
    let mut rig = Rig::new();
    for bad in ["", "a/b", "backend.mqtt", "Backend.x", "-x"] {
        let request = Request { basic: basic(bad, "x"), ..anonymous(csr(&key_pair(1), "gw-1")) };
        expect(&rig.refusal(request, NOW), "device-name", 400);
    }
    expect(&rig.refusal(walk_in("backend.mqtt", &key_pair(1)), NOW), "device-name", 400);
}

#[test]
fn an_empty_subject_is_fine_and_another_name_is_not() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    let mut request = by_token("gw-1", &token, &key_pair(1));
    request.csr_der = csr(&key_pair(1), "gw-2");
    let refusal = rig.refusal(request.clone(), NOW);
    expect(&refusal, "csr-identity", 403);
    let expected = Refusal::CsrIdentity { found: "gw-2".into(), expected: device("gw-1") };
    assert_eq!(refusal, expected);
    request.csr_der = csr_of(&key_pair(1), &subject(&[]), &[]);
    rig.leaf(request, NOW);
}

#[test]
fn every_fault_of_a_request_has_its_code() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    let key = key_pair(1);
    let name = subject(&[(3, "gw-1")]);
    let mut unsigned = csr(&key, "gw-1");
    let last = unsigned.len() - 1;
    unsigned[last] ^= 1;
    let ca = extension_request(&[(19, &[0x30, 3, 1, 1, 0xff])]);
    for (csr_der, code, status) in [
        (csr_of(&key, &name, &ca), "csr-ca", 400),
        (csr_of(&key, &subject(&[(3, "gw-1"), (3, "gw-1")]), &[]), "csr-common-names", 400),
        (include_bytes!("../../testdata/rsa2048.csr").to_vec(), "csr-key", 400),
        (vec![0x30, 0], "csr-malformed", 400),
        (unsigned, "csr-signature", 400),
        (include_bytes!("../../testdata/sha384.csr").to_vec(), "csr-signature-algorithm", 400),
        (vec![0; CSR_LEN_MAX + 1], "csr-too-long", 413),
    ] {
        let request = Request { basic: basic("gw-1", &token), ..anonymous(csr_der) };
        expect(&rig.refusal(request, NOW), code, status);
    }
    assert_eq!(rig.device("gw-1").unwrap().status, Status::Expected);
}

#[test]
fn an_active_device_enrolls_anew_by_a_new_token_only() {
    let mut rig = Rig::new();
    rig.enrolled("gw-1", &key_pair(1));
    expect(&rig.refusal(anonymous(csr(&key_pair(1), "gw-1")), NOW), "credentials-required", 401);
    rig.enrolled("gw-1", &key_pair(2));
    let stored = block_on(rig.provisioner.store().certificates(device("gw-1"), 9)).unwrap();
    assert_eq!(stored.len(), 2);
}

#[test]
fn reenrollment_keeps_the_identity_and_may_change_the_key() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    for (seed, now) in [(1, NOW.plus_s(9)), (2, NOW.plus_s(10))] {
        let key = key_pair(seed);
        let renewed = rig.leaf(reenroll(&leaf, csr(&key, "gw-1")), now);
        assert_ne!(serial_of(&renewed), serial_of(&leaf));
        assert_eq!(Leaf::parse(&renewed).unwrap().key, public(&key));
        assert_eq!(rig.device("gw-1").unwrap().serial, Some(serial_of(&renewed)));
    }
    assert_eq!(rig.last_event().0, Event::Issued);
    let asked = rig.events().into_iter().rev().find(|event| event.0 == Event::Requested).unwrap();
    assert_eq!(asked.2, format!("re-enroll by certificate {}", serial_of(&leaf)));
}

#[test]
fn reenrollment_needs_a_certificate_and_no_password_replaces_it() {
    let mut rig = Rig::new();
    let token = rig.token("gw-1");
    let operation = Operation::Reenroll;
    let request = Request { operation, ..by_token("gw-1", &token, &key_pair(1)) };
    expect(&rig.refusal(request, NOW), "certificate-required", 401);
}

#[test]
fn reenrollment_for_another_subject_is_refused() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    expect(&rig.refusal(reenroll(&leaf, csr(&key, "gw-2")), NOW), "csr-identity", 403);
    for other in [&[][..], &[(3, "gw-1"), (11, "b")]] {
        let request = reenroll(&leaf, csr_of(&key, &subject(other), &[]));
        expect(&rig.refusal(request, NOW), "subject-mismatch", 403);
    }
    let printable = csr_of(&key, &subject_of(0x13, &[(3, "gw-1")]), &[]);
    rig.leaf(reenroll(&leaf, printable), NOW);
}

#[test]
fn reenrollment_for_other_alternative_names_is_refused() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let asking = |value: &[u8]| {
        let names = extension_request(&[(17, value)]);
        reenroll(&leaf, csr_of(&key, &subject(&[(3, "gw-1")]), &names))
    };
    let other = uri_name("spiffe://acme.example/device/gw-2");
    expect(&rig.refusal(asking(&other), NOW), "san-mismatch", 403);
    let partly = uri_name("spiffe://acme.example/device/gw-1");
    let more = element(0x30, &[&partly[2..], &other[2..]]);
    expect(&rig.refusal(asking(&more), NOW), "san-mismatch", 403);
    let both = element(0x30, &[&partly[2..], &element(0x82, &[b"gw-1.fleet.example"])]);
    for names in [&both[..], &partly, &[0x30, 0]] {
        rig.leaf(asking(names), NOW);
    }
}

#[test]
fn a_certificate_that_is_not_octet_for_octet_in_the_database_is_unknown() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let mut other = Rig::new();
    let request = reenroll(&leaf, csr(&key_pair(1), "gw-1"));
    expect(&other.refusal(request, NOW), "certificate-unknown", 403);
    let own = Leaf::parse(&leaf).unwrap();
    let identity =
        Identity::Device { id: device("gw-1"), trust_domain: settings().trust_domain, dns: None };
    let profile = Profile::new(Kind::Device);
    let key = public(&key_pair(2));
    let authority = authority(TreeKind::Device);
    let forged = authority.prepare(&profile, &identity, &key, own.serial, NOW).unwrap().into_row();
    let forged = element(0x30, &[&forged.tbs]);
    let request = reenroll(&forged, csr(&key_pair(2), "gw-1"));
    expect(&rig.refusal(request, NOW), "certificate-unknown", 403);
}

#[test]
fn peers_that_are_no_devices_of_ours_are_refused() {
    let mut rig = Rig::new();
    let order = ServerOrder {
        profile: Profile::new(Kind::Backend),
        identity: Identity::Backend { name: name("mqtt"), trust_domain: settings().trust_domain },
        key: public(&key_pair(3)),
    };
    let authority = authority(TreeKind::Device);
    let backend = rig.provisioner.issue_server(&authority, order, OPERATOR, NOW, &mut rig.rng);
    let backend = block_on(backend).unwrap().der;
    let elsewhere = {
        let mut settings = settings();
        settings.trust_domain = TrustDomain::parse("other.example").unwrap();
        let provisioner = Provisioner::new(
            MemoryStore::new(),
            settings,
            crate::testing::authority(TreeKind::Device),
        );
        Rig { provisioner, rng: Seeded(5) }.enrolled("gw-1", &key_pair(1))
    };
    for leaf in [backend, elsewhere, vec![0x30, 0]] {
        let request = reenroll(&leaf, csr(&key_pair(1), "gw-1"));
        expect(&rig.refusal(request, NOW), "peer-identity", 403);
    }
}

#[test]
fn a_revoked_device_is_told_so_whatever_it_brings() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let token = rig.token("gw-1");
    let first = named(reenroll(&leaf, csr(&key, "gw-1")), [1; 16]);
    rig.leaf(first.clone(), NOW);
    rig.revoke("gw-1", NOW).unwrap();
    for request in [first, reenroll(&leaf, csr(&key, "gw-1")), by_token("gw-1", &token, &key)] {
        let refusal = rig.refusal(request, NOW);
        expect(&refusal, fleetcert_core::wire::REASON_REVOKED, 403);
    }
    let late = NOW.plus_s(95 * DAY_S);
    let request = Request { peer: peer(&leaf, true), ..reenroll(&leaf, csr(&key, "gw-1")) };
    expect(&rig.refusal(request, late), "revoked", 403);
    let error = block_on(rig.provisioner.whoami(&peer(&leaf, false), nonce(), NOW)).unwrap_err();
    assert_eq!(error, ServiceError::Refused(Refusal::Revoked { device: device("gw-1") }));
    let step = StepError::Revoked { at: NOW };
    assert_eq!(rig.revoke("gw-1", NOW), Err(ServiceError::Step(step)));
}

#[test]
fn one_revoked_certificate_is_refused_while_the_device_is_not() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let newer = rig.leaf(reenroll(&leaf, csr(&key, "gw-1")), NOW);
    let (serial, reason) = (serial_of(&leaf), RevocationReason::Superseded);
    let decide = move |_: &View| Verdict {
        changes: vec![Change::RevokeCertificate { serial, at: NOW, reason }],
        ..Verdict::new(())
    };
    block_on(rig.provisioner.store().transact(Scope::default(), decide)).unwrap();
    expect(&rig.refusal(reenroll(&leaf, csr(&key, "gw-1")), NOW), "revoked", 403);
    rig.leaf(reenroll(&newer, csr(&key, "gw-1")), NOW);
}

#[test]
fn the_same_request_gets_the_same_certificate_and_another_key_a_conflict() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let request = named(reenroll(&leaf, csr(&key_pair(2), "gw-1")), [7; 16]);
    let first = rig.leaf(request.clone(), NOW);
    let again = rig.leaf(request, NOW.plus_s(60));
    assert_eq!(Leaf::parse(&first).unwrap().tbs, Leaf::parse(&again).unwrap().tbs);
    let rekeyed = named(reenroll(&leaf, csr(&key_pair(3), "gw-1")), [7; 16]);
    expect(&rig.refusal(rekeyed, NOW), "request-conflict", 409);
    let other = rig.enrolled("gw-2", &key_pair(4));
    let other = rig.leaf(named(reenroll(&other, csr(&key_pair(3), "gw-2")), [7; 16]), NOW);
    assert_ne!(serial_of(&other), serial_of(&first));
}

#[test]
fn a_request_whose_certificate_has_expired_needs_a_new_name() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let request = named(reenroll(&leaf, csr(&key_pair(1), "gw-1")), [7; 16]);
    rig.leaf(request.clone(), NOW);
    let refusal = rig.refusal(request, NOW.plus_s(90 * DAY_S + 1));
    expect(&refusal, "request-spent", 409);
}

#[test]
fn an_expired_certificate_is_replaced_inside_the_window_to_its_last_second() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let end = NOW.plus_s(120 * DAY_S);
    let request = Request { peer: peer(&leaf, true), ..reenroll(&leaf, csr(&key, "gw-1")) };
    let waits = Answer::Pending { retry_after_s: 600 };
    let renewed = rig.leaf(request.clone(), end);
    assert_eq!(rig.device("gw-1").unwrap().recovered_at, Some(end));
    assert!(rig.events().iter().any(|event| event.0 == Event::Recovered));
    assert_ne!(serial_of(&renewed), serial_of(&leaf));
    let mut rig = Rig::new();
    rig.enrolled("gw-1", &key);
    assert_eq!(rig.enroll(request, end.plus_s(1)), Ok(waits));
}

#[test]
fn a_connection_that_outlived_its_certificate_is_served_by_recovery() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let last = NOW.plus_s(90 * DAY_S);
    rig.leaf(reenroll(&leaf, csr(&key, "gw-1")), last);
    assert_eq!(rig.device("gw-1").unwrap().recovered_at, None);
    rig.leaf(reenroll(&leaf, csr(&key, "gw-1")), last.plus_s(1));
    assert_eq!(rig.device("gw-1").unwrap().recovered_at, Some(last.plus_s(1)));
}

#[test]
fn a_device_recovers_once_in_an_interval() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let first = NOW.plus_s(91 * DAY_S);
    let request = Request { peer: peer(&leaf, true), ..reenroll(&leaf, csr(&key, "gw-1")) };
    rig.leaf(request.clone(), first);
    let refusal = rig.refusal(request.clone(), first.plus_s(DAY_S - 1));
    expect(&refusal, "recovery-rate", 429);
    assert_eq!(refusal, Refusal::RecoveryRate { next_at: first.plus_s(DAY_S) });
    rig.leaf(request, first.plus_s(DAY_S));
}

#[test]
fn past_the_window_an_operator_decides_about_the_key_that_asks() {
    let mut rig = Rig::new();
    let key = key_pair(1);
    let leaf = rig.enrolled("gw-1", &key);
    let late = NOW.plus_s(200 * DAY_S);
    let request = Request { peer: peer(&leaf, true), ..reenroll(&leaf, csr(&key, "gw-1")) };
    let waits = Answer::Pending { retry_after_s: 600 };
    assert_eq!(rig.enroll(request.clone(), late), Ok(waits.clone()));
    assert!(rig.device("gw-1").unwrap().is_waiting());
    let written = rig.events().len();
    assert_eq!(rig.enroll(request.clone(), late), Ok(waits));
    assert_eq!(rig.events().len(), written, "asking again writes nothing");
    rig.approve("gw-1").unwrap();
    rig.leaf(request, late);
    assert_eq!(rig.device("gw-1").unwrap().approval, None);
}

#[test]
fn a_walk_in_waits_for_an_operator_who_approves_one_key() {
    let mut rig = Rig::new();
    let (key, other) = (key_pair(1), key_pair(2));
    let waits = Ok(Answer::Pending { retry_after_s: 600 });
    assert_eq!(rig.enroll(walk_in("gw-1", &key), NOW), waits);
    let found = rig.device("gw-1").unwrap();
    assert_eq!((found.status, found.is_waiting()), (Status::Pending, true));
    let refusal = rig.refusal(walk_in("gw-1", &other), NOW);
    expect(&refusal, "approval-conflict", 409);
    let named = Some(public(&other).fingerprint());
    let wrong = block_on(rig.provisioner.approve(device("gw-1"), named, OPERATOR, NOW));
    assert!(matches!(wrong, Err(ServiceError::Step(StepError::WaitingKeyChanged { .. }))));
    assert_eq!(rig.enroll(walk_in("gw-1", &key), NOW), waits);
    rig.approve("gw-1").unwrap();
    expect(&rig.refusal(walk_in("gw-1", &other), NOW), "approval-conflict", 409);
    rig.leaf(walk_in("gw-1", &key), NOW);
    assert_eq!(rig.device("gw-1").unwrap().status, Status::Active);
    expect(&rig.refusal(walk_in("gw-1", &key), NOW), "device-active", 403);
    assert_eq!(rig.approve("gw-1"), Err(ServiceError::Step(StepError::NothingWaits)));
}

#[test]
fn a_walk_in_that_lost_its_answer_asks_again_by_name() {
    let mut rig = Rig::new();
    let request = named(walk_in("gw-1", &key_pair(1)), [3; 16]);
    rig.enroll(request.clone(), NOW).unwrap();
    rig.approve("gw-1").unwrap();
    let first = rig.leaf(request.clone(), NOW);
    assert_eq!(serial_of(&rig.leaf(request, NOW)), serial_of(&first));
}

#[test]
fn a_rejected_key_makes_room_for_another() {
    let mut rig = Rig::new();
    rig.enroll(walk_in("gw-1", &key_pair(1)), NOW).unwrap();
    let rejected = block_on(rig.provisioner.reject(device("gw-1"), OPERATOR, NOW)).unwrap();
    assert_eq!((rejected.status, rejected.approval), (Status::Expected, None));
    let waits = Ok(Answer::Pending { retry_after_s: 600 });
    assert_eq!(rig.enroll(walk_in("gw-1", &key_pair(2)), NOW), waits);
    let nothing = block_on(rig.provisioner.reject(device("gw-2"), OPERATOR, NOW));
    assert_eq!(nothing, Err(ServiceError::UnknownDevice(device("gw-2"))));
}

#[test]
fn whoami_tells_the_certificate_it_saw() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let late = NOW.plus_s(300);
    let seen = block_on(rig.provisioner.whoami(&peer(&leaf, false), nonce(), late)).unwrap();
    assert_eq!((seen.nonce, seen.serial), (nonce(), serial_of(&leaf)));
    assert_eq!((seen.device, seen.server_time), (device("gw-1"), late));
    assert_eq!(rig.device("gw-1").unwrap().last_seen_at, Some(late));
    block_on(rig.provisioner.whoami(&peer(&leaf, false), nonce(), late.plus_s(299))).unwrap();
    assert_eq!(rig.device("gw-1").unwrap().last_seen_at, Some(late));
}

#[test]
fn whoami_refuses_peers_without_a_good_certificate() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let ask =
        |rig: &Rig, peer: &Peer, now| match block_on(rig.provisioner.whoami(peer, nonce(), now)) {
            Err(ServiceError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        };
    expect(&ask(&rig, &Peer::Anonymous, NOW), "certificate-required", 401);
    expect(&ask(&rig, &peer(&leaf, true), NOW), "certificate-expired", 403);
    let late = NOW.plus_s(90 * DAY_S);
    expect(&ask(&rig, &peer(&leaf, false), late.plus_s(1)), "certificate-expired", 403);
    expect(&ask(&Rig::new(), &peer(&leaf, false), NOW), "certificate-unknown", 403);
    block_on(rig.provisioner.whoami(&peer(&leaf, false), nonce(), late)).unwrap();
}

#[test]
fn renewal_is_suggested_around_two_thirds_of_the_lifetime() {
    use base64ct::{Base64UrlUnpadded, Encoding};
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let text = |octets: &[u8]| Base64UrlUnpadded::encode_string(octets);
    let key_id = rig.provisioner.authority().key_id();
    let id = format!("{}.{}", text(&key_id.0), text(serial_of(&leaf).as_octets()));
    let info = block_on(rig.provisioner.renewal_info(&id, NOW)).unwrap().unwrap();
    let (begin, lifetime_s) = (NOW.minus_s(3_600), 90 * DAY_S + 3_600);
    assert_eq!(info.start, begin.plus_s(lifetime_s * 7 / 12));
    assert_eq!(info.end, begin.plus_s(lifetime_s * 9 / 12));
    assert_eq!((info.retry_after_s, info.server_time), (86_400, NOW));
    let other = format!("{}.{}", text(&[1; 20]), text(serial_of(&leaf).as_octets()));
    for unknown in [other.as_str(), "", ".", "a.b.c", &id[1..], &format!("{id}=")] {
        assert_eq!(block_on(rig.provisioner.renewal_info(unknown, NOW)), Ok(None), "{unknown}");
    }
}

#[test]
fn crls_are_made_at_half_their_validity_and_their_numbers_grow() {
    let mut rig = Rig::new();
    rig.enrolled("gw-1", &key_pair(1));
    let crl = |rig: &Rig, now, force| block_on(rig.provisioner.crl(now, force)).unwrap();
    let first = crl(&rig, NOW, false);
    assert_eq!((first.number, first.next_update), (1, NOW.plus_s(7 * DAY_S)));
    let half = NOW.plus_s(7 * DAY_S / 2);
    assert_eq!(crl(&rig, half.minus_s(1), false), first);
    assert_eq!(crl(&rig, half, false).number, 2);
    rig.revoke("gw-1", half).unwrap();
    assert_eq!(crl(&rig, half, false).number, 2);
    let forced = crl(&rig, half, true);
    assert_eq!(forced.number, 3);
    assert!(forced.der.len() > first.der.len());
    assert_eq!(rig.last_event().2, "number 3, 1 revoked");
}

#[test]
fn operators_cannot_name_what_is_not_there() {
    let mut rig = Rig::new();
    let added = |rig: &Rig, id: &str, group: &str| {
        block_on(rig.provisioner.add_device(device(id), name(group), OPERATOR, NOW))
    };
    assert_eq!(added(&rig, "gw-1", "tokens").unwrap().status, Status::Expected);
    assert_eq!(added(&rig, "gw-1", "tokens"), Err(ServiceError::DeviceExists(device("gw-1"))));
    assert_eq!(added(&rig, "gw-2", "none"), Err(ServiceError::UnknownGroup(name("none"))));
    let reserved = device("backend.x");
    assert_eq!(added(&rig, "backend.x", "tokens"), Err(ServiceError::ReservedName(reserved)));
    assert_eq!(rig.revoke("gw-9", NOW), Err(ServiceError::UnknownDevice(device("gw-9"))));
    let good =
        TokenOrder { device: device("gw-1"), group: None, label: None, ttl_s: TOKEN_TTL_S_MAX };
    for (order, error) in [
        (
            TokenOrder { device: device("gw-9"), ..good.clone() },
            ServiceError::UnknownDevice(device("gw-9")),
        ),
        (
            TokenOrder { label: Some(name("walk-in")), ..good.clone() },
            ServiceError::LabelMismatch { label: name("walk-in"), group: name("tokens") },
        ),
        (TokenOrder { ttl_s: 0, ..good.clone() }, ServiceError::TokenLifetime { found_s: 0 }),
        (
            TokenOrder { ttl_s: TOKEN_TTL_S_MAX + 1, ..good.clone() },
            ServiceError::TokenLifetime { found_s: TOKEN_TTL_S_MAX + 1 },
        ),
    ] {
        let found = block_on(rig.provisioner.issue_token(order, OPERATOR, NOW, &mut rig.rng));
        assert_eq!(found.unwrap_err(), error);
    }
    block_on(rig.provisioner.issue_token(good.clone(), OPERATOR, NOW, &mut rig.rng)).unwrap();
    rig.revoke("gw-1", NOW).unwrap();
    let found = block_on(rig.provisioner.issue_token(good, OPERATOR, NOW, &mut rig.rng));
    assert_eq!(found.unwrap_err(), ServiceError::Step(StepError::Revoked { at: NOW }));
}

#[test]
fn no_device_gets_a_certificate_around_enrollment() {
    let mut rig = Rig::new();
    let authority = authority(TreeKind::Server);
    let order = |identity, kind| ServerOrder {
        profile: Profile::new(kind),
        identity,
        key: public(&key_pair(1)),
    };
    let trust_domain = settings().trust_domain;
    let identity = Identity::Device { id: device("gw-1"), trust_domain, dns: None };
    let order = order(identity, Kind::Device);
    let refused = rig.provisioner.issue_server(&authority, order, OPERATOR, NOW, &mut rig.rng);
    let kind = IssueError::Kind { profile: Kind::Device };
    assert_eq!(block_on(refused).unwrap_err(), ServiceError::Issue(kind));
    let dns = vec![DnsName::parse("broker.example").unwrap()];
    let order = ServerOrder {
        profile: Profile::new(Kind::Server),
        identity: Identity::Server { dns, addresses: Vec::new() },
        key: public(&key_pair(1)),
    };
    let issued = rig.provisioner.issue_server(&authority, order, OPERATOR, NOW, &mut rig.rng);
    let issued = block_on(issued).unwrap();
    let scope = Scope { certificate: Some(issued.serial), ..Scope::default() };
    let stored = block_on(rig.provisioner.store().view(scope)).unwrap().certificate.unwrap();
    assert_eq!((stored.device, stored.issuer), (None, authority.key_id()));
}

#[test]
fn a_serial_number_that_comes_twice_issues_nothing() {
    let mut rig = Rig::new();
    let leaf = rig.enrolled("gw-1", &key_pair(1));
    let request = || reenroll(&leaf, csr(&key_pair(1), "gw-1"));
    let mut stuck = Seeded(5);
    block_on(rig.provisioner.enroll(request(), NOW, &mut stuck)).unwrap();
    let mut stuck = Seeded(5);
    let error = block_on(rig.provisioner.enroll(request(), NOW, &mut stuck)).unwrap_err();
    assert!(matches!(error, ServiceError::Store(_)), "{error}");
}
