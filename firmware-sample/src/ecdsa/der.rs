//! Signatures and points as certificates and TLS carry them.

use fleetcert_core::der::reader::{Reader, Tag};
use fleetcert_core::sha256::sha256;

use super::{Ecdsa, POINT_LEN, SIGNATURE_LEN};

/// The first octet of an uncompressed point (SEC 1 §2.3.3).
pub(super) const UNCOMPRESSED: u8 = 4;

/// Whether `signature`, DER, over `message` was made with the key of `point`.
pub(crate) fn is_signed(
    ecdsa: &impl Ecdsa,
    point: &[u8; POINT_LEN],
    message: &[u8],
    signature: &[u8],
) -> bool {
    numbers(signature)
        .is_some_and(|signature| ecdsa.is_signed(point, &sha256(&[message]), &signature))
}

/// An uncompressed point; whether it is on the curve is seen when it is used.
pub(crate) fn point(octets: &[u8]) -> Option<[u8; POINT_LEN]> {
    let point: [u8; POINT_LEN] = octets.try_into().ok()?;
    (point[0] == UNCOMPRESSED).then_some(point)
}

/// RFC 3279 §2.2.3: `ECDSA-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }`, in DER.
fn numbers(der: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
    let mut whole = Reader::new(der);
    let mut reader = whole.enter(Tag::SEQUENCE).filter(|_| whole.is_finished())?;
    let mut numbers = [0; SIGNATURE_LEN];
    for number in numbers.chunks_exact_mut(32) {
        let octets = reader.unsigned()?;
        let from = 32_usize.checked_sub(octets.len())?;
        number[from..].copy_from_slice(octets);
    }
    reader.is_finished().then_some(numbers)
}

/// A signature in DER, as TLS carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DerSignature {
    octets: [u8; DER_LEN_MAX],
    len: usize,
}

/// Octets of a signature in DER, at most: two numbers of 33 octets, and three headers.
const DER_LEN_MAX: usize = 72;

impl DerSignature {
    /// RFC 3279 §2.2.3, for r and s.
    pub(crate) fn new(signature: &[u8; SIGNATURE_LEN]) -> Self {
        let (r, s) = signature.split_at(32);
        let mut this = Self::default();
        this.push(&[SEQUENCE, 0]);
        this.push_number(r);
        this.push_number(s);
        this.octets[1] = this.len.to_le_bytes()[0] - 2;
        this
    }

    /// An INTEGER: no leading zero but the one that keeps it positive.
    fn push_number(&mut self, number: &[u8]) {
        let zeros = number.iter().take_while(|octet| **octet == 0).count().min(31);
        let number = &number[zeros..];
        let is_padded = number.first().is_some_and(|octet| octet & 0x80 != 0);
        let len = number.len() + usize::from(is_padded);
        self.push(&[INTEGER, len.to_le_bytes()[0]]);
        self.push(if is_padded { &[0] } else { &[] });
        self.push(number);
    }

    fn push(&mut self, octets: &[u8]) {
        // There is room for every signature: two numbers of 33 octets at most, and three heads.
        let free = self.octets.get_mut(self.len..).unwrap_or_default();
        if let Some(place) = free.get_mut(..octets.len()) {
            place.copy_from_slice(octets);
            self.len += octets.len();
        }
    }
}

impl Default for DerSignature {
    /// No signature: no octets.
    fn default() -> Self {
        Self { octets: [0; DER_LEN_MAX], len: 0 }
    }
}

impl AsRef<[u8]> for DerSignature {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

/// The tags of what a signature consists of.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature, SigningKey};

    use super::*;
    use crate::ecdsa::Portable;

    const MESSAGE: &[u8] = b"a message";

    fn signed() -> ([u8; POINT_LEN], Vec<u8>) {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: Signature = key.sign(MESSAGE);
        let octets = key.verifying_key().to_encoded_point(false);
        (point(octets.as_bytes()).unwrap(), signature.to_der().as_bytes().to_vec())
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_alone() {
        let (point, signature) = signed();
        assert!(is_signed(&Portable, &point, MESSAGE, &signature));
        assert!(!is_signed(&Portable, &point, b"another message", &signature));
        let other = SigningKey::from_slice(&[8; 32]).unwrap();
        let other = other.verifying_key().to_encoded_point(false);
        let other = super::point(other.as_bytes()).unwrap();
        assert!(!is_signed(&Portable, &other, MESSAGE, &signature));
    }

    /// Goal: no bit of a signature is without meaning, and no length but its own will do.
    #[test]
    fn a_signature_with_a_bit_flipped_or_cut_or_extended_does_not_hold() {
        let (point, signature) = signed();
        for bit in 0..signature.len() * 8 {
            let mut flipped = signature.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_signed(&Portable, &point, MESSAGE, &flipped), "bit {bit}");
        }
        for len in 0..signature.len() {
            assert!(!is_signed(&Portable, &point, MESSAGE, &signature[..len]), "{len} octets");
        }
        let longer = [&signature[..], &[0]].concat();
        assert!(!is_signed(&Portable, &point, MESSAGE, &longer));
    }

    #[test]
    fn zero_numbers_and_numbers_too_long_are_no_signature() {
        let (point, _) = signed();
        let zeros = [0x30, 6, 2, 1, 0, 2, 1, 0];
        assert_eq!(numbers(&zeros), Some([0; SIGNATURE_LEN]));
        assert!(!is_signed(&Portable, &point, MESSAGE, &zeros));
        let mut long = [1; 2 + 2 + 33 + 3];
        long[..4].copy_from_slice(&[0x30, 38, 2, 33]);
        long[37..].copy_from_slice(&[2, 1, 1]);
        assert_eq!(numbers(&long), None);
    }

    /// Goal: what we write is what RustCrypto writes, for every count of leading zeros and both
    /// signs of the first octet.
    #[test]
    fn a_signature_is_written_in_der_as_others_write_it() {
        for zeros in 0..32 {
            for first in [0x01, 0x7f, 0x80, 0xfe] {
                let mut numbers = [0x11; SIGNATURE_LEN];
                numbers[..zeros].fill(0);
                numbers[zeros] = first;
                numbers[32] = first;
                let expected = Signature::from_slice(&numbers).unwrap().to_der();
                let ours = DerSignature::new(&numbers);
                assert_eq!(ours.as_ref(), expected.as_bytes());
                assert_eq!(super::numbers(ours.as_ref()), Some(numbers));
            }
        }
    }

    #[test]
    fn a_point_is_uncompressed_and_on_the_curve() {
        let (good, signature) = signed();
        assert_eq!(point(&good[..64]), None);
        let mut hybrid = good;
        hybrid[0] = 6;
        assert_eq!(point(&hybrid), None);
        let mut off = good;
        off[64] ^= 1;
        assert!(!is_signed(&Portable, &off, MESSAGE, &signature));
    }
}
