//! Why a server is not believed, and why an anchor is none.

use core::fmt;

use crate::console::show_code;
use fleetcert_core::event::Failure;
use fleetcert_core::time::Wall;
use fleetcert_core::time::server::TimeFault;

/// Why a server's chain was refused. Each cause has a stable name: [`Refusal::code`]. One octet,
/// since it goes through whatever uses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A certificate is signed with another algorithm than ECDSA on P-256 with SHA-256.
    AlgorithmUnsupported,
    /// The server's certificate is one of an authority.
    AuthorityAsServer,
    /// There are more certificates than a chain has: [`CERTIFICATES_MAX`](super::CERTIFICATES_MAX).
    ChainTooLong,
    /// The certificates are larger than a chain is: [`CHAIN_LEN_MAX`](super::CHAIN_LEN_MAX) octets.
    ChainTooLarge,
    /// A certificate has a critical extension that nobody here understands.
    CriticalExtensionUnknown,
    /// A certificate is over.
    Expired,
    /// The extensions are no list of RFC 5280: empty, one of them twice, or one malformed.
    ExtensionsMalformed,
    /// A certificate that signed another one is not an authority's.
    IssuerNotAuthority,
    /// No signature leads to a pinned root.
    IssuerUnknown,
    /// The key usage of an issuer does not allow to sign certificates, or is missing.
    KeyUsageIssuer,
    /// The key usage of the server does not allow to sign a handshake, or allows what only an
    /// authority may.
    KeyUsageServer,
    /// A certificate is not DER, or not X.509.
    Malformed,
    /// An authority may not certify the server's names.
    NameConstraint,
    /// The certificate is for another server.
    NameMismatch,
    /// A certificate is not valid yet.
    NotYetValid,
    /// There are more authorities in the chain than one of them allows.
    PathTooLong,
    /// A certificate is signed with RSA, or its key is one.
    RsaUnsupported,
    /// The extended key usage does not say `serverAuth`.
    ServerAuthMissing,
    /// The server's key is not an uncompressed point on P-256.
    ServerKeyUnsupported,
    /// A signature is not that of the issuer.
    SignatureInvalid,
    /// To try every path would take more verifications than a chain is worth:
    /// [`SIGNATURES_MAX`](super::SIGNATURES_MAX).
    SignaturesTooMany,
    /// The server sent no certificate.
    Unsent,
    /// A validity ends before it begins.
    ValidityInverted,
    /// A certificate is not of version 3.
    VersionUnsupported,
}

/// A refusal, and what it is about where that is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) overstepped: Option<Overstepped>,
}

/// A limit of time, and the time that was not within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overstepped {
    /// The last second of a certificate, or its first.
    pub(super) limit: Wall,
    /// When it was verified.
    pub(super) time: Wall,
}

/// Why there is no verifier: what we were configured with is no root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorError {
    /// An anchor's key is not an uncompressed point on P-256: nothing it signs can be verified.
    KeyUnsupported {
        /// Which one, from 0.
        index: usize,
    },
    /// An anchor is no certificate.
    Malformed {
        /// Which one, from 0.
        index: usize,
    },
    /// There is none, so no server could ever be believed.
    Missing,
    /// There are too many.
    TooMany {
        /// How many were given.
        found: usize,
        /// How many may be.
        max: usize,
    },
}

impl Refusal {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlgorithmUnsupported => "algorithm-unsupported",
            Self::AuthorityAsServer => "authority-as-server",
            Self::ChainTooLong => "chain-too-long",
            Self::ChainTooLarge => "chain-too-large",
            Self::CriticalExtensionUnknown => "critical-extension-unknown",
            Self::Expired => "expired",
            Self::ExtensionsMalformed => "extensions-malformed",
            Self::IssuerNotAuthority => "issuer-not-authority",
            Self::IssuerUnknown => "issuer-unknown",
            Self::KeyUsageIssuer => "key-usage-issuer",
            Self::KeyUsageServer => "key-usage-server",
            Self::Malformed => "malformed",
            Self::NameConstraint => "name-constraint",
            Self::NameMismatch => "name-mismatch",
            Self::NotYetValid => "not-yet-valid",
            Self::PathTooLong => "path-too-long",
            Self::RsaUnsupported => "rsa-unsupported",
            Self::ServerAuthMissing => "server-auth-missing",
            Self::ServerKeyUnsupported => "server-key-unsupported",
            Self::SignatureInvalid => "signature-invalid",
            Self::SignaturesTooMany => "signatures-too-many",
            Self::Unsent => "unsent",
            Self::ValidityInverted => "validity-inverted",
            Self::VersionUnsupported => "version-unsupported",
        }
    }
}

