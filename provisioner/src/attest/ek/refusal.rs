//! Every way in which a chain of endorsement certificates is refused, each with a code of its own.

use std::fmt;

use der::asn1::ObjectIdentifier;
use fleetcert_core::time::Wall;

use super::{CERTIFICATES_LEN_MAX, CERTIFICATES_MAX, CHAIN_LEN_MAX, SIGNATURES_MAX};
use crate::attest::{model::ModelError, spki::KeyError};

/// Why a chain of endorsement certificates is refused.
///
/// Where the fault is one of an issuer, `issuer` is that issuer's name as text (RFC 4514), made
/// safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EkError {
    /// It is signed by an algorithm that we do not take (SHA-1, unusual PSS parameters), or by one
    /// that is not for the issuer's key.
    Algorithm {
        /// The algorithm.
        found: ObjectIdentifier,
    },
    /// A critical extension says something that nobody here understands.
    CriticalExtension {
        /// Which.
        extension: ObjectIdentifier,
    },
    /// The leaf has expired.
    Expired {
        /// Its last second of validity.
        not_after: Wall,
        /// What time it is.
        now: Wall,
    },
    /// A certificate cannot be read.
    Flaw {
        /// Which, counted from the leaf, which is 0.
        at: usize,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The leaf is that of a certificate authority.
    IsCa,
    /// An issuer has expired.
    IssuerExpired {
        /// Which.
        issuer: String,
        /// Its last second of validity.
        not_after: Wall,
        /// What time it is.
        now: Wall,
    },
    /// An issuer's key is of a kind that we do not take.
    IssuerKeyKind {
        /// Which.
        issuer: String,
        /// What is wrong with its key.
        found: KeyError,
    },
    /// An issuer is no certificate authority (basicConstraints).
    IssuerNotCa {
        /// Which.
        issuer: String,
    },
    /// An issuer is not valid yet.
    IssuerNotYetValid {
        /// Which.
        issuer: String,
        /// Its first second of validity.
        not_before: Wall,
        /// What time it is.
        now: Wall,
    },
    /// An issuer may not sign certificates (keyUsage), or none of endorsement keys (extKeyUsage).
    IssuerUsage {
        /// Which.
        issuer: String,
    },
    /// The leaf's key is of a kind that we do not take.
    KeyKind {
        /// What is wrong with it.
        found: KeyError,
    },
    /// The leaf's keyUsage does not let its key decrypt: neither keyEncipherment (RSA) nor
    /// keyAgreement (EC).
    KeyUsage,
    /// There is no certificate.
    Missing,
    /// The leaf does not say what TPM it is for.
    Model(ModelError),
    /// The leaf is not valid yet.
    NotYetValid {
        /// Its first second of validity.
        not_before: Wall,
        /// What time it is.
        now: Wall,
    },
    /// More certificates follow an issuer than its pathLenConstraint admits.
    PathLength {
        /// Which.
        issuer: String,
        /// Certificates of authorities between the issuer and the leaf.
        found: usize,
        /// What it admits.
        max: u8,
    },
    /// A signature is not by the issuer that the certificate names.
    Signature {
        /// Which.
        issuer: String,
    },
    /// The chain is longer than [`CHAIN_LEN_MAX`].
    TooDeep,
    /// The certificates are longer than [`CERTIFICATES_LEN_MAX`].
    TooLong {
        /// Their length, octets.
        found_len: usize,
    },
    /// There are more certificates than [`CERTIFICATES_MAX`].
    TooMany,
    /// The certificates look so much alike that [`SIGNATURES_MAX`] checks did not tell the chain.
    TooManySignatures,
    /// The chain ends at an issuer that is no configured root.
    UnknownRoot {
        /// Which.
        issuer: String,
    },
    /// The leaf is not for an endorsement key: extKeyUsage lacks tcg-kp-EKCertificate.
    Usage,
}

/// Why a certificate cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A SEQUENCE or SET is empty where RFC 5280 wants at least one element.
    EmptySequence {
        /// Which.
        field: &'static str,
    },
    /// Its issuer has no name (RFC 5280 §4.1.2.4).
    IssuerName,
    /// It is no DER of an X.509 certificate of version 3, or not alone.
    Malformed,
    /// An extension is there more than once (RFC 5280 §4.2).
    RepeatedExtension {
        /// Which.
        extension: ObjectIdentifier,
    },
}

