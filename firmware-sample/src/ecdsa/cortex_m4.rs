//! The crate `p256-cm4`.

use p256::ecdsa::Signature;
use p256::elliptic_curve::ff::{Field as _, PrimeField as _};
use p256::elliptic_curve::sec1::FromEncodedPoint as _;
use p256::{AffinePoint, EncodedPoint, FieldBytes, ProjectivePoint, Scalar, SecretKey};
use p256_cm4::{
    SignPrecomp, keygen, octet_string_to_point, point_to_octet_string_uncompressed,
    scalarmult_base, scalarmult_generic, sign_step1,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Ecdsa, POINT_LEN, SECRET_LEN, SIGNATURE_LEN, Signing, equation, nonce};

/// The crate `p256-cm4`: assembly for Cortex-M4 and M33, many times as fast as portable code.
///
/// It multiplies points and inverts; the two products modulo the order that are left of each
/// equation are `p256`'s. Its own multiplication there has an instruction that loads a list of one
/// register, which Armv7-M leaves unpredictable (LDM, encoding T2) and QEMU refuses.
///
/// Its time depends on no secret where memory answers in a constant time, as that of these
/// processors does: it picks from tables by digits of the secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct CortexM4;

/// A number as words, the lowest first.
type Words = [u32; 8];

impl Ecdsa for CortexM4 {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        let (mut x, mut y) = ([0; 8], [0; 8]);
        // On the curve, or it is none.
        octet_string_to_point(&mut x, &mut y, point)
            && equation::holds(digest, signature, |u, v| {
                Some(product(u, None)? + product(v, Some((&x, &y)))?)
            })
    }
}

impl Signing for CortexM4 {
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
        let secret = Zeroizing::new(words((*secret).into()));
        let (mut x, mut y) = ([0; 8], [0; 8]);
        keygen(&mut x, &mut y, &secret).then(|| {
            let mut point = [0; POINT_LEN];
            point_to_octet_string_uncompressed(&mut point, &x, &y);
            point
        })
    }

    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]> {
        let key = SecretKey::from_slice(secret).ok()?.to_nonzero_scalar();
        let key = Zeroizing::new(*key);
        let nonce = Zeroizing::new(words((*nonce(secret, digest)).into()));
        let mut half = SignPrecomp::default();
        // Not so for one nonce in 2^256 or more, which nobody finds.
        if !sign_step1(&mut half, &nonce) {
            return None;
        }
        let r = scalar(&half.r)?;
        let inverse = Zeroizing::new(scalar(&half.k_inv)?);
        half.k_inv.zeroize();
        let s = *inverse * (equation::reduced(digest.into()) + r * *key);
        Some(Signature::from_scalars(r, s).ok()?.to_bytes().into())
    }
}

/// `factor` times a point of the curve, or times G where there is none.
fn product(factor: &Scalar, point: Option<(&Words, &Words)>) -> Option<ProjectivePoint> {
    if bool::from(factor.is_zero()) {
        return Some(ProjectivePoint::IDENTITY);
    }
    let factor = words(factor.to_bytes());
    let (mut x, mut y) = ([0; 8], [0; 8]);
    let is_product = match point {
        Some((of_x, of_y)) => scalarmult_generic(&mut x, &mut y, &factor, of_x, of_y),
        None => scalarmult_base(&mut x, &mut y, &factor),
    };
    let encoded = EncodedPoint::from_affine_coordinates(&octets(&x), &octets(&y), false);
    let affine = Option::<AffinePoint>::from(AffinePoint::from_encoded_point(&encoded));
    affine.filter(|_| is_product).map(ProjectivePoint::from)
}

fn words(number: FieldBytes) -> Words {
    let mut words = [0; 8];
    for (word, octets) in words.iter_mut().zip(number.rchunks_exact(4)) {
        *word = octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
    }
    words
}

fn octets(words: &Words) -> FieldBytes {
    let mut number = FieldBytes::default();
    for (octets, word) in number.rchunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    number
}

/// A number below the order.
fn scalar(words: &Words) -> Option<Scalar> {
    Scalar::from_repr(octets(words)).into()
}
