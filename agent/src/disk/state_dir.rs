//! A directory of a real file system.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{Content, Disk, advice};

/// What group and others may do with the state directory or a file in it: nothing.
const FOREIGN_BITS: u32 = 0o077;

/// An open state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    folder: OwnedFd,
    user: u32,
}

/// Why a directory is no state directory of ours.
#[derive(Debug)]
pub enum StateDirError {
    /// Group or others may enter it.
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits; 0700 was expected.
        mode: u32,
    },
    /// It belongs to another user.
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// The owner's user id.
        found: u32,
        /// Our user id.
        expected: u32,
    },
    /// It is not there.
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made or opened.
    Unavailable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl StateDir {
    /// Opens the directory, and makes it (mode 0700) if only it is missing and not its parent.
    ///
    /// # Errors
    ///
    /// [`StateDirError`] if it cannot be made or opened, or is not ours alone.
    pub fn make(path: &Path) -> Result<Self, StateDirError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A directory on a read-only medium may be there all the same.
            Err(error) if path.is_dir() => log::debug!("{}: {error}", path.display()),
            Err(source) => return Err(StateDirError::Unavailable { path: path.into(), source }),
        }
        Self::open(path)
    }

    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// [`StateDirError`] if it cannot be opened, or is not ours alone.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => StateDirError::Missing { path: path.into() },
            errno => StateDirError::Unavailable { path: path.into(), source: errno.into() },
        })?;
        let folder = File::from(folder);
        let facts = folder
            .metadata()
            .map_err(|source| StateDirError::Unavailable { path: path.into(), source })?;
        let user = rustix::process::geteuid().as_raw();
        let (found, mode) = (facts.uid(), facts.mode() & 0o777);
        if found != user {
            return Err(StateDirError::ForeignOwner { path: path.into(), found, expected: user });
        }
        if mode & FOREIGN_BITS != 0 {
            return Err(StateDirError::Exposed { path: path.into(), mode });
        }
        Ok(Self { path: path.into(), folder: folder.into(), user })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(&self.folder, name, flags, mode)?))
    }

    /// Opens a file for reading and writing, and makes it (mode 0600) if there is none.
    pub(super) fn open_or_make(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDWR | OFlags::CREATE)
    }
}

impl Disk for StateDir {
    fn read(&self, name: &str, len_max: usize) -> io::Result<Option<Content>> {
        // Not blocking: a FIFO by this name must not stop the agent for good.
        let file = match self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let facts = file.metadata()?;
        // With its full capacity from the start, so that no copy is left behind by growing.
        let mut octets = Zeroizing::new(Vec::with_capacity(len_max + 1));
        file.take(len_max as u64).read_to_end(&mut octets)?;
        Ok(Some(Content { octets, mode: facts.mode() & 0o777, owner: facts.uid() }))
    }

    fn create(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?.write_all(content)
    }

    fn scrub(&self, name: &str) -> io::Result<()> {
        let mut file = match self.open_file(name, OFlags::WRONLY | OFlags::NONBLOCK) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let len = file.metadata()?.len();
        io::copy(&mut io::repeat(0).take(len), &mut file)?;
        file.sync_all()
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK)?.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn user(&self) -> u32 {
        self.user
    }
}

impl StateDirError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Exposed { .. } => "chmod 700 the directory, and ask who else has read the keys",
            Self::ForeignOwner { .. } => advice(io::ErrorKind::PermissionDenied),
            Self::Missing { .. } => advice(io::ErrorKind::NotFound),
            Self::Unavailable { source, .. } => advice(source.kind()),
        }
    }
}

impl fmt::Display for StateDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exposed { path, mode } => {
                write!(f, "state directory {} has mode {mode:04o}, expected 0700", path.display())
            }
            Self::ForeignOwner { path, found, expected } => write!(
                f,
                "state directory {} belongs to uid {found}, expected {expected}",
                path.display()
            ),
            Self::Missing { path } => {
                write!(f, "state directory {} does not exist", path.display())
            }
            Self::Unavailable { path, source } => {
                write!(f, "state directory {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for StateDirError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::{erase, replace};
    use super::*;

    fn state_dir() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::make(&folder.path().join("state")).unwrap();
        (folder, state)
    }

    // Goal: what is written is read back, is for us alone, and leaves nothing beside it.
    #[test]
    fn a_file_is_replaced_whole_with_mode_0600() {
        let (_folder, state) = state_dir();
        for content in [b"one".as_slice(), b"another"] {
            replace(&state, "record.a", content).unwrap();
            let found = state.read("record.a", 100).unwrap().unwrap();
            assert_eq!((found.octets.as_slice(), found.mode), (content, 0o600));
            assert_eq!(found.owner, state.user());
        }
        let names = std::fs::read_dir(state.path("")).unwrap().count();
        assert_eq!(names, 1);
        assert_eq!(state.read("record.a", 3).unwrap().unwrap().octets.len(), 3);
    }

    // Goal: a draft that a power cut left does not keep the next one from being written.
    #[test]
    fn a_leftover_draft_is_no_obstacle() {
        let (_folder, state) = state_dir();
        state.create("key.a.new", b"half").unwrap();
        replace(&state, "key.a", b"whole").unwrap();
        assert_eq!(state.read("key.a", 9).unwrap().unwrap().octets.as_slice(), b"whole");
        assert!(state.read("key.a.new", 9).unwrap().is_none());
    }

    // Goal: erasing reaches the octets themselves, seen through a second name of the file.
    #[test]
    fn an_erased_file_is_overwritten_before_it_is_removed() {
        let (folder, state) = state_dir();
        let other_name = folder.path().join("kept");
        state.create("key.a", b"secret").unwrap();
        std::fs::hard_link(state.path("key.a"), &other_name).unwrap();
        erase(&state, "key.a").unwrap();
        assert_eq!(std::fs::read(other_name).unwrap(), [0; 6]);
        assert!(state.read("key.a", 9).unwrap().is_none());
        erase(&state, "key.a").unwrap();
    }

    // Goal: a link planted in the directory leads nowhere.
    #[test]
    fn symbolic_links_are_not_followed() {
        let (folder, state) = state_dir();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        symlink(&victim, state.path("key.a")).unwrap();
        assert!(state.read("key.a", 9).is_err());
        assert!(state.scrub("key.a").is_err());
        erase(&state, "key.a").unwrap();
        assert_eq!(std::fs::read(victim).unwrap(), b"mine");
    }

    // Goal: a directory that others may enter, that is missing, or no directory, is named so.
    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let (folder, state) = state_dir();
        std::fs::set_permissions(state.path(""), PermissionsExt::from_mode(0o750)).unwrap();
        let error = StateDir::make(&state.path("")).unwrap_err();
        assert!(error.to_string().contains("mode 0750, expected 0700"), "{error}");
        let missing = StateDir::open(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("does not exist"), "{missing}");
        let orphan = StateDir::make(&folder.path().join("none/state")).unwrap_err();
        assert_eq!(orphan.advice(), advice(io::ErrorKind::NotFound));
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = StateDir::make(&folder.path().join("file")).unwrap_err();
        assert!(matches!(error, StateDirError::Unavailable { .. }), "{error}");
    }
}
