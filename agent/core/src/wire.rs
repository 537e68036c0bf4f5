//! The messages between device and provisioner that are ours, in postcard.
//!
//! EST (RFC 7030) carries certificates; these carry the rest, as bodies with the media type
//! [`MEDIA_TYPE`]. Each begins with a version so that an old device can tell an answer that it does
//! not understand from one that is damaged. `docs/design/wire.md` and `docs/design/attestation.md`
//! lay them out byte by byte. They are views: text borrows from the buffer that was parsed.
//!
//! Here they are read and written field by field, which takes a third of the code, and the crate
//! judges it in the tests. The provisioner has room for the crate: it answers with that who somebody
//! is and when to renew.

mod challenge;

use core::fmt;

#[cfg(test)]
use serde::Deserialize;
use serde::Serialize;

use crate::device_id::DeviceId;
use crate::fields::{Reader, Writer};
use crate::time::Wall;

pub use self::challenge::{
    CHALLENGE_HEADER, CHALLENGE_ID_LEN, CHALLENGE_NONCE_LEN, CHALLENGE_PATH, CREDENTIAL_LEN_MAX,
    Challenge, ChallengeRequest, EK_CERTIFICATES_LEN_MAX, ENCRYPTED_SECRET_LEN_MAX,
    PUBLIC_AREA_LEN_MAX,
};

/// The media type of these messages; a client that accepts it gets them instead of JSON.
pub const MEDIA_TYPE: &str = "application/vnd.fleetcert.v1+postcard";

/// The version that every message of this module carries first.
pub const VERSION: u8 = 1;

/// Path of [`WhoAmI`]; query `nonce=` and 32 hexadecimal digits. Needs a client certificate.
pub const WHOAMI_PATH: &str = "/.well-known/fleetcert/whoami";

/// Path prefix of [`RenewalInfo`]; the certificate's RFC 9773 §4.1 identifier follows.
pub const RENEWAL_INFO_PATH: &str = "/.well-known/fleetcert/renewal-info/";

/// Path prefix of the CRLs; an authority's key identifier in hexadecimal and `.crl` follow.
pub const CRL_PATH: &str = "/.well-known/fleetcert/crl/";

/// Request header: 32 hexadecimal digits that name one enrollment request. The same device asking
/// again with the same name and key gets the same certificate, not a second one.
pub const REQUEST_ID_HEADER: &str = "Fleetcert-Request";

/// Answer header of every refusal: one of the provisioner's reason codes, `[a-z0-9-]{1,32}`.
pub const REASON_HEADER: &str = "Fleetcert-Reason";

/// The reason code that says: this identity was revoked. The only one that changes a device's
/// mind; all others are for people.
pub const REASON_REVOKED: &str = "revoked";

/// Octets of a serial number, at most (RFC 5280 §4.1.2.2).
pub const SERIAL_LEN_MAX: usize = 20;

/// Octets of the nonce in [`WhoAmI`].
pub const NONCE_LEN: usize = 16;

/// Octets of the name of one enrollment request.
pub const REQUEST_ID_LEN: usize = 16;

/// Octets of a time, at most: a variable-length number of 64 bits.
const TIME_LEN_MAX: usize = 10;

/// Octets that [`WhoAmI`] or [`RenewalInfo`] takes, at most.
pub const MESSAGE_LEN_MAX: usize = 256;

/// Which certificate the provisioner saw on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub struct WhoAmI<'a> {
    /// [`VERSION`].
    pub version: u8,
    /// The nonce of the request, returned.
    pub nonce: [u8; NONCE_LEN],
    /// Serial number of the client certificate, DER content octets, at most [`SERIAL_LEN_MAX`].
    #[cfg_attr(test, serde(borrow))]
    pub serial: &'a [u8],
    /// The authenticated device id.
    pub device_id: &'a str,
    /// When the provisioner answered.
    pub server_time: Wall,
}

/// When a certificate should be renewed (the semantics of RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub struct RenewalInfo {
    /// [`VERSION`].
    pub version: u8,
    /// First second of the suggested window.
    pub start: Wall,
    /// Last second of the suggested window; at or before `start` is a fault of the server.
    pub end: Wall,
    /// When the provisioner answered: a device with a slow clock judges the window by this.
    pub server_time: Wall,
    /// When to ask again, seconds.
    pub retry_after_s: u32,
}

/// A message that cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The caller's buffer is too small to write the message to.
    Buffer {
        /// The octets it has.
        found: usize,
    },
    /// The bytes are not such a message, or more follow it; or a field is longer than it may be.
    Malformed,
    /// A message of another version.
    Version {
        /// The version found; [`VERSION`] was expected.
        found: u8,
    },
}

impl<'a> WhoAmI<'a> {
    /// Octets of this message, at most: version, nonce, serial number and device id with their
    /// lengths, and a time of ten octets.
    pub const MAX_LEN: usize =
        1 + NONCE_LEN + (1 + SERIAL_LEN_MAX) + (1 + DeviceId::MAX_LEN) + TIME_LEN_MAX;

