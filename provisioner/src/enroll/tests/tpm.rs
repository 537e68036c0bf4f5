//! The rules about TPMs: who gets a challenge, what evidence gets, and what it never gets.

use super::{
    soft_tpm::{MAKER, STRANGER, SoftTpm},
    *,
};
use crate::{
    attest::{EkId, testing::SECRET},
    binding::{Binding, ConflictKind, Hold, Source},
    challenge::{CHALLENGE_VALID_S, CHALLENGES_MAX, Challenge, ChallengeId},
    enroll::{ChallengeOrder, NewChallenge},
    store::{Listing, TpmRecord, TpmScope},
    testing::{binding, group},
};

/// Groups beside those of [`settings`], one for each admission that asks for a TPM.
const GROUPS: [(&str, Admission); 3] = [
    ("chain", Admission::EkChain),
    ("listed", Admission::EkAllowlist),
    ("token-ek", Admission::TokenEk),
];

impl Rig {
    fn with_tpms() -> Self {
        let mut settings = settings();
        for (text, admission) in GROUPS {
            settings.groups.insert(name(text), group(admission));
            settings.labels.insert(name(text), name(text));
        }
        let software = Group { allow_virtual_tpm: true, ..group(Admission::EkChain) };
        settings.groups.insert(name("software"), software);
        settings.labels.insert(name("software"), name("software"));
        let authority = authority(TreeKind::Device);
        let provisioner = Provisioner::new(MemoryStore::new(), settings, authority);
        let rig = Self { provisioner, rng: Seeded(100) };
        block_on(rig.provisioner.add_ek_roots(vec![MAKER.root()], OPERATOR, NOW)).unwrap();
        rig
    }

    fn ask(
        &mut self,
        peer: Peer,
        id: &str,
        tpm: &SoftTpm,
        now: Wall,
    ) -> Result<NewChallenge, ServiceError> {
        let order = ChallengeOrder {
            peer,
            device: device(id),
            ek_public: tpm.ek_area.clone(),
            ek_certificates: tpm.certificates.clone(),
            ak_public: tpm.ak_area.clone(),
        };
        block_on(self.provisioner.challenge(order, now, &mut self.rng))
    }

