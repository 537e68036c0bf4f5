//! A TPM behind the register interface of PCs, TIS (TCG PC Client Platform TPM Profile §6.5), at
//! locality 0, polled.
//!
//! It moves commands and responses and looks into neither, but for the length in a response's
//! header. Each step of the protocol has a limit in time; after a failure the command is cancelled
//! by asking for the next one, so that the TPM is ready for it.

use core::arch::asm;
use core::fmt;

use fleetcert_tpm::transact::Transact;
use p256::elliptic_curve::rand_core::RngCore;

use crate::board::Clock;
use crate::console::show_code;
use crate::random::Generator;

use super::VirtClock;
use super::mmio::Register;

/// Locality 0 of the machine's TPM, which is not in its device tree.
const BASE: usize = 0x0400_0000;

// SAFETY: the registers of locality 0; `Tis` touches them only if there is a device.
const ACCESS: Register<u8> = unsafe { Register::new(BASE) };
// SAFETY: as above.
const STATUS: Register<u32> = unsafe { Register::new(BASE + 0x18) };
// SAFETY: as above.
const FIFO: Register<u8> = unsafe { Register::new(BASE + 0x24) };

const ACCESS_REQUEST: u8 = 1 << 1;
const ACCESS_ACTIVE: u8 = 1 << 5 | 1 << 7;

const STATUS_EXPECT: u32 = 1 << 3;
const STATUS_DATA: u32 = 1 << 4;
const STATUS_GO: u32 = 1 << 5;
const STATUS_READY: u32 = 1 << 6;
const STATUS_VALID: u32 = 1 << 7;
const ANSWERED: u32 = STATUS_VALID | STATUS_DATA;

/// `TIMEOUT_A`: until a locality is granted, or the FIFO takes or gives more.
const SHORT_MS_MAX: u32 = 750;

/// `TIMEOUT_B`: until the TPM is ready for a command.
const READY_MS_MAX: u32 = 2_000;

/// Until a command is answered: making an RSA key takes chips up to a minute.
const ANSWER_MS_MAX: u32 = 120_000;

/// Octets of a response's header: tag, length, code.
const HEADER_LEN: usize = 10;

/// The machine's TPM.
#[derive(Debug)]
pub struct Tis {
    is_there: bool,
    random: Generator,
}

/// What the TPM was to do when time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TisStep {
    /// Answer a command.
    Answer,
    /// Grant us locality 0.
    Locality,
    /// Be ready for a command.
    Ready,
    /// Give more of a response.
    Receive,
    /// Take more of a command.
    Send,
}

/// Why no response came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TisError {
    /// Nothing answers at its address.
    Absent,
    /// It takes the command for shorter or longer than it is.
    CommandLength,
    /// The response states a length that it cannot have, or that does not fit.
    ResponseLength,
    /// It did not do something in time.
    TimedOut {
        /// What.
        during: TisStep,
    },
}

impl Tis {
    /// The TPM, if there is one: an address without a device is an exception on this machine.
    pub(super) fn new(random: Generator) -> Self {
        Self { is_there: is_readable(BASE), random }
    }

    fn exchange(&self, command: &[u8], response: &mut [u8]) -> Result<usize, TisError> {
        STATUS.write(STATUS_READY);
        wait(READY_MS_MAX, TisStep::Ready, &mut || STATUS.read() & STATUS_READY != 0)?;
        send(command)?;
        STATUS.write(STATUS_GO);
        wait(ANSWER_MS_MAX, TisStep::Answer, &mut || STATUS.read() & ANSWERED == ANSWERED)?;
        let header = response.first_chunk_mut().ok_or(TisError::ResponseLength)?;
        receive(header)?;
        let [_, _, a, b, c, d, _, _, _, _]: [u8; HEADER_LEN] = *header;
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let rest = response.get_mut(HEADER_LEN..len);
        receive(rest.ok_or(TisError::ResponseLength)?)?;
        Ok(len)
    }
}

