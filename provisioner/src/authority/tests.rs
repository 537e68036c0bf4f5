use der::Decode;
use fleetcert_core::time::{Validity, Wall};
use rcgen::PublicKeyData;

use super::{
    Authority, AuthorityError, Crl, Identity, IssueError, KeyId, Profile, PublicKey,
    PublicKeyError, Reserved, Revocation, RevocationReason, Serial, lint,
    profile::{BACKEND_PREFIX, DnsName, Kind, TrustDomain, backend_common_name, is_reserved},
    tree::{self, TreeError, TreeKind, TreeSettings},
};
use crate::{
    random::Random,
    testing::{DAY_S, NOW, Seeded, authority, device, key_pair, name, public},
};

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("acme.example").unwrap()
}

fn gateway() -> Identity {
    let dns = Some(DnsName::parse("gw-1.example").unwrap());
    Identity::Device { id: device("gw-1"), trust_domain: trust_domain(), dns }
}

fn profile(kind: Kind) -> Profile {
    let mut profile = Profile::new(kind);
    profile.crl_urls = vec!["http://ca.example/1.crl".into(), "http://ca.example/2.crl".into()];
    profile.issuer_urls = vec!["http://ca.example/ca.crt".into()];
    profile
}

fn serial() -> Serial {
    Serial::draw(&mut Seeded(3))
}

fn reserved(authority: &Authority, profile: &Profile, identity: &Identity) -> Reserved {
    let key = public(&key_pair(1));
    let prepared = authority.prepare(profile, identity, &key, serial(), NOW).unwrap();
    Reserved::by_store(prepared.into_row())
}

#[test]
fn every_kind_of_certificate_is_built_as_its_profile_says() {
    let authority = authority(TreeKind::Device);
    let backend = Identity::Backend { name: name("mqtt"), trust_domain: trust_domain() };
    let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let server = Identity::Server { dns: vec![DnsName::parse("a.b").unwrap()], addresses };
    let bare = Identity::Server { dns: vec![], addresses: vec!["::1".parse().unwrap()] };
    for (kind, identity) in [
        (Kind::Backend, &backend),
        (Kind::Device, &gateway()),
        (Kind::Gateway, &gateway()),
        (Kind::Server, &server),
        (Kind::Server, &bare),
    ] {
        let profile = profile(kind);
        let issued = authority.issue(reserved(&authority, &profile, identity)).unwrap();
        let parsed = x509_cert::Certificate::from_der(&issued.der).unwrap();
        assert_eq!(parsed.tbs_certificate.serial_number.as_bytes(), serial().as_octets());
        let subject = parsed.tbs_certificate.subject.to_string();
        let expected = identity.common_name().map(|name| format!("CN={name}"));
        assert_eq!(subject, expected.unwrap_or_default());
        let signature = parsed.signature.raw_bytes();
        let tbs = super::issue::tbs_of(&issued.der).unwrap();
        assert!(authority.public_key().verifies(&tbs, signature));
    }
}

#[test]
fn an_identity_gets_no_certificate_of_another_kind() {
    let authority = authority(TreeKind::Device);
    let server = Identity::Server { dns: vec![DnsName::parse("a.b").unwrap()], addresses: vec![] };
    let backend = Identity::Backend { name: name("mqtt"), trust_domain: trust_domain() };
    for (kind, identity) in [
        (Kind::Server, gateway()),
        (Kind::Backend, gateway()),
        (Kind::Device, server.clone()),
        (Kind::Backend, server),
        (Kind::Gateway, backend.clone()),
        (Kind::Server, backend),
    ] {
        let key = public(&key_pair(1));
        let refused = authority.prepare(&profile(kind), &identity, &key, serial(), NOW);
        assert_eq!(refused.unwrap_err(), IssueError::Kind { profile: kind });
    }
}

