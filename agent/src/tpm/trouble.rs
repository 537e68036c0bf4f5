//! The states of a TPM that keep a device from its key, by name, each with what to do.
//!
//! **What it is.** A total translation of what the transport and the TPM say into a few states
//! that a person can act on, and that the key store decides by.
//!
//! **What it must never do.** Call a key lost that is merely out of reach. Two states alone say
//! that keys are gone: the TPM was cleared, which its unchanged endorsement key proves, or a blob
//! does not load in the very TPM that made it. Everything else can be mended, by time or by a
//! person, and until then nothing is overwritten.

use std::fmt;
use std::io;

use fleetcert_tpm::command::Code;
use fleetcert_tpm::fault::ResponseCode;
use fleetcert_tpm::name::NameHead;

use super::EkId;
use super::thread::Fault;
use crate::transport::{Address, TransportError};

/// Why a TPM does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmTrouble {
    /// There is no TPM at its address.
    Absent {
        /// The address.
        address: Address,
        /// What the kernel says.
        reason: io::ErrorKind,
    },
    /// Another program has the TPM, and one alone can have it.
    Busy {
        /// The address.
        address: Address,
    },
    /// The storage primary is another one than a moment ago. Passes: the TPM is opened anew, and
    /// then it is the same again, or the TPM was cleared, or swapped.
    Changed {
        /// That of the Name that it has.
        found: NameHead,
        /// That of the Name that it had.
        expected: NameHead,
    },
    /// It is the same TPM, and its keys are not: its owner has cleared it.
    Cleared {
        /// That of the storage primary's Name.
        found: NameHead,
        /// That of the Name that was recorded.
        expected: NameHead,
    },
    /// A password is set on the endorsement hierarchy, which we do not have.
    EndorsementAuthNeeded,
    /// The TPM has shut itself down.
    FailureMode,
    /// A blob was not made by this TPM under this parent, or was changed.
    ForeignKey,
    /// Too many authorizations failed.
    LockedOut {
        /// Seconds until the TPM forgives one of them.
        recovery_s: u32,
    },
    /// The TPM has no endorsement key that could be used.
    NoEndorsementKey,
    /// We may not open the TPM.
    NoPermission {
        /// The address.
        address: Address,
        /// The group that may.
        group: Option<String>,
    },
    /// Other programs hold all slots for keys or sessions.
    NoSlots,
    /// A password is set on the owner hierarchy: we have none, or another one.
    OwnerAuthNeeded {
        /// Why the configured file did not help, where one is configured.
        reason: Option<String>,
    },
    /// The TPM refused a command for a reason of its own.
    Refused {
        /// The command.
        command: Code,
        /// Its answer.
        code: ResponseCode,
    },
    /// It is another TPM than the one that the keys were made in.
    Swapped {
        /// Its endorsement key.
        found: EkId,
        /// The endorsement key of the other one.
        expected: EkId,
    },
    /// An answer was changed on its way from the TPM.
    Tampered {
        /// The command that was answered.
        command: Code,
    },
    /// It does not answer, or not as a TPM does.
    Wedged {
        /// What was observed.
        reason: String,
    },
}

