//! Server certificates as they should not be: for the wrong name, time, use, or by the wrong issuer.

use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};

use super::by_hand::Credential;
use super::{Lab, OrFail};

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is for client authentication only.
    ClientOnly,
    /// It ran out.
    Expired,
    /// It is for another name.
    OtherName,
    /// A device has signed it, with its own good certificate.
    SignedByDevice,
    /// A stranger's authority has signed it.
    WrongAuthority,
}

impl Flaw {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::ClientOnly,
        Self::Expired,
        Self::OtherName,
        Self::SignedByDevice,
        Self::WrongAuthority,
    ];
}

/// A chain and its key, PEM.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The certificates, leaf first.
    pub certificates: String,
    /// The key of the leaf.
    pub key: String,
}

impl Lab {
    /// A server certificate for `localhost` with one flaw and no other. `device` signs where a
    /// device is to.
    #[must_use]
    pub fn forged(&self, flaw: Flaw, device: &Credential) -> Chain {
        let name = if flaw == Flaw::OtherName { "other.example" } else { "localhost" };
        let mut leaf = CertificateParams::new([name.to_owned()]).or_fail("a name");
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.use_authority_key_identifier_extension = true;
        leaf.extended_key_usages = vec![match flaw {
            Flaw::ClientOnly => ExtendedKeyUsagePurpose::ClientAuth,
            _ => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        (leaf.not_before, leaf.not_after) = match flaw {
            Flaw::Expired => (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1)),
            _ => (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2040, 1, 1)),
        };
        let (issuer_pem, issuer_key) = self.signer(flaw, device);
        let key = KeyPair::generate().or_fail("a key");
        let issuer = Issuer::from_ca_cert_pem(&issuer_pem, issuer_key).or_fail("an issuer");
        let certificate = leaf.signed_by(&key, &issuer).or_fail("a signature");
        let certificates = format!("{}{issuer_pem}", certificate.pem());
        Chain { certificates, key: key.serialize_pem() }
    }

    /// A flawless chain for `localhost`, as the provisioner issues it to servers.
    #[must_use]
    pub fn flawless(&self) -> Chain {
        let Credential { certificate, key } = self.server("localhost");
        let read = |path| fs::read_to_string(path).or_fail("a file of ca issue-server");
        Chain { certificates: read(certificate), key: read(key) }
    }

    /// A revocation list of the device tree that ran out, PEM.
    #[must_use]
    pub fn expired_crl(&self) -> String {
        let read = |path| fs::read_to_string(path).or_fail("a file of the provisioner's");
        let key = read(self.path("provisioner/private/device-issuing.key"));
        let key = KeyPair::from_pem(&key).or_fail("a key");
        let issuer = read(self.path("provisioner/device-ca.pem"));
        let issuer = Issuer::from_ca_cert_pem(&issuer, key).or_fail("an issuer");
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(2020, 1, 8),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).or_fail("a signature");
        list.pem().or_fail("PEM")
    }

    /// Who signs, and the chain above the leaf.
    fn signer(&self, flaw: Flaw, device: &Credential) -> (String, KeyPair) {
        let read = |path| fs::read_to_string(path).or_fail("a file of the provisioner's");
        let key = |text: String| KeyPair::from_pem(&text).or_fail("a key");
        let chain = read(self.path("provisioner/server-ca.pem"));
        match flaw {
            Flaw::SignedByDevice => {
                let issuers = read(self.path("provisioner/device-ca.pem"));
                let leaf = read(device.certificate.clone());
                (format!("{leaf}\n{issuers}"), key(read(device.key.clone())))
            }
            Flaw::WrongAuthority => {
                let stranger = KeyPair::generate().or_fail("a key");
                let mut root = CertificateParams::default();
                root.distinguished_name.push(DnType::CommonName, "stranger root");
                root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                (root.self_signed(&stranger).or_fail("a signature").pem(), stranger)
            }
            Flaw::ClientOnly | Flaw::Expired | Flaw::OtherName => {
                (chain, key(read(self.path("provisioner/private/server-issuing.key"))))
            }
        }
    }
}
