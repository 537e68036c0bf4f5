//! Every way in which a request is refused, each with a code of its own.

use std::fmt;

use fleetcert_core::{device_id::DeviceId, time::Wall, wire};

use crate::{
    authority::{KeyFingerprint, Serial},
    csr::CsrError,
    inventory::Name,
    token::TokenError,
};

mod tpm;

pub use self::tpm::TpmRefusal;

/// What class of HTTP status a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatusClass {
    /// 400: the request is damaged or asks for what nobody gets.
    BadRequest,
    /// 401: credentials are missing or not accepted.
    Unauthorized,
    /// 403: the requester is known, and may not.
    Forbidden,
    /// 404: there is no such label or certificate.
    NotFound,
    /// 409: it contradicts an earlier request.
    Conflict,
    /// 413: it is too long.
    TooLarge,
    /// 429: it may, but not so often.
    TooManyRequests,
    /// 503: it may, but there is no room now.
    Unavailable,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another key of this device waits for an operator.
    ApprovalConflict {
        /// The key that waits.
        waiting: KeyFingerprint,
        /// The key that came.
        found: KeyFingerprint,
    },
    /// The peer's certificate has expired, and this is not served by recovery.
    CertificateExpired {
        /// Its last second of validity.
        not_after: Wall,
    },
    /// Re-enrollment came without a client certificate.
    CertificateRequired,
    /// The peer's certificate is not one that we issued to that device.
    CertificateUnknown {
        /// Its serial number.
        serial: Serial,
    },
    /// The request is for another identity than the authenticated one.
    CsrIdentity {
        /// The common name it asks for.
        found: String,
        /// The authenticated device.
        expected: DeviceId,
    },
    /// The request itself is refused.
    Csr(CsrError),
    /// Credentials are missing.
    CredentialsRequired,
    /// The device has a certificate and presented neither that nor a token.
    DeviceActive {
        /// Which device.
        device: DeviceId,
    },
    /// The request names no device, or none that could be one.
    DeviceName {
        /// The name, shortened.
        found: String,
    },
    /// The label serves another group than the device's.
    LabelMismatch {
        /// The label.
        label: Name,
        /// The device's group.
        group: Name,
    },
    /// There is no such label.
    LabelUnknown {
        /// The label.
        label: Name,
    },
    /// The peer's certificate names no device of ours.
    PeerIdentity,
    /// As many devices wait for an operator as may.
    PendingFull {
        /// How many may.
        pending_max: u32,
        /// When to ask again, seconds.
        retry_after_s: u32,
    },
    /// The group's policy lets nobody in this way.
    PolicyDenied {
        /// The group, if there is one.
        group: Option<Name>,
    },
    /// The device replaced an expired certificate a short while ago.
    RecoveryRate {
        /// When it may again.
        next_at: Wall,
    },
    /// A request of this name came before, with another key.
    RequestConflict {
        /// The key of the earlier one.
        earlier: KeyFingerprint,
        /// The key of this one.
        found: KeyFingerprint,
    },
    /// A request of this name got a certificate that has expired since.
    RequestSpent {
        /// Its last second of validity.
        not_after: Wall,
    },
    /// The identity was revoked.
    Revoked {
        /// Which device.
        device: DeviceId,
    },
    /// The subjectAltName asked for is not the current certificate's.
    SanMismatch,
    /// The subject asked for is not the current certificate's.
    SubjectMismatch,
    /// The token does not let the request in.
    Token(TokenError),
    /// What it says of a TPM is refused, or that it says nothing.
    Tpm(Box<TpmRefusal>),
}

impl StatusClass {
    /// The HTTP status code.
    #[must_use]
    pub const fn http(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooManyRequests => 429,
            Self::Unavailable => 503,
        }
    }
}

