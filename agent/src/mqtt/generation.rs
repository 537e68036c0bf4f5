//! A number that grows with every session, over restarts, without a clock.
//!
//! **What it is.** Numbers are taken from a block that was reserved by writing its end to a file
//! first: a restart goes on behind the block, so no number is ever given twice although the file
//! is written once in [`BLOCK`] sessions.
//!
//! **What it must never do.** Keep a device from its broker: where the file cannot be written the
//! numbers go on, and a later restart may repeat some. The session that follows then sees its own
//! retained state with a higher number and calls [`Generations::raise`].

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Numbers that one write reserves.
const BLOCK: u64 = 256;

/// The largest number that JSON carries everywhere (RFC 8259 §6).
pub(super) const GENERATION_MAX: u64 = (1 << 53) - 1;

/// The name of the file in the state directory.
const FILE: &str = "mqtt-generation";

/// Octets of the file that are read, at most: the decimal digits of a number.
const FILE_LEN_MAX: usize = 24;

/// The source of the numbers.
#[derive(Debug)]
pub(super) struct Generations {
    folder: PathBuf,
    last: u64,
    reserved: u64,
}

impl Generations {
    /// Goes on behind what the state directory says was reserved.
    pub(super) fn new(folder: &Path) -> Self {
        let last = read(&folder.join(FILE)).unwrap_or(0).min(GENERATION_MAX);
        Self { folder: folder.into(), last, reserved: last }
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.last = (self.last + 1).min(GENERATION_MAX);
        if self.last > self.reserved {
            self.reserve();
        }
        self.last
    }

    /// Makes the next number larger than one that was seen.
    pub(super) fn raise(&mut self, seen: u64) {
        self.last = self.last.max(seen.min(GENERATION_MAX));
    }

    fn reserve(&mut self) {
        let end = self.last.saturating_add(BLOCK - 1).min(GENERATION_MAX);
        match write(&self.folder, end) {
            Ok(()) => self.reserved = end,
            Err(error) => log::warn!("{}/{FILE} not writable: {error}", self.folder.display()),
        }
    }
}

fn read(path: &Path) -> Option<u64> {
    let text = fs::read(path).ok()?;
    let text = std::str::from_utf8(text.get(..text.len().min(FILE_LEN_MAX))?).ok()?;
    text.trim().parse().ok()
}

/// Written beside, synced, renamed, and the folder synced: either the old number or the new one.
fn write(folder: &Path, number: u64) -> io::Result<()> {
    let (path, beside) = (folder.join(FILE), folder.join(".mqtt-generation.new"));
    let mut file = File::create(&beside)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(&beside, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, FILE, GENERATION_MAX, Generations};

    #[test]
    fn numbers_grow_by_one_and_over_any_number_of_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let mut generations = Generations::new(folder.path());
            let first = generations.next();
            assert!(first > last);
            for step in 1..=BLOCK + 3 {
                assert_eq!(generations.next(), first + step);
            }
            last = first + BLOCK + 3;
        }
    }

    #[test]
    fn one_write_does_for_a_block_of_sessions() {
        let folder = tempfile::tempdir().unwrap();
        let mut generations = Generations::new(folder.path());
        generations.next();
        std::fs::remove_file(folder.path().join(FILE)).unwrap();
        for _ in 1..BLOCK {
            generations.next();
        }
        assert!(!folder.path().join(FILE).exists());
        generations.next();
        assert!(folder.path().join(FILE).exists());
    }

    #[test]
    fn a_damaged_or_missing_file_and_a_missing_folder_do_not_stop_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"-1", b"x", &[0xff; 99]] {
            std::fs::write(folder.path().join(FILE), content).unwrap();
            assert_eq!(Generations::new(folder.path()).next(), 1);
        }
        let mut nowhere = Generations::new(&folder.path().join("missing"));
        assert_eq!([nowhere.next(), nowhere.next()], [1, 2]);
    }

    #[test]
    fn a_larger_number_that_was_seen_is_passed() {
        let folder = tempfile::tempdir().unwrap();
        let mut generations = Generations::new(folder.path());
        generations.raise(1000);
        assert_eq!(generations.next(), 1001);
        generations.raise(5);
        assert_eq!(generations.next(), 1002);
        assert!(Generations::new(folder.path()).next() > 1002);
        generations.raise(u64::MAX);
        assert_eq!(generations.next(), GENERATION_MAX);
    }
}
