//! The TPM that a device has proven to hold its key in, and who else claims that TPM.
//!
//! **What it is.** What is recorded once evidence was checked: the endorsement key (EK) that stands
//! for the TPM, the attestation key (AK) that speaks for it, the evidence itself, and under which
//! policy that was enough. A [`Binding`] either holds, or waits with its device for an operator.
//!
//! **What it must never do.** Be overwritten by who merely comes later. Another TPM for a bound
//! device, or a bound TPM for another device, is a [`Conflict`] for an operator.
//!
//! **Why that is sound.** Nothing of this is made from a request: the endorsement key is the one of
//! a validated certificate or of the operator's list, the Names were computed here, and everything
//! in [`Evidence`] was signed by the attestation key after it had proven to live beside the
//! endorsement key.

use std::fmt;

use fleetcert_core::{device_id::DeviceId, time::Wall};
use fleetcert_tpm::{attest::ClockInfo, name::Name};

use crate::{
    attest::{EkId, model::TpmModel},
    authority::{KeyFingerprint, write_hex},
    challenge::ChallengeId,
    enroll::Admission,
};

/// Octets of a TPM Name, at most: the identifier of a hash, and SHA-512.
const KEY_NAME_LEN_MAX: usize = 2 + 64;

/// The Name of an object in a TPM: `nameAlg ‖ H(public area)` (TPM 2.0 Part 1 §16), as recorded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(Box<[u8]>);

/// Why we believe that an endorsement key is that of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An operator listed it.
    Allowlist,
    /// Its certificate chains to a root that an operator trusts.
    Chain,
}

/// What the certificate of an endorsement key says the TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmKind {
    /// The vendor, as the certificate names it.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The version.
    pub version: String,
    /// Whether it is software that plays a TPM.
    pub is_virtual: bool,
}

/// An endorsement key that was found good before a challenge was made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// Its name.
    pub ek: EkId,
    /// Why it is believed.
    pub source: Source,
    /// Its certificate and those above it, DER, the trusted one last; none for one that is only
    /// listed.
    pub chain: Vec<Vec<u8>>,
    /// What its certificate says of the TPM; `None` without one.
    pub kind: Option<TpmKind>,
}

/// An attestation key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ak {
    /// Its Name, computed here.
    pub name: KeyName,
    /// Its public area (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
}

/// What a TPM says of its own time and starts (`TPMS_CLOCK_INFO`, TPM 2.0 Part 2 §10.11.1).
///
/// For a key outside the endorsement hierarchy a TPM adds a secret constant to both counts (Part 1
/// §36.7): they say nothing by themselves. The constant belongs to the key, so that two readings
/// signed by one key still differ by what happened in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmClock {
    /// Milliseconds that the TPM was powered since it was cleared.
    pub clock_ms: u64,
    /// Resets since it was cleared, and a constant.
    pub reset_count: u32,
    /// Restarts and resumptions since the last reset, and a constant.
    pub restart_count: u32,
    /// Whether no value of `clock_ms` above this one can have been given out before.
    pub safe: bool,
}

/// A reading that cannot follow an earlier one of the same TPM: two run with the same secrets, or
/// one was set back to an earlier state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloneSign {
    /// The clock went back, though the TPM called both readings safe.
    ClockBack,
    /// The count of resets went back.
    ResetsBack,
    /// The count of restarts went back without a reset.
    RestartsBack,
}

/// Evidence that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it was checked.
    pub at: Wall,
    /// The challenge that it answered.
    pub challenge: ChallengeId,
    /// The device key that it is about.
    pub key: KeyFingerprint,
    /// The Name of that key in the TPM.
    pub key_name: KeyName,
    /// What the TPM signed (`TPMS_ATTEST`).
    pub attest: Vec<u8>,
    /// The attestation key's signature over it (`TPMT_SIGNATURE`).
    pub signature: Vec<u8>,
    /// The public area of the device key (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
    /// The TPM's time and starts.
    pub clock: TpmClock,
    /// The TPM's firmware, and a constant of the attestation key like that of [`TpmClock`]: equal
    /// numbers are equal firmware.
    pub firmware: u64,
}

