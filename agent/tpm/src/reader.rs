//! Reading TPM structures from octets that nobody has checked.
//!
//! Integers are big-endian, and a `TPM2B` is a 16-bit length before its octets (TPM 2.0 Part 1
//! §5). Every read says what it found short; nothing is copied.

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
