//! DER, element by element (X.690 §8, §10).
//!
//! **What it is.** A [`Reader`] gives one element after the other, as a view of a slice. It takes
//! what a certificate is made of: tags of one octet, lengths of up to four, definite and in their
//! shortest form. It is a tenth of what a general DER library takes of a microcontroller's flash,
//! where this is most of what reads certificates.
//!
//! **What it must never do.** Give an octet that is not the input's, or read one twice in different
//! ways: one encoding has one meaning here, and any other is none.
//!
//! **Why that is sound.** Nothing indexes, and each length is compared with what is left before it
//! is used. What is refused leaves the reader where it was, so that nobody goes on behind it.

use crate::time::Wall;
use crate::time::civil::Civil;

/// The universal tags that there are in a certificate or around it: those of X.680 §8.4 whose
/// encoding is primitive, by their numbers.
const PRIMITIVE: u32 = 1 << 0x01 // BOOLEAN
    | 1 << 0x02 // INTEGER
    | 1 << 0x03 // BIT STRING
    | 1 << 0x04 // OCTET STRING
    | 1 << 0x05 // NULL
    | 1 << 0x06 // OBJECT IDENTIFIER
    | 1 << 0x09 // REAL
    | 1 << 0x0a // ENUMERATED
    | 1 << 0x0c // UTF8String
    | 1 << 0x12 // NumericString
    | 1 << 0x13 // PrintableString
    | 1 << 0x14 // TeletexString
    | 1 << 0x15 // VideotexString
    | 1 << 0x16 // IA5String
    | 1 << 0x17 // UTCTime
    | 1 << 0x18 // GeneralizedTime
    | 1 << 0x1a // VisibleString
    | 1 << 0x1e; // BMPString

/// The bits of a tag's number; all of them announce a number of more octets.
const NUMBER: u8 = 0x1f;

/// An identifier octet (X.690 §8.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u8);

/// The next elements of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// An element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// What it is.
    pub tag: Tag,
    /// Its content octets.
    pub content: &'a [u8],
    /// It, with its header.
    pub whole: &'a [u8],
}

impl Tag {
    /// `BIT STRING`.
    pub const BIT_STRING: Self = Self(0x03);
    /// `BOOLEAN`.
    pub const BOOLEAN: Self = Self(0x01);
    /// `GeneralizedTime`.
    pub const GENERALIZED_TIME: Self = Self(0x18);
    /// `INTEGER`.
    pub const INTEGER: Self = Self(0x02);
    /// `OBJECT IDENTIFIER`.
    pub const OBJECT_IDENTIFIER: Self = Self(0x06);
    /// `OCTET STRING`.
    pub const OCTET_STRING: Self = Self(0x04);
    /// `PrintableString`.
    pub const PRINTABLE_STRING: Self = Self(0x13);
    /// `SEQUENCE` and `SEQUENCE OF`.
    pub const SEQUENCE: Self = Self(0x30);
    /// `SET` and `SET OF`.
    pub const SET: Self = Self(0x31);
    /// `UTCTime`.
    pub const UTC_TIME: Self = Self(0x17);
    /// `UTF8String`.
    pub const UTF8_STRING: Self = Self(0x0c);

    /// `[number]` of an element that contains others; `number` is below 31.
    #[must_use]
    pub const fn context(number: u8) -> Self {
        Self(0xa0 | number)
    }

    /// `[number]` of an element that contains octets; `number` is below 31.
    #[must_use]
    pub const fn context_primitive(number: u8) -> Self {
        Self(0x80 | number)
    }

    /// The octet.
    pub(super) const fn octet(self) -> u8 {
        self.0
    }

    const fn is_known(self) -> bool {
        match self.0 {
            octet if octet & NUMBER == NUMBER => false,
            0x00..=0x1f => PRIMITIVE >> self.0 & 1 == 1,
            0x20..=0x3f => matches!(self, Self::SEQUENCE | Self::SET),
            _ => true,
        }
    }
}

impl<'a> Reader<'a> {
    /// Reads `octets`.
    #[must_use]
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// Whether there is nothing more.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    #[must_use]
    pub fn peek(&self) -> Option<Tag> {
        self.rest.first().map(|octet| Tag(*octet)).filter(|tag| tag.is_known())
    }

