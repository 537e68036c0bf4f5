//! Reads a certificate-to-be back and compares every field with the policy it was built from.
//!
//! **What it is.** A second opinion: the builder wrote DER, and this reads it field by field and
//! compares each with an encoding made here, from the same policy, by other code. Extensions are
//! compared as a set: none missing, none doubled, none that was not asked for.
//!
//! **What it must never do.** Accept what it does not know. A new field needs a new line here
//! before it can be issued.
//!
//! **Why that is sound.** It ends with every octet of the input compared or parsed, so a builder
//! that changes under us is found before the first signature, not after.

use std::{fmt, net::IpAddr};

use fleetcert_core::time::Validity;

use super::{
    KeyId, Profile, PublicKey, Serial, der,
    profile::{Identity, Kind},
};

/// The first field that is not what the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An extension that the policy does not know, or one too many.
    Extension,
    /// A field differs, or is missing.
    Field {
        /// Its name in RFC 5280.
        name: &'static str,
    },
    /// It cannot be read at all.
    Malformed,
}

/// What a certificate must say.
pub(super) struct Expected<'a> {
    pub(super) profile: &'a Profile,
    pub(super) identity: &'a Identity,
    pub(super) key: &'a PublicKey,
    pub(super) serial: Serial,
    pub(super) validity: Validity,
    /// The issuing authority's subject, DER.
    pub(super) issuer: &'a [u8],
    pub(super) issuer_key: KeyId,
}

/// `[0] { INTEGER 2 }`: version 3.
const VERSION_3: [u8; 5] = [0xa0, 3, der::INTEGER, 1, 2];

/// `BasicConstraints {}`: cA is FALSE by default, and a default is not encoded.
const NO_CA: [u8; 2] = [der::SEQUENCE, 0];

/// `KeyUsage { digitalSignature }`.
const DIGITAL_SIGNATURE: [u8; 4] = [der::BIT_STRING, 2, 7, 0x80];

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12).
const SERVER_AUTH: [u8; 10] = [der::OID, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: [u8; 10] = [der::OID, 8, 0x2b, 6, 1, 5, 5, 7, 3, 2];

/// id-at-commonName.
const COMMON_NAME: [u8; 5] = [der::OID, 3, 0x55, 4, 3];
const UTF8_STRING: u8 = 0x0c;
const SET: u8 = 0x31;

/// id-ce and the last arcs of its extensions (RFC 5280 §4.2.1).
const ID_CE: [u8; 2] = [0x55, 0x1d];
const SUBJECT_KEY_ID: u8 = 14;
const KEY_USAGE: u8 = 15;
const SUBJECT_ALT_NAME: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const CRL_DISTRIBUTION_POINTS: u8 = 31;
const AUTHORITY_KEY_ID: u8 = 35;
const EXTENDED_KEY_USAGE: u8 = 37;

/// id-pe-authorityInfoAccess and id-ad-caIssuers (RFC 5280 §4.2.2.1).
const AUTHORITY_INFO_ACCESS: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 1, 1];
const CA_ISSUERS: [u8; 10] = [der::OID, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];

/// Checks a TBSCertificate.
///
/// # Errors
///
/// The first [`Finding`].
pub(super) fn check(tbs: &[u8], expected: &Expected<'_>) -> Result<(), Finding> {
    let fields = der::content(der::SEQUENCE, tbs).and_then(der::elements);
    let fields = fields.ok_or(Finding::Malformed)?;
    let [version, serial, algorithm, issuer, validity, subject, key, extensions] = fields[..]
    else {
        return Err(Finding::Malformed);
    };
    field("version", version == VERSION_3)?;
    field("serialNumber", der::content(der::INTEGER, serial) == Some(expected.serial.as_octets()))?;
    field("signature", algorithm == der::ECDSA_WITH_SHA256)?;
    field("issuer", issuer == expected.issuer)?;
    field("validity", Some(validity) == validity_der(expected.validity).as_deref())?;
    field("subject", subject == subject_der(expected.identity))?;
    field("subjectPublicKeyInfo", key == expected.key.spki())?;
    check_extensions(extensions, expected)
}

const fn field(name: &'static str, holds: bool) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(Finding::Field { name }) }
}

fn validity_der(validity: Validity) -> Option<Vec<u8>> {
    let ends = [der::time(validity.not_before)?, der::time(validity.not_after)?];
    Some(der::element(der::SEQUENCE, &[&ends[0], &ends[1]]))
}

fn subject_der(identity: &Identity) -> Vec<u8> {
    let Some(name) = identity.common_name() else {
        return der::element(der::SEQUENCE, &[]);
    };
    let value = der::element(UTF8_STRING, &[name.as_bytes()]);
    let attribute = der::element(der::SEQUENCE, &[&COMMON_NAME, &value]);
    der::element(der::SEQUENCE, &[&der::element(SET, &[&attribute])])
}

