//! The machine that never loses the identity.
//!
//! **What it is.** A pure state machine: [`Machine::handle`] is the only mutation,
//! [`Machine::poll`] yields what is to be done, [`Machine::deadline`] says when to look again.
//! Its shell performs one action at a time and answers each with an [`Input`].
//!
//! **How it decides.** There is no script of steps to be interrupted in the middle. After every
//! input the machine compares the durable [`Record`] and the little it knows besides with what
//! should be, and names the one next action (`plan`). A device that lost power therefore goes on
//! by the same comparison that it would have made without the cut.
//!
//! **What it must never do.**
//! * Act before what licenses the act is durable: a key is made, a request sent, an identity
//!   switched only after the record that says so was persisted.
//! * Erase a key that the durable record names.
//! * Give up the identity in use before the next one is proven with real connections and the
//!   switch is durable.
//! * Judge validity without a believable clock: an unknown clock postpones, it never decides.
//! * Take an answer that it did not ask for: each names its action, and anything else is
//!   [`Unexpected`] and changes nothing.

mod answer;
mod entropy;
mod gate;
mod plan;
#[cfg(test)]
mod tests;

use heapless::Deque;

use crate::device_id::DeviceId;
use crate::event::{Event, Failure, Operation};
use crate::policy::{Policy, Schedule, Window};
use crate::record::{Identity, KeySource, Record, Serial, Slot, SlotState, Standing};
use crate::time::{Mono, Now, Reading, Timekeeper, Wall};

use entropy::Entropy;
use gate::{Gates, Lane};

/// Reports that can wait to be polled; one input causes fewer than this.
const REPORTS_MAX: usize = 8;

/// Names one action of one run of the machine, so that answers can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActionId(u32);

/// What the shell is to do. All but [`Action::Report`] must be answered before the next is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take the slot's identity into use for all connections. Answer: [`Input::Done`].
    Adopt {
        /// To be named in the answer.
        id: ActionId,
        /// Where the identity is.
        slot: Slot,
    },
    /// Ask the provisioner for time and advice. Answer: [`Input::Consulted`].
    Consult {
        /// To be named in the answer.
        id: ActionId,
        /// The slot of the identity in use.
        slot: Slot,
    },
    /// Ask the provisioner for a certificate for the slot's key, by the slot's [`Record::request`].
    /// Answer: [`Input::Enrolled`].
    Enroll {
        /// To be named in the answer.
        id: ActionId,
        /// Where the key is.
        slot: Slot,
    },
    /// Make sure that the slot holds a key. Answer: [`Input::KeyReady`].
    EnsureKey {
        /// To be named in the answer.
        id: ActionId,
        /// The slot.
        slot: Slot,
        /// Where the key comes from, should there be none.
        source: KeySource,
    },
    /// Erase the slot's key; the durable record does not name it. Answer: [`Input::Done`].
    EraseKey {
        /// To be named in the answer.
        id: ActionId,
        /// The slot.
        slot: Slot,
    },
    /// Make [`Machine::record`] durable. Answer: [`Input::Done`].
    Persist {
        /// To be named in the answer.
        id: ActionId,
    },
    /// Prove the slot's identity to provisioner and broker. Answer: [`Input::Proven`].
    Prove {
        /// To be named in the answer.
        id: ActionId,
        /// Where the identity is.
        slot: Slot,
    },
    /// End all connections, use no identity. Answer: [`Input::Done`].
    Release {
        /// To be named in the answer.
        id: ActionId,
    },
    /// Tell people. Not answered.
    Report(Event),
}

/// How far the broker was reached in a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerProof {
    /// It accepted the new identity: CONNACK.
    Connected,
    /// This device speaks to no broker.
    NotConfigured,
    /// It was not reached, or ended the connection without a verdict on us.
    Unreachable,
}

/// What somebody may ask the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End the device's life in the fleet and erase its keys.
    Decommission,
    /// Renew now, whatever the schedule says.
    Renew,
}

