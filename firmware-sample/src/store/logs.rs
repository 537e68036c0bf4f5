//! Two logs of entries, each in its half of a range of flash.
//!
//! **What it is.** A half is a ring of sectors. Entries are appended behind the newest one; when
//! there is no room, the next sector is erased and begun. Nothing about it is kept in memory: what
//! is in flash is looked at each time anew.
//!
//! **What it must never do.** Erase the sector of the newest whole entry of its half; program what
//! does not read as erased; begin a sector that it has not just erased itself; take an entry for
//! written that does not read as it was meant.
//!
//! **Why that is sound.** Each of these is checked where flash is touched, in [`Logs::append`] and
//! what it calls, and the store's tests cut the power at every octet on flash that ends the test if
//! one is broken. What a chip reports as a fault counts as unreadable, or as not written: another
//! sector, and the other half, are what there are two of.

use core::ops::Range;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::checksum::CHECKSUM;

use crate::blocking::block_on;

use super::entry::{HEAD_LEN, Head};
use super::layout::{self, LayoutError};

/// Octets that are read at once.
const PIECE_LEN: usize = 64;

/// One of two.
pub(super) type Half = usize;

/// Both logs.
pub(super) struct Logs<F: NorFlash> {
    flash: F,
    halves: [Range<u32>; 2],
    /// What the chip reported last.
    pub(super) fault: Option<F::Error>,
}

/// An entry, and where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: u32,
    pub(super) head: Head,
}

/// What is in a half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The newest entry that is whole.
    pub(super) newest: Option<Place>,
    /// The largest number of any entry, whole or not; 0 where there is none.
    pub(super) claimed: u64,
}

impl Found {
    /// As in flash that is blank.
    pub(super) const NOTHING: Self = Self { newest: None, claimed: 0 };

    /// The number of the newest entry that is whole; 0 where there is none.
    pub(super) fn whole(&self) -> u64 {
        self.newest.map_or(0, |place| place.head.number)
    }
}

impl Place {
    /// Whether it comes before another in the order of a half: by number and then by place.
    #[inline(never)]
    fn is_before(&self, (number, at): (u64, u32)) -> bool {
        self.head.number < number || self.head.number == number && self.at < at
    }

    /// Where the record begins and ends.
    const fn record(&self) -> (u32, u32) {
        let start = self.at.saturating_add(HEAD_LEN as u32);
        (start, start.saturating_add(self.head.record_len))
    }
}

impl<F: NorFlash> Logs<F> {
    /// Octets of a sector; [`layout::halves`] has checked that it is a number of 32 bits.
    const SECTOR_LEN: u32 = F::ERASE_SIZE as u32;

    /// Two logs in `range` of `flash`.
    pub(super) fn new(flash: F, range: Range<u32>) -> Result<Self, LayoutError> {
        let halves = layout::halves(&flash, range)?;
        Ok(Self { flash, halves, fault: None })
    }

    /// Looks at a half.
    pub(super) fn survey(&mut self, half: Half) -> Found {
        let mut below = (u64::MAX, u32::MAX);
        let mut claimed = 0;
        while let Some(place) = self.last_below(half, below) {
            claimed = claimed.max(place.head.number);
            if self.is_whole(&place) {
                return Found { newest: Some(place), claimed };
            }
            below = (place.head.number, place.at);
        }
        Found { newest: None, claimed }
    }

    /// Whether both halves have an entry, whole or not, of one number above `number`.
    pub(super) fn share_above(&mut self, number: u64) -> bool {
        let mut below = (u64::MAX, u32::MAX);
        while let Some(Place { at, head }) = self.last_below(1, below) {
            if head.number <= number {
                break;
            }
            let twin = self.last_below(0, (head.number, u32::MAX));
            if twin.is_some_and(|twin| twin.head.number == head.number) {
                return true;
            }
            below = (head.number, at);
        }
        false
    }

    /// Whether nothing was ever programmed in a half, as far as can be seen.
    pub(super) fn is_blank(&mut self, half: Half) -> bool {
        let Range { start, end } = self.half(half);
        self.all(start, end, &mut |_, piece| is_erased(piece))
    }

    /// Reads the record of an entry to the front of `out`; whether it is whole.
    pub(super) fn read_record(&mut self, place: &Place, out: &mut [u8]) -> bool {
        let (start, end) = place.record();
        let mut room = out;
        let is_read = self.all(start, end, &mut |_, piece| match core::mem::take(&mut room)
            .split_at_mut_checked(piece.len())
        {
            Some((now, later)) => {
                now.copy_from_slice(piece);
                room = later;
                true
            }
            None => false,
        });
        is_read && self.is_whole(place)
    }