impl Refused {
    /// What time has to do with it.
    pub(super) const fn time_fault(&self) -> TimeFault {
        match self {
            Self { refusal: Refusal::Expired, .. } => TimeFault::Other,
            Self {
                refusal: Refusal::NotYetValid,
                overstepped: Some(Overstepped { limit, .. }),
            } => TimeFault::Begins(*limit),
            _ => TimeFault::None,
        }
    }
}

/// What the machine is told.
impl From<Refusal> for Failure {
    fn from(_: Refusal) -> Self {
        Self::ServerUntrusted
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, overstepped: None }
    }
}

impl From<webpki::Error> for Refused {
    fn from(error: webpki::Error) -> Self {
        let overstepped = match error {
            webpki::Error::CertExpired { time, not_after: limit }
            | webpki::Error::CertNotValidYet { time, not_before: limit } => {
                Some(Overstepped { limit: Wall(limit.as_secs()), time: Wall(time.as_secs()) })
            }
            _ => None,
        };
        Self { refusal: error.into(), overstepped }
    }
}

/// webpki's words. What only its own limits can say (it allows more than we do) ends with "too
/// many".
impl From<webpki::Error> for Refusal {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error as E;
        match error {
            E::CaUsedAsEndEntity => Self::AuthorityAsServer,
            E::CertExpired { .. } => Self::Expired,
            E::CertNotValidForName(_) => Self::NameMismatch,
            E::CertNotValidYet { .. } => Self::NotYetValid,
            E::EmptyEkuExtension | E::ExtensionValueInvalid | E::MalformedExtensions => {
                Self::ExtensionsMalformed
            }
            E::EndEntityUsedAsCa => Self::IssuerNotAuthority,
            E::InvalidCertValidity => Self::ValidityInverted,
            E::InvalidNetworkMaskConstraint
            | E::MalformedNameConstraint
            | E::MaximumNameConstraintComparisonsExceeded
            | E::NameConstraintViolation => Self::NameConstraint,
            E::InvalidSignatureForPublicKey => Self::SignatureInvalid,
            E::MaximumPathBuildCallsExceeded | E::MaximumSignatureChecksExceeded => {
                Self::SignaturesTooMany
            }
            E::MaximumPathDepthExceeded | E::PathLenConstraintViolated => Self::PathTooLong,
            E::RequiredEkuNotFoundContext(_) => Self::ServerAuthMissing,
            E::UnknownIssuer => Self::IssuerUnknown,
            E::UnsupportedCertVersion => Self::VersionUnsupported,
            E::UnsupportedCriticalExtension => Self::CriticalExtensionUnknown,
            E::SignatureAlgorithmMismatch
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::AlgorithmUnsupported,
            _ => Self::Malformed,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "tls", self.code())
    }
}

impl fmt::Display for Overstepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, time } = self;
        write!(f, "{limit} at {time}")
    }
}

impl AnchorError {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KeyUnsupported { .. } => "anchor-key-unsupported",
            Self::Malformed { .. } => "anchor-malformed",
            Self::Missing => "anchor-missing",
            Self::TooMany { .. } => "anchors-too-many",
        }
    }
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "tls", self.code())
    }
}

impl core::error::Error for Refusal {}
impl core::error::Error for AnchorError {}

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;

    use super::*;

    /// Goal: a refusal that another instant may change is told from those that none does.
    #[test]
    fn faults_of_time_are_told_from_others() {
        use webpki::Error as E;
        let at = |seconds| UnixTime::since_unix_epoch(core::time::Duration::from_secs(seconds));
        let (time, limit) = (at(5), Some(Overstepped { limit: Wall(7), time: Wall(5) }));
        for (error, refusal, overstepped, fault) in [
            (E::CertExpired { time, not_after: at(7) }, Refusal::Expired, limit, TimeFault::Other),
            (
                E::CertNotValidYet { time, not_before: at(7) },
                Refusal::NotYetValid,
                limit,
                TimeFault::Begins(Wall(7)),
            ),
            (E::UnknownIssuer, Refusal::IssuerUnknown, None, TimeFault::None),
            (E::InvalidCertValidity, Refusal::ValidityInverted, None, TimeFault::None),
        ] {
            let refused = Refused::from(error);
            assert_eq!(refused, Refused { refusal, overstepped });
            assert_eq!(refused.time_fault(), fault, "{refusal}");
        }
    }

    /// Goal: who reads that a certificate is over reads by which clock.
    #[test]
    fn a_limit_of_time_is_told_with_the_time() {
        assert_eq!(
            std::format!("{}", Overstepped { limit: Wall(3), time: Wall(5) }),
            "1970-01-01T00:00:03Z at 1970-01-01T00:00:05Z"
        );
        assert_eq!(std::format!("{}", Refusal::Unsent), "tls.unsent");
    }
}
