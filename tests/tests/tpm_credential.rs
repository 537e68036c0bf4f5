//! Credentials that the provisioner makes, opened by a TPM at the hands of other programs: what
//! tpm2-tools asks of swtpm says whether ours are right.

use std::fs;
use std::path::{Path, PathBuf};

use fleetcert_provisioner::attest::credential::{Credential, make};
use fleetcert_provisioner::attest::evidence::{attestation_key, endorsement_key};
use fleetcert_provisioner::entropy::SystemEntropy;
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::tpm::{powered, tool};
use tempfile::TempDir;

const SECRET: [u8; 32] = *b"only one TPM gives this secret..";

/// The attributes of an endorsement key whose empty password suffices.
const EK_ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|\
                             userwithauth|restricted|decrypt";

const AK_ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|\
                             restricted|sign";

/// Where `swtpm_setup` keeps its endorsement keys: RSA-2048 with a policy, P-384 without.
const EK_RSA: &str = "0x81010001";
const EK_P384: &str = "0x81010016";

/// Algorithm and name algorithm of endorsement keys that a test makes for itself.
const KINDS: [(&str, &str); 7] = [
    ("rsa2048:aes128cfb", "sha256"),
    ("rsa2048:aes256cfb", "sha512"),
    ("rsa3072:aes256cfb", "sha384"),
    ("ecc256:aes128cfb", "sha256"),
    ("ecc384:aes256cfb", "sha384"),
    ("ecc521:aes256cfb", "sha512"),
    ("ecc256:aes256cfb", "sha384"),
];

/// How tpm2-tools begins a file with a credential.
const FILE_HEADER: [u8; 8] = [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];

/// What tpm2-tools say of a TPM that finds another HMAC than it computes.
const INTEGRITY: &str = "integrity check failed";

/// A started TPM, and a folder for what goes in and comes out.
struct Bench {
    place: TempDir,
    tpm: Swtpm,
}

impl Bench {
    fn new(make_tpm: impl FnOnce(&Path) -> Swtpm) -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let tpm = powered(make_tpm(place.path()));
        let bench = Self { place, tpm };
        bench.run(&["tpm2_startup", "-c"]);
        bench
    }

    /// As its maker delivers it, with endorsement keys.
    fn manufactured() -> Self {
        Self::new(|place| {
            let maker = TpmMaker::found(&place.join("maker"), "Bench").or_fail("a maker");
            Swtpm::manufacture(&place.join("tpm"), &maker).or_fail("swtpm_setup")
        })
    }

    fn path(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) {
        tool(&self.tpm.data_socket(), arguments).expect_success();
    }

    /// Makes a primary key, kept as a saved context, and gives that.
    #[track_caller]
    fn primary(&self, name: &str, hierarchy: &str, kind: (&str, &str), attributes: &str) -> String {
        let context = self.path(name);
        let (algorithm, name_alg) = kind;
        self.run(&[
            "tpm2_createprimary",
            "-C",
            hierarchy,
            "-G",
            algorithm,
            "-g",
            name_alg,
            "-a",
            attributes,
            "-c",
            &context,
        ]);
        self.run(&["tpm2_flushcontext", "-t"]);
        context
    }

    /// An attestation key, as a saved context.
    #[track_caller]
    fn attestation_key(&self, name: &str) -> String {
        self.primary(name, "o", ("ecc256:ecdsa-sha256:null", "sha256"), AK_ATTRIBUTES)
    }

    /// The public area of a key.
    #[track_caller]
    fn area(&self, key: &str) -> Vec<u8> {
        let file = self.path("public");
        self.run(&["tpm2_readpublic", "-c", key, "-o", &file]);
        self.run(&["tpm2_flushcontext", "-t"]);
        let sized = fs::read(file).or_fail("a TPM2B_PUBLIC");
        sized[2..].to_vec()
    }

    /// What the provisioner makes for that endorsement key and that attestation key.
    #[track_caller]
    fn credential(&self, ek: &str, ak: &str) -> Credential {
        let ek = endorsement_key(&self.area(ek)).or_fail("an endorsement key");
        let ak = attestation_key(&self.area(ak)).or_fail("an attestation key");
        make(&ek, ak.name(), &SECRET, &mut SystemEntropy::new()).or_fail("a credential")
    }

    /// Has the TPM open a credential; what was said instead, if it does not. `authorization` is
    /// that of the endorsement key.
    fn activate(
        &self,
        ek: &str,
        authorization: &str,
        ak: &str,
        credential: &Credential,
    ) -> Result<Vec<u8>, String> {
        let (input, output) = (self.path("credential"), self.path("opened"));
        let sized = |part: &[u8]| [&(part.len() as u16).to_be_bytes(), part].concat();
        let Credential { blob, encrypted_secret } = credential;
        let file = [FILE_HEADER.to_vec(), sized(blob), sized(encrypted_secret)].concat();
        fs::write(&input, file).or_fail("a file");
        let arguments = [
            "tpm2_activatecredential",
            "-c",
            ak,
            "-C",
            ek,
            "-P",
            authorization,
            "-i",
            &input,
            "-o",
            &output,
        ];
        let outcome = tool(&self.tpm.data_socket(), &arguments);
        self.run(&["tpm2_flushcontext", "-t"]);
        if outcome.code == Some(0) {
            Ok(fs::read(output).or_fail("a secret"))
        } else {
            Err(outcome.stderr)
        }
    }
}

