//! What has to be right before an agent may run.

use std::fmt;
use std::io;

use fleetcert_core::der::Certificate;
use fleetcert_core::lifecycle::Unexpected;
use fleetcert_core::record::{Record, Slot};
use fleetcert_core::time::Wall;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::BUILD_TIME;
use crate::config::Config;
use crate::control::SocketError;
use crate::disk::{LockError, StateDirError, advice};
use crate::keystore::HomeError;
use crate::store::{LoadError, Store};

/// 2026-11-22: the release in which this was written; builds may name a later time.
const RELEASE_TIME: Wall = Wall(1_795_305_600);

/// Why an agent does not run.
#[derive(Debug)]
pub enum StartError {
    /// The operating system gives no random bytes.
    Entropy,
    /// The state directory holds the identity of another device.
    ForeignIdentity {
        /// The name in its certificate.
        found: String,
        /// The name in the configuration.
        expected: String,
    },
    /// The keys are not where they were configured to be.
    Home(HomeError),
    /// The record is not there, or not to be trusted.
    Load(LoadError),
    /// Another agent runs, or the lock cannot be taken.
    Lock(LockError),
    /// The control socket cannot be bound.
    Socket(SocketError),
    /// The state directory is not there, or not ours alone.
    StateDir(StateDirError),
    /// The kernel refused something else.
    System {
        /// What was attempted.
        act: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
    /// Machine and shell disagree: a fault of this program.
    Unexpected(Unexpected),
}

/// The time that a reproducible build names (`SOURCE_DATE_EPOCH`), if it is later than ours.
pub(super) const fn build_time(epoch: Option<&str>) -> Wall {
    let Some(epoch) = epoch else { return RELEASE_TIME };
    match u64::from_str_radix(epoch, 10) {
        Ok(s) if s > RELEASE_TIME.0 => Wall(s),
        _ => RELEASE_TIME,
    }
}

/// Keys are in memory: nothing of it may reach a disk. What cannot be done is told, not fatal.
pub fn leave_no_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("core dumps were not forbidden: {error}");
    }
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::warn!("core dumps were not limited: {error}");
    }
}

/// The record to start from.
pub(super) fn load(store: &Store, config: &Config) -> Result<Record, StartError> {
    let Some(record) = store.load().map_err(StartError::Load)? else {
        return Ok(Record::new(BUILD_TIME));
    };
    for identity in Slot::ALL.into_iter().filter_map(|slot| record.identity(slot)) {
        let certificate = Certificate::parse(&identity.certificate).ok();
        let found = certificate.and_then(|certificate| certificate.common_name().ok());
        let expected = config.device_id.as_str();
        if let Some(found) = found.filter(|found| *found != expected) {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            return Err(StartError::ForeignIdentity { found, expected });
        }
    }
    Ok(record)
}

impl StartError {
    pub(super) fn of(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { act, source }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Entropy => "check that the kernel's random generator is initialised",
            Self::ForeignIdentity { .. } => {
                "correct device_id or state_dir; to give this directory to another device, \
                 `fleetcert-agent wipe --yes` first"
            }
            Self::Home(error) => error.advice(),
            Self::Load(error) => error.advice(),
            Self::Lock(error) => error.advice(),
            Self::Socket(error) => error.advice(),
            Self::StateDir(error) => error.advice(),
            Self::System { source, .. } => advice(source.kind()),
            Self::Unexpected(_) => "report it together with the log; a restart goes on safely",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => f.write_str("the operating system gives no random bytes"),
            Self::ForeignIdentity { found, expected } => {
                write!(f, "the state directory belongs to device {found}, expected {expected}")
            }
            Self::Home(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::StateDir(error) => error.fmt(f),
            Self::System { act, source } => write!(f, "cannot {act}: {source}"),
            Self::Unexpected(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a build may raise the floor and never lower it, whatever the variable holds.
    #[test]
    fn the_build_time_is_never_before_the_release() {
        assert_eq!(build_time(None), RELEASE_TIME);
        assert_eq!(build_time(Some("1900000000")), Wall(1_900_000_000));
        for nonsense in ["0", "", "soon", "-1"] {
            assert_eq!(build_time(Some(nonsense)), RELEASE_TIME);
        }
    }
}
