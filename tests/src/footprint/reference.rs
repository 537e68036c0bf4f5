//! Where code names an address: calls, jumps, and addresses that it computes or loads.
//!
//! **Why the flashed code is read.** What the compiler is asked for and what the linker has left
//! differ: functions are merged, inlined and dropped. The instructions are what runs.
//!
//! **What it must never do.** Miss a call. What goes through a register is seen where the register
//! gets its address, and a pointer in a table where the table is; so every way to a function begins
//! with a reference that is found here. What it may do is find too many: a stale register makes a
//! reference that is none, and somebody has to look.

mod riscv;
mod thumb;

use super::image::{Architecture, Image, Symbol};

/// A place that names an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The instruction, or the word.
    pub from: u32,
    /// What it names. Of a function in Thumb code its lowest bit may be set.
    pub to: u32,
}

/// All addresses that a function names, in the order of its instructions.
#[must_use]
pub fn of(image: &Image, function: &Symbol) -> Vec<Reference> {
    let code = image.octets(function.address, function.len).unwrap_or_default();
    match image.architecture {
        Architecture::Riscv32 => riscv::scan(code, function.address),
        Architecture::Thumb => thumb::scan(code, function.address, &|at| image.is_data(at)),
    }
}

/// `len` bits, the lowest at `low`.
const fn bits(word: u32, low: u32, len: u32) -> u32 {
    word >> low & ((1 << len) - 1)
}

/// Sign-extends the lowest `len` bits.
const fn signed(value: u32, len: u32) -> u32 {
    let shift = u32::BITS - len;
    ((value << shift).cast_signed() >> shift).cast_unsigned()
}
