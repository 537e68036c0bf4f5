//! What a TPM states and a key of its own signs, and what ties a statement to one request.
//!
//! **What it is.** A view of a marshalled `TPMS_ATTEST`, read as far as a verifier needs: the
//! header of every kind, and the body of the one kind that is evidence of a key
//! (`TPM2_Certify`). And the value that the device puts into the statement, computed alike on both
//! sides.
//!
//! **What it must never do.** Take the kind of a statement for granted: creation, quote and time
//! statements are signed by the same key and share the header. Another kind is therefore read,
//! too, as what it is, so that its verifier can say what it got.
//!
//! **Why that is sound.** The magic number stands where every statement of a TPM has it, and a
//! restricted key signs nothing with that beginning from anywhere else. A statement is one only if
//! its whole buffer is used up.

use core::fmt;

use crate::hash::HashAlg;
use crate::name::NAME_LEN_MAX;
use crate::reader::{Framing, Reader};

/// How every statement of a TPM begins: `ff 54 43 47`. TPM 2.0 Part 2 §6.2.
#[doc(alias = "TPM_GENERATED_VALUE")]
pub const MAGIC: u32 = 0xFF54_4347;

/// The identifier of a statement of `TPM2_Certify`. TPM 2.0 Part 2 §6.9.
#[doc(alias = "TPM_ST_ATTEST_CERTIFY")]
pub const CERTIFY: u16 = 0x8017;

/// The identifier of a statement of `TPM2_CertifyCreation`. TPM 2.0 Part 2 §6.9.
#[doc(alias = "TPM_ST_ATTEST_CREATION")]
pub const CREATION: u16 = 0x801A;

/// Octets of a statement, at most: one of `TPM2_Certify` with Names and data of SHA-512 has 303.
pub const ATTEST_LEN_MAX: usize = 512;

/// Octets of what the caller puts into a statement, at most: a digest with its algorithm.
#[doc(alias = "TPM2B_DATA")]
pub const EXTRA_DATA_LEN_MAX: usize = 66;

/// Octets of the [`qualifying_data`].
pub const QUALIFYING_DATA_LEN: usize = 32;

/// What the [`qualifying_data`] is for, so that its HMAC is never that of something else.
pub const CONTEXT: &[u8] = b"fleetcert attestation v1\0";

/// A statement of a TPM.
#[doc(alias = "TPMS_ATTEST")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attest<'a> {
    /// The qualified Name of the key that signs.
    pub qualified_signer: &'a [u8],
    /// What the caller had put in.
    pub extra_data: &'a [u8],
    /// The TPM's clock and how often it was started.
    pub clock: ClockInfo,
    /// The version of the TPM's firmware, as its vendor counts. Under a key that is neither of the
    /// endorsement nor of the platform hierarchy, the TPM adds a number of its own, constant for
    /// the key. TPM 2.0 Part 1 §36.7.
    pub firmware_version: u64,
    /// What is stated.
    pub body: Body<'a>,
}

/// What a statement states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// That an object is loaded in the TPM.
    Certify {
        /// The object's Name.
        name: &'a [u8],
        /// The Name that also covers its parents.
        qualified_name: &'a [u8],
    },
    /// Something else, which is not read.
    Other {
        /// The identifier of its kind.
        kind: u16,
    },
}

/// The clock of a TPM. TPM 2.0 Part 2 §10.11.1. The two counts are hidden under most keys, as is
/// [`Attest::firmware_version`].
#[doc(alias = "TPMS_CLOCK_INFO")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds that the TPM has been powered since it was cleared.
    pub clock_ms: u64,
    /// Starts of the TPM since it was cleared.
    pub reset_count: u32,
    /// Suspensions of the TPM since its last start.
    pub restart_count: u32,
    /// Whether no larger value of the clock was ever given out.
    pub safe: bool,
}

