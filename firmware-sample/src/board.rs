//! What a board must give, and the boards there are.
//!
//! **What it is.** One small set of traits: a clock, a serial line, seeds for randomness, three
//! regions of flash, a network device and, where there is one, a way to a TPM. All the rest of
//! this crate is written against them, so that a third board is one module beside
//! `riscv32_virt` and `mps2_an386`: `docs/porting.md`.
//!
//! **What it must never do.** Decide, or wait without an end. A driver moves octets and tells what
//! the hardware said; whatever polls a register gives up at a time of the board's clock.
//!
//! **Why that is sound.** A board's module is the only place where this crate is `unsafe`: it
//! begins a program, knows addresses, and shares memory with devices. Each such module is
//! compiled for its own target only, and none of its types lets a caller break what it promises.

#[cfg(any(
    test,
    all(feature = "mps2-an386", target_arch = "arm"),
    all(feature = "riscv32-virt", target_arch = "riscv32"),
))]
mod copy;
#[cfg(all(feature = "mps2-an386", target_arch = "arm"))]
pub mod mps2_an386;
#[cfg(all(feature = "riscv32-virt", target_arch = "riscv32"))]
pub mod riscv32_virt;
#[cfg(any(
    all(feature = "mps2-an386", target_arch = "arm"),
    all(feature = "riscv32-virt", target_arch = "riscv32"),
))]
mod stack;

use core::fmt;

use embedded_storage_async::nor_flash::{NorFlash, NorFlashErrorKind};
use fleetcert_tpm::transact::Transact;
use smoltcp::phy::Device;

use crate::console::show_code;
use crate::ecdsa::Ecdsa;
use crate::keystore::{KeyStore, LayoutError};
use crate::random::Generator;

/// Octets of an Ethernet address.
pub const MAC_LEN: usize = 6;

/// A board, as a set of types.
pub trait Board {
    /// Its clocks.
    type Clock: Clock;
    /// Who verifies signatures; and makes them, where the keys are in software.
    type Ecdsa: Copy + Default + Ecdsa;
    /// Its flash, in regions.
    type Flash: NorFlash<Error: fmt::Display>;
    /// Where its keys live.
    type Keys: KeyStore + 'static;
    /// Its network device.
    type Link: Link;
    /// The way to its TPM. A board that will never have one says [`NoTpm`].
    type Tpm: Transact<Error: fmt::Display>;

    /// What people call it.
    const NAME: &'static str;

    /// Hands out what the board has. Only the first call gets anything.
    ///
    /// # Errors
    ///
    /// [`BoardError`] names the part without which nothing can begin. A TPM that does not answer is
    /// not one of them: it is found out by who talks to it.
    fn take() -> Result<Parts<Self>, BoardError>
    where
        Self: Sized;

    /// The key store, made of what the board has for it, in memory that stays.
    ///
    /// # Errors
    ///
    /// [`BoardError::Keys`] when it does not fit the flash. A TPM is not asked for anything yet.
    fn keys(
        flash: Self::Flash,
        tpm: Option<Self::Tpm>,
        random: Generator,
    ) -> Result<&'static mut Self::Keys, BoardError>;

    /// The most that the stack has held since the start, octets, by the pattern that the start-up
    /// code has painted it with; and the most that it can hold.
    fn stack() -> Stack;

    /// Ends the program: switches the board off, or stands still where it cannot be.
    fn exit(ending: Ending) -> !;
}

/// All parts of a board, each once.
pub struct Parts<B: Board> {
    /// The clocks; copies are the same clocks.
    pub clock: B::Clock,
    /// Where the record is kept.
    pub record: B::Flash,
    /// Where software keys, or wrapped blobs of a TPM's keys, are kept.
    pub keys: B::Flash,
    /// Where the factory has written its configuration ([`crate::factory`]).
    pub factory: B::Flash,
    /// The network device.
    pub link: B::Link,
    /// The way to the TPM, where the board has a place for one.
    pub tpm: Option<B::Tpm>,
    /// Random octets, seeded by the board's hardware.
    pub random: Generator,
}

/// The board's clocks. A copy is the same clock.
pub trait Clock: Copy {
    /// Milliseconds since the start; never goes back.
    fn now_ms(&self) -> u64;

    /// Seconds since 1970 by a clock that runs without power, unjudged: it may be set wrong.
    /// `None` where there is no such clock.
    fn wall_s(&self) -> Option<u64>;

