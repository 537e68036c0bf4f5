//! EST bodies: base64 of DER, read leniently and written in the reader's own style.
//!
//! RFC 8951 §3 settles that every body is base64 (RFC 4648 §4) whatever
//! `Content-Transfer-Encoding` says, so that header is never looked at. Line breaks are another
//! matter: one client in the field reads base64 on a single line only, another reads a long body
//! only when it is wrapped. A client can read what it writes, hence [`Style::of`] a body.

use base64ct::{Base64, Encoding};

/// Characters of a wrapped line (RFC 7468 §2, what PEM readers expect).
const LINE_LEN: usize = 64;

/// What the Cisco client calls itself; it needs wrapped lines in answers to GET as well.
const LIBEST_USER_AGENT: &str = "libest";

/// How base64 is broken into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A single line that ends in a newline.
    OneLine,
    /// Lines of 64 characters, each ending in a newline.
    Wrapped,
}

impl Style {
    /// The style of a request's body, which its sender can read too.
    pub fn of(body: &[u8]) -> Self {
        if raw_der(body).is_none() && body.contains(&b'\n') { Self::Wrapped } else { Self::OneLine }
    }

    /// The style for an answer to a request without a body.
    pub(crate) fn for_user_agent(user_agent: &str) -> Self {
        let is_libest = user_agent
            .as_bytes()
            .windows(LIBEST_USER_AGENT.len())
            .any(|part| part.eq_ignore_ascii_case(LIBEST_USER_AGENT.as_bytes()));
        if is_libest { Self::Wrapped } else { Self::OneLine }
    }

    /// DER as a body in this style.
    pub fn encode(self, der: &[u8]) -> Vec<u8> {
        let text = Base64::encode_string(der).into_bytes();
        let line_len = match self {
            Self::OneLine => text.len().max(1),
            Self::Wrapped => LINE_LEN,
        };
        let mut body = Vec::with_capacity(text.len() + text.len() / line_len + 1);
        for line in text.chunks(line_len) {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        body
    }
}

/// A body holds no DER that could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Nothing but white space.
    Empty,
    /// Neither base64, nor PEM, nor DER.
    NotBase64,
}

/// The DER of a body: base64 with any white space, PEM, or DER as it is.
///
/// # Errors
///
/// [`BodyError`] if it is none of these.
pub fn decode(body: &[u8]) -> Result<Vec<u8>, BodyError> {
    if let Some(der) = raw_der(body) {
        return Ok(der.to_vec());
    }
    let text: Vec<u8> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii_start().starts_with(b"-----"))
        .flatten()
        .copied()
        .filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r'))
        .collect();
    if text.is_empty() {
        return Err(BodyError::Empty);
    }
    let text = str::from_utf8(&text).map_err(|_| BodyError::NotBase64)?;
    Base64::decode_vec(text).map_err(|_| BodyError::NotBase64)
}

/// The body itself, if it begins as a DER SEQUENCE of more than 127 octets: a length octet above
/// 127 is no ASCII, so no base64 looks like this.
fn raw_der(body: &[u8]) -> Option<&[u8]> {
    match body {
        [0x30, length, ..] if *length > 0x7f => Some(body),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der() -> Vec<u8> {
        let mut der = vec![0x30, 0x81, 0x90];
        der.extend((0..0x90).map(|i: u8| i.wrapping_mul(37)));
        der
    }

    // Goal: each form that a client in the field sends is read.
    #[test]
    fn every_form_of_a_body_is_read() {
        let der = der();
        let wrapped = Style::Wrapped.encode(&der);
        let crlf = String::from_utf8(wrapped.clone()).unwrap().replace('\n', "\r\n");
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}-----END CERTIFICATE REQUEST-----\n",
            String::from_utf8(wrapped.clone()).unwrap()
        );
        let one_line = Style::OneLine.encode(&der);
        let bare = one_line.trim_ascii_end().to_vec();
        for body in [wrapped, one_line, bare, crlf.into_bytes(), pem.into_bytes(), der.clone()] {
            assert_eq!(decode(&body).as_deref(), Ok(der.as_slice()));
        }
    }

    // Goal: what is no body is refused with the reason, not guessed at.
    #[test]
    fn bodies_without_der_are_refused() {
        assert_eq!(decode(b""), Err(BodyError::Empty));
        assert_eq!(decode(b" \r\n\t"), Err(BodyError::Empty));
        assert_eq!(decode(b"-----BEGIN X-----\n-----END X-----"), Err(BodyError::Empty));
        for body in [&b"MII*"[..], b"\xff\xfe", b"M", b"{\"csr\":1}"] {
            assert_eq!(decode(body), Err(BodyError::NotBase64), "{body:?}");
        }
    }

    // Goal: an answer has the line breaks of its request, and libest gets wrapped lines.
    #[test]
    fn answers_have_the_style_of_their_request() {
        assert_eq!(Style::of(b"MIIB"), Style::OneLine);
        assert_eq!(Style::of(b"MI\nIB\n"), Style::Wrapped);
        assert_eq!(Style::of(&[0x30, 0x81, 0x0a, b'\n']), Style::OneLine);
        assert_eq!(Style::for_user_agent("Cisco LibEST client 1.0"), Style::Wrapped);
        assert_eq!(Style::for_user_agent("curl/7.88"), Style::OneLine);
    }

    // Goal: the two styles are what they say, to the newline.
    #[test]
    fn bodies_are_broken_where_the_style_says() {
        let one = String::from_utf8(Style::OneLine.encode(&der())).unwrap();
        assert_eq!(one.matches('\n').count(), 1);
        assert!(one.ends_with('\n'));
        let wrapped = String::from_utf8(Style::Wrapped.encode(&der())).unwrap();
        assert!(wrapped.ends_with('\n'));
        assert!(wrapped.lines().rev().skip(1).all(|line| line.len() == LINE_LEN));
        assert_eq!(wrapped.replace('\n', ""), one.trim_end());
        assert!(Style::OneLine.encode(&[]).is_empty());
    }
}
