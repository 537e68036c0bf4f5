//! Where the device stands: one answer for people, programs and the fleet.
//!
//! **What it is.** [`View`] is what the lifecycle machine shows after each change; [`Status`] is
//! the same as an answer, with the broker's session and the clocks of the moment, in JSON of a
//! versioned schema or as text. [`Board`] keeps the newest view where the control socket finds it.
//!
//! **What it must never do.** Hold a key, a token or anything else that is secret, or call a
//! certificate expired by a clock that nobody believes.

mod advice;
mod key;
mod text;

use std::cell::RefCell;
use std::rc::Rc;

use fleetcert_core::der::Certificate;
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Failure, Operation};
use fleetcert_core::lifecycle::{Machine, Phase, Timer};
use fleetcert_core::policy::Schedule;
use fleetcert_core::record::{Identity, Slot};
use fleetcert_core::time::{Confidence, Mono, Now, Reading, Wall};
use serde::{Deserialize, Serialize};

use crate::keystore::KeyStore;
use crate::link::{LinkStatus, Trouble};
use crate::tpm::TpmTrouble;

pub use advice::{advice, advice_in, broker_advice};
pub use key::{KeyStatus, LockoutStatus, TPM_OK, TpmStatus};

/// The version of the JSON that [`Status`] is.
pub const SCHEMA: u32 = 1;

/// The operation of a failure that keeps the session with the broker away.
const CONNECT: &str = "connect";

/// A certificate with less than this part of its life left is about to expire.
const EXPIRING_PART: u64 = 10;

/// What the machine shows after a change.
#[derive(Clone, Debug)]
pub struct View {
    phase: Phase,
    active: Option<(Slot, Identity)>,
    schedule: Option<Schedule>,
    deadline: Option<(Mono, Timer)>,
    reading: Reading,
    seen: Mono,
    failed: Option<(Operation, Failure)>,
}

/// The particulars of a failure that the machine remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureNote {
    /// What was attempted.
    pub operation: Operation,
    /// Why it did not succeed.
    pub failure: Failure,
    /// More about it, where the port left any.
    pub cause: Option<String>,
    /// When.
    pub at: Mono,
    /// When it is tried again.
    pub retry_at: Mono,
}

/// The newest view, shared.
#[derive(Clone, Debug)]
pub struct Board(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    device: DeviceId,
    keys: KeyStore,
    view: Option<View>,
    note: Option<FailureNote>,
    during: Option<Phase>,
}

/// Shows a phase for as long as it lives.
#[derive(Debug)]
#[must_use = "the phase is shown while this lives"]
pub struct During(Board);

/// Where the device stands; the JSON that `status --json` and the control socket answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether an agent runs on the state directory.
    pub running: bool,
    /// The name of the device.
    pub device_id: String,
    /// A code of the machine's phase.
    pub phase: String,
    /// The identity in use.
    pub identity: Option<IdentityStatus>,
    /// What is done next, and when.
    pub next: Option<Next>,
    /// What is known of time.
    pub clock: ClockStatus,
    /// The failure that stands in the way, if any does.
    pub last_failure: Option<FailureStatus>,
    /// The session with the broker; `None` when none is configured, or no agent runs.
    pub mqtt: Option<MqttStatus>,
    /// Where the keys are.
    pub key: KeyStatus,
}

