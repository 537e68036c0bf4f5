//! The state directory: the few operations on files that durability rests on.
//!
//! **What it is.** [`Disk`] is what the record store and the key store ask of a file system;
//! [`StateDir`] performs it on a real directory, relative to its descriptor, so that nobody can
//! exchange the directory under us. [`replace`] is the only way in which a file gets new content.
//!
//! **What it must never do.** Change a file in place, follow a symbolic link, or answer before
//! the kernel says that the data is on the medium.
//!
//! **Why that is sound.** A new file is written beside the old one, synced, renamed over it, and
//! the directory is synced: at every instant the name stands for the whole old content or the
//! whole new one. `docs/design/record.md` has the argument, and the tests cut the power before and
//! within every operation.

#[cfg(test)]
pub(crate) mod cut;
mod lock;
mod state_dir;

use std::fmt;
use std::io;
use std::path::PathBuf;

use zeroize::Zeroizing;

pub use lock::{Lock, LockError};
pub use state_dir::{StateDir, StateDirError};

/// A file as it was read.
pub struct Content {
    /// Its octets; they may be a key, so they are erased from memory after use.
    pub octets: Zeroizing<Vec<u8>>,
    /// Its permission bits, the lowest nine.
    pub mode: u32,
    /// Its owner's user id.
    pub owner: u32,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("len", &self.octets.len())
            .field("mode", &format_args!("{:04o}", self.mode))
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// What can be asked of the state directory. Names are plain file names.
pub trait Disk: fmt::Debug {
    /// Reads a file, of which no more than `len_max` octets are taken; `None` if there is none.
    fn read(&self, name: &str, len_max: usize) -> io::Result<Option<Content>>;

    /// Makes a file of mode 0600 with this content; an error if the name is taken.
    fn create(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Writes zeros over a file's content and syncs them, as far as the medium lets itself be
    /// overwritten at all; fine if there is no such file.
    fn scrub(&self, name: &str) -> io::Result<()>;

    /// Makes a file's content durable.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, whatever had it before.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; fine if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names, new and removed, durable.
    fn sync_names(&self) -> io::Result<()>;

    /// Where a file is, for people.
    fn path(&self, name: &str) -> PathBuf;

    /// Our user id, to which every file must belong.
    fn user(&self) -> u32;
}

/// What was being done when the disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Reading.
    Read,
    /// Removing.
    Remove,
    /// Renaming.
    Rename,
    /// Syncing.
    Sync,
    /// Writing.
    Write,
}

/// The disk did not do what it was asked.
#[derive(Debug)]
pub struct DiskFailure {
    /// What was being done.
    pub act: Act,
    /// To which file.
    pub path: PathBuf,
    /// Why it was not.
    pub source: io::Error,
}

impl DiskFailure {
    pub(crate) fn of(disk: &dyn Disk, act: Act, name: &str) -> impl FnOnce(io::Error) -> Self {
        let path = disk.path(name);
        move |source| Self { act, path, source }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        advice(self.source.kind())
    }
}

/// What to do about an error of the file system.
#[must_use]
pub fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on this file system; 64 KiB are plenty"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "remount the file system writable, or set state_dir to a place that is"
        }
        io::ErrorKind::PermissionDenied => {
            "run as the user that owns the state directory, or give it to this user with chown -R"
        }
        io::ErrorKind::NotFound => "create the missing directory, or correct state_dir",
        _ => "check the medium (dmesg, fsck, its health); the agent tries again by itself",
    }
}

impl fmt::Display for DiskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let act = match self.act {
            Act::Read => "read",
            Act::Remove => "remove",
            Act::Rename => "rename",
            Act::Sync => "sync",
            Act::Write => "write",
        };
        write!(f, "cannot {act} {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for DiskFailure {}

/// The name under which a file's next content is written.
pub(crate) fn draft(name: &str) -> String {
    format!("{name}.new")
}

/// Gives a file new content, durably: afterwards, and after a power cut at any later instant, the
/// name stands for `content`; after an error or a cut within, for the old content or for `content`.
///
/// # Errors
///
/// [`DiskFailure`] names the operation that failed.
pub fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> Result<(), DiskFailure> {
    let draft = draft(name);
    discard(disk, &draft)?;
    disk.create(&draft, content).map_err(DiskFailure::of(disk, Act::Write, &draft))?;
    disk.sync(&draft).map_err(DiskFailure::of(disk, Act::Sync, &draft))?;
    disk.rename(&draft, name).map_err(DiskFailure::of(disk, Act::Rename, name))?;
    disk.sync_names().map_err(DiskFailure::of(disk, Act::Sync, name))
}

/// Makes a file durable that a killed process may have left under a name that is not. Its content
/// is: nothing gets the name before it was synced.
pub(crate) fn settle(disk: &dyn Disk, name: &str) -> Result<(), DiskFailure> {
    disk.sync_names().map_err(DiskFailure::of(disk, Act::Sync, name))
}

/// Erases a file and what a cut left of its draft, durably.
pub(crate) fn erase(disk: &dyn Disk, name: &str) -> Result<(), DiskFailure> {
    discard(disk, &draft(name))?;
    discard(disk, name)?;
    disk.sync_names().map_err(DiskFailure::of(disk, Act::Sync, name))
}

/// Overwrites as well as the medium allows, and removes.
fn discard(disk: &dyn Disk, name: &str) -> Result<(), DiskFailure> {
    if let Err(error) = disk.scrub(name) {
        // A full or worn medium may refuse the overwriting; the removal still counts.
        log::debug!("{} was not overwritten: {error}", disk.path(name).display());
    }
    disk.remove(name).map_err(DiskFailure::of(disk, Act::Remove, name))
}
