//! A device that shows in TLS a certificate whose key is in its TPM: the same key needs nothing
//! more, another key needs evidence by the attestation key on record.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;

use fleetcert_core::wire::{CHALLENGE_HEADER, CHALLENGE_PATH, Challenge, MEDIA_TYPE};
use fleetcert_rig::ports;
use fleetcert_rig::process::Process;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::{SIMPLE_REENROLL, base64, text};
use fleetcert_tests::lab::claimant::{Claimant, Request, hex, spki};
use fleetcert_tests::lab::https::Reply;
use fleetcert_tests::lab::wait::until;
use fleetcert_tpm::template::Template;
use serde_json::Value;

use crate::bench::{Bench, DEVICE, enrolled};
use crate::tls::TpmIdentity;

/// An attested device with its certificate, and what was on record of its TPM in the beginning.
struct Living {
    bench: Bench,
    device: Claimant,
    identity: TpmIdentity,
    record: Value,
}

impl Living {
    fn new() -> Self {
        let bench = Bench::new();
        let mut device = bench.device("tpm");
        let reply = bench.enroll(&mut device, DEVICE);
        enrolled(&reply);
        let identity = TpmIdentity::issued(&reply, &device);
        let record = bench.tpm(DEVICE);
        Self { bench, device, identity, record }
    }

    /// Asks for the device key with these attributes, in answer to that challenge.
    fn ask(&mut self, attributes: Vec<u8>, challenge: Option<[u8; 16]>) -> Reply {
        let spki = spki(&self.device.key);
        let request = Request { device: DEVICE, spki, attributes, challenge };
        let csr = base64(&self.device.signed(&request));
        let id = challenge.map(|id| hex(&id)).unwrap_or_default();
        let mut fields = vec![("Content-Type", "application/pkcs10")];
        fields.extend((!id.is_empty()).then_some((CHALLENGE_HEADER, id.as_str())));
        let (bench, device) = (&self.bench, &mut self.device);
        self.identity.post(&bench.lab, device, SIMPLE_REENROLL, &fields, csr.as_bytes())
    }

    fn renew(&mut self) -> Reply {
        self.ask(Vec::new(), None)
    }

    fn rekey(&mut self) -> Reply {
        let given = self.bench.challenge(&self.device.asking(DEVICE));
        let attribute = self.device.stated(&given).attribute();
        self.ask(attribute, Some(given.id))
    }

    #[track_caller]
    fn refused(&self, reply: &Reply, expected: (u16, &str)) {
        assert_eq!(reply.verdict(), expected, "{}", reply.text());
        assert_eq!(self.bench.lab.issued(DEVICE), 1);
        assert_eq!(self.bench.tpm(DEVICE), self.record);
    }
}

/// Goal: renewing takes the key, and no new evidence: that key cannot have left its TPM.
#[test]
fn a_renewal_with_the_proven_key_needs_no_evidence() {
    let mut living = Living::new();
    enrolled(&living.renew());
    assert_eq!(living.bench.lab.issued(DEVICE), 2);
    assert_eq!(living.bench.tpm(DEVICE)["bound"], living.record["bound"]);
}

/// Goal: a new key takes evidence, and by the attestation key on record.
#[test]
fn a_rekey_in_tls_takes_evidence_by_the_recorded_attestation_key() {
    let mut living = Living::new();
    living.device.key = living.device.vault.make(Template::DeviceKey).or_fail("a new key");
    let reply = living.renew();
    living.refused(&reply, (403, "evidence-required"));
    let recorded = living.device.ak.clone();
    living.device.ak = living.device.vault.make(Template::AttestationKey).or_fail("another");
    let reply = living.rekey();
    living.refused(&reply, (403, "ak-changed"));
    living.device.ak = recorded;
    enrolled(&living.rekey());
    assert_eq!(living.bench.lab.issued(DEVICE), 2);
    let bound = &living.bench.tpm(DEVICE)["bound"];
    assert_eq!(bound["evidence"]["keyName"], hex(living.device.key.name().as_bytes()));
    assert_eq!(bound["since"], living.record["bound"]["since"]);
}

/// Goal: a certificate of a TPM's does not ask in another device's name either.
#[test]
fn a_challenge_over_tls_is_the_devices_own() {
    let mut living = Living::new();
    let fields = [("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)];
    for (name, expected) in [("gw-2", (403, "challenge-device")), (DEVICE, (200, ""))] {
        let body = living.device.asking(name).body();
        let (bench, device) = (&living.bench, &mut living.device);
        let reply = living.identity.post(&bench.lab, device, CHALLENGE_PATH, &fields, &body);
        assert_eq!(reply.verdict(), expected, "{}", reply.text());
        assert_eq!(Challenge::parse(&reply.body).is_ok(), expected.0 == 200);
    }
}

/// A server that is asked to listen does so within this time on a busy machine.
const LISTEN_MS_MAX: u64 = 20_000;

/// Goal: openssl, which knows nothing of us, takes a handshake that was signed in the TPM.
#[test]
fn openssl_accepts_a_handshake_that_the_tpm_has_signed() {
    let mut living = Living::new();
    let lab = &living.bench.lab;
    let (server, devices) = (lab.server("localhost"), lab.path("provisioner/device-ca.pem"));
    let [port] = ports::free().or_fail("a free port");
    let log = lab.path("s_server.log");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-rev", "-tls1_3"]);
    command.args(["-cert", text(&server.certificate), "-key", text(&server.key)]);
    // The chain of its own certificate is in the same file, behind it.
    command.args(["-cert_chain", text(&server.certificate), "-CAfile", text(&devices)]);
    command.args(["-Verify", "2", "-verify_return_error", "-partial_chain"]);
    let _server = Process::start("openssl", command, &log).or_fail("openssl s_server");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    until("openssl to listen", LISTEN_MS_MAX, || said().contains("ACCEPT").then_some(()));

    living.device.vault.tpm().transport().hang_up();
    let mut stream = living.identity.connect(&living.bench.lab, port);
    stream.write_all(b"desserts\n").or_fail("to write");
    let mut answer = [0; 9];
    stream.read_exact(&mut answer).or_fail("an answer");
    assert_eq!(&answer, b"stressed\n");
    assert!(said().contains(&format!("CN = {DEVICE}")), "{}", said());
}
