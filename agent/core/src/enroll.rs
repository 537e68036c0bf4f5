//! The dialogue with the provisioner, as bytes of requests and answers.
//!
//! **What it is.** For each thing a device asks of a provisioner, a function that writes the
//! request and one that reads the answer: EST (RFC 7030, RFC 8951) for certificates, and three
//! questions of our own: which certificate was seen, when to renew, and what a TPM has to solve
//! ([`wire`]). Daemon and firmware bring a TLS stream and call the same functions.
//!
//! **What it must never do.** Follow a redirection, which would carry a token to another host; act
//! on a reason code; take a certificate for issued that was not asked for ([`check_leaf`]).
//!
//! **Why that is sound.** An answer is one of a few typed outcomes or an error; nothing of a body
//! is believed that was not read to its last octet. That the peer is the provisioner is the promise
//! of the TLS stream.

mod answer;
mod leaf;

use core::fmt;

use crate::device_id::DeviceId;
use crate::est::base64::{self, Style};
use crate::http::{Method, RequestError, RequestWriter};
use crate::wire::{
    self, CHALLENGE_HEADER, CHALLENGE_ID_LEN, CHALLENGE_PATH, ChallengeRequest, NONCE_LEN,
    RENEWAL_INFO_PATH, REQUEST_ID_HEADER, REQUEST_ID_LEN, WHOAMI_PATH,
};

pub use self::answer::{
    AnswerError, DETAIL_LEN_MAX, Dated, RETRY_AFTER_S_DEFAULT, Refusal, Unanswered, read_cacerts,
    read_challenge, read_enroll, read_renewal_info, read_whoami,
};
pub use self::leaf::{LeafError, check_leaf};

/// Octets of an EST label, at most.
pub const LABEL_LEN_MAX: usize = 64;

/// Octets of an enrollment token, at most.
pub const TOKEN_LEN_MAX: usize = 128;

/// Octets of a renewal identifier that is asked about, at most.
const RENEWAL_ID_LEN_MAX: usize = 128;

/// Where EST lives on a server (RFC 7030 §3.2.2).
const EST_PATH: &str = "/.well-known/est";

/// What RFC 7030 §3.2.2 forbids as a label, since a path segment means it already.
const OPERATIONS: [&str; 6] =
    ["cacerts", "csrattrs", "fullcmc", "serverkeygen", "simpleenroll", "simplereenroll"];

/// The provisioner: where requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisioner<'a> {
    /// Its name or address, and its port if that is not 443.
    pub host: &'a str,
    /// The policy that is asked for, where it has several.
    pub label: Option<Label<'a>>,
}

/// An EST label (RFC 7030 §3.2.2): `[A-Za-z0-9_~][A-Za-z0-9._~-]{0,63}`, not the name of an EST
/// operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a>(&'a str);

/// A one-time token: 1 to [`TOKEN_LEN_MAX`] octets of ASCII without blanks. A secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token<'a>(&'a str);

/// Why a text is no label or no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It holds a character that it may not.
    Character,
    /// It is empty, or longer than it may be.
    Length {
        /// Its length, octets.
        found: usize,
        /// The most that it may have, octets.
        max: usize,
    },
    /// It is the name of an EST operation.
    Reserved,
}

/// An enrollment, as it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Enrollment<'a> {
    /// Names this request: asked again with the same name and key, it gives the same certificate.
    pub id: [u8; REQUEST_ID_LEN],
    /// The PKCS#10 request, DER.
    pub csr: &'a [u8],
    /// The challenge that the evidence in the request answers, if it carries any.
    pub challenge: Option<[u8; CHALLENGE_ID_LEN]>,
}

impl<'a> Label<'a> {
    /// Octets of a label, at most.
    pub const MAX_LEN: usize = LABEL_LEN_MAX;

    /// Takes a text as a label.
    ///
    /// # Errors
    ///
    /// [`NameError`] says why it is none.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        check_length(text, LABEL_LEN_MAX)?;
        let is_mark = |octet: u8| matches!(octet, b'.' | b'_' | b'~' | b'-');
        let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || is_mark(octet);
        if matches!(text.as_bytes(), [b'.' | b'-', ..]) || !text.bytes().all(is_plain) {
            return Err(NameError::Character);
        }
        if OPERATIONS.contains(&text) { Err(NameError::Reserved) } else { Ok(Self(text)) }
    }

    /// The label as text.
    #[must_use]
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

impl<'a> Token<'a> {
    /// Octets of a token, at most.
    pub const MAX_LEN: usize = TOKEN_LEN_MAX;

    /// Takes a text as a token.
    ///
    /// # Errors
    ///
    /// [`NameError`] says why it is none, and does not repeat it.
    pub fn parse(text: &'a str) -> Result<Self, NameError> {
        check_length(text, TOKEN_LEN_MAX)?;
        let is_printable = |octet: u8| octet.is_ascii_graphic();
        if text.bytes().all(is_printable) { Ok(Self(text)) } else { Err(NameError::Character) }
    }

    /// The token as text: for who stores it, never for who logs.
    #[must_use]
    pub const fn reveal(&self) -> &'a str {
        self.0
    }
}

/// Never the token itself: it would end in a log.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

const fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        found if found == 0 || found > max => Err(NameError::Length { found, max }),
        _ => Ok(()),
    }
}

/// Asks for the authorities' certificates (RFC 7030 §4.1); [`read_cacerts`] reads the answer.
///
/// # Errors
///
/// [`RequestError`] if the host is none or `buffer` is too small.
pub fn cacerts<'b>(
    provisioner: Provisioner<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    begin_est(Method::Get, provisioner, "cacerts", buffer).finish()
}

