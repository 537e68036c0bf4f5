//! What a device finds after anything that can happen to flash. A sample of each here; all of it is
//! in `tests/tests/device_storage.rs`.

use core::cell::Cell;
use std::string::ToString;
use std::vec::Vec;

use fleetcert_core::record::{CertificateBytes, Identity, RECORD_LEN_MAX, Serial, Slot, SlotState};
use fleetcert_core::time::{Validity, Wall};

use super::*;
use crate::blocking::block_on;
use crate::flash_model::{FlashModel, ModelFault, NorModel, SECTOR_LEN, Wear};

/// The fewest sectors there may be, so that the rings turn often.
const LEN: u32 = SECTORS_MIN * SECTOR_LEN;

/// Entries after which both rings have turned twice and more: a sector holds three or four.
const TWO_TURNS: u64 = 20;

/// What is durable: the record, and the end of the numbers that are reserved.
type Durable = (Option<Record>, u64);

fn with<F: NorFlash<Error: fmt::Display>, T>(
    flash: F,
    act: impl FnOnce(&mut FlashStore<'_, F>) -> T,
) -> T {
    let mut scratch = Scratch::new();
    let end = u32::try_from(flash.capacity()).unwrap();
    act(&mut FlashStore::new(flash, 0..end, &mut scratch).unwrap())
}

fn durable<F: NorFlash<Error: fmt::Display>>(flash: F) -> Durable {
    with(flash, |store| (store.load().unwrap(), store.reserved()))
}

fn why_not<F: NorFlash<Error: fmt::Display>>(flash: F) -> std::string::String {
    with(flash, |store| store.load().unwrap_err().to_string())
}

fn persist<F: NorFlash<Error: fmt::Display>>(flash: F, record: &Record) -> Result<(), Failure> {
    with(flash, |store| block_on(store.persist(record)))
}

/// A record with a certificate; each number has one of another length.
fn record(number: u64) -> Record {
    let len = usize::try_from(700 + number * 61 % 400).unwrap();
    let identity = Identity {
        serial: Serial::from_slice(&number.to_be_bytes()).unwrap(),
        validity: Validity { not_before: Wall(number), not_after: Wall(number + 1) },
        spki_sha256: [7; 32],
        certificate: CertificateBytes::from_slice(&[0x30; 1280][..len]).unwrap(),
    };
    Record {
        generation: number,
        active: Some(Slot::A),
        slots: [SlotState::Certified(identity), SlotState::Empty],
        ..Record::new(Wall(number))
    }
}

/// The write of this number, as a device mixes them, and what is durable after it.
fn write<F: NorFlash<Error: fmt::Display>>(
    flash: F,
    number: u64,
    before: &Durable,
) -> (Result<(), Failure>, Durable) {
    if number % 4 == 3 {
        (with(flash, |store| store.reserve(number)), (before.0.clone(), number))
    } else {
        (persist(flash, &record(number)), (Some(record(number)), before.1))
    }
}

/// A chip on which so many writes were done.
fn written(writes: u64) -> (FlashModel, Durable) {
    let mut flash = FlashModel::blank(LEN);
    let mut now = (None, 0);
    for number in 0..writes {
        let (outcome, after) = write(&mut flash, number, &now);
        outcome.unwrap();
        now = after;
    }
    (flash, now)
}

/// Goal: a blank device has no record; the last one and the last number are found after a restart,
/// neither displaces the other, and all sectors are used alike.
#[test]
fn what_was_written_last_is_found_again() {
    let mut flash = FlashModel::blank(LEN);
    assert_eq!(durable(&mut flash), (None, 0));
    let mut now = (None, 0);
    for number in 0..300 {
        let (outcome, after) = write(&mut flash, number, &now);
        outcome.unwrap();
        assert_eq!(durable(&mut flash), after, "write {number}");
        now = after;
    }
    assert!((140..200).contains(&flash.erasures()), "{} erasures", flash.erasures());
}

#[test]
fn numbers_can_be_reserved_before_there_is_a_record() {
    let mut flash = FlashModel::blank(LEN);
    with(&mut flash, |store| store.reserve(256).unwrap());
    assert_eq!(durable(&mut flash), (None, 256));
    persist(&mut flash, &record(1)).unwrap();
    assert_eq!(durable(&mut flash), (Some(record(1)), 256));
}

#[test]
fn the_longest_record_fits_and_wide_words_do() {
    let full = CertificateBytes::from_slice(&[0x5a; 1280]).unwrap();
    let identity = Identity {
        serial: Serial::from_slice(&[0xff; 20]).unwrap(),
        validity: Validity { not_before: Wall(u64::MAX - 1), not_after: Wall(u64::MAX) },
        spki_sha256: [0xff; 32],
        certificate: full,
    };
    let slot = || SlotState::Certified(identity.clone());
    let longest =
        Record { slots: [slot(), slot()], active: Some(Slot::B), ..record(u64::from(u32::MAX)) };
    let mut flash = NorModel::<4096, 32>::blank(LEN);
    for _ in 0..9 {
        persist(&mut flash, &longest).unwrap();
        assert_eq!(durable(&mut flash), (Some(longest.clone()), 0));
    }
    assert!(longest.emit(&mut [0; RECORD_LEN_MAX]).unwrap().len() > 2600);
}

/// Every head on a chip, of torn entries and of old ones in sectors whose erasure was cut off, too.
fn heads(flash: &FlashModel) -> Vec<Head> {
    let windows = flash.octets().windows(HEAD_LEN).step_by(4);
    windows.filter_map(|octets| Head::parse(octets.try_into().unwrap())).collect()
}

/// Goal: a number means one entry: what was cut off does not share it with what was written later.
fn check_numbers(flash: &FlashModel) {
    let heads = heads(flash);
    for head in &heads {
        let mut same = heads.iter().filter(|other| other.number == head.number);
        assert!(same.all(|other| other == head), "two entries of number {}", head.number);
    }
}

/// Goal: what a device has found it has twice, whatever else the halves hold: either may rot.
fn check_copies(flash: &FlashModel, found: &Durable) {
    let half = usize::try_from(LEN / 2).unwrap();
    for lost in [0..half, half..2 * half] {
        let mut rotten = flash.clone();
        lost.for_each(|offset| rotten.rot(offset, 0x01));
        if found.0.is_some() {
            assert_eq!(durable(rotten), *found);
        }
    }
}

/// Goal: wherever the power is cut, the device finds the old state or the new one, and finds it again
/// after a second cut while it repairs what the first has left; when the write said that it was
/// done, the new one. On a chip that hides torn words, too.
#[test]
fn a_power_cut_leaves_the_old_state_or_the_new() {
    let (mut flash, mut now) = written(0);
    let mut cuts = 0;
    for number in 0..TWO_TURNS {
        let mut whole = flash.clone();
        let (outcome, after) = write(&mut whole, number, &now);
        outcome.unwrap();
        // A prime, so that it falls on each octet of a word.
        for cut in (0..whole.steps() - flash.steps()).step_by(211) {
            let mut copy = flash.clone();
            copy.cut_power_at(cut, number ^ cut);
            if cut % 2 == 0 {
                copy.hide_torn_words();
            }
            let is_done = write(&mut copy, number, &now).0.is_ok();
            copy.restore_power();
            let mut twice = copy.clone();
            let found = durable(&mut copy);
            assert!(found == after || found == now && !is_done, "write {number} cut at {cut}");
            check_copies(&copy, &found);
            twice.cut_power_at(cut / 3, cut);
            let _cut = with(&mut twice, |store| store.load().is_ok());
            twice.restore_power();
            assert_eq!(durable(&mut twice), found, "write {number} cut at {cut}, then again");
            // Something else is written, as by a device that comes back and decides anew.
            let (outcome, again) = write(&mut twice, number + 2, &found);
            assert_eq!((outcome, durable(&mut twice)), (Ok(()), again));
            check_numbers(&twice);
            cuts += 1;
        }
        (flash, now) = (whole, after);
    }
    assert!(cuts > 300 && flash.erasures() > 8, "{cuts} cuts, {} erasures", flash.erasures());
}

/// Goal: a sector that is worn out, in whatever way, costs a device nothing.
#[test]
fn a_worn_sector_is_passed_over() {
    for wear in [Wear::Erase, Wear::Program, Wear::Silent, Wear::After(1)] {
        for sector in 0..4 {
            let (mut flash, mut now) = written(3);
            flash.wear_out(sector, wear);
            for number in 3..2 * TWO_TURNS {
                let (outcome, after) = write(&mut flash, number, &now);
                assert_eq!(outcome, Ok(()), "{wear:?} {sector}, write {number}");
                assert_eq!(durable(&mut flash), after, "{wear:?} {sector}, write {number}");
                now = after;
            }
        }
    }
}

/// Goal: a half that is worn out altogether costs a device nothing, either, wherever the power is cut
/// in the other one.
#[test]
fn a_worn_half_is_given_up() {
    for wear in [Wear::Erase, Wear::Program, Wear::Silent] {
        for sectors in [0..2, 2..4] {
            let (mut flash, mut now) = written(3);
            sectors.clone().for_each(|sector| flash.wear_out(sector, wear));
            for number in 3..TWO_TURNS {
                for seed in 0..20 {
                    let mut copy = flash.clone();
                    copy.cut_power_at(seed * 397, number ^ seed);
                    let (outcome, after) = write(&mut copy, number, &now);
                    copy.restore_power();
                    let found = durable(&mut copy);
                    assert!(
                        found == after || found == now && outcome.is_err(),
                        "{wear:?} {sectors:?}"
                    );
                }
                let (outcome, after) = write(&mut flash, number, &now);
                assert_eq!((outcome, durable(&mut flash)), (Ok(()), after.clone()), "{wear:?}");
                now = after;
            }
        }
    }
}

/// Goal: flash that is worn out altogether refuses what is new and keeps what is old.
#[test]
fn worn_out_flash_refuses_and_keeps_the_last_state() {
    for wear in [Wear::Erase, Wear::Program, Wear::Silent] {
        let (mut flash, mut now) = written(TWO_TURNS);
        (0..4).for_each(|sector| flash.wear_out(sector, wear));
        let mut refused = 0;
        for number in TWO_TURNS..2 * TWO_TURNS {
            let (outcome, after) = write(&mut flash, number, &now);
            match outcome {
                Ok(()) => now = after,
                Err(failure) => {
                    assert_eq!(failure, Failure::StorageUnavailable);
                    refused += 1;
                }
            }
            assert_eq!(durable(&mut flash), now, "{wear:?}, write {number}");
        }
        assert!(refused > 10, "{wear:?}: {refused}");
    }
}

/// Goal: a device that cannot write both copies of its first record has none: nothing that was
/// answered rests on flash that was broken from the beginning.
#[test]
fn flash_that_is_broken_from_the_beginning_holds_no_record() {
    let mut flash = FlashModel::blank(LEN);
    [0, 1].into_iter().for_each(|sector| flash.wear_out(sector, Wear::Program));
    assert_eq!(persist(&mut flash, &record(1)), Err(Failure::StorageUnavailable));
    assert_eq!(durable(&mut flash), (None, 0));
}

/// Goal: one copy may rot anywhere: nothing is lost, and the next start mends it.
#[test]
fn a_copy_that_rots_is_replaced_by_the_other() {
    let (flash, now) = written(TWO_TURNS);
    let half = usize::try_from(LEN / 2).unwrap();
    for copy in [0..half, half..2 * half] {
        for offset in copy.clone().step_by(7) {
            let mut rotten = flash.clone();
            rotten.rot(offset, 0x10);
            assert_eq!(durable(&mut rotten), now, "at {offset}");
        }
        // All of it, and then all of the other one.
        let mut rotten = flash.clone();
        copy.clone().for_each(|offset| rotten.rot(offset, 0x01));
        assert_eq!(durable(&mut rotten), now);
        (0..2 * half).filter(|at| !copy.contains(at)).for_each(|at| rotten.rot(at, 0x80));
        assert_eq!(durable(&mut rotten), now);
    }
}

/// Goal: when both copies of the last entry rot, an older one is not taken for it, and nothing is
/// written over what may still be of use to somebody.
#[test]
fn two_rotten_copies_are_an_error_and_stay() {
    let (flash, _) = written(TWO_TURNS);
    let newest = HALVES.map(|half| Logs::new(flash.clone(), 0..LEN).unwrap().survey(half).newest);
    let mut rotten = flash.clone();
    for place in newest {
        let record = usize::try_from(place.unwrap().at).unwrap() + HEAD_LEN;
        rotten.rot(record + 100, 0x04);
    }
    let before = rotten.octets().to_vec();
    assert!(matches!(with(&mut rotten, |store| store.load()), Err(LoadError::Damaged)));
    assert!(why_not(&mut rotten).contains("record.damaged"));
    assert_eq!(persist(&mut rotten, &record(1)), Err(Failure::StorageUnavailable));
    assert_eq!(with(&mut rotten, |store| store.reserve(1)), Err(Failure::StorageUnavailable));
    assert_eq!(with(&mut rotten, |store| store.reserved()), 0);
    assert_eq!(rotten.octets(), before);
}

/// Goal: nor is an older one when, besides, the power was cut while the next entry was begun, wherever
/// that was: a head without its record is no newer state.
#[test]
fn two_rotten_copies_are_an_error_with_a_torn_entry_behind_them() {
    let mut torn = 0;
    for writes in 4..TWO_TURNS {
        let (flash, now) = written(writes);
        for cut in (0..6_000).step_by(97) {
            let mut rotten = flash.clone();
            let newest = HALVES.map(|half| Logs::new(&mut rotten, 0..LEN).unwrap().survey(half));
            rotten.cut_power_at(cut, cut);
            let is_cut = write(&mut rotten, writes, &now).0.is_err();
            rotten.restore_power();
            let found = HALVES.map(|half| Logs::new(&mut rotten, 0..LEN).unwrap().survey(half));
            let same = |half: usize| {
                let number = |found: &Found| found.newest.map(|place| place.head.number);
                number(&found[half]) == number(&newest[half])
            };
            if !is_cut || !same(0) || !same(1) {
                continue;
            }
            torn += u32::from(found[0].claimed > newest[0].claimed);
            for place in newest.map(|found| found.newest.unwrap()) {
                rotten.rot(usize::try_from(place.at).unwrap() + HEAD_LEN + 100, 0x04);
            }
            let found = with(&mut rotten, |store| store.load());
            assert!(matches!(found, Err(LoadError::Damaged)), "{writes} cut at {cut}: {found:?}");
        }
    }
    assert!(torn > 50, "{torn} entries with a head");
}

/// Goal: flash full of something else is no device that never had a record, and is left as it is.
#[test]
fn flash_that_holds_something_else_is_refused() {
    let len = usize::try_from(LEN).unwrap();
    for octet in [0, 0x5a, 0xfe] {
        let mut flash = FlashModel::holding(&std::vec![octet; len]);
        assert!(why_not(&mut flash).contains("record.foreign"));
        assert_eq!(persist(&mut flash, &record(1)), Err(Failure::StorageUnavailable));
        assert_eq!(flash.octets(), std::vec![octet; len]);
    }
    // What a cut leaves of the very first write is no reason to refuse.
    let mut flash =
        FlashModel::holding(&[std::vec![0x5a; len / 2], std::vec![0xff; len / 2]].concat());
    assert_eq!(durable(&mut flash), (None, 0));
    assert_eq!(persist(&mut flash, &record(1)), Ok(()));
    assert_eq!(durable(&mut flash), (Some(record(1)), 0));
}

/// Goal: what a later release has written is refused by its version, and not written over.
#[test]
fn a_record_of_a_later_version_is_refused_and_kept() {
    let (mut flash, _) = written(5);
    let place = Logs::new(&mut flash, 0..LEN).unwrap().survey(0).newest.unwrap();
    let head = Head { version: RECORD_VERSION + 1, number: place.head.number + 1, ..place.head };
    let mut logs = Logs::new(&mut flash, 0..LEN).unwrap();
    let mut entry = [0xff; ENTRY_LEN_MAX];
    assert!(logs.read_record(&place, &mut entry[HEAD_LEN..]));
    entry[..HEAD_LEN].copy_from_slice(&head.emit());
    let found = logs.survey(0);
    assert!(logs.append(0, &found, &entry[..head.entry_len(4)]));
    let before = flash.octets().to_vec();
    let later = RecordError::Version { found: RECORD_VERSION + 1 };
    let refused = with(&mut flash, |store| store.load());
    assert!(matches!(refused, Err(LoadError::Record(error)) if error == later));
    assert_eq!(persist(&mut flash, &record(9)), Err(Failure::StorageUnavailable));
    assert_eq!(with(&mut flash, |store| store.reserve(9)), Err(Failure::StorageUnavailable));
    assert_eq!(flash.octets(), before);
}

/// Goal: an entry with the last number there is, which nobody but a forger gives, is refused when
/// something is to be written behind it, and stays.
#[test]
fn numbers_that_are_used_up_are_refused() {
    for number in [u64::MAX, u64::MAX - 1] {
        let mut flash = FlashModel::blank(LEN);
        let mut logs = Logs::new(&mut flash, 0..LEN).unwrap();
        let entry = Head::new(number, 7, &[]).emit();
        for half in HALVES {
            let found = logs.survey(half);
            assert!(logs.append(half, &found, &entry));
        }
        let outcome = persist(&mut flash, &record(1));
        let is_last = number == u64::MAX;
        assert_eq!(outcome.is_err(), is_last, "{number}");
        let expected = (!is_last).then(|| record(1));
        assert_eq!(durable(&mut flash), (expected, 7), "{number}");
    }
}

/// Goal: an entry that is whole and holds no record is an error, and neither copy is touched.
#[test]
fn an_entry_that_is_no_record_is_refused_and_kept() {
    let mut flash = FlashModel::blank(LEN);
    let content = b"no record";
    let mut entry = Vec::from(Head::new(1, 0, content).emit());
    entry.extend(content);
    entry.resize(44, 0xff);
    let mut logs = Logs::new(&mut flash, 0..LEN).unwrap();
    let found = logs.survey(0);
    assert!(logs.append(0, &found, &entry));
    let before = flash.octets().to_vec();
    assert_eq!(why_not(&mut flash), "record.malformed");
    assert_eq!(flash.octets(), before);
}

#[test]
fn a_chip_that_cannot_be_read_is_an_error() {
    let (mut flash, _) = written(2);
    flash.cut_power_at(0, 0);
    assert_eq!(persist(&mut flash, &record(1)), Err(Failure::StorageUnavailable));
    let found = with(&mut flash, |store| store.load());
    assert!(matches!(found, Err(LoadError::Flash(ModelFault::PowerCut))), "{found:?}");
}

#[test]
fn a_range_that_does_not_fit_is_refused() {
    let refused = |range: Range<u32>| {
        FlashStore::new(FlashModel::blank(LEN), range, &mut Scratch::new()).unwrap_err()
    };
    let capacity = usize::try_from(LEN).unwrap();
    for (start, end) in [(1, LEN), (0, LEN - 1), (0, LEN + SECTOR_LEN), (LEN, 0)] {
        assert_eq!(refused(start..end), LayoutError::Range { start, end, capacity });
    }
    assert_eq!(refused(0..LEN - SECTOR_LEN), LayoutError::Sectors { found: SECTORS_MIN - 1 });
    let small = FlashStore::new(NorModel::<2048, 4>::blank(LEN), 0..LEN, &mut Scratch::new()).err();
    assert_eq!(small, Some(LayoutError::Sector { found: 2048, min: ENTRY_LEN_MAX }));
    let wide = FlashStore::new(NorModel::<4096, 64>::blank(LEN), 0..LEN, &mut Scratch::new()).err();
    assert_eq!(wide, Some(LayoutError::Word { found: 64 }));
    let texts =
        [refused(1..LEN), refused(0..0), small.unwrap(), wide.unwrap()].map(|e| e.to_string());
    assert_eq!(texts, ["record.range", "record.sectors", "record.sector", "record.word"]);
}

/// Goal: a head with any bit changed is none.
#[test]
fn a_head_is_read_back_and_no_other_octets_are_one() {
    let head = Head::new(0x0102_0304_0506_0708, 256, b"record");
    let octets = head.emit();
    assert_eq!(Head::parse(&octets), Some(head));
    assert_eq!(head.entry_len(4), HEAD_LEN + 8);
    assert_eq!(octets[..4], [b'F', b'C', b'L', RECORD_VERSION]);
    for bit in 0..8 * HEAD_LEN {
        let mut other = octets;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Head::parse(&other), None, "bit {bit}");
    }
    let endless = Head { record_len: u32::MAX, ..head };
    assert!(endless.entry_len(4) > 0x1_0000);
}

/// Goal: the numbers of sessions grow over restarts and power cuts, with flash behind them.
#[test]
fn session_numbers_grow_over_power_cuts() {
    let mut flash = FlashModel::blank(LEN);
    let last = Cell::new(0);
    for cut in 0..200 {
        flash.cut_power_at(cut * 997 % 12_000, cut);
        with(&mut flash, |store| {
            let mut generations = Generations::new(store.reserved());
            let number = generations.next(|end| store.reserve(end));
            // A device without power reaches no broker.
            if !store.logs.fault.is_some_and(|fault| fault == ModelFault::PowerCut) {
                assert!(number > last.get(), "{number} after {}", last.get());
                last.set(number);
            }
        });
        flash.restore_power();
    }
    assert!(last.get() > 10_000, "{}", last.get());
}
