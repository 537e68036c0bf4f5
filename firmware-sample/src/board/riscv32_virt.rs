//! QEMU's machine `virt` with a 32-bit RISC-V: TPM over TIS, virtio-net, parallel NOR flash.
//!
//! | what | where | by |
//! |---|---|---|
//! | code | 0x80000000 | the linker script `link.ld`, which QEMU's `-bios` loads |
//! | stack, data | 0x80100000 | `start`: what the stack would overflow into is out of bounds |
//! | serial line | 0x10000000 | `uart`, an NS16550A |
//! | flash | 0x22000000 | `flash`, the machine's second bank (`-drive if=pflash,unit=1`) |
//! | network | 0x10001000…0x10008000 | `network`, a virtio device in one of eight places |
//! | randomness | the same | `entropy`, a virtio device; asked once |
//! | TPM | 0x04000000 | `tis`, `-device tpm-tis-device` |
//! | clocks | 0x0200bff8, 0x00101000 | `clock`, the hart's timer and a goldfish RTC |
//! | end | 0x00100000 | `start`, the test device |
#![expect(unsafe_code, reason = "a board's module is where registers and memory are touched")]

mod clock;
mod entropy;
mod flash;
mod mmio;
mod network;
mod save;
mod start;
mod tis;
mod uart;
mod virtio;

use core::sync::atomic::{AtomicBool, Ordering};

use static_cell::StaticCell;

use crate::board::{Board, BoardError, Ending, Parts, Stack, stack};
use crate::console::Console;
use crate::ecdsa::Portable;
use crate::keystore::tpm::TpmKeys;
use crate::random::Generator;

pub use self::clock::VirtClock;
pub use self::flash::{FlashError, Region};
pub use self::network::Network;
pub use self::tis::{Tis, TisError, TisStep};
pub use self::uart::Uart;

/// The machine.
#[derive(Debug)]
pub enum Riscv32Virt {}

static CONSOLE: Console<Uart, VirtClock> = Console::new(Uart, VirtClock);

static KEYS: StaticCell<TpmKeys<Region, Tis>> = StaticCell::new();

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Board for Riscv32Virt {
    type Clock = VirtClock;
    type Ecdsa = Portable;
    type Flash = Region;
    type Keys = TpmKeys<Region, Tis>;
    type Link = Network;
    type Tpm = Tis;

    const NAME: &'static str = "riscv32-virt";

    fn take() -> Result<Parts<Self>, BoardError> {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(BoardError::Taken);
        }
        flash::identify().map_err(|reason| BoardError::Flash { reason })?;
        // First: it gives its memory back, and the network takes it.
        let seed = entropy::seed().map_err(|reason| BoardError::Random { reason })?;
        let mut random = Generator::from_seed(&seed);
        let link = network::open().map_err(|reason| BoardError::Link { reason })?;
        Ok(Parts {
            clock: VirtClock,
            record: Region::RECORD,
            keys: Region::KEYS,
            factory: Region::FACTORY,
            link,
            tpm: Some(Tis::new(random.split())),
            random,
        })
    }

    fn keys(
        flash: Region,
        tpm: Option<Tis>,
        _: Generator,
    ) -> Result<&'static mut Self::Keys, BoardError> {
        let place = KEYS.try_uninit().ok_or(BoardError::Taken)?;
        Ok(place.write(TpmKeys::new(flash, 0, tpm.ok_or(BoardError::Taken)?)?))
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
    // It is the first and only one.
    let _ = log::set_logger(&CONSOLE);
}
