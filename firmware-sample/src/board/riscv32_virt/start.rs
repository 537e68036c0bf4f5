//! From the first instruction to `main`, and the ways out.
//!
//! QEMU jumps to the start of RAM in machine mode, with interrupts off. The memory below the stack
//! is closed by a locked entry of the physical memory protection: a stack that overflows traps at
//! its first octet too many, instead of spoiling what lies there.

use core::arch::naked_asm;
use core::fmt::Write;
use core::panic::PanicInfo;

use crate::board::{Ending, stack};
use crate::console::{Line, tell_panic};

use super::mmio::Register;
use super::{Uart, begin};

// SAFETY: the test device in the memory map of the machine, which ends the emulation.
const TEST: Register<u32> = unsafe { Register::new(0x0010_0000) };

/// What the test device takes for success.
const TEST_PASS: u32 = 0x5555;

/// What it takes for failure, with the status of the process above it: 1.
const TEST_FAIL: u32 = 0x3333 | 1 << 16;

/// `pmpcfg0` of an entry that is locked, covers a power of two, and allows nothing.
const GUARD_CONFIG: u32 = 0x98;

/// Half the guard's length less one, in words, as `pmpaddr` codes a power of two: 64 KiB.
const GUARD_ADDRESS_BITS: u32 = 0x1fff;

/// Where QEMU begins.
///
/// # Safety
///
/// To be entered by the machine only: it has no caller to return to.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".start")]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        ".option push",
        ".option norelax",
        "la gp, __global_pointer$",
        ".option pop",
        "csrw mie, zero",
        "la t0, {trap}",
        "csrw mtvec, t0",
        // Out of bounds below the stack.
        "la sp, __stack_top",
        "la t0, __guard_bottom",
        "srli t0, t0, 2",
        "li t1, {guard_address_bits}",
        "or t0, t0, t1",
        "csrw pmpaddr0, t0",
        "li t0, {guard_config}",
        "csrw pmpcfg0, t0",
        // Paint the stack.
        "la t0, __stack_bottom",
        "li t1, {paint}",
        "2: sw t1, 0(t0)",
        "addi t0, t0, 4",
        "bltu t0, sp, 2b",
        // Copy what has a value.
        "la t0, __data_start",
        "la t1, __data_end",
        "la t2, __data_load",
        "j 4f",
        "3: lw t3, 0(t2)",
        "sw t3, 0(t0)",
        "addi t0, t0, 4",
        "addi t2, t2, 4",
        "4: bltu t0, t1, 3b",
        // Clear what has none.
        "la t0, __bss_start",
        "la t1, __bss_end",
        "j 6f",
        "5: sw zero, 0(t0)",
        "addi t0, t0, 4",
        "6: bltu t0, t1, 5b",
        "j {main}",
        trap = sym trap,
        guard_address_bits = const GUARD_ADDRESS_BITS,
        guard_config = const GUARD_CONFIG,
        paint = const stack::PAINT,
        main = sym prepare,
    )
}

/// In Rust now.
extern "C" fn prepare() -> ! {
    unsafe extern "C" {
        /// The application, by the macro `entry`.
        safe fn fleetcert_main() -> !;
    }
    begin();
    fleetcert_main()
}

/// Where every exception ends, and every panic of a build for size, which is an instruction that no
/// processor has; interrupts are off. The stack begins anew, because it may be why.
#[unsafe(naked)]
extern "C" fn trap() -> ! {
    naked_asm!(
        ".balign 4",
        "la sp, __stack_top",
        "csrr a0, mcause",
        "csrr a1, mepc",
        "csrr a2, mtval",
        "j {report}",
        report = sym report,
    )
}

extern "C" fn report(cause: u32, at: u32, value: u32) -> ! {
    let mut line = Line(&Uart);
    // A serial line takes everything: there is no error to tell.
    let _ =
        write!(line, "trap: cause {cause}, at {at:#010x}, value {value:#010x} (2: a panic)\r\n");
    exit(Ending::Failure)
}

/// The way out of a panic where it is not an exception: say so, and end with a failure.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    tell_panic(&Uart, info);
    exit(Ending::Failure)
}

/// Ends the emulation; stands still where there is none.
pub(super) fn exit(ending: Ending) -> ! {
    TEST.write(match ending {
        Ending::Failure => TEST_FAIL,
        Ending::Success => TEST_PASS,
    });
    loop {
        core::hint::spin_loop();
    }
}
