use super::head::{Scan, is_text};
use super::response::ResponseError;
use super::{CHUNK_LINE_LEN_MAX, HEADER_LEN_MAX};

/// Hexadecimal digits of a chunk's size, at most.
const SIZE_DIGITS_MAX: usize = 16;

/// Takes the frame off a chunked body where it stands (RFC 9112 §7.1), octet by octet: the frame
/// takes no more space from the body than the octet that was received last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    start: usize,
    /// Where the body ends so far.
    decoded: usize,
    max: usize,
    phase: Phase,
    /// The size of a chunk as far as it is read, then what is left of it, octets.
    left: u64,
    /// Octets that the line with the size has so far.
    line: usize,
    trailer: Scan,
}

/// What the next octet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Blanks behind a size.
    Blank,
    Data,
    /// The line's end behind the data, at its first octet, then at its second.
    DataEnd,
    DataLineFeed,
    Done,
    Extension,
    Size,
    /// The end of the line with the size, at its second octet.
    SizeLineFeed,
    Trailer,
}

impl Chunked {
    /// A body of at most `max` octets that begins at `start` of the buffer.
    pub(super) const fn new(start: usize, max: usize) -> Self {
        let (phase, trailer) = (Phase::Size, Scan::TRAILER);
        Self { start, decoded: start, max, phase, left: 0, line: 0, trailer }
    }

    /// Decodes what is in `buffer` up to `filled` and lowers `filled` by what the frame took.
    /// Says where the body ends once it does; octets up to `filled` then are not part of it.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> Result<Option<usize>, ResponseError> {
        let mut raw = self.decoded;
        while self.phase != Phase::Done
            && let Some(octet) = buffer.get(raw..*filled).and_then(|rest| rest.first().copied())
        {
            raw += 1;
            if self.take(octet)?
                && let Some(place) = buffer.get_mut(self.decoded)
            {
                *place = octet;
                self.decoded += 1;
            }
        }
        buffer.copy_within(raw..*filled, self.decoded);
        *filled -= raw - self.decoded;
        Ok((self.phase == Phase::Done).then_some(self.decoded))
    }

    /// Takes an octet, and says whether it is one of the body.
    fn take(&mut self, octet: u8) -> Result<bool, ResponseError> {
        match (self.phase, octet) {
            (Phase::Data, _) => {
                self.left -= 1;
                if self.left == 0 {
                    self.phase = Phase::DataEnd;
                }
                return Ok(true);
            }
            (Phase::DataEnd, b'\r') => self.phase = Phase::DataLineFeed,
            (Phase::DataLineFeed, b'\n') => (self.phase, self.line) = (Phase::Size, 0),
            (Phase::DataEnd | Phase::DataLineFeed, _) => return Err(ResponseError::Chunk),
            (Phase::SizeLineFeed, b'\n') => self.phase = self.phase_for(self.left)?,
            (Phase::Trailer | Phase::Done, _) => self.take_of_trailer(octet)?,
            _ => self.take_of_size(octet).ok_or(ResponseError::Chunk)?,
        }
        Ok(false)
    }

    /// RFC 9112 §7.1 and §7.1.1: what extends a size is passed over. A line feed alone ends no line
    /// here, and is in none.
    fn take_of_size(&mut self, octet: u8) -> Option<()> {
        self.line += 1;
        // The line does not end with this one.
        if self.line >= CHUNK_LINE_LEN_MAX {
            return None;
        }
        let digit = char::from(octet).to_digit(16);
        self.phase = match (self.phase, digit, octet) {
            (Phase::Size, Some(digit), _) if self.line <= SIZE_DIGITS_MAX => {
                let before = if self.line == 1 { 0 } else { self.left << 4 };
                self.left = before | u64::from(digit);
                Phase::Size
            }
            // The first octet of all is a digit.
            (Phase::Size, ..) if self.line == 1 => return None,
            (Phase::Size | Phase::Blank, _, b' ' | b'\t') => Phase::Blank,
            (Phase::Size | Phase::Blank, _, b';') => Phase::Extension,
            (Phase::Size | Phase::Blank | Phase::Extension, _, b'\r') => Phase::SizeLineFeed,
            (Phase::Extension, ..) if is_text(octet) => Phase::Extension,
            _ => return None,
        };
        Some(())
    }

    fn phase_for(&self, size: u64) -> Result<Phase, ResponseError> {
        let before = self.decoded - self.start;
        match usize::try_from(size) {
            Ok(0) => Ok(Phase::Trailer),
            Ok(left) if left <= self.max - before => Ok(Phase::Data),
            _ => {
                let before = u64::try_from(before).unwrap_or(u64::MAX);
                Err(ResponseError::BodyLength { found: before.saturating_add(size), max: self.max })
            }
        }
    }

    /// RFC 9112 §7.1.2: nothing in a trailer is of use here, but it must be one.
    fn take_of_trailer(&mut self, octet: u8) -> Result<(), ResponseError> {
        match self.trailer.take(octet) {
            Some(true) => self.phase = Phase::Done,
            Some(false) if self.trailer.len < HEADER_LEN_MAX => {}
            _ => return Err(ResponseError::Trailer),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use httparse::{Status, parse_chunk_size};

    use super::*;

    /// What a line with a size says: nothing as long as it is not whole, else its length and size.
    fn found(line: &[u8]) -> Option<Option<(usize, u64)>> {
        let mut chunked = Chunked::new(0, usize::MAX);
        for (at, octet) in line.iter().enumerate() {
            if let Err(error) = chunked.take(*octet) {
                return matches!(error, ResponseError::BodyLength { .. })
                    .then_some(Some((at + 1, chunked.left)));
            }
            if matches!(chunked.phase, Phase::Data | Phase::Trailer) {
                return Some(Some((at + 1, chunked.left)));
            }
        }
        Some(None)
    }

    /// Goal: lines, cut anywhere and with any octet at any place, are what another reader says; but
    /// for the digit that comes first, and for control characters behind the semicolon.
    #[test]
    fn sizes_are_read_as_another_reader_reads_them() {
        for line in [
            &b"1aF;x=\"y\"\r\n"[..],
            b"0 \t;a b\r\n",
            b"0123456789abcdef\r\n",
            b"ffffffffffffffff0\r\n",
            b"5\r\nhello",
            b"00 \r\n\r\n",
        ] {
            for at in 0..line.len() {
                agree(&line[..at]);
                for octet in 0..=255 {
                    let mut line = line.to_vec();
                    line[at] = octet;
                    agree(&line);
                }
            }
        }
    }

    fn agree(line: &[u8]) {
        let end = line.iter().position(|octet| *octet == b'\r').unwrap_or(line.len());
        let is_text = line[..end].iter().all(|octet| is_text(*octet));
        let begins = line.first().is_none_or(u8::is_ascii_hexdigit);
        let judged = match parse_chunk_size(line) {
            Ok(_) if !begins || !is_text => None,
            Ok(Status::Complete(found)) => Some(Some(found)),
            Ok(Status::Partial) => Some(None),
            Err(_) => None,
        };
        assert_eq!(found(line), judged, "{}", line.escape_ascii());
    }
}
