//! The messages between device and provisioner that are ours, in postcard.
//!
//! EST (RFC 7030) carries certificates; these carry the rest, as the bodies of answers with the
//! media type [`MEDIA_TYPE`]. Each begins with a version so that an old device can tell an answer
//! that it does not understand from one that is damaged. `docs/design/wire.md` lays them out byte
//! by byte. They are views: text borrows from the buffer that was parsed.

use serde::{Deserialize, Serialize};

use crate::time::Wall;

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

/// Octets that any message of this module takes, at most.
pub const MESSAGE_LEN_MAX: usize = 256;

/// Which certificate the provisioner saw on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI<'a> {
    /// [`VERSION`].
    pub version: u8,
    /// The nonce of the request, returned.
    pub nonce: [u8; NONCE_LEN],
    /// Serial number of the client certificate, DER content octets, at most [`SERIAL_LEN_MAX`].
    #[serde(borrow)]
    pub serial: &'a [u8],
    /// The authenticated device id.
    pub device_id: &'a str,
    /// When the provisioner answered.
    pub server_time: Wall,
}

/// When a certificate should be renewed (the semantics of RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A message that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The bytes are not such a message, or more follow it.
    Malformed,
    /// A message of another version.
    Version {
        /// The version found; [`VERSION`] was expected.
        found: u8,
    },
}
