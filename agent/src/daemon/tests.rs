//! The core's shell over the real store and key store, with peers that follow a script and a clock
//! that jumps to each deadline: years in milliseconds, and a restart wherever one hurts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::{Event, Failure};
use fleetcert_core::lifecycle::BrokerProof;
use fleetcert_core::policy::{Policy, Rekey};
use fleetcert_core::port::{Advice, Answer, Clock, Proof, Reports, Wait, Wake};
use fleetcert_core::record::{Identity, Record, Request, Slot};
use fleetcert_core::time::{Mono, Now, Reading, Validity};
use futures_lite::future::{pending, poll_once};
use ring::digest::{SHA256, digest};
use smol::block_on;

use super::*;
use crate::disk::Disk;
use crate::disk::cut::{CutDisk, MOODS};
use crate::keystore::Signer;

const LIFETIME_S: u64 = 10_000;
const START: Wall = Wall(BUILD_TIME.0 + 1_000);

/// The world that survives a restart of the agent: its disk, the time, and the provisioner.
#[derive(Clone, Default)]
struct World {
    disk: Rc<CutDisk>,
    mono: Rc<Cell<u64>>,
    issued: Rc<RefCell<BTreeMap<[u8; 16], Identity>>>,
    boots: Rc<Cell<u64>>,
    calls: Rc<Cell<usize>>,
    /// The peers' call, counted over all runs, that is never answered.
    silent_at: usize,
    events: Rc<RefCell<Vec<Event>>>,
}

struct Peers {
    world: World,
    keys: KeyStore,
}

impl World {
    fn wall(&self) -> Wall {
        START.plus_s(self.mono.get() / 1000)
    }

    fn store(&self) -> Store {
        Store::new(Rc::clone(&self.disk) as Rc<dyn Disk>, Causes::default())
    }

    fn keys(&self) -> KeyStore {
        let disk = Rc::clone(&self.disk) as Rc<dyn Disk>;
        KeyStore::files(disk, Entropy::system(), Causes::default())
    }

    async fn call(&self) {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() == self.silent_at {
            pending::<()>().await;
        }
    }

    /// Runs an agent until `enough`; `None` if it was cut off in the middle of a call.
    fn run(&self, rekey: Rekey, enough: impl Fn(&Machine) -> bool) -> Option<Record> {
        let policy = Policy { build_time: BUILD_TIME, rekey, availability_target_s: 0 };
        let record = self.store().load().unwrap().unwrap_or_else(|| Record::new(BUILD_TIME));
        let device = DeviceId::parse("gw-1").unwrap();
        let mut seed = [7; 32];
        self.boots.set(self.boots.get() + 1);
        seed[..8].copy_from_slice(&self.boots.get().to_le_bytes());
        let mut machine = Machine::new(policy, device, record, seed, self.clone().now());
        let mut ports = Ports {
            clock: self.clone(),
            storage: self.store(),
            keys: self.keys(),
            peers: Peers { world: self.clone(), keys: self.keys() },
            reports: self.clone(),
            wait: self.clone(),
        };
        let run = ports.run(
            &mut machine,
            |machine, _| {
                if enough(machine) { Flow::End } else { Flow::Continue }
            },
        );
        block_on(poll_once(Box::pin(run)))?.unwrap();
        Some(machine.record().clone())
    }
}

impl Peers {
    fn issue(&self, request: &Request, slot: Slot) -> Result<Identity, Failure> {
        let mut spki_sha256 = [0; 32];
        spki_sha256.copy_from_slice(digest(&SHA256, self.key(slot)?.spki()).as_ref());
        let not_before = self.world.wall();
        let mut issued = self.world.issued.borrow_mut();
        let serial = u8::try_from(issued.len() + 1).unwrap();
        let identity = issued.entry(request.id.0).or_insert_with(|| Identity {
            serial: [serial].into_iter().collect(),
            validity: Validity { not_before, not_after: not_before.plus_s(LIFETIME_S) },
            spki_sha256,
            certificate: [0x30, 0].into_iter().collect(),
        });
        assert_eq!(identity.spki_sha256, spki_sha256, "one request, two keys");
        Ok(identity.clone())
    }

    fn key(&self, slot: Slot) -> Result<Arc<dyn Signer>, Failure> {
        self.keys.signer(slot).map_err(|failure| Failure::from(&failure))
    }
}

impl Clock for World {
    fn now(&mut self) -> Now {
        Now { mono: Mono(self.mono.get()), wall: Some(self.wall()), synchronised: true }
    }
}

impl Wait for World {
    async fn wait(&mut self, deadline: Mono) -> Wake {
        self.mono.set(self.mono.get().max(deadline.0));
        Wake::Tick
    }
}

impl Reports for World {
    fn report(&mut self, _now: Now, event: Event) {
        self.events.borrow_mut().push(event);
    }
}

