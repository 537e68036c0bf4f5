use super::head::{Scan, is_text};
use super::response::ResponseError;
use super::{CHUNK_LINE_LEN_MAX, HEADER_LEN_MAX};

/// Hexadecimal digits of a chunk's size, at most.
const SIZE_DIGITS_MAX: usize = 16;

/// Takes the frame off a chunked body where it stands (RFC 9112 §7.1).
///
/// Decoded octets end at `decoded`; what is received and not yet decoded follows it at once after
/// every call, so the frame never takes space from the body for long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    start: usize,
    decoded: usize,
    max: usize,
    phase: Phase,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Data { left: usize },
    DataEnd,
    Done,
    Size,
    Trailer,
}

impl Chunked {
    /// A body of at most `max` octets that begins at `start` of the buffer.
    pub(super) const fn new(start: usize, max: usize) -> Self {
        Self { start, decoded: start, max, phase: Phase::Size }
    }

    /// Decodes what is in `buffer` up to `filled` and lowers `filled` by what the frame took.
    /// Says where the body ends once it does; octets up to `filled` then are not part of it.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> Result<Option<usize>, ResponseError> {
        let mut raw = self.decoded;
        while let Some(taken) = self.step(buffer, raw, *filled)? {
            raw += taken;
        }
        buffer.copy_within(raw..*filled, self.decoded);
        *filled -= raw - self.decoded;
        Ok(matches!(self.phase, Phase::Done).then_some(self.decoded))
    }

    /// Decodes one item at `raw` and says how many octets it took; `None` if it is not whole.
    fn step(
        &mut self,
        buffer: &mut [u8],
        raw: usize,
        filled: usize,
    ) -> Result<Option<usize>, ResponseError> {
        let received = buffer.get(raw..filled).unwrap_or_default();
        match self.phase {
            Phase::Data { left } => {
                let len = left.min(received.len());
                buffer.copy_within(raw..raw + len, self.decoded);
                self.decoded += len;
                let left = left - len;
                self.phase = if left == 0 { Phase::DataEnd } else { Phase::Data { left } };
                Ok((len > 0).then_some(len))
            }
            Phase::DataEnd => match received {
                [b'\r', b'\n', ..] => {
                    self.phase = Phase::Size;
                    Ok(Some(2))
                }
                [] | [b'\r'] => Ok(None),
                _ => Err(ResponseError::Chunk),
            },
            Phase::Done => Ok(None),
            Phase::Size => self.read_size(received),
            Phase::Trailer => self.read_trailer(received),
        }
    }

    /// RFC 9112 §7.1 and §7.1.1: what extends a size is passed over.
    fn read_size(&mut self, received: &[u8]) -> Result<Option<usize>, ResponseError> {
        let len = received.iter().position(|octet| *octet == b'\r').unwrap_or(received.len());
        let (line, end) = received.split_at(len);
        let digits = line.iter().take_while(|octet| octet.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let is_sound = (digits.len() <= SIZE_DIGITS_MAX && is_extension(extension))
            && (!digits.is_empty() || received.is_empty());
        match end {
            [b'\r', b'\n', ..] if is_sound && len + 2 <= CHUNK_LINE_LEN_MAX => {
                self.phase = self.phase_for(hexadecimal(digits))?;
                Ok(Some(len + 2))
            }
            [] | [b'\r'] if is_sound && received.len() < CHUNK_LINE_LEN_MAX => Ok(None),
            _ => Err(ResponseError::Chunk),
        }
    }

    fn phase_for(&self, size: u64) -> Result<Phase, ResponseError> {
        let before = self.decoded - self.start;
        match usize::try_from(size) {
            Ok(0) => Ok(Phase::Trailer),
            Ok(left) if left <= self.max - before => Ok(Phase::Data { left }),
            _ => {
                let before = u64::try_from(before).unwrap_or(u64::MAX);
                Err(ResponseError::BodyLength { found: before.saturating_add(size), max: self.max })
            }
        }
    }

    /// RFC 9112 §7.1.2: nothing in a trailer is of use here, but it must be one.
    fn read_trailer(&mut self, received: &[u8]) -> Result<Option<usize>, ResponseError> {
        let mut scan = Scan::TRAILER;
        match scan.advance(received) {
            Some(true) if scan.len <= HEADER_LEN_MAX => {
                self.phase = Phase::Done;
                Ok(Some(scan.len))
            }
            Some(false) if scan.len < HEADER_LEN_MAX => Ok(None),
            _ => Err(ResponseError::Trailer),
        }
    }
}

/// Whether this may stand between a chunk's size and the end of its line (RFC 9112 §7.1.1): blanks,
/// and whatever follows a semicolon. A line feed alone ends no line here, and is in none.
fn is_extension(octets: &[u8]) -> bool {
    let first = octets.iter().find(|octet| !matches!(octet, b' ' | b'\t'));
    matches!(first, None | Some(b';')) && octets.iter().all(|octet| is_text(*octet))
}

/// The number that so many hexadecimal digits are.
fn hexadecimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| {
        let letter = if digit.is_ascii_alphabetic() { 9 } else { 0 };
        number << 4 | u64::from((digit & 0x0f) + letter)
    })
}
