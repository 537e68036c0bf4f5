//! The firmware's verifier of servers against every chain that it has to refuse, and the good ones.
//!
//! The table of [`cases`] is judged three times: by the firmware, by rustls' verifier (which the
//! Linux agent uses) and by openssl. Where the firmware is stricter than one of them the table says
//! so; nowhere may it be the other way round.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetcert_core::time::{Reading, Wall};
use fleetcert_firmware::verifier::{
    AnchorError, CERTIFICATES_MAX, CHAIN_LEN_MAX, Ecdsa, POINT_LEN, Portable, Refusal,
    SIGNATURE_LEN, SIGNATURES_MAX, Server, ServerName, Verified, Verifier,
};
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::{new_key_of, text, try_openssl};
use fleetcert_tests::lab::pki::{self, Node};
use fleetcert_tests::verify_chain::{floored, trusted, unknown};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::der::asn1::OctetString;
use x509_cert::ext::Extension;

/// 2026-11-22T00:00:00Z.
const NOW: Wall = Wall(1_795_305_600);

const NAME: &str = "broker.fleet.example";

/// A year in seconds.
const YEAR_S: u64 = 31_536_000;

/// Who accepts what the firmware refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looser {
    Nobody,
    Openssl,
    Webpki,
    Both,
}

/// A chain, and what the firmware has to say of it.
struct Case {
    what: &'static str,
    root: Vec<u8>,
    chain: Vec<Vec<u8>>,
    code: Result<(), &'static str>,
    looser: Looser,
}

/// A tree with a root and an issuing authority.
struct Tree {
    root: Node,
    issuing: Node,
}

impl Tree {
    fn new() -> Self {
        let root = Node::root(pki::authority("root"));
        let issuing = root.signs(pki::authority("issuing"));
        Self { root, issuing }
    }

    /// A chain under this tree's issuing authority.
    fn case(&self, what: &'static str, leaf: Node, code: Result<(), &'static str>) -> Case {
        self.long_case(what, &[&leaf, &self.issuing], code)
    }

    fn long_case(
        &self,
        what: &'static str,
        chain: &[&Node],
        code: Result<(), &'static str>,
    ) -> Case {
        let chain = chain.iter().map(|node| node.der.clone()).collect();
        Case { what, root: self.root.der.clone(), chain, code, looser: Looser::Nobody }
    }

    /// A chain whose leaf is good and whose issuing authority is `change`d.
    fn issuing_case(
        &self,
        what: &'static str,
        code: Result<(), &'static str>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Case {
        let mut params = pki::authority("issuing");
        change(&mut params);
        let issuing = self.root.signs(params);
        self.long_case(what, &[&issuing.signs(pki::server(NAME)), &issuing], code)
    }

    /// A chain whose leaf is `change`d.
    fn leaf_case(
        &self,
        what: &'static str,
        code: Result<(), &'static str>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Case {
        let mut params = pki::server(NAME);
        change(&mut params);
        self.case(what, self.issuing.signs(params), code)
    }

    /// A chain whose leaf has these extensions.
    fn extension_case(
        &self,
        what: &'static str,
        code: Result<(), &'static str>,
        change: impl FnOnce(&mut Vec<Extension>),
    ) -> Case {
        let leaf = self.issuing.signs(pki::server(NAME)).spoilt(&self.issuing, |content| {
            change(content.extensions.as_mut().or_fail("extensions"));
        });
        self.case(what, leaf, code)
    }
}

impl Case {
    fn looser(self, looser: Looser) -> Self {
        Self { looser, ..self }
    }
}

fn cases() -> Vec<Case> {
    let tree = Tree::new();
    let mut cases = good(&tree);
    cases.extend(of_issuers(&tree));
    cases.extend(of_paths(&tree));
    cases.extend(of_leaves(&tree));
    cases.extend(of_extensions(&tree));
    cases.extend(of_algorithms(&tree));
    cases
}

