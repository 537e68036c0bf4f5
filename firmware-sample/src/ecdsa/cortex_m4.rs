//! The crate `p256-cm4`.

use p256::{ProjectivePoint, PublicKey};
use p256_cm4::{
    SignPrecomp, point_to_octet_string_uncompressed, scalarmult_base, scalarmult_generic,
    sign_step1,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::der::UNCOMPRESSED;
use super::order::Number;
use super::{Ecdsa, POINT_LEN, SECRET_LEN, SIGNATURE_LEN, Signing, equation, nonce};

/// The crate `p256-cm4`: assembly for Cortex-M4 and M33, many times as fast as portable code.
///
/// It multiplies points and inverts nonces; products modulo the order are [`Number`]'s. Its own
/// multiplication there has an instruction that loads a list of one register, which Armv7-M leaves
/// unpredictable (LDM, encoding T2) and QEMU refuses.
///
/// Its time depends on no secret where memory answers in a constant time, as that of these
/// processors does: it picks from tables by digits of the secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct CortexM4;

impl Ecdsa for CortexM4 {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        equation::holds(digest, signature, |u, v| {
            let of_base = if u == Number::default() {
                ProjectivePoint::IDENTITY
            } else {
                projective(&multiple(&u.octets(), None)?)?
            };
            Some(of_base + projective(&multiple(&v.octets(), Some(point))?)?)
        })
    }
}

impl Signing for CortexM4 {
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
        multiple(secret, None)
    }

    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]> {
        let key = Zeroizing::new(Number::in_range(secret)?);
        let nonce = Zeroizing::new(words(&*nonce(secret, digest)));
        let mut half = SignPrecomp::default();
        // Not so for one nonce in 2^256 or more, which nobody finds.
        if !sign_step1(&mut half, &nonce) {
            return None;
        }
        let inverse = Zeroizing::new(octets(&half.k_inv));
        half.k_inv.zeroize();
        let inverse = Zeroizing::new(Number::reduced(&inverse));
        let r = Number::reduced(&octets(&half.r));
        let s = *inverse * (Number::reduced(digest) + r * *key);
        let mut signature = [0; SIGNATURE_LEN];
        signature[..32].copy_from_slice(&r.octets());
        signature[32..].copy_from_slice(&s.octets());
        (s != Number::default()).then_some(signature)
    }
}

/// `factor` (big-endian) times a point, both uncompressed, or times that with which the curve is given
/// (SEC 2 §2.4.2); `None` where the factor is zero or not below the order, or where the point is
/// none of the curve.
fn multiple(factor: &[u8; 32], point: Option<&[u8; POINT_LEN]>) -> Option<[u8; POINT_LEN]> {
    let factor = Zeroizing::new(words(factor));
    let (mut x, mut y) = ([0; 8], [0; 8]);
    let is_product = match point {
        None => scalarmult_base(&mut x, &mut y, &factor),
        Some([UNCOMPRESSED, of @ ..]) => {
            let (of_x, of_y) = of.split_at(32);
            scalarmult_generic(&mut x, &mut y, &factor, &words(of_x), &words(of_y))
        }
        Some(_) => false,
    };
    is_product.then(|| {
        let mut product = [0; POINT_LEN];
        point_to_octet_string_uncompressed(&mut product, &x, &y);
        product
    })
}

/// A point as `p256` has it, which adds.
fn projective(point: &[u8; POINT_LEN]) -> Option<ProjectivePoint> {
    Some(PublicKey::from_sec1_bytes(point).ok()?.to_projective())
}

/// A number (32 octets, big-endian) as words, the lowest first.
fn words(number: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, octets) in words.iter_mut().zip(number.rchunks_exact(4)) {
        *word = octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
    }
    words
}

/// The number (big-endian) that so many words are.
fn octets(words: &[u32; 8]) -> [u8; 32] {
    let mut number = [0; 32];
    for (octets, word) in number.rchunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_be_bytes());
    }
    number
}
