//! The firmware's keys in a TPM: on a real software TPM, over flash that loses its power. They are
//! made, used and found again; what is in the way is named, and costs no key; a TPM that was cleared
//! gives new ones, and another TPM none.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Once;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::est::csr::{P256Signature, UnsignedRequest};
use fleetcert_core::est::evidence::EVIDENCE_ATTRIBUTE_LEN_MAX;
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_core::time::Wall;
use fleetcert_core::wire::{Challenge, VERSION};
use fleetcert_firmware::flash_model::SECTOR_LEN;
use fleetcert_firmware::keystore::tpm::TpmKeys;
use fleetcert_firmware::keystore::{INTRODUCTION_LEN_MAX, KeyFault, KeyStore as _, LayoutError};
use fleetcert_provisioner::attest::credential;
use fleetcert_provisioner::attest::evidence::{
    self, AttestationKey, EndorsementKey, Expected, Statement,
};
use fleetcert_provisioner::csr::Csr;
use fleetcert_provisioner::entropy::SystemEntropy;
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_rig::wait::Stop;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::by_hand::openssl;
use fleetcert_tests::lab::flash::Flash;
use fleetcert_tests::lab::tpm::{leftovers, lockout_counter, powered, tool};
use fleetcert_tests::lab::tpm_bus::TpmBus;
use fleetcert_tests::tpm_socket::{Mishap, TpmSocket};
use fleetcert_tpm::command::Code;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

type Keys = TpmKeys<Flash, TpmSocket>;

/// `TPM_RC_FAILURE`. TPM 2.0 Part 2 §6.6.3
const RC_FAILURE: u32 = 0x101;

/// `TPM_RC_LOCKOUT`.
const RC_LOCKOUT: u32 = 0x921;

/// What nobody can do without who wants a key of the TPM.
const NEEDED: [Code; 5] = [
    Code::Startup,
    Code::GetTestResult,
    Code::GetCapability,
    Code::ContextLoad,
    Code::CreatePrimary,
];

/// What a slot begins with.
const SLOT_HEAD: [u8; 5] = *b"FCTK\x01";

const DIGEST: [u8; 32] = *b"SHA-256 of what is to be signed.";

/// A board: flash, and a TPM behind a bus that tpm2-tools use, too.
struct Site {
    bus: TpmBus,
    tpm: Swtpm,
    flash: Flash,
    place: TempDir,
}

impl Site {
    /// With a TPM in which nobody has left anything.
    fn new() -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let tpm = Swtpm::blank(&place.path().join("tpm")).or_fail("a TPM");
        Self::of(place, tpm)
    }

    /// With a TPM whose endorsement keys are certified.
    fn manufactured() -> Self {
        let place = tempfile::tempdir().or_fail("a folder");
        let maker = TpmMaker::found(&place.path().join("maker"), "Acme").or_fail("a maker");
        let tpm = Swtpm::manufacture(&place.path().join("tpm"), &maker).or_fail("a TPM");
        Self::of(place, tpm)
    }

    fn of(place: TempDir, tpm: Swtpm) -> Self {
        listen();
        let tpm = powered(tpm);
        let bus = TpmBus::start(&place.path().join("bus"), &tpm);
        Self { bus, tpm, flash: Flash::blank(), place }
    }

    /// The key store of a board that has just been started.
    fn keys(&self) -> Keys {
        self.keys_over(&self.flash)
    }

    fn keys_over(&self, flash: &Flash) -> Keys {
        with(flash, TpmSocket::new(self.bus.socket()))
    }

    /// Takes the TPM's power away, and gives it back.
    fn power_cut(&mut self) {
        self.tpm.restart(&Stop::default()).or_fail("a restart");
        self.reconnect();
    }

    /// The bus finds out that its chip had no power, at the cost of a command.
    fn reconnect(&self) {
        let mut wire = TpmSocket::new(self.bus.socket());
        let question = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x7c];
        let _lost = fleetcert_tpm::transact::Transact::transact(&mut wire, &question, &mut [0; 64]);
    }

    #[track_caller]
    fn tool(&self, line: &str) -> String {
        let words: Vec<_> = line.split(' ').collect();
        tool(self.bus.socket(), &words).expect_success().stdout
    }

    /// Writes an NV index with tpm2-tools, readable to everybody.
    fn leave(&self, index: u32, content: &[u8]) {
        let (file, len) = (self.place.path().join("nv"), content.len());
        fs::write(&file, content).or_fail("a file");
        let attributes = "ownerwrite|ownerread|authread|no_da";
        self.tool(&format!("tpm2_nvdefine -C o -s {len} -a {attributes} {index:#x}"));
        self.tool(&format!("tpm2_nvwrite -C o -i {} {index:#x}", file.display()));
    }

    /// Nothing is loaded in the TPM, and no failure counted.
    #[track_caller]
    fn assert_tidy(&self) {
        assert_eq!(leftovers(self.bus.socket()), [""; 0]);
        assert_eq!(lockout_counter(self.bus.socket()), 0);
    }
}