impl TpmTrouble {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "absent",
            Self::Busy { .. } => "busy",
            Self::Changed { .. } => "changed",
            Self::Cleared { .. } => "cleared",
            Self::EndorsementAuthNeeded => "endorsement-auth-needed",
            Self::FailureMode => "failure-mode",
            Self::ForeignKey => "foreign-key",
            Self::LockedOut { .. } => "locked-out",
            Self::NoEndorsementKey => "no-endorsement-key",
            Self::NoPermission { .. } => "no-permission",
            Self::NoSlots => "no-slots",
            Self::OwnerAuthNeeded { .. } => "owner-auth-needed",
            Self::Refused { .. } => "refused",
            Self::Swapped { .. } => "swapped",
            Self::Tampered { .. } => "tampered",
            Self::Wedged { .. } => "wedged",
        }
    }

    /// Whether the keys in it are gone for good.
    #[must_use]
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Cleared { .. } => true,
            Self::Absent { .. }
            | Self::Busy { .. }
            | Self::Changed { .. }
            | Self::EndorsementAuthNeeded
            | Self::FailureMode
            | Self::ForeignKey
            | Self::LockedOut { .. }
            | Self::NoEndorsementKey
            | Self::NoPermission { .. }
            | Self::NoSlots
            | Self::OwnerAuthNeeded { .. }
            | Self::Refused { .. }
            | Self::Swapped { .. }
            | Self::Tampered { .. }
            | Self::Wedged { .. } => false,
        }
    }

    /// What to do about it. One sentence, without a full stop.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Absent { .. } => {
                "check key.tpm in the configuration, that the TPM is switched on in the firmware's \
                 setup, and that its driver is loaded (ls -l /dev/tpm*)"
            }
            Self::Busy { .. } => {
                "set key.tpm to /dev/tpmrm0, which programs can share, or stop the other program"
            }
            Self::Changed { .. } => "nothing: the TPM is opened anew",
            Self::Cleared { .. } => {
                "nothing, where a first contact needs no token: the device makes new keys and \
                 enrolls again; otherwise put a new token into token_file"
            }
            Self::EndorsementAuthNeeded => {
                "clear the endorsement hierarchy's password with the program that has set it \
                 (tpm2_changeauth -c e), which leaves all keys as they are"
            }
            Self::FailureMode => {
                "take the power away from the device and give it back, since a restart alone does \
                 not reset a TPM; if that does not help the TPM is broken"
            }
            Self::ForeignKey => {
                "put back the TPM, or the state directory, that belongs to the other; if it is \
                 gone, `fleetcert-agent wipe --yes` and enroll again"
            }
            Self::LockedOut { .. } => {
                "wait, and leave the device powered: the TPM forgives one failure after the other; \
                 or reset the counter with the lockout password (tpm2_dictionarylockout -c)"
            }
            Self::NoEndorsementKey => {
                "ask the maker of the TPM how its endorsement key is made; without one, set \
                 key.backend to software after `fleetcert-agent wipe --yes`"
            }
            Self::NoPermission { .. } => {
                "add the agent's user to the group of the device (usermod -aG), or give it the \
                 device by a udev rule, and restart the agent"
            }
            Self::NoSlots => {
                "set key.tpm to /dev/tpmrm0, or have the other programs flush what they have \
                 loaded (tpm2_flushcontext -t)"
            }
            Self::OwnerAuthNeeded { .. } => {
                "put the owner hierarchy's password into a file of mode 0600 and name it as \
                 key.owner_auth_file; the agent does not guess it"
            }
            Self::Refused { .. } => {
                "report it together with the log and `tpm2_getcap properties-fixed`"
            }
            Self::Swapped { .. } => {
                "put the TPM back that the keys are in; if this is meant to be the new one, have \
                 it admitted with `fleetcert-provisioner device replace`, then \
                 `fleetcert-agent wipe --yes` and enroll again"
            }
            Self::Tampered { .. } => {
                "treat the device as attacked: look at what sits between its processor and its TPM"
            }
            Self::Wedged { .. } => {
                "nothing, if it passes: the agent opens the TPM again by itself; otherwise take \
                 the power away from the device and give it back"
            }
        }
    }
}

impl Fault for TpmTrouble {
    fn is_break(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. }
                | Self::Busy { .. }
                | Self::Changed { .. }
                | Self::NoPermission { .. }
                | Self::Wedged { .. }
        )
    }

    fn is_plain_refusal(&self) -> bool {
        matches!(self, Self::ForeignKey)
    }

    fn overrun() -> Self {
        Self::Wedged { reason: "too much work waits for it".to_owned() }
    }
}

impl From<TransportError> for TpmTrouble {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Absent { address, source } => {
                Self::Absent { address, reason: source.kind() }
            }
            TransportError::Busy { address } => Self::Busy { address },
            TransportError::NoPermission { address, group } => {
                Self::NoPermission { address, group }
            }
            TransportError::Ended
            | TransportError::Io { .. }
            | TransportError::Late { .. }
            | TransportError::Length { .. }
            | TransportError::NoEntropy => Self::Wedged { reason: error.to_string() },
        }
    }
}

impl fmt::Display for TpmTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { address, reason } => write!(f, "no TPM at {address}: {reason}"),
            Self::Busy { address } => write!(f, "{address} is open in another program"),
            Self::Changed { found, expected } => {
                write!(f, "the TPM's storage key is {found}, it was {expected}")
            }
            Self::Cleared { found, expected } => write!(
                f,
                "the TPM was cleared: its storage key is {found}, recorded was {expected}"
            ),
            Self::EndorsementAuthNeeded => {
                f.write_str("a password is set on the TPM's endorsement hierarchy")
            }
            Self::FailureMode => f.write_str("the TPM is in failure mode"),
            Self::ForeignKey => f.write_str("the key was not made by this TPM"),
            Self::LockedOut { recovery_s: 0 } => {
                f.write_str("the TPM is locked out after failed authorizations, until its reset")
            }
            Self::LockedOut { recovery_s } => write!(
                f,
                "the TPM is locked out after failed authorizations; it forgives one every \
                 {recovery_s} s"
            ),
            Self::NoEndorsementKey => f.write_str("the TPM has no usable endorsement key"),
            Self::NoPermission { address, group: Some(group) } => {
                write!(f, "no permission to open {address}, which belongs to group {group}")
            }
            Self::NoPermission { address, group: None } => {
                write!(f, "no permission to open {address}")
            }
            Self::NoSlots => f.write_str("other programs hold all slots of the TPM"),
            Self::OwnerAuthNeeded { reason: None } => f.write_str(
                "a password is set on the TPM's owner hierarchy, and none is configured",
            ),
            Self::OwnerAuthNeeded { reason: Some(reason) } => {
                write!(f, "the TPM's owner hierarchy wants another password: {reason}")
            }
            Self::Refused { command, code } => write!(f, "the TPM refused {command}: {code}"),
            Self::Swapped { found, expected } => write!(
                f,
                "another TPM: its endorsement key is {found}, the keys are in the one of {expected}"
            ),
            Self::Tampered { command } => {
                write!(f, "the TPM's answer to {command} was changed on its way")
            }
            Self::Wedged { reason } => write!(f, "the TPM does not answer: {reason}"),
        }
    }
}

