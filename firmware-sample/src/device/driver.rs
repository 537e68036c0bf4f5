//! The one loop: the machine goes on as far as it can, its orders are served, the session is attended
//! to, and when there is nothing to do, the network is waited on.

#[cfg(test)]
mod tests;

use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::{
    ActionId, BrokerProof, Command, Input, Machine, Phase, Unexpected,
};
use fleetcert_core::port::{Advice, Answer, Clock as _};
use fleetcert_core::record::{Serial, Slot};
use fleetcert_core::shell::Order;
use fleetcert_core::time::{Mono, Reading, Wall};

use crate::blocking::block_on;
use crate::board::Board;
use crate::console::{error, info, warn};
use crate::keystore::{KeyFault, KeyStore as _};
use crate::mqtt::{Inbox, MqttError};
use crate::tls::{TlsError, Workspace};

use super::broker::{Ending, Lasting, Online};
use super::line::{Context, EXCHANGE_MS_MAX, Line};
use super::ports::Ports;
use super::provisioner::Provisioner;

/// Between two looks at a session, at most: its pings and what the machine says are as late as that.
const LOOK_MS: u64 = 500;

/// What does what the machine wants.
pub(super) struct Driver<'d, B: Board> {
    pub(super) room: MachineRoom<'d, B>,
    pub(super) workspace: Workspace<'d>,
    pub(super) lasting: &'d mut Lasting,
}

/// The machine and what it decides about: what goes on while a session lives, too.
pub(super) struct MachineRoom<'d, B: Board> {
    context: Context<'d, B>,
    machine: &'d mut Machine,
    ports: Ports<'d, B>,
    /// What the machine wants of its peers, and waits for.
    wanted: Option<Order>,
    /// What machine and driver disagree about, if they do: nothing goes on then.
    fault: Option<Unexpected>,
    /// Whose identity sessions begin with.
    in_use: Option<Slot>,
    stack_peak: usize,
    is_wiped: bool,
}

/// An identity that the provisioner has seen, of which the broker has yet to judge.
#[derive(Clone, Copy)]
struct Seen<'s> {
    id: ActionId,
    serial: &'s Serial,
    server_time: Option<Wall>,
}

impl<'s> Seen<'s> {
    const fn proven(self, broker: BrokerProof) -> Input<'s> {
        let Self { id, serial, server_time } = self;
        Input::Proven { id, serial, broker, server_time }
    }
}

impl<'d, B: Board> Driver<'d, B> {
    /// Drives for good, or until machine and driver disagree.
    pub(super) fn run(mut self) -> Unexpected {
        self.room.tell(Input::Tick);
        loop {
            if let Some(fault) = self.round() {
                return fault;
            }
        }
    }

    /// Serves an order, if the machine comes to want something of its peers; idles, if it does not.
    fn round(&mut self) -> Option<Unexpected> {
        self.room.turn();
        if self.room.fault.is_some() {
            return self.room.fault;
        }
        match self.room.wanted.take() {
            Some(order) => self.serve(order),
            None => self.idle(),
        }
        None
    }

    #[inline(never)]
    fn serve(&mut self, order: Order) {
        match order {
            Order::Adopt { id, slot } => {
                self.room.adopt(id, slot);
            }
            Order::Consult { id, slot } => {
                let Answer { outcome, server_time } = self.provisioner().advice(slot);
                self.room.tell(match outcome {
                    Ok(Advice { window, retry_after_s }) => {
                        Input::Consulted { id, window, retry_after_s, server_time }
                    }
                    Err(failure) => Input::Failed { id, failure, server_time },
                });
            }
            Order::Enroll { id, slot } => {
                let record = self.room.machine.record();
                let current = record.active.filter(|slot| record.identity(*slot).is_some());
                let Answer { outcome, server_time } = match record.request(slot).copied() {
                    Some(request) => self.provisioner().enroll(slot, &request, current),
                    None => Answer::failed(Failure::KeyLost),
                };
                let issued = self.room.context.desk.issued();
                let issued = issued.as_deref().ok_or(Failure::KeyUnavailable);
                self.room.tell(match outcome.and(issued) {
                    Ok(identity) => Input::Enrolled { id, identity, server_time },
                    Err(failure) => Input::Failed { id, failure, server_time },
                });
            }
            Order::Prove { id, slot } => self.prove(id, slot),
            Order::Release { id } => {
                self.room.in_use = None;
                self.room.tell(Input::Done { id });
            }
        }
    }

