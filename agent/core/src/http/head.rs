//! The head of a response: where it ends, and what its headers say (RFC 9112 §2 to §5).
//!
//! **What it is.** A [`Scan`] looks at each octet once, as it comes, and refuses the first that
//! cannot stand where it does. [`values`] finds headers in a head that was scanned to its end.
//!
//! **What it must never do.** Take more than RFC 9112 makes us, but for a line that ends with a line
//! feed alone (§2.2): no folded line, no blank before a colon, no empty line before the status.
//!
//! **Why that is sound.** It has seven places to be in, and in each of them it says which octets
//! lead where; there is no other way on. The tests have the crate `httparse` judge it.

use super::HEADERS_MAX;

/// A status line up to its reason (RFC 9112 §4): `9` stands for a digit, `x` for 0 or 1.
const STATUS_LINE: &[u8; 12] = b"HTTP/1.x 999";

/// How far a head was looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    place: Place,
    /// Octets that were looked at.
    pub(super) len: usize,
    /// Headers that have begun.
    headers: usize,
}

/// What the next octet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A line, of which it is the first.
    Line,
    /// The end of a line, behind its carriage return.
    LineEnd,
    /// The end of the empty line.
    HeadEnd,
    /// The name of a header.
    Name,
    /// Nothing of the head any more.
    Over,
    /// The status line, of which it has this place.
    Status(usize),
    /// A reason, or the value of a header.
    Text,
}

impl Scan {
    /// Of a whole head.
    pub(super) const HEAD: Self = Self { place: Place::Status(0), len: 0, headers: 0 };

    /// Of headers alone, as they follow the last chunk (RFC 9112 §7.1.2).
    pub(super) const TRAILER: Self = Self { place: Place::Line, len: 0, headers: 0 };

    /// Looks at what was `received` since the last time, which begins with what was looked at
    /// before, and says whether the head is whole; what follows it is not looked at. `None` if this
    /// is no head, or has more than [`HEADERS_MAX`] headers.
    pub(super) fn advance(&mut self, received: &[u8]) -> Option<bool> {
        for octet in received.get(self.len..)? {
            if self.take(*octet)? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// The same of the next octet.
    #[inline(never)]
    pub(super) fn take(&mut self, octet: u8) -> Option<bool> {
        let next = self.place.after(octet)?;
        self.headers += usize::from((self.place, next) == (Place::Line, Place::Name));
        self.place = next;
        self.len += 1;
        (self.headers <= HEADERS_MAX).then_some(next == Place::Over)
    }
}

impl Place {
    /// What comes behind this octet, if it can stand here.
    fn after(self, octet: u8) -> Option<Self> {
        Some(match (self, octet) {
            (Self::Status(at), _) if at < STATUS_LINE.len() => {
                let is_fit = match STATUS_LINE.get(at)? {
                    b'9' => octet.is_ascii_digit(),
                    b'x' => matches!(octet, b'0' | b'1'),
                    wanted => octet == *wanted,
                };
                return is_fit.then_some(Self::Status(at + 1));
            }
            (Self::Status(_), b' ') | (Self::Name, b':') => Self::Text,
            (Self::Status(_) | Self::Text, b'\r') => Self::LineEnd,
            (Self::Status(_) | Self::Text | Self::LineEnd, b'\n') => Self::Line,
            (Self::Text, _) if is_text(octet) => Self::Text,
            (Self::Line, b'\r') => Self::HeadEnd,
            (Self::Line | Self::HeadEnd, b'\n') => Self::Over,
            (Self::Line | Self::Name, _) if is_token(octet) => Self::Name,
            _ => return None,
        })
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(octet: u8) -> bool {
    let is_mark = matches!(octet, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'|' | b'~');
    is_mark || octet.is_ascii_alphanumeric() || matches!(octet, b'^'..=b'`')
}

/// What a value or a reason consists of: RFC 9110 §5.5, with `obs-text`.
pub(super) const fn is_text(octet: u8) -> bool {
    matches!(octet, b'\t' | b' '..=b'~' | 0x80..)
}

/// The status in a head that was scanned, and whether it is of HTTP/1.0.
pub(super) fn status(head: &[u8]) -> (u16, bool) {
    let digits = head.get(9..STATUS_LINE.len()).unwrap_or_default();
    let status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit & 0x0f));
    (status, head.get(7) == Some(&b'0'))
}

/// The values of the headers with this name, whatever its case, in a head that was scanned.
pub(super) const fn values<'b, 'n>(head: &'b [u8], name: &'n str) -> Values<'b, 'n> {
    Values { rest: head, name }
}

/// See [`values`].
#[derive(Clone, Debug)]
pub(super) struct Values<'b, 'n> {
    rest: &'b [u8],
    name: &'n str,
}

impl<'b> Iterator for Values<'b, '_> {
    type Item = &'b [u8];

    // Asked in many places.
    #[inline(never)]
    fn next(&mut self) -> Option<&'b [u8]> {
        loop {
            let end = self.rest.iter().position(|octet| *octet == b'\n')?;
            let (line, rest) = self.rest.split_at_checked(end + 1)?;
            self.rest = rest;
            // No name has a blank, as the status line does.
            let Some((name, value)) = line.split_at_checked(self.name.len()) else { continue };
            if let Some((b':', value)) = value.split_first()
                && name.eq_ignore_ascii_case(self.name.as_bytes())
            {
                return Some(value.trim_ascii());
            }
        }
    }
}

#[cfg(test)]
mod tests;
