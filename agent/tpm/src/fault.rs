//! What can go wrong with a TPM, and what state that tells of.
//!
//! A TPM answers with one of a hundred numbers. Most of them mean that we are wrong; a few mean
//! that its owner has to do something, and those get a name of their own ([`Trouble`]), because a
//! program that retries them blindly makes them worse: a lockout grows with every attempt. Which
//! codes ask for nothing but patience is said here too ([`ResponseCode::patience`]), and followed
//! in one place, where commands are sent.

use core::fmt;

use tpm2_protocol::data::{TpmRc, TpmRcBase};

use crate::command::Code;
use crate::name::NameHead;

/// The bit of a code of format one: a complaint about our command. TPM 2.0 Part 2 §6.6.2
const FORMAT_ONE: u32 = 0x080;

/// A response code other than success, as it stands on the wire. TPM 2.0 Part 2 §6.6.
#[doc(alias = "TPM_RC")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub u32);

/// What a response code asks for, of all who see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// To be sent again after a short while: the TPM was busy.
    Busy,
    /// To be sent again when others have put away what they have loaded.
    Full,
    /// Nothing: the same command has the same answer.
    None,
}

impl ResponseCode {
    /// The code without the number of the handle, session or parameter that it is about, which one
    /// of format one carries. TPM 2.0 Part 2 §6.6.2
    const fn base(self) -> u32 {
        const HIGHEST: u32 = 0xfff;
        const ERROR: u32 = FORMAT_ONE | 0x03f;
        let is_about_something = self.0 & FORMAT_ONE != 0 && self.0 <= HIGHEST;
        if is_about_something { self.0 & ERROR } else { self.0 }
    }

    /// Whether it is one of these, whatever it is about.
    pub(crate) fn is_one_of(self, bases: &[TpmRcBase]) -> bool {
        bases.iter().any(|base| *base as u32 == self.base())
    }

    /// Whether to send the command once more. TPM 2.0 Part 2 §6.6.3: after these warnings the TPM
    /// has not carried it out.
    #[must_use]
    pub fn patience(self) -> Patience {
        const BUSY: [TpmRcBase; 6] = [
            TpmRcBase::Canceled,
            TpmRcBase::NvRate,
            TpmRcBase::NvUnavailable,
            TpmRcBase::Retry,
            TpmRcBase::Testing,
            TpmRcBase::Yielded,
        ];
        const FULL: [TpmRcBase; 5] = [
            TpmRcBase::Memory,
            TpmRcBase::ObjectHandles,
            TpmRcBase::ObjectMemory,
            TpmRcBase::SessionHandles,
            TpmRcBase::SessionMemory,
        ];
        match () {
            () if self.is_one_of(&BUSY) => Patience::Busy,
            () if self.is_one_of(&FULL) => Patience::Full,
            () => Patience::None,
        }
    }

    /// An authorization that we gave is not the one that is set.
    #[must_use]
    pub fn is_authorization(self) -> bool {
        self.is_one_of(&[TpmRcBase::AuthFail, TpmRcBase::AuthMissing, TpmRcBase::BadAuth])
    }

    /// The TPM does nothing any more until it is reset, perhaps not then either.
    #[must_use]
    pub fn is_failure_mode(self) -> bool {
        self.is_one_of(&[TpmRcBase::Failure])
    }

    /// Nobody has started the TPM since its last reset; or, in answer to `TPM2_Startup`, somebody
    /// has.
    #[must_use]
    pub fn is_startup(self) -> bool {
        self.is_one_of(&[TpmRcBase::Initialize])
    }

    /// A blob that this TPM has not wrapped under this parent, or that has been changed.
    #[must_use]
    pub fn is_integrity(self) -> bool {
        self.is_one_of(&[TpmRcBase::Integrity])
    }

    /// Authorizations that failed, or power cuts that look like them, have locked the TPM's keys.
    #[must_use]
    pub fn is_lockout(self) -> bool {
        self.is_one_of(&[TpmRcBase::Lockout])
    }

