//! Reads a record's payload to where the record stays.
//!
//! **What it is.** The inverse of what serde's derive and postcard write: fields in their order. All
//! that is small is left to postcard; slots and certificates are read in place, because a copy of
//! either is what a microcontroller's stack has no room for.
//!
//! **What it must never do.** Take other octets than the derive would: the tests of [`super`] write
//! with the one and read with the other.

use serde::Deserialize;

use super::{Identity, Record, RecordError, SlotState};

/// Octets of a payload that are still to be read.
struct Reader<'b>(&'b [u8]);

impl Record {
    /// Reads the whole of a payload. After an error the record may be anything.
    pub(super) fn read_payload(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let mut reader = Reader(payload);
        self.generation = reader.take()?;
        self.floor = reader.take()?;
        self.standing = reader.take()?;
        self.active = reader.take()?;
        for slot in &mut self.slots {
            reader.slot(slot)?;
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

    fn slot(&mut self, slot: &mut SlotState) -> Result<(), RecordError> {
        match self.take::<u32>()? {
            0 => *slot = SlotState::Empty,
            1 => *slot = SlotState::Requesting(self.take()?),
            2 => self.identity(slot.certify())?,
            _ => return Err(RecordError::Malformed),
        }
        Ok(())
    }

    fn identity(&mut self, identity: &mut Identity) -> Result<(), RecordError> {
        identity.serial = self.take()?;
        identity.validity = self.take()?;
        identity.spki_sha256 = self.take()?;
        let certificate = self.take::<&[u8]>()?;
        identity.certificate.clear();
        identity.certificate.extend_from_slice(certificate).map_err(|_| RecordError::Malformed)
    }
}
