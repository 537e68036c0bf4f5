//! Every way in which a request is refused for what it says, or does not say, of a TPM.

use std::fmt;

use fleetcert_core::device_id::DeviceId;

use super::StatusClass;
use crate::{
    attest::{EkId, ek::EkError, evidence::EvidenceError},
    binding::{KeyName, TpmKind},
    challenge::ChallengeError,
};

/// Why a request is refused for its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmRefusal {
    /// The attestation key was seen beside another endorsement key.
    AkBound {
        /// The endorsement key that it came with.
        found: EkId,
        /// The one that it was seen beside.
        seen_under: EkId,
    },
    /// The evidence is not by the attestation key on record.
    AkChanged {
        /// The key that signed.
        found: KeyName,
        /// The key on record.
        recorded: KeyName,
    },
    /// The challenge does not vouch for it.
    Challenge(ChallengeError),
    /// A device asks for a challenge in another one's name.
    ChallengeDevice {
        /// The name that it asks in.
        found: DeviceId,
        /// The device of its certificate.
        expected: DeviceId,
    },
    /// Evidence came, and no word of which challenge it answers.
    ChallengeMissing,
    /// As many challenges are open as may be.
    ChallengesFull {
        /// How many may.
        open_max: u32,
        /// When to ask again, seconds.
        retry_after_s: u32,
    },
    /// The endorsement key's certificate is not good.
    Ek(EkError),
    /// The TPM is bound to another device.
    EkBound {
        /// Its endorsement key.
        ek: EkId,
        /// The device.
        holder: DeviceId,
    },
    /// The policy wants a certificate of the endorsement key, and it is only listed.
    EkChainRequired {
        /// The endorsement key.
        ek: EkId,
    },
    /// The device is bound to another TPM, or the key that waits for an operator was another's.
    EkConflict {
        /// The endorsement key that came.
        found: EkId,
        /// The one on record.
        recorded: EkId,
    },
    /// The endorsement key is listed for another device.
    EkListedElsewhere {
        /// The endorsement key.
        ek: EkId,
        /// The device that it is listed for.
        listed_for: DeviceId,
    },
    /// The certificate is for another endorsement key than the one that should be challenged.
    EkMismatch {
        /// The key of the certificate.
        certified: EkId,
        /// The key of the public area.
        found: EkId,
    },
    /// The policy wants the endorsement key to be listed for the device, or the device has another
    /// one listed for it.
    EkNotListed {
        /// The endorsement key.
        ek: EkId,
        /// The device.
        device: DeviceId,
    },
    /// The TPM is bound to a device that was revoked.
    EkRevoked {
        /// Its endorsement key.
        ek: EkId,
        /// The device.
        holder: DeviceId,
    },
    /// The endorsement key has no certificate and is not listed.
    EkUnknown {
        /// The endorsement key.
        ek: EkId,
    },
    /// A key or the evidence about it is not good.
    Evidence(EvidenceError),
    /// A challenge was named, and no evidence came.
    EvidenceMissing,
    /// The key is not proven to be in the TPM of the device, or in any, and has to be.
    EvidenceRequired {
        /// The TPM that the device is bound to, if it is.
        bound: Option<EkId>,
    },
    /// The TPM is software, and the policy does not allow that.
    VirtualTpm {
        /// What its certificate says.
        kind: TpmKind,
    },
}

impl TpmRefusal {
    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AkBound { .. } => "ak-bound",
            Self::AkChanged { .. } => "ak-changed",
            Self::Challenge(error) => error.code(),
            Self::ChallengeDevice { .. } => "challenge-device",
            Self::ChallengeMissing => "challenge-missing",
            Self::ChallengesFull { .. } => "challenges-full",
            Self::Ek(error) => error.code(),
            Self::EkBound { .. } => "ek-bound",
            Self::EkChainRequired { .. } => "ek-chain-required",
            Self::EkConflict { .. } => "ek-conflict",
            Self::EkListedElsewhere { .. } => "ek-listed-elsewhere",
            Self::EkMismatch { .. } => "ek-mismatch",
            Self::EkNotListed { .. } => "ek-not-listed",
            Self::EkRevoked { .. } => "ek-revoked",
            Self::EkUnknown { .. } => "ek-unknown",
            Self::Evidence(error) => error.code(),
            Self::EvidenceMissing => "evidence-missing",
            Self::EvidenceRequired { .. } => "evidence-required",
            Self::VirtualTpm { .. } => "virtual-tpm",
        }
    }

    /// What class of HTTP status it is.
    #[must_use]
    pub const fn status(&self) -> StatusClass {
        match self {
            Self::AkBound { .. }
            | Self::Challenge(ChallengeError::Used { .. })
            | Self::EkBound { .. }
            | Self::EkConflict { .. }
            | Self::EkListedElsewhere { .. } => StatusClass::Conflict,
            Self::ChallengeMissing
            | Self::Evidence(EvidenceError::Statement(_))
            | Self::EvidenceMissing => StatusClass::BadRequest,
            Self::ChallengesFull { .. } => StatusClass::Unavailable,
            Self::AkChanged { .. }
            | Self::Challenge(_)
            | Self::ChallengeDevice { .. }
            | Self::Ek(_)
            | Self::EkChainRequired { .. }
            | Self::EkMismatch { .. }
            | Self::EkNotListed { .. }
            | Self::EkRevoked { .. }
            | Self::EkUnknown { .. }
            | Self::Evidence(_)
            | Self::EvidenceRequired { .. }
            | Self::VirtualTpm { .. } => StatusClass::Forbidden,
        }
    }

    /// How long to wait before the same request may succeed, seconds.
    #[must_use]
    pub const fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::ChallengesFull { retry_after_s, .. } => Some(*retry_after_s as u64),
            _ => None,
        }
    }
}

