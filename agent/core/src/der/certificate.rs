use core::fmt;

use ::der::asn1::ObjectIdentifier;

use super::extension::{Extensions, GeneralNames, Purpose};
use super::inside;
use super::reader::{Element, Reader, Tag};
use crate::est::base64;
use crate::sha256::sha256;
use crate::time::Validity;
use crate::wire::SERIAL_LEN_MAX;

/// Octets of a certificate, at most.
///
/// A device leaf on P-256 takes about 600; one from a CA with an RSA key of 4096 bits, with all
/// the extensions that anybody has asked for, about 1700. Firmware reserves this for each slot.
pub const CERTIFICATE_LEN_MAX: usize = 2048;

/// Octets of a renewal identifier, at most, for a key identifier of 32 octets and the longest
/// serial number: 43, the full stop, and 27. What must hold any may have this size.
pub const RENEWAL_ID_LEN_MAX: usize = 71;

/// The content of the INTEGER that says X.509 version 3 (RFC 5280 §4.1.2.1).
const VERSION_3: u8 = 2;

/// `id-at-commonName`, 2.5.4.3, content octets.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// A certificate in a caller's buffer, read but not verified.
///
/// RFC 5280 §4.1. Of version 3 only, without the unique identifiers that §4.1.2.8 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    der: &'a [u8],
    to_be_signed: &'a [u8],
    serial: &'a [u8],
    issuer: &'a [u8],
    validity: Validity,
    subject: &'a [u8],
    spki: &'a [u8],
    extensions: Extensions<'a>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// Why bytes are no certificate that a device can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// Two algorithms are named for one signature (RFC 5280 §4.1.1.2).
    Algorithm,
    /// It is longer than [`CERTIFICATE_LEN_MAX`].
    Length {
        /// Its length, octets.
        found: usize,
    },
    /// A part is not what RFC 5280 and DER say, is missing, or something follows it.
    Malformed {
        /// Which part.
        part: Part,
    },
    /// The serial number is longer than [`SERIAL_LEN_MAX`].
    Serial {
        /// Its length, octets.
        found: usize,
    },
    /// It is of another version than 3.
    Version {
        /// The version number found, as people count: 1, 2, 4.
        found: u16,
    },
}

/// A part of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `signatureAlgorithm` or `signature`.
    Algorithm,
    /// The authority key identifier.
    AuthorityKeyId,
    /// The basic constraints.
    BasicConstraints,
    /// The extended key usage.
    ExtendedKeyUsage,
    /// The list of extensions, or one of them twice.
    Extensions,
    /// `issuer`.
    Issuer,
    /// The outermost SEQUENCE, `tbsCertificate`, or what follows either.
    Outline,
    /// `serialNumber`.
    Serial,
    /// `signatureValue`.
    Signature,
    /// `subject`.
    Subject,
    /// The subject alternative names.
    SubjectAltName,
    /// The subject key identifier.
    SubjectKeyId,
    /// `subjectPublicKeyInfo`.
    SubjectPublicKey,
    /// `validity`.
    Validity,
    /// `version`.
    Version,
}

/// Why a subject gives no common name that identifies a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonNameError {
    /// There is not exactly one.
    Count {
        /// How many there are.
        found: usize,
    },
    /// The name is not what RFC 5280 §4.1.2.4 says.
    Malformed,
    /// It is neither a UTF8String nor a PrintableString, or holds what such a string may not.
    Text,
}

/// Why there is no renewal identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewalIdError {
    /// The caller's buffer is too small.
    Buffer {
        /// The octets it has.
        found: usize,
        /// The octets it should have.
        needed: usize,
    },
    /// The certificate names no key of its authority.
    NoAuthorityKeyId,
}

impl<'a> Certificate<'a> {
    /// Octets of a certificate, at most.
    pub const MAX_LEN: usize = CERTIFICATE_LEN_MAX;