/// A TPM with the evidence that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Which TPM.
    pub endorsement: Endorsement,
    /// The key that speaks for it.
    pub ak: Ak,
    /// What it said last.
    pub evidence: Evidence,
}

/// Whether a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The device is bound to the TPM.
    Bound,
    /// An operator has to approve the key first.
    Waiting,
}

/// A device and its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The device.
    pub device: DeviceId,
    /// Whether it holds.
    pub hold: Hold,
    /// The TPM.
    pub proven: Proven,
    /// The policy that let the TPM in.
    pub admission: Admission,
    /// Since when.
    pub since: Wall,
    /// How many readings could not follow the one before, and when the last of them came.
    pub clone_signs: Option<(u32, Wall)>,
}

/// What an operator has to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConflictKind {
    /// The device came with another TPM than the one that it is bound to.
    AnotherEk,
    /// Another device came with this device's TPM.
    ClaimedBy,
}

/// A claim that contradicts a binding. A device has at most one of each kind, the last that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The device whose binding is contradicted.
    pub device: DeviceId,
    /// How.
    pub kind: ConflictKind,
    /// The endorsement key that came.
    pub ek: EkId,
    /// The device that brought it.
    pub claimant: DeviceId,
    /// When.
    pub at: Wall,
}

impl KeyName {
    /// Takes the octets of a Name; `None` if they cannot be one.
    #[must_use]
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        (3..=KEY_NAME_LEN_MAX).contains(&octets.len()).then(|| Self(octets.into()))
    }

    /// The octets.
    #[must_use]
    pub const fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl From<&Name> for KeyName {
    fn from(name: &Name) -> Self {
        Self(name.as_bytes().into())
    }
}

impl From<ClockInfo> for TpmClock {
    fn from(clock: ClockInfo) -> Self {
        let ClockInfo { clock_ms, reset_count, restart_count, safe } = clock;
        Self { clock_ms, reset_count, restart_count, safe }
    }
}

impl From<&TpmModel> for TpmKind {
    fn from(model: &TpmModel) -> Self {
        Self {
            manufacturer: model.manufacturer.to_string(),
            model: model.model.clone(),
            version: model.version.clone(),
            is_virtual: model.is_virtual(),
        }
    }
}

impl TpmClock {
    /// Why this reading cannot come after `before`, if it cannot. Both must be signed by one key.
    ///
    /// The counts are compared by their difference: the constant in them makes them wrap anywhere.
    #[must_use]
    pub const fn contradicts(&self, before: &Self) -> Option<CloneSign> {
        let resets = self.reset_count.wrapping_sub(before.reset_count).cast_signed();
        let restarts = self.restart_count.wrapping_sub(before.restart_count).cast_signed();
        if resets < 0 {
            Some(CloneSign::ResetsBack)
        } else if resets == 0 && restarts < 0 {
            Some(CloneSign::RestartsBack)
        } else if self.safe && before.safe && self.clock_ms < before.clock_ms {
            Some(CloneSign::ClockBack)
        } else {
            None
        }
    }
}

impl Proven {
    /// Whether it is software that plays a TPM, as far as its certificate tells.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.endorsement.kind.as_ref().is_some_and(|kind| kind.is_virtual)
    }
}

impl Binding {
    /// The binding with newer evidence of the same TPM.
    ///
    /// Readings that cannot follow one another are counted, never refused: a vendor's firmware
    /// update or a replaced battery may set a counter back, and a device must not lose its identity
    /// by that. What a clone could do with it is little: its keys leave no hardware TPM, and of a
    /// virtual one the count shows it.
    #[must_use]
    pub fn renewed(self, proven: Proven) -> (Self, Option<CloneSign>) {
        let before = &self.proven;
        let is_same_ak = before.ak.name == proven.ak.name;
        let sign = proven.evidence.clock.contradicts(&before.evidence.clock);
        let sign = sign.filter(|_| is_same_ak);
        let clone_signs = match (sign, self.clone_signs) {
            (None, signs) => signs,
            (Some(_), signs) => {
                let count = signs.map_or(0, |(count, _)| count).saturating_add(1);
                Some((count, proven.evidence.at))
            }
        };
        (Self { proven, clone_signs, ..self }, sign)
    }
}

