//! The provisioner: its real rules over its store in memory, called without HTTP.
//!
//! **What it is.** A throwaway device tree, [`Provisioner`] on a [`MemoryStore`], and the
//! translation between the domain's answers and what a device makes of the HTTP answers that carry
//! them: a refusal becomes a status and a reason code, a 429 a wait.
//!
//! **What it must never do.** Decide anything. Time and randomness are arguments; a call that does
//! not answer at once is a fault of the store, and said so.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Failure, Reason};
use fleetcert_core::policy::Window;
use fleetcert_core::record::RequestId;
use fleetcert_core::time::Wall;
use fleetcert_core::wire::{NONCE_LEN, REASON_REVOKED};
use fleetcert_provisioner::authority::profile::{Kind, TrustDomain};
use fleetcert_provisioner::authority::tree::{self, TreeKind, TreeSettings};
use fleetcert_provisioner::authority::{Authority as Issuer, Profile, RevocationReason};
use fleetcert_provisioner::enroll::{
    Admission, Answer, Basic, Group, Operation, Peer, Provisioner, Refusal, Request, ServiceError,
    Settings, TokenOrder,
};
use fleetcert_provisioner::inventory::Name;
use fleetcert_provisioner::store::memory::MemoryStore;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::device::Credential;
use super::random::Dice;
use crate::event_log::Mark;

/// For how long after its expiry a certificate is still replaced without an operator, seconds.
pub const RECOVERY_WINDOW_S: u64 = 30 * 86_400;

/// Who the operator is.
const OPERATOR: &str = "simulator";

/// Why there is no authority, or it did not answer: a fault of the simulator or the provisioner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityError(String);

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the provisioner {}", self.0)
    }
}

impl std::error::Error for AuthorityError {}

/// What a device asks for.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Its name.
    pub device: &'a DeviceId,
    /// The certificate that it authenticates with, DER.
    pub current: Option<&'a [u8]>,
    /// Whether that ran out by the provisioner's clock.
    pub expired: bool,
    /// How it authenticates without one.
    pub credential: &'a Credential,
    /// The PKCS#10, DER.
    pub csr: &'a [u8],
    /// The name of the request.
    pub request: RequestId,
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// A certificate, DER.
    Issued(Vec<u8>),
    /// An operator has to approve; ask again after so many seconds.
    Pending(u32),
}

/// Why it gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// HTTP status.
    pub status: u16,
    /// Reason code.
    pub reason: &'static str,
    /// When to come back, seconds.
    pub retry_after_s: Option<u32>,
}

impl Denied {
    /// What a device makes of it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match (self.status, self.reason) {
            (_, REASON_REVOKED) => Failure::Revoked,
            (429 | 503, _) => Failure::Busy { retry_after_s: self.retry_after_s },
            (status, reason) => {
                Failure::Refused { status, reason: Reason::try_from(reason).unwrap_or_default() }
            }
        }
    }
}

/// The provisioner of a run.
pub struct Authority {
    service: Provisioner<MemoryStore>,
    dice: Dice,
    groups: [Name; 2],
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("groups", &self.groups).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the tree and the service: certificates live for `lifetime_s`.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner refuses its own settings.
    pub fn new(lifetime_s: u64, now: Wall, mut dice: Dice) -> Result<Self, AuthorityError> {
        let settings = TreeSettings {
            organisation: "fleetsim".to_owned(),
            root_lifetime_s: 20 * 365 * 86_400,
            issuing_lifetime_s: 19 * 365 * 86_400,
        };
        let passphrase = "nothing secret here";
        let made = tree::create(TreeKind::Device, &settings, passphrase, now, &mut dice)
            .map_err(|why| fault("makes no tree", &why))?;
        let key =
            tree::key_from_pem(&made.issuing_key_pem).map_err(|why| fault("reads no key", &why))?;
        let issuer = Issuer::from_der(&made.issuing_certificate, &key)
            .map_err(|why| fault("takes no authority", &why))?;
        let groups = [name("by-token")?, name("by-approval")?];
        let settings = settings_of(lifetime_s, &groups)?;
        let service = Provisioner::new(MemoryStore::new(), settings, issuer);
        Ok(Self { service, dice, groups })
    }

