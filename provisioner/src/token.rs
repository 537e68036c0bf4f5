//! One-time tokens: an operator's word that one named device may enroll once.
//!
//! A token is 256 random bits, shown once and stored as its SHA-256 only: who reads the database
//! cannot enroll with what it finds, and a hash without salt is enough because nothing of that
//! entropy can be guessed. It is bound to a device, optionally to an EST label, and to a deadline.
//!
//! *Single use* survives a power cut: the request that used a token is stored with it, and that
//! request, with the same key, may come again; nothing else may.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use fleetcert_core::{device_id::DeviceId, time::Wall, wire::REQUEST_ID_LEN};
use subtle::ConstantTimeEq;

use crate::{
    authority::{KeyFingerprint, Serial, sha256, write_hex},
    inventory::Name,
    random::Random,
};

/// Octets of a token.
pub const TOKEN_LEN: usize = 32;

/// How long a token lives at most, seconds: thirty days. A device that waits in a box longer than
/// this should get a new one.
pub const TOKEN_TTL_S_MAX: u64 = 30 * 86_400;

/// The secret, to be shown once. Its `Debug` hides it; `text` does not.
pub struct Secret(zeroize::Zeroizing<[u8; TOKEN_LEN]>);

/// SHA-256 of a token's octets: what is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What identifies it.
    pub hash: TokenHash,
    /// The device it is for.
    pub device: DeviceId,
    /// The EST label it is for; `None`: any of the device's group.
    pub label: Option<Name>,
    /// When it was made.
    pub created_at: Wall,
    /// The last second at which it is taken.
    pub expires_at: Wall,
    /// What used it.
    pub used: Option<Use>,
}

/// The request that used a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// When.
    pub at: Wall,
    /// The name of the request, if it had one.
    pub request: Option<[u8; REQUEST_ID_LEN]>,
    /// Its public key.
    pub key: KeyFingerprint,
    /// The certificate it got.
    pub serial: Serial,
}

/// Why a token does not let a request in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Its time is over.
    Expired {
        /// The last second at which it was good.
        expires_at: Wall,
        /// When it came.
        now: Wall,
    },
    /// No such token was issued.
    Unknown,
    /// Another request used it, or the same with another key.
    Used {
        /// When.
        at: Wall,
    },
    /// It was issued for another device.
    WrongDevice {
        /// The device that presented it.
        found: DeviceId,
    },
    /// It was issued for another label.
    WrongLabel {
        /// The label where it came.
        found: Option<Name>,
    },
}

impl Secret {
    /// Draws a token.
    #[must_use]
    pub fn draw(rng: &mut dyn Random) -> Self {
        let mut bytes = zeroize::Zeroizing::new([0; TOKEN_LEN]);
        rng.fill(bytes.as_mut_slice());
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The token as its holder types it: base64url without padding (RFC 4648 §5), 43 characters.
    #[must_use]
    pub fn text(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(Base64UrlUnpadded::encode_string(self.0.as_slice()))
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(sha256(self.0.as_slice()))
    }

    /// Reads what [`Secret::text`] wrote; white space at its ends is dropped.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = zeroize::Zeroizing::new([0; TOKEN_LEN]);
        let decoded = Base64UrlUnpadded::decode(text.trim(), bytes.as_mut_slice()).ok()?;
        (decoded.len() == TOKEN_LEN).then_some(())?;
        Some(Self(bytes))
    }
}

/// What a token is held against.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The hash of what was presented.
    pub hash: &'a TokenHash,
    /// By which device.
    pub device: &'a DeviceId,
    /// At which label.
    pub label: Option<&'a Name>,
    /// In which request.
    pub request: Option<[u8; REQUEST_ID_LEN]>,
    /// With which key.
    pub key: KeyFingerprint,
}

/// What a good token permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The certificate that it got before, again: same request, same key.
    Again(Serial),
    /// One certificate.
    Once,
}

impl Token {
    /// Holds the token against what was presented.
    ///
    /// A token that is used up permits the same request with the same key to have the same answer
    /// again, whatever the time: its answer may have been lost with the power.
    ///
    /// # Errors
    ///
    /// [`TokenError`]: whose it is before whether it is still good, so that nobody but its holder
    /// learns about its use.
    pub fn permits(&self, presented: &Presented<'_>, now: Wall) -> Result<Permit, TokenError> {
        if !bool::from(self.hash.0.ct_eq(&presented.hash.0)) {
            return Err(TokenError::Unknown);
        }
        if self.device != *presented.device {
            return Err(TokenError::WrongDevice { found: presented.device.clone() });
        }
        if self.label.is_some() && self.label.as_ref() != presented.label {
            return Err(TokenError::WrongLabel { found: presented.label.cloned() });
        }
        match &self.used {
            Some(used) if used.is_by(presented) => Ok(Permit::Again(used.serial)),
            Some(used) => Err(TokenError::Used { at: used.at }),
            None if now > self.expires_at => {
                Err(TokenError::Expired { expires_at: self.expires_at, now })
            }
            None => Ok(Permit::Once),
        }
    }
}

impl Use {
    fn is_by(&self, presented: &Presented<'_>) -> bool {
        self.request.is_some() && self.request == presented.request && self.key == presented.key
    }
}

impl TokenError {
    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "token-expired",
            Self::Unknown => "token-unknown",
            Self::Used { .. } => "token-used",
            Self::WrongDevice { .. } => "token-wrong-device",
            Self::WrongLabel { .. } => "token-wrong-label",
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { expires_at, now } => write!(
                f,
                "the token was good until {}, it is {}: ask for a new one",
                expires_at.0, now.0
            ),
            Self::Unknown => f.write_str("no such token was issued: check what was typed"),
            Self::Used { at } => {
                write!(f, "the token was used at {}, each is good once: ask for a new one", at.0)
            }
            Self::WrongDevice { found } => {
                write!(f, "the token is for another device than {found}")
            }
            Self::WrongLabel { found: Some(label) } => {
                write!(f, "the token is for another label than {label}")
            }
            Self::WrongLabel { found: None } => {
                f.write_str("the token is for a label, the request came without one")
            }
        }
    }
}

impl std::error::Error for TokenError {}

impl fmt::Display for TokenHash {
    /// The first eight octets in hexadecimal: enough to tell tokens apart in a list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0[..8])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}
