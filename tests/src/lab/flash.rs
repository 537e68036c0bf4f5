//! A board's flash for its keys, on a host: a strict chip that a test holds on to.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use embedded_storage_async::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use fleetcert_firmware::blocking::block_on;
use fleetcert_firmware::flash_model::{FlashModel, ModelFault, SECTOR_LEN};
use sha2::{Digest as _, Sha256};

use super::OrFail;

/// Octets before the body of a sector with keys: four letters, a version, a length.
const FRONT_LEN: usize = 7;

/// A flash chip of four sectors; copies are the same chip.
#[derive(Clone)]
pub struct Flash(Rc<RefCell<FlashModel>>);

impl Flash {
    /// How many sectors there are.
    pub const SECTORS: usize = 4;

    /// An erased chip.
    #[must_use]
    pub fn blank() -> Self {
        let len = u32::try_from(Self::SECTORS * Self::ERASE_SIZE).or_fail("a length");
        Self(Rc::new(RefCell::new(FlashModel::blank(len))))
    }

    /// A chip that holds these octets.
    #[must_use]
    pub fn holding(octets: &[u8]) -> Self {
        let flash = Self::blank();
        flash.replace(octets);
        flash
    }

    /// The power goes after so many octets; what was cut off cannot be read if `is_checked`.
    pub fn cut_power_at(&self, steps: u64, is_checked: bool) {
        let mut chip = self.0.borrow_mut();
        chip.cut_power_at(steps, steps);
        if is_checked {
            chip.hide_torn_words();
        }
    }

    /// The power is gone.
    pub fn cut_power(&self) {
        self.cut_power_at(0, false);
        // It goes with the next operation, of which nothing happens.
        let _cut = block_on(self.0.borrow_mut().erase(0, SECTOR_LEN));
    }

    /// Everything works again.
    pub fn restore_power(&self) {
        self.0.borrow_mut().restore_power();
    }

    /// All octets of the chip.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        self.0.borrow().octets().to_vec()
    }

    /// Makes it hold these octets.
    pub fn replace(&self, octets: &[u8]) {
        *self.0.borrow_mut() = FlashModel::holding(octets);
    }

    /// A sector, if it can be read.
    #[must_use]
    pub fn sector(&self, index: usize) -> Option<Vec<u8>> {
        let mut octets = vec![0; Self::ERASE_SIZE];
        let offset = u32::try_from(index * Self::ERASE_SIZE).or_fail("an offset");
        let read = block_on(self.0.borrow_mut().read(offset, &mut octets));
        read.ok().map(|()| octets)
    }

    /// Whether nothing is in a sector.
    #[must_use]
    pub fn is_blank(&self, index: usize) -> bool {
        self.sector(index).is_some_and(|octets| octets.iter().all(|octet| *octet == 0xff))
    }

    /// Flips a bit of what is in a sector.
    pub fn flip(&self, index: usize, at: usize) {
        self.0.borrow_mut().rot(index * Self::ERASE_SIZE + at, 1);
    }

    /// The body of what the key store has put into a sector.
    #[must_use]
    pub fn body(&self, index: usize) -> Vec<u8> {
        let sector = self.sector(index).or_fail("a sector");
        let len = usize::from(u16::from_be_bytes([sector[5], sector[6]]));
        sector[FRONT_LEN..][..len].to_vec()
    }

    /// Puts a body into a sector, with all that the key store would put around it.
    pub fn put(&self, index: usize, head: [u8; 5], body: &[u8]) {
        let len = u16::try_from(body.len()).or_fail("a length").to_be_bytes();
        let content = [&head[..], &len, body].concat();
        let digest = Sha256::digest(&content);
        let mut octets = self.octets();
        let sector = &mut octets[index * Self::ERASE_SIZE..][..Self::ERASE_SIZE];
        sector.fill(0xff);
        sector[..content.len()].copy_from_slice(&content);
        sector[content.len()..][..digest.len()].copy_from_slice(&digest);
        self.replace(&octets);
    }
}

impl fmt::Debug for Flash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flash")
    }
}

impl ErrorType for Flash {
    type Error = ModelFault;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = FlashModel::READ_SIZE;

    async fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), ModelFault> {
        block_on(self.0.borrow_mut().read(offset, octets))
    }

    fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = FlashModel::WRITE_SIZE;
    const ERASE_SIZE: usize = FlashModel::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), ModelFault> {
        block_on(self.0.borrow_mut().erase(from, to))
    }

    async fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), ModelFault> {
        block_on(self.0.borrow_mut().write(offset, octets))
    }
}
