//! The list of endorsement keys that an operator vouches for: which TPM is in which device.
//!
//! **What it is.** A reader for two formats that spreadsheets and scripts write, told apart by the
//! first character:
//!
//! * CSV: `device_id,ek_sha256` in each line, in this order; further columns are not read, a first
//!   line of exactly these names is skipped, fields may stand in double quotes.
//! * JSON lines: `{"device_id": "gw-0001", "ek_sha256": "…"}` in each line; further members are not
//!   read.
//!
//! `ek_sha256` is 64 hexadecimal digits, the [`EkId`] of the key. Empty lines do not count.
//!
//! **What it must never do.** Give half a list, or one that contradicts itself: two devices with
//! one TPM or two TPMs for one device are a mistake in the factory that a person has to look at. A
//! line that says the same again is a mistake too, most likely in the script that joined two lists.
//!
//! **Why that is sound.** Everything is read and compared before anything is returned, and the
//! first fault ends it with its line.

use std::{collections::BTreeMap, fmt};

use fleetcert_core::device_id::{DeviceId, DeviceIdError};
use serde::Deserialize;

use super::{DIGEST_TEXT_LEN, EkId, HexError};

/// Octets of a list, at most: as many lines as there may be, of two hundred octets each.
pub const LIST_LEN_MAX: usize = 200 * ENTRIES_MAX;

/// Entries of a list, at most: a whole fleet. A larger one comes in parts.
pub const ENTRIES_MAX: usize = 100_000;

/// The names of the columns, as a header gives them.
const HEADER: (&str, &str) = ("device_id", "ek_sha256");

/// What an UTF-8 file of some spreadsheets begins with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Why a list is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowError {
    /// In which line, counted from 1; `None` if it is about the list as a whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: AllowFault,
}

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowFault {
    /// A line has only one column.
    Columns,
    /// A device was listed before, with another endorsement key.
    DeviceAgain {
        /// Which.
        device: DeviceId,
        /// In which line before.
        first_line: usize,
    },
    /// The first column is no device id.
    DeviceId(DeviceIdError),
    /// An endorsement key was listed before, for another device.
    EkAgain {
        /// Which.
        ek: EkId,
        /// In which line before.
        first_line: usize,
    },
    /// The second column is no hash.
    EkId(HexError),
    /// There is no entry.
    Empty,
    /// A line is no JSON object with the two members.
    Json {
        /// At which character of the line, counted from 1.
        column: usize,
    },
    /// The same entry was there before.
    Repeated {
        /// In which line.
        first_line: usize,
    },
    /// It is longer than [`LIST_LEN_MAX`].
    TooLong {
        /// Its length, octets.
        found_len: usize,
    },
    /// It has more entries than [`ENTRIES_MAX`].
    TooMany,
    /// It is no UTF-8.
    Utf8,
}

/// One line of JSON.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    device_id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    ek_sha256: std::borrow::Cow<'a, str>,
}

/// Reads a list, whole: which endorsement key belongs to which device, in the order of the list.
///
/// # Errors
///
/// [`AllowError`], the first one.
pub fn parse(list: &[u8]) -> Result<Vec<(DeviceId, EkId)>, AllowError> {
    let whole = |fault| AllowError { line: None, fault };
    if list.len() > LIST_LEN_MAX {
        return Err(whole(AllowFault::TooLong { found_len: list.len() }));
    }
    let text = str::from_utf8(list).map_err(|error| {
        let before = &list[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|octet| **octet == b'\n').count();
        AllowError { line: Some(line), fault: AllowFault::Utf8 }
    })?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let read = if text.trim_start().starts_with('{') { of_json } else { of_csv };
    let mut entries = Entries::default();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.is_empty() || (line == 1 && is_header(text)) {
            continue;
        }
        let taken = read(text).and_then(|(device, ek)| entries.take(line, device, ek));
        taken.map_err(|fault| AllowError { line: Some(line), fault })?;
    }
    if entries.all.is_empty() { Err(whole(AllowFault::Empty)) } else { Ok(entries.all) }
}

