//! The firmware's TLS against real servers (openssl, mosquitto, our provisioner), and against
//! servers that break off, lie, or are not ours.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use embedded_io::{ErrorKind, ErrorType, Read, ReadReady, Write};
use fleetcert_core::time::Wall;
use fleetcert_firmware::keystore::KeyFault;
use fleetcert_firmware::tls::{Connection, RecordFault, Signer, TlsError};
use fleetcert_firmware::verifier::Refusal;
use fleetcert_rig::ports;
use fleetcert_rig::process::Process;
use fleetcert_tests::lab::by_hand::{new_key_of, text};
use fleetcert_tests::lab::fake::{FakeServer, Manner};
use fleetcert_tests::lab::firmware::{ANSWER_MS_MAX, Device, Wire, dev_1, kind, software};
use fleetcert_tests::lab::forge::Flaw;
use fleetcert_tests::lab::liar::{Liar, Line, Script};
use fleetcert_tests::lab::pki::{self, Node};
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail};
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePrivateKey as _;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// A server tree and a device tree, as files for openssl.
struct Trees {
    folder: tempfile::TempDir,
    server_root: Node,
    issuing: Node,
    device_root: Node,
    device: Node,
}

impl Trees {
    fn new() -> Self {
        let folder = tempfile::tempdir().or_fail("a folder");
        let server_root = Node::root(pki::authority("server root"));
        let issuing = server_root.signs(pki::authority("server issuing"));
        let device_root = Node::root(pki::authority("device root"));
        let device = device_root.signs(pki::device("dev-1"));
        Self { folder, server_root, issuing, device_root, device }
    }

    fn server(&self) -> Node {
        self.issuing.signs(pki::server("localhost"))
    }

    fn device(&self) -> Device {
        Device::new(&self.server_root.der, &self.device)
    }

    fn openssl(&self, leaf: &Node, more: &[&str]) -> OpensslServer {
        OpensslServer::start(self.folder.path(), leaf, self, more)
    }
}

/// `openssl s_server`, which wants a device's certificate and turns lines round.
struct OpensslServer {
    port: u16,
    log: PathBuf,
    _process: Process,
}

