//! Prepare, store, sign: in this order, and the types leave no other.
//!
//! [`Authority::prepare`] builds what would be signed and reads it back against the policy. A
//! store takes that [`Prepared`], makes it durable under a serial number that nothing else has,
//! and gives a [`Reserved`] for it. [`Authority::issue`] takes the `Reserved`, by value, and
//! signs. So there is no certificate whose serial the database does not know, whatever dies when.
//!
//! What is stored is the to-be-signed part, not the signature. A device that asks for the same
//! certificate again gets that part signed again: the same serial number, key and dates under
//! another ECDSA signature. That is one certificate to everybody who counts or revokes them, and
//! it costs one write instead of two.

use std::{fmt, net::IpAddr};

use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
};
use rcgen::{
    CertificateParams, CrlDistributionPoint, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm, SigningKey,
};
use time::OffsetDateTime;
use x509_cert::der::{Decode, Encode};

use super::{
    KeyFingerprint, KeyId, Profile, PublicKey, Serial, der, lint,
    profile::{DnsName, Identity, Kind},
};
use crate::store::StoredCertificate;

/// An issuing authority with its private key.
pub struct Authority {
    certificate: Vec<u8>,
    subject: Vec<u8>,
    public_key: PublicKey,
    key_id: KeyId,
    validity: Validity,
    key: KeyPair,
    pub(super) builder: Issuer<'static, Unsigned>,
}

/// A certificate that was built and linted, and that nothing has stored yet. A copy is of no more
/// use than the original: a store reserves each serial number once.
#[derive(Clone, Debug)]
pub struct Prepared {
    tbs: Vec<u8>,
    serial: Serial,
    issuer: KeyId,
    device: Option<DeviceId>,
    key: KeyFingerprint,
    validity: Validity,
}

/// A certificate whose serial number is durable: what may be signed.
#[derive(Debug)]
pub struct Reserved {
    tbs: Vec<u8>,
    serial: Serial,
    issuer: KeyId,
    validity: Validity,
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its DER.
    pub der: Vec<u8>,
    /// Its serial number.
    pub serial: Serial,
    /// Its validity.
    pub validity: Validity,
}

/// Why a certificate and a key are no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// The certificate is no certificate, or not one of a P-256 key with a key identifier.
    Certificate,
    /// The private key is no PKCS#8 P-256 key.
    Key,
    /// The private key is not the certificate's.
    KeyMismatch {
        /// The key that the certificate names.
        certificate: KeyFingerprint,
        /// The key that came with it.
        key: KeyFingerprint,
    },
    /// The certificate is not an issuing authority's: CA:TRUE, pathLen 0, keyCertSign, cRLSign.
    NoAuthority,
}

/// Why a certificate was not prepared or not signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// The certificate would begin before or end after its issuer's.
    AuthorityValidity {
        /// The issuer's.
        authority: Validity,
        /// The certificate's.
        certificate: Validity,
    },
    /// The builder or the signer refused.
    Builder(rcgen::Error),
    /// The profile is not for identities of that kind.
    Kind {
        /// The profile's kind.
        profile: Kind,
    },
    /// What was built is not what the policy says.
    Lint(lint::Finding),
    /// It was prepared by another authority.
    OtherAuthority {
        /// The authority that was asked.
        asked: KeyId,
        /// The authority it names.
        prepared: KeyId,
    },
}

/// The authority's public key in the place of a signer: the builder gets no signature from it,
/// because nothing that a builder has made is to be signed before it was linted and stored.
pub(super) struct Unsigned(PublicKey);

