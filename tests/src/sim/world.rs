//! The world: one queue of events, and everybody in it.
//!
//! **What it is.** A heap of events ordered by time and, at one time, by the order in which they
//! were scheduled. Each device has one timer and at most one action under way. Nothing runs but in
//! answer to an event, and nothing is drawn but from the seed; so a run is its settings.
//!
//! **What it must never do.** Help. A device gets what its hardware and its peers would give it;
//! what is wrong with it afterwards is for the checkers to say.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Failure, Operation};
use fleetcert_core::lifecycle::Input;
use fleetcert_core::record::{Request, Slot};

use super::authority::Authority;
use super::clock::{At, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use super::device::{self, Device, Reply, Session, Task};
use super::exchange::{Broken, Broker, Peers};
use super::faults::{self, Faults};
use super::keys::Pool;
use super::net::TIMEOUT_MS;
use super::random::{Dice, Span};
use crate::event_log::{Doing, Fact, Impairment, Mark, Outcome};
use crate::recorder::Recorder;

mod operator;
mod trouble;

pub use operator::Order;

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many devices.
    pub devices: u32,
    /// How many days.
    pub days: u32,
    /// Where all randomness comes from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// How long certificates live, days.
    pub lifetime_days: u32,
}

/// How long everything works at the end of a run, days, unless the run is short.
const HEALED_DAYS_MAX: u64 = 25;

/// How long after the healing everybody must be well, milliseconds: the longest wait of any retry
/// is a day, a revoked or pending device asks once more after it was helped, and an operator takes
/// half a day; twice each, because the first ask may find nobody has looked yet.
pub const RECOVERY_MS: u64 = 4 * DAY_MS;

/// How long after it could not start a daemon is started again, milliseconds.
const RESTART_MS: u64 = MINUTE_MS;

/// What happens to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// An answer arrives at the device, if that still runs.
    Answer { device: u32, boots: u32 },
    /// The broker stops, or begins to refuse.
    BrokerTrouble,
    /// A CRL is published and the broker reads it.
    Crl,
    /// From now on nothing goes wrong.
    Heal,
    /// A device is made.
    Make { device: u32 },
    /// An operator does something.
    Operate { device: u32, order: Order },
    /// A device gets power.
    PowerOn { device: u32 },
    /// The provisioner goes away.
    ProvisionerOutage,
    /// A site is cut off.
    SiteOutage,
    /// A late or doubled answer arrives.
    Stale { device: u32, boots: u32 },
    /// Everybody is looked at.
    Survey,
    /// A device's timer goes off, if that is still its timer.
    Tick { device: u32, timer: u64 },
    /// Something befalls a device.
    Trouble { device: u32 },
    /// A device's clock was set or its network came back.
    Wake { device: u32, clock_was_set: bool },
}

/// Where in an action power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nothing of it happened.
    Before,
    /// Some of it happened.
    Within,
    /// All of it happened, and nobody heard.
    After,
}

/// Everybody and everything.
#[derive(Debug)]
pub struct World {
    settings: Settings,
    at: At,
    heal_at: At,
    end: At,
    queue: BinaryHeap<Reverse<(At, u64, What)>>,
    scheduled: u64,
    dice: Dice,
    devices: Vec<Device>,
    /// What an operator is about to do for a device, one thing at a time.
    tickets: Vec<bool>,
    peers: Peers,
    recorder: Recorder,
}

impl World {
    /// A world in which nothing has happened yet.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the provisioner or the keys cannot be made.
    pub fn new(settings: Settings, recorder: Recorder) -> Result<Self, Broken> {
        let end = At(u64::from(settings.days) * DAY_MS);
        let healed_ms = (HEALED_DAYS_MAX * DAY_MS).min(end.0 / 4);
        let mut dice = Dice::new(settings.seed, 0);
        let pool = Pool::draw(&mut dice)?;
        let lifetime_s = u64::from(settings.lifetime_days) * 86_400;
        let authority_dice = Dice::new(settings.seed, u64::MAX);
        let authority = Authority::new(lifetime_s, At(0).wall(), authority_dice)?;
        let peers = Peers {
            authority,
            provisioner_away: At(0),
            broker: Broker::default(),
            pool,
            faults: settings.faults,
        };
        let mut world = Self {
            settings,
            at: At(0),
            heal_at: At(end.0 - healed_ms),
            end,
            queue: BinaryHeap::new(),
            scheduled: 0,
            dice,
            devices: Vec::new(),
            tickets: vec![false; settings.devices as usize],
            peers,
            recorder,
        };
        world.populate()?;
        world.schedule_weather();
        Ok(world)
    }

