use core::fmt::Debug;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::{
    AnswerError, DETAIL_LEN_MAX, Dated, Enrollment, LABEL_LEN_MAX, Label, LeafError, NameError,
    Provisioner, RETRY_AFTER_S_DEFAULT, TOKEN_LEN_MAX, Token, Unanswered, cacerts, challenge,
    check_leaf, read_cacerts, read_challenge, read_enroll, read_renewal_info, read_whoami,
    renewal_info, simpleenroll, simplereenroll, whoami,
};
use crate::der::{Certificate, CertificateError, CommonNameError, Part};
use crate::device_id::DeviceId;
use crate::est::base64::{DecodeError, Style, encode};
use crate::est::cms::CmsError;
use crate::http::{Progress, RequestError, Response, ResponseReader};
use crate::time::{Validity, Wall};
use crate::wire::{Challenge, ChallengeRequest, MEDIA_TYPE, RenewalInfo, WhoAmI, WireError};

const CSR: &[u8] = &[0x42; 49];
const LEAF: &[u8] = include_bytes!("../../testdata/leaf.der");
const LEAF_P7: &[u8] = include_bytes!("../../testdata/leaf.p7");
const TWO_P7: &[u8] = include_bytes!("../../testdata/two.p7");
const AUTHORITY: &[u8] = include_bytes!("../../testdata/authority.der");
const CA: &[u8] = include_bytes!("../../testdata/ca.der");
const GATEWAY: &[u8] = include_bytes!("../../testdata/gateway.der");
const BARE: &[u8] = include_bytes!("../../testdata/bare.der");
const SERVER: &[u8] = include_bytes!("../../testdata/server.der");

const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const DATED: Option<Wall> = Some(Wall(784_111_777));
const NONCE: [u8; 16] = *b"0123456789abcdef";

const WANTED: ChallengeRequest<'_> = ChallengeRequest {
    version: 1,
    device_id: "gw-1",
    ek_public: b"e",
    ek_certificates: b"",
    ak_public: b"a",
};

fn plain() -> Provisioner<'static> {
    Provisioner { host: "ca.example:8443", label: None }
}

fn labelled() -> Provisioner<'static> {
    Provisioner { label: Some(Label::parse("edge-1").unwrap()), ..plain() }
}

