//! Whether the kernel believes its wall clock.
//!
//! There is no safe binding of `adjtimex` among our dependencies, so this is the one module of the
//! agent with `unsafe` in it: one call that reads.
#![expect(unsafe_code, reason = "adjtimex has no safe binding here; see SAFETY below")]

use std::mem::MaybeUninit;

/// Whether an NTP or PTP daemon keeps the wall clock synchronised, as the kernel tells it. `false`
/// also where the kernel does not tell.
pub(super) fn is_synchronised() -> bool {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `timex` is a C structure of integers, for which zero bits are a value. `modes` is
    // zero among them, so by adjtimex(2) the kernel changes nothing: it fills the structure that
    // we own and keeps no pointer to it.
    let (answer, state) = unsafe {
        let answer = libc::adjtimex(state.as_mut_ptr());
        (answer, state.assume_init())
    };
    answer >= 0 && answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    // Goal: the call is well-formed; what it answers is this machine's business.
    #[test]
    fn the_kernel_answers_the_same_twice() {
        assert_eq!(super::is_synchronised(), super::is_synchronised());
    }
}
