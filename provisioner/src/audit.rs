//! What happened to certificates, and who did it: a table to which rows are only ever added.
//!
//! Each change is recorded in the transaction that makes it, so that the table and the state that
//! it explains cannot disagree. An entry must never hold a secret: not a token, not a password,
//! not a key. It names tokens by the first octets of their hash.

use std::fmt;

use fleetcert_core::{device_id::DeviceId, time::Wall};

use crate::authority::Serial;

/// Who caused an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A peer that has not said who it is.
    Anonymous,
    /// The device that the entry names.
    Device,
    /// A person at the command line or the admin interface, by name.
    Operator(String),
    /// The provisioner itself, on schedule.
    Provisioner,
}

/// What happened. [`Event::code`] is what the database keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A device that is bound to a TPM came with a new attestation key of that TPM: it was cleared.
    AkReplaced,
    /// An operator let a pending key have a certificate.
    Approved,
    /// The TPM of a device gave evidence about a new key.
    Attested,
    /// A device was bound to a TPM.
    Bound,
    /// A TPM's counters went back: another one may run with the same secrets.
    CloneSign,
    /// What came contradicts a binding: an operator has to look.
    Conflict,
    /// A certificate revocation list was made.
    CrlPublished,
    /// A device was entered into the inventory.
    DeviceAdded,
    /// An operator said that the hardware of a device was replaced: its TPM is released.
    DeviceReplaced,
    /// An endorsement key was listed for a device.
    EkListed,
    /// An operator trusts the makers of TPMs behind a root.
    EkRootAdded,
    /// An operator trusts them no longer.
    EkRootRemoved,
    /// An operator imported devices and their endorsement keys.
    Imported,
    /// A certificate was recorded, to be signed.
    Issued,
    /// A device asked for a certificate and waits for an operator.
    Pending,
    /// An expired certificate was replaced inside the recovery window.
    Recovered,
    /// A request was refused; the detail begins with the reason code.
    Refused,
    /// An operator turned a pending key down.
    Rejected,
    /// A request for a certificate was accepted for decision.
    Requested,
    /// A device and its certificates were revoked.
    Revoked,
    /// A one-time token was made.
    TokenIssued,
    /// A one-time token was used up.
    TokenUsed,
}

/// One event, before it has its place in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Wall,
    /// What.
    pub event: Event,
    /// To which device.
    pub device: Option<DeviceId>,
    /// To which certificate.
    pub serial: Option<Serial>,
    /// By whom.
    pub actor: Actor,
    /// What else a reader needs, one line.
    pub detail: String,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place: rows are numbered upwards from 1 in the order of their commits.
    pub number: u64,
    /// What happened.
    pub entry: Entry,
}

impl Entry {
    /// An event at `at` by `actor`, about nothing in particular yet.
    #[must_use]
    pub const fn new(at: Wall, event: Event, actor: Actor) -> Self {
        Self { at, event, device: None, serial: None, actor, detail: String::new() }
    }

    /// The same event, about a device.
    #[must_use]
    pub fn about(mut self, device: &DeviceId) -> Self {
        self.device = Some(device.clone());
        self
    }

    /// The same event, about a certificate.
    #[must_use]
    pub const fn on(mut self, serial: Serial) -> Self {
        self.serial = Some(serial);
        self
    }

    /// The same event with more to say, cut at [`DETAIL_LEN_MAX`].
    #[must_use]
    pub fn saying(mut self, detail: &str) -> Self {
        let end = detail.floor_char_boundary(DETAIL_LEN_MAX);
        self.detail = detail[..end].to_owned();
        self
    }
}

/// Octets of [`Entry::detail`], at most: part of it may come from a peer.
pub const DETAIL_LEN_MAX: usize = 256;

impl Event {
    const ALL: [Self; 22] = [
        Self::AkReplaced,
        Self::Approved,
        Self::Attested,
        Self::Bound,
        Self::CloneSign,
        Self::Conflict,
        Self::CrlPublished,
        Self::DeviceAdded,
        Self::DeviceReplaced,
        Self::EkListed,
        Self::EkRootAdded,
        Self::EkRootRemoved,
        Self::Imported,
        Self::Issued,
        Self::Pending,
        Self::Recovered,
        Self::Refused,
        Self::Rejected,
        Self::Requested,
        Self::Revoked,
        Self::TokenIssued,
        Self::TokenUsed,
    ];

    /// The stable name of the event, `[a-z-]`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AkReplaced => "ak-replaced",
            Self::Approved => "approved",
            Self::Attested => "attested",
            Self::Bound => "bound",
            Self::CloneSign => "clone-sign",
            Self::Conflict => "conflict",
            Self::CrlPublished => "crl-published",
            Self::DeviceAdded => "device-added",
            Self::DeviceReplaced => "device-replaced",
            Self::EkListed => "ek-listed",
            Self::EkRootAdded => "ek-root-added",
            Self::EkRootRemoved => "ek-root-removed",
            Self::Imported => "imported",
            Self::Issued => "issued",
            Self::Pending => "pending",
            Self::Recovered => "recovered",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Requested => "requested",
            Self::Revoked => "revoked",
            Self::TokenIssued => "token-issued",
            Self::TokenUsed => "token-used",
        }
    }

    /// The event of that name.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.code() == code)
    }
}

/// How an operator's name is told from the other actors in the database.
const OPERATOR_PREFIX: &str = "operator:";

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Device => f.write_str("device"),
            Self::Operator(name) => write!(f, "{OPERATOR_PREFIX}{name}"),
            Self::Provisioner => f.write_str("provisioner"),
        }
    }
}

impl Actor {
    /// Reads what `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "anonymous" => Some(Self::Anonymous),
            "device" => Some(Self::Device),
            "provisioner" => Some(Self::Provisioner),
            _ => text.strip_prefix(OPERATOR_PREFIX).map(|name| Self::Operator(name.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Actor, DETAIL_LEN_MAX, Entry, Event};

    #[test]
    fn every_event_reads_back_from_its_code() {
        for event in Event::ALL {
            assert_eq!(Event::from_code(event.code()), Some(event));
        }
        assert_eq!(Event::from_code("erased"), None);
    }

    #[test]
    fn every_actor_reads_back_from_its_text() {
        let operator = Actor::Operator("device".into());
        for actor in [Actor::Anonymous, Actor::Device, operator, Actor::Provisioner] {
            assert_eq!(Actor::parse(&actor.to_string()), Some(actor));
        }
        assert_eq!(Actor::parse("root"), None);
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let entry = Entry::new(Default::default(), Event::Refused, Actor::Anonymous)
            .saying(&format!("a{}", "é".repeat(DETAIL_LEN_MAX)));
        assert_eq!(entry.detail.len(), DETAIL_LEN_MAX - 1);
    }
}