    fn no_challenge(&mut self, id: &str, tpm: &SoftTpm) -> Refusal {
        match self.ask(Peer::Anonymous, id, tpm, NOW) {
            Err(ServiceError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn challenge(&mut self, id: &str, tpm: &SoftTpm, now: Wall) -> Challenge {
        let new = self.ask(Peer::Anonymous, id, tpm, now).unwrap();
        self.stored(new.id).unwrap()
    }

    fn stored(&self, id: ChallengeId) -> Option<Challenge> {
        let tpm = TpmScope { challenge: Some(id), ..TpmScope::default() };
        let view = block_on(self.provisioner.store().view(Scope::of_tpm(tpm))).unwrap();
        view.tpm.challenged.map(|(challenge, _)| challenge)
    }

    /// A request at a label with fresh evidence by `tpm` about `key`.
    fn proving(
        &mut self,
        id: &str,
        label: &str,
        tpm: &SoftTpm,
        key: &KeyPair,
        now: Wall,
    ) -> Request {
        let challenge = self.challenge(id, tpm, now);
        let csr_der = tpm.csr(&challenge, key, id);
        Request { label: Some(name(label)), challenge: Some(challenge.id), ..anonymous(csr_der) }
    }

    /// Enrolls a device by its TPM alone.
    fn attested(&mut self, id: &str, tpm: &SoftTpm, key: &KeyPair) -> Vec<u8> {
        let request = self.proving(id, "chain", tpm, key, NOW);
        self.leaf(request, NOW)
    }

    fn record(&self, id: &str) -> TpmRecord {
        block_on(self.provisioner.store().tpm(device(id))).unwrap()
    }

    fn import(&self, entries: &[(&str, EkId)], group: &str) {
        let entries: Vec<_> = entries.iter().map(|(id, ek)| (device(id), *ek)).collect();
        block_on(self.provisioner.import(&entries, name(group), OPERATOR, NOW)).unwrap();
    }

    fn replace(&self, id: &str, ek: Option<EkId>) -> Result<Device, ServiceError> {
        block_on(self.provisioner.replace(device(id), ek, OPERATOR, NOW))
    }

    fn write(&self, changes: Vec<Change>) {
        let decide = move |_: &View| Verdict { changes: changes.clone(), ..Verdict::new(()) };
        block_on(self.provisioner.store().transact(Scope::default(), decide)).unwrap();
    }

    fn has_event(&self, event: Event) -> bool {
        self.events().iter().any(|(found, ..)| *found == event)
    }
}

fn renewing(leaf: &[u8], request: Request) -> Request {
    let (operation, label) = (Operation::Reenroll, None);
    Request { operation, peer: peer(leaf, false), label, ..request }
}

fn with_token(request: Request, id: &str, token: &str) -> Request {
    Request { basic: basic(id, token), ..request }
}

// Goal: a TPM with a good certificate gets its device in, and everything about it is recorded.
#[test]
fn a_genuine_tpm_admits_its_device_and_is_bound_to_it() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let leaf = rig.attested("gw-1", &tpm, &key);
    assert_eq!(Leaf::parse(&leaf).unwrap().key, public(&key));
    let bound = rig.record("gw-1").bound.unwrap();
    assert_eq!((bound.hold, bound.admission, bound.since), (Hold::Bound, Admission::EkChain, NOW));
    let endorsement = &bound.proven.endorsement;
    assert_eq!((endorsement.ek, endorsement.source), (tpm.ek(), Source::Chain));
    assert_eq!(endorsement.chain, [tpm.certificates.clone(), MAKER.root().der().to_vec()]);
    let kind = endorsement.kind.as_ref().unwrap();
    assert_eq!((&*kind.manufacturer, kind.is_virtual), ("IFX", false));
    assert_eq!(bound.proven.ak.public, tpm.ak_area);
    let evidence = &bound.proven.evidence;
    assert_eq!((evidence.at, evidence.key), (NOW, public(&key).fingerprint()));
    assert_eq!(evidence.clock.reset_count, tpm.reset_count);
    let used = rig.stored(evidence.challenge).unwrap();
    assert_eq!((used.used_at, used.secret), (Some(NOW), None));
    let events: Vec<_> = rig.events().into_iter().map(|(event, actor, _)| (event, actor)).collect();
    assert_eq!(
        events,
        [
            (Event::EkRootAdded, Actor::Operator(OPERATOR.into())),
            (Event::Requested, Actor::Device),
            (Event::Bound, Actor::Device),
            (Event::Issued, Actor::Device),
        ]
    );
}

// Goal: what goes out to the TPM opens, with the endorsement key's private half, to the secret that
// the evidence has to be keyed with.
#[test]
fn a_credential_opens_to_the_secret_of_its_challenge() {
    use crate::attest::{
        evidence::{attestation_key, endorsement_key},
        testing::{rsa_key, vector, with_rsa_key},
    };
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm { ek_area: with_rsa_key(vector("ek-rsa2048")), ..SoftTpm::bare(1) };
    rig.import(&[("gw-1", tpm.ek())], "listed");
    let new = rig.ask(Peer::Anonymous, "gw-1", &tpm, NOW).unwrap();
    let padding = rsa::Oaep::new_with_label::<sha2::Sha256, _>("IDENTITY\0");
    let seed = rsa_key().decrypt(padding, &new.credential.encrypted_secret).unwrap();
    let (ek, ak) = (endorsement_key(&tpm.ek_area).unwrap(), attestation_key(&tpm.ak_area).unwrap());
    let wrapped = |secret: &[u8; 32]| {
        let blob =
            fleetcert_tpm::credential::wrap(ek.name_alg(), &seed, ek.aes(), ak.name(), secret);
        blob.unwrap().as_bytes().to_vec()
    };
    let stored = rig.stored(new.id).unwrap();
    assert_eq!(wrapped(stored.secret.unwrap().octets()), new.credential.blob);
    assert_ne!(wrapped(&SECRET), new.credential.blob);
    assert_eq!((new.nonce, new.valid_s), (stored.nonce, CHALLENGE_VALID_S));
}

// Goal: each policy that grants by a TPM refuses who brings none, and takes nothing less.
#[test]
fn policies_that_ask_for_a_tpm_refuse_who_brings_none() {
    let mut rig = Rig::with_tpms();
    let key = key_pair(1);
    for label in ["chain", "listed"] {
        let bare = Request { label: Some(name(label)), ..anonymous(csr(&key, "gw-1")) };
        expect(&rig.refusal(bare, NOW), "evidence-required", 403);
        let token = rig.token_at(&format!("by-{label}"), label, None);
        let id = format!("by-{label}");
        expect(&rig.refusal(by_token(&id, &token, &key), NOW), "evidence-required", 403);
    }
    let token = rig.token_at("gw-2", "token-ek", None);
    expect(&rig.refusal(by_token("gw-2", &token, &key), NOW), "evidence-required", 403);
    let proving = rig.proving("gw-2", "token-ek", &SoftTpm::new(2), &key, NOW);
    expect(&rig.refusal(proving.clone(), NOW), "credentials-required", 401);
    rig.leaf(with_token(proving, "gw-2", &token), NOW);
    assert_eq!(rig.record("gw-2").bound.unwrap().admission, Admission::TokenEk);
}

#[test]
fn a_closed_group_lets_no_tpm_in_and_a_token_group_none_without_a_token() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    for label in ["closed", "tokens"] {
        let request = rig.proving("gw-1", label, &tpm, &key, NOW);
        expect(&rig.refusal(request, NOW), "credentials-required", 401);
    }
    let token = rig.token_at("gw-2", "closed", None);
    let request = rig.proving("gw-2", "closed", &tpm, &key, NOW);
    expect(&rig.refusal(with_token(request, "gw-2", &token), NOW), "policy-denied", 403);
    assert_eq!(rig.record("gw-2").bound, None);
}

#[test]
fn an_allowlist_admits_the_tpm_that_is_listed_for_the_device() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::bare(1), key_pair(1));
    rig.import(&[("gw-1", tpm.ek())], "listed");
    let request = rig.proving("gw-1", "listed", &tpm, &key, NOW);
    rig.leaf(request, NOW);
    let bound = rig.record("gw-1").bound.unwrap();
    assert_eq!(bound.proven.endorsement.source, Source::Allowlist);
    assert_eq!(
        (bound.proven.endorsement.chain.len(), bound.admission),
        (0, Admission::EkAllowlist)
    );
}

