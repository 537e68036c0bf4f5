//! What we issue, as pkilint reads it: RFC 5280 and its followers, checked by others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetcert_tests::lab::by_hand::{openssl, text};
use fleetcert_tests::lab::run::run;
use fleetcert_tests::lab::{Lab, OrFail, Plan, programs};
use serde_json::Value;

/// pkilint takes the scheme `spiffe` for no URI; RFC 3986 §3.1 and the SPIFFE ID standard differ.
const ALLOWED: &str = "pkix.invalid_uri_syntax";

/// A group whose devices have DNS names too.
const DNS_GROUP: &str = "[groups.dns]\npolicy = \"token\"\ndns_domain = \"devices.example\"\n";

/// The folder of pkilint's programs. `None` where it is not installed and need not be.
#[expect(clippy::print_stderr, reason = "a story that was not played should say so")]
fn pkilint() -> Option<PathBuf> {
    let beside = programs::folder().join("../venv/bin");
    let folders = [beside, programs::top().join("target/venv/bin")];
    let found = folders.into_iter().find(|folder| folder.join("lint_pkix_cert").exists());
    if found.is_none() {
        let advice = "pkilint is not installed: `tests/run` installs it into target/venv, \
                      or: python3 -m venv target/venv && target/venv/bin/pip install pkilint";
        assert!(std::env::var_os("CI").is_none(), "{advice}");
        eprintln!("{advice}");
    }
    found
}

/// The codes of all findings of notice and above that are not allowed.
fn findings(program: &Path, more: &[&str], file: &Path) -> Vec<String> {
    let mut command = Command::new(program);
    command.arg("lint").args(more).args(["-s", "NOTICE", "-f", "JSON"]).arg(file);
    let outcome = run(command, b"");
    let answer: Value = serde_json::from_str(&outcome.stdout).or_fail(&outcome.text());
    let results = answer["results"].as_array().or_fail("results").clone();
    let of_one = |result: &Value| {
        let found = result["finding_descriptions"].as_array().cloned().unwrap_or_default();
        found.iter().filter_map(|it| it["code"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    results.iter().flat_map(of_one).filter(|code| code != ALLOWED).collect()
}

fn lint_certificate(folder: &Path, file: &Path) -> Vec<String> {
    findings(&folder.join("lint_pkix_cert"), &[], file)
}

fn lint_crl(folder: &Path, file: &Path) -> Vec<String> {
    findings(&folder.join("lint_crl"), &["-t", "CRL", "-p", "PKIX"], file)
}

/// Each certificate of a chain in a file of its own.
fn parts(lab: &Lab, chain: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(chain).or_fail("a chain");
    let name = chain.file_stem().or_fail("a name").to_string_lossy().into_owned();
    let parts = text.split_inclusive("-----END CERTIFICATE-----\n").enumerate();
    parts
        .map(|(number, part)| {
            let path = lab.path(format!("{name}-{number}.pem"));
            fs::write(&path, part).or_fail("one certificate");
            path
        })
        .collect()
}

/// Goal: every kind of certificate that we issue is clean.
#[test]
fn certificates_are_clean() {
    let Some(pkilint) = pkilint() else { return };
    let lab = Lab::with(Plan { more: DNS_GROUP, ..Plan::default() });
    let mut files = vec![
        lab.enroll_by_hand("dev-1").certificate,
        lab.enroll_by_hand_in("dns", "named").certificate,
        lab.enroll_by_hand(&"long-name-".repeat(6)).certificate,
        lab.backend("fleet").certificate,
        lab.server("broker.example").certificate,
        lab.server("127.0.0.1").certificate,
    ];
    files.extend(["device-ca.pem", "server-ca.pem"].map(|name| lab.path("provisioner").join(name)));
    let mut seen = 0;
    for file in files.iter().flat_map(|file| parts(&lab, file)) {
        assert_eq!(lint_certificate(&pkilint, &file), [""; 0], "{}", described(&file));
        seen += 1;
    }
    assert!(seen >= 9, "leaves and authorities, seen {seen}");
}

/// Goal: without an external URL there is no place of the CRL in a certificate, and it is clean.
#[test]
fn a_device_certificate_without_a_place_of_the_crl_is_clean() {
    let Some(pkilint) = pkilint() else { return };
    let mut lab = Lab::stopped(Plan::default());
    let config = lab.path("provisioner/provisioner.toml");
    let configured = fs::read_to_string(&config).or_fail("the configuration");
    fs::write(&config, configured.replace("external_url", "# external_url")).or_fail("a new one");
    lab.start_provisioner();
    let leaf = lab.enroll_by_hand("dev-1").certificate;
    assert!(!described(&leaf).contains("CRL Distribution"), "{}", described(&leaf));
    assert_eq!(lint_certificate(&pkilint, &leaf), [""; 0], "{}", described(&leaf));
}

/// Goal: a revocation list is clean, empty and with entries.
#[test]
fn revocation_lists_are_clean() {
    let Some(pkilint) = pkilint() else { return };
    let lab = Lab::new();
    assert_eq!(lint_crl(&pkilint, &lab.crl()), [""; 0]);
    for (device, reason) in [("dev-1", "key-compromise"), ("dev-2", "unspecified")] {
        lab.enroll_by_hand(device);
        lab.operate(&["device", "revoke", device, "--reason", reason]);
    }
    let crl = lab.crl();
    let shown = openssl(&["crl", "-in", text(&crl), "-noout", "-text"], b"").stdout;
    assert_eq!(shown.matches("Serial Number:").count(), 2, "{shown}");
    assert_eq!(lint_crl(&pkilint, &crl), [""; 0], "{shown}");
}

/// Goal: the lint can find something: a certificate of a careless issuer is not clean.
#[test]
fn a_careless_certificate_is_found_out() {
    let Some(pkilint) = pkilint() else { return };
    let lab = Lab::stopped(Plan::default());
    let (key, file) = (lab.path("careless.key"), lab.path("careless.pem"));
    let made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let careless = ["-nodes", "-subj", "/CN=x", "-set_serial", "0", "-days", "1"];
    let files = ["-keyout", text(&key), "-out", text(&file)];
    openssl(&[&made[..], &careless, &files].concat(), b"");
    assert_ne!(lint_certificate(&pkilint, &file), [""; 0]);
}

fn described(file: &Path) -> String {
    openssl(&["x509", "-in", text(file), "-noout", "-text"], b"").stdout
}
