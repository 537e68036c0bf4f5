//! Endorsement keys: the key that a TPM's maker vouches for, as the TCG's profile lays it out.
//!
//! An endorsement key is not stored: the TPM makes it anew from its secret seed and a template,
//! the same key each time. The maker's certificate is about the key that comes out; so everything
//! in the template counts, down to the octets of the unique field, and makers may leave a nonce or
//! a whole template of their own beside the certificate. (TCG EK Credential Profile for TPM
//! Family 2.0, version 2.5, §2.2.1 and Annex B.3 and B.4.)

pub(crate) mod certificate;
pub(crate) mod policy;

use core::fmt;

use tpm2_protocol::data::{TpmAlgId, TpmEccCurve};

use crate::command::{Handle, Writer};
use crate::hash::HashAlg;
use crate::reader::Parts;

use self::policy::EkPolicy;

/// Octets of an endorsement key's public area, at most: RSA-4096 in the high range takes 590.
pub const EK_AREA_LEN_MAX: usize = 592;

/// The first and the last NV index that may hold a certificate of an issuer.
pub(crate) const CHAIN: (Handle, Handle) = (Handle(0x01C0_0100), Handle(0x01C0_01FF));

/// The first NV index of the profile's low range.
pub(crate) const FIRST_INDEX: Handle = Handle(0x01C0_0002);

/// Where the persistent handles of endorsement keys begin.
const PERSISTENT: u32 = 0x8101_0000;

/// `fixedTPM | fixedParent | sensitiveDataOrigin | adminWithPolicy | restricted | decrypt`
const LOW_RANGE: u32 = 0x0003_00B2;

/// `userWithAuth`, which the high range adds.
const USER_WITH_AUTH: u32 = 0x0000_0040;

/// A template of the profile, by its size and range; the profile's own name in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EkTemplate {
    /// P-256 in the low range (L-2).
    P256,
    /// P-256 in the high range (H-2).
    P256High,
    /// P-384 in the high range (H-3).
    P384High,
    /// P-521 in the high range (H-4).
    P521High,
    /// RSA-2048 in the low range (L-1).
    Rsa2048,
    /// RSA-2048 in the high range (H-1).
    Rsa2048High,
    /// RSA-3072 in the high range (H-6).
    Rsa3072High,
    /// RSA-4096 in the high range (H-7).
    Rsa4096High,
}

/// What the unique field of a template holds before the TPM fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unique<'a> {
    /// Nothing: the high range.
    Empty,
    /// Zeros of the key's size behind these octets: the low range, with a nonce or without.
    Padded(&'a [u8]),
}

impl EkTemplate {
    /// In the order in which they are tried: curves before RSA, of which a key takes a chip many
    /// seconds to make; among curves the shared low range first.
    pub const ALL: [Self; 8] = [
        Self::P256,
        Self::P384High,
        Self::P256High,
        Self::P521High,
        Self::Rsa2048,
        Self::Rsa2048High,
        Self::Rsa3072High,
        Self::Rsa4096High,
    ];

    /// The NV index of the certificate.
    #[must_use]
    pub const fn certificate(self) -> Handle {
        Handle(match self {
            Self::P256 => 0x01C0_000A,
            Self::P256High => 0x01C0_0014,
            Self::P384High => 0x01C0_0016,
            Self::P521High => 0x01C0_0018,
            Self::Rsa2048 => 0x01C0_0002,
            Self::Rsa2048High => 0x01C0_0012,
            Self::Rsa3072High => 0x01C0_001C,
            Self::Rsa4096High => 0x01C0_001E,
        })
    }

    /// The NV index of the nonce, in the low range.
    #[must_use]
    pub const fn nonce(self) -> Option<Handle> {
        if self.is_low() { Some(Handle(self.certificate().0 + 1)) } else { None }
    }

    /// The NV index of a template of the maker's own.
    #[must_use]
    pub const fn template(self) -> Handle {
        Handle(self.certificate().0 + if self.is_low() { 2 } else { 1 })
    }

    /// Where makers keep the key loaded, by convention only: anything may be there.
    #[must_use]
    pub const fn persistent(self) -> Handle {
        Handle(match self {
            Self::P256 => PERSISTENT + 2,
            Self::Rsa2048 => PERSISTENT + 1,
            _ => PERSISTENT + (self.certificate().0 & 0xFF),
        })
    }

