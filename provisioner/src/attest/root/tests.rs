use std::io::Write;

use super::*;
use crate::{
    attest::forge::{BASIC_CONSTRAINTS, Draft, KEY_USAGE, Signer, assemble, key_usage},
    authority::der::{SEQUENCE, element},
    pem,
    testing::NOW,
};

fn draft(seed: u8) -> Draft {
    let name = format!("Root {seed}");
    Draft::authority(&name, &Signer::new(seed).key(), &name)
}

fn certificate(seed: u8) -> Vec<u8> {
    draft(seed).signed(&Signer::new(seed))
}

fn subjects(roots: &[EkRoot]) -> Vec<&str> {
    roots.iter().map(EkRoot::subject).collect()
}

/// A folder for one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn fault(&self, name: &str, content: &[u8]) -> RootsFault {
        let path = self.write(name, content);
        let error = read(&path).unwrap_err();
        assert_eq!(error.path, path);
        error.fault
    }
}

// Goal: what an operator sees of a root is what is in the certificate.
#[test]
fn a_root_tells_its_name_its_hash_and_its_validity() {
    let der = certificate(1);
    let root = EkRoot::parse(&der).unwrap();
    assert_eq!(root.subject(), "CN=Root 1");
    assert_eq!(root.id(), RootId(sha256(&der)));
    assert_eq!(root.der(), der);
    let (not_before, not_after) = draft(1).validity;
    assert_eq!(root.validity(), Validity { not_before, not_after });
    assert!(root.validity().not_before < NOW);
}

// Goal: a root that could not be used is refused when it is added, not when a device enrolls.
#[test]
fn a_certificate_that_could_not_issue_is_no_root() {
    let by = Signer::new(1);
    let parse = |draft: Draft| EkRoot::parse(&draft.signed(&by)).unwrap_err();
    let issuer = || String::from("CN=Root 1");
    let no_ca = draft(1).with(BASIC_CONSTRAINTS, true, element(SEQUENCE, &[]));
    assert_eq!(parse(no_ca), RootError::Unfit(EkError::IssuerNotCa { issuer: issuer() }));
    let no_signer = draft(1).with(KEY_USAGE, true, key_usage(0x80));
    assert_eq!(parse(no_signer), RootError::Unfit(EkError::IssuerUsage { issuer: issuer() }));
    let trailing = [&certificate(1)[..], &[0]].concat();
    assert_eq!(EkRoot::parse(&trailing).unwrap_err(), RootError::Flaw(Flaw::Malformed));
}

// Goal: PEM and DER, one or several certificates, with text around them: all of them, in order.
#[test]
fn files_of_every_usual_form_are_read_whole() {
    let folder = Folder::new();
    let [one, two] = [certificate(1), certificate(2)];
    let both = pem::certificates([&one, &two]);
    let commented = format!("Root 1 of Maker\r\n{}\n# and\n{both}", pem::certificates([&one]));
    for (content, expected) in [
        (one.clone(), &["CN=Root 1"][..]),
        ([&two[..], &one].concat(), &["CN=Root 2", "CN=Root 1"]),
        (both.into_bytes(), &["CN=Root 1", "CN=Root 2"]),
        (commented.into_bytes(), &["CN=Root 1", "CN=Root 2"]),
    ] {
        let path = folder.write("roots", &content);
        assert_eq!(subjects(&read(&path).unwrap()), expected);
    }
}

// Goal: of a folder, every file of certificates, in the order of their names, and nothing else.
#[test]
fn folders_are_read_by_the_endings_of_their_files() {
    let folder = Folder::new();
    for (seed, name) in [(4, "d.PEM"), (2, "b.crt"), (3, "c.der"), (1, "a.cer")] {
        folder.write(name, &certificate(seed));
    }
    for name in ["README.md", "pem", "e.pem.sig", "f"] {
        folder.write(name, b"no certificate");
    }
    fs::create_dir(folder.0.path().join("more.pem")).unwrap();
    // The same root again, in another file.
    folder.write("z.pem", pem::certificates([certificate(1)]).as_bytes());
    let roots = read(folder.0.path()).unwrap();
    assert_eq!(subjects(&roots), ["CN=Root 1", "CN=Root 2", "CN=Root 3", "CN=Root 4"]);
}

// Goal: one bad file of a folder is named, and nothing is taken.
#[test]
fn a_bad_file_in_a_folder_is_named() {
    let folder = Folder::new();
    folder.write("a.pem", &certificate(1));
    let bad = folder.write("b.pem", b"not at all");
    let error = read(folder.0.path()).unwrap_err();
    assert_eq!(error.path, bad);
    assert!(matches!(error.fault, RootsFault::Malformed), "{error}");
}