    /// Reads a message, which must be all of `octets`.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is of another version, no such message, has a serial number that is
    /// empty or longer than [`SERIAL_LEN_MAX`], or a device id that is none.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = begin(octets)?;
        let message = Self {
            version: VERSION,
            nonce: *fields.array(),
            serial: fields.counted(SERIAL_LEN_MAX),
            device_id: fields.text(DeviceId::MAX_LEN),
            server_time: Wall(fields.varint()),
        };
        end(&fields)?;
        message.check()?;
        Ok(message)
    }

    /// Writes the message to the front of `out`, which [`WhoAmI::MAX_LEN`] octets suffice for.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it would not be read back, or `out` is too small.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], WireError> {
        check_version(self.version)?;
        self.check()?;
        emit(out, |fields| {
            fields.octets(&self.nonce);
            fields.counted(self.serial);
            fields.counted(self.device_id.as_bytes());
            fields.varint(self.server_time.0);
        })
    }

    fn check(&self) -> Result<(), WireError> {
        let is_serial = (1..=SERIAL_LEN_MAX).contains(&self.serial.len());
        let is_sound = is_serial && DeviceId::parse(self.device_id).is_ok();
        if is_sound { Ok(()) } else { Err(WireError::Malformed) }
    }
}

impl RenewalInfo {
    /// Octets of this message, at most: version, three times of ten octets, and five for a number
    /// of 32 bits.
    pub const MAX_LEN: usize = 1 + 3 * TIME_LEN_MAX + 5;

    /// Reads a message, which must be all of `octets`. Its window may be inverted.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is of another version or no such message.
    pub fn parse(octets: &[u8]) -> Result<Self, WireError> {
        let mut fields = begin(octets)?;
        let message = Self {
            version: VERSION,
            start: Wall(fields.varint()),
            end: Wall(fields.varint()),
            server_time: Wall(fields.varint()),
            retry_after_s: fields.varint_32(),
        };
        end(&fields)?;
        Ok(message)
    }

    /// Writes the message to the front of `out`, which [`RenewalInfo::MAX_LEN`] octets suffice for.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it would not be read back, or `out` is too small.
    pub fn emit<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], WireError> {
        check_version(self.version)?;
        emit(out, |fields| {
            for time in [self.start, self.end, self.server_time] {
                fields.varint(time.0);
            }
            fields.varint(self.retry_after_s.into());
        })
    }
}

const fn check_version(found: u8) -> Result<(), WireError> {
    if found == VERSION { Ok(()) } else { Err(WireError::Version { found }) }
}

/// The fields behind the version.
fn begin(octets: &[u8]) -> Result<Reader<'_>, WireError> {
    let (version, fields) = octets.split_first().ok_or(WireError::Malformed)?;
    check_version(*version)?;
    Ok(Reader::new(fields))
}

/// A message is all that there is.
const fn end(fields: &Reader<'_>) -> Result<(), WireError> {
    if fields.is_whole() { Ok(()) } else { Err(WireError::Malformed) }
}

fn emit(out: &mut [u8], write: impl FnOnce(&mut Writer<'_>)) -> Result<&[u8], WireError> {
    let too_small = WireError::Buffer { found: out.len() };
    let mut fields = Writer::new(out);
    fields.octet(VERSION);
    write(&mut fields);
    fields.finish().ok_or(too_small)
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buffer { found } => write!(f, "message does not fit into {found} octets"),
            Self::Malformed => f.write_str("message is malformed"),
            Self::Version { found } => {
                write!(f, "message has version {found}, {VERSION} was expected")
            }
        }
    }
}

