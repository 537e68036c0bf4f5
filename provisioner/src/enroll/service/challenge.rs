//! Challenges for TPMs: the first half of an attestation.
//!
//! A challenge is made outside the transaction that stores it: chains are verified and credentials
//! encrypted without keeping anybody from writing, and for whoever is refused nothing is written
//! but a rationed line in the audit. The transaction only makes sure that what the endorsement key
//! was found good by is still so.

use std::sync::{Arc, Mutex, PoisonError};

use fleetcert_core::{device_id::DeviceId, time::Wall, wire::CHALLENGE_NONCE_LEN};

use super::{Asker, Provisioner, ServiceError};
use crate::{
    attest::{
        credential::{self, Credential},
        ek,
        evidence::{self, AttestationKey, EndorsementKey},
        root::EkRoot,
    },
    audit::Actor,
    authority::profile::is_reserved,
    binding::{Ak, Endorsement, KeyName, Source, TpmKind},
    challenge::{
        CHALLENGE_KEPT_S, CHALLENGE_VALID_S, CHALLENGES_MAX, Challenge, ChallengeId, Secret,
        gives_way,
    },
    enroll::{Peer, Refusal, TpmRefusal, decide::peer_leaf},
    random::Random,
    store::{
        Change, Scope, Store, StoreError, TpmScope, Verdict, View,
        tpm::{Roots, RootsStamp},
    },
};

/// How often a challenge is begun anew because an operator changed the roots or the list meanwhile.
const TRIES_MAX: usize = 3;

/// When to ask again while as many challenges are open as may be, seconds.
const FULL_RETRY_AFTER_S: u32 = 30;

/// Who asks for a challenge, with which TPM.
#[derive(Clone, Debug)]
pub struct ChallengeOrder {
    /// By whom.
    pub peer: Peer,
    /// The device that will enroll.
    pub device: DeviceId,
    /// The public area of the endorsement key (`TPMT_PUBLIC`).
    pub ek_public: Vec<u8>,
    /// Its certificates, DER, one behind the other, its own first; may be empty.
    pub ek_certificates: Vec<u8>,
    /// The public area of the attestation key (`TPMT_PUBLIC`).
    pub ak_public: Vec<u8>,
}

/// What the TPM has to solve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChallenge {
    /// The name of the challenge.
    pub id: ChallengeId,
    /// Goes into the evidence.
    pub nonce: [u8; CHALLENGE_NONCE_LEN],
    /// What opens to the secret.
    pub credential: Credential,
    /// For how long it is good, seconds.
    pub valid_s: u32,
}

/// The roots that are trusted, read once for each set of them.
#[derive(Debug, Default)]
pub(super) struct RootsCache(Mutex<Arc<Trusted>>);

#[derive(Debug, Default)]
struct Trusted {
    stamp: RootsStamp,
    roots: Vec<EkRoot>,
}

/// What became of a challenge in its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    /// What the endorsement key was found good by has changed.
    Changed,
    /// It is stored.
    Done,
    /// As many are open as may be.
    Full,
}

/// The keys that an order names, found fit for what they are to do.
struct Keys {
    ek: EndorsementKey,
    ak: AttestationKey,
}

impl<S: Store> Provisioner<S> {
    /// Makes a challenge for a device and its TPM. Refusals are recorded as those of
    /// [`Provisioner::enroll`]; a challenge is not, it changes nothing that lasts.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Refused`] with a [`TpmRefusal`], among them that of an endorsement key that
    /// neither chains to a trusted root nor is listed; or that clock or store could not do it.
    pub async fn challenge(
        &self,
        order: ChallengeOrder,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<NewChallenge, ServiceError> {
        self.check_clock(now)?;
        let is_stranger = order.peer == Peer::Anonymous;
        let actor = if is_stranger { Actor::Anonymous } else { Actor::Device };
        let asker = Asker { actor, device: Some(order.device.clone()), is_stranger };
        match self.try_challenge(&order, now, rng).await {
            Err(ServiceError::Refused(refusal)) => Err(self.refuse(refusal, asker, now).await),
            answer => answer,
        }
    }

    async fn try_challenge(
        &self,
        order: &ChallengeOrder,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<NewChallenge, ServiceError> {
        self.check_asker(order)?;
        let keys = Keys::of(order)?;
        for _ in 0..TRIES_MAX {
            let scope = keys.scope(now);
            let endorsed = self.store.view(scope.clone()).await?.tpm.endorsed;
            let trusted = self.trusted(endorsed.roots).await?;
            let is_listed = endorsed.listed_for.is_some();
            let endorsement = keys.endorse(order, &trusted.roots, is_listed, now)?;
            let (challenge, credential) = keys.challenge(order, endorsement, now, rng)?;
            let Challenge { id, nonce, .. } = challenge;
            let stamp = trusted.stamp;
            let decide = move |view: &View| place(view, &challenge, stamp, now);
            match self.store.transact(scope, decide).await?.outcome {
                Placed::Changed => {}
                Placed::Done => {
                    let valid_s = CHALLENGE_VALID_S;
                    return Ok(NewChallenge { id, nonce, credential, valid_s });
                }
                Placed::Full => return Err(full().into()),
            }
        }
        Err(ServiceError::Store(StoreError::Busy))
    }

    /// A device that shows who it is asks for itself.
    fn check_asker(&self, order: &ChallengeOrder) -> Result<(), Refusal> {
        if is_reserved(&order.device) {
            return Err(Refusal::DeviceName { found: order.device.to_string() });
        }
        match peer_leaf(&order.peer, &self.settings)? {
            Some((expected, _, _)) if expected != order.device => {
                let found = order.device.clone();
                Err(TpmRefusal::ChallengeDevice { found, expected }.into())
            }
            _ => Ok(()),
        }
    }

    /// The roots of that stamp, or newer ones.
    async fn trusted(&self, stamp: RootsStamp) -> Result<Arc<Trusted>, StoreError> {
        let cached = self.roots.get();
        if cached.stamp == stamp {
            return Ok(cached);
        }
        let scope = Scope::of_tpm(TpmScope { roots: true, ..TpmScope::default() });
        let trusted = Arc::new(Trusted::read(self.store.view(scope).await?.tpm.roots)?);
        self.roots.set(&trusted);
        Ok(trusted)
    }
}

impl RootsCache {
    fn get(&self) -> Arc<Trusted> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, trusted: &Arc<Trusted>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(trusted);
    }
}

impl Trusted {
    fn read(Roots { stamp, roots }: Roots) -> Result<Self, StoreError> {
        let corrupt = |_| StoreError::Corrupt { place: "ek_root.der" };
        let roots = roots.iter().map(|root| EkRoot::parse(&root.der).map_err(corrupt));
        Ok(Self { stamp, roots: roots.collect::<Result<_, _>>()? })
    }
}

impl Keys {
    fn of(order: &ChallengeOrder) -> Result<Self, Refusal> {
        let judged = |error| Refusal::from(TpmRefusal::Evidence(error));
        let ek = evidence::endorsement_key(&order.ek_public).map_err(judged)?;
        let ak = evidence::attestation_key(&order.ak_public).map_err(judged)?;
        Ok(Self { ek, ak })
    }

