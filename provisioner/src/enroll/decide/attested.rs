//! The rules about TPMs: what evidence counts, whom it binds, and where nothing less will do.
//!
//! **What it is.** [`Case::attested`] judges the evidence of a request inside the transaction that
//! acts on it: the challenge first, then the statement, then who else claims that TPM, then the
//! policy. [`Case::require_evidence`] says when a request without evidence gets nothing.
//!
//! **What it must never do.** Let bad evidence pass because none was needed: whoever sends it is
//! broken or hostile. Nor move a binding: a TPM has one device and a device one TPM, until an
//! operator says otherwise. Not even a revoked device gives its TPM free, or a thief would enroll
//! it again under another name.
//!
//! **Why that is sound.** What is recorded was computed from what the TPM signed and from the
//! challenge, which holds the endorsement key that was validated when it was made. A key gets a
//! certificate without new evidence only if it is the very key that the last evidence was about:
//! that one cannot have left its TPM. Everything else about a bound device takes evidence again:
//! renewal with a new key, recovery, a token.

use fleetcert_core::device_id::DeviceId;

use super::{Case, Credential};
use crate::{
    attest::evidence::{self, Expected, Proof, Statement},
    audit::{Entry, Event},
    binding::{
        Binding, CloneSign, Conflict, ConflictKind, Evidence, Hold, KeyName, Proven, Source,
    },
    challenge::{Challenge, ChallengeError, ChallengeId},
    csr::Csr,
    enroll::{Admission, Group, Refusal, TpmRefusal},
    inventory::Status,
    store::{Change, View, tpm::Known},
};

/// The evidence that a request brings, not looked into yet.
#[derive(Debug)]
pub(super) struct Claim {
    challenge: ChallengeId,
    statement: Statement,
}

/// Evidence that was found good.
#[derive(Debug)]
pub(super) struct Attested<'a> {
    proven: Proven,
    known: &'a Known,
    /// The challenge that it uses up; `None` for evidence that was kept while its key waited.
    uses: Option<ChallengeId>,
}

/// Why a request is refused, and what an operator has to settle.
#[derive(Debug)]
pub(super) struct Objection {
    /// The refusal.
    pub(super) refusal: Refusal,
    /// The conflict to record, if it is not on record yet.
    pub(super) conflict: Option<Box<Conflict>>,
}

impl From<Refusal> for Objection {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, conflict: None }
    }
}

impl From<TpmRefusal> for Objection {
    fn from(refusal: TpmRefusal) -> Self {
        Refusal::from(refusal).into()
    }
}

/// Takes the evidence out of a request. Challenge and evidence come together or not at all.
pub(super) fn claim(challenge: Option<ChallengeId>, csr: &Csr) -> Result<Option<Claim>, Refusal> {
    match (challenge, csr.attestation()) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(TpmRefusal::ChallengeMissing.into()),
        (Some(_), None) => Err(TpmRefusal::EvidenceMissing.into()),
        (Some(challenge), Some(values)) => {
            let statement = Statement::from_attribute_values(values)
                .map_err(|error| TpmRefusal::Evidence(error.into()))?;
            Ok(Some(Claim { challenge, statement }))
        }
    }
}

impl Claim {
    /// The challenge that it answers.
    pub(super) const fn challenge(&self) -> ChallengeId {
        self.challenge
    }
}

