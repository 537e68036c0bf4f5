//! From reset to `main`, and the ways out.
//!
//! The stack lies at the very start of RAM: one that overflows faults, instead of spoiling data.

use core::arch::naked_asm;
use core::fmt::Write;
use core::panic::PanicInfo;

use crate::board::{Ending, stack};
use crate::console::{Line, tell_panic};

use super::{Uart, begin, semihosting};

/// Exceptions of the processor itself; the board's interrupts stay off.
const EXCEPTIONS: usize = 15;

/// The vector table: where the stack begins, then reset and the other exceptions (Armv7-M B1.5.3).
#[repr(C)]
struct Vectors {
    stack: *const u32,
    exceptions: [unsafe extern "C" fn(); EXCEPTIONS],
}

// SAFETY: nothing is ever done with the pointer but by the processor, at its start.
unsafe impl Sync for Vectors {}

#[unsafe(no_mangle)]
#[unsafe(link_section = ".vectors")]
static VECTORS: Vectors = Vectors {
    stack: stack::TOP,
    exceptions: [
        start, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
        fault, tick,
    ],
};

/// Where the processor begins.
///
/// # Safety
///
/// To be entered by the processor only: it has no caller to return to.
#[unsafe(naked)]
unsafe extern "C" fn start() {
    naked_asm!(
        // Paint the stack.
        "ldr r0, =__stack_bottom",
        "ldr r1, =__stack_top",
        "ldr r2, ={paint}",
        "2: str r2, [r0], #4",
        "cmp r0, r1",
        "blo 2b",
        // Copy what has a value.
        "ldr r0, =__data_start",
        "ldr r1, =__data_end",
        "ldr r2, =__data_load",
        "b 4f",
        "3: ldr r3, [r2], #4",
        "str r3, [r0], #4",
        "4: cmp r0, r1",
        "blo 3b",
        // Clear what has none.
        "ldr r0, =__bss_start",
        "ldr r1, =__bss_end",
        "movs r2, #0",
        "b 6f",
        "5: str r2, [r0], #4",
        "6: cmp r0, r1",
        "blo 5b",
        "b {main}",
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

/// Ends a rest; there is nothing else to do.
extern "C" fn tick() {}

/// Where every exception but reset and tick ends, and every panic of a build for size, which is an
/// instruction that no processor has. The stack begins anew, because it may be why:
/// the processor's own note of where it happened is taken from the old one only where that is
/// inside the stack.
///
/// # Safety
///
/// To be entered by the processor only.
#[unsafe(naked)]
unsafe extern "C" fn fault() {
    naked_asm!(
        "mrs r0, ipsr",
        "mov r2, sp",
        "movs r1, #0",
        "ldr r3, =__stack_bottom",
        "cmp r2, r3",
        "blo 2f",
        "ldr r1, [r2, #24]",
        "2: ldr r3, =__stack_top",
        "mov sp, r3",
        "b {report}",
        report = sym report,
    )
}

extern "C" fn report(exception: u32, at: u32) -> ! {
    let mut line = Line(&Uart);
    // A serial line takes everything: there is no error to tell.
    let _ =
        write!(line, "exception {exception}, at {at:#010x} (3: a panic; at 0: no stack left)\r\n");
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
    semihosting::exit(match ending {
        Ending::Failure => 1,
        Ending::Success => 0,
    });
    loop {
        core::hint::spin_loop();
    }
}
