//! The service: what the edges call.
//!
//! Each call is one transaction at most, and a decision inside it; what is here only carries
//! arguments in and answers out, and signs what came back reserved.

use std::{fmt, sync::Arc};

use base64ct::{Base64UrlUnpadded, Encoding};
use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
    wire::{self, NONCE_LEN},
};

use super::{
    Answer, ClockBehind, Peer, Refusal, Request, Seen, Settings,
    decide::{Case, Step, peer_leaf, refused},
    guard::Guard,
    ration::Ration,
};
use crate::{
    attest::{
        EkId,
        credential::CredentialError,
        root::{ROOTS_MAX, RootId},
    },
    audit::{Actor, Entry, Event},
    authority::{
        Authority, Certificate, Crl, Identity, IssueError, KeyFingerprint, Profile, PublicKey,
        Reserved, RevocationReason, Serial, profile::is_reserved,
    },
    binding::Hold,
    inventory::{Device, Name, Status, StepError},
    random::Random,
    store::{Change, Committed, Scope, Store, StoreError, Verdict, View},
    token::{Secret, TOKEN_TTL_S_MAX, Token},
};

mod challenge;
mod operator;

pub use self::{
    challenge::{ChallengeOrder, NewChallenge},
    operator::{IMPORT_LEN_MAX, ImportCount, ImportError, ImportFault, RootsAdded},
};

/// How often a client should ask for renewal information at the latest, seconds.
const RENEWAL_INFO_RETRY_S_MAX: u64 = 86_400;

/// Why a call had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceError {
    /// Our clock stands below the newest certificate: nothing is dated by it.
    ClockBehind(ClockBehind),
    /// No credential could be made for a TPM: a fault of ours.
    Credential(CredentialError),
    /// The device exists already.
    DeviceExists(DeviceId),
    /// The TPM is another device's.
    EkTaken {
        /// Its endorsement key.
        ek: EkId,
        /// The device that it is bound to or listed for.
        holder: DeviceId,
    },
    /// An entry of an import contradicts what is known.
    Import(Box<ImportError>),
    /// An import has more than [`IMPORT_LEN_MAX`] entries.
    ImportTooLong {
        /// How many it has.
        found: usize,
    },
    /// The authority could not do it: a fault of ours.
    Issue(IssueError),
    /// The label is not one of the device's group.
    LabelMismatch {
        /// The label.
        label: Name,
        /// The device's group.
        group: Name,
    },
    /// It was refused.
    Refused(Refusal),
    /// The device id is kept for backends.
    ReservedName(DeviceId),
    /// The state of the device does not allow the step.
    Step(StepError),
    /// The database could not do it. Ask again later.
    Store(StoreError),
    /// The token would live too long, or not at all.
    TokenLifetime {
        /// For how long it was ordered, seconds.
        found_s: u64,
    },
    /// There would be more than [`ROOTS_MAX`] roots.
    TooManyRoots {
        /// How many.
        found: usize,
    },
    /// There is no such device.
    UnknownDevice(DeviceId),
    /// There is no such group.
    UnknownGroup(Name),
    /// There is no such root.
    UnknownRoot(RootId),
}

/// The provisioning service over a store.
#[derive(Debug)]
pub struct Provisioner<S> {
    store: S,
    settings: Arc<Settings>,
    authority: Arc<Authority>,
    guard: Guard,
    ration: Ration,
    roots: challenge::RootsCache,
}

/// Who is refused, for the audit.
struct Asker {
    actor: Actor,
    device: Option<DeviceId>,
    /// It came without a client certificate.
    is_stranger: bool,
}

/// The list to give out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The newest list, still good.
    pub crl: Crl,
    /// Why there is no newer one although it is due: somebody has to look before it runs out.
    pub overdue: Option<ServiceError>,
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
    /// How long it is good, seconds, 1 to [`TOKEN_TTL_S_MAX`].
    pub ttl_s: u64,
}

/// A certificate to be issued that is no device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOrder {
    /// What it contains.
    pub profile: Profile,
    /// Under which names; not a device's.
    pub identity: Identity,
    /// For which key.
    pub key: PublicKey,
}