/// What the machine is told. Every answer names its action; times come from authenticated
/// provisioners only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A command.
    Command(Command),
    /// Answer to [`Action::Consult`].
    Consulted {
        /// The action.
        id: ActionId,
        /// When to renew, if the provisioner has an opinion.
        window: Option<Window>,
        /// When to ask again, seconds.
        retry_after_s: u32,
        /// The provisioner's time.
        server_time: Option<Wall>,
    },
    /// Answer to [`Action::Adopt`], [`Action::EraseKey`], [`Action::Persist`] and
    /// [`Action::Release`].
    Done {
        /// The action.
        id: ActionId,
    },
    /// Answer to [`Action::Enroll`]: a certificate, checked to be a client certificate for this
    /// device.
    Enrolled {
        /// The action.
        id: ActionId,
        /// The certificate and its facts.
        identity: &'a Identity,
        /// The provisioner's time.
        server_time: Option<Wall>,
    },
    /// Answer to any action that did not succeed.
    Failed {
        /// The action.
        id: ActionId,
        /// Why.
        failure: Failure,
        /// The provisioner's time.
        server_time: Option<Wall>,
    },
    /// Answer to [`Action::EnsureKey`].
    KeyReady {
        /// The action.
        id: ActionId,
        /// SHA-256 of the key's SubjectPublicKeyInfo, DER.
        spki_sha256: [u8; 32],
    },
    /// Answer to [`Action::Prove`].
    Proven {
        /// The action.
        id: ActionId,
        /// The serial number that the provisioner saw.
        serial: &'a Serial,
        /// How far the broker was reached.
        broker: BrokerProof,
        /// The provisioner's time.
        server_time: Option<Wall>,
    },
    /// Time has passed or a clock was set. Never wrong, at most idle.
    Tick,
}

impl Input<'_> {
    /// The answer to an action that failed, and told no time.
    #[must_use]
    pub const fn failed(id: ActionId, failure: Failure) -> Self {
        Self::Failed { id, failure, server_time: None }
    }

    /// The answer to an action that is done, or failed.
    #[must_use]
    pub fn done(id: ActionId, outcome: Result<(), Failure>) -> Self {
        match outcome {
            Ok(()) => Self::Done { id },
            Err(failure) => Self::failed(id, failure),
        }
    }
}

/// An answer to something that was not asked, or to something else than what was. It changed
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// What is in flight.
    pub expected: Option<(ActionId, Operation)>,
    /// The action that the answer names.
    pub found: ActionId,
}

impl core::fmt::Display for Unexpected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { expected, found } = self;
        match expected {
            Some((id, operation)) => write!(
                f,
                "answer to action {} while action {} ({}) is in flight",
                found.0,
                id.0,
                operation.code()
            ),
            None => write!(f, "answer to action {} while nothing is in flight", found.0),
        }
    }
}

impl core::error::Error for Unexpected {}

/// When to look again, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// When to ask the provisioner for time and advice.
    Consult,
    /// When the identity in use runs out.
    Expiry,
    /// When to look at everything again, although nothing is due.
    Idle,
    /// When to renew.
    Renew,
    /// When to try again what the network or a peer kept from happening.
    Retry,
    /// When to try again what the device itself kept from happening: storage or key store.
    RetryLocal,
}

impl Timer {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Consult => "consult",
            Self::Expiry => "expiry",
            Self::Idle => "idle",
            Self::Renew => "renew",
            Self::Retry => "retry",
            Self::RetryLocal => "retry-local",
        }
    }
}

/// Where the device stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// An identity is in use and nothing is on its way.
    Active,
    /// The device ended its life in the fleet.
    Decommissioned,
    /// The first certificate is being asked for.
    Enrolling,
    /// A new identity is being proven.
    Proving,
    /// The provisioner revoked us.
    Quarantined,
    /// The identity in use ran out, or its key is gone; a new one is being asked for.
    Recovering,
    /// The next certificate is being asked for while the present one is in use.
    Renewing,
    /// There is no identity and nothing is on its way yet.
    Unenrolled,
    /// Something is on its way and waits for its next try.
    Waiting,
}

impl Phase {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Decommissioned => "decommissioned",
            Self::Enrolling => "enrolling",
            Self::Proving => "proving",
            Self::Quarantined => "quarantined",
            Self::Recovering => "recovering",
            Self::Renewing => "renewing",
            Self::Unenrolled => "unenrolled",
            Self::Waiting => "waiting",
        }
    }
}

/// An action that was named and not yet answered.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: ActionId,
    step: Step,
    polled: bool,
}

/// What an action does, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Adopt(Slot),
    Consult(Slot),
    Enroll(Slot),
    EnsureKey(Slot, KeySource),
    EraseKey(Slot),
    Persist,
    Prove(Slot),
    Release,
}

