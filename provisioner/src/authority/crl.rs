//! Certificate revocation lists, version 2 (RFC 5280 §5).

use fleetcert_core::time::Wall;

use super::{Authority, IssueError, KeyId, Serial};

/// Why a certificate was revoked (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevocationReason {
    /// No reason is given.
    Unspecified,
    /// The key is in other hands.
    KeyCompromise,
    /// The device belongs to somebody else, or is another one.
    AffiliationChanged,
    /// A newer certificate took its place.
    Superseded,
    /// The device is out of service.
    CessationOfOperation,
}

/// One line of a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Which certificate.
    pub serial: Serial,
    /// When it was revoked.
    pub at: Wall,
    /// Why.
    pub reason: RevocationReason,
    /// When the certificate expires, after which it may leave the list.
    pub not_after: Wall,
}

/// A published list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// The key that signed it.
    pub issuer: KeyId,
    /// Its number; each is greater than the one before.
    pub number: u64,
    /// When it was made.
    pub this_update: Wall,
    /// When it is no longer good; the next one is made at half this time.
    pub next_update: Wall,
    /// Its DER.
    pub der: Vec<u8>,
}

impl Crl {
    /// When the next list should be made: half-way to `next_update`, so that a publisher has as
    /// long again to be repaired before every peer is locked out.
    #[must_use]
    pub const fn due_at(&self) -> Wall {
        self.this_update.plus_s(self.next_update.s_since(self.this_update) / 2)
    }
}

impl Authority {
    /// Makes and signs the list that follows number `last`.
    ///
    /// # Errors
    ///
    /// [`IssueError::Builder`] if the list cannot be encoded or signed.
    pub fn publish(
        &self,
        number: u64,
        revoked: &[Revocation],
        now: Wall,
        validity_s: u64,
    ) -> Result<Crl, IssueError> {
        todo!()
    }
}
