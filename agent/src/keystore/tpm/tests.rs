//! The key store over a TPM that does as a test tells it, and a disk that the power leaves.

use smol::block_on;

use super::*;
use crate::cause::Causes;
use crate::config::KeyBackend;
use crate::disk::cut::{CutDisk, MOODS};
use crate::entropy::Entropy;
use crate::keystore::file::FileKeys;
use crate::keystore::{KeyStore, erase_anchor, erase_keys};
use crate::tpm::fake::{FakeTpm, blob};

const OPERATIONS_MAX: usize = 200;
const SOON: Duration = Duration::from_secs(30);

fn keys(disk: &Rc<CutDisk>, tpm: &FakeTpm) -> TpmKeys {
    let disk = Rc::clone(disk) as Rc<dyn Disk>;
    TpmKeys::new(disk, Tpm::over(Arc::new(tpm.clone()))).unwrap()
}

fn ensure(keys: &TpmKeys, slot: Slot) -> Result<Vec<u8>, KeyFailure> {
    block_on(keys.ensure(slot, KeySource::Fresh))
}

/// The state of a device with a key in slot A.
fn enrolled() -> (Rc<CutDisk>, FakeTpm, Vec<u8>) {
    let (disk, tpm) = (Rc::new(CutDisk::default()), FakeTpm::new(1, 9));
    let spki = ensure(&keys(&disk, &tpm), Slot::A).unwrap();
    (disk, tpm, spki)
}

fn challenge() -> Challenge {
    Challenge { id: [1; 16], nonce: [2; 32], credential: vec![3], encrypted_secret: vec![4] }
}

// Goal: a slot has one key, also after a restart; the other slot can keep it.
#[test]
fn ensuring_is_idempotent_and_the_other_slots_key_can_be_kept() {
    let (disk, tpm, first) = enrolled();
    assert_eq!(disk.names(), ["anchor.a", "anchor.b", "key.a.tpm"]);
    let keys = keys(&disk, &tpm);
    assert_eq!(ensure(&keys, Slot::A).unwrap(), first);
    assert_eq!(block_on(keys.ensure(Slot::B, KeySource::Other)).unwrap(), first);
    keys.erase(Slot::A).unwrap();
    assert_eq!(keys.signer(Slot::B).unwrap().spki(), first);
    assert_ne!(ensure(&keys, Slot::A).unwrap(), first);
    let absent = keys.signer(Slot::A).and_then(|_| keys.erase(Slot::A));
    absent.unwrap();
    assert!(matches!(keys.signer(Slot::A), Err(KeyFailure::Absent { slot: Slot::A })));
}

// Goal: a signature is made on the TPM's thread, of the digest, and is DER.
#[test]
fn a_signature_is_asked_of_the_tpm() {
    let (disk, tpm, _) = enrolled();
    let signer = keys(&disk, &tpm).signer(Slot::A).unwrap();
    assert!(signer.is_slow());
    let signature = signer.sign(b"message").unwrap();
    let mut raw = [1; 64];
    raw[..32].copy_from_slice(&sha256(b"message"));
    assert_eq!(signature, P256Signature::from_raw(&raw).unwrap().as_der());
    assert!(!format!("{signer:?}").contains("blob"));
}

// Goal: what may pass is never taken for a loss, changes no file, and is over when it is over.
#[test]
fn a_tpm_out_of_reach_costs_no_key() {
    let (disk, tpm, first) = enrolled();
    for trouble in [
        TpmTrouble::FailureMode,
        TpmTrouble::LockedOut { recovery_s: 7 },
        TpmTrouble::NoSlots,
        TpmTrouble::OwnerAuthNeeded { reason: None },
    ] {
        let keys = keys(&disk, &tpm);
        tpm.state().trouble = Some(trouble.clone());
        for failure in [
            ensure(&keys, Slot::A).unwrap_err(),
            ensure(&keys, Slot::B).unwrap_err(),
            block_on(keys.probe(Slot::A)).unwrap_err(),
            keys.signer(Slot::A).unwrap().sign(b"").unwrap_err(),
        ] {
            assert!(!failure.is_loss(), "{failure}");
            let KeyFailure::Tpm(found) = failure else { panic!("{failure}") };
            assert_eq!(found, trouble);
        }
        assert_eq!(keys.standing().trouble, Some(trouble));
        assert_eq!(disk.names(), ["anchor.a", "anchor.b", "key.a.tpm"]);
        tpm.state().trouble = None;
        assert_eq!(ensure(&keys, Slot::A).unwrap(), first);
        assert_eq!(keys.standing().trouble, None);
    }
}

