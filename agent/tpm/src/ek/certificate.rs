//! Certificates as makers left them in a TPM's memory.
//!
//! What is there is not always one clean certificate: some put a header of TPM 1.2 in front, most
//! pad it, some lay a whole chain over several indices without regard to where one ends, and not
//! all lengths are in the shortest form. Nothing is judged here but where a certificate begins and
//! ends, and which key it is about; it is the provisioner who believes it or not.

use crate::ek::Outline;

const BIT_STRING: u8 = 0x03;
const EXPLICIT_VERSION: u8 = 0xA0;
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;

/// The tag of a stored certificate in TPM 1.2, and its kind: a length of two octets follows.
const STORED: [u8; 3] = [0x10, 0x01, 0x00];

/// The tag of a full certificate that may follow.
const FULL: [u8; 2] = [0x10, 0x02];

/// Moves the certificates in `content` to its front, one behind the other, without what stands
/// before, between and behind them; returns their octets.
pub(crate) fn gather(content: &mut [u8]) -> usize {
    let (mut from, mut gathered) = (0, 0);
    loop {
        from += skipped(content.get(from..).unwrap_or_default());
        let Some(len) = content.get(from..).and_then(first_len) else { return gathered };
        pull(content, from, gathered, len);
        from += len;
        gathered += len;
    }
}

/// Moves `len` octets towards the front.
fn pull(content: &mut [u8], from: usize, to: usize, len: usize) {
    for at in 0..len {
        let octet = content.get(from + at).copied();
        if let (Some(octet), Some(place)) = (octet, content.get_mut(to + at)) {
            *place = octet;
        }
    }
}

/// Octets in front of the next certificate that belong to none.
fn skipped(content: &[u8]) -> usize {
    let mut rest = content;
    loop {
        rest = match rest {
            [0x00 | 0xFF, padded @ ..] => padded,
            _ => match rest.strip_prefix(&STORED).and_then(|stored| stored.get(2..)) {
                Some(stored) => stored.strip_prefix(&FULL).unwrap_or(stored),
                None => return content.len() - rest.len(),
            },
        };
    }
}

/// Octets of the certificate that `octets` begin with.
pub(crate) fn first_len(octets: &[u8]) -> Option<usize> {
    let mut rest = octets;
    element(&mut rest, SEQUENCE)?;
    Some(octets.len() - rest.len())
}

/// Takes the content of the element at the front, if it has this tag. Lengths need not be in their
/// shortest form.
fn element<'a>(octets: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    const LONG_FORM: u8 = 0x80;
    let (&[found, first], mut rest) = octets.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let mut len = usize::from(first);
    if first >= LONG_FORM {
        let (digits, behind) = rest.split_at_checked(usize::from(first - LONG_FORM))?;
        // Zero digits are the indefinite form, which DER does not have.
        let (&last, high) = digits.split_last()?;
        let value = high.iter().try_fold(0_u32, |value, &digit| {
            value.checked_mul(256)?.checked_add(u32::from(digit))
        })?;
        let value = value.checked_mul(256)?.checked_add(u32::from(last))?;
        (len, rest) = (usize::try_from(value).ok()?, behind);
    }
    let (content, rest) = rest.split_at_checked(len)?;
    *octets = rest;
    Some(content)
}

/// Whether the certificate that `octets` begin with is about the key of this public area; `None`
/// if its key is not found, so that somebody else has to say.
pub(crate) fn is_about(mut octets: &[u8], area: &[u8]) -> Option<bool> {
    let key = public_key(element(&mut octets, SEQUENCE)?)?;
    let area = Outline::of(area)?;
    let (first, second) = area.numbers()?;
    let theirs = if area.is_rsa() { modulus(key)? } else { point(key)? };
    Some(is_same(theirs.0, first) && is_same(theirs.1, second))
}

/// The number of an RSA key. RFC 8017, appendix A.1.1.
fn modulus(mut key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = element(&mut key, SEQUENCE)?;
    Some((element(&mut parts, INTEGER)?, &[]))
}

/// The coordinates of a point that is not compressed. SEC 1 §2.3.3.
fn point(key: &[u8]) -> Option<(&[u8], &[u8])> {
    const UNCOMPRESSED: u8 = 4;
    let point = key.strip_prefix(&[UNCOMPRESSED])?;
    point.split_at_checked(point.len() / 2)
}