impl OpensslServer {
    fn start(folder: &Path, leaf: &Node, trees: &Trees, more: &[&str]) -> Self {
        let (chain, key) = leaf.write(folder, "server", &[]);
        let (issuers, _) = trees.issuing.write(folder, "issuers", &[&trees.server_root]);
        let (devices, _) = trees.device_root.write(folder, "devices", &[]);
        let [port] = ports::free().or_fail("a free port");
        let log = folder.join(format!("server-{port}.log"));
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-rev"]);
        command.args(["-cert", text(&chain), "-key", text(&key), "-cert_chain", text(&issuers)]);
        command.args(["-CAfile", text(&devices), "-Verify", "1", "-verify_return_error"]);
        command.args(more);
        let process = Process::start("openssl", command, &log).or_fail("openssl s_server");
        until("openssl to listen", ANSWER_MS_MAX, || {
            fs::read_to_string(&log).unwrap_or_default().contains("ACCEPT").then_some(())
        });
        Self { port, log, _process: process }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Reads until `wanted` octets are there.
fn read_exactly<T: Read + ReadReady + Write>(
    connection: &mut Connection<'_, T>,
    wanted: usize,
) -> Vec<u8> {
    let mut octets = vec![0; wanted];
    connection.read_exact(&mut octets).or_fail("octets");
    octets
}

/// Goal: openssl takes our certificate and our signature, and we talk.
#[test]
fn openssl_and_the_device_talk_with_certificates_on_both_sides() {
    let trees = Trees::new();
    let server = trees.openssl(&trees.server(), &["-tls1_3"]);
    let mut device = trees.device();
    for _ in 0..2 {
        let mut connection = device.open(Wire::to(server.port)).or_fail("a connection");
        assert_eq!(connection.server_validity().not_before, Wall(1_577_836_800));
        assert_eq!(connection.read_if_ready(&mut [0; 10]), Ok(None), "it has said nothing yet");
        connection.write_all(b"desserts\n").or_fail("to write");
        connection.flush().or_fail("to flush");
        assert_eq!(read_exactly(&mut connection, 9), b"stressed\n");
        connection.close();
    }
    assert!(server.log().contains("CN = dev-1"), "{}", server.log());
}

/// Goal: an answer of many records arrives whole: openssl keeps to the fragments we asked for.
#[test]
fn openssl_keeps_to_our_fragments() {
    let trees = Trees::new();
    let server = trees.openssl(&trees.server(), &["-tls1_3"]);
    let mut device = trees.device();
    let mut connection = device.open(Wire::to(server.port)).or_fail("a connection");
    let line: Vec<u8> = (0..12_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    for part in line.chunks(1_000) {
        connection.write_all(part).or_fail("to write");
    }
    connection.write_all(b"\n").or_fail("to write");
    connection.flush().or_fail("to flush");
    let mut answer = read_exactly(&mut connection, line.len());
    answer.reverse();
    assert_eq!(answer, line);
}

/// Goal: a server that cannot be what we verify is told from one that is not ours.
#[test]
fn servers_of_other_algorithms_and_versions_are_refused_by_their_reason() {
    let trees = Trees::new();
    let rsa = trees.folder.path().join("rsa.key");
    new_key_of("RSA", "rsa_keygen_bits:2048", &rsa);
    let rsa = fs::read_to_string(rsa).or_fail("a key");
    let rsa = KeyPair::from_pkcs8_pem_and_sign_algo(&rsa, &PKCS_RSA_SHA256).or_fail("a key");
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).or_fail("a key");
    let leaf = |key| trees.issuing.signs_with(pki::server("localhost"), key);
    let alert = |alert| TlsError::PeerAlert { description: Some(alert) };
    for (what, leaf, more, expected) in [
        ("RSA", leaf(rsa), "-tls1_3", alert(40)),
        ("TLS 1.2", trees.server(), "-tls1_2", alert(70)),
        ("P-384", leaf(p384), "-tls1_3", TlsError::PeerUntrusted(Refusal::ServerKeyUnsupported)),
    ] {
        let server = trees.openssl(&leaf, &[more]);
        let found = trees.device().open(Wire::to(server.port)).map(drop);
        assert_eq!(found, Err(expected), "{what}");
    }
}

/// Goal: the server hears why we leave, so that its operator can read it in a log.
#[test]
fn a_server_that_is_refused_is_told_why() {
    let trees = Trees::new();
    let server = trees.openssl(&trees.server(), &["-tls1_3"]);
    let mut device = Device::new(&trees.device_root.der, &trees.device);
    let refused = device.open(Wire::to(server.port)).map(drop);
    assert_eq!(refused, Err(TlsError::PeerUntrusted(Refusal::IssuerUnknown)));
    until("openssl to say what it heard", ANSWER_MS_MAX, || {
        server.log().contains("alert unknown ca").then_some(())
    });
    assert!(!server.log().contains("dev-1"), "{}", server.log());
}

/// Goal: a key that does not sign is an error with its cause; the server is not proven anything,
/// and the next attempt can succeed.
#[test]
fn a_key_that_fails_is_an_error_and_not_the_end() {
    let trees = Trees::new();
    let server = trees.openssl(&trees.server(), &["-tls1_3"]);
    let mut device = trees.device();
    for fault in [KeyFault::Unavailable, KeyFault::Lost] {
        let mut broken = move |_: &[u8; 32]| Err(fault);
        let refused = device.open_with(Wire::to(server.port), Some(&mut broken)).map(drop);
        assert_eq!(refused, Err(TlsError::LocalKey(fault)));
    }
    let mut wrong = |_: &[u8; 32]| Ok([1; 64]);
    let mut connection =
        device.open_with(Wire::to(server.port), Some(&mut wrong)).or_fail("our side of it");
    let refused = connection.read(&mut [0; 8]);
    assert_eq!(refused, Err(TlsError::PeerAlert { description: None }), "a wrong signature");
    assert_eq!(connection.read(&mut [0; 8]), refused, "and it stays so");
    drop(connection);
    device.open(Wire::to(server.port)).or_fail("a connection");
}

/// MQTT 3.1.1 CONNECT as client `dev-1`, clean session, keep-alive of 60 s.
const CONNECT: &[u8] = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05dev-1";

/// Goal: mosquitto with the provisioner's configuration lets the device in, by its certificate; it
/// sends its root along, and no signature is verified for that.
#[test]
fn mosquitto_lets_the_device_in() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = dev_1(&lab);
    let mut connection = device.open(Wire::to(broker.port())).or_fail("a connection");
    connection.write_all(CONNECT).or_fail("to write");
    connection.flush().or_fail("to flush");
    assert_eq!(read_exactly(&mut connection, 4), [0x20, 2, 0, 0], "CONNACK, accepted");
    assert_eq!(connection.read_if_ready(&mut [0; 8]), Ok(None));
    connection.write_all(&[0xc0, 0]).or_fail("PINGREQ");
    connection.flush().or_fail("to flush");
    let mut pong = [0; 8];
    let len =
        until("PINGRESP", ANSWER_MS_MAX, || connection.read_if_ready(&mut pong).or_fail("to read"));
    assert_eq!(pong[..len], [0xd0, 0]);
    connection.write_all(&[0xe0, 0]).or_fail("DISCONNECT");
    connection.close();
}

/// Goal: who shows mosquitto no certificate learns it at the first read.
#[test]
fn mosquitto_refuses_a_device_without_a_certificate() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = dev_1(&lab);
    let mut connection = device.open_with(Wire::to(broker.port()), None).or_fail("our side of it");
    let refused = connection.read(&mut [0; 8]);
    assert_eq!(refused, Err(TlsError::PeerAlert { description: None }));
}