/// Goal: credentials for endorsement keys of every kind that swtpm makes activate: RSA-2048 and
/// -3072, P-256, P-384 and P-521, named by SHA-256, -384 and -512, with AES-128 and AES-256.
#[test]
fn credentials_for_every_kind_of_endorsement_key_activate() {
    let bench = Bench::new(|place| Swtpm::blank(&place.join("tpm")).or_fail("a TPM"));
    let ak = bench.attestation_key("ak");
    for kind in KINDS {
        let ek = bench.primary("ek", "e", kind, EK_ATTRIBUTES);
        let credential = bench.credential(&ek, &ak);
        let opened = bench.activate(&ek, "", &ak, &credential);
        assert_eq!(opened.or_fail("an opened credential"), SECRET, "{kind:?}");
    }
}

/// Goal: so they do for the keys that a maker stores: RSA-2048, which wants a policy session, and
/// P-384.
#[test]
fn credentials_for_a_makers_endorsement_keys_activate() {
    let bench = Bench::manufactured();
    let ak = bench.attestation_key("ak");
    let credential = bench.credential(EK_P384, &ak);
    let opened = bench.activate(EK_P384, "", &ak, &credential).or_fail("P-384");
    assert_eq!(opened, SECRET);

    let credential = bench.credential(EK_RSA, &ak);
    let session = bench.path("session");
    bench.run(&["tpm2_startauthsession", "--policy-session", "-S", &session]);
    bench.run(&["tpm2_policysecret", "-S", &session, "-c", "e"]);
    let policy = format!("session:{session}");
    let opened = bench.activate(EK_RSA, &policy, &ak, &credential).or_fail("RSA-2048");
    assert_eq!(opened, SECRET);
}

/// Goal: a credential opens for its attestation key only, and in its TPM only.
#[test]
fn a_credential_opens_for_nobody_else() {
    let [bench, stranger] =
        [(); 2].map(|()| Bench::new(|place| Swtpm::blank(&place.join("tpm")).or_fail("a TPM")));
    let kind = ("ecc384:aes256cfb", "sha384");
    let ek = bench.primary("ek", "e", kind, EK_ATTRIBUTES);
    let ak = bench.attestation_key("ak");
    let other = ("ecc384:ecdsa-sha384:null", "sha384");
    let other = bench.primary("other", "o", other, AK_ATTRIBUTES);
    let credential = bench.credential(&ek, &ak);
    let refused = bench.activate(&ek, "", &other, &credential).unwrap_err();
    assert!(refused.contains(INTEGRITY), "another attestation key: {refused}");

    let strange_ek = stranger.primary("ek", "e", kind, EK_ATTRIBUTES);
    let strange_ak = stranger.attestation_key("ak");
    let refused = stranger.activate(&strange_ek, "", &strange_ak, &credential).unwrap_err();
    assert!(refused.contains(INTEGRITY), "another TPM: {refused}");
    assert_eq!(bench.activate(&ek, "", &ak, &credential).or_fail("the right one"), SECRET);
}
