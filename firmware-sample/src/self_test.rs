//! What a board must pass before anything is built on it.
//!
//! **What it is.** Each part of a board used once, as the lifecycle will use it: the factory
//! configuration is read, the board's arithmetic tried on known examples, a sector of flash erased, written and read back, the TPM started and
//! asked, an address taken, a line sent to the host that the configuration calls the provisioner
//! and its answer read. Each step says on the serial line what it saw; the last one how far the
//! stack has grown. It is the first program for a new board, and what a line engineer has a device
//! run before it is boxed.
//!
//! **What it must never do.** Touch what a device lives by: it stays out of the record's region
//! and uses the last sector of the keys' region only if that is erased.
//!
//! **Why that is sound.** It is a test: it tells, and changes nothing that outlives it.

mod steps;

use p256::elliptic_curve::rand_core::RngCore;

use crate::board::{Board, Parts};
use crate::console::{error, info};
use crate::factory::Factory;
use crate::net::{Buffers, Net, Sockets};

use self::steps::Trouble;

/// Tests board `B`, says what was found, and whether all of it is well.
pub fn run<B: Board>(
    parts: Parts<B>,
    factory: &Factory<'_>,
    buffers: &'static mut Buffers,
    sockets: &'static mut Sockets<'static>,
) -> bool {
    info(format_args!("self-test"));
    let outcome = test::<B>(parts, factory, buffers, sockets);
    match &outcome {
        Ok(()) => info(format_args!("self-test passed")),
        Err(why) => error(format_args!("self-test failed: {why}")),
    }
    outcome.is_ok()
}

fn test<B: Board>(
    mut parts: Parts<B>,
    factory: &Factory<'_>,
    buffers: &'static mut Buffers,
    sockets: &'static mut Sockets<'static>,
) -> Result<(), Trouble> {
    steps::factory(factory);
    steps::signatures::<B>()?;
    steps::flash(&mut parts.keys)?;
    if let Some(tpm) = &mut parts.tpm {
        steps::tpm(tpm)?;
    }
    let net = Net::new(parts.link, parts.clock, sockets, buffers, parts.random.next_u64());
    steps::network(&net, factory)
}
