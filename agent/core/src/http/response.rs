use core::fmt;

use super::chunked::Chunked;
use super::date::parse_date;
use super::head::{Scan, status, values};
use super::{BODY_LEN_MAX, HEADER_LEN_MAX, INTERIM_MAX};
use crate::time::Wall;

/// Why what a peer sends is no response, or none that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The body is longer than it may be.
    BodyLength {
        /// Its length as far as it is known, octets.
        found: u64,
        /// The octets that it may have here: [`BODY_LEN_MAX`], or what the buffer leaves.
        max: usize,
    },
    /// A chunk is not framed as RFC 9112 §7.1 says.
    Chunk,
    /// The connection ended before the first octet: it had been closed while it was idle, and the
    /// request may be sent again on a new one (RFC 9112 §9.3.1).
    Closed,
    /// `Content-Length` is no number, or two different ones (RFC 9112 §6.3).
    ContentLength,
    /// The response does not fit into the buffer.
    Full {
        /// The octets that the buffer has.
        len: usize,
    },
    /// The status line or a header is malformed, or there are more than
    /// [`HEADERS_MAX`](super::HEADERS_MAX) headers.
    Head,
    /// The head is longer than [`HEADER_LEN_MAX`].
    HeaderLength {
        /// Its length as far as it is known, octets.
        found: usize,
    },
    /// More than [`INTERIM_MAX`] interim responses came.
    Interim,
    /// A status that is none (below 100), or 101, for which nobody asked.
    Status {
        /// The status found.
        found: u16,
    },
    /// Octets follow the response, though there was one request.
    Surplus {
        /// How many were received.
        found: usize,
    },
    /// What follows the last chunk is no trailer.
    Trailer,
    /// `Transfer-Encoding` is not `chunked` alone, stands beside `Content-Length`, or comes from
    /// HTTP/1.0 (RFC 9112 §6.1).
    TransferEncoding,
    /// The connection ended within the response.
    Truncated,
}

/// Whether more is to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The response is whole: call [`ResponseReader::finish`].
    Done,
    /// Receive more.
    More,
}

/// Takes one response in pieces into a caller's buffer.
///
/// Receive into [`space`](Self::space), say how much came to [`advance`](Self::advance) (nothing:
/// the connection ended), until that says [`Progress::Done`]; then [`finish`](Self::finish).
#[derive(Debug)]
pub struct ResponseReader<'b> {
    buffer: &'b mut [u8],
    filled: usize,
    interim: u8,
    scan: Scan,
    /// Of the response whose body is read.
    head: Head,
    phase: Phase,
}

/// The head of a response, which begins at the front of the buffer.
#[derive(Clone, Copy, Debug)]
struct Head {
    len: usize,
    status: u16,
    closes: bool,
}

/// What is being read; of a body, where it ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug)]
enum Phase {
    Chunked(Chunked),
    Close { max: usize },
    Done { end: usize },
    Head,
    Length { end: usize },
}

/// A whole response in a caller's buffer.
#[derive(Debug)]
pub struct Response<'b> {
    /// Status and headers.
    pub head: ResponseHead<'b>,
    /// The body without any framing; decode it in place.
    pub body: &'b mut [u8],
}

/// Status and headers of a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'b> {
    octets: &'b [u8],
    status: u16,
    closes: bool,
}

