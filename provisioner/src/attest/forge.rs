//! Certificates for tests, right ones and every kind of wrong one, written octet by octet: a
//! builder would refuse to make most of them.

use der::asn1::ObjectIdentifier;
use fleetcert_core::time::Wall;
use p256::ecdsa::{DerSignature, SigningKey, signature::Signer as _};

use super::spki::{Curve, Key};
use crate::{
    authority::der::{
        BIT_STRING, BOOLEAN, ECDSA_WITH_SHA256, INTEGER, OCTET_STRING, OID, SEQUENCE, element,
    },
    testing::{DAY_S, NOW},
};

pub(crate) const SET: u8 = 0x31;
pub(crate) const UTF8_STRING: u8 = 0x0c;

pub(crate) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const EXT_KEY_USAGE: &str = "2.5.29.37";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";
pub(crate) const POLICIES: &str = "2.5.29.32";
pub(crate) const SUBJECT_ALT_NAME: &str = "2.5.29.17";
pub(crate) const SUBJECT_KEY_ID: &str = "2.5.29.14";

/// tcg-kp-EKCertificate.
pub(crate) const EK_PURPOSE: &str = "2.23.133.8.1";

/// keyUsage bits, as the one octet they are in (RFC 5280 §4.2.1.3).
pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(crate) const KEY_AGREEMENT: u8 = 0x08;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
pub(crate) const CRL_SIGN: u8 = 0x02;

/// Who signs: a P-256 key that a number stands for.
pub(crate) struct Signer(SigningKey);

impl Signer {
    pub(crate) fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub(crate) fn key(&self) -> Key {
        let point = self.0.verifying_key().to_encoded_point(false);
        Key::ec(Curve::P256, point.x().unwrap(), point.y().unwrap()).unwrap()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }
}

/// A certificate before it is signed. Each field is DER and may be anything.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: (Wall, Wall),
    pub(crate) subject: Vec<u8>,
    pub(crate) spki: Vec<u8>,
    pub(crate) extensions: Vec<(&'static str, bool, Vec<u8>)>,
}

impl Draft {
    /// An endorsement certificate as it should be.
    pub(crate) fn leaf(key: &Key, issuer: &str) -> Self {
        let usage = if key.is_rsa() { KEY_ENCIPHERMENT } else { KEY_AGREEMENT };
        Self {
            version: vec![0xa0, 3, INTEGER, 1, 2],
            algorithm: ECDSA_WITH_SHA256.to_vec(),
            issuer: name(issuer),
            validity: (Wall(NOW.0 - DAY_S), Wall(NOW.0 + DAY_S)),
            subject: element(SEQUENCE, &[]),
            spki: key.spki_der(),
            extensions: vec![
                (BASIC_CONSTRAINTS, true, element(SEQUENCE, &[])),
                (EXT_KEY_USAGE, false, purposes(&[EK_PURPOSE])),
                (KEY_USAGE, true, key_usage(usage)),
                (SUBJECT_ALT_NAME, true, alt_names(&[directory(&tpm_name("id:49465800"))])),
            ],
        }
    }

    /// An authority as it should be, without a limit to what is below it.
    pub(crate) fn authority(subject: &str, key: &Key, issuer: &str) -> Self {
        Self {
            subject: name(subject),
            extensions: vec![
                (BASIC_CONSTRAINTS, true, ca(None)),
                (KEY_USAGE, true, key_usage(KEY_CERT_SIGN | CRL_SIGN)),
            ],
            ..Self::leaf(key, issuer)
        }
    }

    /// With that extension, in place of one of its kind.
    pub(crate) fn with(self, oid: &'static str, critical: bool, value: Vec<u8>) -> Self {
        let mut changed = self.without(oid);
        changed.extensions.push((oid, critical, value));
        changed
    }

    pub(crate) fn without(mut self, oid: &str) -> Self {
        self.extensions.retain(|(found, ..)| *found != oid);
        self
    }

    pub(crate) fn tbs(&self) -> Vec<u8> {
        let validity = [time(self.validity.0), time(self.validity.1)].concat();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(extension).collect();
        let extensions = element(0xa3, &[&element(SEQUENCE, &[&extensions])]);
        element(
            SEQUENCE,
            &[
                &self.version,
                &[INTEGER, 1, 7],
                &self.algorithm,
                &self.issuer,
                &element(SEQUENCE, &[&validity]),
                &self.subject,
                &self.spki,
                &extensions,
            ],
        )
    }

    pub(crate) fn signed(&self, by: &Signer) -> Vec<u8> {
        let tbs = self.tbs();
        let signature = by.sign(&tbs);
        assemble(&tbs, &self.algorithm, &signature)
    }
}

/// A certificate of its three parts.
pub(crate) fn assemble(tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[tbs, algorithm, &element(BIT_STRING, &[&[0], signature])])
}

fn extension((oid, critical, value): &(&'static str, bool, Vec<u8>)) -> Vec<u8> {
    let critical: &[u8] = if *critical { &[BOOLEAN, 1, 0xff] } else { &[] };
    element(SEQUENCE, &[&self::oid(oid), critical, &element(OCTET_STRING, &[value])])
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    element(OID, &[ObjectIdentifier::new_unwrap(text).as_bytes()])
}

/// `Time` (RFC 5280 §4.1.2.5).
fn time(at: Wall) -> Vec<u8> {
    let digits: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    let text = digits + "Z";
    if text.as_str() < "2050" {
        element(0x17, &[&text.as_bytes()[2..]])
    } else {
        element(0x18, &[text.as_bytes()])
    }
}

/// A name of attributes, each in a set of its own.
pub(crate) fn name_of(attributes: &[(&str, &str)]) -> Vec<u8> {
    let sets = attributes.iter().map(|(kind, value)| {
        let value = element(UTF8_STRING, &[value.as_bytes()]);
        element(SET, &[&element(SEQUENCE, &[&oid(kind), &value])])
    });
    element(SEQUENCE, &[&sets.collect::<Vec<_>>().concat()])
}

/// A name of one commonName.
pub(crate) fn name(common: &str) -> Vec<u8> {
    name_of(&[("2.5.4.3", common)])
}

/// The attributes of a TPM of that manufacturer.
pub(crate) fn tpm_name(manufacturer: &str) -> Vec<u8> {
    name_of(&[
        ("2.23.133.2.1", manufacturer),
        ("2.23.133.2.2", "SLB9670"),
        ("2.23.133.2.3", "id:0D0B"),
    ])
}

/// A directoryName (RFC 5280 §4.2.1.6).
pub(crate) fn directory(name: &[u8]) -> Vec<u8> {
    element(0xa4, &[name])
}

pub(crate) fn alt_names(names: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, &[&names.concat()])
}

pub(crate) fn purposes(oids: &[&str]) -> Vec<u8> {
    element(SEQUENCE, &[&oids.iter().flat_map(|text| oid(text)).collect::<Vec<u8>>()])
}

pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    element(BIT_STRING, &[&[bits.trailing_zeros() as u8, bits]])
}

/// `BasicConstraints` of an authority.
pub(crate) fn ca(path_len_max: Option<u8>) -> Vec<u8> {
    let path_len = path_len_max.map(|max| element(INTEGER, &[&[max]])).unwrap_or_default();
    element(SEQUENCE, &[&[BOOLEAN, 1, 0xff], &path_len])
}