fn with(flash: &Flash, wire: TpmSocket) -> Keys {
    TpmKeys::new(flash.clone(), 0, wire).or_fail("a key store")
}

fn ensure(keys: &mut Keys, slot: Slot, source: KeySource) -> Result<[u8; 32], KeyFault> {
    keys.ensure(slot, source)
}

fn fresh(keys: &mut Keys, slot: Slot) -> [u8; 32] {
    ensure(keys, slot, KeySource::Fresh).or_fail("a key")
}

/// The slot's key signs, as another implementation sees it.
#[track_caller]
fn assert_signs(keys: &mut Keys, slot: Slot, key: &[u8; 32]) {
    let spki = keys.spki(slot).or_fail("a public key");
    assert_eq!(<[u8; 32]>::from(Sha256::digest(spki)), *key);
    let public = VerifyingKey::from_public_key_der(&spki).or_fail("a public key");
    let signature = keys.sign(slot, &DIGEST).or_fail("a signature");
    let signature = Signature::from_slice(&signature).or_fail("r and s");
    public.verify_prehash(&DIGEST, &signature).or_fail("a good signature");
}

/// Everything that needs the TPM fails so, for the slot that has a key and for the other.
#[track_caller]
fn assert_refused(keys: &mut Keys, failure: KeyFault, state: &str) {
    said();
    let name = |outcome: Result<(), KeyFault>| outcome.err();
    let outcomes = [
        ("probe", name(keys.probe(Slot::A))),
        ("sign", name(keys.sign(Slot::A, &DIGEST).map(drop))),
        ("introduce", name(keys.introduction(&mut [0; INTRODUCTION_LEN_MAX]).map(drop))),
    ];
    for (operation, outcome) in outcomes {
        assert_eq!(outcome, Some(failure), "{operation}");
    }
    let said = said();
    assert!(said.contains(&format!("TPM {state}")), "{said}");
}

/// As [`assert_refused`], for now: no key is made, the flash stays as it is.
#[track_caller]
fn assert_unavailable(site: &Site, keys: &mut Keys, state: &str) {
    let before = site.flash.octets();
    assert_refused(keys, KeyFault::Unavailable, state);
    for slot in Slot::ALL {
        let made = ensure(keys, slot, KeySource::Fresh);
        assert_eq!(made, Err(KeyFault::Unavailable), "{slot:?}");
    }
    assert!(site.flash.octets() == before, "the flash was changed");
}

