//! The firmware's exchanges with the real provisioner, through its own TLS; and with one that
//! speaks garbage or ends in mid-answer.

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{Enrollment, Provisioner, Token};
use fleetcert_core::est::csr::{P256Signature, UnsignedRequest};
use fleetcert_core::event::Failure;
use fleetcert_core::record::Identity;
use fleetcert_core::time::Wall;
use fleetcert_firmware::http::{BUFFER_LEN, Client, Credential, Deadline, HttpError, Parties};
use fleetcert_firmware::tls::{Connection, Signer};
use fleetcert_firmware::verifier::Server;
use fleetcert_tests::lab::fake::{FakeServer, Manner};
use fleetcert_tests::lab::firmware::{ANSWER_MS_MAX, Device, HostClock, Wire, dev_1, software};
use fleetcert_tests::lab::{Lab, OrFail};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest as _, Sha256};

const NONCE: [u8; 16] = [0x5a; 16];

/// What stands before a point on P-256 in a SubjectPublicKeyInfo (RFC 5480 §2).
const SPKI_PREFIX: &[u8; 26] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
    \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

fn spki(key: &SigningKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], key.verifying_key().to_encoded_point(false).as_bytes()].concat()
}

/// What came of a question, and the time that was told and may be believed.
#[derive(Debug)]
struct Told<T> {
    outcome: Result<T, HttpError>,
    server_time: Option<Wall>,
}

/// A device on its way to the provisioner at `port`.
struct Caller {
    device: Device,
    id: DeviceId,
    port: u16,
}

impl Caller {
    fn new(lab: &Lab, id: &str, port: u16) -> Self {
        let mut device = dev_1(lab);
        device.server = Server::Provisioner;
        Self { device, id: DeviceId::parse(id).or_fail("a device id"), port }
    }

    /// Lets `ask` ask over one connection, with the device's certificate or without.
    fn ask<T>(
        &mut self,
        has_identity: bool,
        ask: impl FnOnce(&mut Client<'_, Connection<'_, Wire>, HostClock>) -> T,
    ) -> T {
        let key = self.device.key.clone();
        let mut signer = software(&key);
        let signer = has_identity.then_some(&mut signer as &mut dyn Signer);
        let mut connection =
            self.device.open_with(Wire::to(self.port), signer).or_fail("a connection");
        let server = connection.server_validity();
        let host = format!("localhost:{}", self.port);
        let provisioner = Provisioner { host: &host, label: None };
        let parties = Parties { device_id: &self.id, provisioner };
        let deadline = Deadline { clock: HostClock::started(), at_ms: ANSWER_MS_MAX };
        let mut buffer = [0; BUFFER_LEN];
        ask(&mut Client::new(&mut connection, server, parties, deadline, &mut buffer))
    }

    fn enroll(&mut self, key: &SigningKey, credential: Credential<'_>) -> Told<Identity> {
        let spki = spki(key);
        let mut buffer = [0; 512];
        let request = UnsignedRequest::new(&self.id, &spki, &[], &mut buffer);
        let request = request.or_fail("a request");
        let signature: Signature = key.sign(request.to_be_signed());
        let signature = P256Signature::parse(signature.to_der().as_bytes()).or_fail("a signature");
        let csr = request.finish(&signature).or_fail("a signed request").to_vec();
        let spki_sha256 = Sha256::digest(&spki).into();
        let enrollment = Enrollment {
            id: csr[csr.len() - 16..].try_into().or_fail("16 octets"),
            csr: &csr,
            challenge: None,
        };
        let has_identity = matches!(credential, Credential::Certificate);
        let mut issued = Identity::new();
        let Told { outcome, server_time } = self.ask(has_identity, |client| {
            let outcome = client.enroll(enrollment, credential, &spki_sha256, &mut issued);
            Told { outcome, server_time: client.server_time() }
        });
        Told { outcome: outcome.map(|()| issued), server_time }
    }
}

/// Goal: a device comes to its first certificate by a token, uses it, asks about it, and renews it;
/// the provisioner's time is told with every answer.
#[test]
fn a_device_enrolls_asks_and_renews() {
    let lab = Lab::new();
    let token = lab.token("fw-1");
    let token = Token::parse(&token).or_fail("a token");
    let mut caller = Caller::new(&lab, "fw-1", lab.provisioner_port());
    let key = SigningKey::from_slice(&[7; 32]).or_fail("a key");

    let told = caller.enroll(&key, Credential::Token(token));
    let first = told.outcome.or_fail("a certificate");
    assert!(told.server_time.is_some());
    caller.device.certificate = first.certificate.to_vec();
    caller.device.key = key;

    let (serial, advice) = caller.ask(true, |client| {
        let serial = client.whoami(&NONCE);
        assert!(client.server_time().is_some() && client.is_usable(), "one connection is enough");
        let outcome = client.renewal_info(&first.certificate);
        (serial, Told { outcome, server_time: client.server_time() })
    });
    assert_eq!(serial, Ok(first.serial.clone()));
    assert!(advice.server_time.is_some());
    let window = advice.outcome.or_fail("advice").window;
    assert!(window.is_some());

    let key = SigningKey::from_slice(&[8; 32]).or_fail("a key");
    let second = caller.enroll(&key, Credential::Certificate).outcome.or_fail("a renewal");
    assert_ne!(second.serial, first.serial);
    assert_eq!(lab.issued("fw-1"), 2);
}

/// Goal: what the provisioner refuses is a refusal with its status; a certificate of another
/// device is seen as one.
#[test]
fn a_spent_token_and_another_devices_certificate_are_refused() {
    let lab = Lab::new();
    let mut caller = Caller::new(&lab, "fw-1", lab.provisioner_port());
    let key = SigningKey::from_slice(&[7; 32]).or_fail("a key");
    let wrong = Credential::Token(Token::parse("no-such-token").or_fail("a token"));
    let refused = caller.enroll(&key, wrong);
    let Err(HttpError::Refused { status, .. }) = refused.outcome else {
        panic!("a refusal, not {refused:?}")
    };
    assert!((400..500).contains(&status));
    assert!(refused.server_time.is_some(), "who refuses tells the time as well");

    let seen = caller.ask(true, |client| client.whoami(&NONCE));
    assert_eq!(seen, Err(HttpError::PeerSawAnother), "it is dev-1's");
    assert_eq!(Failure::from(HttpError::PeerSawAnother), Failure::WrongCertificateSeen);
}

/// Goal: a server that is ours and speaks garbage, or ends within its answer, is an error; nothing
/// is taken for an answer.
#[test]
fn garbage_and_half_answers_are_errors() {
    let lab = Lab::new();
    let chain = lab.flawless();
    let mut caller = Caller::new(&lab, "dev-1", 0);
    for (says, expected) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[..], Failure::Unreachable),
        (b"HTTP/1.1 200 OK\r\nConte", Failure::Unreachable),
        (b"220 mail.example ESMTP\r\n\r\n", Failure::AnswerMalformed),
        (b"\x20\x02\x00\x00", Failure::AnswerMalformed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Failure::AnswerMalformed),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            Failure::AnswerMalformed,
        ),
    ] {
        let server = FakeServer::start(0, &chain, Manner::Answer(says.to_vec()));
        caller.port = server.port();
        let told = caller.ask(false, |client| client.whoami(&NONCE));
        let failure = Failure::from(told.err().or_fail("no answer"));
        assert_eq!(failure, expected, "{}", String::from_utf8_lossy(says));
    }
}