    /// Devices come off the line evenly over the time between two renewals of one device, so that
    /// the fleet's load is level from the beginning: a fleet that is switched on in one hour is a
    /// peak by order, not by policy.
    fn populate(&mut self) -> Result<(), Broken> {
        let line_ms = u64::from(self.settings.lifetime_days) * DAY_MS * 2 / 3;
        let line_ms = line_ms.min(self.heal_at.0 / 2);
        for number in 0..self.settings.devices {
            let id = DeviceId::parse(&format!("sim-{number:06}"))
                .map_err(|_| Broken::Machine("a device name that is none"))?;
            self.devices.push(Device::new(id, self.settings.seed, number));
            let every_ms = line_ms / u64::from(self.settings.devices);
            let at = At(u64::from(number) * every_ms + self.dice.below(every_ms));
            self.schedule(at, What::Make { device: number });
        }
        Ok(())
    }

    fn schedule(&mut self, at: At, what: What) {
        self.scheduled += 1;
        self.queue.push(Reverse((at, self.scheduled, what)));
    }

    fn schedule_in(&mut self, ms: u64, what: What) {
        self.schedule(self.at.plus_ms(ms), what);
    }

    /// Runs to the end, or until a device is stuck in one instant. Returns the recorder.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the provisioner's code fails or machine and world disagree about actions.
    pub fn run(mut self) -> Result<Recorder, Broken> {
        while let Some(Reverse((at, _, what))) = self.queue.pop() {
            if at > self.end || self.recorder.is_stuck() {
                break;
            }
            self.at = at;
            self.happen(what)?;
        }
        self.recorder.end(self.end);
        Ok(self.recorder)
    }

    fn happen(&mut self, what: What) -> Result<(), Broken> {
        match what {
            What::Answer { device, boots } => self.answer(device, boots),
            What::BrokerTrouble => self.broker_trouble(),
            What::Crl => self.publish_crl(),
            What::Heal => self.heal(),
            What::Make { device } => self.make(device),
            What::Operate { device, order } => self.operate(device, order),
            What::PowerOn { device } => self.power_on(device),
            What::ProvisionerOutage => self.provisioner_outage(),
            What::SiteOutage => self.site_outage(),
            What::Stale { device, boots } => self.stale(device, boots),
            What::Survey => self.survey(),
            What::Tick { device, timer } => self.tick(device, timer),
            What::Trouble { device } => self.trouble(device),
            What::Wake { device, clock_was_set } => self.wake(device, clock_was_set),
        }
    }

    fn tell(&mut self, device: u32, fact: Fact) {
        self.recorder.see(self.at, Some(device), fact);
    }

    fn tell_all(&mut self, fact: Fact) {
        self.recorder.see(self.at, None, fact);
    }

    fn device(&mut self, number: u32) -> &mut Device {
        &mut self.devices[number as usize]
    }

    fn make(&mut self, number: u32) -> Result<(), Broken> {
        let now = self.at.wall();
        let id = self.device(number).id.clone();
        let credential = self.peers.authority.add(&id, number, now)?;
        self.device(number).credential = credential;
        self.tell(number, Fact::Made);
        self.power_on(number)
    }

