//! Every parser of bytes that somebody else wrote, as a function of bytes.
//!
//! **What it is.** [`TARGETS`]: for each parser a function that may be given anything. It must
//! return, without panic and in bounded time, and what it read must hold: a message that was parsed
//! is written and read back, a view stays inside its input. `tests/fuzz` drives them with a fuzzer;
//! `tests/tests/corpus.rs` runs each over its committed corpus, plainly, in every test run.
//!
//! **What it must never do.** Filter its input, or catch a panic: what a fuzzer finds here is a
//! finding.

// By its path: `tests/fuzz` compiles this file as a crate, whose modules would be looked for beside it.
#[path = "fuzz/firmware.rs"]
pub mod firmware;

use std::fmt;

use fleetcert_core::der::{Certificate, RENEWAL_ID_LEN_MAX};
use fleetcert_core::enroll;
use fleetcert_core::est::base64;
use fleetcert_core::est::cms::CertificateBag;
use fleetcert_core::est::csr::P256Signature;
use fleetcert_core::http::{Progress, Response, ResponseReader};
use fleetcert_core::record::{RECORD_LEN_MAX, Record};
use fleetcert_core::time::Wall;
use fleetcert_core::topic::Topic;
use fleetcert_core::wire::{Challenge, ChallengeRequest, RenewalInfo, WhoAmI};
use fleetcert_provisioner::attest::evidence::{Statement, attestation_key, endorsement_key};
use fleetcert_provisioner::attest::root::EkRoot;
use fleetcert_provisioner::attest::spki::Key;
use fleetcert_provisioner::attest::{allow, ek};
use fleetcert_provisioner::csr::Csr;
use fleetcert_provisioner::http::body;
use fleetcert_tpm::attest::Attest;
use fleetcert_tpm::name::Name;
use fleetcert_tpm::public::PublicArea;
use fleetcert_tpm::signature::Signature;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::transact::Transact;
use fleetcert_tpm::vault::{CERTIFIED_LEN_MAX, KeyBlob, Options, Vault};

/// A parser under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, that of its corpus and of its fuzz target.
    pub name: &'static str,
    /// What is to hold for any input. It panics if it does not.
    pub run: fn(&[u8]),
}

/// All of them, in the order of their names.
pub const TARGETS: &[Target] = &[
    Target { name: "allow_list", run: allow_list },
    Target { name: "attest", run: attest },
    Target { name: "base64", run: base64 },
    Target { name: "certificate", run: certificate },
    Target { name: "cms", run: cms },
    Target { name: "csr", run: csr },
    Target { name: "device_answer", run: |input| _ = firmware::device_answer(input) },
    Target { name: "ek_certificate", run: ek_certificate },
    Target { name: "est_body", run: est_body },
    Target { name: "factory_block", run: |input| _ = firmware::factory_block(input) },
    Target { name: "flash_log", run: |input| _ = firmware::flash_log(input) },
    Target { name: "http_response", run: http_response },
    Target { name: "key_blob", run: key_blob },
    Target { name: "mqtt_command", run: |input| _ = firmware::mqtt_command(input) },
    Target { name: "mqtt_session", run: |input| _ = firmware::mqtt_session(input) },
    Target { name: "public_area", run: public_area },
    Target { name: "record", run: record },
    Target { name: "server_chain", run: |input| _ = firmware::server_chain(input) },
    Target { name: "signature", run: signature },
    Target { name: "software_key", run: |input| _ = firmware::software_key(input) },
    Target { name: "statement", run: statement },
    Target { name: "topic", run: topic },
    Target { name: "tpm_keys", run: |input| _ = firmware::tpm_keys(input) },
    Target { name: "tpm_responses", run: tpm_responses },
    Target { name: "wire", run: wire },
];

/// The root of the maker whose TPMs' certificates are the seeds of `ek_certificate`.
const EK_ROOT: &[u8] = include_bytes!("../fuzz/ek-root.der");

/// A time at which those are good: 2027-01-15.
const EK_TIME: Wall = Wall(1_800_000_000);

/// Runs the target of this name.
///
/// # Panics
///
/// If there is none, or if what has to hold for `input` does not.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else { panic!("there is no fuzz target {name}") };
    (target.run)(input);
}

/// A list of devices and endorsement keys that an operator brings: CSV or JSON lines.
fn allow_list(input: &[u8]) {
    if let Ok(entries) = allow::parse(input) {
        assert!(entries.iter().all(|(device, _)| device.as_str().len() < input.len()));
    }
}

/// A statement of a TPM (`TPMS_ATTEST`).
fn attest(input: &[u8]) {
    let Ok(attest) = Attest::parse(input) else { return };
    assert!(attest.qualified_signer.len() + attest.extra_data.len() < input.len());
}