#[test]
fn the_lint_finds_every_field_that_is_not_the_policys() {
    let authority = authority(TreeKind::Device);
    let (profile, identity) = (profile(Kind::Gateway), gateway());
    let (key, other_key) = (public(&key_pair(1)), public(&key_pair(2)));
    let prepared = authority.prepare(&profile, &identity, &key, serial(), NOW).unwrap();
    let (validity, tbs) = (prepared.validity(), prepared.into_row().tbs);
    let parsed = x509_cert::TbsCertificate::from_der(&tbs).unwrap();
    let issuer = der::Encode::to_der(&parsed.issuer).unwrap();
    let good = || lint::Expected {
        profile: &profile,
        identity: &identity,
        key: &key,
        serial: serial(),
        validity,
        issuer: &issuer,
        issuer_key: authority.key_id(),
    };
    assert_eq!(lint::check(&tbs, &good()), Ok(()));
    let device_profile = Profile { kind: Kind::Device, ..profile.clone() };
    let no_crl = Profile { crl_urls: vec![], ..profile.clone() };
    let other_crl = Profile { crl_urls: vec!["http://x".into()], ..profile.clone() };
    let other_access = Profile { issuer_urls: vec!["http://x".into()], ..profile.clone() };
    let no_dns = Identity::Device { id: device("gw-1"), trust_domain: trust_domain(), dns: None };
    let other_id = Identity::Device { id: device("gw-2"), trust_domain: trust_domain(), dns: None };
    let later = Validity { not_after: validity.not_after.plus_s(1), ..validity };
    let field = |name| lint::Finding::Field { name };
    for (expected, finding) in [
        (lint::Expected { serial: Serial::draw(&mut Seeded(4)), ..good() }, field("serialNumber")),
        (lint::Expected { issuer: &[0x30, 0], ..good() }, field("issuer")),
        (lint::Expected { validity: later, ..good() }, field("validity")),
        (lint::Expected { identity: &other_id, ..good() }, field("subject")),
        (lint::Expected { key: &other_key, ..good() }, field("subjectPublicKeyInfo")),
        (lint::Expected { identity: &no_dns, ..good() }, field("subjectAltName")),
        (lint::Expected { profile: &device_profile, ..good() }, field("extKeyUsage")),
        (lint::Expected { profile: &other_crl, ..good() }, field("cRLDistributionPoints")),
        (lint::Expected { profile: &other_access, ..good() }, field("authorityInfoAccess")),
        (lint::Expected { issuer_key: KeyId([0; 20]), ..good() }, field("authorityKeyIdentifier")),
        (lint::Expected { profile: &no_crl, ..good() }, lint::Finding::Extension),
    ] {
        assert_eq!(lint::check(&tbs, &expected), Err(finding));
    }
}

#[test]
fn the_lint_leaves_no_octet_unread() {
    let authority = authority(TreeKind::Device);
    let (profile, identity, key) = (profile(Kind::Device), gateway(), public(&key_pair(1)));
    let prepared = authority.prepare(&profile, &identity, &key, serial(), NOW).unwrap();
    let (validity, tbs) = (prepared.validity(), prepared.into_row().tbs);
    let parsed = x509_cert::TbsCertificate::from_der(&tbs).unwrap();
    let issuer = der::Encode::to_der(&parsed.issuer).unwrap();
    let expected = lint::Expected {
        profile: &profile,
        identity: &identity,
        key: &key,
        serial: serial(),
        validity,
        issuer: &issuer,
        issuer_key: authority.key_id(),
    };
    for at in 0..tbs.len() {
        let mut bad = tbs.clone();
        bad[at] ^= 1;
        assert!(lint::check(&bad, &expected).is_err(), "octet {at}");
        assert!(lint::check(&tbs[..at], &expected).is_err(), "length {at}");
    }
}

#[test]
fn a_certificate_never_leaves_the_validity_of_its_issuer() {
    let authority = authority(TreeKind::Device);
    let own = authority.validity();
    let prepare = |now| {
        let key = public(&key_pair(1));
        authority.prepare(&profile(Kind::Device), &gateway(), &key, serial(), now)
    };
    let last = own.not_after.minus_s(90 * DAY_S);
    assert_eq!(prepare(last).unwrap().validity().not_after, own.not_after);
    assert!(matches!(prepare(last.plus_s(1)), Err(IssueError::AuthorityValidity { .. })));
    let early = prepare(own.not_before.plus_s(1)).unwrap();
    assert_eq!(early.validity().not_before, own.not_before);
    assert!(matches!(prepare(Wall(0)), Err(IssueError::AuthorityValidity { .. })));
}

#[test]
fn an_authority_signs_only_what_it_prepared() {
    let (devices, servers) = (authority(TreeKind::Device), authority(TreeKind::Server));
    let reserved = reserved(&devices, &profile(Kind::Device), &gateway());
    let (asked, prepared) = (servers.key_id(), devices.key_id());
    let refused = servers.issue(reserved).unwrap_err();
    assert_eq!(refused, IssueError::OtherAuthority { asked, prepared });
}

fn tree_settings() -> TreeSettings {
    TreeSettings { organisation: "Acme".into(), root_lifetime_s: 20, issuing_lifetime_s: 10 }
}