    /// There is no free slot for a key or a session.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.patience() == Patience::Full
    }

    /// A handle, session or saved context that the TPM no longer knows: it was reset, or somebody
    /// flushed what was ours.
    #[must_use]
    pub fn is_stale(self) -> bool {
        let is_reference = (0x910..=0x91E).contains(&self.0);
        is_reference
            || self.is_one_of(&[TpmRcBase::BadContext, TpmRcBase::ContextGap])
            || self.is_one_of(&[TpmRcBase::Handle, TpmRcBase::Initialize])
    }

    /// A parameter that this TPM does not implement, or a hierarchy that is disabled: a complaint
    /// about our command (format one) other than about its authorization.
    pub(crate) fn is_unsupported(self) -> bool {
        self.0 & FORMAT_ONE != 0 && !self.is_authorization()
    }

    /// An NV index or a persistent handle that is not there, not written, or not for us.
    pub(crate) fn is_unreadable(self) -> bool {
        self.is_unsupported()
            || self.is_authorization()
            || self.is_one_of(&[TpmRcBase::NvAuthorization, TpmRcBase::NvLocked])
            || self.is_one_of(&[TpmRcBase::NvUninitialized])
    }

    /// A handle that names nothing.
    pub(crate) fn is_no_such_handle(self) -> bool {
        let is_reference = (0x910..=0x91E).contains(&self.0);
        is_reference || self.is_one_of(&[TpmRcBase::Handle, TpmRcBase::Value])
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TpmRc::try_from(self.0) {
            Ok(code) => write!(f, "{code} ({:#05x})", self.0),
            Err(_) => write!(f, "{:#05x}", self.0),
        }
    }
}

/// Why a command has no answer. `E` is the transport's error. It takes two words where that one takes
/// one: a failure is passed on from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmError<E> {
    /// The caller's buffer does not hold the answer.
    BufferTooSmall {
        /// Octets needed.
        needed: u16,
        /// Octets there, at most 65,535 of them.
        available: u16,
    },
    /// The command does not fit the buffer that commands are written to.
    CommandTooLong {
        /// The command.
        command: Code,
    },
    /// The TPM answered with something that the specification does not allow.
    Malformed {
        /// The command.
        command: Code,
    },
    /// The TPM refused, and patience did not help.
    Refused {
        /// The command.
        command: Code,
        /// Its answer.
        code: ResponseCode,
    },
    /// The answer's HMAC is wrong: it does not come from the TPM that holds the storage primary.
    Tampered {
        /// The command.
        command: Code,
    },
    /// No answer came.
    Transport(E),
    /// Four draws of random octets gave no scalar of P-256: the generator is broken.
    WeakEntropy,
}

const _: () = assert!(size_of::<TpmError<[u16; 2]>>() == 8, "two words");

impl<E> TpmError<E> {
    /// A buffer of `available` octets for an answer of `needed`, none of which exceeds 64 KiB.
    pub(crate) fn too_small(needed: usize, available: usize) -> Self {
        let [needed, available] =
            [needed, available].map(|octets| u16::try_from(octets).unwrap_or(u16::MAX));
        Self::BufferTooSmall { needed, available }
    }

    /// The response code, where the TPM gave one.
    #[must_use]
    pub const fn code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn is(&self, what: impl FnOnce(ResponseCode) -> bool) -> bool {
        self.code().is_some_and(what)
    }
}

