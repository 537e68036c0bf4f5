//! The LAN9118 Ethernet controller (SMSC data sheet DS00002266), polled, as smoltcp has devices.
//!
//! The chip keeps frames in queues of its own, which are read and written word by word. Nothing
//! here waits for the network; what the chip itself is waited for has a number of looks at most.

use core::fmt;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use static_cell::ConstStaticCell;

use crate::board::{Link, MAC_LEN};

use super::mmio::Register;

/// Where its registers begin in the memory map of AN386.
const BASE: usize = 0x4020_0000;

/// The longest Ethernet frame, without its checksum.
const FRAME_LEN_MAX: usize = 1514;

/// Octets of a frame's checksum, which the chip delivers and makes.
const CHECKSUM_LEN: usize = 4;

/// A frame in whole words.
const FRAME_WORDS: usize = (FRAME_LEN_MAX + CHECKSUM_LEN).div_ceil(4);

/// Looks at a register that the chip changes by itself, at most.
const LOOKS_MAX: u32 = 1_000_000;

/// What the chip's byte order register reads when it is awake and as we take it.
const BYTE_ORDER: u32 = 0x8765_4321;

const RESET: u32 = 1;
/// Must be one, and 5 KiB for frames to send.
const HARDWARE: u32 = 1 << 20 | 5 << 16;
/// Flow control as the data sheet has it for this division of the memory.
const FLOW_CONTROL: u32 = 0x006e_3740;
const TRANSMITTER_ON: u32 = 1 << 1;

const MAC_BUSY: u32 = 1 << 31;
const MAC_READ: u32 = 1 << 30;
const MAC_CONTROL: u32 = 1;
const MAC_ADDRESS_HIGH: u32 = 2;
const MAC_ADDRESS_LOW: u32 = 3;
const MAC_PHY: u32 = 6;
const MAC_PHY_DATA: u32 = 7;
/// Sends, receives, both at the same time.
const MAC_ON: u32 = 1 << 20 | 1 << 3 | 1 << 2;

/// PHY 1, register 1 (basic status), busy.
const PHY_STATUS: u32 = 1 << 11 | 1 << 6 | 1;
const PHY_STATUS_LINK: u32 = 1 << 2;

/// A received frame that is none.
const RECEIVE_ERROR: u32 = 1 << 15;

/// First and last piece of a frame to send.
const WHOLE_FRAME: u32 = 1 << 13 | 1 << 12;

// SAFETY: registers of the chip, each by its offset.
const RECEIVE_DATA: Register<u32> = unsafe { Register::new(BASE) };
// SAFETY: as above.
const SEND_DATA: Register<u32> = unsafe { Register::new(BASE + 0x20) };
// SAFETY: as above.
const RECEIVE_STATUS: Register<u32> = unsafe { Register::new(BASE + 0x40) };
// SAFETY: as above.
const SEND_STATUS: Register<u32> = unsafe { Register::new(BASE + 0x48) };
// SAFETY: as above.
const BYTE_TEST: Register<u32> = unsafe { Register::new(BASE + 0x64) };
// SAFETY: as above.
const SEND_CONFIG: Register<u32> = unsafe { Register::new(BASE + 0x70) };
// SAFETY: as above.
const HARDWARE_CONFIG: Register<u32> = unsafe { Register::new(BASE + 0x74) };
// SAFETY: as above.
const RECEIVE_CONTROL: Register<u32> = unsafe { Register::new(BASE + 0x78) };
// SAFETY: as above.
const RECEIVE_INFO: Register<u32> = unsafe { Register::new(BASE + 0x7c) };
// SAFETY: as above.
const SEND_INFO: Register<u32> = unsafe { Register::new(BASE + 0x80) };
// SAFETY: as above.
const MAC_COMMAND: Register<u32> = unsafe { Register::new(BASE + 0xa4) };
// SAFETY: as above.
const MAC_DATA: Register<u32> = unsafe { Register::new(BASE + 0xa8) };
// SAFETY: as above.
const FLOW_CONFIG: Register<u32> = unsafe { Register::new(BASE + 0xac) };

type Frame = [[u8; 4]; FRAME_WORDS];

static FRAMES: ConstStaticCell<[Frame; 2]> = ConstStaticCell::new([[[0; 4]; FRAME_WORDS]; 2]);

/// The network device of the board.
pub struct Lan9118 {
    frames: &'static mut [Frame; 2],
    mac: [u8; MAC_LEN],
}

