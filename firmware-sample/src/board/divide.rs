//! Division of numbers of 64 bits, which the compiler calls by the names that its libraries have
//! for it.
//!
//! **What it is.** Division as on paper, a bit at a time, in 140 octets. The compiler's own
//! is half a kilobyte, and faster, where time is only reckoned with and told.
//!
//! **What it must never do.** Divide by a number of 64 bits itself: it would call itself.
//!
//! **Why that is sound.** It shifts, compares and subtracts. The tests compare it with the
//! processor's own division.
#![cfg_attr(
    target_os = "none",
    expect(unsafe_code, reason = "defines functions by names of the compiler's")
)]

/// GCC's internals, §4.1 "Integer library routines".
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
#[unsafe(no_mangle)]
extern "C" fn __udivdi3(dividend: u64, divisor: u64) -> u64 {
    divided(dividend, divisor).quotient
}

/// GCC's internals, §4.1 "Integer library routines".
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
#[unsafe(no_mangle)]
extern "C" fn __umoddi3(dividend: u64, divisor: u64) -> u64 {
    divided(dividend, divisor).remainder
}

/// Run-time ABI for the Arm Architecture, §5.3.1: the quotient is returned in r0 and r1, the
/// remainder in r2 and r3.
#[cfg(all(target_os = "none", target_arch = "arm"))]
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn __aeabi_uldivmod(dividend: u64, divisor: u64) {
    // The first argument is where the result goes, which moves the others by two registers: the
    // divisor to the stack. A multiple of eight octets is pushed.
    core::arch::naked_asm!(
        "push {{r4, lr}}",
        "sub sp, #24",
        "strd r2, r3, [sp]",
        "mov r2, r0",
        "mov r3, r1",
        "add r0, sp, #8",
        "bl {divided}",
        "ldrd r0, r1, [sp, #8]",
        "ldrd r2, r3, [sp, #16]",
        "add sp, #24",
        "pop {{r4, pc}}",
        divided = sym divided,
    )
}

/// What a division comes to.
#[repr(C)]
struct Divided {
    quotient: u64,
    remainder: u64,
}

/// Divides, as on paper: the dividend moves into the remainder from its highest bit on, and the
/// quotient into the dividend's place.
#[cfg(any(test, target_os = "none"))]
extern "C" fn divided(dividend: u64, divisor: u64) -> Divided {
    let (mut quotient, mut remainder) = (dividend, 0);
    let mut bits = u64::BITS;
    if dividend < 1 << u32::BITS {
        // The most usual ones have nothing in the upper half.
        quotient <<= u32::BITS;
        bits = u32::BITS;
    }
    for _ in 0..bits {
        let is_longer = remainder >> 63 == 1;
        remainder = remainder << 1 | quotient >> 63;
        quotient <<= 1;
        if is_longer || remainder >= divisor {
            remainder = remainder.wrapping_sub(divisor);
            quotient |= 1;
        }
    }
    Divided { quotient, remainder }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: it is the division of the host's processor, at every length of both numbers.
    #[test]
    fn it_divides_as_others_do() {
        let mut seed = 1_u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed
        };
        for bits in 0..u64::BITS {
            for other in 0..u64::BITS {
                for dividend in [draw() >> bits, u64::MAX >> bits, 1 << bits, 0] {
                    for divisor in [draw() >> other | 1, u64::MAX >> other, 1 << other] {
                        let Divided { quotient, remainder } = divided(dividend, divisor);
                        let expected = (dividend / divisor, dividend % divisor);
                        assert_eq!((quotient, remainder), expected, "{dividend} / {divisor}");
                    }
                }
            }
        }
    }
}
