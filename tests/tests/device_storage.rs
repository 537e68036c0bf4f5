//! The record on flash that loses its power at every octet, wears out while it does, and was written
//! by an earlier release: the long runs, on the strict model of NOR flash that the firmware's own
//! tests use (`firmware-sample/src/store/tests.rs` has a sample of each, and what else can happen).
#![expect(clippy::unwrap_used, reason = "flash that does not do as asked ends the test")]

use std::fmt::Display;
use std::ops::Range;
use std::thread;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::Failure;
use fleetcert_core::port::Storage as _;
use fleetcert_core::record::{
    CertificateBytes, Identity, RECORD_VERSION, Record, Serial, Slot, SlotState,
};
use fleetcert_core::time::{Validity, Wall};
use fleetcert_firmware::blocking::block_on;
use fleetcert_firmware::flash_model::{FlashModel, SECTOR_LEN, Wear};
use fleetcert_firmware::store::{FlashStore, SECTORS_MIN, Scratch};

/// The fewest sectors there may be, so that both rings turn often.
const LEN: u32 = SECTORS_MIN * SECTOR_LEN;

/// Entries after which both rings have turned twice: a sector holds three or four.
const TWO_TURNS: u64 = 16;

/// What is durable: the record, and the end of the numbers that are reserved for sessions.
type Durable = (Option<Record>, u64);

fn with<F: NorFlash<Error: Display>, T>(
    flash: F,
    act: impl FnOnce(&mut FlashStore<'_, F>) -> T,
) -> T {
    let mut scratch = Scratch::new();
    let end = u32::try_from(flash.capacity()).unwrap();
    act(&mut FlashStore::new(flash, 0..end, &mut scratch).unwrap())
}

fn durable<F: NorFlash<Error: Display>>(flash: F) -> Durable {
    with(flash, |store| (store.load().unwrap(), store.reserved()))
}

fn persist<F: NorFlash<Error: Display>>(flash: F, record: &Record) -> Result<(), Failure> {
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
fn write<F: NorFlash<Error: Display>>(
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

/// A write that is going to be cut off: the chip before it, and both states.
struct Moment {
    number: u64,
    flash: FlashModel,
    before: Durable,
    after: Durable,
    steps: u64,
}

/// The writes of two turns.
fn moments() -> Vec<Moment> {
    let mut flash = FlashModel::blank(LEN);
    let mut before = (None, 0);
    let moments = (0..TWO_TURNS).map(|number| {
        let mut whole = flash.clone();
        let (outcome, after) = write(&mut whole, number, &before);
        outcome.unwrap();
        let steps = whole.steps() - flash.steps();
        let flash = std::mem::replace(&mut flash, whole);
        let before = std::mem::replace(&mut before, after.clone());
        Moment { number, flash, before, after, steps }
    });
    let moments = moments.collect();
    assert!(flash.erasures() >= 2 * SECTORS_MIN, "{} erasures", flash.erasures());
    moments
}

/// Cuts the power at an octet of a write, and sometimes again in what mends it, and looks at what is
/// there then.
fn cut(moment: &Moment, at: u64) {
    let Moment { number, before, after, .. } = moment;
    let mut flash = moment.flash.clone();
    flash.cut_power_at(at, at ^ (number << 32));
    if at.is_multiple_of(2) {
        flash.hide_torn_words();
    }
    let is_done = write(&mut flash, *number, before).0.is_ok();
    assert!(flash.is_off(), "write {number} has no octet {at}");
    flash.restore_power();
    let mut again = flash.clone();
    let found = durable(&mut flash);
    assert!(found == *after || found == *before && !is_done, "write {number}, cut at {at}");
    if at.is_multiple_of(5) {
        again.cut_power_at(at * 7 % 5000, at);
        let _cut = with(&mut again, |store| store.load().is_ok());
        again.restore_power();
        assert_eq!(durable(&mut again), found, "write {number}, cut at {at}, and again");
        let (outcome, now) = write(&mut again, *number + 2, &found);
        assert_eq!((outcome, durable(&mut again)), (Ok(()), now));
    }
}

/// Goal: whichever octet of whichever operation is the last before the power goes, in two turns of
/// both rings, the device finds the old state or the new one; the new one if it was told that it is
/// durable; what it found once it finds again after a second cut; and it can go on writing.
#[test]
fn slow_every_octet_of_every_operation_may_be_the_last() {
    let moments = moments();
    let (moments, workers) = (&moments, thread::available_parallelism().map_or(2, usize::from));
    thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                let all =
                    moments.iter().flat_map(|moment| (0..moment.steps).map(move |at| (moment, at)));
                all.skip(worker).step_by(workers).for_each(|(moment, at)| cut(moment, at));
            });
        }
    });
}

