//! Whole enrollments as they were captured from TPMs, octet for octet (`tests/vectors`): whoever
//! writes a verifier or a device can check himself against them, and ours is checked here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use fleetcert_core::time::Wall;
use fleetcert_provisioner::attest::ek;
use fleetcert_provisioner::attest::evidence::{
    self, Expected, Proof, Statement, attestation_key, endorsement_key,
};
use fleetcert_provisioner::attest::root::EkRoot;
use fleetcert_provisioner::csr::Csr;
use fleetcert_provisioner::enroll::Refusal;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_tests::lab::by_hand::{openssl, text};
use fleetcert_tests::lab::claimant::{Claimant, Request, from_hex, hex, spki, with_attributes};
use fleetcert_tests::lab::{Lab, OrFail, Plan, run};
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::ek::EkTemplate;
use serde_json::{Map, Value, json};

use crate::bench::{DEVICE, enrolled};
use crate::chip::attribute::{NO_DA, RESTRICTED};

/// Set to capture enrollments anew before they are replayed.
const UPDATE_VARIABLE: &str = "FLEETCERT_UPDATE_SNAPSHOTS";

/// What each field is.
const NOTES: [(&str, &str); 20] = [
    ("ak_public", "TPMT_PUBLIC of the attestation key"),
    ("attest", "TPMS_ATTEST of TPM2_Certify"),
    ("attribute", "the attribute id-aa-attestation with attest, signature and key_public, DER"),
    ("challenge_id", "16 octets; their hexadecimal digits are the field Fleetcert-Challenge"),
    ("challenge_nonce", "32 octets"),
    ("credential", "content of the TPM2B_ID_OBJECT in the challenge"),
    ("csr", "the PKCS#10 request, DER, signed by the device key"),
    ("device_id", "text"),
    ("ek_certificates", "certificates of the endorsement key, DER, one behind the other"),
    ("ek_public", "TPMT_PUBLIC of the endorsement key"),
    ("ek_sha256", "SHA-256 of the endorsement key's SubjectPublicKeyInfo"),
    ("encrypted_secret", "content of the TPM2B_ENCRYPTED_SECRET in the challenge"),
    ("key_public", "TPMT_PUBLIC of the device key"),
    ("name", "what kind of endorsement key it is"),
    ("qualifying_data", "HMAC-SHA256 under secret, as docs/design/attestation.md has it"),
    ("roots", "certificates that are trusted, DER"),
    ("secret", "what the TPM gave for credential and encrypted_secret, 32 octets"),
    ("signature", "TPMT_SIGNATURE of attest by the attestation key"),
    ("spki", "SubjectPublicKeyInfo of the device key, DER"),
    ("unix_time", "when it was captured; the certificates are good then"),
];

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/attestation.json")
}

/// One captured enrollment.
#[derive(Clone)]
struct Captured {
    name: String,
    roots: Vec<Vec<u8>>,
    certificates: Vec<u8>,
    ek: Vec<u8>,
    ak: Vec<u8>,
    id: Vec<u8>,
    nonce: Vec<u8>,
    secret: Vec<u8>,
    statement: Statement,
    spki: Vec<u8>,
    qualifying: Vec<u8>,
    attribute: Vec<u8>,
    csr: Vec<u8>,
    at: Wall,
}

/// The enrollments in the file; captured anew first, if that is wanted.
fn captured() -> Vec<Captured> {
    if env::var_os(UPDATE_VARIABLE).is_some() {
        capture();
    }
    let text = fs::read_to_string(path()).or_fail("the captured enrollments");
    let file: Value = serde_json::from_str(&text).or_fail("JSON");
    file["enrollments"].as_array().or_fail("enrollments").iter().map(Captured::read).collect()
}