impl Authority {
    /// Takes an issuing authority's certificate and PKCS#8 private key, both DER.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] unless the two belong together and may issue.
    pub fn from_der(certificate: &[u8], pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let parsed = x509_cert::Certificate::from_der(certificate);
        let tbs = parsed.map_err(|_| AuthorityError::Certificate)?.tbs_certificate;
        let spki = tbs.subject_public_key_info.to_der();
        let spki = spki.map_err(|_| AuthorityError::Certificate)?;
        let public_key = PublicKey::from_spki(&spki).map_err(|_| AuthorityError::Certificate)?;
        check_may_issue(&tbs)?;
        let key = KeyPair::try_from(pkcs8).map_err(|_| AuthorityError::Key)?;
        let of_key = PublicKey::from_spki(&key.subject_public_key_info());
        let of_key = of_key.map_err(|_| AuthorityError::Key)?;
        if of_key != public_key {
            let (certificate, key) = (public_key.fingerprint(), of_key.fingerprint());
            return Err(AuthorityError::KeyMismatch { certificate, key });
        }
        let builder = Issuer::from_ca_cert_der(&certificate.into(), Unsigned(public_key));
        Ok(Self {
            certificate: certificate.to_vec(),
            subject: tbs.subject.to_der().map_err(|_| AuthorityError::Certificate)?,
            public_key,
            key_id: subject_key_id(&tbs).ok_or(AuthorityError::Certificate)?,
            validity: validity_of(&tbs),
            key,
            builder: builder.map_err(|_| AuthorityError::Certificate)?,
        })
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The name of its key, as the AKI of what it issues carries it.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The validity of its own certificate.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Its public key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Builds what a certificate for `identity` and `key` would be at `now`, and lints it.
    ///
    /// Backdating stops at the beginning of the authority's own validity.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if the builder or the lint refuse: a fault of ours, not of the requester.
    pub fn prepare(
        &self,
        profile: &Profile,
        identity: &Identity,
        key: &PublicKey,
        serial: Serial,
        now: Wall,
    ) -> Result<Prepared, IssueError> {
        if !identity.fits(profile.kind) {
            return Err(IssueError::Kind { profile: profile.kind });
        }
        let validity = self.validity_within(profile.validity(now))?;
        let params = params(profile, identity, key, serial, validity)?;
        let built = params.signed_by(&Unsigned(*key), &self.builder);
        let tbs = tbs_of(built.map_err(IssueError::Builder)?.der())?;
        let expected = lint::Expected {
            profile,
            identity,
            key,
            serial,
            validity,
            issuer: &self.subject,
            issuer_key: self.key_id,
        };
        lint::check(&tbs, &expected).map_err(IssueError::Lint)?;
        let device = identity.device().cloned();
        Ok(Prepared { tbs, serial, issuer: self.key_id, device, key: key.fingerprint(), validity })
    }

    fn validity_within(&self, wanted: Validity) -> Result<Validity, IssueError> {
        let own = self.validity;
        let not_before = wanted.not_before.max(own.not_before);
        let certificate = Validity { not_before, ..wanted };
        if certificate.not_after > own.not_after || not_before >= wanted.not_after {
            return Err(IssueError::AuthorityValidity { authority: own, certificate });
        }
        Ok(certificate)
    }

    /// Signs what a store has made durable.
    ///
    /// # Errors
    ///
    /// [`IssueError`] if it is another authority's, or the signer refuses.
    pub fn issue(&self, reserved: Reserved) -> Result<Certificate, IssueError> {
        let Reserved { tbs, serial, issuer, validity } = reserved;
        if issuer != self.key_id {
            return Err(IssueError::OtherAuthority { asked: self.key_id, prepared: issuer });
        }
        Ok(Certificate { der: self.sign(&tbs)?, serial, validity })
    }

    /// `tbs` with its algorithm and signature: a certificate or a CRL.
    pub(super) fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, IssueError> {
        let signature = self.key.sign(tbs).map_err(IssueError::Builder)?;
        let signature = der::element(der::BIT_STRING, &[&[0], &signature]);
        Ok(der::element(der::SEQUENCE, &[tbs, &der::ECDSA_WITH_SHA256, &signature]))
    }
}

impl Prepared {
    /// Its serial number, to be stored before anything else happens.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The validity it will have.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The row that reserves it.
    #[must_use]
    pub(crate) fn into_row(self) -> StoredCertificate {
        StoredCertificate {
            serial: self.serial,
            issuer: self.issuer,
            device: self.device,
            key: self.key,
            validity: self.validity,
            tbs: self.tbs,
            revoked: None,
        }
    }
}

impl Reserved {
    /// What may be signed because `row` is durable: for stores, after their commit.
    pub(crate) fn by_store(row: StoredCertificate) -> Self {
        let StoredCertificate { tbs, serial, issuer, validity, .. } = row;
        Self { tbs, serial, issuer, validity }
    }

    /// Its serial number.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.serial
    }
}

fn params(
    profile: &Profile,
    identity: &Identity,
    key: &PublicKey,
    serial: Serial,
    validity: Validity,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(serial.as_octets()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = identity.common_name() {
        params.distinguished_name.push(DnType::CommonName, name.into_owned());
    }
    params.subject_alt_names = alt_names(identity).map_err(IssueError::Builder)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages(profile.kind);
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.id().0.to_vec());
    params.crl_distribution_points = profile
        .crl_urls
        .iter()
        .map(|url| CrlDistributionPoint { uris: vec![url.clone()] })
        .collect();
    if !profile.issuer_urls.is_empty() {
        let access = lint::issuer_access(&profile.issuer_urls);
        let access = CustomExtension::from_oid_content(&AUTHORITY_INFO_ACCESS, access);
        params.custom_extensions.push(access);
    }
    Ok(params)
}

