//! ECDSA on P-256 with SHA-256: the only signatures that a device makes in software or verifies.
//!
//! **What it is.** [`Ecdsa`] and [`Signing`], the arithmetic that a board chooses, and the two there
//! are: [`Portable`] for every machine, and `CortexM4` in assembly.
//!
//! **What it must never do.** Sign with a nonce that anybody could guess, or twice with one: a
//! single such signature gives the key away. Nor accept a point off the curve.
//!
//! **Why that is sound.** Nonces are drawn from the key and the digest (RFC 6979), so that no
//! generator of random numbers can spoil them, and both implementations sign alike, which the
//! standard's own examples show: on the host, and on the board by [`is_sound`] and [`can_verify`].

#[cfg(all(feature = "p256-cm4", target_arch = "arm", target_os = "none"))]
mod cortex_m4;
mod der;
mod equation;
mod order;
mod portable;

use core::fmt::Debug;

use fleetcert_core::sha256::sha256;
#[cfg(any(test, all(feature = "p256-cm4", target_arch = "arm", target_os = "none")))]
use zeroize::Zeroizing;

#[cfg(all(feature = "p256-cm4", target_arch = "arm", target_os = "none"))]
pub use self::cortex_m4::CortexM4;
pub(crate) use self::der::{DerSignature, is_signed, point};
pub use self::portable::Portable;

/// Octets of an uncompressed point: 4, x and y.
pub const POINT_LEN: usize = 65;

/// Octets of a private key.
pub const SECRET_LEN: usize = 32;

/// Octets of a signature as two numbers of fixed length: r and s.
pub const SIGNATURE_LEN: usize = 64;

/// Signatures of [`is_sound`]'s chain: a second on the slowest board.
const CHAIN_LEN: usize = 8;

/// Who computes: software, or a machine's own code.
pub trait Ecdsa: Debug + Send + Sync {
    /// Whether `signature` (r and s, big-endian) over the SHA-256 `digest` was made with the key
    /// of `point` (uncompressed). A point off the curve, and numbers out of range, sign nothing.
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool;
}

/// Who computes with private keys, where they are in software.
pub trait Signing: Debug {
    /// The point of a private key (big-endian), uncompressed; `None` if it is none, because it is
    /// zero or not below the order of the curve.
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]>;

    /// Signs a SHA-256 digest: r and s, big-endian; `None` if `secret` is no private key. The
    /// nonce is that of RFC 6979 §3.2, so that the same digest has the same signature.
    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]>;
}

/// Whether signatures are verified rightly, by an example of the standard's (RFC 6979 §A.2.5): what
/// a board asks before it trusts its own code.
pub fn can_verify<E: Ecdsa>(ecdsa: &E) -> bool {
    let digest = sha256(&[example::MESSAGE]);
    let mut forged = example::SIGNATURE;
    forged[SIGNATURE_LEN - 1] ^= 1;
    ecdsa.is_signed(&example::POINT, &digest, &example::SIGNATURE)
        && !ecdsa.is_signed(&example::POINT, &digest, &forged)
}

/// Whether signing, points and verification are right: what a board asks before keys are made with
/// its own code.
///
/// By a chain of signatures that begins with the standard's example: one example meets few of the
/// carries that there can be in numbers of 256 bits. Each point and signature goes into the end of
/// the chain, so that none can be another and the end the same.
pub fn is_sound<E: Ecdsa + Signing>(ecdsa: &E) -> bool {
    can_verify(ecdsa) && end_of_chain(ecdsa) == Some(example::END_OF_CHAIN)
}

/// The digest after [`CHAIN_LEN`] signatures, each with a key and over a digest that are made of
/// the one before; `None` if one of them is not verified.
fn end_of_chain<E: Ecdsa + Signing>(ecdsa: &E) -> Option<[u8; 32]> {
    let mut secret = example::SECRET;
    let mut digest = sha256(&[example::MESSAGE]);
    for _ in 0..CHAIN_LEN {
        let point = ecdsa.point(&secret)?;
        let signature = ecdsa.sign(&secret, &digest)?;
        if !ecdsa.is_signed(&point, &digest, &signature) {
            return None;
        }
        secret = sha256(&[&point]);
        digest = sha256(&[&signature]);
    }
    Some(digest)
}