impl Case {
    /// The evidence of the request, if it is good for this device in this group.
    pub(super) fn attested<'a>(
        &self,
        view: &'a View,
        group: &Group,
    ) -> Result<Option<Attested<'a>>, Objection> {
        let Some(attested) = self.proven(view)? else { return Ok(None) };
        self.check_virtual(group, &attested.proven)?;
        self.check_holder(&attested)?;
        self.check_bound(view, &attested)?;
        self.check_listed(view, group, &attested)?;
        Ok(Some(attested))
    }

    /// Refuses a key that would need evidence and has none.
    pub(super) fn require_evidence(
        &self,
        view: &View,
        group: &Group,
        attested: Option<&Attested<'_>>,
    ) -> Result<(), Refusal> {
        let bound = view.tpm.device.bound.as_ref();
        let is_needed = bound.is_some() || group.admission.needs_evidence();
        let is_proven = bound.is_some_and(|bound| bound.proven.evidence.key == self.key);
        if attested.is_some() || is_proven || !is_needed {
            return Ok(());
        }
        let bound = bound.map(|bound| bound.proven.endorsement.ek);
        Err(TpmRefusal::EvidenceRequired { bound }.into())
    }

    /// Refuses a TPM that nothing ties to a device which has an identity already: it may be
    /// anybody's. A binding does, or an operator's list.
    pub(super) fn check_tied(&self, view: &View, attested: &Attested<'_>) -> Result<(), Refusal> {
        let is_new = view.device.as_ref().is_none_or(|device| device.serial.is_none());
        if is_new || view.tpm.device.bound.is_some() || self.is_listed(attested) {
            return Ok(());
        }
        Err(Refusal::DeviceActive { device: self.device.clone() })
    }

    /// The evidence that counts: what came, or what was kept while the same key waited for an
    /// operator. A request that is repeated meanwhile brings a challenge that is used and over.
    fn proven<'a>(&self, view: &'a View) -> Result<Option<Attested<'a>>, Refusal> {
        let waiting = view.tpm.device.waiting.as_ref();
        let kept = waiting.filter(|(kept, _)| kept.proven.evidence.key == self.key);
        let Some(claim) = &self.claim else {
            return Ok(kept.map(Attested::kept));
        };
        match kept {
            Some(kept) if kept.0.proven.evidence.challenge == claim.challenge => {
                Ok(Some(Attested::kept(kept)))
            }
            kept => self.fresh(view, claim, kept.map(|(kept, _)| kept)).map(Some),
        }
    }

    fn fresh<'a>(
        &self,
        view: &'a View,
        claim: &Claim,
        kept: Option<&Binding>,
    ) -> Result<Attested<'a>, Refusal> {
        let unknown = TpmRefusal::Challenge(ChallengeError::Unknown { id: claim.challenge });
        let (challenge, known) = view.tpm.challenged.as_ref().ok_or(unknown)?;
        let proven = self.check_evidence(challenge, &claim.statement)?;
        let (found, source) = (proven.endorsement.ek, proven.endorsement.source);
        if source == Source::Allowlist && known.listed_for.is_none() {
            return Err(TpmRefusal::EkUnknown { ek: found }.into());
        }
        // An operator looks at the TPM that a waiting key came with; it cannot become another.
        match kept.map(|kept| kept.proven.endorsement.ek) {
            Some(recorded) if recorded != found => {
                Err(TpmRefusal::EkConflict { found, recorded }.into())
            }
            _ => Ok(Attested { proven, known, uses: Some(challenge.id) }),
        }
    }

    fn check_evidence(
        &self,
        challenge: &Challenge,
        statement: &Statement,
    ) -> Result<Proven, Refusal> {
        let secret = challenge.secret_for(&self.device, self.now).map_err(TpmRefusal::Challenge)?;
        let ak = evidence::attestation_key(&challenge.ak.public).map_err(TpmRefusal::Evidence)?;
        let expected = Expected {
            ak: &ak,
            secret: secret.octets(),
            challenge: &challenge.id.0,
            nonce: &challenge.nonce,
            spki: self.csr.key().spki(),
        };
        let proof = evidence::check(statement, &expected).map_err(TpmRefusal::Evidence)?;
        Ok(Proven {
            endorsement: challenge.endorsement.clone(),
            ak: challenge.ak.clone(),
            evidence: self.evidence(challenge.id, statement.clone(), &proof),
        })
    }

    fn evidence(&self, challenge: ChallengeId, statement: Statement, proof: &Proof) -> Evidence {
        let Statement { attest, signature, public } = statement;
        Evidence {
            at: self.now,
            challenge,
            key: self.key,
            key_name: KeyName::from(&proof.key_name),
            attest,
            signature,
            public,
            clock: proof.clock.into(),
            firmware: proof.firmware_version,
        }
    }

    fn check_virtual(&self, group: &Group, proven: &Proven) -> Result<(), Refusal> {
        match &proven.endorsement.kind {
            Some(kind) if kind.is_virtual && !group.allow_virtual_tpm => {
                Err(TpmRefusal::VirtualTpm { kind: kind.clone() }.into())
            }
            _ => Ok(()),
        }
    }

    /// A TPM is that of one device, and an attestation key lives in one TPM.
    fn check_holder(&self, attested: &Attested<'_>) -> Result<(), Objection> {
        let (ek, known) = (attested.proven.endorsement.ek, attested.known);
        if let Some((holder, status)) = known.holder.as_ref().filter(|it| it.0 != self.device) {
            let holder = holder.clone();
            let is_on_record = known.disputed_by.as_ref() == Some(&self.device);
            let conflict = self.conflict_of(holder.clone(), ConflictKind::ClaimedBy, attested);
            let refusal = match status {
                Status::Revoked => TpmRefusal::EkRevoked { ek, holder },
                _ => TpmRefusal::EkBound { ek, holder },
            };
            let conflict = (!is_on_record).then_some(conflict);
            return Err(Objection { refusal: refusal.into(), conflict });
        }
        match known.ak_seen_under {
            Some(seen_under) if seen_under != ek => {
                Err(TpmRefusal::AkBound { found: ek, seen_under }.into())
            }
            _ => Ok(()),
        }
    }

    /// A device stays with its TPM, and who shows a certificate with its attestation key too: only
    /// a TPM that was cleared loses that key, and with it the key of the certificate.
    fn check_bound(&self, view: &View, attested: &Attested<'_>) -> Result<(), Objection> {
        let Some(bound) = &view.tpm.device.bound else { return Ok(()) };
        let (recorded, found) = (bound.proven.endorsement.ek, attested.proven.endorsement.ek);
        if recorded != found {
            let is_on_record = attested.known.disputed_ek == Some(found);
            let device = self.device.clone();
            let conflict = self.conflict_of(device, ConflictKind::AnotherEk, attested);
            let refusal = TpmRefusal::EkConflict { found, recorded }.into();
            return Err(Objection { refusal, conflict: (!is_on_record).then_some(conflict) });
        }
        let (recorded, found) = (&bound.proven.ak.name, &attested.proven.ak.name);
        if recorded != found && matches!(self.credential, Credential::Certificate { .. }) {
            let (found, recorded) = (found.clone(), recorded.clone());
            return Err(TpmRefusal::AkChanged { found, recorded }.into());
        }
        Ok(())
    }

    /// The operator's list is never contradicted, and the group's policy is met.
    fn check_listed(
        &self,
        view: &View,
        group: &Group,
        attested: &Attested<'_>,
    ) -> Result<(), Refusal> {
        let ek = attested.proven.endorsement.ek;
        if let Some(other) = attested.known.listed_for.as_ref().filter(|it| **it != self.device) {
            return Err(TpmRefusal::EkListedElsewhere { ek, listed_for: other.clone() }.into());
        }
        let has_another = view.tpm.device.bound.is_none() && view.tpm.device.listed.is_some();
        let has_to_be = group.admission == Admission::EkAllowlist || has_another;
        if has_to_be && !self.is_listed(attested) {
            return Err(TpmRefusal::EkNotListed { ek, device: self.device.clone() }.into());
        }
        let source = attested.proven.endorsement.source;
        if group.admission == Admission::EkChain && source != Source::Chain {
            return Err(TpmRefusal::EkChainRequired { ek }.into());
        }
        Ok(())
    }

    fn is_listed(&self, attested: &Attested<'_>) -> bool {
        attested.known.listed_for.as_ref() == Some(&self.device)
    }

    fn conflict_of(
        &self,
        device: DeviceId,
        kind: ConflictKind,
        attested: &Attested<'_>,
    ) -> Box<Conflict> {
        let ek = attested.proven.endorsement.ek;
        Box::new(Conflict { device, kind, ek, claimant: self.device.clone(), at: self.now })
    }

    /// The entry of a conflict that is recorded, about the device whose binding is contradicted.
    pub(super) fn conflict_entry(&self, conflict: &Conflict) -> Entry {
        let detail = format!(
            "{}: endorsement key {} came with {}",
            conflict.kind.code(),
            conflict.ek,
            conflict.claimant
        );
        let entry = Entry::new(self.now, Event::Conflict, self.actor());
        entry.about(&conflict.device).saying(&detail)
    }

    /// What a certificate on this evidence changes about the TPM, and what is said of it.
    pub(super) fn bind(
        &self,
        view: &View,
        group: &Group,
        attested: Attested<'_>,
    ) -> (Vec<Change>, Vec<Entry>) {
        let mut changes: Vec<Change> = attested.uses(self).into_iter().collect();
        let ek = attested.proven.endorsement.ek;
        if attested.known.ak_seen_under.is_none() {
            let name = attested.proven.ak.name.clone();
            changes.push(Change::Ak { name, ek, at: self.now });
        }
        if view.tpm.device.waiting.is_some() {
            changes.push(Change::Unbind(self.device.clone(), Hold::Waiting));
        }
        let audit = self.bound_entries(view.tpm.device.bound.as_ref(), &attested.proven);
        let binding = match view.tpm.device.bound.clone() {
            Some(bound) => bound.renewed(attested.proven).0,
            None => self.new_binding(Hold::Bound, group, attested.proven),
        };
        changes.push(Change::Bind(Box::new(binding)));
        (changes, audit)
    }

    /// Keeps the evidence of a key that has to wait; nothing changes if it is the same again.
    pub(super) fn keep(&self, group: &Group, attested: Attested<'_>) -> Vec<Change> {
        let Some(used) = attested.uses(self) else { return Vec::new() };
        let binding = self.new_binding(Hold::Waiting, group, attested.proven);
        vec![used, Change::Bind(Box::new(binding))]
    }

    fn new_binding(&self, hold: Hold, group: &Group, proven: Proven) -> Binding {
        let (device, admission) = (self.device.clone(), group.admission);
        Binding { device, hold, proven, admission, since: self.now, clone_signs: None }
    }

    fn bound_entries(&self, bound: Option<&Binding>, proven: &Proven) -> Vec<Entry> {
        let entry = |event, detail: &str| {
            Entry::new(self.now, event, self.actor()).about(&self.device).saying(detail)
        };
        let how = described(proven);
        let Some(bound) = bound else { return vec![entry(Event::Bound, &how)] };
        let mut entries = vec![entry(Event::Attested, &how)];
        if bound.proven.ak.name != proven.ak.name {
            let detail = format!("attestation key {} before", bound.proven.ak.name);
            entries.push(entry(Event::AkReplaced, &detail));
        }
        let sign = bound.clone().renewed(proven.clone()).1;
        entries.extend(sign.map(|sign: CloneSign| entry(Event::CloneSign, sign.code())));
        entries
    }
}

fn described(proven: &Proven) -> String {
    let Proven { endorsement, ak, .. } = proven;
    let (ek, source) = (endorsement.ek, endorsement.source.code());
    format!("endorsement key {ek} by {source}, attestation key {}", ak.name)
}

impl<'a> Attested<'a> {
    fn kept((kept, known): &'a (Binding, Known)) -> Self {
        Self { proven: kept.proven.clone(), known, uses: None }
    }

    fn uses(&self, case: &Case) -> Option<Change> {
        self.uses.map(|id| Change::UseChallenge { id, at: case.now })
    }

    /// The TPM in one line.
    pub(super) fn described(&self) -> String {
        described(&self.proven)
    }
}
