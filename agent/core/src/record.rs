//! The record: all that must survive a power cut, and nothing else.
//!
//! The record names the keys that matter. A slot that the durable record does not call
//! [`SlotState::Empty`] is *named*, and its key must never be erased; everything else about the
//! device can be found again. Private keys are not in it.
//!
//! **Format.** `"FCRD"`, one octet of version, two of payload length (little endian), the payload
//! in postcard, and CRC-32/ISO-HDLC over all that precedes (little endian). The length is checked
//! before it is used and nothing may follow the checksum. `docs/design/record.md` lays it out byte
//! by byte and argues why writing it twice survives a power cut at any instant.

mod payload;

use heapless::Vec;
use serde::Serialize;

use crate::checksum::CHECKSUM;
use crate::time::{Validity, Wall};
use crate::wire::{REQUEST_ID_LEN, SERIAL_LEN_MAX};

pub use self::payload::IdentityView;

/// Octets of a device certificate, at most. A leaf with every optional extension and the longest
/// device id takes about 900; two of these are held in memory at once on a microcontroller.
pub const CERTIFICATE_LEN_MAX: usize = 1280;

/// Octets of an encoded record, at most: two certificates with their facts, and the rest.
pub const RECORD_LEN_MAX: usize = 2 * (CERTIFICATE_LEN_MAX + 128) + 96;

/// The version that [`Record::emit`] writes and the newest that [`Record::parse`] reads.
pub const RECORD_VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"FCRD";
const HEADER_LEN: usize = MAGIC.len() + 1 + 2;
const CHECKSUM_LEN: usize = 4;

/// One of the two places where a key with its certificate can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Zero or one.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// `"a"` or `"b"`: for file names and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// A certificate's serial number: the content octets of its DER INTEGER (RFC 5280 §4.1.2.2).
pub type Serial = Vec<u8, SERIAL_LEN_MAX>;

/// A device certificate, DER.
pub type CertificateBytes = Vec<u8, CERTIFICATE_LEN_MAX>;

/// The name of one enrollment request; the provisioner issues at most once for it.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub [u8; REQUEST_ID_LEN]);

/// How a request for a certificate is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    /// As on first contact: token, factory certificate, attestation, or an operator's approval.
    First,
    /// With the current certificate, which is valid as far as we know.
    Renew,
    /// With the current certificate, which ran out or was revoked.
    Recover,
}

impl Kind {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Renew => "renew",
            Self::Recover => "recover",
        }
    }
}

/// Where the key of a request comes from.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// A new key.
    Fresh,
    /// The key of the other slot, kept (`rekey = "never"`).
    Other,
}

/// A request for a certificate that has been licensed and not yet been answered.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// How it is authenticated.
    pub kind: Kind,
    /// Where its key comes from.
    pub source: KeySource,
}

/// A certificate with the facts that decisions rest on, so that they need no second parsing.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its serial number.
    pub serial: Serial,
    /// Its validity period.
    pub validity: Validity,
    /// SHA-256 of its SubjectPublicKeyInfo, DER.
    pub spki_sha256: [u8; 32],
    /// The certificate, DER.
    pub certificate: CertificateBytes,
}

/// What a slot is for.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is no heap to put the certificate on")]
pub enum SlotState {
    /// Nothing. A key found here may be erased.
    Empty,
    /// A key that a certificate is being asked for.
    Requesting(Request),
    /// A key with its certificate.
    Certified(Identity),
}

/// The device's standing in the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Standing {
    /// A member, or about to become one.
    Member,
    /// Revoked by the provisioner; asks once a day whether an operator has relented.
    Quarantined,
    /// Ended its life in the fleet. Nothing follows.
    Decommissioned,
}

/// How far the retries of the current request have come.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row, capped; the exponent of the next wait.
    pub failures: u8,
    /// Identities given up unproven since one was last proven, capped.
    pub discarded: u8,
    /// Not before this time, where the clock was known and a peer asked for patience.
    pub not_before: Option<Wall>,
}

