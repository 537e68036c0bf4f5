//! Who gets what: public answers, refusals of everything else, the way from a token to a renewal.

use fleetcert_core::{device_id::DeviceId, wire};

use crate::world::{Csr, START, World, get, post};

const EST: &str = "/.well-known/est/";

/// Every path that is not public, with its one method.
fn guarded() -> Vec<(String, &'static str)> {
    let mut paths = vec![(format!("{}?nonce={}", wire::WHOAMI_PATH, "0".repeat(32)), "GET")];
    for label in ["", "line-1/"] {
        for operation in ["simpleenroll", "simplereenroll"] {
            paths.push((format!("{EST}{label}{operation}"), "POST"));
        }
    }
    paths
}

// Goal: what devices need before they are anybody is open, dated, and of the right type.
#[test]
fn public_answers_need_no_credentials() {
    let world = World::new();
    let crl = format!("{}{}.crl", wire::CRL_PATH, world.provisioner.authority().key_id());
    for (path, content_type) in [
        ("/.well-known/est/cacerts", "application/pkcs7-mime; smime-type=certs-only"),
        ("/.well-known/est/line-1/cacerts", "application/pkcs7-mime; smime-type=certs-only"),
        ("/.well-known/est/csrattrs", "application/csrattrs"),
        ("/healthz", "application/json"),
        (crl.as_str(), "application/pkix-crl"),
    ] {
        let answer = world.get(None, path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.field("content-type"), Some(content_type), "{path}");
        assert_eq!(answer.field("date"), Some("Thu, 01 Jan 2026 00:00:00 GMT"), "{path}");
    }
}

// Goal: cacerts holds the device chain and the server root, and nothing else.
#[test]
fn ca_certificates_are_the_device_chain_and_the_server_root() {
    let world = World::new();
    let answer = world.get(None, "/.well-known/est/cacerts");
    let (device, server) = (&world.device_tree, &world.server_tree);
    let expected =
        [&device.issuing_certificate, &device.root_certificate, &server.root_certificate];
    assert_eq!(answer.certificates().iter().collect::<Vec<_>>(), expected);
    assert_eq!(answer.text().matches('\n').count(), 1);
}

// Goal: a libest client, which needs wrapped lines, gets them.
#[test]
fn a_libest_client_gets_wrapped_lines() {
    let world = World::new();
    let request = get("/.well-known/est/cacerts")
        .replace("Host:", "User-Agent: Cisco LibEST client 1.0\r\nHost:");
    let answer = world.ask(None, request.as_bytes());
    assert!(answer.text().lines().all(|line| line.len() <= 64));
    assert_eq!(answer.certificates().len(), 3);
}

// Goal: without credentials, nothing that is not public is answered with 200, whatever is asked.
#[test]
fn nothing_else_is_answered_without_credentials() {
    let world = World::with_tokens_only();
    let csr = Csr::new("dev1");
    for (path, method) in guarded() {
        for asked in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            for body in [&b""[..], b"MIIB", &csr.der] {
                let request = post(&path, None, body);
                let request = [asked.as_bytes(), &request[4..]].concat();
                let answer = world.ask(None, &request);
                let expected = if asked == method { vec![401, 403] } else { vec![405] };
                assert!(expected.contains(&answer.status), "{asked} {path}: {answer:?}");
                assert!(!answer.reason().is_empty(), "{asked} {path}: {answer:?}");
                let allow = (answer.status == 405).then_some(method);
                assert_eq!(answer.field("allow"), allow, "{asked} {path}");
                let challenge = answer.field("www-authenticate").is_some();
                assert_eq!(challenge, answer.status == 401, "{asked} {path}: {answer:?}");
            }
        }
    }
}

// Goal: what does not exist is not there, for a device either.
#[test]
fn unknown_paths_and_labels_do_not_exist() {
    let world = World::new();
    let device = world.enrolled("dev1");
    for path in [
        "/",
        "/.well-known/est/nowhere/cacerts",
        "/.well-known/est/nowhere/csrattrs",
        "/.well-known/est/Line%2d1/cacerts",
        "/.well-known/est/serverkeygen",
        "/.well-known/fleetcert/crl/00.crl",
        "/.well-known/fleetcert/renewal-info/AAAA.AAAA",
        "/admin",
    ] {
        for identity in [None, Some(&device)] {
            let answer = world.get(identity, path);
            assert_eq!(answer.status, 404, "{path}: {answer:?}");
            assert!(!answer.reason().is_empty(), "{path}");
        }
    }
    let request = Csr::new("dev2").post("nowhere/simpleenroll", Some(("dev2", "x")));
    assert_eq!(world.ask(None, &request).status, 404);
}

// Goal: a token lets its device in once.
#[test]
fn a_token_lets_its_device_in_once() {
    let world = World::new();
    let token = world.token("dev1");
    let request = Csr::new("dev1").post("simpleenroll", Some(("dev1", &token)));
    let answer = world.ask(None, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.certificates().len(), 1);
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    let again = world.ask(None, &Csr::new("dev1").post("simpleenroll", Some(("dev1", &token))));
    assert!([401, 403].contains(&again.status), "{again:?}");
    assert!(!again.text().contains(&token));
}

