//! base64 as it is found in EST bodies (RFC 8951 §3.1, RFC 4648 §4).
//!
//! What clients and servers in the field send differs in line ends only, and no single output
//! suits them all (`docs/design/wire.md`): so the reader strips line ends and the writer knows two
//! styles. A body may also be PEM, or DER that nobody encoded: a DER SEQUENCE begins with the octet
//! `0x30`, and base64 of one with `M`, so the first octet tells them apart.

use core::fmt;

use base64ct::{Base64, Encoding as _};

/// Characters of a full line in [`Style::Wrapped`] (RFC 7468 §2).
pub const LINE_LEN: usize = 64;

/// The first octet of a DER SEQUENCE. As base64 it would be the first digit of something else.
const DER_SEQUENCE: u8 = 0x30;

/// Octets that [`LINE_LEN`] characters stand for.
const LINE_OCTETS: usize = LINE_LEN / 4 * 3;

const ARMOUR_BEGIN: &[u8] = b"-----BEGIN ";
const ARMOUR_END: &[u8] = b"-----END ";
const ARMOUR_TAIL: &[u8] = b"-----";

/// How a body is broken into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// All in one line, and a line feed.
    Line,
    /// Lines of [`LINE_LEN`] characters, each with a line feed, the last too.
    Wrapped,
}

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// PEM armour begins and does not end, or something surrounds it.
    Armour,
    /// Four characters that stand for no octets: one from outside the alphabet, padding that is
    /// not at the end, or bits that nobody would have set.
    Digits {
        /// Where the last of the four stands in the body.
        at: usize,
    },
    /// There is nothing in the body.
    Empty,
    /// The body ends within four characters.
    Truncated,
}

/// A buffer is too small for what should be written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// The octets it has.
    pub found: usize,
    /// The octets it should have.
    pub needed: usize,
}

impl Style {
    /// The style of a body that was received, to answer in: its sender reads what it writes.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        if body.contains(&b'\n') { Self::Wrapped } else { Self::Line }
    }

    /// Octets that [`encode`] writes for `len` octets; nothing for nothing.
    #[must_use]
    pub const fn encoded_len(self, len: usize) -> usize {
        let digits = len.div_ceil(3).saturating_mul(4);
        let lines = match self {
            _ if len == 0 => 0,
            Self::Line => 1,
            Self::Wrapped => len.div_ceil(LINE_OCTETS),
        };
        digits.saturating_add(lines)
    }
}

/// Writes `octets` in base64 to the front of `out`.
///
/// # Errors
///
/// [`BufferTooSmall`] if `out` has fewer than [`Style::encoded_len`] octets.
pub fn encode<'o>(
    octets: &[u8],
    style: Style,
    out: &'o mut [u8],
) -> Result<&'o [u8], BufferTooSmall> {
    let needed = style.encoded_len(octets.len());
    let too_small = BufferTooSmall { found: out.len(), needed };
    let out = out.get_mut(..needed).ok_or(too_small)?;
    let line_octets = match style {
        Style::Line => octets.len().max(1),
        Style::Wrapped => LINE_OCTETS,
    };
    let lines = out.chunks_mut(line_octets.div_ceil(3) * 4 + 1);
    for (line, octets) in lines.zip(octets.chunks(line_octets)) {
        let (end, digits) = line.split_last_mut().ok_or(too_small)?;
        *end = b'\n';
        Base64::encode(octets, digits).map_err(|_| too_small)?;
    }
    Ok(out)
}

/// Decodes a body where it stands: base64 with any line ends, in PEM armour or not, or DER as it
/// is. What is returned begins at the front of `body`.
///
/// # Errors
///
/// [`DecodeError`] if it is none of these. What `body` then holds is undefined.
pub fn decode_in_place(body: &mut [u8]) -> Result<&mut [u8], DecodeError> {
    if body.first() == Some(&DER_SEQUENCE) {
        return Ok(body);
    }
    let (start, end) = strip_armour(body)?;
    let mut quartet = Quartet::default();
    let mut written = 0;
    for at in start..end {
        let digit = body.get(at).copied().filter(|digit| !is_blank(*digit));
        let Some(full) = digit.and_then(|digit| quartet.push(digit)) else {
            continue;
        };
        let mut octets = [0; 3];
        let octets = full.decode(&mut octets).ok_or(DecodeError::Digits { at })?;
        // Three octets at most for four digits: what is written was read before.
        for octet in octets {
            if let Some(free) = body.get_mut(written) {
                *free = *octet;
            }
            written += 1;
        }
    }
    match (quartet.len, written) {
        (0, 0) => Err(DecodeError::Empty),
        (0, _) => Ok(body.get_mut(..written).unwrap_or_default()),
        _ => Err(DecodeError::Truncated),
    }
}