    fn provisioner(&mut self) -> Provisioner<'_, 'd, B> {
        let reading = self.room.reading();
        Provisioner { context: self.room.context, workspace: &mut self.workspace, reading }
    }

    /// The provisioner first: a broker is shown only what the provisioner saw to be right.
    fn prove(&mut self, id: ActionId, slot: Slot) {
        let Answer { outcome, server_time } = self.provisioner().whoami(slot);
        let serial = match outcome {
            Ok(ref serial) => serial,
            Err(failure) => return self.room.tell(Input::Failed { id, failure, server_time }),
        };
        let seen = Seen { id, serial, server_time };
        let broker = if !self.room.is_of(slot, serial) {
            BrokerProof::Unreachable
        } else if self.room.context.broker().is_none() {
            BrokerProof::NotConfigured
        } else {
            match self.meet_broker(slot, Some(seen)) {
                // The machine was told when the session began.
                None => return,
                Some(
                    failure @ (Failure::OurIdentityRefused
                    | Failure::KeyLost
                    | Failure::KeyUnavailable),
                ) => return self.room.tell(Input::Failed { id, failure, server_time }),
                // Nothing of this is about us: a broker that is away, or is not the broker.
                Some(_) => BrokerProof::Unreachable,
            }
        };
        self.room.tell(seen.proven(broker));
    }

    /// The machine wants nothing: time for the broker, if there is one and an identity to come
    /// with, and if it may be tried.
    fn idle(&mut self) {
        let MachineRoom { context, in_use, .. } = self.room;
        let due = in_use.filter(|_| context.broker().is_some());
        match due.map(|slot| (slot, self.lasting.dial_at())) {
            Some((slot, at)) if at <= context.now() => {
                self.meet_broker(slot, None);
            }
            Some((_, at)) => self.room.rest(Some(at)),
            None => self.room.rest(None),
        }
    }

    /// A session with the slot's identity, from its beginning to its end; or why none came about.
    /// When it begins, the machine is told that the broker accepts what the provisioner has `seen`.
    #[inline(never)]
    fn meet_broker(&mut self, slot: Slot, seen: Option<Seen<'_>>) -> Option<Failure> {
        let reading = self.room.reading();
        let Self { room, workspace, lasting } = self;
        let context = room.context;
        let target = context.broker()?;
        let since = context.now();
        let until_ms = since.plus_ms(EXCHANGE_MS_MAX).0;
        let (mut ending, mut failure) = (Ending::Lost, None);
        let work = &mut |line: Line<'_, '_, '_, B>| {
            let mut inbox = Inbox::new();
            match lasting.begin(&context, line, &mut inbox) {
                Ok(online) => ending = room.attend(online, slot, seen),
                Err(why) => {
                    warn(format_args!("broker: {why}"));
                    failure = Some(MqttError::into(why));
                }
            }
        };
        let reached = context.with_line(target, workspace, Some(slot), reading, until_ms, work);
        if let Err(why) = reached {
            let server = target.server;
            warn(format_args!("broker {}:{}: {why}", server.host(), server.port()));
            failure = Some(TlsError::from(why).into());
        }
        lasting.ended(&context, ending, since);
        failure
    }
}

impl<'d, B: Board> MachineRoom<'d, B> {
    pub(super) const fn new(
        context: Context<'d, B>,
        machine: &'d mut Machine,
        ports: Ports<'d, B>,
    ) -> Self {
        let (wanted, fault, in_use, stack_peak, is_wiped) = (None, None, None, 0, false);
        Self { context, machine, ports, wanted, fault, in_use, stack_peak, is_wiped }
    }

    /// Lets the machine go on as far as it can without its peers, and does what its state asks for.
    #[inline(never)]
    fn turn(&mut self) {
        while self.wanted.is_none() && self.fault.is_none() {
            match block_on(self.ports.settle(self.machine)) {
                Ok(None) if self.wake() => {}
                Ok(None) => break,
                Ok(wanted) => self.wanted = wanted,
                Err(fault) => self.fault = Some(fault),
            }
        }
        report_stack::<B>(&mut self.stack_peak);
    }

    /// The machine has come to rest: shows how it stands, and wakes it if a command waits or it is
    /// time. Whether it was woken.
    fn wake(&mut self) -> bool {
        let (now, desk) = (self.ports.clock.now(), self.context.desk);
        let phase = self.machine.phase(now);
        desk.show(phase, self.machine.reading(now).wall, now.mono);
        if is_to_wipe(phase, self.machine.is_durable(), self.is_wiped) {
            self.wipe();
        }
        let deadline = self.machine.deadline().map(|(at, _)| at);
        let command = desk.take_command();
        let Some(input) = waking(command, deadline, now.mono) else { return false };
        self.tell(input);
        true
    }