/// An EST body of the device's reader: base64 in any style (RFC 8951 §3.1).
fn base64(input: &[u8]) {
    let mut body = input.to_vec();
    if let Ok(decoded) = base64::decode_in_place(&mut body) {
        assert!(decoded.len() <= input.len());
    }
}

/// A certificate as a device reads it (RFC 5280), with every question that it asks of one.
fn certificate(input: &[u8]) {
    let Ok(certificate) = Certificate::parse(input) else { return };
    assert_eq!(certificate.as_der(), input);
    let _name = certificate.common_name();
    let _id = certificate.renewal_id(&mut [0; RENEWAL_ID_LEN_MAX]);
    assert!(certificate.serial().len() <= input.len());
    assert!(certificate.uris().chain(certificate.dns_names()).all(|name| name.len() < input.len()));
}

/// A certs-only message (RFC 5652 §5, RFC 7030 §4.1.3).
fn cms(input: &[u8]) {
    let Ok(bag) = CertificateBag::parse(input) else { return };
    let octets: usize = bag.map(<[u8]>::len).sum();
    assert!(octets < input.len());
}

/// A PKCS#10 request as the provisioner reads it (RFC 2986), and a signature as a device does.
fn csr(input: &[u8]) {
    if let Ok(csr) = Csr::verify(input) {
        assert!(csr.common_name().is_none_or(|name| name.len() < input.len()));
    }
    if let Ok(signature) = P256Signature::parse(input) {
        assert_eq!(signature.as_der(), input);
    }
}

/// The certificates that a device sends with its endorsement key, and one as a root.
fn ek_certificate(input: &[u8]) {
    let Ok(root) = EkRoot::parse(EK_ROOT) else { panic!("the root of the seeds is none") };
    if let Ok(certificate) = ek::verify(input, &[root], EK_TIME) {
        assert_eq!(
            Key::from_spki(&certificate.spki_der).map(|key| key.ek_id()),
            Ok(certificate.id)
        );
    }
    let _root = EkRoot::parse(input);
    let _key = Key::from_spki(input);
}

/// An EST body of the provisioner's reader: base64, PEM or DER.
fn est_body(input: &[u8]) {
    if let Ok(der) = body::decode(input) {
        assert!(der.len() <= input.len());
        let _read_back = body::decode(&body::Style::of(input).encode(&der));
    }
}