    /// The next element, whatever it is.
    #[inline(never)]
    pub fn element(&mut self) -> Option<Element<'a>> {
        let tag = self.peek()?;
        let (len, after) = read_len(self.rest.get(1..)?)?;
        let (content, rest) = after.split_at_checked(len)?;
        let whole = self.rest.get(..self.rest.len() - rest.len())?;
        self.rest = rest;
        Some(Element { tag, content, whole })
    }

    /// The content of the next element, which must have this tag.
    #[inline(never)]
    pub fn content(&mut self, tag: Tag) -> Option<&'a [u8]> {
        self.element().filter(|element| element.tag == tag).map(|element| element.content)
    }

    /// The next element with its header, which must have this tag.
    pub fn whole(&mut self, tag: Tag) -> Option<&'a [u8]> {
        self.element().filter(|element| element.tag == tag).map(|element| element.whole)
    }

    /// The elements inside the next one, which must have this tag.
    pub fn enter(&mut self, tag: Tag) -> Option<Self> {
        self.content(tag).map(Self::new)
    }

    /// The content of an `OBJECT IDENTIFIER` (X.690 §8.19).
    #[inline(never)]
    pub fn identifier(&mut self) -> Option<&'a [u8]> {
        let content = self.content(Tag::OBJECT_IDENTIFIER)?;
        let mut is_first = true;
        for octet in content {
            // §8.19.2: no part of it begins with a leading zero.
            if is_first && *octet == 0x80 {
                return None;
            }
            is_first = octet & 0x80 == 0;
        }
        (is_first && !content.is_empty()).then_some(content)
    }

    /// A `BOOLEAN` (X.690 §11.1).
    pub fn boolean(&mut self) -> Option<bool> {
        match self.content(Tag::BOOLEAN)? {
            [0x00] => Some(false),
            [0xff] => Some(true),
            _ => None,
        }
    }

    /// The octets of a `BIT STRING` and how many bits of the last are none of it (X.690 §8.6).
    #[inline(never)]
    pub fn bits(&mut self) -> Option<(u8, &'a [u8])> {
        let (unused, octets) = self.content(Tag::BIT_STRING)?.split_first()?;
        let is_sound = *unused < 8 && (*unused == 0 || !octets.is_empty());
        is_sound.then_some((*unused, octets))
    }

    /// The octets of a `BIT STRING` of whole octets.
    pub fn octets_of_bits(&mut self) -> Option<&'a [u8]> {
        self.bits().filter(|(unused, _)| *unused == 0).map(|(_, octets)| octets)
    }

    /// A positive `INTEGER` without the zero that says that it is positive (X.690 §8.3).
    pub fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.content(Tag::INTEGER)? {
            [0] => Some(&[0]),
            [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => None,
            [0, octets @ ..] | octets => Some(octets),
        }
    }

    /// A `UTCTime` or `GeneralizedTime` as RFC 5280 §4.1.2.5 writes them; from 1970 on.
    #[inline(never)]
    pub fn time(&mut self) -> Option<Wall> {
        let Element { tag, content, .. } = self.element()?;
        let (pairs, []) = content.strip_suffix(b"Z")?.as_chunks::<2>() else { return None };
        // Century and year, or the year alone.
        let mut numbers = [0; 7];
        let first = numbers.len().checked_sub(pairs.len())?;
        for (number, pair) in numbers.get_mut(first..)?.iter_mut().zip(pairs) {
            *number = two_digits(*pair)?;
        }
        let [century, year, month, day, hour, minute, second] = numbers;
        let year = match (tag, first) {
            (Tag::UTC_TIME, 1) if year < 50 => 2000 + year,
            (Tag::UTC_TIME, 1) => 1900 + year,
            (Tag::GENERALIZED_TIME, 0) => century * 100 + year,
            _ => return None,
        };
        Civil { year, month, day, hour, minute, second }.wall()
    }
}

/// A length, and what follows it (X.690 §10.1).
fn read_len(octets: &[u8]) -> Option<(usize, &[u8])> {
    const LONG: u8 = 0x80;
    const OCTETS_MAX: usize = 4;
    let (first, rest) = octets.split_first()?;
    if first & LONG == 0 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(first & !LONG);
    let (octets, rest) = rest.split_at_checked(count)?;
    let len = octets.iter().fold(0_u32, |len, octet| len << 8 | u32::from(*octet));
    let is_shortest = count <= OCTETS_MAX && octets.first()? != &0 && len >= u32::from(LONG);
    is_shortest.then(|| usize::try_from(len).ok().map(|len| (len, rest)))?
}

