//! SHA-256 (FIPS 180-4) of octets that lie in pieces.
//!
//! There is one function for it, which nobody inlines: a microcontroller has it once.

use sha2::{Digest, Sha256};

/// Octets of a digest.
pub const SHA256_LEN: usize = 32;

/// The digest of the parts, one behind the other.
#[must_use]
#[inline(never)]
pub fn sha256(parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the digest is that of the standard (FIPS 180-4, the example "abc"), however the octets
    /// are cut.
    #[test]
    fn a_digest_is_that_of_the_standard_however_it_is_cut() {
        let expected = b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\
                         \xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";
        for parts in [&[&b"abc"[..]][..], &[b"a", b"", b"bc"], &[b"ab", b"c"]] {
            assert_eq!(sha256(parts), *expected);
        }
    }
}
