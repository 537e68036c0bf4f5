//! The devices the provisioner knows, and the steps they may take.
//!
//! Every step is a pure function from a [`Device`] to a [`Device`]: it must never read the store
//! or a clock. A step that the state does not allow is an error with both sides, not a silent
//! overwrite.
//!
//! An approval is bound to a key. What an operator approves is the fingerprint of a public key
//! that waits, so that nobody can slip another key in between the look and the approval.

use std::fmt;

use fleetcert_core::{device_id::DeviceId, time::Wall};

use crate::authority::{KeyFingerprint, RevocationReason, Serial};

/// Octets of a group's or a label's name, at most.
pub const NAME_LEN_MAX: usize = 64;

/// The name of a group of devices, or of an EST label: `[a-z0-9][a-z0-9-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    /// The text, shortened.
    pub found: String,
}

/// Where a device stands. A device that also waits for an operator has an [`Approval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It has been issued a certificate.
    Active,
    /// An operator entered it; it has not enrolled yet.
    Expected,
    /// It came by itself and waits for an operator.
    Pending,
    /// Its identity was revoked. Nothing leads out of here but an operator's decision.
    Revoked,
}

/// A key that waits for an operator, or that one approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Which key.
    pub key: KeyFingerprint,
    /// Since when it waits.
    pub asked_at: Wall,
    /// When an operator approved it; `None` while it waits.
    pub approved_at: Option<Wall>,
}

/// One device of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Its group, which decides profile and policy.
    pub group: Name,
    /// Where it stands.
    pub status: Status,
    /// The key that waits for an operator, if one does.
    pub approval: Option<Approval>,
    /// When it was entered.
    pub created_at: Wall,
    /// When it was last heard of with a certificate, to [`LAST_SEEN_GRAIN_S`].
    pub last_seen_at: Option<Wall>,
    /// When it last replaced an expired certificate.
    pub recovered_at: Option<Wall>,
    /// Its newest certificate.
    pub serial: Option<Serial>,
    /// When that certificate expires.
    pub not_after: Option<Wall>,
    /// When and why it was revoked.
    pub revoked: Option<(Wall, RevocationReason)>,
}

/// How exactly [`Device::last_seen_at`] is kept, seconds: a write for each question would cost a
/// disk sync and tell nobody more.
pub const LAST_SEEN_GRAIN_S: u64 = 300;

/// A step that a device's state does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepError {
    /// Another key waits for this device: an operator has to choose.
    AnotherKeyWaits {
        /// The key that waits.
        waiting: KeyFingerprint,
        /// The key that came.
        found: KeyFingerprint,
    },
    /// No key of this device waits for an operator.
    NothingWaits,
    /// The device was revoked.
    Revoked {
        /// When.
        at: Wall,
    },
    /// An operator approved another key than the one that waits now.
    WaitingKeyChanged {
        /// The key that waits.
        waiting: KeyFingerprint,
        /// The key that the operator named.
        named: KeyFingerprint,
    },
}

impl Name {
    /// Takes a text as a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] if it is not `[a-z0-9][a-z0-9-]{0,63}`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().is_some_and(|b| is_alphanumeric(b));
        let rest = text.bytes().all(|b| is_alphanumeric(b) || b == b'-');
        if first && rest && text.len() <= NAME_LEN_MAX {
            return Ok(Self(text.to_owned()));
        }
        let end = text.floor_char_boundary(NAME_LEN_MAX);
        Err(NameError { found: text[..end].to_owned() })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_alphanumeric(b: u8) -> bool {
    matches!(b, b'a'..=b'z' | b'0'..=b'9')
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no name, expected [a-z0-9][a-z0-9-]{{0,63}}", self.found)
    }
}

impl std::error::Error for NameError {}
