//! The record on NOR flash, twice, and beside it how many numbers of sessions are reserved.
//!
//! **What it is.** An entry is a record, the end of the reserved numbers, and a head with checksums.
//! Each is written twice: into the log in the first half of a range of flash, and, when it can be
//! read there, into the log in the second half. `docs/design/record.md` gives the octets.
//!
//! **What it must never do.** Answer that an entry is durable before it can be read. Lose the one
//! before it until then. Take flash that holds something unreadable for that of a device that never
//! had a record: to an empty record every key is one to be erased. Write over what a later release
//! has written.
//!
//! **Why that is sound.** Each log keeps its newest whole entry while it writes another one, so
//! that a cut within either copy leaves the old entry in both logs or the new one in at least one,
//! and the entry with the larger number holds. The second log is begun only when the first copy can
//! be read: where the second is blank, nothing was ever answered. One copy may rot or wear out; the
//! other is found, and the next start copies it.

mod entry;
mod generations;
mod layout;
mod logs;

#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::Failure;
use fleetcert_core::port::Storage;
use fleetcert_core::record::{IdentityView, RECORD_VERSION, Record, RecordError, Slot};
use fleetcert_core::time::Wall;

use self::entry::{ENTRY_LEN_MAX, HEAD_LEN, Head};
use self::logs::{Found, Half, Logs, Place};
use crate::console::{error, show_code, warn};

pub use self::generations::{GENERATION_MAX, Generations};
pub use self::layout::{LayoutError, SECTORS_MIN};

/// The two logs.
const HALVES: [Half; 2] = [0, 1];

/// The record in a range of flash: [`SECTORS_MIN`] sectors or more, each of which holds a record.
pub struct FlashStore<'s, F: NorFlash> {
    logs: Logs<F>,
    /// What the last look has found in each half: until something is written.
    halves: [Found; 2],
    scratch: &'s mut Scratch,
}

/// The memory that records pass through on their way to flash and back.
pub struct Scratch([u8; ENTRY_LEN_MAX]);

/// Why no record could be loaded.
#[derive(Debug)]
pub enum LoadError<E> {
    /// Neither copy of the last entry is whole.
    Damaged,
    /// The flash is not blank, and holds no entry.
    Foreign,
    /// The flash cannot be read.
    Flash(E),
    /// An entry is whole, and holds no record that we can read.
    Record(RecordError),
}

impl<'s, F: NorFlash<Error: fmt::Display>> FlashStore<'s, F> {
    /// A store in `range` of `flash`, octet addresses.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when the range is not fit for one.
    pub fn new(flash: F, range: Range<u32>, scratch: &'s mut Scratch) -> Result<Self, LayoutError> {
        Ok(Self { logs: Logs::new(flash, range)?, halves: [Found::NOTHING; 2], scratch })
    }

    /// The newest durable record; `None` on a device that never had one. A copy that is not the
    /// newest is replaced first, so that what was returned is never taken back.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; flash is as it was. A device must not take it for "never had one": it would
    /// enroll anew and lose an identity that may still be there.
    pub fn load(&mut self) -> Result<Option<Record>, LoadError<F::Error>> {
        let mut record = Record::new(Wall(0));
        let is_there = self.load_into(&mut record)?;
        Ok(is_there.then_some(record))
    }

    /// [`FlashStore::load`] to where the record stays; whether there was one. If not, `record` is
    /// as it was.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; `record` is none that was durable then.
    #[inline(never)]
    pub fn load_into(&mut self, record: &mut Record) -> Result<bool, LoadError<F::Error>> {
        let Some(newest) = self.survey()? else { return Ok(false) };
        let octets = self.read(&newest)?;
        let is_there = !octets.is_empty();
        if is_there {
            record.parse_into(octets).map_err(LoadError::Record)?;
        }
        self.heal(&newest);
        Ok(is_there)
    }

