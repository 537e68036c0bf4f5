use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use super::{Progress, Response, ResponseError, ResponseHead, ResponseReader};
use crate::http::{BODY_LEN_MAX, CHUNK_LINE_LEN_MAX, HEADER_LEN_MAX, HEADERS_MAX, INTERIM_MAX};
use crate::time::Wall;

const WITH_LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello";
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n\
    5\r\nhello\r\n00A;x=\"y\"\r\n, world!!!\r\n0\r\nX: y\r\n\r\n";
const WITHOUT_BODY: &[u8] = b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n";

/// What came of a response: its status, its body, whether it closes the connection.
type Outcome = Result<(u16, Vec<u8>, bool), ResponseError>;

fn outcome(response: Response<'_>) -> (u16, Vec<u8>, bool) {
    (response.head.status(), response.body.to_vec(), response.head.closes())
}

/// Feeds `octets` in pieces of `step` to a reader with a buffer of `len`; then, if the reader
/// wants more, the end of the connection.
fn read_into(octets: &[u8], step: usize, len: usize) -> Outcome {
    let mut buffer = vec![0xee; len];
    let mut reader = ResponseReader::new(&mut buffer);
    let mut rest = octets;
    let mut progress = Progress::More;
    while !rest.is_empty() {
        let space = reader.space();
        assert!(!space.is_empty(), "no space was left and more was wanted");
        let len = step.min(rest.len()).min(space.len());
        space[..len].copy_from_slice(&rest[..len]);
        rest = &rest[len..];
        progress = reader.advance(len)?;
        if progress == Progress::Done {
            break;
        }
    }
    assert!(rest.is_empty(), "the reader was done before everything was read");
    if progress == Progress::More {
        assert_eq!(reader.advance(0)?, Progress::Done);
    }
    reader.finish().map(outcome)
}

fn read(octets: &[u8]) -> Outcome {
    let whole = read_into(octets, usize::MAX, 128 * 1024);
    for step in [1, 2, 3, 7] {
        if octets.len() < 1000 {
            let pieces = read_into(octets, step, 128 * 1024);
            if whole.is_ok() {
                assert_eq!(pieces, whole, "in pieces of {step}");
            } else {
                assert!(pieces.is_err(), "in pieces of {step}");
            }
        }
    }
    whole
}

fn ok(headers: &str, body: &str) -> Outcome {
    read(format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}").as_bytes())
}

fn body(text: &str) -> Outcome {
    Ok((200, text.as_bytes().to_vec(), false))
}

#[test]
fn a_body_with_a_length_is_read_to_its_end() {
    assert_eq!(read(WITH_LENGTH), body("hello"));
    assert_eq!(ok("Content-Length: 0\r\n", ""), body(""));
    assert_eq!(ok("content-length:  005 \r\n", "hello"), body("hello"));
}

