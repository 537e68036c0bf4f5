//! What the tests of the domain share: a seeded source of randomness, a tree of authorities, and
//! requests of every kind, right and wrong.

use fleetcert_core::{device_id::DeviceId, time::Wall};
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use crate::{
    attest::EkId,
    authority::{
        Authority, KeyFingerprint, Profile, PublicKey,
        der::{BIT_STRING, ECDSA_WITH_SHA256, INTEGER, OCTET_STRING, OID, SEQUENCE, element},
        profile::{DnsName, Kind, TrustDomain},
        tree::{self, TreeKind, TreeSettings},
    },
    binding::{
        Ak, Binding, Endorsement, Evidence, Hold, KeyName, Proven, Source, TpmClock, TpmKind,
    },
    challenge::ChallengeId,
    enroll::{Admission, Group, Settings},
    inventory::Name,
    random::Random,
};

/// 2026-01-01T00:00:00Z.
pub(crate) const NOW: Wall = Wall(1_767_225_600);

pub(crate) const DAY_S: u64 = 86_400;

/// SplitMix64: repeatable, and nothing to protect anything with.
pub(crate) struct Seeded(pub(crate) u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ z >> 31).to_le_bytes()[..chunk.len()]);
        }
    }
}

pub(crate) fn authority(kind: TreeKind) -> Authority {
    let settings = TreeSettings {
        organisation: "Acme".into(),
        root_lifetime_s: 20 * 365 * DAY_S,
        issuing_lifetime_s: 10 * 365 * DAY_S,
    };
    let seed = match kind {
        TreeKind::Device => 1,
        TreeKind::Server => 2,
    };
    let grown = tree::grow(kind, &settings, NOW, &mut Seeded(seed)).unwrap();
    Authority::from_der(&grown.issuing_certificate, &grown.issuing_key).unwrap()
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn device(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

pub(crate) fn group(admission: Admission) -> Group {
    let mut profile = Profile::new(Kind::Device);
    profile.crl_urls = vec!["http://ca.example/device.crl".into()];
    Group {
        admission,
        profile,
        dns_domain: Some(DnsName::parse("fleet.example").unwrap()),
        recovery_window_s: 30 * DAY_S,
        recovery_interval_s: DAY_S,
        retry_after_s: 600,
        allow_virtual_tpm: false,
    }
}

/// Groups `tokens`, `walk-in` and `closed`, one for each admission, each behind its own label.
pub(crate) fn settings() -> Settings {
    let groups = [
        ("closed", Admission::Deny),
        ("tokens", Admission::Token),
        ("walk-in", Admission::Approval),
    ];
    let label = |(text, _): (&str, Admission)| (name(text), name(text));
    Settings {
        trust_domain: TrustDomain::parse("acme.example").unwrap(),
        groups: groups.map(|(text, admission)| (name(text), group(admission))).into(),
        labels: groups.map(label).into(),
        default_group: Some(name("tokens")),
        pending_max: 3,
        crl_validity_s: 7 * DAY_S,
    }
}

pub(crate) fn key_pair(seed: u64) -> KeyPair {
    let pkcs8 = tree::key(&mut Seeded(seed)).unwrap();
    KeyPair::try_from(pkcs8.as_slice()).unwrap()
}

pub(crate) fn public(key: &KeyPair) -> PublicKey {
    PublicKey::from_spki(&key.subject_public_key_info()).unwrap()
}

/// A `Name` of one RDN for each pair of last arc of id-at and text.
pub(crate) fn subject(attributes: &[(u8, &str)]) -> Vec<u8> {
    const UTF8_STRING: u8 = 0x0c;
    subject_of(UTF8_STRING, attributes)
}

pub(crate) fn subject_of(tag: u8, attributes: &[(u8, &str)]) -> Vec<u8> {
    let rdn = |(arc, text): &(u8, &str)| {
        let oid = element(OID, &[&[0x55, 4, *arc]]);
        let value = element(tag, &[text.as_bytes()]);
        element(0x31, &[&element(SEQUENCE, &[&oid, &value])])
    };
    element(SEQUENCE, &[&attributes.iter().flat_map(rdn).collect::<Vec<u8>>()])
}

/// An attribute that requests extensions, each of them as id-ce arc and value.
pub(crate) fn extension_request(extensions: &[(u8, &[u8])]) -> Vec<u8> {
    const ID: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
    let extension = |(arc, value): &(u8, &[u8])| {
        let oid = element(OID, &[&[0x55, 0x1d, *arc]]);
        element(SEQUENCE, &[&oid, &element(OCTET_STRING, &[value])])
    };
    let all = extensions.iter().flat_map(extension).collect::<Vec<u8>>();
    let values = element(0x31, &[&element(SEQUENCE, &[&all])]);
    element(SEQUENCE, &[&element(OID, &[&ID]), &values])
}

/// The value of a subjectAltName with one URI.
pub(crate) fn uri_name(uri: &str) -> Vec<u8> {
    element(SEQUENCE, &[&element(0x86, &[uri.as_bytes()])])
}

/// A PKCS#10 of those parts, signed.
pub(crate) fn csr_of(key: &KeyPair, subject: &[u8], attributes: &[u8]) -> Vec<u8> {
    let version = element(INTEGER, &[&[0]]);
    let attributes = element(0xa0, &[attributes]);
    let spki = key.subject_public_key_info();
    signed(key, &element(SEQUENCE, &[&version, subject, &spki, &attributes]))
}

/// A PKCS#10 around an information of any kind.
pub(crate) fn signed(key: &KeyPair, info: &[u8]) -> Vec<u8> {
    let signature = element(BIT_STRING, &[&[0], &key.sign(info).unwrap()]);
    element(SEQUENCE, &[info, &ECDSA_WITH_SHA256, &signature])
}

/// The request of a device that asks for nothing but its name.
pub(crate) fn csr(key: &KeyPair, common_name: &str) -> Vec<u8> {
    csr_of(key, &subject(&[(3, common_name)]), &[])
}

fn key_name(seed: u8) -> KeyName {
    KeyName::from_octets(&[seed; 34]).unwrap()
}

/// A binding in which every field has a value of its own, made of `seed`.
pub(crate) fn binding(id: &str, seed: u8) -> Binding {
    let endorsement = Endorsement {
        ek: EkId([seed; 32]),
        source: Source::Chain,
        chain: vec![vec![0x30, 1, seed], vec![0x30, 0]],
        kind: Some(TpmKind {
            manufacturer: "id:49424D00".into(),
            model: "swtpm".into(),
            version: "id:20191023".into(),
            is_virtual: true,
        }),
    };
    let evidence = Evidence {
        at: NOW.plus_s(2),
        challenge: ChallengeId([seed; 16]),
        key: KeyFingerprint([seed; 32]),
        key_name: key_name(seed.wrapping_add(100)),
        attest: vec![seed, 1],
        signature: vec![seed, 2],
        public: vec![seed, 3],
        clock: TpmClock { clock_ms: u64::MAX, reset_count: u32::MAX, restart_count: 5, safe: true },
        firmware: u64::MAX - 1,
    };
    let ak = Ak { name: key_name(seed), public: vec![seed, 4] };
    Binding {
        device: device(id),
        hold: Hold::Bound,
        proven: Proven { endorsement, ak, evidence },
        admission: Admission::TokenEk,
        since: NOW.plus_s(1),
        clone_signs: Some((3, NOW.plus_s(3))),
    }
}
