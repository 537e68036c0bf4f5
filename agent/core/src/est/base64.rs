//! base64 as it is found in EST bodies (RFC 8951 §3.1, RFC 4648 §4).
//!
//! What clients and servers in the field send differs in line ends only, and no single output
//! suits them all (`docs/design/wire.md`): so the reader strips line ends and the writer knows two
//! styles. A body may also be PEM, or DER that nobody encoded: a DER SEQUENCE begins with the octet
//! `0x30`, and base64 of one with `M`, so the first octet tells them apart.
//!
//! Digits are written in a time that does not tell which they are, since a token is among what is
//! encoded. What is decoded is public. The tests have the crate `base64ct` judge both ways.

use core::fmt;

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
        digits.get_mut(..octets.len()).ok_or(too_small)?.copy_from_slice(octets);
        encode_in_place(digits, octets.len());
    }
    Ok(out)
}

/// Encodes the `len` octets at the front of `place` where they stand, from the last to the first:
/// digits never reach what is not encoded yet. `place` has four octets for each three begun.
pub(crate) fn encode_in_place(place: &mut [u8], len: usize) {
    for group in (0..len.div_ceil(3)).rev() {
        let octets = place.get(3 * group..len.min(3 * group + 3)).unwrap_or_default();
        let digits = quartet(octets);
        if let Some(place) = place.get_mut(4 * group..4 * group + 4) {
            place.copy_from_slice(&digits);
        }
    }
}

/// Four digits for one to three octets, padded (RFC 4648 §4).
pub(crate) fn quartet(octets: &[u8]) -> [u8; 4] {
    let mut word = [0; 4];
    for (place, octet) in word.iter_mut().skip(1).zip(octets) {
        *place = *octet;
    }
    let mut word = u32::from_be_bytes(word);
    let mut digits = [b'='; 4];
    for (at, place) in digits.iter_mut().enumerate().rev() {
        if at <= octets.len() {
            *place = digit(word & 0x3f);
        }
        word >>= 6;
    }
    digits
}

/// The digit of a value below 64: without a branch or a table, either of which would tell the
/// value by the time it takes.
const fn digit(value: u32) -> u8 {
    // All ones where the value is above the limit, else zero.
    const fn above(value: u32, limit: u32) -> u32 {
        limit.wrapping_sub(value) >> 8
    }
    let [digit, ..] = (value + b'A' as u32)
        .wrapping_add(above(value, 25) & 6)
        .wrapping_sub(above(value, 51) & 75)
        .wrapping_sub(above(value, 61) & 15)
        .wrapping_add(above(value, 62) & 3)
        .to_le_bytes();
    digit
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
        let Some(character) = body.get(at).copied().filter(|character| !is_blank(*character))
        else {
            continue;
        };
        quartet.push(character);
        if quartet.len < 4 {
            continue;
        }
        let (octets, len) = quartet.take().ok_or(DecodeError::Digits { at })?;
        // Three octets at most for four digits: what is written was read before.
        for octet in octets.into_iter().take(len) {
            if let Some(free) = body.get_mut(written) {
                *free = octet;
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

/// The characters read and not yet decoded.
#[derive(Default)]
struct Quartet {
    word: u32,
    len: usize,
    /// Padding seen so far: nothing but more of it may follow.
    padding: usize,
    is_bad: bool,
}

impl Quartet {
    fn push(&mut self, character: u8) {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => 64,
        };
        let is_padding = character == b'=' && self.len >= 2;
        self.is_bad |= !is_padding && (value == 64 || self.padding > 0);
        self.padding += usize::from(is_padding);
        self.word = (self.word << 6) + u32::from(value & 0x3f);
        self.len += 1;
    }

    /// The octets that four characters stand for, and how many of the three. Bits that stand for
    /// none are zero (RFC 4648 §3.5), or there would be two texts for the same octets.
    fn take(&mut self) -> Option<([u8; 3], usize)> {
        let [_, octets @ ..] = self.word.to_be_bytes();
        let len = 3_usize.checked_sub(self.padding)?;
        let is_sound = !self.is_bad && octets.iter().skip(len).all(|octet| *octet == 0);
        (self.len, self.word) = (0, 0);
        is_sound.then_some((octets, len))
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

    use base64ct::{Base64, Encoding as _};

    use super::{BufferTooSmall, DecodeError, Style, decode_in_place, digit, encode};

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

    /// Goal: every octet at every place of a quartet is encoded as another writer does it.
    #[test]
    fn octets_are_encoded_as_another_writer_does_it() {
        for octet in 0..=255 {
            for octets in [&[octet][..], &[octet, !octet], &[!octet, octet, 0x5a ^ octet]] {
                let judged = Base64::encode_string(octets) + "\n";
                assert_eq!(encoded(octets, Style::Line), judged.as_bytes());
            }
        }
        let mut digits: Vec<u8> = (0..64).map(digit).collect();
        digits.sort_unstable();
        digits.dedup();
        assert_eq!(digits.len(), 64);
    }

    /// Goal: what one reader of base64 takes the other takes, for the same octets: all pairs of
    /// characters at each of two neighbouring places of the last of two quartets, and padding.
    #[test]
    fn four_characters_are_taken_as_another_reader_takes_them() {
        let is_quartets = |text: &[u8]| !text.iter().any(|octet| super::is_blank(*octet));
        let mut taken = 0;
        for text in [*b"AAAAAAAA", *b"Zm9vYg==", *b"Zm9vYmE="] {
            for place in 4..7 {
                for pair in 0..=u16::MAX {
                    let mut text = text;
                    text[place..place + 2].copy_from_slice(&pair.to_be_bytes());
                    let mut place = [0; 6];
                    let judged = Base64::decode(text, &mut place).ok();
                    let mut body = text;
                    let decoded = decode_in_place(&mut body).ok();
                    if is_quartets(&text) {
                        assert_eq!(decoded.as_deref(), judged, "{}", text.escape_ascii());
                        taken += usize::from(judged.is_some());
                    }
                }
            }
        }
        assert!(taken > 3 * 4096, "{taken}");
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