// Goal: a look at a TPM that answers, and gives no key, says neither that all is well nor that the
// TPM is away any more.
#[test]
fn a_look_takes_no_trouble_back_that_it_knows_nothing_of() {
    let (disk, tpm, _) = enrolled();
    let keys = keys(&disk, &tpm);
    let gone = TpmTrouble::Wedged { reason: "no response".to_owned() };
    for (trouble, remains) in [(TpmTrouble::NoSlots, true), (gone, false)] {
        block_on(keys.probe(Slot::A)).unwrap();
        tpm.state().trouble = Some(trouble.clone());
        block_on(keys.probe(Slot::A)).unwrap_err();
        tpm.state().trouble = None;
        let looked = async {
            while keys.standing().trouble.is_some() != remains {
                keys.look(SOON).await;
            }
            keys.look(SOON).await;
        };
        block_on(crate::clock::within(SOON, looked)).unwrap();
        assert_eq!(keys.standing().trouble, remains.then_some(trouble));
        block_on(keys.probe(Slot::A)).unwrap();
        assert_eq!(keys.standing().trouble, None);
    }
}

// Goal: another TPM gets no key, and the keys of the first one are still there when it is back.
#[test]
fn another_tpm_is_told_and_nothing_is_overwritten() {
    let (disk, tpm, first) = enrolled();
    let before: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    let other = FakeTpm::new(2, 8);
    let keys_elsewhere = keys(&disk, &other);
    for failure in [
        ensure(&keys_elsewhere, Slot::A).unwrap_err(),
        ensure(&keys_elsewhere, Slot::B).unwrap_err(),
        block_on(keys_elsewhere.probe(Slot::A)).unwrap_err(),
    ] {
        assert!(!failure.is_loss());
        let KeyFailure::Tpm(TpmTrouble::Swapped { found, expected }) = failure else {
            panic!("{failure}");
        };
        assert_eq!((found.0, expected.0), ([8; 32], [9; 32]));
    }
    let after: Vec<_> = disk.names().iter().map(|name| disk.content(name)).collect();
    assert_eq!(after, before);
    assert_eq!(other.state().made, 0);
    assert_eq!(ensure(&keys(&disk, &tpm), Slot::A).unwrap(), first);
}

// Goal: a cleared TPM is told by its endorsement key, is a loss, and gets new keys when one is
// wanted: a new attestation key with them.
#[test]
fn a_cleared_tpm_is_a_loss_and_gets_new_keys() {
    for is_open in [false, true] {
        let (disk, tpm, first) = enrolled();
        let keys = keys(&disk, &tpm);
        let ak = keys.names().unwrap().1;
        if is_open {
            block_on(keys.probe(Slot::A)).unwrap();
        }
        tpm.state().seed = 2;
        for failure in [
            block_on(keys.probe(Slot::A)).unwrap_err(),
            keys.signer(Slot::A).unwrap().sign(b"").unwrap_err(),
        ] {
            assert!(failure.is_loss(), "{failure}");
            assert!(matches!(failure, KeyFailure::Tpm(TpmTrouble::Cleared { .. })));
        }
        assert_ne!(ensure(&keys, Slot::B).unwrap(), first);
        assert_ne!(keys.names().unwrap().1, ak);
        // The old key is of no use to anybody any more, and only that.
        let failure = block_on(keys.probe(Slot::A)).unwrap_err();
        assert!(matches!(failure, KeyFailure::Corrupt { slot: Slot::A, .. }), "{failure}");
        assert_ne!(ensure(&keys, Slot::A).unwrap(), first);
    }
}

// Goal: a damaged blob in the right TPM is a loss of that key alone.
#[test]
fn a_damaged_blob_is_replaced_where_a_key_is_wanted() {
    let (disk, tpm, first) = enrolled();
    let foreign = blob(Template::DeviceKey, 5, 1);
    for noise in [&b""[..], b"noise", foreign.as_bytes()] {
        disk.tamper("key.a.tpm", Some(noise));
        let keys = keys(&disk, &tpm);
        let damaged = block_on(keys.probe(Slot::A)).unwrap_err();
        assert!(matches!(damaged, KeyFailure::Corrupt { slot: Slot::A, .. }), "{damaged}");
        assert!(damaged.is_loss());
        assert_ne!(ensure(&keys, Slot::A).unwrap(), first);
        block_on(keys.probe(Slot::A)).unwrap();
    }
}