impl std::error::Error for TpmTrouble {}

#[cfg(test)]
mod tests {
    use fleetcert_tpm::name::Name;

    use super::*;

    fn name(octet: u8) -> Name {
        Name::recorded(&[&[0, 0x0b][..], &[octet; 32]].concat()).unwrap()
    }

    fn all() -> Vec<TpmTrouble> {
        let address = Address::default;
        let (found, expected) = (name(0xaa).head(), name(0xbb).head());
        vec![
            TpmTrouble::Absent { address: address(), reason: io::ErrorKind::NotFound },
            TpmTrouble::Busy { address: address() },
            TpmTrouble::Changed { found, expected },
            TpmTrouble::Cleared { found, expected },
            TpmTrouble::EndorsementAuthNeeded,
            TpmTrouble::FailureMode,
            TpmTrouble::ForeignKey,
            TpmTrouble::LockedOut { recovery_s: 1000 },
            TpmTrouble::NoEndorsementKey,
            TpmTrouble::NoPermission { address: address(), group: Some("tss".into()) },
            TpmTrouble::NoSlots,
            TpmTrouble::OwnerAuthNeeded { reason: Some("owner-auth was not taken".into()) },
            TpmTrouble::Refused { command: Code::Sign, code: ResponseCode(0x8ff) },
            TpmTrouble::Swapped { found: EkId([0xaa; 32]), expected: EkId([0xbb; 32]) },
            TpmTrouble::Tampered { command: Code::Create },
            TpmTrouble::Wedged { reason: "no response".into() },
        ]
    }

    // Goal: each state has a name of its own, a text and an advice that a person can follow.
    #[test]
    fn every_state_has_a_name_a_text_and_an_advice() {
        let codes: std::collections::BTreeSet<_> = all().iter().map(TpmTrouble::code).collect();
        assert_eq!(codes.len(), all().len());
        for trouble in all() {
            let (code, text, advice) = (trouble.code(), trouble.to_string(), trouble.advice());
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
            assert!(text.len() > 20 && !text.contains('\n'), "{text}");
            assert!(advice.len() > 20 && !advice.ends_with('.'), "{advice}");
            assert!(!advice.contains("  ") && !text.contains("  "), "{text}: {advice}");
        }
    }

    // Goal: keys are given up for one state only; what is of no use any more is opened anew.
    #[test]
    fn only_a_cleared_tpm_has_lost_its_keys() {
        let lost: Vec<_> = all().into_iter().filter(TpmTrouble::is_loss).collect();
        assert_eq!(lost.iter().map(TpmTrouble::code).collect::<Vec<_>>(), ["cleared"]);
        let broken: Vec<_> = all().into_iter().filter(Fault::is_break).collect();
        let codes: Vec<_> = broken.iter().map(TpmTrouble::code).collect();
        assert_eq!(codes, ["absent", "busy", "changed", "no-permission", "wedged"]);
    }

    // Goal: what was found and what was expected are both told.
    #[test]
    fn texts_carry_both_sides() {
        for trouble in all() {
            let text = trouble.to_string();
            if matches!(trouble.code(), "changed" | "cleared" | "swapped") {
                assert!(text.contains("aaaa") && text.contains("bbbb"), "{text}");
            }
        }
        let text = TpmTrouble::NoPermission { address: Address::default(), group: None };
        assert_eq!(text.to_string(), "no permission to open /dev/tpmrm0");
        let text = all()[9].to_string();
        assert_eq!(text, "no permission to open /dev/tpmrm0, which belongs to group tss");
    }

    // Goal: what a transport says becomes the state of the same name.
    #[test]
    fn failures_of_the_transport_are_states() {
        let absent = TransportError::Absent {
            address: Address::default(),
            source: io::ErrorKind::NotFound.into(),
        };
        let late = TransportError::Late { limit: std::time::Duration::from_secs(15) };
        for (error, code) in [
            (absent, "absent"),
            (TransportError::Busy { address: Address::default() }, "busy"),
            (late, "wedged"),
            (TransportError::Ended, "wedged"),
        ] {
            assert_eq!(TpmTrouble::from(error).code(), code);
        }
    }
}
