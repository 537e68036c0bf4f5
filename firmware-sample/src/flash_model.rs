//! NOR flash as strict as it can be, for tests on a host.
//!
//! **What it is.** Octets that programming can only clear bit by bit, and only erasing a whole sector
//! can set; and the ways in which that fails. The power goes at any octet of any operation: what was
//! being programmed is a word of which some bits are cleared, what was being erased is a sector of
//! which any octets, or any bits of them, are set. Sectors wear out, with or without saying so.
//!
//! **What it must never do.** Forgive. What a chip's manual forbids ends the test: a bit that would
//! have to be set, a word that is programmed twice, a word that is programmed in a sector whose
//! erasure was cut short, even if it reads as erased: on a chip, such a cell does not hold.
//!
//! **Why that is sound.** It is stricter than a chip in everything but one: what was read once is
//! read again the same. A seed decides what an interruption leaves, so that a run can be repeated.

use std::vec;
use std::vec::Vec;

use core::fmt;

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};

/// Octets that [`FlashModel`] erases at once.
pub const SECTOR_LEN: u32 = 4096;

/// A chip with the sectors and words of most serial flash.
pub type FlashModel = NorModel<4096, 4>;

/// A chip that fails when its test says so: `SECTOR` octets are erased at once, `WORD` programmed.
#[derive(Clone)]
pub struct NorModel<const SECTOR: usize, const WORD: usize> {
    octets: Vec<u8>,
    words: Vec<Word>,
    wear: Vec<Wear>,
    power: Power,
    seed: u64,
    steps: u64,
    erasures: u32,
    hides_torn: bool,
}

/// Why an operation did not happen, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFault {
    /// There is no power.
    PowerCut,
    /// The word was being programmed or erased when the power went, and the chip knows.
    Unreadable,
    /// The sector is worn out.
    Worn,
}

/// How a sector is worn out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wear {
    /// It is not.
    Sound,
    /// It cannot be erased; the chip says so.
    Erase,
    /// It cannot be programmed to the end; the chip says so.
    Program,
    /// A bit of each word stays set; the chip does not notice.
    Silent,
    /// As [`Wear::Erase`], after so many erasures more.
    After(u32),
}

/// What may be done with a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Erased,
    Programmed,
    /// Its programming was interrupted: it may be programmed if it reads as erased.
    Begun,
    /// Its erasure was interrupted.
    Unsettled,
}

#[derive(Clone, Copy)]
enum Power {
    On,
    Off,
    /// So many operations will finish; the one after them is interrupted half way.
    Operations(u32),
    /// So many octets will be programmed or erased.
    Steps(u64),
}

impl<const SECTOR: usize, const WORD: usize> NorModel<SECTOR, WORD> {
    /// An erased chip of `len` octets.
    ///
    /// # Panics
    ///
    /// If it is not made of whole sectors, or they not of whole words.
    #[must_use]
    pub fn blank(len: u32) -> Self {
        let len = at(len);
        assert!(len.is_multiple_of(SECTOR) && SECTOR.is_multiple_of(WORD), "no whole sectors");
        Self {
            octets: vec![0xff; len],
            words: vec![Word::Erased; len / WORD],
            wear: vec![Wear::Sound; len / SECTOR],
            power: Power::On,
            seed: 1,
            steps: 0,
            erasures: 0,
            hides_torn: false,
        }
    }

    /// A chip that somebody else has programmed.
    ///
    /// # Panics
    ///
    /// As [`NorModel::blank`].
    #[must_use]
    pub fn holding(octets: &[u8]) -> Self {
        let mut chip = Self::blank(u32::try_from(octets.len()).unwrap_or(u32::MAX));
        chip.octets.copy_from_slice(octets);
        for (word, content) in chip.words.iter_mut().zip(octets.chunks(WORD)) {
            if content.iter().any(|octet| *octet != 0xff) {
                *word = Word::Programmed;
            }
        }
        chip
    }

    /// So many operations will finish; the one after them is interrupted half way, and then nothing
    /// works.
    pub fn cut_power_after(&mut self, operations: u32) {
        self.power = Power::Operations(operations);
    }