fn enrollment() -> Enrollment<'static> {
    Enrollment {
        id: *b"\x00\x01\x09\x0a\x0f\x10\x90\xa0\xf0\xff\xab\xcd\xef\x12\x34\x56",
        csr: CSR,
        challenge: None,
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

fn text(octets: Result<&[u8], RequestError>) -> String {
    String::from_utf8(octets.unwrap().to_vec()).unwrap()
}

const ENROLLMENT_TAIL: &str = "Content-Type: application/pkcs10\r\n\
    Content-Transfer-Encoding: base64\r\n\
    Fleetcert-Request: 0001090a0f1090a0f0ffabcdef123456\r\n\
    Content-Length: 70\r\n\r\n\
    QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC\nQg==\n";

#[test]
fn the_authorities_are_asked_for() {
    let mut buffer = [0; 512];
    let expected = "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: ca.example:8443\r\n\r\n";
    assert_eq!(text(cacerts(plain(), &mut buffer)), expected);
    let expected = "GET /.well-known/est/edge-1/cacerts HTTP/1.1\r\nHost: ca.example:8443\r\n\r\n";
    assert_eq!(text(cacerts(labelled(), &mut buffer)), expected);
}

#[test]
fn a_first_enrollment_carries_token_name_and_request() {
    let mut buffer = [0; 512];
    let device_id = id("gw-1");
    let token = Some((&device_id, Token::parse("s3cret").unwrap()));
    let expected = format!(
        "POST /.well-known/est/edge-1/simpleenroll HTTP/1.1\r\nHost: ca.example:8443\r\n\
        Authorization: Basic Z3ctMTpzM2NyZXQ=\r\n{ENROLLMENT_TAIL}"
    );
    assert_eq!(text(simpleenroll(labelled(), enrollment(), token, &mut buffer)), expected);
    let expected = format!(
        "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: ca.example:8443\r\n{ENROLLMENT_TAIL}"
    );
    assert_eq!(text(simpleenroll(plain(), enrollment(), None, &mut buffer)), expected);
}

#[test]
fn a_further_enrollment_is_authenticated_by_its_connection() {
    let mut buffer = [0; 512];
    let expected = format!(
        "POST /.well-known/est/simplereenroll HTTP/1.1\r\nHost: ca.example:8443\r\n\
        {ENROLLMENT_TAIL}"
    );
    assert_eq!(text(simplereenroll(plain(), enrollment(), &mut buffer)), expected);
}

#[test]
fn an_enrollment_with_evidence_names_the_challenge_that_it_answers() {
    let mut buffer = [0; 512];
    let enrollment = Enrollment { challenge: Some([0xc5; 16]), ..enrollment() };
    let request = text(simplereenroll(plain(), enrollment, &mut buffer));
    let name = "Fleetcert-Challenge: c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5\r\nContent-Length: 70\r\n";
    assert!(request.contains(name), "{request}");
}

#[test]
fn a_challenge_is_asked_for_with_a_message() {
    let mut buffer = [0; 512];
    let expected = "POST /.well-known/fleetcert/challenge HTTP/1.1\r\nHost: ca.example:8443\r\n\
        Accept: application/vnd.fleetcert.v1+postcard\r\n\
        Content-Type: application/vnd.fleetcert.v1+postcard\r\n\
        Content-Length: 11\r\n\r\n\
        \x01\x04gw-1\x01e\x00\x01a";
    assert_eq!(text(challenge(labelled(), &WANTED, &mut buffer)), expected);
    let unnamed = ChallengeRequest { device_id: "", ..WANTED };
    let found = buffer.len();
    assert_eq!(challenge(plain(), &unnamed, &mut buffer), Err(RequestError::Buffer { found }));
}

#[test]
fn our_own_questions_ask_for_our_own_messages() {
    let mut buffer = [0; 512];
    let expected = "GET /.well-known/fleetcert/whoami?nonce=30313233343536373839616263646566 \
        HTTP/1.1\r\nHost: ca.example:8443\r\nAccept: application/vnd.fleetcert.v1+postcard\r\n\r\n";
    assert_eq!(text(whoami(labelled(), &NONCE, &mut buffer)), expected);
    let expected = "GET /.well-known/fleetcert/renewal-info/aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE \
        HTTP/1.1\r\nHost: ca.example:8443\r\nAccept: application/vnd.fleetcert.v1+postcard\r\n\r\n";
    let renewal_id = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE";
    assert_eq!(text(renewal_info(plain(), renewal_id, &mut buffer)), expected);
}

#[test]
fn what_is_no_renewal_identifier_is_not_asked_about() {
    let mut buffer = [0; 512];
    let longest = "x".repeat(128);
    assert!(renewal_info(plain(), &longest, &mut buffer).is_ok());
    let longer = "x".repeat(129);
    for wrong in ["", "a/b", "a?b", "a b", "a%2e", longer.as_str()] {
        assert_eq!(renewal_info(plain(), wrong, &mut buffer), Err(RequestError::Path), "{wrong}");
    }
}

#[test]
fn every_request_is_refused_if_the_buffer_is_one_octet_too_small() {
    let device_id = id("gw-1");
    let token = Some((&device_id, Token::parse("s3cret").unwrap()));
    type Write<'a> = &'a dyn Fn(&mut [u8]) -> Result<usize, RequestError>;
    let requests: [Write<'_>; 6] = [
        &|out| cacerts(plain(), out).map(<[u8]>::len),
        &|out| simpleenroll(plain(), enrollment(), token, out).map(<[u8]>::len),
        &|out| simplereenroll(plain(), enrollment(), out).map(<[u8]>::len),
        &|out| whoami(plain(), &NONCE, out).map(<[u8]>::len),
        &|out| renewal_info(plain(), "a.b", out).map(<[u8]>::len),
        &|out| challenge(plain(), &WANTED, out).map(<[u8]>::len),
    ];
    for request in requests {
        let len = request(&mut [0; 512]).unwrap();
        assert_eq!(request(&mut vec![0; len]), Ok(len));
        let found = len - 1;
        assert_eq!(request(&mut vec![0; found]), Err(RequestError::Buffer { found }));
    }
}

#[test]
fn labels_are_path_segments_that_mean_nothing_else() {
    let longest = "x".repeat(LABEL_LEN_MAX);
    for label in ["a", "edge-1", "A.b_c~0-", longest.as_str()] {
        assert_eq!(Label::parse(label).unwrap().as_str(), label);
    }
    for label in [".", "..", ".a", "-a", "a/b", "a b", "a%", "é", "a?"] {
        assert_eq!(Label::parse(label), Err(NameError::Character), "{label}");
    }
    for label in
        ["cacerts", "csrattrs", "fullcmc", "serverkeygen", "simpleenroll", "simplereenroll"]
    {
        assert_eq!(Label::parse(label), Err(NameError::Reserved));
    }
    let longer = "x".repeat(LABEL_LEN_MAX + 1);
    assert_eq!(Label::parse(&longer), Err(NameError::Length { found: 65, max: 64 }));
    assert_eq!(Label::parse(""), Err(NameError::Length { found: 0, max: 64 }));
}

#[test]
fn tokens_are_printable_and_are_never_printed() {
    let longest = "x".repeat(TOKEN_LEN_MAX);
    assert!(Token::parse(&longest).is_ok());
    assert_eq!(format!("{:?}", Token::parse("s3cret").unwrap()), "Token(..)");
    for token in ["a b", "a\n", "é"] {
        assert_eq!(Token::parse(token), Err(NameError::Character));
    }
    let longer = "x".repeat(TOKEN_LEN_MAX + 1);
    assert_eq!(Token::parse(&longer), Err(NameError::Length { found: 129, max: 128 }));
    assert_eq!(Token::parse(""), Err(NameError::Length { found: 0, max: 128 }));
}

fn with_response<T>(
    status: u16,
    headers: &str,
    body: &[u8],
    look: impl FnOnce(Response<'_>) -> T,
) -> T {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{DATE}{headers}Content-Length: {len}\r\n\r\n");
    let octets = [head.as_bytes(), body].concat();
    let mut buffer = vec![0; octets.len()];
    let mut reader = ResponseReader::new(&mut buffer);
    reader.space().copy_from_slice(&octets);
    assert_eq!(reader.advance(octets.len()), Ok(Progress::Done));
    look(reader.finish().unwrap())
}

fn base64_of(octets: &[u8], style: Style) -> Vec<u8> {
    let mut out = vec![0; style.encoded_len(octets.len())];
    encode(octets, style, &mut out).unwrap().to_vec()
}

fn enroll_error(status: u16, body: &[u8]) -> AnswerError {
    with_response(status, "", body, |response| {
        let Dated { server_time, answer } = read_enroll(response);
        assert_eq!(server_time, DATED);
        unreadable(answer)
    })
}

fn unreadable<T: Debug>(answer: Result<T, Unanswered<'_>>) -> AnswerError {
    match answer {
        Err(Unanswered::Unreadable(error)) => error,
        other => panic!("not unreadable: {other:?}"),
    }
}

#[test]
fn an_issued_certificate_is_read_in_either_style_and_raw() {
    for body in
        [base64_of(LEAF_P7, Style::Line), base64_of(LEAF_P7, Style::Wrapped), LEAF_P7.to_vec()]
    {
        with_response(200, "", &body, |response| {
            let Dated { server_time, answer } = read_enroll(response);
            let certificate = Certificate::parse(LEAF).unwrap();
            assert_eq!((server_time, answer), (DATED, Ok(certificate)));
        });
    }
}

#[test]
fn an_enrollment_answer_that_is_not_one_certificate_is_an_error() {
    assert_eq!(enroll_error(200, b""), AnswerError::Body(DecodeError::Empty));
    assert_eq!(enroll_error(200, b"<html>"), AnswerError::Body(DecodeError::Digits { at: 3 }));
    assert_eq!(enroll_error(200, b"QUJD"), AnswerError::Cms(CmsError::Malformed));
    assert_eq!(enroll_error(200, TWO_P7), AnswerError::Cms(CmsError::Count { found: 2 }));
    let mut odd = LEAF_P7.to_vec();
    odd[57] = 0x03;
    let error = AnswerError::Certificate(CertificateError::Version { found: 4 });
    assert_eq!(enroll_error(200, &odd), error);
    odd[57] = 0x02;
    odd[58] = 0x04;
    let error = AnswerError::Certificate(CertificateError::Malformed { part: Part::Serial });
    assert_eq!(enroll_error(200, &odd), error);
}

#[test]
fn an_enrollment_answer_cut_at_any_length_is_an_error() {
    let body = base64_of(LEAF_P7, Style::Wrapped);
    for len in 0..body.len() - 1 {
        enroll_error(200, &body[..len]);
    }
}

#[test]
fn an_enrollment_that_waits_for_approval_says_how_long() {
    for (headers, retry_after_s) in [
        ("Retry-After: 120\r\n", 120),
        ("Retry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n", 1),
        ("", RETRY_AFTER_S_DEFAULT),
        ("Retry-After: soon\r\n", RETRY_AFTER_S_DEFAULT),
    ] {
        with_response(202, headers, b"", |response| {
            let expected = Err(Unanswered::Pending { retry_after_s });
            assert_eq!(read_enroll(response), Dated { server_time: DATED, answer: expected });
        });
    }
}

#[test]
fn a_busy_provisioner_says_when_to_come_back_if_it_does() {
    for status in [408, 429, 502, 503, 504] {
        with_response(status, "Retry-After: 7\r\n", b"", |response| {
            let expected = Unanswered::Busy { retry_after_s: Some(7) };
            assert_eq!(read_enroll(response).answer, Err(expected));
        });
        with_response(status, "", b"", |response| {
            let answer = read_cacerts(response).answer.unwrap_err();
            assert_eq!(answer, Unanswered::Busy { retry_after_s: None });
        });
    }
}

#[test]
fn statuses_that_answer_nothing_are_errors_and_no_redirection_is_followed() {
    for found in [201, 204, 301, 302, 307, 399] {
        assert_eq!(enroll_error(found, b""), AnswerError::Status { found });
    }
    with_response(202, "", b"", |response| {
        let error = unreadable(read_cacerts(response).answer);
        assert_eq!(error, AnswerError::Status { found: 202 });
    });
}

fn refusal(status: u16, headers: &str, body: &str) -> (u16, String, String, bool) {
    with_response(status, headers, body.as_bytes(), |response| {
        match read_enroll(response).answer.unwrap_err() {
            Unanswered::Refused(refusal) => {
                let reason = refusal.reason.as_str().to_string();
                (refusal.status, reason, refusal.detail.to_string(), refusal.is_revoked())
            }
            other => panic!("not a refusal: {other:?}"),
        }
    })
}

#[test]
fn a_refusal_tells_status_reason_and_text() {
    let headers = "Fleetcert-Reason: token-used-2\r\nContent-Type: Text/Plain; charset=utf-8\r\n";
    for status in [400, 401, 403, 404, 500, 501, 505, 599] {
        let expected = (status, "token-used-2".into(), "Tokén used.".into(), false);
        assert_eq!(refusal(status, headers, "Tokén used.\nReally."), expected);
    }
    assert_eq!(refusal(403, "", "x"), (403, String::new(), String::new(), false));
    let (.., is_revoked) = refusal(403, "Fleetcert-Reason: revoked\r\n", "");
    assert!(is_revoked);
}

#[test]
fn a_reason_code_that_is_none_is_left_out() {
    let reason = |code: &str| refusal(403, &format!("Fleetcert-Reason: {code}\r\n"), "").1;
    assert_eq!(reason(&"a".repeat(32)), "a".repeat(32));
    for code in [&"a".repeat(33), "Revoked", "a_b", "a b", ""] {
        assert_eq!(reason(code), "");
    }
}

#[test]
fn text_for_people_is_one_short_line_without_controls() {
    let detail = |body: &str| refusal(403, "Content-Type: text/plain\r\n", body).2;
    assert_eq!(detail(&"x".repeat(DETAIL_LEN_MAX + 1)), "x".repeat(DETAIL_LEN_MAX));
    let umlauts = format!("x{}", "é".repeat(DETAIL_LEN_MAX));
    assert_eq!(detail(&umlauts), umlauts[..DETAIL_LEN_MAX - 1]);
    assert_eq!(detail("a\x1b[31mb"), "");
    assert_eq!(detail("one\r\ntwo"), "one");
    assert_eq!(detail("one\r"), "");
    assert_eq!(detail(""), "");
    assert_eq!(refusal(403, "Content-Type: text/html\r\n", "x").2, "");
}

#[test]
fn the_certificates_of_the_authorities_are_read() {
    with_response(200, "", &base64_of(TWO_P7, Style::Line), |response| {
        let Dated { server_time, answer } = read_cacerts(response);
        assert_eq!((server_time, answer.unwrap().collect::<Vec<_>>()), (DATED, vec![CA, GATEWAY]));
    });
}

const WHOAMI: WhoAmI<'_> = WhoAmI {
    version: 1,
    nonce: NONCE,
    serial: b"\x05",
    device_id: "gw-1",
    server_time: Wall(1000),
};

fn ours() -> String {
    format!("Content-Type: {MEDIA_TYPE}\r\n")
}

#[test]
fn the_certificate_that_was_seen_is_read_with_the_time_of_the_message() {
    let mut out = [0; WhoAmI::MAX_LEN];
    let body = WHOAMI.emit(&mut out).unwrap();
    with_response(200, &ours(), body, |response| {
        let expected = Dated { server_time: Some(Wall(1000)), answer: Ok(WHOAMI) };
        assert_eq!(read_whoami(response, &NONCE), expected);
    });
    with_response(200, &ours(), body, |response| {
        let error = AnswerError::Nonce;
        let expected = Dated { server_time: DATED, answer: Err(error.into()) };
        assert_eq!(read_whoami(response, &[0; 16]), expected);
    });
    for headers in ["", "Content-Type: application/json\r\n"] {
        with_response(200, headers, body, |response| {
            assert_eq!(read_whoami(response, &NONCE).answer, Err(AnswerError::MediaType.into()));
        });
    }
    with_response(200, &ours(), &body[1..], |response| {
        let error = AnswerError::Wire(WireError::Version { found: b'0' });
        assert_eq!(read_whoami(response, &NONCE).answer, Err(error.into()));
    });
}

#[test]
fn the_renewal_window_is_read_and_must_have_a_length() {
    let info = |start, end| RenewalInfo {
        version: 1,
        start: Wall(start),
        end: Wall(end),
        server_time: Wall(1000),
        retry_after_s: 6,
    };
    let ask = |info: RenewalInfo, headers: &str| {
        let mut out = [0; RenewalInfo::MAX_LEN];
        with_response(200, headers, info.emit(&mut out).unwrap(), |response| {
            let Dated { server_time, answer } = read_renewal_info(response);
            let answer = answer.map_err(|error| unreadable(Err::<(), _>(error)));
            (server_time, answer)
        })
    };
    assert_eq!(ask(info(5, 6), &ours()), (Some(Wall(1000)), Ok(info(5, 6))));
    for (start, end) in [(5, 5), (6, 5)] {
        let error = AnswerError::Window { start: Wall(start), end: Wall(end) };
        assert_eq!(ask(info(start, end), &ours()), (DATED, Err(error)));
    }
    assert_eq!(ask(info(5, 6), ""), (DATED, Err(AnswerError::MediaType)));
    with_response(200, &ours(), b"", |response| {
        let error = AnswerError::Wire(WireError::Malformed);
        assert_eq!(read_renewal_info(response).answer, Err(error.into()));
    });
}

#[test]
fn a_challenge_is_read_with_its_time() {
    let wanted = Challenge {
        version: 1,
        id: NONCE,
        nonce: [7; 32],
        credential: b"c",
        encrypted_secret: b"s",
        valid_s: 120,
        server_time: Wall(1000),
    };
    let mut out = [0; Challenge::MAX_LEN];
    let body = wanted.emit(&mut out).unwrap();
    with_response(200, &ours(), body, |response| {
        let expected = Dated { server_time: Some(Wall(1000)), answer: Ok(wanted) };
        assert_eq!(read_challenge(response), expected);
    });
    with_response(200, "", body, |response| {
        let error = AnswerError::MediaType;
        let expected = Dated { server_time: DATED, answer: Err(error.into()) };
        assert_eq!(read_challenge(response), expected);
    });
    with_response(200, &ours(), &body[..body.len() - 1], |response| {
        let error = AnswerError::Wire(WireError::Malformed);
        assert_eq!(read_challenge(response).answer, Err(error.into()));
    });
    with_response(404, "", b"", |response| {
        let answer = read_challenge(response).answer.unwrap_err();
        assert!(matches!(answer, Unanswered::Refused(refusal) if refusal.status == 404));
    });
}

fn leaf_error(der: &'static [u8], device_id: &'static DeviceId) -> LeafError<'static> {
    let leaf = Certificate::parse(der).unwrap();
    check_leaf(&leaf, &leaf.spki_sha256(), device_id).unwrap_err()
}