#[test]
fn a_certificate_and_a_key_are_an_authority_only_together() {
    let grow =
        |seed| tree::grow(TreeKind::Device, &tree_settings(), NOW, &mut Seeded(seed)).unwrap();
    let (one, two) = (grow(1), grow(2));
    let of = |certificate: &[u8], key: &[u8]| Authority::from_der(certificate, key).map(drop);
    assert_eq!(of(&one.issuing_certificate, &one.issuing_key), Ok(()));
    let mismatch = of(&one.issuing_certificate, &two.issuing_key);
    assert!(matches!(mismatch, Err(AuthorityError::KeyMismatch { .. })));
    assert_eq!(of(&one.issuing_certificate, &[0]), Err(AuthorityError::Key));
    assert_eq!(of(&[0x30, 0], &one.issuing_key), Err(AuthorityError::Certificate));
    let root = of(&one.root_certificate, &one.root_key);
    assert_eq!(root, Err(AuthorityError::NoAuthority), "a root issues no leaves");
    let authority = authority(TreeKind::Device);
    let leaf = authority.issue(reserved(&authority, &profile(Kind::Device), &gateway())).unwrap();
    let key = key_pair(1);
    assert_eq!(of(&leaf.der, key.serialized_der()), Err(AuthorityError::NoAuthority));
}

#[test]
fn a_new_tree_keeps_its_root_key_encrypted_and_opens_with_its_issuing_key() {
    let tree = tree::create(
        TreeKind::Server,
        &tree_settings(),
        "correct horse battery",
        NOW,
        &mut Seeded(1),
    )
    .unwrap();
    assert!(tree.root_key_encrypted_pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let key = tree::key_from_pem(&tree.issuing_key_pem).unwrap();
    let authority = Authority::from_der(&tree.issuing_certificate, &key).unwrap();
    assert_eq!(authority.validity().not_after, NOW.plus_s(10));
    assert!(tree::key_from_pem(&tree.root_key_encrypted_pem).is_err());
    assert!(!format!("{tree:?}").contains("PRIVATE"));
    let (_, sealed) = pkcs8::SecretDocument::from_pem(&tree.root_key_encrypted_pem).unwrap();
    let sealed = pkcs8::EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).unwrap();
    assert!(sealed.decrypt("correct horse batterx").is_err());
    let opened = sealed.decrypt("correct horse battery").unwrap();
    let root = rcgen::KeyPair::try_from(opened.as_bytes()).unwrap();
    let parsed = x509_cert::Certificate::from_der(&tree.root_certificate).unwrap();
    let spki = parsed.tbs_certificate.subject_public_key_info;
    assert_eq!(der::Encode::to_der(&spki).unwrap(), root.subject_public_key_info());
}

#[test]
fn a_tree_is_refused_for_a_short_passphrase_or_impossible_settings() {
    let create = |settings: &TreeSettings, passphrase: &str| {
        tree::create(TreeKind::Device, settings, passphrase, NOW, &mut Seeded(1)).map(drop)
    };
    let short = create(&tree_settings(), "elevenchars");
    assert_eq!(short, Err(TreeError::Passphrase { found_len: 11 }));
    let lifetimes = |root_s, issuing_s| {
        let mut settings = tree_settings();
        (settings.root_lifetime_s, settings.issuing_lifetime_s) = (root_s, issuing_s);
        (create(&settings, "correct horse"), Err(TreeError::Lifetimes { root_s, issuing_s }))
    };
    for (found, expected) in [lifetimes(10, 11), lifetimes(10, 0)] {
        assert_eq!(found, expected);
    }
    for len in [0, 65] {
        let settings = TreeSettings { organisation: "é".repeat(len), ..tree_settings() };
        let refused = create(&settings, "correct horse");
        assert_eq!(refused, Err(TreeError::Organisation { found_len: len }));
    }
}

