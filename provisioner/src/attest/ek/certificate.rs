//! One certificate, read once and whole: what the judgement of a chain rests on.
//!
//! Structures are read by `x509-cert`; the octets that are hashed, compared or signed are those
//! that came, never an encoding made again. Whatever has to do with trust (validity, usage, key)
//! is only recorded here: a certificate that nobody asks for may be as unsuitable as it likes.

use der::{
    Decode, Tag, Tagged,
    asn1::{Any, ObjectIdentifier},
};
use fleetcert_core::time::{Validity, Wall};
use x509_cert::{
    ext::{
        Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage},
    },
    name::Name,
};

use super::{refusal::Flaw, signature::Algorithm, sized};
use crate::{
    attest::{
        model::Field,
        spki::{Key, KeyError},
    },
    authority::der::{BIT_STRING, OCTET_STRING, SEQUENCE, content, elements},
    csr::DirectoryName,
};

/// Characters of a name in an error, at most: it comes from a stranger and ends in a log.
const NAME_TEXT_LEN_MAX: usize = 256;

/// `[0] EXPLICIT` before the version.
const VERSION_TAG: u8 = 0xa0;

/// `[4] EXPLICIT Name`, the directoryName among `GeneralName`s (RFC 5280 §4.2.1.6).
const DIRECTORY_NAME: u8 = 0xa4;

/// `[0] IMPLICIT`, the keyIdentifier of an `AuthorityKeyIdentifier`.
const KEY_ID: u8 = 0x80;

const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
const EXT_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// tcg-at-tpmManufacturer, tcg-at-tpmModel, tcg-at-tpmVersion.
const TPM_ATTRIBUTES: [(ObjectIdentifier, Field); 3] = [
    (ObjectIdentifier::new_unwrap("2.23.133.2.1"), Field::Manufacturer),
    (ObjectIdentifier::new_unwrap("2.23.133.2.2"), Field::Model),
    (ObjectIdentifier::new_unwrap("2.23.133.2.3"), Field::Version),
];

/// A certificate whose structure is sound. Nothing in it is believed yet.
#[derive(Clone, Debug)]
pub(in crate::attest) struct Certificate {
    /// All of it, DER.
    pub(in crate::attest) der: Vec<u8>,
    /// What is signed, DER.
    pub(super) tbs: Vec<u8>,
    /// How.
    pub(super) algorithm: Algorithm,
    /// The signature.
    pub(super) signature: Vec<u8>,
    pub(super) issuer: DirectoryName,
    pub(super) issuer_text: String,
    pub(super) subject: DirectoryName,
    pub(in crate::attest) subject_text: String,
    pub(in crate::attest) validity: Validity,
    pub(super) key: Result<Key, KeyError>,
    pub(super) extensions: Extensions,
}

/// What the extensions say, as far as it matters here.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    /// The issuer's key identifier.
    pub(super) authority_key_id: Option<Vec<u8>>,
    pub(super) is_ca: bool,
    pub(super) path_len_max: Option<u8>,
    /// `None` where the extension is missing: every usage.
    pub(super) key_usage: Option<KeyUsage>,
    /// `None` where the extension is missing.
    pub(super) purposes: Option<Vec<ObjectIdentifier>>,
    /// The subject's key identifier.
    pub(super) subject_key_id: Option<Vec<u8>>,
    /// The attributes of a TPM in the subject alternative name, or else in the subject.
    tpm: Vec<(Field, Option<String>)>,
    /// The first critical extension that says something else than the above.
    pub(super) unknown: Option<ObjectIdentifier>,
}

impl Certificate {
    /// Reads a certificate, whole.
    ///
    /// # Errors
    ///
    /// [`Flaw`].
    pub(in crate::attest) fn parse(der: &[u8]) -> Result<Self, Flaw> {
        let parts = Parts::of(der).ok_or(Flaw::Malformed)?;
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| Flaw::Malformed)?;
        let tbs = &parsed.tbs_certificate;
        let is_consistent =
            tbs.version == x509_cert::Version::V3 && tbs.signature == parsed.signature_algorithm;
        if !is_consistent {
            return Err(Flaw::Malformed);
        }
        sized::check_name("issuer", parts.issuer)?;
        sized::check_name("subject", parts.subject)?;
        let issuer = DirectoryName::parse(parts.issuer).ok_or(Flaw::Malformed)?;
        if issuer.is_empty() {
            return Err(Flaw::IssuerName);
        }
        let mut extensions = Extensions::read(tbs.extensions.as_deref())?;
        if extensions.tpm.is_empty() {
            extensions.tpm = tpm_attributes(&tbs.subject);
        }
        Ok(Self {
            der: der.to_vec(),
            tbs: parts.tbs.to_vec(),
            algorithm: parts.algorithm,
            signature: parts.signature.to_vec(),
            issuer,
            issuer_text: name_text(&tbs.issuer),
            subject: DirectoryName::parse(parts.subject).ok_or(Flaw::Malformed)?,
            subject_text: name_text(&tbs.subject),
            validity: validity(tbs.validity),
            key: Key::from_spki(parts.spki),
            extensions,
        })
    }

    /// The attributes of a TPM, each with its value if that is a text.
    pub(super) fn tpm_attributes(&self) -> Vec<(Field, Option<&str>)> {
        self.extensions.tpm.iter().map(|(field, text)| (*field, text.as_deref())).collect()
    }
}