fn good(tree: &Tree) -> Vec<Case> {
    let leaf = tree.issuing.signs(pki::server(NAME));
    let second = tree.issuing.signs(pki::authority("second"));
    let deep = second.signs(pki::server(NAME));
    vec![
        tree.long_case("a good chain", &[&leaf, &tree.issuing], Ok(())),
        tree.long_case("with the root behind it", &[&leaf, &tree.issuing, &tree.root], Ok(())),
        tree.long_case("right under the root", &[&tree.root.signs(pki::server(NAME))], Ok(())),
        tree.long_case("three issuers", &[&deep, &second, &tree.issuing], Ok(())),
        tree.long_case("in another order", &[&deep, &tree.issuing, &second], Ok(())),
        tree.leaf_case("a wildcard", Ok(()), |params| {
            params.subject_alt_names = pki::server("*.fleet.example").subject_alt_names;
        }),
        tree.leaf_case("no key usage in the leaf", Ok(()), |params| params.key_usages.clear()),
        tree.leaf_case("for clients too", Ok(()), |params| {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }),
        tree.issuing_case("a path length that suffices", Ok(()), |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        }),
        tree.issuing_case("a name that is permitted", Ok(()), |params| {
            params.name_constraints = Some(permitted("example"));
        }),
    ]
}

fn of_issuers(tree: &Tree) -> Vec<Case> {
    let device = tree.issuing.signs(pki::device("dev-1"));
    let forged = device.signs(pki::server(NAME));
    let other = Tree::new();
    let foreign = other.issuing.signs(pki::device("dev-1"));
    let far = foreign.signs(pki::server(NAME));
    let stranger = Node::root(pki::authority("stranger"));
    vec![
        tree.long_case(
            "signed by a device of the same root",
            &[&forged, &device, &tree.issuing],
            Err("issuer-not-authority"),
        ),
        tree.long_case(
            "signed by a device of another root of the same name",
            &[&far, &foreign, &other.issuing],
            Err("issuer-not-authority"),
        ),
        tree.long_case(
            "another root",
            &[&stranger.signs(pki::server(NAME)), &stranger],
            Err("issuer-unknown"),
        ),
        tree.long_case(
            "another root of the same name",
            &[&other.issuing.signs(pki::server(NAME)), &other.issuing, &other.root],
            Err("signature-invalid"),
        ),
        tree.long_case(
            "no issuer",
            &[&tree.issuing.signs(pki::server(NAME))],
            Err("issuer-unknown"),
        ),
        tree.long_case("its own root", &[&Node::root(pki::server(NAME))], Err("issuer-unknown")),
        tree.issuing_case("an issuer that is none", Err("issuer-not-authority"), |params| {
            params.is_ca = IsCa::ExplicitNoCa;
        }),
        tree.issuing_case("an issuer without constraints", Err("issuer-not-authority"), |params| {
            params.is_ca = IsCa::NoCa;
        }),
        tree.issuing_case("an issuer that may not sign", Err("key-usage-issuer"), |params| {
            params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        })
        .looser(Looser::Webpki),
        tree.issuing_case("an issuer without key usage", Err("key-usage-issuer"), |params| {
            params.key_usages.clear();
        })
        .looser(Looser::Webpki),
        tree.issuing_case("an issuer for clients", Err("server-auth-missing"), |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        tree.issuing_case("an expired issuer", Err("expired"), |params| {
            params.not_after = rcgen::date_time_ymd(2026, 11, 21);
        }),
    ]
}

fn of_paths(tree: &Tree) -> Vec<Case> {
    let mut short = pki::authority("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = tree.root.signs(short);
    let below = short.signs(pki::authority("below"));
    vec![
        tree.long_case(
            "more issuers than one allows",
            &[&below.signs(pki::server(NAME)), &below, &short],
            Err("path-too-long"),
        ),
        tree.issuing_case("a name that is not permitted", Err("name-constraint"), |params| {
            params.name_constraints = Some(permitted("other.example"));
        }),
        tree.issuing_case("a name that is excluded", Err("name-constraint"), |params| {
            let excluded_subtrees = vec![GeneralSubtree::DnsName(NAME.to_owned())];
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees: vec![], excluded_subtrees });
        }),
        constrained_root("a name that the root permits", Ok(()), NAME),
        constrained_root("a name that the root does not", Err("name-constraint"), "other.example"),
        tree.leaf_case("an authority as a server", Err("authority-as-server"), |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        })
        // It asks whether a certificate may be a server's, not whether it is an authority's.
        .looser(Looser::Openssl),
    ]
}

