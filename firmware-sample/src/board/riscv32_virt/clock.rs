//! The hart's timer (10 MHz, all 64 bits of it), and the goldfish RTC.

use core::arch::asm;

use crate::board::Clock;

use super::mmio::Register;

/// Ticks of the timer in a millisecond.
const TICKS_PER_MS: u64 = 10_000;

/// Nanoseconds of the RTC in a second.
const NS_PER_S: u64 = 1_000_000_000;

// SAFETY: the CLINT's registers and the RTC's in the memory map of the machine; a timer that is
// set interrupts nobody, because interrupts are off.
const TIME: [Register<u32>; 2] = unsafe { pair(0x0200_bff8) };
// SAFETY: as above.
const COMPARE: [Register<u32>; 2] = unsafe { pair(0x0200_4000) };
// SAFETY: as above.
const WALL_NS: [Register<u32>; 2] = unsafe { pair(0x0010_1000) };

/// The low and the high half of a 64-bit register.
///
/// # Safety
///
/// As for [`Register::new`], for both.
const unsafe fn pair(address: usize) -> [Register<u32>; 2] {
    // SAFETY: the caller's promise.
    unsafe { [Register::new(address), Register::new(address + 4)] }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct VirtClock;

impl Clock for VirtClock {
    fn now_ms(&self) -> u64 {
        ticks() / TICKS_PER_MS
    }

    fn wall_s(&self) -> Option<u64> {
        let [low, high] = &WALL_NS;
        // Reading the low half latches the high one.
        let low = low.read();
        Some(joined(low, high.read()) / NS_PER_S)
    }

    /// The counter of retired instructions; QEMU tells those of the emulated machine under `-icount
    /// shift=0` only.
    fn instructions(&self) -> u64 {
        loop {
            let (before, low, after): (u32, u32, u32);
            // SAFETY: reads the counter of the hart's machine mode (RISC-V Privileged §3.1.10).
            unsafe {
                asm!(
                    "csrr {before}, minstreth", "csrr {low}, minstret", "csrr {after}, minstreth",
                    before = out(reg) before, low = out(reg) low, after = out(reg) after,
                    options(nomem, nostack)
                );
            }
            if before == after {
                return joined(low, after);
            }
        }
    }

    /// Sleeps until the timer's next millisecond: its interrupt is pending then, which ends the
    /// sleep though it is never taken.
    fn rest(&self) {
        let [low, high] = &COMPARE;
        let end = ticks().saturating_add(TICKS_PER_MS);
        let [a, b, c, d, e, f, g, h] = end.to_le_bytes();
        // In this order no earlier time is ever set (RISC-V Privileged §3.2.1).
        low.write(u32::MAX);
        high.write(u32::from_le_bytes([e, f, g, h]));
        low.write(u32::from_le_bytes([a, b, c, d]));
        // SAFETY: waits for a pending interrupt, of which only the timer's is enabled; interrupts
        // as a whole are off, so that nothing else runs.
        unsafe { asm!("csrs mie, {timer}", "wfi", timer = in(reg) 1 << 7, options(nomem, nostack)) }
    }
}

/// The timer is read in halves: again, if the high one has changed meanwhile.
fn ticks() -> u64 {
    let [low, high] = &TIME;
    loop {
        let before = high.read();
        let ticks = joined(low.read(), before);
        if high.read() == before {
            return ticks;
        }
    }
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
