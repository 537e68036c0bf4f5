//! Prepare, store, sign: in this order, and the types leave no other.
//!
//! [`Authority::prepare`] builds what would be signed and reads it back against the policy. A
//! store takes that [`Prepared`], makes it durable under a serial number that nothing else has,
//! and gives a [`Reserved`] for it. [`Authority::issue`] takes the `Reserved`, by value, and
//! signs. So there is no certificate whose serial the database does not know, whatever dies when.
//!
//! What is stored is the to-be-signed part, not the signature. A device that asks for the same
//! certificate again gets that part signed again: the same serial number, key and dates under
//! another ECDSA signature. That is one certificate to everybody who counts or revokes them, and
//! it costs one write instead of two.

use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
};

use super::{Identity, KeyFingerprint, KeyId, Profile, PublicKey, Serial};

/// An issuing authority with its private key.
pub struct Authority {
    certificate: Vec<u8>,
    key: rcgen::KeyPair,
}

/// A certificate that was built and linted, and that nothing has stored yet.
#[derive(Debug)]
pub struct Prepared {
    tbs: Vec<u8>,
    serial: Serial,
    issuer: KeyId,
    device: Option<DeviceId>,
    key: KeyFingerprint,
    validity: Validity,
}

/// A certificate whose serial number is durable: what may be signed.
#[derive(Debug)]
pub struct Reserved(Prepared);

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its DER.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: Serial,
    /// Its validity.
    pub validity: Validity,
}

/// Why a certificate and a key are no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// The certificate is no certificate.
    Certificate,
    /// The private key is no PKCS#8 P-256 key.
    Key,
    /// The key is not the certificate's.
    KeyMismatch,
    /// The certificate is not an issuing authority's (CA:TRUE, keyCertSign, cRLSign).
    NoAuthority,
}

/// Why a certificate was not prepared or not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// The builder refused.
    Builder(rcgen::Error),
    /// What was built is not what the policy says.
    Lint(super::lint::Finding),
    /// It was prepared for another authority.
    OtherAuthority {
        /// The authority that was asked.
        asked: KeyId,
        /// The authority it names.
        prepared: KeyId,
    },
}

impl Authority {
    /// Takes an issuing authority's certificate and PKCS#8 private key, both DER.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] unless the two belong together and may issue.
    pub fn from_der(certificate: &[u8], pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        todo!()
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The name of its key, as the AKI of what it issues carries it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        todo!()
    }

    /// Builds what a certificate for `identity` and `key` would be at `now`, and lints it.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if the builder or the lint refuse: a fault of ours, not of the requester.
    pub fn prepare(
        &self,
        profile: &Profile,
        identity: &Identity,
        key: &PublicKey,
        serial: Serial,
        now: Wall,
    ) -> Result<Prepared, IssueError> {
        todo!()
    }

    /// Signs what a store has made durable.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if it is another authority's, or the signer refuses.
    pub fn issue(&self, reserved: Reserved) -> Result<Certificate, IssueError> {
        todo!()
    }
}