impl EkError {
    /// The reason code: `[a-z0-9-]`, 1 to 32 of them.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Algorithm { .. } => "ek-algorithm",
            Self::CriticalExtension { .. } => "ek-critical-extension",
            Self::Expired { .. } => "ek-expired",
            Self::Flaw { flaw, .. } => flaw.code(),
            Self::IsCa => "ek-is-ca",
            Self::IssuerExpired { .. } => "ek-issuer-expired",
            Self::IssuerKeyKind { .. } => "ek-issuer-key-kind",
            Self::IssuerNotCa { .. } => "ek-issuer-not-ca",
            Self::IssuerNotYetValid { .. } => "ek-issuer-not-yet-valid",
            Self::IssuerUsage { .. } => "ek-issuer-usage",
            Self::KeyKind { .. } => "ek-key-kind",
            Self::KeyUsage => "ek-key-usage",
            Self::Missing => "ek-missing",
            Self::Model(_) => "ek-model",
            Self::NotYetValid { .. } => "ek-not-yet-valid",
            Self::PathLength { .. } => "ek-path-length",
            Self::Signature { .. } => "ek-signature",
            Self::TooDeep => "ek-too-deep",
            Self::TooLong { .. } => "ek-too-long",
            Self::TooMany => "ek-too-many",
            Self::TooManySignatures => "ek-too-many-signatures",
            Self::UnknownRoot { .. } => "ek-unknown-root",
            Self::Usage => "ek-usage",
        }
    }
}

impl Flaw {
    /// The reason code: `[a-z0-9-]`, 1 to 32 of them.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmptySequence { .. } => "ek-empty-sequence",
            Self::IssuerName => "ek-name",
            Self::Malformed => "ek-certificate-malformed",
            Self::RepeatedExtension { .. } => "ek-repeated-extension",
        }
    }
}

impl fmt::Display for EkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm { found } => write!(
                f,
                "an EK certificate is signed by {found} or with unusual parameters, expected RSA \
                 or ECDSA as its issuer's key is, with SHA-256, SHA-384 or SHA-512"
            ),
            Self::CriticalExtension { extension } => write!(
                f,
                "an EK certificate has the critical extension {extension}, which is not understood"
            ),
            Self::Expired { not_after, now } => {
                write!(f, "the EK certificate expired at {not_after}, it is {now}")
            }
            Self::Flaw { at, flaw } => write!(f, "EK certificate {at} of the chain: {flaw}"),
            Self::IsCa => f.write_str("the EK certificate is that of a certificate authority"),
            Self::KeyKind { found } => write!(f, "the EK certificate's key: {found}"),
            Self::KeyUsage => f.write_str(
                "the EK certificate's keyUsage lacks keyEncipherment (RSA) or keyAgreement (EC)",
            ),
            Self::Missing => f.write_str("the device sent no EK certificate"),
            Self::Model(error) => write!(f, "the EK certificate does not name its TPM: {error}"),
            Self::NotYetValid { not_before, now } => {
                write!(f, "the EK certificate is valid from {not_before}, it is {now}")
            }
            Self::TooDeep => {
                write!(f, "the EK certificate's chain has more than {CHAIN_LEN_MAX} certificates")
            }
            Self::TooLong { found_len } => write!(
                f,
                "the EK certificates have {found_len} octets, at most {CERTIFICATES_LEN_MAX} may be"
            ),
            Self::TooMany => {
                write!(f, "the device sent more than {CERTIFICATES_MAX} EK certificates")
            }
            Self::TooManySignatures => write!(
                f,
                "no chain was found with {SIGNATURES_MAX} signatures checked: the EK certificates \
                 look too much alike"
            ),
            Self::UnknownRoot { issuer } => write!(
                f,
                "the EK certificate's chain ends at {issuer}, which is no trusted EK root"
            ),
            Self::Usage => f.write_str(
                "the EK certificate's extKeyUsage lacks 2.23.133.8.1 (tcg-kp-EKCertificate)",
            ),
            _ => self.write_issuers_fault(f),
        }
    }
}

impl EkError {
    /// What is wrong with an issuer, or between one and what it issued.
    fn write_issuers_fault(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IssuerExpired { issuer, not_after, now } => {
                write!(f, "the EK issuer {issuer} expired at {not_after}, it is {now}")
            }
            Self::IssuerKeyKind { issuer, found } => {
                write!(f, "the EK issuer {issuer} has a key that is not taken: {found}")
            }
            Self::IssuerNotCa { issuer } => {
                write!(f, "the EK issuer {issuer} is no certificate authority")
            }
            Self::IssuerNotYetValid { issuer, not_before, now } => {
                write!(f, "the EK issuer {issuer} is valid from {not_before}, it is {now}")
            }
            Self::IssuerUsage { issuer } => {
                write!(f, "the EK issuer {issuer} may not sign EK certificates")
            }
            Self::PathLength { issuer, found, max } => write!(
                f,
                "below the EK issuer {issuer} are {found} other authorities, it admits {max}"
            ),
            Self::Signature { issuer } => {
                write!(f, "an EK certificate names {issuer} and is not signed by it")
            }
            _ => f.write_str(self.code()),
        }
    }
}

impl std::error::Error for EkError {}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptySequence { field } => {
                write!(f, "its {field} is empty, at least one element has to be there")
            }
            Self::IssuerName => f.write_str("its issuer has no name"),
            Self::Malformed => f.write_str("it is no X.509 certificate (version 3) in DER"),
            Self::RepeatedExtension { extension } => {
                write!(f, "its extension {extension} is there more than once")
            }
        }
    }
}

impl std::error::Error for Flaw {}