// Goal: a wrong, a foreign and a malformed token are refused, and none is repeated in the answer.
#[test]
fn other_tokens_are_refused() {
    let world = World::new();
    let (mine, other) = (world.token("dev1"), world.token("dev2"));
    for (user, token) in [("dev1", other.as_str()), ("dev2", &mine), ("dev1", "guess")] {
        let request = Csr::new("dev1").post("simpleenroll", Some((user, token)));
        let answer = world.ask(None, &request);
        assert!([401, 403].contains(&answer.status), "{user}: {answer:?}");
        assert!(!answer.text().contains(token), "{answer:?}");
    }
    let request = String::from_utf8(Csr::new("dev1").post("simpleenroll", Some(("a", "b"))));
    let bearer = request.unwrap().replace("Authorization: Basic", "Authorization: Bearer");
    let answer = world.ask(None, bearer.as_bytes());
    assert_eq!((answer.status, answer.reason()), (401, "credentials-malformed"));
}

// Goal: a body's line breaks decide the answer's, so that each client can read what it gets.
#[test]
fn an_answer_is_broken_into_lines_as_its_request_was() {
    let world = World::new();
    for (device, wrapped) in [("dev1", false), ("dev2", true)] {
        let token = world.token(device);
        let mut body = crate::world::base64(&Csr::new(device).der);
        if wrapped {
            body.insert(64, '\n');
            body.push('\n');
        }
        let path = "/.well-known/est/simpleenroll";
        let answer = world.ask(None, &post(path, Some((device, &token)), body.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.text().lines().count() > 1, wrapped);
        assert!(answer.text().ends_with('\n'));
    }
}

// Goal: a body that is no request is said to be none.
#[test]
fn bodies_that_are_no_request_are_refused() {
    let world = World::new();
    let token = world.token("dev1");
    for body in [&b""[..], b"\r\n", b"{}", b"MIIB", b"AAAA", &[0x30, 0x82, 0xff, 0xff]] {
        let path = "/.well-known/est/simpleenroll";
        let answer = world.ask(None, &post(path, Some(("dev1", &token)), body));
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        assert!(!answer.reason().is_empty());
    }
}

// Goal: with its certificate a device learns who it is and gets the next certificate.
#[test]
fn a_device_renews_with_its_certificate() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let path = format!("{}?nonce=00112233445566778899aabbccddeeff", wire::WHOAMI_PATH);
    let answer = world.get(Some(&device), &path);
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(seen["deviceId"], "dev1");
    assert_eq!(seen["nonce"], "00112233445566778899aabbccddeeff");
    assert_eq!(seen["serverTime"], "2026-01-01T00:00:00Z");
    let request = Csr::again("dev1");
    let renewed = world.ask(Some(&device), &request.post("simplereenroll", None));
    assert_eq!(renewed.status, 200, "{renewed:?}");
    let [certificate] = renewed.certificates().try_into().unwrap();
    assert_ne!(certificate, device.chain[0]);
}

// Goal: a client that speaks our own format gets it.
#[test]
fn postcard_is_spoken_to_those_who_ask() {
    let world = World::new();
    let device = world.enrolled("dev1");
    let path = format!("{}?nonce=00112233445566778899aabbccddeeff", wire::WHOAMI_PATH);
    let accept = format!("Accept: text/html, {};q=1\r\nHost:", wire::MEDIA_TYPE);
    let answer = world.ask(Some(&device), get(&path).replace("Host:", &accept).as_bytes());
    assert_eq!(answer.field("content-type"), Some(wire::MEDIA_TYPE));
    let seen: wire::WhoAmI<'_> = wire::WhoAmI::parse(&answer.body).unwrap();
    assert_eq!((seen.device_id, seen.server_time), ("dev1", START));
    assert_eq!(seen.nonce[15], 0xff);
}

// Goal: a nonce is asked for, and only of those who may ask.
#[test]
fn whoami_wants_a_nonce() {
    let world = World::new();
    let device = world.enrolled("dev1");
    for query in ["", "?", "?nonce=", "?nonce=zz", "?nonce=0011"] {
        let answer = world.get(Some(&device), &format!("{}{query}", wire::WHOAMI_PATH));
        assert_eq!((answer.status, answer.reason()), (400, "nonce"), "{query}");
    }
}

// Goal: a device that waits for an operator is told when to come again, and then gets through.
#[test]
fn a_pending_device_gets_through_once_approved() {
    let world = World::new();
    let request = Csr::new("bench-7").post("lab/simpleenroll", None);
    for _ in 0..2 {
        let answer = world.ask(None, &request);
        assert_eq!((answer.status, answer.field("retry-after")), (202, Some("7")), "{answer:?}");
    }
    let device = DeviceId::parse("bench-7").unwrap();
    smol::block_on(world.provisioner.approve(device, None, "test", START)).unwrap();
    assert_eq!(world.ask(None, &request).status, 200);
}

// Goal: a stranger for whom there is no room is told so, and when to come again.
#[test]
fn a_stranger_beyond_the_limit_is_told_to_come_again() {
    let world = World::new();
    for device in ["bench-1", "bench-2"] {
        let request = Csr::new(device).post("lab/simpleenroll", None);
        assert_eq!(world.ask(None, &request).status, 202);
    }
    let answer = world.ask(None, &Csr::new("bench-3").post("lab/simpleenroll", None));
    assert_eq!((answer.status, answer.reason()), (503, "pending-full"), "{answer:?}");
    assert_eq!(answer.field("retry-after"), Some("7"));
}
