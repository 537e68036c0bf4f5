//! A board on which time passes when it is told to, whose cable is not plugged in, and whose keys are
//! always there.

use core::cell::{Cell, RefCell};
use std::boxed::Box;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::policy::Policy;
use fleetcert_core::record::{KeySource, Record};
use fleetcert_core::time::Now;
use fleetcert_core::wire::Challenge;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::board::{self, BoardError, Link, MAC_LEN, NoTpm, Parts, Stack};
use crate::ecdsa::Portable;
use crate::factory::{self, Factory, Server};
use crate::flash_model::{FlashModel, SECTOR_LEN};
use crate::keystore::{Introduction, KeyStore, SIGNATURE_LEN, SPKI_LEN};
use crate::net::{Buffers, Net, Sockets};
use crate::random::{Generator, SEED_LEN};
use crate::store::{FlashStore, Scratch};
use crate::tls;
use crate::verifier::Verifier;

use super::super::super::desk::Desk;
use super::super::super::ports::{BoardClock, DeskReports, SharedKeys, SharedStore};
use super::*;

/// When time begins.
pub(super) const START: Wall = Wall(1_800_000_000);

/// A certificate that servers' certificates could lead to, if there were any.
const SERVER_ROOT: &[u8] = include_bytes!("../../../../../tests/fuzz/server-root.der");

/// Octets of the record's flash.
const RECORD_LEN: u32 = 4 * SECTOR_LEN;

/// The board.
pub(super) struct Bench;

/// Time, which passes while the processor rests.
#[derive(Clone, Copy)]
pub(super) struct BenchClock(&'static Cell<u64>);

/// A network device without a cable.
pub(super) struct Unplugged;

/// What never comes or goes.
pub(super) enum Frame {}

/// Keys that are always there; how often they were wiped.
pub(super) struct BenchKeys(&'static Cell<u32>);

/// The parts that a driver drives. Leaks them: a test is a process.
pub(super) struct World {
    pub(super) store: &'static RefCell<FlashStore<'static, FlashModel>>,
    context: Context<'static, Bench>,
    wiped: &'static Cell<u32>,
}

fn leaked<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

impl World {
    pub(super) fn new() -> Self {
        let clock = BenchClock(leaked(Cell::new(0)));
        let wiped: &Cell<u32> = leaked(Cell::new(0));
        let scratch = leaked(Scratch::new());
        let flash = FlashModel::blank(RECORD_LEN);
        let store = FlashStore::new(flash, 0..RECORD_LEN, scratch).unwrap();
        let store: &RefCell<_> = leaked(RefCell::new(store));
        let (sockets, buffers) = (leaked(Sockets::new()), leaked(Buffers::new()));
        let factory = Factory {
            device_id: DeviceId::parse("gw-1").unwrap(),
            policy: factory::Policy::default(),
            provisioner: Server::new("10.0.2.2", 8443).unwrap(),
            label: None,
            server_root: SERVER_ROOT,
            token: None,
            broker: Server::new("10.0.2.2", 8883),
        };
        let context = Context {
            clock,
            desk: leaked(Desk::new()),
            net: leaked(Net::new(Unplugged, clock, sockets, buffers, 1)),
            keys: leaked(RefCell::new(leaked(BenchKeys(wiped)))),
            store,
            factory: leaked(factory),
            verifier: leaked(Verifier::new(&[SERVER_ROOT], Portable).unwrap()),
            random: leaked(RefCell::new(Generator::from_seed(&[1; SEED_LEN]))),
        };
        Self { store, context, wiped }
    }

    /// The driver of a device that starts with this record.
    pub(super) fn driver(&self, record: Record) -> Driver<'static, Bench> {
        let context = self.context;
        let device = context.factory.device_id.clone();
        let now = Now { mono: Mono(0), wall: Some(START), synchronised: false };
        let machine = leaked(Machine::new(Policy::default(), device, record, [1; 32], now));
        let ports = Ports::<Bench> {
            clock: BoardClock(context.clock),
            storage: SharedStore { store: context.store },
            keys: SharedKeys(context.keys),
            peers: (),
            reports: DeskReports(context.desk),
            wait: (),
        };
        Driver {
            room: MachineRoom::new(context, machine, ports),
            workspace: Workspace::new(leaked(tls::Buffers::new())),
            lasting: leaked(Lasting::new()),
        }
    }

    /// How often the keys were wiped.
    pub(super) fn wiped(&self) -> u32 {
        self.wiped.get()
    }
}

impl Board for Bench {
    type Clock = BenchClock;
    type Ecdsa = Portable;
    type Flash = FlashModel;
    type Keys = BenchKeys;
    type Link = Unplugged;
    type Tpm = NoTpm;

    const NAME: &'static str = "bench";

    fn take() -> Result<Parts<Self>, BoardError> {
        Err(BoardError::Taken)
    }

    fn keys(
        _: FlashModel,
        _: Option<NoTpm>,
        _: Generator,
    ) -> Result<&'static mut BenchKeys, BoardError> {
        Err(BoardError::Taken)
    }

    fn stack() -> Stack {
        Stack { peak_len: 0, len: 0 }
    }

    fn exit(ending: board::Ending) -> ! {
        panic!("{ending:?}")
    }
}

impl BenchClock {
    pub(super) fn pass(&self, ms: u64) {
        self.0.set(self.0.get() + ms);
    }
}

impl board::Clock for BenchClock {
    fn now_ms(&self) -> u64 {
        self.0.get()
    }

    fn wall_s(&self) -> Option<u64> {
        Some(START.plus_s(self.0.get() / 1000).0)
    }

    fn rest(&self) {
        self.pass(1);
    }
}

impl Link for Unplugged {
    fn is_up(&mut self) -> bool {
        false
    }

    fn mac(&self) -> [u8; MAC_LEN] {
        [2, 0, 0, 0, 0, 2]
    }
}

impl Device for Unplugged {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Frame;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Frame)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Frame> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, _: F) -> R {
        match self {}
    }
}

impl TxToken for Frame {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, _: F) -> R {
        match self {}
    }
}

impl KeyStore for BenchKeys {
    fn is_sound() -> bool {
        true
    }

    fn backend(&self) -> &'static str {
        "bench"
    }

    fn ensure(&mut self, slot: Slot, _: KeySource) -> Result<[u8; 32], KeyFault> {
        Ok([slot.index().to_le_bytes()[0] + 1; 32])
    }

    fn erase(&mut self, _: Slot) -> Result<(), KeyFault> {
        Ok(())
    }

    fn spki(&mut self, _: Slot) -> Result<[u8; SPKI_LEN], KeyFault> {
        Ok([0; SPKI_LEN])
    }

    fn probe(&mut self, _: Slot) -> Result<(), KeyFault> {
        Ok(())
    }

    fn sign(&mut self, _: Slot, _: &[u8; 32]) -> Result<[u8; SIGNATURE_LEN], KeyFault> {
        Err(KeyFault::Unavailable)
    }

    fn introduction<'b>(&mut self, _: &'b mut [u8]) -> Result<Option<Introduction<'b>>, KeyFault> {
        Ok(None)
    }

    fn vouch(&mut self, _: Slot, _: &Challenge<'_>, _: &mut [u8]) -> Result<usize, KeyFault> {
        Err(KeyFault::Unavailable)
    }

    fn wipe(&mut self) -> Result<(), KeyFault> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn close(&mut self) {}
}