impl port::Peers for Peers {
    /// Issues once for a request, and again the same for the same.
    async fn enroll(
        &mut self,
        request: &Request,
        slot: Slot,
        _current: Option<(Slot, &Identity)>,
        _reading: Reading,
    ) -> Answer<Identity> {
        let outcome = self.issue(request, slot);
        // Issued, and then the answer may be lost.
        self.world.call().await;
        Answer { outcome, server_time: Some(self.world.wall()) }
    }

    async fn prove(&mut self, slot: Slot, identity: &Identity, _: Reading) -> Answer<Proof> {
        if let Err(failure) = self.key(slot) {
            return Answer::failed(failure);
        }
        self.world.call().await;
        let proof = Proof { serial: identity.serial.clone(), broker: BrokerProof::Connected };
        Answer { outcome: Ok(proof), server_time: Some(self.world.wall()) }
    }

    async fn consult(&mut self, slot: Slot, _: &Identity, _: Reading) -> Answer<Advice> {
        if let Err(failure) = self.key(slot) {
            return Answer::failed(failure);
        }
        self.world.call().await;
        let advice = Advice { window: None, retry_after_s: 86_400 };
        Answer { outcome: Ok(advice), server_time: Some(self.world.wall()) }
    }

    async fn adopt(&mut self, slot: Slot, _: &Identity, _: Reading) -> Result<(), Failure> {
        self.key(slot)?;
        self.world.call().await;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Whether the third identity is in use and everything before it is cleared away.
fn renewed_twice(world: &World) -> impl Fn(&Machine) -> bool {
    let issued = Rc::clone(&world.issued);
    move |machine| {
        let record = machine.record();
        issued.borrow().len() == 3
            && record.candidate().is_none()
            && record.active_identity().is_some_and(|identity| identity.serial == [3])
            && machine.adopted() == record.active
    }
}

fn assert_whole(world: &World, record: &Record) {
    let active = record.active.unwrap();
    let identity = record.active_identity().unwrap();
    let signer = world.keys().signer(active).unwrap();
    assert_eq!(digest(&SHA256, signer.spki()).as_ref(), identity.spki_sha256);
    let key = format!("key.{}", active.as_str());
    assert_eq!(world.disk.names(), [key.as_str(), "record.a", "record.b"]);
    assert_eq!(world.store().load().unwrap().as_ref(), Some(record));
    assert_eq!(world.issued.borrow().len(), 3, "one certificate for each request");
}

// Goal: from first boot to the second renewal, in one run, leaving one key and its record.
#[test]
fn a_device_enrolls_and_renews_twice() {
    for rekey in [Rekey::Always, Rekey::Never] {
        let world = World::default();
        let record = world.run(rekey, renewed_twice(&world)).unwrap();
        assert_whole(&world, &record);
        let keys: std::collections::BTreeSet<_> =
            world.issued.borrow().values().map(|identity| identity.spki_sha256).collect();
        assert_eq!(keys.len(), if rekey == Rekey::Always { 3 } else { 1 });
        let events = world.events.borrow();
        let proven = events.iter().filter(|event| matches!(event, Event::Proven { .. })).count();
        assert_eq!(proven, 3);
        assert!(!events.iter().any(|event| matches!(event, Event::Failed { .. })), "{events:?}");
    }
}

// Goal: cut off during any call to a peer, with the power going, the device goes on: no identity
// is lost, no request is issued for twice, nothing is left behind.
#[test]
fn a_restart_during_any_call_loses_nothing() {
    for rekey in [Rekey::Always, Rekey::Never] {
        for silent_at in 1.. {
            let world = World { silent_at, ..World::default() };
            let first = world.run(rekey, renewed_twice(&world));
            let survived = first.is_some();
            let record = first.unwrap_or_else(|| {
                world.disk.power_cycle(silent_at as u64);
                world.run(rekey, renewed_twice(&world)).unwrap()
            });
            assert_whole(&world, &record);
            if survived {
                assert!(silent_at > 10, "only {silent_at} calls were cut");
                break;
            }
        }
    }
}

// Goal: the power goes at any operation on the disk, in the middle of the machine's life, and the
// device still ends with its third identity and nothing but that.
#[test]
fn a_power_cut_at_any_disk_operation_loses_nothing() {
    for cut in 1.. {
        let world = World::default();
        world.disk.cut_at(cut);
        let mut record = None;
        let mut fired = false;
        // After the cut every operation fails; the shell waits and tries until it is restarted.
        let stopped = |machine: &Machine| world.disk.is_off() || renewed_twice(&world)(machine);
        let first = world.run(Rekey::Always, stopped);
        if world.disk.is_off() {
            fired = true;
            world.disk.power_cycle(cut as u64 % MOODS);
        } else {
            record = first;
        }
        let record =
            record.unwrap_or_else(|| world.run(Rekey::Always, renewed_twice(&world)).unwrap());
        let active = record.active.unwrap();
        world.keys().signer(active).unwrap();
        assert_eq!(world.issued.borrow().len(), 3, "cut at {cut}");
        if !fired {
            assert!(cut > 60, "only {cut} operations were cut");
            break;
        }
    }
}
