//! Parallel NOR flash with the Intel command set (CFI 0x0001): two 16-bit chips side by side, so
//! that each command is given to both at once, in the two halves of a word.
//!
//! The bank of 32 MiB in sectors of 256 KiB is cut into three regions that never overlap; each is
//! a value of its own. What the flash is asked for it has finished, or given up, when the call
//! returns: no command of one region is ever under way when another begins.

use core::fmt;
use core::ptr;

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

use crate::board::{Clock, check_access};
use crate::console::{flash_code, show_code};

use super::VirtClock;

/// Where the bank begins.
const BASE: usize = 0x2200_0000;

/// Octets that are erased at once.
const SECTOR_LEN: usize = 256 * 1024;

/// Octets that are programmed at once.
const WORD_LEN: usize = 4;

/// The longest that a word takes: chips state tenths of a millisecond, an emulator's host anything.
const PROGRAM_MS_MAX: u64 = 1_000;

/// The longest that a sector takes: chips state two seconds.
const ERASE_MS_MAX: u64 = 10_000;

const READ_ARRAY: u32 = 0x00ff_00ff;
const READ_IDENTIFIER: u32 = 0x0098_0098;
const CLEAR_STATUS: u32 = 0x0050_0050;
const PROGRAM: u32 = 0x0040_0040;
const ERASE: u32 = 0x0020_0020;
const CONFIRM: u32 = 0x00d0_00d0;

/// Both chips are ready.
const STATUS_READY: u32 = 0x0080_0080;

/// Either chip could not program or erase, found no voltage or a locked sector.
const STATUS_FAULT: u32 = 0x003a_003a;

/// "QRY", as far as it can be seen in the first word of the answer: `Q` from both chips.
const QUERY_Q: u32 = 0x0051_0051;

/// Where the answer to a CFI query begins: word 0x10.
const QUERY_OFFSET: usize = 0x10 * WORD_LEN;

/// A part of the flash that nobody else has.
#[derive(Debug)]
pub struct Region {
    start: usize,
    len: usize,
}

/// Why the flash did not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// A chip says that it could not.
    Fault {
        /// Its status register, both chips' in the halves of the word.
        status: u32,
    },
    /// The call itself is wrong: not inside the region, or not in whole words or sectors.
    Request(NorFlashErrorKind),
    /// A chip was not ready when time was up.
    TimedOut,
}

impl Region {
    /// The record: four sectors, so that one is erased now and then only.
    pub(super) const RECORD: Self = Self { start: 0, len: 4 * SECTOR_LEN };
    /// Keys: two sectors for slots, and two for what ties them to the TPM.
    pub(super) const KEYS: Self = Self { start: 4 * SECTOR_LEN, len: 4 * SECTOR_LEN };
    /// The factory's configuration.
    pub(super) const FACTORY: Self = Self { start: 8 * SECTOR_LEN, len: SECTOR_LEN };

    /// The word of the flash at an offset of this region that is inside it.
    const fn word(&self, offset: usize) -> *mut u32 {
        ptr::without_provenance_mut(BASE + self.start + offset)
    }
}

/// Whether the flash that this driver is written for is there.
pub(super) fn identify() -> Result<(), &'static str> {
    let region = Region::RECORD;
    write(region.word(QUERY_OFFSET), READ_IDENTIFIER);
    let found = read(region.word(QUERY_OFFSET));
    write(region.word(0), READ_ARRAY);
    if found == QUERY_Q { Ok(()) } else { Err("no pair of 16-bit CFI chips in the second bank") }
}

/// One command for `word`, then whether both chips did it.
#[inline(never)]
fn execute(word: *mut u32, first: u32, second: u32, limit_ms: u64) -> Result<(), FlashError> {
    let deadline_ms = VirtClock.now_ms().saturating_add(limit_ms);
    write(word, first);
    write(word, second);
    loop {
        let status = read(word);
        if status & STATUS_READY == STATUS_READY {
            return match status & STATUS_FAULT {
                0 => Ok(()),
                _ => Err(FlashError::Fault { status }),
            };
        }
        if VirtClock.now_ms() > deadline_ms {
            return Err(FlashError::TimedOut);
        }
    }
}

/// Back to reading, whatever has happened.
fn settle(word: *mut u32, outcome: Result<(), FlashError>) -> Result<(), FlashError> {
    if outcome.is_err() {
        write(word, CLEAR_STATUS);
    }
    write(word, READ_ARRAY);
    outcome
}

fn read(word: *const u32) -> u32 {
    // SAFETY: an address inside the flash bank, which `Region::word` alone makes: no memory of the
    // program is there, and reading changes nothing.
    unsafe { ptr::read_volatile(word) }
}

fn write(word: *mut u32, value: u32) {
    // SAFETY: as above; what is written there is a command to the chips.
    unsafe { ptr::write_volatile(word, value) }
}

impl ErrorType for Region {
    type Error = FlashError;
}

impl ReadNorFlash for Region {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), FlashError> {
        let offset = check_access(offset, octets.len(), Self::READ_SIZE, self.len)?;
        for (at, octet) in (offset..).zip(octets) {
            let [a, b, c, d] = read(self.word(at & !3)).to_le_bytes();
            *octet = match at & 3 {
                0 => a,
                1 => b,
                2 => c,
                _ => d,
            };
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.len
    }
}

impl NorFlash for Region {
    const WRITE_SIZE: usize = WORD_LEN;
    const ERASE_SIZE: usize = SECTOR_LEN;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let len = to.checked_sub(from).ok_or(NorFlashErrorKind::OutOfBounds)?;
        let len = usize::try_from(len).map_err(|_| NorFlashErrorKind::OutOfBounds)?;
        let from = check_access(from, len, SECTOR_LEN, self.len)?;
        for sector in (from..from + len).step_by(SECTOR_LEN) {
            let word = self.word(sector);
            settle(word, execute(word, ERASE, CONFIRM, ERASE_MS_MAX))?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), FlashError> {
        let offset = check_access(offset, octets.len(), WORD_LEN, self.len)?;
        let (words, _) = octets.as_chunks::<WORD_LEN>();
        let mut places = (offset..).step_by(WORD_LEN).zip(words);
        let outcome = places.try_for_each(|(at, word)| {
            execute(self.word(at), PROGRAM, u32::from_le_bytes(*word), PROGRAM_MS_MAX)
        });
        settle(self.word(offset), outcome)
    }
}

impl From<NorFlashErrorKind> for FlashError {
    fn from(kind: NorFlashErrorKind) -> Self {
        Self::Request(kind)
    }
}

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Request(kind) => *kind,
            Self::Fault { .. } | Self::TimedOut => NorFlashErrorKind::Other,
        }
    }
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "flash", flash_code(self.kind()))
    }
}

impl core::error::Error for FlashError {}
