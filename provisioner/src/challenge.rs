//! Challenges: what a TPM has to solve before anything it says counts.
//!
//! **What it is.** A challenge is made for one device, one endorsement key (EK) and one attestation
//! key (AK). Its secret goes out encrypted so that only a TPM that holds both can give it back, as
//! the key of the evidence's qualifying data. It is good for [`CHALLENGE_VALID_S`] and once.
//!
//! **What it must never do.** Let strangers fill the database. None is made for an endorsement key
//! that neither chains to a trusted root nor is on the operator's list, so who asks must own a TPM,
//! or at least know the certificate of one: those are not secret. Hence the limits: so many that
//! are open for one endorsement key, so many in all, and what is past is purged by each new one.
//!
//! **Why that is sound.** At a limit, one endorsement key's oldest challenge gives way to its
//! newest, so nobody is locked out by who asks in its name, only held up: the owner needs its
//! challenge for a few seconds, and that of the recorded attestation key never gives way to another
//! one's. Using a challenge happens in the transaction that acts on it, and its secret is forgotten
//! there.

use std::fmt;

use fleetcert_core::{
    device_id::DeviceId,
    time::Wall,
    wire::{CHALLENGE_ID_LEN, CHALLENGE_NONCE_LEN},
};
use zeroize::Zeroizing;

use crate::{
    authority::write_hex,
    binding::{Ak, Endorsement, KeyName},
    random::Random,
};

/// How long a challenge is good, seconds: a slow TPM takes a few for what it has to do.
pub const CHALLENGE_VALID_S: u32 = 120;

/// How long a challenge is remembered after it was good, seconds, so that who comes late is told
/// that, and not that there is no such challenge.
pub const CHALLENGE_KEPT_S: u64 = 120;

/// Challenges that are open for one endorsement key, at most.
pub const CHALLENGES_PER_EK_MAX: usize = 4;

/// Challenges that are open in all, at most: 34 a second that nobody answers, and some 50 MiB with
/// their certificates.
pub const CHALLENGES_MAX: u32 = 4_096;

/// Octets of the secret that a TPM has to give back.
pub const SECRET_LEN: usize = 32;

/// The name of a challenge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChallengeId(pub [u8; CHALLENGE_ID_LEN]);

/// What the TPM has to find out. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET_LEN]>);

/// A challenge as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its name.
    pub id: ChallengeId,
    /// The device that asked.
    pub device: DeviceId,
    /// The TPM that has to solve it.
    pub endorsement: Endorsement,
    /// The key in it that will sign.
    pub ak: Ak,
    /// Goes into the qualifying data beside the secret.
    pub nonce: [u8; CHALLENGE_NONCE_LEN],
    /// Keys the qualifying data; forgotten once it was used.
    pub secret: Option<Secret>,
    /// When it was made.
    pub created_at: Wall,
    /// The last second at which it is good.
    pub expires_at: Wall,
    /// When it was used.
    pub used_at: Option<Wall>,
}

/// A challenge that is open, as far as making room for another needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its name.
    pub id: ChallengeId,
    /// The attestation key that it is for.
    pub ak: KeyName,
    /// When it was made.
    pub created_at: Wall,
}

/// Why a challenge does not vouch for evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeError {
    /// Its time is over.
    Expired {
        /// The last second at which it was good.
        expires_at: Wall,
        /// When its answer came.
        now: Wall,
    },
    /// It was made for another device.
    OtherDevice {
        /// The device that came with it.
        found: DeviceId,
    },
    /// There is none of that name.
    Unknown {
        /// The name.
        id: ChallengeId,
    },
    /// It was used.
    Used {
        /// When.
        at: Wall,
    },
}

impl Secret {
    /// Draws a secret.
    #[must_use]
    pub fn draw(rng: &mut dyn Random) -> Self {
        let mut octets = Zeroizing::new([0; SECRET_LEN]);
        rng.fill(octets.as_mut_slice());
        Self(octets)
    }

    /// A secret that was stored.
    #[must_use]
    pub fn from_octets(octets: [u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(octets))
    }