// Goal: what is wrong with a file is told so that it can be put right.
#[test]
fn files_that_hold_something_else_are_refused() {
    let folder = Folder::new();
    let one = certificate(1);
    let leaf = Draft::leaf(&Signer::new(1).key(), "x").signed(&Signer::new(1));
    let second = pem::certificates([&one, &leaf]);
    match folder.fault("a.pem", second.as_bytes()) {
        RootsFault::Certificate { number: 2, error: RootError::Unfit(error) } => {
            assert_eq!(error.code(), "ek-issuer-not-ca");
        }
        other => panic!("{other:?}"),
    }
    let key = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for (content, expected) in [
        (&b""[..], "Empty"),
        (key.as_bytes(), "Empty"),
        (b"no certificate", "Malformed"),
        (&one[..one.len() - 1], "Malformed"),
        (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "Malformed"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "Malformed"),
    ] {
        let fault = folder.fault("a.pem", content);
        assert_eq!(format!("{fault:?}"), expected);
    }
}

// Goal: an empty folder is a mistake, and a missing one is what the system says.
#[test]
fn folders_without_roots_and_missing_files_are_errors() {
    let folder = Folder::new();
    folder.write("README", b"");
    let error = read(folder.0.path()).unwrap_err();
    assert!(matches!(error.fault, RootsFault::Empty), "{error}");
    assert_eq!(error.path, folder.0.path());
    let missing = folder.0.path().join("missing.pem");
    let error = read(&missing).unwrap_err();
    assert_eq!(error.path, missing);
    assert!(
        matches!(error.fault, RootsFault::Io(source) if source.kind() == io::ErrorKind::NotFound)
    );
}

// Goal: a huge file is not read to its end, and the largest one is.
#[test]
fn the_length_of_a_file_is_limited() {
    let folder = Folder::new();
    let text = pem::certificates([certificate(1)]);
    let mut content = vec![b'\n'; FILE_LEN_MAX as usize - text.len()];
    content.write_all(text.as_bytes()).unwrap();
    let path = folder.write("a.pem", &content);
    assert_eq!(subjects(&read(&path).unwrap()), ["CN=Root 1"]);
    content.push(b'\n');
    assert!(matches!(folder.fault("a.pem", &content), RootsFault::TooLong));
}

// Goal: the number of roots is limited, exactly.
#[test]
fn the_number_of_roots_is_limited() {
    let key = Signer::new(1).key();
    let folder = Folder::new();
    let many = |range: std::ops::Range<usize>| -> Vec<u8> {
        // A root's signature does not count, and a thousand would take their time.
        let root = |at: usize| {
            let draft = Draft::authority(&format!("{at}"), &key, "x");
            assemble(&draft.tbs(), &draft.algorithm, &[0; 8])
        };
        range.flat_map(root).collect()
    };
    let path = folder.write("a.der", &many(0..ROOTS_MAX));
    assert_eq!(read(&path).unwrap().len(), ROOTS_MAX);
    folder.write("b.der", &many(ROOTS_MAX..ROOTS_MAX + 1));
    let error = read(folder.0.path()).unwrap_err();
    assert!(matches!(error.fault, RootsFault::TooMany), "{error}");
    assert_eq!(error.path, folder.0.path());
}

// Goal: an operator names a root by its hash.
#[test]
fn the_hash_of_a_root_is_read_and_written() {
    let text = "00".repeat(31) + "fE";
    let id = RootId::parse(&text).unwrap();
    assert_eq!(id.to_string(), text.to_lowercase());
    assert_eq!(format!("{id:?}"), format!("RootId({id})"));
    assert_eq!(RootId::parse("00"), Err(HexError::Length { found: 2 }));
}

// Goal: errors say where, what, and what was expected.
#[test]
fn errors_read_as_text() {
    let not_ca = || EkError::IssuerNotCa { issuer: "CN=x".into() };
    for (fault, text) in [
        (
            RootsFault::Certificate { number: 3, error: RootError::Unfit(not_ca()) },
            "/x: certificate 3 is no EK root: the EK issuer CN=x is no certificate authority",
        ),
        (
            RootsFault::Certificate { number: 1, error: RootError::Flaw(Flaw::IssuerName) },
            "/x: certificate 1 is no EK root: its issuer has no name",
        ),
        (
            RootsFault::Empty,
            "/x: no certificate is in it, expected some in PEM or DER (in a folder, in files that \
             end in .cer, .crt, .der, .pem)",
        ),
        (RootsFault::Io(io::ErrorKind::NotFound.into()), "/x: entity not found"),
        (
            RootsFault::Malformed,
            "/x: it is damaged or something else, expected certificates in PEM or DER",
        ),
        (RootsFault::TooLong, "/x: it has more than 4194304 octets"),
        (RootsFault::TooMany, "/x: more than 1024 certificates are in it"),
    ] {
        assert_eq!(RootsError { path: "/x".into(), fault }.to_string(), text);
    }
}
