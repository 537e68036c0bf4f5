//! A number that grows with every MQTT session, over restarts, without a clock.
//!
//! **What it is.** Numbers are taken from a block whose end was made durable first: a restart goes
//! on behind the block, so no number is ever given twice although flash is written once in
//! [`BLOCK`] sessions (`docs/design/mqtt.md`, "Where the numbers come from").
//!
//! **What it must never do.** Keep a device from its broker: where flash cannot be written the
//! numbers go on, and a later restart may repeat some. The session that follows then sees its own
//! retained state with a higher number, and calls [`Generations::raise`].

use fleetcert_core::event::Failure;

use crate::console::warn;

/// Numbers that one write reserves.
const BLOCK: u64 = 256;

/// The largest number that JSON carries everywhere (RFC 8259 §6).
pub const GENERATION_MAX: u64 = (1 << 53) - 1;

/// The source of the numbers.
#[derive(Debug)]
pub struct Generations {
    last: u64,
    reserved: u64,
}

impl Generations {
    /// Goes on behind what was reserved: [`FlashStore::reserved`](super::FlashStore::reserved).
    #[must_use]
    pub const fn new(reserved: u64) -> Self {
        let last = if reserved < GENERATION_MAX { reserved } else { GENERATION_MAX };
        Self { last, reserved: last }
    }

    /// The next number. Before the first of a block, `reserve` is to make the block's end durable:
    /// [`FlashStore::reserve`](super::FlashStore::reserve). If it cannot, it is asked again for the
    /// next number.
    pub fn next(&mut self, reserve: impl FnOnce(u64) -> Result<(), Failure>) -> u64 {
        self.last = (self.last + 1).min(GENERATION_MAX);
        if self.last > self.reserved {
            let end = self.last.saturating_add(BLOCK - 1).min(GENERATION_MAX);
            match reserve(end) {
                Ok(()) => self.reserved = end,
                Err(failure) => {
                    warn(format_args!("session numbers up to {end}: {}", failure.code()))
                }
            }
        }
        self.last
    }

    /// Makes the next number larger than one that was seen.
    pub fn raise(&mut self, seen: u64) {
        self.last = self.last.max(seen.min(GENERATION_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flash that holds one number, or cannot be written.
    struct Flash {
        number: u64,
        writes: u32,
        is_broken: bool,
    }

    impl Flash {
        const fn new(number: u64) -> Self {
            Self { number, writes: 0, is_broken: false }
        }

        fn next(&mut self, generations: &mut Generations) -> u64 {
            generations.next(|end| {
                if self.is_broken {
                    return Err(Failure::StorageUnavailable);
                }
                self.number = end;
                self.writes += 1;
                Ok(())
            })
        }
    }

    /// Goal: no number is given twice, whenever the device restarts, and each is one more than the
    /// one before as long as it runs.
    #[test]
    fn numbers_grow_by_one_and_over_any_number_of_restarts() {
        let mut flash = Flash::new(0);
        let mut last = 0;
        for sessions in [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 3] {
            let mut generations = Generations::new(flash.number);
            let first = flash.next(&mut generations);
            assert!(first > last, "{sessions}");
            for step in 1..sessions {
                assert_eq!(flash.next(&mut generations), first + step);
            }
            last = first + sessions - 1;
        }
    }

    #[test]
    fn one_write_does_for_a_block_of_sessions_and_comes_before_the_first_of_them() {
        let mut flash = Flash::new(7);
        let mut generations = Generations::new(flash.number);
        for session in 0..2 * BLOCK {
            let number = flash.next(&mut generations);
            assert!(flash.number >= number, "{number} is given before it is reserved");
            assert_eq!(u64::from(flash.writes), session / BLOCK + 1);
        }
    }

    /// Goal: a device whose flash is worn out still reaches its broker, and reserves again as soon
    /// as it can.
    #[test]
    fn flash_that_cannot_be_written_does_not_stop_the_numbers() {
        let mut flash = Flash { is_broken: true, ..Flash::new(0) };
        let mut generations = Generations::new(flash.number);
        assert_eq!([(); 3].map(|()| flash.next(&mut generations)), [1, 2, 3]);
        flash.is_broken = false;
        assert_eq!(flash.next(&mut generations), 4);
        assert_eq!((flash.number, flash.writes), (4 + BLOCK - 1, 1));
    }

    #[test]
    fn a_larger_number_that_was_seen_is_passed_and_reserved() {
        let mut flash = Flash::new(0);
        let mut generations = Generations::new(0);
        generations.raise(1000);
        assert_eq!(flash.next(&mut generations), 1001);
        generations.raise(5);
        assert_eq!(flash.next(&mut generations), 1002);
        assert!(flash.number > 1002);
    }

    #[test]
    fn no_number_is_larger_than_json_carries() {
        for mut generations in [Generations::new(u64::MAX), Generations::new(GENERATION_MAX - 1)] {
            generations.raise(u64::MAX);
            let mut flash = Flash::new(0);
            assert_eq!([(); 2].map(|()| flash.next(&mut generations)), [GENERATION_MAX; 2]);
            assert!(flash.number <= GENERATION_MAX);
        }
    }
}
