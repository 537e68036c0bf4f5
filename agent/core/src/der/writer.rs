//! DER into a caller's buffer, front to back: who writes has computed the lengths.

use super::reader::Tag;

/// The buffer is full, or a length has no three octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// What has been written to a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut [u8],
    len: usize,
}

impl<'o> Writer<'o> {
    /// Writes to the front of `out`.
    pub(crate) const fn new(out: &'o mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// The header of an element with `content` octets in it, in its shortest form (X.690 §10.1).
    pub(crate) fn open(&mut self, tag: Tag, content: usize) -> Result<(), Full> {
        let [low, mid, high, rest @ ..] = content.to_le_bytes();
        let tag = tag.octet();
        match (high, mid, low) {
            _ if rest.iter().any(|octet| *octet != 0) => Err(Full),
            (0, 0, 0..=0x7f) => self.write(&[tag, low]),
            (0, 0, _) => self.write(&[tag, 0x81, low]),
            (0, _, _) => self.write(&[tag, 0x82, mid, low]),
            _ => self.write(&[tag, 0x83, high, mid, low]),
        }
    }

    /// Octets as they are.
    #[inline(never)]
    pub(crate) fn write(&mut self, octets: &[u8]) -> Result<(), Full> {
        let free = self.out.get_mut(self.len..).ok_or(Full)?;
        free.get_mut(..octets.len()).ok_or(Full)?.copy_from_slice(octets);
        self.len += octets.len();
        Ok(())
    }

    /// All that was written.
    pub(crate) fn finish(self) -> &'o [u8] {
        self.out.get(..self.len).unwrap_or_default()
    }
}

/// Octets of `content` octets with their header (X.690 §8.1.3).
pub(crate) const fn framed(content: usize) -> usize {
    let header = match content {
        0..=0x7f => 2,
        0x80..=0xff => 3,
        0x100..=0xffff => 4,
        _ => 5,
    };
    header + content
}
