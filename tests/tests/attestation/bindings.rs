//! Whose TPM it is: what the first evidence binds, what contradicts that, and what an operator says.

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::wait::Stop;
use fleetcert_tests::lab::by_hand::{Credential, SIMPLE_ENROLL, SIMPLE_REENROLL, base64, request};
use fleetcert_tests::lab::claimant::Claimant;
use fleetcert_tests::lab::https::Reply;
use fleetcert_tests::lab::tpm::{powered, tool};
use fleetcert_tests::lab::{OrFail, Plan};
use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::template::Template;
use serde_json::{Value, json};

use crate::bench::{Bench, DEVICE, enrolled, restarted};

/// A second group, which takes tokens.
const TOKENS: &str = "[groups.tokens]\nadmission = \"token\"";

/// An attested device, [`DEVICE`], and what is on record of its TPM.
fn bound() -> (Bench, Claimant, Value) {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    enrolled(&bench.enroll(&mut device, DEVICE));
    let record = bench.tpm(DEVICE);
    (bench, device, record)
}

/// Goal: a TPM is one device's. Who comes with it under another name gets nothing and changes
/// nothing, and an operator hears of it, once.
#[test]
fn the_tpm_of_another_device_is_refused_and_told() {
    let (bench, mut device, before) = bound();
    for _ in 0..2 {
        let reply = bench.enroll(&mut device, "gw-2");
        assert_eq!(reply.verdict(), (409, "ek-bound"), "{}", reply.text());
    }
    let after = bench.tpm(DEVICE);
    assert_eq!(after["bound"], before["bound"]);
    let [conflict] = &after["conflicts"].as_array().or_fail("conflicts")[..] else {
        panic!("one conflict: {after}");
    };
    assert_eq!((&conflict["kind"], &conflict["claimant"]), (&"claimed-by".into(), &"gw-2".into()));
    assert_eq!(conflict["ekSha256"], device.ek_id());
    assert_eq!(bench.lab.issued("gw-2"), 0);
    let told = bench.events(DEVICE).iter().filter(|event| *event == "conflict").count();
    assert_eq!(told, 1);
}

/// Goal: an operator releases a TPM, and then it may be another device's.
#[test]
fn a_tpm_that_an_operator_released_serves_another_device() {
    let (bench, mut device, _) = bound();
    bench.lab.operate(&["device", "replace", DEVICE]);
    assert_eq!(bench.tpm(DEVICE)["bound"], Value::Null);
    enrolled(&bench.enroll(&mut device, "gw-2"));
    assert_eq!(bench.tpm("gw-2")["bound"]["ekSha256"], device.ek_id());
}

/// Goal: another TPM for a device that has one is refused, kept for an operator to see, and admitted
/// by one who names it; the old one is out then.
#[test]
fn another_tpm_of_a_bound_device_waits_for_an_operator() {
    let (bench, mut device, before) = bound();
    let mut other = bench.device("other");
    let reply = bench.enroll(&mut other, DEVICE);
    assert_eq!(reply.verdict(), (409, "ek-conflict"), "{}", reply.text());
    let after = bench.tpm(DEVICE);
    assert_eq!(after["bound"], before["bound"]);
    assert_eq!(after["conflicts"][0]["kind"], "another-ek");
    assert_eq!(after["conflicts"][0]["ekSha256"], other.ek_id());
    assert_eq!(bench.lab.issued(DEVICE), 1);

    bench.lab.operate(&["device", "replace", DEVICE, "--ek", &other.ek_id()]);
    let reply = bench.enroll(&mut device, DEVICE);
    assert_eq!(reply.verdict(), (403, "ek-not-listed"), "{}", reply.text());
    enrolled(&bench.enroll(&mut other, DEVICE));
    let tpm = bench.tpm(DEVICE);
    assert_eq!(tpm["bound"]["ekSha256"], other.ek_id());
    assert_eq!(tpm["conflicts"], json!([]));
    assert!(bench.events(DEVICE).contains(&"device-replaced".to_owned()));
}