/// A response and whatever a device takes it for. The first octet says in what pieces it comes.
fn http_response(input: &[u8]) {
    let Some((pieces, octets)) = input.split_first() else { return };
    type Read = fn(Response<'_>);
    let readers: [Read; 5] = [
        |response| drop(enroll::read_enroll(response)),
        |response| drop(enroll::read_cacerts(response)),
        |response| drop(enroll::read_whoami(response, &[0; 16])),
        |response| drop(enroll::read_renewal_info(response)),
        |response| drop(enroll::read_challenge(response)),
    ];
    for read in readers {
        let mut buffer = vec![0; 4096];
        let mut reader = ResponseReader::new(&mut buffer);
        if receive(&mut reader, octets, usize::from(*pieces).max(1))
            && let Ok(response) = reader.finish()
        {
            read(response);
        }
    }
}

/// Whether the response is whole.
fn receive(reader: &mut ResponseReader<'_>, mut octets: &[u8], piece: usize) -> bool {
    loop {
        let space = reader.space();
        let len = piece.min(space.len()).min(octets.len());
        let (now, later) = octets.split_at(len);
        space[..len].copy_from_slice(now);
        octets = later;
        match reader.advance(len) {
            Ok(Progress::Done) => return true,
            Ok(_) if len > 0 => {}
            _ => return false,
        }
    }
}

/// A wrapped key, as a disk gives it back.
fn key_blob(input: &[u8]) {
    let Ok(blob) = KeyBlob::parse(input) else { return };
    assert_eq!(blob.as_bytes(), input);
    assert_eq!(Name::of_public_area(blob.public_area()), Ok(blob.name()));
    assert_eq!(blob.point()[0], 4);
}

/// The public area of a key (`TPMT_PUBLIC`), as itself and in either role of an attestation.
fn public_area(input: &[u8]) {
    if let Ok(area) = PublicArea::parse(input) {
        assert_eq!(Name::of_public_area(input).as_ref(), Ok(area.name()));
    }
    if let Ok(ek) = endorsement_key(input) {
        assert_eq!(Key::from_spki(&ek.spki_der()).as_ref(), Ok(ek.key()));
    }
    if let Ok(ak) = attestation_key(input) {
        let _refused = ak.verify(b"message", input);
    }
}

/// The durable record: a flash page or a file that something else wrote to.
fn record(input: &[u8]) {
    let Ok(record) = Record::parse(input) else { return };
    let mut buffer = [0; RECORD_LEN_MAX];
    let written = record.emit(&mut buffer).map(Record::parse);
    assert_eq!(written, Ok(Ok(record)));
}

/// A signature of a TPM (`TPMT_SIGNATURE`).
fn signature(input: &[u8]) {
    let _signature = Signature::parse(input);
}

/// The evidence in a request for a certificate: the values of its attribute.
fn statement(input: &[u8]) {
    let Ok(statement) = Statement::from_attribute_values(input) else { return };
    let parts = [&statement.attest, &statement.signature, &statement.public];
    assert!(parts.iter().map(|part| part.len()).sum::<usize>() < input.len());
}

/// The name of a topic, as a broker says it.
fn topic(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(topic) = Topic::parse(text) {
        assert_eq!(topic.emit(), text);
    }
}

/// What a TPM, or whoever sits on its bus, answers to a device that starts and enrolls: each
/// answer behind its length, two octets, big-endian. When there are no more the bus is dead.
fn tpm_responses(input: &[u8]) {
    assert!(tpm_replay(input) <= input.len());
}

/// Plays answers back; returns how many octets of them nobody asked for.
#[must_use]
pub fn tpm_replay(answers: &[u8]) -> usize {
    let mut left = answers;
    tpm_session(Answers(&mut left));
    left.len()
}

/// Everything that a device asks of its TPM, once, whatever becomes of it. Random numbers are
/// always the same, so that a session that was recorded can be played back to its end.
pub fn tpm_session<T: Transact>(transport: T) {
    let options = Options { parent: None, sharing: Sharing::Exclusive };
    let Ok(mut vault) = Vault::<T, 3>::open(transport, options) else { return };
    let _properties = vault.properties();
    let _random = vault.random();
    let mut certificates = [0; 4096];
    let ek = vault.endorsement(&mut certificates).map(|endorsement| endorsement.key);
    let (ak, key) = (vault.make(Template::AttestationKey), vault.make(Template::DeviceKey));
    if let (Ok(ak), Ok(key)) = (&ak, &key) {
        let _signature = vault.sign(key, &[0x5a; 32]);
        let _statement = vault.certify(key, ak, &[0x5b; 32], &mut [0; CERTIFIED_LEN_MAX]);
        if let Ok(ek) = ek {
            let _refused = vault.activate(&ek, ak, &[0x5c; 68], &[0x5d; 256]);
        }
    }
    let _closed = vault.close().map(drop);
}

/// A TPM that says what it was told to.
struct Answers<'i, 'b>(&'i mut &'b [u8]);

/// The bus is dead.
#[derive(Debug)]
struct Silence;

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("silence")
    }
}

impl Transact for Answers<'_, '_> {
    type Error = Silence;

    fn transact(&mut self, _: &[u8], response: &mut [u8]) -> Result<usize, Silence> {
        let (len, rest) = self.0.split_first_chunk().ok_or(Silence)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (answer, rest) = rest.split_at_checked(len).ok_or(Silence)?;
        *self.0 = rest;
        // A transport may say that more came than there was room for.
        let taken = len.min(response.len());
        response[..taken].copy_from_slice(&answer[..taken]);
        Ok(len)
    }

    fn pause_ms(&mut self, _: u32) {}

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), Silence> {
        repeated(out);
        Ok(())
    }
}

/// The random numbers of a session that is to be played back.
pub fn repeated(out: &mut [u8]) {
    for (octet, index) in out.iter_mut().zip(1..=u8::MAX) {
        *octet = index;
    }
}

/// Our own messages, each of them; what is read is written and read back the same.
fn wire(input: &[u8]) {
    let mut out = vec![0; ChallengeRequest::MAX_LEN];
    if let Ok(message) = WhoAmI::parse(input) {
        assert_eq!(message.emit(&mut out).map(WhoAmI::parse), Ok(Ok(message)));
    }
    if let Ok(message) = RenewalInfo::parse(input) {
        assert_eq!(message.emit(&mut out).map(RenewalInfo::parse), Ok(Ok(message)));
    }
    if let Ok(message) = ChallengeRequest::parse(input) {
        assert_eq!(message.emit(&mut out).map(ChallengeRequest::parse), Ok(Ok(message)));
    }
    if let Ok(message) = Challenge::parse(input) {
        assert_eq!(message.emit(&mut out).map(Challenge::parse), Ok(Ok(message)));
    }
}