fn leaked(text: &str) -> &'static DeviceId {
    std::boxed::Box::leak(std::boxed::Box::new(id(text)))
}

#[test]
fn the_certificate_that_was_asked_for_passes() {
    for (der, device_id) in [(LEAF, id("gw-0001")), (GATEWAY, id("gw-0002"))] {
        let leaf = Certificate::parse(der).unwrap();
        assert_eq!(check_leaf(&leaf, &leaf.spki_sha256(), &device_id), Ok(()));
    }
}

#[test]
fn a_certificate_for_another_key_or_device_is_named() {
    let leaf = Certificate::parse(LEAF).unwrap();
    let device_id = id("gw-0001");
    let (found, expected) = (leaf.spki_sha256(), [7; 32]);
    let error = Err(LeafError::Key { found, expected });
    assert_eq!(check_leaf(&leaf, &expected, &device_id), error);
    let error = LeafError::DeviceId { found: "gw-0001", expected: "gw-1" };
    assert_eq!(leaf_error(LEAF, leaked("gw-1")), error);
    let error = LeafError::CommonName(CommonNameError::Count { found: 0 });
    assert_eq!(leaf_error(BARE, leaked("gw-1")), error);
    let error = LeafError::CommonName(CommonNameError::Count { found: 2 });
    assert_eq!(leaf_error(SERVER, leaked("one")), error);
}

