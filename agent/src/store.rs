//! Durable storage for the record: two copies in the state directory.
//!
//! **What it is.** The port `Storage` over `record.a` and `record.b`. A write replaces one copy
//! and then the other, each atomically, and answers when both are durable. Loading takes the valid
//! copy of the higher generation and makes both copies that one before it returns.
//!
//! **What it must never do.** Take damage for a first boot: an empty record makes the machine
//! erase every key. Overwrite what a later release has written. Return a record that a power cut
//! could still take back.
//!
//! **Why that is sound.** Replacing is atomic (see [`crate::disk`]), so a power cut leaves each
//! copy whole, old or new; two copies are for media that lose one. The second copy is begun when
//! the first is durable: equal copies are durable in one place at least, and unequal ones are made
//! equal, and durable, before anything acts on them. The whole argument is in
//! `docs/design/record.md`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use fleetcert_core::event::Failure;
use fleetcert_core::port::Storage;
use fleetcert_core::record::{RECORD_LEN_MAX, RECORD_VERSION, Record, RecordError};

use crate::cause::Causes;
use crate::disk::{self, Act, Disk, DiskFailure};
use crate::keystore::KEY_FILES;

/// The two copies, in the order in which equal ones are preferred.
const COPIES: [&str; 2] = ["record.a", "record.b"];

/// The record's place in the state directory.
#[derive(Clone, Debug)]
pub struct Store {
    disk: Rc<dyn Disk>,
    causes: Causes,
}

/// Why a copy gives no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFault {
    /// It is not there.
    Absent,
    /// It is no record.
    Damaged(RecordError),
}

/// Why there is no record to go on with.
#[derive(Debug)]
pub enum LoadError {
    /// The directory could not be read, or the copies could not be made alike.
    Disk(DiskFailure),
    /// There is no record, yet there is a key: a first boot has neither.
    KeyWithoutRecord {
        /// The key's file.
        path: PathBuf,
    },
    /// A later release has written here.
    Later {
        /// The copy.
        path: PathBuf,
        /// Its version; [`RECORD_VERSION`] is the newest known.
        found: u8,
    },
    /// No copy can be read, and at least one is there.
    Unreadable {
        /// The directory of both.
        path: PathBuf,
        /// What is wrong with the first.
        a: CopyFault,
        /// What is wrong with the second.
        b: CopyFault,
    },
}

/// The record does not fit its own limits, or the disk failed.
#[derive(Debug)]
pub enum WriteError {
    /// The disk failed.
    Disk(DiskFailure),
    /// The record cannot be encoded.
    Record(RecordError),
}

type Copies = [Result<Record, CopyFault>; 2];

impl Store {
    /// A store on an open state directory.
    #[must_use]
    pub const fn new(disk: Rc<dyn Disk>, causes: Causes) -> Self {
        Self { disk, causes }
    }

    /// The record to go on with, durable in both copies; `None` on first boot.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; nothing was overwritten that could be the record.
    pub fn load(&self) -> Result<Option<Record>, LoadError> {
        let copies = self.copies()?;
        let Some(record) = self.choose(&copies)? else { return Ok(None) };
        for (name, copy) in COPIES.into_iter().zip(&copies) {
            if copy.as_ref().is_ok_and(|copy| *copy == record) {
                continue;
            }
            log::warn!("{} is made like the other copy", self.disk.path(name).display());
            self.replace(name, &record).map_err(LoadError::of)?;
        }
        Ok(Some(record))
    }

