//! Milliseconds, by the FPGA's counter; and the tick that ends a rest.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::board::Clock;

use super::mmio::Register;

/// Cycles of the processor and of the FPGA in a millisecond.
const CYCLES_PER_MS: u32 = 25_000;

/// SysTick counts cycles of the processor, and interrupts.
const TICK_ON: u32 = 0b111;

// SAFETY: the FPGA's registers in the memory map of AN386: a counter, and its prescaler.
const COUNTER: Register<u32> = unsafe { Register::new(0x4002_8018) };
// SAFETY: as above.
const PRESCALE: Register<u32> = unsafe { Register::new(0x4002_801c) };
// SAFETY: SysTick of the processor (Armv7-M B3.3).
const TICK_CONTROL: Register<u32> = unsafe { Register::new(0xe000_e010) };
// SAFETY: as above.
const TICK_RELOAD: Register<u32> = unsafe { Register::new(0xe000_e014) };

/// The counter's last reading, and how often it has begun anew. It does so every 49 days, and is
/// read more often than that: nothing waits for longer than a day.
static LAST: AtomicU32 = AtomicU32::new(0);
static TURNS: AtomicU32 = AtomicU32::new(0);

/// The board's clock.
#[derive(Clone, Copy, Debug)]
pub struct FpgaClock;

/// Makes the counter count milliseconds, from 0, and the tick tick.
pub(super) fn begin() {
    PRESCALE.write(CYCLES_PER_MS - 1);
    COUNTER.write(0);
    TICK_RELOAD.write(CYCLES_PER_MS - 1);
    TICK_CONTROL.write(TICK_ON);
}

impl Clock for FpgaClock {
    fn now_ms(&self) -> u64 {
        let now = COUNTER.read();
        // One thread of control, and no interrupt that reads a clock.
        let last = LAST.swap(now, Ordering::Relaxed);
        if now < last {
            TURNS.fetch_add(1, Ordering::Relaxed);
        }
        u64::from(TURNS.load(Ordering::Relaxed)) << 32 | u64::from(now)
    }

    /// The board has no clock that runs without power.
    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn rest(&self) {
        // SAFETY: waits for an interrupt; there is only the tick's, whose handler does nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) }
    }
}