fn two_digits(pair: [u8; 2]) -> Option<u16> {
    let [ten, one] = pair.map(|octet| octet.wrapping_sub(b'0')).map(u16::from);
    (ten < 10 && one < 10).then_some(ten * 10 + one)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use ::der::asn1::{AnyRef, GeneralizedTime, UtcTime};
    use ::der::{Decode as _, Reader as _, SliceReader, Tagged as _};

    use super::{Reader, Tag};
    use crate::der::testing::tlv;

    /// What the `der` crate reads as one element: its tag and content.
    fn judged(octets: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut reader = SliceReader::new(octets).unwrap();
        let element: AnyRef<'_> = reader.decode().ok()?;
        Some((element.tag().octet(), element.value().to_vec()))
    }

    fn ours(octets: &[u8]) -> Option<(u8, Vec<u8>)> {
        let element = Reader::new(octets).element()?;
        assert_eq!(element.whole, &octets[..element.whole.len()]);
        Some((element.tag.0, element.content.to_vec()))
    }

    /// Goal: every header of up to four octets in front of little is judged as another reader
    /// judges it.
    #[test]
    fn headers_are_read_as_another_reader_reads_them() {
        let tail = [0x5a; 0x140];
        for tag in 0..=0xff {
            for first in 0..=0xff {
                for (second, third) in
                    [(0, 0), (0, 0x80), (0x7f, 1), (0x80, 0), (1, 0), (1, 0x40), (0xff, 0xff)]
                {
                    let octets = [&[tag, first, second, third][..], &tail].concat();
                    assert_eq!(ours(&octets), judged(&octets), "{:02x?}", &octets[..4]);
                }
            }
        }
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234] {
            let octets = tlv(0x04, &std::vec![7; len]);
            assert_eq!(ours(&octets), judged(&octets));
            for cut in 0..octets.len() {
                assert_eq!(ours(&octets[..cut]), None, "{len} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_not_passed_over() {
        let octets = [0x04, 0x81, 0x01, 0x02, 0x01, 0x05];
        let mut reader = Reader::new(&octets);
        assert_eq!(reader.element(), None);
        assert_eq!(reader.peek(), Some(Tag::OCTET_STRING));
    }

    /// Goal: times are read as another reader reads them, whatever digit is changed.
    #[test]
    fn times_are_read_as_another_reader_reads_them() {
        let mut texts = Vec::from(
            ["700101000000Z", "691231235959Z", "491231235959Z", "500101000000Z", "240229120000Z"]
                .map(|text| (0x17, text.as_bytes().to_vec())),
        );
        texts.extend(
            [
                "19700101000000Z",
                "20230228235959Z",
                "20240229000000Z",
                "21000228000000Z",
                "99991231235959Z",
                "20261122001507Z",
            ]
            .map(|text| (0x18, text.as_bytes().to_vec())),
        );
        for (tag, text) in texts {
            for at in 0..text.len() {
                for octet in 0x2e..=0x5b {
                    let mut text = text.clone();
                    text[at] = octet;
                    let octets = tlv(tag, &text);
                    let judged = match tag {
                        0x17 => UtcTime::from_der(&octets).map(|time| time.to_unix_duration()),
                        _ => GeneralizedTime::from_der(&octets).map(|time| time.to_unix_duration()),
                    };
                    let ours = Reader::new(&octets).time().map(|wall| wall.0);
                    let text = text.escape_ascii();
                    assert_eq!(ours, judged.ok().map(|time| time.as_secs()), "{text}");
                }
            }
        }
    }

    #[test]
    fn identifiers_bits_and_numbers_are_as_der_has_them() {
        let identifier = |content: &[u8]| Reader::new(&tlv(0x06, content)).identifier().is_some();
        assert!(identifier(&[0x55, 0x04, 0x03]) && identifier(&[0x2a, 0x86, 0x48]));
        for content in [&[][..], &[0x55, 0x80, 0x01], &[0x55, 0x84], &[0x80, 0x01]] {
            assert!(!identifier(content), "{content:02x?}");
        }
        let bits =
            |content: &[u8]| Reader::new(&tlv(0x03, content)).bits().map(|(unused, _)| unused);
        assert_eq!([&[0][..], &[0, 1], &[7, 0x80]].map(bits), [Some(0), Some(0), Some(7)]);
        assert_eq!([&[][..], &[8, 0], &[1]].map(bits), [None; 3]);
        let boolean = |octet| Reader::new(&[1, 1, octet]).boolean();
        assert_eq!([0, 0xff, 1].map(boolean), [Some(false), Some(true), None]);
    }
}