impl Step {
    const fn operation(self) -> Operation {
        match self {
            Self::Adopt(_) => Operation::Adopt,
            Self::Consult(_) => Operation::Consult,
            Self::Enroll(_) => Operation::Enroll,
            Self::EnsureKey(..) => Operation::EnsureKey,
            Self::EraseKey(_) => Operation::EraseKey,
            Self::Persist => Operation::Persist,
            Self::Prove(_) => Operation::Prove,
            Self::Release => Operation::Release,
        }
    }

    const fn lane(self) -> Lane {
        match self {
            Self::Adopt(_) | Self::Release => Lane::Use,
            Self::Consult(_) => Lane::Consult,
            Self::Enroll(_) | Self::EnsureKey(..) | Self::Prove(_) => Lane::Candidate,
            Self::EraseKey(_) => Lane::Erase,
            Self::Persist => Lane::Storage,
        }
    }
}

/// What of the record is known to be durable; the rest of it may not be acted upon.
#[derive(Clone, Copy, Debug)]
struct Durable {
    active: Option<Slot>,
    standing: Standing,
    floor: Wall,
}

impl Durable {
    const fn of(record: &Record) -> Self {
        Self { active: record.active, standing: record.standing, floor: record.floor }
    }
}

/// The lifecycle of one device.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    device: DeviceId,
    record: Record,
    /// The record holds something that is not durable yet.
    dirty: bool,
    durable: Durable,
    time: Timekeeper,
    entropy: Entropy,
    gates: Gates,
    /// The slot whose identity the shell uses.
    adopted: Option<Slot>,
    /// The key store said that the active slot's key is gone.
    active_lost: bool,
    /// Whether an unnamed slot's key is known to be erased.
    swept: [bool; 2],
    /// The public key in the candidate slot, while a certificate is being asked for.
    candidate_key: Option<[u8; 32]>,
    /// How often the present candidate, request or identity, was refused by its peers.
    refusals: u8,
    renew_wanted: bool,
    decommission_wanted: bool,
    schedule: Option<Schedule>,
    consult_at: Mono,
    in_flight: Option<InFlight>,
    /// What to report once the record is durable.
    announcement: Option<Event>,
    reports: Deque<Event, REPORTS_MAX>,
    deadline: Option<(Mono, Timer)>,
    last_id: u32,
    clock_known: Option<bool>,
    expiry_told: bool,
    last_failure: Option<(Operation, Failure)>,
}

impl Machine {
    /// The machine of a device that just started with the durable `record` (that of
    /// [`Record::new`] on first boot).
    ///
    /// `seed` is fresh randomness from the shell, for request names and jitter. The machine asks
    /// for nothing before its first [`Machine::handle`], usually of [`Input::Tick`].
    #[must_use]
    // Its frame holds a record: on a small stack not to be added to that of its caller.
    #[inline(never)]
    pub fn new(policy: Policy, device: DeviceId, record: Record, seed: [u8; 32], now: Now) -> Self {
        let mut machine = Self {
            policy,
            device,
            dirty: false,
            durable: Durable::of(&record),
            record,
            time: Timekeeper::new(policy.build_time),
            entropy: Entropy::new(seed),
            gates: Gates::default(),
            adopted: None,
            active_lost: false,
            swept: [false; 2],
            candidate_key: None,
            refusals: 0,
            renew_wanted: false,
            decommission_wanted: false,
            schedule: None,
            consult_at: now.mono,
            in_flight: None,
            announcement: None,
            reports: Deque::new(),
            deadline: None,
            last_id: 0,
            clock_known: None,
            expiry_told: false,
            last_failure: None,
        };
        machine.awake(now);
        machine
    }

    /// Has the durable record read to where the machine keeps it, before the first
    /// [`Machine::handle`]: for a stack on which a record is too large to be passed to
    /// [`Machine::new`], whose record is then any.
    ///
    /// # Errors
    ///
    /// Those of `read`. The machine is of no use then.
    pub fn recall<E>(
        &mut self,
        now: Now,
        read: impl FnOnce(&mut Record) -> Result<(), E>,
    ) -> Result<(), E> {
        read(&mut self.record)?;
        self.awake(now);
        Ok(())
    }

    /// Begins with what the record says.
    fn awake(&mut self, now: Now) {
        self.time = Timekeeper::new(self.policy.build_time.max(self.record.floor));
        for identity in Slot::ALL.into_iter().filter_map(|slot| self.record.identity(slot)) {
            self.time.raise_floor(identity.validity.not_before);
        }
        // What build and certificates tell need not be written down to be known again.
        self.durable = Durable { floor: self.time.floor(), ..Durable::of(&self.record) };
        self.reschedule(None);
        self.resume_retry(now);
    }

