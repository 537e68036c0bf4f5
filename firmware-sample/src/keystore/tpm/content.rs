//! What lies in a sector: a head, a body, and a digest over both.
//!
//! A body that was not written to its end, or in which a bit has flipped, is told from a whole one,
//! and from a sector in which there is nothing.

use fleetcert_core::sha256::sha256;

use crate::keystore::sectors::PIECE_LEN;

/// Octets of a head: four letters and a version.
const HEAD_LEN: usize = 5;

const LENGTH_LEN: usize = size_of::<u16>();
const DIGEST_LEN: usize = 32;

/// What flash holds where nothing was written.
const ERASED: u8 = 0xff;

/// Octets of a sector's front that a body of `body_len` octets takes.
pub(super) const fn content_len(body_len: usize) -> usize {
    (HEAD_LEN + LENGTH_LEN + body_len + DIGEST_LEN).next_multiple_of(PIECE_LEN)
}

/// What is found in a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<B> {
    /// A whole body.
    Body(B),
    /// Something that is none.
    Damaged,
    /// Nothing.
    Nothing,
}

/// Looks for a body behind `head` in what was read from the front of a sector.
pub(super) fn find(head: [u8; HEAD_LEN], content: &[u8]) -> Found<&[u8]> {
    match body(head, content) {
        Some(body) => Found::Body(body),
        None if content.iter().all(|octet| *octet == ERASED) => Found::Nothing,
        None => Found::Damaged,
    }
}

/// The octets of a sector's front that its body takes, with everything around it.
pub(super) fn whole(head: [u8; HEAD_LEN], content: &[u8]) -> Option<&[u8]> {
    content.get(..content_len(body(head, content)?.len()))
}

fn body(head: [u8; HEAD_LEN], content: &[u8]) -> Option<&[u8]> {
    let (len, behind) = content.strip_prefix(&head)?.split_first_chunk()?;
    let (body, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    behind.starts_with(&digest(head, *len, body)).then_some(body)
}

/// Writes the content of the body of `parts`, one behind the other, to the front of `out`; returns
/// it. `None` if it does not fit.
pub(super) fn write<'o>(
    head: [u8; HEAD_LEN],
    parts: &[&[u8]],
    out: &'o mut [u8],
) -> Option<&'o [u8]> {
    let body_len = parts.iter().map(|part| part.len()).sum();
    let len = u16::try_from(body_len).ok()?.to_be_bytes();
    let out = out.get_mut(..content_len(body_len))?;
    let (front, rest) = out.split_at_mut(HEAD_LEN + LENGTH_LEN);
    let (body, rest) = rest.split_at_mut_checked(body_len)?;
    put(front, &[&head, &len]);
    put(body, parts);
    put(rest, &[&digest(head, len, body), &[ERASED; PIECE_LEN]]);
    Some(out)
}

/// Writes the parts one behind the other, as far as there is room.
fn put(out: &mut [u8], parts: &[&[u8]]) {
    let octets = parts.iter().copied().flatten();
    out.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
}

fn digest(head: [u8; HEAD_LEN], len: [u8; LENGTH_LEN], body: &[u8]) -> [u8; DIGEST_LEN] {
    sha256(&[&head, &len, body])
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    const HEAD: [u8; HEAD_LEN] = *b"FCTK\x01";

    fn written(parts: &[&[u8]]) -> Vec<u8> {
        write(HEAD, parts, &mut [0; 256]).unwrap().to_vec()
    }

    /// Goal: the octets are those that docs/design/tpm-keys.md shows, and are read back, also with
    /// the rest of the sector behind them.
    #[test]
    fn a_content_is_these_octets() {
        let content = written(&[b"the ", b"body"]);
        let front = b"FCTK\x01\x00\x08the body";
        assert_eq!(content[..front.len()], *front);
        assert_eq!(content[front.len()..][..DIGEST_LEN], sha256(&[front]));
        assert!(content[front.len() + DIGEST_LEN..].iter().all(|octet| *octet == ERASED));
        assert_eq!((content.len(), content_len(8)), (64, 64));
        let sector = [&content[..], &[ERASED; 64]].concat();
        assert_eq!(find(HEAD, &sector), Found::Body(&b"the body"[..]));
        assert_eq!(whole(HEAD, &sector), Some(&content[..]));
        assert_eq!(find(HEAD, &[ERASED; 64]), Found::Nothing);
    }

    /// Goal: no flipped bit, no cut, and nothing under another head is believed.
    #[test]
    fn a_damaged_content_is_none() {
        let content = written(&[b"the body"]);
        for index in 0..HEAD_LEN + LENGTH_LEN + 8 + DIGEST_LEN {
            for bit in 0..8 {
                let mut damaged = content.clone();
                damaged[index] ^= 1 << bit;
                assert_eq!(find(HEAD, &damaged), Found::Damaged, "octet {index}");
                assert_eq!(whole(HEAD, &damaged), None, "octet {index}");
            }
            let mut cut = content.clone();
            cut[index..].fill(ERASED);
            let expected = if index == 0 { Found::Nothing } else { Found::Damaged };
            assert_eq!(find(HEAD, &cut), expected, "{index} octets");
        }
        assert_eq!(find(*b"FCTK\x02", &content), Found::Damaged);
    }

    /// Goal: a body that does not fit is not written in part.
    #[test]
    fn a_body_that_does_not_fit_is_refused() {
        assert_eq!(write(HEAD, &[&[0; 26]], &mut [0; 64]), None);
        assert!(write(HEAD, &[&[0; 25]], &mut [0; 64]).is_some());
        assert_eq!(write(HEAD, &[&[0; 0x1_0000]], &mut [0; 0x2_0000]), None);
    }
}
