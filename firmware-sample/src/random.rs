//! Random octets from one seed of the hardware: HMAC_DRBG with SHA-256 (NIST SP 800-90A §10.1.2).
//!
//! A board's source of randomness is slow, may fail, and is asked once, at the start, where a
//! failure can still be told: a generator that exists always answers. What it has given out cannot
//! be computed from what it holds later. It is not reseeded: a device would have to draw 2^48
//! times in one life for the standard to ask for it.

use core::fmt;

use p256::elliptic_curve::rand_core::{CryptoRng, Error, RngCore};
use rfc6979::HmacDrbg;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Octets of a seed: the entropy input of 32 octets and the nonce of 16 of SP 800-90A §8.6.7.
pub const SEED_LEN: usize = 48;

/// Tells this use of the seed from every other.
const PERSONALIZATION: &[u8] = b"fleetcert firmware v1";

/// A generator of random octets. Two never give the same ones.
pub struct Generator(HmacDrbg<Sha256>);

impl Generator {
    /// The generator of a seed, which must come from hardware and be used for nothing else.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let (entropy, nonce) = seed.split_at(32);
        Self(HmacDrbg::new(entropy, nonce, PERSONALIZATION))
    }

    /// Another generator, seeded by this one: for a part that needs one of its own.
    #[must_use]
    pub fn split(&mut self) -> Self {
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        self.fill_bytes(&mut *seed);
        Self::from_seed(&seed)
    }
}

impl fmt::Debug for Generator {
    /// Shows nothing: what it holds says what comes next.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generator")
    }
}

impl RngCore for Generator {
    fn next_u32(&mut self) -> u32 {
        let mut octets = [0; 4];
        self.fill_bytes(&mut octets);
        u32::from_le_bytes(octets)
    }

    fn next_u64(&mut self) -> u64 {
        let mut octets = [0; 8];
        self.fill_bytes(&mut octets);
        u64::from_le_bytes(octets)
    }

    fn fill_bytes(&mut self, octets: &mut [u8]) {
        self.0.fill_bytes(octets);
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(octets);
        Ok(())
    }
}

impl CryptoRng for Generator {}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(generator: &mut Generator) -> [u8; 32] {
        let mut octets = [0; 32];
        generator.fill_bytes(&mut octets);
        octets
    }

    /// Goal: it is the generator of the standard, so that its analysis applies. The expected octets
    /// were computed from SP 800-90A with Python's `hmac`.
    #[test]
    fn it_draws_what_the_standard_says() {
        let seed = core::array::from_fn(|i| u8::try_from(i).unwrap());
        let mut generator = Generator::from_seed(&seed);
        assert_eq!(draw(&mut generator), EXPECTED[0]);
        assert_eq!(draw(&mut generator), EXPECTED[1]);
    }

    /// Goal: parts that were given generators of their own do not draw the same octets.
    #[test]
    fn a_part_draws_other_octets_than_its_origin() {
        let mut origin = Generator::from_seed(&[7; SEED_LEN]);
        let (mut first, mut second) = (origin.split(), origin.split());
        let drawn = [draw(&mut origin), draw(&mut first), draw(&mut second)];
        assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2]);
    }

    const EXPECTED: [[u8; 32]; 2] = [
        [
            0xfb, 0x2f, 0xed, 0x83, 0x03, 0x06, 0x9a, 0x2f, 0xf5, 0x06, 0x11, 0xa5, 0x36, 0x54,
            0x09, 0x61, 0x26, 0x76, 0xb2, 0xe4, 0x47, 0x35, 0x4e, 0x3a, 0x89, 0x04, 0x3f, 0x16,
            0x27, 0x19, 0xfc, 0x89,
        ],
        [
            0xaf, 0xc2, 0x7a, 0xdb, 0x6f, 0x6e, 0x63, 0xbd, 0x63, 0x4f, 0x6d, 0x37, 0x4f, 0x68,
            0x09, 0x82, 0x01, 0xc0, 0x6a, 0x3d, 0x0c, 0xaa, 0xb9, 0x7d, 0x40, 0x9b, 0x8a, 0x8c,
            0x2b, 0xb7, 0x0f, 0x88,
        ],
    ];
}
