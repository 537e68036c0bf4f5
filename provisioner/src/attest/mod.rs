//! What a device has to prove before it is believed to hold its key in a genuine TPM.
//!
//! **What it is.** Pure functions over octets: [`ek`] judges the certificate chain of an
//! endorsement key (EK) against the roots that an operator trusts ([`root`]), [`allow`] reads the
//! list of endorsement keys that an operator vouches for, [`model`] says what kind of TPM a
//! certificate speaks of, and [`spki`] gives every endorsement key one name, its [`EkId`].
//! [`evidence`] judges the keys themselves and what one of them certified of another, and
//! [`credential`] makes what only a TPM with both endorsement and attestation key can open.
//!
//! **What it must never do.** Reach for a clock, a store or a source of randomness: they are
//! arguments. Nor refuse without saying why: every refusal is a variant with a code of its own. Nor
//! panic on any octets: all of this is fed by strangers. It says what is true of a TPM, never who
//! gets a certificate: that is the policy's (`enroll`).
//!
//! **Why that is sound.** Whoever holds the same octets and the same time comes to the same
//! verdict, so a verdict can be repeated from what was recorded. And the chain of reasons is short.
//! A certificate, or the operator's list, says that an endorsement key lives in a genuine TPM. A
//! credential is opened by that TPM alone, and only while it holds an attestation key of exactly
//! the Name that was computed here. Such a key is restricted: it signs nothing that begins like a
//! TPM's statement unless the TPM made it. So a statement that it signed about a device key is
//! true, and the secret of the credential in it says that it was made for this request.

use std::fmt;

use crate::authority::{sha256, write_hex};

pub mod allow;
pub mod credential;
pub mod ek;
pub mod evidence;
#[cfg(test)]
pub(crate) mod forge;
pub mod model;
pub mod root;
pub mod spki;

/// Hexadecimal digits of a SHA-256.
pub const DIGEST_TEXT_LEN: usize = 64;

/// The name of an endorsement key: SHA-256 of its canonical `SubjectPublicKeyInfo`, see [`spki`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EkId(pub [u8; 32]);

/// A text that is no SHA-256 in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HexError {
    /// It has something else than a hexadecimal digit.
    Digit {
        /// The first such character.
        found: char,
    },
    /// It is shorter or longer than [`DIGEST_TEXT_LEN`].
    Length {
        /// Its length, octets.
        found: usize,
    },
}

impl EkId {
    /// The name of the key with this canonical `SubjectPublicKeyInfo`, see [`spki::Key::spki_der`].
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Self {
        Self(sha256(der))
    }

    /// Reads 64 hexadecimal digits, small or capital.
    ///
    /// # Errors
    ///
    /// [`HexError`].
    pub fn parse(text: &str) -> Result<Self, HexError> {
        digest_of_hex(text).map(Self)
    }
}

/// A SHA-256 from its text form.
fn digest_of_hex(text: &str) -> Result<[u8; 32], HexError> {
    if let Some(found) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(HexError::Digit { found });
    }
    hex_octets(text).ok_or(HexError::Length { found: text.len() })
}

/// Exactly `N` octets from twice as many hexadecimal digits.
fn hex_octets<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(pairs) {
        *octet = pair.iter().try_fold(0, |value, digit| {
            let digit = char::from(*digit).to_digit(16)? as u8;
            Some(value * 16 + digit)
        })?;
    }
    Some(octets)
}

impl fmt::Display for EkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for EkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EkId({self})")
    }
}

impl fmt::Display for HexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digit { found } => {
                write!(f, "{found:?} is in it, expected {} hexadecimal digits", DIGEST_TEXT_LEN)
            }
            Self::Length { found } => {
                write!(f, "it has {found} digits, expected {} hexadecimal digits", DIGEST_TEXT_LEN)
            }
        }
    }
}

impl std::error::Error for HexError {}

#[cfg(test)]
pub(crate) mod testing;
