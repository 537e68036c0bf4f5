//! The TPM's command sequences, on software TPMs that are as unforgiving as the chip: what they
//! give is compared with other programs, and what they do in trouble is provoked.

use std::fs;
use std::path::Path;

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::wait::Stop;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::tpm::{leftovers, lockout_counter, powered, tool};
use fleetcert_tests::tpm_socket::{Exchange, Mishap, TpmSocket};
use fleetcert_tpm::attest::{Attest, Body};
use fleetcert_tpm::command::{Code, Handle, Hierarchy};
use fleetcert_tpm::fault::{ResponseCode, Trouble};
use fleetcert_tpm::name::Name;
use fleetcert_tpm::signature::Signature;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::vault::{CERTIFIED_LEN_MAX, KeyBlob, Options, Vault, VaultError};
use p256::ecdsa::VerifyingKey;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use tempfile::TempDir;

type Failure = VaultError<std::io::Error>;

/// Seconds of recovery that swtpm has by default.
const RECOVERY_S: u32 = 1_000;

/// A TPM that no factory has seen, and the vault in it.
struct Bench {
    place: TempDir,
    tpm: Swtpm,
    vault: Vault<TpmSocket>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Sharing::Exclusive)
    }

    fn with(sharing: Sharing) -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let tpm = powered(Swtpm::blank(&place.path().join("tpm")).or_fail("a TPM"));
        let vault = open(&tpm, Options { parent: None, sharing }).or_fail("a vault");
        Self { place, tpm, vault }
    }

    fn make(&mut self, template: Template) -> KeyBlob {
        self.vault.make(template).or_fail("a key")
    }

    /// Runs one of tpm2-tools beside the vault; `line` is what one would type.
    #[track_caller]
    fn tool(&mut self, line: &str) -> String {
        self.wire().hang_up();
        let words: Vec<_> = line.split(' ').collect();
        tool(&self.tpm.data_socket(), &words).expect_success().stdout
    }

    fn file(&self, name: &str) -> String {
        self.place.path().join(name).to_str().or_fail("a path").to_owned()
    }

    fn wire(&mut self) -> &mut TpmSocket {
        self.vault.tpm().transport()
    }

    /// What is loaded, as another program sees it.
    fn leftovers(&mut self) -> Vec<String> {
        self.wire().hang_up();
        leftovers(&self.tpm.data_socket())
    }

    fn power_cut(&mut self) {
        self.tpm.restart(&Stop::default()).or_fail("a restart");
        self.wire().hang_up();
    }
}

fn open(tpm: &Swtpm, options: Options) -> Result<Vault<TpmSocket>, Failure> {
    Vault::open(TpmSocket::new(&tpm.data_socket()), options)
}

fn verifies(key: &KeyBlob, digest: &[u8; 32], signature: &[u8]) -> bool {
    let key = VerifyingKey::from_sec1_bytes(&key.point()).or_fail("a point of the curve");
    let signature = p256::ecdsa::Signature::from_slice(signature).or_fail("r and s");
    key.verify_prehash(digest, &signature).is_ok()
}

fn trouble<R>(outcome: Result<R, Failure>) -> Trouble {
    outcome.err().or_fail("a refusal").trouble()
}

fn codes(exchanges: &[Exchange]) -> Vec<u32> {
    exchanges.iter().map(Exchange::code).collect()
}

fn ids(codes: &[Code]) -> Vec<u32> {
    codes.iter().map(|code| code.id()).collect()
}

