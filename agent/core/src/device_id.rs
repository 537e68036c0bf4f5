//! The name of a device, as it stands in its certificate and in every topic.
//!
//! **What it is.** One text that is at once the subject CN of the certificate, the MQTT user name,
//! client id and topic level, the last segment of the SPIFFE id, and the user of HTTP Basic. Its
//! alphabet is what all of these carry without quoting.
//!
//! **What it must never do.** Mean two things. A name with `/`, `+`, `#` or a leading `$` would
//! change what an ACL pattern matches; `.` and `..` are no path segments; a leading `-` is an
//! option to whatever program gets the name as an argument; `:` would end the user of HTTP Basic.
//!
//! **Why that is sound.** [`DeviceId::parse`] is the only way in, for serde too, and it admits
//! `[A-Za-z0-9_][A-Za-z0-9._-]{0,63}` only.

use core::fmt;

use heapless::String;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Octets of a device id, at most: what a common name may have (RFC 5280 appendix A.1,
/// `ub-common-name`).
pub const DEVICE_ID_LEN_MAX: usize = 64;

/// The name of a device: `[A-Za-z0-9._-]`, 1 to [`DEVICE_ID_LEN_MAX`] of them, the first neither
/// `.` nor `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(String<DEVICE_ID_LEN_MAX>);

/// Why a text is no device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceIdError {
    /// It holds a character from outside `[A-Za-z0-9._-]`.
    Character {
        /// The first such character.
        found: char,
        /// Where it begins, octets from the start.
        at: usize,
    },
    /// It is empty.
    Empty,
    /// It begins with `.` or `-`.
    FirstCharacter {
        /// Which of the two.
        found: char,
    },
    /// It is longer than [`DEVICE_ID_LEN_MAX`].
    Length {
        /// Its length, octets.
        found: usize,
    },
}

impl DeviceId {
    /// Octets of a device id, at most.
    pub const MAX_LEN: usize = DEVICE_ID_LEN_MAX;

    /// Takes a text as the name of a device.
    ///
    /// # Errors
    ///
    /// [`DeviceIdError`] says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, DeviceIdError> {
        match text.as_bytes() {
            [] => return Err(DeviceIdError::Empty),
            [first @ (b'.' | b'-'), ..] => {
                return Err(DeviceIdError::FirstCharacter { found: char::from(*first) });
            }
            _ => {}
        }
        if let Some(at) = text.bytes().position(|octet| !is_allowed(octet)) {
            // What is before it is ASCII.
            let found = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
            return Err(DeviceIdError::Character { found, at });
        }
        let too_long = DeviceIdError::Length { found: text.len() };
        String::try_from(text).map(Self).map_err(|_| too_long)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_allowed(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-')
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({})", self.0)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for DeviceIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Character { found, at } => {
                let found = found.escape_default();
                write!(f, "device id has '{found}' at octet {at}, only [A-Za-z0-9._-] may be")
            }
            Self::Empty => f.write_str("device id is empty"),
            Self::FirstCharacter { found } => {
                let found = found.escape_default();
                write!(f, "device id begins with '{found}', a letter, digit or '_' should")
            }
            Self::Length { found } => {
                write!(f, "device id has {found} octets, at most {DEVICE_ID_LEN_MAX} may be")
            }
        }
    }
}

impl core::error::Error for DeviceIdError {}

impl AsRef<str> for DeviceId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl core::str::FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        Self::parse(text)
    }
}

impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::<DEVICE_ID_LEN_MAX>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::{String as Text, ToString};

    use super::{DEVICE_ID_LEN_MAX, DeviceId, DeviceIdError};

    #[test]
    fn every_allowed_character_is_kept_as_it_is() {
        for text in ["a", "_", "0.-", "gw-0001.site_7", "AZaz09._-"] {
            assert_eq!(DeviceId::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn sixty_four_octets_are_a_device_id_and_sixty_five_are_not() {
        let longest = "x".repeat(DEVICE_ID_LEN_MAX);
        assert_eq!(DeviceId::parse(&longest).unwrap().to_string(), longest);
        let longer = "x".repeat(DEVICE_ID_LEN_MAX + 1);
        assert_eq!(DeviceId::parse(&longer), Err(DeviceIdError::Length { found: 65 }));
    }

    #[test]
    fn an_empty_text_is_refused() {
        assert_eq!(DeviceId::parse(""), Err(DeviceIdError::Empty));
    }

    #[test]
    fn a_leading_dot_or_dash_is_refused_so_that_no_path_or_option_can_be_named() {
        for (text, found) in [(".", '.'), ("..", '.'), (".a", '.'), ("-rf", '-')] {
            assert_eq!(DeviceId::parse(text), Err(DeviceIdError::FirstCharacter { found }));
        }
    }

    #[test]
    fn what_means_something_to_mqtt_http_or_x509_is_refused_where_it_stands() {
        for found in ['/', '+', '#', '$', ':', ',', '=', ' ', '\0', '\n', '%', '@', 'é', '{', '`']
        {
            let text = format!("a{found}b");
            assert_eq!(DeviceId::parse(&text), Err(DeviceIdError::Character { found, at: 1 }));
        }
    }

    #[test]
    fn serde_validates_what_it_reads() {
        let mut buffer = [0; 80];
        let id = DeviceId::parse("gw-1").unwrap();
        let bytes = postcard::to_slice(&id, &mut buffer).unwrap();
        assert_eq!(bytes, b"\x04gw-1");
        assert_eq!(postcard::from_bytes::<DeviceId>(bytes), Ok(id));
        assert!(postcard::from_bytes::<DeviceId>(b"\x04gw/1").is_err());
        assert!(postcard::from_bytes::<DeviceId>(b"\x00").is_err());
    }

    #[test]
    fn errors_and_ids_read_as_text() {
        let id: DeviceId = "gw-1".parse().unwrap();
        assert_eq!(format!("{id:?} {id:>6} {}", id.as_ref()), "DeviceId(gw-1)   gw-1 gw-1");
        let cases: [(DeviceIdError, Text); 4] = [
            (
                DeviceIdError::Character { found: '/', at: 2 },
                "device id has '/' at octet 2, only [A-Za-z0-9._-] may be".into(),
            ),
            (DeviceIdError::Empty, "device id is empty".into()),
            (
                DeviceIdError::FirstCharacter { found: '-' },
                "device id begins with '-', a letter, digit or '_' should".into(),
            ),
            (
                DeviceIdError::Length { found: 65 },
                "device id has 65 octets, at most 64 may be".into(),
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
