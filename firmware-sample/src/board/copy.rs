//! Copies of memory, which the compiler calls by the names that C has for them.
//!
//! **What it is.** `memcpy` and `memmove`, as one function of some eighty octets. The compiler's own
//! are a kilobyte: they shift words together where source and target lie unlike, for which nothing
//! here is large enough.
//!
//! **What it must never do.** Write an octet before it is read, where the two overlap; or be written
//! so that the compiler sees a copy in it, and calls it from itself.
//!
//! **Why that is sound.** It goes backwards where the target begins inside the source, and each
//! access is `volatile`, which the compiler must make as it stands. The tests move octets by every
//! distance.
#![expect(unsafe_code, reason = "moves memory that belongs to its callers")]

use core::ptr;

/// Octets of a word, which are moved at once where source and target both begin with one.
const WORD_LEN: usize = size_of::<u32>();

/// C11 §7.24.2.1.
///
/// # Safety
///
/// As [`memmove`]: source and target may overlap here, too.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's word for it.
    unsafe { moved(target, source, len) }
}

/// C11 §7.24.2.2.
///
/// # Safety
///
/// `len` octets can be read at `source`, and written at `target`.
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's word for it.
    unsafe { moved(target, source, len) }
}

/// Moves `len` octets; returns where they are now.
///
/// # Safety
///
/// `len` octets can be read at `source`, and written at `target`.
unsafe fn moved(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    let is_inside = target.addr().wrapping_sub(source.addr()) < len;
    let is_of_words = (target.addr() | source.addr()).is_multiple_of(WORD_LEN);
    let mut at = 0;
    if is_inside {
        for at in (0..len).rev() {
            // SAFETY: `at` is below `len`.
            unsafe { ptr::write_volatile(target.add(at), ptr::read_volatile(source.add(at))) };
        }
        return target;
    }
    while is_of_words && len - at >= WORD_LEN {
        // SAFETY: a word from `at` on is within `len`, and both begin with one.
        unsafe {
            let word = ptr::read_volatile(source.add(at).cast::<u32>());
            ptr::write_volatile(target.add(at).cast::<u32>(), word);
        }
        at += WORD_LEN;
    }
    while at < len {
        // SAFETY: `at` is below `len`.
        unsafe { ptr::write_volatile(target.add(at), ptr::read_volatile(source.add(at))) };
        at += 1;
    }
    target
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Two words and more in each direction, at each place in a word.
    #[repr(align(4))]
    struct Memory([u8; 64]);

    /// Goal: whatever the distance, what arrives is what was there, and nothing else changes.
    #[test]
    fn octets_are_moved_by_every_distance() {
        for len in 0..20 {
            for source in 0..44 {
                for target in 0..44 {
                    let mut memory = Memory(core::array::from_fn(|at| at as u8));
                    let before = memory.0;
                    let start = memory.0.as_mut_ptr();
                    // SAFETY: both parts lie inside the 64 octets.
                    let end = unsafe { moved(start.add(target), start.add(source), len) };
                    assert_eq!(end.addr() - start.addr(), target);
                    let mut expected = before.to_vec();
                    let part: Vec<u8> = before[source..source + len].to_vec();
                    expected[target..target + len].copy_from_slice(&part);
                    assert_eq!(memory.0.as_slice(), expected, "{len} from {source} to {target}");
                }
            }
        }
    }
}
