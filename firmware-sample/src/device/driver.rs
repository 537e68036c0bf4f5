//! The one loop: the shell is polled, its orders are done, the session is attended to, and when
//! there is nothing to do, the network is waited on.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context as Waking, Poll, Waker};

use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::{BrokerProof, Unexpected};
use fleetcert_core::port::{Answer, Proof};
use fleetcert_core::record::{Identity, Slot};
use fleetcert_core::time::{Mono, Reading};
use log::{error, info, warn};

use crate::board::Board;
use crate::keystore::KeyStore as _;
use crate::tls::Workspace;

use super::broker::{Ending, Lasting, Online};
use super::desk::{Desk, Order, Reply};
use super::line::Context;
use super::provisioner::{Memory, Provisioner};

/// Between two looks at a session, at most: its pings and what the machine says are as late as that.
const LOOK_MS: u64 = 500;

/// The shell, as a future that never ends but by a fault.
pub(super) type Shell<'s> = Pin<&'s mut dyn Future<Output = Result<(), Unexpected>>>;

/// What does what the machine wants.
pub(super) struct Driver<'d, 's, B: Board> {
    pub(super) machine: MachineRoom<'d, 's, B>,
    pub(super) workspace: &'d mut Workspace,
    pub(super) memory: &'d mut Memory,
    pub(super) lasting: &'d mut Lasting,
}

/// The machine's shell and what it decides about: what goes on while a session lives, too.
pub(super) struct MachineRoom<'d, 's, B: Board> {
    pub(super) context: Context<'d, B>,
    pub(super) desk: &'d Desk,
    pub(super) shell: Shell<'s>,
    /// The identity that sessions begin with.
    pub(super) in_use: Option<(Slot, Identity)>,
    pub(super) stack_peak: usize,
    pub(super) is_wiped: bool,
}

impl<B: Board> Driver<'_, '_, B> {
    /// Drives for good.
    ///
    /// # Errors
    ///
    /// [`Unexpected`]: machine and shell disagree.
    pub(super) fn run(mut self) -> Result<Infallible, Unexpected> {
        loop {
            self.machine.turn()?;
            if let Some(order) = self.machine.desk.take_order() {
                self.perform(order)?;
            } else if self.dial_at().is_some_and(|at| at <= self.machine.context.now()) {
                self.meet_broker()?;
            } else {
                self.machine.rest(self.dial_at());
            }
        }
    }

    fn perform(&mut self, order: Order) -> Result<(), Unexpected> {
        let reply = match order {
            Order::Adopt { slot, identity } => Reply::Done(self.machine.adopt(slot, identity)),
            Order::Consult { slot, identity, reading } => {
                Reply::Consulted(self.provisioner(reading).advice(slot, &identity))
            }
            Order::Enroll { slot, request, current, reading } => {
                let current = current.as_ref().map(|(slot, identity)| (*slot, identity));
                Reply::Enrolled(self.provisioner(reading).enroll(slot, &request, current))
            }
            Order::Prove { slot, identity, reading } => return self.prove(slot, &identity, reading),
            Order::Release => {
                self.machine.in_use = None;
                Reply::Done(Ok(()))
            }
        };
        self.machine.desk.answer(reply);
        Ok(())
    }

    fn provisioner(&mut self, reading: Reading) -> Provisioner<'_, '_, B> {
        let context = self.machine.context;
        Provisioner { context, workspace: self.workspace, memory: self.memory, reading }
    }

