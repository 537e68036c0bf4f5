//! The rules of enrollment: from a case and a view of the database to a verdict.
//!
//! Two stages. [`Case::admit`] looks at the request alone: it proves possession of the key, finds
//! out who claims to be asking and with what, and refuses what no database could make good.
//! [`Case::decide`] runs inside the transaction and holds the claim against what is stored. It is
//! a pure function of its view and may run more than once.

use fleetcert_core::{device_id::DeviceId, time::Wall};

use self::attested::{Attested, Claim, Objection};
use super::{Admission, Basic, Group, Operation, Peer, Refusal, Request, Settings, TpmRefusal};
use crate::{
    audit::{Actor, Entry, Event},
    authority::{
        Authority, Identity, IssueError, KeyFingerprint, Leaf, Serial,
        profile::{DnsName, is_reserved},
    },
    csr::Csr,
    inventory::{Device, Name, Status, StepError},
    store::{
        Change, EnrollmentRequest, RequestId, Scope, StoredCertificate, TpmScope, Verdict, View,
    },
    token::{Permit, Presented, Secret, Token, TokenError, TokenHash, Use},
};

mod attested;

/// What vouches for the identity that a request claims.
#[derive(Debug)]
enum Credential {
    /// A client certificate.
    Certificate { leaf: Box<Leaf>, expired: bool },
    /// Nothing yet: an operator may.
    None,
    /// A one-time token.
    Token(TokenHash),
}

/// A request that was admitted for decision.
#[derive(Debug)]
pub(super) struct Case {
    device: DeviceId,
    credential: Credential,
    operation: Operation,
    label: Option<Name>,
    /// The group that the label serves, or that takes unknown devices.
    group: Option<Name>,
    request: Option<RequestId>,
    csr: Csr,
    key: KeyFingerprint,
    /// What a TPM says of that key.
    claim: Option<Claim>,
    serial: Serial,
    now: Wall,
}

/// What is to be done once the verdict is durable.
#[derive(Debug)]
pub(super) enum Step {
    /// Sign again what was issued before.
    Again(Box<StoredCertificate>),
    /// The authority could not prepare it.
    Fault(IssueError),
    /// Sign what was reserved.
    Issue,
    /// Say when to ask again.
    Pending { retry_after_s: u32 },
    /// Refuse.
    Refused(Refusal),
}

/// Why a certificate is issued, and what else changes with it.
#[derive(Default)]
struct Grant<'a> {
    event: Option<Event>,
    token: Option<Token>,
    attested: Option<Attested<'a>>,
}

/// What applies to a request: the operator's decisions, and who signs.
#[derive(Clone, Copy)]
struct Rules<'a> {
    settings: &'a Settings,
    group: &'a Group,
    authority: &'a Authority,
}

impl Case {
    /// Looks at a request alone.
    pub(super) fn admit(
        request: &Request,
        settings: &Settings,
        serial: Serial,
        now: Wall,
    ) -> Result<Self, Refusal> {
        let group = label_group(request.label.as_ref(), settings)?;
        let leaf = peer_leaf(&request.peer, settings)?;
        if request.operation == Operation::Reenroll && leaf.is_none() {
            return Err(Refusal::CertificateRequired);
        }
        let csr = Csr::verify(&request.csr_der).map_err(Refusal::Csr)?;
        let (device, credential) = claim(request, leaf, &csr)?;
        check_names(request.operation, &csr, &device, &credential)?;
        let claim = attested::claim(request.challenge, &csr)?;
        let key = csr.key().fingerprint();
        Ok(Self {
            device,
            credential,
            operation: request.operation,
            label: request.label.clone(),
            group,
            request: request.request_id,
            csr,
            key,
            claim,
            serial,
            now,
        })
    }

