//! What drives the machine: one part of it in the daemon and in firmware alike, the other in the
//! daemon.
//!
//! It carries no decisions: it performs what the machine polls out, answers, and waits. One action
//! is in flight at a time; a port that takes long delays everything else, so ports have deadlines.
//!
//! What a device does by itself is [`Ports::settle`], which both run; what it wants of its peers comes
//! out of that as an [`Order`]. [`Ports::run`] is the loop around it for whoever can await peers and
//! time: the daemon. Firmware, which can only go on between two looks at a network, has a loop of its
//! own: it settles, serves the order, and answers the machine with the [`Input`] that the order names.

use crate::event::Failure;
use crate::lifecycle::{Action, ActionId, Input, Machine, Unexpected};
use crate::policy::IDLE_MS_MAX;
use crate::port::{Advice, Answer, Clock, Keys, Peers, Proof, Reports, Storage, Wait, Wake};
use crate::record::Slot;
use crate::time::Now;

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Enough: return.
    End,
}

/// What the machine wants of its peers.
///
/// Identities and requests are those of [`Machine::record`], with one exception. [`Order::Adopt`] goes
/// by what is durable, and the record may be ahead of that: when the [`Action::Persist`] that gives an
/// identity up has failed, after a decommissioning or for another identity, its slot is empty already,
/// and the order can still name it. Who looks into the record, as [`Ports::run`] does, finds nothing
/// there and answers [`Failure::KeyLost`]. Who looks into durable storage, as firmware does, uses what
/// is there until [`Action::Persist`] succeeds; then comes [`Order::Release`], or [`Order::Adopt`] of
/// the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// [`Action::Adopt`]. Answer: [`Input::Done`].
    Adopt {
        /// To be named in the answer.
        id: ActionId,
        /// Where the identity is.
        slot: Slot,
    },
    /// [`Action::Consult`]. Answer: [`Input::Consulted`].
    Consult {
        /// To be named in the answer.
        id: ActionId,
        /// The slot of the identity in use.
        slot: Slot,
    },
    /// [`Action::Enroll`]. Answer: [`Input::Enrolled`].
    Enroll {
        /// To be named in the answer.
        id: ActionId,
        /// Where the key is.
        slot: Slot,
    },
    /// [`Action::Prove`]. Answer: [`Input::Proven`].
    Prove {
        /// To be named in the answer.
        id: ActionId,
        /// Where the identity is.
        slot: Slot,
    },
    /// [`Action::Release`]. Answer: [`Input::Done`].
    Release {
        /// To be named in the answer.
        id: ActionId,
    },
}

/// Everything that a shell provides. Who does not [`Ports::run`] needs no `peers` and no `wait`.
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

impl<C: Clock, S: Storage, K: Keys, P, R: Reports, W> Ports<C, S, K, P, R, W> {
    /// Does what `machine` wants, until it wants something of its peers, which is returned and is to
    /// be answered, or until it has come to rest.
    ///
    /// # Errors
    ///
    /// [`Unexpected`], as of [`Ports::run`].
    pub async fn settle(&mut self, machine: &mut Machine) -> Result<Option<Order>, Unexpected> {
        while let Some(action) = machine.poll() {
            let input = match action {
                Action::Report(event) => {
                    self.reports.report(self.clock.now(), event);
                    continue;
                }
                Action::EnsureKey { id, slot, source } => {
                    match self.keys.ensure(slot, source).await {
                        Ok(spki_sha256) => Input::KeyReady { id, spki_sha256 },
                        Err(failure) => Input::failed(id, failure),
                    }
                }
                Action::EraseKey { id, slot } => Input::done(id, self.keys.erase(slot).await),
                Action::Persist { id } => {
                    Input::done(id, self.storage.persist(machine.record()).await)
                }
                Action::Adopt { id, slot } => return Ok(Some(Order::Adopt { id, slot })),
                Action::Consult { id, slot } => return Ok(Some(Order::Consult { id, slot })),
                Action::Enroll { id, slot } => return Ok(Some(Order::Enroll { id, slot })),
                Action::Prove { id, slot } => return Ok(Some(Order::Prove { id, slot })),
                Action::Release { id } => return Ok(Some(Order::Release { id })),
            };
            machine.handle(self.clock.now(), input)?;
        }
        Ok(None)
    }
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
            while let Some(order) = self.settle(machine).await? {
                self.serve(machine, order).await?;
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

    /// Has the peers do what the machine wants of them, and tells it what came of that.
    async fn serve(&mut self, machine: &mut Machine, order: Order) -> Result<(), Unexpected> {
        let reading = machine.reading(self.clock.now());
        let record = machine.record();
        match order {
            Order::Adopt { id, slot } => {
                let outcome = match record.identity(slot) {
                    Some(identity) => self.peers.adopt(slot, identity, reading).await,
                    None => Err(Failure::KeyLost),
                };
                machine.handle(self.clock.now(), Input::done(id, outcome))
            }
            Order::Consult { id, slot } => {
                let Answer { outcome, server_time } = match record.identity(slot) {
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
            Order::Enroll { id, slot } => {
                let current = record.active.and_then(|slot| Some((slot, record.identity(slot)?)));
                let Answer { outcome, server_time } = match record.request(slot) {
                    Some(request) => self.peers.enroll(request, slot, current, reading).await,
                    None => Answer::failed(Failure::KeyLost),
                };
                let input = match &outcome {
                    Ok(identity) => Input::Enrolled { id, identity, server_time },
                    Err(failure) => Input::Failed { id, failure: failure.clone(), server_time },
                };
                machine.handle(self.clock.now(), input)
            }
            Order::Prove { id, slot } => {
                let Answer { outcome, server_time } = match record.identity(slot) {
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
            Order::Release { id } => {
                let outcome = self.peers.release().await;
                machine.handle(self.clock.now(), Input::done(id, outcome))
            }
        }
    }
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
    use crate::record::{CertificateBytes, Identity, KeySource, Record, Request, Serial};
    use crate::time::{Mono, Reading, Validity, Wall};

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
        fn report(&mut self, _: Now, event: Event) {
            self.0.push(event);
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

    /// Goal: who serves his peers himself hears of each order once, and of nothing else.
    #[test]
    fn settling_does_what_needs_no_peer_and_names_what_does() {
        let mut ports = ports(&[]);
        let mut machine = machine(&mut ports);
        assert_eq!(block_on(ports.settle(&mut machine)), Ok(None), "nothing was asked for yet");
        machine.handle(ports.clock.now(), Input::Tick).unwrap();
        let order = block_on(ports.settle(&mut machine)).unwrap();
        let Some(Order::Enroll { id, slot: Slot::A, .. }) = order else { panic!("{order:?}") };
        assert_eq!((ports.keys.made, ports.storage.0.len()), (1, 1));
        assert_eq!(block_on(ports.settle(&mut machine)), Ok(None), "one order at a time");
        let failed = Input::failed(id, Failure::Unreachable);
        machine.handle(ports.clock.now(), failed).unwrap();
        assert_eq!(block_on(ports.settle(&mut machine)), Ok(None));
        assert_eq!(machine.last_failure().unwrap().1, Failure::Unreachable);
        assert!(machine.deadline().is_some());
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
