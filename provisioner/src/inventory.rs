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

impl Device {
    /// A device that an operator enters.
    #[must_use]
    pub const fn expected(id: DeviceId, group: Name, now: Wall) -> Self {
        Self {
            id,
            group,
            status: Status::Expected,
            approval: None,
            created_at: now,
            last_seen_at: None,
            recovered_at: None,
            serial: None,
            not_after: None,
            revoked: None,
        }
    }

    /// Whether a key of this device waits for an operator.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.approval.is_some_and(|approval| approval.approved_at.is_none())
    }

    /// A key asks for an operator's approval. One that asked before keeps its place.
    ///
    /// # Errors
    ///
    /// [`StepError::Revoked`], [`StepError::AnotherKeyWaits`].
    pub fn asks(mut self, key: KeyFingerprint, now: Wall) -> Result<Self, StepError> {
        self.check_not_revoked()?;
        match self.approval {
            Some(waiting) if waiting.key == key => Ok(self),
            Some(waiting) => Err(StepError::AnotherKeyWaits { waiting: waiting.key, found: key }),
            None => {
                self.approval = Some(Approval { key, asked_at: now, approved_at: None });
                if self.status == Status::Expected {
                    self.status = Status::Pending;
                }
                Ok(self)
            }
        }
    }

    /// An operator approves the key that waits; `named` is the one the operator looked at.
    ///
    /// # Errors
    ///
    /// [`StepError::Revoked`], [`StepError::NothingWaits`], [`StepError::WaitingKeyChanged`].
    pub fn approved(mut self, named: Option<KeyFingerprint>, now: Wall) -> Result<Self, StepError> {
        self.check_not_revoked()?;
        let waiting = self.approval.filter(|approval| approval.approved_at.is_none());
        let waiting = waiting.ok_or(StepError::NothingWaits)?;
        if let Some(named) = named.filter(|named| *named != waiting.key) {
            return Err(StepError::WaitingKeyChanged { waiting: waiting.key, named });
        }
        self.approval = Some(Approval { approved_at: Some(now), ..waiting });
        Ok(self)
    }

    /// An operator turns the key down, approved or not.
    ///
    /// # Errors
    ///
    /// [`StepError::NothingWaits`].
    pub fn rejected(mut self) -> Result<Self, StepError> {
        self.approval.take().ok_or(StepError::NothingWaits)?;
        if self.status == Status::Pending {
            self.status = Status::Expected;
        }
        Ok(self)
    }

    /// It gets a certificate; whatever waited is settled by that.
    #[must_use]
    pub const fn issued(mut self, serial: Serial, not_after: Wall, now: Wall) -> Self {
        self.status = Status::Active;
        self.approval = None;
        self.serial = Some(serial);
        self.not_after = Some(not_after);
        self.last_seen_at = Some(now);
        self
    }

    /// An operator revokes it.
    ///
    /// # Errors
    ///
    /// [`StepError::Revoked`] if it was revoked before: the first reason stands.
    pub fn revoked(mut self, at: Wall, reason: RevocationReason) -> Result<Self, StepError> {
        self.check_not_revoked()?;
        self.status = Status::Revoked;
        self.approval = None;
        self.revoked = Some((at, reason));
        Ok(self)
    }

    /// Its hardware was replaced: it is expected to enroll anew, and nothing of it is current.
    #[must_use]
    pub const fn replaced(mut self) -> Self {
        self.status = Status::Expected;
        self.approval = None;
        self.serial = None;
        self.not_after = None;
        self
    }

    /// Whether [`Device::last_seen_at`] should be written anew for a contact at `now`.
    #[must_use]
    pub fn is_seen_anew(&self, now: Wall) -> bool {
        self.last_seen_at.is_none_or(|last| now.s_since(last) >= LAST_SEEN_GRAIN_S)
    }

    /// # Errors
    ///
    /// [`StepError::Revoked`].
    pub(crate) fn check_not_revoked(&self) -> Result<(), StepError> {
        match (self.status, self.revoked) {
            (Status::Revoked, revoked) => {
                Err(StepError::Revoked { at: revoked.map_or(self.created_at, |(at, _)| at) })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnotherKeyWaits { waiting, found } => write!(
                f,
                "key {waiting} waits for approval already, {found} came: reject the one that is \
                 not the device's"
            ),
            Self::NothingWaits => f.write_str("no key of this device waits for approval"),
            Self::Revoked { at } => write!(f, "the device was revoked at {}", at.0),
            Self::WaitingKeyChanged { waiting, named } => {
                write!(f, "key {waiting} waits, {named} was named: look again before approving")
            }
        }
    }
}

impl std::error::Error for StepError {}

impl Status {
    const ALL: [Self; 4] = [Self::Active, Self::Expected, Self::Pending, Self::Revoked];

