//! The few DER encodings of our own: what no builder makes for us, and what the lint expects.

use fleetcert_core::time::Wall;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;

/// `AlgorithmIdentifier` of ecdsa-with-SHA256 (RFC 5758 §3.2).
pub(crate) const ECDSA_WITH_SHA256: [u8; 12] =
    [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// One element: its tag, its length, and the parts of its content in a row.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(len + 6);
    out.push(tag);
    push_length(&mut out, len);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

fn push_length(out: &mut Vec<u8>, len: usize) {
    if len < 0x80 {
        out.push(len as u8);
        return;
    }
    let octets = len.to_be_bytes();
    let skipped = octets.iter().take_while(|octet| **octet == 0).count();
    out.push(0x80 | (octets.len() - skipped) as u8);
    out.extend_from_slice(&octets[skipped..]);
}

/// The first element of `input`, header included, and what follows it; `None` if `input` does not
/// begin with an element whose length is definite, minimal and there.
pub(crate) fn split_element(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let header_len = header_len(input)?;
    let content_len = content_len(&input[1..header_len])?;
    input.split_at_checked(header_len.checked_add(content_len)?)
}

/// The content of an element with that tag that fills `input` exactly.
pub(crate) fn content(tag: u8, input: &[u8]) -> Option<&[u8]> {
    let (element, rest) = split_element(input)?;
    (rest.is_empty() && element.first() == Some(&tag)).then_some(())?;
    element.get(header_len(element)?..)
}

/// The elements of a SEQUENCE or SET in a row; `None` if anything among them is none.
pub(crate) fn elements(mut content: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (element, rest) = split_element(content)?;
        found.push(element);
        content = rest;
    }
    Some(found)
}

fn header_len(input: &[u8]) -> Option<usize> {
    let multi_octet_tag = input.first()? & 0x1f == 0x1f;
    let first = *input.get(1)?;
    let len = if first < 0x80 { 2 } else { 2 + usize::from(first & 0x7f) };
    (!multi_octet_tag && len <= input.len()).then_some(len)
}

/// A length from its octets: short form, or the shortest long form (X.690 §10.1).
fn content_len(octets: &[u8]) -> Option<usize> {
    match *octets {
        [short] if short < 0x80 => Some(short.into()),
        [_, len] if len >= 0x80 => Some(len.into()),
        [_, high, low] if high != 0 => Some(usize::from(high) << 8 | usize::from(low)),
        [_, high, middle, low] if high != 0 => {
            Some(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
        }
        _ => None,
    }
}

/// A `Time` (RFC 5280 §4.1.2.5): UTCTime through 2049, GeneralizedTime after. `None` after 9999.
pub(super) fn time(at: Wall) -> Option<Vec<u8>> {
    let unix = std::time::Duration::from_secs(at.0);
    let date = der::DateTime::from_unix_duration(unix).ok()?;
    let tail = format!(
        "{:02}{:02}{:02}{:02}{:02}Z",
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds()
    );
    Some(match date.year() {
        year @ ..2050 => element(0x17, &[format!("{:02}", year % 100).as_bytes(), tail.as_bytes()]),
        year => element(0x18, &[format!("{year:04}").as_bytes(), tail.as_bytes()]),
    })
}

#[cfg(test)]
mod tests {
    use fleetcert_core::time::Wall;

    use super::{content, element, elements, split_element, time};

    #[test]
    fn lengths_of_every_form_are_written_and_read_back() {
        for len in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let body = vec![7; len];
            let whole = element(0x04, &[&body[..len / 2], &body[len / 2..]]);
            assert_eq!(content(0x04, &whole), Some(body.as_slice()), "{len}");
            assert_eq!(split_element(&whole[..whole.len() - 1]), None, "{len}");
        }
    }

    #[test]
    fn lengths_that_are_not_the_shortest_or_not_definite_are_refused() {
        for bad in [
            &[0x04, 0x81, 0x01, 7][..],
            &[0x04, 0x82, 0x00, 0x01, 7],
            &[0x04, 0x80, 0, 0],
            &[0x04, 0x84, 0, 0, 0, 1, 7],
            &[0x1f, 0x01, 7],
            &[0x04],
            &[],
        ] {
            assert_eq!(split_element(bad), None, "{bad:02x?}");
        }
    }

    #[test]
    fn another_tag_or_a_rest_is_no_content() {
        assert_eq!(content(0x30, &[0x04, 0x00]), None);
        assert_eq!(content(0x04, &[0x04, 0x00, 0x00]), None);
    }

    #[test]
    fn elements_are_all_or_none() {
        assert_eq!(elements(&[0x05, 0, 0x04, 1, 9]), Some(vec![&[5, 0][..], &[4, 1, 9]]));
        assert_eq!(elements(&[0x05, 0, 0x04, 2, 9]), None);
    }

    #[test]
    fn times_change_their_form_with_the_year_2050() {
        let last = Wall(2_524_607_999);
        assert_eq!(time(last).unwrap(), b"\x17\x0d491231235959Z");
        assert_eq!(time(last.plus_s(1)).unwrap(), b"\x18\x0f20500101000000Z");
        assert_eq!(time(Wall(0)).unwrap(), b"\x17\x0d700101000000Z");
        assert_eq!(time(Wall(u64::MAX)), None);
    }
}
