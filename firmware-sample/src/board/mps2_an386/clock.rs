//! Cycles, by the FPGA's counter; and the tick that ends a rest.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::board::Clock;

use super::mmio::Register;

/// Cycles of the processor and of the FPGA in a millisecond.
const CYCLES_PER_MS: u32 = 25_000;

/// Instructions in the time of a cycle, in the emulator under `-icount shift=0`: one a nanosecond.
const INSTRUCTIONS_PER_CYCLE: u64 = 40;

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

/// The counter's last reading, and how often it has begun anew. It does so every 171 seconds, and
/// is read more often than that: nothing is computed for so long, and every rest reads it.
static LAST: AtomicU32 = AtomicU32::new(0);
static TURNS: AtomicU32 = AtomicU32::new(0);

/// Cycles spent resting: the low half, and the high one.
static RESTED: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

/// The board's clock.
#[derive(Clone, Copy, Debug)]
pub struct FpgaClock;

/// Makes the counter count cycles, from 0, and the tick tick.
pub(super) fn begin() {
    PRESCALE.write(0);
    COUNTER.write(0);
    TICK_RELOAD.write(CYCLES_PER_MS - 1);
    TICK_CONTROL.write(TICK_ON);
}

impl Clock for FpgaClock {
    fn now_ms(&self) -> u64 {
        cycles() / u64::from(CYCLES_PER_MS)
    }

    /// The board has no clock that runs without power.
    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn instructions(&self) -> u64 {
        cycles().saturating_sub(rested()).saturating_mul(INSTRUCTIONS_PER_CYCLE)
    }

    fn rest(&self) {
        let before = cycles();
        // SAFETY: waits for an interrupt; there is only the tick's, whose handler does nothing.
        unsafe { asm!("wfi", options(nomem, nostack)) }
        let [low, high] = &RESTED;
        let total = rested().saturating_add(cycles().saturating_sub(before));
        let [a, b, c, d, e, f, g, h] = total.to_le_bytes();
        low.store(u32::from_le_bytes([a, b, c, d]), Ordering::Relaxed);
        high.store(u32::from_le_bytes([e, f, g, h]), Ordering::Relaxed);
    }
}

/// Cycles since the start. One thread of control, and no interrupt that reads a clock.
fn cycles() -> u64 {
    let now = COUNTER.read();
    let last = LAST.swap(now, Ordering::Relaxed);
    if now < last {
        TURNS.fetch_add(1, Ordering::Relaxed);
    }
    u64::from(TURNS.load(Ordering::Relaxed)) << 32 | u64::from(now)
}

fn rested() -> u64 {
    let [low, high] = &RESTED;
    u64::from(high.load(Ordering::Relaxed)) << 32 | u64::from(low.load(Ordering::Relaxed))
}