#[test]
fn an_allowlist_refuses_a_tpm_with_the_best_certificate_that_is_not_on_it() {
    let mut rig = Rig::with_tpms();
    let (tpm, other, key) = (SoftTpm::new(1), SoftTpm::new(2), key_pair(1));
    let request = rig.proving("gw-1", "listed", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-not-listed", 403);
    rig.import(&[("gw-2", tpm.ek()), ("gw-3", other.ek())], "listed");
    let request = rig.proving("gw-1", "listed", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-listed-elsewhere", 409);
    let request = rig.proving("gw-2", "listed", &SoftTpm::new(3), &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-not-listed", 403);
}

// Goal: what an operator listed is not contradicted where the policy would not ask for a list.
#[test]
fn a_list_holds_in_every_group() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    rig.import(&[("gw-1", tpm.ek())], "chain");
    let request = rig.proving("gw-2", "chain", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-listed-elsewhere", 409);
    let request = rig.proving("gw-1", "chain", &SoftTpm::new(2), &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-not-listed", 403);
    rig.attested("gw-1", &tpm, &key);
}

#[test]
fn a_group_that_wants_a_chain_takes_no_list_for_it() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::bare(1), key_pair(1));
    rig.import(&[("gw-1", tpm.ek())], "chain");
    let request = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "ek-chain-required", 403);
}

#[test]
fn software_counts_only_where_it_is_allowed() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::software(1), key_pair(1));
    let request = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "virtual-tpm", 403);
    let token = rig.token("gw-2");
    let request = rig.proving("gw-2", "tokens", &tpm, &key, NOW);
    expect(&rig.refusal(with_token(request, "gw-2", &token), NOW), "virtual-tpm", 403);
    let request = rig.proving("gw-3", "software", &tpm, &key, NOW);
    rig.leaf(request, NOW);
    assert!(rig.record("gw-3").bound.unwrap().proven.is_virtual());
}

// Goal: no challenge for a TPM that nobody vouches for, and nothing written for it that lasts.
#[test]
fn strangers_get_no_challenge_and_leave_nothing_but_rationed_audit_rows() {
    let mut rig = Rig::with_tpms();
    let (good, other) = (SoftTpm::new(1), SoftTpm::new(2));
    let of_another = SoftTpm { certificates: other.certificates.clone(), ..good.clone() };
    for (tpm, code) in [
        (SoftTpm::bare(1), "ek-unknown"),
        (SoftTpm::of(&STRANGER, 1), "ek-unknown-root"),
        (of_another, "ek-mismatch"),
        (SoftTpm { certificates: vec![0x30, 0], ..good.clone() }, "ek-certificate-malformed"),
        (SoftTpm { ek_area: good.ak_area.clone(), ..good.clone() }, "ek-not-admin-with-policy"),
        (SoftTpm { ak_area: good.ek_area.clone(), ..good.clone() }, "ak-not-sign"),
    ] {
        expect(&rig.no_challenge("gw-1", &tpm), code, 403);
    }
    assert_eq!(rig.no_challenge("backend.x", &good).code(), "device-name");
    for _ in 0..40 {
        rig.no_challenge("gw-1", &SoftTpm::bare(1));
    }
    let refused = rig.events().iter().filter(|(event, ..)| *event == Event::Refused).count();
    assert_eq!(refused, crate::enroll::ration::STRANGER_REFUSALS_PER_MIN_MAX as usize);
    let tpm = TpmScope { endorsement: Some((good.ek(), NOW)), ..TpmScope::default() };
    let view = block_on(rig.provisioner.store().view(Scope::of_tpm(tpm))).unwrap();
    assert_eq!((view.tpm.endorsed.open_in_all, rig.device("gw-1")), (0, None));
}

#[test]
fn a_device_asks_for_no_challenge_in_another_ones_name() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let leaf = rig.attested("gw-1", &tpm, &key);
    assert!(rig.ask(peer(&leaf, false), "gw-1", &tpm, NOW).is_ok());
    match rig.ask(peer(&leaf, false), "gw-2", &tpm, NOW) {
        Err(ServiceError::Refused(refusal)) => expect(&refusal, "challenge-device", 403),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_listed_tpm_needs_no_certificate_that_is_good() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::of(&STRANGER, 1);
    rig.import(&[("gw-1", tpm.ek())], "listed");
    let challenge = rig.challenge("gw-1", &tpm, NOW);
    assert_eq!(challenge.endorsement.source, Source::Allowlist);
    assert_eq!(challenge.endorsement.kind, None, "nothing of a bad certificate is believed");
}

