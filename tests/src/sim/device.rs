//! One device: the real machine, and the modelled hardware under it.
//!
//! **What it is.** The state of a device and its local actions: keys, disk, clocks. Whatever needs
//! another party (provisioner, broker, operator) is in [`world`](super::world) and
//! [`exchange`](super::exchange).
//!
//! **What it must never do.** Know better than the machine: it performs what the machine names and
//! answers what the hardware would.

use std::rc::Rc;

use fleetcert_core::der::{Certificate, RENEWAL_ID_LEN_MAX};
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Event, Failure, Operation};
use fleetcert_core::lifecycle::{Action, ActionId, BrokerProof, Input, Machine};
use fleetcert_core::policy::{Policy, Rekey, Window};
use fleetcert_core::record::{Identity, KeySource, Record, Request, Serial, Slot};
use fleetcert_core::time::{Now, Wall};

use super::clock::{At, BUILD_TIME, DeviceClock, MINUTE_MS};
use super::disk::Disk;
use super::keys::{KeyStore, Pool};
use super::random::Dice;
use crate::event_log::{Clocks, DurableRecord, Leaf, Mark, Report};

/// How a device proves who it is at first contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// By nothing: an operator approves.
    None,
    /// By a one-time token, as it is typed.
    Token(String),
}

/// Until when something does not work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    /// The device is asleep.
    pub asleep: At,
    /// The file system cannot be written.
    pub disk: At,
    /// The key store does not answer.
    pub keys: At,
    /// There is no network.
    pub network: At,
}

/// A connection to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The serial number that the broker saw.
    pub serial: Mark,
    /// Which life of the broker it belongs to.
    pub broker_epoch: u32,
}

/// The answer to an action.
#[derive(Clone, Debug)]
pub enum Reply {
    /// To a consultation.
    Consulted {
        /// When to renew.
        window: Option<Window>,
        /// When to ask again, seconds.
        retry_after_s: u32,
        /// The provisioner's time.
        told: Wall,
    },
    /// To an action without a result.
    Done,
    /// To an enrollment.
    Enrolled {
        /// What was issued.
        identity: Box<Identity>,
        /// The provisioner's time.
        told: Wall,
    },
    /// It did not succeed.
    Failed {
        /// Why.
        failure: Failure,
        /// The provisioner's time.
        told: Option<Wall>,
    },
    /// To the making of a key.
    KeyReady([u8; 32]),
    /// To a proof.
    Proven {
        /// What the provisioner saw.
        serial: Serial,
        /// How far the broker was reached.
        broker: BrokerProof,
        /// The provisioner's time.
        told: Wall,
    },
}

/// An action with what the device needs to perform it.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Which action.
    pub id: ActionId,
    /// What it does.
    pub operation: Operation,
    /// On which slot.
    pub slot: Option<Slot>,
    /// The request, for an enrollment.
    pub request: Option<Request>,
    /// Where a key comes from.
    pub source: KeySource,
}

/// One device of the fleet.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Its lifecycle; `None` while it has no power.
    pub machine: Option<Box<Machine>>,
    /// Its record.
    pub disk: Disk,
    /// Its keys.
    pub keys: KeyStore,
    /// Its clocks.
    pub clock: DeviceClock,
    /// Its own randomness.
    pub dice: Dice,
    /// What does not work.
    pub windows: Windows,
    /// The RFC 9773 identifier of the certificate with that serial number, once it was read.
    pub renewal_id: Option<(Mark, String)>,
    /// Its broker connection.
    pub session: Option<Session>,
    /// How it authenticates at first contact.
    pub credential: Credential,
    /// What the record on disk says, `None` before the first.
    pub durable: Option<DurableRecord>,
    /// The answer on its way.
    pub answer: Option<(Task, Reply)>,
    /// Doubled and late answers on their way.
    pub stale: Vec<(ActionId, Reply)>,
    /// Counts starts; what was meant for an earlier one is void.
    pub boots: u32,
    /// Counts timers; only the newest one counts.
    pub timer: u64,
    /// Whether somebody decommissioned it, durably or about to be.
    pub retired: bool,
    policy: Policy,
}

impl Device {
    /// A device fresh from the line.
    #[must_use]
    pub fn new(id: DeviceId, seed: u64, number: u32) -> Self {
        let mut dice = Dice::new(seed, 1 + u64::from(number));
        let keys = KeyStore::draw(&mut dice);
        let clock = DeviceClock::draw(&mut dice);
        // One in eight keeps its key for life, one in eight must survive a fortnight offline.
        let rekey = if dice.below(8) == 0 { Rekey::Never } else { Rekey::Always };
        let availability_target_s = if dice.below(8) == 0 { 14 * 86_400 } else { 0 };
        Self {
            id,
            machine: None,
            disk: Disk::new(),
            keys,
            clock,
            dice,
            windows: Windows::default(),
            renewal_id: None,
            session: None,
            credential: Credential::None,
            durable: None,
            answer: None,
            stale: Vec::new(),
            boots: 0,
            timer: 0,
            retired: false,
            policy: Policy { build_time: BUILD_TIME, rekey, availability_target_s },
        }
    }

