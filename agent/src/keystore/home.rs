//! Where the keys of a state directory live: a question that its files answer.
//!
//! A record of nothing but a decision could be lost, or contradict the keys. The keys themselves
//! cannot: an anchor or a wrapped key says "TPM", a key in the clear says "files". A certificate
//! whose key is gone was issued before there were TPM keys, or lost a file that had no copy, while
//! an anchor has two: that is "files", too. What has neither is free to choose.

use std::fmt;

use super::{file, tpm};
use crate::config::KeyBackend;
use crate::disk::{Act, Disk, DiskFailure};

/// Why there is no key store to be used.
#[derive(Debug)]
pub enum HomeError {
    /// The state directory could not be read.
    Disk(DiskFailure),
    /// The keys live elsewhere than the configuration wants them to.
    Elsewhere {
        /// Where they live.
        found: KeyBackend,
        /// Where they were configured to.
        expected: KeyBackend,
    },
}

/// Where the keys live, or are to live; [`KeyBackend::Auto`] if that is for the TPM to say.
pub(super) fn of(
    disk: &dyn Disk,
    is_certified: bool,
    expected: KeyBackend,
) -> Result<KeyBackend, HomeError> {
    match (found(disk, is_certified).map_err(HomeError::Disk)?, expected) {
        (None, expected) => Ok(expected),
        (Some(found), KeyBackend::Auto) => Ok(found),
        (Some(found), expected) if found == expected => Ok(found),
        (Some(found), expected) => Err(HomeError::Elsewhere { found, expected }),
    }
}

fn found(disk: &dyn Disk, is_certified: bool) -> Result<Option<KeyBackend>, DiskFailure> {
    if is_any(disk, tpm::ANCHOR_FILES)? || is_any(disk, tpm::BLOB_FILES)? {
        return Ok(Some(KeyBackend::Tpm));
    }
    let is_file = is_certified || is_any(disk, file::KEY_FILES)?;
    Ok(is_file.then_some(KeyBackend::Software))
}

fn is_any(disk: &dyn Disk, names: [&str; 2]) -> Result<bool, DiskFailure> {
    for name in names {
        if disk.read(name, 1).map_err(DiskFailure::of(disk, Act::Read, name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl HomeError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Disk(failure) => failure.advice(),
            Self::Elsewhere { found: KeyBackend::Tpm, .. } => {
                "set key.backend to auto or tpm; to give the identity in the TPM up, \
                 `fleetcert-agent wipe --yes` first, and enroll again"
            }
            Self::Elsewhere { .. } => {
                "set key.backend to auto or software; to move the device to its TPM, \
                 `fleetcert-agent wipe --yes` first, and enroll again"
            }
        }
    }
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(failure) => failure.fmt(f),
            Self::Elsewhere { found, expected } => write!(
                f,
                "the keys of this state directory live in {}, key.backend is {}",
                if *found == KeyBackend::Tpm { "a TPM" } else { "files" },
                expected.as_str()
            ),
        }
    }
}

impl std::error::Error for HomeError {}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::disk::cut::CutDisk;

    fn disk(name: &str) -> Rc<CutDisk> {
        let disk = Rc::new(CutDisk::default());
        if !name.is_empty() {
            disk.tamper(name, Some(b"whatever it is"));
        }
        disk
    }

    // Goal: what was begun goes on where it is, and a configuration that says otherwise is told.
    #[test]
    fn the_files_say_where_the_keys_are() {
        use KeyBackend::{Auto, Software, Tpm};
        for (name, is_certified, home) in [
            ("key.a", false, Software),
            ("key.b", true, Software),
            ("", true, Software),
            ("anchor.a", false, Tpm),
            ("anchor.b", true, Tpm),
            ("key.a.tpm", false, Tpm),
            ("key.b.tpm", true, Tpm),
        ] {
            let disk = disk(name);
            for expected in [Auto, home] {
                assert_eq!(of(&*disk, is_certified, expected).unwrap(), home, "{name}");
            }
            let other = if home == Tpm { Software } else { Tpm };
            let error = of(&*disk, is_certified, other).unwrap_err();
            let HomeError::Elsewhere { found, expected } = error else { panic!("{error}") };
            assert_eq!((found, expected), (home, other), "{name}");
        }
        for expected in [Auto, Software, Tpm] {
            assert_eq!(of(&*disk(""), false, expected).unwrap(), expected);
        }
    }

    // Goal: what cannot be read decides nothing.
    #[test]
    fn a_directory_that_cannot_be_read_is_an_error() {
        let disk = disk("key.a");
        disk.cut_at(1);
        disk.sync_names().unwrap_err();
        let error = of(&*disk, false, KeyBackend::Auto).unwrap_err();
        assert!(matches!(error, HomeError::Disk(_)), "{error}");
    }
}