    /// So many octets more will be programmed or erased, then nothing works. What that leaves of
    /// the operation under way is drawn from `seed`.
    pub fn cut_power_at(&mut self, steps: u64, seed: u64) {
        self.power = Power::Steps(steps);
        self.seed = seed;
    }

    /// Everything works again.
    pub fn restore_power(&mut self) {
        self.power = Power::On;
    }

    /// Whether the power went since it was last restored.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(self.power, Power::Off)
    }

    /// From now on words whose programming or erasure was interrupted cannot be read, as with chips
    /// that check what they read.
    pub fn hide_torn_words(&mut self) {
        self.hides_torn = true;
    }

    /// Wears a sector out, or makes it sound.
    ///
    /// # Panics
    ///
    /// If there is no such sector.
    pub fn wear_out(&mut self, sector: usize, wear: Wear) {
        self.wear[sector] = wear;
    }

    /// Turns bits of an octet over, as time does.
    ///
    /// # Panics
    ///
    /// If there is no such octet.
    pub fn rot(&mut self, offset: usize, bits: u8) {
        self.octets[offset] ^= bits;
    }

    /// Sectors erased so far.
    #[must_use]
    pub fn erasures(&self) -> u32 {
        self.erasures
    }

    /// Octets programmed or erased so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// All octets of the chip.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// How many octets of an operation on `len` happen; fewer than all if the power goes.
    fn spend(&mut self, len: usize) -> Result<usize, ModelFault> {
        let steps = len as u64;
        let done = match &mut self.power {
            Power::On => steps,
            Power::Off => return Err(ModelFault::PowerCut),
            Power::Operations(0) => steps / 2,
            Power::Operations(left) => {
                *left -= 1;
                steps
            }
            Power::Steps(left) => {
                let done = steps.min(*left);
                *left -= done;
                done
            }
        };
        if done < steps {
            self.power = Power::Off;
        }
        self.steps += done;
        Ok(usize::try_from(done).unwrap_or(len))
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn draw_octet(&mut self) -> u8 {
        self.draw().to_le_bytes()[0]
    }

    fn program_word(&mut self, offset: usize, octets: &[u8], stuck: u8) {
        for (cell, octet) in self.octets[offset..].iter_mut().zip(octets) {
            *cell &= octet | stuck;
        }
        self.words[offset / WORD] = Word::Programmed;
    }

    /// Programming of a word is interrupted when `done` of its octets should have been programmed:
    /// these are and the others not, or any bits of it.
    fn tear_word(&mut self, offset: usize, octets: &[u8], done: usize) {
        let is_in_order = self.draw().is_multiple_of(2);
        for (index, octet) in octets.iter().enumerate() {
            let kept = match is_in_order {
                true if index < done => 0,
                true => 0xff,
                false => self.draw_octet(),
            };
            self.octets[offset + index] &= octet | kept;
        }
        self.words[offset / WORD] = Word::Begun;
    }

    /// Erasing of a sector is interrupted when `done` of its octets should have been erased: the
    /// first ones, the last ones, any, or any bits of all.
    fn tear_sector(&mut self, start: usize, done: usize) {
        let order = self.draw() % 4;
        for index in 0..SECTOR {
            let is_erased = match order {
                0 => index < done,
                1 => index >= SECTOR - done,
                _ => usize::try_from(self.draw() % SECTOR as u64).unwrap_or(0) < done,
            };
            let set = if order == 3 { self.draw_octet() } else { 0xff };
            if is_erased {
                self.octets[start + index] |= set;
            }
        }
        self.words[start / WORD..(start + SECTOR) / WORD].fill(Word::Unsettled);
    }

    fn erase_sector(&mut self, start: usize) -> Result<(), ModelFault> {
        let done = self.spend(SECTOR)?;
        let wear = &mut self.wear[start / SECTOR];
        if let Wear::After(left) = wear {
            *wear = left.checked_sub(1).map_or(Wear::Erase, Wear::After);
        }
        if *wear == Wear::Erase {
            self.tear_sector(start, done / 2);
            return Err(if done < SECTOR { ModelFault::PowerCut } else { ModelFault::Worn });
        }
        if done < SECTOR {
            if done > 0 {
                self.tear_sector(start, done);
            }
            return Err(ModelFault::PowerCut);
        }
        self.octets[start..start + SECTOR].fill(0xff);
        self.words[start / WORD..(start + SECTOR) / WORD].fill(Word::Erased);
        self.erasures += 1;
        Ok(())
    }

    /// Ends the test if a chip would not do this, or not for long.
    fn check_program(&self, start: usize, octets: &[u8]) {
        let end = start + octets.len();
        assert!(
            start.is_multiple_of(WORD) && octets.len().is_multiple_of(WORD),
            "a part of a word"
        );
        for (index, word) in self.words[start / WORD..end / WORD].iter().enumerate() {
            let offset = start + index * WORD;
            assert!(*word != Word::Programmed, "the word at {offset} was programmed before");
            assert!(*word != Word::Unsettled, "the word at {offset} was not erased to the end");
            let is_erased = self.octets[offset..offset + WORD].iter().all(|octet| *octet == 0xff);
            assert!(is_erased, "the word at {offset} does not read as erased");
        }
    }
}

