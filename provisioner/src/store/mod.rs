//! The database as the domain sees it: one way to write, and a few ways to look.
//!
//! **What it is.** [`Store::transact`] loads what a decision needs ([`Scope`] to [`View`]), lets
//! the domain decide, and makes everything the decision changes durable at once ([`Verdict`]). One
//! enrollment is one such transaction: the token it uses, the request, the serial number, the
//! state of the device and the audit entries stand or fall together.
//!
//! **What it must never do.** Decide. No rule about tokens, devices or certificates lives below
//! this trait, so the database and the memory of the simulator cannot differ in one.
//!
//! **Why that is sound.** Transactions are serialisable: a decision sees every change that was
//! committed before its own and none that was not. It answers only after its changes are durable.
//! A decision may be asked more than once (a conflict with another process), so it must be a pure
//! function of its view. A [`Reserved`] is made here, from what was committed, and nowhere else.

use std::{fmt, future::Future};

use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
    wire::REQUEST_ID_LEN,
};

use crate::{
    attest::{EkId, root::RootId},
    audit,
    authority::{
        Crl, KeyFingerprint, KeyId, Prepared, Reserved, Revocation, RevocationReason, Serial,
    },
    binding::{Binding, Conflict, Hold, KeyName},
    challenge::{Challenge, ChallengeId},
    inventory::Device,
    token::{Token, TokenHash},
};

pub mod memory;
pub mod sqlite;
pub mod tpm;

pub use self::tpm::{Listing, Mark, StoredRoot, TpmRecord, TpmScope, TpmView};

#[cfg(test)]
mod conformance;

/// The name that a device gave one of its requests.
pub type RequestId = [u8; REQUEST_ID_LEN];

/// Rows that one reading call returns, at most.
pub const PAGE_LEN_MAX: u32 = 1_000;

/// How many certificates back [`Store::newest`] looks. Rows are numbered in the order of their
/// commits and nothing is issued by a clock that stands below the rows before, so the newest
/// `notBefore` is among the last few; they differ by tolerance and backdating only.
pub const NEWEST_LEN: u32 = 128;

/// What a decision needs to see. Each part that is named is loaded if it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// This device.
    pub device: Option<DeviceId>,
    /// This request; it names its device itself.
    pub request: Option<(DeviceId, RequestId)>,
    /// This token.
    pub token: Option<TokenHash>,
    /// This certificate.
    pub certificate: Option<Serial>,
    /// How many devices wait for an operator for the first time.
    pub pending: bool,
    /// The newest CRL of this authority, and what it has revoked.
    pub crl: Option<KeyId>,
    /// What is asked about TPMs.
    pub tpm: TpmScope,
}

/// What a decision sees, at one instant between all other transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The device.
    pub device: Option<Device>,
    /// The request.
    pub request: Option<EnrollmentRequest>,
    /// The certificate that the request got.
    pub request_certificate: Option<StoredCertificate>,
    /// The token.
    pub token: Option<Token>,
    /// The certificate.
    pub certificate: Option<StoredCertificate>,
    /// How many devices are [`Status::Pending`](crate::inventory::Status::Pending); 0 unless asked.
    pub pending: u32,
    /// The newest CRL of the authority.
    pub crl: Option<Crl>,
    /// Every revoked certificate of the authority that had not expired when its newest CRL was
    /// made, in the order of their serial numbers.
    pub revoked: Vec<Revocation>,
    /// What is known about TPMs.
    pub tpm: TpmView,
}

/// What a decision changes, and what it tells its caller once that is durable.
#[derive(Debug)]
pub struct Verdict<T> {
    /// The certificate to reserve, at most one.
    pub reserve: Option<Prepared>,
    /// The rows to write, in this order, after the certificate.
    pub changes: Vec<Change>,
    /// The audit entries to add.
    pub audit: Vec<audit::Entry>,
    /// What the caller gets.
    pub outcome: T,
}

