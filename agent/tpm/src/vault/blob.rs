//! A key as it is stored outside of the TPM.
//!
//! `1 ‖ TPM2B_PUBLIC ‖ TPM2B_PRIVATE`: a version, the public area, and the private part as its TPM
//! wrapped it under the storage primary. It is worth nothing without that TPM. It may be read by
//! anybody; whoever changes it gets a key that does not load.

use core::fmt;

use crate::name::Name;
use crate::reader::Parts;
use crate::session::POINT_LEN;
use crate::template::{TEMPLATE_LEN_MAX, Template};

/// Octets of a stored key, at most; swtpm's take 219.
pub const KEY_BLOB_LEN_MAX: usize = 512;

/// The only version so far.
const VERSION: u8 = 1;

/// Octets of the empty unique field at the end of a template.
const EMPTY_UNIQUE_LEN: usize = 4;

/// A key in its stored form: checked to be one of our templates, on P-256, with nothing around it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBlob {
    octets: [u8; KEY_BLOB_LEN_MAX],
    len: usize,
}

/// Room for a stored key, where a [`KeyBlob`] should not be moved about: it lends out what was
/// checked, and nothing else.
#[derive(Debug)]
pub struct KeyRoom(KeyBlob);

/// Octets that are no stored key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyBlobError {
    /// Its public area is none of [`Template::DeviceKey`] and [`Template::AttestationKey`].
    ForeignTemplate,
    /// Its parts do not have the lengths that they state.
    Framing,
    /// It is longer than any stored key.
    TooLong {
        /// Octets found; [`KEY_BLOB_LEN_MAX`] are allowed.
        found: usize,
    },
    /// It was written by something newer, or is no stored key at all.
    Version {
        /// The version found; 1 is known.
        found: Option<u8>,
    },
}

impl KeyRoom {
    /// Room, and no key in it.
    #[must_use]
    pub const fn new() -> Self {
        Self(KeyBlob { octets: [0; KEY_BLOB_LEN_MAX], len: 0 })
    }

    /// Reads a stored key, as [`KeyBlob::parse`] does.
    ///
    /// # Errors
    ///
    /// [`KeyBlobError`].
    pub fn parse(&mut self, octets: &[u8]) -> Result<&KeyBlob, KeyBlobError> {
        let place = self.0.octets.get_mut(..octets.len());
        place.ok_or(KeyBlobError::TooLong { found: octets.len() })?.copy_from_slice(octets);
        self.0.len = octets.len();
        self.checked()
    }

    /// Has `write` write the parts of a stored key: `TPM2B_PUBLIC ‖ TPM2B_PRIVATE`.
    pub(super) fn write<E>(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        self.0.octets[0] = VERSION;
        self.0.len = 1 + write(&mut self.0.octets[1..])?;
        Ok(())
    }

    /// The key, if there is one.
    pub(super) fn checked(&self) -> Result<&KeyBlob, KeyBlobError> {
        self.0.check()?;
        Ok(&self.0)
    }
}

impl Default for KeyRoom {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyBlob {
    /// Reads a stored key.
    ///
    /// # Errors
    ///
    /// [`KeyBlobError`]. Whether a TPM will load it only that TPM can say.
    pub fn parse(octets: &[u8]) -> Result<Self, KeyBlobError> {
        let mut room = KeyRoom::new();
        room.parse(octets)?;
        Ok(room.0)
    }

    /// Whether it is a stored key.
    fn check(&self) -> Result<(), KeyBlobError> {
        let found = self.as_bytes().first().copied();
        if found != Some(VERSION) {
            return Err(KeyBlobError::Version { found });
        }
        let mut parts = Parts::new(self.parts());
        let (_public, _private) = (parts.sized(), parts.sized());
        if !parts.is_used_up() {
            return Err(KeyBlobError::Framing);
        }
        self.template().map(drop).ok_or(KeyBlobError::ForeignTemplate)
    }

    /// What is stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    /// `TPM2B_PUBLIC ‖ TPM2B_PRIVATE`.
    pub(super) fn parts(&self) -> &[u8] {
        self.as_bytes().get(1..).unwrap_or_default()
    }

    /// The public area, a `TPMT_PUBLIC`.
    #[must_use]
    pub fn public_area(&self) -> &[u8] {
        Parts::new(self.parts()).sized()
    }

    /// What kind of key it is.
    fn template(&self) -> Option<Template> {
        let kinds = [Template::AttestationKey, Template::DeviceKey];
        kinds.into_iter().find(|&kind| point(self.public_area(), kind).is_some())
    }

    /// Whether it is a key of this kind.
    #[must_use]
    pub fn is(&self, template: Template) -> bool {
        self.template() == Some(template)
    }

    /// The Name of the key.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the area begins with a template, SHA-256 in it")]
    pub fn name(&self) -> Name {
        Name::of_public_area(self.public_area()).expect("the area of a template")
    }

