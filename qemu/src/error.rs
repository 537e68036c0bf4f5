//! What can go wrong in the rig, with what was found and what was expected.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the rig stopped.
#[derive(Debug)]
pub enum RigError {
    /// One of the programs said something that the rig cannot read.
    Answer {
        /// Who said it.
        from: &'static str,
        /// What was said, as it came.
        found: String,
        /// What was expected instead.
        expected: &'static str,
    },
    /// Something is not as the product claims.
    Claim {
        /// The claim that does not hold.
        claim: &'static str,
        /// What was found instead.
        found: String,
    },
    /// Something is wrong with a device.
    Device {
        /// Its name.
        id: String,
        /// What.
        cause: Box<RigError>,
        /// The last lines it said on its serial line.
        last_words: String,
    },
    /// A program that should run has ended, or one that should succeed has not.
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        last_words: String,
    },
    /// Ctrl-C, or a request to terminate.
    Interrupted,
    /// A file or a socket did not do as asked.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program could not be started at all.
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A condition did not come true in time.
    TimedOut {
        /// The condition.
        waited_for: &'static str,
        /// How long it was waited for, milliseconds.
        limit_ms: u64,
    },
}

impl RigError {
    /// For `map_err` on whatever happens to `path`.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_path_buf(), source }
    }
}

impl fmt::Display for RigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer { from, found, expected } => {
                write!(f, "{from} answered {found:?}, expected {expected}")
            }
            Self::Claim { claim, found } => write!(f, "claim does not hold: {claim}; {found}"),
            Self::Device { id, cause, last_words } => {
                write!(f, "{id}: {cause}\nits serial line said last:\n{last_words}")
            }
            Self::Ended { program, status, last_words } => {
                write!(f, "{program} ended ({status}); its last lines:\n{last_words}")
            }
            Self::Interrupted => f.write_str("interrupted"),
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Start { program, source } => {
                write!(
                    f,
                    "{} does not start: {source}; `qemu/setup` installs what is missing and \
                     `cargo build --release --workspace` builds ours",
                    program.display()
                )
            }
            Self::TimedOut { waited_for, limit_ms } => {
                write!(f, "waited {limit_ms} ms in vain for: {waited_for}")
            }
        }
    }
}

impl std::error::Error for RigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Device { cause, .. } => Some(cause),
            Self::Io { source, .. } | Self::Start { source, .. } => Some(source),
            _ => None,
        }
    }
}
