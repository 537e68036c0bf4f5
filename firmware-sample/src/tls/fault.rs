//! What ends a connection, and whose doing it is.

use core::fmt;

use embedded_io::ErrorKind;
use fleetcert_core::event::Failure;

use crate::console::show_code;
use crate::keystore::KeyFault;
use crate::verifier::Refusal;

/// Why there is no connection, or not any more. One word, since every read and write may say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// Our certificate is longer than a handshake message of ours can be.
    LocalCertificateTooLong {
        /// Its octets.
        found: u16,
    },
    /// Our key did not sign. Nothing but the handshake's beginning was sent.
    LocalKey(KeyFault),
    /// The server sent an alert: it will not have us.
    PeerAlert {
        /// The alert, RFC 8446 §6; the library hides what comes after the handshake.
        description: Option<u8>,
    },
    /// The connection ended before the server said that it would.
    PeerEnded,
    /// The server says what is not TLS 1.3 as we asked for it, or what does not decrypt.
    PeerProtocol,
    /// The server sent a record that it may not send, or that is larger than what we hold.
    PeerRecord(RecordFault),
    /// The server's signature over the handshake is not that of its certificate's key.
    PeerSignature,
    /// The server would go on without having proven that it holds its certificate's key.
    PeerUnproven,
    /// The server's certificate is refused.
    PeerUntrusted(Refusal),
    /// The network.
    Transport(ErrorKind),
}

/// What is wrong with a record, before anything of it is decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFault {
    /// It is too short to hold anything.
    Empty,
    /// It is longer than the fragments we asked for (RFC 6066 §4).
    TooLong {
        /// Its octets.
        found: u16,
    },
    /// No record of this kind may come now.
    Unexpected {
        /// Its content type, RFC 8446 §5.1.
        kind: u8,
    },
}

impl TlsError {
    /// A stable name for machines; a refused certificate has that of its cause.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LocalCertificateTooLong { .. } => "certificate-too-long",
            Self::LocalKey(fault) => fault.code(),
            Self::PeerAlert { .. } => "peer-alert",
            Self::PeerEnded => "peer-ended",
            Self::PeerProtocol => "peer-protocol",
            Self::PeerRecord(RecordFault::Empty) => "record-empty",
            Self::PeerRecord(RecordFault::TooLong { .. }) => "record-too-long",
            Self::PeerRecord(RecordFault::Unexpected { .. }) => "record-unexpected",
            Self::PeerSignature => "peer-signature",
            Self::PeerUnproven => "peer-unproven",
            Self::PeerUntrusted(refusal) => refusal.code(),
            Self::Transport(ErrorKind::TimedOut) => "timed-out",
            Self::Transport(ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => "reset",
            Self::Transport(ErrorKind::ConnectionRefused) => "refused",
            Self::Transport(ErrorKind::NotConnected) => "not-connected",
            Self::Transport(ErrorKind::NotFound) => "not-found",
            Self::Transport(_) => "transport",
        }
    }

    /// The alert that tells a server why we leave (RFC 8446 §6.2), where one does.
    pub(super) const fn alert(&self) -> Option<u8> {
        match self {
            Self::PeerProtocol => Some(alert::HANDSHAKE_FAILURE),
            Self::PeerRecord(RecordFault::TooLong { .. }) => Some(alert::RECORD_OVERFLOW),
            Self::PeerRecord(_) | Self::PeerUnproven => Some(alert::UNEXPECTED_MESSAGE),
            Self::PeerSignature => Some(alert::DECRYPT_ERROR),
            Self::PeerUntrusted(Refusal::Expired | Refusal::NotYetValid) => {
                Some(alert::CERTIFICATE_EXPIRED)
            }
            Self::PeerUntrusted(Refusal::IssuerUnknown) => Some(alert::UNKNOWN_CA),
            Self::PeerUntrusted(
                Refusal::AlgorithmUnsupported
                | Refusal::RsaUnsupported
                | Refusal::ServerKeyUnsupported,
            ) => Some(alert::UNSUPPORTED_CERTIFICATE),
            Self::PeerUntrusted(_) => Some(alert::BAD_CERTIFICATE),
            Self::LocalCertificateTooLong { .. }
            | Self::LocalKey(_)
            | Self::PeerAlert { .. }
            | Self::PeerEnded
            | Self::Transport(_) => None,
        }
    }
}

/// Alerts, RFC 8446 §6.
mod alert {
    pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(super) const RECORD_OVERFLOW: u8 = 22;
    pub(super) const HANDSHAKE_FAILURE: u8 = 40;
    pub(super) const BAD_CERTIFICATE: u8 = 42;
    pub(super) const UNSUPPORTED_CERTIFICATE: u8 = 43;
    pub(super) const CERTIFICATE_EXPIRED: u8 = 45;
    pub(super) const UNKNOWN_CA: u8 = 48;
    pub(super) const DECRYPT_ERROR: u8 = 51;
}

/// What the machine is told. An alert is hearsay (`docs/design/lifecycle.md`), and after the
/// handshake there is nothing else that it could be about but our certificate.
impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::LocalCertificateTooLong { .. } => Self::KeyUnavailable,
            TlsError::LocalKey(fault) => fault.into(),
            TlsError::PeerAlert { description: None } => Self::OurIdentityRefused,
            TlsError::PeerAlert { description: Some(_) }
            | TlsError::PeerEnded
            | TlsError::PeerProtocol
            | TlsError::PeerRecord(_)
            | TlsError::Transport(_) => Self::Unreachable,
            TlsError::PeerSignature | TlsError::PeerUnproven | TlsError::PeerUntrusted(_) => {
                Self::ServerUntrusted
            }
        }
    }
}

impl embedded_io::Error for TlsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::LocalCertificateTooLong { .. } => ErrorKind::InvalidInput,
            Self::LocalKey(_) => ErrorKind::Other,
            Self::PeerAlert { .. } => ErrorKind::ConnectionReset,
            Self::PeerEnded => ErrorKind::ConnectionAborted,
            Self::PeerProtocol | Self::PeerRecord(_) => ErrorKind::InvalidData,
            Self::PeerSignature | Self::PeerUnproven | Self::PeerUntrusted(_) => {
                ErrorKind::PermissionDenied
            }
            Self::Transport(kind) => *kind,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::PeerUntrusted(refusal) = self {
            return refusal.fmt(f);
        }
        show_code(f, "tls", self.code())?;
        match self {
            Self::PeerAlert { description: Some(number) }
            | Self::PeerRecord(RecordFault::Unexpected { kind: number }) => write!(f, " {number}"),
            Self::LocalCertificateTooLong { found }
            | Self::PeerRecord(RecordFault::TooLong { found }) => write!(f, " {found}"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for TlsError {}