    /// What the decision needs to see.
    pub(super) fn scope(&self) -> Scope {
        let (token, certificate) = match &self.credential {
            Credential::Certificate { leaf, .. } => (None, Some(leaf.serial)),
            Credential::None => (None, None),
            Credential::Token(hash) => (Some(*hash), None),
        };
        Scope {
            device: Some(self.device.clone()),
            request: self.request.map(|id| (self.device.clone(), id)),
            token,
            certificate,
            pending: matches!(self.credential, Credential::None),
            crl: None,
            tpm: TpmScope {
                device: Some(self.device.clone()),
                challenge: self.claim.as_ref().map(Claim::challenge),
                ..TpmScope::default()
            },
        }
    }

    /// Who claims to be asking.
    pub(super) fn claimed(&self) -> (Actor, DeviceId) {
        (self.actor(), self.device.clone())
    }

    /// Decides. A refusal changes nothing, but a conflict goes on record; the refusal itself is
    /// recorded by whoever tells it.
    pub(super) fn decide(
        &self,
        view: &View,
        settings: &Settings,
        authority: &Authority,
    ) -> Verdict<Step> {
        let judged = self.judge(view, settings, authority);
        judged.unwrap_or_else(|Objection { refusal, conflict }| Verdict {
            audit: conflict.iter().map(|conflict| self.conflict_entry(conflict)).collect(),
            changes: conflict.into_iter().map(|conflict| Change::Conflict(*conflict)).collect(),
            ..Verdict::new(Step::Refused(refusal))
        })
    }

    fn judge(
        &self,
        view: &View,
        settings: &Settings,
        authority: &Authority,
    ) -> Result<Verdict<Step>, Objection> {
        match &self.credential {
            Credential::Certificate { leaf, expired } => {
                let stored = self.check_certificate(view, leaf)?;
                let group = self.check_group(view, settings)?;
                if let Some(again) = self.again(view)? {
                    return Ok(again);
                }
                let rules = Rules { settings, group, authority };
                let expired = *expired || stored.validity.is_expired_at(self.now);
                let expired_at = expired.then_some(stored.validity.not_after);
                self.by_certificate(view, rules, expired_at)
            }
            Credential::None => {
                let group = self.check_group(view, settings)?;
                if !group.admission.is_open() {
                    return Err(Refusal::CredentialsRequired.into());
                }
                if let Some(again) = self.again(view)? {
                    return Ok(again);
                }
                self.by_itself(view, Rules { settings, group, authority })
            }
            Credential::Token(hash) => self.by_token(view, settings, authority, hash),
        }
    }

    fn by_certificate(
        &self,
        view: &View,
        rules: Rules<'_>,
        expired_at: Option<Wall>,
    ) -> Result<Verdict<Step>, Objection> {
        let attested = self.attested(view, rules.group)?;
        self.require_evidence(view, rules.group, attested.as_ref())?;
        let grant = Grant { attested, ..Grant::default() };
        match expired_at {
            None => Ok(self.issue(view, rules, grant)?),
            Some(not_after) => Ok(self.recover(view, not_after, rules, grant)?),
        }
    }

    /// Nothing vouches for the device but its TPM, or an operator who looks.
    fn by_itself(&self, view: &View, rules: Rules<'_>) -> Result<Verdict<Step>, Objection> {
        let attested = self.attested(view, rules.group)?;
        let grant = |attested| Grant { attested, ..Grant::default() };
        if rules.group.admission == Admission::Approval {
            self.require_evidence(view, rules.group, attested.as_ref())?;
            return Ok(self.ask(view, rules, grant(attested))?);
        }
        let bound = view.tpm.device.bound.as_ref().map(|bound| bound.proven.endorsement.ek);
        let attested = attested.ok_or(TpmRefusal::EvidenceRequired { bound })?;
        self.check_tied(view, &attested)?;
        Ok(self.issue(view, rules, grant(Some(attested)))?)
    }