/// Goal: what we say of a TPM is what `tpm2_getcap` says.
#[test]
fn properties_agree_with_another_program() {
    let mut bench = Bench::new();
    let ours = bench.vault.properties().or_fail("properties");
    let fixed = bench.tool("tpm2_getcap properties-fixed");
    let variable = bench.tool("tpm2_getcap properties-variable");
    let raw = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("{name}:")).or_fail(name);
        let (_, rest) = rest.split_once("0x").or_fail(name);
        let digits = rest.split(|c: char| !c.is_ascii_hexdigit()).next().or_fail(name);
        u32::from_str_radix(digits, 16).or_fail(name)
    };
    assert_eq!(u32::from_be_bytes(ours.manufacturer), raw(&fixed, "TPM2_PT_MANUFACTURER"));
    assert_eq!((ours.manufacturer(), ours.vendor()), ("IBM", "SW   TPM"));
    let firmware = ["TPM2_PT_FIRMWARE_VERSION_1", "TPM2_PT_FIRMWARE_VERSION_2"];
    let [high, low] = firmware.map(|name| raw(&fixed, name));
    assert_eq!(ours.firmware.0, u64::from(high) << 32 | u64::from(low));
    let shown = format!("{}.{}.{}.{}", high >> 16, high & 0xFFFF, low >> 16, low & 0xFFFF);
    assert_eq!(ours.firmware.to_string(), shown);
    assert_eq!(ours.lockout.counter, raw(&variable, "TPM2_PT_LOCKOUT_COUNTER"));
    assert_eq!(ours.lockout.max, raw(&variable, "TPM2_PT_MAX_AUTH_FAIL"));
    assert_eq!(ours.lockout.recovery_s, raw(&variable, "TPM2_PT_LOCKOUT_INTERVAL"));
    assert!(!ours.lockout.is_locked && !ours.has_owner_auth && !ours.has_endorsement_auth);

    bench.tool("tpm2_changeauth -c owner secret");
    let ours = bench.vault.properties().or_fail("properties");
    assert!(ours.has_owner_auth && !ours.has_endorsement_auth);
}

/// Goal: a key of ours is one that tpm2-tools loads under the same parent, with the same Name, and
/// a signature of ours is one that another implementation accepts.
#[test]
fn keys_and_signatures_are_good_for_others() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    let signature = bench.vault.sign(&key, &[0x5A; 32]).or_fail("a signature");
    assert!(verifies(&key, &[0x5A; 32], &signature));
    assert!(!verifies(&key, &[0x5B; 32], &signature));

    let [public, private, parent, loaded, name] =
        ["key.pub", "key.priv", "parent.ctx", "key.ctx", "key.name"].map(|file| bench.file(file));
    let parts = &key.as_bytes()[1..];
    let (front, back) = parts.split_at(2 + key.public_area().len());
    fs::write(&public, front).or_fail("a file");
    fs::write(&private, back).or_fail("a file");
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    bench.tool(&format!("tpm2_createprimary -C o -G ecc256:aes128cfb -a {attributes} -c {parent}"));
    bench.tool("tpm2_flushcontext -t");
    bench.tool(&format!("tpm2_load -C {parent} -u {public} -r {private} -c {loaded} -n {name}"));
    bench.tool("tpm2_flushcontext -t");
    assert_eq!(fs::read(&name).or_fail("a Name"), key.name().as_bytes());
    let parents_name = bench.file("parent.name");
    bench.tool(&format!("tpm2_readpublic -c {parent} -n {parents_name}"));
    bench.tool("tpm2_flushcontext -t");
    let ours = bench.vault.parent().or_fail("the parent");
    assert_eq!(fs::read(&parents_name).or_fail("a Name"), ours.as_bytes());
}

/// Goal: an attestation key states about a device key what a verifier wants to read, over the
/// verifier's own data, and its signature holds.
#[test]
fn statements_say_what_a_verifier_wants_to_read() {
    let mut bench = Bench::new();
    let (key, ak) = (bench.make(Template::DeviceKey), bench.make(Template::AttestationKey));
    let mut out = [0; CERTIFIED_LEN_MAX];
    let stated = bench.vault.certify(&key, &ak, &[0x11; 32], &mut out).or_fail("a statement");
    let attest = Attest::parse(stated.attest).or_fail("a TPMS_ATTEST");
    assert_eq!(attest.extra_data, [0x11; 32]);
    match attest.body {
        Body::Certify { name, .. } => assert_eq!(name, key.name().as_bytes()),
        other => panic!("{other:?}"),
    }
    let digest = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(stated.attest));
    match Signature::parse(stated.signature).or_fail("a TPMT_SIGNATURE") {
        Signature::Ecdsa { r, s, .. } => assert!(verifies(&ak, &digest, &[r, s].concat())),
        other => panic!("{other:?}"),
    }
}

