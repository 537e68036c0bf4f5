//! The statement in a request: an attribute of draft-ietf-lamps-csr-attestation.

use der::asn1::ObjectIdentifier;
use fleetcert_core::est::evidence::TCG_ATTEST_TPM_CERTIFY;

use super::error::StatementError;
use crate::authority::der::{OCTET_STRING, OID, SEQUENCE, content, elements, split_element};

/// Octets of the attribute's values, at most: a public area, a statement and a signature of the
/// longest keys, and their framing. With P-256 keys it is about 350.
pub const STATEMENT_LEN_MAX: usize = 2304;

/// What a device brings for its key: three structures of the TPM, octet for octet.
#[doc(alias = "Tcg-attest-tpm-certify")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// A `TPMS_ATTEST`: what the TPM states.
    pub attest: Vec<u8>,
    /// A `TPMT_SIGNATURE`: that the attestation key signed it.
    pub signature: Vec<u8>,
    /// A `TPMT_PUBLIC`: the key that it is about.
    pub public: Vec<u8>,
}

impl Statement {
    /// Reads the values of the attribute `id-aa-attestation`: the content of their SET, which has
    /// to be one `AttestationBundle` of one `tcg-attest-tpm-certify` and no certificates.
    ///
    /// # Errors
    ///
    /// [`StatementError`].
    pub fn from_attribute_values(values: &[u8]) -> Result<Self, StatementError> {
        if values.len() > STATEMENT_LEN_MAX {
            return Err(StatementError::TooLong { found: values.len() });
        }
        let bundle = only(elements(values))?;
        let statements = content(SEQUENCE, bundle).and_then(|bundle| content(SEQUENCE, bundle));
        let statement = only(statements.and_then(elements))?;
        let (found, parts) = typed(statement).ok_or(StatementError::Malformed)?;
        if found != TCG_ATTEST_TPM_CERTIFY {
            return Err(StatementError::Type { found });
        }
        Self::from_parts(parts).ok_or(StatementError::Malformed)
    }

    fn from_parts(parts: &[u8]) -> Option<Self> {
        let [attest, signature, public] = elements(content(SEQUENCE, parts)?)?[..] else {
            return None;
        };
        let octets = |part| content(OCTET_STRING, part).map(<[u8]>::to_vec);
        Some(Self {
            attest: octets(attest)?,
            signature: octets(signature)?,
            public: octets(public)?,
        })
    }
}

/// The one element there has to be.
fn only(elements: Option<Vec<&[u8]>>) -> Result<&[u8], StatementError> {
    match elements.ok_or(StatementError::Malformed)?[..] {
        [] => Err(StatementError::Empty),
        [element] => Ok(element),
        ref several => Err(StatementError::Several { found: several.len() }),
    }
}

/// The type of an `AttestationStatement`, and the element behind it.
fn typed(statement: &[u8]) -> Option<(ObjectIdentifier, &[u8])> {
    let (oid, parts) = split_element(content(SEQUENCE, statement)?)?;
    Some((ObjectIdentifier::from_bytes(content(OID, oid)?).ok()?, parts))
}