/// Goal: a key is made in the TPM, signs, and is the same after any restart, of the board or of the
/// TPM; the other slot gets the same one or another, as asked.
#[test]
fn a_key_is_made_used_and_found_again() {
    let mut site = Site::new();
    let mut keys = site.keys();
    assert_eq!(keys.backend(), "tpm");
    assert_eq!((keys.probe(Slot::A), keys.spki(Slot::A)), lost());
    let key = fresh(&mut keys, Slot::A);
    assert_signs(&mut keys, Slot::A, &key);
    for source in [KeySource::Fresh, KeySource::Other] {
        assert_eq!(ensure(&mut keys, Slot::A, source), Ok(key));
    }
    drop(keys);
    site.power_cut();
    let mut keys = site.keys();
    assert_signs(&mut keys, Slot::A, &key);
    assert_eq!(ensure(&mut keys, Slot::B, KeySource::Other), Ok(key));
    assert_signs(&mut keys, Slot::B, &key);
    keys.erase(Slot::B).or_fail("an empty slot");
    let other = fresh(&mut keys, Slot::B);
    assert_ne!(other, key);
    assert_signs(&mut keys, Slot::B, &other);
    // The TPM alone: what it had loaded and saved for us is gone.
    site.power_cut();
    assert_signs(&mut keys, Slot::A, &key);
    keys.close();
    assert_signs(&mut keys, Slot::A, &key);
    site.assert_tidy();
}

fn lost() -> (Result<(), KeyFault>, Result<[u8; 91], KeyFault>) {
    (Err(KeyFault::Lost), Err(KeyFault::Lost))
}

/// Goal: an erased key is gone from the flash, octet by octet, and lost; the other one is not. A
/// wipe leaves nothing at all, and the board can begin again.
#[test]
fn an_erased_key_leaves_no_copy() {
    let site = Site::new();
    let mut keys = site.keys();
    let (first, second) = (fresh(&mut keys, Slot::A), fresh(&mut keys, Slot::B));
    keys.erase(Slot::A).or_fail("an empty slot");
    assert!(site.flash.is_blank(0) && !site.flash.is_blank(1));
    assert_eq!(keys.sign(Slot::A, &DIGEST), Err(KeyFault::Lost));
    assert_signs(&mut keys, Slot::B, &second);
    keys.wipe().or_fail("a blank flash");
    assert!((0..Flash::SECTORS).all(|index| site.flash.is_blank(index)));
    assert_eq!((keys.probe(Slot::B), keys.spki(Slot::B)), lost());
    let third = fresh(&mut keys, Slot::A);
    assert!(third != first && third != second);
    assert_signs(&mut keys, Slot::A, &third);
    site.assert_tidy();
}

/// Goal: a TPM that was cleared is told by its endorsement key; its keys are lost, new ones are
/// made, and the serial line says so: after a restart, and while the board runs.
#[test]
fn a_cleared_tpm_loses_its_keys_and_gets_new_ones() {
    let site = Site::new();
    let mut keys = site.keys();
    let mut key = fresh(&mut keys, Slot::A);
    for is_restarted in [true, false] {
        site.tool("tpm2_clear");
        if is_restarted {
            keys = site.keys();
        }
        assert_refused(&mut keys, KeyFault::Lost, "cleared");
        let new = fresh(&mut keys, Slot::A);
        assert!(said().contains("TPM cleared: "), "restarted: {is_restarted}");
        assert_ne!(new, key);
        assert_signs(&mut keys, Slot::A, &new);
        key = new;
    }
    // The same when a key is wanted for the other slot: this one is lost all the same.
    site.tool("tpm2_clear");
    let other = fresh(&mut keys, Slot::B);
    assert_eq!(keys.sign(Slot::A, &DIGEST), Err(KeyFault::Lost));
    assert_eq!(ensure(&mut site.keys(), Slot::A, KeySource::Other), Ok(other));
    assert_signs(&mut keys, Slot::B, &other);
    site.assert_tidy();
}

/// Goal: another TPM gets no key and overwrites none; the first one, put back, goes on.
#[test]
fn an_exchanged_tpm_overwrites_nothing() {
    let site = Site::new();
    let key = fresh(&mut site.keys(), Slot::A);
    let other = Site::new();
    let mut keys = other.keys_over(&site.flash);
    assert_unavailable(&site, &mut keys, "swapped");
    assert_signs(&mut site.keys(), Slot::A, &key);
    other.assert_tidy();
}