/// Goal: what a signature costs is three commands once the key is known, five with room for the
/// parent only, and always the same with none.
#[test]
fn a_signature_takes_three_commands() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    let from_context = [Code::ContextLoad, Code::Sign, Code::FlushContext];
    let flush = Code::FlushContext;
    let from_blob = [Code::ContextLoad, Code::Load, flush, Code::Sign, flush];
    let anew = [Code::CreatePrimary, Code::Load, flush, Code::Sign, flush];
    let socket = bench.tpm.data_socket();
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    bench.wire().take_exchanges();
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    assert_eq!(codes(&bench.wire().take_exchanges()), ids(&from_context));
    bench.wire().hang_up();

    assert_eq!(costs::<1>(&socket, &key), ids(&from_blob));
    assert_eq!(costs::<0>(&socket, &key), ids(&anew));
}

/// The commands of the second signature with room for `CONTEXTS`.
fn costs<const CONTEXTS: usize>(socket: &Path, key: &KeyBlob) -> Vec<u32> {
    let options = Options { parent: None, sharing: Sharing::Exclusive };
    let mut vault = Vault::<_, CONTEXTS>::open(TpmSocket::new(socket), options).or_fail("a vault");
    vault.sign(key, &[1; 32]).or_fail("a signature");
    vault.tpm().transport().take_exchanges();
    vault.sign(key, &[1; 32]).or_fail("a signature");
    codes(&vault.tpm().transport().take_exchanges())
}

