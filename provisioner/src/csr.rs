//! Certification requests (PKCS#10, RFC 2986): a proof that somebody holds a private key.
//!
//! **What it is.** From a request we take the public key, once its own signature has proven
//! possession, the names it asks for, to compare them with the authenticated identity, and the
//! evidence about the key, to be judged elsewhere ([`attest`](crate::attest)).
//!
//! **What it must never do.** Put anything else of a request into a certificate. A request that
//! asks to be a CA or for another's name is refused, though it would be ignored: who sends it is
//! broken or hostile, and a person should hear of it.
//!
//! **Why that is sound.** The signature is checked over the octets as they came before any name or
//! attribute is looked at; what follows reads slices and compares.

use std::fmt;

use fleetcert_core::est::evidence::ID_AA_ATTESTATION;

use crate::authority::{
    PublicKey,
    der::{
        BIT_STRING, BOOLEAN, ECDSA_WITH_SHA256, INTEGER, OCTET_STRING, OID, SEQUENCE, content,
        elements, split_element,
    },
};

/// Octets of a request, at most: one with TPM evidence has about three thousand.
pub const CSR_LEN_MAX: usize = 8 * 1024;

/// A request whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csr {
    key: PublicKey,
    subject: DirectoryName,
    common_name: Option<String>,
    alt_names: Option<AltNames>,
    attestation: Option<Vec<u8>>,
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
    /// It is signed by another algorithm than ecdsa-with-SHA256.
    SignatureAlgorithm,
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

/// A `Name` (RFC 5280 §4.1.2.4) as DER that was read once.
#[derive(Clone, Debug, Eq)]
pub struct DirectoryName(Vec<u8>);

/// One attribute of a name.
#[derive(Clone, Copy, Debug)]
struct Attribute<'a> {
    /// The index of its RDN.
    rdn: usize,
    /// Its type, content octets.
    oid: &'a [u8],
    /// The tag of its value.
    tag: u8,
    /// Its value, content octets.
    value: &'a [u8],
}

/// `GeneralNames` (RFC 5280 §4.2.1.6) as DER that was read once.
#[derive(Clone, Debug, Eq)]
pub struct AltNames(Vec<u8>);

const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;

/// The content of `INTEGER 0`: version 1 of PKCS#10.
const VERSION_1: [u8; 1] = [0];

/// id-at-commonName, content octets.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];

/// pkcs-9-at-extensionRequest (RFC 2985 §5.4.2), content octets.
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];

/// id-ce-basicConstraints and id-ce-subjectAltName, content octets.
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 19];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 17];

impl Csr {
    /// Reads a request and verifies its signature.
    ///
    /// # Errors
    ///
    /// [`CsrError`], that of key and signature before everything else the request says.
    pub fn verify(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_LEN_MAX {
            return Err(CsrError::TooLong { found_len: der.len() });
        }
        let [info, algorithm, signature] = parts(der)?;
        let Info { subject, spki, attributes } = info_parts(info)?;
        let key = PublicKey::from_spki(spki).map_err(|_| CsrError::Key { found: kind(spki) })?;
        if algorithm != ECDSA_WITH_SHA256 {
            return Err(CsrError::SignatureAlgorithm);
        }
        let signature = content(BIT_STRING, signature).and_then(|bits| bits.strip_prefix(&[0]));
        if !key.verifies(info, signature.ok_or(CsrError::Malformed)?) {
            return Err(CsrError::Signature);
        }
        let subject = DirectoryName::parse(subject).ok_or(CsrError::Malformed)?;
        let common_name = subject.common_name()?;
        let attributes = Attributes::read(attributes)?;
        let alt_names = attributes.extensions.map_or(Ok(None), alt_names_of)?;
        let attestation = attributes.attestation.map(<[u8]>::to_vec);
        Ok(Self { key, subject, common_name, alt_names, attestation })
    }

    /// The key whose possession is proven.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The subject that is asked for; it may be empty.
    #[must_use]
    pub const fn subject(&self) -> &DirectoryName {
        &self.subject
    }

    /// The common name of the subject, if it has one.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subjectAltName that is asked for, if one is.
    #[must_use]
    pub const fn alt_names(&self) -> Option<&AltNames> {
        self.alt_names.as_ref()
    }

    /// The evidence about the key, as it came: the values of the attribute id-aa-attestation.
    #[must_use]
    pub fn attestation(&self) -> Option<&[u8]> {
        self.attestation.as_deref()
    }
}

fn parts(der: &[u8]) -> Result<[&[u8]; 3], CsrError> {
    let parts = content(SEQUENCE, der).and_then(elements).ok_or(CsrError::Malformed)?;
    parts.try_into().map_err(|_| CsrError::Malformed)
}

/// The parts of a `CertificationRequestInfo`, whose attributes are already without their tag.
struct Info<'a> {
    subject: &'a [u8],
    spki: &'a [u8],
    attributes: &'a [u8],
}

