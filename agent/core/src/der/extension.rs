use super::certificate::Part;
use super::reader::{Reader, Tag};
use super::{inside, only};

// Identifiers, content octets (RFC 5280 §4.2.1).

const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];

/// `dNSName`, `[2] IMPLICIT IA5String`.
const DNS_NAME: Tag = Tag::context_primitive(2);

/// `uniformResourceIdentifier`, `[6] IMPLICIT IA5String`.
const URI: Tag = Tag::context_primitive(6);

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
    pub(super) fn parse(mut list: Reader<'a>) -> Result<Self, Part> {
        let mut extensions = Self::default();
        loop {
            let (kind, value) = read_extension(&mut list).ok_or(Part::Extensions)?;
            extensions.take(kind, value)?;
            if list.is_finished() {
                return Ok(extensions);
            }
        }
    }

    fn take(&mut self, kind: &[u8], value: &'a [u8]) -> Result<(), Part> {
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
                let key_id = only(value, Tag::OCTET_STRING).ok_or(Part::SubjectKeyId)?;
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
        let mut list = Reader::new(self.purposes.unwrap_or_default());
        core::iter::from_fn(|| list.identifier()).any(|found| found == wanted)
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
fn read_extension<'a>(list: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut fields = list.enter(Tag::SEQUENCE)?;
    let kind = fields.identifier()?;
    if fields.peek()? == Tag::BOOLEAN {
        fields.boolean()?;
    }
    let value = fields.content(Tag::OCTET_STRING)?;
    fields.is_finished().then_some((kind, value))
}

/// RFC 5280 §4.2.1.1: `keyIdentifier`, `[0] IMPLICIT OCTET STRING`, which may be absent; issuer
/// and serial number may follow.
fn read_authority_key_id(value: &[u8]) -> Option<Option<&[u8]>> {
    const KEY_IDENTIFIER: Tag = Tag::context_primitive(0);
    let mut fields = inside(value, Tag::SEQUENCE)?;
    if fields.is_finished() || fields.peek()? != KEY_IDENTIFIER {
        return Some(None);
    }
    fields.content(KEY_IDENTIFIER).map(Some)
}

/// RFC 5280 §4.2.1.9: `cA BOOLEAN DEFAULT FALSE`; a path length may follow.
fn read_authority(value: &[u8]) -> Option<bool> {
    let mut fields = inside(value, Tag::SEQUENCE)?;
    if fields.is_finished() || fields.peek()? != Tag::BOOLEAN {
        return Some(false);
    }
    fields.boolean()
}

/// RFC 5280 §4.2.1.12: at least one identifier.
fn read_purposes(value: &[u8]) -> Option<&[u8]> {
    let list = only(value, Tag::SEQUENCE)?;
    let mut purposes = Reader::new(list);
    loop {
        purposes.identifier()?;
        if purposes.is_finished() {
            return Some(list);
        }
    }
}

/// RFC 5280 §4.2.1.6: at least one name; those that we read are ASCII.
fn read_names(value: &[u8]) -> Option<&[u8]> {
    let list = only(value, Tag::SEQUENCE)?;
    let mut names = Reader::new(list);
    loop {
        let name = names.element()?;
        if matches!(name.tag, DNS_NAME | URI) && !name.content.is_ascii() {
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
    rest: Option<Reader<'a>>,
    kind: Tag,
}

impl<'a> GeneralNames<'a> {
    pub(super) fn dns_names(list: Option<&'a [u8]>) -> Self {
        Self { rest: list.map(Reader::new), kind: DNS_NAME }
    }

    pub(super) fn uris(list: Option<&'a [u8]>) -> Self {
        Self { rest: list.map(Reader::new), kind: URI }
    }
}

impl<'a> Iterator for GeneralNames<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.as_mut()?;
        loop {
            let name = rest.element()?;
            if name.tag == self.kind {
                return core::str::from_utf8(name.content).ok();
            }
        }
    }
}