/// Goal: a TPM that is absent, in failure mode, locked out, or whose owner has set a password is
/// named, with what to do; no key is lost by it, none is made, and it is used when it is over.
#[test]
fn what_is_in_the_way_is_named_and_passes() {
    let mut site = Site::new();
    let mut keys = site.keys();
    let key = fresh(&mut keys, Slot::A);
    let needed = NEEDED.map(Code::id);
    site.bus.refuse(&needed, RC_FAILURE);
    for keys in [&mut keys, &mut site.keys()] {
        assert_unavailable(&site, keys, "failure-mode");
    }
    site.bus.refuse(&[Code::ContextLoad.id(), Code::CreatePrimary.id()], RC_LOCKOUT);
    for keys in [&mut keys, &mut site.keys()] {
        assert_unavailable(&site, keys, "locked-out");
    }
    site.bus.refuse(&[], 0);
    assert_signs(&mut keys, Slot::A, &key);

    site.tool("tpm2_changeauth -c owner secret");
    assert_unavailable(&site, &mut site.keys(), "owner-auth-needed");
    site.tool("tpm2_changeauth -c owner -p secret");
    assert_signs(&mut keys, Slot::A, &key);

    site.tpm.kill();
    site.reconnect();
    for keys in [&mut keys, &mut site.keys()] {
        assert_unavailable(&site, keys, "unreachable");
    }
    site.power_cut();
    assert_eq!(ensure(&mut site.keys(), Slot::A, KeySource::Fresh), Ok(key));
    site.assert_tidy();
}

/// Goal: before the first key, too.
#[test]
fn a_tpm_that_is_not_there_yet_is_waited_for() {
    let mut site = Site::new();
    site.tpm.kill();
    site.reconnect();
    let mut keys = site.keys();
    assert_eq!(ensure(&mut keys, Slot::A, KeySource::Fresh), Err(KeyFault::Unavailable));
    assert!((0..Flash::SECTORS).all(|index| site.flash.is_blank(index)));
    site.power_cut();
    let key = fresh(&mut keys, Slot::A);
    assert_signs(&mut keys, Slot::A, &key);
}

/// Goal: a password on the endorsement hierarchy does not keep the board from its keys.
#[test]
fn an_endorsement_password_costs_no_key() {
    let site = Site::new();
    let key = fresh(&mut site.keys(), Slot::A);
    site.tool("tpm2_changeauth -c endorsement secret");
    let mut keys = site.keys();
    assert_signs(&mut keys, Slot::A, &key);
    said();
    let introduced = keys.introduction(&mut [0; INTRODUCTION_LEN_MAX]).map(drop);
    assert_eq!(introduced, Err(KeyFault::Unavailable));
    assert!(said().contains("TPM endorsement-auth-needed"));
}

/// Goal: one damaged copy of the anchor changes nothing and is made good; with both gone the keys
/// say whether the TPM is theirs.
#[test]
fn a_damaged_anchor_is_never_taken_for_another_tpm() {
    let site = Site::new();
    let key = fresh(&mut site.keys(), Slot::A);
    let whole = site.flash.octets();
    for sectors in [&[2][..], &[3], &[2, 3]] {
        for &sector in sectors {
            site.flash.flip(sector, 20);
        }
        let other = Site::new();
        other.flash.replace(&site.flash.octets());
        let state = if sectors.len() == 1 { "swapped" } else { "foreign-key" };
        assert_unavailable_but_mended(&other, state);
        let mut keys = site.keys();
        assert_eq!(ensure(&mut keys, Slot::A, KeySource::Fresh), Ok(key), "{sectors:?}");
        assert_signs(&mut keys, Slot::A, &key);
        if sectors.len() == 1 {
            assert!(site.flash.octets() == whole, "{sectors:?}");
        }
    }
    site.assert_tidy();
}

