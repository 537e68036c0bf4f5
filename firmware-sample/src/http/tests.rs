use std::format;
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use embedded_io::ErrorType;
use fleetcert_core::enroll::{AnswerError, Label};
use fleetcert_core::event::Failure;
use fleetcert_core::http::ResponseError;

use super::*;

const NONCE: [u8; NONCE_LEN] = [7; NONCE_LEN];
const SERVER: Validity = Validity { not_before: Wall(1_000_000), not_after: Wall(2_000_000) };
const TOKEN: &str = "tok-tok-tok";

/// A server that hears everything and says `parts`, one a read; then it ends as `end` says.
struct Script {
    parts: Vec<Vec<u8>>,
    end: Result<usize, TlsError>,
    heard: Vec<u8>,
}

impl Script {
    fn new(parts: &[&[u8]]) -> Self {
        let parts = parts.iter().rev().map(|part| part.to_vec()).collect();
        Self { parts, end: Err(TlsError::PeerEnded), heard: vec![] }
    }
}

impl ErrorType for Script {
    type Error = TlsError;
}

impl Read for Script {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, TlsError> {
        let Some(part) = self.parts.pop() else { return self.end };
        octets[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

impl Write for Script {
    fn write(&mut self, octets: &[u8]) -> Result<usize, TlsError> {
        self.heard.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> Result<(), TlsError> {
        Ok(())
    }
}

/// A clock that shows one more at each look.
#[derive(Clone, Copy)]
struct Ticks<'t>(&'t core::cell::Cell<u64>);

impl Clock for Ticks<'_> {
    fn now_ms(&self) -> u64 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn rest(&self) {}
}

/// Lets `ask` ask, and returns what it got and what is left in the buffer.
fn with_client<T>(
    script: &mut Script,
    buffer: &mut [u8],
    at_ms: u64,
    ask: impl FnOnce(&mut Client<'_, Script, Ticks<'_>>) -> T,
) -> T {
    let (device_id, ticks) = (DeviceId::parse("dev-1").unwrap(), core::cell::Cell::new(0));
    let provisioner = Provisioner { host: "example", label: Label::parse("fleet").ok() };
    let parties = Parties { device_id: &device_id, provisioner };
    let deadline = Deadline { clock: Ticks(&ticks), at_ms };
    ask(&mut Client::new(script, SERVER, parties, deadline, buffer))
}

/// What came of a question, and the time that was told and may be believed.
#[derive(Debug, PartialEq, Eq)]
struct Told<T> {
    outcome: Result<T, HttpError>,
    server_time: Option<Wall>,
}

impl<T> Told<T> {
    const fn failed(error: HttpError) -> Self {
        Self { outcome: Err(error), server_time: None }
    }
}

fn whoami_until(script: &mut Script, at_ms: u64) -> Told<Serial> {
    with_client(script, &mut [0; BUFFER_LEN], at_ms, |client| {
        let outcome = client.whoami(&NONCE);
        Told { outcome, server_time: client.server_time() }
    })
}

fn whoami(script: &mut Script) -> Told<Serial> {
    whoami_until(script, 1_000)
}

/// An answer to [`whoami`] at `wall`.
fn seen(device_id: &str, wall: u64) -> Vec<u8> {
    let message = fleetcert_core::wire::WhoAmI {
        version: fleetcert_core::wire::VERSION,
        nonce: NONCE,
        serial: &[0x4a, 1],
        device_id,
        server_time: Wall(wall),
    };
    let mut body = [0; 256];
    let body = message.emit(&mut body).unwrap();
    answer(200, &format!("Content-Type: {}\r\n", fleetcert_core::wire::MEDIA_TYPE), body)
}

fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {len}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn enroll_with(script: &mut Script, buffer: &mut [u8], credential: Credential<'_>) -> HttpError {
    let enrollment = Enrollment { id: [1; 16], csr: &[0x30; 300], challenge: None };
    with_client(script, buffer, 1_000, |client| {
        let issued = &mut Identity::new();
        client.enroll(enrollment, credential, &[0; 32], issued).unwrap_err()
    })
}

#[test]
fn an_answer_is_the_same_however_it_is_cut() {
    let octets = seen("dev-1", 1_500_000);
    let serial = Serial::from_slice(&[0x4a, 1]).unwrap();
    let expected = Told { outcome: Ok(serial), server_time: Some(Wall(1_500_000)) };
    for cut in 1..octets.len() {
        let mut script = Script::new(&[&octets[..cut], &octets[cut..]]);
        assert_eq!(whoami(&mut script), expected, "{cut}");
        assert!(script.heard.starts_with(b"GET "));
    }
}

/// Goal: neither an end without a word nor one that was announced makes an answer of a part of it.
#[test]
fn an_answer_that_ends_at_any_octet_is_no_answer() {
    let octets = seen("dev-1", 1_500_000);
    for cut in 0..octets.len() {
        let parts: &[&[u8]] = if cut == 0 { &[] } else { &[&octets[..cut]] };
        let told = whoami(&mut Script::new(parts));
        assert_eq!(told, Told::failed(HttpError::Stream(TlsError::PeerEnded)), "{cut}");
        let told = whoami(&mut Script { end: Ok(0), ..Script::new(parts) });
        let error = if cut == 0 { ResponseError::Closed } else { ResponseError::Truncated };
        assert_eq!(told, Told::failed(HttpError::Response(error)), "{cut}");
        assert_eq!(Failure::from(told.outcome.unwrap_err()), Failure::Unreachable);
    }
}

#[test]
fn a_time_outside_the_servers_certificate_is_not_believed() {
    for (wall, believed) in [
        (999_999, false),
        (1_000_000, true),
        (2_000_000, true),
        (2_000_001, false),
        (u64::MAX, false),
    ] {
        let told = whoami(&mut Script::new(&[&seen("dev-1", wall)]));
        assert_eq!(told.server_time, believed.then_some(Wall(wall)));
        assert!(told.outcome.is_ok());
    }
}

#[test]
fn an_answer_about_another_device_is_not_ours() {
    let told = whoami(&mut Script::new(&[&seen("dev-2", 1_500_000)]));
    assert_eq!(told.outcome, Err(HttpError::PeerSawAnother));
}

/// Goal: garbage is an error of one kind, and never a panic.
#[test]
fn garbage_is_malformed() {
    for octets in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
        b"HTTP/1.1 302 Found\r\nLocation: https://other/\r\nContent-Length: 0\r\n\r\n",
    ] {
        let told = whoami(&mut Script::new(&[octets]));
        let failure = Failure::from(told.outcome.unwrap_err());
        assert_eq!(failure, Failure::AnswerMalformed, "{}", String::from_utf8_lossy(octets));
    }
    let mut script = Script::new(&[&[b'x'; BUFFER_LEN]]);
    assert!(matches!(whoami(&mut script).outcome, Err(HttpError::Response(_))));
}

/// Goal: a server that sends an octet at a time does not hold us longer than the deadline.
#[test]
fn a_slow_server_meets_the_deadline() {
    let octets = seen("dev-1", 1_500_000);
    let parts: Vec<_> = octets.chunks(1).collect();
    let mut script = Script::new(&parts);
    let told = whoami_until(&mut script, 20);
    assert_eq!(told, Told::failed(HttpError::Late));
    assert_eq!(script.parts.len(), octets.len() - 19);
}

/// Goal: the token is sent, and found nowhere in the buffer afterwards: not after an answer, not
/// when the connection breaks, and not when the request did not fit.
#[test]
fn a_token_does_not_outlive_its_request() {
    let token = Credential::Token(Token::parse(TOKEN).unwrap());
    let basic = "ZGV2LTE6dG9rLXRvay10b2s="; // dev-1:tok-tok-tok
    let refusal = answer(401, "", b"");
    for (parts, len) in [(&[&refusal[..]][..], BUFFER_LEN), (&[], BUFFER_LEN), (&[], 300)] {
        let mut script = Script::new(parts);
        let mut buffer = vec![0xff; len];
        let error = enroll_with(&mut script, &mut buffer, token);
        let heard = String::from_utf8_lossy(&script.heard).into_owned();
        assert_eq!(heard.contains(basic), len == BUFFER_LEN, "{error}");
        assert!(script.heard.is_empty() || heard.contains("/fleet/simpleenroll"), "{heard}");
        assert!(!String::from_utf8_lossy(&buffer).contains(basic));
        assert!(buffer.iter().skip(refusal.len()).all(|octet| *octet == 0));
    }
}

#[test]
fn what_the_provisioner_says_of_an_enrollment_reaches_the_machine() {
    let reason = |text: &str| text.try_into().unwrap();
    for (status, headers, expected) in [
        (202, "Retry-After: 30\r\n", Failure::Pending { retry_after_s: 30 }),
        (503, "Retry-After: 5\r\n", Failure::Busy { retry_after_s: Some(5) }),
        (429, "", Failure::Busy { retry_after_s: None }),
        (403, "Fleetcert-Reason: revoked\r\n", Failure::Revoked),
        (
            401,
            "Fleetcert-Reason: token-unknown\r\n",
            Failure::Refused { status: 401, reason: reason("token-unknown") },
        ),
        (200, "Content-Type: application/pkcs7-mime\r\n", Failure::AnswerMalformed),
    ] {
        let mut script = Script::new(&[&answer(status, headers, b"")]);
        let error = enroll_with(&mut script, &mut [0; BUFFER_LEN], Credential::Certificate);
        assert_eq!(Failure::from(error), expected, "{status}");
        assert!(String::from_utf8_lossy(&script.heard).contains("/simplereenroll"));
    }
}

#[test]
fn a_connection_is_used_again_only_if_it_was_left_open() {
    let open = seen("dev-1", 1_500_000);
    let closed = answer(503, "Connection: close\r\n", b"");
    let mut script = Script::new(&[&open, &closed, &open]);
    with_client(&mut script, &mut [0; BUFFER_LEN], 1_000, |client| {
        assert!(client.whoami(&NONCE).is_ok());
        assert_eq!(client.server_time(), Some(Wall(1_500_000)));
        assert!(client.is_usable());
        let busy = HttpError::Busy { retry_after_s: None };
        assert_eq!(client.whoami(&NONCE), Err(busy));
        assert_eq!(client.server_time(), None, "of the last exchange");
        assert!(!client.is_usable());
        assert_eq!(client.whoami(&NONCE), Err(HttpError::Spent));
    });
    assert_eq!(script.parts.len(), 1, "nothing was asked for");
}

#[test]
fn what_is_no_certificate_has_no_renewal_to_ask_about() {
    let mut script = Script::new(&[]);
    let told = with_client(&mut script, &mut [0; BUFFER_LEN], 9, |client| client.renewal_info(&[]));
    assert_eq!(told, Err(HttpError::CertificateUnfit(Unfit::Form)));
    assert!(script.heard.is_empty());
}

#[test]
fn errors_read_as_text() {
    for (error, text) in [
        (HttpError::Answer(AnswerError::Status { found: 302 }), "http.status 302"),
        (HttpError::CertificateTooLong { found: 1281 }, "http.certificate-too-long 1281"),
        (
            HttpError::Refused { status: 404, reason: "no".try_into().unwrap() },
            "http.refused 404 no",
        ),
        (HttpError::Spent, "http.spent"),
        (HttpError::Stream(TlsError::PeerEnded), "tls.peer-ended"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