    /// Whether it is of the low range: to be used by the endorsement hierarchy's password only.
    #[must_use]
    pub const fn is_low(self) -> bool {
        matches!(self, Self::P256 | Self::Rsa2048)
    }

    /// The algorithm of the key's Name, and of its policy.
    #[must_use]
    pub const fn name_alg(self) -> HashAlg {
        match self {
            Self::P256 | Self::P256High | Self::Rsa2048 | Self::Rsa2048High => HashAlg::Sha256,
            Self::P384High | Self::Rsa3072High | Self::Rsa4096High => HashAlg::Sha384,
            Self::P521High => HashAlg::Sha512,
        }
    }

    const fn policy(self) -> EkPolicy {
        if self.is_low() { EkPolicy::A(self.name_alg()) } else { EkPolicy::B(self.name_alg()) }
    }

    /// The unique field as the profile has it.
    pub(crate) const fn unique(self) -> Unique<'static> {
        if self.is_low() { Unique::Padded(&[]) } else { Unique::Empty }
    }

    /// The unique field as some makers have it: swtpm 0.7 fills it with zeros in the high range.
    pub(crate) const fn other_unique(self) -> Unique<'static> {
        if self.is_low() { Unique::Empty } else { Unique::Padded(&[]) }
    }

    const fn shape(self) -> Shape {
        match self {
            Self::P256 | Self::P256High => Shape::Ecc(TpmEccCurve::NistP256),
            Self::P384High => Shape::Ecc(TpmEccCurve::NistP384),
            Self::P521High => Shape::Ecc(TpmEccCurve::NistP521),
            Self::Rsa2048 | Self::Rsa2048High => Shape::Rsa { bits: 2048 },
            Self::Rsa3072High => Shape::Rsa { bits: 3072 },
            Self::Rsa4096High => Shape::Rsa { bits: 4096 },
        }
    }

    /// Writes the template, a `TPMT_PUBLIC`, to the front of `out`; returns its octets.
    pub(crate) fn write(self, unique: Unique<'_>, out: &mut [u8; EK_AREA_LEN_MAX]) -> usize {
        let mut writer = Writer::new(out);
        let attributes = if self.is_low() { LOW_RANGE } else { LOW_RANGE | USER_WITH_AUTH };
        let (shape, name_alg) = (self.shape(), self.name_alg());
        writer.u16(shape.kind() as u16).u16(name_alg.id()).u32(attributes);
        writer.sized(self.policy().digest());
        let aes_bits = if matches!(name_alg, HashAlg::Sha256) { 128 } else { 256 };
        writer.u16(TpmAlgId::Aes as u16).u16(aes_bits).u16(TpmAlgId::Cfb as u16);
        let no_scheme = TpmAlgId::Null as u16;
        match shape {
            Shape::Ecc(curve) => writer.u16(no_scheme).u16(curve as u16).u16(no_scheme),
            Shape::Rsa { bits } => writer.u16(no_scheme).u16(bits).u32(DEFAULT_EXPONENT),
        };
        shape.write_unique(unique, &mut writer);
        writer.len()
    }

    /// Puts `nonce` into the unique field of a template of the maker's, of `len` octets; returns
    /// the octets that it has then. `None` if it is no template of this key.
    pub(crate) fn write_nonce(
        self,
        nonce: &[u8],
        template: &mut [u8],
        len: usize,
    ) -> Option<usize> {
        let outline = Outline::of(template.get(..len)?)?;
        let unique_at = len - outline.unique.len();
        let shape = self.shape();
        if outline.kind != shape.kind() as u16 {
            return None;
        }
        let mut writer = Writer::new(template.get_mut(unique_at..)?);
        shape.write_unique(Unique::Padded(nonce), &mut writer);
        Some(unique_at + writer.finish().ok()?)
    }
}

/// The parts of an endorsement key's public area that a device looks at. What is between them has
/// the lengths that it has in every such key: it protects others by a block cipher, and has neither
/// a scheme nor a key derivation. Whether they are good ones is the provisioner's to judge.
pub(crate) struct Outline<'a> {
    kind: u16,
    pub(crate) name_alg: u16,
    attributes: u32,
    pub(crate) auth_policy: &'a [u8],
    unique: &'a [u8],
}

