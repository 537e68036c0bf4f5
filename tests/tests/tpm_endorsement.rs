//! Endorsement keys on software TPMs: which one is found, whatever its maker left in the TPM, and
//! that it opens what another program sealed for it.

use std::fs;
use std::path::{Path, PathBuf};

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_rig::wait::Stop;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::openssl;
use fleetcert_tests::lab::tpm::{leave, leftovers, powered, tool};
use fleetcert_tests::tpm_socket::{Mishap, TpmSocket};
use fleetcert_tpm::command::{Code, Handle};
use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::fault::Trouble;
use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::{Secret, Sharing};
use fleetcert_tpm::vault::{EkKey, KeyBlob, Options, Vault, VaultError};
use tempfile::TempDir;

type Failure = VaultError<std::io::Error>;

/// What `tpm2_makecredential` writes in front of the credential: a magic number and a version.
const CREDENTIAL_HEAD_LEN: usize = 8;

/// What a credential carries here.
const SECRET: [u8; 32] = *b"known to the credential's maker.";

/// A TPM, the vault in it, and an attestation key.
struct Bench {
    place: TempDir,
    tpm: Swtpm,
    vault: Vault<TpmSocket>,
    ak: KeyBlob,
}

/// An endorsement key that was found.
struct Found {
    key: EkKey,
    area: Vec<u8>,
    certificates: Vec<u8>,
}

