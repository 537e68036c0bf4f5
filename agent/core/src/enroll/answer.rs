use core::fmt;

use crate::der::{Certificate, CertificateError};
use crate::est::base64::{self, DecodeError};
use crate::est::cms::{CertificateBag, CmsError};
use crate::event::{REASON_LEN_MAX, Reason};
use crate::http::{Response, ResponseHead};
use crate::time::Wall;
use crate::wire::{
    Challenge, MEDIA_TYPE, NONCE_LEN, REASON_HEADER, REASON_REVOKED, RenewalInfo, WhoAmI, WireError,
};

/// When to ask again if a provisioner says "pending" and not when, though RFC 7030 §4.2.3 has it
/// say so, seconds.
pub const RETRY_AFTER_S_DEFAULT: u32 = 60;

/// Octets of a refusal's text for people, at most.
pub const DETAIL_LEN_MAX: usize = 256;

/// An answer, and the time that the provisioner told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated<'b, T> {
    /// The provisioner's clock: of the message if it carries one, else of the `Date` header.
    pub server_time: Option<Wall>,
    /// What was answered.
    pub answer: Result<T, Unanswered<'b>>,
}

/// What comes of a question instead of an answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered<'b> {
    /// The provisioner, or what stands before it, cannot answer now (408, 429, 502, 503, 504).
    Busy {
        /// When to ask again, seconds, where it said.
        retry_after_s: Option<u32>,
    },
    /// An operator has yet to approve of an enrollment (RFC 7030 §4.2.3): ask the same again, with
    /// the same key.
    Pending {
        /// When to ask again, seconds; [`RETRY_AFTER_S_DEFAULT`] where it did not say.
        retry_after_s: u32,
    },
    /// The provisioner will not answer.
    Refused(Refusal<'b>),
    /// What came cannot be read.
    Unreadable(AnswerError),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal<'b> {
    /// The HTTP status, 400 or more.
    pub status: u16,
    /// The provisioner's reason code; empty where it gave none that is one.
    pub reason: Reason,
    /// Text for people: the first line of a `text/plain` body (RFC 7030 §4.2.3), at most
    /// [`DETAIL_LEN_MAX`] octets without control characters; else empty.
    pub detail: &'b str,
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The body is no base64.
    Body(DecodeError),
    /// The issued certificate is malformed.
    Certificate(CertificateError),
    /// The body is not the CMS message that it should be.
    Cms(CmsError),
    /// The answer is of another media type than [`MEDIA_TYPE`].
    MediaType,
    /// The answer is to another question.
    Nonce,
    /// A status that answers nothing here: a redirection, which is never followed, or a success
    /// of another kind.
    Status {
        /// The status found.
        found: u16,
    },
    /// The renewal window ends before or as it begins (RFC 9773 §4.2).
    Window {
        /// Its first second.
        start: Wall,
        /// Its last second.
        end: Wall,
    },
    /// The message is malformed.
    Wire(WireError),
}

impl Refusal<'_> {
    /// Whether the provisioner says that this identity was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.reason == REASON_REVOKED
    }
}

impl From<AnswerError> for Unanswered<'_> {
    fn from(error: AnswerError) -> Self {
        Self::Unreadable(error)
    }
}

/// Reads what [`simpleenroll`](super::simpleenroll) or [`simplereenroll`](super::simplereenroll)
/// was answered (RFC 7030 §4.2.3): the issued certificate, see [`check_leaf`](super::check_leaf).
/// The body is decoded in place.
#[must_use]
pub fn read_enroll<'b>(response: Response<'b>) -> Dated<'b, Certificate<'b>> {
    let head = response.head;
    let answer = if head.status() == 202 {
        let retry_after_s = head.retry_after_s().unwrap_or(RETRY_AFTER_S_DEFAULT);
        Err(Unanswered::Pending { retry_after_s })
    } else {
        body(response).and_then(|body| Ok(issued(body)?))
    };
    Dated { server_time: head.date(), answer }
}

/// Reads what [`cacerts`](super::cacerts) was answered (RFC 7030 §4.1.3). The body is decoded in
/// place.
#[must_use]
pub fn read_cacerts<'b>(response: Response<'b>) -> Dated<'b, CertificateBag<'b>> {
    let server_time = response.head.date();
    Dated { server_time, answer: body(response).and_then(|body| Ok(certificates(body)?)) }
}

/// Reads what [`whoami`](super::whoami) was answered, which must return its nonce.
#[must_use]
pub fn read_whoami<'b>(response: Response<'b>, nonce: &[u8; NONCE_LEN]) -> Dated<'b, WhoAmI<'b>> {
    let date = response.head.date();
    let answer = message(response).and_then(|body| {
        let message = WhoAmI::parse(body).map_err(AnswerError::Wire)?;
        if message.nonce == *nonce { Ok(message) } else { Err(AnswerError::Nonce.into()) }
    });
    let told = answer.as_ref().map_or(date, |message| Some(message.server_time));
    Dated { server_time: told, answer }
}