    /// The record as it stands, changing nothing: for looking on, without the lock.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    pub fn peek(&self) -> Result<Option<Record>, LoadError> {
        self.choose(&self.copies()?)
    }

    /// Makes `record` durable in both copies.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; the record before it, or this one, will be found.
    pub fn write(&self, record: &Record) -> Result<(), WriteError> {
        COPIES.into_iter().try_for_each(|name| self.replace(name, record))
    }

    /// Removes both copies, durably.
    ///
    /// # Errors
    ///
    /// [`DiskFailure`] names the operation that failed.
    pub fn erase(&self) -> Result<(), DiskFailure> {
        COPIES.into_iter().try_for_each(|name| disk::erase(&*self.disk, name))
    }

    fn copies(&self) -> Result<Copies, LoadError> {
        let [a, b] = COPIES;
        Ok([self.copy(a)?, self.copy(b)?])
    }

    fn copy(&self, name: &str) -> Result<Result<Record, CopyFault>, LoadError> {
        let disk = &*self.disk;
        let content = disk
            .read(name, RECORD_LEN_MAX + 1)
            .map_err(|source| LoadError::Disk(DiskFailure::of(disk, Act::Read, name)(source)))?;
        Ok(match content {
            None => Err(CopyFault::Absent),
            Some(content) => Record::parse(&content.octets).map_err(CopyFault::Damaged),
        })
    }

    fn choose(&self, copies: &Copies) -> Result<Option<Record>, LoadError> {
        for (name, copy) in COPIES.into_iter().zip(copies) {
            if let Err(CopyFault::Damaged(RecordError::Version { found })) = *copy {
                return Err(LoadError::Later { path: self.disk.path(name), found });
            }
        }
        match copies {
            [Ok(a), Ok(b)] if b.generation > a.generation => Ok(Some(b.clone())),
            [Ok(a), _] => Ok(Some(a.clone())),
            [_, Ok(b)] => Ok(Some(b.clone())),
            [Err(CopyFault::Absent), Err(CopyFault::Absent)] => self.first_boot(),
            &[Err(a), Err(b)] => Err(LoadError::Unreadable { path: self.disk.path(""), a, b }),
        }
    }

    /// A record is durable before the first key is made, so on first boot there is no key.
    fn first_boot(&self) -> Result<Option<Record>, LoadError> {
        let disk = &*self.disk;
        for name in KEY_FILES {
            let found = disk
                .read(name, 1)
                .map_err(|error| LoadError::Disk(DiskFailure::of(disk, Act::Read, name)(error)))?;
            if found.is_some() {
                return Err(LoadError::KeyWithoutRecord { path: disk.path(name) });
            }
        }
        Ok(None)
    }

    fn replace(&self, name: &str, record: &Record) -> Result<(), WriteError> {
        let mut buffer = [0; RECORD_LEN_MAX];
        let octets = record.emit(&mut buffer).map_err(WriteError::Record)?;
        disk::replace(&*self.disk, name, octets).map_err(WriteError::Disk)
    }
}

impl Storage for Store {
    /// Blocks the executor for the time of four syncs: a few milliseconds on a disk, less than a
    /// second on a slow card, a handful of times in the life of a certificate.
    async fn persist(&mut self, record: &Record) -> Result<(), Failure> {
        self.write(record).map_err(|error| {
            self.causes.note(&error);
            Failure::StorageUnavailable
        })
    }
}

impl LoadError {
    fn of(error: WriteError) -> Self {
        match error {
            WriteError::Disk(failure) => Self::Disk(failure),
            // What was parsed can be emitted again; were it not so, the copy would be no record.
            WriteError::Record(error) => {
                let fault = CopyFault::Damaged(error);
                Self::Unreadable { path: PathBuf::new(), a: fault, b: fault }
            }
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Disk(failure) => failure.advice(),
            Self::KeyWithoutRecord { .. } => {
                "restore record.a or record.b from a backup, or start over with \
                 `fleetcert-agent wipe --yes` and a new token"
            }
            Self::Later { .. } => "install the release that wrote it, or a later one",
            Self::Unreadable { .. } => {
                "restore record.a or record.b from a backup, or start over with \
                 `fleetcert-agent wipe --yes` and a new token; check the medium"
            }
        }
    }
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("missing"),
            Self::Damaged(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(failure) => failure.fmt(f),
            Self::KeyWithoutRecord { path } => {
                write!(f, "{} exists, but no record says what it is for", path.display())
            }
            Self::Later { path, found } => {
                let path = path.display();
                write!(f, "{path} has version {found}, newest known is {RECORD_VERSION}")
            }
            Self::Unreadable { path, a, b } => {
                write!(f, "no copy in {} is readable: record.a: {a}; record.b: {b}", path.display())
            }
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(failure) => failure.fmt(f),
            Self::Record(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl std::error::Error for WriteError {}