/// The identity in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// The serial number, hexadecimal.
    pub serial: String,
    /// The subject's distinguished name.
    pub subject: String,
    /// The SPIFFE id among the alternative names.
    pub spiffe_id: Option<String>,
    /// First second of validity, RFC 3339.
    pub not_before: String,
    /// The same, seconds since 1970.
    pub not_before_s: u64,
    /// Last second of validity, RFC 3339.
    pub not_after: String,
    /// The same, seconds since 1970.
    pub not_after_s: u64,
    /// When the renewal is due, RFC 3339.
    pub renew_at: Option<String>,
    /// The same, seconds since 1970.
    pub renew_at_s: Option<u64>,
    /// The key slot, `a` or `b`.
    pub slot: String,
    /// SHA-256 of the public key, hexadecimal.
    pub spki_sha256: String,
    /// Whether it ran out, by a believable clock; `None` without one.
    pub expired: Option<bool>,
    /// Whether less than a tenth of its life is left; `None` without a believable clock.
    pub expiring: Option<bool>,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// A code of the machine's timer; `start` when no agent runs and there is something to do.
    pub action: String,
    /// Seconds from now.
    pub in_s: u64,
    /// When, RFC 3339; `None` without a believable clock.
    pub at: Option<String>,
    /// The same, seconds since 1970.
    pub at_s: Option<u64>,
}

/// What is known of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// `unknown`, `floored` or `trusted`.
    pub confidence: String,
    /// The believed time, RFC 3339; `None` when unknown.
    pub wall: Option<String>,
    /// The same, seconds since 1970.
    pub wall_s: Option<u64>,
    /// It is certainly not before this, RFC 3339.
    pub floor: String,
    /// The same, seconds since 1970.
    pub floor_s: u64,
}

/// The failure that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureStatus {
    /// A code of the machine's operation, or `connect` for the session with the broker.
    pub operation: String,
    /// A code of the failure.
    pub code: String,
    /// What happened, what was found and expected.
    pub cause: String,
    /// When it happened, RFC 3339; `None` without a believable clock.
    pub at: Option<String>,
    /// When it is tried again, RFC 3339; `None` without a believable clock.
    pub retry_at: Option<String>,
    /// When it is tried again, seconds from now; zero when it is being tried.
    pub retry_in_s: u64,
    /// What to do about it.
    pub what_to_do: String,
}

/// The session with the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MqttStatus {
    /// Whether there is a session.
    pub connected: bool,
    /// Since when, RFC 3339; `None` without a session or a believable clock.
    pub since: Option<String>,
    /// The broker, `host:port`.
    pub broker: String,
    /// Milliseconds without a session at the last identity switch.
    pub gap_ms_last: Option<u64>,
    /// The longest of these since the agent started.
    pub gap_ms_max: Option<u64>,
    /// What keeps the session away, if anything does.
    pub last_failure: Option<FailureStatus>,
}

/// Hexadecimal digits of `octets`.
#[must_use]
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A serial number as people write it: without the octet that only carries the sign.
#[must_use]
pub fn serial_text(serial: &[u8]) -> String {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        whole => hex(whole),
    }
}

impl View {
    /// The view of a machine at this instant.
    #[must_use]
    pub fn of(machine: &Machine, now: Now) -> Self {
        let record = machine.record();
        let active = record.active.and_then(|slot| Some((slot, record.identity(slot)?.clone())));
        Self {
            phase: machine.phase(now),
            active,
            schedule: machine.schedule(),
            deadline: machine.deadline(),
            reading: machine.reading(now),
            seen: now.mono,
            failed: machine.last_failure().cloned(),
        }
    }

    /// The believed time at `mono`, which is not before this view was made.
    fn wall(&self, mono: Mono) -> Option<Wall> {
        self.reading.wall.map(|wall| wall.plus_s(mono.ms_since(self.seen) / 1000))
    }

    /// The civil time of another instant of the monotonic clock.
    fn wall_of(&self, then: Mono, mono: Mono) -> Option<Wall> {
        let wall = self.wall(mono)?;
        Some(if then >= mono {
            wall.plus_s(then.ms_since(mono) / 1000)
        } else {
            wall.minus_s(mono.ms_since(then) / 1000)
        })
    }

