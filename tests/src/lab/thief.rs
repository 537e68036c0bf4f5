//! Somebody with a copy of the disk, who looks for private keys.
//!
//! Two searches, because either alone is easily satisfied: for the usual wrappings of a private
//! key, whichever key it is; and for the one number that belongs to a public key, at every offset
//! of every file, in both orders of octets, in base64 and hexadecimal too. The second tries each 32
//! octets as a private key on the curve, so it finds a key under whatever it is wrapped in, except
//! encryption.

use std::fs;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

use super::OrFail;

/// Octets of a private key of P-256.
const SCALAR_LEN: usize = 32;

/// What private keys of elliptic curves begin with: in PEM (RFC 7468 §10), and in DER the version
/// and the length of the number (RFC 5915 §3).
const WRAPPINGS: [&[u8]; 2] = [b"PRIVATE KEY-----", &[0x02, 0x01, 0x01, 0x04, SCALAR_LEN as u8]];

/// A shorter run of letters and digits hides no key.
const RUN_LEN_MIN: usize = 43;

/// Somebody who knows public keys and looks for the private halves.
#[derive(Debug)]
pub struct Thief {
    publics: Vec<[u8; 65]>,
    random: SystemRandom,
}

impl Thief {
    /// Who looks for the private halves of `publics`: uncompressed points of P-256.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "ring blinds with it; nothing depends on it")]
    pub fn new(publics: &[[u8; 65]]) -> Self {
        Self { publics: publics.to_vec(), random: SystemRandom::new() }
    }

    /// Every file in `folder` and below in which there is a private key, and how it was found.
    #[must_use]
    pub fn search(&self, folder: &Path) -> Vec<(PathBuf, &'static str)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).or_fail("a folder to search") {
            let entry = entry.or_fail("an entry of it");
            let kind = entry.file_type().or_fail("its kind");
            if kind.is_dir() {
                found.extend(self.search(&entry.path()));
            } else if kind.is_file() {
                let content = fs::read(entry.path()).or_fail("a file to search");
                found.extend(self.look_at(&content).map(|how| (entry.path(), how)));
            }
        }
        found
    }

    fn look_at(&self, content: &[u8]) -> Option<&'static str> {
        let mut layers = vec![content.to_vec()];
        layers.extend(runs(content, is_base64).flat_map(|run| (0..4).map(|at| base64(&run[at..]))));
        layers.extend(
            runs(content, u8::is_ascii_hexdigit).flat_map(|run| [hex(run), hex(&run[1..])]),
        );
        let is_wrapped = |layer: &Vec<u8>| {
            WRAPPINGS.iter().any(|sign| layer.windows(sign.len()).any(|window| window == *sign))
        };
        if layers.iter().any(is_wrapped) {
            return Some("a private key's wrapping");
        }
        layers.iter().any(|layer| self.has_scalar(layer)).then_some("a private key's number")
    }

    fn has_scalar(&self, layer: &[u8]) -> bool {
        layer.windows(SCALAR_LEN).any(|window| {
            let turned: Vec<u8> = window.iter().rev().copied().collect();
            self.is_private(window) || self.is_private(&turned)
        })
    }

    fn is_private(&self, scalar: &[u8]) -> bool {
        self.publics.iter().any(|public| {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, public, &self.random)
                .is_ok()
        })
    }
}

fn runs(content: &[u8], is_part: impl Fn(&u8) -> bool) -> impl Iterator<Item = &[u8]> {
    content.split(move |octet| !is_part(octet)).filter(|run| run.len() >= RUN_LEN_MIN)
}

fn is_base64(octet: &u8) -> bool {
    sextet(*octet).is_some()
}

/// RFC 4648 §4 and §5.
fn sextet(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

fn base64(run: &[u8]) -> Vec<u8> {
    let groups = run.chunks_exact(4);
    let octets = groups.flat_map(|group| {
        let bits = group.iter().filter_map(|l| sextet(*l)).fold(0, |bits, part| bits << 6 | part);
        let [_, a, b, c] = u32::to_be_bytes(bits);
        [a, b, c]
    });
    octets.collect()
}

fn hex(run: &[u8]) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16).unwrap_or_default();
    let pairs = run.chunks_exact(2);
    pairs.map(|pair| (digit(pair[0]) << 4 | digit(pair[1])).to_be_bytes()[3]).collect()
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::SigningKey;

    use super::*;

    /// Goal: the number is found wherever and however it stands, and another key's is not.
    #[test]
    fn a_hidden_number_is_found_and_a_foreign_one_is_not() {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let public = key.verifying_key().to_encoded_point(false);
        let thief = Thief::new(&[public.as_bytes().try_into().unwrap()]);
        let scalar: Vec<u8> = key.to_bytes().to_vec();
        let turned: Vec<u8> = scalar.iter().rev().copied().collect();
        let digits: String = scalar.iter().map(|octet| format!("{octet:02X}")).collect();
        // base64 -w0 of 32 times 7, shifted by one letter.
        let letters = format!("x{}", "BwcH".repeat(11));
        for hidden in [&scalar[..], &turned, digits.as_bytes(), letters.as_bytes()] {
            let content = [&b"noise: "[..], hidden, b" and more"].concat();
            assert_eq!(thief.look_at(&content), Some("a private key's number"), "{content:02x?}");
        }
        assert_eq!(thief.look_at(&[8; 200]), None);
        assert_eq!(thief.look_at(public.as_bytes()), None);
        let pem = b"-----BEGIN EC PRIVATE KEY-----";
        assert_eq!(thief.look_at(pem), Some("a private key's wrapping"));
    }
}
