//! Numbers modulo the order of the curve, which the equations of ECDSA are about.
//!
//! **What it is.** [`Number`], with what is done with it: it is read, multiplied, added, and, of a
//! signature that everybody may see, inverted.
//!
//! **What it must never do.** Take a time that depends on a secret: one such number is a private key,
//! and another the nonce that gives it away.
//!
//! **Why that is sound.** It is Montgomery's multiplication of the crate `crypto-bigint`, which
//! loops over the words of every number alike. `p256` has such numbers too, reduced in thousands of
//! octets without a loop: here a signature takes two products, for which that is a poor price. Only
//! the inverse of what is public is `p256`'s.

use core::ops::{Add, Mul};

use p256::elliptic_curve::bigint::modular::constant_mod::{Residue, ResidueParams as _};
use p256::elliptic_curve::bigint::{Encoding as _, impl_modulus};
use p256::elliptic_curve::ff::PrimeField as _;
use p256::elliptic_curve::ops::Invert as _;
use p256::elliptic_curve::subtle::{ConstantTimeEq as _, ConstantTimeLess as _};
use p256::{Scalar, U256};
use zeroize::DefaultIsZeroes;

// The order of the curve (SEC 2 §2.4.2).
impl_modulus!(Order, U256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");

/// A number below the order.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Number(Residue<Order, { U256::LIMBS }>);

impl Number {
    /// Any number (big-endian) less a multiple of the order.
    pub(super) fn reduced(octets: &[u8; 32]) -> Self {
        Self(Residue::new(&U256::from_be_bytes(*octets)))
    }

    /// A number (big-endian) that is a private key, or a half of a signature: not zero, and below
    /// the order.
    pub(super) fn in_range(octets: &[u8; 32]) -> Option<Self> {
        let number = U256::from_be_bytes(*octets);
        let is_in_range = !number.ct_eq(&U256::ZERO) & number.ct_lt(&Order::MODULUS);
        bool::from(is_in_range).then(|| Self::reduced(octets))
    }

    /// The number, big-endian.
    pub(super) fn octets(self) -> [u8; 32] {
        self.0.retrieve().to_be_bytes()
    }

    /// What gives one when it is multiplied by this, in a time that tells what this is: for what
    /// everybody may know. Zero for zero.
    pub(super) fn inverse_of_public(self) -> Self {
        let scalar = Option::<Scalar>::from(Scalar::from_repr(self.octets().into()));
        let inverse = scalar.and_then(|scalar| scalar.invert_vartime().into());
        inverse.map(|inverse: Scalar| Self::reduced(&inverse.to_repr().into())).unwrap_or_default()
    }
}

impl Add for Number {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Mul for Number {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
}

impl DefaultIsZeroes for Number {}

/// The order itself, big-endian.
#[cfg(any(test, all(feature = "p256-cm4", target_arch = "arm", target_os = "none")))]
pub(super) fn octets() -> [u8; 32] {
    Order::MODULUS.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use p256::Scalar;
    use p256::elliptic_curve::ff::PrimeField as _;
    use p256::elliptic_curve::ops::Reduce;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Numbers of all kinds, below the order and not.
    fn numbers() -> Vec<[u8; 32]> {
        let mut below = octets();
        below[31] -= 1;
        let mut above = octets();
        above[31] += 1;
        let mut one = [0; 32];
        one[31] = 1;
        let edges = [[0; 32], one, below, octets(), above, [0xff; 32], [0x80; 32], [0x7f; 32]];
        edges.into_iter().chain((0..16_u8).map(|n| Sha256::digest([n]).into())).collect()
    }

    fn scalar(octets: &[u8; 32]) -> Scalar {
        <Scalar as Reduce<U256>>::reduce_bytes(&(*octets).into())
    }

    /// Goal: sums, products and inverses are those of `p256`.
    #[test]
    fn numbers_are_reckoned_with_as_p256_does() {
        for a in numbers() {
            let (number, expected) = (Number::reduced(&a), scalar(&a));
            assert_eq!(number.octets(), <[u8; 32]>::from(expected.to_repr()), "{a:02x?}");
            let inverse = expected.invert().unwrap_or(Scalar::ZERO);
            assert_eq!(
                number.inverse_of_public().octets(),
                <[u8; 32]>::from(inverse.to_repr()),
                "{a:02x?}"
            );
            for b in numbers() {
                let (other, second) = (Number::reduced(&b), scalar(&b));
                let sum = <[u8; 32]>::from((expected + second).to_repr());
                assert_eq!((number + other).octets(), sum, "{a:02x?} {b:02x?}");
                let product = <[u8; 32]>::from((expected * second).to_repr());
                assert_eq!((number * other).octets(), product, "{a:02x?} {b:02x?}");
            }
        }
    }

    #[test]
    fn zero_and_what_is_not_below_the_order_are_out_of_range() {
        for octets in numbers() {
            let is_scalar = Option::<Scalar>::from(Scalar::from_repr(octets.into()))
                .is_some_and(|scalar| scalar != Scalar::ZERO);
            assert_eq!(Number::in_range(&octets).is_some(), is_scalar, "{octets:02x?}");
        }
    }
}