/// In another TPM nothing changes but a copy that is made good.
#[track_caller]
fn assert_unavailable_but_mended(site: &Site, state: &str) {
    let mut keys = site.keys();
    said();
    assert_eq!(keys.probe(Slot::A), Err(KeyFault::Unavailable));
    let said = said();
    assert!(said.contains(&format!("TPM {state}")), "{said}");
    let made = ensure(&mut keys, Slot::B, KeySource::Fresh);
    assert_eq!((made, site.flash.is_blank(1)), (Err(KeyFault::Unavailable), true));
}

/// Goal: flash that does not answer for a while costs neither the key nor the anchor, and with it the
/// attestation key.
#[test]
fn a_silent_flash_costs_nothing() {
    let site = Site::new();
    let key = fresh(&mut site.keys(), Slot::A);
    let before = site.flash.octets();
    let mut keys = site.keys();
    site.flash.cut_power();
    assert_eq!(keys.sign(Slot::A, &DIGEST), Err(KeyFault::Unavailable));
    assert_eq!(ensure(&mut keys, Slot::A, KeySource::Fresh), Err(KeyFault::Unavailable));
    site.flash.restore_power();
    assert_signs(&mut keys, Slot::A, &key);
    assert_eq!(ensure(&mut keys, Slot::A, KeySource::Fresh), Ok(key));
    assert!(site.flash.octets() == before, "the flash was changed");
}

/// Goal: a blob that was changed is a loss of that key alone, whether its digest says so or the
/// TPM.
#[test]
fn a_damaged_blob_is_a_loss_of_that_key() {
    let site = Site::new();
    let mut keys = site.keys();
    let (key, other) = (fresh(&mut keys, Slot::A), fresh(&mut keys, Slot::B));
    let whole = site.flash.octets();
    site.flash.flip(0, 100);
    assert_eq!((keys.probe(Slot::A), keys.spki(Slot::A)), lost());
    assert!(said().contains("keys: slot a damaged"));
    site.flash.replace(&whole);
    let mut changed = site.flash.body(0);
    changed[200] ^= 1;
    site.flash.put(0, SLOT_HEAD, &changed);
    assert_eq!(keys.probe(Slot::A), Err(KeyFault::Lost));
    assert!(said().contains("keys: blob changed"));
    // A key of the TPM's, and not one that a device signs with: what the anchor ends with.
    let (anchor, names_len) = (site.flash.body(2), 2 * 36 + 4 + 2);
    site.flash.put(0, SLOT_HEAD, &anchor[names_len..]);
    assert_eq!((keys.probe(Slot::A), keys.spki(Slot::A)), lost());
    assert!(said().contains("keys: slot a damaged"));
    assert_signs(&mut keys, Slot::B, &other);
    let new = fresh(&mut keys, Slot::A);
    assert_ne!(new, key);
    assert_signs(&mut keys, Slot::A, &new);
    site.assert_tidy();
}

/// Octets of the flash from one power cut to the next: a prime, so that every part of a word is hit,
/// and small enough to hit what is written, which is 300 octets or more.
const STRIDE: usize = 97;

/// Goal: wherever the power is cut while the first key is made, on a chip of whatever kind, the board
/// comes back: with the key if there was an answer, with none or that one if there was not.
#[test]
fn a_power_cut_at_any_place_of_the_flash_leaves_no_half_key() {
    let site = Site::new();
    for (cut, is_checked) in (0..).step_by(STRIDE).zip([true, false].into_iter().cycle()) {
        let flash = Flash::blank();
        flash.cut_power_at(cut, is_checked);
        let made = ensure(&mut site.keys_over(&flash), Slot::A, KeySource::Fresh);
        flash.restore_power();
        let mut keys = site.keys_over(&flash);
        let found = keys.probe(Slot::A);
        let key = fresh(&mut keys, Slot::A);
        assert_signs(&mut keys, Slot::A, &key);
        assert_anchored_twice(&flash);
        if let Ok(made) = made {
            assert_eq!((found, made), (Ok(()), key), "cut {cut}");
            assert!(cut > 3 * 4096, "three sectors are erased and written: {cut}");
            break;
        }
        // A chip that checks what it reads may know of something, and not of what.
        let unknown = if is_checked { KeyFault::Unavailable } else { KeyFault::Lost };
        let is_fine = [Ok(()), Err(KeyFault::Lost), Err(unknown)].contains(&found);
        assert!(is_fine, "cut {cut}: {found:?}");
    }
    site.assert_tidy();
}