    /// The octets: for the database, and to make and check what depends on them.
    #[must_use]
    pub fn octets(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Challenge {
    /// Draws name and nonce of a challenge that is good from `now` on.
    #[must_use]
    pub fn draw(
        device: DeviceId,
        endorsement: Endorsement,
        ak: Ak,
        secret: Secret,
        now: Wall,
        rng: &mut dyn Random,
    ) -> Self {
        let (mut id, mut nonce) = ([0; CHALLENGE_ID_LEN], [0; CHALLENGE_NONCE_LEN]);
        rng.fill(&mut id);
        rng.fill(&mut nonce);
        Self {
            id: ChallengeId(id),
            device,
            endorsement,
            ak,
            nonce,
            secret: Some(secret),
            created_at: now,
            expires_at: now.plus_s(u64::from(CHALLENGE_VALID_S)),
            used_at: None,
        }
    }

    /// The secret, if `device` may answer the challenge at `now`.
    ///
    /// # Errors
    ///
    /// [`ChallengeError`]: another device's before everything else, so that nobody learns what
    /// became of it.
    pub fn secret_for(&self, device: &DeviceId, now: Wall) -> Result<&Secret, ChallengeError> {
        if self.device != *device {
            return Err(ChallengeError::OtherDevice { found: device.clone() });
        }
        if let Some(at) = self.used_at {
            return Err(ChallengeError::Used { at });
        }
        let expired = ChallengeError::Expired { expires_at: self.expires_at, now };
        if now > self.expires_at {
            return Err(expired);
        }
        self.secret.as_ref().ok_or(expired)
    }
}

/// Which of the open challenges of an endorsement key gives way to a new one for `ak`: the one for
/// the same key, since a device that asks again has lost it; at the limit the oldest, but never the
/// one for the key that is `recorded`.
#[must_use]
pub fn gives_way(open: &[Open], ak: &KeyName, recorded: Option<&KeyName>) -> Option<ChallengeId> {
    if let Some(same) = open.iter().find(|open| open.ak == *ak) {
        return Some(same.id);
    }
    let others = open.iter().filter(|open| Some(&open.ak) != recorded);
    let oldest = others.min_by_key(|open| (open.created_at, open.id));
    oldest.filter(|_| open.len() >= CHALLENGES_PER_EK_MAX).map(|open| open.id)
}

impl ChallengeError {
    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "challenge-expired",
            Self::OtherDevice { .. } => "challenge-other-device",
            Self::Unknown { .. } => "challenge-unknown",
            Self::Used { .. } => "challenge-used",
        }
    }
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { expires_at, now } => write!(
                f,
                "the challenge was good until {expires_at}, its answer came at {now}: ask for a \
                 new one"
            ),
            Self::OtherDevice { found } => write!(
                f,
                "the challenge was made for another device than {found}: ask for one of its own"
            ),
            Self::Unknown { id } => write!(
                f,
                "there is no challenge {id}, or a newer one took its place: ask for a new one"
            ),
            Self::Used { at } => {
                write!(f, "the challenge was used at {at}, it is good once: ask for a new one")
            }
        }
    }
}

impl std::error::Error for ChallengeError {}

impl fmt::Display for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ChallengeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChallengeId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, Seeded, binding, device};

    fn challenge() -> Challenge {
        let proven = binding("gw-1", 1).proven;
        let mut rng = Seeded(1);
        let secret = Secret::draw(&mut rng);
        Challenge::draw(device("gw-1"), proven.endorsement, proven.ak, secret, NOW, &mut rng)
    }

    fn name(n: u8) -> KeyName {
        KeyName::from_octets(&[n; 34]).unwrap()
    }

    fn open(n: u8, age_s: u64) -> Open {
        Open { id: ChallengeId([n; 16]), ak: name(n), created_at: NOW.minus_s(age_s) }
    }

    // Goal: a challenge is good to the last second, once, for its own device.
    #[test]
    fn a_challenge_is_good_for_one_device_once_and_not_for_long() {
        let good = challenge();
        let last = NOW.plus_s(u64::from(CHALLENGE_VALID_S));
        assert!(good.secret_for(&device("gw-1"), last).is_ok());
        let code = |challenge: &Challenge, id: &str, now| {
            challenge.secret_for(&device(id), now).unwrap_err().code()
        };
        assert_eq!(code(&good, "gw-1", last.plus_s(1)), "challenge-expired");
        assert_eq!(code(&good, "gw-2", NOW), "challenge-other-device");
        let used = Challenge { used_at: Some(NOW), secret: None, ..good };
        assert_eq!(code(&used, "gw-1", NOW), "challenge-used");
        assert_eq!(code(&used, "gw-2", NOW), "challenge-other-device");
    }

    // Goal: every part of a challenge is drawn anew.
    #[test]
    fn two_challenges_share_nothing() {
        let proven = binding("gw-1", 1).proven;
        let mut rng = Seeded(1);
        let mut draw = || {
            let (endorsement, ak) = (proven.endorsement.clone(), proven.ak.clone());
            let secret = Secret::draw(&mut rng);
            let drawn = Challenge::draw(device("gw-1"), endorsement, ak, secret, NOW, &mut rng);
            (drawn.id, drawn.nonce, *drawn.secret.unwrap().octets())
        };
        let (first, second) = (draw(), draw());
        assert!(first.0 != second.0 && first.1 != second.1 && first.2 != second.2);
        assert_ne!(first.1, first.2);
    }

    // Goal: a device that asks again replaces its own challenge and nobody else's.
    #[test]
    fn asking_again_replaces_the_own_challenge() {
        let all = [open(1, 9), open(2, 5)];
        assert_eq!(gives_way(&all, &name(2), None), Some(ChallengeId([2; 16])));
        assert_eq!(gives_way(&all, &name(3), None), None);
    }

    // Goal: at the limit the oldest gives way, but not that of the key that is on record.
    #[test]
    fn at_the_limit_the_oldest_gives_way_but_the_recorded_key_stays() {
        let all: Vec<Open> =
            (1..=CHALLENGES_PER_EK_MAX as u8).map(|n| open(n, 60 - u64::from(n))).collect();
        assert_eq!(gives_way(&all, &name(9), None), Some(ChallengeId([1; 16])));
        assert_eq!(gives_way(&all, &name(9), Some(&name(1))), Some(ChallengeId([2; 16])));
        assert_eq!(gives_way(&all[1..], &name(9), None), None);
    }

    // Goal: the secret is in no log.
    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", challenge());
        assert!(shown.contains("Secret(..)"), "{shown}");
    }
}