#[test]
fn a_chunked_body_is_decoded_where_it_stands() {
    assert_eq!(read(CHUNKED), body("hello, world!!!"));
    assert_eq!(ok("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), body(""));
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    assert_eq!(ok("", "hello"), Ok((200, b"hello".to_vec(), true)));
    assert_eq!(ok("", ""), Ok((200, Vec::new(), true)));
    assert_eq!(ok("Connection: close\r\n", "hello"), Ok((200, b"hello".to_vec(), true)));
}

#[test]
fn responses_that_have_no_body_have_none_whatever_they_say() {
    assert_eq!(read(WITHOUT_BODY), Ok((204, Vec::new(), false)));
    for status in ["204 No Content", "304 Not Modified"] {
        for header in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            let text = format!("HTTP/1.1 {status}\r\n{header}\r\n");
            let (_, body, closes) = read(text.as_bytes()).unwrap();
            assert_eq!((body, closes), (Vec::new(), false));
        }
    }
}

#[test]
fn a_response_cut_at_any_length_is_truncated_and_never_taken_for_whole() {
    for octets in [WITH_LENGTH, CHUNKED, WITHOUT_BODY] {
        assert_eq!(read(b""), Err(ResponseError::Closed));
        for len in 1..octets.len() {
            assert_eq!(read(&octets[..len]), Err(ResponseError::Truncated), "cut at {len}");
        }
    }
}

#[test]
fn an_unfinished_response_is_not_given() {
    let mut buffer = [0; 64];
    assert_eq!(ResponseReader::new(&mut buffer).finish().unwrap_err(), ResponseError::Truncated);
}

#[test]
fn every_changed_octet_is_survived() {
    for octets in [WITH_LENGTH, CHUNKED, WITHOUT_BODY] {
        for at in 0..octets.len() {
            for octet in [0x00, b'\r', b'\n', b' ', b':', b'0', b'f', 0x80, 0xff] {
                let mut changed = octets.to_vec();
                changed[at] = octet;
                for step in [1, usize::MAX] {
                    let mut buffer = [0; 256];
                    let mut reader = ResponseReader::new(&mut buffer);
                    for piece in changed.chunks(step.min(changed.len())) {
                        reader.space()[..piece.len()].copy_from_slice(piece);
                        if reader.advance(piece.len()) != Ok(Progress::More) {
                            break;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn interim_responses_are_passed_over_up_to_eight() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let most = interim.repeat(usize::from(INTERIM_MAX));
    assert_eq!(read(format!("{most}{last}").as_bytes()), body("hi"));
    let more = interim.repeat(usize::from(INTERIM_MAX) + 1);
    assert_eq!(read(format!("{more}{last}").as_bytes()), Err(ResponseError::Interim));
    assert_eq!(read(interim.as_bytes()), Err(ResponseError::Truncated));
    let continued = format!("HTTP/1.1 100 Continue\r\n\r\n{last}");
    assert_eq!(read(continued.as_bytes()), body("hi"));
}

#[test]
fn a_status_that_answers_nothing_is_refused() {
    for (status, found) in [("101", 101), ("000", 0), ("099", 99)] {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(read(text.as_bytes()), Err(ResponseError::Status { found }));
    }
    for (status, found) in [("200", 200), ("599", 599), ("999", 999)] {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(read(text.as_bytes()), Ok((found, Vec::new(), false)));
    }
}

#[test]
fn two_lengths_must_be_the_same_and_each_a_number() {
    let twice = "Content-Length: 5\r\nContent-Length: 5\r\n";
    assert_eq!(ok(twice, "hello"), body("hello"));
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: :\r\n",
        "Content-Length: /\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
    ] {
        assert_eq!(ok(headers, "hello"), Err(ResponseError::ContentLength), "{headers}");
    }
}

#[test]
fn a_transfer_encoding_is_chunked_alone_or_refused() {
    let refused = Err(ResponseError::TransferEncoding);
    for headers in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert_eq!(ok(headers, "0\r\n\r\n"), refused, "{headers}");
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(read(old), refused);
}

#[test]
fn malformed_heads_are_refused() {
    for text in [
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
    ] {
        assert_eq!(read(text.as_bytes()), Err(ResponseError::Head), "{text:?}");
    }
}

#[test]
fn thirty_two_headers_are_taken_and_thirty_three_are_not() {
    let headers = "A: b\r\n".repeat(HEADERS_MAX - 1);
    assert_eq!(ok(&format!("Content-Length: 0\r\n{headers}"), ""), body(""));
    let more = format!("Content-Length: 0\r\nA: b\r\n{headers}");
    assert_eq!(ok(&more, ""), Err(ResponseError::Head));
}

fn padded_head(len: usize) -> String {
    let (start, end) = ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: ", "\r\n\r\n");
    format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()))
}

#[test]
fn a_head_of_sixteen_kibibytes_is_taken_and_one_octet_more_is_not() {
    assert_eq!(read(padded_head(HEADER_LEN_MAX).as_bytes()), body(""));
    let found = HEADER_LEN_MAX + 1;
    let error = read(padded_head(found).as_bytes());
    assert_eq!(error, Err(ResponseError::HeaderLength { found }));
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEADER_LEN_MAX));
    let found = endless.len();
    assert_eq!(read(endless.as_bytes()), Err(ResponseError::HeaderLength { found }));
    let within = read(&endless.as_bytes()[..HEADER_LEN_MAX]);
    assert_eq!(within, Err(ResponseError::Truncated));
}

#[test]
fn a_head_that_fills_the_buffer_is_refused() {
    let head = padded_head(100);
    assert_eq!(read_into(head.as_bytes(), 9, 100), body(""));
    let error = read_into(head.as_bytes(), 9, 99);
    assert_eq!(error, Err(ResponseError::Full { len: 99 }));
}

#[test]
fn a_body_of_sixty_four_kibibytes_is_taken_and_one_octet_more_is_not() {
    let most = "x".repeat(BODY_LEN_MAX);
    let more = "x".repeat(BODY_LEN_MAX + 1);
    let error = Err(ResponseError::BodyLength { found: 65537, max: 65536 });
    let length = |len: usize| format!("Content-Length: {len}\r\n");
    assert_eq!(ok(&length(BODY_LEN_MAX), &most), body(&most));
    assert_eq!(ok(&length(BODY_LEN_MAX + 1), &more), error);

    let chunks = |last: &str| format!("8000\r\n{}\r\n{last}", "x".repeat(0x8000));
    let half = chunks("0\r\n\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(ok(chunked, &chunks(&half)), body(&most));
    assert_eq!(ok(chunked, &chunks("8001\r\n")), error);

    assert_eq!(ok("", &most), Ok((200, most.clone().into_bytes(), true)));
    assert_eq!(ok("", &more), error);
}

#[test]
fn a_length_is_compared_with_the_buffer_before_the_body_comes() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let text = format!("{head}hello");
    assert_eq!(read_into(text.as_bytes(), 1, text.len()), body("hello"));
    let error = read_into(head.as_bytes(), 1, text.len() - 1);
    assert_eq!(error, Err(ResponseError::BodyLength { found: 5, max: 4 }));
}

#[test]
fn a_body_that_ends_with_the_connection_leaves_one_octet_of_the_buffer() {
    let text = b"HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(read_into(text, 1, text.len() + 1), Ok((200, b"hello".to_vec(), true)));
    let error = read_into(text, 1, text.len());
    assert_eq!(error, Err(ResponseError::BodyLength { found: 5, max: 4 }));
    let empty = b"HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(read_into(empty, 1, empty.len()), Err(ResponseError::Full { len: 19 }));
}

#[test]
fn the_frame_of_chunks_takes_one_octet_of_the_buffer() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let text = format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(40));
    let (found, octets, _) = read_into(text.as_bytes(), 5, head.len() + 46).unwrap();
    assert_eq!((found, octets), (200, vec![b'x'; 40]));
    assert_eq!(read_into(text.as_bytes(), 5, head.len() + 41).unwrap().1, vec![b'x'; 40]);
    let error = read_into(text.as_bytes(), 5, head.len() + 40);
    assert_eq!(error, Err(ResponseError::BodyLength { found: 40, max: 39 }));
    let line = format!("{head}1;{}\r\nx\r\n0\r\nA: {}\r\n\r\n", "x".repeat(40), "y".repeat(40));
    assert_eq!(read_into(line.as_bytes(), 5, head.len() + 6), body("x"));
}

