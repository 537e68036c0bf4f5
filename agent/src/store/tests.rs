use fleetcert_core::time::Wall;
use smol::future::block_on;

use super::*;
use crate::disk::cut::{CutDisk, MOODS};
use crate::keystore::KEY_FILES;

/// More operations than any scenario here has; the loops end by themselves before.
const OPERATIONS_MAX: usize = 100;

fn record(generation: u64) -> Record {
    Record { generation, ..Record::new(Wall(1_800_000_000)) }
}

fn store(disk: &Rc<CutDisk>) -> Store {
    Store::new(Rc::clone(disk) as Rc<dyn Disk>, Causes::default())
}

fn generation(loaded: Result<Option<Record>, LoadError>) -> u64 {
    loaded.unwrap().map_or(0, |record| record.generation)
}

/// Writes generations 1, 2, 3 until the disk fails; the last one that was acknowledged.
fn write_three(store: &Store) -> u64 {
    let mut acknowledged = 0;
    for generation in 1..=3 {
        if store.write(&record(generation)).is_err() {
            break;
        }
        acknowledged = generation;
    }
    acknowledged
}

// Goal: wherever the power goes, the record found is the last acknowledged one or the one that was
// being written, never an older one and never damage.
#[test]
fn a_cut_at_any_operation_leaves_the_old_record_or_the_new_one() {
    for n in 1..OPERATIONS_MAX {
        for mood in 0..MOODS {
            let disk = Rc::new(CutDisk::default());
            disk.cut_at(n);
            let acknowledged = write_three(&store(&disk));
            if !disk.is_off() {
                assert_eq!(acknowledged, 3);
                assert!(n > 24, "no cut fired at {n}");
                return;
            }
            disk.power_cycle(mood);
            let found = generation(store(&disk).load());
            assert!(
                found == acknowledged || found == acknowledged + 1,
                "cut at {n}, mood {mood}: acknowledged {acknowledged}, found {found}"
            );
        }
    }
    panic!("the scenario has more than {OPERATIONS_MAX} operations");
}

// Goal: what loading has returned was acted upon; no second cut, during the healing or after it,
// takes it back.
#[test]
fn a_cut_during_the_healing_does_not_take_back_what_was_found() {
    for n in 1..OPERATIONS_MAX {
        let disk = Rc::new(CutDisk::default());
        disk.cut_at(n);
        let acknowledged = write_three(&store(&disk));
        if !disk.is_off() {
            return;
        }
        for mood in 0..MOODS {
            for second in 1..OPERATIONS_MAX {
                let disk = Rc::new((*disk).clone());
                disk.power_cycle(mood);
                disk.cut_at(second);
                let found = store(&disk).load();
                let healed = !disk.is_off();
                let licensed = if healed { generation(found) } else { acknowledged };
                disk.power_cycle(mood + 1);
                let again = generation(store(&disk).load());
                assert!(again >= licensed, "cuts at {n} and {second}, mood {mood}");
                if healed {
                    break;
                }
            }
        }
    }
}

// Goal: a killed process leaves unsynced files that the next one can read; once loaded, a power
// cut must not take them back.
#[test]
fn what_a_killed_process_left_unsynced_is_made_durable_by_loading() {
    for n in 1..OPERATIONS_MAX {
        for mood in 0..MOODS {
            let disk = Rc::new(CutDisk::default());
            store(&disk).write(&record(1)).unwrap();
            // The write stops here, as if the process were killed; the power stays on.
            disk.fail_at(n);
            if store(&disk).write(&record(2)).is_ok() {
                return;
            }
            let found = generation(store(&disk).load());
            disk.power_cycle(mood);
            assert_eq!(generation(store(&disk).load()), found, "killed at {n}, mood {mood}");
        }
    }
    panic!("the scenario has more than {OPERATIONS_MAX} operations");
}

// Goal: a full disk is a failure that passes: afterwards writing succeeds and holds.
#[test]
fn a_full_disk_fails_the_write_and_the_next_one_succeeds() {
    for n in 1..OPERATIONS_MAX {
        let disk = Rc::new(CutDisk::default());
        let mut store = store(&disk);
        store.write(&record(1)).unwrap();
        disk.fail_at(n);
        match block_on(store.persist(&record(2))) {
            Ok(()) => return,
            Err(failure) => assert_eq!(failure, Failure::StorageUnavailable),
        }
        let cause = store.causes.take().unwrap();
        assert!(cause.contains("/state/record."), "{cause}");
        assert!((1..=2).contains(&generation(store.peek())));
        store.write(&record(3)).unwrap();
        disk.power_cycle(n as u64);
        assert_eq!(generation(store.load()), 3);
    }
    panic!("the scenario has more than {OPERATIONS_MAX} operations");
}

