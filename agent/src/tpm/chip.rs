//! What is asked of a TPM, and what it answers.
//!
//! The operations of a device identity and nothing else, each whole in itself: whatever it loads it
//! puts away again. `super::vault` performs them on a TPM; tests have others.

use std::fmt;

use fleetcert_core::wire::{CHALLENGE_ID_LEN, CHALLENGE_NONCE_LEN};
use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::vault::KeyBlob;

use super::{EkId, TpmTrouble};

/// What opens a TPM.
pub(crate) trait Open: Send + Sync {
    /// Opens it, if its storage primary is `parent`, where that is known.
    ///
    /// # Errors
    ///
    /// [`TpmTrouble`]; [`TpmTrouble::Changed`] if the storage primary is another.
    fn open(&self, parent: Option<Name>) -> Result<Box<dyn Chip>, TpmTrouble>;
}

/// An open TPM.
pub(crate) trait Chip {
    /// Asks what it is and how it stands. Nothing of that needs a key.
    fn facts(&mut self) -> Result<Facts, TpmTrouble>;

    /// The Name of its storage primary.
    fn parent(&mut self) -> Result<Name, TpmTrouble>;

    /// Its endorsement key.
    fn endorsement(&mut self) -> Result<Credentials, TpmTrouble>;

    /// Makes a key under the storage primary.
    fn make(&mut self, template: Template) -> Result<KeyBlob, TpmTrouble>;

    /// Whether a key can be loaded; [`TpmTrouble::ForeignKey`] if not.
    fn probe(&mut self, key: &KeyBlob) -> Result<(), TpmTrouble>;

    /// Signs a digest of SHA-256: r ‖ s.
    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32]) -> Result<[u8; 64], TpmTrouble>;

    /// Solves a challenge, and has the attestation key state that `key` is in this TPM.
    fn vouch(&mut self, key: &KeyBlob, by: &Witness) -> Result<Statement, TpmTrouble>;

    /// Shuts the TPM down.
    fn close(self: Box<Self>);
}

/// What a TPM says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Who made it: four letters.
    pub(crate) manufacturer: String,
    /// Its firmware's version, four numbers.
    pub(crate) firmware: String,
    /// Whether keys that are subject to lockout cannot be used.
    pub(crate) is_locked: bool,
    /// Failed authorizations that are not yet forgiven.
    pub(crate) failures: u32,
    /// How many lock it.
    pub(crate) failures_max: u32,
    /// Seconds until one is forgiven.
    pub(crate) recovery_s: u32,
}

/// An endorsement key.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    /// Its name.
    pub(crate) id: EkId,
    /// Its public area.
    pub(crate) public: Vec<u8>,
    /// Its certificates, DER, its own first; empty if there are none.
    pub(crate) certificates: Vec<u8>,
}

/// With what a statement is made.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    /// The endorsement key that the challenge is for.
    pub(crate) ek: EkId,
    /// The attestation key that the challenge is for.
    pub(crate) ak: KeyBlob,
    /// The challenge.
    pub(crate) challenge: Challenge,
    /// The device key's SubjectPublicKeyInfo, DER.
    pub(crate) spki: Vec<u8>,
}

/// A provisioner's challenge.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    /// Its name.
    pub(crate) id: [u8; CHALLENGE_ID_LEN],
    /// Its nonce.
    pub(crate) nonce: [u8; CHALLENGE_NONCE_LEN],
    /// The content of a `TPM2B_ID_OBJECT`.
    pub(crate) credential: Vec<u8>,
    /// The content of a `TPM2B_ENCRYPTED_SECRET`.
    pub(crate) encrypted_secret: Vec<u8>,
}

/// That a key is in the TPM of the attestation key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// `TPMS_ATTEST`.
    pub(crate) attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub(crate) signature: Vec<u8>,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { manufacturer, firmware, failures, failures_max, .. } = self;
        write!(f, "{manufacturer}, firmware {firmware}, {failures} of {failures_max} failures")
    }
}
