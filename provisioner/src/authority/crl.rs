//! Certificate revocation lists, version 2 (RFC 5280 §5).
//!
//! A list is complete: every revoked certificate that has not expired, and each that has expired
//! since on one list more, so that a peer that fetches every list has seen every revocation (RFC
//! 5280 §5.3). Its number grows with each list and lives in the store.
//!
//! A list that has run out locks every device out of a broker that checks it. Lists are therefore
//! made at half their validity ([`Crl::due_at`]).

use fleetcert_core::time::Wall;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};

use super::{
    Authority, IssueError, KeyId, Serial,
    issue::{date, tbs_of},
};

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
    /// Makes and signs list number `number`, good for `validity_s` seconds from `now`.
    ///
    /// The caller takes care that the numbers grow: they are in the store.
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
        let reason = |reason| match reason {
            RevocationReason::Unspecified => None,
            RevocationReason::KeyCompromise => Some(rcgen::RevocationReason::KeyCompromise),
            RevocationReason::AffiliationChanged => {
                Some(rcgen::RevocationReason::AffiliationChanged)
            }
            RevocationReason::Superseded => Some(rcgen::RevocationReason::Superseded),
            RevocationReason::CessationOfOperation => {
                Some(rcgen::RevocationReason::CessationOfOperation)
            }
        };
        let line = |revocation: &Revocation| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(revocation.serial.as_octets()),
                revocation_time: date(revocation.at)?,
                reason_code: reason(revocation.reason),
                invalidity_date: None,
            })
        };
        let next_update = now.plus_s(validity_s);
        let params = CertificateRevocationListParams {
            this_update: date(now)?,
            next_update: date(next_update)?,
            crl_number: SerialNumber::from_slice(&number_octets(number)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(line).collect::<Result<_, IssueError>>()?,
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id().0.to_vec()),
        };
        let built = params.signed_by(&self.builder).map_err(IssueError::Builder)?;
        let der = self.sign(&tbs_of(built.der())?)?;
        Ok(Crl { issuer: self.key_id(), number, this_update: now, next_update, der })
    }
}

fn number_octets(number: u64) -> Vec<u8> {
    let octets = number.to_be_bytes();
    let skipped = octets.iter().take_while(|octet| **octet == 0).count().min(7);
    octets[skipped..].to_vec()
}

impl RevocationReason {
    const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
    ];

    /// Its number in RFC 5280 §5.3.1, which is what the database keeps.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }

    /// The reason of that number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Its name as operators type it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