/// Both copies of the anchor are there, and the same.
#[track_caller]
fn assert_anchored_twice(flash: &Flash) {
    let [first, second] = [2, 3].map(|sector| flash.sector(sector).or_fail("a readable copy"));
    assert!(first == second && first.starts_with(b"FCTF\x01"));
}

/// Goal: the power goes while a cleared TPM gets its new anchor: the next start goes on from there,
/// wherever it was.
#[test]
fn a_power_cut_while_a_cleared_tpm_is_anchored_is_made_up_for() {
    let site = Site::new();
    let old = fresh(&mut site.keys(), Slot::A);
    site.tool("tpm2_clear");
    let before = site.flash.octets();
    for (cut, is_checked) in (0..).step_by(STRIDE).zip([true, false].into_iter().cycle()) {
        let flash = Flash::holding(&before);
        flash.cut_power_at(cut, is_checked);
        let mut keys = site.keys_over(&flash);
        let made = ensure(&mut keys, Slot::B, KeySource::Fresh);
        flash.restore_power();
        // Either the board begins anew, or the flash alone was without power.
        if is_checked {
            keys = site.keys_over(&flash);
        }
        assert_eq!(keys.sign(Slot::A, &DIGEST), Err(KeyFault::Lost), "cut {cut}");
        let key = fresh(&mut keys, Slot::B);
        assert_ne!(key, old);
        assert_signs(&mut site.keys_over(&flash), Slot::B, &key);
        assert_anchored_twice(&flash);
        if made.is_ok() {
            assert_eq!(made, Ok(key));
            assert!(cut > 3 * 4096, "three sectors are erased and written: {cut}");
            break;
        }
    }
    site.assert_tidy();
}

/// Goal: the power goes in the middle of any command of a first contact, of board and TPM at once:
/// the board comes back, proves its key, and nothing is held against it.
#[test]
fn a_power_cut_at_any_command_of_the_tpm_costs_nothing() {
    let mut site = Site::new();
    let mut cuts = 0;
    for commands in 0.. {
        let mut wire = TpmSocket::new(site.bus.socket());
        wire.spoil(commands, 1, Mishap::LoseAnswer);
        let flash = Flash::blank();
        let outcome = attest(&mut with(&flash, wire));
        site.power_cut();
        attest(&mut site.keys_over(&flash)).or_fail("proof");
        assert_eq!(lockout_counter(site.bus.socket()), 0, "after a cut at command {commands}");
        if outcome.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 40, "{cuts} commands");
    site.assert_tidy();
}

/// Asks for a key, introduces it, solves a challenge, and has the provisioner's verifier judge it.
fn attest(keys: &mut Keys) -> Result<(), KeyFault> {
    let key = ensure(keys, Slot::A, KeySource::Fresh)?;
    let (ek, ak) = introduced(keys)?;
    let made = Made::new(&ek, &ak, 7);
    let mut attribute = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
    let len = keys.vouch(Slot::A, &made.challenge(), &mut attribute)?;
    made.assert_proven(&ak, &requested(keys, &attribute[..len])?, &key);
    Ok(())
}

fn introduced(keys: &mut Keys) -> Result<(EndorsementKey, AttestationKey), KeyFault> {
    let mut room = [0; INTRODUCTION_LEN_MAX];
    let introduction = keys.introduction(&mut room)?.or_fail("a TPM");
    let ek = evidence::endorsement_key(introduction.ek_public).or_fail("a good one");
    let ak = evidence::attestation_key(introduction.ak_public).or_fail("a good one");
    Ok((ek, ak))
}

