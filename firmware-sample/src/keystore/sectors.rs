//! Sectors of flash, each with one content or none.
//!
//! The sector is the unit on purpose: erasing a content must leave no copy of it, and a log that
//! merely marks an entry as old keeps it until its sector is needed again. What is written is read
//! again at once, so that a worn sector is found out while the content is still known.

use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use zeroize::Zeroizing;

use crate::blocking::block_on;
use crate::console::error;

use super::{KeyFault, LayoutError};

/// Octets that are read and compared at once; every length of a content is a multiple of it, as it
/// is one of every common word length.
pub(super) const PIECE_LEN: usize = 32;

/// `COUNT` sectors of a flash from `base` on.
pub(super) struct Sectors<F, const COUNT: usize> {
    flash: F,
    base: u32,
}

impl<F: NorFlash<Error: fmt::Display>, const COUNT: usize> Sectors<F, COUNT> {
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
    pub(super) fn read(&mut self, index: usize, octets: &mut [u8]) -> Result<(), KeyFault> {
        let outcome = block_on(self.flash.read(self.offset(index), octets));
        outcome.map_err(|why| fault("reading", index, &why))
    }

    /// Erases a sector, writes `octets` to its front and reads them again.
    pub(super) fn replace(&mut self, index: usize, octets: &[u8]) -> Result<(), KeyFault> {
        self.erase(index)?;
        let offset = self.offset(index);
        let written = block_on(self.flash.write(offset, octets));
        written.map_err(|why| fault("writing", index, &why))?;
        if !self.holds(index, octets)? {
            error(format_args!("keys: sector {index} is worn out"));
            return Err(KeyFault::Unavailable);
        }
        Ok(())
    }

    /// Whether `octets` are at the front of a sector.
    pub(super) fn holds(&mut self, index: usize, octets: &[u8]) -> Result<bool, KeyFault> {
        let mut found = Zeroizing::new([0; PIECE_LEN]);
        for (at, piece) in (self.offset(index)..).step_by(PIECE_LEN).zip(octets.chunks(PIECE_LEN)) {
            let found = found.get_mut(..piece.len()).unwrap_or_default();
            block_on(self.flash.read(at, found)).map_err(|why| fault("reading", index, &why))?;
            if found != piece {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Erases a sector.
    pub(super) fn erase(&mut self, index: usize) -> Result<(), KeyFault> {
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
fn fault(act: &str, index: usize, why: &dyn fmt::Display) -> KeyFault {
    error(format_args!("keys: {act} sector {index}: {why}"));
    KeyFault::Unavailable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash_model::{FlashModel, SECTOR_LEN, Wear};

    const BASE: u32 = SECTOR_LEN;
    const CONTENT: [u8; 96] = [0x5a; 96];

    fn sectors(flash: &mut FlashModel) -> Sectors<&mut FlashModel, 2> {
        Sectors::new(flash, BASE, CONTENT.len()).unwrap()
    }

    fn found(flash: &mut FlashModel, index: usize) -> [u8; 96] {
        let mut octets = [0; 96];
        sectors(flash).read(index, &mut octets).unwrap();
        octets
    }

    /// Goal: each sector has a content of its own, which is gone when it is erased; what is around
    /// them stays.
    #[test]
    fn a_sector_holds_what_was_written_until_it_is_erased() {
        let mut flash = FlashModel::blank(4 * SECTOR_LEN);
        sectors(&mut flash).replace(0, &[0; 96]).unwrap();
        sectors(&mut flash).replace(0, &CONTENT).unwrap();
        sectors(&mut flash).replace(1, &[1; 96]).unwrap();
        assert_eq!((found(&mut flash, 0), found(&mut flash, 1)), (CONTENT, [1; 96]));
        assert!(sectors(&mut flash).holds(0, &CONTENT).unwrap());
        assert!(!sectors(&mut flash).holds(1, &CONTENT).unwrap());
        let sector_len = usize::try_from(SECTOR_LEN).unwrap();
        assert!(flash.octets()[..sector_len].iter().all(|octet| *octet == 0xff));
        assert!(flash.octets()[3 * sector_len..].iter().all(|octet| *octet == 0xff));
        sectors(&mut flash).erase(0).unwrap();
        assert_eq!((found(&mut flash, 0), found(&mut flash, 1)), ([0xff; 96], [1; 96]));
    }

    /// Goal: wherever the power is cut, what was said to be written is there, and the next try
    /// succeeds, on a chip that reads what was cut off and on one that does not.
    #[test]
    fn a_power_cut_at_any_octet_is_no_success() {
        for steps in 0.. {
            let mut flash = FlashModel::blank(4 * SECTOR_LEN);
            sectors(&mut flash).replace(0, &[0; 96]).unwrap();
            flash.cut_power_at(steps, steps);
            if steps.is_multiple_of(2) {
                flash.hide_torn_words();
            }
            let outcome = sectors(&mut flash).replace(0, &CONTENT);
            flash.restore_power();
            if outcome.is_ok() {
                assert_eq!(found(&mut flash, 0), CONTENT);
                assert_eq!(steps, u64::from(SECTOR_LEN) + 96);
                break;
            }
            assert_eq!(outcome, Err(KeyFault::Unavailable));
            sectors(&mut flash).replace(0, &CONTENT).unwrap();
            assert_eq!(found(&mut flash, 0), CONTENT);
        }
    }

    /// Goal: a sector that is worn out is noticed, whether or not the chip does, and costs nothing
    /// of the next one.
    #[test]
    fn a_worn_sector_is_no_success() {
        for wear in [Wear::Erase, Wear::Program, Wear::Silent] {
            let mut flash = FlashModel::blank(4 * SECTOR_LEN);
            sectors(&mut flash).replace(1, &[1; 96]).unwrap();
            flash.wear_out(1, wear);
            assert_eq!(sectors(&mut flash).replace(0, &[0; 96]), Err(KeyFault::Unavailable));
            assert_eq!(found(&mut flash, 1), [1; 96], "{wear:?}");
        }
    }
}