impl Lan9118 {
    /// The chip, reset and switched on.
    pub(super) fn open() -> Result<Self, &'static str> {
        until(|| BYTE_TEST.read() == BYTE_ORDER).ok_or("no LAN9118")?;
        HARDWARE_CONFIG.write(RESET);
        until(|| HARDWARE_CONFIG.read() & RESET == 0).ok_or("the LAN9118 does not reset")?;
        HARDWARE_CONFIG.write(HARDWARE);
        FLOW_CONFIG.write(FLOW_CONTROL);
        SEND_CONFIG.write(TRANSMITTER_ON);
        let mac = address().ok_or("the LAN9118 does not tell its address")?;
        write_mac(MAC_CONTROL, MAC_ON).ok_or("the LAN9118 does not begin")?;
        let frames = FRAMES.try_take().ok_or("its buffers are taken")?;
        Ok(Self { frames, mac })
    }

    /// Whether the chip takes a longest frame, with its two words of command.
    fn has_room() -> bool {
        // What was sent is not looked at: TCP finds out by itself. But it must be taken away.
        for _ in 0..SEND_INFO.read() >> 16 & 0xff {
            SEND_STATUS.read();
        }
        let room = usize::try_from(SEND_INFO.read() & 0xffff).unwrap_or(0);
        room >= 4 * (FRAME_WORDS + 2)
    }
}

impl Link for Lan9118 {
    fn is_up(&mut self) -> bool {
        // A PHY that does not answer has no link, either.
        write_mac(MAC_PHY, PHY_STATUS)
            .and_then(|()| read_mac(MAC_PHY_DATA))
            .is_some_and(|status| status & PHY_STATUS_LINK != 0)
    }

    fn mac(&self) -> [u8; MAC_LEN] {
        self.mac
    }
}

impl Device for Lan9118 {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        // smoltcp may want to answer at once: a frame waits for room to do so.
        if RECEIVE_INFO.read() >> 16 & 0xff == 0 || !Self::has_room() {
            return None;
        }
        let status = RECEIVE_STATUS.read();
        let len = usize::try_from(status >> 16 & 0x3fff).unwrap_or(0);
        let [receive, send] = &mut *self.frames;
        let words = len.div_ceil(4);
        if status & RECEIVE_ERROR != 0 || words > FRAME_WORDS || len < CHECKSUM_LEN {
            skip(words);
            return None;
        }
        for word in receive.iter_mut().take(words) {
            *word = RECEIVE_DATA.read().to_le_bytes();
        }
        let frame = receive.as_flattened().get(..len - CHECKSUM_LEN)?;
        Some((Received(frame), Sending(send)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        let [_, send] = &mut *self.frames;
        Self::has_room().then_some(Sending(send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_LEN_MAX;
        capabilities.max_burst_size = Some(2);
        capabilities
    }
}

/// A frame that has come.
#[derive(Debug)]
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct Sending<'a>(&'a mut Frame);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // smoltcp keeps to the capabilities: a longer frame would be cut, not overflow.
        let len = len.min(FRAME_LEN_MAX);
        let (frame, _) = self.0.as_flattened_mut().split_at_mut(len);
        let outcome = f(frame);
        let command = u32::try_from(len).unwrap_or(0);
        SEND_DATA.write(WHOLE_FRAME | command);
        SEND_DATA.write(command);
        for word in self.0.iter().take(len.div_ceil(4)) {
            SEND_DATA.write(u32::from_le_bytes(*word));
        }
        outcome
    }
}

/// Takes a frame away that nobody wants.
fn skip(words: usize) {
    /// Discards what is left of the frame; only for four words and more.
    const FAST_FORWARD: u32 = 1 << 31;
    if words >= 4 {
        RECEIVE_CONTROL.write(FAST_FORWARD);
        // A chip that never comes to an end gives no frames any more: the link is silent then.
        let _ = until(|| RECEIVE_CONTROL.read() & FAST_FORWARD == 0);
    } else {
        for _ in 0..words {
            RECEIVE_DATA.read();
        }
    }
}

fn address() -> Option<[u8; MAC_LEN]> {
    let [a, b, c, d] = read_mac(MAC_ADDRESS_LOW)?.to_le_bytes();
    let [e, f, ..] = read_mac(MAC_ADDRESS_HIGH)?.to_le_bytes();
    Some([a, b, c, d, e, f])
}

fn write_mac(register: u32, value: u32) -> Option<()> {
    MAC_DATA.write(value);
    MAC_COMMAND.write(MAC_BUSY | register);
    until(|| MAC_COMMAND.read() & MAC_BUSY == 0)
}

fn read_mac(register: u32) -> Option<u32> {
    MAC_COMMAND.write(MAC_BUSY | MAC_READ | register);
    until(|| MAC_COMMAND.read() & MAC_BUSY == 0)?;
    Some(MAC_DATA.read())
}

/// Looks until something is so; `None` if it does not become so.
fn until(is_so: impl Fn() -> bool) -> Option<()> {
    (0..LOOKS_MAX).find(|_| is_so()).map(|_| ())
}

impl fmt::Debug for Lan9118 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lan9118").field("mac", &self.mac).finish_non_exhaustive()
    }
}