#[test]
fn a_certificate_of_an_authority_or_for_no_client_or_no_time_is_refused() {
    assert_eq!(leaf_error(AUTHORITY, leaked("gw-0003")), LeafError::Authority);

    let mut useless = LEAF.to_vec();
    let at = useless.windows(8).position(|oid| oid == b"\x2b\x06\x01\x05\x05\x07\x03\x02").unwrap();
    useless[at + 7] = 0x01;
    let useless = std::boxed::Box::leak(useless.into_boxed_slice());
    assert_eq!(leaf_error(useless, leaked("gw-0001")), LeafError::Purpose);

    let inverted = |second: u8| {
        let mut inverted = LEAF.to_vec();
        let at = inverted.windows(13).position(|time| time == b"270219234422Z").unwrap();
        inverted[at..at + 13].copy_from_slice(b"261121234422Z");
        inverted[at + 11] = second;
        std::boxed::Box::leak(inverted.into_boxed_slice())
    };
    let (not_before, not_after) = (Wall(1_795_304_662), Wall(1_795_304_661));
    let found = Validity { not_before, not_after };
    assert_eq!(leaf_error(inverted(b'1'), leaked("gw-0001")), LeafError::Validity { found });
    let brief = Certificate::parse(inverted(b'2')).unwrap();
    assert_eq!(check_leaf(&brief, &brief.spki_sha256(), &id("gw-0001")), Ok(()));
}

