//! The whole device: from power to a life in the fleet.
//!
//! **What it is.** What a board runs ([`run`]). It reads what the factory has written and what was
//! made durable, and then has the core's shell settle the machine, again and again between two looks
//! at the network. Whatever the machine wants of its peers is done here, with the one connection that
//! there is memory for: the session with the broker gives way when the provisioner is to be asked,
//! and comes back.
//!
//! **What it must never do.** Decide anything about the identity: that is the machine's. Begin
//! anew because something could not be read: a record that is damaged beyond reading, or another
//! device's, is told and left as it is.
//!
//! **Why that is sound.** There is one thread of control and every port ends by itself, at a
//! deadline of its own (`docs/decisions/0013-firmware-blocking.md`). What was durable before a loss
//! of power is all that this program knows after it, at any instant: it keeps nothing else that
//! matters. Its one connection at a time is argued in
//! `docs/decisions/0016-one-connection-on-a-microcontroller.md`.

mod broker;
mod desk;
mod driver;
mod health;
mod line;
mod ports;
mod provisioner;

use core::cell::RefCell;
use core::fmt;

use embedded_storage_async::nor_flash::{NorFlash, ReadNorFlash as _};
use fleetcert_core::der::Certificate;
use fleetcert_core::lifecycle::{Command, Machine, Unexpected};
use fleetcert_core::policy::{Policy, Rekey};
use fleetcert_core::port::Clock as _;
use fleetcert_core::record::{Record, Slot, Standing};
use fleetcert_core::shell::Ports;
use fleetcert_core::time::{Now, Wall};
use p256::elliptic_curve::rand_core::RngCore as _;
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::{Board, BoardError, Ending, Parts};
use crate::console::{error, info, show_code};
use crate::factory::{self, FACTORY_BUFFER_LEN, Factory};
use crate::keystore::KeyStore as _;
use crate::net::{Buffers, Net, Sockets};
use crate::random::Generator;
use crate::self_test;
use crate::store::{FlashStore, Scratch};
use crate::tls::{self, Workspace};
use crate::verifier::{AnchorError, Verifier};

use self::broker::Lasting;
use self::desk::Desk;
use self::driver::{Driver, MachineRoom};
use self::line::Context;
use self::ports::{BoardClock, DeskReports, SharedKeys, SharedStore};

/// 2026-11-22: this release is not older.
const BUILD_TIME: Wall = Wall(1_795_305_600);

/// Octets that the machine's own draws begin with.
const SEED_LEN: usize = 32;

/// Memory that is there from the beginning; all zeros, which take no flash.
static MEMORY: ConstStaticCell<Memory> = ConstStaticCell::new(Memory {
    factory: [0; FACTORY_BUFFER_LEN],
    scratch: Scratch::new(),
    buffers: Buffers::new(),
    crypt: tls::Buffers::new(),
    lasting: Lasting::new(),
});

/// What is made in its place, and stays there: the network's sockets, the machine, and its desk.
static SOCKETS: StaticCell<Sockets<'static>> = StaticCell::new();
static MACHINE: StaticCell<Machine> = StaticCell::new();
static DESK: StaticCell<Desk> = StaticCell::new();

/// The parts' memory.
struct Memory {
    /// The octets of the factory's configuration.
    factory: [u8; FACTORY_BUFFER_LEN],
    /// The store's.
    scratch: Scratch,
    /// The network's.
    buffers: Buffers,
    /// The one connection's.
    crypt: tls::Buffers,
    /// What outlives a session with the broker.
    lasting: Lasting,
}

/// Why a device does not begin, or does not go on. All but the last are for people to mend.
#[derive(Debug)]
enum Stop {
    /// It runs already.
    Again,
    /// The board has not what it should.
    Board(BoardError),
    /// The factory's configuration is not there, or none.
    Factory,
    /// The record is another device's.
    ForeignRecord,
    /// The record cannot be read.
    Record,
    /// The pinned root is none.
    Root(AnchorError),
    /// Its self-test, which the factory asked for, found something.
    SelfTest,
    /// Machine and shell disagree: a fault of this program.
    Unexpected(Unexpected),
}