impl fmt::Display for TpmRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AkBound { found, seen_under } => write!(
                f,
                "the attestation key came with endorsement key {found}, it was seen beside \
                 {seen_under}: two TPMs cannot share a key, an operator has to look"
            ),
            Self::AkChanged { found, recorded } => write!(
                f,
                "the evidence is by attestation key {found}, expected the one on record, \
                 {recorded}: enroll anew if the TPM was cleared"
            ),
            Self::Challenge(error) => error.fmt(f),
            Self::ChallengeDevice { found, expected } => {
                write!(
                    f,
                    "the challenge is asked for {found}, the certificate is that of {expected}"
                )
            }
            Self::ChallengeMissing => f.write_str(
                "the request brings evidence and no Fleetcert-Challenge, expected the challenge \
                 that it answers",
            ),
            Self::ChallengesFull { open_max, .. } => {
                write!(f, "{open_max} challenges are open, no more may: come again")
            }
            Self::Ek(error) => error.fmt(f),
            Self::EkBound { ek, holder } => write!(
                f,
                "the TPM with endorsement key {ek} is bound to {holder}: an operator releases it \
                 with `device replace {holder}`"
            ),
            Self::EkChainRequired { ek } => write!(
                f,
                "endorsement key {ek} is listed only, the group wants a certificate that chains to \
                 a trusted root: send it, or have its root added"
            ),
            Self::EkConflict { found, recorded } => write!(
                f,
                "the device came with the TPM of endorsement key {found}, {recorded} is on record: \
                 an operator decides with `device replace`"
            ),
            Self::EkListedElsewhere { ek, listed_for } => {
                write!(f, "endorsement key {ek} is listed for {listed_for}: correct one of the two")
            }
            Self::EkMismatch { certified, found } => write!(
                f,
                "the certificate is for endorsement key {certified}, the public area is that of \
                 {found}: send the certificate of the same key"
            ),
            Self::EkNotListed { ek, device } => write!(
                f,
                "endorsement key {ek} is not among those listed for {device}: an operator lists it \
                 with `device import`, or with `device replace {device} --ek`"
            ),
            Self::EkRevoked { ek, holder } => write!(
                f,
                "the TPM with endorsement key {ek} is that of {holder}, which was revoked: an \
                 operator releases it with `device replace {holder}`"
            ),
            Self::EkUnknown { ek } => write!(
                f,
                "endorsement key {ek} came without a certificate and is not listed: send its \
                 certificate, or have it listed with `device import`"
            ),
            Self::Evidence(error) => error.fmt(f),
            Self::EvidenceMissing => f.write_str(
                "the request names a challenge and brings no evidence, expected the attribute \
                 id-aa-attestation",
            ),
            Self::EvidenceRequired { bound: Some(ek) } => write!(
                f,
                "the device is bound to the TPM with endorsement key {ek} and asks for a key that \
                 it has not proven: bring evidence by that TPM"
            ),
            Self::EvidenceRequired { bound: None } => f.write_str(
                "the group issues to keys in a TPM only, and no evidence came: ask for a challenge \
                 and bring it",
            ),
            Self::VirtualTpm { kind } => write!(
                f,
                "the TPM ({} {} {}) is software, the group allows none: `allow_virtual_tpm`",
                kind.manufacturer, kind.model, kind.version
            ),
        }
    }
}

impl std::error::Error for TpmRefusal {}