    /// Appends an entry to a half; whether it is there then.
    pub(super) fn append(&mut self, half: Half, found: &Found, entry: &[u8]) -> bool {
        let Range { start, end } = self.half(half);
        let Some(newest) = found.newest else {
            return self.begin_any(start..end, entry);
        };
        let sector = newest.at - (newest.at - start) % Self::SECTOR_LEN;
        let behind = self.walk(sector, &mut |_| {});
        let has_room = entry.len() <= octets(behind..sector + Self::SECTOR_LEN);
        has_room && self.write(behind, entry)
            || self.begin_any(sector + Self::SECTOR_LEN..end, entry)
            || self.begin_any(start..sector, entry)
    }

    /// Begins the first of these sectors that can be begun with an entry; whether one can.
    fn begin_any(&mut self, sectors: Range<u32>, entry: &[u8]) -> bool {
        sectors.step_by(F::ERASE_SIZE).any(|sector| {
            let erased = block_on(self.flash.erase(sector, sector + Self::SECTOR_LEN));
            self.took(erased) && self.write(sector, entry)
        })
    }

    /// Programs an entry where nothing is; whether it can be read then.
    fn write(&mut self, at: u32, entry: &[u8]) -> bool {
        let end = at.saturating_add(u32::try_from(entry.len()).unwrap_or(u32::MAX));
        if !self.all(at, end, &mut |_, piece| is_erased(piece)) {
            return false;
        }
        let written = block_on(self.flash.write(at, entry));
        self.took(written)
            && self.all(at, end, &mut |from, piece| {
                entry.get(from..).is_some_and(|meant| meant.starts_with(piece))
            })
    }

    /// The last entry of a half that is before `below`, by number and then by place.
    fn last_below(&mut self, half: Half, below: (u64, u32)) -> Option<Place> {
        let mut last: Option<Place> = None;
        for sector in self.half(half).step_by(F::ERASE_SIZE) {
            self.walk(sector, &mut |place| {
                let order = (place.head.number, place.at);
                if place.is_before(below) && last.is_none_or(|last| last.is_before(order)) {
                    last = Some(*place);
                }
            });
        }
        last
    }

    /// Shows each entry of a sector, up to what is none; where that is.
    fn walk(&mut self, sector: u32, show: &mut dyn FnMut(&Place)) -> u32 {
        let end = sector + Self::SECTOR_LEN;
        let mut at = sector;
        while octets(at..end) >= HEAD_LEN {
            let mut head = [0; HEAD_LEN];
            let head = self.read(at, &mut head).then(|| Head::parse(&head)).flatten();
            let Some(head) = head else { break };
            let len = head.entry_len(F::WRITE_SIZE);
            if len > octets(at..end) {
                break;
            }
            show(&Place { at, head });
            at += len as u32;
        }
        at
    }

    fn is_whole(&mut self, place: &Place) -> bool {
        let mut digest = CHECKSUM.digest();
        let (start, end) = place.record();
        let is_read = self.all(start, end, &mut |_, piece| {
            digest.update(piece);
            true
        });
        is_read && digest.finalize() == place.head.checksum
    }

    /// Whether each piece of a part of the flash can be read and is as `is` says, which is told how
    /// far from the start it is.
    fn all(&mut self, start: u32, end: u32, is: &mut dyn FnMut(usize, &[u8]) -> bool) -> bool {
        let mut buffer = [0; PIECE_LEN];
        (start..end).step_by(PIECE_LEN).all(|at| {
            let len = octets(at..end).min(PIECE_LEN);
            // Some chips are read in words, too; an entry ends with a whole one.
            let read_len = len.next_multiple_of(F::READ_SIZE);
            let is_read = buffer.get_mut(..read_len).is_some_and(|room| self.read(at, room));
            is_read && buffer.get(..len).is_some_and(|piece| is(octets(start..at), piece))
        })
    }

    fn read(&mut self, at: u32, out: &mut [u8]) -> bool {
        let read = block_on(self.flash.read(at, out));
        self.took(read)
    }

    /// Whether it worked; if not, the fault is remembered.
    fn took(&mut self, outcome: Result<(), F::Error>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(fault) => {
                self.fault = Some(fault);
                false
            }
        }
    }

    fn half(&self, half: Half) -> Range<u32> {
        self.halves.get(half).cloned().unwrap_or_default()
    }
}

fn is_erased(piece: &[u8]) -> bool {
    piece.iter().all(|octet| *octet == 0xff)
}

/// How many octets a part of the flash has.
fn octets(part: Range<u32>) -> usize {
    usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(usize::MAX)
}