/// Goal: the provisioner, which is rustls, is spoken to with and without a certificate.
#[test]
fn the_provisioner_answers_the_device() {
    let lab = Lab::new();
    let mut device = dev_1(&lab);
    let key = device.key.clone();
    let mut signer = software(&key);
    for identity in [None, Some(&mut signer as &mut dyn Signer)] {
        let wire = Wire::to(lab.provisioner_port());
        let mut connection = device.open_with(wire, identity).or_fail("a connection");
        let request = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: localhost\r\n\r\n";
        connection.write_all(request).or_fail("to write");
        connection.flush().or_fail("to flush");
        assert_eq!(read_exactly(&mut connection, 15), b"HTTP/1.1 200 OK");
    }
}

/// Goal: none of the wrong servers of the agent's stories hears a word of the device.
#[test]
fn no_wrong_server_hears_a_word() {
    let lab = Lab::new();
    let signer = lab.enroll_by_hand("signer");
    let mut device = dev_1(&lab);
    for (flaw, code) in [
        (Flaw::ClientOnly, "server-auth-missing"),
        (Flaw::Expired, "expired"),
        (Flaw::OtherName, "name-mismatch"),
        (Flaw::SignedByDevice, "issuer-not-authority"),
        (Flaw::WrongAuthority, "issuer-unknown"),
    ] {
        let server = FakeServer::start(0, &lab.forged(flaw, &signer), Manner::Answer(vec![]));
        let refused = device.open(Wire::to(server.port())).map(drop);
        assert_eq!(refused.map_err(|error| error.code()), Err(code), "{flaw:?}");
        let seen = server.seen();
        assert_eq!((seen.handshakes, seen.said), (0, Vec::new()), "{flaw:?}");
    }
}

/// rustls as a server, without a network: what it says can be cut and spoilt.
struct Memory {
    server: ServerConnection,
    out: Vec<u8>,
    read: usize,
    cut: usize,
    spoilt: Option<usize>,
}

impl Memory {
    fn new(config: &Arc<ServerConfig>) -> Self {
        let server = ServerConnection::new(Arc::clone(config)).or_fail("a server");
        Self { server, out: Vec::new(), read: 0, cut: usize::MAX, spoilt: None }
    }

    fn knows_us(&self) -> bool {
        self.server.peer_certificates().is_some()
    }
}

impl ErrorType for Memory {
    type Error = ErrorKind;
}

impl Read for Memory {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, ErrorKind> {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.out).map_err(kind)?;
        }
        let end = self.out.len().min(self.cut);
        let len = octets.len().min(end - self.read.min(end));
        octets[..len].copy_from_slice(&self.out[self.read..self.read + len]);
        if let Some(at) = self.spoilt.filter(|at| (self.read..self.read + len).contains(at)) {
            octets[at - self.read] ^= 0x21;
        }
        self.read += len;
        Ok(len)
    }
}