impl Bench {
    /// A TPM with endorsement keys that swtpm_setup has made, certified and kept.
    fn manufactured() -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let maker = TpmMaker::found(&place.path().join("maker"), "Acme").or_fail("a maker");
        let tpm = Swtpm::manufacture(&place.path().join("tpm"), &maker).or_fail("a TPM");
        Self::of(place, tpm)
    }

    /// A TPM in which nobody has left anything.
    fn blank() -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let tpm = Swtpm::blank(&place.path().join("tpm")).or_fail("a TPM");
        Self::of(place, tpm)
    }

    fn of(place: TempDir, tpm: Swtpm) -> Self {
        let tpm = powered(tpm);
        let options = Options { parent: None, sharing: Sharing::Exclusive };
        let mut vault = Vault::open(TpmSocket::new(&tpm.data_socket()), options).or_fail("a vault");
        let ak = vault.make(Template::AttestationKey).or_fail("an attestation key");
        Self { place, tpm, vault, ak }
    }

    fn wire(&mut self) -> &mut TpmSocket {
        self.vault.tpm().transport()
    }

    /// Runs one of tpm2-tools beside the vault; `line` is what one would type.
    #[track_caller]
    fn tool(&mut self, line: &str) -> String {
        self.wire().hang_up();
        let words: Vec<_> = line.split(' ').collect();
        tool(&self.tpm.data_socket(), &words).expect_success().stdout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn leftovers(&mut self) -> Vec<String> {
        self.wire().hang_up();
        leftovers(&self.tpm.data_socket())
    }

    /// Takes the power away, and gives it back.
    fn power_cut(&mut self) {
        self.wire().hang_up();
        self.tpm.restart(&Stop::default()).or_fail("a restart");
    }

    /// Opens a credential and loses its power, ten times; nothing is counted as a wrong password.
    #[track_caller]
    fn assert_cuts_cost_nothing(&mut self, ek: &Found) {
        let ak = self.ak.name();
        let (credential, secret) = self.credential(ek, &ak);
        for cut in 1..=10 {
            let opened = self.vault.activate(&ek.key, &self.ak, &credential, &secret);
            assert_eq!(opened.or_fail("a secret").as_bytes(), SECRET);
            self.power_cut();
            let lockout = self.vault.properties().or_fail("properties").lockout;
            assert_eq!(lockout.counter, 0, "{}, cut {cut}", ek.key.template);
        }
    }

    fn find(&mut self) -> Found {
        self.find_of(&EkTemplate::ALL)
    }

    fn find_of(&mut self, templates: &[EkTemplate]) -> Found {
        self.try_to_find_of(templates).or_fail("an endorsement key")
    }

    fn try_to_find_of(&mut self, templates: &[EkTemplate]) -> Result<Found, Failure> {
        let mut out = [0; 8192];
        let found = self.vault.endorsement_of(templates, &mut out)?;
        let (area, certificates) = (found.public_area.to_vec(), found.certificates.to_vec());
        Ok(Found { key: found.key, area, certificates })
    }

    /// Has `tpm2_makecredential`, without a TPM, seal the secret for the key and our attestation
    /// key; opens it.
    fn activate(&mut self, ek: &Found) -> Result<Secret, Failure> {
        let ak = self.ak.name();
        let (credential, secret) = self.credential(ek, &ak);
        self.vault.activate(&ek.key, &self.ak, &credential, &secret)
    }

    fn credential(&mut self, ek: &Found, ak: &Name) -> (Vec<u8>, Vec<u8>) {
        let [public, sealed, blob] =
            ["ek.tss", "secret", "credential"].map(|name| text(&self.path(name)));
        fs::write(&public, [&(ek.area.len() as u16).to_be_bytes(), &ek.area[..]].concat())
            .or_fail("a file");
        fs::write(&sealed, SECRET).or_fail("a file");
        let name: String = ak.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
        self.tool(&format!(
            "tpm2_makecredential -T none -u {public} -s {sealed} -n {name} -o {blob}"
        ));
        let blob = fs::read(&blob).or_fail("a credential");
        let (credential, rest) = sized(&blob[CREDENTIAL_HEAD_LEN..]);
        (credential.to_vec(), sized(rest).0.to_vec())
    }

    /// Puts `content` into an NV index, as a maker does.
    #[track_caller]
    fn leave(&mut self, index: u32, content: &[u8]) {
        self.wire().hang_up();
        leave(&self.tpm.data_socket(), Handle(index), content, &self.path("nv"));
    }

    fn take_back(&mut self, index: u32) {
        self.tool(&format!("tpm2_nvundefine -C o {index:#x}"));
    }

    /// A certificate about a key, by a maker of its own; DER.
    fn certify(&mut self, ek: &Found, name: &str) -> Vec<u8> {
        let [area, pem, key, root, der] = ["area", "pem", "key", "root", "der"]
            .map(|kind| text(&self.path(&format!("{name}.{kind}"))));
        fs::write(&area, [&(ek.area.len() as u16).to_be_bytes(), &ek.area[..]].concat())
            .or_fail("a file");
        let printed = self.tool(&format!("tpm2_print -t TPM2B_PUBLIC -f pem {area}"));
        fs::write(&pem, printed).or_fail("a file");
        let run = |line: String| openssl(&line.split(' ').collect::<Vec<_>>(), b"");
        run(format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=maker \
             -keyout {key} -out {root}"
        ));
        run(format!(
            "x509 -new -force_pubkey {pem} -CA {root} -CAkey {key} -subj /CN=ek -outform DER \
             -out {der}"
        ));
        fs::read(&der).or_fail("a certificate")
    }
}

/// The content of the `TPM2B` in front, and what follows.
fn sized(octets: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = octets.split_first_chunk().or_fail("a length");
    rest.split_at(usize::from(u16::from_be_bytes(*len)))
}

fn text(path: &Path) -> String {
    path.to_str().or_fail("a path").to_owned()
}

/// Goal: what swtpm_setup made is found: the P-384 key in the high range first, the RSA key when
/// asked for, each with its certificate and with the Name that another program reads.
#[test]
fn the_keys_of_a_manufactured_tpm_are_found() {
    let mut bench = Bench::manufactured();
    for (templates, template, file) in [
        (&EkTemplate::ALL[..], EkTemplate::P384High, "ek-secp384r1.crt"),
        (&[EkTemplate::Rsa2048], EkTemplate::Rsa2048, "ek-rsa2048.crt"),
    ] {
        let found = bench.find_of(templates);
        assert_eq!(found.key.template, template);
        let certificate = fs::read(bench.tpm.folder().join(file)).or_fail("a certificate");
        assert_eq!(found.certificates, certificate);
        let (handle, name) = (template.persistent().to_string(), text(&bench.path("name")));
        bench.tool(&format!("tpm2_readpublic -c {handle} -n {name}"));
        assert_eq!(found.key.name.as_bytes(), fs::read(&name).or_fail("a Name"));
    }
}