/// Goal: room for contexts is bounded, and the keys that do not fit are loaded from their blobs.
#[test]
fn more_keys_than_contexts_sign_in_turn() {
    let mut bench = Bench::new();
    let keys: Vec<_> = (0..5).map(|_| bench.make(Template::DeviceKey)).collect();
    for _ in 0..3 {
        for key in &keys {
            let signature = bench.vault.sign(key, &[1; 32]).or_fail("a signature");
            assert!(verifies(key, &[1; 32], &signature));
        }
    }
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: random octets differ, and nobody on the bus has seen them.
#[test]
fn random_octets_cross_the_bus_encrypted() {
    let mut bench = Bench::new();
    let [first, second] = [(); 2].map(|()| bench.vault.random().or_fail("random octets"));
    assert_eq!(first.as_bytes().len(), 32);
    assert_ne!(first.as_bytes(), second.as_bytes());
    for exchange in bench.wire().take_exchanges() {
        assert!(!exchange.answer.windows(32).any(|window| window == first.as_bytes()));
    }
}

/// Goal: somebody on the bus who changes an answer that carries a key or a secret is noticed, and
/// nothing is left behind.
#[test]
fn a_changed_answer_is_noticed() {
    let mut bench = Bench::new();
    bench.vault.parent().or_fail("the parent");
    // Context of the parent, session, command.
    bench.wire().spoil(2, 1, Mishap::FlipLastBit);
    let changed = trouble(bench.vault.make(Template::DeviceKey));
    assert_eq!(changed, Trouble::Tampered { command: Code::Create });
    bench.wire().spoil(2, 1, Mishap::FlipLastBit);
    assert_eq!(trouble(bench.vault.random()), Trouble::Tampered { command: Code::GetRandom });
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: after a failure at any command of any sequence, of any kind, nothing stays loaded once the
/// next call has succeeded; and after a refusal, nothing stays loaded at all.
#[test]
fn a_failure_at_any_command_leaves_nothing_loaded() {
    let mishaps = [
        Mishap::Answer(0x101),
        Mishap::Answer(0x902),
        GONE,
        Mishap::LoseCommand,
        Mishap::LoseAnswer,
    ];
    let mut bench = Bench::new();
    let (key, ak) = (bench.make(Template::DeviceKey), bench.make(Template::AttestationKey));
    for (name, call) in CALLS {
        for mishap in mishaps {
            for spared in 0.. {
                // A vault that has just been opened goes the longest way.
                bench.wire().hang_up();
                let options = Options { parent: None, sharing: Sharing::Exclusive };
                bench.vault = open(&bench.tpm, options).or_fail("a vault");
                bench.wire().spoil(spared, 1, mishap);
                let outcome = call(&mut bench.vault, &key, &ak);
                if bench.wire().call_off() {
                    assert!(spared >= 3, "{name} is longer than that");
                    outcome.or_fail("a call without a mishap");
                    break;
                }
                let at = format!("{name}, {mishap:?} at command {spared}: {outcome:?}");
                match (mishap, is_flush(&mut bench)) {
                    (GONE, true) => continue,
                    (Mishap::Answer(_), false) => assert_eq!(bench.leftovers(), [""; 0], "{at}"),
                    _ => (),
                }
                call(&mut bench.vault, &key, &ak).or_fail(&at);
                assert_eq!(bench.leftovers(), [""; 0], "{at}, after the next call");
            }
        }
    }
}

/// The handle is not there: of a flush the answer that it was not needed, and no failure.
const GONE: Mishap = Mishap::Answer(0x910);

/// A call of a vault with a device key and an attestation key.
type Call = fn(&mut Vault<TpmSocket>, &KeyBlob, &KeyBlob) -> Result<(), Failure>;

/// Every call that loads something.
const CALLS: [(&str, Call); 6] = [
    ("parent", |vault, _, _| vault.parent().map(drop)),
    ("random", |vault, _, _| vault.random().map(drop)),
    ("make", |vault, _, _| vault.make(Template::DeviceKey).map(drop)),
    ("probe", |vault, key, _| vault.probe(key)),
    ("sign", |vault, key, _| vault.sign(key, &[1; 32]).map(drop)),
    ("certify", |vault, key, ak| {
        vault.certify(key, ak, &[1; 32], &mut [0; CERTIFIED_LEN_MAX]).map(drop)
    }),
];

/// Whether a refused command was a flush: what it was to flush stays until the next call.
fn is_flush(bench: &mut Bench) -> bool {
    let is_refused_flush = |exchange: &Exchange| {
        exchange.code() == Code::FlushContext.id() && exchange.response() != 0
    };
    bench.wire().take_exchanges().iter().any(is_refused_flush)
}

/// Goal: what an earlier life left loaded is swept when the TPM is ours alone, sessions of both
/// kinds among it.
#[test]
fn leftovers_of_an_earlier_life_are_swept() {
    let mut bench = Bench::new();
    fill(&mut bench);
    let session = bench.file("policy.ctx");
    bench.tool(&format!("tpm2_startauthsession -S {session} --policy-session"));
    assert_ne!(bench.leftovers(), [""; 0]);
    bench.vault =
        open(&bench.tpm, Options { parent: None, sharing: Sharing::Exclusive }).or_fail("a vault");
    bench.make(Template::DeviceKey);
    let loaded = |line: &String| line.contains("0x80") || line.contains("0x02");
    assert!(!bench.leftovers().iter().any(loaded));
}

/// Has another program fill all slots for keys.
fn fill(bench: &mut Bench) {
    for number in 0..3 {
        let context = bench.file(&format!("other-{number}.ctx"));
        bench.tool(&format!("tpm2_createprimary -C o -c {context}"));
    }
}

/// Goal: another program that holds all slots is waited for, not for ever, and named.
#[test]
fn full_slots_are_waited_for_and_named() {
    let mut bench = Bench::with(Sharing::Shared);
    let key = bench.make(Template::DeviceKey);
    fill(&mut bench);
    bench.wire().paused_ms = 0;
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), Trouble::NoSlots);
    let waited_ms = bench.wire().paused_ms;
    assert!((1_000..10_000).contains(&waited_ms), "{waited_ms} ms");
    assert_eq!(bench.leftovers().len(), 3, "the others' keys are untouched");
    bench.tool("tpm2_flushcontext -t");
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: a TPM that is ours alone and full nevertheless, as behind a resource manager, is swept at
/// once, then waited for, and named.
#[test]
fn a_full_tpm_is_swept_before_it_is_waited_for() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    bench.wire().spoil(0, 1, Mishap::Answer(0x902));
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature after a sweep");
    assert_eq!(bench.wire().paused_ms, 0);
    fill(&mut bench);
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature after a sweep");
    assert_eq!((bench.wire().paused_ms, bench.leftovers()), (0, vec![]));

    bench.wire().spoil_all(Code::ContextLoad.id(), Mishap::Answer(0x902));
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), Trouble::NoSlots);
    assert!(bench.wire().paused_ms >= 1_000);
}

/// Goal: a TPM that is busy is asked again, with pauses, and not for ever.
#[test]
fn a_busy_tpm_is_asked_again() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    for code in [0x908, 0x909, 0x90A, 0x920, 0x922, 0x923] {
        for spared in 0..3 {
            bench.wire().paused_ms = 0;
            bench.wire().spoil(spared, 4, Mishap::Answer(code));
            bench.vault.sign(&key, &[1; 32]).or_fail("a signature after a while");
            assert!(bench.wire().paused_ms > 0, "{code:#x}");
        }
    }
    bench.wire().spoil(0, usize::MAX, Mishap::Answer(0x922));
    let busy = Trouble::Refused { command: Code::ContextLoad, code: ResponseCode(0x922) };
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), busy);
    assert!(bench.wire().call_off());
}