impl Captured {
    fn read(entry: &Value) -> Self {
        let octets = |value: &Value| from_hex(value.as_str().or_fail("digits"));
        let field = |name: &str| octets(&entry[name]);
        Self {
            name: entry["name"].as_str().or_fail("a name").to_owned(),
            roots: entry["roots"].as_array().or_fail("roots").iter().map(octets).collect(),
            certificates: field("ek_certificates"),
            ek: field("ek_public"),
            ak: field("ak_public"),
            id: field("challenge_id"),
            nonce: field("challenge_nonce"),
            secret: field("secret"),
            statement: Statement {
                attest: field("attest"),
                signature: field("signature"),
                public: field("key_public"),
            },
            spki: field("spki"),
            qualifying: field("qualifying_data"),
            attribute: field("attribute"),
            csr: field("csr"),
            at: Wall(entry["unix_time"].as_u64().or_fail("a time")),
        }
    }

    /// The provisioner's judgement, by its library, from the first check to the last.
    fn judge(&self) -> Result<Proof, &'static str> {
        let ek = endorsement_key(&self.ek).map_err(|error| error.code())?;
        attestation_key(&self.ak).map_err(|error| error.code())?;
        let roots = self.roots.iter().map(|root| EkRoot::parse(root).or_fail("a root"));
        let roots: Vec<EkRoot> = roots.collect();
        let certified = ek::verify(&self.certificates, &roots, self.at);
        let certified = certified.map_err(|error| error.code())?;
        if certified.spki_der != ek.spki_der() {
            return Err("ek-mismatch");
        }
        let csr = Csr::verify(&self.csr).map_err(|error| Refusal::Csr(error).code())?;
        assert_eq!(csr.key().spki(), self.request_key(), "the key of the request");
        self.judge_statement().map_err(|error| error.code())
    }

    /// The last part of [`Captured::judge`] alone.
    fn judge_statement(&self) -> Result<Proof, evidence::EvidenceError> {
        let ak = attestation_key(&self.ak)?;
        let expected = Expected {
            ak: &ak,
            secret: self.secret[..].try_into().or_fail("32 octets"),
            challenge: self.id[..].try_into().or_fail("16 octets"),
            nonce: self.nonce[..].try_into().or_fail("32 octets"),
            spki: &self.spki,
        };
        evidence::check(&self.statement, &expected)
    }

    /// Where the request's key lies in it.
    fn request_key(&self) -> &[u8] {
        const P256: [u8; 4] = [0x30, 0x59, 0x30, 0x13];
        let at = self.csr.windows(P256.len()).position(|window| window == P256);
        &self.csr[at.or_fail("a key in the request")..][..91]
    }
}

/// Captures an enrollment by each kind of endorsement key that swtpm_setup makes.
fn capture() {
    let lab = Lab::with(Plan::attested());
    let maker = lab.tpm_maker("Vectors");
    lab.trust(&maker);
    let kinds = [("rsa-2048", EkTemplate::Rsa2048), ("p-384", EkTemplate::P384High)];
    let entries = kinds.map(|(name, kind)| entry(&lab, &maker, name, kind));
    let notes = NOTES.map(|(field, note)| (field.to_owned(), note.into()));
    let file = json!({
        "notes": Map::from_iter(notes),
        "enrollments": entries,
    });
    let text = serde_json::to_string_pretty(&file).or_fail("JSON");
    fs::create_dir_all(path().parent().or_fail("a folder")).or_fail("a folder");
    fs::write(path(), text + "\n").or_fail("the captured enrollments");
}

