//! What is in the way of the TPM, by name, each with what to do: for whoever reads the serial line.
//!
//! The names are those of the agent (`docs/design/tpm-keys.md`), so that a fleet has one list of
//! them; only a board can tell a TPM that is absent from one that is stuck, so that both are
//! `unreachable` here. Response codes are shown as numbers: the names of a hundred of them cost more flash than
//! they are worth here.

use core::fmt;

use fleetcert_tpm::fault::{TpmError, Trouble};
use fleetcert_tpm::name::Name;
use fleetcert_tpm::vault::VaultError;

/// A failure of the TPM, shown as `name: what is the matter; what to do`.
pub(super) struct Told<'a, E>(pub(super) &'a VaultError<E>);

/// A Name, shown as hexadecimal digits.
pub(super) struct Hex<'a>(pub(super) &'a Name);

/// The state's name for machines, and what to do about it.
const fn advice(trouble: &Trouble) -> (&'static str, &'static str) {
    match trouble {
        Trouble::EndorsementAuthNeeded => (
            "endorsement-auth-needed",
            "clear the endorsement hierarchy's password with the program that has set it",
        ),
        Trouble::FailureMode => (
            "failure-mode",
            "take the power away from the device and give it back; if that does not help the TPM \
             is broken",
        ),
        Trouble::ForeignKey => (
            "foreign-key",
            "put back the TPM, or the flash, that belongs to the other; if it is gone, erase the \
             keys' region and enroll again",
        ),
        Trouble::LockedOut { .. } => (
            "locked-out",
            "wait, and leave the device powered: the TPM forgives one failure after the other",
        ),
        Trouble::NoEndorsementKey => {
            ("no-endorsement-key", "ask the maker of the TPM how its endorsement key is made")
        }
        Trouble::NoSlots => {
            ("no-slots", "take the power away from the device and give it back: it empties the TPM")
        }
        Trouble::OwnerAuthNeeded => (
            "owner-auth-needed",
            "clear the owner hierarchy's password with the program that has set it",
        ),
        Trouble::ParentChanged { .. } => ("changed", "nothing: the TPM is opened anew"),
        Trouble::Refused { .. } => ("refused", "report it together with this log"),
        Trouble::Tampered { .. } => (
            "tampered",
            "treat the device as attacked: look at what sits between its processor and its TPM",
        ),
        Trouble::Unreachable => (
            "unreachable",
            "nothing, if it passes; otherwise look at the wires between processor and TPM",
        ),
    }
}

impl<E: fmt::Display> Told<'_, E> {
    fn matter(&self, trouble: &Trouble, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (trouble, self.0) {
            (Trouble::EndorsementAuthNeeded, _) => {
                f.write_str("a password is set on the endorsement hierarchy")
            }
            (Trouble::FailureMode, _) => f.write_str("the TPM has shut itself down"),
            (Trouble::ForeignKey, _) => f.write_str("the key was not made by this TPM"),
            (Trouble::LockedOut { recovery_s }, _) => write!(
                f,
                "too many authorizations failed; the TPM forgives one every {recovery_s} s"
            ),
            (Trouble::NoEndorsementKey, _) => f.write_str("there is none that could be used"),
            (Trouble::NoSlots, _) => f.write_str("all slots for keys or sessions are taken"),
            (Trouble::OwnerAuthNeeded, _) => {
                f.write_str("a password is set on the owner hierarchy")
            }
            (Trouble::ParentChanged { found, expected }, _) => {
                write!(f, "the storage key is {}, it was {}", Hex(found), Hex(expected))
            }
            (Trouble::Refused { command, code }, _) => write!(f, "{command}: {:#05x}", code.0),
            (Trouble::Tampered { command }, _) => {
                write!(f, "the answer to {command} was changed on its way")
            }
            (Trouble::Unreachable, VaultError::Tpm(error)) => unreachable(error, f),
            (Trouble::Unreachable, VaultError::Trouble(_)) => f.write_str("no usable answer"),
        }
    }
}