// Goal: a challenge counts once, for a while, for the device and the key that asked for it.
#[test]
fn every_misuse_of_a_challenge_has_its_code() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    let late = NOW.plus_s(u64::from(CHALLENGE_VALID_S) + 1);
    expect(&rig.refusal(request.clone(), late), "challenge-expired", 403);
    let unknown = Request { challenge: Some(ChallengeId([1; 16])), ..request.clone() };
    expect(&rig.refusal(unknown, NOW), "challenge-unknown", 403);
    let challenge = rig.stored(request.challenge.unwrap()).unwrap();
    let other = Request { csr_der: tpm.csr(&challenge, &key, "gw-2"), ..request.clone() };
    expect(&rig.refusal(other, NOW), "challenge-other-device", 403);
    let replaced = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    expect(&rig.refusal(request, NOW), "challenge-unknown", 403);
    rig.leaf(replaced.clone(), NOW);
    expect(&rig.refusal(replaced, NOW), "challenge-used", 409);
}

#[test]
fn challenge_and_evidence_come_together_or_not_at_all() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    let alone = Request { challenge: None, ..request.clone() };
    expect(&rig.refusal(alone, NOW), "challenge-missing", 400);
    let alone = Request { csr_der: csr(&key, "gw-1"), ..request };
    expect(&rig.refusal(alone, NOW), "evidence-missing", 400);
}

// Goal: evidence is judged wherever it comes: bad evidence spoils a good token, good evidence is
// recorded though nobody asked for it.
#[test]
fn evidence_that_nobody_asked_for_is_judged_and_recorded() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let token = rig.token("gw-1");
    let forged = SoftTpm::new(2).with_ak_of(&SoftTpm::new(3));
    let challenge = rig.challenge("gw-1", &tpm, NOW);
    for (bad, code) in [
        (forged.csr(&challenge, &key, "gw-1"), "signature"),
        (tpm.csr(&Challenge { nonce: [0; 32], ..challenge.clone() }, &key, "gw-1"), "qualifying"),
    ] {
        let request = Request { challenge: Some(challenge.id), ..anonymous(bad) };
        let refusal = rig.refusal(with_token(request, "gw-1", &token), NOW);
        assert!(refusal.code().contains(code), "{refusal}");
    }
    assert_eq!(rig.record("gw-1").bound, None);
    let csr_der = tpm.csr(&challenge, &key, "gw-1");
    let request = Request { challenge: Some(challenge.id), ..anonymous(csr_der) };
    rig.leaf(with_token(request, "gw-1", &token), NOW);
    let bound = rig.record("gw-1").bound.unwrap();
    assert_eq!((bound.proven.endorsement.ek, bound.admission), (tpm.ek(), Admission::Token));
}

#[test]
fn a_statement_that_cannot_be_read_has_its_own_code() {
    let mut rig = Rig::with_tpms();
    let key = key_pair(1);
    let oid = element(6, &[fleetcert_core::est::evidence::ID_AA_ATTESTATION.as_bytes()]);
    let attribute = element(0x30, &[&oid, &element(0x31, &[&[0x30, 0]])]);
    let csr_der = csr_of(&key, &subject(&[(3, "gw-1")]), &attribute);
    let request = Request { challenge: Some(ChallengeId([1; 16])), ..anonymous(csr_der) };
    expect(&rig.refusal(request.clone(), NOW), "evidence-malformed", 400);
    let twice = csr_of(&key, &subject(&[(3, "gw-1")]), &[&attribute[..], &attribute].concat());
    expect(&rig.refusal(Request { csr_der: twice, ..request }, NOW), "csr-malformed", 400);
}

// Goal: a TPM has one device. Another one that comes with it gets nothing, and an operator hears.
#[test]
fn a_tpm_that_is_bound_serves_no_other_device() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    rig.attested("gw-1", &tpm, &key_pair(1));
    for _ in 0..2 {
        let request = rig.proving("gw-2", "chain", &tpm, &key_pair(2), NOW);
        expect(&rig.refusal(request, NOW), "ek-bound", 409);
    }
    assert_eq!(rig.device("gw-2"), None);
    let [conflict] = &rig.record("gw-1").conflicts[..] else { panic!("one conflict") };
    assert_eq!((conflict.kind, conflict.ek), (ConflictKind::ClaimedBy, tpm.ek()));
    assert_eq!(conflict.claimant, device("gw-2"));
    let told = rig.events().iter().filter(|(event, ..)| *event == Event::Conflict).count();
    assert_eq!(told, 1, "the same again is no news");
}

