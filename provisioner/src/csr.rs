//! Certification requests (PKCS#10, RFC 2986): a proof that somebody holds a private key.
//!
//! **What it is.** From a request we take the public key, once its own signature has proven
//! possession, and the names it asks for, to compare them with the authenticated identity.
//!
//! **What it must never do.** Put anything else of a request into a certificate. A request that
//! asks to be a CA or for another's name is refused, though it would be ignored: who sends it is
//! broken or hostile, and a person should hear of it.
//!
//! **Why that is sound.** The signature is checked over the octets as they came before any name or
//! attribute is looked at; what follows reads slices and compares.

use crate::authority::PublicKey;

/// Octets of a request, at most: one with TPM evidence has about three thousand.
pub const CSR_LEN_MAX: usize = 8 * 1024;

/// A request whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    key: PublicKey,
    subject: Vec<u8>,
    common_name: Option<String>,
    san: Option<Vec<u8>>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CsrError {
    /// It asks for a certificate of an authority (basicConstraints CA:TRUE).
    AsksCa,
    /// Its subject has more than one common name.
    CommonNames {
        /// How many it has.
        found: usize,
    },
    /// Its public key is of a kind that we do not certify.
    Key {
        /// What it is, as far as we know it.
        found: KeyKind,
    },
    /// It is no DER of a request, or something follows it.
    Malformed,
    /// Its signature is not by its key: no possession is proven.
    Signature,
    /// It is longer than [`CSR_LEN_MAX`].
    TooLong {
        /// Its length, octets.
        found_len: usize,
    },
}

/// Kinds of public key that a request may bring and we refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// An elliptic curve other than P-256, or explicit parameters.
    OtherCurve,
    /// Ed25519 or Ed448.
    Edwards,
    /// RSA of any length.
    Rsa,
    /// Anything else.
    Unknown,
    /// P-256, but not an uncompressed point.
    Point,
}

impl Csr {
    /// Reads a request and verifies its signature.
    ///
    /// # Errors
    ///
    /// [`CsrError`], the signature before everything that the request says.
    pub fn verify(der: &[u8]) -> Result<Self, CsrError> {
        todo!()
    }

    /// The key whose possession is proven.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The common name of the subject, if it has one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}