    /// Reads one certificate, which must be all of `der`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] names the first part that is wrong.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_LEN_MAX {
            return Err(CertificateError::Length { found: der.len() });
        }
        let mut outer = inside(der, Tag::SEQUENCE).ok_or(malformed(Part::Outline))?;
        let to_be_signed = outer.whole(Tag::SEQUENCE).ok_or(malformed(Part::Outline))?;
        let algorithm = read_algorithm(&mut outer)?;
        let signature = read_signature(&mut outer)?;
        end(&outer, Part::Outline)?;

        let mut fields = inside(to_be_signed, Tag::SEQUENCE).ok_or(malformed(Part::Outline))?;
        read_version(&mut fields)?;
        let serial = read_serial(&mut fields)?;
        let inner = read_algorithm(&mut fields)?;
        if inner != algorithm {
            return Err(CertificateError::Algorithm);
        }
        let certificate = Self {
            der,
            to_be_signed,
            serial,
            issuer: read_raw(&mut fields, Part::Issuer)?,
            validity: read_validity(&mut fields)?,
            subject: read_raw(&mut fields, Part::Subject)?,
            spki: read_raw(&mut fields, Part::SubjectPublicKey)?,
            extensions: read_extensions(&mut fields)?,
            algorithm,
            signature,
        };
        end(&fields, Part::Outline)?;
        Ok(certificate)
    }

    /// The whole certificate, DER.
    #[must_use]
    pub const fn as_der(&self) -> &'a [u8] {
        self.der
    }

    /// What the signature covers: `tbsCertificate`, DER with its header (RFC 5280 §4.1.1.1).
    #[must_use]
    pub const fn to_be_signed(&self) -> &'a [u8] {
        self.to_be_signed
    }

    /// The content octets of the serial number, 1 to [`SERIAL_LEN_MAX`] (RFC 5280 §4.1.2.2).
    #[must_use]
    pub const fn serial(&self) -> &'a [u8] {
        self.serial
    }

    /// The issuer's name, DER with its header.
    #[must_use]
    pub const fn issuer(&self) -> &'a [u8] {
        self.issuer
    }

    /// The subject's name, DER with its header.
    #[must_use]
    pub const fn subject(&self) -> &'a [u8] {
        self.subject
    }

    /// The subject's only common name: for a device, its id.
    ///
    /// Names are compared as what they are, never as flattened text: in `CN="a,OU=b"` there is
    /// one common name and no unit.
    ///
    /// # Errors
    ///
    /// [`CommonNameError`] if there is none, if there are two, or if it cannot be read.
    pub fn common_name(&self) -> Result<&'a str, CommonNameError> {
        let mut found = 0;
        let mut last = None;
        let mut name = inside(self.subject, Tag::SEQUENCE).ok_or(CommonNameError::Malformed)?;
        while !name.is_finished() {
            let mut attributes = name.enter(Tag::SET).ok_or(CommonNameError::Malformed)?;
            while !attributes.is_finished() {
                let value = read_attribute(&mut attributes).ok_or(CommonNameError::Malformed)?;
                if let (COMMON_NAME, value) = value {
                    found += 1;
                    last = Some(value);
                }
            }
        }
        match (found, last) {
            (1, Some(value)) => directory_text(value).ok_or(CommonNameError::Text),
            _ => Err(CommonNameError::Count { found }),
        }
    }

    /// When it is valid. The period may be inverted.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The subject's public key with its algorithm, DER with its header.
    #[must_use]
    #[doc(alias = "subjectPublicKeyInfo")]
    pub const fn spki(&self) -> &'a [u8] {
        self.spki
    }

    /// SHA-256 of [`Certificate::spki`]: the name of the key.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&[self.spki])
    }

    /// The algorithm of the signature, if it is one of those that can be written.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<ObjectIdentifier> {
        ObjectIdentifier::from_bytes(self.algorithm).ok()
    }

    /// The signature, content octets without the count of unused bits.
    #[must_use]
    pub const fn signature(&self) -> &'a [u8] {
        self.signature
    }

    /// The identifier of the authority's key, if it is given (RFC 5280 §4.2.1.1).
    #[must_use]
    #[doc(alias = "AKI")]
    pub const fn authority_key_id(&self) -> Option<&'a [u8]> {
        self.extensions.authority_key_id
    }

    /// The identifier of the subject's key, if it is given (RFC 5280 §4.2.1.2).
    #[must_use]
    #[doc(alias = "SKI")]
    pub const fn subject_key_id(&self) -> Option<&'a [u8]> {
        self.extensions.subject_key_id
    }

    /// The URIs among the subject's alternative names (RFC 5280 §4.2.1.6).
    #[must_use]
    pub fn uris(&self) -> GeneralNames<'a> {
        GeneralNames::uris(self.extensions.alternative_names)
    }

    /// The DNS names among the subject's alternative names (RFC 5280 §4.2.1.6).
    #[must_use]
    pub fn dns_names(&self) -> GeneralNames<'a> {
        GeneralNames::dns_names(self.extensions.alternative_names)
    }

    /// Whether the extended key usage names this purpose (RFC 5280 §4.2.1.12).
    ///
    /// Without the extension, or with `anyExtendedKeyUsage`, it names none: we issue for purposes.
    #[must_use]
    pub fn is_for(&self, purpose: Purpose) -> bool {
        self.extensions.has_purpose(purpose)
    }

    /// Whether it may sign certificates: `cA` of the basic constraints (RFC 5280 §4.2.1.9).
    #[must_use]
    pub const fn is_authority(&self) -> bool {
        matches!(self.extensions.authority, Some(true))
    }

    /// The certificate's name for renewal hints, written to `out` (RFC 9773 §4.1).
    ///
    /// # Errors
    ///
    /// [`RenewalIdError`] without an authority key identifier, or if `out` is too small:
    /// [`RENEWAL_ID_LEN_MAX`] octets do for key identifiers of up to 32.
    pub fn renewal_id<'o>(&self, out: &'o mut [u8]) -> Result<&'o str, RenewalIdError> {
        let key_id = self.authority_key_id().ok_or(RenewalIdError::NoAuthorityKeyId)?;
        renewal_id(key_id, self.serial, out)
    }
}