/// What lives: the parts, each in its place.
struct Device<B: Board> {
    clock: B::Clock,
    desk: &'static Desk,
    machine: &'static mut Machine,
    net: Net<'static, B::Link, B::Clock>,
    keys: RefCell<&'static mut B::Keys>,
    store: RefCell<FlashStore<'static, B::Flash>>,
    factory: Factory<'static>,
    verifier: Verifier<'static, B::Ecdsa>,
    random: RefCell<Generator>,
    crypt: &'static mut tls::Buffers,
    lasting: &'static mut Lasting,
}

/// Lives, as board `B`, until power is cut.
pub fn run<B: Board>() -> ! {
    info(format_args!("fleetcert firmware {} on {}", env!("CARGO_PKG_VERSION"), B::NAME));
    let ending = match live::<B>() {
        Ok(()) => Ending::Success,
        Err(why) => {
            error(format_args!("stopped: {why}"));
            Ending::Failure
        }
    };
    driver::report_stack::<B>(&mut 0);
    B::exit(ending)
}

/// From the parts to a life, or to the reason why there is none.
#[inline(never)]
fn live<B: Board>() -> Result<(), Stop> {
    match assemble::<B>() {
        Ok(Some(ref mut device)) => Err(device.live()),
        Ok(None) => Ok(()),
        Err(why) => Err(why),
    }
}

/// Makes a device of the board's parts; `None` when it was only to examine itself. What that takes
/// of the stack, copies of most parts, is given back before its life begins.
#[inline(never)]
fn assemble<B: Board>() -> Result<Option<Device<B>>, Stop> {
    let mut parts = take::<B>()?;
    let Memory { factory, scratch, buffers, crypt, lasting } =
        MEMORY.try_take().ok_or(Stop::Again)?;
    let factory = factory::load(&mut parts.factory, factory).map_err(|why| {
        error(format_args!("factory configuration: {why}"));
        Stop::Factory
    })?;
    let sockets = SOCKETS.try_init_with(Sockets::new).ok_or(Stop::Again)?;
    if factory.policy.self_test {
        return examine(parts, &factory, buffers, sockets).map(|()| None);
    }
    let Parts { clock, record, keys, link, tpm, mut random, .. } = parts;
    let end = u32::try_from(record.capacity()).map_err(|_| Stop::Record)?;
    let mut store = FlashStore::new(record, 0..end, scratch).map_err(|_| Stop::Record)?;
    let mut seed = [0; SEED_LEN];
    random.fill_bytes(&mut seed);
    let (machine, desk) = furnish(&mut store, &factory, seed, BoardClock(clock).now())?;
    let keys = B::keys(keys, tpm, random.split()).map_err(Stop::Board)?;
    info(format_args!("device {}: keys in {}", factory.device_id.as_str(), keys.backend()));
    let verifier =
        Verifier::new(&[factory.server_root], B::Ecdsa::default()).map_err(Stop::Root)?;
    Ok(Some(Device {
        clock,
        desk,
        machine,
        net: Net::new(link, clock, sockets, buffers, random.next_u64()),
        keys: RefCell::new(keys),
        store: RefCell::new(store),
        factory,
        verifier,
        random: RefCell::new(random),
        crypt,
        lasting,
    }))
}

impl<B: Board> Device<B> {
    /// The driver of the machine, until it stops.
    #[inline(never)]
    fn live(&mut self) -> Stop {
        let Self { clock, desk, machine, net, keys, store, factory, verifier, random, .. } = self;
        let (clock, desk) = (*clock, *desk);
        let context = Context::<B> { clock, desk, net, keys, store, factory, verifier, random };
        self.lasting.resume(context.reserved());
        let ports = Ports {
            clock: BoardClock(clock),
            storage: SharedStore { store: context.store },
            keys: SharedKeys(context.keys),
            peers: (),
            reports: DeskReports(desk),
            wait: (),
        };
        let driver = Driver {
            room: MachineRoom::new(context, machine, ports),
            workspace: Workspace::new(self.crypt),
            lasting: self.lasting,
        };
        Stop::Unexpected(driver.run())
    }
}

