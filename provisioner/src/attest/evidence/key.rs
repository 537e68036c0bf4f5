//! What each of the three keys of an attestation has to be.

use fleetcert_tpm::{
    hash::HashAlg,
    name::Name,
    public::{self, AesKey, Attributes, CurveId, PublicArea, Scheme},
};

use super::{
    error::{EvidenceError, KeyFault, Requirement},
    signature::{self, SignatureScheme},
};
use crate::attest::{
    EkId,
    spki::{Curve, Key},
};

/// A key that decrypts for its TPM and nothing else. TCG EK Credential Profile §2.1.5, template
/// attributes; whether it signs makes the difference between a credential and a forged statement.
const ENDORSEMENT_KEY: [Requirement; 8] = [
    Requirement::FixedTpm,
    Requirement::FixedParent,
    Requirement::SensitiveDataOrigin,
    Requirement::AdminWithPolicy,
    Requirement::Restricted,
    Requirement::Decrypt,
    Requirement::NoSign,
    Requirement::NoEncryptedDuplication,
];

/// A key that signs what its TPM states, and nothing that is made elsewhere to look like it.
const ATTESTATION_KEY: [Requirement; 7] = [
    Requirement::Sign,
    Requirement::Restricted,
    Requirement::FixedTpm,
    Requirement::FixedParent,
    Requirement::SensitiveDataOrigin,
    Requirement::NoDecrypt,
    Requirement::NoEncryptedDuplication,
];

/// A key that signs in TLS, and was never anywhere but in its TPM.
const DEVICE_KEY: [Requirement; 6] = [
    Requirement::Sign,
    Requirement::NoRestricted,
    Requirement::NoDecrypt,
    Requirement::FixedTpm,
    Requirement::FixedParent,
    Requirement::SensitiveDataOrigin,
];

/// The key by which a TPM is known, as far as its public area tells: whether it is a genuine
/// TPM's, a certificate or an allow-list has to say of its [`EkId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementKey {
    key: Key,
    name_alg: HashAlg,
    aes: AesKey,
}

/// The key with which a TPM signs what it states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationKey {
    name: Name,
    key: Key,
    scheme: SignatureScheme,
}

/// Reads and judges the public area (`TPMT_PUBLIC`) of an endorsement key.
///
/// # Errors
///
/// [`EvidenceError::EndorsementKey`].
pub fn endorsement_key(area: &[u8]) -> Result<EndorsementKey, EvidenceError> {
    EndorsementKey::from_area(area).map_err(EvidenceError::EndorsementKey)
}

/// Reads and judges the public area (`TPMT_PUBLIC`) of an attestation key.
///
/// # Errors
///
/// [`EvidenceError::AttestationKey`].
pub fn attestation_key(area: &[u8]) -> Result<AttestationKey, EvidenceError> {
    AttestationKey::from_area(area).map_err(EvidenceError::AttestationKey)
}

impl EndorsementKey {
    fn from_area(area: &[u8]) -> Result<Self, KeyFault> {
        let area = PublicArea::parse(area).map_err(KeyFault::Area)?;
        require(&ENDORSEMENT_KEY, area.attributes)?;
        check_free_scheme(area.key.scheme())?;
        let found = area.key.symmetric();
        let aes = found.aes_cfb().ok_or(KeyFault::Symmetric { found })?;
        Ok(Self { key: numbers(&area)?, name_alg: area.name_alg, aes })
    }

    /// Its `SubjectPublicKeyInfo`, DER, in the one form that its [`EkId`] is computed from.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.spki_der()
    }

    /// Under which name it is listed and bound.
    #[must_use]
    pub fn id(&self) -> EkId {
        self.key.ek_id()
    }

    /// The numbers.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The algorithm of its Name, and of what is derived for it.
    #[must_use]
    pub const fn name_alg(&self) -> HashAlg {
        self.name_alg
    }

    /// What it protects its credentials by.
    #[must_use]
    pub const fn aes(&self) -> AesKey {
        self.aes
    }
}

impl AttestationKey {
    fn from_area(area: &[u8]) -> Result<Self, KeyFault> {
        let area = PublicArea::parse(area).map_err(KeyFault::Area)?;
        require(&ATTESTATION_KEY, area.attributes)?;
        let scheme = SignatureScheme::of(&area.key)?;
        Ok(Self { name: *area.name(), key: numbers(&area)?, scheme })
    }

    /// Its Name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Its `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.spki_der()
    }

    /// Verifies a signature (`TPMT_SIGNATURE`) over `message` in the key's own scheme.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`]: one of those of a signature.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), EvidenceError> {
        signature::verify(&self.key, self.scheme, message, signature)
    }
}

/// Judges a device key and gives its numbers: P-256, ECDSA with SHA-256 and nothing else, which is
/// what its certificate is for.
pub(super) fn device_key(area: &PublicArea<'_>) -> Result<Key, KeyFault> {
    require(&DEVICE_KEY, area.attributes)?;
    let public::Key::Ecc { curve, scheme, .. } = area.key else { return Err(KeyFault::Type) };
    check_p256(curve)?;
    check_ecdsa_sha256(scheme)?;
    numbers(area)
}

/// Every attribute as it has to be.
fn require(requirements: &[Requirement], attributes: Attributes) -> Result<(), KeyFault> {
    let unmet = requirements.iter().find(|requirement| {
        let (attribute, wanted) = requirement.attribute();
        attributes.has(attribute) != wanted
    });
    unmet.map_or(Ok(()), |requirement| Err(KeyFault::Requirement(*requirement)))
}

/// A restricted decryption key has no scheme of its own. TPM 2.0 Part 1 §25.1.5.
fn check_free_scheme(found: Scheme) -> Result<(), KeyFault> {
    if found == Scheme::Null { Ok(()) } else { Err(KeyFault::Scheme { found }) }
}

fn check_p256(found: CurveId) -> Result<(), KeyFault> {
    if found == CurveId::P256 { Ok(()) } else { Err(KeyFault::Curve { found }) }
}

fn check_ecdsa_sha256(found: Scheme) -> Result<(), KeyFault> {
    match found {
        Scheme::Ecdsa(hash) if hash.alg() == Some(HashAlg::Sha256) => Ok(()),
        Scheme::Ecdsa(found) => Err(KeyFault::Hash { found }),
        found => Err(KeyFault::Scheme { found }),
    }
}

/// The numbers of a key: P-256, P-384, P-521, RSA-2048, RSA-3072 or RSA-4096.
fn numbers(area: &PublicArea<'_>) -> Result<Key, KeyFault> {
    match area.key {
        public::Key::Ecc { curve, x, y, .. } => Key::ec(known_curve(curve)?, x, y),
        public::Key::Rsa { modulus, exponent, .. } => Key::rsa(modulus, exponent),
    }
    .map_err(KeyFault::Key)
}

const fn known_curve(found: CurveId) -> Result<Curve, KeyFault> {
    match found {
        CurveId::P256 => Ok(Curve::P256),
        CurveId::P384 => Ok(Curve::P384),
        CurveId::P521 => Ok(Curve::P521),
        found => Err(KeyFault::Curve { found }),
    }
}
