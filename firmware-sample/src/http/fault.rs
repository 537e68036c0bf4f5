//! Why an exchange gave nothing, and whose doing it is.

use core::fmt;

use fleetcert_core::enroll::AnswerError;
use fleetcert_core::event::{Failure, Reason, Unfit};
use fleetcert_core::http::{RequestError, ResponseError};
use fleetcert_core::record::CERTIFICATE_LEN_MAX;

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
    /// The issued certificate is longer than the record has room for ([`CERTIFICATE_LEN_MAX`]).
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

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => error.fmt(f),
            Self::Busy { retry_after_s: Some(s) } => write!(f, "come back in {s} s, it says"),
            Self::Busy { retry_after_s: None } => f.write_str("come back later, it says"),
            Self::CertificateTooLong { found } => {
                write!(f, "certificate has {found} octets, at most {CERTIFICATE_LEN_MAX} may be")
            }
            Self::CertificateUnfit(Unfit::Expired { time, not_after }) => {
                write!(f, "certificate ended at {}, it is {}", not_after.0, time.0)
            }
            Self::CertificateUnfit(Unfit::Form) => f.write_str("certificate is not for this use"),
            Self::CertificateUnfit(Unfit::Key) => f.write_str("certificate is for another key"),
            Self::Late => f.write_str("time was up before the answer was whole"),
            Self::PeerSawAnother => f.write_str("it saw a certificate of another device"),
            Self::Pending { retry_after_s } => {
                write!(f, "an operator has to approve; the next look is in {retry_after_s} s")
            }
            Self::Refused { status, reason } if reason.is_empty() => write!(f, "status {status}"),
            Self::Refused { status, reason } => write!(f, "status {status}, {reason}"),
            Self::Request(error) => error.fmt(f),
            Self::Response(error) => error.fmt(f),
            Self::Revoked => f.write_str("this identity was revoked"),
            Self::Spent => f.write_str("the connection was not left open"),
            Self::Stream(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HttpError {}