    fn by_token(
        &self,
        view: &View,
        settings: &Settings,
        authority: &Authority,
        hash: &TokenHash,
    ) -> Result<Verdict<Step>, Objection> {
        let (token, permit) = self.permit(view, hash)?;
        let group = self.check_group(view, settings)?;
        if group.admission == Admission::Deny {
            return Err(Refusal::PolicyDenied { group: self.group_name(view).cloned() }.into());
        }
        if let Some(again) = self.again(view)? {
            return Ok(again);
        }
        if let Permit::Again(serial) = permit {
            return Err(Refusal::CertificateUnknown { serial }.into());
        }
        let attested = self.attested(view, group)?;
        self.require_evidence(view, group, attested.as_ref())?;
        let used = Use { at: self.now, request: self.request, key: self.key, serial: self.serial };
        let token = Some(Token { used: Some(used), ..token.clone() });
        let grant = Grant { event: Some(Event::TokenUsed), token, attested };
        Ok(self.issue(view, Rules { settings, group, authority }, grant)?)
    }

    fn permit<'a>(&self, view: &'a View, hash: &TokenHash) -> Result<(&'a Token, Permit), Refusal> {
        let token = view.token.as_ref().ok_or(Refusal::Token(TokenError::Unknown))?;
        let presented = Presented {
            hash,
            device: &self.device,
            label: self.label.as_ref(),
            request: self.request,
            key: self.key,
        };
        match token.permits(&presented, self.now) {
            // The name of the request explains more than the token that it used.
            Err(TokenError::Used { .. }) if self.is_conflict(view) => Err(self.conflict(view)),
            permit => Ok((token, permit.map_err(Refusal::Token)?)),
        }
    }

    /// The stored certificate of the peer: octet for octet the one that it presented.
    fn check_certificate<'a>(
        &self,
        view: &'a View,
        leaf: &Leaf,
    ) -> Result<&'a StoredCertificate, Refusal> {
        let unknown = Refusal::CertificateUnknown { serial: leaf.serial };
        let stored = view.certificate.as_ref().ok_or_else(|| unknown.clone())?;
        if stored.device.as_ref() != Some(&self.device) || stored.tbs != leaf.tbs {
            return Err(unknown);
        }
        if stored.revoked.is_some() {
            return Err(Refusal::Revoked { device: self.device.clone() });
        }
        Ok(stored)
    }

    /// The policy that applies: the device's own, wherever it knocks.
    fn check_group<'a>(&self, view: &View, settings: &'a Settings) -> Result<&'a Group, Refusal> {
        if let Some(device) = view.device.as_ref() {
            if device.status == Status::Revoked {
                return Err(Refusal::Revoked { device: self.device.clone() });
            }
            if let Some(label) =
                self.label.as_ref().filter(|_| self.group.as_ref() != Some(&device.group))
            {
                let (label, group) = (label.clone(), device.group.clone());
                return Err(Refusal::LabelMismatch { label, group });
            }
        }
        let name = self.group_name(view);
        let group = name.and_then(|name| settings.groups.get(name));
        group.ok_or_else(|| Refusal::PolicyDenied { group: name.cloned() })
    }

    fn group_name<'a>(&'a self, view: &'a View) -> Option<&'a Name> {
        view.device.as_ref().map(|device| &device.group).or(self.group.as_ref())
    }

    fn is_conflict(&self, view: &View) -> bool {
        view.request.as_ref().is_some_and(|earlier| earlier.key != self.key)
    }

    fn conflict(&self, view: &View) -> Refusal {
        let earlier = view.request.as_ref().map_or(self.key, |earlier| earlier.key);
        Refusal::RequestConflict { earlier, found: self.key }
    }

    /// The answer that this request got before, if it came before.
    fn again(&self, view: &View) -> Result<Option<Verdict<Step>>, Refusal> {
        let Some(earlier) = &view.request else { return Ok(None) };
        if self.is_conflict(view) {
            return Err(self.conflict(view));
        }
        let unknown = Refusal::CertificateUnknown { serial: earlier.serial };
        let stored = view.request_certificate.as_ref().ok_or(unknown)?;
        if stored.revoked.is_some() {
            return Err(Refusal::Revoked { device: self.device.clone() });
        }
        if stored.validity.is_expired_at(self.now) {
            return Err(Refusal::RequestSpent { not_after: stored.validity.not_after });
        }
        Ok(Some(Verdict::new(Step::Again(Box::new(stored.clone())))))
    }

    /// An expired certificate: replaced inside the window, else an operator has to look at it.
    fn recover(
        &self,
        view: &View,
        not_after: Wall,
        rules: Rules<'_>,
        grant: Grant<'_>,
    ) -> Result<Verdict<Step>, Refusal> {
        let group = rules.group;
        let in_window = self.now <= not_after.plus_s(group.recovery_window_s);
        if group.recovery_window_s == 0 || !in_window {
            return self.ask(view, rules, grant);
        }
        let last = view.device.as_ref().and_then(|device| device.recovered_at);
        let next_at = last.map(|last| last.plus_s(group.recovery_interval_s));
        if let Some(next_at) = next_at.filter(|next_at| self.now < *next_at) {
            return Err(Refusal::RecoveryRate { next_at });
        }
        self.issue(view, rules, Grant { event: Some(Event::Recovered), ..grant })
    }

    /// Waits for an operator, or takes what one has approved.
    fn ask(
        &self,
        view: &View,
        rules: Rules<'_>,
        grant: Grant<'_>,
    ) -> Result<Verdict<Step>, Refusal> {
        let (device, group) = (self.device_of(view)?, rules.group);
        let approval = device.approval;
        if approval.is_some_and(|it| it.key == self.key && it.approved_at.is_some()) {
            return self.issue(view, rules, grant);
        }
        let is_bound = grant.attested.is_some() && view.tpm.device.bound.is_some();
        let is_vouched = is_bound || matches!(self.credential, Credential::Certificate { .. });
        if device.serial.is_some() && approval.is_none() && !is_vouched {
            return Err(Refusal::DeviceActive { device: self.device.clone() });
        }
        let pending_max = rules.settings.pending_max;
        if view.device.is_none() && !is_vouched && view.pending >= pending_max {
            let retry_after_s = group.retry_after_s;
            return Err(Refusal::PendingFull { pending_max, retry_after_s });
        }
        self.wait(device, group, grant.attested)
    }

    /// Has the key wait. Asking again for the same key writes nothing, unless it is with newer
    /// evidence.
    fn wait(
        &self,
        device: Device,
        group: &Group,
        attested: Option<Attested<'_>>,
    ) -> Result<Verdict<Step>, Refusal> {
        let waits_already = device.approval.is_some_and(|it| it.key == self.key);
        let device = device.asks(self.key, self.now).map_err(|error| self.step(error))?;
        let detail = attested.as_ref().map(Attested::described).unwrap_or_default();
        let mut verdict = Verdict::new(Step::Pending { retry_after_s: group.retry_after_s });
        verdict.changes = attested.map_or_else(Vec::new, |attested| self.keep(group, attested));
        if !waits_already {
            let entry = Entry::new(self.now, Event::Pending, self.actor()).about(&self.device);
            let detail = format!("key {} {detail}", self.key);
            verdict.audit = vec![self.requested(), entry.saying(detail.trim_end())];
            verdict.changes.push(Change::Device(device));
        }
        Ok(verdict)
    }

    fn step(&self, error: StepError) -> Refusal {
        match error {
            StepError::AnotherKeyWaits { waiting, found } => {
                Refusal::ApprovalConflict { waiting, found }
            }
            StepError::NothingWaits
            | StepError::Revoked { .. }
            | StepError::WaitingKeyChanged { .. } => {
                Refusal::Revoked { device: self.device.clone() }
            }
        }
    }

    /// The device, or a new one of the group that takes unknown ones.
    fn device_of(&self, view: &View) -> Result<Device, Refusal> {
        if let Some(device) = &view.device {
            return Ok(device.clone());
        }
        let group = self.group.clone().ok_or(Refusal::PolicyDenied { group: None })?;
        Ok(Device::expected(self.device.clone(), group, self.now))
    }

    fn issue(
        &self,
        view: &View,
        rules: Rules<'_>,
        grant: Grant<'_>,
    ) -> Result<Verdict<Step>, Refusal> {
        let Rules { settings, group, authority } = rules;
        let device = self.device_of(view)?;
        let identity = self.identity(settings, group);
        let (key, serial) = (self.csr.key(), self.serial);
        let prepared = authority.prepare(&group.profile, &identity, key, serial, self.now);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Verdict::new(Step::Fault(error))),
        };
        let mut device = device.issued(serial, prepared.validity().not_after, self.now);
        if grant.event == Some(Event::Recovered) {
            device.recovered_at = Some(self.now);
        }
        let bound = grant.attested.map(|attested| self.bind(view, group, attested));
        let (tpm_changes, tpm_entries) = bound.unwrap_or_default();
        let changes = [
            Some(Change::Device(device)),
            grant.token.map(Change::Token),
            self.request.map(|id| Change::Request(self.request_row(id))),
        ];
        Ok(Verdict {
            reserve: Some(prepared),
            changes: changes.into_iter().flatten().chain(tpm_changes).collect(),
            audit: self.issued_entries(grant.event, tpm_entries),
            outcome: Step::Issue,
        })
    }

    fn request_row(&self, id: RequestId) -> EnrollmentRequest {
        let (device, key, serial) = (self.device.clone(), self.key, self.serial);
        EnrollmentRequest { device, id, key, serial, at: self.now }
    }

    fn identity(&self, settings: &Settings, group: &Group) -> Identity {
        // An id that no DNS label can spell gets no DNS name.
        let dns = group.dns_domain.as_ref().and_then(|domain| {
            DnsName::parse(&format!("{}.{}", self.device, domain.as_str())).ok()
        });
        let trust_domain = settings.trust_domain.clone();
        Identity::Device { id: self.device.clone(), trust_domain, dns }
    }

    fn issued_entries(&self, event: Option<Event>, tpm: Vec<Entry>) -> Vec<Entry> {
        let entry =
            |event| Entry::new(self.now, event, self.actor()).about(&self.device).on(self.serial);
        let grant = event.map(entry);
        let issued = entry(Event::Issued).saying(&format!("key {}", self.key));
        std::iter::once(self.requested()).chain(grant).chain(tpm).chain([issued]).collect()
    }

    fn requested(&self) -> Entry {
        let how = match (&self.operation, &self.credential) {
            (Operation::Enroll, Credential::None) => match &self.claim {
                Some(claim) => format!("enroll by evidence for challenge {}", claim.challenge()),
                None => "enroll without credentials".to_owned(),
            },
            (Operation::Enroll, Credential::Token(hash)) => format!("enroll by token {hash}"),
            (_, Credential::Certificate { leaf, .. }) => {
                format!("re-enroll by certificate {}", leaf.serial)
            }
            (Operation::Reenroll, _) => "re-enroll".to_owned(),
        };
        Entry::new(self.now, Event::Requested, self.actor()).about(&self.device).saying(&how)
    }

    const fn actor(&self) -> Actor {
        match self.credential {
            Credential::None if self.claim.is_none() => Actor::Anonymous,
            Credential::Certificate { .. } | Credential::None | Credential::Token(_) => {
                Actor::Device
            }
        }
    }
}

