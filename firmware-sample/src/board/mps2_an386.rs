//! Arm's MPS2 board with the image AN386 (Cortex-M4), as QEMU emulates it: LAN9118 Ethernet, and a
//! host behind semihosting.
//!
//! | what | where | by |
//! |---|---|---|
//! | code | 0x00000000 | the linker script `link.ld`, which QEMU's `-kernel` loads |
//! | stack, data | 0x20000000 | `start`: below it there is nothing to overflow into |
//! | serial line | 0x40004000 | `uart`, a CMSDK UART |
//! | clock | 0x40028018 | `clock`, the FPGA's counter, in milliseconds |
//! | network | 0x40200000 | `lan9118` |
//! | flash | `flash.img` in the host's folder | `flash`, a file by semihosting |
//! | randomness | `/dev/urandom` of the host | `semihosting`; asked once |
//!
//! The board has neither a TPM nor NOR flash nor a source of randomness of its own. Semihosting
//! stands for all three here and for nothing on a real device.
#![expect(unsafe_code, reason = "a board's module is where registers and memory are touched")]

mod clock;
mod flash;
mod lan9118;
mod mmio;
mod semihosting;
mod start;
mod uart;

use core::sync::atomic::{AtomicBool, Ordering};

use static_cell::StaticCell;

use crate::board::{Board, BoardError, Ending, NoTpm, Parts, Stack, stack};
use crate::console::Console;
use crate::ecdsa::CortexM4;
use crate::keystore::software::SoftwareKeys;
use crate::random::{Generator, SEED_LEN};

pub use self::clock::FpgaClock;
pub use self::flash::{FlashError, Region};
pub use self::lan9118::Lan9118;
pub use self::uart::Uart;

/// The board.
#[derive(Debug)]
pub enum Mps2An386 {}

static CONSOLE: Console<Uart, FpgaClock> = Console::new(Uart, FpgaClock);

static KEYS: StaticCell<<Mps2An386 as Board>::Keys> = StaticCell::new();

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Board for Mps2An386 {
    type Clock = FpgaClock;
    type Ecdsa = CortexM4;
    type Flash = Region;
    type Keys = SoftwareKeys<Region, Generator, CortexM4>;
    type Link = Lan9118;
    type Tpm = NoTpm;

    const NAME: &'static str = "mps2-an386";

    fn take() -> Result<Parts<Self>, BoardError> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(BoardError::Taken);
        }
        let [record, keys, factory] =
            Region::open().ok_or(BoardError::Flash { reason: "no file flash.img of its size" })?;
        let mut seed = [0; SEED_LEN];
        semihosting::read_file(c"/dev/urandom", &mut seed)
            .ok_or(BoardError::Random { reason: "the host gives none" })?;
        let link = Lan9118::open().map_err(|reason| BoardError::Link { reason })?;
        let random = Generator::from_seed(&seed);
        Ok(Parts { clock: FpgaClock, record, keys, factory, link, tpm: None, random })
    }

    fn keys(
        flash: Region,
        _: Option<NoTpm>,
        random: Generator,
    ) -> Result<&'static mut Self::Keys, BoardError> {
        let place = KEYS.try_uninit().ok_or(BoardError::Taken)?;
        Ok(place.write(SoftwareKeys::new(flash, 0, random)?))
    }

    fn stack() -> Stack {
        stack::measure()
    }

    fn exit(ending: Ending) -> ! {
        start::exit(ending)
    }
}

/// Before anything of the application: it may speak from its first line on.
fn begin() {
    clock::begin();
    uart::begin();
    // It is the first and only one.
    let _ = log::set_logger(&CONSOLE);
}
