//! Exchanges with provisioners that answer as they should, and as they should not.

use std::cell::RefCell;
use std::rc::Rc;

use fleetcert_agent::peers::Peers;
use fleetcert_core::event::{Failure, Unfit};
use fleetcert_core::port::{Answer, Keys as _, Peers as _};
use fleetcert_core::record::{Identity, KeySource, Kind, Request, RequestId, Slot};
use smol::io::AsyncWriteExt as _;

use crate::support::device::{DEVICE, Device};
use crate::support::pki::{Authority, Leaf, SERVER};
use crate::support::server::{Connection, Server, answer, http, issued, request, shown, whoami};
use crate::support::{NOW, TRUSTED, run, soon};

const TOKEN: &str = "c2VjcmV0LXRva2Vu";

/// Both trees, a device, and what its provisioner was asked.
struct Stage {
    devices: Authority,
    device: Device,
    server: RefCell<Option<Server>>,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Stage {
    fn new(leaf: &Leaf<'_>) -> Self {
        let (servers, devices) = (Authority::new("servers"), Authority::new("devices"));
        let server = smol::block_on(Server::new(&servers.issue(leaf), &[], &devices));
        let device = Device::new(&servers, server.port, None);
        let asked = Rc::default();
        Self { devices, device, server: RefCell::new(Some(server)), asked }
    }

    /// Answers every request with these octets.
    fn answers(&self, octets: Vec<u8>) {
        let asked = Rc::clone(&self.asked);
        let server = self.server.take().unwrap();
        server.serve(&self.device.context.executor, move |mut connection| {
            let (octets, asked) = (octets.clone(), Rc::clone(&asked));
            async move {
                let text = request(&mut connection).await;
                asked.borrow_mut().push(text);
                answer(connection, &octets).await;
            }
        });
    }

    /// Enrolls the key of slot A as on first contact.
    fn enroll(&self) -> Answer<Identity> {
        let mut peers = Peers::new(self.device.context.clone()).unwrap();
        let first = Request { id: RequestId([7; 16]), kind: Kind::First, source: KeySource::Fresh };
        run(&self.device.context.executor, async {
            let mut keys = self.device.context.keys.clone();
            keys.ensure(Slot::A, KeySource::Fresh).await.unwrap();
            soon(peers.enroll(&first, Slot::A, None, TRUSTED)).await
        })
    }

    /// What comes of an enrollment that is answered so, and the cause that people are told.
    fn enroll_answered(octets: Vec<u8>) -> (Answer<Identity>, String) {
        let stage = Self::new(&SERVER);
        stage.answers(octets);
        let answer = stage.enroll();
        (answer, stage.device.context.causes.take().unwrap_or_default())
    }

    fn certificate(&self) -> Vec<u8> {
        let mut keys = self.device.context.keys.clone();
        smol::block_on(keys.ensure(Slot::A, KeySource::Fresh)).unwrap();
        let signer = self.device.context.keys.signer(Slot::A).unwrap();
        self.devices.certify(DEVICE, signer.spki()).to_vec()
    }
}

fn issued_by(certificate: &[u8]) -> Vec<u8> {
    http("200 OK", "Content-Type: application/pkcs7-mime\r\n", &issued(certificate))
}

#[test]
fn a_first_enrollment_sends_the_token_and_gives_the_certificate_and_the_time() {
    let stage = Stage::new(&SERVER);
    std::fs::write(stage.device.token_file(), format!("{TOKEN}\n")).unwrap();
    let certificate = stage.certificate();
    stage.answers(issued_by(&certificate));
    let answer = stage.enroll();
    let identity = answer.outcome.unwrap();
    assert_eq!(identity.certificate, certificate[..]);
    assert_eq!(answer.server_time, Some(NOW));
    let asked = stage.asked.borrow();
    let [request] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(request.starts_with("POST /.well-known/est/simpleenroll HTTP/1.1\r\n"), "{request}");
    // base64 of gw-1:c2VjcmV0LXRva2Vu
    assert!(request.contains("Authorization: Basic Z3ctMTpjMlZqY21WMExYUnZhMlZ1\r\n"), "{request}");
    assert!(request.contains("Fleetcert-Request: 07070707070707070707070707070707\r\n"));
}

/// Goal: an answer in the smallest pieces that a network can make of it is the same answer.
#[test]
fn an_answer_that_comes_octet_by_octet_is_read() {
    let stage = Stage::new(&SERVER);
    let octets = issued_by(&stage.certificate());
    let server = stage.server.take().unwrap();
    server.serve(&stage.device.context.executor, move |mut connection: Connection| {
        let octets = octets.clone();
        async move {
            request(&mut connection).await;
            for octet in octets {
                connection.write_all(&[octet]).await.unwrap();
                connection.flush().await.unwrap();
            }
        }
    });
    assert!(stage.enroll().outcome.is_ok());
}

#[test]
fn a_renewal_shows_the_current_certificate_and_no_token() {
    let stage = Stage::new(&SERVER);
    std::fs::write(stage.device.token_file(), TOKEN).unwrap();
    let current = stage.device.identity(Slot::B, &stage.devices);
    let octets = issued_by(&stage.certificate());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let witness = Rc::clone(&seen);
    let server = stage.server.take().unwrap();
    server.serve(&stage.device.context.executor, move |mut connection: Connection| {
        let (octets, seen) = (octets.clone(), Rc::clone(&witness));
        async move {
            let certificate = shown(&connection).unwrap().to_vec();
            let text = request(&mut connection).await;
            seen.borrow_mut().push((certificate, text));
            answer(connection, &octets).await;
        }
    });
    let mut peers = Peers::new(stage.device.context.clone()).unwrap();
    for kind in [Kind::Renew, Kind::Recover] {
        let renewal = Request { id: RequestId([8; 16]), kind, source: KeySource::Fresh };
        let current = Some((Slot::B, &current));
        let answer = run(&stage.device.context.executor, async {
            soon(peers.enroll(&renewal, Slot::A, current, TRUSTED)).await
        });
        assert!(answer.outcome.is_ok());
    }
    for (certificate, request) in seen.borrow().iter() {
        assert_eq!(*certificate, current.certificate[..]);
        assert!(request.starts_with("POST /.well-known/est/simplereenroll "), "{request}");
        assert!(!request.contains("Authorization"));
    }
    assert_eq!(seen.borrow().len(), 2);
}

#[test]
fn what_a_provisioner_says_becomes_the_failure_that_it_means() {
    let reason = |code: &str| format!("Fleetcert-Reason: {code}\r\n");
    let refused =
        |status, code: &str| Failure::Refused { status, reason: code.try_into().unwrap() };
    let retry = "Retry-After: 120\r\n";
    let cases = [
        (http("202 Accepted", retry, b""), Failure::Pending { retry_after_s: 120 }),
        (http("401 Unauthorized", "", b""), refused(401, "")),
        (http("403 Forbidden", &reason("revoked"), b""), Failure::Revoked),
        (http("403 Forbidden", &reason("token-used"), b""), refused(403, "token-used")),
        (http("429 Too Many Requests", "", b""), Failure::Busy { retry_after_s: None }),
        (http("503 Service Unavailable", retry, b""), Failure::Busy { retry_after_s: Some(120) }),
        (http("302 Found", "Location: https://elsewhere/\r\n", b""), Failure::AnswerMalformed),
        (http("200 OK", "", b"not base64!"), Failure::AnswerMalformed),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), Failure::AnswerMalformed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nMII".to_vec(), Failure::Unreachable),
        (Vec::new(), Failure::Unreachable),
        (http("200 OK", "", &[b'A'; 60_000]), Failure::AnswerMalformed),
    ];
    for (octets, expected) in cases {
        let shown = String::from_utf8_lossy(&octets[..octets.len().min(60)]).into_owned();
        let (answer, cause) = Stage::enroll_answered(octets);
        assert_eq!(answer.outcome, Err(expected), "{shown}: {cause}");
        assert!(cause.starts_with("provisioner 127.0.0.1:"), "{cause}");
    }
}