/// All that must survive a power cut.
#[cfg_attr(test, derive(Serialize))]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts every change; of two readable copies the higher one holds.
    pub generation: u64,
    /// A time that is certainly past; raised by authenticated times only.
    pub floor: Wall,
    /// The device's standing in the fleet.
    pub standing: Standing,
    /// The slot whose identity is in use.
    pub active: Option<Slot>,
    /// What the slots are for, A then B.
    pub slots: [SlotState; 2],
    /// How far the retries have come.
    pub retry: Retry,
}

/// Bytes that are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The checksum does not match: torn or corrupted.
    Checksum,
    /// Readable, but it contradicts itself; written by something else.
    Inconsistent,
    /// Not a record at all, or one cut short or overlong.
    Malformed,
    /// The record does not fit into the buffer.
    TooLong,
    /// Written by a later release.
    Version {
        /// The version found; [`RECORD_VERSION`] is the newest known.
        found: u8,
    },
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Checksum => f.write_str("record checksum does not match"),
            Self::Inconsistent => f.write_str("record contradicts itself"),
            Self::Malformed => f.write_str("not a record, or not a whole one"),
            Self::TooLong => f.write_str("record does not fit the buffer"),
            Self::Version { found } => {
                write!(f, "record version {found}, newest known is {RECORD_VERSION}")
            }
        }
    }
}

impl core::error::Error for RecordError {}

impl Identity {
    /// No identity yet: a place for one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            serial: Serial::new(),
            validity: Validity { not_before: Wall(0), not_after: Wall(0) },
            spki_sha256: [0; 32],
            certificate: CertificateBytes::new(),
        }
    }

    /// Becomes a copy of `other`, where it lies: no third one passes over the stack.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { serial, validity, spki_sha256, certificate } = other;
        self.serial.clone_from(serial);
        self.validity = *validity;
        self.spki_sha256 = *spki_sha256;
        self.certificate.clear();
        // As long as the other one: it fits.
        let _fits = self.certificate.extend_from_slice(certificate);
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotState {
    /// Makes the slot one for an identity, which is still to be filled in.
    pub(crate) fn certify(&mut self) -> &mut Identity {
        loop {
            match self {
                Self::Certified(identity) => return identity,
                Self::Empty | Self::Requesting(_) => *self = Self::Certified(Identity::new()),
            }
        }
    }
}

impl Record {
    /// The record of a device that has never enrolled.
    #[must_use]
    pub const fn new(floor: Wall) -> Self {
        Self {
            generation: 0,
            floor,
            standing: Standing::Member,
            active: None,
            slots: [SlotState::Empty, SlotState::Empty],
            retry: Retry { failures: 0, discarded: 0, not_before: None },
        }
    }

    /// What a slot is for.
    #[must_use]
    pub const fn slot(&self, slot: Slot) -> &SlotState {
        &self.slots[slot.index()]
    }

