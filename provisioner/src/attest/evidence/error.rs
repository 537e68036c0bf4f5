//! Every way in which evidence is refused, each with a code of its own.

use std::fmt;

use der::asn1::ObjectIdentifier;
use fleetcert_tpm::{
    attest::AttestError,
    name::{Name, NameError},
    public::{Attribute, CurveId, HashId, PublicAreaError, Scheme, Symmetric},
    reader::Framing,
    signature::SignatureError,
};

use super::statement::STATEMENT_LEN_MAX;
use crate::attest::spki::KeyError;

/// Why evidence is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvidenceError {
    /// What should be a TPM's statement is none.
    Attest(AttestError),
    /// The statement is of another kind.
    AttestType {
        /// The identifier of its kind.
        found: u16,
        /// The identifier of `TPM2_Certify`.
        expected: u16,
    },
    /// The attestation key is not one.
    AttestationKey(KeyFault),
    /// The device key is not one.
    DeviceKey(KeyFault),
    /// The endorsement key is not one.
    EndorsementKey(KeyFault),
    /// The statement is about another key than the one that came with it.
    Name {
        /// The Name in the statement.
        certified: Vec<u8>,
        /// The Name of the key that came.
        computed: Name,
    },
    /// The statement was made for another challenge or another request, or without the
    /// credential's secret.
    QualifyingData,
    /// The request is for another key than the one that is proven.
    RequestKey,
    /// What should be a signature is none.
    Signature(SignatureError),
    /// A number of the signature is zero, or not less than the order of the curve.
    SignatureRange {
        /// Which one.
        number: Number,
    },
    /// The signature is in another scheme or over another hash than its key's.
    SignatureScheme {
        /// The key's.
        expected: Scheme,
        /// The signature's.
        found: Scheme,
    },
    /// The signature is not by the attestation key over this statement.
    SignatureWrong,
    /// The attribute of the request holds no statement.
    Statement(StatementError),
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Its public area is none, or has no Name for us.
    Area(PublicAreaError),
    /// It is on a curve that is not allowed.
    Curve {
        /// Which.
        found: CurveId,
    },
    /// Its scheme hashes with an algorithm that is too weak, or not allowed.
    Hash {
        /// Which.
        found: HashId,
    },
    /// Its numbers are not those of a key of allowed length.
    Key(KeyError),
    /// An attribute is not as it has to be.
    Requirement(Requirement),
    /// Its scheme is not fixed, or not one that such a key may have.
    Scheme {
        /// Which it has.
        found: Scheme,
    },
    /// It protects what it protects by something else than AES-128 or AES-256 in CFB mode.
    Symmetric {
        /// By what.
        found: Symmetric,
    },
    /// It is an RSA key where an elliptic curve key is wanted.
    Type,
}

/// What an attribute of a key has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Its own policy guards its administration.
    AdminWithPolicy,
    /// It decrypts.
    Decrypt,
    /// It can never get another parent.
    FixedParent,
    /// It can never leave its TPM.
    FixedTpm,
    /// It does not decrypt.
    NoDecrypt,
    /// It is not made to be duplicated.
    NoEncryptedDuplication,
    /// It signs what it is given.
    NoRestricted,
    /// It does not sign.
    NoSign,
    /// It works on structures of the TPM only.
    Restricted,
    /// The TPM made its private part.
    SensitiveDataOrigin,
    /// It signs.
    Sign,
}

/// A number of an ECDSA signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// The first one.
    R,
    /// The second one.
    S,
}

/// Why the attribute of a request holds no statement that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementError {
    /// It holds none at all.
    Empty,
    /// It is no DER of an `AttestationBundle` with one `tcg-attest-tpm-certify`, or something
    /// follows it.
    Malformed,
    /// It holds more than one value, or more than one statement.
    Several {
        /// How many.
        found: usize,
    },
    /// It is longer than [`STATEMENT_LEN_MAX`].
    TooLong {
        /// Its length, octets.
        found: usize,
    },
    /// It holds a statement of another type.
    Type {
        /// Which.
        found: ObjectIdentifier,
    },
}

/// The code of a fault: that of the key's role, and that of the fault.
macro_rules! key_code {
    ($role:literal, $fault:expr) => {
        match $fault {
            KeyFault::Area(PublicAreaError::Name(NameError::Algorithm { .. })) => {
                concat!($role, "-name-alg")
            }
            KeyFault::Area(_) => concat!($role, "-malformed"),
            KeyFault::Curve { .. } => concat!($role, "-curve"),
            KeyFault::Hash { .. } => concat!($role, "-hash"),
            KeyFault::Key(KeyError::Exponent { .. }) => concat!($role, "-exponent"),
            KeyFault::Key(KeyError::ModulusBits { .. }) => concat!($role, "-size"),
            KeyFault::Key(_) => concat!($role, "-point"),
            KeyFault::Requirement(requirement) => match requirement {
                Requirement::AdminWithPolicy => concat!($role, "-not-admin-with-policy"),
                Requirement::Decrypt => concat!($role, "-not-decrypt"),
                Requirement::FixedParent => concat!($role, "-not-fixed-parent"),
                Requirement::FixedTpm => concat!($role, "-not-fixed-tpm"),
                Requirement::NoDecrypt => concat!($role, "-decrypt"),
                Requirement::NoEncryptedDuplication => concat!($role, "-encrypted-duplication"),
                Requirement::NoRestricted => concat!($role, "-restricted"),
                Requirement::NoSign => concat!($role, "-sign"),
                Requirement::Restricted => concat!($role, "-not-restricted"),
                Requirement::SensitiveDataOrigin => concat!($role, "-not-data-origin"),
                Requirement::Sign => concat!($role, "-not-sign"),
            },
            KeyFault::Scheme { .. } => concat!($role, "-scheme"),
            KeyFault::Symmetric { .. } => concat!($role, "-symmetric"),
            KeyFault::Type => concat!($role, "-type"),
        }
    };
}

