//! A device certificate that a peer presented, after TLS has verified its chain.
//!
//! What TLS has not looked at is who the certificate names. [`Leaf::device`] takes that from the
//! one SPIFFE URI, and only if the common name says the same: a certificate of a server, a backend
//! or another trust domain names no device.

use fleetcert_core::device_id::DeviceId;

use super::{
    PublicKey, Serial,
    der::{INTEGER, SEQUENCE, content, elements},
    profile::TrustDomain,
};
use crate::csr::{AltNames, DirectoryName, extension_parts};

/// id-ce-subjectAltName, content octets.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 17];

/// `[3]`: the extensions of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;

/// The parts of a certificate that decide who its holder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its TBSCertificate, DER.
    pub tbs: Vec<u8>,
    /// Its serial number.
    pub serial: Serial,
    /// Its subject.
    pub subject: DirectoryName,
    /// Its subjectAltName.
    pub alt_names: AltNames,
    /// Its key.
    pub key: PublicKey,
}

impl Leaf {
    /// Reads the DER of a certificate; `None` if it is none that we could have issued.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let parts = elements(content(SEQUENCE, der)?)?;
        let tbs = *parts.first()?;
        let fields = elements(content(SEQUENCE, tbs)?)?;
        let [_, serial, _, _, _, subject, key, extensions] = fields[..] else { return None };
        let extensions = elements(content(SEQUENCE, content(EXTENSIONS, extensions)?)?)?;
        let alt_names = extensions.into_iter().find_map(|extension| {
            let (oid, value) = extension_parts(extension)?;
            (oid == SUBJECT_ALT_NAME).then(|| AltNames::parse(value)).flatten()
        });
        Some(Self {
            tbs: tbs.to_vec(),
            serial: Serial::from_octets(content(INTEGER, serial)?).ok()?,
            subject: DirectoryName::parse(subject)?,
            alt_names: alt_names?,
            key: PublicKey::from_spki(key).ok()?,
        })
    }

    /// The device that it names in `trust_domain`: by its only URI and its only subject attribute.
    #[must_use]
    pub fn device(&self, trust_domain: &TrustDomain) -> Option<DeviceId> {
        let device = DeviceId::parse(&self.subject.only_common_name()?).ok()?;
        let uris = self.alt_names.uris();
        (uris == [trust_domain.device_uri(&device)]).then_some(device)
    }
}