/// Asks for a first certificate (RFC 7030 §4.2.1), authenticated by a token (§3.2.3), which is
/// bound to the device id, or by the client certificate of the connection.
/// [`read_enroll`] reads the answer.
///
/// # Errors
///
/// [`RequestError`] if the host is none or `buffer` is too small.
pub fn simpleenroll<'b>(
    provisioner: Provisioner<'_>,
    enrollment: Enrollment<'_>,
    token: Option<(&DeviceId, Token<'_>)>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    let mut request = begin_est(Method::Post, provisioner, "simpleenroll", buffer);
    if let Some((device_id, token)) = token {
        request.basic(device_id.as_str(), token.0);
    }
    finish_enrollment(request, enrollment)
}

/// Asks for a certificate to follow the client certificate of the connection (RFC 7030 §4.2.2).
/// [`read_enroll`] reads the answer.
///
/// # Errors
///
/// [`RequestError`] if the host is none or `buffer` is too small.
pub fn simplereenroll<'b>(
    provisioner: Provisioner<'_>,
    enrollment: Enrollment<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    let request = begin_est(Method::Post, provisioner, "simplereenroll", buffer);
    finish_enrollment(request, enrollment)
}

/// Asks which certificate the provisioner sees on this connection; [`read_whoami`] reads the
/// answer and wants the same nonce.
///
/// # Errors
///
/// [`RequestError`] if the host is none or `buffer` is too small.
pub fn whoami<'b>(
    provisioner: Provisioner<'_>,
    nonce: &[u8; NONCE_LEN],
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    question(provisioner, &[WHOAMI_PATH, "?nonce=", Hex::of(nonce).as_str()], buffer)
}

/// Asks when to renew the certificate with this identifier (the semantics of RFC 9773 §4.1, see
/// [`crate::der::renewal_id`]); [`read_renewal_info`] reads the answer.
///
/// # Errors
///
/// [`RequestError::Path`] if it is no such identifier; [`RequestError`] if the host is none or
/// `buffer` is too small.
pub fn renewal_info<'b>(
    provisioner: Provisioner<'_>,
    renewal_id: &str,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    let is_length = (1..=RENEWAL_ID_LEN_MAX).contains(&renewal_id.len());
    if !is_length || !renewal_id.bytes().all(is_plain) {
        return Err(RequestError::Path);
    }
    question(provisioner, &[RENEWAL_INFO_PATH, renewal_id], buffer)
}

/// Asks what a TPM has to solve before evidence about its keys is worth anything;
/// [`read_challenge`] reads the answer.
///
/// # Errors
///
/// [`RequestError`] if the host is none or `buffer` is too small, or the message is not one.
pub fn challenge<'b>(
    provisioner: Provisioner<'_>,
    message: &ChallengeRequest<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    let mut request = RequestWriter::new(Method::Post, provisioner.host, &[CHALLENGE_PATH], buffer);
    request.header("Accept", wire::MEDIA_TYPE);
    request.header("Content-Type", wire::MEDIA_TYPE);
    request.finish_with(message.encoded_len(), |out| message.emit(out).ok().map(<[u8]>::len))
}

/// A question of ours without a body.
fn question<'b>(
    provisioner: Provisioner<'_>,
    path: &[&str],
    buffer: &'b mut [u8],
) -> Result<&'b [u8], RequestError> {
    let mut request = RequestWriter::new(Method::Get, provisioner.host, path, buffer);
    request.header("Accept", wire::MEDIA_TYPE);
    request.finish()
}

fn begin_est<'b>(
    method: Method,
    provisioner: Provisioner<'_>,
    operation: &str,
    buffer: &'b mut [u8],
) -> RequestWriter<'b> {
    let [stroke, label] = provisioner.label.map_or([""; 2], |label| ["/", label.0]);
    let path = [EST_PATH, stroke, label, "/", operation];
    RequestWriter::new(method, provisioner.host, &path, buffer)
}

/// RFC 8951 §3.1 has the receiver ignore `Content-Transfer-Encoding`; older ones want it, and the
/// body in lines of 64 with the last one ended.
fn finish_enrollment<'b>(
    mut request: RequestWriter<'b>,
    enrollment: Enrollment<'_>,
) -> Result<&'b [u8], RequestError> {
    let Enrollment { id, csr, challenge } = enrollment;
    request.header("Content-Type", "application/pkcs10");
    request.header("Content-Transfer-Encoding", "base64");
    request.header(REQUEST_ID_HEADER, Hex::of(&id).as_str());
    if let Some(challenge) = challenge {
        request.header(CHALLENGE_HEADER, Hex::of(&challenge).as_str());
    }
    request.finish_with(Style::Wrapped.encoded_len(csr.len()), |out| {
        base64::encode(csr, Style::Wrapped, out).ok().map(<[u8]>::len)
    })
}

/// 16 octets as 32 lower-case hexadecimal digits.
struct Hex([[u8; 2]; 16]);

impl Hex {
    fn of(octets: &[u8; 16]) -> Self {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
        let mut digits = [[0; 2]; 16];
        for (digits, octet) in digits.iter_mut().zip(octets) {
            *digits = [digit(octet >> 4), digit(octet & 0x0f)];
        }
        Self(digits)
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(self.0.as_flattened()).unwrap_or_default()
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Character => f.write_str("name holds a character that it may not"),
            Self::Length { found, max } => write!(f, "name has {found} octets, not 1 to {max}"),
            Self::Reserved => f.write_str("label is the name of an EST operation"),
        }
    }
}

impl core::error::Error for NameError {}

#[cfg(test)]
mod tests;
