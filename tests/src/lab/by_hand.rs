//! What a person does with openssl: keys, requests, and a look at certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::https::Https;
use super::run::{self, Outcome};
use super::{Lab, OrFail};

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The chain, leaf first; often the leaf alone.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Runs openssl, which must succeed.
#[track_caller]
pub fn openssl(arguments: &[&str], input: &[u8]) -> Outcome {
    try_openssl(arguments, input).expect_success()
}

/// Runs openssl.
#[track_caller]
pub fn try_openssl(arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = Command::new("openssl");
    command.args(arguments);
    run::run(command, input)
}

/// A path as an argument; the lab makes no other paths than of text.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Makes a new P-256 key in `path`.
pub fn new_key(path: &Path) {
    new_key_of("EC", "ec_paramgen_curve:P-256", path);
}

/// Makes a new key of `algorithm` with one option in `path`.
pub fn new_key_of(algorithm: &str, option: &str, path: &Path) {
    let mut arguments = vec!["genpkey", "-algorithm", algorithm, "-out", text(path)];
    if !option.is_empty() {
        arguments.extend(["-pkeyopt", option]);
    }
    openssl(&arguments, b"");
}

/// A certification request for `subject` (openssl's `/CN=…`), DER, with `more` arguments.
#[must_use]
pub fn request(key: &Path, subject: &str, more: &[&str]) -> Vec<u8> {
    let arguments = ["req", "-new", "-key", text(key), "-subj", subject, "-outform", "DER"];
    openssl(&[&arguments, more].concat(), b"").octets
}

/// Base64 on one line without a newline.
#[must_use]
pub fn base64(der: &[u8]) -> String {
    openssl(&["base64", "-A"], der).stdout.trim().to_owned()
}

/// The DER of base64 in whatever lines.
#[must_use]
pub fn from_base64(text: &[u8]) -> Vec<u8> {
    let one_line: Vec<u8> =
        text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
    openssl(&["base64", "-d", "-A"], &one_line).octets
}

/// The certificates of a certs-only message in an EST answer, PEM.
#[must_use]
pub fn certificates(body: &[u8]) -> String {
    let der = from_base64(body);
    let text = openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &der).stdout;
    let blocks: Vec<&str> = text
        .split_inclusive(END)
        .filter_map(|part| part.find("-----BEGIN CERTIFICATE-----").map(|at| &part[at..]))
        .collect();
    assert!(!blocks.is_empty(), "no certificate in {text}");
    blocks.concat()
}

/// The last line of a certificate in PEM.
const END: &str = "-----END CERTIFICATE-----\n";

/// The serial number of a certificate as the product shows it: hexadecimal, lower case.
#[must_use]
pub fn serial(certificate: &Path) -> String {
    let text = openssl(&["x509", "-in", text(certificate), "-noout", "-serial"], b"").stdout;
    let serial = text.trim().strip_prefix("serial=").or_fail("serial=").to_ascii_lowercase();
    serial.trim_start_matches('0').to_owned()
}

impl Lab {
    /// Enrolls `device` with a new token by openssl and curl; the files are in the lab's folder.
    #[track_caller]
    pub fn enroll_by_hand(&self, device: &str) -> Credential {
        self.enroll_by_hand_in("default", device)
    }

    /// As [`Lab::enroll_by_hand`], for a device of another group.
    #[track_caller]
    pub fn enroll_by_hand_in(&self, group: &str, device: &str) -> Credential {
        let token = self.operate(&["token", "issue", device, "--group", group]);
        let credential = Credential {
            certificate: self.path(format!("{device}.pem")),
            key: self.path(format!("{device}.key")),
        };
        new_key(&credential.key);
        let csr = base64(&request(&credential.key, &format!("/CN={device}"), &[]));
        let reply = self.https().basic(device, token.trim()).post(SIMPLE_ENROLL, csr.as_bytes());
        assert_eq!(reply.status, 200, "{reply:?}");
        fs::write(&credential.certificate, certificates(&reply.body)).or_fail("the certificate");
        credential
    }

    /// A backend's identity.
    #[track_caller]
    pub fn backend(&self, name: &str) -> Credential {
        let folder = self.path(format!("backend-{name}"));
        let admitted = self.provisioner.admit_backend(name, &folder).or_fail("issue-backend");
        Credential { certificate: admitted.0, key: admitted.1 }
    }

    /// A server's certificate for `name`.
    #[track_caller]
    pub fn server(&self, name: &str) -> Credential {
        let folder = self.path(format!("server-{name}"));
        self.operate(&["ca", "issue-server", "--name", name, "--out", text(&folder)]);
        Credential { certificate: folder.join("server.pem"), key: folder.join("server.key") }
    }

    /// The current revocation list in a new PEM file.
    #[track_caller]
    pub fn crl(&self) -> PathBuf {
        let path = self.path("crl.pem");
        self.operate(&["crl", "write", "--out", text(&path)]);
        path
    }

    /// curl with a device's identity.
    #[must_use]
    pub fn https_as(&self, credential: &Credential) -> Https {
        self.https().identity(credential)
    }

    /// The device as the provisioner's inventory has it.
    #[track_caller]
    pub fn shown(&self, device: &str) -> Value {
        self.ask(&["device", "show", device])["device"].clone()
    }
}

/// RFC 7030 §4.2.1.
pub const SIMPLE_ENROLL: &str = "/.well-known/est/simpleenroll";

/// RFC 7030 §4.2.2.
pub const SIMPLE_REENROLL: &str = "/.well-known/est/simplereenroll";