/// The entry of a refusal; its detail begins with the code.
///
/// [`Refusal::CredentialsRequired`] has none: it is the first half of every HTTP Basic exchange,
/// and a write for each would let anybody fill the disk.
pub(super) fn refused(refusal: &Refusal, actor: Actor, now: Wall) -> Option<Entry> {
    let detail = format!("{}: {refusal}", refusal.code());
    let entry = Entry::new(now, Event::Refused, actor).saying(&detail);
    (*refusal != Refusal::CredentialsRequired).then_some(entry)
}

fn label_group(label: Option<&Name>, settings: &Settings) -> Result<Option<Name>, Refusal> {
    match label {
        None => Ok(settings.default_group.clone()),
        Some(label) => {
            let group = settings.labels.get(label);
            let unknown = || Refusal::LabelUnknown { label: label.clone() };
            group.ok_or_else(unknown).map(|group| Some(group.clone()))
        }
    }
}

pub(super) fn peer_leaf(
    peer: &Peer,
    settings: &Settings,
) -> Result<Option<(DeviceId, Box<Leaf>, bool)>, Refusal> {
    match peer {
        Peer::Anonymous => Ok(None),
        Peer::Device { leaf_der, expired } => {
            let leaf = Leaf::parse(leaf_der).ok_or(Refusal::PeerIdentity)?;
            let device = leaf.device(&settings.trust_domain).ok_or(Refusal::PeerIdentity)?;
            Ok(Some((device, Box::new(leaf), *expired)))
        }
    }
}

