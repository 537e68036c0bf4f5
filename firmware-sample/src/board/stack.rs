//! How far the stack has grown: the start-up code has painted it, and what is still painted has
//! never been in use.
#![expect(unsafe_code, reason = "reads memory that belongs to no variable")]

use core::ptr;

use super::Stack;

/// What the start-up code paints with, word by word. No address and no small number.
pub(super) const PAINT: u32 = 0xc5c5_c5c5;

unsafe extern "C" {
    /// The lowest word of the stack, by the linker script.
    static __stack_bottom: u32;
    /// What lies above its highest word, by the linker script.
    static __stack_top: u32;
}

/// Where the stack begins, growing down.
#[cfg(target_arch = "arm")]
pub(super) const TOP: *const u32 = &raw const __stack_top;

/// The stack as it has been.
pub(super) fn measure() -> Stack {
    let (bottom, top) = (&raw const __stack_bottom, &raw const __stack_top);
    let len = top.addr().saturating_sub(bottom.addr());
    let mut untouched = 0;
    while untouched < len {
        // SAFETY: the linker script gives everything between the two symbols to the stack, in whole
        // words, and the start-up code has initialised it. The words below the stack pointer are
        // nobody's, and those above are only looked at: as `volatile`, because they may change.
        let word = unsafe { ptr::read_volatile(bottom.byte_add(untouched)) };
        if word != PAINT {
            break;
        }
        untouched += size_of::<u32>();
    }
    Stack { peak_len: len - untouched, len }
}