/// The octets of a certificate that are used as they came.
struct Parts<'a> {
    tbs: &'a [u8],
    algorithm: Algorithm,
    signature: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    spki: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(der: &'a [u8]) -> Option<Self> {
        let [tbs, algorithm, signature] = elements(content(SEQUENCE, der)?)?[..] else {
            return None;
        };
        let signature = content(BIT_STRING, signature)?.strip_prefix(&[0])?;
        let fields = elements(content(SEQUENCE, tbs)?)?;
        let [version, _serial, _algorithm, issuer, _validity, subject, spki, ..] = fields[..]
        else {
            return None;
        };
        // Without it everything is one place further to the front, and it is no version 3.
        version.starts_with(&[VERSION_TAG]).then_some(())?;
        let algorithm = Algorithm::parse(algorithm)?;
        Some(Self { tbs, algorithm, signature, issuer, subject, spki })
    }
}

impl Extensions {
    fn read(all: Option<&[Extension]>) -> Result<Self, Flaw> {
        let mut found = Self::default();
        let Some(all) = all else { return Ok(found) };
        if all.is_empty() {
            return Err(Flaw::EmptySequence { field: "extensions" });
        }
        for (index, extension) in all.iter().enumerate() {
            let oid = extension.extn_id;
            if all[..index].iter().any(|earlier| earlier.extn_id == oid) {
                return Err(Flaw::RepeatedExtension { extension: oid });
            }
            let value = extension.extn_value.as_bytes();
            sized::check_extension(oid, value)?;
            found.take(oid, value, extension.critical)?;
        }
        Ok(found)
    }

    fn take(&mut self, oid: ObjectIdentifier, value: &[u8], critical: bool) -> Result<(), Flaw> {
        match oid {
            AUTHORITY_KEY_ID => self.authority_key_id = authority_key_id(value),
            BASIC_CONSTRAINTS => {
                let BasicConstraints { ca, path_len_constraint } = decoded(value)?;
                (self.is_ca, self.path_len_max) = (ca, path_len_constraint);
            }
            // Which policies a vendor follows is for who trusts its root to know: any will do
            // (RFC 5280 §6.1.1, user-initial-policy-set = any-policy).
            CERTIFICATE_POLICIES => {}
            EXT_KEY_USAGE => self.purposes = Some(decoded::<ExtendedKeyUsage>(value)?.0),
            KEY_USAGE => self.key_usage = Some(decoded(value)?),
            SUBJECT_ALT_NAME => self.tpm = directory_names(value)?,
            SUBJECT_KEY_ID => {
                self.subject_key_id = content(OCTET_STRING, value).map(<[u8]>::to_vec)
            }
            unknown if critical => self.unknown = self.unknown.or(Some(unknown)),
            _ => {}
        }
        Ok(())
    }
}

fn decoded<'a, T: Decode<'a>>(value: &'a [u8]) -> Result<T, Flaw> {
    T::from_der(value).map_err(|_| Flaw::Malformed)
}

/// The keyIdentifier, `[0]`, of an `AuthorityKeyIdentifier` (RFC 5280 §4.2.1.1).
fn authority_key_id(value: &[u8]) -> Option<Vec<u8>> {
    let fields = elements(content(SEQUENCE, value)?)?;
    fields.into_iter().find_map(|field| content(KEY_ID, field)).map(<[u8]>::to_vec)
}

/// The attributes of a TPM in the directoryNames of `GeneralNames`.
fn directory_names(value: &[u8]) -> Result<Vec<(Field, Option<String>)>, Flaw> {
    let names = content(SEQUENCE, value).and_then(elements).ok_or(Flaw::Malformed)?;
    let mut found = Vec::new();
    for name in names.into_iter().filter_map(|name| content(DIRECTORY_NAME, name)) {
        found.extend(tpm_attributes(&decoded(name)?));
    }
    Ok(found)
}

fn tpm_attributes(name: &Name) -> Vec<(Field, Option<String>)> {
    let attributes = name.0.iter().flat_map(|rdn| rdn.0.iter());
    let of_tpm = attributes.filter_map(|attribute| {
        let (_, field) = TPM_ATTRIBUTES.into_iter().find(|(oid, _)| *oid == attribute.oid)?;
        Some((field, text(&attribute.value)))
    });
    of_tpm.collect()
}

fn text(value: &Any) -> Option<String> {
    let is_text = matches!(value.tag(), Tag::Ia5String | Tag::PrintableString | Tag::Utf8String);
    let text = str::from_utf8(value.value()).ok().filter(|_| is_text);
    text.map(str::to_owned)
}

fn validity(found: x509_cert::time::Validity) -> Validity {
    let wall = |time: x509_cert::time::Time| Wall(time.to_unix_duration().as_secs());
    Validity { not_before: wall(found.not_before), not_after: wall(found.not_after) }
}

/// A name for people: RFC 4514, all that is not printable ASCII escaped, and not endless.
fn name_text(name: &Name) -> String {
    let text = name.to_string();
    let escaped = text.chars().flat_map(char::escape_default).take(NAME_TEXT_LEN_MAX);
    escaped.collect()
}