    pub(crate) const fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        &mut self.slots[slot.index()]
    }

    /// Whether the slot's key matters and must not be erased.
    #[must_use]
    pub const fn names(&self, slot: Slot) -> bool {
        !matches!(self.slot(slot), SlotState::Empty)
    }

    /// The certificate in a slot.
    #[must_use]
    #[inline(never)]
    pub const fn identity(&self, slot: Slot) -> Option<&Identity> {
        match self.slot(slot) {
            SlotState::Certified(identity) => Some(identity),
            SlotState::Empty | SlotState::Requesting(_) => None,
        }
    }

    /// The request that a slot's key waits with.
    #[must_use]
    pub const fn request(&self, slot: Slot) -> Option<&Request> {
        match self.slot(slot) {
            SlotState::Requesting(request) => Some(request),
            SlotState::Empty | SlotState::Certified(_) => None,
        }
    }

    /// The identity in use.
    #[must_use]
    pub fn active_identity(&self) -> Option<&Identity> {
        self.active.and_then(|slot| self.identity(slot))
    }

    /// The slot of the identity that is on its way: asked for, or issued and not yet proven.
    #[must_use]
    pub fn candidate(&self) -> Option<Slot> {
        Slot::ALL.into_iter().find(|&slot| self.names(slot) && self.active != Some(slot))
    }

    /// The slot for the next identity.
    #[must_use]
    pub fn spare(&self) -> Slot {
        self.active.map_or(Slot::A, Slot::other)
    }

    /// Reads a record; the whole of `bytes` must be one.
    ///
    /// # Errors
    ///
    /// [`RecordError`], never a partial record.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut record = Self::new(Wall(0));
        record.parse_into(bytes)?;
        Ok(record)
    }

    /// [`Record::parse`] to where the record stays: for a stack that does not hold several of them.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; the record is that of [`Record::new`] with time zero then.
    pub fn parse_into(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        let outcome = payload(bytes).and_then(|payload| self.read_payload(payload));
        if outcome.is_err() {
            self.clear();
        }
        outcome
    }

    /// Becomes the record of a device that has never enrolled, and knows no time.
    fn clear(&mut self) {
        (self.generation, self.floor) = (0, Wall(0));
        (self.standing, self.active) = (Standing::Member, None);
        for slot in &mut self.slots {
            *slot = SlotState::Empty;
        }
        self.retry = Retry::default();
    }

    /// Writes the record into `buffer` and returns the part that it takes.
    ///
    /// # Errors
    ///
    /// [`RecordError::TooLong`] if `buffer` is too short; [`RECORD_LEN_MAX`] octets always suffice.
    pub fn emit<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], RecordError> {
        let space = buffer.get_mut(HEADER_LEN..).ok_or(RecordError::TooLong)?;
        let payload_len = self.write_payload(space).ok_or(RecordError::TooLong)?;
        let length = u16::try_from(payload_len).map_err(|_| RecordError::TooLong)?;
        let end = HEADER_LEN + payload_len;
        let whole = buffer.get_mut(..end + CHECKSUM_LEN).ok_or(RecordError::TooLong)?;
        let (covered, checksum) = whole.split_at_mut(end);
        covered[..MAGIC.len()].copy_from_slice(&MAGIC);
        covered[MAGIC.len()] = RECORD_VERSION;
        covered[MAGIC.len() + 1..HEADER_LEN].copy_from_slice(&length.to_le_bytes());
        checksum.copy_from_slice(&CHECKSUM.checksum(covered).to_le_bytes());
        Ok(whole)
    }

    /// The active slot is certified; without one at most one slot is named; at the end of life none.
    fn is_consistent(&self) -> bool {
        let named = Slot::ALL.into_iter().filter(|&slot| self.names(slot)).count();
        let active_is_certified = self.active.is_none() || self.active_identity().is_some();
        let keeps_other_key = |slot: Slot| {
            matches!(
                self.slot(slot),
                SlotState::Requesting(Request { source: KeySource::Other, .. })
            )
        };
        active_is_certified
            && (self.active.is_some() || named <= 1)
            && (self.active.is_some() || !Slot::ALL.into_iter().any(keeps_other_key))
            && (self.standing != Standing::Decommissioned || named == 0)
    }
}

