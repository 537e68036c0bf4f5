//! Reads a record's payload where it lies, and to where the record stays.
//!
//! **What it is.** The inverse of what serde's derive and postcard write: fields in their order. All
//! that is small is left to postcard; a slot is a view of the octets, because a copy of a
//! certificate is what a microcontroller's stack has no room for.
//!
//! **What it must never do.** Take other octets than the derive would: the tests of [`super`] write
//! with the one and read with the other.

use serde::Deserialize;

use super::{
    CERTIFICATE_LEN_MAX, Identity, Record, RecordError, Request, Serial, Slot, SlotState, Standing,
    payload,
};
use crate::time::{Validity, Wall};
use crate::wire::SERIAL_LEN_MAX;

/// An identity in the octets of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityView<'b> {
    /// Its serial number, of as many octets as a [`Serial`] may have.
    pub serial: &'b [u8],
    /// Its validity period.
    pub validity: Validity,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub spki_sha256: [u8; 32],
    /// The certificate, DER, of as many octets as [`super::CertificateBytes`] may have.
    pub certificate: &'b [u8],
}

/// What a slot is for, in the octets of a record.
enum SlotView<'b> {
    Empty,
    Requesting(Request),
    Certified(IdentityView<'b>),
}

/// Octets of a payload that are still to be read.
struct Reader<'b>(&'b [u8]);

impl<'b> IdentityView<'b> {
    /// Finds the identity in a slot of the record that `bytes` are; `None` if it holds none.
    ///
    /// # Errors
    ///
    /// [`RecordError`]. What a record says of itself is not compared: that is for
    /// [`Record::parse`].
    pub fn parse(bytes: &'b [u8], slot: Slot) -> Result<Option<Self>, RecordError> {
        let mut reader = Reader(payload(bytes)?);
        let (_generation, _floor): (u64, Wall) = reader.take()?;
        let (_standing, _active): (Standing, Option<Slot>) = reader.take()?;
        let [a, b] = [reader.slot()?, reader.slot()?];
        match if slot == Slot::A { a } else { b } {
            SlotView::Certified(identity) => Ok(Some(identity)),
            SlotView::Empty | SlotView::Requesting(_) => Ok(None),
        }
    }

    /// Copies it to where it stays.
    fn read_into(&self, identity: &mut Identity) -> Result<(), RecordError> {
        let Self { serial, validity, spki_sha256, certificate } = *self;
        let too_long = |_| RecordError::Malformed;
        identity.serial = Serial::from_slice(serial).map_err(too_long)?;
        identity.validity = validity;
        identity.spki_sha256 = spki_sha256;
        identity.certificate.clear();
        identity.certificate.extend_from_slice(certificate).map_err(too_long)
    }
}

impl Record {
    /// Reads the whole of a payload. After an error the record may be anything.
    pub(super) fn read_payload(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader(payload);
        self.generation = reader.take()?;
        self.floor = reader.take()?;
        self.standing = reader.take()?;
        self.active = reader.take()?;
        for slot in &mut self.slots {
            match reader.slot()? {
                SlotView::Empty => *slot = SlotState::Empty,
                SlotView::Requesting(request) => *slot = SlotState::Requesting(request),
                SlotView::Certified(identity) => identity.read_into(slot.certify())?,
            }
        }
        self.retry = reader.take()?;
        match reader.0 {
            [] if self.is_consistent() => Ok(()),
            [] => Err(RecordError::Inconsistent),
            _ => Err(RecordError::Malformed),
        }
    }
}

impl<'b> Reader<'b> {
    /// Something small.
    fn take<T: Deserialize<'b>>(&mut self) -> Result<T, RecordError> {
        let (value, rest) =
            postcard::take_from_bytes(self.0).map_err(|_| RecordError::Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// Octets behind their length.
    fn octets(&mut self, max: usize) -> Result<&'b [u8], RecordError> {
        let octets: &[u8] = self.take()?;
        if octets.len() > max { Err(RecordError::Malformed) } else { Ok(octets) }
    }

    fn slot(&mut self) -> Result<SlotView<'b>, RecordError> {
        Ok(match self.take::<u32>()? {
            0 => SlotView::Empty,
            1 => SlotView::Requesting(self.take()?),
            2 => SlotView::Certified(IdentityView {
                serial: self.octets(SERIAL_LEN_MAX)?,
                validity: self.take()?,
                spki_sha256: self.take()?,
                certificate: self.octets(CERTIFICATE_LEN_MAX)?,
            }),
            _ => return Err(RecordError::Malformed),
        })
    }
}
