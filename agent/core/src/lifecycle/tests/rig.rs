//! A shell whose every answer the test chooses.

use std::vec::Vec as StdVec;

use super::super::{Action, ActionId, BrokerProof, Command, Input, Machine, Timer, Unexpected};
use crate::device_id::DeviceId;
use crate::event::{Event, Failure};
use crate::policy::{Policy, Window};
use crate::record::{Identity, Record, Serial, Slot};
use crate::time::{Mono, Now, Validity, Wall};

/// When the tests' world begins.
pub(super) const START: Wall = Wall(1_800_000_000);

/// No story takes more actions; a machine that runs hot fails instead of hanging.
const POLLS_MAX: u32 = 1_000;

/// Ninety days.
pub(super) const LIFETIME_S: u64 = 90 * 86_400;

pub(super) const POLICY: Policy = Policy {
    build_time: Wall(1_700_000_000),
    rekey: crate::policy::Rekey::Always,
    availability_target_s: 0,
};

pub(super) struct Rig {
    pub(super) machine: Machine,
    pub(super) now: Now,
    pub(super) events: StdVec<Event>,
    /// The record as storage last acknowledged it.
    pub(super) durable: Record,
    pub(super) policy: Policy,
    polled: u32,
}

pub(super) fn device() -> DeviceId {
    DeviceId::parse("gw-0001").unwrap()
}

/// The public key that the rig's key store makes in a slot, the `n`-th time.
pub(super) fn key(n: u8) -> [u8; 32] {
    [n; 32]
}

pub(super) fn serial(n: u8) -> Serial {
    Serial::from_slice(&[n; 16]).unwrap()
}

/// A certificate number `n` for key number `n`, valid from `not_before` on.
pub(super) fn identity(n: u8, not_before: Wall) -> Identity {
    Identity {
        serial: serial(n),
        validity: Validity { not_before, not_after: not_before.plus_s(LIFETIME_S) },
        spki_sha256: key(n),
        certificate: crate::record::CertificateBytes::from_slice(&[0x30, 0]).unwrap(),
    }
}

impl Rig {
    /// A device on its first boot with a clock that is right and not vouched for.
    pub(super) fn first_boot() -> Self {
        Self::boot(Record::new(Wall(0)), at(0))
    }

    pub(super) fn boot(record: Record, now: Now) -> Self {
        Self::boot_with(POLICY, record, now)
    }

    pub(super) fn boot_with(policy: Policy, record: Record, now: Now) -> Self {
        let machine = Machine::new(policy, device(), record.clone(), [7; 32], now);
        let mut rig =
            Self { machine, now, events: StdVec::new(), durable: record, policy, polled: 0 };
        rig.tick();
        rig
    }

    /// Certificate 1 in slot A, in use; the provisioner was consulted and has no opinion.
    pub(super) fn active() -> Self {
        let mut rig = Self::first_boot();
        rig.obtain(1);
        rig.finish_switch();
        rig.consult(None, 86_400);
        assert_eq!(rig.next(), None);
        rig.events.clear();
        rig
    }

    /// The same device after a power cut: what was not durable is gone.
    pub(super) fn power_cut(&self) -> Self {
        Self::boot_with(self.policy, self.durable.clone(), self.now)
    }

    pub(super) fn tick(&mut self) {
        self.machine.handle(self.now, Input::Tick).unwrap();
    }

    pub(super) fn command(&mut self, command: Command) {
        self.machine.handle(self.now, Input::Command(command)).unwrap();
    }

    /// The next action that wants an answer; reports are kept.
    pub(super) fn next(&mut self) -> Option<Action> {
        loop {
            self.polled += 1;
            assert!(self.polled < POLLS_MAX, "the machine runs hot");
            match self.machine.poll()? {
                Action::Report(event) => self.events.push(event),
                action => return Some(action),
            }
        }
    }

    pub(super) fn answer(&mut self, input: Input<'_>) {
        self.machine.handle(self.now, input).unwrap();
    }

    pub(super) fn try_answer(&mut self, input: Input<'_>) -> Result<(), Unexpected> {
        self.machine.handle(self.now, input)
    }

    pub(super) fn fail(&mut self, id: ActionId, failure: Failure) {
        self.answer(Input::Failed { id, failure, server_time: None });
    }

    pub(super) fn done(&mut self, id: ActionId) {
        self.answer(Input::Done { id });
    }