/// Who asks, and with what. A client certificate counts for re-enrollment, and for enrollment
/// where no password came with it.
fn claim(
    request: &Request,
    leaf: Option<(DeviceId, Box<Leaf>, bool)>,
    csr: &Csr,
) -> Result<(DeviceId, Credential), Refusal> {
    match (leaf, &request.basic) {
        (Some((device, leaf, expired)), basic)
            if request.operation == Operation::Reenroll || basic.is_none() =>
        {
            Ok((device, Credential::Certificate { leaf, expired }))
        }
        (leaf, Some(basic)) => {
            let (device, hash) = token_claim(basic)?;
            if leaf.is_some_and(|(peer, _, _)| peer != device) {
                return Err(Refusal::Token(TokenError::WrongDevice { found: device }));
            }
            Ok((device, Credential::Token(hash)))
        }
        (_, None) => {
            let name = csr.common_name().ok_or(Refusal::CredentialsRequired)?;
            Ok((device_name(name)?, Credential::None))
        }
    }
}

fn token_claim(basic: &Basic) -> Result<(DeviceId, TokenHash), Refusal> {
    let device = device_name(&basic.user)?;
    let secret = Secret::parse(&basic.password).ok_or(Refusal::Token(TokenError::Unknown))?;
    Ok((device, secret.hash()))
}