impl EvidenceError {
    /// A short stable name for programs, `[a-z0-9-]{1,32}`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Attest(AttestError::Framing(Framing::Trailing { .. })) => "attest-trailing",
            Self::Attest(AttestError::Magic { .. }) => "attest-magic",
            Self::Attest(_) => "attest-malformed",
            Self::AttestType { .. } => "attest-type",
            Self::AttestationKey(fault) => key_code!("ak", fault),
            Self::DeviceKey(fault) => key_code!("key", fault),
            Self::EndorsementKey(fault) => key_code!("ek", fault),
            Self::Name { .. } => "attest-name",
            Self::QualifyingData => "attest-qualifying-data",
            Self::RequestKey => "key-spki",
            Self::Signature(SignatureError::Scheme { .. }) | Self::SignatureScheme { .. } => {
                "signature-scheme"
            }
            Self::Signature(_) => "signature-malformed",
            Self::SignatureRange { number: Number::R } => "signature-r",
            Self::SignatureRange { number: Number::S } => "signature-s",
            Self::SignatureWrong => "signature-wrong",
            Self::Statement(error) => error.code(),
        }
    }
}

impl StatementError {
    const fn code(self) -> &'static str {
        match self {
            Self::Empty => "evidence-empty",
            Self::Malformed => "evidence-malformed",
            Self::Several { .. } => "evidence-several",
            Self::TooLong { .. } => "evidence-too-long",
            Self::Type { .. } => "evidence-type",
        }
    }
}

impl Requirement {
    /// The attribute, and whether it has to be set.
    #[must_use]
    pub const fn attribute(self) -> (Attribute, bool) {
        match self {
            Self::AdminWithPolicy => (Attribute::AdminWithPolicy, true),
            Self::Decrypt => (Attribute::Decrypt, true),
            Self::FixedParent => (Attribute::FixedParent, true),
            Self::FixedTpm => (Attribute::FixedTpm, true),
            Self::NoDecrypt => (Attribute::Decrypt, false),
            Self::NoEncryptedDuplication => (Attribute::EncryptedDuplication, false),
            Self::NoRestricted => (Attribute::Restricted, false),
            Self::NoSign => (Attribute::Sign, false),
            Self::Restricted => (Attribute::Restricted, true),
            Self::SensitiveDataOrigin => (Attribute::SensitiveDataOrigin, true),
            Self::Sign => (Attribute::Sign, true),
        }
    }
}

impl From<StatementError> for EvidenceError {
    fn from(error: StatementError) -> Self {
        Self::Statement(error)
    }
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attest(error) => write!(f, "no statement of a TPM: {error}"),
            Self::AttestType { found, expected } => {
                write!(
                    f,
                    "the statement is of kind {found:#06x}, expected {expected:#06x} (certify)"
                )
            }
            Self::AttestationKey(fault) => write!(f, "attestation key: {fault}"),
            Self::DeviceKey(fault) => write!(f, "device key: {fault}"),
            Self::EndorsementKey(fault) => write!(f, "endorsement key: {fault}"),
            Self::Name { certified, computed } => {
                f.write_str("the statement is about key ")?;
                certified.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
                write!(f, ", the key that came with it is {computed:?}")
            }
            Self::QualifyingData => f.write_str(
                "the statement was not made for this challenge and request with the credential's \
                 secret",
            ),
            Self::RequestKey => {
                f.write_str("the request is for another key than the one that is proven")
            }
            Self::Signature(error) => write!(f, "no signature of a TPM: {error}"),
            Self::SignatureRange { number } => {
                write!(f, "{number} of the signature is not between zero and the curve's order")
            }
            Self::SignatureScheme { expected, found } => {
                write!(f, "the signature is {found:?}, its key makes {expected:?}")
            }
            Self::SignatureWrong => {
                f.write_str("the signature is not by the attestation key over this statement")
            }
            Self::Statement(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EvidenceError {}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Area(error) => write!(f, "no public area: {error}"),
            Self::Curve { found } => write!(f, "curve {:#06x} is not allowed", found.0),
            Self::Hash { found } => write!(f, "hash algorithm {:#06x} is not allowed", found.0),
            Self::Key(error) => error.fmt(f),
            Self::Requirement(requirement) => requirement.fmt(f),
            Self::Scheme { found } => write!(f, "scheme {found:?} is not allowed"),
            Self::Symmetric { found } => {
                write!(f, "{found:?} is neither AES-128 nor AES-256 in CFB mode")
            }
            Self::Type => f.write_str("an RSA key, expected one on an elliptic curve"),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attribute() {
            (attribute, true) => write!(f, "{attribute} is clear, it has to be set"),
            (attribute, false) => write!(f, "{attribute} is set, it has to be clear"),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::R => "r",
            Self::S => "s",
        })
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the evidence holds no statement, expected one"),
            Self::Malformed => {
                f.write_str("the evidence is no DER of a bundle with one statement of TPM2_Certify")
            }
            Self::Several { found } => {
                write!(f, "the evidence holds {found} values or statements, expected one")
            }
            Self::TooLong { found } => {
                write!(f, "evidence of {found} octets, at most {STATEMENT_LEN_MAX}")
            }
            Self::Type { found } => {
                write!(f, "the evidence is a statement of type {found}, expected 2.23.133.20.1")
            }
        }
    }
}

impl std::error::Error for StatementError {}