macro_rules! codes {
    ($type:ident: $($variant:ident = $code:literal),+ $(,)?) => {
        impl $type {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its stable name, `[a-z-]`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code),+
                }
            }

            /// The one of that name.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

codes!(
    CloneSign: ClockBack = "clock-back",
    ResetsBack = "resets-back",
    RestartsBack = "restarts-back"
);
codes!(ConflictKind: AnotherEk = "another-ek", ClaimedBy = "claimed-by");
codes!(Hold: Bound = "bound", Waiting = "waiting");
codes!(Source: Allowlist = "allowlist", Chain = "chain");

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, binding};

    const CLOCK: TpmClock =
        TpmClock { clock_ms: 1_000, reset_count: u32::MAX, restart_count: 7, safe: true };

    // Goal: time that passes, a restart and a reset are no signs of anything, even where a count
    // wraps.
    #[test]
    fn what_an_honest_tpm_does_contradicts_nothing() {
        for later in [
            CLOCK,
            TpmClock { clock_ms: 1_001, ..CLOCK },
            TpmClock { restart_count: 8, ..CLOCK },
            TpmClock { reset_count: 0, restart_count: 0, ..CLOCK },
            TpmClock { clock_ms: 999, safe: false, ..CLOCK },
        ] {
            assert_eq!(later.contradicts(&CLOCK), None, "{later:?}");
        }
        let unsafe_before = TpmClock { safe: false, ..CLOCK };
        assert_eq!(TpmClock { clock_ms: 1, ..CLOCK }.contradicts(&unsafe_before), None);
    }

    // Goal: each of the three ways back is seen by itself.
    #[test]
    fn whatever_goes_back_is_a_sign() {
        for (later, sign) in [
            (TpmClock { reset_count: u32::MAX - 1, ..CLOCK }, CloneSign::ResetsBack),
            (TpmClock { restart_count: 6, ..CLOCK }, CloneSign::RestartsBack),
            (TpmClock { clock_ms: 999, ..CLOCK }, CloneSign::ClockBack),
        ] {
            assert_eq!(later.contradicts(&CLOCK), Some(sign), "{later:?}");
        }
    }

    // Goal: signs are counted; a new attestation key starts the counters anew.
    #[test]
    fn clone_signs_are_counted_as_long_as_one_key_signs() {
        let first = Binding { clone_signs: None, ..binding("gw-1", 1) };
        let mut later = first.proven.clone();
        later.evidence.clock.reset_count -= 1;
        later.evidence.at = NOW.plus_s(5);
        let (second, sign) = first.clone().renewed(later.clone());
        assert_eq!(sign, Some(CloneSign::ResetsBack));
        assert_eq!(second.clone_signs, Some((1, NOW.plus_s(5))));
        let (third, sign) = second.renewed(first.proven.clone());
        assert_eq!((third.clone_signs, sign), (Some((1, NOW.plus_s(5))), None));
        later.ak.name = KeyName::from_octets(&[9; 34]).unwrap();
        let (third, sign) = third.renewed(later);
        assert_eq!((third.clone_signs, sign), (Some((1, NOW.plus_s(5))), None));
    }

    // Goal: what is stored by name is read back by it.
    #[test]
    fn every_code_reads_back() {
        for sign in CloneSign::ALL {
            assert_eq!(CloneSign::from_code(sign.code()), Some(*sign));
        }
        for kind in ConflictKind::ALL {
            assert_eq!(ConflictKind::from_code(kind.code()), Some(*kind));
        }
        for hold in Hold::ALL {
            assert_eq!(Hold::from_code(hold.code()), Some(*hold));
        }
        for source in Source::ALL {
            assert_eq!(Source::from_code(source.code()), Some(*source));
        }
        assert_eq!(Source::from_code(""), None);
    }

    // Goal: what is shorter or longer than any Name is none.
    #[test]
    fn names_have_the_length_of_a_hash() {
        for len in [0, 2, 67] {
            assert_eq!(KeyName::from_octets(&vec![1; len]), None, "{len}");
        }
        assert!(KeyName::from_octets(&[1; 66]).is_some());
    }
}