    /// The public point: `04 ‖ x ‖ y`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the area was found to be a template's")]
    pub fn point(&self) -> [u8; POINT_LEN] {
        let area = self.public_area();
        let template = self.template().expect("a template");
        point(area, template).expect("a point")
    }
}

/// The point of a public area that is `template` with a unique field; a TPM may leave out zeros in
/// front of the coordinates.
pub(super) fn point(area: &[u8], template: Template) -> Option<[u8; POINT_LEN]> {
    let mut head = [0; TEMPLATE_LEN_MAX];
    let len = template.write(&mut head).ok()?;
    let unique = area.strip_prefix(head.get(..len.checked_sub(EMPTY_UNIQUE_LEN)?)?)?;
    let mut parts = Parts::new(unique);
    let mut point = [0; POINT_LEN];
    let (form, coordinates) = point.split_first_mut()?;
    *form = 4;
    let (x, y) = coordinates.split_at_mut(POINT_LEN / 2);
    let is_point = parts.fill(x) && parts.fill(y) && parts.is_used_up();
    is_point.then_some(point)
}

impl fmt::Debug for KeyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBlob({:?})", self.name())
    }
}

impl fmt::Display for KeyBlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignTemplate => f.write_str("key of a kind that this program does not make"),
            Self::Framing => f.write_str("key whose parts do not fill it"),
            Self::TooLong { found } => {
                write!(f, "key of {found} octets, at most {KEY_BLOB_LEN_MAX}")
            }
            Self::Version { found: Some(found) } => {
                write!(f, "key of version {found}, known is {VERSION}")
            }
            Self::Version { found: None } => f.write_str("key of no octets"),
        }
    }
}

impl core::error::Error for KeyBlobError {}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn stored(kind: Template, x: &[u8], private: &[u8]) -> Vec<u8> {
        let mut head = [0; TEMPLATE_LEN_MAX];
        let len = kind.write(&mut head).unwrap() - EMPTY_UNIQUE_LEN;
        let sized = |octets: &[u8]| [&(octets.len() as u16).to_be_bytes()[..], octets].concat();
        let area = [&head[..len], &sized(x), &sized(&[7; 32])].concat();
        [&[VERSION][..], &sized(&area), &sized(private)].concat()
    }

    /// Goal: a stored key is read back as it was, short coordinates filled up.
    #[test]
    fn a_stored_key_is_read() {
        let octets = stored(Template::DeviceKey, &[9; 31], &[1; 126]);
        let key = KeyBlob::parse(&octets).unwrap();
        assert_eq!(key.as_bytes(), octets);
        assert!(key.is(Template::DeviceKey));
        assert!(!key.is(Template::AttestationKey));
        let point = key.point();
        assert_eq!((point[0], point[1], point[2], point[33]), (4, 0, 9, 7));
        assert_eq!(key.name(), Name::of_public_area(key.public_area()).unwrap());
    }

    /// Goal: what was in the room before is no part of what is read into it.
    #[test]
    fn a_room_lends_out_what_was_read_last() {
        let mut room = KeyRoom::new();
        let long = stored(Template::DeviceKey, &[9; 32], &[1; 200]);
        let short = stored(Template::AttestationKey, &[8; 32], &[1; 100]);
        for octets in [&long, &short, &long] {
            assert_eq!(room.parse(octets).unwrap().as_bytes(), octets);
            assert_eq!(
                room.parse(&octets[1..]).err(),
                Some(KeyBlobError::Version { found: Some(0) })
            );
            assert_eq!(room.checked().err(), Some(KeyBlobError::Version { found: Some(0) }));
        }
    }

    /// Goal: what is no stored key of ours is refused, and none of it is used.
    #[test]
    fn other_octets_are_refused() {
        let good = stored(Template::AttestationKey, &[9; 32], &[1; 126]);
        let refused = |octets: &[u8]| KeyBlob::parse(octets).unwrap_err();
        for len in 1..good.len() {
            assert_eq!(refused(&good[..len]), KeyBlobError::Framing, "{len} octets");
        }
        assert_eq!(refused(&[]), KeyBlobError::Version { found: None });
        assert_eq!(refused(&[&[2], &good[1..]].concat()), KeyBlobError::Version { found: Some(2) });
        assert_eq!(refused(&[&good[..], &[0]].concat()), KeyBlobError::Framing);
        assert_eq!(refused(&[1; 513]), KeyBlobError::TooLong { found: 513 });
        let primary = stored(Template::StoragePrimary, &[9; 32], &[1; 126]);
        assert_eq!(refused(&primary), KeyBlobError::ForeignTemplate);
        let long = stored(Template::DeviceKey, &[9; 33], &[1; 126]);
        assert_eq!(refused(&long), KeyBlobError::ForeignTemplate);
    }
}