impl<'a> Outline<'a> {
    /// `None` for what is no such area.
    pub(crate) fn of(area: &'a [u8]) -> Option<Self> {
        const NO_SCHEME: u16 = TpmAlgId::Null as u16;
        const ECC: u16 = TpmAlgId::Ecc as u16;
        const RSA: u16 = TpmAlgId::Rsa as u16;
        let mut parts = Parts::new(area);
        let (kind, name_alg, attributes) = (parts.u16(), parts.u16(), parts.u32());
        let (auth_policy, _symmetric, scheme) = (parts.sized(), parts.take(6), parts.u16());
        let _curve_or_size = match kind {
            ECC => parts.take(4),
            RSA => parts.take(6),
            _ => return None,
        };
        let unique = parts.rest();
        let outline = Self { kind, name_alg, attributes, auth_policy, unique };
        (parts.is_whole() && scheme == NO_SCHEME).then_some(outline)
    }

    /// Whether its password allows its use.
    pub(crate) const fn has_password(&self) -> bool {
        self.attributes & USER_WITH_AUTH != 0
    }

    /// The numbers of the key itself, big-endian: the modulus, and nothing; or x and y.
    pub(crate) fn numbers(&self) -> Option<(&'a [u8], &'a [u8])> {
        let mut parts = Parts::new(self.unique);
        let first = parts.sized();
        let second = if self.is_rsa() { &[] } else { parts.sized() };
        parts.is_used_up().then_some((first, second))
    }

    pub(crate) const fn is_rsa(&self) -> bool {
        self.kind == TpmAlgId::Rsa as u16
    }
}

/// The exponent of 65537, as it is written in a template.
const DEFAULT_EXPONENT: u32 = 0;

/// The size of a key.
#[derive(Clone, Copy)]
enum Shape {
    Ecc(TpmEccCurve),
    Rsa { bits: u16 },
}

impl Shape {
    const fn kind(self) -> TpmAlgId {
        match self {
            Self::Ecc(_) => TpmAlgId::Ecc,
            Self::Rsa { .. } => TpmAlgId::Rsa,
        }
    }

    /// Octets of a part of the unique field.
    fn part_len(self) -> usize {
        match self {
            Self::Ecc(TpmEccCurve::NistP384) => 48,
            Self::Ecc(TpmEccCurve::NistP521) => 66,
            Self::Ecc(_) => 32,
            Self::Rsa { bits } => usize::from(bits / 8),
        }
    }

    /// The profile puts a nonce in front: of the modulus, or of x.
    fn write_unique(self, unique: Unique<'_>, writer: &mut Writer<'_>) {
        let parts = match self {
            Self::Ecc(_) => 2,
            Self::Rsa { .. } => 1,
        };
        for part in 0..parts {
            match unique {
                Unique::Empty => writer.sized(&[]),
                Unique::Padded(nonce) if part == 0 => writer.padded(nonce, self.part_len()),
                Unique::Padded(_) => writer.padded(&[], self.part_len()),
            };
        }
    }
}