#[test]
fn the_tpm_of_a_revoked_device_is_not_free_until_an_operator_says_so() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    rig.attested("gw-1", &tpm, &key_pair(1));
    rig.revoke("gw-1", NOW).unwrap();
    let request = rig.proving("gw-2", "chain", &tpm, &key_pair(2), NOW);
    expect(&rig.refusal(request, NOW), "ek-revoked", 403);
    assert_eq!(rig.replace("gw-1", None).unwrap().status, Status::Revoked);
    rig.attested("gw-2", &tpm, &key_pair(2));
    let request = rig.proving("gw-1", "chain", &SoftTpm::new(2), &key_pair(3), NOW);
    expect(&rig.refusal(request, NOW), "revoked", 403);
}

// Goal: a device has one TPM. Another one changes nothing by itself.
#[test]
fn another_tpm_for_a_bound_device_is_a_conflict_that_only_an_operator_settles() {
    let mut rig = Rig::with_tpms();
    let (old, new) = (SoftTpm::new(1), SoftTpm::new(2));
    let leaf = rig.attested("gw-1", &old, &key_pair(1));
    let before = rig.record("gw-1").bound;
    let request = rig.proving("gw-1", "chain", &new, &key_pair(2), NOW);
    expect(&rig.refusal(request, NOW), "ek-conflict", 409);
    let record = rig.record("gw-1");
    assert_eq!(record.bound, before);
    let [conflict] = &record.conflicts[..] else { panic!("one conflict") };
    assert_eq!((conflict.kind, conflict.ek), (ConflictKind::AnotherEk, new.ek()));
    assert!(rig.has_event(Event::Conflict));
    let replaced = rig.replace("gw-1", Some(new.ek())).unwrap();
    assert_eq!((replaced.status, replaced.serial), (Status::Expected, None));
    assert_eq!(rig.record("gw-1").conflicts, []);
    assert_eq!(rig.last_event().0, Event::DeviceReplaced);
    let request = reenroll(&leaf, csr(&key_pair(1), "gw-1"));
    expect(&rig.refusal(request, NOW), "revoked", 403);
    let request = rig.proving("gw-1", "chain", &old, &key_pair(3), NOW);
    expect(&rig.refusal(request, NOW), "ek-not-listed", 403);
    rig.attested("gw-1", &new, &key_pair(2));
    assert_eq!(rig.record("gw-1").bound.unwrap().proven.endorsement.ek, new.ek());
}

#[test]
fn an_operator_who_rejects_settles_a_conflict_and_leaves_the_binding() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    rig.attested("gw-1", &tpm, &key_pair(1));
    let request = rig.proving("gw-1", "chain", &SoftTpm::new(2), &key_pair(2), NOW);
    rig.refusal(request, NOW);
    let reject = |rig: &Rig| block_on(rig.provisioner.reject(device("gw-1"), OPERATOR, NOW));
    assert_eq!(reject(&rig).unwrap().status, Status::Active);
    assert_eq!(rig.record("gw-1").conflicts, []);
    assert_eq!(rig.record("gw-1").bound.unwrap().proven.endorsement.ek, tpm.ek());
    assert_eq!(reject(&rig), Err(ServiceError::Step(StepError::NothingWaits)));
}

#[test]
fn an_attestation_key_lives_in_one_tpm() {
    let mut rig = Rig::with_tpms();
    let (first, second) = (SoftTpm::new(1), SoftTpm::new(2));
    rig.attested("gw-1", &first, &key_pair(1));
    let copied = second.with_ak_of(&first);
    let request = rig.proving("gw-2", "chain", &copied, &key_pair(2), NOW);
    expect(&rig.refusal(request, NOW), "ak-bound", 409);
}

// Goal: a bound device gets no certificate for a key that its TPM has not proven, by whatever way.
#[test]
fn a_new_key_of_a_bound_device_needs_evidence_however_it_comes() {
    let mut rig = Rig::with_tpms();
    let (tpm, key, stolen) = (SoftTpm::new(1), key_pair(1), key_pair(2));
    let token = rig.token("gw-1");
    let request = rig.proving("gw-1", "tokens", &tpm, &key, NOW);
    let leaf = rig.leaf(with_token(request, "gw-1", &token), NOW);
    let renewed = rig.refusal(reenroll(&leaf, csr(&stolen, "gw-1")), NOW);
    expect(&renewed, "evidence-required", 403);
    let token = rig.token("gw-1");
    expect(&rig.refusal(by_token("gw-1", &token, &stolen), NOW), "evidence-required", 403);
    let late = NOW.plus_s(91 * DAY_S);
    let expired =
        |key: &KeyPair| Request { peer: peer(&leaf, true), ..reenroll(&leaf, csr(key, "gw-1")) };
    expect(&rig.refusal(expired(&stolen), late), "evidence-required", 403);
    rig.leaf(reenroll(&leaf, csr(&key, "gw-1")), NOW);
    rig.leaf(expired(&key), late);
    assert!(rig.has_event(Event::Recovered));
}

