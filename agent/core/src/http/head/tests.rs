use std::vec::Vec;

use httparse::{EMPTY_HEADER, Status};

use super::{HEADERS_MAX, Scan, status, values};

const HEADS: [&[u8]; 5] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: \tb c\xc3\xa9 \r\n\r\nhello",
    b"HTTP/1.0 404\r\na:\r\nB-1: \r\nb-1:x\r\n\r\n",
    b"HTTP/1.1 999 \nA: b\nC:d\n\n",
    b"HTTP/1.1 100\n\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 503 A: b\r\n!#$%&'*+-.^_`|~09azAZ: x:y\r\n\r\n",
];

/// What a reader found: whether the head is whole, with its length, its status and its headers.
type Found = Option<Option<(usize, u16, bool, Vec<(Vec<u8>, Vec<u8>)>)>>;

fn judged(octets: &[u8]) -> Found {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    Some(match response.parse(octets).ok()? {
        Status::Partial => None,
        Status::Complete(len) => {
            let header = |header: &httparse::Header<'_>| {
                (header.name.to_ascii_lowercase().into_bytes(), header.value.to_vec())
            };
            let headers = response.headers.iter().map(header).collect();
            Some((len, response.code?, response.version? == 0, headers))
        }
    })
}

/// Ours, in pieces; its headers are looked up by the names that the judge knows of.
fn found(octets: &[u8], step: usize, judged: &Found) -> Found {
    let mut scan = Scan::HEAD;
    let ends = (step..octets.len()).step_by(step).chain([octets.len()]);
    let mut is_whole = false;
    for end in ends {
        is_whole = is_whole || scan.advance(&octets[..end])?;
    }
    if !is_whole {
        return Some(None);
    }
    let head = &octets[..scan.len];
    let (status, is_http_10) = status(head);
    let mut headers = Vec::new();
    for (name, _) in judged.iter().flatten().flat_map(|(.., headers)| headers) {
        let name = core::str::from_utf8(name).unwrap();
        let before = headers.iter().filter(|(other, _)| other == name.as_bytes()).count();
        let value = values(head, name).nth(before).unwrap_or(b"is not there");
        headers.push((name.as_bytes().to_vec(), value.to_vec()));
    }
    Some(Some((scan.len, status, is_http_10, headers)))
}

fn agree(octets: &[u8]) {
    // It passes over empty lines before a head. A response has none there: RFC 9112 §2.2 has
    // servers do so, for clients that sent them behind a request.
    if matches!(octets.first(), Some(b'\r' | b'\n')) {
        assert_eq!(found(octets, 1, &None), None, "{}", octets.escape_ascii());
        return;
    }
    let judged = judged(octets);
    for step in [1, 3, octets.len().max(1)] {
        assert_eq!(found(octets, step, &judged), judged, "{}", octets.escape_ascii());
    }
}

/// Goal: heads, cut anywhere, and with any octet at any place, are what another reader says.
#[test]
fn heads_are_read_as_another_reader_reads_them() {
    for head in HEADS {
        for at in 0..head.len() {
            agree(&head[..at]);
            for octet in 0..=255 {
                let mut changed = head.to_vec();
                changed[at] = octet;
                agree(&changed);
                changed[at] = head[at];
                changed.insert(at, octet);
                agree(&changed);
            }
        }
    }
}

/// Goal: the same of what nobody would think of, in octets that mean something in a head.
#[test]
fn lines_of_any_kind_are_read_as_another_reader_reads_them() {
    let mut state = 1_u64;
    let mut draw = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let pieces: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"A",
        b"bc: d",
        b"\r\n\r\n",
        b"\0",
        b"\xff",
        b"-",
    ];
    let mut whole = 0;
    for _ in 0..20_000 {
        let mut head = b"HTTP/1.1 200".to_vec();
        for _ in 0..draw(16) {
            head.extend_from_slice(pieces[draw(pieces.len())]);
        }
        agree(&head);
        whole += usize::from(matches!(judged(&head), Some(Some(_))));
    }
    assert!(whole > 1_000, "{whole}");
}

/// Goal: trailers are headers and nothing else, as another reader says.
#[test]
fn trailers_are_read_as_another_reader_reads_them() {
    for trailer in
        [&b"\r\n"[..], b"A: b\r\nC:\r\n\r\n0", b"A: b\n\n", b"A b\r\n\r\n", b" A: b\r\n\r\n"]
    {
        for at in 0..trailer.len() {
            for octet in 0..=255 {
                let mut changed = trailer.to_vec();
                changed[at] = octet;
                let mut headers = [EMPTY_HEADER; HEADERS_MAX];
                let judged = match httparse::parse_headers(&changed, &mut headers) {
                    Ok(Status::Complete((len, _))) => Some((true, len)),
                    Ok(Status::Partial) => Some((false, changed.len())),
                    Err(_) => None,
                };
                let mut scan = Scan::TRAILER;
                let found = scan.advance(&changed).map(|is_whole| (is_whole, scan.len));
                assert_eq!(found, judged, "{}", changed.escape_ascii());
            }
        }
    }
}
