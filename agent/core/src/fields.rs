//! Fields one behind the other, in the form that postcard gives them: a record's and a message's.
//!
//! **What it is.** Numbers of seven bits an octet, the lowest first; octets behind their length, or
//! without where there are always as many; nothing between them. By hand, because serde's code for
//! the same octets is more than three times as large.
//!
//! **What it must never do.** Read other octets than postcard would: who uses it compares with that
//! in the tests. Go on behind a fault: there is nothing to read any more, and no room to write.

/// Seven bits of a number are in each octet of it but the last.
const VARINT_BITS: u32 = 7;

/// Says of an octet of a number that another one follows.
const VARINT_MORE: u8 = 0x80;

/// Octets that are still to be read. From the first fault on there are none, and what is read means
/// nothing: who has read all that he wants asks [`Reader::is_malformed`] or [`Reader::is_whole`].
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
    is_malformed: bool,
}

/// A place for fields, and how many octets they have so far: more than there is room for once they
/// did not fit.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    space: &'b mut [u8],
    len: usize,
}

impl<'b> Reader<'b> {
    pub(crate) const fn new(octets: &'b [u8]) -> Self {
        Self { rest: octets, is_malformed: false }
    }

    /// Whether something was not what it should have been.
    pub(crate) const fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Whether all was read, and sound.
    pub(crate) const fn is_whole(&self) -> bool {
        !self.is_malformed && self.rest.is_empty()
    }

    /// This is not what it should be: `instead` is read from here on.
    pub(crate) fn fail<T>(&mut self, instead: T) -> T {
        *self = Self { rest: &[], is_malformed: true };
        instead
    }

    #[inline(never)]
    fn octets(&mut self, len: usize) -> &'b [u8] {
        match self.rest.split_at_checked(len) {
            Some((octets, rest)) => {
                self.rest = rest;
                octets
            }
            None => self.fail(&[]),
        }
    }

    /// So many octets, without a length.
    pub(crate) fn array<const N: usize>(&mut self) -> &'b [u8; N] {
        self.octets(N).first_chunk().unwrap_or(&[0; N])
    }

    pub(crate) fn octet(&mut self) -> u8 {
        let [octet] = self.array();
        *octet
    }

    /// A number of at most so many bits.
    #[inline(never)]
    fn number(&mut self, bits: u32) -> u64 {
        let mut number = 0;
        for shift in (0..bits).step_by(VARINT_BITS as usize) {
            let octet = self.octet();
            number |= u64::from(octet & !VARINT_MORE) << shift;
            if octet & VARINT_MORE == 0 {
                // The last octet of the longest holds the bits that are left.
                let is_whole = shift + VARINT_BITS <= bits || octet >> (bits - shift) == 0;
                return if is_whole { number } else { self.fail(0) };
            }
        }
        self.fail(0)
    }

    /// A number of 64 bits.
    pub(crate) fn varint(&mut self) -> u64 {
        self.number(u64::BITS)
    }

    /// A number of 32 bits.
    pub(crate) fn varint_32(&mut self) -> u32 {
        u32::try_from(self.number(u32::BITS)).unwrap_or_default()
    }

    /// Octets behind their length.
    pub(crate) fn counted(&mut self, max: usize) -> &'b [u8] {
        match usize::try_from(self.varint()) {
            Ok(len) if len <= max => self.octets(len),
            _ => self.fail(&[]),
        }
    }

    /// UTF-8 behind its length.
    pub(crate) fn text(&mut self, max: usize) -> &'b str {
        match core::str::from_utf8(self.counted(max)) {
            Ok(text) => text,
            Err(_) => self.fail(""),
        }
    }

    /// Whether an option has a value, which follows.
    pub(crate) fn is_some(&mut self) -> bool {
        match self.octet() {
            0 => false,
            1 => true,
            _ => self.fail(false),
        }
    }
}

impl<'b> Writer<'b> {
    pub(crate) const fn new(space: &'b mut [u8]) -> Self {
        Self { space, len: 0 }
    }