    fn power_on(&mut self, number: u32) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        if at < device.windows.disk && !device.disk.is_whole() {
            // The agent makes both copies alike before it starts, and cannot.
            self.schedule_in(RESTART_MS, What::PowerOn { device: number });
            return Ok(());
        }
        let (generation, readable) = device.boot(at);
        let durable = device.durable;
        self.tell(number, Fact::Booted { generation, readable });
        if let Some(durable) = durable {
            self.tell(number, Fact::Durable(durable));
        }
        self.handle(number, None)
    }

    fn power_cut(&mut self, number: u32, during: Option<Operation>, off_ms: u64) {
        self.device(number).lose_power();
        let until = self.at.plus_ms(off_ms);
        self.tell(number, Fact::PowerCut { during: during.map(Doing) });
        self.tell(number, Fact::Impaired { by: Impairment::Power, until });
        self.schedule(until, What::PowerOn { device: number });
    }

    fn tick(&mut self, number: u32, timer: u64) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        if device.timer != timer || device.machine.is_none() {
            return Ok(());
        }
        if !device.is_awake(at) {
            let later = device.windows.asleep;
            self.schedule(later, What::Tick { device: number, timer });
            return Ok(());
        }
        let deadline = device.machine.as_ref().and_then(|machine| machine.deadline());
        if let Some((_, timer)) = deadline {
            self.tell(number, Fact::Ticked { timer: timer.code() });
        }
        self.handle(number, None)
    }

    fn wake(&mut self, number: u32, clock_was_set: bool) -> Result<(), Broken> {
        let at = self.at;
        if !self.device(number).is_awake(at) {
            return Ok(());
        }
        if clock_was_set && self.device(number).answer.is_none() {
            return self.handle(number, None);
        }
        self.reconnect(number);
        Ok(())
    }

    fn answer(&mut self, number: u32, boots: u32) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        if device.boots != boots || device.machine.is_none() {
            return Ok(());
        }
        if !device.is_awake(at) {
            let later = device.windows.asleep;
            if let Some((task, reply)) = &mut device.answer
                && is_remote(task.operation)
            {
                *reply = device::failed(Failure::Unreachable);
            }
            self.schedule(later, What::Answer { device: number, boots });
            return Ok(());
        }
        let Some((task, reply)) = device.answer.take() else { return Ok(()) };
        let outcome = match &reply {
            Reply::Failed { failure, .. } => Outcome::Failed(failure.code()),
            _ => Outcome::Done,
        };
        let told = reply.told();
        self.tell(number, Fact::Answered { doing: Doing(task.operation), outcome, told });
        self.handle(number, Some((task, reply)))?;
        self.reconnect(number);
        Ok(())
    }

    fn stale(&mut self, number: u32, boots: u32) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        if device.boots != boots || device.machine.is_none() || device.stale.is_empty() {
            return Ok(());
        }
        let (id, reply) = device.stale.remove(0);
        let (before, now) = (device.face(), device.now(at));
        let Some(machine) = device.machine.as_mut() else { return Ok(()) };
        let deadline = machine.deadline();
        let refused = machine.handle(now, reply.input(id)).is_err();
        let moved = machine.deadline() != deadline;
        let changed = moved || device.face() != before;
        self.tell(number, Fact::Stale { refused, changed });
        Ok(())
    }

    /// Gives the machine an answer or a tick, and performs what it then asks for.
    fn handle(&mut self, number: u32, answer: Option<(Task, Reply)>) -> Result<(), Broken> {
        let input = answer.as_ref().map_or(Input::Tick, |(task, reply)| reply.input(task.id));
        self.give(number, input)
    }

    fn give(&mut self, number: u32, input: Input<'_>) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        let now = device.now(at);
        let Some(machine) = device.machine.as_mut() else { return Ok(()) };
        let before = device::request(machine.record()).map(|request| request.id);
        machine.handle(now, input).map_err(|_| Broken::Machine("no such answer"))?;
        let wanted = device::request(machine.record());
        if let Some(Request { kind, .. }) = wanted.filter(|request| Some(request.id) != before) {
            let clocks = device.clocks(at);
            self.tell(number, Fact::Wanted { kind, clocks });
        }
        while let Some(machine) = self.device(number).machine.as_mut()
            && let Some(action) = machine.poll()
        {
            match Task::of(action, machine.record()) {
                Ok(task) => return self.perform(number, task),
                Err(event) => {
                    let clocks = self.device(number).clocks(at);
                    let report = device::report(&event);
                    self.tell(number, Fact::Reported { report, clocks });
                }
            }
        }
        self.set_timer(number);
        Ok(())
    }

    fn set_timer(&mut self, number: u32) {
        let at = self.at;
        let device = self.device(number);
        let Some(machine) = device.machine.as_ref() else { return };
        if let Some((deadline, _)) = machine.deadline() {
            device.timer += 1;
            let (due, timer) = (device.clock.at(deadline).max(at), device.timer);
            self.schedule(due, What::Tick { device: number, timer });
        }
    }

    fn perform(&mut self, number: u32, task: Task) -> Result<(), Broken> {
        let doing = Doing(task.operation);
        self.device(number).timer += 1;
        self.tell(number, Fact::Acted { doing, slot: task.slot });
        let cut = self.draw_cut(number, &task);
        match cut {
            Some(Cut::Before) => return self.cut_short(number, task.operation),
            Some(Cut::Within) if task.operation == Operation::Persist => {
                let at = self.at;
                self.device(number).persist_cut_short(at);
                return self.cut_short(number, task.operation);
            }
            _ => {}
        }
        let (reply, after_ms) = if is_remote(task.operation) {
            self.exchange(number, &task)?
        } else {
            self.act(number, &task)
        };
        if cut.is_some() {
            return self.cut_short(number, task.operation);
        }
        let device = self.device(number);
        device.answer = Some((task, reply));
        let boots = device.boots;
        self.schedule_in(after_ms, What::Answer { device: number, boots });
        Ok(())
    }

    fn cut_short(&mut self, number: u32, operation: Operation) -> Result<(), Broken> {
        let span = Span { shortest_ms: 5 * SECOND_MS, longest_ms: HOUR_MS };
        let off_ms = self.device(number).dice.span_ms(span);
        self.power_cut(number, Some(operation), off_ms);
        Ok(())
    }

    fn draw_cut(&mut self, number: u32, task: &Task) -> Option<Cut> {
        if self.at >= self.heal_at {
            return None;
        }
        let Faults { cut_daily, cut_rare, .. } = self.settings.faults;
        let dice = &mut self.device(number).dice;
        let probability = if task.is_daily() { cut_daily } else { cut_rare };
        dice.happens(probability).then(|| match dice.below(3) {
            0 => Cut::Before,
            1 => Cut::Within,
            _ => Cut::After,
        })
    }

    /// An action of the device alone.
    fn act(&mut self, number: u32, task: &Task) -> (Reply, u64) {
        let at = self.at;
        let device = &mut self.devices[number as usize];
        let named = task.slot.is_some_and(|slot| device.names(slot));
        let (reply, after_ms) = device.perform(task, &self.peers.pool, at);
        if matches!(reply, Reply::Failed { .. }) {
            return (reply, after_ms);
        }
        let durable = device.durable;
        match (task.operation, task.slot, &reply) {
            (Operation::EnsureKey, Some(slot), Reply::KeyReady(spki_sha256)) => {
                self.tell(number, Fact::KeyHeld { slot, key: Mark::of(spki_sha256) });
            }
            (Operation::EraseKey, Some(slot), _) => {
                self.tell(number, Fact::KeyErased { slot, named });
            }
            (Operation::Persist, ..) => {
                if let Some(durable) = durable {
                    self.tell(number, Fact::Durable(durable));
                }
            }
            (Operation::Adopt, Some(slot), _) => self.end_other_sessions(number, slot),
            (Operation::Release, ..) => self.disconnect(number),
            _ => {}
        }
        (reply, after_ms)
    }

    /// An action that needs the provisioner.
    fn exchange(&mut self, number: u32, task: &Task) -> Result<(Reply, u64), Broken> {
        let at = self.at;
        let device = &mut self.devices[number as usize];
        let boots = device.boots;
        let exchange = self.peers.exchange(device, task, at)?;
        let after_ms = exchange.after_ms;
        if let Some(reply) = exchange.stale {
            device.stale.push((task.id, reply));
            let late_ms = device.dice.between(1, 2 * TIMEOUT_MS);
            self.schedule_in(after_ms + late_ms, What::Stale { device: number, boots });
        }
        for fact in exchange.facts {
            self.tell(number, fact);
            if fact == Fact::Pending {
                self.open_ticket(number, Order::Approve);
            }
        }
        if let Some(reason) = exchange.refused {
            self.complain(number, reason);
        }
        Ok((exchange.reply, after_ms))
    }

    fn disconnect(&mut self, number: u32) {
        if self.device(number).session.take().is_some() {
            self.tell(number, Fact::Disconnected);
        }
    }

    /// From now on only the slot's identity is used.
    fn end_other_sessions(&mut self, number: u32, slot: Slot) {
        let device = &self.devices[number as usize];
        let serial = device.identity(slot).map(|identity| Mark::of(&identity.serial));
        if device.session.is_some_and(|session| Some(session.serial) != serial) {
            self.disconnect(number);
        }
    }

    /// Connects a device to the broker with the identity in use, unless it is.
    fn reconnect(&mut self, number: u32) {
        let at = self.at;
        let epoch = self.peers.broker.epoch;
        let device = &self.devices[number as usize];
        let Some(slot) = device.machine.as_ref().and_then(|machine| machine.adopted()) else {
            return;
        };
        let Some(identity) = device.identity(slot) else { return };
        let session = Session { serial: Mark::of(&identity.serial), broker_epoch: epoch };
        // A session that a proof opened stays until its identity is adopted or given up.
        let is_open = device.session.is_some_and(|open| open.broker_epoch == epoch);
        if is_open || !self.can_connect(device, slot, at) {
            return;
        }
        self.device(number).session = Some(session);
        self.tell(number, Fact::Connected { serial: session.serial });
    }

    fn can_connect(&self, device: &Device, slot: Slot, at: At) -> bool {
        device.is_awake(at)
            && at >= device.windows.keys
            && device.keys.key(slot).is_some()
            && device
                .identity(slot)
                .is_some_and(|identity| self.peers.knock(device, identity, at).is_ok())
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.peers.faults = Faults::NONE;
        self.tell_all(Fact::Healed);
        self.schedule_in(RECOVERY_MS, What::Survey);
        self.schedule(self.end, What::Survey);
        Ok(())
    }

    fn survey(&mut self) -> Result<(), Broken> {
        for number in 0..self.settings.devices {
            self.reconnect(number);
            let epoch = self.peers.broker.epoch;
            let device = self.device(number);
            let active = device.durable.and_then(|durable| durable.active);
            let leaf = active.map(|(_, leaf)| leaf);
            let connected = device.session.is_some_and(|session| {
                session.broker_epoch == epoch
                    && leaf.is_some_and(|leaf| leaf.serial == session.serial)
            });
            let powered = device.machine.is_some();
            self.tell(number, Fact::Health { powered, active: leaf, connected });
        }
        Ok(())
    }

    fn schedule_weather(&mut self) {
        let Faults { provisioner_interval_ms, broker_interval_ms, site_interval_ms, .. } =
            self.settings.faults;
        for (interval_ms, what) in [
            (provisioner_interval_ms, What::ProvisionerOutage),
            (broker_interval_ms, What::BrokerTrouble),
            (site_interval_ms, What::SiteOutage),
        ] {
            if let Some(ms) = faults::wait_ms(&mut self.dice, interval_ms) {
                self.schedule_in(ms, what);
            }
        }
        self.schedule(self.heal_at, What::Heal);
        for number in 0..self.settings.devices {
            self.schedule_fate(number);
        }
    }
}

const fn is_remote(operation: Operation) -> bool {
    matches!(operation, Operation::Consult | Operation::Enroll | Operation::Prove)
}

/// The last instant of a fault that begins at `at` and would take `ms`. None outlasts the healing;
/// one that would ends at any instant before it, so that the world does not heal in one instant.
fn until(dice: &mut Dice, at: At, ms: u64, heal_at: At) -> At {
    let until = at.plus_ms(ms);
    if until < heal_at {
        return until;
    }
    at.plus_ms(dice.below(heal_at.ms_since(at)))
}
