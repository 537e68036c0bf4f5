//! One writer per state directory.
//!
//! The lock is an advisory one on an open file (`flock`), so the kernel lifts it when the process
//! ends, however it ends. The file itself stays: removing it would let two processes hold locks on
//! two files of one name. It holds the owner's process id, for people only.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Disk, StateDir, advice};

/// The lock's file name.
const LOCK: &str = "lock";

/// Digits of a process id, at most, with some to spare.
const PID_LEN_MAX: u64 = 20;

/// The right to write to a state directory, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why the lock was not obtained.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The process, as far as the file tells.
        pid: Option<u32>,
    },
    /// The file could not be made, opened or locked.
    Unavailable {
        /// The lock's file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says at once who has it.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    pub fn take(state: &StateDir) -> Result<Self, LockError> {
        let unavailable = |source| LockError::Unavailable { path: state.path(LOCK), source };
        let mut file = state.open_or_make(LOCK).map_err(unavailable)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Held { path: state.path(LOCK), pid: read_pid(&mut file) });
            }
            Err(errno) => return Err(unavailable(errno.into())),
        }
        write_pid(&mut file).map_err(unavailable)?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_LEN_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

impl LockError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Held { .. } => {
                "ask the running agent through its control socket, or stop it first"
            }
            Self::Unavailable { source, .. } => advice(source.kind()),
        }
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { path, pid: Some(pid) } => {
                write!(f, "{} is held by process {pid}", path.display())
            }
            Self::Held { path, pid: None } => {
                write!(f, "{} is held by another process", path.display())
            }
            Self::Unavailable { path, source } => {
                write!(f, "cannot lock {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the second agent is told which process the first one is; when that ends, it may start.
    #[test]
    fn a_second_writer_is_refused_with_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::make(&folder.path().join("state")).unwrap();
        let lock = Lock::take(&state).unwrap();
        let error = Lock::take(&state).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, LockError::Held { pid: Some(found), .. } if found == pid));
        assert!(error.to_string().ends_with(&format!("is held by process {pid}")), "{error}");
        drop(lock);
        Lock::take(&state).unwrap();
    }

    // Goal: a directory by the lock's name is an error with its path, not a panic.
    #[test]
    fn a_lock_that_cannot_be_made_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::make(&folder.path().join("state")).unwrap();
        std::fs::create_dir(state.path(LOCK)).unwrap();
        let error = Lock::take(&state).unwrap_err();
        assert!(matches!(&error, LockError::Unavailable { path, .. } if path.ends_with(LOCK)));
    }
}
