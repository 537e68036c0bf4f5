//! DER into a caller's buffer, back to front: what an element consists of stands there already when
//! its header is written, so that nobody has to compute a length before.

use super::reader::Tag;

/// What has been written to the end of a place. Where there is no room it is counted only.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

/// The buffer was too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSmall {
    /// The octets it has.
    pub(crate) found: usize,
    /// The octets it should have.
    pub(crate) needed: usize,
}

/// Writes to the front of `out` what `fill` writes, which is asked twice: first for its length, so
/// that a buffer is either large enough or untouched.
#[inline(never)]
pub(crate) fn lay_out<'o>(
    out: &'o mut [u8],
    fill: &mut dyn FnMut(&mut Writer<'_>),
) -> Result<&'o [u8], TooSmall> {
    let mut counted = Writer::counting();
    fill(&mut counted);
    let (found, needed) = (out.len(), counted.len);
    let place = out.get_mut(..needed).ok_or(TooSmall { found, needed })?;
    fill(&mut Writer { out: &mut *place, len: 0 });
    Ok(place)
}

impl Writer<'_> {
    /// One that has no room, and counts what it is given.
    pub(crate) const fn counting() -> Self {
        Self { out: &mut [], len: 0 }
    }

    /// Octets that are written.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts octets before what is written.
    #[inline(never)]
    pub(crate) fn put(&mut self, octets: &[u8]) {
        if let Some(place) = self.place(octets.len()) {
            place.copy_from_slice(octets);
        }
    }

    /// Puts the octets at the front of the place before what is written.
    pub(crate) fn put_front(&mut self, len: usize) {
        self.len += len;
        let Some(start) = self.out.len().checked_sub(self.len) else { return };
        // The last one first: where they go begins behind where they are.
        for at in (0..len).rev() {
            let octet = self.out.get(at).copied();
            if let (Some(octet), Some(place)) = (octet, self.out.get_mut(start + at)) {
                *place = octet;
            }
        }
    }

    /// Makes one element of what was written since there were so many octets: puts its header before
    /// it, in its shortest form (X.690 §10.1).
    #[inline(never)]
    pub(crate) fn wrap(&mut self, tag: Tag, since: usize) {
        let content = self.len - since;
        let (mut left, mut octets) = (content, 0);
        loop {
            let [low, ..] = left.to_le_bytes();
            self.put(&[low]);
            (left, octets) = (left >> 8, octets + 1);
            if left == 0 {
                break;
            }
        }
        if content > 0x7f {
            self.put(&[0x80 | octets]);
        }
        self.put(&[tag.octet()]);
    }

    /// Puts one element before what is written.
    pub(crate) fn element(&mut self, tag: Tag, content: &[u8]) {
        let since = self.len;
        self.put(content);
        self.wrap(tag, since);
    }

    fn place(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.out.len().checked_sub(self.len);
        self.len += len;
        let start = self.out.len().checked_sub(self.len)?;
        self.out.get_mut(start..end?)
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;
    use crate::der::testing::tlv;

    /// Goal: every length is in its shortest form, on both sides of each boundary.
    #[test]
    fn elements_of_any_length_are_framed_in_their_shortest_form() {
        for len in [0, 1, 127, 128, 255, 256, 65535] {
            let content = vec![7; len];
            let mut out = vec![0; len + 4];
            let written = lay_out(&mut out, &mut |writer| writer.element(Tag::SET, &content));
            assert_eq!(written.unwrap(), tlv(0x31, &content), "{len}");
        }
        let content = vec![7; 65536];
        let mut out = vec![0; 65541];
        let written = lay_out(&mut out, &mut |writer| writer.element(Tag::SET, &content));
        assert_eq!(written.unwrap()[..6], [0x31, 0x83, 1, 0, 0, 7]);
    }

    /// Goal: what is there already goes where it belongs, and what is inside stays in its order.
    #[test]
    fn the_front_of_a_buffer_becomes_part_of_an_element() {
        let mut out = *b"ab------";
        let written = lay_out(&mut out, &mut |writer| {
            writer.put(b"d");
            writer.put(b"c");
            writer.put_front(2);
            writer.wrap(Tag::SEQUENCE, 0);
        });
        assert_eq!(written, Ok(&b"\x30\x04abcd"[..]));
    }

    /// Goal: a buffer that is too small is left as it was, and what it lacks is said.
    #[test]
    fn a_buffer_that_is_too_small_is_left_as_it_was() {
        let mut out = [0xee; 5];
        let written = lay_out(&mut out, &mut |writer| writer.element(Tag::SET, b"abcd"));
        assert_eq!(written, Err(TooSmall { found: 5, needed: 6 }));
        assert_eq!(out, [0xee; 5]);
    }
}
