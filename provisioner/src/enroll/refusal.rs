//! Every way in which a request is refused, each with a code of its own.

use fleetcert_core::{device_id::DeviceId, time::Wall};

use crate::{
    authority::{KeyFingerprint, Serial},
    csr::CsrError,
    inventory::Name,
    token::TokenError,
};

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
}
