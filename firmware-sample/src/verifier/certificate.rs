//! What webpki does not look at in a certificate: key usage, and whether its extensions are a list
//! as RFC 5280 wants it.

use fleetcert_core::der::reader::{Reader, Tag};
use fleetcert_core::time::Validity;
use rustls_pki_types::{TrustAnchor, alg_id};

use super::Refusal;
use crate::ecdsa::{POINT_LEN, point};

/// Extensions of one certificate, at most: ours have seven. Looking for doubled ones takes the
/// square of their number.
const EXTENSIONS_MAX: usize = 16;

/// `id-ce-extKeyUsage`, content octets (RFC 5280 §4.2.1.12).
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];

/// `id-ce-keyUsage`, content octets (RFC 5280 §4.2.1.3).
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

/// `id-ce-nameConstraints`, content octets (RFC 5280 §4.2.1.10).
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];

/// The arc of RSA's algorithms, PKCS #1: content octets.
const PKCS_1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];

/// `extensions [3]` (RFC 5280 §4.1).
const EXTENSIONS: Tag = Tag::context(3);

/// What a certificate is in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It signs other certificates.
    Issuer,
    /// It is the server's.
    Server,
}

/// The parts of a certificate that are looked at here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline<'a> {
    algorithm: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
    spki: &'a [u8],
    extensions: Option<&'a [u8]>,
}

/// One entry of the list of extensions.
struct Extension<'a> {
    kind: &'a [u8],
    value: &'a [u8],
}

/// What a list of extensions says of the key's use.
#[derive(Clone, Copy, Default)]
struct Usages<'a> {
    key_usage: Option<KeyUsage>,
    has_purpose: bool,
    name_constraints: Option<&'a [u8]>,
}

/// The bits of a key usage.
#[derive(Clone, Copy)]
struct KeyUsage {
    is_for_signatures: bool,
    is_for_certificates: bool,
}

impl<'a> Outline<'a> {
    /// Reads the certificate that `der` is.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut outer = all(der, Tag::SEQUENCE)?;
        let mut fields = outer.enter(Tag::SEQUENCE)?;
        let algorithm = outer.content(Tag::SEQUENCE)?;
        fields.element()?; // version; webpki wants it to be there and to be 3
        fields.element()?; // serialNumber
        fields.element()?; // signature
        fields.element()?; // issuer
        let validity = fields.content(Tag::SEQUENCE)?;
        let subject = fields.content(Tag::SEQUENCE)?;
        let spki = fields.content(Tag::SEQUENCE)?;
        let extensions = match fields.is_finished() {
            true => None,
            false => Some(fields.content(EXTENSIONS)?),
        };
        Some(Self { algorithm, validity, subject, spki, extensions })
    }

    /// Checks the list of extensions, and in it whether the key may do what `role` does.
    ///
    /// RFC 5280 §4.2.1.3: without a key usage, a server's key may be used for anything; an issuer
    /// must have one. §4.2.1.12: without an extended key usage it may, too; ours must say what it
    /// is for. (What it says webpki has read.)
    pub(super) fn check(&self, role: Role) -> Result<(), Refusal> {
        let found = self.usages()?;
        match (role, found.key_usage) {
            (Role::Issuer, Some(usage)) if usage.is_for_certificates => Ok(()),
            (Role::Issuer, _) => Err(Refusal::KeyUsageIssuer),
            (Role::Server, _) if !found.has_purpose => Err(Refusal::ServerAuthMissing),
            // §4.2.1.9: who is no authority must not have the bit of one.
            (Role::Server, Some(usage)) if usage.is_for_certificates => {
                Err(Refusal::KeyUsageServer)
            }
            (Role::Server, Some(usage)) if !usage.is_for_signatures => Err(Refusal::KeyUsageServer),
            (Role::Server, _) => Ok(()),
        }
    }

    /// What webpki takes for an anchor: contents without their headers. RFC 5280 §6.1.1, (d), and
    /// the names that the anchor constrains what is below it to.
    ///
    /// webpki would read the certificate once more, by code that is for anchors alone.
    pub(super) fn anchor(&self) -> Option<TrustAnchor<'a>> {
        let name_constraints = self.usages().ok()?.name_constraints.map(Into::into);
        let (subject, subject_public_key_info) = (self.subject.into(), self.spki.into());
        Some(TrustAnchor { subject, subject_public_key_info, name_constraints })
    }

    fn usages(&self) -> Result<Usages<'a>, Refusal> {
        let mut usages = Usages::default();
        let Some(extensions) = self.extensions else { return Ok(usages) };
        let mut kinds = heapless::Vec::<&[u8], EXTENSIONS_MAX>::new();
        let mut list = all(extensions, Tag::SEQUENCE).ok_or(Refusal::ExtensionsMalformed)?;
        loop {
            let extension = Extension::read(&mut list).ok_or(Refusal::ExtensionsMalformed)?;
            if kinds.contains(&extension.kind) || kinds.push(extension.kind).is_err() {
                return Err(Refusal::ExtensionsMalformed);
            }
            usages.take(&extension).ok_or(Refusal::ExtensionsMalformed)?;
            if list.is_finished() {
                return Ok(usages);
            }
        }
    }

    /// RFC 5480 §2: the point, if the key is one on P-256.
    pub(super) fn point(&self) -> Option<[u8; POINT_LEN]> {
        let mut fields = Reader::new(self.spki);
        if fields.content(Tag::SEQUENCE)? != alg_id::ECDSA_P256.as_ref() {
            return None;
        }
        let key = fields.octets_of_bits()?;
        fields.is_finished().then(|| point(key))?
    }

    /// Whether RSA has signed it, or its key is one of RSA.
    pub(super) fn is_rsa(&self) -> bool {
        let of = |algorithm: &[u8]| {
            let kind = Reader::new(algorithm).content(Tag::OBJECT_IDENTIFIER);
            kind.is_some_and(|kind| kind.starts_with(PKCS_1))
        };
        let key = Reader::new(self.spki).content(Tag::SEQUENCE);
        of(self.algorithm) || key.is_some_and(of)
    }

    /// RFC 5280 §4.1.2.5.
    pub(super) fn validity(&self) -> Option<Validity> {
        let mut fields = Reader::new(self.validity);
        Some(Validity { not_before: fields.time()?, not_after: fields.time()? })
    }
}