/// A PKCS#10 request with this attribute, signed by the slot's key.
fn requested(keys: &mut Keys, attribute: &[u8]) -> Result<Csr, KeyFault> {
    let id = DeviceId::parse("pump-7").or_fail("a device id");
    let mut buffer = [0; 2048];
    let unsigned = UnsignedRequest::new(&id, &keys.spki(Slot::A)?, attribute, &mut buffer);
    let unsigned = unsigned.or_fail("a request");
    let signature = keys.sign(Slot::A, &Sha256::digest(unsigned.to_be_signed()).into())?;
    let signature = P256Signature::from_raw(&signature).or_fail("a signature");
    Ok(Csr::verify(unsigned.finish(&signature).or_fail("a request")).or_fail("a good one"))
}

/// A challenge, and what its maker knows of it.
struct Made {
    secret: [u8; 32],
    credential: credential::Credential,
}

impl Made {
    const ID: [u8; 16] = *b"the challenge id";
    const NONCE: [u8; 32] = *b"the nonce that goes into the MAC";

    fn new(ek: &EndorsementKey, ak: &AttestationKey, octet: u8) -> Self {
        let secret = [octet; 32];
        let credential = credential::make(ek, ak.name(), &secret, &mut SystemEntropy::new());
        Self { secret, credential: credential.or_fail("a credential") }
    }

    fn challenge(&self) -> Challenge<'_> {
        Challenge {
            version: VERSION,
            id: Self::ID,
            nonce: Self::NONCE,
            credential: &self.credential.blob,
            encrypted_secret: &self.credential.encrypted_secret,
            valid_s: 120,
            server_time: Wall(0),
        }
    }

    #[track_caller]
    fn assert_proven(&self, ak: &AttestationKey, request: &Csr, key: &[u8; 32]) {
        let spki = request.key().spki();
        assert_eq!(<[u8; 32]>::from(Sha256::digest(spki)), *key);
        let values = request.attestation().or_fail("evidence");
        let statement = Statement::from_attribute_values(values).or_fail("a statement");
        let (challenge, nonce) = (&Self::ID, &Self::NONCE);
        let expected = Expected { ak, secret: &self.secret, challenge, nonce, spki };
        evidence::check(&statement, &expected).or_fail("proof");
    }
}

/// Goal: a key is introduced with the certificate of its TPM and vouched for, as the provisioner
/// judges it, ten times in a row with a power cut after each: no failure is counted. A challenge
/// for another TPM is not solved, and costs nothing.
#[test]
fn a_key_is_vouched_for_by_its_tpm() {
    let mut site = Site::manufactured();
    let mut keys = site.keys();
    let key = fresh(&mut keys, Slot::A);
    let (ek, ak) = introduced(&mut keys).or_fail("an introduction");
    for number in 0..10 {
        let made = Made::new(&ek, &ak, number);
        let mut attribute = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
        // After a restart the challenge is answered without another introduction.
        let len = keys.vouch(Slot::A, &made.challenge(), &mut attribute).or_fail("evidence");
        let request = requested(&mut keys, &attribute[..len]).or_fail("a request");
        made.assert_proven(&ak, &request, &key);
        drop(keys);
        site.power_cut();
        keys = site.keys();
    }
    let other = Site::new();
    let mut strange = other.keys();
    fresh(&mut strange, Slot::A);
    let (other_ek, other_ak) = introduced(&mut strange).or_fail("an introduction");
    for made in [Made::new(&other_ek, &ak, 0), Made::new(&ek, &other_ak, 0)] {
        said();
        let vouched = keys.vouch(Slot::A, &made.challenge(), &mut [0; EVIDENCE_ATTRIBUTE_LEN_MAX]);
        assert_eq!(vouched, Err(KeyFault::Unavailable));
        assert!(said().contains("TPM refused: 0x147 0x"));
    }
    let made = Made::new(&ek, &ak, 0);
    let vouched = keys.vouch(Slot::A, &made.challenge(), &mut [0; 64]);
    assert_eq!(vouched, Err(KeyFault::Unavailable), "no room for it");
    assert_eq!(keys.vouch(Slot::B, &made.challenge(), &mut []), Err(KeyFault::Lost));
    site.power_cut();
    assert_signs(&mut keys, Slot::A, &key);
    site.assert_tidy();
}