/// Goal: an operator who turns a conflict down leaves everything as it was.
#[test]
fn a_conflict_that_is_turned_down_is_forgotten() {
    let (bench, mut device, before) = bound();
    let mut other = bench.device("other");
    assert_eq!(bench.enroll(&mut other, DEVICE).verdict(), (409, "ek-conflict"));
    bench.lab.operate(&["device", "reject", DEVICE]);
    assert_eq!(bench.tpm(DEVICE), before);
    enrolled(&bench.enroll(&mut device, DEVICE));
}

/// Goal: the TPM of a revoked device is not free: a thief does not enroll it under another name, nor
/// under its own.
#[test]
fn the_tpm_of_a_revoked_device_is_refused() {
    let (bench, mut device, _) = bound();
    bench.lab.operate(&["device", "revoke", DEVICE]);
    let reply = bench.enroll(&mut device, "gw-2");
    assert_eq!(reply.verdict(), (403, "ek-revoked"), "{}", reply.text());
    let reply = bench.enroll(&mut device, DEVICE);
    assert_eq!(reply.verdict(), (403, "revoked"), "{}", reply.text());
    assert_eq!((bench.lab.issued(DEVICE), bench.lab.issued("gw-2")), (1, 0));
    bench.lab.operate(&["device", "replace", DEVICE]);
    enrolled(&bench.enroll(&mut device, "gw-2"));
    let reply = bench.enroll(&mut device, DEVICE);
    assert_eq!(reply.status, 403, "a revoked device stays revoked: {}", reply.text());
}

/// Goal: an attestation key lives in one TPM. Here a TPM got another endorsement key and kept its
/// storage, which no owner can do without the platform's leave.
#[test]
fn an_attestation_key_that_was_seen_under_another_endorsement_key_is_refused() {
    let (bench, device, before) = bound();
    let (ak, old) = (device.ak.clone(), device.ek_id());
    let mut device = restarted(device, |socket| {
        tool(socket, &["tpm2_changeeps"]).expect_success();
    });
    assert_ne!(device.ek_id(), old);
    device.ak = ak;
    device.certificates = bench.certificate(&device);
    let reply = bench.enroll(&mut device, "gw-2");
    assert_eq!(reply.verdict(), (409, "ak-bound"), "{}", reply.text());
    assert_eq!((bench.lab.issued("gw-2"), bench.tpm(DEVICE)), (0, before));
}

/// Goal: nor does a list help.
#[test]
fn a_listed_endorsement_key_with_a_known_attestation_key_is_refused() {
    let bench = Bench::with(Plan { admission: "ek-allowlist", ..Plan::default() });
    let mut device = bench.bare_device("tpm");
    bench.import("list.csv", &format!("{DEVICE},{}\n", device.ek_id())).expect_success();
    enrolled(&bench.enroll(&mut device, DEVICE));
    let ak = device.ak.clone();
    let mut device = restarted(device, |socket| {
        tool(socket, &["tpm2_changeeps"]).expect_success();
    });
    device.ak = ak;
    bench.import("more.csv", &format!("gw-2,{}\n", device.ek_id())).expect_success();
    let reply = bench.enroll(&mut device, "gw-2");
    assert_eq!(reply.verdict(), (409, "ak-bound"), "{}", reply.text());
    assert_eq!(bench.lab.issued("gw-2"), 0);
}

/// Goal: a TPM that its owner has cleared keeps its endorsement key and loses everything else: it
/// is admitted by policy, with the new attestation key in the old one's place, and that is audited.
#[test]
fn a_tpm_that_was_cleared_is_admitted_again_and_audited() {
    let (bench, device, before) = bound();
    let (ek, key) = (device.ek_id(), device.key.clone());
    let mut device = restarted(device, |socket| {
        tool(socket, &["tpm2_clear", "-c", "p"]).expect_success();
    });
    assert!(device.vault.probe(&key).is_err(), "the TPM was cleared");
    assert_eq!(device.ek_id(), ek);
    device.certificates = bench.certificate(&device);
    enrolled(&bench.enroll(&mut device, DEVICE));
    let after = bench.tpm(DEVICE);
    assert_eq!(after["bound"]["ekSha256"], before["bound"]["ekSha256"]);
    assert_ne!(after["bound"]["akName"], before["bound"]["akName"]);
    let expected =
        ["requested", "bound", "issued", "requested", "attested", "ak-replaced", "issued"];
    assert_eq!(bench.events(DEVICE), expected);
}

