//! Writes a record's payload, reads it where it lies, and to where the record stays.
//!
//! **What it is.** Fields in their order, in the form that postcard gives them
//! (`docs/design/record.md`). A slot is read as a view of the octets, because a copy of a certificate
//! is what a microcontroller's stack has no room for. By hand, because serde's code for the same
//! octets is more than three times as large.
//!
//! **What it must never do.** Write other octets than serde's derive and postcard would, or read any
//! that those would not: the tests of [`super`] compare with them.

use super::{
    CERTIFICATE_LEN_MAX, Identity, KeySource, Kind, Record, RecordError, Request, RequestId, Retry,
    Slot, SlotState, Standing, payload,
};
use crate::time::{Validity, Wall};
use crate::wire::SERIAL_LEN_MAX;

/// Seven bits of a number are in each octet of it but the last.
const VARINT_BITS: u32 = 7;

/// Says of an octet of a number that another one follows.
const VARINT_MORE: u8 = 0x80;

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

/// Octets of a payload that are still to be read. From the first fault on there are none, and what
/// is read means nothing: who has read all that he wants asks [`Reader::outcome`].
struct Reader<'b> {
    rest: &'b [u8],
    is_malformed: bool,
}

/// A place for a payload, and how many octets the payload has so far: more than there is room for
/// once it did not fit.
struct Writer<'b> {
    space: &'b mut [u8],
    len: usize,
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
        reader.outcome()?;
        Ok(identity)
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
        reader.outcome()?;
        match reader.rest {
            [] if self.is_consistent() => Ok(()),
            [] => Err(RecordError::Inconsistent),
            _ => Err(RecordError::Malformed),
        }
    }

    /// Writes the payload to the beginning of `space`, and returns its length; `None` if it does not
    /// fit.
    pub(super) fn write_payload(&self, space: &mut [u8]) -> Option<usize> {
        let Self { generation, floor, standing, active, slots, retry } = self;
        let mut writer = Writer { space, len: 0 };
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
        (writer.len <= writer.space.len()).then_some(writer.len)
    }
}

impl<'b> Reader<'b> {
    const fn new(payload: &'b [u8]) -> Self {
        Self { rest: payload, is_malformed: false }
    }

    const fn outcome(&self) -> Result<(), RecordError> {
        if self.is_malformed { Err(RecordError::Malformed) } else { Ok(()) }
    }

    /// This is no payload: `instead` is read from here on.
    fn fail<T>(&mut self, instead: T) -> T {
        *self = Self { rest: &[], is_malformed: true };
        instead
    }

    #[inline(never)]
    fn octets(&mut self, len: usize) -> &'b [u8] {
        match self.rest.split_at_checked(len) {
            Some((octets, rest)) => {
                self.rest = rest;
                octets
            }
            None => self.fail(&[]),
        }
    }

    fn array<const N: usize>(&mut self) -> &'b [u8; N] {
        self.octets(N).first_chunk().unwrap_or(&[0; N])
    }

    fn octet(&mut self) -> u8 {
        let [octet] = self.array();
        *octet
    }

    /// A number; 64 bits have ten octets, of which the last holds one bit.
    #[inline(never)]
    fn varint(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(VARINT_BITS as usize) {
            let octet = self.octet();
            number |= u64::from(octet & !VARINT_MORE) << shift;
            if octet & VARINT_MORE == 0 {
                let is_whole = shift + VARINT_BITS <= u64::BITS || octet <= 1;
                return if is_whole { number } else { self.fail(0) };
            }
        }
        self.fail(0)
    }

    /// Octets behind their length.
    fn counted(&mut self, max: usize) -> &'b [u8] {
        match usize::try_from(self.varint()) {
            Ok(len) if len <= max => self.octets(len),
            _ => self.fail(&[]),
        }
    }

    /// Whether an option has a value, which follows.
    fn is_some(&mut self) -> bool {
        match self.octet() {
            0 => false,
            1 => true,
            _ => self.fail(false),
        }
    }

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
    fn octets(&mut self, octets: &[u8]) {
        let end = self.len.saturating_add(octets.len());
        if let Some(place) = self.space.get_mut(self.len..end) {
            place.copy_from_slice(octets);
        }
        self.len = end;
    }

    fn octet(&mut self, octet: u8) {
        self.octets(&[octet]);
    }

    #[inline(never)]
    fn varint(&mut self, mut number: u64) {
        while number >= u64::from(VARINT_MORE) {
            self.octet(number.to_le_bytes()[0] | VARINT_MORE);
            number >>= VARINT_BITS;
        }
        self.octet(number.to_le_bytes()[0]);
    }

    fn counted(&mut self, octets: &[u8]) {
        self.varint(octets.len() as u64);
        self.octets(octets);
    }

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
