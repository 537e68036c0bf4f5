//! Why a key cannot be used: in one octet, and for whoever asked in the words that are his.

use core::fmt;

use fleetcert_core::event::Failure;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The key is gone for good.
    Lost,
    /// The key store did not answer, or refused; the key may still be there.
    Unavailable,
}

impl KeyFault {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Lost => "key-lost",
            Self::Unavailable => "key-unavailable",
        }
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl core::error::Error for KeyFault {}

impl From<KeyFault> for Failure {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Lost => Self::KeyLost,
            KeyFault::Unavailable => Self::KeyUnavailable,
        }
    }
}