#[test]
fn a_renewal_with_evidence_of_the_recorded_key_is_recorded() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(2));
    let leaf = rig.attested("gw-1", &tpm, &key_pair(1));
    let now = NOW.plus_s(60 * DAY_S);
    let request = rig.proving("gw-1", "chain", &tpm, &key, now);
    let renewed = rig.leaf(renewing(&leaf, request), now);
    assert_eq!(Leaf::parse(&renewed).unwrap().key, public(&key));
    let bound = rig.record("gw-1").bound.unwrap();
    assert_eq!((bound.since, bound.proven.evidence.at), (NOW, now));
    assert_eq!(bound.proven.evidence.key, public(&key).fingerprint());
    assert!(rig.has_event(Event::Attested) && !rig.has_event(Event::CloneSign));
}

// Goal: who holds the device's certificate key holds its attestation key too; a cleared TPM has
// lost both, and comes as for the first time.
#[test]
fn a_cleared_tpm_enrolls_anew_and_does_not_renew() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    let leaf = rig.attested("gw-1", &tpm, &key_pair(1));
    let cleared = tpm.cleared(50);
    let request = rig.proving("gw-1", "chain", &cleared, &key_pair(2), NOW);
    expect(&rig.refusal(renewing(&leaf, request.clone()), NOW), "ak-changed", 403);
    rig.leaf(request, NOW);
    assert!(rig.has_event(Event::AkReplaced));
    let bound = rig.record("gw-1").bound.unwrap();
    assert_eq!((bound.proven.ak.public, bound.since), (cleared.ak_area, NOW));
}

#[test]
fn counters_that_go_back_are_shown_and_refuse_nobody() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    let leaf = rig.attested("gw-1", &tpm, &key_pair(1));
    let clone = SoftTpm { reset_count: 6, ..tpm };
    let now = NOW.plus_s(DAY_S);
    let request = rig.proving("gw-1", "chain", &clone, &key_pair(2), now);
    rig.leaf(renewing(&leaf, request), now);
    assert_eq!(rig.record("gw-1").bound.unwrap().clone_signs, Some((1, now)));
    assert!(rig.events().iter().any(|it| it.0 == Event::CloneSign && it.2 == "resets-back"));
}

// Goal: a certificate does not let anybody's TPM take over a device that has an identity.
#[test]
fn a_device_that_enrolled_without_a_tpm_is_not_taken_over_by_one() {
    let mut rig = Rig::with_tpms();
    let token = rig.token_at("gw-1", "tokens", None);
    let leaf = rig.leaf(by_token("gw-1", &token, &key_pair(1)), NOW);
    let moved = Device { group: name("chain"), ..rig.device("gw-1").unwrap() };
    rig.write(vec![Change::Device(moved)]);
    let request = rig.proving("gw-1", "chain", &SoftTpm::new(9), &key_pair(2), NOW);
    expect(&rig.refusal(request, NOW), "device-active", 403);
    let refusal = rig.refusal(reenroll(&leaf, csr(&key_pair(1), "gw-1")), NOW);
    expect(&refusal, "evidence-required", 403);
    let request = rig.proving("gw-1", "chain", &SoftTpm::new(1), &key_pair(2), NOW);
    rig.leaf(renewing(&leaf, request), NOW);
    assert_eq!(rig.record("gw-1").bound.unwrap().admission, Admission::EkChain);
}

#[test]
fn a_listed_tpm_takes_over_the_device_that_it_is_listed_for() {
    let mut rig = Rig::with_tpms();
    let token = rig.token_at("gw-1", "listed", None);
    let tpm = SoftTpm::bare(1);
    rig.write(vec![Change::Device(rig.device("gw-1").unwrap().issued(
        Serial::draw(&mut Seeded(5)),
        NOW.plus_s(9),
        NOW,
    ))]);
    rig.import(&[("gw-1", tpm.ek())], "listed");
    let request = rig.proving("gw-1", "listed", &tpm, &key_pair(1), NOW);
    rig.leaf(request, NOW);
    assert!(!token.is_empty() && rig.record("gw-1").bound.is_some());
}

// Goal: the same request again gets the same certificate, though its challenge is used and over.
#[test]
fn a_repeated_request_gets_the_same_certificate_without_another_challenge() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = named(rig.proving("gw-1", "chain", &tpm, &key, NOW), [3; 16]);
    let first = rig.leaf(request.clone(), NOW);
    let written = rig.events().len();
    let late = NOW.plus_s(3_600);
    assert_eq!(serial_of(&rig.leaf(request.clone(), late)), serial_of(&first));
    assert_eq!(rig.events().len(), written);
    let other = named(rig.proving("gw-1", "chain", &tpm, &key_pair(2), NOW), [3; 16]);
    expect(&rig.refusal(other, NOW), "request-conflict", 409);
}

