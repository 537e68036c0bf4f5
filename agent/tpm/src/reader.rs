//! Reading TPM structures from octets that nobody has checked.
//!
//! Integers are big-endian, and a `TPM2B` is a 16-bit length before its octets (TPM 2.0 Part 1
//! §5). Nothing is copied. A verifier has to say what is wrong with what it was sent: every read
//! of a `Reader` does. A device does nothing else about a malformed answer of its TPM than not to
//! use it: `Parts` are read to their end, and asked once whether they were all there.

/// What is left of an answer, or of what was once one. A number that is not there is read as zero,
/// octets as none, and so is everything behind them: what was read means something once
/// [`Parts::is_whole`] or [`Parts::is_used_up`] was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    rest: &'a [u8],
    is_whole: bool,
}

impl<'a> Parts<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, is_whole: true }
    }

    /// The next `len` octets.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = self.rest.split_at_checked(len);
        self.is_whole &= taken.is_some();
        let (octets, rest) = taken.unwrap_or_default();
        self.rest = rest;
        octets
    }

    /// The next octets as a number, high ones first.
    fn number(&mut self, len: usize) -> u32 {
        self.take(len).iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }

    pub(crate) fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }

    pub(crate) fn u32(&mut self) -> u32 {
        self.number(4)
    }

    /// The content of a `TPM2B`.
    pub(crate) fn sized(&mut self) -> &'a [u8] {
        let len = self.number(2);
        self.take(len as usize)
    }

    /// Fills `number` with the content of a `TPM2B` that may lack zeros in front; `false`, and
    /// nothing is filled, if it is longer.
    pub(crate) fn fill(&mut self, number: &mut [u8]) -> bool {
        let octets = self.sized();
        let zeros_len = number.len().checked_sub(octets.len());
        let place = zeros_len.and_then(|len| number.split_at_mut_checked(len));
        place
            .map(|(zeros, place)| {
                zeros.fill(0);
                place.copy_from_slice(octets);
            })
            .is_some()
    }

    /// What has not been read.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all that was read was there.
    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it was, and nothing else is.
    pub(crate) const fn is_used_up(&self) -> bool {
        self.is_whole && self.rest.is_empty()
    }
}

/// What is left of a buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// How octets are no structure, whatever the structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A `TPM2B` is longer than its kind allows.
    Oversized {
        /// The length it states, octets.
        found: usize,
        /// The length allowed, octets.
        max: usize,
    },
    /// Octets follow the structure.
    Trailing {
        /// How many.
        found: usize,
    },
    /// The buffer ends inside the structure.
    Truncated {
        /// Octets that should follow.
        needed: usize,
        /// Octets that do.
        found: usize,
    },
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// The next `needed` octets.
    pub(crate) fn take(&mut self, needed: usize) -> Result<&'a [u8], Framing> {
        let found = self.rest.len();
        let taken = self.rest.split_at_checked(needed);
        let (octets, rest) = taken.ok_or(Framing::Truncated { needed, found })?;
        self.rest = rest;
        Ok(octets)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Framing> {
        let found = self.rest.len();
        let taken = self.rest.split_first_chunk();
        let (octets, rest) = taken.ok_or(Framing::Truncated { needed: N, found })?;
        self.rest = rest;
        Ok(*octets)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Framing> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Framing> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Framing> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Framing> {
        self.array().map(u64::from_be_bytes)
    }

    /// The content of a `TPM2B` of at most `max` octets.
    pub(crate) fn sized(&mut self, max: usize) -> Result<&'a [u8], Framing> {
        let found = usize::from(self.u16()?);
        if found > max {
            return Err(Framing::Oversized { found, max });
        }
        self.take(found)
    }

    /// Ends the reading: nothing may be left.
    pub(crate) const fn finish(self) -> Result<(), Framing> {
        match self.rest.len() {
            0 => Ok(()),
            found => Err(Framing::Trailing { found }),
        }
    }
}

impl core::fmt::Display for Framing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Oversized { found, max } => {
                write!(f, "a part of {found} octets, at most {max} are allowed")
            }
            Self::Trailing { found } => write!(f, "{found} octets follow the structure"),
            Self::Truncated { needed, found } => {
                write!(f, "{needed} octets should follow, {found} do")
            }
        }
    }
}

impl core::error::Error for Framing {}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;

    /// Goal: integers and sized parts are read in order, and the end is seen.
    #[test]
    fn a_structure_is_read_part_by_part() {
        let mut reader =
            Reader::new(b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\0\x02hi");
        assert_eq!(reader.u8(), Ok(0x01));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(0x0809_0a0b_0c0d_0e0f));
        assert_eq!(reader.finish(), Err(Framing::Trailing { found: 4 }));
        assert_eq!(reader.sized(2), Ok(&b"hi"[..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    /// Goal: parts are read in order; one that is cut anywhere is none, and what is behind it neither.
    #[test]
    fn parts_are_whole_or_not() {
        let octets = b"\x01\x02\x03\x04\x05\x06\x07\0\x02hi";
        let read = |len| {
            let mut parts = Parts::new(&octets[..len]);
            let read = (parts.u8(), parts.u16(), parts.u32(), parts.sized());
            (read, parts.is_whole(), parts.is_used_up())
        };
        assert_eq!(read(11), ((1, 0x0203, 0x0405_0607, &b"hi"[..]), true, true));
        for len in 0..11 {
            let ((first, .., last), is_whole, is_used_up) = read(len);
            assert_eq!((first, last), (u8::from(len > 0), &b""[..]), "{len} octets");
            assert!(!is_whole && !is_used_up, "{len} octets");
        }
        let mut parts = Parts::new(octets);
        assert_eq!((parts.take(20), parts.rest(), parts.is_whole()), (&[][..], &[][..], false));
        let mut parts = Parts::new(octets);
        assert_eq!((parts.take(9).len(), parts.rest()), (9, &b"hi"[..]));
        assert!(parts.is_whole() && !parts.is_used_up());
    }

    /// Goal: a length is compared with its limit and with what is there before it is used.
    #[test]
    fn lengths_are_checked_before_use() {
        let mut reader = Reader::new(b"\0\x03abc");
        assert_eq!(reader.sized(2), Err(Framing::Oversized { found: 3, max: 2 }));
        let mut reader = Reader::new(b"\0\x04abc");
        assert_eq!(reader.sized(4), Err(Framing::Truncated { needed: 4, found: 3 }));
        assert_eq!(Reader::new(b"\0").u16(), Err(Framing::Truncated { needed: 2, found: 1 }));
        assert_eq!(Reader::new(b"").u8(), Err(Framing::Truncated { needed: 1, found: 0 }));
        let mut reader = Reader::new(b"\xff\xff");
        let refused = Framing::Truncated { needed: 0xffff, found: 0 };
        assert_eq!(reader.sized(usize::MAX), Err(refused));
    }

    /// Goal: a refusal says both sides.
    #[test]
    fn refusals_say_what_was_found() {
        for (refusal, said) in [
            (Framing::Oversized { found: 9, max: 8 }, "a part of 9 octets, at most 8 are allowed"),
            (Framing::Trailing { found: 1 }, "1 octets follow the structure"),
            (Framing::Truncated { needed: 4, found: 3 }, "4 octets should follow, 3 do"),
        ] {
            assert_eq!(refusal.to_string(), said);
        }
    }
}
