//! Sectors of flash, each with one content or none.
//!
//! The sector is the unit on purpose: erasing a content must leave no copy of it, and a log that
//! merely marks an entry as old keeps it until its sector is needed again. What is written is read
//! again at once, so that a worn sector is found out while the content is still known.

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::Failure;
use log::error;

use crate::blocking::block_on;

use super::LayoutError;

/// Octets that are read and compared at once; every length of a content is a multiple of it, as it
/// is one of every common word length.
pub(super) const PIECE_LEN: usize = 32;

/// `COUNT` sectors of a flash from `base` on.
pub(super) struct Sectors<F, const COUNT: usize> {
    flash: F,
    base: u32,
}

impl<F: NorFlash, const COUNT: usize> Sectors<F, COUNT> {
    /// The sectors, for contents of at most `len_max` octets.
    pub(super) fn new(flash: F, base: u32, len_max: usize) -> Result<Self, LayoutError> {
        let (sector_len, word_len, capacity) = (F::ERASE_SIZE, F::WRITE_SIZE, flash.capacity());
        if !PIECE_LEN.is_multiple_of(word_len) {
            return Err(LayoutError::Word { found: word_len });
        }
        if len_max > sector_len {
            return Err(LayoutError::SectorTooSmall { found: sector_len, needed: len_max });
        }
        let start = usize::try_from(base).unwrap_or(usize::MAX);
        if !start.is_multiple_of(sector_len) {
            return Err(LayoutError::Unaligned { base, sector_len });
        }
        match start.checked_add(COUNT * sector_len) {
            Some(end) if end <= capacity && u32::try_from(end).is_ok() => Ok(Self { flash, base }),
            _ => Err(LayoutError::OutOfBounds { base, sectors: COUNT, capacity }),
        }
    }

    pub(super) const fn base(&self) -> u32 {
        self.base
    }

    /// Reads the front of a sector.
    pub(super) fn read(&mut self, index: usize, octets: &mut [u8]) -> Result<(), Failure> {
        let outcome = block_on(self.flash.read(self.offset(index), octets));
        outcome.map_err(|why| fault("reading", index, &why))
    }

    /// Erases a sector, writes `octets` to its front and reads them again.
    pub(super) fn replace(&mut self, index: usize, octets: &[u8]) -> Result<(), Failure> {
        self.erase(index)?;
        let offset = self.offset(index);
        let outcome = block_on(self.flash.write(offset, octets));
        outcome.map_err(|why| fault("writing", index, &why))?;
        let mut found = zeroize::Zeroizing::new([0; PIECE_LEN]);
        for (at, piece) in (offset..).step_by(PIECE_LEN).zip(octets.chunks(PIECE_LEN)) {
            let found = found.get_mut(..piece.len()).unwrap_or_default();
            let outcome = block_on(self.flash.read(at, found));
            outcome.map_err(|why| fault("reading", index, &why))?;
            if found != piece {
                error!("keys: sector {index} does not hold what was written to it: it is worn out");
                return Err(Failure::KeyUnavailable);
            }
        }
        Ok(())
    }

    /// Erases a sector.
    pub(super) fn erase(&mut self, index: usize) -> Result<(), Failure> {
        let outcome = block_on(self.flash.erase(self.offset(index), self.offset(index + 1)));
        outcome.map_err(|why| fault("erasing", index, &why))
    }

    /// Where a sector begins; inside the flash for all of `COUNT`, as `new` has checked.
    fn offset(&self, index: usize) -> u32 {
        let within = u32::try_from(index * F::ERASE_SIZE).unwrap_or(u32::MAX);
        self.base.saturating_add(within)
    }
}

/// Says what the flash did not do. The keys are not lost by it.
fn fault(act: &str, index: usize, why: &dyn core::fmt::Debug) -> Failure {
    error!("keys: {act} sector {index} of the flash: {why:?}");
    Failure::KeyUnavailable
}