// Goal: an operator sees the evidence before approving, and what was seen is what is bound, though
// the device's challenge is long over by then.
#[test]
fn evidence_waits_with_its_key_for_an_operator() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = rig.proving("gw-1", "walk-in", &tpm, &key, NOW);
    let waits = Ok(Answer::Pending { retry_after_s: 600 });
    assert_eq!(rig.enroll(request.clone(), NOW), waits);
    let record = rig.record("gw-1");
    assert_eq!(record.bound, None);
    assert_eq!(record.waiting.unwrap().proven.endorsement.ek, tpm.ek());
    assert!(rig.last_event().2.contains(&tpm.ek().to_string()));
    let (written, late) = (rig.events().len(), NOW.plus_s(7_200));
    assert_eq!(rig.enroll(request.clone(), late), waits);
    assert_eq!(rig.events().len(), written, "asking again writes nothing");
    let fresh = rig.proving("gw-1", "walk-in", &tpm, &key, late);
    assert_eq!(rig.enroll(fresh.clone(), late), waits);
    let kept = rig.record("gw-1").waiting.unwrap().proven.evidence;
    assert_eq!(Some(kept.challenge), fresh.challenge);
    let swapped = rig.proving("gw-1", "walk-in", &SoftTpm::new(2), &key, late);
    expect(&rig.refusal(swapped, late), "ek-conflict", 409);
    rig.approve("gw-1").unwrap();
    rig.leaf(fresh, late.plus_s(3_600));
    let record = rig.record("gw-1");
    assert_eq!((record.waiting, record.conflicts.len()), (None, 0));
    let bound = record.bound.unwrap();
    assert_eq!((bound.admission, bound.hold), (Admission::Approval, Hold::Bound));
    assert_eq!(bound.proven.endorsement.ek, tpm.ek());
}

#[test]
fn a_rejected_or_revoked_device_leaves_no_evidence_waiting() {
    let mut rig = Rig::with_tpms();
    for (id, seed) in [("gw-1", 1), ("gw-2", 2)] {
        let key = key_pair(u64::from(seed));
        let request = rig.proving(id, "walk-in", &SoftTpm::new(seed), &key, NOW);
        rig.enroll(request, NOW).unwrap();
    }
    block_on(rig.provisioner.reject(device("gw-1"), OPERATOR, NOW)).unwrap();
    rig.revoke("gw-2", NOW).unwrap();
    assert_eq!((rig.record("gw-1").waiting, rig.record("gw-2").waiting), (None, None));
}

#[test]
fn a_tpm_that_was_bound_meanwhile_is_not_bound_again_by_an_approval() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = rig.proving("gw-1", "walk-in", &tpm, &key, NOW);
    rig.enroll(request.clone(), NOW).unwrap();
    rig.attested("gw-2", &tpm, &key_pair(2));
    rig.approve("gw-1").unwrap();
    expect(&rig.refusal(request, NOW), "ek-bound", 409);
}

// Goal: a root that is trusted no longer counts from that moment on, for open challenges too.
#[test]
fn a_root_counts_until_it_is_removed_and_no_longer() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::new(1), key_pair(1));
    let request = rig.proving("gw-1", "chain", &tpm, &key, NOW);
    let root = MAKER.root();
    let remove = |rig: &Rig| block_on(rig.provisioner.remove_ek_root(root.id(), OPERATOR, NOW));
    remove(&rig).unwrap();
    assert_eq!(remove(&rig), Err(ServiceError::UnknownRoot(root.id())));
    expect(&rig.refusal(request, NOW), "challenge-unknown", 403);
    expect(&rig.no_challenge("gw-1", &tpm), "ek-unknown-root", 403);
    let add = vec![MAKER.root(), STRANGER.root()];
    let added = block_on(rig.provisioner.add_ek_roots(add.clone(), OPERATOR, NOW)).unwrap();
    assert_eq!((added.added, added.known), (2, 0));
    let added = block_on(rig.provisioner.add_ek_roots(add, OPERATOR, NOW)).unwrap();
    assert_eq!((added.added, added.known), (0, 2));
    rig.attested("gw-1", &tpm, &key);
    rig.challenge("gw-2", &SoftTpm::of(&STRANGER, 2), NOW);
}

#[test]
fn a_tpm_that_is_taken_off_the_list_is_not_admitted_by_a_challenge_from_before() {
    let mut rig = Rig::with_tpms();
    let (tpm, key) = (SoftTpm::bare(1), key_pair(1));
    rig.import(&[("gw-1", tpm.ek())], "listed");
    let request = rig.proving("gw-1", "listed", &tpm, &key, NOW);
    rig.replace("gw-1", None).unwrap();
    expect(&rig.refusal(request, NOW), "ek-unknown", 403);
}

// Goal: however many ask, so many challenges are open and no more; time makes room again.
#[test]
fn open_challenges_have_a_limit_in_all() {
    let mut rig = Rig::with_tpms();
    let of = |n: u32, now: Wall| {
        let Binding { proven, .. } = binding("gw-9", 99);
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let expires_at = now.plus_s(u64::from(CHALLENGE_VALID_S));
        Change::Challenge(Box::new(Challenge {
            id: ChallengeId(id),
            device: device("gw-9"),
            endorsement: proven.endorsement,
            ak: proven.ak,
            nonce: [0; 32],
            secret: None,
            created_at: now,
            expires_at,
            used_at: None,
        }))
    };
    rig.write((0..CHALLENGES_MAX).map(|n| of(n, NOW)).collect());
    let tpm = SoftTpm::new(1);
    let refusal = rig.no_challenge("gw-1", &tpm);
    expect(&refusal, "challenges-full", 503);
    assert!(refusal.retry_after_s(NOW).is_some());
    let late = NOW.plus_s(u64::from(CHALLENGE_VALID_S) + 1);
    rig.challenge("gw-1", &tpm, late);
    let later = late.plus_s(u64::from(CHALLENGE_VALID_S) + 1);
    rig.challenge("gw-1", &tpm, later);
    assert_eq!(rig.stored(ChallengeId([0; 16])), None, "what is over is purged");
}