/// Goal: the usual case: the same TPM, the same keys, once more.
#[test]
fn the_same_tpm_enrolls_again() {
    let (bench, mut device, before) = bound();
    enrolled(&bench.enroll(&mut device, DEVICE));
    let after = bench.tpm(DEVICE);
    assert_eq!(after["bound"]["akName"], before["bound"]["akName"]);
    assert_eq!(after["bound"]["since"], before["bound"]["since"]);
    assert_ne!(after["bound"]["evidence"]["challenge"], before["bound"]["evidence"]["challenge"]);
    assert_eq!(after["bound"]["cloneSigns"], 0);
}

/// Goal: a device that has an identity by other means is not taken over by whoever has a TPM.
#[test]
fn a_tpm_does_not_take_over_a_device_that_has_a_certificate() {
    let bench = Bench::with(Plan { more: TOKENS, admission: "ek-chain", ..Plan::default() });
    bench.lab.enroll_by_hand_in("tokens", "sw-1");
    let mut device = bench.device("tpm");
    let reply = bench.enroll(&mut device, "sw-1");
    assert_eq!(reply.verdict(), (401, "credentials-required"), "{}", reply.text());
    assert_eq!((bench.lab.issued("sw-1"), &bench.tpm("sw-1")["bound"]), (1, &Value::Null));
}

/// A device of the group of tokens that got a certificate for a key in a file first, and moved to
/// its TPM then: what it shows in TLS is still the former.
struct Moved {
    bench: Bench,
    device: Claimant,
    identity: Credential,
}

impl Moved {
    fn new() -> Self {
        let bench = Bench::with(Plan { more: TOKENS, admission: "ek-chain", ..Plan::default() });
        let identity = bench.lab.enroll_by_hand_in("tokens", "sw-1");
        let device = bench.device("tpm");
        let mut this = Self { bench, device, identity };
        enrolled(&this.rekey(true));
        assert_eq!(this.bench.tpm("sw-1")["bound"]["ekSha256"], this.device.ek_id());
        this
    }

    /// Re-enrolls with the certificate; with evidence or without.
    fn rekey(&mut self, proven: bool) -> Reply {
        let https = self.bench.lab.https_as(&self.identity);
        let (bench, device) = (&self.bench, &mut self.device);
        if proven {
            bench.enroll_over(&https, SIMPLE_REENROLL, device, "sw-1")
        } else {
            bench.enroll_bare(&https, SIMPLE_REENROLL, device, "sw-1")
        }
    }

    /// Nothing more than the two certificates of the beginning was issued.
    fn is_as_it_was(&self, before: &Value) {
        assert_eq!(self.bench.lab.issued("sw-1"), 2);
        assert_eq!(self.bench.tpm("sw-1"), *before);
    }
}

/// Goal: once a device is bound, every further key needs evidence, even in a group that never asked
/// for any; the key that is proven already does not.
#[test]
fn a_rekey_of_a_bound_device_without_evidence_is_refused() {
    let mut moved = Moved::new();
    let before = moved.bench.tpm("sw-1");
    let proven = moved.device.key.clone();
    moved.device.key = moved.device.vault.make(Template::DeviceKey).or_fail("a new key");
    let reply = moved.rekey(false);
    assert_eq!(reply.verdict(), (403, "evidence-required"), "{}", reply.text());
    moved.is_as_it_was(&before);
    let token = moved.bench.lab.operate(&["token", "issue", "sw-1"]);
    let https = moved.bench.lab.https().basic("sw-1", token.trim());
    let (bench, device) = (&moved.bench, &mut moved.device);
    let reply = bench.enroll_bare(&https, SIMPLE_ENROLL, device, "sw-1");
    assert_eq!(reply.verdict(), (403, "evidence-required"), "a token does not help");
    moved.is_as_it_was(&before);
    moved.device.key = proven;
    enrolled(&moved.rekey(false));
}