    pub(super) fn persist(&mut self) {
        let Some(Action::Persist { id }) = self.next() else { panic!("no Persist") };
        self.durable = self.machine.record().clone();
        self.done(id);
    }

    pub(super) fn erase(&mut self, slot: Slot) {
        let Some(Action::EraseKey { id, slot: found }) = self.next() else { panic!("no EraseKey") };
        assert_eq!(found, slot);
        assert!(!self.durable.names(slot), "erases a named slot");
        self.done(id);
    }

    pub(super) fn key(&mut self, n: u8) -> Slot {
        let Some(Action::EnsureKey { id, slot, .. }) = self.next() else { panic!("no EnsureKey") };
        assert!(self.durable.names(slot), "makes a key that nothing names");
        self.answer(Input::KeyReady { id, spki_sha256: key(n) });
        slot
    }

    pub(super) fn enroll_action(&mut self) -> ActionId {
        let Some(Action::Enroll { id, slot, .. }) = self.next() else { panic!("no Enroll") };
        assert!(self.durable.names(slot), "asks for what nothing names");
        id
    }

    pub(super) fn prove_action(&mut self) -> ActionId {
        let Some(Action::Prove { id, slot }) = self.next() else { panic!("no Prove") };
        assert!(self.durable.identity(slot).is_some(), "proves what is not durable");
        id
    }

    pub(super) fn adopt(&mut self, slot: Slot) {
        let Some(Action::Adopt { id, slot: found }) = self.next() else { panic!("no Adopt") };
        assert_eq!(found, slot);
        assert_eq!(self.durable.active, Some(slot), "adopts what is not durable");
        self.done(id);
    }

    pub(super) fn consult_action(&mut self) -> ActionId {
        let Some(Action::Consult { id, .. }) = self.next() else { panic!("no Consult") };
        id
    }

    pub(super) fn consult(&mut self, window: Option<Window>, retry_after_s: u32) {
        let id = self.consult_action();
        let server_time = self.now.wall;
        self.answer(Input::Consulted { id, window, retry_after_s, server_time });
    }

    pub(super) fn prove(&mut self, n: u8, broker: BrokerProof) {
        let id = self.prove_action();
        self.answer(Input::Proven { id, serial: &serial(n), broker, server_time: None });
    }

    /// Whatever erasures are due, then everything up to the issued certificate `n`, not durable.
    pub(super) fn issue(&mut self, n: u8) {
        loop {
            match self.next() {
                Some(Action::EraseKey { id, slot }) => {
                    assert!(!self.durable.names(slot));
                    self.done(id);
                }
                Some(Action::Persist { id }) => {
                    self.durable = self.machine.record().clone();
                    self.done(id);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        self.key(n);
        let id = self.enroll_action();
        let identity = identity(n, self.wall());
        self.answer(Input::Enrolled { id, identity: &identity, server_time: None });
    }

    /// The whole way to a durable switch to certificate `n`.
    pub(super) fn obtain(&mut self, n: u8) {
        self.issue(n);
        self.persist();
        self.prove(n, BrokerProof::Connected);
        self.persist();
    }

    /// Adoption of the new identity and erasure of the old one's key.
    pub(super) fn finish_switch(&mut self) {
        let active = self.durable.active.unwrap();
        self.adopt(active);
        self.erase(active.other());
    }

    /// Lets time pass and ticks.
    pub(super) fn pass_s(&mut self, s: u64) {
        self.pass_ms(1000 * s);
    }

    pub(super) fn pass_ms(&mut self, ms: u64) {
        let mono = self.now.mono.plus_ms(ms);
        let wall = self.now.wall.map(|wall| wall.plus_s(ms / 1000));
        self.now = Now { mono, wall, ..self.now };
        self.tick();
    }

    /// Lets time pass up to the machine's own deadline, and says why it wanted to be woken.
    pub(super) fn pass_to_deadline(&mut self) -> Timer {
        let (at, timer) = self.machine.deadline().unwrap();
        let ms = at.ms_since(self.now.mono);
        self.pass_ms(ms.next_multiple_of(1000));
        timer
    }

    pub(super) fn wall(&self) -> Wall {
        self.now.wall.unwrap_or(START)
    }
}

/// The instant `s` seconds after [`START`], by a wall clock that nobody vouches for.
pub(super) fn at(s: u64) -> Now {
    Now { mono: Mono(1000 * s), wall: Some(START.plus_s(s)), synchronised: false }
}