impl ReadReady for Memory {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(self.server.wants_write() || self.read < self.out.len().min(self.cut))
    }
}

impl Write for Memory {
    fn write(&mut self, octets: &[u8]) -> Result<usize, ErrorKind> {
        let mut rest = octets;
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).map_err(kind)?;
            // What it does not like it says in an alert, which we read.
            let _verdict = self.server.process_new_packets();
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

fn memory_config(trees: &Trees) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(trees.device_root.der.clone())).or_fail("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let leaf = trees.server();
    let chain = [&leaf, &trees.issuing].map(|node| CertificateDer::from(node.der.clone()));
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).or_fail("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .or_fail("versions")
        .with_client_cert_verifier(verifier.build().or_fail("a verifier"))
        .with_single_cert(chain.to_vec(), key)
        .or_fail("a configuration");
    Arc::new(config)
}

/// The server's first flight, of which the octets differ each time, and the lengths may.
fn flight(trees: &Trees, config: &Arc<ServerConfig>) -> Vec<u8> {
    let mut memory = Memory::new(config);
    let mut device = trees.device();
    device.open(&mut memory).or_fail("a connection");
    assert!(memory.knows_us());
    memory.out.truncate(memory.read);
    memory.out
}

/// Where nobody looks: versions of records in the clear (RFC 8446 §5.1), and what stands in one
/// that is there for middleboxes (§D.4).
fn meaningless(flight: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some([kind, _, _, high, low]) = flight.get(at..at + 5) {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        match kind {
            20 => found.extend([at + 1, at + 2, at + 5]),
            22 => found.extend([at + 1, at + 2]),
            _ => {}
        }
        at += 5 + len;
    }
    found
}

/// Goal: a server that ends at any octet of its handshake leaves an error, has not learnt who we
/// are, and nothing panics.
#[test]
fn a_server_that_ends_at_any_octet_of_the_handshake_is_an_error() {
    let trees = Trees::new();
    let config = memory_config(&trees);
    let mut device = trees.device();
    // A signature is two octets shorter now and then.
    for cut in 0..flight(&trees, &config).len() - 8 {
        let mut memory = Memory { cut, ..Memory::new(&config) };
        let refused = device.open(&mut memory).map(drop);
        assert_eq!(refused, Err(TlsError::PeerEnded), "cut at {cut}");
        assert!(!memory.knows_us(), "cut at {cut}");
    }
}

/// Goal: a handshake with any octet changed on the way is an error, has told nothing, and nothing
/// panics.
#[test]
fn a_handshake_with_any_octet_changed_is_an_error() {
    let trees = Trees::new();
    let config = memory_config(&trees);
    let mut device = trees.device();
    let flight = flight(&trees, &config);
    let meaningless = meaningless(&flight);
    for at in (0..flight.len()).filter(|at| !meaningless.contains(at)) {
        let mut memory = Memory { spoilt: Some(at), ..Memory::new(&config) };
        let refused = device.open(&mut memory).map(drop);
        // A signature is an octet or two shorter now and then: nothing was changed then.
        let is_changed = at < memory.read;
        assert!(refused.is_err() && !memory.knows_us() || !is_changed, "octet {at}: {refused:?}");
    }
}

/// Goal: a record of 16 KiB, which a server that ignores our wish may send, is refused by its
/// length and ends the connection.
#[test]
fn a_record_of_sixteen_kib_is_an_error() {
    let trees = Trees::new();
    let mut device = trees.device();
    let mut long = Memory::new(&memory_config(&trees));
    long.server.set_buffer_limit(None);
    long.server.writer().write_all(&[9; 16_384]).or_fail("an answer");
    let mut connection = device.open(&mut long).or_fail("a connection");
    let found = 16_384 + 17;
    let too_long = TlsError::PeerRecord(RecordFault::TooLong { found });
    assert_eq!(connection.read(&mut [0; 100]), Err(too_long));
    assert_eq!(connection.write(b"more"), Err(too_long), "it is over");
}

/// A server's end without a network.
struct Deceived<'l>(&'l mut Liar);

impl ErrorType for Deceived<'_> {
    type Error = ErrorKind;
}

impl Read for Deceived<'_> {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, ErrorKind> {
        let len = octets.len().min(self.0.out.len());
        octets[..len].copy_from_slice(&self.0.out[..len]);
        self.0.out.drain(..len);
        Ok(len)
    }
}

