//! Peers that send too much, too slowly, or what is no HTTP; and how a service stops.

use std::{io::Write, sync::Arc, time::Duration};

use fleetcert_provisioner::http::server::{HEAD_LEN_MAX, Limits};

use crate::world::{Csr, World, get, limits, post};

const ENROLL: &str = "/.well-known/est/simpleenroll";

fn head(fields: &str) -> String {
    format!("POST {ENROLL} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// Credentials that make the service read the body.
fn basic() -> String {
    format!("Authorization: Basic {}\r\n", crate::world::base64(b"dev1:token"))
}

// Goal: a body beyond the limit is refused when it is announced, before it is sent.
#[test]
fn an_announced_body_beyond_the_limit_is_refused_unread() {
    let world = World::new();
    let mut connection = world.connect(Arc::new(world.client(None)));
    let fields = format!("{}Content-Length: {}\r\n", basic(), limits().body_len_max + 1);
    connection.send(head(&fields));
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.reason()), (413, "too-large"));
    assert!(connection.ends());
}

// Goal: a body that does not say its length is refused when it has passed the limit.
#[test]
fn a_chunked_body_beyond_the_limit_is_refused() {
    let world = World::new();
    let mut connection = world.connect(Arc::new(world.client(None)));
    connection.send(head(&format!("{}Transfer-Encoding: chunked\r\n", basic())));
    let chunk = format!("4000\r\n{}\r\n", "A".repeat(0x4000));
    for _ in 0..=limits().body_len_max / 0x4000 {
        connection.send(&chunk);
    }
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.reason()), (413, "too-large"));
}

// Goal: a client that sends all of a body that is too long, and only then reads, gets its answer:
// one that was given before anything of the body was read, too, and with the length left open.
#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_answer() {
    const BODY_LEN: usize = 1024 * 1024;
    let world = World::with_tokens_only();
    let body = vec![b'A'; BODY_LEN];
    let length = format!("Content-Length: {BODY_LEN}\r\n");
    let chunked = [format!("{BODY_LEN:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    for (fields, body, status) in [
        (basic() + &length, &body, 413),
        (basic() + "Transfer-Encoding: chunked\r\n", &chunked, 413),
        (length, &body, 401),
    ] {
        for round in 1..=50 {
            let mut connection = world.connect(Arc::new(world.client(None)));
            connection.send(head(&fields));
            connection.send(body);
            let answer = connection.answer().map(|answer| answer.status);
            assert_eq!(answer.ok(), Some(status), "{fields:?}, round {round}");
            assert!(connection.ends());
        }
    }
}

// Goal: a client that never stops sending is cut off: after so much, or after so long.
#[test]
fn a_client_that_never_stops_sending_is_cut_off() {
    let long = Duration::from_secs(3_600);
    let much = Limits { linger: long, linger_len_max: 100_000, ..limits() };
    let late = Limits { linger: Duration::from_millis(50), linger_len_max: usize::MAX, ..limits() };
    // What the kernels hold besides is some megabytes; and a record for each octet takes its time.
    for (limits, piece, pieces_max) in
        [(much, vec![b'A'; 16_384], 4_096), (late, vec![b'A'], 2_000_000)]
    {
        let world = World::with_limits(limits);
        let mut connection = world.connect(Arc::new(world.client(None)));
        let fields = format!("{}Content-Length: {}\r\n", basic(), u32::MAX);
        connection.send(head(&fields));
        let is_cut = (0..pieces_max).any(|_| !connection.goes_out(&piece));
        assert!(is_cut, "{pieces_max} pieces of {} octets went out", piece.len());
    }
}

// Goal: a body that stops coming is answered, and the connection ended, in time.
#[test]
fn a_slow_body_times_out() {
    let world = World::new();
    let mut connection = world.connect(Arc::new(world.client(None)));
    connection.send(head(&format!("{}Content-Length: 100\r\n", basic())) + "MIIB");
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.reason()), (408, "slow"));
    assert!(connection.ends());
}

// Goal: a head that stops coming, or never begins, ends the connection in time.
#[test]
fn a_slow_head_ends_the_connection() {
    let world = World::new();
    for said in ["", "GET /healthz HTTP/1.1\r\nHost: loc"] {
        let mut connection = world.connect(Arc::new(world.client(None)));
        connection.send(said);
        connection.0.flush().unwrap();
        while connection.0.conn.is_handshaking() {
            connection.0.conn.complete_io(&mut connection.0.sock).unwrap();
        }
        assert!(connection.ends(), "{said:?}");
    }
}