/// The digits read and not yet decoded.
#[derive(Default)]
struct Quartet {
    digits: [u8; 4],
    len: usize,
    is_behind_padding: bool,
}

/// Four digits, and whether an end was before them.
struct Full {
    digits: [u8; 4],
    is_behind_padding: bool,
}

impl Quartet {
    fn push(&mut self, digit: u8) -> Option<Full> {
        if let Some(free) = self.digits.get_mut(self.len) {
            *free = digit;
        }
        self.len += 1;
        if self.len < self.digits.len() {
            return None;
        }
        self.len = 0;
        let full = Full { digits: self.digits, is_behind_padding: self.is_behind_padding };
        self.is_behind_padding = self.digits.contains(&b'=');
        Some(full)
    }
}

impl Full {
    fn decode(self, out: &mut [u8; 3]) -> Option<&[u8]> {
        Base64::decode(self.digits, out).ok().filter(|_| !self.is_behind_padding)
    }
}

const fn is_blank(octet: u8) -> bool {
    matches!(octet, b'\r' | b'\n' | b' ' | b'\t')
}

/// Where the digits begin and end: inside the armour if there is one (RFC 7468 §2).
fn strip_armour(body: &[u8]) -> Result<(usize, usize), DecodeError> {
    let blank = body.iter().take_while(|octet| is_blank(**octet)).count();
    let Some(label) = body.get(blank..).and_then(|body| body.strip_prefix(ARMOUR_BEGIN)) else {
        return Ok((0, body.len()));
    };
    let label_len = find(label, ARMOUR_TAIL).ok_or(DecodeError::Armour)?;
    let (label, inside) = label.split_at_checked(label_len).ok_or(DecodeError::Armour)?;
    let inside = inside.strip_prefix(ARMOUR_TAIL).ok_or(DecodeError::Armour)?;
    let digits = find(inside, ARMOUR_END).ok_or(DecodeError::Armour)?;
    let after = inside
        .get(digits + ARMOUR_END.len()..)
        .and_then(|after| after.strip_prefix(label))
        .and_then(|after| after.strip_prefix(ARMOUR_TAIL))
        .ok_or(DecodeError::Armour)?;
    if !after.iter().all(|octet| is_blank(*octet)) {
        return Err(DecodeError::Armour);
    }
    let start = body.len() - inside.len();
    Ok((start, start + digits))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Armour => f.write_str("PEM armour does not surround the whole body"),
            Self::Digits { at } => write!(f, "no base64 at octet {at} of the body"),
            Self::Empty => f.write_str("body is empty, base64 was expected"),
            Self::Truncated => f.write_str("base64 of the body is cut short"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buffer has {} octets, {} are needed", self.found, self.needed)
    }
}