impl<'b> ResponseReader<'b> {
    /// A reader that has received nothing yet.
    #[must_use]
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        let head = Head { len: 0, status: 0, closes: false };
        Self { buffer, filled: 0, interim: 0, scan: Scan::HEAD, head, phase: Phase::Head }
    }

    /// Where to receive next. Not empty as long as [`advance`](Self::advance) says
    /// [`Progress::More`], if the buffer was not.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes `received` octets from the front of [`space`](Self::space); none says that the
    /// connection has ended.
    ///
    /// # Errors
    ///
    /// [`ResponseError`]: this is no response, and the connection is of no more use.
    pub fn advance(&mut self, received: usize) -> Result<Progress, ResponseError> {
        if received == 0 {
            return self.end();
        }
        self.filled = self.filled.saturating_add(received).min(self.buffer.len());
        while let Phase::Head = self.phase
            && self.read_head()?
        {}
        self.read_body()?;
        let len = self.buffer.len();
        match self.phase {
            // Nothing may follow a response: there was one request.
            Phase::Done { end } if self.filled > end => {
                Err(ResponseError::Surplus { found: self.filled - end })
            }
            Phase::Done { .. } => Ok(Progress::Done),
            _ if self.filled < len => Ok(Progress::More),
            _ => Err(ResponseError::Full { len }),
        }
    }

    /// The response, once it is whole.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Truncated`] if it is not.
    pub fn finish(self) -> Result<Response<'b>, ResponseError> {
        let Phase::Done { end } = self.phase else {
            return Err(ResponseError::Truncated);
        };
        let octets = self.buffer.get_mut(..end).unwrap_or_default();
        let Head { len, status, closes } = self.head;
        let (front, body) = octets.split_at_mut_checked(len).ok_or(ResponseError::Truncated)?;
        Ok(Response { head: ResponseHead { octets: front, status, closes }, body })
    }

    fn end(&mut self) -> Result<Progress, ResponseError> {
        match self.phase {
            Phase::Head if self.filled == 0 && self.interim == 0 => Err(ResponseError::Closed),
            Phase::Close { .. } => {
                self.phase = Phase::Done { end: self.filled };
                Ok(Progress::Done)
            }
            Phase::Done { .. } => Ok(Progress::Done),
            Phase::Chunked(_) | Phase::Head | Phase::Length { .. } => Err(ResponseError::Truncated),
        }
    }

    /// Reads a head, and says whether it was whole.
    fn read_head(&mut self) -> Result<bool, ResponseError> {
        let received = self.buffer.get(..self.filled).unwrap_or_default();
        let is_whole = self.scan.advance(received).ok_or(ResponseError::Head)?;
        let found = self.scan.len;
        if found > HEADER_LEN_MAX {
            return Err(ResponseError::HeaderLength { found });
        }
        let Some(octets) = received.get(..found).filter(|_| is_whole) else { return Ok(false) };
        let (status, is_http_10) = status(octets);
        self.phase = framing(octets, status, is_http_10, self.buffer.len() - found)?;
        let ends_with_it = matches!(self.phase, Phase::Close { .. });
        let closes = is_http_10 || ends_with_it || has_close(octets);
        self.head = Head { len: found, status, closes };
        match status {
            found @ (0..=99 | 101) => Err(ResponseError::Status { found }),
            100..=199 => self.skip_interim().map(|()| true),
            _ => Ok(true),
        }
    }

    /// RFC 9110 §15.2: interim responses are passed over.
    fn skip_interim(&mut self) -> Result<(), ResponseError> {
        if self.interim == INTERIM_MAX {
            return Err(ResponseError::Interim);
        }
        self.interim += 1;
        self.buffer.copy_within(self.head.len..self.filled, 0);
        self.filled -= self.head.len;
        (self.scan, self.phase) = (Scan::HEAD, Phase::Head);
        Ok(())
    }

    /// Reads what was received of a body.
    fn read_body(&mut self) -> Result<(), ResponseError> {
        let end = match &mut self.phase {
            Phase::Chunked(chunked) => chunked.decode(self.buffer, &mut self.filled)?,
            Phase::Close { max } => {
                let (found, max) = (self.filled - self.head.len, *max);
                return if found > max { Err(too_long(found, max)) } else { Ok(()) };
            }
            Phase::Length { end } => Some(*end).filter(|end| self.filled >= *end),
            Phase::Done { .. } | Phase::Head => None,
        };
        if let Some(end) = end {
            self.phase = Phase::Done { end };
        }
        Ok(())
    }
}

fn too_long(found: usize, max: usize) -> ResponseError {
    ResponseError::BodyLength { found: u64::try_from(found).unwrap_or(u64::MAX), max }
}