/// A good chain of a tree whose root permits names under `name`.
fn constrained_root(what: &'static str, code: Result<(), &'static str>, name: &str) -> Case {
    let mut root = pki::authority("root");
    root.name_constraints = Some(permitted(name));
    let root = Node::root(root);
    let issuing = root.signs(pki::authority("issuing"));
    let tree = Tree { root, issuing };
    tree.leaf_case(what, code, |_| {})
}

fn permitted(name: &str) -> NameConstraints {
    let permitted_subtrees = vec![GeneralSubtree::DnsName(name.to_owned())];
    NameConstraints { permitted_subtrees, excluded_subtrees: vec![] }
}

fn of_leaves(tree: &Tree) -> Vec<Case> {
    let mut signed = tree.issuing.signs(pki::server(NAME));
    let last = signed.der.len() - 1;
    signed.der[last] ^= 1;
    let inverted = tree.issuing.signs(pki::server(NAME)).spoilt(&tree.issuing, |content| {
        std::mem::swap(&mut content.validity.not_before, &mut content.validity.not_after);
    });
    vec![
        tree.case("a signature that is not its issuer's", signed, Err("signature-invalid")),
        tree.case("an end before the beginning", inverted, Err("validity-inverted")),
        tree.leaf_case("for clients only", Err("server-auth-missing"), |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        tree.leaf_case("for nothing in particular", Err("server-auth-missing"), |params| {
            params.extended_key_usages.clear();
        })
        .looser(Looser::Both),
        tree.leaf_case("for anything", Err("server-auth-missing"), |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        }),
        tree.leaf_case("expired", Err("expired"), |params| {
            params.not_after = rcgen::date_time_ymd(2026, 11, 21);
        }),
        tree.leaf_case("not yet valid", Err("not-yet-valid"), |params| {
            params.not_before = rcgen::date_time_ymd(2026, 11, 23);
        }),
        tree.leaf_case("another name", Err("name-mismatch"), |params| {
            params.subject_alt_names = pki::server("other.example").subject_alt_names;
        }),
        tree.leaf_case("a name in the subject only", Err("name-mismatch"), |params| {
            params.subject_alt_names.clear();
        })
        .looser(Looser::Openssl),
        tree.leaf_case("a wildcard for too much", Err("name-mismatch"), |params| {
            params.subject_alt_names = pki::server("*.broker.fleet.example").subject_alt_names;
        }),
        tree.leaf_case("a key that may not sign", Err("key-usage-server"), |params| {
            params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        })
        .looser(Looser::Both),
        tree.leaf_case("a key that may certify", Err("key-usage-server"), |params| {
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        })
        .looser(Looser::Webpki),
    ]
}

