//! The one loop: the shell is polled, its orders are done, the session is attended to, and when
//! there is nothing to do, the network is waited on.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context as Waking, Poll, Waker};

use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::{BrokerProof, Unexpected};
use fleetcert_core::port::{Answer, Proof};
use fleetcert_core::record::Slot;
use fleetcert_core::time::{Mono, Reading};

use crate::board::Board;
use crate::console::{error, info, warn};
use crate::keystore::KeyStore as _;
use crate::mqtt::{Inbox, MqttError};
use crate::tls::{TlsError, Workspace};

use super::broker::{Ending, Lasting, Online};
use super::desk::{Order, Reply};
use super::line::{Context, EXCHANGE_MS_MAX, Line};
use super::provisioner::Provisioner;

/// Between two looks at a session, at most: its pings and what the machine says are as late as that.
const LOOK_MS: u64 = 500;

/// The shell, as a future that never ends but by a fault.
pub(super) type Shell<'s> = Pin<&'s mut dyn Future<Output = Result<(), Unexpected>>>;

/// What does what the machine wants.
pub(super) struct Driver<'d, 's, B: Board> {
    pub(super) machine: MachineRoom<'d, 's, B>,
    pub(super) workspace: Workspace<'d>,
    pub(super) lasting: &'d mut Lasting,
}

/// The machine's shell and what it decides about: what goes on while a session lives, too.
pub(super) struct MachineRoom<'d, 's, B: Board> {
    pub(super) context: Context<'d, B>,
    pub(super) shell: Shell<'s>,
    /// Whose identity sessions begin with.
    pub(super) in_use: Option<Slot>,
    pub(super) stack_peak: usize,
    pub(super) is_wiped: bool,
}

impl<'d, B: Board> Driver<'d, '_, B> {
    /// Drives for good.
    ///
    /// # Errors
    ///
    /// [`Unexpected`]: machine and shell disagree.
    pub(super) fn run(mut self) -> Result<Infallible, Unexpected> {
        loop {
            self.machine.turn()?;
            if let Some(order) = self.machine.context.desk.take_order() {
                self.perform(order)?;
            } else {
                self.idle()?;
            }
        }
    }

    #[inline(never)]
    fn perform(&mut self, order: Order) -> Result<(), Unexpected> {
        let desk = self.machine.context.desk;
        match order {
            Order::Adopt { slot } => desk.answer(Reply::Done(self.machine.adopt(slot))),
            Order::Consult { slot, reading } => {
                desk.answer(Reply::Consulted(self.provisioner(reading).advice(slot)));
            }
            Order::Enroll { slot, request, current, reading } => {
                let answer = self.provisioner(reading).enroll(slot, &request, current);
                desk.answer(Reply::Enrolled(answer));
            }
            Order::Prove { slot, reading } => self.prove(slot, reading)?,
            Order::Release => {
                self.machine.in_use = None;
                desk.answer(Reply::Done(Ok(())));
            }
        }
        Ok(())
    }

    fn provisioner(&mut self, reading: Reading) -> Provisioner<'_, 'd, B> {
        let Self { machine: MachineRoom { context, .. }, workspace, .. } = self;
        Provisioner { context: *context, workspace, reading }
    }

    /// The provisioner first: a broker is shown only what the provisioner saw to be right.
    fn prove(&mut self, slot: Slot, reading: Reading) -> Result<(), Unexpected> {
        let desk = self.machine.context.desk;
        let Answer { outcome, server_time } = self.provisioner(reading).whoami(slot);
        let answer = |outcome| desk.answer(Reply::Proven(Answer { outcome, server_time }));
        let serial = match outcome {
            Ok(serial) => serial,
            Err(failure) => {
                answer(Err(failure));
                return Ok(());
            }
        };
        let proof = |broker| Ok(Proof { serial: serial.clone(), broker });
        let context = &self.machine.context;
        let is_seen = context.identity(slot, |identity| *identity.serial == *serial) == Ok(true);
        if !is_seen {
            answer(proof(BrokerProof::Unreachable));
        } else if self.machine.context.broker().is_none() {
            answer(proof(BrokerProof::NotConfigured));
        } else {
            let begun = || answer(proof(BrokerProof::Connected));
            let verdict = self.meet_broker(slot, reading, &begun)?;
            match verdict {
                // It was answered when the session began.
                None => {}
                Some(
                    verdict @ (Failure::OurIdentityRefused
                    | Failure::KeyLost
                    | Failure::KeyUnavailable),
                ) => answer(Err(verdict)),
                // Nothing of this is about us: a broker that is away, or is not the broker.
                Some(_) => answer(proof(BrokerProof::Unreachable)),
            }
        }
        Ok(())
    }

    /// The machine wants nothing: time for the broker, if there is one and an identity to come
    /// with, and if it may be tried.
    fn idle(&mut self) -> Result<(), Unexpected> {
        let MachineRoom { context, in_use, .. } = self.machine;
        let now = context.now();
        let due = in_use.filter(|_| context.broker().is_some());
        match due.map(|slot| (slot, self.lasting.dial_at())) {
            Some((slot, at)) if at <= now => {
                self.meet_broker(slot, context.desk.reading(now), &|| {})?;
            }
            Some((_, at)) => self.machine.rest(Some(at)),
            None => self.machine.rest(None),
        }
        Ok(())
    }

    /// A session with the slot's identity, from its beginning, of which `begun` is told, to its end;
    /// or why none came about.
    #[inline(never)]
    fn meet_broker(
        &mut self,
        slot: Slot,
        reading: Reading,
        begun: &dyn Fn(),
    ) -> Result<Option<Failure>, Unexpected> {
        let Self { machine, workspace, lasting } = self;
        let context = machine.context;
        let Some(target) = context.broker() else { return Ok(None) };
        let since = context.now();
        let until_ms = since.plus_ms(EXCHANGE_MS_MAX).0;
        let mut met = Ok((Ending::Lost, None));
        let work = &mut |line: Line<'_, '_, '_, B>| {
            let mut inbox = Inbox::new();
            met = match lasting.begin(&context, line, &mut inbox, slot) {
                Ok(online) => {
                    begun();
                    machine.attend(online).map(|ending| (ending, None))
                }
                Err(why) => {
                    warn(format_args!("broker: {why}"));
                    Ok((Ending::Lost, Some(MqttError::into(why))))
                }
            };
        };
        let reached = context.with_line(target, workspace, Some(slot), reading, until_ms, work);
        if let Err(why) = reached {
            let server = target.server;
            warn(format_args!("broker {}:{}: {why}", server.host(), server.port()));
            met = Ok((Ending::Lost, Some(TlsError::from(why).into())));
        }
        let (ending, failure) = met?;
        lasting.ended(&context, ending, since);
        Ok(failure)
    }
}

