//! Names: how TPM objects are called, and by what no two of them are confused.
//!
//! A Name is the hash of the whole public area under the area's own algorithm, preceded by that
//! algorithm's identifier. It is always computed here, from the bytes that were parsed: a Name
//! that somebody sends proves nothing.

use core::cmp::Ordering;
use core::fmt;

use crate::hash::{DIGEST_LEN_MAX, HashAlg};

/// Octets of the longest [`Name`].
pub const NAME_LEN_MAX: usize = ALG_ID_LEN + DIGEST_LEN_MAX;

/// Octets of a public area, at most: twice an RSA-4096 key with everything around it.
pub const PUBLIC_AREA_LEN_MAX: usize = 1024;

const ALG_ID_LEN: usize = 2;

/// The Name of an object: `nameAlg ‖ H(public area)`. TPM 2.0 Part 1 §16.
#[doc(alias = "TPM2B_NAME")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    octets: [u8; NAME_LEN_MAX],
    alg: HashAlg,
}

/// The front of a Name's digest: enough for people to tell two keys apart, and small enough for an
/// error. Nothing is decided by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NameHead([u8; HEAD_LEN]);

/// Octets of a [`NameHead`].
const HEAD_LEN: usize = 8;

/// Why a public area has no Name for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Its name algorithm is none of [`HashAlg`].
    Algorithm {
        /// The identifier found.
        found: u16,
    },
    /// It is longer than any public area.
    TooLong {
        /// Octets found; [`PUBLIC_AREA_LEN_MAX`] are allowed.
        found: usize,
    },
    /// It ends before its name algorithm.
    TooShort {
        /// Octets found.
        found: usize,
    },
}

impl Name {
    /// The Name of the object with this public area (a marshalled `TPMT_PUBLIC`, without the
    /// length of a `TPM2B_PUBLIC` before it).
    ///
    /// # Errors
    ///
    /// [`NameError`]. Only the first four octets are looked at: whether the rest is a public area
    /// and nothing more, its parser has to say.
    pub fn of_public_area(area: &[u8]) -> Result<Self, NameError> {
        if area.len() > PUBLIC_AREA_LEN_MAX {
            return Err(NameError::TooLong { found: area.len() });
        }
        let &[_, _, high, low, ..] = area else {
            return Err(NameError::TooShort { found: area.len() });
        };
        let found = u16::from_be_bytes([high, low]);
        let alg = HashAlg::from_id(found).ok_or(NameError::Algorithm { found })?;
        let mut octets = [0; NAME_LEN_MAX];
        octets[..ALG_ID_LEN].copy_from_slice(&found.to_be_bytes());
        octets[ALG_ID_LEN..].copy_from_slice(&alg.digest(&[area]));
        Ok(Self { octets, alg })
    }

    /// Takes a Name that was recorded from [`Name::as_bytes`]. One that somebody sends proves
    /// nothing; one of our own tells a key again.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the algorithm is none, or is followed by anything but a digest of its own.
    pub fn recorded(octets: &[u8]) -> Result<Self, NameError> {
        let (error, found) = (NameError::TooShort { found: octets.len() }, octets.len());
        let (id, digest) = octets.split_first_chunk::<ALG_ID_LEN>().ok_or(error)?;
        let id = u16::from_be_bytes(*id);
        let alg = HashAlg::from_id(id).ok_or(NameError::Algorithm { found: id })?;
        match digest.len().cmp(&alg.digest_len()) {
            Ordering::Less => return Err(error),
            Ordering::Greater => return Err(NameError::TooLong { found }),
            Ordering::Equal => {}
        }
        let mut name = Self { octets: [0; NAME_LEN_MAX], alg };
        let place = name.octets.get_mut(..found).ok_or(NameError::TooLong { found })?;
        place.copy_from_slice(octets);
        Ok(name)
    }

    /// What people tell it by.
    #[must_use]
    pub fn head(&self) -> NameHead {
        let mut head = [0; HEAD_LEN];
        head.copy_from_slice(&self.octets[ALG_ID_LEN..ALG_ID_LEN + HEAD_LEN]);
        NameHead(head)
    }

    /// The Name as it stands on the wire, without a length before it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..ALG_ID_LEN + self.alg.digest_len()]
    }

    /// The algorithm of the Name, and of everything derived for its object.
    #[must_use]
    pub const fn alg(&self) -> HashAlg {
        self.alg
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.as_bytes(), f)
    }
}