fn check_extensions(field_der: &[u8], expected: &Expected<'_>) -> Result<(), Finding> {
    let found = der::content(0xa3, field_der)
        .and_then(|explicit| der::content(der::SEQUENCE, explicit))
        .and_then(der::elements)
        .ok_or(Finding::Malformed)?;
    let wanted = extensions(expected);
    for (name, extension) in &wanted {
        let count = found.iter().filter(|element| **element == extension.as_slice()).count();
        field(name, count == 1)?;
    }
    if found.len() == wanted.len() { Ok(()) } else { Err(Finding::Extension) }
}

/// Every extension of the certificate, as a whole element each.
fn extensions(expected: &Expected<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let Expected { profile, identity, .. } = expected;
    let key_id = der::element(der::OCTET_STRING, &[&expected.key.id().0]);
    let issuer_key = der::element(0x80, &[&expected.issuer_key.0]);
    let issuer_key = der::element(der::SEQUENCE, &[&issuer_key]);
    let critical_san = identity.common_name().is_none();
    let mut all = vec![
        ("authorityKeyIdentifier", standard(AUTHORITY_KEY_ID, false, &issuer_key)),
        ("basicConstraints", standard(BASIC_CONSTRAINTS, true, &NO_CA)),
        ("extKeyUsage", standard(EXTENDED_KEY_USAGE, false, &usages(profile.kind))),
        ("keyUsage", standard(KEY_USAGE, true, &DIGITAL_SIGNATURE)),
        ("subjectAltName", standard(SUBJECT_ALT_NAME, critical_san, &alt_names(identity))),
        ("subjectKeyIdentifier", standard(SUBJECT_KEY_ID, false, &key_id)),
    ];
    if !profile.crl_urls.is_empty() {
        let points = distribution_points(&profile.crl_urls);
        all.push(("cRLDistributionPoints", standard(CRL_DISTRIBUTION_POINTS, false, &points)));
    }
    if !profile.issuer_urls.is_empty() {
        let access = issuer_access(&profile.issuer_urls);
        all.push(("authorityInfoAccess", extension(&AUTHORITY_INFO_ACCESS, false, &access)));
    }
    all
}

fn standard(arc: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    extension(&[ID_CE[0], ID_CE[1], arc], critical, value)
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    const TRUE: [u8; 3] = [0x01, 1, 0xff];
    let oid = der::element(der::OID, &[oid]);
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    let value = der::element(der::OCTET_STRING, &[value]);
    der::element(der::SEQUENCE, &[&oid, critical, &value])
}

fn usages(kind: Kind) -> Vec<u8> {
    match kind {
        Kind::Backend | Kind::Device => der::element(der::SEQUENCE, &[&CLIENT_AUTH]),
        Kind::Gateway => der::element(der::SEQUENCE, &[&CLIENT_AUTH, &SERVER_AUTH]),
        Kind::Server => der::element(der::SEQUENCE, &[&SERVER_AUTH]),
    }
}

fn alt_names(identity: &Identity) -> Vec<u8> {
    const DNS: u8 = 0x82;
    const URI: u8 = 0x86;
    const IP: u8 = 0x87;
    let mut names = Vec::new();
    if let Some(uri) = identity.uri() {
        names.extend(der::element(URI, &[uri.as_bytes()]));
    }
    for dns in identity.dns_names() {
        names.extend(der::element(DNS, &[dns.as_str().as_bytes()]));
    }
    for address in identity.addresses() {
        names.extend(match address {
            IpAddr::V4(address) => der::element(IP, &[&address.octets()]),
            IpAddr::V6(address) => der::element(IP, &[&address.octets()]),
        });
    }
    der::element(der::SEQUENCE, &[&names])
}

/// One point for each URL: any of them is enough (RFC 5280 §4.2.1.13).
fn distribution_points(urls: &[String]) -> Vec<u8> {
    let point = |url: &String| {
        let uri = der::element(0x86, &[url.as_bytes()]);
        let name = der::element(0xa0, &[&der::element(0xa0, &[&uri])]);
        der::element(der::SEQUENCE, &[&name])
    };
    der::element(der::SEQUENCE, &[&urls.iter().flat_map(point).collect::<Vec<u8>>()])
}

/// The value of authorityInfoAccess that says where the issuer's certificate is.
pub(super) fn issuer_access(urls: &[String]) -> Vec<u8> {
    let description = |url: &String| {
        let uri = der::element(0x86, &[url.as_bytes()]);
        der::element(der::SEQUENCE, &[&CA_ISSUERS, &uri])
    };
    der::element(der::SEQUENCE, &[&urls.iter().flat_map(description).collect::<Vec<u8>>()])
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension => f.write_str("an extension is in it that the profile does not know"),
            Self::Field { name } => write!(f, "{name} is not what the profile says"),
            Self::Malformed => f.write_str("it is no certificate"),
        }
    }
}

impl std::error::Error for Finding {}