    /// Its stable name, `[a-z]`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expected => "expected",
            Self::Pending => "pending",
            Self::Revoked => "revoked",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

impl Name {
    /// Takes a text as a name.
    ///
    /// # Errors
    ///
    /// [`NameError`] if it is not `[a-z0-9][a-z0-9-]{0,63}`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().is_some_and(is_alphanumeric);
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

#[cfg(test)]
mod tests {
    use fleetcert_core::time::Wall;

    use super::{Approval, Device, LAST_SEEN_GRAIN_S, Name, Status, StepError};
    use crate::{
        authority::{KeyFingerprint, RevocationReason, Serial},
        testing::{NOW, Seeded, device, name},
    };

    const ONE: KeyFingerprint = KeyFingerprint([1; 32]);
    const TWO: KeyFingerprint = KeyFingerprint([2; 32]);

    fn expected() -> Device {
        Device::expected(device("gw-1"), name("tokens"), NOW)
    }

    fn active() -> Device {
        expected().issued(Serial::draw(&mut Seeded(1)), NOW.plus_s(9), NOW.plus_s(1))
    }

    fn revoked() -> Device {
        active().revoked(NOW.plus_s(2), RevocationReason::Superseded).unwrap()
    }

    #[test]
    fn a_key_that_asks_keeps_its_place_and_another_is_turned_away() {
        let asked = expected().asks(ONE, NOW).unwrap();
        let approval = Approval { key: ONE, asked_at: NOW, approved_at: None };
        assert_eq!((asked.status, asked.approval), (Status::Pending, Some(approval)));
        assert_eq!(asked.clone().asks(ONE, NOW.plus_s(5)), Ok(asked.clone()));
        let error = StepError::AnotherKeyWaits { waiting: ONE, found: TWO };
        assert_eq!(asked.asks(TWO, NOW), Err(error));
    }

    #[test]
    fn an_active_device_stays_active_while_a_key_of_it_waits() {
        let asked = active().asks(ONE, NOW).unwrap();
        assert_eq!((asked.status, asked.is_waiting()), (Status::Active, true));
        assert_eq!(asked.rejected().unwrap(), active());
    }

    #[test]
    fn an_approval_is_for_the_key_that_was_looked_at_and_given_once() {
        let asked = expected().asks(ONE, NOW).unwrap();
        let changed = StepError::WaitingKeyChanged { waiting: ONE, named: TWO };
        assert_eq!(asked.clone().approved(Some(TWO), NOW), Err(changed));
        for named in [None, Some(ONE)] {
            let approved = asked.clone().approved(named, NOW.plus_s(3)).unwrap();
            assert_eq!(approved.approval.unwrap().approved_at, Some(NOW.plus_s(3)));
            assert!(!approved.is_waiting());
            assert_eq!(approved.approved(None, NOW), Err(StepError::NothingWaits));
        }
        assert_eq!(expected().approved(None, NOW), Err(StepError::NothingWaits));
        assert_eq!(expected().rejected(), Err(StepError::NothingWaits));
    }

    #[test]
    fn a_certificate_settles_what_waited() {
        let issued = expected().asks(ONE, NOW).unwrap();
        let issued = issued.issued(Serial::draw(&mut Seeded(1)), NOW.plus_s(9), NOW.plus_s(1));
        assert_eq!(issued, active());
        assert_eq!(issued.not_after, Some(NOW.plus_s(9)));
        assert_eq!(issued.last_seen_at, Some(NOW.plus_s(1)));
    }

    #[test]
    fn nothing_but_an_operator_leads_out_of_revoked() {
        let error = Err(StepError::Revoked { at: NOW.plus_s(2) });
        assert_eq!(revoked().asks(ONE, NOW), error);
        assert_eq!(revoked().approved(None, NOW), error);
        assert_eq!(revoked().revoked(NOW, RevocationReason::Unspecified), error);
        let waiting = expected().asks(ONE, NOW).unwrap();
        let revoked = waiting.revoked(NOW, RevocationReason::Unspecified).unwrap();
        assert_eq!((revoked.status, revoked.approval), (Status::Revoked, None));
    }

    #[test]
    fn contacts_are_written_down_once_in_a_grain() {
        let seen = active();
        let last = seen.last_seen_at.unwrap();
        assert!(!seen.is_seen_anew(last.plus_s(LAST_SEEN_GRAIN_S - 1)));
        assert!(seen.is_seen_anew(last.plus_s(LAST_SEEN_GRAIN_S)));
        assert!(expected().is_seen_anew(Wall(0)));
    }

    #[test]
    fn every_status_reads_back_from_its_code() {
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
        }
        assert_eq!(Status::from_code("gone"), None);
    }

    #[test]
    fn names_are_lower_case_labels() {
        for good in ["a", "0", "a-b-", &"x".repeat(64)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "a/b", "é", &"x".repeat(65)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
