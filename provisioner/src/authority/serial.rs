//! Serial numbers: random, positive, at most 20 octets (RFC 5280 §4.1.2.2).
//!
//! Drawn before anything is known of the request and never derived from its key: a key that lives
//! in a TPM comes back at every renewal, and two certificates with one serial number cannot be
//! told apart by a CRL.

use std::fmt;

use fleetcert_core::wire::SERIAL_LEN_MAX;

use crate::random::Random;

/// Octets that are drawn for a serial number. The top two bits are then fixed, which leaves 126
/// in the first 16 octets and 158 in all: 128 or more are asked for.
pub const SERIAL_LEN: usize = SERIAL_LEN_MAX;

/// A serial number as its DER content octets: minimal, positive, 1 to [`SERIAL_LEN_MAX`] of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial {
    len: u8,
    octets: [u8; SERIAL_LEN_MAX],
}

/// Octets that are no serial number of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialError {
    /// How many octets there were, if that was wrong; else they were not minimal or not positive.
    pub found_len: usize,
}

impl Serial {
    /// Draws a serial number of [`SERIAL_LEN`] octets with the top bits `01`: positive, and its
    /// DER never grows or shrinks.
    #[must_use]
    pub fn draw(rng: &mut dyn Random) -> Self {
        let mut octets = [0; SERIAL_LEN];
        rng.fill(&mut octets);
        octets[0] = octets[0] & 0x3f | 0x40;
        Self { len: SERIAL_LEN_MAX as u8, octets }
    }

    /// Takes DER content octets.
    ///
    /// # Errors
    ///
    /// [`SerialError`] if they are too many or none, negative, zero, or not minimal.
    pub fn from_octets(octets: &[u8]) -> Result<Self, SerialError> {
        let error = SerialError { found_len: octets.len() };
        let minimal = match *octets {
            [] | [0] => false,
            [0, second, ..] => second >= 0x80,
            [first, ..] => first < 0x80,
        };
        if !minimal || octets.len() > SERIAL_LEN_MAX {
            return Err(error);
        }
        let mut serial = Self { len: octets.len() as u8, octets: [0; SERIAL_LEN_MAX] };
        serial.octets[..octets.len()].copy_from_slice(octets);
        Ok(serial)
    }

    /// The DER content octets.
    #[must_use]
    pub fn as_octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// Reads hexadecimal digits, with or without colons between the octets, as people copy them.
    ///
    /// # Errors
    ///
    /// [`SerialError`] as for [`Serial::from_octets`].
    pub fn parse(text: &str) -> Result<Self, SerialError> {
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b':').collect();
        let error = SerialError { found_len: digits.len() / 2 };
        if !digits.len().is_multiple_of(2) || digits.len() / 2 > SERIAL_LEN_MAX {
            return Err(error);
        }
        let octets: Option<Vec<u8>> = digits
            .chunks_exact(2)
            .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
            .collect();
        Self::from_octets(&octets.ok_or(error)?)
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_octets().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl fmt::Display for SerialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} octets are no serial number, expected 1 to {SERIAL_LEN_MAX} of a positive number",
            self.found_len
        )
    }
}

impl std::error::Error for SerialError {}