    /// Enters a device into the inventory; every eighth has to be approved, the others get a token.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner does not take it.
    pub fn add(
        &mut self,
        device: &DeviceId,
        number: u32,
        now: Wall,
    ) -> Result<Credential, AuthorityError> {
        let by_approval = number % 8 == 7;
        let group = self.groups[usize::from(by_approval)].clone();
        at_once(self.service.add_device(device.clone(), group, OPERATOR, now))?
            .map_err(|why| fault("adds no device", &why))?;
        if by_approval {
            return Ok(Credential::None);
        }
        let token = self.token(device, now)?;
        token.ok_or_else(|| AuthorityError("gives a new device no token".to_owned()))
    }

    /// Makes a one-time token for a device; `None` if the device's state does not allow one.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner cannot.
    pub fn token(
        &mut self,
        device: &DeviceId,
        now: Wall,
    ) -> Result<Option<Credential>, AuthorityError> {
        let order = TokenOrder {
            device: device.clone(),
            group: None,
            label: None,
            ttl_s: fleetcert_provisioner::token::TOKEN_TTL_S_MAX,
        };
        let token = self.service.issue_token(order, OPERATOR, now, &mut self.dice);
        match at_once(token)? {
            Ok(token) => Ok(Some(Credential::Token(token.text().to_string()))),
            Err(ServiceError::Step(_)) => Ok(None),
            Err(why) => Err(fault("makes no token", &why)),
        }
    }

    /// Asks for a certificate.
    ///
    /// # Errors
    ///
    /// Inner: it was denied. Outer: [`AuthorityError`], a fault of the provisioner.
    pub fn enroll(
        &mut self,
        ask: &Ask<'_>,
        now: Wall,
    ) -> Result<Result<Grant, Denied>, AuthorityError> {
        let request = Request {
            operation: if ask.current.is_some() { Operation::Reenroll } else { Operation::Enroll },
            label: None,
            peer: ask.current.map_or(Peer::Anonymous, |leaf| peer(leaf, ask.expired)),
            basic: basic(ask),
            csr_der: ask.csr.to_vec(),
            request_id: Some(ask.request.0),
            challenge: None,
        };
        match at_once(self.service.enroll(request, now, &mut self.dice))? {
            Ok(Answer::Issued { leaf_der, .. }) => Ok(Ok(Grant::Issued(leaf_der))),
            Ok(Answer::Pending { retry_after_s }) => Ok(Ok(Grant::Pending(retry_after_s))),
            Err(why) => denied(why, now).map(Err),
        }
    }

    /// Asks which certificate the provisioner sees; returns the octets of its serial number.
    ///
    /// # Errors
    ///
    /// As for [`Authority::enroll`].
    pub fn whoami(
        &self,
        leaf: &[u8],
        expired: bool,
        now: Wall,
    ) -> Result<Result<Vec<u8>, Denied>, AuthorityError> {
        match at_once(self.service.whoami(&peer(leaf, expired), [0; NONCE_LEN], now))? {
            Ok(seen) => Ok(Ok(seen.serial.as_octets().to_vec())),
            Err(why) => denied(why, now).map(Err),
        }
    }

    /// When to renew the certificate of that identifier, and when to ask again, seconds.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner does not know its own certificate.
    pub fn advice(
        &self,
        renewal_id: &str,
        now: Wall,
    ) -> Result<(Option<Window>, u32), AuthorityError> {
        let info = at_once(self.service.renewal_info(renewal_id, now))?
            .map_err(|why| fault("gives no advice", &why))?
            .ok_or_else(|| AuthorityError("does not know a certificate it issued".to_owned()))?;
        Ok((Window::new(info.start, info.end), info.retry_after_s))
    }

    /// An operator approves whatever key waits. Returns whether one did.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner cannot.
    pub fn approve(&self, device: &DeviceId, now: Wall) -> Result<bool, AuthorityError> {
        step(at_once(self.service.approve(device.clone(), None, OPERATOR, now))?)
    }