// Goal: a lost anchor is made anew for the TPM that has the keys, and for no other.
#[test]
fn without_an_anchor_the_keys_say_which_tpm_it_is() {
    for damage in [None, Some(&b"noise"[..])] {
        let (disk, tpm, first) = enrolled();
        for name in ANCHOR_FILES {
            disk.tamper(name, damage);
        }
        let other = FakeTpm::new(2, 8);
        let failure = ensure(&keys(&disk, &other), Slot::B).unwrap_err();
        assert!(!failure.is_loss(), "{failure}");
        assert_eq!(other.state().made, 0);
        let keys = keys(&disk, &tpm);
        assert!(keys.names().is_none());
        assert!(block_on(keys.introduction()).is_err());
        assert_eq!(ensure(&keys, Slot::A).unwrap(), first);
        assert!(keys.names().is_some());
    }
}

// Goal: one damaged copy of the anchor changes nothing.
#[test]
fn one_copy_of_the_anchor_is_enough() {
    for name in ANCHOR_FILES {
        let (disk, tpm, _) = enrolled();
        let names = keys(&disk, &tpm).names();
        disk.tamper(name, Some(b"noise"));
        assert_eq!(keys(&disk, &tpm).names(), names);
        disk.tamper(name, None);
        assert_eq!(keys(&disk, &tpm).names(), names);
    }
}

// Goal: a key is introduced, vouched for and remembered as attested: after a restart, and in the
// other slot, too; another key is not.
#[test]
fn what_was_attested_is_remembered() {
    let (disk, tpm, first) = enrolled();
    let keys = keys(&disk, &tpm);
    let introduction = block_on(keys.introduction()).unwrap();
    assert_eq!(introduction.ek_public(), [0xee]);
    let evidence = block_on(keys.vouch(Slot::A, introduction, challenge())).unwrap();
    assert_eq!((evidence.attest, evidence.signature), (vec![2; 32], first.clone()));
    assert!(!keys.is_attested(&sha256(&first)));
    keys.note(Slot::A, &first, true).unwrap();
    block_on(keys.ensure(Slot::B, KeySource::Other)).unwrap();
    keys.note(Slot::B, &first, false).unwrap();
    keys.erase(Slot::A).unwrap();
    let second = ensure(&keys, Slot::A).unwrap();
    keys.note(Slot::A, &second, false).unwrap();
    let keys = self::keys(&disk, &tpm);
    assert!(keys.is_attested(&sha256(&first)));
    assert!(!keys.is_attested(&sha256(&second)));
}

// Goal: whenever the power goes, a key that was answered is there, and of its TPM; one that was not
// is whole or absent, and making it again works.
#[test]
fn a_cut_at_any_operation_leaves_a_whole_key_or_none() {
    for n in 1..OPERATIONS_MAX {
        for mood in 0..MOODS {
            let (disk, tpm) = (Rc::new(CutDisk::default()), FakeTpm::new(1, 9));
            disk.cut_at(n);
            let made = ensure(&keys(&disk, &tpm), Slot::A);
            let survived = !disk.is_off();
            disk.power_cycle(mood);
            let keys = keys(&disk, &tpm);
            match (made, keys.signer(Slot::A)) {
                (Ok(spki), found) => assert_eq!(found.unwrap().spki(), spki),
                (Err(_), Ok(_) | Err(KeyFailure::Absent { .. })) => {}
                (Err(_), Err(found)) => panic!("cut at {n}, mood {mood}: {found}"),
            }
            let spki = ensure(&keys, Slot::A).unwrap();
            assert_eq!(keys.signer(Slot::A).unwrap().spki(), spki);
            assert!(keys.names().is_some());
            if survived {
                assert!(n > 10, "only {n} operations were cut");
                return;
            }
        }
    }
    panic!("making a key takes more than {OPERATIONS_MAX} operations");
}

// Goal: the power goes while a cleared TPM gets its new anchor: the next start goes on from there.
#[test]
fn a_cut_while_a_cleared_tpm_is_anchored_anew_is_harmless() {
    for n in 1..OPERATIONS_MAX {
        for mood in 0..MOODS {
            let (disk, tpm, first) = enrolled();
            tpm.state().seed = 2;
            disk.cut_at(n);
            let made = ensure(&keys(&disk, &tpm), Slot::B).is_ok();
            let survived = !disk.is_off();
            disk.power_cycle(mood);
            let keys = keys(&disk, &tpm);
            assert!(block_on(keys.probe(Slot::A)).unwrap_err().is_loss(), "cut at {n}");
            if made {
                block_on(keys.probe(Slot::B)).unwrap();
            }
            assert_ne!(ensure(&keys, Slot::B).unwrap(), first);
            if survived {
                return;
            }
        }
    }
    panic!("anchoring takes more than {OPERATIONS_MAX} operations");
}

