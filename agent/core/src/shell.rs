//! The one loop that drives the machine, in the daemon and in firmware alike.
//!
//! It carries no decisions: it performs what the machine polls out, answers, and waits. One action
//! is in flight at a time; a port that takes long delays everything else, so ports have deadlines.

use crate::event::Failure;
use crate::lifecycle::{Action, ActionId, Input, Machine, Unexpected};
use crate::policy::IDLE_MS_MAX;
use crate::port::{Advice, Answer, Clock, Keys, Peers, Proof, Reports, Storage, Wait, Wake};
use crate::record::Identity;
use crate::time::{Now, Wall};

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
    /// `observe` sees the machine each time it has come to rest and says whether to go on.
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
        let reading = machine.reading(self.clock.now());
        let record = machine.record();
        match action {
            Action::Report(event) => {
                self.reports.report(self.clock.now(), &event);
                Ok(())
            }
            Action::Adopt { id, slot } => {
                let answer = match record.identity(slot) {
                    Some(identity) => self.peers.adopt(slot, identity, reading).await,
                    None => Err(Failure::KeyLost),
                };
                done(machine, self.clock.now(), id, &answer)
            }
            Action::Consult { id, slot } => {
                let answer = match record.identity(slot) {
                    Some(identity) => self.peers.consult(slot, identity, reading).await,
                    None => Answer::failed(Failure::KeyLost),
                };
                consulted(machine, self.clock.now(), id, &answer)
            }
            Action::Enroll { id, slot, request } => {
                let current = record.active.and_then(|slot| Some((slot, record.identity(slot)?)));
                let answer = self.peers.enroll(&request, slot, current, reading).await;
                enrolled(machine, self.clock.now(), id, &answer)
            }
            Action::EnsureKey { id, slot, source } => {
                let answer = self.keys.ensure(slot, source).await;
                key_ensured(machine, self.clock.now(), id, &answer)
            }
            Action::EraseKey { id, slot } => {
                let answer = self.keys.erase(slot).await;
                done(machine, self.clock.now(), id, &answer)
            }
            Action::Persist { id } => {
                let answer = self.storage.persist(record).await;
                done(machine, self.clock.now(), id, &answer)
            }
            Action::Prove { id, slot } => {
                let answer = match record.identity(slot) {
                    Some(identity) => self.peers.prove(slot, identity, reading).await,
                    None => Answer::failed(Failure::KeyLost),
                };
                proven(machine, self.clock.now(), id, &answer)
            }
            Action::Release { id } => {
                let answer = self.peers.release().await;
                done(machine, self.clock.now(), id, &answer)
            }
        }
    }
}

/// Tells the machine that an action is done, or is not. What is told is no port's: one copy for all.
#[inline(never)]
fn done(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    answer: &Result<(), Failure>,
) -> Result<(), Unexpected> {
    match answer {
        Ok(()) => machine.handle(now, Input::Done { id }),
        Err(failure) => fail(machine, now, id, failure, None),
    }
}

/// Tells the machine of the slot's key.
#[inline(never)]
fn key_ensured(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    answer: &Result<[u8; 32], Failure>,
) -> Result<(), Unexpected> {
    match answer {
        Ok(spki_sha256) => machine.handle(now, Input::KeyReady { id, spki_sha256: *spki_sha256 }),
        Err(failure) => fail(machine, now, id, failure, None),
    }
}

/// Tells the machine what came of asking for a certificate.
#[inline(never)]
fn enrolled(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    answer: &Answer<Identity>,
) -> Result<(), Unexpected> {
    let Answer { outcome, server_time } = answer;
    let server_time = *server_time;
    match outcome {
        Ok(identity) => machine.handle(now, Input::Enrolled { id, identity, server_time }),
        Err(failure) => fail(machine, now, id, failure, server_time),
    }
}