/// Goal: the key in a file that a device had before it moved to its TPM is past.
#[test]
fn the_software_key_of_a_bound_device_is_not_renewed() {
    let moved = Moved::new();
    let csr = base64(&request(&moved.identity.key, "/CN=sw-1", &[]));
    let https = moved.bench.lab.https_as(&moved.identity);
    let reply = https.post(SIMPLE_REENROLL, csr.as_bytes());
    assert_eq!(reply.verdict(), (403, "evidence-required"), "{}", reply.text());
    assert_eq!(moved.bench.lab.issued("sw-1"), 2);
}

/// Goal: the attestation key of a living device does not change.
#[test]
fn a_rekey_by_another_attestation_key_is_refused() {
    let mut moved = Moved::new();
    let before = moved.bench.tpm("sw-1");
    let recorded = moved.device.ak.clone();
    moved.device.key = moved.device.vault.make(Template::DeviceKey).or_fail("a new key");
    moved.device.ak = moved.device.vault.make(Template::AttestationKey).or_fail("another");
    let reply = moved.rekey(true);
    assert_eq!(reply.verdict(), (403, "ak-changed"), "{}", reply.text());
    moved.is_as_it_was(&before);
    moved.device.ak = recorded;
    enrolled(&moved.rekey(true));
    assert_eq!(moved.bench.lab.issued("sw-1"), 3);
}

/// Goal: a certificate of the device does not bring another TPM in.
#[test]
fn a_rekey_in_another_tpm_is_refused() {
    let mut moved = Moved::new();
    let before = moved.bench.tpm("sw-1");
    let mine = std::mem::replace(&mut moved.device, moved.bench.device("other"));
    let reply = moved.rekey(true);
    assert_eq!(reply.verdict(), (409, "ek-conflict"), "{}", reply.text());
    assert_eq!(moved.bench.tpm("sw-1")["bound"], before["bound"]);
    assert_eq!(moved.bench.tpm("sw-1")["conflicts"][0]["ekSha256"], moved.device.ek_id());
    moved.device = mine;
    enrolled(&moved.rekey(true));
}

/// Goal: a TPM whose counts run backwards may be a copy of itself: that is told, not decided.
#[test]
fn a_clone_of_a_tpm_is_noticed() {
    let bench = Bench::new();
    let stop = Stop::default();
    let mut device = bench.device("tpm");
    let (ak, key) = (device.ak.clone(), device.key.clone());
    device.vault.tpm().transport().hang_up();
    device.tpm.shutdown(&stop).or_fail("a shutdown");
    let folder = bench.lab.path("clone");
    let clone = Swtpm::clone_of(&device.tpm, &folder).or_fail("a clone");
    let mut copies = [device.tpm, clone].map(|tpm| {
        let mut copy = Claimant::new(powered(tpm), EkTemplate::P256);
        copy.certificates.clone_from(&device.certificates);
        (copy.ak, copy.key) = (ak.clone(), key.clone());
        copy
    });
    enrolled(&bench.enroll(&mut copies[0], DEVICE));
    for _ in 0..2 {
        copies[0].vault.tpm().transport().hang_up();
        copies[0].tpm.shutdown(&stop).or_fail("a shutdown");
        copies[0].tpm.start(&stop).or_fail("a start");
        copies[0].vault.tpm().startup().or_fail("a startup");
    }
    enrolled(&bench.enroll(&mut copies[0], DEVICE));
    assert_eq!(bench.tpm(DEVICE)["bound"]["cloneSigns"], 0);
    enrolled(&bench.enroll(&mut copies[1], DEVICE));
    assert_eq!(bench.tpm(DEVICE)["bound"]["cloneSigns"], 1);
    assert!(bench.events(DEVICE).contains(&"clone-sign".to_owned()));
}
