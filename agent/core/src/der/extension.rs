use ::der::asn1::ObjectIdentifier;
use ::der::{Reader as _, SliceReader, Tag, TagNumber};

use super::certificate::Part;
use super::{content, context_primitive, inside, only};

const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// `dNSName`, `[2] IMPLICIT IA5String`.
const DNS_NAME: Tag = context_primitive(TagNumber::N2);

/// `uniformResourceIdentifier`, `[6] IMPLICIT IA5String`.
const URI: Tag = context_primitive(TagNumber::N6);

/// What a key may be used for in TLS (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `id-kp-clientAuth`.
    ClientAuth,
    /// `id-kp-serverAuth`.
    ServerAuth,
}

/// The extensions that a device acts on; lists are the content of their SEQUENCE, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions<'a> {
    pub(super) alternative_names: Option<&'a [u8]>,
    pub(super) authority: Option<bool>,
    pub(super) authority_key_id: Option<&'a [u8]>,
    pub(super) subject_key_id: Option<&'a [u8]>,
    purposes: Option<&'a [u8]>,
    has_authority_key_id: bool,
}

impl<'a> Extensions<'a> {
    /// Reads a list of extensions; an `Err` is the part that is wrong.
    pub(super) fn parse(mut list: SliceReader<'a>) -> Result<Self, Part> {
        let mut extensions = Self::default();
        loop {
            let (kind, value) = read_extension(&mut list).ok_or(Part::Extensions)?;
            extensions.take(kind, value)?;
            if list.is_finished() {
                return Ok(extensions);
            }
        }
    }

    fn take(&mut self, kind: ObjectIdentifier, value: &'a [u8]) -> Result<(), Part> {
        match kind {
            AUTHORITY_KEY_ID => {
                if core::mem::replace(&mut self.has_authority_key_id, true) {
                    return Err(Part::Extensions);
                }
                self.authority_key_id = read_authority_key_id(value).ok_or(Part::AuthorityKeyId)?;
                Ok(())
            }
            BASIC_CONSTRAINTS => {
                put(&mut self.authority, read_authority(value).ok_or(Part::BasicConstraints)?)
            }
            EXTENDED_KEY_USAGE => {
                put(&mut self.purposes, read_purposes(value).ok_or(Part::ExtendedKeyUsage)?)
            }
            SUBJECT_ALT_NAME => {
                put(&mut self.alternative_names, read_names(value).ok_or(Part::SubjectAltName)?)
            }
            SUBJECT_KEY_ID => {
                let key_id = only(value, Tag::OctetString).ok_or(Part::SubjectKeyId)?;
                put(&mut self.subject_key_id, key_id)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn has_purpose(&self, purpose: Purpose) -> bool {
        let wanted = match purpose {
            Purpose::ClientAuth => CLIENT_AUTH,
            Purpose::ServerAuth => SERVER_AUTH,
        };
        let Ok(mut list) = SliceReader::new(self.purposes.unwrap_or_default()) else {
            return false;
        };
        core::iter::from_fn(|| list.decode().ok()).any(|found: ObjectIdentifier| found == wanted)
    }
}

/// RFC 5280 §4.2: a certificate has each extension once, at most.
fn put<T>(slot: &mut Option<T>, value: T) -> Result<(), Part> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Part::Extensions),
    }
}

/// RFC 5280 §4.1: the identifier and the content of `extnValue`. Whether it is critical is asked
/// by those who validate paths.
fn read_extension<'a>(list: &mut SliceReader<'a>) -> Option<(ObjectIdentifier, &'a [u8])> {
    let mut fields = SliceReader::new(content(list, Tag::Sequence)?).ok()?;
    let kind = fields.decode().ok()?;
    if fields.peek_tag().ok()? == Tag::Boolean {
        fields.decode::<bool>().ok()?;
    }
    let value = content(&mut fields, Tag::OctetString)?;
    fields.is_finished().then_some((kind, value))
}

/// RFC 5280 §4.2.1.1: `keyIdentifier`, `[0] IMPLICIT OCTET STRING`, which may be absent; issuer
/// and serial number may follow.
fn read_authority_key_id(value: &[u8]) -> Option<Option<&[u8]>> {
    const KEY_IDENTIFIER: Tag = context_primitive(TagNumber::N0);
    let mut fields = inside(value, Tag::Sequence)?;
    if fields.is_finished() || fields.peek_tag().ok()? != KEY_IDENTIFIER {
        return Some(None);
    }
    content(&mut fields, KEY_IDENTIFIER).map(Some)
}

/// RFC 5280 §4.2.1.9: `cA BOOLEAN DEFAULT FALSE`; a path length may follow.
fn read_authority(value: &[u8]) -> Option<bool> {
    let mut fields = inside(value, Tag::Sequence)?;
    if fields.is_finished() || fields.peek_tag().ok()? != Tag::Boolean {
        return Some(false);
    }
    fields.decode().ok()
}

/// RFC 5280 §4.2.1.12: at least one identifier.
fn read_purposes(value: &[u8]) -> Option<&[u8]> {
    let list = only(value, Tag::Sequence)?;
    let mut purposes = SliceReader::new(list).ok()?;
    loop {
        purposes.decode::<ObjectIdentifier>().ok()?;
        if purposes.is_finished() {
            return Some(list);
        }
    }
}

/// RFC 5280 §4.2.1.6: at least one name; those that we read are ASCII.
fn read_names(value: &[u8]) -> Option<&[u8]> {
    let list = only(value, Tag::Sequence)?;
    let mut names = SliceReader::new(list).ok()?;
    loop {
        let tag = names.peek_tag().ok()?;
        let name = content(&mut names, tag)?;
        if matches!(tag, DNS_NAME | URI) && !name.is_ascii() {
            return None;
        }
        if names.is_finished() {
            return Some(list);
        }
    }
}

/// The subject's alternative names of one kind, in the order of the certificate.
#[derive(Clone, Debug)]
pub struct GeneralNames<'a> {
    rest: Option<SliceReader<'a>>,
    kind: Tag,
}

impl<'a> GeneralNames<'a> {
    pub(super) fn dns_names(list: Option<&'a [u8]>) -> Self {
        Self { rest: list.and_then(|list| SliceReader::new(list).ok()), kind: DNS_NAME }
    }

    pub(super) fn uris(list: Option<&'a [u8]>) -> Self {
        Self { rest: list.and_then(|list| SliceReader::new(list).ok()), kind: URI }
    }
}

impl<'a> Iterator for GeneralNames<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.as_mut()?;
        loop {
            let tag = rest.peek_tag().ok()?;
            let name = content(rest, tag)?;
            if tag == self.kind {
                return core::str::from_utf8(name).ok();
            }
        }
    }
}