impl<E: fmt::Display> fmt::Display for TpmError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooSmall { needed, available } => {
                write!(f, "answer of {needed} octets, buffer of {available}")
            }
            Self::CommandTooLong { command } => write!(f, "{command} is too long to be sent"),
            Self::Malformed { command } => write!(f, "malformed answer to {command}"),
            Self::Refused { command, code } => write!(f, "{command} was refused: {code}"),
            Self::Tampered { command } => write!(f, "answer to {command} with a wrong HMAC"),
            Self::Transport(error) => error.fmt(f),
            Self::WeakEntropy => f.write_str("random octets that make no scalar"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for TpmError<E> {}

/// The state of a TPM that keeps a device from its key: for people, and for whoever decides what
/// to do next. None of these goes away by asking again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A password is set on the endorsement hierarchy: an endorsement key cannot be used without.
    EndorsementAuthNeeded,
    /// The TPM is in failure mode: power it off and on; if that does not help it is broken.
    FailureMode,
    /// The key's blob was not made by this TPM under this parent: the TPM was cleared or swapped,
    /// or the blob was changed.
    ForeignKey,
    /// Too many authorizations failed; the TPM counts one down every `recovery_s` seconds.
    LockedOut {
        /// Seconds until the counter falls by one.
        recovery_s: u32,
    },
    /// There is neither a certified endorsement key nor a template that this TPM can make.
    NoEndorsementKey,
    /// Other programs hold all slots for keys or sessions, and did not let go of them in time.
    NoSlots,
    /// A password is set on the owner hierarchy: the storage primary cannot be made without.
    OwnerAuthNeeded,
    /// The storage primary is not the one that was recorded: the TPM was cleared or swapped.
    ParentChanged {
        /// That of the Name that the TPM's storage primary has.
        found: NameHead,
        /// That of the Name that was recorded.
        expected: NameHead,
    },
    /// The TPM refused a command for a reason that it shares with no other state.
    Refused {
        /// The command.
        command: Code,
        /// Its answer.
        code: ResponseCode,
    },
    /// Somebody between us and the TPM changed an answer.
    Tampered {
        /// The command.
        command: Code,
    },
    /// No usable answer came: the transport failed, or the TPM does not speak as specified.
    Unreachable,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndorsementAuthNeeded => {
                f.write_str("a password is set on the endorsement hierarchy")
            }
            Self::FailureMode => f.write_str("the TPM is in failure mode"),
            Self::ForeignKey => f.write_str("the key was not made by this TPM"),
            Self::LockedOut { recovery_s } => {
                write!(f, "the TPM is locked out; it counts one failure down every {recovery_s} s")
            }
            Self::NoEndorsementKey => f.write_str("the TPM has no usable endorsement key"),
            Self::NoSlots => f.write_str("other programs hold all slots of the TPM"),
            Self::OwnerAuthNeeded => f.write_str("a password is set on the owner hierarchy"),
            Self::ParentChanged { found, expected } => {
                write!(f, "storage primary is {found}, recorded was {expected}")
            }
            Self::Refused { command, code } => write!(f, "{command} was refused: {code}"),
            Self::Tampered { command } => write!(f, "answer to {command} with a wrong HMAC"),
            Self::Unreachable => f.write_str("the TPM gave no usable answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    /// Goal: the codes that need patience are the warnings of the specification, and none else.
    #[test]
    fn only_warnings_are_answered_with_patience() {
        let of = |patience| (0..0x1000).filter(move |&n| ResponseCode(n).patience() == patience);
        assert!(of(Patience::Busy).eq([0x908, 0x909, 0x90A, 0x920, 0x922, 0x923]));
        assert!(of(Patience::Full).eq(0x902..=0x906));
    }

    /// Goal: a code's base is the one that the protocol's own table gives for it.
    #[test]
    fn a_base_is_as_the_table_has_it() {
        for number in 0..0x1000 {
            if let Ok(code) = TpmRc::try_from(number) {
                assert_eq!(ResponseCode(number).base(), code.base() as u32, "{number:#x}");
            }
        }
    }

    /// Goal: codes are recognised whatever handle, session or parameter they are about.
    #[test]
    fn codes_are_classified_as_the_states_that_they_mean() {
        for code in [0x9A2, 0x98E, 0xA8E, 0x125] {
            assert!(ResponseCode(code).is_authorization(), "{code:#x}");
        }
        for code in [0x1DF, 0x2DF, 0x09F] {
            assert!(ResponseCode(code).is_integrity(), "{code:#x}");
        }
        for code in [0x910, 0x916, 0x918, 0x91E, 0x901, 0x150, 0x18B, 0x28B, 0x100] {
            assert!(ResponseCode(code).is_stale(), "{code:#x}");
        }
        assert!(ResponseCode(0x921).is_lockout());
        assert!(ResponseCode(0x101).is_failure_mode());
        assert!(ResponseCode(0x100).is_startup());
        assert!(!ResponseCode(0x921).is_stale());
    }

    /// Goal: a code that nobody has specified is shown as it is.
    #[test]
    fn unknown_codes_are_shown_as_numbers() {
        assert_eq!(format!("{}", ResponseCode(0x921)), "TPM_RC_LOCKOUT (0x921)");
        assert_eq!(format!("{}", ResponseCode(0x8FF)), "0x8ff");
        assert_eq!(ResponseCode(0xFFFF_FFFF).patience(), Patience::None);
    }
}