fn of_extensions(tree: &Tree) -> Vec<Case> {
    let unknown = || {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 5], vec![5, 0]);
        extension.set_criticality(true);
        extension
    };
    let find = |extensions: &[Extension], arc: &str| {
        let found = extensions.iter().find(|extension| extension.extn_id.to_string() == arc);
        found.or_fail("an extension").clone()
    };
    let version = tree.issuing.signs(pki::server(NAME)).spoilt(&tree.issuing, |content| {
        content.version = x509_cert::Version::V2;
    });
    let value = |octets: &[u8]| OctetString::new(octets).or_fail("octets");
    let set = move |extensions: &mut Vec<Extension>, arc: &str, octets: &[u8]| {
        let found = extensions.iter_mut().find(|extension| extension.extn_id.to_string() == arc);
        found.or_fail("an extension").extn_value = value(octets);
    };
    vec![
        tree.leaf_case("an unknown critical one", Err("critical-extension-unknown"), |params| {
            params.custom_extensions.push(unknown());
        }),
        tree.issuing_case(
            "an unknown critical one in the issuer",
            Err("critical-extension-unknown"),
            |params| params.custom_extensions.push(unknown()),
        ),
        tree.extension_case("the key usage twice", Err("extensions-malformed"), |all| {
            all.push(find(all, KEY_USAGE));
        }),
        tree.extension_case("the authority's key twice", Err("extensions-malformed"), |all| {
            all.push(find(all, AUTHORITY_KEY_ID));
        })
        .looser(Looser::Webpki),
        tree.extension_case("an unknown one twice", Err("extensions-malformed"), |all| {
            for _ in 0..2 {
                let extn_id = "1.3.6.1.4.1.5".parse().or_fail("an identifier");
                all.push(Extension { extn_id, critical: false, extn_value: value(&[5, 0]) });
            }
        })
        .looser(Looser::Both),
        tree.extension_case("a key usage without a bit", Err("extensions-malformed"), move |all| {
            set(all, KEY_USAGE, &[3, 2, 7, 0]);
        })
        .looser(Looser::Webpki),
        tree.extension_case("a key usage that is none", Err("extensions-malformed"), move |all| {
            set(all, KEY_USAGE, &[4, 1, 0x80]);
        })
        .looser(Looser::Webpki),
        tree.extension_case("an empty purpose", Err("extensions-malformed"), move |all| {
            set(all, EXTENDED_KEY_USAGE, &[0x30, 0]);
        }),
        tree.extension_case("no name in the names", Err("name-mismatch"), move |all| {
            set(all, SUBJECT_ALT_NAME, &[0x30, 0]);
        }),
        tree.extension_case("an empty list", Err("extensions-malformed"), Vec::clear),
        tree.extension_case("too many", Err("extensions-malformed"), |all| {
            for number in 0..16 {
                let extn_id = format!("1.3.6.1.4.1.{number}").parse().or_fail("an identifier");
                all.push(Extension { extn_id, critical: false, extn_value: value(&[5, 0]) });
            }
        })
        .looser(Looser::Both),
        tree.case("version 2", version, Err("version-unsupported")),
    ]
}

const AUTHORITY_KEY_ID: &str = "2.5.29.35";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
const KEY_USAGE: &str = "2.5.29.15";
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

fn of_algorithms(tree: &Tree) -> Vec<Case> {
    let rsa = tree.root.signs_with(pki::authority("rsa"), rsa_key());
    let p384 = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).or_fail("a key");
    let curve = tree.root.signs_with(pki::authority("p384"), p384());
    let rsa_leaf = tree.issuing.signs_with(pki::server(NAME), rsa_key());
    let p384_leaf = tree.issuing.signs_with(pki::server(NAME), p384());
    let two = tree.issuing.signs(pki::server(NAME)).spoilt(&tree.issuing, |content| {
        content.signature.oid = "1.2.840.10045.4.3.3".parse().or_fail("an identifier");
    });
    vec![
        tree.long_case(
            "signed with RSA",
            &[&rsa.signs(pki::server(NAME)), &rsa],
            Err("rsa-unsupported"),
        )
        .looser(Looser::Both),
        tree.case("a key of RSA", rsa_leaf, Err("rsa-unsupported")).looser(Looser::Both),
        tree.long_case(
            "signed on P-384",
            &[&curve.signs(pki::server(NAME)), &curve],
            Err("algorithm-unsupported"),
        )
        .looser(Looser::Both),
        tree.case("a key on P-384", p384_leaf, Err("server-key-unsupported")).looser(Looser::Both),
        tree.case("two algorithms for one signature", two, Err("algorithm-unsupported")),
    ]
}