    /// Takes an input. Afterwards [`Machine::poll`] and [`Machine::deadline`] may answer anew.
    ///
    /// # Errors
    ///
    /// [`Unexpected`] if it answers an action that is not in flight; nothing changes.
    pub fn handle(&mut self, now: Now, input: Input<'_>) -> Result<(), Unexpected> {
        self.take(now, input)?;
        self.plan(now);
        Ok(())
    }

    /// The next thing to do, if any. Its answer changes only after [`Machine::handle`] and by
    /// being called; drain it to `None` before the next input that is not an answer.
    pub fn poll(&mut self) -> Option<Action> {
        if let Some(event) = self.reports.pop_front() {
            return Some(Action::Report(event));
        }
        let in_flight = self.in_flight.as_mut().filter(|in_flight| !in_flight.polled)?;
        in_flight.polled = true;
        let id = in_flight.id;
        Some(match in_flight.step {
            Step::Adopt(slot) => Action::Adopt { id, slot },
            Step::Consult(slot) => Action::Consult { id, slot },
            Step::Enroll(slot) => Action::Enroll { id, slot },
            Step::EnsureKey(slot, source) => Action::EnsureKey { id, slot, source },
            Step::EraseKey(slot) => Action::EraseKey { id, slot },
            Step::Persist => Action::Persist { id },
            Step::Prove(slot) => Action::Prove { id, slot },
            Step::Release => Action::Release { id },
        })
    }

    /// When to give [`Input::Tick`], and why; `None` while an action is in flight and at the end
    /// of life. Its answer changes only after [`Machine::handle`]. Ticks before it do nothing.
    #[must_use]
    pub const fn deadline(&self) -> Option<(Mono, Timer)> {
        self.deadline
    }

    /// What the last [`Action::Persist`] carried, or is carrying.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Whether everything in [`Machine::record`] is durable.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        !self.dirty
    }

    /// The slot whose identity the shell was told to use.
    #[must_use]
    pub const fn adopted(&self) -> Option<Slot> {
        self.adopted
    }

    /// The machine's judgement of an instant.
    #[must_use]
    #[inline(never)]
    pub fn reading(&self, now: Now) -> Reading {
        self.time.reading(now)
    }

    /// When the identity in use is due for renewal.
    #[must_use]
    pub const fn schedule(&self) -> Option<Schedule> {
        self.schedule
    }

    /// The last action that failed since the machine last had nothing to complain of.
    #[must_use]
    pub const fn last_failure(&self) -> Option<&(Operation, Failure)> {
        self.last_failure.as_ref()
    }

    /// Failures in a row of what is on its way.
    #[must_use]
    pub const fn failures(&self) -> u8 {
        self.record.retry.failures
    }

    /// Where the device stands.
    #[must_use]
    pub fn phase(&self, now: Now) -> Phase {
        match self.record.standing {
            Standing::Decommissioned => return Phase::Decommissioned,
            Standing::Quarantined => return Phase::Quarantined,
            Standing::Member => {}
        }
        let usable = self.active_is_usable(now);
        let Some(candidate) = self.record.candidate() else {
            return match (self.record.active, usable) {
                (None, _) => Phase::Unenrolled,
                (Some(_), true) => Phase::Active,
                (Some(_), false) => Phase::Recovering,
            };
        };
        match (self.record.slot(candidate), self.record.active) {
            (SlotState::Certified(_), _) => Phase::Proving,
            (_, Some(_)) if !usable => Phase::Recovering,
            _ if !self.gates.is_open(Lane::Candidate, now.mono) => Phase::Waiting,
            (_, None) => Phase::Enrolling,
            (_, Some(_)) => Phase::Renewing,
        }
    }

    /// Whether there is an identity whose key is there and which is not known to have run out.
    fn active_is_usable(&self, now: Now) -> bool {
        let Some(identity) = self.record.active_identity() else { return false };
        let wall = self.reading(now).wall;
        !self.active_lost && !wall.is_some_and(|wall| identity.validity.is_expired_at(wall))
    }

    fn reschedule(&mut self, window: Option<Window>) {
        let identity = self.record.active_identity();
        self.schedule =
            identity.map(|active| Schedule::new(&self.policy, &self.device, active, window));
    }

    fn report(&mut self, event: Event) {
        // A full queue loses the newest report, never an action; one input makes a handful.
        let _full = self.reports.push_back(event);
    }
}