    /// Instructions that the processor has done since the start, without its rests, as nearly as the
    /// board can tell; 0 where it cannot. For comparisons: nothing depends on it.
    fn instructions(&self) -> u64 {
        0
    }

    /// Gives the processor a rest of at most two milliseconds: between two looks at the network.
    fn rest(&self);
}

/// A serial line for people.
pub trait Serial: Sync {
    /// Sends all octets. A line on which nobody listens does not hold up anybody for long.
    fn write(&self, octets: &[u8]);
}

/// A network device, and whether there is a network behind it.
pub trait Link: Device {
    /// Whether the cable is in, as the device sees it.
    fn is_up(&mut self) -> bool;

    /// Its Ethernet address.
    fn mac(&self) -> [u8; MAC_LEN];
}

/// Where a flash access begins, after it was checked: inside `capacity`, and from and to a whole
/// `unit` of octets.
///
/// # Errors
///
/// What the access is instead.
pub fn check_access(
    offset: u32,
    len: usize,
    unit: usize,
    capacity: usize,
) -> Result<usize, NorFlashErrorKind> {
    let start = usize::try_from(offset).map_err(|_| NorFlashErrorKind::OutOfBounds)?;
    if len > capacity || start > capacity - len {
        return Err(NorFlashErrorKind::OutOfBounds);
    }
    if !start.is_multiple_of(unit) || !len.is_multiple_of(unit) {
        return Err(NorFlashErrorKind::NotAligned);
    }
    Ok(start)
}

/// How far the stack has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Octets that have been in use at the same time, at most.
    pub peak_len: usize,
    /// Octets that there are.
    pub len: usize,
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did not do what it should.
    Failure,
    /// It did what it should.
    Success,
}

/// Why a board cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// The flash is not the one that the board is built with.
    Flash {
        /// What of it is wrong.
        reason: &'static str,
    },
    /// The key store does not fit the flash that the board has for it.
    Keys(LayoutError),
    /// The network device is not there, or does not do as asked.
    Link {
        /// What of it is wrong.
        reason: &'static str,
    },
    /// There is no randomness to begin with.
    Random {
        /// What of it is wrong.
        reason: &'static str,
    },
    /// The parts have been handed out already.
    Taken,
}

impl BoardError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Flash { .. } => "flash",
            Self::Keys(error) => error.code(),
            Self::Link { .. } => "link",
            Self::Random { .. } => "random",
            Self::Taken => "taken",
        }
    }
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::Flash { reason } | Self::Link { reason } | Self::Random { reason } => reason,
            Self::Keys(error) => return error.fmt(f),
            Self::Taken => "",
        };
        show_code(f, "board", self.code())?;
        write!(f, " {reason}")
    }
}

impl core::error::Error for BoardError {}

impl From<LayoutError> for BoardError {
    fn from(error: LayoutError) -> Self {
        Self::Keys(error)
    }
}

/// The way to a TPM on a board that has no place for one: there is no value of it.
#[derive(Clone, Copy, Debug)]
pub enum NoTpm {}

impl fmt::Display for NoTpm {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Transact for NoTpm {
    type Error = NoTpm;

    fn transact(&mut self, _command: &[u8], _response: &mut [u8]) -> Result<usize, NoTpm> {
        match *self {}
    }

    fn pause_ms(&mut self, _ms: u32) {
        match *self {}
    }

    fn entropy(&mut self, _out: &mut [u8]) -> Result<(), NoTpm> {
        match *self {}
    }
}

/// Makes a function, `fn() -> !`, the program that a board's start-up code begins.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn fleetcert_main() -> ! {
            $main()
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an access outside a region, or across a part of a word, never reaches a chip.
    #[test]
    fn an_access_is_inside_its_region_and_whole() {
        assert_eq!(check_access(0, 16, 4, 16), Ok(0));
        assert_eq!(check_access(12, 4, 4, 16), Ok(12));
        assert_eq!(check_access(16, 0, 4, 16), Ok(16));
        for (offset, len) in [(0, 20), (12, 8), (20, 0), (u32::MAX, 4), (4, usize::MAX)] {
            assert_eq!(check_access(offset, len, 4, 16), Err(NorFlashErrorKind::OutOfBounds));
        }
        for (offset, len) in [(2, 4), (4, 2)] {
            assert_eq!(check_access(offset, len, 4, 16), Err(NorFlashErrorKind::NotAligned));
        }
    }
}
