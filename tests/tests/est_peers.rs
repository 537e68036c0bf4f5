//! EST as others speak it: strongSwan's `pki`, and curl and openssl by hand.
//!
//! What is refused is refused with the status and the reason code that an operator finds in the
//! manual, and an answer that others could not read is no answer.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleetcert_rig::process::Process;
use fleetcert_rig::wait::Stopwatch;
use fleetcert_tests::lab::by_hand::{
    Credential, SIMPLE_ENROLL, SIMPLE_REENROLL, base64, certificates, from_base64, new_key,
    new_key_of, openssl, request, serial, text, try_openssl,
};
use fleetcert_tests::lab::run::{Outcome, run};
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};

/// Two groups with a label each.
const LABELS: &str = r#"
[groups.other]
policy = "token"
[labels.here]
group = "default"
[labels.there]
group = "other"
"#;

fn pki(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = Command::new("pki");
    command.args(arguments);
    run(command, input).expect_success()
}

/// A new P-256 key of strongSwan's and a request of its making for `name`, signed by it.
fn pki_request(key: &Path, name: &str) -> Vec<u8> {
    let made = pki(&["--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"], b"");
    fs::write(key, made.octets).or_fail("a key");
    pki(&["--req", "--in", text(key), "--type", "ecdsa", "--dn", &format!("CN={name}")], b"").octets
}

/// What `openssl req` says of a new key and `/CN=name`, base64, and the key's path.
fn csr(lab: &Lab, name: &str) -> (String, PathBuf) {
    let key = lab.path(format!("{name}-csr.key"));
    new_key(&key);
    (base64(&request(&key, &format!("/CN={name}"), &[])), key)
}

/// Goal: strongSwan gets the CA certificates, enrolls by token, and re-enrolls with its
/// certificate and a new key.
#[test]
fn strongswan_enrolls_and_reenrolls() {
    let lab = Lab::new();
    let (url, root) = (lab.provisioner.url(), lab.server_root());
    let ca = lab.path("ca.pem");
    pki(
        &[
            "--estca",
            "--url",
            &url,
            "--cacert",
            text(&root),
            "--caout",
            text(&ca),
            "--outform",
            "pem",
        ],
        b"",
    );
    let (first_key, second_key) = (lab.path("first.key"), lab.path("second.key"));
    let (first, second) = (lab.path("first.pem"), lab.path("second.pem"));
    let est = ["--est", "--url", &url, "--cacert", text(&root), "--outform", "pem"];

    let token = format!("swan:{}", lab.token("swan"));
    let csr = pki_request(&first_key, "swan");
    let issued = pki(&[&est[..], &["--userpass", &token]].concat(), &csr);
    fs::write(&first, issued.octets).or_fail("the certificate");

    let csr = pki_request(&second_key, "swan");
    let old = ["--cert", text(&first), "--key", text(&first_key)];
    let issued = pki(&[&est[..], &old].concat(), &csr);
    fs::write(&second, issued.octets).or_fail("the certificate");

    assert_ne!(serial(&first), serial(&second));
    let subject = openssl(&["x509", "-in", text(&second), "-noout", "-subject"], b"").stdout;
    assert!(subject.contains("CN = swan"), "{subject}");
    assert_eq!(lab.issued("swan"), 2);
    let files: Vec<_> = fs::read_dir(lab.path("")).or_fail("the lab's folder").flatten().collect();
    let is_ca = |name: &str| name.starts_with("ca") && name.ends_with(".pem");
    let found = files.iter().filter(|file| is_ca(&file.file_name().to_string_lossy())).count();
    assert!(found >= 2, "root and issuing CA, found {found} files");
}

/// Goal: cacerts are the device tree, issuing CA and root, as openssl reads them; an issued chain
/// verifies under them with the published CRL, and does not any more once it is revoked.
#[test]
fn openssl_verifies_the_chain_until_it_is_revoked() {
    let lab = Lab::new();
    let device = lab.enroll_by_hand("dev-1");
    let reply = lab.https().get("/.well-known/est/cacerts");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("content-type"), Some("application/pkcs7-mime; smime-type=certs-only"));
    let chain = lab.path("cacerts.pem");
    fs::write(&chain, certificates(&reply.body)).or_fail("cacerts");
    let shown = lab.ask(&["ca", "show"]);
    let key_id = shown["deviceKeyId"].as_str().or_fail("the key identifier");

    let verify = || {
        let reply = lab.https().get(&format!("/.well-known/fleetcert/crl/{key_id}.crl"));
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("content-type"), Some("application/pkix-crl"));
        let crl = lab.path("fetched.crl");
        let pem = openssl(&["crl", "-inform", "DER"], &reply.body).octets;
        fs::write(&crl, pem).or_fail("the CRL");
        let arguments = ["verify", "-x509_strict", "-purpose", "sslclient", "-crl_check"];
        let files = ["-CAfile", text(&chain), "-CRLfile", text(&crl), text(&device.certificate)];
        try_openssl(&[&arguments[..], &files].concat(), b"")
    };
    let before = verify().expect_success();
    assert!(before.stdout.trim().ends_with(": OK"), "{}", before.text());
    lab.operate(&["device", "revoke", "dev-1", "--reason", "key-compromise"]);
    let after = verify();
    assert_ne!(after.code, Some(0));
    assert!(after.text().contains("certificate revoked"), "{}", after.text());
}