    /// All that was written, if there was room for it.
    pub(crate) fn finish(self) -> Option<&'b [u8]> {
        let Self { space, len } = self;
        space.get(..len)
    }

    #[inline(never)]
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        let rest = self.space.get_mut(self.len..).unwrap_or_default();
        if let Some(place) = rest.get_mut(..octets.len()) {
            place.copy_from_slice(octets);
        }
        self.len = self.len.saturating_add(octets.len());
    }

    pub(crate) fn octet(&mut self, octet: u8) {
        self.octets(&[octet]);
    }

    #[inline(never)]
    pub(crate) fn varint(&mut self, mut number: u64) {
        while number >= u64::from(VARINT_MORE) {
            self.octet(number.to_le_bytes()[0] | VARINT_MORE);
            number >>= VARINT_BITS;
        }
        self.octet(number.to_le_bytes()[0]);
    }

    /// Octets behind their length.
    pub(crate) fn counted(&mut self, octets: &[u8]) {
        self.varint(octets.len() as u64);
        self.octets(octets);
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Numbers at both sides of each length, and at the ends.
    fn numbers() -> impl Iterator<Item = u64> {
        (0..64).map(|bits| 1 << bits).flat_map(|number: u64| [number - 1, number]).chain([u64::MAX])
    }

    /// Goal: what is written is what postcard writes, and is read back.
    #[test]
    fn numbers_are_those_of_postcard() {
        for number in numbers() {
            let (mut judged, mut space) = ([0; 10], [0; 10]);
            let judged = postcard::to_slice(&number, &mut judged).unwrap();
            let mut writer = Writer::new(&mut space);
            writer.varint(number);
            let octets = writer.finish().unwrap();
            assert_eq!(octets, judged);
            let mut reader = Reader::new(octets);
            assert_eq!((reader.varint(), reader.is_whole()), (number, true));
        }
    }

    /// Goal: of any octets the same number is read as postcard reads, or none where it reads none.
    #[test]
    fn octets_are_the_numbers_that_postcard_reads() {
        let ends = [0x00_u8, 0x01, 0x02, 0x0f, 0x10, 0x7f, 0x80, 0x81, 0xff];
        for len in 0..12 {
            for filler in [0x80_u8, 0xff] {
                for end in ends {
                    let octets: Vec<u8> = (0..len).map(|_| filler).chain([end, 7]).collect();
                    let mut reader = Reader::new(&octets);
                    let number = reader.varint();
                    let found = (!reader.is_malformed()).then_some((number, reader.rest));
                    assert_eq!(found, postcard::take_from_bytes::<u64>(&octets).ok());
                    let mut reader = Reader::new(&octets);
                    let number = reader.varint_32();
                    let found = (!reader.is_malformed()).then_some((number, reader.rest));
                    assert_eq!(found, postcard::take_from_bytes::<u32>(&octets).ok());
                }
            }
        }
    }

    /// Goal: behind a fault nothing is read, and it is not forgotten.
    #[test]
    fn a_fault_is_the_end() {
        for mut reader in [Reader::new(b"\x02abc"), Reader::new(b"\x05abc")] {
            let _text = reader.counted(1);
            assert!(reader.is_malformed() && !reader.is_whole());
            assert_eq!((reader.octet(), reader.varint(), reader.text(9)), (0, 0, ""));
            assert!(reader.is_malformed() && !reader.is_whole());
        }
        let mut reader = Reader::new(b"\x01\xff");
        assert_eq!((reader.text(1), reader.is_malformed()), ("", true));
    }

    /// Goal: a place that is too small gives nothing, however much follows.
    #[test]
    fn what_does_not_fit_is_not_given() {
        let mut space = [0; 3];
        let mut writer = Writer::new(&mut space);
        writer.counted(b"ab");
        assert_eq!(writer.finish(), Some(&b"\x02ab"[..]));
        let mut writer = Writer::new(&mut space);
        writer.counted(b"abc");
        writer.octets(b"");
        assert_eq!(writer.finish(), None);
    }
}