/// id-pe-authorityInfoAccess (RFC 5280 §4.2.2.1).
const AUTHORITY_INFO_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];

fn usages(kind: Kind) -> Vec<ExtendedKeyUsagePurpose> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    match kind {
        Kind::Backend | Kind::Device => vec![ClientAuth],
        Kind::Gateway => vec![ClientAuth, ServerAuth],
        Kind::Server => vec![ServerAuth],
    }
}

fn alt_names(identity: &Identity) -> Result<Vec<SanType>, rcgen::Error> {
    let uri = identity.uri().map(|uri| Ok(SanType::URI(uri.try_into()?)));
    let dns = |name: &DnsName| Ok(SanType::DnsName(name.as_str().try_into()?));
    let address = |address: &IpAddr| Ok(SanType::IpAddress(*address));
    let dns_names = identity.dns_names().iter().map(dns);
    uri.into_iter().chain(dns_names).chain(identity.addresses().iter().map(address)).collect()
}

pub(super) fn date(at: Wall) -> Result<OffsetDateTime, IssueError> {
    let seconds = i64::try_from(at.0).ok();
    let date = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.ok_or(IssueError::Builder(rcgen::Error::Time))
}

/// The to-be-signed part of what a builder made.
pub(super) fn tbs_of(built: &[u8]) -> Result<Vec<u8>, IssueError> {
    let parts = der::content(der::SEQUENCE, built).and_then(der::elements);
    let tbs = parts.and_then(|parts| parts.first().map(|tbs| tbs.to_vec()));
    tbs.ok_or(IssueError::Lint(lint::Finding::Malformed))
}

fn check_may_issue(tbs: &x509_cert::TbsCertificate) -> Result<(), AuthorityError> {
    use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
    let constraints: Option<(bool, BasicConstraints)> =
        tbs.get().map_err(|_| AuthorityError::Certificate)?;
    let usage: Option<(bool, KeyUsage)> = tbs.get().map_err(|_| AuthorityError::Certificate)?;
    let is_ca = constraints.is_some_and(|(_, bc)| bc.ca && bc.path_len_constraint == Some(0));
    let signs = usage.is_some_and(|(_, usage)| usage.key_cert_sign() && usage.crl_sign());
    if is_ca && signs { Ok(()) } else { Err(AuthorityError::NoAuthority) }
}

fn subject_key_id(tbs: &x509_cert::TbsCertificate) -> Option<KeyId> {
    let extension: Option<(bool, x509_cert::ext::pkix::SubjectKeyIdentifier)> = tbs.get().ok()?;
    extension?.1.0.as_bytes().try_into().ok().map(KeyId)
}

fn validity_of(tbs: &x509_cert::TbsCertificate) -> Validity {
    let wall = |time: x509_cert::time::Time| Wall(time.to_unix_duration().as_secs());
    Validity { not_before: wall(tbs.validity.not_before), not_after: wall(tbs.validity.not_after) }
}

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _tbs: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

impl fmt::Debug for Authority {
    /// Everything but the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("the authority's certificate cannot be read"),
            Self::Key => f.write_str("the authority's private key is no PKCS#8 P-256 key"),
            Self::KeyMismatch { certificate, key } => {
                write!(
                    f,
                    "the authority's private key is {key}, its certificate names {certificate}"
                )
            }
            Self::NoAuthority => f.write_str(
                "the certificate is no issuing authority's, expected CA:TRUE with pathLen 0, \
                 keyCertSign and cRLSign",
            ),
        }
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AuthorityValidity { authority, certificate } => write!(
                f,
                "a certificate from {} to {} would leave its issuer's validity from {} to {}, \
                 the issuing authority has to be replaced",
                certificate.not_before.0,
                certificate.not_after.0,
                authority.not_before.0,
                authority.not_after.0
            ),
            Self::Builder(cause) => write!(f, "the certificate cannot be built: {cause}"),
            Self::Kind { profile } => {
                write!(f, "the profile is for a {profile:?}, the identity is not")
            }
            Self::Lint(finding) => write!(f, "the certificate was built wrong: {finding}"),
            Self::OtherAuthority { asked, prepared } => {
                write!(f, "authority {asked} was asked to sign what {prepared} prepared")
            }
        }
    }
}

impl std::error::Error for AuthorityError {}
impl std::error::Error for IssueError {}