/// Goal: the certificate of the endorsement key is told as it is in the TPM, with those of its
/// issuers as far as there is room for all of them.
#[test]
fn an_introduction_carries_the_certificates_that_fit() {
    const CHAIN: u32 = 0x01c0_0100;
    let site = Site::manufactured();
    let leaf = fs::read(site.tpm.folder().join("ek-secp384r1.crt")).or_fail("a certificate");
    let issuer = openssl(&["x509", "-in", &issuer(&site), "-outform", "DER"], b"").octets;
    let mut keys = site.keys();
    fresh(&mut keys, Slot::A);
    assert_eq!(certificates(&mut keys), leaf);
    site.leave(CHAIN, &issuer);
    assert_eq!(certificates(&mut keys), [&leaf[..], &issuer].concat());
    site.leave(CHAIN + 1, &[0xff; 2048]);
    assert_eq!(certificates(&mut keys), leaf);
    for len in [0, 64, 500] {
        let introduced = keys.introduction(&mut vec![0; len]).map(drop);
        assert_eq!(introduced, Err(KeyFault::Unavailable), "{len} octets");
    }
    site.assert_tidy();
}

/// Goal: a TPM that gets a certificate only after it was anchored is introduced with it, and solves
/// the challenge for the key that was introduced, not for the one that was found before.
#[test]
fn a_challenge_is_for_the_key_that_was_introduced() {
    const P384: u32 = 0x01c0_0016;
    // Which key it is about only the provisioner could tell: a SEQUENCE with a number in it.
    const CERTIFICATE: &[u8] = &[0x30, 3, 2, 1, 0];
    let site = Site::new();
    let mut keys = site.keys();
    let key = fresh(&mut keys, Slot::A);
    let (plain, _) = introduced(&mut keys).or_fail("an introduction");
    site.leave(P384, CERTIFICATE);
    assert_eq!(certificates(&mut keys), CERTIFICATE);
    let (ek, ak) = introduced(&mut keys).or_fail("an introduction");
    assert_ne!(ek.id(), plain.id());
    let made = Made::new(&ek, &ak, 1);
    let mut attribute = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
    let len = keys.vouch(Slot::A, &made.challenge(), &mut attribute).or_fail("evidence");
    let request = requested(&mut keys, &attribute[..len]).or_fail("a request");
    made.assert_proven(&ak, &request, &key);
    // It is still the TPM that was anchored.
    assert_signs(&mut site.keys(), Slot::A, &key);
    site.assert_tidy();
}

fn issuer(site: &Site) -> String {
    let maker = TpmMaker::found(&site.place.path().join("issuer"), "Other").or_fail("a maker");
    maker.issuer().display().to_string()
}

fn certificates(keys: &mut Keys) -> Vec<u8> {
    let mut room = [0; INTRODUCTION_LEN_MAX];
    keys.introduction(&mut room)
        .or_fail("an introduction")
        .or_fail("a TPM")
        .ek_certificates
        .to_vec()
}

/// Goal: flash that has no room for the keys is refused before anything is lost on it.
#[test]
fn a_region_that_is_too_small_is_refused() {
    let base = SECTOR_LEN;
    let capacity = Flash::blank().octets().len();
    let made = TpmKeys::new(Flash::blank(), base, TpmSocket::new(Path::new("nowhere")));
    let refused = made.err().or_fail("a refusal");
    assert_eq!(refused, LayoutError::OutOfBounds { base, sectors: 4, capacity });
}

/// The serial line: what this test's thread has said since it was last asked.
struct Line;

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

impl log::Log for Line {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("fleetcert_firmware")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            SAID.with_borrow_mut(|said| said.push_str(&format!("{}\n", record.args())));
        }
    }

    fn flush(&self) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Line).or_fail("the only logger");
        log::set_max_level(log::LevelFilter::Info);
    });
}

fn said() -> String {
    SAID.take()
}