/// A row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An attestation key; it must not have been seen before.
    Ak {
        /// Its Name.
        name: KeyName,
        /// The endorsement key that it lives beside.
        ek: EkId,
        /// When it was first seen.
        at: Wall,
    },
    /// The TPM of a device, in place of the one that it had in the same
    /// [hold](crate::binding::Hold). One that is bound must not be bound to another device.
    Bind(Box<Binding>),
    /// A challenge; its name must be new.
    Challenge(Box<Challenge>),
    /// A conflict, in place of an earlier one of its kind.
    Conflict(Conflict),
    /// A CRL; its number must be new.
    Crl(Crl),
    /// A device, new or changed.
    Device(Device),
    /// Forgets a challenge.
    DropChallenge(ChallengeId),
    /// Forgets every challenge.
    DropChallenges,
    /// Lists an endorsement key for a device; neither must be on the list.
    List {
        /// The key and its device.
        listing: Listing,
        /// When.
        at: Wall,
    },
    /// Forgets the challenges that were good until before then.
    PurgeChallenges {
        /// When.
        before: Wall,
    },
    /// Trusts a root no longer.
    RemoveRoot(RootId),
    /// A request that got a certificate, under its own name; it must be new.
    Request(EnrollmentRequest),
    /// A revocation of one certificate. One that is revoked already stays as it was.
    RevokeCertificate {
        /// Which.
        serial: Serial,
        /// When.
        at: Wall,
        /// Why.
        reason: RevocationReason,
    },
    /// A revocation of every unexpired certificate of a device.
    RevokeDevice {
        /// Which.
        device: DeviceId,
        /// When.
        at: Wall,
        /// Why.
        reason: RevocationReason,
    },
    /// Trusts a root; it must not be trusted already.
    Root(StoredRoot),
    /// Forgets the conflicts of a device.
    SettleConflicts(DeviceId),
    /// A token, new or used.
    Token(Token),
    /// Releases the TPM of a device, if it has one in that hold.
    Unbind(DeviceId, Hold),
    /// Takes the endorsement key of a device off the list.
    Unlist(DeviceId),
    /// Marks a challenge as used, and forgets its secret.
    UseChallenge {
        /// Which.
        id: ChallengeId,
        /// When.
        at: Wall,
    },
}

/// What is durable now.
#[derive(Debug)]
pub struct Committed<T> {
    /// What may be signed, if the verdict reserved a certificate.
    pub reserved: Option<Reserved>,
    /// What the decision tells.
    pub outcome: T,
}

/// A request that got a certificate: why the same request gets the same one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentRequest {
    /// Whose.
    pub device: DeviceId,
    /// Its name.
    pub id: RequestId,
    /// For which key.
    pub key: KeyFingerprint,
    /// What it got.
    pub serial: Serial,
    /// When.
    pub at: Wall,
}

/// A certificate as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCertificate {
    /// Its serial number.
    pub serial: Serial,
    /// The authority that signs it.
    pub issuer: KeyId,
    /// Whose it is; `None`: a server's.
    pub device: Option<DeviceId>,
    /// For which key.
    pub key: KeyFingerprint,
    /// Its validity.
    pub validity: Validity,
    /// The DER of its TBSCertificate.
    pub tbs: Vec<u8>,
    /// When and why it was revoked.
    pub revoked: Option<(Wall, RevocationReason)>,
}

/// Why a store could not do it. Nothing of the transaction happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another process kept the database locked for too long.
    Busy,
    /// What is stored cannot be read: damaged, or of a newer release.
    Corrupt {
        /// The table and column.
        place: &'static str,
    },
    /// A row that must be new is there already: a serial number, a request, a CRL number, an
    /// endorsement key that is bound.
    Duplicate {
        /// The table.
        table: &'static str,
    },
    /// The disk is full or the database cannot be written or read.
    Io {
        /// What the database says.
        cause: String,
    },
    /// The store was closed.
    Closed,
}

/// The database.
pub trait Store: Send + Sync {
    /// Loads `scope`, asks `decide`, makes its verdict durable, then answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing happened, and `decide`'s outcome is void.
    fn transact<T, D>(
        &self,
        scope: Scope,
        decide: D,
    ) -> impl Future<Output = Result<Committed<T>, StoreError>> + Send
    where
        T: Send + 'static,
        D: Fn(&View) -> Verdict<T> + Send + 'static;

    /// Loads a scope without changing anything.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn view(&self, scope: Scope) -> impl Future<Output = Result<View, StoreError>> + Send;

    /// Up to `limit` devices in the order of their ids, from the one after `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn devices(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Device>, StoreError>> + Send;

    /// The newest `limit` certificates of a device, newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn certificates(
        &self,
        device: DeviceId,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<StoredCertificate>, StoreError>> + Send;

    /// The latest `notBefore` of the last [`NEWEST_LEN`] certificates, or of more; `None` if none was
    /// issued.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn newest(&self) -> impl Future<Output = Result<Option<Wall>, StoreError>> + Send;

    /// What is on record about the TPM of a device.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn tpm(&self, device: DeviceId) -> impl Future<Output = Result<TpmRecord, StoreError>> + Send;

    /// Up to `limit` marks, in the order of the devices' ids, from the one after `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn marks(
        &self,
        after: Option<DeviceId>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Mark>, StoreError>> + Send;

    /// Up to `limit` rows of the audit table, from the one after number `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    fn audit(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<audit::Row>, StoreError>> + Send;
}

impl<T> Verdict<T> {
    /// A verdict that changes nothing.
    #[must_use]
    pub const fn new(outcome: T) -> Self {
        Self { reserve: None, changes: Vec::new(), audit: Vec::new(), outcome }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the database stayed locked by another process"),
            Self::Closed => f.write_str("the database is closed"),
            Self::Corrupt { place } => write!(f, "{place} in the database cannot be understood"),
            Self::Duplicate { table } => write!(f, "a row of {table} that must be new exists"),
            Self::Io { cause } => write!(f, "the database cannot be used: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}
