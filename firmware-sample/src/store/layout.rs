//! Where in flash the two logs are.

use core::fmt;
use core::ops::Range;

use embedded_storage_async::nor_flash::NorFlash;

use crate::console::show_code;

use super::entry::{ENTRY_LEN_MAX, HEAD_LEN};

/// Sectors of a store, at least: each half keeps its newest entry while it erases another sector.
pub const SECTORS_MIN: u32 = 4;

/// Why a range of flash cannot hold a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// It is not made of whole sectors, or not all of it is in the flash.
    Range {
        /// Where it begins.
        start: u32,
        /// Where it ends.
        end: u32,
        /// Octets of the flash.
        capacity: usize,
    },
    /// A sector does not hold the longest record.
    Sector {
        /// Octets of a sector.
        found: usize,
        /// Octets that it should have.
        min: usize,
    },
    /// There are too few sectors.
    Sectors {
        /// How many there are.
        found: u32,
    },
    /// The flash is programmed or read in words that a head is no multiple of.
    Word {
        /// Octets of a word.
        found: usize,
    },
}

/// The halves of `range`, each of two sectors or more.
pub(super) fn halves<F: NorFlash>(
    flash: &F,
    range: Range<u32>,
) -> Result<[Range<u32>; 2], LayoutError> {
    let Range { start, end } = range;
    let (found, min, capacity) = (F::ERASE_SIZE, ENTRY_LEN_MAX, flash.capacity());
    for word_len in [F::WRITE_SIZE, F::READ_SIZE] {
        if !HEAD_LEN.is_multiple_of(word_len) {
            return Err(LayoutError::Word { found: word_len });
        }
    }
    let sector_len = u32::try_from(found).ok().filter(|_| found >= min);
    let sector_len = sector_len.ok_or(LayoutError::Sector { found, min })?;
    let is_whole = start.is_multiple_of(sector_len) && end.is_multiple_of(sector_len);
    if !is_whole || start > end || usize::try_from(end).is_ok_and(|end| end > capacity) {
        return Err(LayoutError::Range { start, end, capacity });
    }
    let sectors = (end - start) / sector_len;
    if sectors < SECTORS_MIN {
        return Err(LayoutError::Sectors { found: sectors });
    }
    let middle = start + sectors / 2 * sector_len;
    Ok([start..middle, middle..end])
}

impl LayoutError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Range { .. } => "range",
            Self::Sector { .. } => "sector",
            Self::Sectors { .. } => "sectors",
            Self::Word { .. } => "word",
        }
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "record", self.code())
    }
}

impl core::error::Error for LayoutError {}