/// Goal: a leaf says what the design says, whatever the request asked for besides.
#[test]
fn a_leaf_holds_the_identity_and_nothing_that_was_only_asked_for() {
    let lab = Lab::new();
    let (token, key) = (lab.token("dev-1"), lab.path("dev-1.key"));
    new_key(&key);
    let wishes = [
        "-addext",
        "keyUsage=digitalSignature,keyCertSign",
        "-addext",
        "extendedKeyUsage=serverAuth,codeSigning",
        "-addext",
        "subjectAltName=DNS:broker.example",
    ];
    let csr = base64(&request(&key, "/CN=dev-1", &wishes));
    let reply = lab.https().basic("dev-1", &token).post(SIMPLE_ENROLL, csr.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let pem = certificates(&reply.body);
    let leaf = openssl(&["x509", "-noout", "-text"], pem.as_bytes()).stdout;
    for wanted in [
        "Subject: CN = dev-1",
        "URI:spiffe://lab.example/device/dev-1",
        "TLS Web Client Authentication",
        "CA:FALSE",
        "ecdsa-with-SHA256",
        "/.well-known/fleetcert/crl/",
    ] {
        assert!(leaf.contains(wanted), "{wanted} in {leaf}");
    }
    for unwanted in ["Certificate Sign", "Server Authentication", "Code Signing", "broker.example"]
    {
        assert!(!leaf.contains(unwanted), "{unwanted} in {leaf}");
    }
}

/// Goal: each way of breaking lines that clients have is read, and answered as they can read it.
#[test]
fn bodies_are_read_in_every_style_and_answered_in_their_own() {
    let lab = Lab::new();
    let device = lab.enroll_by_hand("dev-1");
    let https = lab.https_as(&device).field("Content-Transfer-Encoding", "nonsense");
    let der = request(&device.key, "/CN=dev-1", &[]);
    let one_line = base64(&der);
    let wrapped: String = one_line
        .as_bytes()
        .chunks(64)
        .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
        .collect();
    let pem =
        String::from_utf8_lossy(&openssl(&["req", "-inform", "DER"], &der).octets).into_owned();
    for (body, lines_expected) in [(one_line.clone(), false), (wrapped, true), (pem, true)] {
        let reply = https.post(SIMPLE_REENROLL, body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.text());
        let answer = reply.text();
        assert_eq!(answer.lines().count() > 1, lines_expected, "{answer}");
        assert!(answer.ends_with('\n'));
        assert!(answer.lines().all(|line| !lines_expected || line.len() <= 64), "{answer}");
        assert!(certificates(&reply.body).contains("BEGIN CERTIFICATE"));
    }
    let reply = https.post(SIMPLE_REENROLL, &der);
    assert_eq!(reply.status, 200, "raw DER: {}", reply.text());
    let libest = lab.https().field("User-Agent", "Cisco LibEST client 1.0");
    let (theirs, ours) = (libest.get(CA_CERTS), lab.https().get(CA_CERTS));
    assert!(theirs.text().lines().all(|line| line.len() <= 64), "{}", theirs.text());
    assert_eq!(ours.text().lines().count(), 1, "{}", ours.text());
    assert_eq!(from_base64(&theirs.body), from_base64(&ours.body));
}

const CA_CERTS: &str = "/.well-known/est/cacerts";

/// Goal: csrattrs is an empty SEQUENCE of its own type, at every label there is.
#[test]
fn csrattrs_ask_for_nothing() {
    let lab = Lab::with(Plan { more: LABELS, ..Plan::default() });
    for path in ["/.well-known/est/csrattrs", "/.well-known/est/here/csrattrs"] {
        let reply = lab.https().get(path);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("content-type"), Some("application/csrattrs"));
        assert_eq!(from_base64(&reply.body), [0x30, 0x00]);
    }
}