/// Goal: a lockout is named with the time that it lasts, failure mode by its name, and neither is
/// tried again.
#[test]
fn lockout_and_failure_mode_are_named() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    bench.wire().take_exchanges();
    bench.wire().spoil(0, 1, Mishap::Answer(0x921));
    let locked = Trouble::LockedOut { recovery_s: RECOVERY_S };
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), locked);
    let expected = ids(&[Code::ContextLoad, Code::GetCapability, Code::GetCapability]);
    assert_eq!(codes(&bench.wire().take_exchanges()), expected);
    // The second of the two is the question what the TPM's tests of itself found.
    bench.wire().spoil(0, 2, Mishap::Answer(0x101));
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), Trouble::FailureMode);
    assert_eq!(bench.wire().take_exchanges().len(), 2);
    bench.wire().spoil(0, 1, Mishap::Answer(0x101));
    let failed = Trouble::Refused { command: Code::ContextLoad, code: ResponseCode(0x101) };
    assert_eq!(trouble(bench.vault.sign(&key, &[1; 32])), failed);
}

/// Goal: a TPM that was reset between two calls, started or not, is taken up where it stands.
#[test]
fn a_reset_between_two_calls_is_survived() {
    let mut bench = Bench::new();
    let (key, ak) = (bench.make(Template::DeviceKey), bench.make(Template::AttestationKey));
    for (name, call) in CALLS {
        for starts in [false, true] {
            call(&mut bench.vault, &key, &ak).or_fail(name);
            bench.power_cut();
            if starts {
                bench.vault.tpm().startup().or_fail("a start");
            }
            call(&mut bench.vault, &key, &ak).or_fail(name);
            assert_eq!(bench.leftovers(), [""; 0], "{name}");
        }
    }
}

/// Goal: ten power cuts in a row, each with a key loaded and just used, lock nothing.
#[test]
fn ten_power_cuts_in_use_leave_the_tpm_usable() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    for cut in 1..=10 {
        bench.vault.sign(&key, &[cut; 32]).or_fail("a signature");
        let tpm = bench.vault.tpm();
        let mut area = [0; 128];
        let len = Template::StoragePrimary.write(&mut area).or_fail("a template");
        let (parent, _) =
            tpm.create_primary(Hierarchy::Owner, &[], &mut area, len).or_fail("the primary");
        let handle = tpm.load(parent, &key.as_bytes()[1..]).or_fail("the key");
        tpm.sign(handle, &[cut; 32], &mut [0; 64]).or_fail("a signature");
        bench.power_cut();
        assert_eq!(bench.vault.properties().or_fail("properties").lockout.counter, 0, "{cut}");
    }
    bench.vault.sign(&key, &[0; 32]).or_fail("a signature");
    bench.wire().hang_up();
    assert_eq!(lockout_counter(&bench.tpm.data_socket()), 0);
}

/// Goal: a cleared TPM is noticed by an open vault, by one that knows the old parent, and by one
/// that knows nothing but a key.
#[test]
fn a_cleared_tpm_is_named() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    let expected = bench.vault.parent().or_fail("the parent");
    bench.vault.sign(&key, &[1; 32]).or_fail("a signature");
    bench.tool("tpm2_clear");
    let changed = |trouble: Trouble| match trouble {
        Trouble::ParentChanged { found, expected: recorded } => {
            assert_eq!(recorded, expected.head());
            assert_ne!(found, expected.head());
        }
        other => panic!("{other:?}"),
    };
    changed(trouble(bench.vault.sign(&key, &[1; 32])));
    bench.wire().hang_up();
    let known = Options { parent: Some(expected), sharing: Sharing::Exclusive };
    changed(trouble(open(&bench.tpm, known).or_fail("a vault").parent()));
    let unknown = Options { parent: None, sharing: Sharing::Exclusive };
    bench.vault = open(&bench.tpm, unknown).or_fail("a vault");
    assert_eq!(trouble(bench.vault.probe(&key)), Trouble::ForeignKey);
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: another TPM behind an open vault is noticed before anything is made in it.
#[test]
fn an_exchanged_tpm_is_named() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    let expected = bench.vault.parent().or_fail("the parent");
    let mut other = Bench::new();
    other.wire().hang_up();
    let known = Options { parent: Some(expected), sharing: Sharing::Exclusive };
    let mut vault = open(&other.tpm, known).or_fail("a vault");
    for refused in [vault.make(Template::DeviceKey).map(drop), vault.probe(&key)] {
        assert!(matches!(trouble(refused), Trouble::ParentChanged { .. }));
    }
}