impl core::error::Error for BufferTooSmall {}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use super::{BufferTooSmall, DecodeError, Style, decode_in_place, encode};

    fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut body = text.to_vec();
        decode_in_place(&mut body).map(|octets| octets.to_vec())
    }

    fn encoded(octets: &[u8], style: Style) -> Vec<u8> {
        let mut out = vec![b'#'; style.encoded_len(octets.len())];
        let len = encode(octets, style, &mut out).unwrap().len();
        assert_eq!(len, out.len());
        out
    }

    #[test]
    fn the_vectors_of_rfc_4648_decode_and_encode_as_one_line() {
        let vectors: [(&[u8], &[u8]); 6] = [
            (b"f", b"Zg==\n"),
            (b"fo", b"Zm8=\n"),
            (b"foo", b"Zm9v\n"),
            (b"foob", b"Zm9vYg==\n"),
            (b"fooba", b"Zm9vYmE=\n"),
            (b"foobar", b"Zm9vYmFy\n"),
        ];
        for (octets, text) in vectors {
            assert_eq!(encoded(octets, Style::Line), text);
            assert_eq!(encoded(octets, Style::Wrapped), text);
            assert_eq!(decode(text).unwrap(), octets);
        }
    }

    #[test]
    fn nothing_is_encoded_as_nothing() {
        assert_eq!(encoded(b"", Style::Line), b"");
        assert_eq!(encoded(b"", Style::Wrapped), b"");
    }

    #[test]
    fn lines_are_wrapped_at_sixty_four_and_the_last_one_ends_too() {
        let full = "QUFB".repeat(16);
        assert_eq!(encoded(&[b'A'; 48], Style::Wrapped), format!("{full}\n").as_bytes());
        assert_eq!(encoded(&[b'A'; 49], Style::Wrapped), format!("{full}\nQQ==\n").as_bytes());
        assert_eq!(
            encoded(&[b'A'; 99], Style::Wrapped),
            format!("{full}\n{full}\nQUFB\n").as_bytes()
        );
        assert_eq!(encoded(&[b'A'; 99], Style::Line), format!("{full}{full}QUFB\n").as_bytes());
    }

    #[test]
    fn a_buffer_one_octet_too_small_is_refused_with_both_sizes() {
        for (style, needed) in [(Style::Line, 69), (Style::Wrapped, 70)] {
            let mut out = vec![0; needed - 1];
            let error = encode(&[0; 49], style, &mut out);
            assert_eq!(error, Err(BufferTooSmall { found: needed - 1, needed }));
            assert!(encode(&[0; 49], style, &mut vec![0; needed]).is_ok());
        }
    }

    #[test]
    fn both_styles_of_every_length_are_read_back() {
        let octets: Vec<u8> = (0..=255).collect();
        for len in 1..octets.len() {
            for style in [Style::Line, Style::Wrapped] {
                assert_eq!(decode(&encoded(&octets[..len], style)).unwrap(), &octets[..len]);
            }
        }
    }

    #[test]
    fn a_body_is_answered_in_its_own_style() {
        assert_eq!(Style::of(b"Zm9v"), Style::Line);
        assert_eq!(Style::of(b"Zm9v\nZm9v\n"), Style::Wrapped);
    }

    #[test]
    fn line_ends_and_blanks_are_stripped_wherever_they_stand() {
        for text in [&b" \tZ m9\r\nv\n\n"[..], b"Zm9v\r\n", b"Z\nm\n9\nv"] {
            assert_eq!(decode(text).unwrap(), b"foo");
        }
    }

    #[test]
    fn der_that_nobody_encoded_is_taken_as_it_is() {
        assert_eq!(decode(b"\x30\x03\x02\x01\x00").unwrap(), b"\x30\x03\x02\x01\x00");
    }

    #[test]
    fn pem_armour_is_taken_off() {
        let text = b"\n-----BEGIN X Y-----\nZm9v\nYmFy\n-----END X Y-----\n \r\n";
        assert_eq!(decode(text).unwrap(), b"foobar");
        assert_eq!(decode(b"-----BEGIN -----Zm9v-----END -----").unwrap(), b"foo");
    }

    #[test]
    fn armour_that_does_not_surround_everything_is_refused() {
        for text in [
            &b"-----BEGIN X"[..],
            b"-----BEGIN X-----Zm9v",
            b"-----BEGIN X-----Zm9v-----END Y-----",
            b"-----BEGIN X-----Zm9v-----END X----",
            b"-----BEGIN X-----Zm9v-----END X-----Zm9v",
            b"-----BEGIN X-----Zm9v-----END X----- -----BEGIN X-----Zm9v-----END X-----",
        ] {
            assert_eq!(decode(text), Err(DecodeError::Armour), "{:?}", text.escape_ascii());
        }
        let empty = decode(b"-----BEGIN X-----\n-----END X-----");
        assert_eq!(empty, Err(DecodeError::Empty));
    }

    #[test]
    fn nothing_and_blanks_alone_are_empty() {
        assert_eq!(decode(b""), Err(DecodeError::Empty));
        assert_eq!(decode(b" \r\n\t"), Err(DecodeError::Empty));
    }

    #[test]
    fn what_is_no_base64_is_refused_where_it_stands() {
        for (text, at) in [
            (&b"Zm9v Zm-v"[..], 8),
            (b"Zm_v", 3),
            (b"Zm\0v", 3),
            (b"Zm9vZh==", 7),
            (b"Zg==Zm9v", 7),
            (b"Zm8=Zg==", 7),
            (b"Z===", 3),
            (b"====", 3),
            (b"=m9v", 3),
            (b"Zg=v", 3),
        ] {
            let error = Err(DecodeError::Digits { at });
            assert_eq!(decode(text), error, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_body_cut_within_four_characters_is_truncated() {
        for text in [&b"Z"[..], b"Zm", b"Zm9", b"Zm9v\nZ", b"Zm9vZg=", b"Zg==="] {
            assert_eq!(decode(text), Err(DecodeError::Truncated), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn errors_read_as_text() {
        for (error, text) in [
            (DecodeError::Armour, "PEM armour does not surround the whole body"),
            (DecodeError::Digits { at: 7 }, "no base64 at octet 7 of the body"),
            (DecodeError::Empty, "body is empty, base64 was expected"),
            (DecodeError::Truncated, "base64 of the body is cut short"),
        ] {
            assert_eq!(error.to_string(), text);
        }
        let error = BufferTooSmall { found: 1, needed: 2 };
        assert_eq!(error.to_string(), "buffer has 1 octets, 2 are needed");
    }
}