    /// Starts: reads the record and makes the machine. Returns the generation found and how many
    /// copies could be read.
    pub fn boot(&mut self, at: At) -> (Option<u64>, u8) {
        self.boots += 1;
        self.clock.boot(at);
        let found = self.disk.load();
        let generation = found.record.as_ref().map(|record| record.generation);
        self.durable = found.record.as_ref().map(describe);
        let record = found.record.unwrap_or(Record::new(BUILD_TIME));
        let seed = self.dice.octets();
        let now = self.clock.now(at);
        let machine = Machine::new(self.policy, self.id.clone(), record, seed, now);
        self.machine = Some(Box::new(machine));
        (generation, found.readable)
    }

    /// Power fails: everything that was only in memory is gone.
    pub fn lose_power(&mut self) {
        self.machine = None;
        self.session = None;
        self.answer = None;
        self.stale.clear();
        self.timer += 1;
    }

    /// What its clocks say.
    #[must_use]
    pub fn now(&self, at: At) -> Now {
        self.clock.now(at)
    }

    /// The same, for the log.
    #[must_use]
    pub fn clocks(&self, at: At) -> Clocks {
        let now = self.clock.now(at);
        Clocks { wall: now.wall, synchronised: now.synchronised }
    }

    /// The certificate in a slot of the machine's record.
    #[must_use]
    pub fn identity(&self, slot: Slot) -> Option<&Identity> {
        self.machine.as_ref()?.record().identity(slot)
    }

    /// Performs an action that needs nobody else. Returns the answer and how long it takes,
    /// milliseconds.
    pub fn perform(&mut self, task: &Task, pool: &Pool, at: At) -> (Reply, u64) {
        let reply = match (task.operation, task.slot) {
            (Operation::EnsureKey, Some(slot)) => self.ensure_key(slot, task.source, pool, at),
            (Operation::EraseKey, Some(_)) if at < self.windows.keys => unavailable(),
            (Operation::EraseKey, Some(slot)) => {
                self.keys.erase(slot);
                Reply::Done
            }
            (Operation::Persist, _) => self.persist(at),
            (Operation::Adopt, Some(slot)) => self.adopt(slot, at),
            _ => Reply::Done,
        };
        let took_ms = match task.operation {
            Operation::EnsureKey => self.dice.between(5, 500),
            Operation::Persist => self.dice.between(5, 80),
            _ => self.dice.between(1, 10),
        };
        (reply, took_ms)
    }

    fn ensure_key(&mut self, slot: Slot, source: KeySource, pool: &Pool, at: At) -> Reply {
        if at < self.windows.keys {
            return unavailable();
        }
        let key = match source {
            KeySource::Fresh => Some(self.keys.make(slot)),
            KeySource::Other => self.keys.copy(slot),
        };
        key.map_or_else(|| failed(Failure::KeyLost), |key| Reply::KeyReady(pool.spki_sha256(key)))
    }

    fn adopt(&self, slot: Slot, at: At) -> Reply {
        match self.keys.key(slot) {
            _ if at < self.windows.keys => unavailable(),
            None => failed(Failure::KeyLost),
            Some(_) => Reply::Done,
        }
    }

    fn persist(&mut self, at: At) -> Reply {
        if at < self.windows.disk {
            return failed(Failure::StorageUnavailable);
        }
        if let Some(record) = self.record() {
            self.disk.save(&record);
            self.durable = Some(describe(&record));
        }
        Reply::Done
    }

    /// Power fails while the record is being saved.
    pub fn persist_cut_short(&mut self, at: At) {
        if at < self.windows.disk {
            return;
        }
        if let Some(record) = self.record() {
            self.disk.save_cut_short(&record, &mut self.dice);
        }
    }

    fn record(&self) -> Option<Rc<Record>> {
        self.machine.as_ref().map(|machine| Rc::new(machine.record().clone()))
    }

    /// Whether the record that a boot would find now names the slot.
    #[must_use]
    pub fn names(&self, slot: Slot) -> bool {
        self.durable.is_some_and(|durable| durable.named[slot.index()])
    }

    /// How often the machine was changed, as far as can be seen from outside.
    #[must_use]
    pub fn face(&self) -> Option<(u64, bool, Option<Slot>, u8)> {
        self.machine.as_ref().map(|machine| {
            let record = machine.record();
            (record.generation, machine.is_durable(), machine.adopted(), machine.failures())
        })
    }

    /// The RFC 9773 identifier of the identity in a slot; read once a certificate, asked for daily.
    pub fn renewal_id(&mut self, slot: Slot) -> Option<&str> {
        let identity = self.machine.as_ref()?.record().identity(slot)?;
        let serial = Mark::of(&identity.serial);
        if self.renewal_id.as_ref().is_none_or(|(known, _)| *known != serial) {
            let mut buffer = [0; RENEWAL_ID_LEN_MAX];
            let certificate = Certificate::parse(&identity.certificate).ok()?;
            let text = certificate.renewal_id(&mut buffer).ok()?.to_owned();
            self.renewal_id = Some((serial, text));
        }
        self.renewal_id.as_ref().map(|(_, text)| text.as_str())
    }