/// Goal: a changed blob does not load, and says so.
#[test]
fn a_changed_key_is_refused() {
    let mut bench = Bench::new();
    let key = bench.make(Template::DeviceKey);
    let mut octets = key.as_bytes().to_vec();
    *octets.last_mut().or_fail("an octet") ^= 1;
    let changed = KeyBlob::parse(&octets).or_fail("a blob");
    assert_eq!(trouble(bench.vault.probe(&changed)), Trouble::ForeignKey);
    assert_eq!(bench.leftovers(), [""; 0]);
}

/// Goal: an owner's password is named as what is missing, with and without a primary made before.
#[test]
fn an_owner_password_is_named() {
    let mut bench = Bench::new();
    bench.tool("tpm2_changeauth -c owner secret");
    assert_eq!(trouble(bench.vault.make(Template::DeviceKey)), Trouble::OwnerAuthNeeded);
    assert_eq!(trouble(bench.vault.parent()), Trouble::OwnerAuthNeeded);
    bench.wire().hang_up();
    assert_eq!(lockout_counter(&bench.tpm.data_socket()), 0, "asking does not lock");
}

/// Goal: an orderly end is one: no start after it counts as a cut.
#[test]
fn closing_shuts_down_in_order() {
    let Bench { place: _place, mut tpm, mut vault } = Bench::new();
    vault.make(Template::DeviceKey).or_fail("a key");
    let mut wire = vault.close().or_fail("an orderly end");
    assert_eq!(wire.take_exchanges().last().map(Exchange::code), Some(Code::Shutdown.id()));
    wire.hang_up();
    tpm.restart(&Stop::default()).or_fail("a restart");
    let options = Options { parent: None, sharing: Sharing::Exclusive };
    open(&tpm, options).or_fail("a vault");
}

/// Goal: a TPM lists what is loaded, and a handle that is gone already counts as flushed.
#[test]
fn handles_are_listed_and_flushed() {
    let mut bench = Bench::new();
    let tpm = bench.vault.tpm();
    let mut area = [0; 128];
    let len = Template::StoragePrimary.write(&mut area).or_fail("a template");
    let (handle, len) =
        tpm.create_primary(Hierarchy::Owner, &[], &mut area, len).or_fail("the primary");
    let mut public = [0; 128];
    assert_eq!(tpm.read_public(handle, &mut public).or_fail("its area"), len);
    assert_eq!(public[..len], area[..len]);
    let mut found = [Handle::NULL; 4];
    assert_eq!(tpm.handles(Handle::TRANSIENT, &mut found).or_fail("a list"), 1);
    assert_eq!(found[0], handle);
    tpm.flush(handle).or_fail("a flush");
    tpm.flush(handle).or_fail("a flush of nothing");
    assert_eq!(tpm.handles(Handle::TRANSIENT, &mut found).or_fail("a list"), 0);
    tpm.self_test(true).or_fail("a test");
    let name = Name::of_public_area(&area[..len]).or_fail("a Name");
    assert_eq!(bench.vault.parent().or_fail("the parent"), name);
}

/// Goal: ten thousand signatures, through contexts and past them, leave nothing behind.
#[test]
fn slow_ten_thousand_signatures_leak_nothing() {
    let mut bench = Bench::new();
    let keys: Vec<_> = (0..4).map(|_| bench.make(Template::DeviceKey)).collect();
    for round in 0..10_000_u32 {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&round.to_be_bytes());
        // Four in a row by one key: one past the contexts, three through them.
        let key = &keys[(round / 4 % 4) as usize];
        let signature = bench.vault.sign(key, &digest).or_fail("a signature");
        if round % 500 == 0 {
            assert!(verifies(key, &digest, &signature));
            assert_eq!(bench.leftovers(), [""; 0], "after {round}");
            bench.wire().take_exchanges();
        }
    }
    assert_eq!(bench.leftovers(), [""; 0]);
}