/// Goal: a credential of another program's opens, by password and by policy; and what it carries
/// crosses the bus encrypted.
#[test]
fn credentials_of_another_program_open() {
    let mut bench = Bench::manufactured();
    for template in [EkTemplate::P384High, EkTemplate::Rsa2048] {
        let ek = bench.find_of(&[template]);
        bench.wire().take_exchanges();
        let secret = bench.activate(&ek).or_fail("a secret");
        assert_eq!(secret.as_bytes(), SECRET, "{template}");
        let exchanges = bench.wire().take_exchanges();
        assert!(exchanges.iter().any(|e| e.code() == Code::ActivateCredential.id()));
        let seen = |octets: &[u8]| octets.windows(SECRET.len()).any(|window| window == SECRET);
        assert!(!exchanges.iter().any(|e| seen(&e.command) || seen(&e.answer)), "{template}");
        assert_eq!(bench.leftovers(), [""; 0], "{template}");
    }
}

/// Goal: the keys are found and used without their persistent handles, and when somebody else's
/// keys lie there.
#[test]
fn persistent_handles_may_be_empty_or_foreign() {
    let mut bench = Bench::manufactured();
    let expected = [EkTemplate::P384High, EkTemplate::Rsa2048].map(|t| (t, bench.find_of(&[t])));
    for (template, _) in &expected {
        let handle = template.persistent().to_string();
        bench.tool(&format!("tpm2_evictcontrol -C o -c {handle}"));
    }
    for is_foreign in [false, true] {
        for (template, expected) in &expected {
            if is_foreign {
                let (handle, context) = (template.persistent().to_string(), bench.path("c"));
                let context = text(&context);
                bench.tool(&format!("tpm2_createprimary -C o -c {context}"));
                bench.tool(&format!("tpm2_evictcontrol -C o -c {context} {handle}"));
                bench.tool("tpm2_flushcontext -t");
            }
            let found = bench.find_of(&[*template]);
            assert_eq!(found.key, expected.key);
            assert_eq!(found.certificates, expected.certificates);
            let secret = bench.activate(&found).or_fail("a secret");
            assert_eq!(secret.as_bytes(), SECRET, "{template}");
            assert_eq!(bench.leftovers(), [""; 0], "{template}");
        }
    }
}

/// Goal: without any certificate there is still a key, the low range's on a curve, without one.
#[test]
fn without_a_certificate_there_is_still_a_key() {
    let mut bench = Bench::blank();
    let found = bench.find();
    assert_eq!(found.key.template, EkTemplate::P256);
    assert!(found.certificates.is_empty());
    assert_eq!(bench.activate(&found).or_fail("a secret").as_bytes(), SECRET);
}

/// Goal: every template of the profile gives the key that tpm2_createek makes of it, and each
/// opens a credential.
#[test]
fn templates_are_those_of_another_program() {
    let mut bench = Bench::blank();
    for (template, theirs) in [
        (EkTemplate::P256, "ecc256"),
        (EkTemplate::P384High, "ecc384"),
        (EkTemplate::P521High, "ecc521"),
        (EkTemplate::Rsa2048, "rsa2048"),
        (EkTemplate::Rsa3072High, "rsa3072"),
    ] {
        let [context, public] = ["ek.ctx", "ek.pub"].map(|name| text(&bench.path(name)));
        bench.tool(&format!("tpm2_createek -c {context} -G {theirs} -u {public}"));
        bench.tool("tpm2_flushcontext -t");
        let found = bench.find_of(&[template]);
        let theirs = fs::read(&public).or_fail("a public area");
        assert_eq!(found.area, sized(&theirs).0, "{template}");
        assert_eq!(bench.activate(&found).or_fail("a secret").as_bytes(), SECRET, "{template}");
        assert_eq!(bench.leftovers(), [""; 0], "{template}");
    }
    for template in [EkTemplate::P256High, EkTemplate::Rsa2048High] {
        let found = bench.find_of(&[template]);
        assert_eq!(bench.activate(&found).or_fail("a secret").as_bytes(), SECRET, "{template}");
    }
}