impl<const SECTOR: usize, const WORD: usize> ErrorType for NorModel<SECTOR, WORD> {
    type Error = ModelFault;
}

impl<const SECTOR: usize, const WORD: usize> ReadNorFlash for NorModel<SECTOR, WORD> {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, octets: &mut [u8]) -> Result<(), ModelFault> {
        if self.is_off() {
            return Err(ModelFault::PowerCut);
        }
        let (start, end) = (at(offset), at(offset) + octets.len());
        let mut words = self.words[start / WORD..end.div_ceil(WORD)].iter();
        if self.hides_torn && words.any(|word| matches!(word, Word::Begun | Word::Unsettled)) {
            return Err(ModelFault::Unreadable);
        }
        octets.copy_from_slice(&self.octets[start..end]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.octets.len()
    }
}

impl<const SECTOR: usize, const WORD: usize> NorFlash for NorModel<SECTOR, WORD> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), ModelFault> {
        let (from, to) = (at(from), at(to));
        assert!(from.is_multiple_of(SECTOR) && to.is_multiple_of(SECTOR), "a part of a sector");
        assert!(from < to && to <= self.octets.len(), "nothing of the chip");
        (from..to).step_by(SECTOR).try_for_each(|start| self.erase_sector(start))
    }

    async fn write(&mut self, offset: u32, octets: &[u8]) -> Result<(), ModelFault> {
        let start = at(offset);
        self.check_program(start, octets);
        let done = self.spend(octets.len())?;
        let broken = self.draw() % octets.len().div_ceil(WORD).max(1) as u64;
        for (index, word) in octets.chunks(WORD).enumerate() {
            let (offset, left) = (start + index * WORD, done.saturating_sub(index * WORD));
            match self.wear[offset / SECTOR] {
                Wear::Program if left > 0 && index as u64 >= broken => {
                    self.tear_word(offset, word, WORD / 2);
                    return Err(if self.is_off() {
                        ModelFault::PowerCut
                    } else {
                        ModelFault::Worn
                    });
                }
                Wear::Silent if left >= WORD => self.program_word(offset, word, 0x10),
                _ if left >= WORD => self.program_word(offset, word, 0),
                _ if left > 0 => self.tear_word(offset, word, left),
                _ => {}
            }
        }
        if done < octets.len() { Err(ModelFault::PowerCut) } else { Ok(()) }
    }
}

impl NorFlashError for ModelFault {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl fmt::Display for ModelFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerCut => "there is no power",
            Self::Unreadable => "the word was not programmed or erased to the end",
            Self::Worn => "the sector is worn out",
        })
    }
}

impl core::error::Error for ModelFault {}

impl<const SECTOR: usize, const WORD: usize> fmt::Debug for NorModel<SECTOR, WORD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NorModel").field("len", &self.octets.len()).finish_non_exhaustive()
    }
}

fn at(offset: u32) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