/// rcgen makes no keys of RSA here; openssl does.
fn rsa_key() -> KeyPair {
    let folder = tempfile::tempdir().or_fail("a folder");
    let path = folder.path().join("rsa.key");
    new_key_of("RSA", "rsa_keygen_bits:2048", &path);
    let pem = fs::read_to_string(&path).or_fail("a key");
    KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).or_fail("a key of RSA")
}

fn slices(chain: &[Vec<u8>]) -> Vec<&[u8]> {
    chain.iter().map(Vec::as_slice).collect()
}

fn name(text: &str) -> ServerName<'_> {
    ServerName::try_from(text).or_fail("a name")
}

fn verify(
    root: &[u8],
    chain: &[Vec<u8>],
    server: Server,
    reading: Reading,
) -> Result<Verified, Refusal> {
    let verifier = Verifier::new(&[root], Portable).or_fail("a verifier");
    verifier.verify(&slices(chain), &name(NAME), server, reading)
}

/// Goal: every chain of the table is believed or refused as it says, each cause by its own name.
#[test]
fn each_chain_is_judged_by_its_cause() {
    let mut wrong = Vec::new();
    for case in cases() {
        let verdict = verify(&case.root, &case.chain, Server::Broker, trusted(NOW));
        let found = verdict.map(drop).map_err(|refusal| refusal.code());
        if found != case.code {
            wrong.push(format!("{}: expected {:?}, found {found:?}", case.what, case.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Goal: whatever the firmware accepts the Linux agent's verifier accepts, and where the agent
/// accepts more the table says so.
#[test]
fn the_agents_verifier_agrees_where_it_should() {
    let mut wrong = Vec::new();
    for case in cases() {
        let is_accepted = rustls_accepts(&case);
        let expected = case.code.is_ok() || matches!(case.looser, Looser::Webpki | Looser::Both);
        if is_accepted != expected {
            wrong.push(format!("{}: expected {expected}, found {is_accepted}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rustls_accepts(case: &Case) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(case.root.clone())).or_fail("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let chain: Vec<_> = case.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let (leaf, issuers) = chain.split_first().or_fail("a leaf");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.0));
    let verdict = verifier.or_fail("a verifier").verify_server_cert(
        leaf,
        issuers,
        &name(NAME).to_owned(),
        &[],
        now,
    );
    verdict.is_ok()
}

/// Goal: whatever the firmware accepts openssl accepts, and where openssl accepts more the table
/// says so.
#[test]
fn openssl_agrees_where_it_should() {
    let folder = tempfile::tempdir().or_fail("a folder");
    let mut wrong = Vec::new();
    for case in cases() {
        let (is_accepted, said) = openssl_accepts(folder.path(), &case);
        let expected = case.code.is_ok() || matches!(case.looser, Looser::Openssl | Looser::Both);
        if is_accepted != expected {
            wrong.push(format!("{}: expected {expected}, found {is_accepted}: {said}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn openssl_accepts(folder: &Path, case: &Case) -> (bool, String) {
    let [root, leaf, issuers] = ["root", "leaf", "issuers"].map(|name| folder.join(name));
    let pem = |chain: &[Vec<u8>]| chain.iter().map(|der| pki::pem(der)).collect::<String>();
    let (first, rest) = case.chain.split_first().or_fail("a leaf");
    fs::write(&root, pki::pem(&case.root)).or_fail("a root");
    fs::write(&leaf, pki::pem(first)).or_fail("a leaf");
    fs::write(&issuers, pem(rest)).or_fail("issuers");
    let now = NOW.0.to_string();
    let mut arguments = vec!["verify", "-x509_strict", "-purpose", "sslserver"];
    arguments.extend(["-verify_hostname", NAME, "-attime", &now, "-no-CApath", "-no-CAstore"]);
    arguments.extend(["-CAfile", text(&root)]);
    if !rest.is_empty() {
        arguments.extend(["-untrusted", text(&issuers)]);
    }
    arguments.push(text(&leaf));
    let outcome = try_openssl(&arguments, b"");
    (outcome.code == Some(0), outcome.text())
}

fn server_from_to(tree: &Tree, from: i32, to: i32) -> Vec<Vec<u8>> {
    let mut params = pki::server(NAME);
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    vec![tree.issuing.signs(params).der, tree.issuing.der.clone()]
}

/// Goal: what a device knows of the time decides as decision 0003 says.
#[test]
fn time_is_judged_by_what_the_device_knows_of_it() {
    let tree = Tree::new();
    let (over, now, later) = (
        server_from_to(&tree, 2024, 2026),
        server_from_to(&tree, 2024, 2030),
        server_from_to(&tree, 2030, 2034),
    );
    let long_ago = Wall(NOW.0 - 5 * YEAR_S);
    for (what, chain, server, reading, expected) in [
        ("known", &now, Server::Broker, trusted(NOW), Ok(())),
        ("over, known", &over, Server::Provisioner, trusted(NOW), Err("expired")),
        ("later, known", &later, Server::Provisioner, trusted(NOW), Err("not-yet-valid")),
        ("unknown", &now, Server::Broker, unknown(NOW), Ok(())),
        ("over, unknown", &over, Server::Broker, unknown(NOW), Err("expired")),
        ("over, floor before", &over, Server::Broker, unknown(long_ago), Ok(())),
        ("begun after the floor", &later, Server::Broker, unknown(NOW), Ok(())),
        ("1970", &now, Server::Broker, unknown(Wall(0)), Ok(())),
        ("over, unvouched", &over, Server::Broker, floored(NOW, long_ago), Err("expired")),
        ("over, unvouched", &over, Server::Provisioner, floored(NOW, long_ago), Ok(())),
        ("over at the floor", &over, Server::Provisioner, floored(NOW, NOW), Err("expired")),
        ("later, unvouched", &later, Server::Provisioner, floored(NOW, long_ago), Ok(())),
        ("later, unvouched", &later, Server::Broker, floored(NOW, long_ago), Err("not-yet-valid")),
    ] {
        let verdict = verify(&tree.root.der, chain, server, reading);
        let found = verdict.map(drop).map_err(|refusal| refusal.code());
        assert_eq!(found, expected, "{what}, {server:?}");
    }
}

/// Goal: the last second of a certificate belongs to it, and so does the first.
#[test]
fn a_certificate_is_valid_from_its_first_second_to_its_last() {
    let tree = Tree::new();
    let chain = server_from_to(&tree, 2024, 2030);
    let at = |wall| verify(&tree.root.der, &chain, Server::Broker, trusted(wall));
    let verified = at(NOW).or_fail("a good chain");
    let (first, last) = (verified.validity.not_before, verified.validity.not_after);
    assert_eq!((first, last), (Wall(1_704_067_200), Wall(1_893_456_000)));
    at(first).or_fail("the first second");
    at(last).or_fail("the last second");
    let before = first.minus_s(1);
    assert_eq!(at(before), Err(Refusal::NotYetValid));
    let after = last.plus_s(1);
    assert_eq!(at(after), Err(Refusal::Expired));
}

/// Goal: the key that comes out is the leaf's, which has to sign the handshake.
#[test]
fn the_key_that_is_returned_is_the_servers() {
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME));
    let chain = [leaf.der.clone(), tree.issuing.der.clone()];
    let verified = verify(&tree.root.der, &chain, Server::Broker, trusted(NOW));
    assert_eq!(verified.or_fail("a good chain").point, leaf.point());
}

/// Goal: an address is compared with addresses, not with names that look like one.
#[test]
fn a_server_may_be_known_by_its_address() {
    let tree = Tree::new();
    let address = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
    let right = tree.issuing.signs(pki::server("10.0.2.2")).der;
    let wrong = tree.issuing.signs(pki::server("10.0.2.3")).der;
    let named = tree.issuing.signs(pki::server(NAME)).der;
    let verifier = Verifier::new(&[&tree.root.der], Portable).or_fail("a verifier");
    let judge = |leaf: &[u8]| {
        let name = ServerName::from(address);
        let chain = [leaf, &tree.issuing.der];
        verifier.verify(&chain, &name, Server::Broker, trusted(NOW)).map(drop)
    };
    assert_eq!(judge(&right), Ok(()));
    assert_eq!(judge(&wrong), Err(Refusal::NameMismatch));
    assert_eq!(judge(&named), Err(Refusal::NameMismatch));
}

/// Goal: an issuer's constraint on addresses binds too.
#[test]
fn a_constraint_on_addresses_binds() {
    let tree = Tree::new();
    let judge = |subnet: [u8; 4]| {
        let mut params = pki::authority("issuing");
        let mask = [255, 255, 255, 0];
        let subtree = GeneralSubtree::IpAddress(CidrSubnet::V4(subnet, mask));
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![subtree], excluded_subtrees: vec![] });
        let issuing = tree.root.signs(params);
        let leaf = issuing.signs(pki::server("10.0.2.2"));
        let verifier = Verifier::new(&[&tree.root.der], Portable).or_fail("a verifier");
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)));
        let chain = [&leaf.der[..], &issuing.der];
        verifier.verify(&chain, &name, Server::Broker, trusted(NOW)).map(drop)
    };
    assert_eq!(judge([10, 0, 2, 0]), Ok(()));
    assert_eq!(judge([10, 0, 3, 0]), Err(Refusal::NameConstraint));
}

/// Goal: during a rollover either root will do, and a third is one too many.
#[test]
fn either_of_two_roots_is_enough() {
    let (old, new) = (Tree::new(), Tree::new());
    let verifier = Verifier::new(&[&old.root.der, &new.root.der], Portable).or_fail("a verifier");
    for tree in [&old, &new] {
        let leaf = tree.issuing.signs(pki::server(NAME));
        let chain = [&leaf.der[..], &tree.issuing.der, &tree.root.der];
        let verdict = verifier.verify(&chain, &name(NAME), Server::Broker, trusted(NOW));
        assert_eq!(verdict.map(drop), Ok(()));
    }
    let third = [&old.root.der[..], &new.root.der, &old.root.der];
    let error = Verifier::new(&third, Portable).unwrap_err();
    assert_eq!(error, AnchorError::TooMany { found: 3, max: 2 });
}

/// Goal: what could never believe anybody is refused before it is asked.
#[test]
fn an_anchor_that_could_sign_nothing_is_refused() {
    let refused = |anchors: &[&[u8]]| Verifier::new(anchors, Portable).unwrap_err().code();
    assert_eq!(refused(&[]), "anchor-missing");
    assert_eq!(refused(&[b"no certificate"]), "anchor-malformed");
    let rsa = Node::root_with(pki::authority("rsa"), rsa_key());
    assert_eq!(refused(&[&rsa.der]), "anchor-key-unsupported");
}

/// Counts what is asked of the curve.
#[derive(Clone, Debug, Default)]
struct Counting(Arc<AtomicUsize>);

impl Ecdsa for Counting {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        Portable.is_signed(point, digest, signature)
    }
}

fn count(root: &[u8], chain: &[&[u8]]) -> (usize, Result<(), Refusal>) {
    let counting = Counting::default();
    let verifier = Verifier::new(&[root], counting.clone()).or_fail("a verifier");
    let verdict = verifier.verify(chain, &name(NAME), Server::Broker, trusted(NOW));
    (counting.0.load(Ordering::Relaxed), verdict.map(drop))
}

/// Goal: a chain costs one verification for each certificate in it; the root costs none, whether
/// it is sent or not, and for a bad chain neither.
#[test]
fn a_chain_costs_as_many_verifications_as_it_has_certificates_below_the_root() {
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME));
    let (leaf, issuing, root) = (&leaf.der[..], &tree.issuing.der[..], &tree.root.der[..]);
    assert_eq!(count(root, &[leaf, issuing]), (2, Ok(())));
    assert_eq!(count(root, &[leaf, issuing, root]), (2, Ok(())));
    assert_eq!(count(root, &[leaf, root, issuing, issuing]), (2, Ok(())));
    let mut bad = leaf.to_vec();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    assert_eq!(count(root, &[&bad, issuing, root]), (2, Err(Refusal::SignatureInvalid)));
    let other = Tree::new();
    assert_eq!(count(&other.root.der, &[leaf, issuing]).0, 1, "a root of the same name");
}

/// Goal: a chain that offers as many paths as it can costs no more than the limit.
#[test]
fn a_hostile_chain_costs_a_bounded_number_of_verifications() {
    let tree = Tree::new();
    let stranger = Node::root(pki::authority("root"));
    let authorities: Vec<Node> =
        (1..CERTIFICATES_MAX).map(|_| stranger.signs(pki::authority("root"))).collect();
    let leaf = stranger.signs(pki::server(NAME));
    let mut chain = vec![&leaf.der[..]];
    chain.extend(authorities.iter().map(|authority| &authority.der[..]));
    let (cost, verdict) = count(&tree.root.der, &chain);
    assert_eq!((cost, verdict), (SIGNATURES_MAX, Err(Refusal::SignaturesTooMany)));
}

/// Goal: size is limited before anything is parsed.
#[test]
fn a_chain_too_long_or_too_large_costs_nothing() {
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME)).der;
    let chain = vec![&leaf[..]; CERTIFICATES_MAX + 1];
    assert_eq!(count(&tree.root.der, &chain), (0, Err(Refusal::ChainTooLong)));
    let ballast = vec![0; CHAIN_LEN_MAX];
    assert_eq!(count(&tree.root.der, &[&leaf, &ballast]), (0, Err(Refusal::ChainTooLarge)));
    assert_eq!(count(&tree.root.der, &[]), (0, Err(Refusal::Unsent)));
}