/// Goal: a key that the TPM does not implement is none, and the next one is tried.
#[test]
fn a_template_that_the_tpm_does_not_know_is_passed_over() {
    let mut bench = Bench::blank();
    let refused = bench.try_to_find_of(&[EkTemplate::Rsa4096High]).err().or_fail("a refusal");
    assert_eq!(refused.trouble(), Trouble::NoEndorsementKey);
    let found = bench.find_of(&[EkTemplate::Rsa4096High, EkTemplate::P256]);
    assert_eq!(found.key.template, EkTemplate::P256);
}

/// Goal: a certificate is found in whatever its maker wrapped it.
#[test]
fn certificates_are_found_whatever_is_around_them() {
    const INDEX: u32 = 0x01C0_000A;
    let mut bench = Bench::blank();
    let ek = bench.find_of(&[EkTemplate::P256]);
    let clean = bench.certify(&ek, "clean");
    let len = (clean.len() as u16).to_be_bytes();
    let contents = [
        clean.clone(),
        [&clean[..], &[0xFF; 64]].concat(),
        [&clean[..], &[0x00; 64]].concat(),
        // Longer than one read gives.
        [&clean[..], &vec![0xFF; 1900 - clean.len()]].concat(),
        [&[0x10, 0x01, 0x00], &len[..], &clean].concat(),
        [&[0x10, 0x01, 0x00], &len[..], &clean, &[0xFF; 9]].concat(),
        [&[0x10, 0x01, 0x00], &len[..], &[0x10, 0x02], &clean].concat(),
    ];
    for content in contents {
        bench.leave(INDEX, &content);
        let found = bench.find();
        assert_eq!(found.key, ek.key);
        assert_eq!(found.certificates, clean);
        bench.take_back(INDEX);
    }
    for content in [&b""[..], &[0xFF; 40], &clean[..40], b"https://ekcert.example/"] {
        bench.leave(INDEX, if content.is_empty() { &[0] } else { content });
        let found = bench.find();
        assert_eq!((found.key, found.certificates.len()), (ek.key, 0));
        bench.take_back(INDEX);
    }
}