/// No answer, or none of a TPM.
fn unreachable<E: fmt::Display>(error: &TpmError<E>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        TpmError::Transport(error) => error.fmt(f),
        TpmError::BufferTooSmall { needed, available } => {
            write!(f, "an answer of {needed} octets, where {available} fit")
        }
        TpmError::Malformed { command } => write!(f, "malformed answer to {command}"),
        TpmError::CommandTooLong { command }
        | TpmError::Refused { command, .. }
        | TpmError::Tampered { command } => write!(f, "no usable answer to {command}"),
        TpmError::WeakEntropy => f.write_str("the board's random octets are none"),
    }
}

impl<E: fmt::Display> fmt::Display for Told<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = self.0.trouble();
        let (name, advice) = advice(&trouble);
        write!(f, "{name}: ")?;
        self.matter(&trouble, f)?;
        write!(f, "; {advice}")
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_bytes().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::format;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use fleetcert_tpm::command::Code;
    use fleetcert_tpm::fault::ResponseCode;

    use super::*;

    type Error = VaultError<&'static str>;

    fn name(octet: u8) -> Name {
        Name::recorded(&[&[0, 0x0b][..], &[octet; 32]].concat()).unwrap()
    }

    fn all() -> Vec<Error> {
        let (command, code) = (Code::Sign, ResponseCode(0x8ff));
        let troubles = [
            Trouble::EndorsementAuthNeeded,
            Trouble::FailureMode,
            Trouble::ForeignKey,
            Trouble::LockedOut { recovery_s: 1000 },
            Trouble::NoEndorsementKey,
            Trouble::NoSlots,
            Trouble::OwnerAuthNeeded,
            Trouble::ParentChanged { found: name(0xaa), expected: name(0xbb) },
            Trouble::Refused { command, code },
            Trouble::Tampered { command },
        ];
        let unreachable = Error::Tpm(TpmError::Transport("nothing answers there"));
        troubles.map(Error::Trouble).into_iter().chain([unreachable]).collect()
    }

    /// Goal: each state has a name of its own, and an advice that a person can follow.
    #[test]
    fn every_state_has_a_name_a_text_and_an_advice() {
        let lines: Vec<String> = all().iter().map(|error| Told(error).to_string()).collect();
        let names: BTreeSet<_> = lines.iter().filter_map(|line| line.split_once(": ")).collect();
        assert_eq!(names.len(), lines.len());
        for line in lines {
            let (state, rest) = line.split_once(": ").unwrap();
            let (matter, advice) = rest.split_once("; ").unwrap();
            assert!(state.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{line}");
            assert!(matter.len() > 10 && advice.len() > 20 && !advice.ends_with('.'), "{line}");
            assert!(!line.contains("  ") && !line.contains('\n'), "{line}");
        }
    }

    /// Goal: numbers, names and the board's own words are in the lines.
    #[test]
    fn lines_carry_what_was_found() {
        let line = |error: &Error| Told(error).to_string();
        let text = all().iter().map(line).collect::<Vec<_>>().join("\n");
        for part in ["every 1000 s", "000baaaa", "000bbbbb", "Sign: 0x8ff", "nothing answers there"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let refused = TpmError::Refused { command: Code::Load, code: ResponseCode(0x902) };
        assert!(line(&refused.into()).starts_with("no-slots: "));
        let (needed, available) = (9, 4);
        for (error, part) in [
            (TpmError::BufferTooSmall { needed, available }, "9 octets, where 4 fit"),
            (TpmError::CommandTooLong { command: Code::Load }, "Load"),
            (TpmError::Malformed { command: Code::Load }, "malformed answer to TPM2_Load"),
            (TpmError::WeakEntropy, "random"),
        ] {
            let line = format!("{}", Told(&Error::Tpm(error)));
            assert!(line.starts_with("unreachable: ") && line.contains(part), "{line}");
        }
    }
}