/// base64url of an authority key identifier, a full stop, and base64url of a serial number's
/// content octets, both without padding (RFC 9773 §4.1).
///
/// # Errors
///
/// [`RenewalIdError::Buffer`] if `out` is too small.
pub fn renewal_id<'o>(
    authority_key_id: &[u8],
    serial: &[u8],
    out: &'o mut [u8],
) -> Result<&'o str, RenewalIdError> {
    let stop = digits(authority_key_id.len());
    let needed = stop + 1 + digits(serial.len());
    let too_small = RenewalIdError::Buffer { found: out.len(), needed };
    let out = out.get_mut(..needed).ok_or(too_small)?;
    let (key_id, rest) = out.split_at_mut(stop);
    write_base64url(authority_key_id, key_id);
    if let Some((stop, serial_out)) = rest.split_first_mut() {
        *stop = b'.';
        write_base64url(serial, serial_out);
    }
    core::str::from_utf8(out).map_err(|_| too_small)
}

/// Digits of `len` octets in base64 without padding.
const fn digits(len: usize) -> usize {
    (len * 4).div_ceil(3)
}

/// RFC 4648 §5, without padding, to a place of so many [`digits`].
fn write_base64url(octets: &[u8], place: &mut [u8]) {
    for (octets, place) in octets.chunks(3).zip(place.chunks_mut(4)) {
        for (digit, place) in base64::quartet(octets).into_iter().zip(place) {
            *place = match digit {
                b'+' => b'-',
                b'/' => b'_',
                _ => digit,
            };
        }
    }
}

const fn malformed(part: Part) -> CertificateError {
    CertificateError::Malformed { part }
}

fn end(reader: &Reader<'_>, part: Part) -> Result<(), CertificateError> {
    if reader.is_finished() { Ok(()) } else { Err(malformed(part)) }
}

fn read_raw<'a>(reader: &mut Reader<'a>, part: Part) -> Result<&'a [u8], CertificateError> {
    reader.whole(Tag::SEQUENCE).ok_or(malformed(part))
}

/// RFC 5280 §4.1.1.2: an identifier and parameters, which the identifier gives a meaning.
fn read_algorithm<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CertificateError> {
    let identifier = reader.enter(Tag::SEQUENCE).and_then(|mut inside| inside.identifier());
    identifier.ok_or(malformed(Part::Algorithm))
}

/// RFC 5280 §4.1.1.3.
fn read_signature<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CertificateError> {
    reader.octets_of_bits().ok_or(malformed(Part::Signature))
}

/// RFC 5280 §4.1.2.1: absent says 1.
fn read_version(reader: &mut Reader<'_>) -> Result<(), CertificateError> {
    const EXPLICIT: Tag = Tag::context(0);
    if reader.peek() != Some(EXPLICIT) {
        return Err(CertificateError::Version { found: 1 });
    }
    let number = reader.content(EXPLICIT).and_then(|inside| super::only(inside, Tag::INTEGER));
    match number {
        Some([VERSION_3]) => Ok(()),
        Some([other]) => Err(CertificateError::Version { found: u16::from(*other) + 1 }),
        _ => Err(malformed(Part::Version)),
    }
}