impl Transact for Tis {
    type Error = TisError;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, TisError> {
        if !self.is_there {
            return Err(TisError::Absent);
        }
        if ACCESS.read() & ACCESS_ACTIVE != ACCESS_ACTIVE {
            ACCESS.write(ACCESS_REQUEST);
            wait(SHORT_MS_MAX, TisStep::Locality, &mut || {
                ACCESS.read() & ACCESS_ACTIVE == ACCESS_ACTIVE
            })?;
        }
        let outcome = self.exchange(command, response);
        // Idle again, whatever it was doing.
        STATUS.write(STATUS_READY);
        outcome
    }

    fn pause_ms(&mut self, ms: u32) {
        let end_ms = VirtClock.now_ms().saturating_add(u64::from(ms));
        while VirtClock.now_ms() < end_ms {
            VirtClock.rest();
        }
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), TisError> {
        self.random.fill_bytes(out);
        Ok(())
    }
}

/// The TPM expects more until it has the last octet, by the length in the command: whether it
/// does is looked at before that octet, and after it.
fn send(command: &[u8]) -> Result<(), TisError> {
    let (last, mut rest) = command.split_last().ok_or(TisError::CommandLength)?;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(burst(TisStep::Send)?.min(rest.len()));
        piece.iter().for_each(|octet| FIFO.write(*octet));
        rest = later;
    }
    expect(true)?;
    FIFO.write(*last);
    expect(false)
}

fn expect(more: bool) -> Result<(), TisError> {
    wait(SHORT_MS_MAX, TisStep::Send, &mut || STATUS.read() & STATUS_VALID != 0)?;
    match (STATUS.read() & STATUS_EXPECT != 0) == more {
        true => Ok(()),
        false => Err(TisError::CommandLength),
    }
}

fn receive(mut rest: &mut [u8]) -> Result<(), TisError> {
    while !rest.is_empty() {
        let (piece, later) = rest.split_at_mut(burst(TisStep::Receive)?.min(rest.len()));
        piece.fill_with(|| FIFO.read());
        rest = later;
    }
    Ok(())
}

/// Octets that the FIFO takes or gives at once: at least one.
fn burst(during: TisStep) -> Result<usize, TisError> {
    let mut seen = 0;
    wait(SHORT_MS_MAX, during, &mut || {
        seen = STATUS.read() >> 8 & 0xffff;
        seen != 0
    })?;
    Ok(usize::try_from(seen).unwrap_or_default())
}

fn wait(limit_ms: u32, during: TisStep, is_done: &mut dyn FnMut() -> bool) -> Result<(), TisError> {
    let deadline_ms = VirtClock.now_ms().saturating_add(u64::from(limit_ms));
    while !is_done() {
        if VirtClock.now_ms() > deadline_ms {
            return Err(TisError::TimedOut { during });
        }
    }
    Ok(())
}

/// Whether there is a device behind an address, or reading it is an exception.
fn is_readable(address: usize) -> bool {
    let readable: usize;
    // SAFETY: for the duration of one read, exceptions lead to the label behind it instead of to
    // the handler of the start-up code; they change nothing else, since interrupts are off. The
    // read touches no memory of the program.
    unsafe {
        asm!(
            "la {vector}, 2f",
            "csrrw {vector}, mtvec, {vector}",
            "lbu {value}, 0({address})",
            "li {readable}, 1",
            "j 3f",
            ".balign 4",
            "2: li {readable}, 0",
            "3: csrw mtvec, {vector}",
            address = in(reg) address,
            vector = out(reg) _,
            value = out(reg) _,
            readable = out(reg) readable,
            options(nostack),
        );
    }
    readable != 0
}

impl TisError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::CommandLength => "command-length",
            Self::ResponseLength => "response-length",
            Self::TimedOut { during: TisStep::Answer } => "answer-timed-out",
            Self::TimedOut { during: TisStep::Locality } => "locality-timed-out",
            Self::TimedOut { during: TisStep::Ready } => "ready-timed-out",
            Self::TimedOut { during: TisStep::Receive } => "receive-timed-out",
            Self::TimedOut { during: TisStep::Send } => "send-timed-out",
        }
    }
}

impl fmt::Display for TisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "tpm", self.code())
    }
}

impl core::error::Error for TisError {}