fn undecided(disk: &Rc<CutDisk>, tpm: &FakeTpm) -> KeyStore {
    let files = FileKeys::new(Rc::clone(disk) as Rc<dyn Disk>, Entropy::system());
    KeyStore::over(KeyBackend::Auto, files, Some(keys(disk, tpm)), Causes::default())
}

// Goal: `auto` takes a TPM that is there; files only where there is none; and decides nothing
// where there is one that cannot be used.
#[test]
fn auto_takes_a_tpm_that_is_there() {
    use fleetcert_core::port::Keys as _;
    let (disk, tpm) = (Rc::new(CutDisk::default()), FakeTpm::new(1, 9));
    let mut store = undecided(&disk, &tpm);
    tpm.state().trouble = Some(TpmTrouble::NoSlots);
    block_on(store.ensure(Slot::A, KeySource::Fresh)).unwrap_err();
    assert_eq!((store.backend(), disk.names()), (KeyBackend::Auto, Vec::new()));
    assert_eq!(store.trouble(), Some(TpmTrouble::NoSlots));
    assert!(store.status(None).is_out_of_reach());
    tpm.state().trouble = None;
    block_on(store.ensure(Slot::A, KeySource::Fresh)).unwrap();
    assert_eq!(store.backend(), KeyBackend::Tpm);
    assert_eq!(disk.names(), ["anchor.a", "anchor.b", "key.a.tpm"]);
    block_on(store.close());
    let (opened, closed) = tpm.lives();
    assert_eq!(opened, closed);

    let (disk, absent) = (Rc::new(CutDisk::default()), FakeTpm::new(1, 9));
    let address = crate::transport::Address::default();
    let reason = std::io::ErrorKind::NotFound;
    absent.state().trouble = Some(TpmTrouble::Absent { address, reason });
    let mut store = undecided(&disk, &absent);
    block_on(store.ensure(Slot::A, KeySource::Fresh)).unwrap();
    assert_eq!((store.backend(), disk.names()), (KeyBackend::Software, vec!["key.a".to_owned()]));
    assert_eq!(store.status(None), crate::status::KeyStatus::software());
    assert_eq!(store.trouble(), None);
}

// Goal: a wipe leaves nothing, and a cut within it nothing that says otherwise.
#[test]
fn a_wipe_takes_the_anchor_last() {
    let (disk, _, _) = enrolled();
    erase_keys(&*disk).unwrap();
    assert_eq!(disk.names(), ["anchor.a", "anchor.b"]);
    erase_anchor(&*disk).unwrap();
    assert_eq!(disk.names(), [""; 0]);
}

// Goal: the status tells names, state and advice; programs read back what was written.
#[test]
fn the_status_tells_the_tpm() {
    let (disk, tpm, first) = enrolled();
    let keys = keys(&disk, &tpm);
    keys.note(Slot::A, &first, true).unwrap();
    let files = FileKeys::new(Rc::clone(&disk) as Rc<dyn Disk>, Entropy::system());
    let store = KeyStore::over(KeyBackend::Tpm, files, Some(keys), Causes::default());
    let status = store.status(Some(&sha256(&first)));
    assert_eq!(status.tpm.as_ref().unwrap().state, "unknown");
    block_on(store.look(SOON));
    let status = store.status(Some(&sha256(&first)));
    let json = serde_json::to_value(&status).unwrap();
    let text = |pointer: &str| json.pointer(pointer).unwrap().to_string();
    assert_eq!(text("/backend"), "\"tpm\"");
    assert_eq!(text("/attested"), "true");
    assert_eq!(text("/ek_sha256"), format!("{:?}", "09".repeat(32)));
    assert_eq!(text("/tpm/state"), "\"ok\"");
    assert_eq!(text("/tpm/manufacturer"), "\"FAKE\"");
    assert_eq!(text("/tpm/lockout/max_tries"), "3");
    assert!(text("/ak_name").starts_with("\"000b"));
    assert_eq!(serde_json::from_value::<crate::status::KeyStatus>(json).unwrap(), status);
    assert!(status.to_string().contains("in the TPM, attested"), "{status}");
    tpm.state().failures = 2;
    block_on(store.look(SOON));
    assert_eq!(store.status(None).tpm.unwrap().lockout.unwrap().counter, 2);
    tpm.state().trouble = Some(TpmTrouble::FailureMode);
    block_on(store.look(SOON));
    let status = store.status(None);
    assert!(status.is_out_of_reach() && !status.attested);
    assert!(status.to_string().contains("to do     take the power away"), "{status}");
}