    fn identity(&self, mono: Mono) -> Option<IdentityStatus> {
        let (slot, identity) = self.active.as_ref()?;
        let wall = self.wall(mono);
        let validity = identity.validity;
        let certificate = Certificate::parse(&identity.certificate).ok();
        let name = certificate.and_then(|certificate| certificate.common_name().ok());
        let mut uris = certificate.into_iter().flat_map(|certificate| certificate.uris());
        let renew_at = self.schedule.map(|schedule| schedule.renew_at);
        let rest_s = |wall: Wall| validity.not_after.s_since(wall);
        Some(IdentityStatus {
            serial: serial_text(&identity.serial),
            subject: name.map(|name| format!("CN={name}")).unwrap_or_default(),
            spiffe_id: uris.find(|uri| uri.starts_with("spiffe://")).map(str::to_owned),
            not_before: validity.not_before.to_string(),
            not_before_s: validity.not_before.0,
            not_after: validity.not_after.to_string(),
            not_after_s: validity.not_after.0,
            renew_at: renew_at.map(|wall| wall.to_string()),
            renew_at_s: renew_at.map(|at| at.0),
            slot: slot.as_str().to_owned(),
            spki_sha256: hex(&identity.spki_sha256),
            expired: wall.map(|wall| validity.is_expired_at(wall)),
            expiring: wall.map(|wall| rest_s(wall) < validity.lifetime_s() / EXPIRING_PART),
        })
    }

    fn next(&self, mono: Mono) -> Option<Next> {
        let (then, timer) = self.deadline?;
        let at = self.wall_of(then, mono);
        Some(Next {
            action: timer.code().to_owned(),
            in_s: then.ms_since(mono).div_ceil(1000),
            at: at.map(|wall| wall.to_string()),
            at_s: at.map(|at| at.0),
        })
    }

    /// What the next start of an agent will wait for or do.
    fn next_start(&self, mono: Mono) -> Option<Next> {
        let due = match self.phase {
            Phase::Decommissioned => return None,
            Phase::Active => self.schedule.zip(self.wall(mono)),
            _ => None,
        };
        let Some((schedule, wall)) = due else {
            return Some(Next { action: "start".to_owned(), in_s: 0, at: None, at_s: None });
        };
        let at = schedule.renew_at.max(wall);
        Some(Next {
            action: Timer::Renew.code().to_owned(),
            in_s: at.s_since(wall),
            at: Some(at.to_string()),
            at_s: Some(at.0),
        })
    }

    fn clock(&self, mono: Mono) -> ClockStatus {
        let wall = self.wall(mono);
        let confidence = match self.reading.confidence {
            Confidence::Unknown => "unknown",
            Confidence::Floored => "floored",
            Confidence::Trusted => "trusted",
        };
        ClockStatus {
            confidence: confidence.to_owned(),
            wall: wall.map(|wall| wall.to_string()),
            wall_s: wall.map(|wall| wall.0),
            floor: self.reading.floor.to_string(),
            floor_s: self.reading.floor.0,
        }
    }

    fn failure(
        &self,
        note: Option<&FailureNote>,
        trouble: Option<&TpmTrouble>,
        mono: Mono,
    ) -> Option<FailureStatus> {
        let (operation, failure) = self.failed.as_ref()?;
        let note = note.filter(|note| note.operation == *operation && note.failure == *failure);
        let cause = match note.and_then(|note| note.cause.as_ref()) {
            Some(cause) => format!("{failure}: {cause}"),
            None => failure.to_string(),
        };
        let wall_of = |then| self.wall_of(then, mono).map(|wall| wall.to_string());
        Some(FailureStatus {
            operation: operation.code().to_owned(),
            code: failure.code().to_owned(),
            cause,
            at: note.and_then(|note| wall_of(note.at)),
            retry_at: note.and_then(|note| wall_of(note.retry_at)),
            retry_in_s: note.map_or(0, |note| note.retry_at.ms_since(mono).div_ceil(1000)),
            what_to_do: advice_in(*operation, failure, trouble).to_owned(),
        })
    }

