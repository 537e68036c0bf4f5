//! The key store: two slots, private keys that never leave it.
//!
//! **What it is.** [`KeyStore`] is where the machine makes and erases keys,
//! and where TLS and enrollment have things signed. Keys are made by this firmware and
//! lie on flash ([`software`]), or in a TPM ([`tpm`]). Outside of this room that matters to nobody but to who
//! is told about it.
//!
//! **What it must never do.** Hand a private key out or print one. Call a key lost that is merely
//! out of reach: the machine gives an identity up when its key is lost.
//!
//! **Why that is sound.** A store answers in bounded time and by itself: there is one thread of
//! control and nothing to wait for but flash and TPM, which have deadlines of their own (decision
//! 0013). So every call is a plain function.

mod fault;
mod sectors;
pub mod software;
pub mod tpm;

use core::fmt;

use fleetcert_core::est::csr::{P256_RAW_SIGNATURE_LEN, P256_SPKI_LEN};
use fleetcert_core::record::{KeySource, Slot};
use fleetcert_core::wire::Challenge;

use crate::console::show_code;

pub use self::fault::KeyFault;

/// Octets of the SubjectPublicKeyInfo of a key.
pub const SPKI_LEN: usize = P256_SPKI_LEN;

/// Octets of a signature: r ‖ s.
pub const SIGNATURE_LEN: usize = P256_RAW_SIGNATURE_LEN;

/// Octets that hold an [`Introduction`]: an endorsement key of RSA-4096 (592), an attestation key
/// (96), and 2 KiB of certificates, of which most endorsement keys have one of 1 KiB.
pub const INTRODUCTION_LEN_MAX: usize = 592 + 96 + 2048;

/// Two slots of keys, wherever they are. All calls block.
pub trait KeyStore {
    /// Whether what it computes by itself with keys is right, by examples: what a self-test asks. A
    /// store that leaves it to a TPM has nothing to be wrong in.
    fn is_sound() -> bool;

    /// Where the keys live, for people and machines: `tpm` or `software`.
    fn backend(&self) -> &'static str;

    /// Makes sure that there is a key in the slot that can be used: the one that is there, or one
    /// from `source`. Returns the SHA-256 of its SubjectPublicKeyInfo.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Lost`] when the other slot's is asked for and there is none,
    /// [`KeyFault::Unavailable`], as [`KeyStore::probe`].
    fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], KeyFault>;

    /// Erases the slot's key, if there is one.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Unavailable`] when the flash does not do it; to be asked again.
    fn erase(&mut self, slot: Slot) -> Result<(), KeyFault>;

    /// The SubjectPublicKeyInfo of the slot's key, DER. Asks nothing of a TPM.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Lost`] for an empty slot, [`KeyFault::Unavailable`] when the flash does not
    /// answer.
    fn spki(&mut self, slot: Slot) -> Result<[u8; SPKI_LEN], KeyFault>;

    /// Whether the slot's key can be used now.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Lost`] when it is gone for good, [`KeyFault::Unavailable`] when it is not:
    /// a log line says what is in the way, and what to do about it.
    fn probe(&mut self, slot: Slot) -> Result<(), KeyFault>;

    /// Signs a SHA-256 digest with the slot's key, ECDSA on P-256: r ‖ s, 32 octets each.
    ///
    /// # Errors
    ///
    /// As [`KeyStore::probe`].
    fn sign(&mut self, slot: Slot, digest: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault>;

    /// What a provisioner must know before it can ask for evidence about a key; `None` where keys
    /// are not in a TPM. Its parts lie in `out`, for which [`INTRODUCTION_LEN_MAX`] octets are
    /// enough.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Unavailable`], as [`KeyStore::probe`].
    fn introduction<'b>(&mut self, out: &'b mut [u8])
    -> Result<Option<Introduction<'b>>, KeyFault>;

    /// Solves the challenge that answered an introduction, and writes the attribute
    /// `id-aa-attestation` about the slot's key to the front of `out`, for which
    /// [`EVIDENCE_ATTRIBUTE_LEN_MAX`] octets are enough; returns its octets.
    ///
    /// [`EVIDENCE_ATTRIBUTE_LEN_MAX`]: fleetcert_core::est::evidence::EVIDENCE_ATTRIBUTE_LEN_MAX
    ///
    /// # Errors
    ///
    /// As [`KeyStore::probe`]; [`KeyFault::Unavailable`], too, where keys are not in a TPM, for a
    /// challenge that this TPM cannot solve, and when `out` is too small.
    fn vouch(
        &mut self,
        slot: Slot,
        challenge: &Challenge<'_>,
        out: &mut [u8],
    ) -> Result<usize, KeyFault>;

    /// Erases everything of ours, beyond recovery: after a device was decommissioned.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Unavailable`] when the flash does not do it; to be asked again.
    fn wipe(&mut self) -> Result<(), KeyFault>;

    /// Ends the use of a TPM in order, before a loss of power that is planned. The store can be
    /// used again.
    fn close(&mut self);
}

/// With what a device introduces its TPM to a provisioner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction<'b> {
    /// The endorsement key's public area, a `TPMT_PUBLIC`.
    pub ek_public: &'b [u8],
    /// The endorsement key's certificates, DER, its own first; empty where the TPM has none.
    pub ek_certificates: &'b [u8],
    /// The attestation key's public area, a `TPMT_PUBLIC`.
    pub ak_public: &'b [u8],
}

/// Why a flash cannot hold the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The sectors do not fit between base and end.
    OutOfBounds {
        /// The base given.
        base: u32,
        /// How many sectors are needed.
        sectors: usize,
        /// Octets of the flash.
        capacity: usize,
    },
    /// A sector does not hold what is kept in one.
    SectorTooSmall {
        /// Octets of a sector.
        found: usize,
        /// Octets needed.
        needed: usize,
    },
    /// The base is not the beginning of a sector.
    Unaligned {
        /// The base given.
        base: u32,
        /// Octets of a sector.
        sector_len: usize,
    },
    /// The flash is programmed in words that the contents are no multiple of.
    Word {
        /// Octets of a word.
        found: usize,
    },
}

impl LayoutError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OutOfBounds { .. } => "range",
            Self::SectorTooSmall { .. } => "sector",
            Self::Unaligned { .. } => "base",
            Self::Word { .. } => "word",
        }
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "keys", self.code())
    }
}

impl core::error::Error for LayoutError {}