    /// The identity in a slot of the newest durable record, where it was read to; `None` if there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn identity(
        &mut self,
        slot: Slot,
    ) -> Result<Option<IdentityView<'_>>, LoadError<F::Error>> {
        let Some(newest) = self.survey()? else { return Ok(None) };
        match self.read(&newest)? {
            [] => Ok(None),
            record => IdentityView::parse(record, slot).map_err(LoadError::Record),
        }
    }

    /// The store's memory, for whoever needs some between two calls of the store's, which then write
    /// over it: [`Scratch::LEN`] octets of anything.
    pub const fn memory(&mut self) -> &mut [u8; Scratch::LEN] {
        &mut self.scratch.0
    }

    /// The last number that is reserved for sessions, for [`Generations::new`]; 0 where there is
    /// none, or none that can be read.
    pub fn reserved(&mut self) -> u64 {
        self.survey().ok().flatten().map_or(0, |newest| newest.head.reserved)
    }

    /// Makes `end` the last number that is reserved, durably: for [`Generations::next`].
    ///
    /// # Errors
    ///
    /// [`Failure::StorageUnavailable`]; the old number or the new one is reserved then.
    pub fn reserve(&mut self, end: u64) -> Result<(), Failure> {
        let len = match self.survey().map_err(unavailable)? {
            Some(newest) => self.read(&newest).map_err(unavailable)?.len(),
            None => 0,
        };
        self.write(end, len)
    }

    /// Looks what is in flash, and whether it may be written over: the entry that holds.
    #[inline(never)]
    fn survey(&mut self) -> Result<Option<Place>, LoadError<F::Error>> {
        self.logs.fault = None;
        for (half, found) in HALVES.into_iter().zip(&mut self.halves) {
            *found = self.logs.survey(half);
        }
        let [first, second] = &self.halves;
        let holds = if second.whole() > first.whole() { second } else { first };
        let (newest, whole) = (holds.newest, holds.whole());
        let (is_ours, shared) = (self.claimed() > 0, first.claimed.min(second.claimed));
        // Nothing is written to the second half under a number that the first does not hold whole: what
        // both have begun was durable.
        if shared > whole && self.logs.share_above(whole) {
            return Err(LoadError::Damaged);
        }
        match newest {
            Some(Place { head: Head { version: found, .. }, .. }) if found > RECORD_VERSION => {
                Err(LoadError::Record(RecordError::Version { found }))
            }
            None if !self.logs.is_blank(1) => Err(self.unreadable(is_ours)),
            _ => Ok(newest),
        }
    }

    /// The largest number of any entry.
    fn claimed(&self) -> u64 {
        let [first, second] = &self.halves;
        first.claimed.max(second.claimed)
    }

    fn unreadable(&mut self, is_ours: bool) -> LoadError<F::Error> {
        match self.logs.fault.take() {
            Some(fault) => LoadError::Flash(fault),
            None if is_ours => LoadError::Damaged,
            None => LoadError::Foreign,
        }
    }

    /// Reads the record of an entry to its place in the scratch memory.
    fn read(&mut self, place: &Place) -> Result<&[u8], LoadError<F::Error>> {
        let space = self.scratch.record();
        if !self.logs.read_record(place, space) {
            return Err(self.unreadable(true));
        }
        let len = usize::try_from(place.head.record_len).unwrap_or(usize::MAX);
        self.scratch.record().get(..len).ok_or(LoadError::Damaged)
    }

    /// Copies the newest entry, whose record is in the scratch memory, to where it is missing.
    fn heal(&mut self, newest: &Place) {
        for half in HALVES {
            let has = self.halves.get(half).map_or(0, Found::whole);
            if has < newest.head.number && !self.append(half, &newest.head) {
                self.warn(half);
            }
        }
    }

    /// Writes the record in the scratch memory, of `len` octets, to both halves.
    fn write(&mut self, reserved: u64, len: usize) -> Result<(), Failure> {
        // Only who writes to flash by himself, checksums and all, can have used all numbers up.
        let number = self.claimed().checked_add(1).ok_or(Failure::StorageUnavailable)?;
        let record = self.scratch.record().get(..len).ok_or(Failure::StorageUnavailable)?;
        let mut head = Head::new(number, reserved, record);
        let is_first = self.halves.iter().all(|found| found.newest.is_none());
        let mut is_durable = false;
        for half in HALVES {
            if self.append(half, &head) {
                is_durable = true;
                continue;
            }
            self.warn(half);
            // A device without a record begins with two copies of one; and no number is in the
            // second half that the first does not hold.
            if is_first {
                return Err(Failure::StorageUnavailable);
            }
            head.number = number.checked_add(1).ok_or(Failure::StorageUnavailable)?;
        }
        if is_durable { Ok(()) } else { Err(Failure::StorageUnavailable) }
    }

    #[inline(never)]
    fn append(&mut self, half: Half, head: &Head) -> bool {
        let entry = self.scratch.0.get_mut(..head.entry_len(F::WRITE_SIZE)).unwrap_or_default();
        let Some((start, rest)) = entry.split_first_chunk_mut() else { return false };
        *start = head.emit();
        let len = usize::try_from(head.record_len).unwrap_or(usize::MAX);
        rest.get_mut(len..).unwrap_or_default().fill(0xff);
        self.halves.get(half).is_some_and(|found| self.logs.append(half, found, entry))
    }

    fn warn(&self, half: Half) {
        match &self.logs.fault {
            Some(fault) => warn(format_args!("record: copy {} not written: {fault}", half + 1)),
            None => warn(format_args!("record: copy {} is worn out", half + 1)),
        }
    }
}

impl<F: NorFlash<Error: fmt::Display>> Storage for FlashStore<'_, F> {
    async fn persist(&mut self, record: &Record) -> Result<(), Failure> {
        let newest = self.survey().map_err(unavailable)?;
        let reserved = newest.map_or(0, |newest| newest.head.reserved);
        let written = record.emit(self.scratch.record());
        let len = written.map_err(|_| Failure::StorageUnavailable)?.len();
        self.write(reserved, len)
    }
}

impl Scratch {
    /// Its octets.
    pub const LEN: usize = ENTRY_LEN_MAX;

    /// Memory for one store.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; ENTRY_LEN_MAX])
    }

    /// Where the record of an entry is.
    fn record(&mut self) -> &mut [u8] {
        self.0.get_mut(HEAD_LEN..).unwrap_or_default()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

fn unavailable<E: fmt::Display>(why: LoadError<E>) -> Failure {
    error(format_args!("record: {why}"));
    Failure::StorageUnavailable
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch")
    }
}

impl<F: NorFlash> fmt::Debug for FlashStore<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashStore").finish_non_exhaustive()
    }
}

impl<E> LoadError<E> {
    /// A stable name, as `docs/serial.md` has it; that of the flash is its own.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Foreign => "foreign",
            Self::Flash(_) => "flash",
            Self::Record(RecordError::Checksum) => "checksum",
            Self::Record(RecordError::Inconsistent) => "inconsistent",
            Self::Record(RecordError::Malformed) => "malformed",
            Self::Record(RecordError::TooLong) => "too-long",
            Self::Record(RecordError::Version { .. }) => "version",
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => error.fmt(f),
            _ => show_code(f, "record", self.code()),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for LoadError<E> {}