// Goal: a peer that never begins TLS is let go in time.
#[test]
fn a_silent_peer_is_let_go() {
    let world = World::new();
    let mut silent = world.tcp();
    let mut octet = [0];
    assert_eq!(std::io::Read::read(&mut silent, &mut octet).unwrap_or(0), 0);
}

// Goal: plain HTTP on the TLS port gets no HTTP answer.
#[test]
fn plain_http_is_not_answered() {
    let world = World::new();
    let mut plain = world.tcp();
    plain.write_all(get("/healthz").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut plain, &mut answer);
    assert!(!answer.starts_with(b"HTTP"));
}

// Goal: what is no HTTP is refused, and the connection ended.
#[test]
fn garbage_is_refused() {
    let world = World::new();
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nBad Name: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
        "POST /healthz HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        "POST /healthz HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        "POST /healthz HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nxy",
    ] {
        let mut connection = world.connect(Arc::new(world.client(None)));
        connection.send(garbage);
        let status = connection.answer().map(|answer| answer.status);
        assert!(status.as_ref().map_or(true, |status| *status == 400), "{garbage:?}: {status:?}");
        assert!(connection.ends(), "{garbage:?}");
    }
}

// Goal: a head beyond the limit is refused.
#[test]
fn a_head_beyond_the_limit_is_refused() {
    let world = World::new();
    let long = "a".repeat(HEAD_LEN_MAX);
    let many = "a: b\r\n".repeat(200);
    for request in [
        format!("GET /healthz HTTP/1.1\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{many}\r\n"),
    ] {
        let mut connection = world.connect(Arc::new(world.client(None)));
        connection.send(request);
        let status = connection.answer().unwrap().status;
        assert!(matches!(status, 414 | 431), "{status}");
    }
}

// Goal: nothing can hide behind a request whose length is said twice.
#[test]
fn a_request_smuggled_in_a_body_is_not_answered() {
    let world = World::new();
    let hidden = get("/healthz");
    for lengths in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut connection = world.connect(Arc::new(world.client(None)));
        let fields = format!("{}{lengths}", basic());
        connection.send(head(&fields) + "0\r\n\r\n" + &hidden);
        let first = connection.answer().unwrap();
        assert_eq!(first.status, 400, "{first:?}");
        assert!(connection.ends(), "{lengths:?}");
    }
}

// Goal: an unread body is never taken for the next request.
#[test]
fn a_body_that_nobody_reads_is_not_the_next_request() {
    let world = World::with_tokens_only();
    let mut connection = world.connect(Arc::new(world.client(None)));
    let hidden = get("/healthz");
    let fields = format!("Content-Length: {}\r\n", hidden.len());
    connection.send(head(&fields) + &hidden);
    assert_eq!(connection.answer().unwrap().status, 401);
    assert!(connection.ends());
}

// Goal: further connections wait until there is room, and then are served.
#[test]
fn connections_beyond_the_limit_wait() {
    let head = Duration::from_secs(5);
    let world = World::with_limits(Limits { connections_max: 1, head, ..limits() });
    let mut first = world.connect(Arc::new(world.client(None)));
    first.send(get("/healthz").replace("Connection: close\r\n", ""));
    assert_eq!(first.answer().unwrap().status, 200);
    let mut second = world.connect(Arc::new(world.client(None)));
    second.0.sock.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(second.0.write_all(get("/healthz").as_bytes()).is_err());
    drop(first);
    second.0.sock.set_read_timeout(Some(head)).unwrap();
    second.send(get("/healthz"));
    assert_eq!(second.answer().unwrap().status, 200);
}

// Goal: a request in flight is answered before the service is gone, and no other is taken.
#[test]
fn a_stop_lets_requests_in_flight_finish() {
    let request = Duration::from_secs(5);
    let mut world = World::with_limits(Limits { request, ..limits() });
    let token = world.token("dev1");
    let request = post(
        ENROLL,
        Some(("dev1", &token)),
        crate::world::base64(&Csr::new("dev1").der).as_bytes(),
    );
    let (begun, rest) = request.split_at(request.len() - 10);
    let mut connection = world.connect(Arc::new(world.client(None)));
    connection.send(begun);
    let mut idle = world.connect(Arc::new(world.client(None)));
    idle.send(get("/healthz").replace("Connection: close\r\n", ""));
    assert_eq!(idle.answer().unwrap().status, 200);
    world.stop();
    assert!(idle.ends());
    connection.send(rest);
    assert_eq!(connection.answer().unwrap().status, 200);
    assert_eq!(world.stopped(), 0);
}