#[test]
fn a_refusal_without_a_token_says_why_there_was_none() {
    let (_, cause) = Stage::enroll_answered(http(
        "401 Unauthorized",
        "Content-Type: text/plain\r\n",
        b"a token is needed\n",
    ));
    assert!(cause.contains("status 401, a token is needed; no token was sent: "), "{cause}");
    assert!(cause.contains("/token: No such file"), "{cause}");
}

/// Goal: no answer, however well it is authenticated, makes a device take what is not its own.
#[test]
fn a_certificate_for_another_key_or_device_is_not_taken() {
    let stage = Stage::new(&SERVER);
    let other = stage.device.identity(Slot::B, &stage.devices);
    stage.answers(issued_by(&other.certificate));
    let answer = stage.enroll();
    assert_eq!(answer.outcome, Err(Failure::CertificateUnfit(Unfit::Key)));

    let stage = Stage::new(&SERVER);
    stage.certificate();
    let signer = stage.device.context.keys.signer(Slot::A).unwrap();
    stage.answers(issued_by(&stage.devices.certify("gw-2", signer.spki())));
    let answer = stage.enroll();
    assert_eq!(answer.outcome, Err(Failure::CertificateUnfit(Unfit::Form)));
    let cause = stage.device.context.causes.take().unwrap();
    assert!(cause.contains("\"gw-2\", not \"gw-1\""), "{cause}");
}