impl<S: Store> Provisioner<S> {
    /// A service that issues from `authority` (the device tree's) by `settings`.
    #[must_use]
    pub fn new(store: S, settings: Settings, authority: Authority) -> Self {
        let (settings, authority) = (Arc::new(settings), Arc::new(authority));
        Self {
            store,
            settings,
            authority,
            guard: Guard::default(),
            ration: Ration::default(),
            roots: challenge::RootsCache::default(),
        }
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

    /// Holds the clock against the newest certificate in the database. A service asks before it
    /// serves.
    ///
    /// # Errors
    ///
    /// [`ServiceError::ClockBehind`], or [`ServiceError::Store`].
    pub async fn check_stored_clock(&self, now: Wall) -> Result<(), ServiceError> {
        if let Some(newest) = self.store.newest().await? {
            self.guard.raise(newest);
        }
        Ok(self.check_clock(now)?)
    }

    /// Holds the clock against the newest certificate that this service knows of: cheap enough for
    /// every request.
    ///
    /// # Errors
    ///
    /// [`ClockBehind`] with both times.
    pub fn check_clock(&self, now: Wall) -> Result<(), ClockBehind> {
        self.guard.check(now)
    }

    /// Enrolls or re-enrolls.
    ///
    /// Every refusal is recorded but [`Refusal::CredentialsRequired`]; those of strangers as far as
    /// [`super::ration`] says.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`], or that clock, store or authority could not do it.
    pub async fn enroll(
        &self,
        request: Request,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Answer, ServiceError> {
        self.check_clock(now)?;
        let is_stranger = request.peer == Peer::Anonymous;
        let mut asker = Asker { actor: Actor::Anonymous, device: None, is_stranger };
        let serial = Serial::draw(rng);
        let case = match Case::admit(&request, &self.settings, serial, now) {
            Ok(case) => case,
            Err(refusal) => return Err(self.refuse(refusal, asker, now).await),
        };
        let (actor, device) = case.claimed();
        (asker.actor, asker.device) = (actor, Some(device));
        let (settings, authority) = (Arc::clone(&self.settings), Arc::clone(&self.authority));
        let scope = case.scope();
        let decide = move |view: &View| case.decide(view, &settings, &authority);
        let Committed { reserved, outcome } = self.store.transact(scope, decide).await?;
        match (outcome, reserved) {
            (Step::Again(stored), _) => self.sign(Reserved::by_store(*stored)),
            (Step::Issue, Some(reserved)) => self.sign(reserved),
            (Step::Pending { retry_after_s }, _) => Ok(Answer::Pending { retry_after_s }),
            (Step::Refused(refusal), _) => Err(self.refuse(refusal, asker, now).await),
            (Step::Fault(error), _) => Err(ServiceError::Issue(error)),
            (Step::Issue, None) => Err(ServiceError::Store(StoreError::Closed)),
        }
    }

    fn sign(&self, reserved: Reserved) -> Result<Answer, ServiceError> {
        let Certificate { der, serial, validity } = self.authority.issue(reserved)?;
        self.guard.raise(validity.not_before);
        Ok(Answer::Issued { leaf_der: der, serial })
    }

    /// Records a refusal, and gives it back as the error that it is.
    async fn refuse(&self, refusal: Refusal, asker: Asker, now: Wall) -> ServiceError {
        let entry = refused(&refusal, asker.actor, now).map(|mut entry| {
            entry.device = asker.device;
            entry
        });
        let audit = match entry {
            None => Vec::new(),
            Some(entry) if asker.is_stranger => self.ration.entries(entry),
            Some(entry) => vec![entry],
        };
        if audit.is_empty() {
            return ServiceError::Refused(refusal);
        }
        let decide = move |_: &View| Verdict { audit: audit.clone(), ..Verdict::new(()) };
        match self.store.transact(Scope::default(), decide).await {
            Ok(_) => ServiceError::Refused(refusal),
            Err(error) => ServiceError::Store(error),
        }
    }

    /// Which certificate the peer presented, if it is still good.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] for a peer without certificate, unknown, expired or revoked.
    pub async fn whoami(
        &self,
        peer: &Peer,
        nonce: [u8; NONCE_LEN],
        now: Wall,
    ) -> Result<Seen, ServiceError> {
        let peer = peer_leaf(peer, &self.settings)?;
        let (device, leaf, expired) = peer.ok_or(Refusal::CertificateRequired)?;
        let scope = Scope {
            device: Some(device.clone()),
            certificate: Some(leaf.serial),
            ..Scope::default()
        };
        let view = self.store.view(scope.clone()).await?;
        let unknown = Refusal::CertificateUnknown { serial: leaf.serial };
        let stored = view.certificate.filter(|stored| stored.tbs == leaf.tbs).ok_or(unknown)?;
        let inventoried = view.device.ok_or(ServiceError::UnknownDevice(device.clone()))?;
        if stored.revoked.is_some() || inventoried.status == Status::Revoked {
            return Err(Refusal::Revoked { device }.into());
        }
        if expired || stored.validity.is_expired_at(now) {
            return Err(Refusal::CertificateExpired { not_after: stored.validity.not_after }.into());
        }
        if inventoried.is_seen_anew(now) {
            self.store.transact(scope, move |view| seen(view, now)).await?;
        }
        Ok(Seen { nonce, serial: leaf.serial, device, server_time: now })
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
        let Some((key_id, serial)) = certificate_id(id) else { return Ok(None) };
        let view = self.store.view(Scope { certificate: Some(serial), ..Scope::default() }).await?;
        let stored = view.certificate.filter(|stored| stored.issuer.0 == key_id.as_slice());
        Ok(stored.map(|stored| suggestion(stored.validity, now)))
    }

    /// Enters a device into the inventory.
    ///
    /// # Errors
    ///
    /// [`ServiceError::DeviceExists`], [`ServiceError::UnknownGroup`],
    /// [`ServiceError::ReservedName`].
    pub async fn add_device(
        &self,
        device: DeviceId,
        group: Name,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        self.check_new(&device, &group)?;
        let entered = Device::expected(device.clone(), group, now);
        self.step(device, operator, Event::DeviceAdded, now, move |found| match found {
            Some(found) => Err(ServiceError::DeviceExists(found.id.clone())),
            None => Ok((entered.clone(), String::new(), Vec::new())),
        })
        .await
    }

    /// Makes a one-time token for a device. The device is entered if `group` is given and it is
    /// not known yet.
    ///
    /// # Errors
    ///
    /// [`ServiceError::UnknownDevice`], [`ServiceError::UnknownGroup`],
    /// [`ServiceError::LabelMismatch`], [`ServiceError::TokenLifetime`], or
    /// [`ServiceError::Step`] for a revoked device.
    pub async fn issue_token(
        &self,
        order: TokenOrder,
        operator: &str,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Secret, ServiceError> {
        if !(1..=TOKEN_TTL_S_MAX).contains(&order.ttl_s) {
            return Err(ServiceError::TokenLifetime { found_s: order.ttl_s });
        }
        if let Some(group) = &order.group {
            self.check_new(&order.device, group)?;
        }
        let secret = Secret::draw(rng);
        let token = Token {
            hash: secret.hash(),
            device: order.device.clone(),
            label: order.label.clone(),
            created_at: now,
            expires_at: now.plus_s(order.ttl_s),
            used: None,
        };
        let settings = Arc::clone(&self.settings);
        let id = order.device.clone();
        self.step(id, operator, Event::TokenIssued, now, move |found| {
            let device = token_device(found, &order, now)?;
            check_label(&settings, order.label.as_ref(), &device)?;
            let detail = format!("token {} until {}", token.hash, token.expires_at.0);
            Ok((device, detail, vec![Change::Token(token.clone())]))
        })
        .await?;
        Ok(secret)
    }

    /// Lets the key that waits have a certificate. `key` names the one the operator looked at;
    /// `None` takes whichever waits.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Step`] if no key waits or another one, [`ServiceError::UnknownDevice`].
    pub async fn approve(
        &self,
        device: DeviceId,
        key: Option<KeyFingerprint>,
        operator: &str,
        now: Wall,
    ) -> Result<Device, ServiceError> {
        let id = device.clone();
        self.step(device, operator, Event::Approved, now, move |found| {
            let approved = known(found, &id)?.approved(key, now).map_err(ServiceError::Step)?;
            let key = approved.approval.map(|approval| format!("key {}", approval.key));
            Ok((approved, key.unwrap_or_default(), Vec::new()))
        })
        .await
    }

    /// Revokes a device and all its certificates. Peers learn of it by the next CRL: call
    /// [`Provisioner::crl`] with `force`.
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
        let id = device.clone();
        self.step(device, operator, Event::Revoked, now, move |found| {
            let revoked = known(found, &id)?.revoked(now, reason).map_err(ServiceError::Step)?;
            let changes = vec![
                Change::RevokeDevice { device: id.clone(), at: now, reason },
                Change::Unbind(id.clone(), Hold::Waiting),
            ];
            Ok((revoked, reason.name().to_owned(), changes))
        })
        .await
    }

    /// Issues a certificate that is no device's: a server's from `authority` (the server tree's),
    /// or a backend's from the device tree's.
    ///
    /// # Errors
    ///
    /// [`ServiceError::ClockBehind`], [`ServiceError::Store`], [`ServiceError::Issue`]; among the
    /// last [`IssueError::Kind`] for a device's identity, which only enrollment vouches for.
    pub async fn issue_server(
        &self,
        authority: &Authority,
        order: ServerOrder,
        operator: &str,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<Certificate, ServiceError> {
        let ServerOrder { profile, identity, key } = order;
        if identity.device().is_some() {
            return Err(ServiceError::Issue(IssueError::Kind { profile: profile.kind }));
        }
        self.check_stored_clock(now).await?;
        let serial = Serial::draw(rng);
        let prepared = authority.prepare(&profile, &identity, &key, serial, now)?;
        let detail = identity.common_name().unwrap_or_default().into_owned();
        let actor = Actor::Operator(operator.to_owned());
        let entry = Entry::new(now, Event::Issued, actor).on(serial).saying(&detail);
        let decide = move |_: &View| Verdict {
            reserve: Some(prepared.clone()),
            audit: vec![entry.clone()],
            ..Verdict::new(())
        };
        let committed = self.store.transact(Scope::default(), decide).await?;
        let reserved = committed.reserved.ok_or(StoreError::Closed)?;
        Ok(authority.issue(reserved)?)
    }

    /// The CRL to serve: the newest one, or a new one where that is due or `force` is set.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Store`], [`ServiceError::Issue`].
    pub async fn crl(&self, now: Wall, force: bool) -> Result<Crl, ServiceError> {
        let scope = Scope { crl: Some(self.authority.key_id()), ..Scope::default() };
        if !force {
            let newest = self.store.view(scope.clone()).await?.crl;
            if let Some(newest) = newest.filter(|newest| now < newest.due_at()) {
                return Ok(newest);
            }
        }
        let authority = Arc::clone(&self.authority);
        let validity_s = self.settings.crl_validity_s;
        let decide = move |view: &View| next_crl(&authority, view, now, validity_s, force);
        Ok(self.store.transact(scope, decide).await?.outcome?)
    }

    /// The CRL to give out: as [`Provisioner::crl`], and where a new one is due and cannot be made, the
    /// newest one as long as it is good. A peer with a list is better off than one without.
    ///
    /// # Errors
    ///
    /// As for [`Provisioner::crl`], if there is no list that is still good.
    pub async fn published(&self, now: Wall) -> Result<Published, ServiceError> {
        let error = match self.crl(now, false).await {
            Ok(crl) => return Ok(Published { crl, overdue: None }),
            Err(error) => error,
        };
        let scope = Scope { crl: Some(self.authority.key_id()), ..Scope::default() };
        let newest = self.store.view(scope).await?.crl;
        match newest.filter(|newest| now < newest.next_update) {
            Some(crl) => Ok(Published { crl, overdue: Some(error) }),
            None => Err(error),
        }
    }

    fn check_new(&self, device: &DeviceId, group: &Name) -> Result<(), ServiceError> {
        if is_reserved(device) {
            return Err(ServiceError::ReservedName(device.clone()));
        }
        if !self.settings.groups.contains_key(group) {
            return Err(ServiceError::UnknownGroup(group.clone()));
        }
        Ok(())
    }

    /// One operator's step on one device, recorded.
    async fn step<F>(
        &self,
        device: DeviceId,
        operator: &str,
        event: Event,
        now: Wall,
        step: F,
    ) -> Result<Device, ServiceError>
    where
        F: Fn(Option<&Device>) -> Result<(Device, String, Vec<Change>), ServiceError>
            + Send
            + 'static,
    {
        let entry = Entry::new(now, event, Actor::Operator(operator.to_owned())).about(&device);
        let decide = move |view: &View| match step(view.device.as_ref()) {
            Err(error) => Verdict::new(Err(error)),
            Ok((device, detail, more)) => {
                let changes = std::iter::once(Change::Device(device.clone())).chain(more);
                Verdict {
                    reserve: None,
                    changes: changes.collect(),
                    audit: vec![entry.clone().saying(&detail)],
                    outcome: Ok(device),
                }
            }
        };
        let scope = Scope { device: Some(device), ..Scope::default() };
        self.store.transact(scope, decide).await?.outcome
    }
}

fn known(found: Option<&Device>, id: &DeviceId) -> Result<Device, ServiceError> {
    found.cloned().ok_or_else(|| ServiceError::UnknownDevice(id.clone()))
}

fn token_device(
    found: Option<&Device>,
    order: &TokenOrder,
    now: Wall,
) -> Result<Device, ServiceError> {
    match (found, &order.group) {
        (Some(device), _) => match device.revoked {
            Some((at, _)) => Err(ServiceError::Step(StepError::Revoked { at })),
            None => Ok(device.clone()),
        },
        (None, Some(group)) => Ok(Device::expected(order.device.clone(), group.clone(), now)),
        (None, None) => Err(ServiceError::UnknownDevice(order.device.clone())),
    }
}

fn check_label(
    settings: &Settings,
    label: Option<&Name>,
    device: &Device,
) -> Result<(), ServiceError> {
    match label {
        Some(label) if settings.labels.get(label) != Some(&device.group) => {
            let (label, group) = (label.clone(), device.group.clone());
            Err(ServiceError::LabelMismatch { label, group })
        }
        _ => Ok(()),
    }
}

fn seen(view: &View, now: Wall) -> Verdict<()> {
    let seen = view.device.clone().map(|device| Device { last_seen_at: Some(now), ..device });
    Verdict { changes: seen.into_iter().map(Change::Device).collect(), ..Verdict::new(()) }
}

/// The next CRL, unless another process has made it since we looked.
fn next_crl(
    authority: &Authority,
    view: &View,
    now: Wall,
    validity_s: u64,
    force: bool,
) -> Verdict<Result<Crl, IssueError>> {
    if let Some(newest) = view.crl.as_ref().filter(|newest| !force && now < newest.due_at()) {
        return Verdict::new(Ok(newest.clone()));
    }
    let number = view.crl.as_ref().map_or(1, |newest| newest.number + 1);
    match authority.publish(number, &view.revoked, now, validity_s) {
        Err(error) => Verdict::new(Err(error)),
        Ok(crl) => {
            let detail = format!("number {number}, {} revoked", view.revoked.len());
            let entry = Entry::new(now, Event::CrlPublished, Actor::Provisioner).saying(&detail);
            Verdict {
                changes: vec![Change::Crl(crl.clone())],
                audit: vec![entry],
                ..Verdict::new(Ok(crl))
            }
        }
    }
}

/// The AKI and the serial number of `base64url(AKI) "." base64url(serial)` (RFC 9773 §4.1).
fn certificate_id(id: &str) -> Option<(Vec<u8>, Serial)> {
    let (key_id, serial) = id.split_once('.')?;
    let serial = Base64UrlUnpadded::decode_vec(serial).ok()?;
    Some((Base64UrlUnpadded::decode_vec(key_id).ok()?, Serial::from_octets(&serial).ok()?))
}

/// The window from 7/12 to 9/12 of the lifetime: two thirds, and a twelfth to either side.
fn suggestion(validity: Validity, now: Wall) -> wire::RenewalInfo {
    let twelfths = |count: u64| validity.lifetime_s().saturating_mul(count) / 12;
    let start = validity.not_before.plus_s(twelfths(7));
    let end = validity.not_before.plus_s(twelfths(9)).max(start.plus_s(1));
    let retry_after_s = (validity.lifetime_s() / 4).clamp(1, RENEWAL_INFO_RETRY_S_MAX);
    wire::RenewalInfo {
        version: wire::VERSION,
        start,
        end,
        server_time: now,
        retry_after_s: u32::try_from(retry_after_s).unwrap_or(u32::MAX),
    }
}

impl From<ClockBehind> for ServiceError {
    fn from(error: ClockBehind) -> Self {
        Self::ClockBehind(error)
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IssueError> for ServiceError {
    fn from(error: IssueError) -> Self {
        Self::Issue(error)
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockBehind(error) => error.fmt(f),
            Self::Credential(error) => error.fmt(f),
            Self::DeviceExists(device) => write!(f, "device {device} exists already"),
            Self::EkTaken { ek, holder } => write!(
                f,
                "endorsement key {ek} is that of {holder}: `device replace {holder}` releases it"
            ),
            Self::Import(error) => error.fmt(f),
            Self::ImportTooLong { found } => {
                write!(
                    f,
                    "{found} devices to import, expected at most {IMPORT_LEN_MAX}: split them"
                )
            }
            Self::Issue(error) => error.fmt(f),
            Self::LabelMismatch { label, group } => {
                write!(f, "label {label} does not serve the device's group, {group}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::ReservedName(device) => {
                write!(f, "{device} is a name for backends, expected one that is not backend.*")
            }
            Self::Step(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::TokenLifetime { found_s } => write!(
                f,
                "the token would be good for {found_s} s, expected 1 to {TOKEN_TTL_S_MAX}"
            ),
            Self::TooManyRoots { found } => {
                write!(f, "there would be {found} roots, expected at most {ROOTS_MAX}")
            }
            Self::UnknownDevice(device) => {
                write!(f, "there is no device {device}: add it, or name a group for it")
            }
            Self::UnknownGroup(group) => write!(f, "there is no group {group}"),
            Self::UnknownRoot(id) => write!(f, "there is no root {id}"),
        }
    }
}

impl std::error::Error for ServiceError {}