fn entry(lab: &Lab, maker: &TpmMaker, name: &str, kind: EkTemplate) -> Value {
    let mut device = Claimant::new(lab.tpm(name, maker), kind);
    let device_id = format!("{DEVICE}-{name}");
    let given = device.asking(&device_id).ask(&lab.https());
    let given = given.map_err(|reply| reply.text()).or_fail("a challenge");
    let secret = device.solve(&given);
    let (key, spki) = (device.key.clone(), spki(&device.key));
    let qualifying = given.qualifying(&secret, &spki);
    let stated = device.certify(&key, &qualifying);
    let (attributes, challenge) = (stated.attribute(), Some(given.id));
    let request = Request { device: &device_id, spki: spki.clone(), attributes, challenge };
    let csr = device.signed(&request);
    enrolled(&request.send(&lab.https(), "/.well-known/est/simpleenroll", &csr));
    let shown = lab.ask(&["device", "show", &device_id]);
    let roots = [maker.root(), maker.issuer()].map(|path| {
        let arguments = ["x509", "-in", text(&path), "-outform", "DER"];
        hex(&openssl(&arguments, b"").octets)
    });
    json!({
        "name": name,
        "device_id": device_id,
        "unix_time": unix_time(shown["tpm"]["bound"]["evidence"]["at"].as_str()),
        "roots": roots,
        "ek_certificates": hex(&device.certificates),
        "ek_public": hex(&device.ek_public),
        "ek_sha256": device.ek_id(),
        "ak_public": hex(device.ak.public_area()),
        "challenge_id": hex(&given.id),
        "challenge_nonce": hex(&given.nonce),
        "credential": hex(&given.credential),
        "encrypted_secret": hex(&given.encrypted_secret),
        "secret": hex(&secret),
        "spki": hex(&spki),
        "qualifying_data": hex(&qualifying),
        "attest": hex(&stated.attest),
        "signature": hex(&stated.signature),
        "key_public": hex(&stated.public),
        "attribute": hex(&stated.attribute()),
        "csr": hex(&csr),
    })
}

/// Seconds since 1970 of a time as the provisioner shows it.
fn unix_time(shown: Option<&str>) -> u64 {
    let mut command = Command::new("date");
    command.args(["--utc", "+%s", "--date", shown.or_fail("a time")]);
    let outcome = run::run(command, b"").expect_success();
    outcome.stdout.trim().parse().or_fail("seconds")
}

/// Goal: what TPMs once proved is proven still: the file replays through the verifier, and each of
/// its fields is what the others say it is.
#[test]
fn captured_enrollments_replay() {
    let all = captured();
    assert_eq!(all.iter().map(|it| &it.name).collect::<Vec<_>>(), ["rsa-2048", "p-384"]);
    for it in &all {
        let proof = it.judge();
        assert!(proof.is_ok_and(|proof| proof.clock.safe), "{}: {proof:?}", it.name);
        let id: &[u8; 16] = it.id[..].try_into().or_fail("16 octets");
        let nonce: &[u8; 32] = it.nonce[..].try_into().or_fail("32 octets");
        let qualifying = qualifying_data(&it.secret, id, nonce, &it.spki);
        assert_eq!(it.qualifying, qualifying, "{}", it.name);
        let csr = Csr::verify(&it.csr).or_fail("a request");
        assert_eq!(csr.key().spki(), it.spki);
        let values = csr.attestation().or_fail("evidence");
        assert!(it.attribute.ends_with(values), "the attribute is that of the request");
        assert!(it.csr.windows(it.attribute.len()).any(|window| window == it.attribute));
        let statement = Statement::from_attribute_values(values).or_fail("a statement");
        assert_eq!(statement, it.statement);
    }
}

/// Goal: the file explains itself: each field has a note, each note a field.
#[test]
fn every_field_of_the_captured_enrollments_has_a_note() {
    let text = fs::read_to_string(path()).or_fail("the captured enrollments");
    let file: Value = serde_json::from_str(&text).or_fail("JSON");
    let names = |value: &Value| {
        let fields = value.as_object().or_fail("fields");
        fields.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&file["notes"]), NOTES.map(|(field, _)| field));
    for entry in file["enrollments"].as_array().or_fail("enrollments") {
        assert_eq!(names(entry), names(&file["notes"]));
    }
}

/// A change of one field, and the code that it has to give.
type Row = (&'static str, fn(&mut Captured), &'static str);