/// Goal: without authentication only public things are answered with 200, whatever the method.
#[test]
fn nothing_but_the_public_is_given_to_a_stranger() {
    let lab = Lab::with(Plan { more: LABELS, ..Plan::default() });
    let (csr, _) = csr(&lab, "stranger");
    let prefixes = ["/.well-known/est/", "/.well-known/est/here/", "/.well-known/est/nowhere/"];
    let operations =
        ["cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc", ""];
    let ours = ["/.well-known/fleetcert/whoami", "/.well-known/fleetcert/challenge", "/admin", "/"];
    let est = prefixes.iter().flat_map(|p| operations.map(|o| format!("{p}{o}")));
    for path in est.chain(ours.map(str::to_owned)) {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let body = (method == "POST" || method == "PUT").then_some(csr.as_bytes());
            let reply = lab.https().send(method, &path, body);
            let is_public = method == "GET"
                && (path.ends_with("cacerts") || path.ends_with("csrattrs"))
                && !path.contains("nowhere");
            // What is posted here is no question for a challenge, by its media type already.
            let is_other_media = method == "POST" && path.ends_with("challenge");
            let expected: &[u16] = match (is_public, is_other_media) {
                (true, _) => &[200],
                (_, true) => &[415],
                _ => &[401, 403, 404, 405],
            };
            assert!(expected.contains(&reply.status), "{method} {path}: {}", reply.status);
            let is_refused_with_a_reason =
                is_public || method == "HEAD" || !reply.reason().is_empty();
            assert!(is_refused_with_a_reason, "{method} {path}: {reply:?}");
        }
    }
    assert_eq!(lab.issued("stranger"), 0);
}

/// Goal: a token lets its one device in, once, in time, at its label; each other use has a code.
#[test]
fn tokens_are_held_to_their_device_label_time_and_single_use() {
    let lab = Lab::with(Plan { more: LABELS, ..Plan::default() });
    let post = |device: &str, token: &str, path: &str, name: &str| {
        let (csr, _) = csr(&lab, name);
        let reply = lab.https().basic(device, token).post(path, csr.as_bytes());
        (reply.status, reply.reason().to_owned())
    };
    let refused = |code: &str| (401, code.to_owned());
    let (one, _) = (lab.token("dev-1"), lab.token("dev-2"));

    let never_issued = "A".repeat(one.len());
    assert_eq!(post("dev-1", &never_issued, SIMPLE_ENROLL, "dev-1"), refused("token-unknown"));
    assert_eq!(post("dev-1", "guess", SIMPLE_ENROLL, "dev-1"), refused("token-unknown"));
    assert_eq!(post("dev-2", &one, SIMPLE_ENROLL, "dev-2"), refused("token-wrong-device"));
    let (status, code) = post("dev-1", &one, SIMPLE_ENROLL, "dev-2");
    assert_eq!((status, code.as_str()), (403, "csr-identity"));

    let issue = |more: &[&str]| {
        let arguments = [&["token", "issue", "dev-1"], more].concat();
        lab.operate(&arguments).trim().to_owned()
    };
    let here = issue(&["--label", "here"]);
    let at_here = "/.well-known/est/here/simpleenroll";
    let at_there = "/.well-known/est/there/simpleenroll";
    assert_eq!(post("dev-1", &here, SIMPLE_ENROLL, "dev-1"), refused("token-wrong-label"));
    assert_eq!(post("dev-1", &here, at_there, "dev-1"), refused("token-wrong-label"));
    let (status, code) = post("dev-1", &one, at_there, "dev-1");
    assert_eq!((status, code.as_str()), (403, "label-mismatch"));
    let nowhere = "/.well-known/est/nowhere/simpleenroll";
    assert_eq!(post("dev-1", &one, nowhere, "dev-1"), (404, "label-unknown".to_owned()));
    assert_eq!(post("dev-1", &here, at_here, "dev-1").0, 200);

    let used = refused("token-used");
    assert_eq!(post("dev-1", &here, at_here, "dev-1"), used, "with another key");

    let (short, watch) = (issue(&["--ttl-s", "1"]), Stopwatch::start());
    until("the second after the token's last", 10_000, || {
        (watch.elapsed_ms() >= 2_000).then_some(())
    });
    assert_eq!(post("dev-1", &short, SIMPLE_ENROLL, "dev-1"), refused("token-expired"));
    assert_eq!(lab.issued("dev-1"), 1);
    assert_eq!(lab.issued("dev-2"), 0);
}