#[test]
fn malformed_chunks_are_refused() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    for text in ["\r\n", "x\r\n", ";a\r\n", " 1\r\nx\r\n", "-1\r\n", "1\rx", "1\nx", "1x\r\n"] {
        assert_eq!(ok(chunked, text), Err(ResponseError::Chunk), "{text:?}");
    }
    for text in ["1\r\nxy\r\n0\r\n\r\n", "1\r\nx\n0\r\n\r\n", "1\r\nx\rx", "12345678123456781\r\n"]
    {
        assert_eq!(ok(chunked, text), Err(ResponseError::Chunk), "{text:?}");
    }
    let huge = ok(chunked, "1\r\nx\r\nffffffffffffffff\r\n");
    assert_eq!(huge, Err(ResponseError::BodyLength { found: u64::MAX, max: BODY_LEN_MAX }));
}

#[test]
fn a_chunk_line_of_256_octets_is_taken_and_one_more_is_not() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let line = |len: usize| format!("1;{}\r\n", "x".repeat(len - 4));
    let last = "x\r\n0\r\n\r\n";
    assert_eq!(ok(chunked, &format!("{}{last}", line(CHUNK_LINE_LEN_MAX))), body("x"));
    let more = line(CHUNK_LINE_LEN_MAX + 1);
    assert_eq!(ok(chunked, &format!("{more}{last}")), Err(ResponseError::Chunk));
    let endless = &more[..CHUNK_LINE_LEN_MAX];
    assert_eq!(ok(chunked, endless), Err(ResponseError::Chunk));
    let within = &more[..CHUNK_LINE_LEN_MAX - 1];
    assert_eq!(ok(chunked, within), Err(ResponseError::Truncated));
}

#[test]
fn trailers_are_bounded_like_heads_and_must_be_headers() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let trailer = |len: usize| format!("0\r\nA: {}\r\n\r\n", "x".repeat(len - 7));
    assert_eq!(ok(chunked, &trailer(HEADER_LEN_MAX)), body(""));
    assert_eq!(ok(chunked, &trailer(HEADER_LEN_MAX + 1)), Err(ResponseError::Trailer));
    let more = trailer(HEADER_LEN_MAX + 9);
    let endless = ok(chunked, &more[..HEADER_LEN_MAX + 3]);
    assert_eq!(endless, Err(ResponseError::Trailer));
    let within = ok(chunked, &more[..HEADER_LEN_MAX + 2]);
    assert_eq!(within, Err(ResponseError::Truncated));
    assert_eq!(ok(chunked, "0\r\nA b\r\n\r\n"), Err(ResponseError::Trailer));
}

#[test]
fn octets_behind_a_response_are_refused_and_counted() {
    for octets in [WITH_LENGTH, CHUNKED, WITHOUT_BODY] {
        let longer = [octets, b"HT"].concat();
        let error = read_into(&longer, usize::MAX, 4096);
        assert_eq!(error, Err(ResponseError::Surplus { found: 2 }));
    }
}

