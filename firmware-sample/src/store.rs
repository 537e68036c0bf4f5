//! The record on NOR flash, and beside it how many numbers of sessions are reserved.
//!
//! `sequential-storage` appends each version to a ring of sectors and finds the newest whole one;
//! sectors are erased only when everything in them has newer copies. The record carries its own
//! checksum, too. What a write that was cut short leaves behind is therefore never taken for a
//! record, and the version before it is still there.

mod generations;

use core::fmt;
use core::ops::Range;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::Failure;
use fleetcert_core::port::Storage;
use fleetcert_core::record::{RECORD_LEN_MAX, Record, RecordError};
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapConfigError, MapStorage};

use crate::blocking::block_on;

pub use self::generations::{GENERATION_MAX, Generations};

/// The record's key in the map.
const RECORD_KEY: u8 = 1;

/// The key of the end of the numbers that are reserved for sessions.
const RESERVED_KEY: u8 = 2;

/// A record, the map's key before it, and padding to the widest word of any flash.
const ITEM_LEN_MAX: usize = RECORD_LEN_MAX + 1 + 32;

type Map<F> = MapStorage<u8, F, Cache<Uncached, Uncached, Uncached, u8>>;

/// The record in a range of flash, at least two sectors that each hold a whole record.
pub struct FlashStore<'s, F: NorFlash> {
    map: Map<F>,
    scratch: &'s mut Scratch,
}

/// The memory that records pass through on their way to flash and back.
pub struct Scratch {
    item: [u8; ITEM_LEN_MAX],
    record: [u8; RECORD_LEN_MAX],
}

/// Why no record could be loaded.
#[derive(Debug)]
pub enum LoadError<E> {
    /// The flash did not do as asked, or holds something else than records.
    Flash(sequential_storage::Error<E>),
    /// A whole item is there that is no record of ours.
    Record(RecordError),
}

impl<'s, F: NorFlash> FlashStore<'s, F> {
    /// A store in `range` of `flash`, octet addresses.
    ///
    /// # Errors
    ///
    /// When the range is not made of whole sectors, or of fewer than two.
    pub fn new(
        flash: F,
        range: Range<u32>,
        scratch: &'s mut Scratch,
    ) -> Result<Self, MapConfigError> {
        let map = Map::new(flash, MapConfig::try_new(range)?, Cache::new_uncached());
        Ok(Self { map, scratch })
    }

    /// The newest durable record; `None` on a device that never had one.
    ///
    /// # Errors
    ///
    /// [`LoadError`]. A device must not take it for "never had one": it would enroll anew and lose
    /// an identity that may still be there.
    pub async fn load(&mut self) -> Result<Option<Record>, LoadError<F::Error>> {
        let found: Option<&[u8]> = self
            .map
            .fetch_item(&mut self.scratch.item, &RECORD_KEY)
            .await
            .map_err(LoadError::Flash)?;
        found.map(Record::parse).transpose().map_err(LoadError::Record)
    }

    /// The last number that is reserved for sessions, for [`Generations::new`]; 0 where there is
    /// none, or none that can be read.
    pub fn reserved(&mut self) -> u64 {
        let found = block_on(self.map.fetch_item::<u64>(&mut self.scratch.item, &RESERVED_KEY));
        found.ok().flatten().unwrap_or(0)
    }

    /// Makes `end` the last number that is reserved, durably: for [`Generations::next`].
    ///
    /// # Errors
    ///
    /// [`Failure::StorageUnavailable`]; the old number or the new one is reserved then.
    pub fn reserve(&mut self, end: u64) -> Result<(), Failure> {
        block_on(self.map.store_item(&mut self.scratch.item, &RESERVED_KEY, &end))
            .map_err(|_| Failure::StorageUnavailable)
    }
}