/// RFC 9112 §6.3; `space` is what the buffer leaves behind the head.
fn framing(
    head: &[u8],
    status: u16,
    is_http_10: bool,
    space: usize,
) -> Result<Phase, ResponseError> {
    let length = content_length(head)?;
    let max = space.min(BODY_LEN_MAX);
    let is_chunked = is_chunked(head)?;
    if is_chunked && (length.is_some() || is_http_10) {
        return Err(ResponseError::TransferEncoding);
    }
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Phase::Length { end: head.len() });
    }
    // One octet must be left for what ends the body: the last chunk, or the connection's end.
    let open_max = space.saturating_sub(1).min(BODY_LEN_MAX);
    if is_chunked {
        return Ok(Phase::Chunked(Chunked::new(head.len(), open_max)));
    }
    let Some(found) = length else { return Ok(Phase::Close { max: open_max }) };
    match usize::try_from(found) {
        Ok(len) if len <= max => Ok(Phase::Length { end: head.len() + len }),
        _ => Err(ResponseError::BodyLength { found, max }),
    }
}

/// RFC 9110 §8.6: digits, and if it is given more than once, the same.
fn content_length(head: &[u8]) -> Result<Option<u64>, ResponseError> {
    let mut length = None;
    for value in values(head, "Content-Length") {
        let found = decimal(value).ok_or(ResponseError::ContentLength)?;
        if length.replace(found).is_some_and(|before| before != found) {
            return Err(ResponseError::ContentLength);
        }
    }
    Ok(length)
}

/// RFC 9112 §6.1: the only coding that every recipient knows, once.
fn is_chunked(head: &[u8]) -> Result<bool, ResponseError> {
    let mut codings = values(head, "Transfer-Encoding");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(ResponseError::TransferEncoding),
    }
}

/// RFC 9112 §9.6.
fn has_close(head: &[u8]) -> bool {
    values(head, "Connection")
        .flat_map(|value| value.split(|octet| *octet == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl<'b> ResponseHead<'b> {
    /// The status, 200 or more.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection is of no more use after this response (RFC 9112 §9.3).
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.closes
    }

    /// The value of the first header with this name, whatever its case, if it is ASCII.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b str> {
        let value = values(self.octets, name).next()?;
        core::str::from_utf8(value).ok().filter(|text| text.is_ascii())
    }

    /// When the peer answered, by its own clock (RFC 9110 §6.6.1).
    #[must_use]
    pub fn date(&self) -> Option<Wall> {
        parse_date(self.header("Date")?)
    }

    /// How long to wait before asking again, seconds (RFC 9110 §10.2.3). A date is taken relative
    /// to the peer's own; one that is past says 0.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        let value = self.header("Retry-After")?;
        let s = if value.bytes().all(|octet| octet.is_ascii_digit()) {
            // So many digits that they are no number any more: longer than anybody waits.
            decimal(value.as_bytes()).or_else(|| (!value.is_empty()).then_some(u64::MAX))?
        } else {
            parse_date(value)?.s_since(self.date()?)
        };
        Some(u32::try_from(s).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BodyLength { found, max } => {
                write!(f, "response body has {found} octets, at most {max} may be")
            }
            Self::Chunk => f.write_str("response has a malformed chunk"),
            Self::Closed => f.write_str("connection was closed before a response"),
            Self::ContentLength => f.write_str("response does not have one content length"),
            Self::Full { len } => write!(f, "response does not fit into {len} octets"),
            Self::Head => f.write_str("response has a malformed head"),
            Self::HeaderLength { found } => {
                write!(f, "response head has {found} octets, at most {HEADER_LEN_MAX} may be")
            }
            Self::Interim => write!(f, "more than {INTERIM_MAX} interim responses came"),
            Self::Status { found } => write!(f, "response has status {found}, which is no answer"),
            Self::Surplus { found } => write!(f, "{found} octets follow the response"),
            Self::Trailer => f.write_str("response has a malformed trailer"),
            Self::TransferEncoding => f.write_str("response has an ambiguous transfer encoding"),
            Self::Truncated => f.write_str("connection was closed within the response"),
        }
    }
}

impl core::error::Error for ResponseError {}

#[cfg(test)]
mod tests;