/// Why octets are no statement of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestError {
    /// It is too long, too short, or has something behind it.
    Framing(Framing),
    /// It begins with something else than [`MAGIC`].
    Magic {
        /// With what.
        found: u32,
    },
    /// Its clock is neither safe nor unsafe.
    Safe {
        /// The octet found; 0 or 1 is expected.
        found: u8,
    },
    /// It is longer than [`ATTEST_LEN_MAX`].
    TooLong {
        /// Its length, octets.
        found: usize,
    },
}

impl<'a> Attest<'a> {
    /// Reads a statement, without the length of a `TPM2B_ATTEST` before it, whole. Of a statement
    /// that is not of `TPM2_Certify`, the body is skipped.
    ///
    /// # Errors
    ///
    /// [`AttestError`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, AttestError> {
        if octets.len() > ATTEST_LEN_MAX {
            return Err(AttestError::TooLong { found: octets.len() });
        }
        let mut reader = Reader::new(octets);
        check_magic(reader.u32()?)?;
        let kind = reader.u16()?;
        let qualified_signer = reader.sized(NAME_LEN_MAX)?;
        let extra_data = reader.sized(EXTRA_DATA_LEN_MAX)?;
        let clock = ClockInfo::parse(&mut reader)?;
        let firmware_version = reader.u64()?;
        let body = Body::parse(kind, reader)?;
        Ok(Self { qualified_signer, extra_data, clock, firmware_version, body })
    }

    /// The identifier of its kind: [`CERTIFY`], [`CREATION`] or another.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self.body {
            Body::Certify { .. } => CERTIFY,
            Body::Other { kind } => kind,
        }
    }
}

const fn check_magic(found: u32) -> Result<(), AttestError> {
    match found {
        MAGIC => Ok(()),
        found => Err(AttestError::Magic { found }),
    }
}

impl<'a> Body<'a> {
    fn parse(kind: u16, mut reader: Reader<'a>) -> Result<Self, Framing> {
        if kind != CERTIFY {
            return Ok(Self::Other { kind });
        }
        let name = reader.sized(NAME_LEN_MAX)?;
        let qualified_name = reader.sized(NAME_LEN_MAX)?;
        reader.finish()?;
        Ok(Self::Certify { name, qualified_name })
    }
}

impl ClockInfo {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, AttestError> {
        Ok(Self {
            clock_ms: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: match reader.u8()? {
                0 => false,
                1 => true,
                found => return Err(AttestError::Safe { found }),
            },
        })
    }
}

/// What the device has its TPM put into the statement about a key: proof that it opened the
/// `secret` of challenge `id` with `nonce`, for a request with the key `spki`
/// (`SubjectPublicKeyInfo`, DER). HMAC-SHA256 with the secret as key, over [`CONTEXT`] and the
/// three in a row; all but the last have a fixed length.
#[must_use]
pub fn qualifying_data(
    secret: &[u8],
    id: &[u8; 16],
    nonce: &[u8; 32],
    spki: &[u8],
) -> [u8; QUALIFYING_DATA_LEN] {
    let digest = HashAlg::Sha256.hmac(secret, &[CONTEXT, id, nonce, spki]);
    let mut data = [0; QUALIFYING_DATA_LEN];
    data.copy_from_slice(&digest[..QUALIFYING_DATA_LEN]);
    data
}

impl From<Framing> for AttestError {
    fn from(framing: Framing) -> Self {
        Self::Framing(framing)
    }
}

impl fmt::Display for AttestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(framing) => framing.fmt(f),
            Self::Magic { found } => {
                write!(f, "the statement begins with {found:#010x}, a TPM's with {MAGIC:#010x}")
            }
            Self::Safe { found } => write!(f, "{found} says nothing of a clock, expected 0 or 1"),
            Self::TooLong { found } => {
                write!(f, "statement of {found} octets, at most {ATTEST_LEN_MAX}")
            }
        }
    }
}

impl core::error::Error for AttestError {}

#[cfg(test)]
mod tests;