impl Refusal {
    /// Its stable code, for [`wire::REASON_HEADER`] and the audit table.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ApprovalConflict { .. } => "approval-conflict",
            Self::CertificateExpired { .. } => "certificate-expired",
            Self::CertificateRequired => "certificate-required",
            Self::CertificateUnknown { .. } => "certificate-unknown",
            Self::CsrIdentity { .. } => "csr-identity",
            Self::Csr(error) => csr_code(error),
            Self::CredentialsRequired => "credentials-required",
            Self::DeviceActive { .. } => "device-active",
            Self::DeviceName { .. } => "device-name",
            Self::LabelMismatch { .. } => "label-mismatch",
            Self::LabelUnknown { .. } => "label-unknown",
            Self::PeerIdentity => "peer-identity",
            Self::PendingFull { .. } => "pending-full",
            Self::PolicyDenied { .. } => "policy-denied",
            Self::RecoveryRate { .. } => "recovery-rate",
            Self::RequestConflict { .. } => "request-conflict",
            Self::RequestSpent { .. } => "request-spent",
            Self::Revoked { .. } => wire::REASON_REVOKED,
            Self::SanMismatch => "san-mismatch",
            Self::SubjectMismatch => "subject-mismatch",
            Self::Token(error) => error.code(),
            Self::Tpm(error) => error.code(),
        }
    }

    /// How long to wait before the same request may succeed, seconds; `None` if waiting alone does
    /// not help.
    #[must_use]
    pub fn retry_after_s(&self, now: Wall) -> Option<u64> {
        match self {
            Self::PendingFull { retry_after_s, .. } => Some(u64::from(*retry_after_s)),
            Self::RecoveryRate { next_at } => Some(next_at.s_since(now).max(1)),
            Self::Tpm(error) => error.retry_after_s(),
            _ => None,
        }
    }

    /// What class of HTTP status it is.
    #[must_use]
    pub const fn status(&self) -> StatusClass {
        match self {
            Self::ApprovalConflict { .. }
            | Self::RequestConflict { .. }
            | Self::RequestSpent { .. } => StatusClass::Conflict,
            Self::CertificateRequired | Self::CredentialsRequired | Self::Token(_) => {
                StatusClass::Unauthorized
            }
            Self::Csr(CsrError::TooLong { .. }) => StatusClass::TooLarge,
            Self::Csr(_) | Self::DeviceName { .. } => StatusClass::BadRequest,
            Self::LabelUnknown { .. } => StatusClass::NotFound,
            Self::PendingFull { .. } => StatusClass::Unavailable,
            Self::RecoveryRate { .. } => StatusClass::TooManyRequests,
            Self::Tpm(error) => error.status(),
            Self::CertificateExpired { .. }
            | Self::CertificateUnknown { .. }
            | Self::CsrIdentity { .. }
            | Self::DeviceActive { .. }
            | Self::LabelMismatch { .. }
            | Self::PeerIdentity
            | Self::PolicyDenied { .. }
            | Self::Revoked { .. }
            | Self::SanMismatch
            | Self::SubjectMismatch => StatusClass::Forbidden,
        }
    }
}

const fn csr_code(error: &CsrError) -> &'static str {
    match error {
        CsrError::AsksCa => "csr-ca",
        CsrError::CommonNames { .. } => "csr-common-names",
        CsrError::Key { .. } => "csr-key",
        CsrError::Malformed => "csr-malformed",
        CsrError::Signature => "csr-signature",
        CsrError::SignatureAlgorithm => "csr-signature-algorithm",
        CsrError::TooLong { .. } => "csr-too-long",
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApprovalConflict { waiting, found } => write!(
                f,
                "key {waiting} of this device waits for approval, {found} came: an operator has \
                 to reject the wrong one"
            ),
            Self::CertificateExpired { not_after } => {
                write!(f, "the client certificate was good until {}: re-enroll", not_after.0)
            }
            Self::CertificateRequired => f.write_str(
                "no client certificate came, expected the current one: connect with it, or enroll",
            ),
            Self::CertificateUnknown { serial } => write!(
                f,
                "certificate {serial} is not in the database: enroll again with a new token"
            ),
            Self::CsrIdentity { found, expected } => write!(
                f,
                "the request names {found:?}, expected {expected} or no name: correct its subject"
            ),
            Self::Csr(error) => error.fmt(f),
            Self::CredentialsRequired => f.write_str(
                "no credentials came, expected the device id and a one-time token by HTTP Basic, \
                 or a client certificate",
            ),
            Self::DeviceActive { device } => write!(
                f,
                "{device} has a certificate, expected that or a token: ask an operator for one"
            ),
            Self::DeviceName { found } => write!(
                f,
                "{found:?} names no device, expected [A-Za-z0-9._-], not beginning with backend."
            ),
            Self::LabelMismatch { label, group } => write!(
                f,
                "label {label} serves another group than the device's, {group}: use its own label"
            ),
            Self::LabelUnknown { label } => write!(f, "there is no label {label}"),
            Self::PeerIdentity => f.write_str(
                "the client certificate names no device of this trust domain, expected one SPIFFE \
                 URI and the same common name",
            ),
            Self::PendingFull { pending_max, .. } => write!(
                f,
                "{pending_max} devices wait for an operator, no more may: an operator approves, \
                 rejects, or adds this one"
            ),
            Self::PolicyDenied { group: Some(group) } => {
                write!(f, "the policy of group {group} lets nobody in this way")
            }
            Self::PolicyDenied { group: None } => f.write_str(
                "the device is not in the inventory and no group takes unknown ones: add it first",
            ),
            Self::RecoveryRate { next_at } => write!(
                f,
                "the device replaced an expired certificate a short while ago, it may again at {}",
                next_at.0
            ),
            Self::RequestConflict { earlier, found } => write!(
                f,
                "a request of this name came with key {earlier}, now with {found}: name a new one"
            ),
            Self::RequestSpent { not_after } => write!(
                f,
                "this request got a certificate that was good until {}: name a new one",
                not_after.0
            ),
            Self::Revoked { device } => {
                write!(f, "the identity of {device} was revoked: an operator has to decide")
            }
            Self::SanMismatch => f.write_str(
                "the subjectAltName asked for is not the current certificate's: copy it or leave \
                 it out",
            ),
            Self::SubjectMismatch => f.write_str(
                "the subject asked for is not the current certificate's: copy it unchanged",
            ),
            Self::Token(error) => error.fmt(f),
            Self::Tpm(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<TpmRefusal> for Refusal {
    fn from(refusal: TpmRefusal) -> Self {
        Self::Tpm(Box::new(refusal))
    }
}
