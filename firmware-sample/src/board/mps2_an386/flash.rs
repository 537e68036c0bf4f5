//! The file `flash.img` on the host, as NOR flash in three regions that never overlap.
//!
//! What a call has written is the host's when it returns, so that it outlives the emulator; as on
//! a chip, nothing but erasing sets a bit.

use core::fmt;

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

use crate::board::check_access;
use crate::console::{flash_code, show_code};

use super::semihosting::File;

/// Octets that are erased at once: what most serial flash chips have.
const SECTOR_LEN: usize = 4096;

/// Octets that are programmed at once.
const WORD_LEN: usize = 4;

/// Octets that are programmed by one call to the host.
const PIECE_LEN: usize = 64;

/// A part of the file that nobody else has.
#[derive(Debug)]
pub struct Region {
    file: File,
    start: usize,
    len: usize,
}

/// Why the flash did not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlashError {
    /// The host did not read or write.
    Host,
    /// The call itself is wrong: not inside the region, or not in whole words or sectors.
    Request(NorFlashErrorKind),
}

impl Region {
    /// The regions for the record, the keys and the factory's configuration, if the file has room
    /// for them.
    pub(super) fn open() -> Option<[Self; 3]> {
        const RECORD_LEN: usize = 8 * SECTOR_LEN;
        const KEYS_LEN: usize = 4 * SECTOR_LEN;
        let file = File::open(c"flash.img")?;
        let record = Self { file, start: 0, len: RECORD_LEN };
        let keys = Self { file, start: RECORD_LEN, len: KEYS_LEN };
        let factory = Self { file, start: RECORD_LEN + KEYS_LEN, len: SECTOR_LEN };
        let len = factory.start + factory.len;
        (file.len()? >= len).then_some([record, keys, factory])
    }

    fn program(&mut self, at: usize, octets: &[u8]) -> Option<()> {
        let mut now = [0; PIECE_LEN];
        for (at, octets) in (at..).step_by(PIECE_LEN).zip(octets.chunks(PIECE_LEN)) {
            let now = now.get_mut(..octets.len())?;
            self.file.read(at, now)?;
            now.iter_mut().zip(octets).for_each(|(cell, octet)| *cell &= octet);
            self.file.write(at, now)?;
        }
        Some(())
    }
}

impl ErrorType for Region {
    type Error = FlashError;
}

impl ReadNorFlash for Region {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), FlashError> {
        let offset = check_access(offset, octets.len(), Self::READ_SIZE, self.len)?;
        self.file.read(self.start + offset, octets).ok_or(FlashError::Host)
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
        let from = self.start + check_access(from, len, SECTOR_LEN, self.len)?;
        for piece in (from..from + len).step_by(PIECE_LEN) {
            self.file.write(piece, &[0xff; PIECE_LEN]).ok_or(FlashError::Host)?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), FlashError> {
        let offset = check_access(offset, octets.len(), WORD_LEN, self.len)?;
        self.program(self.start + offset, octets).ok_or(FlashError::Host)
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
            Self::Host => NorFlashErrorKind::Other,
            Self::Request(kind) => *kind,
        }
    }
}

impl fmt::Display for FlashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "flash", flash_code(self.kind()))
    }
}

impl core::error::Error for FlashError {}