    fn mqtt(&self, link: LinkStatus, mono: Mono) -> Option<MqttStatus> {
        let since = link.connected_since.and_then(|since| self.wall_of(since, mono));
        Some(MqttStatus {
            connected: link.connected_since.is_some(),
            since: since.map(|wall| wall.to_string()),
            broker: link.broker?,
            gap_ms_last: link.gap_ms_last,
            gap_ms_max: link.gap_ms_max,
            last_failure: link.trouble.map(|trouble| self.broker_failure(&trouble, mono)),
        })
    }

    fn broker_failure(&self, trouble: &Trouble, mono: Mono) -> FailureStatus {
        let Trouble { failure, cause, at, retry_at } = trouble;
        let wall_of = |then| self.wall_of(then, mono).map(|wall| wall.to_string());
        FailureStatus {
            operation: CONNECT.to_owned(),
            code: failure.code().to_owned(),
            cause: format!("{failure}: {cause}"),
            at: wall_of(*at),
            retry_at: wall_of(*retry_at),
            retry_in_s: retry_at.ms_since(mono).div_ceil(1000),
            what_to_do: broker_advice(failure).to_owned(),
        }
    }

    /// The key of the identity in use: SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> Option<&[u8; 32]> {
        self.active.as_ref().map(|(_, identity)| &identity.spki_sha256)
    }

    /// The status of a device on which no agent runs.
    #[must_use]
    pub fn at_rest(&self, device: &DeviceId, key: KeyStatus, mono: Mono) -> Status {
        Status {
            schema: SCHEMA,
            running: false,
            device_id: device.as_str().to_owned(),
            phase: self.phase.code().to_owned(),
            identity: self.identity(mono),
            next: self.next_start(mono),
            clock: self.clock(mono),
            last_failure: None,
            mqtt: None,
            key,
        }
    }
}

impl Board {
    /// A board that nothing was written on yet.
    #[must_use]
    pub fn new(device: DeviceId, keys: KeyStore) -> Self {
        Self(Rc::new(RefCell::new(Inner { device, keys, view: None, note: None, during: None })))
    }

    /// Writes the newest view; a failure that the machine has forgotten is forgotten here.
    pub fn show(&self, view: View) {
        let mut inner = self.0.borrow_mut();
        if view.failed.is_none() {
            inner.note = None;
        }
        inner.view = Some(view);
    }

    /// Writes the particulars of the newest failure.
    pub fn fail(&self, note: FailureNote) {
        self.0.borrow_mut().note = Some(note);
    }

    /// What to do about a failure as things stand.
    #[must_use]
    pub fn what_to_do(&self, operation: Operation, failure: &Failure) -> &'static str {
        advice_in(operation, failure, self.0.borrow().keys.trouble().as_ref())
    }

    /// The key store, for who asks it how it stands.
    pub(crate) fn keys(&self) -> KeyStore {
        self.0.borrow().keys.clone()
    }

    /// Shows `phase` while something takes long, instead of the phase before it.
    pub fn during(&self, phase: Phase) -> During {
        self.0.borrow_mut().during = Some(phase);
        During(self.clone())
    }

    /// Where the device stands at `mono`; `None` before the first view.
    #[must_use]
    pub fn status(&self, mono: Mono, link: LinkStatus) -> Option<Status> {
        let inner = self.0.borrow();
        let view = inner.view.as_ref()?;
        let at_rest = view.at_rest(&inner.device, inner.keys.status(view.spki_sha256()), mono);
        let phase = inner.during.unwrap_or(view.phase);
        Some(Status {
            running: true,
            phase: phase.code().to_owned(),
            next: view.next(mono),
            last_failure: view.failure(inner.note.as_ref(), inner.keys.trouble().as_ref(), mono),
            mqtt: view.mqtt(link, mono),
            ..at_rest
        })
    }
}

impl Drop for During {
    fn drop(&mut self) {
        self.0.0.borrow_mut().during = None;
    }
}

#[cfg(test)]
mod tests;