#[test]
fn no_key_is_made_of_randomness_that_is_none() {
    struct Stuck(u8);
    impl Random for Stuck {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    assert_eq!(tree::key(&mut Stuck(0)).map(drop), Err(TreeError::Key));
    assert_eq!(tree::key(&mut Stuck(0xff)).map(drop), Err(TreeError::Key));
}

#[test]
fn a_crl_says_what_was_revoked_why_and_under_which_number() {
    let authority = authority(TreeKind::Device);
    let line = |seed, reason| Revocation {
        serial: Serial::draw(&mut Seeded(seed)),
        at: NOW,
        reason,
        not_after: NOW,
    };
    let lines = [line(1, RevocationReason::KeyCompromise), line(2, RevocationReason::Unspecified)];
    for number in [1, 0x80, u64::MAX] {
        let crl = authority.publish(number, &lines, NOW, 100).unwrap();
        assert_eq!((crl.due_at(), crl.next_update), (NOW.plus_s(50), NOW.plus_s(100)));
        let parsed = x509_cert::crl::CertificateList::from_der(&crl.der).unwrap();
        let tbs = super::issue::tbs_of(&crl.der).unwrap();
        assert!(authority.public_key().verifies(&tbs, parsed.signature.raw_bytes()));
        let list = parsed.tbs_cert_list;
        let revoked = list.revoked_certificates.unwrap();
        let serials: Vec<_> = revoked.iter().map(|it| it.serial_number.as_bytes()).collect();
        assert_eq!(serials, [lines[0].serial.as_octets(), lines[1].serial.as_octets()]);
        assert!(revoked[0].crl_entry_extensions.is_some());
        assert!(revoked[1].crl_entry_extensions.is_none(), "unspecified is not written");
        let extensions = list.crl_extensions.unwrap();
        let value = extensions.iter().find(|it| it.extn_id.to_string() == "2.5.29.20").unwrap();
        let found = der::asn1::Uint::from_der(value.extn_value.as_bytes()).unwrap();
        let octets = number.to_be_bytes();
        let first = octets.iter().position(|octet| *octet != 0).unwrap();
        assert_eq!(found.as_bytes(), &octets[first..]);
    }
    let empty = authority.publish(1, &[], NOW, 100).unwrap();
    let parsed = x509_cert::crl::CertificateList::from_der(&empty.der).unwrap();
    assert!(parsed.tbs_cert_list.revoked_certificates.is_none());
    assert!(authority.publish(1, &[], NOW, 0).is_err(), "a list that is over when it begins");
    let odd = Crl { this_update: NOW, next_update: NOW.plus_s(3), ..empty };
    assert_eq!(odd.due_at(), NOW.plus_s(1));
}

#[test]
fn reasons_read_back_from_number_and_name() {
    for code in 0..=u8::MAX {
        if let Some(reason) = RevocationReason::from_code(code) {
            assert_eq!(reason.code(), code);
            assert_eq!(RevocationReason::parse(reason.name()), Some(reason));
        }
    }
    assert_eq!(RevocationReason::from_code(1), Some(RevocationReason::KeyCompromise));
    assert_eq!(RevocationReason::from_code(5), Some(RevocationReason::CessationOfOperation));
    assert_eq!(RevocationReason::from_code(6), None, "certificateHold is not offered");
}

#[test]
fn serial_numbers_are_positive_and_of_one_length_whatever_is_drawn() {
    struct Constant(u8);
    impl Random for Constant {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }
    for octet in [0, 0x7f, 0x80, 0xff] {
        let serial = Serial::draw(&mut Constant(octet));
        assert_eq!(serial.as_octets().len(), 20);
        assert!((0x40..0x80).contains(&serial.as_octets()[0]));
        assert_eq!(Serial::from_octets(serial.as_octets()), Ok(serial));
        assert_eq!(Serial::parse(&serial.to_string()), Ok(serial));
    }
}

#[test]
fn octets_that_are_no_positive_minimal_integer_are_no_serial_number() {
    for good in [&[1][..], &[0x7f], &[0, 0x80], &[1; 20]] {
        assert!(Serial::from_octets(good).is_ok(), "{good:02x?}");
    }
    for bad in [&[][..], &[0], &[0x80], &[0, 1], &[0, 0x7f], &[1; 21]] {
        assert!(Serial::from_octets(bad).is_err(), "{bad:02x?}");
    }
    assert_eq!(Serial::parse("01:0a:FF").unwrap().as_octets(), [1, 10, 255]);
    for bad in ["", "1", "0g", "é1", &"01".repeat(21)] {
        assert!(Serial::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_are_p256_points_and_nothing_else() {
    let key = key_pair(1);
    let spki = key.subject_public_key_info();
    assert_eq!(PublicKey::from_spki(&spki).unwrap().spki(), spki);
    let mut compressed = spki.clone();
    compressed[26] = 2;
    assert_eq!(PublicKey::from_spki(&compressed), Err(PublicKeyError::Point));
    assert_eq!(PublicKey::from_spki(&spki[..90]), Err(PublicKeyError::Point));
    let mut other = spki;
    other[22] = 8;
    assert_eq!(PublicKey::from_spki(&other), Err(PublicKeyError::Algorithm));
    assert_eq!(PublicKey::from_spki(&[]), Err(PublicKeyError::Algorithm));
}

#[test]
fn names_that_could_mislead_are_refused() {
    for bad in ["", "A.example", "a b", "a/b", "é", &"x".repeat(256)] {
        assert!(TrustDomain::parse(bad).is_err(), "{bad}");
    }
    assert!(TrustDomain::parse(&"x".repeat(255)).is_ok());
    let long = [&*"a".repeat(63), &"b".repeat(63), &"c".repeat(63), &"d".repeat(61)].join(".");
    assert!(DnsName::parse(&long).is_ok());
    assert!(DnsName::parse(&format!("{long}d")).is_err());
    for bad in ["", ".", "a.", ".a", "a..b", "-a", "a-", "A", "a_b", "*.a", &"a".repeat(64)] {
        assert!(DnsName::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(backend_common_name(&name("mqtt")), format!("{BACKEND_PREFIX}mqtt"));
    assert!(is_reserved(&device("BACKEND.mqtt")));
    assert!(!is_reserved(&device("backend-mqtt")));
}