/// Reads the information of a request. The attributes may be left out altogether: they are
/// mandatory (RFC 2986 §4.1), but their absence says nothing that an empty set would not.
fn info_parts(info: &[u8]) -> Result<Info<'_>, CsrError> {
    let fields = content(SEQUENCE, info).and_then(elements).ok_or(CsrError::Malformed)?;
    let (version, subject, spki, attributes) = match fields[..] {
        [version, subject, spki] => (version, subject, spki, &[][..]),
        [version, subject, spki, attributes] => {
            let attributes = content(ATTRIBUTES, attributes).ok_or(CsrError::Malformed)?;
            (version, subject, spki, attributes)
        }
        _ => return Err(CsrError::Malformed),
    };
    let version_1 = content(INTEGER, version) == Some(&VERSION_1);
    if version_1 { Ok(Info { subject, spki, attributes }) } else { Err(CsrError::Malformed) }
}

/// What kind of key a `SubjectPublicKeyInfo` holds that is no P-256 key.
fn kind(spki: &[u8]) -> KeyKind {
    const EC: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: [u8; 10] = [OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EDWARDS: [[u8; 3]; 2] = [[0x2b, 0x65, 0x70], [0x2b, 0x65, 0x71]];
    let algorithm = content(SEQUENCE, spki)
        .and_then(|spki| split_element(spki))
        .and_then(|(algorithm, _)| content(SEQUENCE, algorithm))
        .and_then(split_element);
    let Some((oid, parameters)) = algorithm else { return KeyKind::Unknown };
    match content(OID, oid) {
        Some(oid) if oid == EC && parameters == P256 => KeyKind::Point,
        Some(oid) if oid == EC => KeyKind::OtherCurve,
        Some(oid) if oid == RSA => KeyKind::Rsa,
        Some(oid) if EDWARDS.iter().any(|edwards| oid == edwards) => KeyKind::Edwards,
        _ => KeyKind::Unknown,
    }
}

/// The attributes that count, each the content of its set of values.
#[derive(Default)]
struct Attributes<'a> {
    attestation: Option<&'a [u8]>,
    extensions: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Looks through the attributes; one that counts and comes twice could be read two ways.
    fn read(attributes: &'a [u8]) -> Result<Self, CsrError> {
        let mut found = Self::default();
        for attribute in elements(attributes).ok_or(CsrError::Malformed)? {
            let (oid, values) = attribute_parts(attribute).ok_or(CsrError::Malformed)?;
            let slot = match oid {
                oid if oid == EXTENSION_REQUEST => &mut found.extensions,
                oid if oid == ID_AA_ATTESTATION.as_bytes() => &mut found.attestation,
                _ => continue,
            };
            if slot.replace(values).is_some() {
                return Err(CsrError::Malformed);
            }
        }
        Ok(found)
    }
}

/// The type of an attribute and the content of its set of values.
fn attribute_parts(attribute: &[u8]) -> Option<(&[u8], &[u8])> {
    let (oid, values) = split_element(content(SEQUENCE, attribute)?)?;
    Some((content(OID, oid)?, content(SET, values)?))
}

fn alt_names_of(values: &[u8]) -> Result<Option<AltNames>, CsrError> {
    let extensions = content(SEQUENCE, values).and_then(elements).ok_or(CsrError::Malformed)?;
    let mut alt_names = None;
    for extension in extensions {
        let (oid, value) = extension_parts(extension).ok_or(CsrError::Malformed)?;
        if oid == BASIC_CONSTRAINTS && asks_ca(value).ok_or(CsrError::Malformed)? {
            return Err(CsrError::AsksCa);
        }
        if oid == SUBJECT_ALT_NAME {
            let names = AltNames::parse(value).ok_or(CsrError::Malformed)?;
            if alt_names.replace(names).is_some() {
                return Err(CsrError::Malformed);
            }
        }
    }
    Ok(alt_names)
}

/// The type and the value of an extension, its criticality left out.
pub(crate) fn extension_parts(extension: &[u8]) -> Option<(&[u8], &[u8])> {
    let fields = elements(content(SEQUENCE, extension)?)?;
    let (oid, value) = match fields[..] {
        [oid, value] => (oid, value),
        [oid, critical, value] if content(BOOLEAN, critical).is_some() => (oid, value),
        _ => return None,
    };
    Some((content(OID, oid)?, content(OCTET_STRING, value)?))
}

/// Whether a `BasicConstraints` says anything but CA:FALSE.
fn asks_ca(value: &[u8]) -> Option<bool> {
    let fields = elements(content(SEQUENCE, value)?)?;
    let says_false = |field: &&[u8]| content(BOOLEAN, field) == Some(&[0]);
    Some(!fields.iter().all(says_false))
}