impl fmt::Display for EkTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256 (L-2)",
            Self::P256High => "P-256 (H-2)",
            Self::P384High => "P-384 (H-3)",
            Self::P521High => "P-521 (H-4)",
            Self::Rsa2048 => "RSA-2048 (L-1)",
            Self::Rsa2048High => "RSA-2048 (H-1)",
            Self::Rsa3072High => "RSA-3072 (H-6)",
            Self::Rsa4096High => "RSA-4096 (H-7)",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::public::{Attribute, Key, PublicArea};
    use crate::testing::hex;

    /// The keys that swtpm_setup 0.7.1 made, up to what the TPM filled in.
    const MADE: [(EkTemplate, &str); 2] = [
        (
            EkTemplate::P384High,
            "0023000c000300f20030b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb\
             47ba09699646150f9fc000f3f80e1200060100004300100004001000",
        ),
        (
            EkTemplate::Rsa2048,
            "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00\
             0600800043001008000000000001000000",
        ),
    ];

    fn written(template: EkTemplate, unique: Unique<'_>) -> Vec<u8> {
        let mut out = [0; EK_AREA_LEN_MAX];
        let len = template.write(unique, &mut out);
        out[..len].to_vec()
    }

    /// Goal: templates are what a maker's tool asks for, and all of them are public areas.
    #[test]
    fn templates_are_those_of_the_makers() {
        for (template, head) in MADE {
            let written = written(template, Unique::Padded(&[]));
            assert!(written.starts_with(&hex(head)), "{template}");
        }
        for template in EkTemplate::ALL {
            let written = written(template, Unique::Padded(&[]));
            let area = PublicArea::parse(&written).unwrap();
            assert_eq!(area.name_alg, template.name_alg(), "{template}");
            assert_eq!(area.auth_policy.len(), template.name_alg().digest_len(), "{template}");
        }
    }

    /// Goal: a nonce goes into the unique field of whatever template there is, and nowhere else.
    #[test]
    fn a_nonce_fills_the_unique_field() {
        for (template, unique_len) in [(EkTemplate::P256, 68), (EkTemplate::Rsa2048, 258)] {
            for unique in [Unique::Padded(&[]), Unique::Empty] {
                let mut area = [0xEE; EK_AREA_LEN_MAX];
                let len = template.write(unique, &mut area);
                let len = template.write_nonce(&[0x42; 20], &mut area, len).unwrap();
                let expected = written(template, Unique::Padded(&[0x42; 20]));
                assert_eq!(area[..len], expected);
                let at = len - unique_len + 2;
                assert_eq!(area[at..at + 20], [0x42; 20]);
                assert!(area[at + 20..at + 32].iter().all(|&octet| octet == 0));
            }
        }
        let mut other = [0; EK_AREA_LEN_MAX];
        let len = EkTemplate::P256.write(Unique::Empty, &mut other);
        assert_eq!(EkTemplate::Rsa2048.write_nonce(&[1], &mut other, len), None);
        assert_eq!(EkTemplate::P256.write_nonce(&[1], &mut other, 30), None);
    }

    /// Goal: no two templates share an index or a handle.
    #[test]
    fn templates_have_places_of_their_own() {
        let mut places: Vec<_> = EkTemplate::ALL
            .iter()
            .flat_map(|template| {
                let nv = [Some(template.certificate()), template.nonce()];
                nv.into_iter().flatten().chain([template.template(), template.persistent()])
            })
            .collect();
        let all = places.len();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), all);
        assert_eq!(EkTemplate::P384High.persistent(), Handle(0x8101_0016));
    }

    /// Goal: there is room for every template, and the longest nonce in it.
    #[test]
    fn every_template_is_written_whole() {
        for template in EkTemplate::ALL {
            for unique in [Unique::Empty, Unique::Padded(&[]), Unique::Padded(&[7; 1000])] {
                let mut out = [0; EK_AREA_LEN_MAX];
                assert!(template.write(unique, &mut out) <= EK_AREA_LEN_MAX, "{template}");
            }
        }
    }

    /// Goal: the outline of a public area is what a verifier reads in it, and that of anything else
    /// is none.
    #[test]
    fn an_outline_is_what_a_verifier_reads() {
        for template in EkTemplate::ALL {
            let octets = written(template, Unique::Padded(&[9; 32]));
            let (outline, area) =
                (Outline::of(&octets).unwrap(), PublicArea::parse(&octets).unwrap());
            assert_eq!(outline.name_alg, area.name_alg.id());
            assert_eq!(outline.auth_policy, area.auth_policy);
            assert_eq!(outline.has_password(), area.attributes.has(Attribute::UserWithAuth));
            assert_eq!(outline.has_password(), !template.is_low());
            let numbers = match area.key {
                Key::Ecc { x, y, .. } => (x, y),
                Key::Rsa { modulus, .. } => (modulus, &[][..]),
            };
            assert_eq!(outline.numbers(), Some(numbers));
            let head = octets.len() - outline.unique.len();
            for len in 0..octets.len() {
                let outline = Outline::of(&octets[..len]);
                assert_eq!(outline.is_some(), len >= head, "{template}, {len} octets");
                assert_eq!(outline.and_then(|outline| outline.numbers()), None, "{len} octets");
            }
            let trailing = [&octets[..], &[0]].concat();
            assert_eq!(Outline::of(&trailing).and_then(|outline| outline.numbers()), None);
            // The type, and the scheme in front of what the kind of key has of its own.
            let scheme_at = head - if outline.is_rsa() { 8 } else { 6 };
            for at in [0, scheme_at] {
                let mut other = octets.clone();
                other[at] ^= 0x80;
                assert!(Outline::of(&other).is_none(), "{template}, octet {at}");
            }
        }
    }
}
