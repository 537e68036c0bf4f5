//! Two disjoint trees of certificates, as short as they can be.

use fleetcert_agent::entropy::Entropy;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
    SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An authority with its certificate.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a leaf says.
pub(crate) struct Leaf<'a> {
    /// Subject CN.
    pub(crate) name: &'a str,
    /// Subject alternative names.
    pub(crate) hosts: &'a [&'a str],
    pub(crate) purpose: ExtendedKeyUsagePurpose,
    /// First and last year.
    pub(crate) years: (i32, i32),
}

/// A leaf with its key.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
}

pub(crate) const SERVER: Leaf<'static> = Leaf {
    name: "server",
    hosts: &["127.0.0.1"],
    purpose: ExtendedKeyUsagePurpose::ServerAuth,
    years: (2020, 2040),
};

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A leaf that was made an authority by nobody but itself.
    pub(crate) fn pretender(issued: Issued, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let Issued { certificate, pem, key } = issued;
        Self { certificate, pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, leaf: &Leaf<'_>) -> Issued {
        let key = KeyPair::generate().unwrap();
        let certificate = params(leaf).signed_by(&key, &self.issuer).unwrap();
        Issued { pem: certificate.pem(), certificate: certificate.der().clone(), key }
    }

    /// A device certificate for a key that somebody else holds.
    pub(crate) fn certify(&self, device: &str, spki: &[u8]) -> CertificateDer<'static> {
        let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
        params(&device_leaf(device)).signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    /// A CRL that ran out, and revokes nobody.
    pub(crate) fn expired_crl(&self) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2021, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Issued {
    pub(crate) fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// What a device's certificate says.
pub(crate) fn device_leaf(name: &str) -> Leaf<'_> {
    Leaf { name, hosts: &[], purpose: ExtendedKeyUsagePurpose::ClientAuth, years: (2020, 2040) }
}

fn params(leaf: &Leaf<'_>) -> CertificateParams {
    let hosts: Vec<String> = leaf.hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, leaf.name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![leaf.purpose.clone()];
    params.not_before = date_time_ymd(leaf.years.0, 1, 1);
    params.not_after = date_time_ymd(leaf.years.1, 1, 1);
    params.use_authority_key_identifier_extension = true;
    let mut serial: [u8; 16] = Entropy::system().octets().unwrap();
    // Positive, and not shortened by DER.
    serial[0] = 0x40 | (serial[0] & 0x3f);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}