/// SplitMix64: what happens next.
struct Fate(u64);

impl Fate {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A chip each sector of which endures so many erasures, and no more.
    fn chip(&mut self, sectors: Range<usize>) -> FlashModel {
        let mut flash = FlashModel::blank(LEN);
        for sector in sectors {
            let wear = match self.below(3) {
                0 => Wear::After(u32::try_from(self.below(12)).unwrap()),
                1 => Wear::Program,
                _ => Wear::Silent,
            };
            flash.wear_out(sector, wear);
        }
        flash
    }
}

/// Goal: a chip of which one sector is worn out, or wears out, and that loses its power again and
/// again, still gives back what was durable.
#[test]
fn power_cuts_on_worn_flash_lose_nothing() {
    for seed in 0..60 {
        let mut fate = Fate(seed);
        let sector = usize::try_from(fate.below(4)).unwrap();
        let mut flash = fate.chip(sector..sector + 1);
        let mut now = (None, 0);
        for number in 0..60 {
            if fate.below(2) == 0 {
                flash.cut_power_at(fate.below(7000), seed ^ number);
            }
            let (outcome, after) = write(&mut flash, number, &now);
            assert!(outcome.is_ok() || flash.is_off(), "seed {seed}, write {number}");
            flash.restore_power();
            let found = durable(&mut flash);
            let is_either = found == after || found == now && outcome.is_err();
            assert!(is_either, "seed {seed}, write {number}");
            now = found;
        }
    }
}

/// Goal: a chip that wears out altogether, sector by sector, ends with a refusal, and never with
/// another state than the last one that was durable.
#[test]
fn a_chip_that_wears_out_ends_with_a_refusal_and_the_last_state() {
    for seed in 0..40 {
        let mut flash = FlashModel::blank(LEN);
        let mut fate = Fate(seed);
        for sector in 0..4 {
            flash.wear_out(sector, Wear::After(2 + u32::try_from(fate.below(9)).unwrap()));
        }
        let (mut now, mut refused) = ((None, 0), 0);
        for number in 0..120 {
            let (outcome, after) = write(&mut flash, number, &now);
            match outcome {
                Ok(()) => now = after,
                Err(failure) => {
                    assert_eq!(failure, Failure::StorageUnavailable);
                    refused += 1;
                }
            }
            assert_eq!(durable(&mut flash), now, "seed {seed}, write {number}");
        }
        assert!(refused > 20, "seed {seed}: {refused} of 120 writes were refused");
    }
}

/// What the first release wrote for the record of `data/record-v1.bin`, and 4,711 numbers.
///
/// It is never written again, as `record-v1.bin` is not: see `record_format.rs`.
const ENTRY_VERSION_1: &[u8] = include_bytes!("../data/flash-entry-v1.bin");

const RECORD_VERSION_1: &[u8] = include_bytes!("../data/record-v1.bin");

// Goal: what the first release wrote to flash is read, whole and right, from either half.
#[test]
fn an_entry_of_version_1_is_found() {
    let meant = (Some(Record::parse(RECORD_VERSION_1).unwrap()), 4711);
    let half = usize::try_from(LEN / 2).unwrap();
    for at in [0, usize::try_from(SECTOR_LEN).unwrap(), half] {
        let mut content = vec![0xff; 2 * half];
        content[at..at + ENTRY_VERSION_1.len()].copy_from_slice(ENTRY_VERSION_1);
        let mut flash = FlashModel::holding(&content);
        assert_eq!(durable(&mut flash), meant, "at {at}");
        // And it is there twice then.
        content[at..at + ENTRY_VERSION_1.len()].fill(0xff);
        let copy = &flash.octets()[if at < half { half } else { 0 }..];
        assert!(copy.starts_with(ENTRY_VERSION_1));
    }
}

// Goal: while version 1 is what we write, not an octet of it has moved.
#[test]
fn an_entry_is_written_as_the_first_release_wrote_it() {
    assert_eq!(RECORD_VERSION, 1, "a new version has a new file beside the old one");
    let mut flash = FlashModel::blank(LEN);
    with(&mut flash, |store| store.reserve(4711)).unwrap();
    persist(&mut flash, &Record::parse(RECORD_VERSION_1).unwrap()).unwrap();
    // The first entry reserves numbers and has no record.
    for half in [0, usize::try_from(LEN / 2).unwrap()] {
        assert!(flash.octets()[half + 32..].starts_with(ENTRY_VERSION_1));
    }
}