/// Goal: credentials that are missing or cannot be read are answered with the challenge to give
/// some (RFC 7617 §2), and a name that no device can have is not taken.
#[test]
fn credentials_that_are_none_are_refused() {
    let lab = Lab::new();
    let (csr, _) = csr(&lab, "dev-1");
    let token = lab.token("dev-1");
    let bearer = lab.https().field("Authorization", &format!("Bearer {token}"));
    let backend = lab.https().basic("backend.fleet", &token);
    for (https, verdict) in [
        (lab.https(), (401, "credentials-required")),
        (bearer, (401, "credentials-malformed")),
        (lab.https().basic("no/device", &token), (400, "device-name")),
        (backend, (400, "device-name")),
    ] {
        let reply = https.post(SIMPLE_ENROLL, csr.as_bytes());
        assert_eq!(reply.verdict(), verdict);
        let challenge = reply.field("www-authenticate").unwrap_or_default();
        assert_eq!(challenge.starts_with("Basic "), reply.status == 401, "{reply:?}");
    }
    assert_eq!(lab.issued("dev-1"), 0);
}

/// Goal: each request that must not be certified is refused for its own reason, and leaves the
/// token as good as it was.
#[test]
fn requests_that_must_not_be_certified_are_refused_by_reason() {
    let lab = Lab::new();
    let token = lab.token("dev-1");
    let key = lab.path("good.key");
    new_key(&key);
    let good = request(&key, "/CN=dev-1", &[]);
    let of_key = |algorithm: &str, option: &str| {
        let key = lab.path(format!("{algorithm}-{}.key", option.replace(':', "-")));
        new_key_of(algorithm, option, &key);
        request(&key, "/CN=dev-1", &[])
    };
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let with_ca = request(&key, "/CN=dev-1", &["-addext", "basicConstraints=critical,CA:TRUE"]);
    let cases: [(&str, Vec<u8>, (u16, &str)); 10] = [
        ("a bad signature", forged, (400, "csr-signature")),
        ("CA:TRUE", with_ca, (400, "csr-ca")),
        ("two CNs", request(&key, "/CN=dev-1/CN=dev-2", &[]), (400, "csr-common-names")),
        ("another's name", request(&key, "/CN=dev-2", &[]), (403, "csr-identity")),
        ("RSA-1024", of_key("RSA", "rsa_keygen_bits:1024"), (400, "csr-key")),
        ("RSA-2048", of_key("RSA", "rsa_keygen_bits:2048"), (400, "csr-key")),
        ("P-384", of_key("EC", "ec_paramgen_curve:P-384"), (400, "csr-key")),
        ("Ed25519", of_key("ED25519", ""), (400, "csr-key")),
        ("SHA-384", request(&key, "/CN=dev-1", &["-sha384"]), (400, "csr-signature-algorithm")),
        ("truncated", good[..good.len() - 9].to_vec(), (400, "csr-malformed")),
    ];
    let https = lab.https().basic("dev-1", &token);
    for (what, der, verdict) in cases {
        let reply = https.post(SIMPLE_ENROLL, base64(&der).as_bytes());
        assert_eq!(reply.verdict(), verdict, "{what}: {}", reply.text());
        assert!(!reply.text().trim().is_empty(), "{what}: no text for the operator");
    }
    for (what, body, verdict) in [
        ("nothing", vec![], (400, "csr-malformed")),
        ("garbage", b"{\"csr\": \"please\"}".to_vec(), (400, "csr-malformed")),
        ("base64 of garbage", base64(&[0x30; 300]).into_bytes(), (400, "csr-malformed")),
        ("zeros", vec![0; 5_000], (400, "csr-malformed")),
        ("too long for a request", base64(&[0x30; 9_000]).into_bytes(), (413, "csr-too-long")),
        ("too long for a body", vec![b'A'; 70_000], (413, "too-large")),
    ] {
        let reply = https.post(SIMPLE_ENROLL, &body);
        assert_eq!(reply.verdict(), verdict, "{what}: {}", reply.text());
    }
    assert_eq!(lab.issued("dev-1"), 0);
    assert_eq!(https.post(SIMPLE_ENROLL, base64(&good).as_bytes()).status, 200);
}