impl Scratch {
    /// Memory for one store.
    #[must_use]
    pub const fn new() -> Self {
        Self { item: [0; ITEM_LEN_MAX], record: [0; RECORD_LEN_MAX] }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl<F: NorFlash> Storage for FlashStore<'_, F> {
    async fn persist(&mut self, record: &Record) -> Result<(), Failure> {
        let octets =
            record.emit(&mut self.scratch.record).map_err(|_| Failure::StorageUnavailable)?;
        self.map
            .store_item(&mut self.scratch.item, &RECORD_KEY, &octets)
            .await
            .map_err(|_| Failure::StorageUnavailable)
    }
}

impl<F: NorFlash> fmt::Debug for FlashStore<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashStore").field("range", &self.map.flash_range()).finish_non_exhaustive()
    }
}

impl<E: fmt::Debug> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "flash holds no readable records: {error:?}"),
            Self::Record(error) => write!(f, "flash holds an item that is no record: {error}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for LoadError<E> {}

#[cfg(test)]
mod tests {
    use fleetcert_core::time::Wall;

    use super::*;
    use crate::flash_model::{FlashModel, SECTOR_LEN};

    /// The fewest sectors there may be, so that the ring turns often.
    const RANGE: Range<u32> = 0..2 * SECTOR_LEN;

    fn store(flash: &mut FlashModel) -> FlashStore<'static, &mut FlashModel> {
        FlashStore::new(flash, RANGE, std::boxed::Box::leak(std::boxed::Box::default())).unwrap()
    }

    fn record(number: u64) -> Record {
        Record::new(Wall(number))
    }

    fn load(flash: &mut FlashModel) -> Option<Record> {
        block_on(store(flash).load()).unwrap()
    }

    /// Goal: a blank device has no record, and the last one persisted is found after a restart.
    #[test]
    fn the_last_record_is_found_again() {
        let mut flash = FlashModel::blank(RANGE.end);
        assert_eq!(load(&mut flash), None);
        for number in 0..500 {
            block_on(store(&mut flash).persist(&record(number))).unwrap();
            assert_eq!(load(&mut flash), Some(record(number)));
        }
    }

    /// Goal: what is reserved outlives the device's power, and neither it nor the record is lost
    /// when the other is written as often as it takes to go round the ring.
    #[test]
    fn the_record_and_the_reserved_numbers_do_not_displace_each_other() {
        let mut flash = FlashModel::blank(RANGE.end);
        assert_eq!(store(&mut flash).reserved(), 0);
        store(&mut flash).reserve(256).unwrap();
        for number in 0..500 {
            block_on(store(&mut flash).persist(&record(number))).unwrap();
        }
        assert_eq!(store(&mut flash).reserved(), 256);
        for end in 0..1000 {
            store(&mut flash).reserve(end).unwrap();
            assert_eq!(store(&mut flash).reserved(), end);
        }
        assert_eq!(load(&mut flash), Some(record(499)));
    }

    /// Goal: wherever the power is cut, the device finds the old record or the new one, whole; and
    /// when `persist` said that it was done, the new one.
    #[test]
    fn a_power_cut_at_any_operation_leaves_the_old_record_or_the_new() {
        let mut cuts = 0;
        let mut flash = FlashModel::blank(RANGE.end);
        let mut durable = None;
        // Enough writes to go round the ring of sectors, so that cuts hit erasures, too.
        for number in 0..600 {
            for operations in 0.. {
                let mut copy = flash.clone();
                copy.cut_power_after(operations);
                let done = block_on(store(&mut copy).persist(&record(number))).is_ok();
                copy.restore_power();
                let found = load(&mut copy);
                if done {
                    assert_eq!(found, Some(record(number)), "write {number}, cut {operations}");
                    flash = copy;
                    durable = found;
                    break;
                }
                cuts += 1;
                let either = found == durable || found == Some(record(number));
                assert!(either, "write {number}, cut {operations}: {found:?}");
                // A device that came back goes on writing on what the cut left.
                block_on(store(&mut copy).persist(&record(number))).unwrap();
                assert_eq!(load(&mut copy), Some(record(number)));
            }
        }
        assert!(cuts > 1000 && flash.erasures() > 3, "{cuts} cuts, {} erasures", flash.erasures());
    }
}
