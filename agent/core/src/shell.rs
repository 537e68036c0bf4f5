//! The one loop that drives the machine, in the daemon and in firmware alike.
//!
//! It carries no decisions: it performs what the machine polls out, answers, and waits. One action
//! is in flight at a time; a port that takes long delays everything else, so ports have deadlines.

use crate::event::Failure;
use crate::lifecycle::{Action, ActionId, Input, Machine, Unexpected};
use crate::policy::IDLE_MS_MAX;
use crate::port::{Advice, Answer, Clock, Keys, Peers, Proof, Reports, Storage, Wait, Wake};
use crate::record::{Request, Slot};
use crate::time::Now;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Enough: return.
    End,
}

/// Everything that a shell provides.
#[derive(Debug)]
pub struct Ports<C, S, K, P, R, W> {
    /// The platform's clocks.
    pub clock: C,
    /// Durable storage.
    pub storage: S,
    /// The key store.
    pub keys: K,
    /// Provisioner and broker.
    pub peers: P,
    /// Where reports go.
    pub reports: R,
    /// Waiting.
    pub wait: W,
}

impl<C: Clock, S: Storage, K: Keys, P: Peers, R: Reports, W: Wait> Ports<C, S, K, P, R, W> {
    /// Drives `machine` until [`Wake::Stop`], or until `done` says after some answer that it is.
    ///
    /// `observe` sees the machine after every change and says whether to go on.
    ///
    /// # Errors
    ///
    /// [`Unexpected`] if machine and shell disagree about what is in flight: a fault in one of
    /// them, never of the world.
    pub async fn run(
        &mut self,
        machine: &mut Machine,
        mut observe: impl FnMut(&Machine, Now) -> Flow,
    ) -> Result<(), Unexpected> {
        machine.handle(self.clock.now(), Input::Tick)?;
        loop {
            while let Some(action) = machine.poll() {
                self.perform(machine, action).await?;
            }
            let now = self.clock.now();
            if observe(machine, now) == Flow::End {
                return Ok(());
            }
            let idle = now.mono.plus_ms(IDLE_MS_MAX);
            let deadline = machine.deadline().map_or(idle, |(at, _)| at.min(idle));
            let wake = self.wait.wait(deadline).await;
            let now = self.clock.now();
            match wake {
                Wake::Tick => machine.handle(now, Input::Tick)?,
                Wake::Command(command) => machine.handle(now, Input::Command(command))?,
                Wake::Stop => return Ok(()),
            }
        }
    }

    async fn perform(&mut self, machine: &mut Machine, action: Action) -> Result<(), Unexpected> {
        match action {
            Action::Report(event) => {
                self.reports.report(self.clock.now(), &event);
                Ok(())
            }
            Action::Adopt { id, slot } => self.adopt(machine, id, slot).await,
            Action::Consult { id, slot } => self.consult(machine, id, slot).await,
            Action::Enroll { id, slot, request } => self.enroll(machine, id, slot, request).await,
            Action::EnsureKey { id, slot, source } => {
                let answer = self.keys.ensure(slot, source).await;
                let input = match answer {
                    Ok(spki_sha256) => Input::KeyReady { id, spki_sha256 },
                    Err(failure) => failed(id, failure),
                };
                machine.handle(self.clock.now(), input)
            }
            Action::EraseKey { id, slot } => {
                let answer = self.keys.erase(slot).await;
                self.done(machine, id, answer)
            }
            Action::Persist { id } => {
                let answer = self.storage.persist(machine.record()).await;
                self.done(machine, id, answer)
            }
            Action::Prove { id, slot } => self.prove(machine, id, slot).await,
            Action::Release { id } => {
                let answer = self.peers.release().await;
                self.done(machine, id, answer)
            }
        }
    }

    fn done(
        &mut self,
        machine: &mut Machine,
        id: ActionId,
        answer: Result<(), Failure>,
    ) -> Result<(), Unexpected> {
        let input = match answer {
            Ok(()) => Input::Done { id },
            Err(failure) => failed(id, failure),
        };
        machine.handle(self.clock.now(), input)
    }

    async fn adopt(
        &mut self,
        machine: &mut Machine,
        id: ActionId,
        slot: Slot,
    ) -> Result<(), Unexpected> {
        let reading = machine.reading(self.clock.now());
        let answer = match machine.record().identity(slot) {
            Some(identity) => self.peers.adopt(slot, identity, reading).await,
            None => Err(Failure::KeyLost),
        };
        self.done(machine, id, answer)
    }

    async fn enroll(
        &mut self,
        machine: &mut Machine,
        id: ActionId,
        slot: Slot,
        request: Request,
    ) -> Result<(), Unexpected> {
        let reading = machine.reading(self.clock.now());
        let record = machine.record();
        let current = record.active.and_then(|active| Some((active, record.identity(active)?)));
        let Answer { outcome, server_time } =
            self.peers.enroll(&request, slot, current, reading).await;
        let input = match &outcome {
            Ok(identity) => Input::Enrolled { id, identity, server_time },
            Err(failure) => Input::Failed { id, failure: failure.clone(), server_time },
        };
        machine.handle(self.clock.now(), input)
    }

    async fn prove(
        &mut self,
        machine: &mut Machine,
        id: ActionId,
        slot: Slot,
    ) -> Result<(), Unexpected> {
        let reading = machine.reading(self.clock.now());
        let Answer { outcome, server_time } = match machine.record().identity(slot) {
            Some(identity) => self.peers.prove(slot, identity, reading).await,
            None => Answer::failed(Failure::KeyLost),
        };
        let input = match &outcome {
            Ok(Proof { serial, broker }) => {
                Input::Proven { id, serial, broker: *broker, server_time }
            }
            Err(failure) => Input::Failed { id, failure: failure.clone(), server_time },
        };
        machine.handle(self.clock.now(), input)
    }

    async fn consult(
        &mut self,
        machine: &mut Machine,
        id: ActionId,
        slot: Slot,
    ) -> Result<(), Unexpected> {
        let reading = machine.reading(self.clock.now());
        let Answer { outcome, server_time } = match machine.record().identity(slot) {
            Some(identity) => self.peers.consult(slot, identity, reading).await,
            None => Answer::failed(Failure::KeyLost),
        };
        let input = match outcome {
            Ok(Advice { window, retry_after_s }) => {
                Input::Consulted { id, window, retry_after_s, server_time }
            }
            Err(failure) => Input::Failed { id, failure, server_time },
        };
        machine.handle(self.clock.now(), input)
    }
}

fn failed<'a>(id: ActionId, failure: Failure) -> Input<'a> {
    Input::Failed { id, failure, server_time: None }
}