/// RFC 5280 §4.1.2.2. A negative number or zero is a name like any other.
fn read_serial<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CertificateError> {
    let serial = reader.content(Tag::INTEGER).ok_or(malformed(Part::Serial))?;
    match serial {
        [] | [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(malformed(Part::Serial)),
        _ if serial.len() > SERIAL_LEN_MAX => Err(CertificateError::Serial { found: serial.len() }),
        _ => Ok(serial),
    }
}

/// RFC 5280 §4.1.2.5.
fn read_validity(reader: &mut Reader<'_>) -> Result<Validity, CertificateError> {
    let bad = malformed(Part::Validity);
    let mut times = reader.enter(Tag::SEQUENCE).ok_or(bad)?;
    let not_before = times.time().ok_or(bad)?;
    let not_after = times.time().ok_or(bad)?;
    end(&times, Part::Validity)?;
    Ok(Validity { not_before, not_after })
}

/// RFC 5280 §4.1.2.9: `[3] EXPLICIT`, and not empty.
fn read_extensions<'a>(reader: &mut Reader<'a>) -> Result<Extensions<'a>, CertificateError> {
    if reader.is_finished() {
        return Ok(Extensions::default());
    }
    let bad = malformed(Part::Extensions);
    let explicit = reader.content(Tag::context(3)).ok_or(bad)?;
    let list = inside(explicit, Tag::SEQUENCE).ok_or(bad)?;
    Extensions::parse(list).map_err(malformed)
}

/// RFC 5280 §4.1.2.4, `AttributeTypeAndValue`: the type, and the value.
fn read_attribute<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], Element<'a>)> {
    let mut pair = reader.enter(Tag::SEQUENCE)?;
    let kind = pair.identifier()?;
    let value = pair.element()?;
    pair.is_finished().then_some((kind, value))
}

/// RFC 5280 §4.1.2.4, `DirectoryString`, of the two kinds that a CA may still issue.
fn directory_text(value: Element<'_>) -> Option<&str> {
    let is_text = match value.tag {
        Tag::UTF8_STRING => true,
        Tag::PRINTABLE_STRING => value.content.iter().all(|octet| is_printable(*octet)),
        _ => false,
    };
    is_text.then(|| core::str::from_utf8(value.content).ok())?
}

/// X.680 §41.4.
const fn is_printable(octet: u8) -> bool {
    octet.is_ascii_alphanumeric()
        || matches!(octet, b' ' | b'\'' | b'(' | b')' | b'+'..=b'/' | b':' | b'=' | b'?')
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Algorithm => f.write_str("certificate names two algorithms for its signature"),
            Self::Length { found } => {
                write!(f, "certificate has {found} octets, at most {CERTIFICATE_LEN_MAX} may be")
            }
            Self::Malformed { part } => write!(f, "certificate has a malformed {part}"),
            Self::Serial { found } => {
                write!(f, "serial number has {found} octets, at most {SERIAL_LEN_MAX} may be")
            }
            Self::Version { found } => write!(f, "certificate has version {found}, not 3"),
        }
    }
}

impl core::error::Error for CertificateError {}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Algorithm => "signature algorithm",
            Self::AuthorityKeyId => "authority key identifier",
            Self::BasicConstraints => "basic constraints",
            Self::ExtendedKeyUsage => "extended key usage",
            Self::Extensions => "list of extensions",
            Self::Issuer => "issuer",
            Self::Outline => "outline",
            Self::Serial => "serial number",
            Self::Signature => "signature",
            Self::Subject => "subject",
            Self::SubjectAltName => "subject alternative name",
            Self::SubjectKeyId => "subject key identifier",
            Self::SubjectPublicKey => "public key",
            Self::Validity => "validity period",
            Self::Version => "version",
        })
    }
}

impl fmt::Display for CommonNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count { found } => write!(f, "subject has {found} common names, not one"),
            Self::Malformed => f.write_str("subject is not a distinguished name"),
            Self::Text => f.write_str("common name is not readable text"),
        }
    }
}

impl core::error::Error for CommonNameError {}

impl fmt::Display for RenewalIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buffer { found, needed } => {
                write!(f, "renewal identifier needs {needed} octets, there are {found}")
            }
            Self::NoAuthorityKeyId => {
                f.write_str("certificate has no authority key identifier to renew it by")
            }
        }
    }
}

impl core::error::Error for RenewalIdError {}

#[cfg(test)]
mod tests;