// Goal: who knows a TPM's certificate may disturb its owner for seconds, and not lock it out.
#[test]
fn asking_in_the_name_of_a_tpm_does_not_displace_its_recorded_key() {
    let mut rig = Rig::with_tpms();
    let tpm = SoftTpm::new(1);
    let leaf = rig.attested("gw-1", &tpm, &key_pair(1));
    let request = rig.proving("gw-1", "chain", &tpm, &key_pair(2), NOW);
    for seed in 20..40 {
        rig.challenge("gw-1", &tpm.cleared(seed), NOW);
    }
    rig.leaf(renewing(&leaf, request), NOW);
}

#[test]
fn an_import_is_done_whole_or_not_at_all_and_once() {
    let mut rig = Rig::with_tpms();
    let ek = |seed| SoftTpm::bare(seed).ek();
    let import = |rig: &Rig, entries: &[(&str, EkId)], group: &str| {
        let entries: Vec<_> = entries.iter().map(|(id, ek)| (device(id), *ek)).collect();
        block_on(rig.provisioner.import(&entries, name(group), OPERATOR, NOW))
    };
    let good = [("gw-1", ek(1)), ("gw-2", ek(2))];
    let counts = import(&rig, &good, "listed").unwrap();
    assert_eq!((counts.devices_added, counts.listed, counts.unchanged), (2, 0, 0));
    assert_eq!(rig.last_event().0, Event::Imported);
    let written = rig.events().len();
    let counts = import(&rig, &good, "listed").unwrap();
    assert_eq!((counts.devices_added, counts.unchanged), (0, 2));
    assert_eq!(rig.events().len(), written, "the same again is no news");
    rig.attested("bound", &SoftTpm::new(3), &key_pair(3));
    rig.attested("gone", &SoftTpm::new(4), &key_pair(4));
    rig.revoke("gone", NOW).unwrap();
    for (bad, group) in [
        (("gw-9", ek(1)), "listed"),
        (("gw-1", ek(9)), "listed"),
        (("gw-1", ek(1)), "chain"),
        (("gw-9", ek(3)), "listed"),
        (("bound", ek(9)), "chain"),
        (("gone", ek(9)), "chain"),
        (("backend.x", ek(9)), "listed"),
    ] {
        match import(&rig, &[("new", ek(8)), bad], group) {
            Err(ServiceError::Import(error)) => {
                assert_eq!((error.index, error.device.as_str()), (1, bad.0), "{error}");
            }
            other => panic!("{bad:?}: {other:?}"),
        }
        assert_eq!(rig.device("new"), None, "{bad:?}");
    }
    let counts = import(&rig, &[("bound", ek(3))], "chain").unwrap();
    assert_eq!((counts.listed, counts.devices_added), (1, 0));
    let unknown = import(&rig, &[], "nowhere");
    assert_eq!(unknown, Err(ServiceError::UnknownGroup(name("nowhere"))));
}

#[test]
fn a_device_is_not_given_the_tpm_of_another() {
    let mut rig = Rig::with_tpms();
    let (first, listed) = (SoftTpm::new(1), SoftTpm::bare(2));
    rig.attested("gw-1", &first, &key_pair(1));
    rig.import(&[("gw-2", listed.ek())], "listed");
    for (ek, holder) in [(first.ek(), "gw-1"), (listed.ek(), "gw-2")] {
        let taken = ServiceError::EkTaken { ek, holder: device(holder) };
        let other = if holder == "gw-1" { "gw-2" } else { "gw-1" };
        assert_eq!(rig.replace(other, Some(ek)), Err(taken));
    }
    assert_eq!(rig.replace("gw-9", None), Err(ServiceError::UnknownDevice(device("gw-9"))));
    rig.revoke("gw-1", NOW).unwrap();
    let step = rig.replace("gw-1", Some(SoftTpm::bare(3).ek()));
    assert_eq!(step, Err(ServiceError::Step(StepError::Revoked { at: NOW })));
    assert_eq!(rig.replace("gw-2", Some(listed.ek())).unwrap().id, device("gw-2"));
    let scope = TpmScope {
        import: Some([Listing { ek: listed.ek(), device: device("gw-2") }].into()),
        ..TpmScope::default()
    };
    let view = block_on(rig.provisioner.store().view(Scope::of_tpm(scope))).unwrap();
    assert_eq!(view.tpm.import[0].listed_for, Some(device("gw-2")));
}