fn device_name(text: &str) -> Result<DeviceId, Refusal> {
    let device = DeviceId::parse(text).ok().filter(|device| !is_reserved(device));
    device.ok_or_else(|| {
        let end = text.floor_char_boundary(DeviceId::MAX_LEN);
        Refusal::DeviceName { found: text[..end].to_owned() }
    })
}

/// Compares the names that the request asks for with the authenticated identity.
///
/// RFC 7030 §4.2.2 wants both, subject and subjectAltName, unchanged in a re-enrollment; alternative
/// names that the request leaves out are let pass (`docs/divergences.md`).
fn check_names(
    operation: Operation,
    csr: &Csr,
    device: &DeviceId,
    credential: &Credential,
) -> Result<(), Refusal> {
    if let Some(found) = csr.common_name().filter(|name| *name != device.as_str()) {
        return Err(Refusal::CsrIdentity { found: found.to_owned(), expected: device.clone() });
    }
    let Credential::Certificate { leaf, .. } = credential else { return Ok(()) };
    if operation == Operation::Reenroll && *csr.subject() != leaf.subject {
        return Err(Refusal::SubjectMismatch);
    }
    match csr.alt_names() {
        Some(names) if !names.are_among(&leaf.alt_names) => Err(Refusal::SanMismatch),
        _ => Ok(()),
    }
}