/// Reads what [`renewal_info`](super::renewal_info) was answered (the semantics of RFC 9773 §4.2).
#[must_use]
pub fn read_renewal_info<'b>(response: Response<'b>) -> Dated<'b, RenewalInfo> {
    let date = response.head.date();
    let answer = message(response).and_then(|body| {
        let message = RenewalInfo::parse(body).map_err(AnswerError::Wire)?;
        let RenewalInfo { start, end, .. } = message;
        if start < end { Ok(message) } else { Err(AnswerError::Window { start, end }.into()) }
    });
    let told = answer.as_ref().map_or(date, |message| Some(message.server_time));
    Dated { server_time: told, answer }
}

/// Reads what [`challenge`](super::challenge) was answered. A server without that question
/// refuses with 404 or 405: it is an EST server, and evidence is nothing to it.
#[must_use]
pub fn read_challenge<'b>(response: Response<'b>) -> Dated<'b, Challenge<'b>> {
    let date = response.head.date();
    let answer = message(response)
        .and_then(|body| Challenge::parse(body).map_err(|error| AnswerError::Wire(error).into()));
    let told = answer.as_ref().map_or(date, |message| Some(message.server_time));
    Dated { server_time: told, answer }
}

/// The body of an answer that is one, whatever was asked.
#[inline(never)]
fn body<'b>(response: Response<'b>) -> Result<&'b mut [u8], Unanswered<'b>> {
    let Response { head, body } = response;
    Err(match head.status() {
        200 => return Ok(body),
        408 | 429 | 502..=504 => Unanswered::Busy { retry_after_s: head.retry_after_s() },
        status @ 400.. => Unanswered::Refused(Refusal {
            status,
            reason: reason(head),
            detail: detail(head, body),
        }),
        found => AnswerError::Status { found }.into(),
    })
}

/// The body of an answer that is a message of ours.
#[inline(never)]
fn message<'b>(response: Response<'b>) -> Result<&'b [u8], Unanswered<'b>> {
    let head = response.head;
    let body = body(response)?;
    if is_media_type(head, MEDIA_TYPE) { Ok(body) } else { Err(AnswerError::MediaType.into()) }
}

fn certificates<'b>(body: &'b mut [u8]) -> Result<CertificateBag<'b>, AnswerError> {
    let message = base64::decode_in_place(body).map_err(AnswerError::Body)?;
    CertificateBag::parse(message).map_err(AnswerError::Cms)
}

fn issued(body: &mut [u8]) -> Result<Certificate<'_>, AnswerError> {
    let der = certificates(body)?.only().map_err(AnswerError::Cms)?;
    Certificate::parse(der).map_err(AnswerError::Certificate)
}

/// RFC 9110 §8.3.1: whatever its case, and without parameters.
fn is_media_type(head: ResponseHead<'_>, wanted: &str) -> bool {
    let value = head.header("Content-Type").unwrap_or_default();
    let found = value.as_bytes().split(|octet| *octet == b';').next().unwrap_or_default();
    found.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes())
}

fn reason(head: ResponseHead<'_>) -> Reason {
    let is_code = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-');
    head.header(REASON_HEADER)
        .filter(|code| code.len() <= REASON_LEN_MAX && code.bytes().all(is_code))
        .and_then(|code| Reason::try_from(code).ok())
        .unwrap_or_default()
}

fn detail<'b>(head: ResponseHead<'b>, body: &'b [u8]) -> &'b str {
    let text = core::str::from_utf8(body).ok().filter(|_| is_media_type(head, "text/plain"));
    let text = text.unwrap_or_default();
    // A carriage return belongs to the line's end only where there is one.
    let end = text.bytes().position(|octet| octet == b'\n');
    let line = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let line = end.and_then(|_| line.strip_suffix("\r")).unwrap_or(line);
    let line = line.get(..line.floor_char_boundary(DETAIL_LEN_MAX)).unwrap_or_default();
    if line.contains(char::is_control) { "" } else { line }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Body(error) => write!(f, "answer: {error}"),
            Self::Certificate(error) => write!(f, "answer: {error}"),
            Self::Cms(error) => write!(f, "answer: {error}"),
            Self::MediaType => write!(f, "answer is not of the media type {MEDIA_TYPE}"),
            Self::Nonce => f.write_str("answer returns another nonce than was sent"),
            Self::Status { found } => write!(f, "status {found} is no answer to this question"),
            Self::Window { start, end } => {
                write!(f, "renewal window begins at {} and ends at {}", start.0, end.0)
            }
            Self::Wire(error) => write!(f, "answer: {error}"),
        }
    }
}

impl core::error::Error for AnswerError {}
