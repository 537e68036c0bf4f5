//! AES in the one mode that a TPM uses: cipher feedback over whole blocks.
//!
//! Each block is combined with the encryption of the encrypted block before it, and the first with
//! that of the initialisation vector; so one octet after the other is encrypted, and decrypted, by
//! encryption alone. The last block may be cut. NIST SP 800-38A §6.3, TPM 2.0 Part 1 §11.4.3.

use aes::cipher::consts::U16;
use aes::cipher::{BlockEncrypt, BlockSizeUser};
use zeroize::Zeroizing;

/// Octets of a block.
const BLOCK_LEN: usize = 16;

/// What is done to octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Decrypt,
    Encrypt,
}

/// AES with a key of any length.
pub(crate) trait Cipher: BlockEncrypt + BlockSizeUser<BlockSize = U16> {}

impl<C: BlockEncrypt + BlockSizeUser<BlockSize = U16>> Cipher for C {}

/// Encrypts or decrypts `octets` in place.
pub(crate) fn apply<C: Cipher>(
    cipher: &C,
    direction: Direction,
    iv: &[u8; BLOCK_LEN],
    octets: &mut [u8],
) {
    let mut feedback = Zeroizing::new(*iv);
    for block in octets.chunks_mut(BLOCK_LEN) {
        cipher.encrypt_block((&mut *feedback).into());
        for (octet, key) in block.iter_mut().zip(feedback.iter_mut()) {
            let before = *octet;
            *octet ^= *key;
            *key = match direction {
                Direction::Decrypt => before,
                Direction::Encrypt => *octet,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use aes::cipher::KeyInit;
    use aes::{Aes128, Aes256};

    use super::*;
    use crate::testing::hex;

    const PLAIN: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                         30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

    fn check<C: Cipher>(cipher: &C, encrypted: &str) {
        let iv = core::array::from_fn(|index| index as u8);
        let (plain, encrypted) = (hex(PLAIN), hex(encrypted));
        for len in 0..=plain.len() {
            let mut octets = plain[..len].to_vec();
            apply(cipher, Direction::Encrypt, &iv, &mut octets);
            assert_eq!(octets, encrypted[..len], "{len} octets");
            apply(cipher, Direction::Decrypt, &iv, &mut octets);
            assert_eq!(octets, plain[..len], "{len} octets");
        }
    }

    /// Goal: the mode is that of the standard, forth and back, and with a last block of any length:
    /// the examples of NIST SP 800-38A, F.3.13 to F.3.18.
    #[test]
    fn octets_are_those_of_the_standard() {
        let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
        let encrypted = "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b\
                         26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6";
        check(&Aes128::new_from_slice(&key).unwrap(), encrypted);
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let encrypted = "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b\
                         df10132415e54b92a13ed0a8267ae2f975a385741ab9cef82031623d55b1e471";
        check(&Aes256::new_from_slice(&key).unwrap(), encrypted);
    }
}