/// Two digits an octet.
fn show(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl fmt::Debug for NameHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameHead({self})")
    }
}

impl fmt::Display for NameHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm { found } => {
                write!(f, "name algorithm {found:#06x} is none of SHA-256, SHA-384 and SHA-512")
            }
            Self::TooLong { found } => {
                write!(f, "public area of {found} octets, at most {PUBLIC_AREA_LEN_MAX}")
            }
            Self::TooShort { found } => write!(f, "public area of only {found} octets"),
        }
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use std::format;
    use std::vec::Vec;

    use super::*;

    /// A storage primary that swtpm 0.7.1 made, and the Name that it gave.
    const SHA256_AREA: &str = "0023000b00030472000000060080004300100003001000\
        20339af57bf5d27bf74509e0f1b21a86b138b4efdd47c27613ea3464863d2811680020e5b8081b1111205851ba1\
        fc4d09d05f12cdac06344fe24cd16edc4e8e8cb5b57";
    const SHA256_NAME: &str =
        "000b03b8175f37c1e15afa1bd50374a3fc2a55f4dbfebb791490b59ee19e6ca7b955";

    /// The same with SHA-384, P-384 and AES-256.
    const SHA384_AREA: &str = "0023000c000304720000000601000043001000040010\
        0030e25657c7fe9f4aa19abca12bc36f39c073bd35f7a367ed84f754f8ac1e22eb3f2e1855190024e9892c6bee2\
        bf7168adf0030e272069ec3f5aee1543239407aa3eca85bbbae686494fda687d9584cda012da4758e3a0d1cdb06\
        84ad7cbf5d5fcd3b10";
    const SHA384_NAME: &str = "000cf9157a7e5027fb9233cadbfcec5d109703b44088920b9c10ac025f353d21a1ec\
        f3008bc130170870ff5abc36432f9935";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    /// Goal: our Names are the ones a TPM gives.
    #[test]
    fn names_are_those_of_a_tpm() {
        for (area, name) in [(SHA256_AREA, SHA256_NAME), (SHA384_AREA, SHA384_NAME)] {
            let ours = Name::of_public_area(&hex(area)).unwrap();
            assert_eq!(ours.as_bytes(), hex(name));
            assert_eq!(format!("{ours:?}"), format!("Name({name})"));
        }
    }

    /// Goal: each octet of the area is part of the Name.
    #[test]
    fn every_changed_octet_changes_the_name() {
        let area = hex(SHA256_AREA);
        let name = Name::of_public_area(&area).unwrap();
        for index in (0..area.len()).filter(|index| ![2, 3].contains(index)) {
            let mut changed = area.clone();
            changed[index] ^= 1;
            assert_ne!(Name::of_public_area(&changed).unwrap(), name, "octet {index}");
        }
    }

    /// Goal: a Name is told again from its octets, and nothing of another length is one.
    #[test]
    fn a_recorded_name_is_read_back_whole() {
        for area in [SHA256_AREA, SHA384_AREA] {
            let name = Name::of_public_area(&hex(area)).unwrap();
            let octets = name.as_bytes();
            assert_eq!(Name::recorded(octets), Ok(name));
            for found in 0..octets.len() {
                let refused = Name::recorded(&octets[..found]);
                assert_eq!(refused, Err(NameError::TooShort { found }));
            }
            let found = octets.len() + 1;
            let longer = [octets, &[0]].concat();
            assert_eq!(Name::recorded(&longer), Err(NameError::TooLong { found }));
        }
        assert_eq!(Name::recorded(&[0, 4, 1]), Err(NameError::Algorithm { found: 4 }));
    }

    /// Goal: what cannot be named is refused with what was found.
    #[test]
    fn areas_without_a_usable_algorithm_are_refused() {
        let refused = |area: &[u8]| Name::of_public_area(area).unwrap_err();
        assert_eq!(refused(&[0, 0x23, 0]), NameError::TooShort { found: 3 });
        assert_eq!(refused(&[0, 0x23, 0, 4, 0]), NameError::Algorithm { found: 4 });
        assert_eq!(refused(&[0; 1025]), NameError::TooLong { found: 1025 });
    }
}