/// The nonce for signing `digest` with `secret`: RFC 6979 §3.2, with HMAC-SHA256.
///
/// The digest is not reduced by the order of the curve (§2.3.4), as `p256` does not reduce it: the
/// nonce of one digest in 2^32 is another than the standard's, and no worse.
#[cfg(any(test, all(feature = "p256-cm4", target_arch = "arm", target_os = "none")))]
fn nonce(secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Zeroizing<[u8; SECRET_LEN]> {
    let nonce = rfc6979::generate_k::<sha2::Sha256, _>(
        secret.into(),
        &order::octets().into(),
        digest.into(),
        &[],
    );
    Zeroizing::new(nonce.into())
}

/// The first example of RFC 6979 §A.2.5, and what follows from it.
mod example {
    use super::{POINT_LEN, SECRET_LEN, SIGNATURE_LEN};

    /// What is signed.
    pub(super) const MESSAGE: &[u8] = b"sample";

    /// Where [`super::end_of_chain`] ends with `p256`'s own keys.
    pub(super) const END_OF_CHAIN: [u8; 32] = [
        0x23, 0xc7, 0xc5, 0x24, 0x5f, 0xeb, 0x70, 0x0f, 0x01, 0x48, 0xdb, 0x0f, 0xdc, 0x6c, 0x48,
        0x44, 0x74, 0x20, 0x63, 0xb2, 0xe0, 0x19, 0x2c, 0x5c, 0xe0, 0xd2, 0x4e, 0xcd, 0xe1, 0xb5,
        0xb7, 0x0c,
    ];

    /// x
    pub(super) const SECRET: [u8; SECRET_LEN] = [
        0xc9, 0xaf, 0xa9, 0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21, 0x57, 0x67, 0xb1, 0xd6,
        0x93, 0x4e, 0x50, 0xc3, 0xdb, 0x36, 0xe8, 0x9b, 0x12, 0x7b, 0x8a, 0x62, 0x2b, 0x12, 0x0f,
        0x67, 0x21,
    ];

    /// Ux and Uy
    pub(super) const POINT: [u8; POINT_LEN] = [
        0x04, 0x60, 0xfe, 0xd4, 0xba, 0x25, 0x5a, 0x9d, 0x31, 0xc9, 0x61, 0xeb, 0x74, 0xc6, 0x35,
        0x6d, 0x68, 0xc0, 0x49, 0xb8, 0x92, 0x3b, 0x61, 0xfa, 0x6c, 0xe6, 0x69, 0x62, 0x2e, 0x60,
        0xf2, 0x9f, 0xb6, 0x79, 0x03, 0xfe, 0x10, 0x08, 0xb8, 0xbc, 0x99, 0xa4, 0x1a, 0xe9, 0xe9,
        0x56, 0x28, 0xbc, 0x64, 0xf2, 0xf1, 0xb2, 0x0c, 0x2d, 0x7e, 0x9f, 0x51, 0x77, 0xa3, 0xc2,
        0x94, 0xd4, 0x46, 0x22, 0x99,
    ];

    /// r and s
    pub(super) const SIGNATURE: [u8; SIGNATURE_LEN] = [
        0xef, 0xd4, 0x8b, 0x2a, 0xac, 0xb6, 0xa8, 0xfd, 0x11, 0x40, 0xdd, 0x9c, 0xd4, 0x5e, 0x81,
        0xd6, 0x9d, 0x2c, 0x87, 0x7b, 0x56, 0xaa, 0xf9, 0x91, 0xc3, 0x4d, 0x0e, 0xa8, 0x4e, 0xaf,
        0x37, 0x16, 0xf7, 0xcb, 0x1c, 0x94, 0x2d, 0x65, 0x7c, 0x41, 0xd4, 0x36, 0xc7, 0xa1, 0xb6,
        0xe2, 0x9f, 0x65, 0xf3, 0xe9, 0x00, 0xdb, 0xb9, 0xaf, 0xf4, 0x06, 0x4d, 0xc4, 0xab, 0x2f,
        0x84, 0x3a, 0xcd, 0xa8,
    ];
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
    use p256::ecdsa::{Signature, SigningKey};
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A signature of RFC 6979 §A.2.5: the message, k, and r and s.
    const EXAMPLES: [(&str, &str, &str); 2] = [
        (
            "sample",
            "A6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60",
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            "test",
            "D16B6AE827F17175E040871A1C7EC3500192C4C92677336EC2537ACAEE0008E0",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367\
             019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
    ];

    fn octets<const LEN: usize>(hexadecimal: &str) -> [u8; LEN] {
        assert_eq!(hexadecimal.len(), 2 * LEN);
        core::array::from_fn(|i| u8::from_str_radix(&hexadecimal[2 * i..2 * i + 2], 16).unwrap())
    }

    fn digest(message: &str) -> [u8; 32] {
        Sha256::digest(message).into()
    }

    /// Goal: nonces and signatures are the standard's, and no others.
    #[test]
    fn the_examples_of_the_standard_are_signed_alike() {
        for (message, k, signature) in EXAMPLES {
            let (digest, signature) = (digest(message), octets(signature));
            assert_eq!(*nonce(&example::SECRET, &digest), octets(k), "{message}");
            assert_eq!(Portable.sign(&example::SECRET, &digest), Some(signature), "{message}");
            assert!(Portable.is_signed(&example::POINT, &digest, &signature), "{message}");
        }
        assert!(is_sound(&Portable));
    }

    /// Goal: the chain ends where `p256` ends that has nothing of ours in it.
    #[test]
    fn the_end_of_the_chain_is_that_of_p256() {
        let mut secret = example::SECRET;
        let mut digest = digest("sample");
        for _ in 0..CHAIN_LEN {
            let key = SigningKey::from_slice(&secret).unwrap();
            let signature: Signature = key.sign_prehash(&digest).unwrap();
            key.verifying_key().verify_prehash(&digest, &signature).unwrap();
            let point = key.verifying_key().to_encoded_point(false);
            secret = Sha256::digest(point).into();
            digest = Sha256::digest(signature.to_bytes()).into();
        }
        assert_eq!(digest, example::END_OF_CHAIN);
    }

    /// Goal: with our nonce the equation of ECDSA gives the signature that `p256` makes with its
    /// own, also for digests that are not below the order of the curve.
    #[test]
    fn the_nonce_is_the_one_that_p256_signs_with() {
        for n in 0..50 {
            let secret = digest(&std::format!("secret {n}"));
            let digest = if n % 5 == 0 { [0xff; 32] } else { digest(&std::format!("{n}")) };
            let [r_expected, _] = halves(&Portable.sign(&secret, &digest).unwrap());
            // r is the x of the nonce's point.
            let r = Portable.point(&nonce(&secret, &digest)).unwrap();
            assert_eq!(&r[1..33], &r_expected, "{n}");
        }
    }

    fn halves(signature: &[u8; SIGNATURE_LEN]) -> [[u8; 32]; 2] {
        let (r, s) = signature.split_at(32);
        [r.try_into().unwrap(), s.try_into().unwrap()]
    }

    #[test]
    fn zero_and_the_order_and_more_are_no_private_keys() {
        for secret in [[0; SECRET_LEN], order::octets(), [0xff; SECRET_LEN]] {
            assert_eq!(Portable.point(&secret), None);
            assert_eq!(Portable.sign(&secret, &[1; 32]), None);
        }
        let mut last = order::octets();
        last[SECRET_LEN - 1] -= 1;
        assert!(Portable.point(&last).is_some());
    }

    /// Goal: a check that nothing can fail would be none.
    #[test]
    fn arithmetic_that_is_wrong_in_one_place_is_not_sound() {
        for fault in [Fault::Accepts, Fault::Later, Fault::Point, Fault::Refuses, Fault::Signature]
        {
            assert!(!is_sound(&Wrong(fault)), "{fault:?}");
            let is_seen = matches!(fault, Fault::Accepts | Fault::Refuses);
            assert_eq!(can_verify(&Wrong(fault)), !is_seen, "{fault:?}");
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fault {
        Accepts,
        /// Only where the key is not the example's.
        Later,
        Point,
        Refuses,
        Signature,
    }

    /// [`Portable`] with a fault.
    #[derive(Debug)]
    struct Wrong(Fault);

    impl Ecdsa for Wrong {
        fn is_signed(
            &self,
            point: &[u8; POINT_LEN],
            digest: &[u8; 32],
            signature: &[u8; SIGNATURE_LEN],
        ) -> bool {
            match self.0 {
                Fault::Accepts => true,
                Fault::Refuses => false,
                _ => Portable.is_signed(point, digest, signature),
            }
        }
    }

    impl Signing for Wrong {
        fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
            let mut point = Portable.point(secret)?;
            point[64] ^= u8::from(self.0 == Fault::Point);
            Some(point)
        }

        fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; 64]> {
            let mut signature = Portable.sign(secret, digest)?;
            let is_wrong = match self.0 {
                Fault::Later => *secret != example::SECRET,
                fault => fault == Fault::Signature,
            };
            signature[63] ^= u8::from(is_wrong);
            Some(signature)
        }
    }
}