    /// An operator turns whatever key waits down. Returns whether one did.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner cannot.
    pub fn reject(&self, device: &DeviceId, now: Wall) -> Result<bool, AuthorityError> {
        step(at_once(self.service.reject(device.clone(), OPERATOR, now))?)
    }

    /// An operator revokes a device. Returns whether it was in before.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if the provisioner cannot.
    pub fn revoke(&self, device: &DeviceId, now: Wall) -> Result<bool, AuthorityError> {
        let reason = RevocationReason::KeyCompromise;
        step(at_once(self.service.revoke(device.clone(), reason, OPERATOR, now))?)
    }

    /// Publishes a CRL and returns the serial numbers in it, read from its octets.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] if there is none or it cannot be read.
    pub fn crl(&self, now: Wall) -> Result<BTreeSet<Mark>, AuthorityError> {
        let crl = at_once(self.service.crl(now, true))?.map_err(|why| fault("has no CRL", &why))?;
        let list = CertificateList::from_der(&crl.der)
            .map_err(|why| fault("publishes what is no CRL:", &why))?;
        let revoked = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
        Ok(revoked.iter().map(|entry| Mark::of(entry.serial_number.as_bytes())).collect())
    }
}

fn settings_of(lifetime_s: u64, groups: &[Name; 2]) -> Result<Settings, AuthorityError> {
    let profile = Profile { lifetime_s, ..Profile::new(Kind::Device) };
    let group = |admission| Group {
        admission,
        profile: profile.clone(),
        dns_domain: None,
        recovery_window_s: RECOVERY_WINDOW_S,
        recovery_interval_s: 3_600,
        retry_after_s: 3_600,
        allow_virtual_tpm: false,
    };
    let trust_domain = TrustDomain::parse("fleet.example");
    let [by_token, by_approval] = groups;
    Ok(Settings {
        trust_domain: trust_domain.map_err(|why| fault("takes no trust domain", &why))?,
        groups: [
            (by_token.clone(), group(Admission::Token)),
            (by_approval.clone(), group(Admission::Approval)),
        ]
        .into(),
        labels: [].into(),
        default_group: Some(by_token.clone()),
        pending_max: u32::MAX,
        crl_validity_s: 7 * 86_400,
    })
}

fn name(text: &str) -> Result<Name, AuthorityError> {
    Name::parse(text).map_err(|why| fault("takes no name", &why))
}

fn peer(leaf: &[u8], expired: bool) -> Peer {
    Peer::Device { leaf_der: leaf.to_vec(), expired }
}

fn basic(ask: &Ask<'_>) -> Option<Basic> {
    match (ask.current, ask.credential) {
        (None, Credential::Token(token)) => Some(Basic {
            user: ask.device.as_str().to_owned(),
            password: zeroize::Zeroizing::new(token.clone()),
        }),
        _ => None,
    }
}

fn denied(why: ServiceError, now: Wall) -> Result<Denied, AuthorityError> {
    let ServiceError::Refused(refusal) = why else {
        return Err(fault("has a fault", &why));
    };
    let retry_after_s = match &refusal {
        Refusal::RecoveryRate { next_at } => u32::try_from(next_at.s_since(now)).ok(),
        _ => None,
    };
    let (status, reason) = (refusal.status().http(), refusal.code());
    Ok(Denied { status, reason, retry_after_s })
}

fn step<T>(outcome: Result<T, ServiceError>) -> Result<bool, AuthorityError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(ServiceError::Step(_)) => Ok(false),
        Err(why) => Err(fault("cannot", &why)),
    }
}

fn fault(what: &str, why: &dyn fmt::Debug) -> AuthorityError {
    AuthorityError(format!("{what}: {why:?}"))
}

/// What a future gives at its first poll.
fn at_once<F: Future>(future: F) -> Result<F::Output, AuthorityError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(AuthorityError("waits for something, in memory".to_owned())),
    }
}