// Goal: one copy may be damaged at any octet, cut short, emptied or lost: the record stays, and
// the damaged copy is healed before anything can act on it.
#[test]
fn a_single_damaged_copy_loses_nothing_and_is_healed() {
    for name in COPIES {
        let disk = Rc::new(CutDisk::default());
        store(&disk).write(&record(7)).unwrap();
        let whole = disk.content(name).unwrap();
        let flipped = (0..whole.len()).map(|at| {
            let mut octets = whole.clone();
            octets[at] ^= 1;
            Some(octets)
        });
        let cut = (0..whole.len()).map(|len| Some(whole[..len].to_vec()));
        for damage in flipped.chain(cut).chain([None]) {
            disk.tamper(name, damage.as_deref());
            assert_eq!(generation(store(&disk).load()), 7);
            assert_eq!(disk.content(name).unwrap(), whole);
        }
    }
}

// Goal: looking on changes nothing.
#[test]
fn peeking_neither_heals_nor_writes() {
    let disk = Rc::new(CutDisk::default());
    assert_eq!(store(&disk).peek().unwrap(), None);
    store(&disk).write(&record(1)).unwrap();
    disk.tamper("record.a", Some(b"damage"));
    let before = disk.operations();
    assert_eq!(generation(store(&disk).peek()), 1);
    assert_eq!(disk.operations(), before);
}

// Goal: the higher generation wins, wherever it is.
#[test]
fn of_two_valid_copies_the_higher_generation_holds() {
    for (name, lower) in [("record.a", "record.b"), ("record.b", "record.a")] {
        let disk = Rc::new(CutDisk::default());
        let store = store(&disk);
        store.replace(lower, &record(4)).unwrap();
        store.replace(name, &record(5)).unwrap();
        assert_eq!(generation(store.load()), 5);
        assert_eq!(disk.content(lower), disk.content(name));
    }
}

// Goal: damage is never a first boot, for then every key would be erased.
#[test]
fn two_unreadable_copies_are_told_apart_from_a_first_boot() {
    let disk = Rc::new(CutDisk::default());
    assert!(store(&disk).load().unwrap().is_none());
    disk.tamper("record.a", Some(b"damage"));
    let error = store(&disk).load().unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Unreadable {
                a: CopyFault::Damaged(RecordError::Malformed),
                b: CopyFault::Absent,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("record.a: not a record"), "{error}");
    disk.tamper("record.b", Some(b""));
    assert!(matches!(store(&disk).load(), Err(LoadError::Unreadable { .. })));
    assert_eq!(disk.content("record.a").unwrap(), b"damage");
}

// Goal: somebody who removed the records does not lose the keys, too.
#[test]
fn a_key_without_a_record_is_no_first_boot() {
    for name in KEY_FILES {
        let disk = Rc::new(CutDisk::default());
        disk.tamper(name, Some(b"key"));
        let error = store(&disk).load().unwrap_err();
        assert!(matches!(error, LoadError::KeyWithoutRecord { .. }), "{error}");
        assert!(disk.content(name).is_some());
    }
}

// Goal: after a downgrade nothing is overwritten and the message says which release is needed.
#[test]
fn a_record_of_a_later_version_stops_the_agent_and_is_left_alone() {
    for name in COPIES {
        let disk = Rc::new(CutDisk::default());
        store(&disk).write(&record(9)).unwrap();
        let later = of_version(&disk.content(name).unwrap(), RECORD_VERSION + 1);
        disk.tamper(name, Some(&later));
        let error = store(&disk).load().unwrap_err();
        assert!(
            matches!(&error, LoadError::Later { path, found }
                if path.ends_with(name) && *found == RECORD_VERSION + 1),
            "{error}"
        );
        assert_eq!(disk.content(name).unwrap(), later);
    }
}

/// The same record with another version and a checksum that fits (CRC-32/ISO-HDLC, bit by bit).
fn of_version(octets: &[u8], version: u8) -> Vec<u8> {
    let mut body = octets[..octets.len() - 4].to_vec();
    body[4] = version;
    let mut crc = u32::MAX;
    for octet in &body {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    body.extend((!crc).to_le_bytes());
    body
}

// Goal: after erasing, nothing of the record is found, whatever happens to the power.
#[test]
fn an_erased_record_stays_erased() {
    for mood in 0..MOODS {
        let disk = Rc::new(CutDisk::default());
        store(&disk).write(&record(1)).unwrap();
        store(&disk).erase().unwrap();
        disk.power_cycle(mood);
        assert!(store(&disk).load().unwrap().is_none());
    }
}