impl ReadReady for Deceived<'_> {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(true)
    }
}

impl Write for Deceived<'_> {
    fn write(&mut self, octets: &[u8]) -> Result<usize, ErrorKind> {
        self.0.hear(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// What the device says to a liar: the outcome, and whether it said more than an alert.
fn lied_to(device: &mut Device, script: Script) -> (Result<(), TlsError>, Vec<u8>) {
    let mut liar = Liar::new(script);
    let outcome = device.open(Deceived(&mut liar)).map(drop);
    (outcome, liar.heard)
}

/// The key of a server's good certificate.
fn good_key() -> SigningKey {
    SigningKey::from_slice(&[3; 32]).or_fail("a key")
}

fn sign_well(message: &[u8]) -> Vec<u8> {
    let signature: Signature = good_key().sign(message);
    signature.to_der().as_bytes().to_vec()
}

fn sign_with_another_key(message: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_slice(&[4; 32]).or_fail("a key");
    let signature: Signature = key.sign(message);
    signature.to_der().as_bytes().to_vec()
}

fn sign_something_else(_: &[u8]) -> Vec<u8> {
    sign_well(b"something else")
}

fn sign_nothing(_: &[u8]) -> Vec<u8> {
    Vec::new()
}

/// Goal: a server that leaves out, doubles or mixes up what proves it is not believed, and learns
/// nothing: not our certificate, and not a protected word.
#[test]
fn a_server_that_does_not_prove_itself_in_order_is_not_believed() {
    use Line::{Certificate, Extensions, Finished, Request, Verify};
    let trees = Trees::new();
    let mut device = trees.device();
    let key = SecretKey::from(&good_key()).to_pkcs8_der().or_fail("a key");
    let key = KeyPair::try_from(key.as_bytes()).or_fail("a key");
    let leaf = trees.issuing.signs_with(pki::server("localhost"), key);
    let chain = Certificate(vec![leaf.der, trees.issuing.der.clone()]);
    let good = Verify(sign_well);

    let script = vec![Extensions, Request, chain.clone(), good.clone(), Finished];
    let (outcome, heard) = lied_to(&mut device, script);
    assert_eq!(outcome, Ok(()), "the liar can tell the truth, so that its lies mean something");
    assert!(heard.len() > 500, "our certificate");

    let unproven = TlsError::PeerUnproven;
    for (what, script, expected) in [
        ("no certificate", vec![Extensions, Finished], unproven),
        ("no certificate, but ours asked for", vec![Extensions, Request, Finished], unproven),
        ("no signature", vec![Extensions, Request, chain.clone(), Finished], unproven),
        (
            "the signature first",
            vec![Extensions, Request, good.clone(), chain.clone(), Finished],
            unproven,
        ),
        (
            "two certificates",
            vec![Extensions, chain.clone(), chain.clone(), good.clone(), Finished],
            unproven,
        ),
        (
            "another certificate afterwards",
            vec![Extensions, chain.clone(), good, chain.clone(), Finished],
            unproven,
        ),
        (
            "no certificate in the message",
            vec![Extensions, Certificate(vec![]), Verify(sign_well), Finished],
            TlsError::PeerUntrusted(Refusal::Unsent),
        ),
    ] {
        let (outcome, heard) = lied_to(&mut device, script);
        assert_eq!(outcome, Err(expected), "{what}");
        assert_eq!((heard.first(), heard.len()), (Some(&21), 7), "{what}: an alert only");
    }
    for sign in [sign_with_another_key, sign_something_else, sign_nothing] {
        let script = vec![Extensions, Request, chain.clone(), Verify(sign), Finished];
        let (outcome, heard) = lied_to(&mut device, script);
        assert_eq!(outcome, Err(TlsError::PeerSignature));
        assert_eq!(heard.len(), 7);
    }
}

/// Goal: a protected record with nothing in it is refused by its length: the library would panic.
#[test]
fn a_protected_record_with_nothing_in_it_is_an_error() {
    let trees = Trees::new();
    let script = vec![Line::Extensions, Line::Nothing, Line::Finished];
    let (outcome, _) = lied_to(&mut trees.device(), script);
    assert_eq!(outcome, Err(TlsError::PeerRecord(RecordFault::Empty)));
}