impl core::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::{MESSAGE_LEN_MAX, RenewalInfo, WhoAmI, WireError};
    use crate::time::Wall;

    const NONCE: [u8; 16] = *b"0123456789abcdef";
    const WHOAMI: WhoAmI<'_> = WhoAmI {
        version: 1,
        nonce: NONCE,
        serial: b"\x00\xf1\x02",
        device_id: "gw-1",
        server_time: Wall(1_795_304_662),
    };
    const WHOAMI_OCTETS: &[u8] = b"\x010123456789abcdef\x03\x00\xf1\x02\x04gw-1\
        \xd6\xd9\x88\xd8\x06";
    const INFO: RenewalInfo = RenewalInfo {
        version: 1,
        start: Wall(1),
        end: Wall(127),
        server_time: Wall(128),
        retry_after_s: 21600,
    };
    const INFO_OCTETS: &[u8] = b"\x01\x01\x7f\x80\x01\xe0\xa8\x01";

    #[test]
    fn messages_are_these_octets_and_are_read_back() {
        let mut out = [0xee; MESSAGE_LEN_MAX];
        assert_eq!(WHOAMI.emit(&mut out), Ok(WHOAMI_OCTETS));
        assert_eq!(WhoAmI::parse(WHOAMI_OCTETS), Ok(WHOAMI));
        assert_eq!(INFO.emit(&mut out), Ok(INFO_OCTETS));
        assert_eq!(RenewalInfo::parse(INFO_OCTETS), Ok(INFO));
        assert_eq!(postcard::to_slice(&WHOAMI, &mut out).unwrap(), WHOAMI_OCTETS);
        assert_eq!(postcard::from_bytes(WHOAMI_OCTETS), Ok(WHOAMI));
        assert_eq!(postcard::to_slice(&INFO, &mut out).unwrap(), INFO_OCTETS);
        assert_eq!(postcard::from_bytes(INFO_OCTETS), Ok(INFO));
    }

    #[test]
    fn the_longest_messages_have_the_length_that_is_said() {
        let device_id = "x".repeat(64);
        let (serial, server_time) = (&[0xff; 20][..], Wall(u64::MAX));
        let whoami = WhoAmI { serial, device_id: &device_id, server_time, ..WHOAMI };
        let mut out = [0; MESSAGE_LEN_MAX];
        let octets = whoami.emit(&mut out).unwrap();
        assert_eq!((octets.len(), WhoAmI::MAX_LEN), (113, 113));
        assert_eq!(WhoAmI::parse(octets), Ok(whoami));
        let (start, end, retry_after_s) = (server_time, server_time, u32::MAX);
        let info = RenewalInfo { start, end, server_time, retry_after_s, ..INFO };
        let octets = info.emit(&mut out).unwrap();
        assert_eq!((octets.len(), RenewalInfo::MAX_LEN), (36, 36));
        assert_eq!(RenewalInfo::parse(octets), Ok(info));
    }

    #[test]
    fn a_message_cut_at_any_length_or_with_more_behind_it_is_malformed() {
        for len in 0..WHOAMI_OCTETS.len() {
            assert_eq!(WhoAmI::parse(&WHOAMI_OCTETS[..len]), Err(WireError::Malformed));
        }
        for len in 0..INFO_OCTETS.len() {
            assert_eq!(RenewalInfo::parse(&INFO_OCTETS[..len]), Err(WireError::Malformed));
        }
        let longer = [WHOAMI_OCTETS, b"\0"].concat();
        assert_eq!(WhoAmI::parse(&longer), Err(WireError::Malformed));
        let longer = [INFO_OCTETS, b"\0"].concat();
        assert_eq!(RenewalInfo::parse(&longer), Err(WireError::Malformed));
    }

    #[test]
    fn another_version_is_named_whatever_follows_it() {
        for found in [0, 2, 0x80, 0xff] {
            let error = WireError::Version { found };
            assert_eq!(WhoAmI::parse(&[found]), Err(error));
            assert_eq!(RenewalInfo::parse(&[found, 1, 2, 3]), Err(error));
            let mut out = [0; MESSAGE_LEN_MAX];
            assert_eq!(WhoAmI { version: found, ..WHOAMI }.emit(&mut out), Err(error));
            assert_eq!(RenewalInfo { version: found, ..INFO }.emit(&mut out), Err(error));
        }
    }

    #[test]
    fn a_serial_number_or_device_id_that_is_none_is_neither_written_nor_read() {
        let mut out = [0; MESSAGE_LEN_MAX];
        for serial in [&[][..], &[1; 21]] {
            let error = WhoAmI { serial, ..WHOAMI }.emit(&mut out);
            assert_eq!(error, Err(WireError::Malformed));
        }
        let longer = "x".repeat(65);
        for device_id in ["", "a/b", longer.as_str()] {
            let error = WhoAmI { device_id, ..WHOAMI }.emit(&mut out);
            assert_eq!(error, Err(WireError::Malformed));
        }
        let text = b"\x010123456789abcdef\x01\x07\x03a/b\x00";
        assert_eq!(WhoAmI::parse(text), Err(WireError::Malformed));
        let text = b"\x010123456789abcdef\x00\x03a-b\x00";
        assert_eq!(WhoAmI::parse(text), Err(WireError::Malformed));
        let text = b"\x010123456789abcdef\x01\x07\x03a-b\x00";
        assert!(WhoAmI::parse(text).is_ok());
    }

    #[test]
    fn a_buffer_one_octet_too_small_is_refused_and_the_exact_one_does() {
        for found in 0..WHOAMI_OCTETS.len() {
            let error = WHOAMI.emit(&mut vec![0; found]).map(<[u8]>::len);
            assert_eq!(error, Err(WireError::Buffer { found }));
        }
        assert!(WHOAMI.emit(&mut vec![0; WHOAMI_OCTETS.len()]).is_ok());
        let mut small = [0; 7];
        assert_eq!(INFO.emit(&mut small), Err(WireError::Buffer { found: 7 }));
    }

    #[test]
    fn errors_read_as_text() {
        for (error, text) in [
            (WireError::Buffer { found: 7 }, "message does not fit into 7 octets"),
            (WireError::Malformed, "message is malformed"),
            (WireError::Version { found: 2 }, "message has version 2, 1 was expected"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
