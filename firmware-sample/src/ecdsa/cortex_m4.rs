//! The crate `p256-cm4`.

use p256_cm4::{keygen, octet_string_to_point, point_to_octet_string_uncompressed};
use zeroize::Zeroizing;

use super::{Ecdsa, POINT_LEN, SECRET_LEN, SIGNATURE_LEN, Signing, nonce};

/// The crate `p256-cm4`: assembly for Cortex-M4 and M33, about twelve times as fast.
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
        let (mut x, mut y) = ([0; 8], [0; 8]);
        let (r, s) = signature.split_at(32);
        // It checks that the point is on the curve, and the ranges of r and s.
        octet_string_to_point(&mut x, &mut y, point)
            && p256_cm4::verify(&x, &y, digest, &words(r), &words(s))
    }
}

impl Signing for CortexM4 {
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
        let secret = Zeroizing::new(words(secret));
        let (mut x, mut y) = ([0; 8], [0; 8]);
        keygen(&mut x, &mut y, &secret).then(|| {
            let mut point = [0; POINT_LEN];
            point_to_octet_string_uncompressed(&mut point, &x, &y);
            point
        })
    }

    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]> {
        let key = Zeroizing::new(words(secret));
        // It checks the range of the nonce, not that of the key.
        if !p256_cm4::check_range_n(&key) {
            return None;
        }
        let nonce = Zeroizing::new(words(&*nonce(secret, digest)));
        let (mut r, mut s) = ([0; 8], [0; 8]);
        p256_cm4::sign(&mut r, &mut s, digest, &key, &nonce).then(|| {
            let mut signature = [0; SIGNATURE_LEN];
            for (octets, word) in signature.rchunks_exact_mut(4).zip(s.iter().chain(&r)) {
                octets.copy_from_slice(&word.to_be_bytes());
            }
            signature
        })
    }
}

/// A big-endian number as words, the lowest first.
fn words(number: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, octets) in words.iter_mut().zip(number.rchunks_exact(4)) {
        *word = octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet));
    }
    words
}
