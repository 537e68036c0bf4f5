//! Certificates that other programs made: swtpm's, and openssl's with every algorithm.

use std::{fs, path::Path, process::Command};

use super::*;
use crate::attest::EkId;

const SWTPM_RSA: &[u8] = include_bytes!("../../../../testdata/ek/swtpm-rsa2048.der");
const SWTPM_P384: &[u8] = include_bytes!("../../../../testdata/ek/swtpm-p384.der");
const SWTPM_ISSUER: &[u8] = include_bytes!("../../../../testdata/ek/swtpm-issuer.der");
const SWTPM_ROOT: &[u8] = include_bytes!("../../../../testdata/ek/swtpm-root.der");

/// 2027-01-01T00:00:00Z: the certificates above are of November 2026, without an end.
const LATER: Wall = Wall(1_798_761_600);

// Goal: what swtpm_setup 0.7 makes is accepted, below its root and below its issuer, with the hash
// that `openssl x509 -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum` prints.
#[test]
fn the_certificates_of_swtpm_are_accepted() {
    let root = EkRoot::parse(SWTPM_ROOT).unwrap();
    let issuer = EkRoot::parse(SWTPM_ISSUER).unwrap();
    for (leaf, id) in [
        (SWTPM_RSA, "b4f1668675601363a1a0c481526b3b4ca6e1e071e108dacaed1453271453fd28"),
        (SWTPM_P384, "ffed24269dae876766fc04d3c753760d5502af93fc1df28e47a8f397dc5c16c8"),
    ] {
        let sent = [leaf, SWTPM_ISSUER].concat();
        let found = verify(&sent, std::slice::from_ref(&root), LATER).unwrap();
        assert_eq!(found.id, EkId::parse(id).unwrap());
        assert_eq!(found.chain, [leaf, SWTPM_ISSUER, SWTPM_ROOT]);
        assert_eq!(found.model.to_string(), "00001014 swtpm id:20191023");
        assert!(found.model.is_virtual());
        assert_eq!(found.validity.not_after.to_string(), "9999-12-31T23:59:59Z");
        let found = verify(leaf, std::slice::from_ref(&issuer), LATER).unwrap();
        assert_eq!(found.chain, [leaf, SWTPM_ISSUER]);
        let error = verify(leaf, std::slice::from_ref(&root), LATER).unwrap_err();
        assert_eq!(error, EkError::UnknownRoot { issuer: "CN=swtpm-localca".into() });
    }
}

/// A folder where openssl makes a root and a leaf.
struct Openssl(tempfile::TempDir);

const CONFIGURATION: &str = "
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = 2.23.133.8.1
subjectAltName = critical,dirName:tpm
certificatePolicies = critical,1.2.3.4
authorityKeyIdentifier = keyid
[tpm]
x.2.23.133.2.1 = id:4E544300
x.2.23.133.2.2 = NPCT75x
x.2.23.133.2.3 = id:00070002
";

impl Openssl {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("openssl.cnf"), CONFIGURATION).unwrap();
        Self(folder)
    }

    fn run(&self, line: &str) {
        let run = Command::new("openssl").args(line.split(' ')).current_dir(self.path()).output();
        let output = run.unwrap();
        let trouble = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {line}: {trouble}");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path().join(file)).unwrap()
    }

    /// A key of openssl's options in the file `name.key`.
    fn key(&self, name: &str, options: &str) {
        self.run(&format!("genpkey {options} -out {name}.key"));
    }

    /// The verdict on a leaf of `leaf.key` that `root.key` signed with `signature`.
    fn verdict(&self, signature: &str) -> Result<EkCertificate, EkError> {
        let request = "req -config openssl.cnf -new -x509 -days 3650";
        self.run(&format!(
            "{request} -key root.key -subj /CN=Root -extensions root -outform DER -out root.der"
        ));
        self.run("x509 -inform DER -in root.der -out root.pem");
        self.run(&format!(
            "{request} -key leaf.key -subj / -extensions leaf -CA root.pem -CAkey root.key \
             -outform DER -out leaf.der {signature}"
        ));
        let root = EkRoot::parse(&self.read("root.der")).unwrap();
        // Its certificates begin when the test runs, the leaf's a little later than the root's.
        let now = root.validity().not_before.plus_s(3_600);
        verify(&self.read("leaf.der"), std::slice::from_ref(&root), now)
    }

    fn verdict_on_pss(&self, hash: &str, salt: &str) -> Result<EkCertificate, EkError> {
        let padding = format!("-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{salt}");
        self.verdict(&format!("-{hash} {padding}"))
    }
}

const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const P384: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
const P521: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-521";

// Goal: every curve with every hash is verified as openssl signs it; SHA-1 never is.
#[test]
fn elliptic_curve_issuers_are_verified_with_every_hash() {
    let openssl = Openssl::new();
    for (curve, kind) in [(P256, "EC P-256"), (P384, "EC P-384"), (P521, "EC P-521")] {
        openssl.key("root", curve);
        openssl.key("leaf", curve);
        for hash in ["sha256", "sha384", "sha512"] {
            let found = openssl.verdict(&format!("-{hash}"));
            let found = found.unwrap_or_else(|error| panic!("{kind} {hash}: {error}"));
            let key = Key::from_spki(&found.spki_der).unwrap();
            assert_eq!(key.to_string(), kind);
        }
        let error = openssl.verdict("-sha1").unwrap_err();
        let found = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
        assert_eq!(error, EkError::Algorithm { found });
    }
}

// Goal: the same for RSA with both paddings and every size of key; and each such key is accepted
// as an endorsement key below P-521, with the hash of what openssl writes.
#[test]
fn rsa_keys_of_every_size_sign_with_every_hash_and_padding_and_are_endorsement_keys() {
    let openssl = Openssl::new();
    for bits in [4096, 3072, 2048] {
        openssl.key("rsa", &format!("-algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"));
        openssl.key("root", P521);
        fs::copy(openssl.path().join("rsa.key"), openssl.path().join("leaf.key")).unwrap();
        let found = openssl.verdict("-sha512").unwrap();
        openssl.run("pkey -in leaf.key -pubout -outform DER -out leaf.spki");
        let spki = openssl.read("leaf.spki");
        assert_eq!((found.id, found.spki_der), (EkId::of_spki(&spki), spki));

        fs::rename(openssl.path().join("rsa.key"), openssl.path().join("root.key")).unwrap();
        openssl.key("leaf", P256);
        for hash in ["sha256", "sha384", "sha512"] {
            let found = openssl.verdict(&format!("-{hash}"));
            found.unwrap_or_else(|error| panic!("RSA-{bits} {hash}: {error}"));
            let found = openssl.verdict_on_pss(hash, "digest");
            found.unwrap_or_else(|error| panic!("RSA-{bits} PSS {hash}: {error}"));
        }
    }
    let error = openssl.verdict("-sha1").unwrap_err();
    let found = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5");
    assert_eq!(error, EkError::Algorithm { found });
    let found = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
    for (hash, salt) in [("sha1", "digest"), ("sha256", "20")] {
        let error = openssl.verdict_on_pss(hash, salt).unwrap_err();
        assert_eq!(error, EkError::Algorithm { found });
    }
}