impl DirectoryName {
    /// Reads the DER of a `Name`, whole; it may be empty.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let name = Self(der.to_vec());
        name.attributes().is_some().then_some(name)
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [SEQUENCE, 0]
    }

    fn attributes(&self) -> Option<Vec<Attribute<'_>>> {
        let mut found = Vec::new();
        for (rdn, set) in elements(content(SEQUENCE, &self.0)?)?.into_iter().enumerate() {
            let attributes = elements(content(SET, set)?)?;
            if attributes.is_empty() {
                return None;
            }
            for attribute in attributes {
                let (oid, value) = split_element(content(SEQUENCE, attribute)?)?;
                let tag = *value.first()?;
                let (oid, value) = (content(OID, oid)?, content(tag, value)?);
                found.push(Attribute { rdn, oid, tag, value });
            }
        }
        Some(found)
    }

    /// The one common name.
    ///
    /// # Errors
    ///
    /// [`CsrError::CommonNames`] if there are more; [`CsrError::Malformed`] if it is no text.
    fn common_name(&self) -> Result<Option<String>, CsrError> {
        let all = self.attributes().ok_or(CsrError::Malformed)?;
        let names: Vec<_> = all.iter().filter(|it| it.oid == COMMON_NAME).collect();
        match names[..] {
            [] => Ok(None),
            [name] if is_text(name.tag) => {
                let text = str::from_utf8(name.value).map_err(|_| CsrError::Malformed)?;
                Ok(Some(text.to_owned()))
            }
            [_] => Err(CsrError::Malformed),
            _ => Err(CsrError::CommonNames { found: names.len() }),
        }
    }

    /// The one common name, if the name is nothing but that.
    #[must_use]
    pub fn only_common_name(&self) -> Option<String> {
        let is_alone = self.attributes()?.len() == 1;
        is_alone.then(|| self.common_name().ok().flatten()).flatten()
    }
}

const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;

const fn is_text(tag: u8) -> bool {
    matches!(tag, UTF8_STRING | PRINTABLE_STRING)
}

impl PartialEq for DirectoryName {
    /// RDN by RDN, attribute by attribute; never as flattened text.
    fn eq(&self, other: &Self) -> bool {
        self.attributes() == other.attributes()
    }
}

impl PartialEq for Attribute<'_> {
    /// Types and values, octet for octet. A PrintableString equals a UTF8String of the same octets
    /// (RFC 5280 §7.1): clients write the subject they were given in whichever of the two they
    /// prefer.
    fn eq(&self, other: &Self) -> bool {
        let same_kind = self.tag == other.tag || (is_text(self.tag) && is_text(other.tag));
        same_kind && (self.rdn, self.oid, self.value) == (other.rdn, other.oid, other.value)
    }
}

impl AltNames {
    /// Reads the DER of `GeneralNames`, whole. None at all is no such thing (RFC 5280 §4.2.1.6),
    /// but it is what strongSwan writes for a name that it cannot encode.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        elements(content(SEQUENCE, der)?)?;
        Some(Self(der.to_vec()))
    }

    /// Whether each of them is among `others`.
    #[must_use]
    pub fn are_among(&self, others: &Self) -> bool {
        let (Some(own), Some(others)) = (self.sorted(), others.sorted()) else { return false };
        own.iter().all(|name| others.binary_search(name).is_ok())
    }

    fn sorted(&self) -> Option<Vec<&[u8]>> {
        let mut names = elements(content(SEQUENCE, &self.0)?)?;
        names.sort_unstable();
        Some(names)
    }

    /// The URIs among them.
    #[must_use]
    pub fn uris(&self) -> Vec<&str> {
        const URI: u8 = 0x86;
        let names = content(SEQUENCE, &self.0).and_then(elements).unwrap_or_default();
        let uris = names.into_iter().filter_map(|name| content(URI, name));
        uris.filter_map(|uri| str::from_utf8(uri).ok()).collect()
    }
}

impl PartialEq for AltNames {
    /// The same names, in any order.
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edwards => "an Edwards curve key",
            Self::OtherCurve => "a key on another elliptic curve",
            Self::Point => "a P-256 key that is no uncompressed point",
            Self::Rsa => "an RSA key",
            Self::Unknown => "a key of an unknown kind",
        })
    }
}

impl fmt::Display for CsrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsksCa => f.write_str(
                "the request asks for CA:TRUE, expected none: leave basicConstraints out",
            ),
            Self::CommonNames { found } => {
                write!(f, "the request has {found} common names, expected at most one")
            }
            Self::Key { found } => {
                write!(f, "the request brings {found}, expected EC P-256: make a P-256 key")
            }
            Self::Malformed => f.write_str("the request is no PKCS#10 in DER, whole and alone"),
            Self::Signature => {
                f.write_str("the request is not signed by its own key: make it again")
            }
            Self::SignatureAlgorithm => {
                f.write_str("the request is signed otherwise, expected ecdsa-with-SHA256")
            }
            Self::TooLong { found_len } => {
                write!(f, "the request has {found_len} octets, expected at most {CSR_LEN_MAX}")
            }
        }
    }
}

impl std::error::Error for CsrError {}

#[cfg(test)]
mod tests;