/// Tells the machine whether provisioner and broker accept an identity.
#[inline(never)]
fn proven(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    answer: &Answer<Proof>,
) -> Result<(), Unexpected> {
    let Answer { outcome, server_time } = answer;
    let server_time = *server_time;
    match outcome {
        Ok(Proof { serial, broker }) => {
            machine.handle(now, Input::Proven { id, serial, broker: *broker, server_time })
        }
        Err(failure) => fail(machine, now, id, failure, server_time),
    }
}

/// Tells the machine what the provisioner advises.
#[inline(never)]
fn consulted(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    answer: &Answer<Advice>,
) -> Result<(), Unexpected> {
    let Answer { outcome, server_time } = answer;
    let server_time = *server_time;
    match outcome {
        Ok(Advice { window, retry_after_s }) => {
            let (window, retry_after_s) = (*window, *retry_after_s);
            machine.handle(now, Input::Consulted { id, window, retry_after_s, server_time })
        }
        Err(failure) => fail(machine, now, id, failure, server_time),
    }
}

/// Tells the machine that an action failed.
#[inline(never)]
fn fail(
    machine: &mut Machine,
    now: Now,
    id: ActionId,
    failure: &Failure,
    server_time: Option<Wall>,
) -> Result<(), Unexpected> {
    machine.handle(now, Input::Failed { id, failure: failure.clone(), server_time })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use futures_lite::future::block_on;

    use super::*;
    use crate::device_id::DeviceId;
    use crate::event::Event;
    use crate::lifecycle::{BrokerProof, Command, Phase};
    use crate::policy::Policy;
    use crate::record::{CertificateBytes, Identity, KeySource, Record, Request, Serial, Slot};
    use crate::time::{Mono, Reading, Validity};

    const START: Wall = Wall(1_800_000_000);

    struct Time(u64);
    impl Clock for Time {
        fn now(&mut self) -> Now {
            self.0 += 10;
            assert!(self.0 < 100_000, "the loop runs hot");
            let wall = Some(START.plus_s(self.0 / 1000));
            Now { mono: Mono(self.0), wall, synchronised: false }
        }
    }

    #[derive(Default)]
    struct Disk(Vec<Record>);
    impl Storage for Disk {
        async fn persist(&mut self, record: &Record) -> Result<(), Failure> {
            self.0.push(record.clone());
            Ok(())
        }
    }

    #[derive(Default)]
    struct KeyBox {
        made: u8,
        erased: Vec<Slot>,
        broken: bool,
    }
    impl Keys for KeyBox {
        async fn ensure(&mut self, _: Slot, _: KeySource) -> Result<[u8; 32], Failure> {
            if self.broken {
                return Err(Failure::KeyUnavailable);
            }
            self.made += 1;
            Ok([self.made; 32])
        }
        async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
            self.erased.push(slot);
            Ok(())
        }
    }

    /// Issues certificate `n` as the `n`-th, unless it is said to be away.
    #[derive(Default)]
    struct World {
        issued: u8,
        away: bool,
        adopted: Vec<Slot>,
        released: u8,
        currents: Vec<Option<Slot>>,
    }
    impl Peers for World {
        async fn enroll(
            &mut self,
            _: &Request,
            _: Slot,
            current: Option<(Slot, &Identity)>,
            reading: Reading,
        ) -> Answer<Identity> {
            if self.away {
                return Answer::failed(Failure::Unreachable);
            }
            self.currents.push(current.map(|(slot, _)| slot));
            self.issued += 1;
            let not_before = reading.wall.unwrap();
            let identity = Identity {
                serial: Serial::from_slice(&[self.issued]).unwrap(),
                validity: Validity { not_before, not_after: not_before.plus_s(1000) },
                spki_sha256: [self.issued; 32],
                certificate: CertificateBytes::new(),
            };
            Answer { outcome: Ok(identity), server_time: Some(not_before) }
        }
        async fn prove(&mut self, _: Slot, identity: &Identity, _: Reading) -> Answer<Proof> {
            let proof =
                Proof { serial: identity.serial.clone(), broker: BrokerProof::NotConfigured };
            Answer { outcome: Ok(proof), server_time: None }
        }
        async fn consult(&mut self, _: Slot, _: &Identity, _: Reading) -> Answer<Advice> {
            if self.away {
                return Answer::failed(Failure::Unreachable);
            }
            Answer { outcome: Ok(Advice { window: None, retry_after_s: 300 }), server_time: None }
        }
        async fn adopt(&mut self, slot: Slot, _: &Identity, _: Reading) -> Result<(), Failure> {
            self.adopted.push(slot);
            Ok(())
        }
        async fn release(&mut self) -> Result<(), Failure> {
            self.released += 1;
            Ok(())
        }
    }

    #[derive(Default)]
    struct Log(Vec<Event>);
    impl Reports for Log {
        fn report(&mut self, _: Now, event: &Event) {
            self.0.push(event.clone());
        }
    }

    /// Answers with the prepared wakes, then stops; keeps the deadlines it was given.
    struct Script(Vec<Wake>, Vec<Mono>);
    impl Wait for Script {
        async fn wait(&mut self, deadline: Mono) -> Wake {
            self.1.push(deadline);
            if self.0.is_empty() { Wake::Stop } else { self.0.remove(0) }
        }
    }

    type TestPorts = Ports<Time, Disk, KeyBox, World, Log, Script>;

    fn ports(wakes: &[Wake]) -> TestPorts {
        Ports {
            clock: Time(0),
            storage: Disk::default(),
            keys: KeyBox::default(),
            peers: World::default(),
            reports: Log::default(),
            wait: Script(wakes.to_vec(), Vec::new()),
        }
    }

    fn machine(ports: &mut TestPorts) -> Machine {
        let device = DeviceId::parse("gw-1").unwrap();
        let now = ports.clock.now();
        Machine::new(Policy::default(), device, Record::new(Wall(0)), [1; 32], now)
    }

    #[test]
    fn a_shell_enrolls_renews_on_command_and_stops_when_told() {
        let mut ports = ports(&[Wake::Command(Command::Renew), Wake::Tick]);
        let mut machine = machine(&mut ports);
        block_on(ports.run(&mut machine, |_, _| Flow::Continue)).unwrap();
        assert_eq!(ports.peers.adopted, [Slot::A, Slot::B]);
        assert_eq!(ports.peers.currents, [None, Some(Slot::A)]);
        assert_eq!(ports.keys.erased, [Slot::A, Slot::B, Slot::B, Slot::A][..].to_vec());
        assert_eq!(ports.storage.0.last(), Some(machine.record()));
        assert!(ports.reports.0.iter().any(|event| matches!(event, Event::Proven { .. })));
        assert_eq!(ports.wait.1.len(), 3);
        assert!(ports.wait.1.iter().all(|deadline| deadline.0 > 0 && deadline.0 < IDLE_MS_MAX));
    }

    #[test]
    fn failures_of_every_port_reach_the_machine_and_the_observer_may_end_the_loop() {
        let mut ports = ports(&[]);
        ports.keys.broken = true;
        let mut machine = machine(&mut ports);
        block_on(ports.run(&mut machine, |machine, now| {
            assert_eq!(machine.phase(now), Phase::Waiting);
            Flow::End
        }))
        .unwrap();
        assert_eq!(ports.wait.1, []);
        assert_eq!(machine.last_failure().unwrap().1, Failure::KeyUnavailable);
        ports.keys.broken = false;
        ports.peers.away = true;
        ports.wait.0 = std::vec![Wake::Command(Command::Renew)];
        block_on(ports.run(&mut machine, |_, _| Flow::Continue)).unwrap();
        assert_eq!(machine.last_failure().unwrap().1, Failure::Unreachable);
    }

    #[test]
    fn a_decommissioned_shell_releases_and_waits_a_day_at_most() {
        let mut ports = ports(&[Wake::Command(Command::Decommission)]);
        let mut machine = machine(&mut ports);
        block_on(ports.run(&mut machine, |_, _| Flow::Continue)).unwrap();
        assert_eq!(ports.peers.released, 1);
        assert_eq!(machine.deadline(), None);
        let idle = ports.wait.1.last().unwrap();
        assert!(idle.0 > IDLE_MS_MAX);
    }
}