    #[inline(never)]
    fn tell(&mut self, input: Input<'_>) {
        let told = self.machine.handle(self.ports.clock.now(), input);
        self.fault = self.fault.or(told.err());
    }

    /// What the machine knows of the time now.
    fn reading(&mut self) -> Reading {
        self.machine.reading(self.ports.clock.now())
    }

    /// Whether the identity in a slot has this serial number.
    fn is_of(&self, slot: Slot, serial: &Serial) -> bool {
        let identity = self.machine.record().identity(slot);
        identity.is_some_and(|identity| identity.serial == *serial)
    }

    /// Keeps a session of the slot's identity as long as it is good and its line is not needed.
    #[inline(never)]
    fn attend(
        &mut self,
        mut online: Online<'_, '_, '_, B>,
        slot: Slot,
        seen: Option<Seen<'_>>,
    ) -> Ending {
        let identity = self.machine.record().identity(slot);
        let serial = identity.map(|identity| identity.serial.clone()).unwrap_or_default();
        if let Some(seen) = seen {
            self.tell(seen.proven(BrokerProof::Connected));
        }
        loop {
            self.turn();
            let ending = match self.wanted {
                Some(Order::Adopt { id, slot }) => {
                    self.wanted = None;
                    if !self.adopt(id, slot) || self.is_of(slot, &serial) {
                        continue;
                    }
                    Some(Ending::Planned)
                }
                None if self.fault.is_none() => online.attend(&self.context),
                _ => Some(Ending::Planned),
            };
            match ending {
                None => self.rest(Some(online.next_at(self.context.now().plus_ms(LOOK_MS)))),
                Some(Ending::Lost) => return Ending::Lost,
                Some(ending) => {
                    online.close(&self.context);
                    return ending;
                }
            }
        }
    }

    /// Takes an identity into use if its key is there; whether it is.
    fn adopt(&mut self, id: ActionId, slot: Slot) -> bool {
        let probed = match self.context.keys.try_borrow_mut() {
            Ok(mut keys) => keys.probe(slot).map_err(Failure::from),
            Err(_) => Err(Failure::KeyUnavailable),
        };
        let is_there = probed.is_ok();
        if is_there {
            self.in_use = Some(slot);
        }
        self.tell(Input::done(id, probed));
        is_there
    }

    /// Erases what the keys leave behind, once it is durable that this life is over.
    fn wipe(&mut self) {
        let wiped = match self.context.keys.try_borrow_mut() {
            Ok(mut keys) => keys.wipe(),
            Err(_) => Err(KeyFault::Unavailable),
        };
        // What could not be erased now is tried at the next start.
        self.is_wiped = true;
        match wiped {
            Ok(()) => info(format_args!("decommissioned")),
            Err(fault) => error(format_args!("keys: not erased: {fault}")),
        }
    }

    /// Serves the network until something comes, the machine is to look again, or `at`.
    fn rest(&self, at: Option<Mono>) {
        let alarm = self.machine.deadline().map(|(at, _)| at);
        let until = match (at, alarm) {
            (Some(at), Some(alarm)) => at.min(alarm),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => self.context.now().plus_ms(LOOK_MS),
        };
        self.context.net.wait(until.0);
    }
}

/// What a machine that has come to rest at `now` is woken with: the command that waits, if one does,
/// or else its time, if that has come.
fn waking(command: Option<Command>, deadline: Option<Mono>, now: Mono) -> Option<Input<'static>> {
    match command {
        Some(command) => Some(Input::Command(command)),
        None => deadline.filter(|at| *at <= now).map(|_| Input::Tick),
    }
}

/// Whether the keys are to be erased: this life is over, a loss of power cannot bring it back, and it
/// was not done yet.
fn is_to_wipe(phase: Phase, is_durable: bool, is_wiped: bool) -> bool {
    phase == Phase::Decommissioned && is_durable && !is_wiped
}

/// Says how far the stack has grown, if it has.
pub(super) fn report_stack<B: Board>(peak: &mut usize) {
    let stack = B::stack();
    if stack.peak_len > *peak {
        *peak = stack.peak_len;
        info(format_args!("stack: {} of {} octets at its peak", stack.peak_len, stack.len));
    }
}