    /// Whether it has power and is awake.
    #[must_use]
    pub fn is_awake(&self, at: At) -> bool {
        self.machine.is_some() && at >= self.windows.asleep
    }
}

/// The answer of a key store that does not answer.
fn unavailable() -> Reply {
    failed(Failure::KeyUnavailable)
}

/// A failure without the provisioner's time.
#[must_use]
pub const fn failed(failure: Failure) -> Reply {
    Reply::Failed { failure, told: None }
}

/// How long a failing component takes to say so, milliseconds.
pub const REFUSED_MS: u64 = MINUTE_MS / 60;

/// The facts of a certificate.
#[must_use]
pub fn leaf(identity: &Identity) -> Leaf {
    Leaf {
        serial: Mark::of(&identity.serial),
        key: Mark::of(&identity.spki_sha256),
        validity: identity.validity,
    }
}

/// The request of a record that waits for its answer.
#[must_use]
pub fn request(record: &Record) -> Option<Request> {
    record.candidate().and_then(|slot| record.request(slot)).copied()
}

/// What a record says, for the log.
#[must_use]
pub fn describe(record: &Record) -> DurableRecord {
    let active = record.active.and_then(|slot| Some((slot, leaf(record.identity(slot)?))));
    let request = request(record).map(|request| Mark::of(&request.id.0));
    DurableRecord {
        generation: record.generation,
        standing: record.standing,
        active,
        named: [record.names(Slot::A), record.names(Slot::B)],
        request,
        floor: record.floor,
    }
}

impl Reply {
    /// The input that carries it.
    #[must_use]
    pub fn input(&self, id: ActionId) -> Input<'_> {
        match self {
            Self::Consulted { window, retry_after_s, told } => Input::Consulted {
                id,
                window: *window,
                retry_after_s: *retry_after_s,
                server_time: Some(*told),
            },
            Self::Done => Input::Done { id },
            Self::Enrolled { identity, told } => {
                Input::Enrolled { id, identity, server_time: Some(*told) }
            }
            Self::Failed { failure, told } => {
                Input::Failed { id, failure: failure.clone(), server_time: *told }
            }
            Self::KeyReady(spki_sha256) => Input::KeyReady { id, spki_sha256: *spki_sha256 },
            Self::Proven { serial, broker, told } => {
                Input::Proven { id, serial, broker: *broker, server_time: Some(*told) }
            }
        }
    }

    /// The provisioner's time in it.
    #[must_use]
    pub const fn told(&self) -> Option<Wall> {
        match self {
            Self::Consulted { told, .. } | Self::Enrolled { told, .. } => Some(*told),
            Self::Proven { told, .. } => Some(*told),
            Self::Failed { told, .. } => *told,
            Self::Done | Self::KeyReady(_) => None,
        }
    }
}

impl Task {
    /// What the machine with this record asked for; an event if it only reported.
    ///
    /// # Errors
    ///
    /// The event of a report.
    pub fn of(action: Action, record: &Record) -> Result<Self, Event> {
        let plain = |id, operation, slot| Self {
            id,
            operation,
            slot,
            request: None,
            source: KeySource::Fresh,
        };
        Ok(match action {
            Action::Adopt { id, slot } => plain(id, Operation::Adopt, Some(slot)),
            Action::Consult { id, slot } => plain(id, Operation::Consult, Some(slot)),
            Action::Enroll { id, slot } => {
                let request = record.request(slot).copied();
                Self { request, ..plain(id, Operation::Enroll, Some(slot)) }
            }
            Action::EnsureKey { id, slot, source } => {
                Self { source, ..plain(id, Operation::EnsureKey, Some(slot)) }
            }
            Action::EraseKey { id, slot } => plain(id, Operation::EraseKey, Some(slot)),
            Action::Persist { id } => plain(id, Operation::Persist, None),
            Action::Prove { id, slot } => plain(id, Operation::Prove, Some(slot)),
            Action::Release { id } => plain(id, Operation::Release, None),
            Action::Report(event) => return Err(event),
        })
    }

    /// Whether it is one of the actions of every day.
    #[must_use]
    pub const fn is_daily(&self) -> bool {
        matches!(self.operation, Operation::Consult)
    }
}

/// A report of the machine, for the log.
#[must_use]
pub fn report(event: &Event) -> Report {
    match event {
        Event::Adopted { .. } => Report::Adopted,
        Event::CandidateDiscarded { .. } => Report::CandidateDiscarded,
        Event::ClockJudged { known } => Report::ClockJudged { known: *known },
        Event::ClockRefused { .. } => Report::ClockRefused,
        Event::Decommissioned => Report::Decommissioned,
        Event::Enrolled { .. } => Report::Enrolled,
        Event::Expired { .. } => Report::Expired,
        Event::Failed { retry_in_s, .. } => Report::Failed { retry_in_s: *retry_in_s },
        Event::Proven { .. } => Report::Proven,
        Event::Quarantined => Report::Quarantined,
        Event::Requested { kind, .. } => Report::Requested { kind: *kind },
    }
}