impl<B: Board> MachineRoom<'_, '_, B> {
    /// Lets the shell go on as far as it can, and does what its state asks for.
    #[inline(never)]
    fn turn(&mut self) -> Result<(), Unexpected> {
        match self.shell.as_mut().poll(&mut Waking::from_waker(Waker::noop())) {
            Poll::Ready(Err(unexpected)) => return Err(unexpected),
            // Nobody tells it to stop.
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.context.desk.is_over() && !self.is_wiped {
            self.wipe();
        }
        report_stack::<B>(&mut self.stack_peak);
        Ok(())
    }

    /// Keeps a session as long as it is good and its line is not needed.
    #[inline(never)]
    fn attend(&mut self, mut online: Online<'_, '_, '_, B>) -> Result<Ending, Unexpected> {
        loop {
            self.turn()?;
            let order =
                self.context.desk.take_order_if(|order| matches!(order, Order::Adopt { .. }));
            if let Some(Order::Adopt { slot }) = order {
                let serial = online.serial();
                let is_same = self.context.identity(slot, |found| *found.serial == **serial);
                let adopted = self.adopt(slot);
                let is_other = adopted.is_ok() && is_same != Ok(true);
                self.context.desk.answer(Reply::Done(adopted));
                if is_other {
                    online.close(&self.context);
                    return Ok(Ending::Planned);
                }
                continue;
            }
            if self.context.desk.has_order() {
                online.close(&self.context);
                return Ok(Ending::Planned);
            }
            match online.attend(&self.context) {
                Some(ending @ Ending::Overtaken(_)) => {
                    online.close(&self.context);
                    return Ok(ending);
                }
                Some(ending) => return Ok(ending),
                None => self.rest(Some(online.next_at(self.context.now().plus_ms(LOOK_MS)))),
            }
        }
    }

    /// Takes an identity into use whose key is there.
    fn adopt(&mut self, slot: Slot) -> Result<(), Failure> {
        let mut keys = self.context.keys.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        keys.probe(slot)?;
        self.in_use = Some(slot);
        Ok(())
    }

    /// Erases what the keys leave behind, once it is durable that this life is over.
    fn wipe(&mut self) {
        let wiped = match self.context.keys.try_borrow_mut() {
            Ok(mut keys) => keys.wipe(),
            Err(_) => Err(Failure::KeyUnavailable),
        };
        // What could not be erased now is tried at the next start.
        self.is_wiped = true;
        match wiped {
            Ok(()) => info(format_args!("decommissioned")),
            Err(failure) => error(format_args!("keys: not erased: {}", failure.code())),
        }
    }

    /// Serves the network until something comes, the shell wants to be asked, or `at`.
    fn rest(&self, at: Option<Mono>) {
        let idle = self.context.now().plus_ms(LOOK_MS);
        let until = [at, self.context.desk.alarm()].into_iter().flatten().min().unwrap_or(idle);
        self.context.net.wait(until.0);
    }
}

/// Says how far the stack has grown, if it has.
pub(super) fn report_stack<B: Board>(peak: &mut usize) {
    let stack = B::stack();
    if stack.peak_len > *peak {
        *peak = stack.peak_len;
        info(format_args!("stack: {} of {} octets at its peak", stack.peak_len, stack.len));
    }
}