/// Goal: a certificate cut anywhere, or with more behind it, is malformed and nothing worse.
#[test]
fn a_certificate_cut_at_any_length_or_extended_is_malformed() {
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME)).der;
    for len in 0..leaf.len() {
        let (cost, verdict) = count(&tree.root.der, &[&leaf[..len], &tree.issuing.der]);
        assert_eq!((cost, verdict), (0, Err(Refusal::Malformed)), "{len} octets");
    }
    let longer = [&leaf[..], &[0]].concat();
    assert_eq!(count(&tree.root.der, &[&longer, &tree.issuing.der]).1, Err(Refusal::Malformed));
    for len in 0..tree.issuing.der.len() {
        let (_, verdict) = count(&tree.root.der, &[&leaf, &tree.issuing.der[..len]]);
        verdict.expect_err("an issuer cut short");
    }
}

/// Goal: no octet of a chain can be changed without a refusal, and none makes the verifier panic.
#[test]
fn a_chain_with_any_octet_changed_is_refused() {
    let tree = Tree::new();
    let leaf = tree.issuing.signs(pki::server(NAME)).der;
    for at in 0..leaf.len() {
        let mut changed = leaf.clone();
        changed[at] ^= 0x41;
        let (_, verdict) = count(&tree.root.der, &[&changed, &tree.issuing.der]);
        verdict.expect_err("a changed leaf");
    }
}

#[test]
fn garbage_is_malformed() {
    let tree = Tree::new();
    for garbage in [&b""[..], b"\x30", b"\x30\x80", b"\x30\x82\xff\xff", &[0xff; 600], &[0x30; 600]]
    {
        let (_, verdict) = count(&tree.root.der, &[garbage, &tree.issuing.der]);
        assert_eq!(verdict, Err(Refusal::Malformed));
    }
}