#[test]
fn octets_that_come_after_the_end_are_refused_and_the_end_of_the_connection_is_not() {
    let mut buffer = [0; 256];
    let mut reader = ResponseReader::new(&mut buffer);
    reader.space()[..WITH_LENGTH.len()].copy_from_slice(WITH_LENGTH);
    assert_eq!(reader.advance(WITH_LENGTH.len()), Ok(Progress::Done));
    assert_eq!(reader.advance(0), Ok(Progress::Done));
    assert_eq!(reader.advance(3), Err(ResponseError::Surplus { found: 3 }));
}

#[test]
fn a_caller_that_claims_more_than_the_buffer_has_harms_nobody() {
    let mut buffer = [b'A'; 8];
    let mut reader = ResponseReader::new(&mut buffer);
    assert_eq!(reader.advance(usize::MAX), Err(ResponseError::Head));
    assert_eq!(reader.space(), b"");
}

#[test]
fn whether_the_connection_can_be_used_again_is_known() {
    for (headers, closes) in [
        ("", false),
        ("Connection: close\r\n", true),
        ("connection: Keep-Alive, CLOSE \r\n", true),
        ("Connection: a\r\nConnection: close\r\n", true),
        ("Connection: keep-alive\r\n", false),
        ("Connection: closed\r\n", false),
    ] {
        let headers = format!("{headers}Content-Length: 0\r\n");
        assert_eq!(ok(&headers, "").unwrap().2, closes, "{headers}");
    }
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";
    assert!(read(old).unwrap().2);
}

fn with_head<T>(headers: &str, look: impl FnOnce(ResponseHead<'_>) -> T) -> T {
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{headers}\r\n");
    let mut buffer = vec![0; text.len()];
    let mut reader = ResponseReader::new(&mut buffer);
    reader.space().copy_from_slice(text.as_bytes());
    assert_eq!(reader.advance(text.len()), Ok(Progress::Done));
    look(reader.finish().unwrap().head)
}

#[test]
fn headers_are_found_whatever_their_case() {
    with_head("A: first \r\na: second\r\nB: \u{e9}\r\nC:\r\n", |head| {
        assert_eq!(head.header("a"), Some("first"));
        assert_eq!(head.header("content-LENGTH"), Some("0"));
        assert_eq!((head.header("B"), head.header("C"), head.header("D")), (None, Some(""), None));
    });
}

#[test]
fn the_time_of_the_peer_is_read() {
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    assert_eq!(with_head(date, |head| head.date()), Some(Wall(784_111_777)));
    assert_eq!(with_head("Date: today\r\n", |head| head.date()), None);
    assert_eq!(with_head("", |head| head.date()), None);
}

#[test]
fn how_long_to_wait_is_read_as_seconds_or_relative_to_the_peers_time() {
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for (value, expected) in [
        ("120", Some(120)),
        ("0", Some(0)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", Some(u32::MAX)),
        ("99999999999999999999999", Some(u32::MAX)),
        ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
        ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(u32::MAX)),
        ("", None),
        ("-1", None),
        ("soon", None),
    ] {
        let headers = format!("{date}Retry-After: {value}\r\n");
        assert_eq!(with_head(&headers, |head| head.retry_after_s()), expected, "{value}");
    }
    let dateless = "Retry-After: Sun, 06 Nov 1994 08:51:37 GMT\r\n";
    assert_eq!(with_head(dateless, |head| head.retry_after_s()), None);
    assert_eq!(with_head(date, |head| head.retry_after_s()), None);
}

#[test]
fn errors_read_as_text() {
    for (error, text) in [
        (
            ResponseError::BodyLength { found: 9, max: 8 },
            "response body has 9 octets, at most 8 may be",
        ),
        (ResponseError::Chunk, "response has a malformed chunk"),
        (ResponseError::Closed, "connection was closed before a response"),
        (ResponseError::ContentLength, "response does not have one content length"),
        (ResponseError::Full { len: 8 }, "response does not fit into 8 octets"),
        (ResponseError::Head, "response has a malformed head"),
        (
            ResponseError::HeaderLength { found: 16385 },
            "response head has 16385 octets, at most 16384 may be",
        ),
        (ResponseError::Interim, "more than 8 interim responses came"),
        (ResponseError::Status { found: 101 }, "response has status 101, which is no answer"),
        (ResponseError::Surplus { found: 2 }, "2 octets follow the response"),
        (ResponseError::Trailer, "response has a malformed trailer"),
        (ResponseError::TransferEncoding, "response has an ambiguous transfer encoding"),
        (ResponseError::Truncated, "connection was closed within the response"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