    fn scope(&self, now: Wall) -> Scope {
        let endorsement = Some((self.ek.id(), now));
        Scope::of_tpm(TpmScope { endorsement, ..TpmScope::default() })
    }

    /// Why the endorsement key is believed: its certificate first; the operator's list where it has
    /// none that is good.
    fn endorse(
        &self,
        order: &ChallengeOrder,
        roots: &[EkRoot],
        is_listed: bool,
        now: Wall,
    ) -> Result<Endorsement, Refusal> {
        let ek = self.ek.id();
        let listed = Endorsement { ek, source: Source::Allowlist, chain: Vec::new(), kind: None };
        if order.ek_certificates.is_empty() {
            return if is_listed { Ok(listed) } else { Err(TpmRefusal::EkUnknown { ek }.into()) };
        }
        match ek::verify(&order.ek_certificates, roots, now) {
            Ok(good) if good.spki_der != self.ek.spki_der() => {
                Err(TpmRefusal::EkMismatch { certified: good.id, found: ek }.into())
            }
            Ok(good) => {
                let kind = Some(TpmKind::from(&good.model));
                Ok(Endorsement { ek, source: Source::Chain, chain: good.chain, kind })
            }
            Err(_) if is_listed => Ok(listed),
            Err(error) => Err(TpmRefusal::Ek(error).into()),
        }
    }

    fn challenge(
        &self,
        order: &ChallengeOrder,
        endorsement: Endorsement,
        now: Wall,
        rng: &mut (dyn Random + Send),
    ) -> Result<(Challenge, Credential), ServiceError> {
        let ak = Ak { name: KeyName::from(self.ak.name()), public: order.ak_public.clone() };
        let secret = Secret::draw(rng);
        let credential = credential::make(&self.ek, self.ak.name(), secret.octets(), rng);
        let credential = credential.map_err(ServiceError::Credential)?;
        let device = order.device.clone();
        Ok((Challenge::draw(device, endorsement, ak, secret, now, rng), credential))
    }
}

/// Stores a challenge, if its endorsement key is still as good as it was found to be and there is
/// room.
fn place(view: &View, challenge: &Challenge, stamp: RootsStamp, now: Wall) -> Verdict<Placed> {
    let endorsed = &view.tpm.endorsed;
    let is_good = match challenge.endorsement.source {
        Source::Allowlist => endorsed.listed_for.is_some(),
        Source::Chain => endorsed.roots == stamp,
    };
    if !is_good {
        return Verdict::new(Placed::Changed);
    }
    let recorded = endorsed.recorded_ak.as_ref();
    let oldest = gives_way(&endorsed.open, &challenge.ak.name, recorded);
    if oldest.is_none() && endorsed.open_in_all >= CHALLENGES_MAX {
        return Verdict::new(Placed::Full);
    }
    let before = now.minus_s(CHALLENGE_KEPT_S);
    let changes = [
        Some(Change::PurgeChallenges { before }),
        oldest.map(Change::DropChallenge),
        Some(Change::Challenge(Box::new(challenge.clone()))),
    ];
    Verdict { changes: changes.into_iter().flatten().collect(), ..Verdict::new(Placed::Done) }
}

fn full() -> Refusal {
    let (open_max, retry_after_s) = (CHALLENGES_MAX, FULL_RETRY_AFTER_S);
    TpmRefusal::ChallengesFull { open_max, retry_after_s }.into()
}
