//! What is in the way of the TPM, by name: for whoever reads the serial line. What to do about it
//! says `docs/serial.md`.
//!
//! The names are those of the agent (`docs/design/tpm-keys.md`), so that a fleet has one list of
//! them; only a board can tell a TPM that is absent from one that is stuck, so that both are
//! `unreachable` here. Commands and response codes are shown as numbers: the names of a hundred of
//! them cost more flash than they are worth here.

use core::fmt;

use fleetcert_tpm::fault::{TpmError, Trouble};
use fleetcert_tpm::vault::VaultError;

/// A failure of the TPM, shown as `name`, or as `name: what was found`.
pub(super) struct Told<'a, E>(pub(super) &'a VaultError<E>);

/// The state's name for machines.
const fn name(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::EndorsementAuthNeeded => "endorsement-auth-needed",
        Trouble::FailureMode => "failure-mode",
        Trouble::ForeignKey => "foreign-key",
        Trouble::LockedOut { .. } => "locked-out",
        Trouble::NoEndorsementKey => "no-endorsement-key",
        Trouble::NoSlots => "no-slots",
        Trouble::OwnerAuthNeeded => "owner-auth-needed",
        Trouble::ParentChanged { .. } => "changed",
        Trouble::Refused { .. } => "refused",
        Trouble::Tampered { .. } => "tampered",
        Trouble::Unreachable => "unreachable",
    }
}

/// Why no answer came, or none of a TPM.
const fn silence<E>(error: &TpmError<E>) -> &'static str {
    match error {
        TpmError::BufferTooSmall { .. } => ": answer-too-long",
        TpmError::CommandTooLong { .. } => ": command-too-long",
        TpmError::Malformed { .. } => ": malformed",
        TpmError::WeakEntropy => ": weak-entropy",
        TpmError::Refused { .. } | TpmError::Tampered { .. } | TpmError::Transport(_) => "",
    }
}

impl<E: fmt::Display> fmt::Display for Told<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trouble = self.0.trouble();
        f.write_str(name(&trouble))?;
        match (trouble, self.0) {
            (Trouble::LockedOut { recovery_s }, _) => write!(f, ": {recovery_s} s"),
            (Trouble::ParentChanged { found, expected }, _) => {
                write!(f, ": {found}, was {expected}")
            }
            (Trouble::Refused { command, code }, _) => {
                write!(f, ": {:#x} {:#x}", command.id(), code.0)
            }
            (Trouble::Tampered { command }, _) => write!(f, ": {:#x}", command.id()),
            (_, VaultError::Tpm(TpmError::Transport(error))) => write!(f, ": {error}"),
            (_, VaultError::Tpm(error)) => f.write_str(silence(error)),
            (_, VaultError::Trouble(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use fleetcert_tpm::command::Code;
    use fleetcert_tpm::fault::ResponseCode;
    use fleetcert_tpm::name::{Name, NameHead};

    use super::*;

    type Error = VaultError<&'static str>;

    fn name(octet: u8) -> NameHead {
        Name::recorded(&[&[0, 0x0b][..], &[octet; 32]].concat()).unwrap().head()
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
        let unreachable = Error::Tpm(TpmError::Transport("tpm.absent"));
        troubles.map(Error::Trouble).into_iter().chain([unreachable]).collect()
    }

    /// Goal: each state has a name of its own, which is a word.
    #[test]
    fn every_state_has_a_name_of_its_own() {
        let lines: Vec<String> = all().iter().map(|error| Told(error).to_string()).collect();
        let name = |line| <String as AsRef<str>>::as_ref(line).split(": ").next().unwrap();
        let names: BTreeSet<&str> = lines.iter().map(name).collect();
        assert_eq!(names.len(), lines.len());
        for name in names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        }
        assert!(!lines.join("").contains('\n'));
    }

    /// Goal: numbers, names and the board's own words are in the lines.
    #[test]
    fn lines_carry_what_was_found() {
        let line = |error: &Error| Told(error).to_string();
        let text = all().iter().map(line).collect::<Vec<_>>().join("\n");
        for part in
            ["locked-out: 1000 s", "aaaaaaaa, was bbbbbbbb", "refused: 0x15d 0x8ff", "tpm.absent"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let refused = TpmError::Refused { command: Code::Load, code: ResponseCode(0x902) };
        assert_eq!(line(&refused.into()), "no-slots");
        let (needed, available) = (9, 4);
        for (error, expected) in [
            (TpmError::BufferTooSmall { needed, available }, "unreachable: answer-too-long"),
            (TpmError::CommandTooLong { command: Code::Load }, "unreachable: command-too-long"),
            (TpmError::Malformed { command: Code::Load }, "unreachable: malformed"),
            (TpmError::WeakEntropy, "unreachable: weak-entropy"),
        ] {
            assert_eq!(line(&Error::Tpm(error)), expected);
        }
    }
}
