//! Enrollments of a key in a real TPM, with servers that know of challenges and with one that
//! does not.

use std::cell::RefCell;
use std::rc::Rc;

use fleetcert_agent::config::Key;
use fleetcert_agent::disk::StateDir;
use fleetcert_agent::keystore::KeyStore;
use fleetcert_agent::peers::Peers;
use fleetcert_agent::status::KeyStatus;
use fleetcert_agent::transport::Address;
use fleetcert_core::event::{Failure, Reason};
use fleetcert_core::port::{Answer, Keys as _, Peers as _};
use fleetcert_core::record::{Identity, KeySource, Kind, Record, Request, RequestId, Slot};
use fleetcert_core::time::Wall;

use crate::support::device::{DEVICE, Device};
use crate::support::pki::{Authority, SERVER};
use crate::support::server::{Server, answer, http, issued, shown};
use crate::support::swtpm::Swtpm;
use crate::support::{TRUSTED, run, soon, until};

use smol::io::AsyncReadExt as _;

/// A device with its keys in a TPM, and the paths that its provisioner was asked for.
struct Stage {
    devices: Authority,
    device: Device,
    asked: Rc<RefCell<Vec<String>>>,
    _tpm: Swtpm,
}

impl Stage {
    /// Challenges are answered so; every request for a certificate with one.
    fn new(challenged: &'static str) -> Self {
        let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
        let server = smol::block_on(Server::new(&servers.issue(&SERVER), &[], &devices));
        let mut device = Device::new(&servers, server.port, None);
        let tpm = Swtpm::start();
        let key = Key { tpm: Address::Socket(tpm.socket()), ..Key::default() };
        device.context.keys = Self::keys(&device, &key);
        run(&device.context.executor, until(|| tpm.is_listening()));
        let stage = Self { devices, device, asked: Rc::default(), _tpm: tpm };
        stage.serve(server, challenged);
        stage
    }

    fn keys(device: &Device, key: &Key) -> KeyStore {
        let context = &device.context;
        let disk = Rc::new(StateDir::make(&context.config.state_dir).unwrap());
        let record = Record::new(Wall(0));
        let (entropy, causes) = (context.entropy.clone(), context.causes.clone());
        KeyStore::open(disk, key, &record, entropy, causes).unwrap()
    }

    fn serve(&self, server: Server, challenged: &'static str) {
        let spki = self.ensure(Slot::A, KeySource::Fresh);
        let certificate = self.devices.certify(DEVICE, &spki).to_vec();
        let asked = Rc::clone(&self.asked);
        server.serve(&self.device.context.executor, move |mut connection| {
            let (asked, certificate) = (Rc::clone(&asked), certificate.clone());
            async move {
                let mut request = vec![0; 16 * 1024];
                let mut len = 0;
                while !is_whole(&request[..len]) {
                    len += connection.read(&mut request[len..]).await.unwrap();
                }
                let text = String::from_utf8_lossy(&request[..len]).into_owned();
                let is_challenge = text.starts_with("POST /.well-known/fleetcert/challenge ");
                assert_eq!(shown(&connection).is_some(), text.contains("/simplereenroll "));
                asked.borrow_mut().push(text);
                let enrolled = "Content-Type: application/pkcs7-mime\r\n";
                let octets = match is_challenge {
                    true => http(challenged, "Fleetcert-Reason: test\r\n", b""),
                    false => http("200 OK", enrolled, &issued(&certificate)),
                };
                answer(connection, &octets).await;
            }
        });
    }

    /// The SubjectPublicKeyInfo of the slot's key.
    fn ensure(&self, slot: Slot, source: KeySource) -> Vec<u8> {
        let mut keys = self.device.context.keys.clone();
        run(&self.device.context.executor, soon(keys.ensure(slot, source))).unwrap();
        keys.signer(slot).unwrap().spki().to_vec()
    }

    fn enroll(&self, slot: Slot, kind: Kind, source: KeySource) -> Answer<Identity> {
        let mut peers = Peers::new(self.device.context.clone()).unwrap();
        let request = Request { id: RequestId([7; 16]), kind, source };
        let current = (kind != Kind::First).then(|| self.device.identity(Slot::A, &self.devices));
        let current = current.as_ref().map(|identity| (Slot::A, identity));
        run(&self.device.context.executor, async {
            soon(peers.enroll(&request, slot, current, TRUSTED)).await
        })
    }

    fn status(&self, identity: &Identity) -> KeyStatus {
        self.device.context.keys.status(Some(&identity.spki_sha256))
    }
}

/// Whether a request has come to the end that its `Content-Length` names.
fn is_whole(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    octets.len() >= head.len() + 4 + length.map_or(0, |length| length.parse().unwrap())
}

/// Goal: an EST server that was never told of challenges enrolls a key in a TPM like any other, and
/// nobody is told that it was attested.
#[test]
fn a_server_without_challenges_is_an_est_server() {
    for status in ["404 Not Found", "405 Method Not Allowed"] {
        let stage = Stage::new(status);
        let identity = stage.enroll(Slot::A, Kind::First, KeySource::Fresh).outcome.unwrap();
        let asked = stage.asked.borrow();
        let [challenge, enrollment] = asked.as_slice() else { panic!("{asked:?}") };
        assert!(challenge.contains("Content-Type: application/vnd.fleetcert.v1+postcard\r\n"));
        assert!(enrollment.starts_with("POST /.well-known/est/simpleenroll "), "{enrollment}");
        assert!(!enrollment.contains("Fleetcert-Challenge"), "{enrollment}");
        let status = stage.status(&identity);
        assert!(!status.attested);
        assert_eq!(status.tpm.unwrap().state, "ok");
        assert_eq!(status.ek_sha256.unwrap().len(), 64);
    }
}

/// Goal: a refused challenge is a refusal, with its reason; no certificate is asked for.
#[test]
fn a_refused_challenge_is_a_refusal() {
    let stage = Stage::new("403 Forbidden");
    let failure = stage.enroll(Slot::A, Kind::First, KeySource::Fresh).outcome.unwrap_err();
    let reason = Reason::try_from("test").unwrap();
    assert_eq!(failure, Failure::Refused { status: 403, reason });
    assert_eq!(stage.asked.borrow().len(), 1);
}

/// Goal: a renewal that keeps the key asks for no challenge: that key has its certificate. The
/// handshake is signed in the TPM.
#[test]
fn a_key_that_is_kept_needs_no_evidence() {
    let stage = Stage::new("500 Not To Be Asked");
    stage.ensure(Slot::B, KeySource::Other);
    stage.enroll(Slot::B, Kind::Renew, KeySource::Other).outcome.unwrap();
    let asked = stage.asked.borrow();
    let [renewal] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(renewal.starts_with("POST /.well-known/est/simplereenroll "), "{renewal}");
}
