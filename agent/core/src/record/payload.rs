//! Writes a record's payload, reads it where it lies, and to where the record stays.
//!
//! **What it is.** Fields in their order, in the form that postcard gives them
//! (`docs/design/record.md`). A slot is read as a view of the octets, because a copy of a certificate
//! is what a microcontroller's stack has no room for.
//!
//! **What it must never do.** Write other octets than serde's derive and postcard would, or read any
//! that those would not: the tests of [`super`] compare with them.

use super::{
    CERTIFICATE_LEN_MAX, Identity, KeySource, Kind, Record, RecordError, Request, RequestId, Retry,
    Slot, SlotState, Standing, payload,
};
use crate::fields::{Reader, Writer};
use crate::time::{Validity, Wall};
use crate::wire::SERIAL_LEN_MAX;

/// An identity in the octets of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityView<'b> {
    /// Its serial number, of as many octets as a [`super::Serial`] may have.
    pub serial: &'b [u8],
    /// Its validity period.
    pub validity: Validity,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub spki_sha256: &'b [u8; 32],
    /// The certificate, DER, of as many octets as [`super::CertificateBytes`] may have.
    pub certificate: &'b [u8],
}

/// What a slot is for, in the octets of a record.
enum SlotView<'b> {
    Empty,
    Requesting(Request),
    Certified(IdentityView<'b>),
}

impl<'b> IdentityView<'b> {
    /// Finds the identity in a slot of the record that `bytes` are; `None` if it holds none.
    ///
    /// # Errors
    ///
    /// [`RecordError`]. What a record says of itself is not compared: that is for
    /// [`Record::parse`].
    pub fn parse(bytes: &'b [u8], slot: Slot) -> Result<Option<Self>, RecordError> {
        let mut reader = Reader::new(payload(bytes)?);
        let (_generation, _floor) = (reader.varint(), reader.varint());
        let (_standing, _active) = (reader.standing(), reader.active());
        let mut identity = None;
        for other in Slot::ALL {
            match reader.slot() {
                SlotView::Certified(found) if other == slot => identity = Some(found),
                SlotView::Certified(_) | SlotView::Empty | SlotView::Requesting(_) => {}
            }
        }
        if reader.is_malformed() { Err(RecordError::Malformed) } else { Ok(identity) }
    }

    /// Copies it to where it stays.
    fn read_into(&self, identity: &mut Identity) {
        let Self { serial, validity, spki_sha256, certificate } = self;
        identity.serial.clear();
        identity.validity = *validity;
        identity.spki_sha256 = **spki_sha256;
        identity.certificate.clear();
        // No longer than they may be: they fit.
        let _fits = identity.serial.extend_from_slice(serial);
        let _fits = identity.certificate.extend_from_slice(certificate);
    }
}

impl Record {
    /// Reads the whole of a payload. After an error the record may be anything.
    pub(super) fn read_payload(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader::new(payload);
        self.generation = reader.varint();
        self.floor = Wall(reader.varint());
        self.standing = reader.standing();
        self.active = reader.active();
        for slot in &mut self.slots {
            match reader.slot() {
                SlotView::Empty => *slot = SlotState::Empty,
                SlotView::Requesting(request) => *slot = SlotState::Requesting(request),
                SlotView::Certified(identity) => identity.read_into(slot.certify()),
            }
        }
        let (failures, discarded) = (reader.octet(), reader.octet());
        let not_before = if reader.is_some() { Some(Wall(reader.varint())) } else { None };
        self.retry = Retry { failures, discarded, not_before };
        match reader.is_whole() {
            true if self.is_consistent() => Ok(()),
            true => Err(RecordError::Inconsistent),
            false => Err(RecordError::Malformed),
        }
    }

    /// Writes the payload to the beginning of `space`, and returns its length; `None` if it does not
    /// fit.
    pub(super) fn write_payload(&self, space: &mut [u8]) -> Option<usize> {
        let Self { generation, floor, standing, active, slots, retry } = self;
        let mut writer = Writer::new(space);
        writer.varint(*generation);
        writer.varint(floor.0);
        writer.octet(*standing as u8);
        writer.octet(u8::from(active.is_some()));
        if let Some(slot) = active {
            writer.octet(*slot as u8);
        }
        for slot in slots {
            writer.slot(slot);
        }
        writer.octets(&[retry.failures, retry.discarded, u8::from(retry.not_before.is_some())]);
        if let Some(not_before) = retry.not_before {
            writer.varint(not_before.0);
        }
        writer.finish().map(<[u8]>::len)
    }
}

impl<'b> Reader<'b> {
    fn standing(&mut self) -> Standing {
        match self.octet() {
            0 => Standing::Member,
            1 => Standing::Quarantined,
            2 => Standing::Decommissioned,
            _ => self.fail(Standing::Member),
        }
    }

    fn active(&mut self) -> Option<Slot> {
        if !self.is_some() {
            return None;
        }
        // Numbered as an option's two states are.
        Some(if self.is_some() { Slot::B } else { Slot::A })
    }

    #[inline(never)]
    fn slot(&mut self) -> SlotView<'b> {
        match self.octet() {
            0 => SlotView::Empty,
            1 => SlotView::Requesting(self.request()),
            2 => SlotView::Certified(IdentityView {
                serial: self.counted(SERIAL_LEN_MAX),
                validity: Validity {
                    not_before: Wall(self.varint()),
                    not_after: Wall(self.varint()),
                },
                spki_sha256: self.array(),
                certificate: self.counted(CERTIFICATE_LEN_MAX),
            }),
            _ => self.fail(SlotView::Empty),
        }
    }

    fn request(&mut self) -> Request {
        let id = RequestId(*self.array());
        let kind = match self.octet() {
            0 => Kind::First,
            1 => Kind::Renew,
            2 => Kind::Recover,
            _ => self.fail(Kind::First),
        };
        let source = match self.octet() {
            0 => KeySource::Fresh,
            1 => KeySource::Other,
            _ => self.fail(KeySource::Fresh),
        };
        Request { id, kind, source }
    }
}

impl Writer<'_> {
    #[inline(never)]
    fn slot(&mut self, slot: &SlotState) {
        match slot {
            SlotState::Empty => self.octet(0),
            SlotState::Requesting(Request { id, kind, source }) => {
                self.octet(1);
                self.octets(&id.0);
                self.octets(&[*kind as u8, *source as u8]);
            }
            SlotState::Certified(Identity { serial, validity, spki_sha256, certificate }) => {
                self.octet(2);
                self.counted(serial);
                self.varint(validity.not_before.0);
                self.varint(validity.not_after.0);
                self.octets(spki_sha256);
                self.counted(certificate);
            }
        }
    }
}
