//! NOR flash as it is: programming only clears bits, erasing sets a whole sector, and power may
//! go in the middle of either.

use std::vec;
use std::vec::Vec;

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Octets that are erased at once.
pub(crate) const SECTOR_LEN: u32 = 4096;

/// Octets that are programmed at once.
const WORD_LEN: usize = 4;

/// A flash chip that loses power when its test says so.
#[derive(Clone)]
pub(crate) struct FlashModel {
    octets: Vec<u8>,
    operations_left: Option<u32>,
    erasures: u32,
}

/// There is no power.
#[derive(Debug)]
pub(crate) struct PowerCut;

impl FlashModel {
    /// An erased chip.
    pub(crate) fn blank(len: u32) -> Self {
        let octets = vec![0xff; usize::try_from(len).unwrap()];
        Self { octets, operations_left: None, erasures: 0 }
    }

    /// So many operations will finish; the one after them is torn, and then nothing works.
    pub(crate) fn cut_power_after(&mut self, operations: u32) {
        self.operations_left = Some(operations);
    }

    /// Everything works again.
    pub(crate) fn restore_power(&mut self) {
        self.operations_left = None;
    }

    /// Sectors erased so far.
    pub(crate) fn erasures(&self) -> u32 {
        self.erasures
    }

    /// All octets of the chip.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// How much of an operation on `len` octets happens: all, half, or nothing.
    fn spend(&mut self, len: usize) -> (usize, Result<(), PowerCut>) {
        match &mut self.operations_left {
            None => (len, Ok(())),
            Some(u32::MAX) => (0, Err(PowerCut)),
            Some(0) => {
                self.operations_left = Some(u32::MAX);
                (len / 2, Err(PowerCut))
            }
            Some(left) => {
                *left -= 1;
                (len, Ok(()))
            }
        }
    }
}

impl ErrorType for FlashModel {
    type Error = PowerCut;
}

impl NorFlashError for PowerCut {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ReadNorFlash for FlashModel {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), PowerCut> {
        if self.operations_left == Some(u32::MAX) {
            return Err(PowerCut);
        }
        let from = usize::try_from(offset).unwrap();
        octets.copy_from_slice(&self.octets[from..from + octets.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.octets.len()
    }
}

impl NorFlash for FlashModel {
    const WRITE_SIZE: usize = WORD_LEN;
    const ERASE_SIZE: usize = SECTOR_LEN as usize;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerCut> {
        assert!(from.is_multiple_of(SECTOR_LEN) && to.is_multiple_of(SECTOR_LEN) && from < to);
        for sector in (from..to).step_by(Self::ERASE_SIZE) {
            let (len, outcome) = self.spend(Self::ERASE_SIZE);
            let from = usize::try_from(sector).unwrap();
            self.octets[from..from + len].fill(0xff);
            outcome?;
            self.erasures += 1;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), PowerCut> {
        let from = usize::try_from(offset).unwrap();
        assert!(from.is_multiple_of(WORD_LEN) && octets.len().is_multiple_of(WORD_LEN));
        let (len, outcome) = self.spend(octets.len());
        for (cell, octet) in self.octets[from..].iter_mut().zip(&octets[..len]) {
            assert_eq!(*cell & octet, *octet, "a bit at {offset} cannot be set without erasing");
            *cell &= octet;
        }
        outcome
    }
}
