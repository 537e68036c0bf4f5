//! Trees of certificates, good and bad, made where they are needed.
//!
//! A tree is grown with rcgen, which makes no certificate that makes no sense; what it will not do,
//! [`Node::spoilt`] does afterwards, and signs again, so that the only thing wrong is what was meant.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SigningKey as _, SubjectPublicKeyInfo,
};
use x509_cert::der::asn1::BitString;
use x509_cert::der::{Decode, Encode};
use x509_cert::{Certificate, TbsCertificate};

use super::OrFail;
use super::by_hand::base64;

/// A certificate with its key.
#[derive(Debug)]
pub struct Node {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its key.
    pub key: KeyPair,
    params: CertificateParams,
}

/// What a good authority's certificate says.
#[must_use]
pub fn authority(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What a good server's certificate says; `name` is a DNS name or an address.
#[must_use]
pub fn server(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.subject_alt_names =
        CertificateParams::new([name.to_owned()]).or_fail("a name").subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// What a good device's certificate says.
#[must_use]
pub fn device(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// What a good certificate of an endorsement key on a curve says: that it is for one, and what TPM
/// it is in (TCG EK Credential Profile), in an alternative name, since it has no other.
#[must_use]
pub fn endorsement(manufacturer: &str) -> CertificateParams {
    let mut params = named("");
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE.to_vec())];
    let model = [(1, manufacturer), (2, "SLB 9672"), (3, "id:000F0014")];
    let attributes = model.map(|(last, text)| {
        let oid = element(OID, &[0x67, 0x81, 0x05, 0x02, last]);
        element(SET, &element(SEQUENCE, &[oid, element(UTF8_STRING, text.as_bytes())].concat()))
    });
    let name = element(DIRECTORY_NAME, &element(SEQUENCE, &attributes.concat()));
    let names = element(SEQUENCE, &name);
    let mut extension = CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, names);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    params
}

/// A maker of chips, none of whose TPMs is software.
pub const CHIP_MAKER: &str = "id:49465800";

/// tcg-kp-EKCertificate.
const EK_CERTIFICATE: [u64; 5] = [2, 23, 133, 8, 1];

/// id-ce-subjectAltName.
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

const OID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const DIRECTORY_NAME: u8 = 0xA4;

/// An element of DER (X.690 §8.1) with any tag and any content, also where that is no sense.
#[must_use]
pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let head = match content.len() {
        0..=0x7F => vec![tag, low],
        0x80..=0xFF => vec![tag, 0x81, low],
        0x100..=0xFFFF => vec![tag, 0x82, high, low],
        len => panic!("{len} octets, expected 65535 at most"),
    };
    [&head, content].concat()
}

/// Valid from 2020 to 2040.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

/// A certificate, or what is to look like one, in PEM.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    let base64 = base64(der);
    let lines = base64.as_bytes().chunks(PEM_LINE_LEN);
    let lines: String = lines.map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

/// Characters of a line (RFC 7468 §2).
const PEM_LINE_LEN: usize = 64;

impl Node {
    /// A root with a new key on P-256.
    #[must_use]
    pub fn root(params: CertificateParams) -> Self {
        Self::root_with(params, KeyPair::generate().or_fail("a key"))
    }

    /// A root with this key.
    #[must_use]
    pub fn root_with(params: CertificateParams, key: KeyPair) -> Self {
        let der = params.self_signed(&key).or_fail("a root").der().to_vec();
        Self { der, key, params }
    }

    /// What this one signs, with a new key on P-256.
    #[must_use]
    pub fn signs(&self, params: CertificateParams) -> Self {
        self.signs_with(params, KeyPair::generate().or_fail("a key"))
    }

    /// What this one signs for `key`.
    #[must_use]
    pub fn signs_with(&self, params: CertificateParams, key: KeyPair) -> Self {
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).or_fail("a certificate").der().to_vec();
        Self { der, key, params }
    }

    /// What this one signs for a key of which only the public half is known
    /// (`SubjectPublicKeyInfo`); DER.
    #[must_use]
    pub fn signs_for(&self, params: &CertificateParams, spki: &[u8]) -> Vec<u8> {
        let key = SubjectPublicKeyInfo::from_der(spki).or_fail("a public key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&key, &issuer).or_fail("a certificate").der().to_vec()
    }

    /// The certificate `der` with something changed, and signed again by this one.
    #[must_use]
    pub fn signs_again(&self, der: &[u8], change: impl FnOnce(&mut TbsCertificate)) -> Vec<u8> {
        let mut certificate = Certificate::from_der(der).or_fail("a certificate");
        change(&mut certificate.tbs_certificate);
        let content = certificate.tbs_certificate.to_der().or_fail("DER");
        let signature = self.key.sign(&content).or_fail("a signature");
        certificate.signature = BitString::from_bytes(&signature).or_fail("a bit string");
        certificate.to_der().or_fail("DER")
    }

    /// Itself with something changed, and signed again by `issuer`.
    #[must_use]
    pub fn spoilt(self, issuer: &Self, change: impl FnOnce(&mut TbsCertificate)) -> Self {
        Self { der: issuer.signs_again(&self.der, change), ..self }
    }

    /// The uncompressed point of its key.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        self.key.der_bytes()
    }

    /// Writes `name.pem`, with the certificates of `issuers` behind its own, and `name.key`.
    #[must_use]
    pub fn write(&self, folder: &Path, name: &str, issuers: &[&Self]) -> (PathBuf, PathBuf) {
        let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        let pem: String = [self].iter().chain(issuers).map(|node| pem(&node.der)).collect();
        fs::write(&chain, pem).or_fail("a chain");
        fs::write(&key, self.key.serialize_pem()).or_fail("a key");
        (chain, key)
    }
}