#[test]
fn errors_read_as_text() {
    let (found, expected) = ([0xab; 32], [0x01; 32]);
    let key =
        format!("issued certificate is for the key {}, not {}", "ab".repeat(32), "01".repeat(32));
    let validity = Validity { not_before: Wall(2), not_after: Wall(1) };
    for (error, text) in [
        (LeafError::Authority, "issued certificate is an authority's"),
        (
            LeafError::CommonName(CommonNameError::Malformed),
            "issued certificate: subject is not a distinguished name",
        ),
        (
            LeafError::DeviceId { found: "a", expected: "b" },
            "issued certificate is for device \"a\", not \"b\"",
        ),
        (LeafError::Key { found, expected }, key.as_str()),
        (LeafError::Purpose, "issued certificate is not for TLS clients"),
        (LeafError::Validity { found: validity }, "issued certificate begins at 2 and ends at 1"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (error, text) in [
        (AnswerError::Body(DecodeError::Empty), "answer: body is empty, base64 was expected"),
        (
            AnswerError::Certificate(CertificateError::Version { found: 1 }),
            "answer: certificate has version 1, not 3",
        ),
        (AnswerError::Cms(CmsError::Malformed), "answer: message is no CMS SignedData in DER"),
        (
            AnswerError::MediaType,
            "answer is not of the media type application/vnd.fleetcert.v1+postcard",
        ),
        (AnswerError::Nonce, "answer returns another nonce than was sent"),
        (AnswerError::Status { found: 302 }, "status 302 is no answer to this question"),
        (
            AnswerError::Window { start: Wall(2), end: Wall(1) },
            "renewal window begins at 2 and ends at 1",
        ),
        (AnswerError::Wire(WireError::Malformed), "answer: message is malformed"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    for (error, text) in [
        (NameError::Character, "name holds a character that it may not"),
        (NameError::Length { found: 65, max: 64 }, "name has 65 octets, not 1 to 64"),
        (NameError::Reserved, "label is the name of an EST operation"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