    /// The provisioner first: a broker is shown only what the provisioner saw to be right.
    fn prove(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Result<(), Unexpected> {
        let Answer { outcome, server_time } = self.provisioner(reading).whoami(slot, identity);
        let proven = |outcome| Reply::Proven(Answer { outcome, server_time });
        let proof = |serial, broker| proven(Ok(Proof { serial, broker }));
        let reply = match outcome {
            Err(failure) => proven(Err(failure)),
            Ok(serial) if serial != identity.serial => proof(serial, BrokerProof::Unreachable),
            Ok(serial) if self.machine.context.broker().is_none() => {
                proof(serial, BrokerProof::NotConfigured)
            }
            Ok(serial) => {
                let connected = proof(serial.clone(), BrokerProof::Connected);
                match self.switch(slot, identity, reading, connected)? {
                    // It was answered when the session began.
                    None => return Ok(()),
                    Some(Failure::Unreachable) => proof(serial, BrokerProof::Unreachable),
                    Some(failure) => proven(Err(failure)),
                }
            }
        };
        self.machine.desk.answer(reply);
        Ok(())
    }

    /// Begins a session with an identity that is to be proven, gives `connected` for an answer, and
    /// keeps the session as long as it is good; or says what the broker's verdict is.
    fn switch(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
        connected: Reply,
    ) -> Result<Option<Failure>, Unexpected> {
        let Self { machine, workspace, lasting, .. } = self;
        let (since, phase) = (machine.context.now(), machine.desk.phase());
        let online = match lasting.dial(&machine.context, workspace, (slot, identity), (phase, reading)) {
            Ok(online) => online,
            Err(why) => {
                warn!("broker: {why}");
                return Ok(Some(match why.into() {
                    verdict @ (Failure::OurIdentityRefused
                    | Failure::KeyLost
                    | Failure::KeyUnavailable) => verdict,
                    // Nothing of this is about us: a broker that is away, or is not the broker.
                    _ => Failure::Unreachable,
                }));
            }
        };
        machine.desk.answer(connected);
        let ending = machine.attend(online)?;
        lasting.ended(&machine.context, ending, since);
        Ok(None)
    }

    /// When the broker may be tried, if there is one, and an identity to come with.
    fn dial_at(&self) -> Option<Mono> {
        let MachineRoom { context, in_use, .. } = &self.machine;
        (context.broker().is_some() && in_use.is_some()).then(|| self.lasting.dial_at())
    }

    /// A session with the identity in use, from its beginning to its end.
    fn meet_broker(&mut self) -> Result<(), Unexpected> {
        let Self { machine, workspace, lasting, .. } = self;
        let MachineRoom { context, desk, in_use, .. } = &*machine;
        let Some((slot, identity)) = in_use else { return Ok(()) };
        let since = context.now();
        let knows = (desk.phase(), desk.reading(since));
        let ending = match lasting.dial(context, workspace, (*slot, identity), knows) {
            Ok(online) => machine.attend(online)?,
            Err(why) => {
                warn!("broker: {why}");
                Ending::Lost
            }
        };
        lasting.ended(&machine.context, ending, since);
        Ok(())
    }
}

impl<B: Board> MachineRoom<'_, '_, B> {
    /// Lets the shell go on as far as it can, and does what its state asks for.
    fn turn(&mut self) -> Result<(), Unexpected> {
        match self.shell.as_mut().poll(&mut Waking::from_waker(Waker::noop())) {
            Poll::Ready(Err(unexpected)) => return Err(unexpected),
            // Nobody tells it to stop.
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.desk.is_over() && !self.is_wiped {
            self.wipe();
        }
        report_stack::<B>(&mut self.stack_peak);
        Ok(())
    }

    /// Keeps a session as long as it is good and its line is not needed.
    fn attend(&mut self, mut online: Online<'_, B>) -> Result<Ending, Unexpected> {
        loop {
            self.turn()?;
            match self.desk.take_order_if(|order| matches!(order, Order::Adopt { .. })) {
                Some(Order::Adopt { slot, identity }) => {
                    let is_same = identity.serial == *online.serial();
                    let adopted = self.adopt(slot, identity);
                    let is_other = adopted.is_ok() && !is_same;
                    self.desk.answer(Reply::Done(adopted));
                    if is_other {
                        online.close(&self.context);
                        return Ok(Ending::Planned);
                    }
                    continue;
                }
                Some(_) | None => {}
            }
            if self.desk.has_order() {
                online.close(&self.context);
                return Ok(Ending::Planned);
            }
            match online.attend(&self.context, self.desk) {
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
    fn adopt(&mut self, slot: Slot, identity: Identity) -> Result<(), Failure> {
        let mut keys = self.context.keys.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        keys.probe(slot)?;
        self.in_use = Some((slot, identity));
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
            Ok(()) => info!("decommissioned"),
            Err(failure) => error!("not everything could be erased: {failure}"),
        }
    }

    /// Serves the network until something comes, the shell wants to be asked, or `at`.
    fn rest(&self, at: Option<Mono>) {
        let idle = self.context.now().plus_ms(LOOK_MS);
        let until = [at, self.desk.alarm()].into_iter().flatten().min().unwrap_or(idle);
        self.context.net.wait(until.0);
    }
}

/// Says how far the stack has grown, if it has.
pub(super) fn report_stack<B: Board>(peak: &mut usize) {
    let stack = B::stack();
    if stack.peak_len > *peak {
        *peak = stack.peak_len;
        info!("stack: {} of {} octets at its peak", stack.peak_len, stack.len);
    }
}
