//! RustCrypto's `p256`.

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Group as _;
use p256::{ProjectivePoint, PublicKey};

use super::order::Number;
use super::{Ecdsa, POINT_LEN, SECRET_LEN, SIGNATURE_LEN, Signing, equation};

/// RustCrypto's `p256`: for every machine.
///
/// What is secret is computed by it alone. A signature is verified with its numbers and points, but
/// a little over half of its work: it multiplies two points one after the other, each in a time
/// that does not tell by what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl Ecdsa for Portable {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        // On the curve, or it is none.
        PublicKey::from_sec1_bytes(point).is_ok_and(|key| {
            let point = key.to_projective();
            equation::holds(digest, signature, |u, v| Some(combine(u, v, point)))
        })
    }
}

impl Signing for Portable {
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
        let key = SigningKey::from_slice(secret).ok()?;
        key.verifying_key().to_encoded_point(false).as_bytes().try_into().ok()
    }

    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]> {
        let key = SigningKey::from_slice(secret).ok()?;
        let signature: Signature = key.sign_prehash(digest).ok()?;
        Some(signature.to_bytes().into())
    }
}

/// u·G + v·Q, by two bits of both at a time (Straus's trick): in a time that tells what u and v are.
fn combine(u: Number, v: Number, q: ProjectivePoint) -> ProjectivePoint {
    // At 4i + j: i·G + j·Q.
    let mut multiples = [ProjectivePoint::IDENTITY; 16];
    for at in 1..multiples.len() {
        multiples[at] = match at {
            2 | 8 => multiples[at / 2].double(),
            4.. => multiples[at - 4] + ProjectivePoint::GENERATOR,
            _ => multiples[at - 1] + q,
        };
    }
    let mut sum = ProjectivePoint::IDENTITY;
    for (u, v) in u.octets().into_iter().zip(v.octets()) {
        for shift in [6, 4, 2, 0] {
            sum = sum.double().double();
            let at = (u >> shift & 3) << 2 | v >> shift & 3;
            if at != 0 {
                sum += multiples[usize::from(at)];
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use p256::Scalar;
    use p256::ecdsa::VerifyingKey;
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    use p256::elliptic_curve::ff::PrimeField as _;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Numbers that differ in kind: small, large, with long rows of zeros and ones, and any.
    fn scalars() -> Vec<Scalar> {
        let scalar = |octets: [u8; 32]| Scalar::from_repr(octets.into()).unwrap();
        let small = (0..6_u64).map(Scalar::from);
        let rows = [[0x55; 32], [0xaa; 32], [0x0f; 32]].map(scalar);
        let any = (0..4_u8).map(|n| scalar(Sha256::digest([n]).into()));
        let all: Vec<Scalar> = small.chain(rows).chain(any).collect();
        all.iter().copied().chain(all.iter().map(|scalar| -*scalar)).collect()
    }

    /// Goal: the sum is that of two products, also where points of the table are equal, opposite,
    /// or at infinity.
    #[test]
    fn two_products_are_summed_as_if_one_by_one() {
        let g = ProjectivePoint::GENERATOR;
        for factor in [Scalar::ONE, Scalar::from(2_u64), Scalar::from(4_u64), scalars()[10]] {
            for q in [g * factor, -(g * factor)] {
                for u in scalars() {
                    for v in scalars().into_iter().step_by(5) {
                        let [u_number, v_number] =
                            [u, v].map(|n| Number::reduced(&n.to_repr().into()));
                        assert_eq!(
                            combine(u_number, v_number, q),
                            g * u + q * v,
                            "{u:?} {v:?} {q:?}"
                        );
                    }
                }
            }
        }
    }

    /// Goal: what `p256` takes and refuses is what we do, for good and spoiled signatures alike.
    #[test]
    fn the_verdict_is_that_of_p256() {
        for n in 0..40_u8 {
            let secret = Sha256::digest([n, 1]).into();
            let mut digest = if n % 8 == 0 { [0xff; 32] } else { Sha256::digest([n, 2]).into() };
            let point = Portable.point(&secret).unwrap();
            let mut signature = Portable.sign(&secret, &digest).unwrap();
            match n % 4 {
                1 => digest[0] ^= 1,
                2 => signature[usize::from(n)] ^= 0x80,
                3 => signature[..32].fill(if n % 3 == 0 { 0 } else { 0xff }),
                _ => {}
            }
            let expected = Signature::from_slice(&signature).is_ok_and(|signature| {
                let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
                key.verify_prehash(&digest, &signature).is_ok()
            });
            assert_eq!(Portable.is_signed(&point, &digest, &signature), expected, "{n}");
            assert_eq!(expected, n % 4 == 0, "{n}");
        }
    }
}
