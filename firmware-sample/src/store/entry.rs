//! What is written at once: a record with a head that says how long it is and whether it is whole.
//!
//! `docs/design/record.md` gives the head octet by octet.

use fleetcert_core::checksum::CHECKSUM;
use fleetcert_core::record::{RECORD_LEN_MAX, RECORD_VERSION};

/// Octets of a head: a multiple of the words of every common flash.
pub(super) const HEAD_LEN: usize = 32;

/// Octets of an entry, at most. A multiple of [`HEAD_LEN`], so that padding to a word fits, too.
pub(super) const ENTRY_LEN_MAX: usize = HEAD_LEN + RECORD_LEN_MAX.next_multiple_of(HEAD_LEN);

/// Before it stands the version of the record.
const MAGIC: [u8; 3] = *b"FCL";

/// The head of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The version of the record's format.
    pub(super) version: u8,
    /// Counts entries; both copies of one have the same number.
    pub(super) number: u64,
    /// The last number that is reserved for sessions.
    pub(super) reserved: u64,
    /// Octets of the record; 0 where there is none yet.
    pub(super) record_len: u32,
    /// The record's checksum.
    pub(super) checksum: u32,
}

impl Head {
    /// A head for a record of the present version.
    pub(super) fn new(number: u64, reserved: u64, record: &[u8]) -> Self {
        let record_len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let checksum = CHECKSUM.checksum(record);
        Self { version: RECORD_VERSION, number, reserved, record_len, checksum }
    }

    /// Reads a head; `None` for what is none, or not whole.
    pub(super) fn parse(octets: &[u8; HEAD_LEN]) -> Option<Self> {
        let (checked, checksum) = octets.split_last_chunk::<4>()?;
        let (magic, rest) = checked.split_first_chunk::<3>()?;
        let (version, rest) = rest.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (reserved, rest) = rest.split_first_chunk()?;
        let (record_len, rest) = rest.split_first_chunk()?;
        let is_whole =
            *magic == MAGIC && CHECKSUM.checksum(checked) == u32::from_le_bytes(*checksum);
        is_whole.then_some(Self {
            version: *version,
            number: u64::from_le_bytes(*number),
            reserved: u64::from_le_bytes(*reserved),
            record_len: u32::from_le_bytes(*record_len),
            checksum: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }

    pub(super) fn emit(&self) -> [u8; HEAD_LEN] {
        let mut octets = [0; HEAD_LEN];
        octets[..3].copy_from_slice(&MAGIC);
        octets[3] = self.version;
        octets[4..12].copy_from_slice(&self.number.to_le_bytes());
        octets[12..20].copy_from_slice(&self.reserved.to_le_bytes());
        octets[20..24].copy_from_slice(&self.record_len.to_le_bytes());
        octets[24..28].copy_from_slice(&self.checksum.to_le_bytes());
        let checksum = CHECKSUM.checksum(&octets[..28]);
        octets[28..].copy_from_slice(&checksum.to_le_bytes());
        octets
    }

    /// Octets of the whole entry in flash that is programmed in words of `word_len` octets.
    pub(super) fn entry_len(&self, word_len: usize) -> usize {
        let record_len = usize::try_from(self.record_len).unwrap_or(usize::MAX);
        HEAD_LEN.saturating_add(record_len).checked_next_multiple_of(word_len).unwrap_or(usize::MAX)
    }
}