/// What the frame of a whole record holds.
fn payload(bytes: &[u8]) -> Result<&[u8], RecordError> {
    let (body, checksum) =
        bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(RecordError::Malformed)?;
    let payload = body.get(HEADER_LEN..).ok_or(RecordError::Malformed)?;
    if body[..MAGIC.len()] != MAGIC {
        return Err(RecordError::Malformed);
    }
    if u16::from_le_bytes([body[5], body[6]]) as usize != payload.len() {
        return Err(RecordError::Malformed);
    }
    if CHECKSUM.checksum(body) != u32::from_le_bytes(*checksum) {
        return Err(RecordError::Checksum);
    }
    match body[4] {
        RECORD_VERSION => Ok(payload),
        found => Err(RecordError::Version { found }),
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn identity(n: u8) -> Identity {
        Identity {
            serial: Serial::from_slice(&[n; 16]).unwrap(),
            validity: Validity { not_before: Wall(1_800_000_000), not_after: Wall(1_807_776_000) },
            spki_sha256: [n; 32],
            certificate: CertificateBytes::from_slice(&[0x30, n, n]).unwrap(),
        }
    }

    fn request(source: KeySource) -> SlotState {
        SlotState::Requesting(Request { id: RequestId([9; 16]), kind: Kind::Renew, source })
    }

    fn renewing() -> Record {
        Record {
            generation: 7,
            active: Some(Slot::B),
            slots: [request(KeySource::Fresh), SlotState::Certified(identity(1))],
            retry: Retry { failures: 3, discarded: 1, not_before: Some(Wall(1_800_000_600)) },
            ..Record::new(Wall(1_800_000_000))
        }
    }

    fn bytes(record: &Record) -> std::vec::Vec<u8> {
        record.emit(&mut [0; RECORD_LEN_MAX]).unwrap().to_vec()
    }

    /// Seals a payload as a record of `version`, with a matching checksum.
    fn sealed(version: u8, payload: &[u8]) -> std::vec::Vec<u8> {
        let mut whole = std::vec::Vec::from(MAGIC);
        whole.push(version);
        whole.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        whole.extend(payload);
        whole.extend(CHECKSUM.checksum(&whole).to_le_bytes());
        whole
    }

    #[test]
    fn kinds_and_slots_have_the_names_that_reports_give_them() {
        let kinds = [Kind::First, Kind::Renew, Kind::Recover].map(Kind::code);
        assert_eq!(kinds, ["first", "renew", "recover"]);
        assert_eq!(Slot::ALL.map(Slot::as_str), ["a", "b"]);
    }

    #[test]
    fn a_record_survives_writing_and_reading() {
        for record in [Record::new(Wall(5)), renewing()] {
            assert_eq!(Record::parse(&bytes(&record)), Ok(record));
        }
    }

    /// Goal: what is written by hand is what serde's derive and postcard would have written.
    #[test]
    fn the_payload_is_that_of_postcard() {
        let certified = |n| SlotState::Certified(identity(n));
        let records = [
            Record::new(Wall(127)),
            renewing(),
            Record { floor: Wall(u64::MAX), generation: 128, ..renewing() },
            Record { slots: [request(KeySource::Other), certified(1)], ..renewing() },
            Record { slots: [certified(1), certified(255)], active: Some(Slot::A), ..renewing() },
            Record { standing: Standing::Decommissioned, ..Record::new(Wall(1 << 63)) },
            Record { standing: Standing::Quarantined, ..renewing() },
        ];
        for record in records {
            let payload = postcard::to_slice(&record, &mut [0; 500]).unwrap().to_vec();
            assert_eq!(bytes(&record), sealed(1, &payload));
        }
    }

    /// Goal: a number of more than 64 bits, or a choice that there is not, is refused wherever it is.
    #[test]
    fn numbers_and_choices_beyond_their_range_are_refused() {
        let with = |generation: &[u8], rest: &[u8]| sealed(1, &[generation, rest].concat());
        let rest = [0, 0, 0, 0, 0, 0, 0, 0];
        let largest = [&[255; 9][..], &[1]].concat();
        let read = Record::parse(&with(&largest, &rest)).map(|record| record.generation);
        assert_eq!(read, Ok(u64::MAX));
        for too_large in [[&[255; 9][..], &[2]].concat(), [&[128; 10][..], &[0]].concat()] {
            let read = Record::parse(&with(&too_large, &rest));
            assert_eq!(read, Err(RecordError::Malformed), "{too_large:?}");
        }
        for (at, first) in [(1, 3), (2, 2), (3, 3), (4, 3), (7, 2)] {
            let mut rest = rest;
            rest[at] = first;
            let read = Record::parse(&with(&[0], &rest));
            assert_eq!(read, Err(RecordError::Malformed), "choice {first} at {at}");
        }
    }

    #[test]
    fn the_bytes_of_version_one_are_these() {
        let golden = include_bytes!("../testdata/record-v1.bin");
        assert_eq!(bytes(&renewing()), golden);
        assert_eq!(Record::parse(golden), Ok(renewing()));
        assert_eq!(golden[..7], [b'F', b'C', b'R', b'D', 1, (golden.len() - 11) as u8, 0]);
    }

    #[test]
    fn no_shorter_no_longer_and_no_altered_bytes_are_a_record() {
        let whole = bytes(&renewing());
        for cut in 0..whole.len() {
            assert!(Record::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(Record::parse(&longer), Err(RecordError::Malformed));
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x10;
            assert!(Record::parse(&altered).is_err(), "altered at {at}");
        }
        let mut altered = whole;
        altered[20] ^= 1;
        assert_eq!(Record::parse(&altered), Err(RecordError::Checksum));
    }

    #[test]
    fn a_record_of_another_version_is_told_from_a_damaged_one() {
        assert_eq!(Record::parse(&sealed(2, b"later")), Err(RecordError::Version { found: 2 }));
        assert_eq!(Record::parse(&sealed(1, b"later")), Err(RecordError::Malformed));
        let mut payload = postcard::to_slice(&renewing(), &mut [0; 500]).unwrap().to_vec();
        assert_eq!(Record::parse(&sealed(1, &payload)), Ok(renewing()));
        payload.push(0);
        assert_eq!(Record::parse(&sealed(1, &payload)), Err(RecordError::Malformed));
    }

    #[test]
    fn a_record_that_contradicts_itself_is_refused() {
        let certified = || SlotState::Certified(identity(1));
        let empty = Record::new(Wall(0));
        let contradictions = [
            Record { active: Some(Slot::A), ..empty.clone() },
            Record { active: Some(Slot::A), ..renewing() },
            Record { active: None, ..renewing() },
            Record { slots: [request(KeySource::Other), SlotState::Empty], ..empty.clone() },
            Record { slots: [SlotState::Empty, request(KeySource::Other)], ..empty.clone() },
            Record {
                standing: Standing::Decommissioned,
                slots: [certified(), SlotState::Empty],
                ..empty.clone()
            },
        ];
        for record in contradictions {
            assert_eq!(
                Record::parse(&bytes(&record)),
                Err(RecordError::Inconsistent),
                "{record:?}"
            );
        }
        let sound = [
            Record { slots: [certified(), SlotState::Empty], ..empty.clone() },
            Record { slots: [request(KeySource::Fresh), SlotState::Empty], ..empty.clone() },
            Record { slots: [request(KeySource::Other), certified()], ..renewing() },
            Record { slots: [certified(), certified()], ..renewing() },
            Record { standing: Standing::Quarantined, ..renewing() },
            Record { standing: Standing::Decommissioned, ..empty },
        ];
        for record in sound {
            assert_eq!(Record::parse(&bytes(&record)), Ok(record));
        }
    }

    #[test]
    fn the_longest_record_fits_and_one_octet_less_does_not() {
        let longest = Identity {
            serial: Serial::from_slice(&[255; SERIAL_LEN_MAX]).unwrap(),
            validity: Validity { not_before: Wall(u64::MAX), not_after: Wall(u64::MAX) },
            spki_sha256: [255; 32],
            certificate: CertificateBytes::from_slice(&[255; CERTIFICATE_LEN_MAX]).unwrap(),
        };
        let record = Record {
            generation: u64::MAX,
            floor: Wall(u64::MAX),
            standing: Standing::Quarantined,
            active: Some(Slot::B),
            slots: [SlotState::Certified(longest.clone()), SlotState::Certified(longest)],
            retry: Retry { failures: 255, discarded: 255, not_before: Some(Wall(u64::MAX)) },
        };
        let len = bytes(&record).len();
        assert!(len <= RECORD_LEN_MAX);
        assert_eq!(RECORD_LEN_MAX, 2912, "a microcontroller holds this on its stack");
        let mut buffer = [0; RECORD_LEN_MAX];
        assert_eq!(record.emit(&mut buffer[..len]).map(<[u8]>::len), Ok(len));
        for short in [0, HEADER_LEN - 1, HEADER_LEN, len - CHECKSUM_LEN - 1, len - 1] {
            assert_eq!(record.emit(&mut buffer[..short]), Err(RecordError::TooLong), "{short}");
        }
    }

    /// Goal: whatever a record held before, it is what was read, or nothing.
    #[test]
    fn a_record_is_read_over_another_one_and_never_in_part() {
        let certified = |n| SlotState::Certified(identity(n));
        let full = Record { slots: [certified(1), certified(2)], ..renewing() };
        let mut record = full.clone();
        for other in [renewing(), Record::new(Wall(5)), full.clone()] {
            assert_eq!(record.parse_into(&bytes(&other)), Ok(()));
            assert_eq!(record, other);
        }
        let (whole, payload) = (bytes(&full), 7..bytes(&full).len() - 4);
        for cut in payload.clone() {
            let torn = sealed(1, &whole[payload.start..cut]);
            assert_eq!(record.parse_into(&torn), Err(RecordError::Malformed), "cut at {cut}");
            assert_eq!(record, Record::new(Wall(0)));
        }
    }

    /// Goal: the view finds in the octets what the record holds, and nothing in damaged ones.
    #[test]
    fn an_identity_is_found_in_the_octets_of_a_record() {
        let full = Record {
            slots: [SlotState::Certified(identity(1)), SlotState::Certified(identity(2))],
            ..renewing()
        };
        for record in [full, renewing(), Record::new(Wall(5))] {
            let mut whole = bytes(&record);
            for slot in Slot::ALL {
                let found = IdentityView::parse(&whole, slot).unwrap();
                let held = record.identity(slot).map(|identity| IdentityView {
                    serial: &identity.serial,
                    validity: identity.validity,
                    spki_sha256: &identity.spki_sha256,
                    certificate: &identity.certificate,
                });
                assert_eq!(found, held);
            }
            whole[9] ^= 1;
            assert_eq!(IdentityView::parse(&whole, Slot::A), Err(RecordError::Checksum));
        }
    }

    /// Goal: a length or a kind that no release has written is refused, not guessed at.
    #[test]
    fn a_slot_of_no_known_kind_and_a_certificate_beyond_the_limit_are_refused() {
        let payload = |slot: &[u8]| [&[0, 0, 0, 0][..], slot, &[0, 0, 0, 0]].concat();
        assert_eq!(Record::parse(&sealed(1, &payload(&[0]))), Ok(Record::new(Wall(0))));
        assert_eq!(Record::parse(&sealed(1, &payload(&[3]))), Err(RecordError::Malformed));
        for (len, is_read) in [(CERTIFICATE_LEN_MAX, true), (CERTIFICATE_LEN_MAX + 1, false)] {
            let [low, high] = [len as u8 | 0x80, (len >> 7) as u8];
            let slot = [&[2, 1, 9, 0, 0][..], &[7; 32], &[low, high], &std::vec![1; len]].concat();
            assert_eq!(Record::parse(&sealed(1, &payload(&slot))).is_ok(), is_read, "{len}");
        }
    }

    #[test]
    fn slots_are_named_and_found_by_what_they_hold() {
        let record = renewing();
        assert!(record.names(Slot::A) && record.names(Slot::B));
        assert_eq!(record.candidate(), Some(Slot::A));
        assert_eq!(record.spare(), Slot::A);
        assert_eq!(record.identity(Slot::A), None);
        assert_eq!(record.active_identity(), Some(&identity(1)));
        let first = Record::new(Wall(0));
        assert_eq!((first.candidate(), first.spare()), (None, Slot::A));
        assert_eq!(first.active_identity(), None);
        assert!(!first.names(Slot::A));
        let active_a = Record {
            active: Some(Slot::A),
            slots: [SlotState::Certified(identity(2)), SlotState::Empty],
            ..first
        };
        assert_eq!((active_a.candidate(), active_a.spare()), (None, Slot::B));
    }

    #[test]
    fn a_slot_has_an_index_a_name_and_another() {
        assert_eq!(Slot::ALL.map(Slot::index), [0, 1]);
        assert_eq!(Slot::ALL.map(Slot::as_str), ["a", "b"]);
        assert_eq!(Slot::ALL.map(Slot::other), [Slot::B, Slot::A]);
    }

    #[test]
    fn errors_read_as_phrases() {
        let texts = [
            RecordError::Checksum,
            RecordError::Inconsistent,
            RecordError::Malformed,
            RecordError::TooLong,
        ]
        .map(|error| error.to_string());
        assert!(texts.iter().all(|text| text.contains("record")));
        let version = RecordError::Version { found: 9 }.to_string();
        assert_eq!(version, "record version 9, newest known is 1");
    }
}