/// Goal: a certificate that is about none of the keys that come out is not told for one of them.
#[test]
fn a_certificate_of_another_tpm_is_passed_over() {
    let mut other = Bench::blank();
    let ek = other.find_of(&[EkTemplate::P256]);
    let foreign = other.certify(&ek, "foreign");
    let mut bench = Bench::blank();
    bench.leave(0x01C0_000A, &foreign);
    let found = bench.find();
    assert!(found.certificates.is_empty());
    assert_ne!(found.key, ek.key);
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: a nonce, and a template of the maker's own, make the key that tpm2_createek makes of them.
#[test]
fn nonces_and_templates_of_the_maker_are_used() {
    const NONCE: u32 = 0x01C0_000B;
    const TEMPLATE: u32 = 0x01C0_000C;
    let mut bench = Bench::blank();
    let plain = bench.find_of(&[EkTemplate::P256]);
    let [context, public, unique, policy] =
        ["ek.ctx", "ek.pub", "unique", "policy"].map(|name| text(&bench.path(name)));
    let mut makers = plain.area.clone();
    let unique_at = makers.len() - 2 * 34;
    makers[unique_at + 2..unique_at + 34].fill(0);
    makers[unique_at + 36..].fill(0);
    // The maker's template lets the key's own password do.
    makers[7] |= 0x40;
    bench.leave(TEMPLATE, &makers);
    let with_template = bench.find_of(&[EkTemplate::P256]);
    assert_ne!(with_template.key, plain.key);
    assert_eq!(bench.activate(&with_template).or_fail("a secret").as_bytes(), SECRET);

    bench.leave(NONCE, &[0x42; 20]);
    let with_both = bench.find_of(&[EkTemplate::P256]);
    assert_ne!(with_both.key, with_template.key);
    // tpm2_createek 5.4 takes other octets than the nonce's. tpm2_createprimary takes the unique
    // field as tpm2-tss lays it out in memory.
    let coordinate = |front: &[u8]| {
        let mut octets = [0; 2 + 128];
        octets[..2].copy_from_slice(&32_u16.to_ne_bytes());
        octets[2..2 + front.len()].copy_from_slice(front);
        octets
    };
    fs::write(&unique, [coordinate(&[0x42; 20]), coordinate(&[])].concat()).or_fail("a file");
    let policy_at = unique_at - 12 - 32;
    fs::write(&policy, &makers[policy_at..policy_at + 32]).or_fail("a file");
    bench.tool(&format!(
        "tpm2_createprimary -C e -G ecc256:aes128cfb -u {unique} -L {policy} -c {context} -a \
         fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|restricted|decrypt"
    ));
    bench.tool(&format!("tpm2_readpublic -c {context} -o {public}"));
    bench.tool("tpm2_flushcontext -t");
    let theirs = fs::read(&public).or_fail("a public area");
    assert_eq!(with_both.area, sized(&theirs).0);
    assert_eq!(bench.activate(&with_both).or_fail("a secret").as_bytes(), SECRET);

    // A certificate of the plain key tells that it is the one meant.
    let certificate = bench.certify(&plain, "plain");
    bench.leave(0x01C0_000A, &certificate);
    let found = bench.find();
    assert_eq!((found.key, found.certificates), (plain.key, certificate));
    assert_eq!(bench.activate(&plain).or_fail("a secret").as_bytes(), SECRET);
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: certificates of issuers follow the key's own, however they are laid over the indices.
#[test]
fn a_chain_over_several_indices_is_put_together() {
    let mut bench = Bench::blank();
    let ek = bench.find_of(&[EkTemplate::P256]);
    let [leaf, first, second] = ["leaf", "first", "second"].map(|name| bench.certify(&ek, name));
    bench.leave(0x01C0_000A, &leaf);
    let both = [&first[..], &second].concat();
    let (front, back) = both.split_at(first.len() + 100);
    bench.leave(0x01C0_0100, front);
    bench.leave(0x01C0_0101, &[back, &[0; 17]].concat());
    let found = bench.find();
    assert_eq!(found.certificates, [leaf, first, second].concat());
    assert_eq!(found.area, ek.area);
}

/// Goal: a buffer that is too small is told, with what is needed.
#[test]
fn a_small_buffer_is_refused() {
    let mut bench = Bench::manufactured();
    for len in [0, 100, 800] {
        let mut out = vec![0; len];
        let refused = bench.vault.endorsement(&mut out).err().or_fail("a refusal");
        assert!(refused.to_string().contains("octets, buffer of"), "{refused}");
    }
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: a credential for another attestation key, or of another TPM's, does not open, and leaves
/// nothing behind.
#[test]
fn foreign_credentials_do_not_open() {
    let mut bench = Bench::manufactured();
    let mut other = Bench::manufactured();
    for template in [EkTemplate::P384High, EkTemplate::Rsa2048] {
        let (ek, others) = (bench.find_of(&[template]), other.find_of(&[template]));
        let (mine, theirs) = (bench.ak.name(), other.ak.name());
        for (credential, secret) in
            [bench.credential(&ek, &theirs), bench.credential(&others, &mine)]
        {
            let refused = bench.vault.activate(&ek.key, &bench.ak, &credential, &secret);
            let trouble = refused.err().or_fail("a refusal").trouble();
            let Trouble::Refused { command, .. } = trouble else { panic!("{trouble:?}") };
            assert_eq!(command, Code::ActivateCredential);
            assert_eq!(bench.leftovers(), [""; 0], "{template}");
        }
        let refused = bench.activate(&others).err().or_fail("a refusal");
        assert_eq!(refused.trouble(), Trouble::NoEndorsementKey);
    }
}

/// Goal: a password on the endorsement hierarchy is named where it is in the way, and only there.
#[test]
fn an_endorsement_password_is_named() {
    let mut bench = Bench::manufactured();
    let [high, low] = [EkTemplate::P384High, EkTemplate::Rsa2048].map(|t| bench.find_of(&[t]));
    bench.tool("tpm2_changeauth -c endorsement secret");
    assert_eq!(bench.activate(&high).or_fail("a secret").as_bytes(), SECRET);
    let needed = |refused: Result<Secret, Failure>| {
        assert_eq!(refused.err().or_fail("a refusal").trouble(), Trouble::EndorsementAuthNeeded);
    };
    needed(bench.activate(&low));
    let kept = high.key.template.persistent();
    bench.tool(&format!("tpm2_evictcontrol -C o -c {kept}"));
    needed(bench.activate(&high));
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: an endorsement key that was just used is not locked by power cuts, ten in a row: not one
/// of either range, nor one that only its password opens.
#[test]
fn ten_power_cuts_after_a_credential_lock_nothing() {
    let mut bench = Bench::manufactured();
    for template in [EkTemplate::P384High, EkTemplate::Rsa2048] {
        let ek = bench.find_of(&[template]);
        bench.wire().take_exchanges();
        bench.assert_cuts_cost_nothing(&ek);
        let exchanges = bench.wire().take_exchanges();
        let shutdowns = exchanges.iter().filter(|e| e.code() == Code::Shutdown.id()).count();
        assert_eq!(shutdowns, 0, "{template} is used by its policy");
    }
    bench.tool("tpm2_changeauth -c endorsement secret");
    let ek = bench.find_of(&[EkTemplate::P384High]);
    bench.assert_cuts_cost_nothing(&ek);
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: a key with a policy of its maker's own is used by its password, if that is allowed; power
/// cuts do not lock it.
#[test]
fn a_key_with_a_foreign_policy_is_used_by_its_password() {
    const TEMPLATE: u32 = 0x01C0_0015;
    let mut bench = Bench::blank();
    let plain = bench.find_of(&[EkTemplate::P256High]);
    let mut makers = plain.area;
    let unique_at = makers.len() - 2 * 34;
    makers.truncate(unique_at);
    makers.extend([0; 4]);
    // In the policy, behind type, algorithm, attributes and its length.
    makers[10] ^= 1;
    bench.leave(TEMPLATE, &makers);
    let foreign = bench.find_of(&[EkTemplate::P256High]);
    assert_ne!(foreign.key, plain.key);
    bench.assert_cuts_cost_nothing(&foreign);
    bench.take_back(TEMPLATE);
    // No password, and nothing of it that we could satisfy.
    makers[7] &= !0x40;
    bench.leave(TEMPLATE, &makers);
    let closed = bench.find_of(&[EkTemplate::P256High]);
    let refused = bench.activate(&closed).err().or_fail("a refusal").trouble();
    assert!(matches!(refused, Trouble::Refused { command: Code::ActivateCredential, .. }));
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: after a failure at any command of finding a key or opening a credential, nothing stays
/// loaded once the next call has succeeded; a changed answer is noticed.
#[test]
fn a_failure_at_any_command_leaves_nothing_loaded() {
    let mut bench = Bench::manufactured();
    let evicted = EkTemplate::P384High.persistent().to_string();
    bench.tool(&format!("tpm2_evictcontrol -C o -c {evicted}"));
    for template in [EkTemplate::P384High, EkTemplate::Rsa2048] {
        let ek = bench.find_of(&[template]);
        let ak = bench.ak.name();
        let (credential, secret) = bench.credential(&ek, &ak);
        for mishap in [Mishap::Answer(0x101), Mishap::LoseCommand, Mishap::LoseAnswer] {
            for spared in 0.. {
                bench.wire().spoil(spared, 1, mishap);
                let found = bench.try_to_find_of(&[template]);
                let opened = bench.vault.activate(&ek.key, &bench.ak, &credential, &secret);
                if bench.wire().call_off() {
                    assert!(spared > 10, "finding and opening is longer than that");
                    break;
                }
                let at = format!("{template}, {mishap:?} at command {spared}");
                assert!(found.is_err() || opened.is_err() || spared > 0, "{at}");
                let again = bench.vault.activate(&ek.key, &bench.ak, &credential, &secret);
                assert_eq!(again.or_fail(&at).as_bytes(), SECRET);
                assert_eq!(bench.leftovers(), [""; 0], "{at}");
            }
        }
    }
}