/// Goal: a refusal tells the time too, but never one outside the server's own certificate.
#[test]
fn a_time_outside_the_servers_certificate_is_not_passed_on() {
    let stage = Stage::new(&Leaf { years: (2020, 2030), ..SERVER });
    stage.answers(http("401 Unauthorized", "", b""));
    assert_eq!(stage.enroll().server_time, Some(NOW));
    let stage = Stage::new(&SERVER);
    let late =
        b"HTTP/1.1 401 No\r\nDate: Thu, 15 Jan 2054 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    stage.answers(late.to_vec());
    assert_eq!(stage.enroll().server_time, None);
}

#[test]
fn a_provisioner_that_returns_another_nonce_proves_nothing() {
    let stage = Stage::new(&SERVER);
    let identity = stage.device.identity(Slot::A, &stage.devices);
    let message = fleetcert_core::wire::WhoAmI {
        version: fleetcert_core::wire::VERSION,
        nonce: [0; 16],
        serial: &identity.serial,
        device_id: DEVICE,
        server_time: NOW,
    };
    let mut body = [0; 256];
    let body = message.emit(&mut body).unwrap();
    let headers = format!("Content-Type: {}\r\n", fleetcert_core::wire::MEDIA_TYPE);
    stage.answers(http("200 OK", &headers, body));
    let mut peers = Peers::new(stage.device.context.clone()).unwrap();
    let answer = run(&stage.device.context.executor, async {
        soon(peers.prove(Slot::A, &identity, TRUSTED)).await
    });
    assert_eq!(answer.outcome, Err(Failure::AnswerMalformed));
}

#[test]
fn advice_is_the_provisioners_window_and_its_absence_is_no_advice() {
    for (start, end, expected) in [(10, 20, true), (20, 20, false)] {
        let stage = Stage::new(&SERVER);
        let identity = stage.device.identity(Slot::A, &stage.devices);
        let message = fleetcert_core::wire::RenewalInfo {
            version: fleetcert_core::wire::VERSION,
            start: NOW.plus_s(start),
            end: NOW.plus_s(end),
            server_time: NOW,
            retry_after_s: 3600,
        };
        let mut body = [0; 256];
        let body = message.emit(&mut body).unwrap();
        let headers = format!("Content-Type: {}\r\n", fleetcert_core::wire::MEDIA_TYPE);
        stage.answers(http("200 OK", &headers, body));
        let mut peers = Peers::new(stage.device.context.clone()).unwrap();
        let answer = run(&stage.device.context.executor, async {
            soon(peers.consult(Slot::A, &identity, TRUSTED)).await
        });
        assert_eq!(answer.outcome.is_ok(), expected, "{start} {end}");
        if let Ok(advice) = answer.outcome {
            assert_eq!(advice.window.unwrap().start, NOW.plus_s(10));
            assert_eq!(advice.retry_after_s, 3600);
        }
        let path = stage.asked.borrow()[0].lines().next().unwrap().to_owned();
        assert!(path.starts_with("GET /.well-known/fleetcert/renewal-info/"), "{path}");
    }
}

#[test]
fn whoami_gives_the_serial_that_was_seen() {
    let stage = Stage::new(&SERVER);
    let identity = stage.device.identity(Slot::A, &stage.devices);
    stage.server.take().unwrap().serve(&stage.device.context.executor, whoami);
    let mut peers = Peers::new(stage.device.context.clone()).unwrap();
    let answer = run(&stage.device.context.executor, async {
        soon(peers.prove(Slot::A, &identity, TRUSTED)).await
    });
    assert_eq!(answer.outcome.unwrap().serial, identity.serial);
}

/// Goal: a provisioner that takes the request and says nothing ends the exchange at its deadline.
#[test]
fn slow_a_provisioner_that_never_answers_is_unreachable() {
    let stage = Stage::new(&SERVER);
    let identity = stage.device.identity(Slot::A, &stage.devices);
    let server = stage.server.take().unwrap();
    server.serve(&stage.device.context.executor, async |mut connection| {
        request(&mut connection).await;
        std::future::pending().await
    });
    let mut peers = Peers::new(stage.device.context.clone()).unwrap();
    let answer = run(&stage.device.context.executor, peers.consult(Slot::A, &identity, TRUSTED));
    assert_eq!(answer.outcome, Err(Failure::Unreachable));
    let cause = stage.device.context.causes.take().unwrap();
    assert!(cause.ends_with("exchange took longer than 30000 ms"), "{cause}");
}