impl<'a> Extension<'a> {
    /// RFC 5280 §4.1; whether an unknown one is critical is webpki's to ask.
    fn read(list: &mut Reader<'a>) -> Option<Self> {
        let mut fields = list.enter(Tag::SEQUENCE)?;
        let kind = fields.content(Tag::OBJECT_IDENTIFIER)?;
        if fields.peek()? == Tag::BOOLEAN {
            fields.element()?;
        }
        let value = fields.content(Tag::OCTET_STRING)?;
        fields.is_finished().then_some(Self { kind, value })
    }
}

impl<'a> Usages<'a> {
    fn take(&mut self, extension: &Extension<'a>) -> Option<()> {
        match extension.kind {
            EXTENDED_KEY_USAGE => self.has_purpose = true,
            KEY_USAGE => self.key_usage = Some(KeyUsage::read(extension.value)?),
            NAME_CONSTRAINTS => {
                self.name_constraints = Some(Reader::new(extension.value).content(Tag::SEQUENCE)?);
            }
            _ => {}
        }
        Some(())
    }
}

impl KeyUsage {
    /// RFC 5280 §4.2.1.3: a BIT STRING with at least one bit set.
    fn read(value: &[u8]) -> Option<Self> {
        const DIGITAL_SIGNATURE: u8 = 0x80;
        const KEY_CERT_SIGN: u8 = 0x04;
        let mut reader = Reader::new(value);
        let (_, bits) = reader.bits().filter(|_| reader.is_finished())?;
        let (first, rest) = bits.split_first()?;
        let is_any_set = *first != 0 || rest.iter().any(|octet| *octet != 0);
        is_any_set.then_some(Self {
            is_for_signatures: first & DIGITAL_SIGNATURE != 0,
            is_for_certificates: first & KEY_CERT_SIGN != 0,
        })
    }
}

/// The elements inside the element with this tag that `der` is.
fn all(der: &[u8], tag: Tag) -> Option<Reader<'_>> {
    let mut reader = Reader::new(der);
    reader.enter(tag).filter(|_| reader.is_finished())
}
