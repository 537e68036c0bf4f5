//! The serial line: a CMSDK UART, polled.

use crate::board::Serial;

use super::mmio::Register;

/// Looks at a full transmitter, at most: a hundred milliseconds of a slow line.
const LOOKS_MAX: u32 = 100_000;

/// The transmitter takes no octet now.
const STATE_FULL: u32 = 1;

const CONTROL_SEND: u32 = 1;

/// 115,200 baud of the 25 MHz clock.
const DIVISOR: u32 = 217;

// SAFETY: UART 0 in the memory map of AN386.
const DATA: Register<u32> = unsafe { Register::new(0x4000_4000) };
// SAFETY: as above.
const STATE: Register<u32> = unsafe { Register::new(0x4000_4004) };
// SAFETY: as above.
const CONTROL: Register<u32> = unsafe { Register::new(0x4000_4008) };
// SAFETY: as above.
const BAUD: Register<u32> = unsafe { Register::new(0x4000_4010) };

/// The board's serial line.
#[derive(Clone, Copy, Debug)]
pub struct Uart;

/// Switches the transmitter on.
pub(super) fn begin() {
    BAUD.write(DIVISOR);
    CONTROL.write(CONTROL_SEND);
}

impl Serial for Uart {
    fn write(&self, octets: &[u8]) {
        for octet in octets {
            // A line that takes nothing loses octets, and holds up nobody.
            let _ = (0..LOOKS_MAX).find(|_| STATE.read() & STATE_FULL == 0);
            DATA.write(u32::from(*octet));
        }
    }
}