/// What was read so far, and where.
#[derive(Default)]
struct Entries {
    all: Vec<(DeviceId, EkId)>,
    devices: BTreeMap<DeviceId, (usize, EkId)>,
    eks: BTreeMap<EkId, usize>,
}

impl Entries {
    fn take(&mut self, line: usize, device: DeviceId, ek: EkId) -> Result<(), AllowFault> {
        match self.devices.get(&device) {
            Some((first_line, same)) if *same == ek => {
                return Err(AllowFault::Repeated { first_line: *first_line });
            }
            Some((first_line, _)) => {
                return Err(AllowFault::DeviceAgain { device, first_line: *first_line });
            }
            None => {}
        }
        if let Some(first_line) = self.eks.insert(ek, line) {
            return Err(AllowFault::EkAgain { ek, first_line });
        }
        if self.all.len() == ENTRIES_MAX {
            return Err(AllowFault::TooMany);
        }
        self.devices.insert(device.clone(), (line, ek));
        self.all.push((device, ek));
        Ok(())
    }
}

fn of_csv(line: &str) -> Result<(DeviceId, EkId), AllowFault> {
    let (device, ek) = columns(line).ok_or(AllowFault::Columns)?;
    of_texts(device, ek)
}

fn of_json(line: &str) -> Result<(DeviceId, EkId), AllowFault> {
    let entry = serde_json::from_str(line);
    let Entry { device_id, ek_sha256 } =
        entry.map_err(|error: serde_json::Error| AllowFault::Json { column: error.column() })?;
    of_texts(&device_id, &ek_sha256)
}

fn of_texts(device: &str, ek: &str) -> Result<(DeviceId, EkId), AllowFault> {
    let device = DeviceId::parse(device).map_err(AllowFault::DeviceId)?;
    Ok((device, EkId::parse(ek).map_err(AllowFault::EkId)?))
}

fn is_header(line: &str) -> bool {
    columns(line) == Some(HEADER)
}

/// The first two columns. Neither holds anything for which CSV needs quotes, but some programs put
/// everything into them.
fn columns(line: &str) -> Option<(&str, &str)> {
    let mut columns = line.split(',').map(|column| unquoted(column.trim()));
    Some((columns.next()?, columns.next()?))
}

fn unquoted(column: &str) -> &str {
    let inner = column.strip_prefix('"').and_then(|column| column.strip_suffix('"'));
    inner.unwrap_or(column)
}

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl std::error::Error for AllowError {}

impl fmt::Display for AllowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns => write!(f, "one column only, expected {},{}", HEADER.0, HEADER.1),
            Self::DeviceAgain { device, first_line } => {
                write!(f, "device {device} has another endorsement key in line {first_line}")
            }
            Self::DeviceId(error) => error.fmt(f),
            Self::EkAgain { ek, first_line } => {
                write!(f, "endorsement key {ek} belongs to another device in line {first_line}")
            }
            Self::EkId(error) => write!(f, "the endorsement key's SHA-256: {error}"),
            Self::Empty => write!(
                f,
                "the list is empty, expected lines of {},{} or of JSON objects with these members",
                HEADER.0, HEADER.1
            ),
            Self::Json { column } => write!(
                f,
                "at character {column}: expected {{\"{}\": \"…\", \"{}\": \"{DIGEST_TEXT_LEN} \
                 hexadecimal digits\"}}",
                HEADER.0, HEADER.1
            ),
            Self::Repeated { first_line } => {
                write!(f, "it says the same as line {first_line}")
            }
            Self::TooLong { found_len } => {
                write!(f, "the list has {found_len} octets, at most {LIST_LEN_MAX} may be")
            }
            Self::TooMany => write!(f, "the list has more than {ENTRIES_MAX} entries"),
            Self::Utf8 => f.write_str("it is no UTF-8 text"),
        }
    }
}

#[cfg(test)]
mod tests;
