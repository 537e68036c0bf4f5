//! The serial line: an NS16550A, polled.

use crate::board::Serial;

use super::mmio::Register;

/// Looks at a full transmitter, at most: a hundred milliseconds of a slow line.
const LOOKS_MAX: u32 = 100_000;

/// The transmitter takes another octet.
const STATUS_EMPTY: u8 = 1 << 5;

// SAFETY: the UART's transmit holding register in the memory map of the machine.
const DATA: Register<u8> = unsafe { Register::new(0x1000_0000) };
// SAFETY: the same, its line status register.
const STATUS: Register<u8> = unsafe { Register::new(0x1000_0005) };

/// The machine's serial line.
#[derive(Clone, Copy, Debug)]
pub struct Uart;

impl Serial for Uart {
    fn write(&self, octets: &[u8]) {
        for octet in octets {
            // A line that takes nothing loses octets, and holds up nobody.
            let _ = (0..LOOKS_MAX).find(|_| STATUS.read() & STATUS_EMPTY != 0);
            DATA.write(*octet);
        }
    }
}