/// The content of the `subjectPublicKey` in the content of a certificate. RFC 5280 §4.1.
fn public_key(mut certificate: &[u8]) -> Option<&[u8]> {
    let mut rest = element(&mut certificate, SEQUENCE)?;
    let _version = element(&mut rest, EXPLICIT_VERSION);
    let _serial = element(&mut rest, INTEGER)?;
    for _part in ["signature", "issuer", "validity", "subject"] {
        element(&mut rest, SEQUENCE)?;
    }
    let mut info = element(&mut rest, SEQUENCE)?;
    let _algorithm = element(&mut info, SEQUENCE)?;
    match element(&mut info, BIT_STRING)? {
        [0, key @ ..] => Some(key),
        _ => None,
    }
}

/// Whether two numbers are the same, whatever zeros stand in front of them.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    stripped(one) == stripped(other)
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&octet| octet == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::ek::{EK_AREA_LEN_MAX, EkTemplate, Unique};

    /// An element with its length in `digits` octets after the first, or in the first.
    fn tlv(tag: u8, digits: usize, content: &[u8]) -> Vec<u8> {
        let len = (content.len() as u32).to_be_bytes();
        let head = match digits {
            0 => vec![tag, content.len() as u8],
            _ => [&[tag, 0x80 + digits as u8], &len[4 - digits..]].concat(),
        };
        [head, content.to_vec()].concat()
    }

    /// What a certificate about `key` has up to there, its parts empty and its lengths loose.
    fn certificate(key: &[u8], digits: usize) -> Vec<u8> {
        let empty = tlv(SEQUENCE, 0, &[]);
        let key = tlv(BIT_STRING, digits, &[&[0], key].concat());
        let info = tlv(SEQUENCE, digits, &[&empty[..], &key].concat());
        let head = [tlv(EXPLICIT_VERSION, 0, &[2, 1, 2]), tlv(INTEGER, 0, &[7; 9])].concat();
        let tbs = [&head[..], &empty.repeat(4), &info].concat();
        tlv(SEQUENCE, digits, &[&tlv(SEQUENCE, digits, &tbs)[..], &empty].concat())
    }

    fn gathered(content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        let len = gather(&mut content);
        content[..len].to_vec()
    }

    /// Goal: certificates are found behind headers and padding, in any number and form of length.
    #[test]
    fn certificates_are_gathered() {
        let [one, two] = [2, 3].map(|digits| certificate(&[4; 300], digits));
        let header = [&STORED[..], &[1, 2]].concat();
        let both = [&one[..], &two].concat();
        for content in [
            both.clone(),
            [&one[..], &[0; 30], &two, &[0xFF; 5]].concat(),
            [&header[..], &one, &header, &FULL, &two].concat(),
            [&[0xFF][..], &both, b"trailer"].concat(),
        ] {
            assert_eq!(gathered(&content), both);
        }
    }

    /// Goal: what is cut, or is no certificate, is none; nothing is read past the end.
    #[test]
    fn other_content_is_no_certificate() {
        let one = certificate(&[4; 300], 2);
        for len in 0..one.len() {
            assert_eq!(gathered(&one[..len]), [0; 0], "{len} octets");
        }
        for content in [
            &[][..],
            &[0xFF; 40],
            &STORED,
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x85, 1, 0, 0, 0, 0],
            &[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            b"https://ekcert.example/",
        ] {
            assert_eq!(gathered(content), [0; 0], "{content:02x?}");
        }
    }

    /// Goal: a certificate is about the key whose numbers it has, and about no other; one with a
    /// key in a form that we do not read is left to somebody else.
    #[test]
    fn a_certificate_is_about_its_key() {
        let area = |template: EkTemplate, unique: &[u8]| {
            let mut out = [0; EK_AREA_LEN_MAX];
            let len = template.write(Unique::Padded(unique), &mut out);
            out[..len].to_vec()
        };
        let curve = area(EkTemplate::P256, &[7; 32]);
        let point = [&[4][..], &[7; 32], &[0; 32]].concat();
        let rsa = area(EkTemplate::Rsa2048, &[9; 256]);
        let modulus = tlv(INTEGER, 2, &[&[0], &[9; 256][..]].concat());
        let modulus = tlv(SEQUENCE, 2, &[&modulus[..], &[2, 3, 1, 0, 1]].concat());
        for (key, area, other) in [(&point, &curve, &rsa), (&modulus, &rsa, &curve)] {
            let mut changed = key.clone();
            changed[20] ^= 1;
            assert_eq!(is_about(&certificate(key, 2), area), Some(true));
            assert_eq!(is_about(&certificate(&changed, 2), area), Some(false));
            assert_ne!(is_about(&certificate(key, 2), other), Some(true));
        }
        let compressed = [&[2][..], &[7; 32]].concat();
        assert_eq!(is_about(&certificate(&compressed, 0), &curve), None);
        assert_eq!(is_about(&[0x30, 0], &curve), None);
    }
}
