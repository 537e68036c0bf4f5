//! Whether a key is what a device says it is: a key that a TPM made and keeps.
//!
//! **What it is.** The judgement over three keys and one statement. [`endorsement_key`] and
//! [`attestation_key`] judge what a device names when it asks for a challenge; [`check`] judges
//! what it brings back: that the attestation key, in its own scheme, signed a TPM's statement about
//! the device key, made for this challenge and this request.
//!
//! **What it must never do.** Search for anything: every field is parsed in its place, and Names
//! are computed from what was parsed. Nor accept a key for what it does not forbid: attributes,
//! schemes, curves and lengths are what the templates of an EK, an AK and a device key make them,
//! and everything else is refused.
//!
//! **Why that is sound.** An attestation key that is restricted signs nothing from outside which
//! begins like a statement of a TPM, so a statement with its signature was made by the TPM that
//! holds it; the credential has shown which TPM that is. The statement names the device key by a
//! hash of its whole public area, so attributes cannot be exchanged afterwards. It contains an HMAC
//! under the credential's secret over challenge and request, so it cannot be an older one, or
//! another's. The checks are pure and independent of each other; their order decides nothing but
//! which reason is given when several fail.
//!
//! **Why RustCrypto and not ring.** *ring* verifies no signature of P-521, and RSASSA-PSS only with
//! a salt as long as the digest: a TPM takes the longest salt that fits (TPM 2.0 Part 1 §B.7). One
//! implementation for everything is less to trust than two. The advisory about the timing of `rsa`
//! (RUSTSEC-2023-0071) is about operations with a private key; none is ever done here.

use fleetcert_tpm::{
    attest::{Attest, Body, CERTIFY, ClockInfo, qualifying_data},
    name::Name,
    public::PublicArea,
};
use subtle::ConstantTimeEq as _;

use super::spki::Key;

mod error;
mod key;
mod signature;
mod statement;

pub use self::{
    error::{EvidenceError, KeyFault, Number, Requirement, StatementError},
    key::{AttestationKey, EndorsementKey, attestation_key, endorsement_key},
    statement::{STATEMENT_LEN_MAX, Statement},
};

/// What a statement has to be about.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The attestation key of the challenge.
    pub ak: &'a AttestationKey,
    /// The secret in the challenge's credential.
    pub secret: &'a [u8; 32],
    /// The challenge's name.
    pub challenge: &'a [u8; 16],
    /// The challenge's nonce.
    pub nonce: &'a [u8; 32],
    /// The `SubjectPublicKeyInfo` of the request, DER.
    pub spki: &'a [u8],
}

/// What is proven of a device key, and what its TPM said of itself on that occasion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The Name of the device key.
    pub key_name: Name,
    /// The TPM's clock and how often it was started. Unless the attestation key is of the
    /// endorsement or the platform hierarchy, the TPM adds a number of its own to each count, the
    /// same one as long as the attestation key stays (TPM 2.0 Part 1 §36.7): differences between
    /// two proofs by one key say something, modulo 2³², and values nothing. A count that runs
    /// backwards is a sign of a cloned virtual TPM.
    pub clock: ClockInfo,
    /// The version of the TPM's firmware, as its vendor counts, hidden in the same way.
    pub firmware_version: u64,
}

/// Checks what a device brings for its key. Pure; the time it takes is bounded by the lengths of
/// what is parsed and by one verification of a signature.
///
/// # Errors
///
/// [`EvidenceError`], of the first check that fails.
pub fn check(statement: &Statement, expected: &Expected<'_>) -> Result<Proof, EvidenceError> {
    let attest = Attest::parse(&statement.attest).map_err(EvidenceError::Attest)?;
    let certified = certified_name(&attest)?;
    check_qualifying_data(&attest, expected)?;
    let area = PublicArea::parse(&statement.public);
    let area = area.map_err(|error| EvidenceError::DeviceKey(KeyFault::Area(error)))?;
    check_name(certified, area.name())?;
    expected.ak.verify(&statement.attest, &statement.signature)?;
    let key = key::device_key(&area).map_err(EvidenceError::DeviceKey)?;
    check_request(&key, expected.spki)?;
    Ok(Proof {
        key_name: *area.name(),
        clock: attest.clock,
        firmware_version: attest.firmware_version,
    })
}

/// Only `TPM2_Certify` says that a key is loaded in the TPM.
const fn certified_name<'a>(attest: &Attest<'a>) -> Result<&'a [u8], EvidenceError> {
    match attest.body {
        Body::Certify { name, .. } => Ok(name),
        Body::Other { kind } => Err(EvidenceError::AttestType { found: kind, expected: CERTIFY }),
    }
}

/// The statement was made for this challenge and this request, by who opened the credential.
/// Whoever has not must not learn from the time it takes how much of a guess was right.
fn check_qualifying_data(
    attest: &Attest<'_>,
    expected: &Expected<'_>,
) -> Result<(), EvidenceError> {
    let Expected { secret, challenge, nonce, spki, .. } = *expected;
    let data = qualifying_data(secret, challenge, nonce, spki);
    let same = data.ct_eq(attest.extra_data);
    if same.into() { Ok(()) } else { Err(EvidenceError::QualifyingData) }
}

/// The statement is about the key whose public area came with it.
fn check_name(certified: &[u8], computed: &Name) -> Result<(), EvidenceError> {
    if certified == computed.as_bytes() {
        return Ok(());
    }
    Err(EvidenceError::Name { certified: certified.to_vec(), computed: *computed })
}

/// The request asks for a certificate of that key.
fn check_request(key: &Key, spki: &[u8]) -> Result<(), EvidenceError> {
    if key.spki_der() == spki { Ok(()) } else { Err(EvidenceError::RequestKey) }
}

#[cfg(test)]
mod tests;