/// The board's parts. What it takes of the stack to make them is given back.
#[inline(never)]
fn take<B: Board>() -> Result<Parts<B>, Stop> {
    B::take().map_err(Stop::Board)
}

/// The self-test, instead of a life.
#[inline(never)]
fn examine<B: Board>(
    parts: Parts<B>,
    factory: &Factory<'_>,
    buffers: &'static mut Buffers,
    sockets: &'static mut Sockets<'static>,
) -> Result<(), Stop> {
    if self_test::run(parts, factory, buffers, sockets) { Ok(()) } else { Err(Stop::SelfTest) }
}

/// Puts the machine and its desk where they stay, with the record to start from.
#[inline(never)]
fn furnish<F: NorFlash<Error: fmt::Display>>(
    store: &mut FlashStore<'_, F>,
    factory: &Factory<'_>,
    seed: [u8; SEED_LEN],
    now: Now,
) -> Result<(&'static mut Machine, &'static Desk), Stop> {
    let machine = blank(factory, seed, now)?;
    machine.recall(now, |record| load(store, factory, record))?;
    let desk = DESK.try_uninit().ok_or(Stop::Again)?;
    let desk = desk.write(Desk::new());
    let is_member = machine.record().standing != Standing::Decommissioned;
    if factory.policy.decommission && is_member {
        let _first = desk.command(Command::Decommission);
    }
    Ok((machine, desk))
}

/// A machine that knows nothing, where it stays. What its making takes of the stack is given back
/// before the record is read.
#[inline(never)]
fn blank(
    factory: &Factory<'_>,
    seed: [u8; SEED_LEN],
    now: Now,
) -> Result<&'static mut Machine, Stop> {
    let place = MACHINE.try_uninit().ok_or(Stop::Again)?;
    let (device_id, record) = (factory.device_id.clone(), Record::new(BUILD_TIME));
    Ok(place.write(Machine::new(policy(factory), device_id, record, seed, now)))
}

fn policy(factory: &Factory<'_>) -> Policy {
    Policy {
        build_time: BUILD_TIME,
        rekey: if factory.policy.keep_key { Rekey::Never } else { Rekey::Always },
        availability_target_s: 0,
    }
}

/// Reads the record to start from, which is no other device's; a device without one has a life
/// before it.
fn load<F: NorFlash<Error: fmt::Display>>(
    store: &mut FlashStore<'_, F>,
    factory: &Factory<'_>,
    record: &mut Record,
) -> Result<(), Stop> {
    let _is_there = store.load_into(record).map_err(|why| {
        error(format_args!("record: {why}"));
        Stop::Record
    })?;
    for identity in Slot::ALL.into_iter().filter_map(|slot| record.identity(slot)) {
        let name = Certificate::parse(&identity.certificate).ok();
        let name = name.as_ref().and_then(|certificate| certificate.common_name().ok());
        if name.is_some_and(|name| name != factory.device_id.as_str()) {
            return Err(Stop::ForeignRecord);
        }
    }
    tell_identity(record);
    Ok(())
}

fn tell_identity(record: &Record) {
    match (record.active, record.active_identity()) {
        (Some(slot), Some(identity)) => info(format_args!(
            "identity: {} in slot {} until {}",
            Hex(&identity.serial),
            slot.as_str(),
            identity.validity.not_after
        )),
        _ => info(format_args!("identity: none")),
    }
}

/// Octets in lower-case hexadecimal digits.
struct Hex<'h>(&'h [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Stop {
    /// A stable name, as `docs/serial.md` has it.
    const fn code(&self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::Board(_) => "board",
            Self::Factory => "factory",
            Self::ForeignRecord => "foreign-record",
            Self::Record => "record",
            Self::Root(_) => "root",
            Self::SelfTest => "self-test",
            Self::Unexpected(_) => "unexpected",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board(error) => error.fmt(f),
            Self::Root(error) => error.fmt(f),
            Self::Unexpected(Unexpected { expected: Some((_, operation)), .. }) => {
                show_code(f, "device", self.code())?;
                write!(f, " {}", operation.code())
            }
            _ => show_code(f, "device", self.code()),
        }
    }
}
