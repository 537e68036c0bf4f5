//! The service: what the edges call.

use std::sync::Arc;

use fleetcert_core::{
    device_id::DeviceId,
    time::Wall,
    wire::{self, NONCE_LEN},
};

use super::{Answer, Peer, Refusal, Request, Seen, Settings};
use crate::{
    authority::{
        Authority, Certificate, Crl, Identity, IssueError, KeyFingerprint, Profile, PublicKey,
        RevocationReason,
    },
    inventory::{Device, Name, StepError},
    random::Random,
    store::{Store, StoreError},
    token::Secret,
};

/// Why a call had no answer.
#[derive(Debug)]
pub enum ServiceError {
    /// It was refused.
    Refused(Refusal),
    /// The state of the device does not allow the step.
    Step(StepError),
    /// There is no such device.
    UnknownDevice(DeviceId),
    /// There is no such group.
    UnknownGroup(Name),
    /// The device exists already.
    DeviceExists(DeviceId),
    /// The database could not do it. Ask again later.
    Store(StoreError),
    /// The authority could not do it: a fault of ours.
    Issue(IssueError),
}

/// The provisioning service over a store.
pub struct Provisioner<S> {
    store: S,
    settings: Arc<Settings>,
    authority: Arc<Authority>,
}

impl<S: Store> Provisioner<S> {
    /// A service that issues from `authority` (the device tree's) by `settings`.
    #[must_use]
    pub fn new(store: S, settings: Settings, authority: Authority) -> Self {
        Self { store, settings: Arc::new(settings), authority: Arc::new(authority) }
    }

    /// The store, for reading.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The device tree's issuing authority.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Enrolls or re-enrolls.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`], or that store or authority could not do it.
    pub async fn enroll(
        &self,
        request: Request,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Answer, ServiceError> {
        todo!()
    }

    /// Which certificate the peer presented, and whether it is still good.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] for a peer without certificate, unknown or revoked.
    pub async fn whoami(
        &self,
        peer: &Peer,
        nonce: [u8; NONCE_LEN],
        now: Wall,
    ) -> Result<Seen, ServiceError> {
        todo!()
    }

    /// When a certificate should be renewed, by its RFC 9773 §4.1 identifier; `Ok(None)` if we
    /// issued no such certificate.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Store`].
    pub async fn renewal_info(
        &self,
        id: &str,
        now: Wall,
    ) -> Result<Option<wire::RenewalInfo>, ServiceError> {
        todo!()
    }

    /// Enters a device into the inventory.
    ///
    /// # Errors
    ///
    /// [`ServiceError::DeviceExists`], [`ServiceError::UnknownGroup`].
    pub async fn add_device(
        &self,
        device: DeviceId,
        group: Name,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        todo!()
    }

    /// Makes a one-time token for a device. The device is entered if `group` is given and it is
    /// not known yet.
    ///
    /// # Errors
    ///
    /// [`ServiceError::UnknownDevice`], [`ServiceError::UnknownGroup`].
    pub async fn issue_token(
        &self,
        order: TokenOrder,
        operator: &str,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Secret, ServiceError> {
        todo!()
    }

    /// Lets the key that waits have a certificate. `key` names the one the operator looked at;
    /// `None` takes whichever waits.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Step`] if no key waits or another one.
    pub async fn approve(
        &self,
        device: DeviceId,
        key: Option<KeyFingerprint>,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        todo!()
    }

    /// Turns the key that waits down.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Step`] if no key waits.
    pub async fn reject(
        &self,
        device: DeviceId,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        todo!()
    }

    /// Revokes a device and all its certificates. A CRL has to be published for peers to know.
    ///
    /// # Errors
    ///
    /// [`ServiceError::UnknownDevice`], [`ServiceError::Step`] if it was revoked before.
    pub async fn revoke(
        &self,
        device: DeviceId,
        reason: RevocationReason,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        todo!()
    }

    /// Issues a server certificate from `authority`, the server tree's.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Store`], [`ServiceError::Issue`].
    pub async fn issue_server(
        &self,
        authority: &Authority,
        order: ServerOrder,
        operator: &str,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Certificate, ServiceError> {
        todo!()
    }

    /// The CRL to serve: the newest one, or a new one where that is due or `force` is set.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Store`], [`ServiceError::Issue`].
    pub async fn crl(&self, now: Wall, force: bool) -> Result<Crl, ServiceError> {
        todo!()
    }
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    /// For which device.
    pub device: DeviceId,
    /// The group to enter the device into if it is not known.
    pub group: Option<Name>,
    /// At which label it is good; `None`: any of the device's group.
    pub label: Option<Name>,
    /// How long it is good, seconds, at most [`crate::token::TOKEN_TTL_S_MAX`].
    pub ttl_s: u64,
}

/// A server certificate to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOrder {
    /// What it contains; of kind [`Kind::Server`](crate::authority::profile::Kind::Server).
    pub profile: Profile,
    /// Under which names; an [`Identity::Server`].
    pub identity: Identity,
    /// For which key.
    pub key: PublicKey,
}
