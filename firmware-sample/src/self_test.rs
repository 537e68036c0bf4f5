//! What a board must pass before anything is built on it.
//!
//! **What it is.** Each part of a board used once, as the lifecycle will use it: the factory
//! configuration is read, a sector of flash erased, written and read back, the TPM started and
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

use log::{error, info};
use p256::elliptic_curve::rand_core::RngCore;
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::{Board, Ending, Parts};
use crate::factory::FACTORY_BUFFER_LEN;
use crate::net::{Buffers, Net, Sockets};

use self::steps::Trouble;

/// The octets of the configuration.
static FACTORY: ConstStaticCell<[u8; FACTORY_BUFFER_LEN]> =
    ConstStaticCell::new([0; FACTORY_BUFFER_LEN]);

/// The network's memory.
static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers::new());
static SOCKETS: StaticCell<Sockets<'static>> = StaticCell::new();

/// Tests board `B`, says what was found, and ends.
pub fn run<B: Board>() -> ! {
    info!("fleetcert firmware {} on {}: self-test", env!("CARGO_PKG_VERSION"), B::NAME);
    let ending = match B::take() {
        Ok(parts) => judge(&test::<B>(parts)),
        Err(why) => {
            error!("the board cannot begin: {why}");
            Ending::Failure
        }
    };
    let stack = B::stack();
    info!("stack: {} of {} octets at its peak", stack.peak_len, stack.len);
    B::exit(ending)
}

fn judge(outcome: &Result<(), Trouble>) -> Ending {
    match outcome {
        Ok(()) => {
            info!("self-test passed");
            Ending::Success
        }
        Err(why) => {
            error!("self-test failed: {why}");
            Ending::Failure
        }
    }
}

fn test<B: Board>(mut parts: Parts<B>) -> Result<(), Trouble> {
    let (Some(buffer), Some(buffers), Some(sockets)) =
        (FACTORY.try_take(), BUFFERS.try_take(), SOCKETS.try_init_with(Sockets::new))
    else {
        return Err(Trouble::Again);
    };
    let factory = steps::factory(&mut parts.factory, buffer)?;
    steps::flash(&mut parts.keys)?;
    if let Some(tpm) = &mut parts.tpm {
        steps::tpm(tpm)?;
    }
    let net = Net::new(parts.link, parts.clock, sockets, buffers, parts.random.next_u64());
    steps::network(&net, &factory)
}