/// Goal: a certificate re-enrolls its own subject and no other, and only the device tree's count.
#[test]
fn a_certificate_reenrolls_nobody_but_itself() {
    let lab = Lab::new();
    let (one, two) = (lab.enroll_by_hand("dev-1"), lab.enroll_by_hand("dev-2"));
    let post = |credential: &Credential, subject: &str, more: &[&str]| {
        let csr = base64(&request(&credential.key, subject, more));
        lab.https_as(credential).post(SIMPLE_REENROLL, csr.as_bytes())
    };
    for (subject, more, verdict) in [
        ("/CN=dev-2", &[][..], (403, "csr-identity")),
        ("/O=x/CN=dev-1", &[], (403, "subject-mismatch")),
        ("/O=x", &[], (403, "subject-mismatch")),
        ("/CN=dev-1", &["-addext", "subjectAltName=DNS:dev-2"], (403, "san-mismatch")),
    ] {
        assert_eq!(post(&one, subject, more).verdict(), verdict, "{subject} {more:?}");
    }
    let san = "subjectAltName=URI:spiffe://lab.example/device/dev-1";
    assert_eq!(post(&one, "/CN=dev-1", &["-addext", san]).status, 200);

    let anonymous = lab.https().post(SIMPLE_REENROLL, b"MIIB");
    assert_eq!(anonymous.verdict(), (401, "certificate-required"));
    let csr = base64(&request(&two.key, "/CN=dev-2", &[]));
    let token = lab.operate(&["token", "issue", "dev-2"]);
    let both = lab.https_as(&one).basic("dev-2", token.trim());
    assert_eq!(both.post(SIMPLE_REENROLL, csr.as_bytes()).verdict(), (403, "csr-identity"));
    assert_eq!(both.post(SIMPLE_ENROLL, csr.as_bytes()).verdict(), (401, "token-wrong-device"));
    lab.operate(&["device", "revoke", "dev-2"]);
    assert_eq!(post(&two, "/CN=dev-2", &[]).verdict(), (403, "revoked"));
    assert_eq!((lab.issued("dev-1"), lab.issued("dev-2")), (2, 1));
}

/// Goal: a certificate of the server tree is no client's, however well it is signed.
#[test]
fn a_server_certificate_is_no_credential() {
    let lab = Lab::new();
    let server = lab.server("localhost");
    let arguments = ["--cert", text(&server.certificate), "--key", text(&server.key)];
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]);
    command.arg(lab.server_root()).args(arguments);
    command.arg(format!("{}{CA_CERTS}", lab.provisioner.url()));
    let outcome = run(command, b"");
    assert_ne!(outcome.code, Some(0), "{}", outcome.text());
    assert!(outcome.stderr.contains("alert"), "{}", outcome.stderr);
}

/// Goal: a request repeated under its name gets its certificate again, and with another key none.
#[test]
fn a_repeated_request_gets_the_same_certificate() {
    let lab = Lab::new();
    let token = lab.token("dev-1");
    let https = lab.https().basic("dev-1", &token);
    let name = https.clone().field("Fleetcert-Request", "00112233445566778899aabbccddeeff");
    let (body, _) = csr(&lab, "dev-1");
    let (first, second) =
        (name.post(SIMPLE_ENROLL, body.as_bytes()), name.post(SIMPLE_ENROLL, body.as_bytes()));
    assert_eq!((first.status, second.status), (200, 200), "{}", second.text());
    let leaf = |body| openssl(&["x509", "-noout", "-serial"], certificates(body).as_bytes()).stdout;
    assert_eq!(leaf(&first.body), leaf(&second.body));
    assert_eq!(lab.issued("dev-1"), 1);
    let (other, _) = csr(&lab, "dev-1");
    let conflict = name.post(SIMPLE_ENROLL, other.as_bytes());
    assert_eq!(conflict.verdict(), (409, "request-conflict"));
    let nameless = https.field("Fleetcert-Request", "x").post(SIMPLE_ENROLL, other.as_bytes());
    assert_eq!(nameless.verdict(), (400, "request-id"));
}

/// Goal: who sends a request drop by drop is let go within the limit, and costs others nothing.
#[test]
fn slow_senders_are_let_go() {
    let lab = Lab::new();
    let log = lab.path("s_client.log");
    let (reader, mut writer) = std::io::pipe().or_fail("a pipe that stays open");
    // The head ends in the middle of a field and never goes on.
    let head = format!("POST {SIMPLE_ENROLL} HTTP/1.1\r\nHost: localhost\r\nX-Sl");
    writer.write_all(head.as_bytes()).or_fail("the head");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect"]);
    command.arg(format!("localhost:{}", lab.provisioner_port()));
    command.arg("-CAfile").arg(lab.server_root());
    let out = fs::File::create(&log).or_fail("a log");
    command.stdin(reader).stdout(out).stderr(Stdio::null());
    let mut sender = Process::start_piped("slow sender", command, &log).or_fail("openssl");
    let mut answered = 0;
    until("the slow sender to be let go", 15_000, || {
        assert_eq!(lab.https().get(CA_CERTS).status, 200, "others are served meanwhile");
        answered += 1;
        sender.check().err()
    });
    assert!(answered > 1, "it was let go at once");
}
