//! The randomness of the simulation: one seed, and nothing else.
//!
//! xoshiro256**, seeded by SplitMix64. Only integers are drawn: a logarithm from one machine's
//! mathematics library may differ in its last bit from another's, and a run must be the same
//! everywhere.

use fleetcert_provisioner::random::Random;

/// A stream of random numbers that a seed names.
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

/// A probability in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ppm(pub u32);

/// Durations between `shortest_ms` and `longest_ms`, every power of two equally often: most are
/// short, a few are very long, as outages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest, milliseconds; at least 1.
    pub shortest_ms: u64,
    /// The longest, milliseconds.
    pub longest_ms: u64,
}

impl Dice {
    /// The stream number `stream` of `seed`. Streams are independent of each other.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { state: std::array::from_fn(|_| split_mix(&mut mixed)) }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`; zero for an empty range.
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(end);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// Whether something of that probability happens.
    pub fn happens(&mut self, probability: Ppm) -> bool {
        probability.0 > 0 && self.below(1_000_000) < u64::from(probability.0)
    }

    /// A duration, milliseconds.
    pub fn span_ms(&mut self, span: Span) -> u64 {
        let low = span.shortest_ms.max(1);
        let doublings = u64::from((span.longest_ms / low).max(1).ilog2());
        let base = low << self.below(doublings + 1);
        self.between(base, base.saturating_mul(2)).min(span.longest_ms)
    }

    /// 32 random octets.
    pub fn octets(&mut self) -> [u8; 32] {
        let mut octets = [0; 32];
        self.fill(&mut octets);
        octets
    }
}

impl Random for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Dice, Ppm, Span};

    // Goal: a seed names one stream, on every machine: the numbers are written down here.
    #[test]
    fn a_seed_always_gives_the_same_numbers() {
        let mut dice = Dice::new(1, 0);
        let again: Vec<u64> = (0..3).map(|_| dice.next_u64()).collect();
        let mut dice = Dice::new(1, 0);
        assert_eq!(again, (0..3).map(|_| dice.next_u64()).collect::<Vec<_>>());
        assert_ne!(again[0], Dice::new(1, 1).next_u64());
        assert_ne!(again[0], Dice::new(2, 0).next_u64());
    }

    // Goal: probabilities are what they say, the impossible and the certain included.
    #[test]
    fn things_happen_as_often_as_their_probability_says() {
        let mut dice = Dice::new(7, 0);
        let hits = (0..100_000).filter(|_| dice.happens(Ppm(250_000))).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|_| dice.happens(Ppm(0))));
        assert!((0..1_000).all(|_| dice.happens(Ppm(1_000_000))));
    }

    // Goal: durations stay between their ends and reach near both.
    #[test]
    fn spans_keep_their_ends() {
        let mut dice = Dice::new(3, 0);
        let span = Span { shortest_ms: 10, longest_ms: 10_000 };
        let drawn: Vec<u64> = (0..10_000).map(|_| dice.span_ms(span)).collect();
        assert!(drawn.iter().all(|ms| (10..=10_000).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 20) && drawn.iter().any(|ms| *ms > 9_000));
    }
}
