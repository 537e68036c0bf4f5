//! Why an exchange gave nothing, and whose doing it is.

use core::fmt;

use fleetcert_core::enroll::AnswerError;
use fleetcert_core::event::{Failure, Reason, Unfit};
use fleetcert_core::http::{RequestError, ResponseError};

use crate::console::show_code;
use crate::tls::TlsError;

/// Why an exchange gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// The answer is HTTP, and not what was asked for.
    Answer(AnswerError),
    /// The provisioner asks to come back later.
    Busy {
        /// Seconds, where it said.
        retry_after_s: Option<u32>,
    },
    /// The issued certificate is longer than the record has room for
    /// ([`fleetcert_core::record::CERTIFICATE_LEN_MAX`]).
    CertificateTooLong {
        /// Its octets.
        found: usize,
    },
    /// A certificate is not the one that was asked for.
    CertificateUnfit(Unfit),
    /// Time was up before the answer was whole.
    Late,
    /// The provisioner saw the certificate of another device.
    PeerSawAnother,
    /// An operator has yet to approve.
    Pending {
        /// When to ask again, seconds.
        retry_after_s: u32,
    },
    /// The provisioner refused.
    Refused {
        /// HTTP status, 400 or more.
        status: u16,
        /// Its reason code; empty where it gave none.
        reason: Reason,
    },
    /// No request could be written; nothing was sent.
    Request(RequestError),
    /// What came is not HTTP as we take it.
    Response(ResponseError),
    /// The provisioner says that this identity was revoked.
    Revoked,
    /// The connection was not left open by the exchange before this one; nothing was sent.
    Spent,
    /// The connection.
    Stream(TlsError),
}

impl From<ResponseError> for HttpError {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

impl From<TlsError> for HttpError {
    fn from(error: TlsError) -> Self {
        Self::Stream(error)
    }
}

/// What the machine is told; as the daemon for Linux tells it.
impl From<HttpError> for Failure {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Answer(_) => Self::AnswerMalformed,
            HttpError::Busy { retry_after_s } => Self::Busy { retry_after_s },
            HttpError::CertificateTooLong { .. } => Self::CertificateUnfit(Unfit::Form),
            HttpError::CertificateUnfit(unfit) => Self::CertificateUnfit(unfit),
            // The factory's host or label is none that a request can carry: nothing was sent.
            HttpError::Late | HttpError::Request(_) | HttpError::Spent => Self::Unreachable,
            HttpError::PeerSawAnother => Self::WrongCertificateSeen,
            HttpError::Pending { retry_after_s } => Self::Pending { retry_after_s },
            HttpError::Refused { status, reason } => Self::Refused { status, reason },
            HttpError::Response(ResponseError::Closed | ResponseError::Truncated) => {
                Self::Unreachable
            }
            HttpError::Response(_) => Self::AnswerMalformed,
            HttpError::Revoked => Self::Revoked,
            HttpError::Stream(error) => error.into(),
        }
    }
}

impl HttpError {
    /// A stable name, as `docs/serial.md` has it; that of the stream where it is the stream's.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Answer(error) => answer_code(error),
            Self::Busy { .. } => "busy",
            Self::CertificateTooLong { .. } => "certificate-too-long",
            Self::CertificateUnfit(Unfit::Expired { .. }) => "certificate-expired",
            Self::CertificateUnfit(Unfit::Form) => "certificate-form",
            Self::CertificateUnfit(Unfit::Key) => "certificate-key",
            Self::Late => "late",
            Self::PeerSawAnother => "saw-another",
            Self::Pending { .. } => "pending",
            Self::Refused { .. } => "refused",
            Self::Request(error) => request_code(error),
            Self::Response(error) => response_code(error),
            Self::Revoked => "revoked",
            Self::Spent => "spent",
            Self::Stream(error) => error.code(),
        }
    }
}

const fn answer_code(error: &AnswerError) -> &'static str {
    match error {
        AnswerError::Body(_) => "base64",
        AnswerError::Certificate(_) => "certificate",
        AnswerError::Cms(_) => "cms",
        AnswerError::MediaType => "media-type",
        AnswerError::Nonce => "nonce",
        AnswerError::Status { .. } => "status",
        AnswerError::Window { .. } => "window",
        AnswerError::Wire(_) => "wire",
    }
}

const fn request_code(error: &RequestError) -> &'static str {
    match error {
        RequestError::Buffer { .. } => "request-too-long",
        RequestError::HeaderName | RequestError::HeaderValue => "request-header",
        RequestError::Host => "request-host",
        RequestError::Path => "request-path",
        RequestError::Secret => "request-secret",
    }
}

const fn response_code(error: &ResponseError) -> &'static str {
    match error {
        ResponseError::BodyLength { .. } | ResponseError::Full { .. } => "too-long",
        ResponseError::Chunk => "chunk",
        ResponseError::Closed => "closed",
        ResponseError::ContentLength => "content-length",
        ResponseError::Head => "head",
        ResponseError::HeaderLength { .. } => "head-too-long",
        ResponseError::Interim => "interim",
        ResponseError::Status { .. } => "status",
        ResponseError::Surplus { .. } => "surplus",
        ResponseError::Trailer => "trailer",
        ResponseError::TransferEncoding => "transfer-encoding",
        ResponseError::Truncated => "truncated",
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Stream(error) = self {
            return error.fmt(f);
        }
        show_code(f, "http", self.code())?;
        match self {
            Self::Answer(AnswerError::Status { found: status })
            | Self::Response(ResponseError::Status { found: status }) => write!(f, " {status}"),
            Self::Refused { status, reason } => write!(f, " {status} {reason}"),
            Self::CertificateTooLong { found } => write!(f, " {found}"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for HttpError {}
