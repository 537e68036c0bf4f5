use core::fmt;

use crate::der::{Certificate, CommonNameError, Purpose};
use crate::device_id::DeviceId;
use crate::time::Validity;

/// Why an issued certificate is not the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafError<'a> {
    /// It is an authority's: a device must never sign certificates.
    Authority,
    /// Its subject is not one device.
    CommonName(CommonNameError),
    /// It is for another device.
    DeviceId {
        /// The common name in it.
        found: &'a str,
        /// The device that asked.
        expected: &'a str,
    },
    /// It is for another key.
    Key {
        /// SHA-256 of the public key in it.
        found: [u8; 32],
        /// SHA-256 of the public key that was asked for.
        expected: [u8; 32],
    },
    /// It is not for TLS clients.
    Purpose,
    /// It ends before it begins.
    Validity {
        /// The period in it.
        found: Validity,
    },
}

/// Checks that an issued certificate is what was asked for: this key, this device, a client and no
/// authority, for a time. Who signed it is judged by the TLS stack of those it is shown to.
///
/// # Errors
///
/// [`LeafError`] names the first thing that differs.
pub fn check_leaf<'a>(
    leaf: &Certificate<'a>,
    spki_sha256: &[u8; 32],
    device_id: &'a DeviceId,
) -> Result<(), LeafError<'a>> {
    let (found, expected) = (leaf.spki_sha256(), *spki_sha256);
    if found != expected {
        return Err(LeafError::Key { found, expected });
    }
    let (found, expected) =
        (leaf.common_name().map_err(LeafError::CommonName)?, device_id.as_str());
    if found != expected {
        return Err(LeafError::DeviceId { found, expected });
    }
    if leaf.is_authority() {
        return Err(LeafError::Authority);
    }
    if !leaf.is_for(Purpose::ClientAuth) {
        return Err(LeafError::Purpose);
    }
    let found = leaf.validity();
    if found.not_after < found.not_before {
        return Err(LeafError::Validity { found });
    }
    Ok(())
}

impl fmt::Display for LeafError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority => f.write_str("issued certificate is an authority's"),
            Self::CommonName(error) => write!(f, "issued certificate: {error}"),
            Self::DeviceId { found, expected } => {
                let found = found.as_bytes().escape_ascii();
                write!(f, "issued certificate is for device \"{found}\", not \"{expected}\"")
            }
            Self::Key { found, expected } => {
                f.write_str("issued certificate is for the key ")?;
                write_hex(f, found)?;
                f.write_str(", not ")?;
                write_hex(f, expected)
            }
            Self::Purpose => f.write_str("issued certificate is not for TLS clients"),
            Self::Validity { found: Validity { not_before, not_after } } => {
                write!(
                    f,
                    "issued certificate begins at {} and ends at {}",
                    not_before.0, not_after.0
                )
            }
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl core::error::Error for LeafError<'_> {}