/// Each field, changed.
const CHANGES: [Row; 26] = [
    ("roots", |it| it.roots.clear(), "ek-unknown-root"),
    ("ek_certificates, none", |it| it.certificates.clear(), "ek-missing"),
    ("ek_certificates, cut", |it| cut(&mut it.certificates), "ek-certificate-malformed"),
    ("ek_certificates, signature", |it| flip_last(&mut it.certificates), "ek-signature"),
    ("ek_public, attributes", |it| it.ek = cleared(&it.ek, RESTRICTED), "ek-not-restricted"),
    ("ek_public, cut", |it| cut(&mut it.ek), "ek-malformed"),
    ("ak_public, attributes", |it| it.ak = cleared(&it.ak, RESTRICTED), "ak-not-restricted"),
    ("ak_public, point", |it| flip_last(&mut it.ak), "ak-point"),
    ("ak_public, another key", |it| it.ak = as_ak(&it.statement.public), "signature-wrong"),
    ("challenge_id", |it| flip_last(&mut it.id), "attest-qualifying-data"),
    ("challenge_nonce", |it| flip_last(&mut it.nonce), "attest-qualifying-data"),
    ("secret", |it| flip_last(&mut it.secret), "attest-qualifying-data"),
    ("spki", |it| flip_last(&mut it.spki), "attest-qualifying-data"),
    ("attest, magic", |it| it.statement.attest[0] ^= 1, "attest-magic"),
    ("attest, kind", |it| it.statement.attest[5] = 0x1A, "attest-type"),
    ("attest, extra data", |it| it.statement.attest[50] ^= 1, "attest-qualifying-data"),
    ("attest, Name", |it| it.statement.attest[110] ^= 1, "attest-name"),
    ("attest, clock", |it| it.statement.attest[80] ^= 1, "signature-wrong"),
    ("attest, longer", |it| it.statement.attest.push(0), "attest-trailing"),
    ("attest, cut", |it| cut(&mut it.statement.attest), "attest-malformed"),
    ("signature", |it| flip_last(&mut it.statement.signature), "signature-wrong"),
    ("signature, cut", |it| cut(&mut it.statement.signature), "signature-malformed"),
    (
        "key_public, attributes",
        |it| it.statement.public = cleared(&it.statement.public, NO_DA),
        "attest-name",
    ),
    ("key_public, cut", |it| cut(&mut it.statement.public), "key-malformed"),
    ("csr", |it| it.csr[120] ^= 1, "csr-signature"),
    ("unix_time", |it| it.at = Wall(1_000_000_000), "ek-not-yet-valid"),
];

fn cut(octets: &mut Vec<u8>) {
    octets.pop();
}

fn flip_last(octets: &mut [u8]) {
    *octets.last_mut().or_fail("an octet") ^= 1;
}

fn cleared(area: &[u8], attributes: u32) -> Vec<u8> {
    with_attributes(area, 0, attributes)
}

/// A device key's public area that calls itself an attestation key's.
fn as_ak(area: &[u8]) -> Vec<u8> {
    with_attributes(area, RESTRICTED, 0)
}

/// Goal: no field of a captured enrollment can be changed without its refusal.
#[test]
fn a_change_of_any_captured_field_is_refused() {
    for it in captured() {
        for (what, change, code) in CHANGES {
            let mut changed = it.clone();
            change(&mut changed);
            assert_eq!(changed.judge().err(), Some(code), "{}: {what}", it.name);
        }
    }
}

/// Goal: the certificate of one captured enrollment does not vouch for the key of the other.
#[test]
fn captured_certificates_do_not_vouch_for_each_others_keys() {
    let [rsa, p384] = &captured()[..] else { panic!("two enrollments") };
    for (one, other) in [(rsa, p384), (p384, rsa)] {
        let mut mixed = one.clone();
        mixed.certificates.clone_from(&other.certificates);
        mixed.roots.clone_from(&other.roots);
        assert_eq!(mixed.judge().err(), Some("ek-mismatch"));
        let mut mixed = one.clone();
        mixed.statement = other.statement.clone();
        assert_eq!(mixed.judge().err(), Some("attest-qualifying-data"));
    }
}

/// Goal: no octet of what the TPM signed, of its signature or of the key can be another one.
#[test]
fn a_change_of_any_octet_that_the_tpm_stated_is_refused() {
    let parts: [fn(&mut Statement) -> &mut Vec<u8>; 3] = [
        |statement| &mut statement.attest,
        |statement| &mut statement.signature,
        |statement| &mut statement.public,
    ];
    for it in captured() {
        for part in parts {
            let len = part(&mut it.statement.clone()).len();
            for at in 0..len {
                let mut changed = it.clone();
                part(&mut changed.statement)[at] ^= 1;
                assert!(changed.judge_statement().is_err(), "{}: octet {at} of {len}", it.name);
            }
        }
    }
}
