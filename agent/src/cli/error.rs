//! How a command ends.

use std::fmt;
use std::io;
use std::process::ExitCode;

use fleetcert_core::event::{Failure, Operation};

use crate::config::ConfigError;
use crate::control::AskError;
use crate::daemon::StartError;
use crate::disk::{DiskFailure, LockError, StateDirError};
use crate::keystore::HomeError;
use crate::status::{Status, advice_in};
use crate::store::LoadError;
use crate::tls::SetupError;
use crate::tpm::TpmTrouble;

/// The exit codes, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// It did not succeed, for a reason that none of the others names.
    Failure = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The device has no identity.
    NotEnrolled = 3,
    /// The device has an identity that is expired, about to expire, or could not be renewed.
    Degraded = 4,
    /// The provisioner, or the broker, does not want this device.
    Refused = 5,
    /// The TPM that the keys are in, or are to be in, does not give them.
    KeyHardware = 6,
    /// It may succeed later, without anybody's doing (EX_TEMPFAIL).
    TryLater = 75,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub enum CliError {
    /// The running agent did not do it.
    Ask(AskError),
    /// The configuration is not taken.
    Config(ConfigError),
    /// It destroys, and was not confirmed.
    Confirmation {
        /// The command.
        command: &'static str,
    },
    /// The device has ended its life in the fleet.
    Decommissioned,
    /// The disk failed.
    Disk(DiskFailure),
    /// The machine says what failed.
    Failed {
        /// Which action.
        operation: Operation,
        /// Why.
        failure: Failure,
        /// That in words, with the particulars.
        cause: String,
        /// What is in the way of the TPM, if it was that.
        tpm: Option<Box<TpmTrouble>>,
    },
    /// The keys are not where they were configured to be.
    Home(HomeError),
    /// The record cannot be read.
    Load(LoadError),
    /// Another agent runs on the state directory.
    Lock(LockError),
    /// There is no identity to show or renew.
    NotEnrolled,
    /// Standard output failed.
    Output(io::Error),
    /// The roots or the TLS configuration are not taken.
    Setup(SetupError),
    /// The agent could not start.
    Start(StartError),
    /// The state directory cannot be used.
    StateDir(StateDirError),
    /// The running agent has not finished in time; it goes on.
    Unfinished {
        /// Where it stands, when that is known.
        trouble: Option<String>,
        /// Whether it is the TPM that is in the way.
        is_tpm: bool,
    },
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit code of a failure: who has to act.
    #[must_use]
    pub const fn of_failure(failure: &Failure) -> Self {
        match failure {
            Failure::OurIdentityRefused | Failure::Refused { .. } | Failure::Revoked => {
                Self::Refused
            }
            Failure::Busy { .. } | Failure::Pending { .. } | Failure::Unreachable => Self::TryLater,
            Failure::AnswerMalformed
            | Failure::CertificateUnfit(_)
            | Failure::KeyLost
            | Failure::KeyUnavailable
            | Failure::ServerUntrusted
            | Failure::StorageUnavailable
            | Failure::WrongCertificateSeen => Self::Failure,
        }
    }

    /// The exit code of where a device stands.
    #[must_use]
    pub fn of_status(status: &Status) -> Self {
        let broker_away = status.mqtt.as_ref().is_some_and(|broker| broker.last_failure.is_some());
        let failing = status.last_failure.is_some() || broker_away;
        match (&status.identity, status.phase.as_str()) {
            (_, "quarantined") => Self::Refused,
            _ if status.key.is_out_of_reach() => Self::KeyHardware,
            (None, _) => Self::NotEnrolled,
            (Some(identity), phase) => {
                let ending = identity.expired == Some(true) || identity.expiring == Some(true);
                let degraded = ending || failing || phase == "recovering";
                if degraded { Self::Degraded } else { Self::Ok }
            }
        }
    }
}

impl CliError {
    /// Its exit code.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Confirmation { .. } => Exit::Usage,
            Self::Decommissioned | Self::NotEnrolled => Exit::NotEnrolled,
            Self::Failed { tpm: Some(_), .. } | Self::Unfinished { is_tpm: true, .. } => {
                Exit::KeyHardware
            }
            Self::Failed { failure, .. } => Exit::of_failure(failure),
            Self::Ask(AskError::Refused { retry: true, .. }) | Self::Unfinished { .. } => {
                Exit::TryLater
            }
            Self::Ask(_)
            | Self::Disk(_)
            | Self::Home(_)
            | Self::Load(_)
            | Self::Lock(_)
            | Self::Output(_)
            | Self::Setup(_)
            | Self::Start(_)
            | Self::StateDir(_) => Exit::Failure,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Ask(AskError::NotRunning) => "start the agent: `fleetcert-agent run`",
            Self::Ask(AskError::Refused { retry: true, .. }) => "try again",
            Self::Ask(_) => "see `fleetcert-agent status` and the agent's log",
            Self::Config(_) => "correct the file; agent.example.toml explains each key",
            Self::Confirmation { .. } => "add --yes if you mean it",
            Self::Decommissioned => {
                "to let the device start over, `fleetcert-agent wipe --yes` and enroll again"
            }
            Self::Disk(failure) => failure.advice(),
            Self::Failed { operation, failure, tpm, .. } => {
                advice_in(*operation, failure, tpm.as_deref())
            }
            Self::Home(error) => error.advice(),
            Self::Load(error) => error.advice(),
            Self::Lock(error) => error.advice(),
            Self::NotEnrolled => "enroll first: `fleetcert-agent enroll`",
            Self::Output(_) => "check where standard output leads",
            Self::Setup(_) => "check that server_root is a PEM file with the root of the servers",
            Self::Start(error) => error.advice(),
            Self::StateDir(error) => error.advice(),
            Self::Unfinished { is_tpm: true, .. } => {
                "see `fleetcert-agent status` for what is in the way of the TPM"
            }
            Self::Unfinished { .. } => {
                "watch `fleetcert-agent status`; the agent goes on by itself"
            }
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Confirmation { command } => write!(f, "{command} destroys the device's identity"),
            Self::Decommissioned => f.write_str("this device is decommissioned"),
            Self::Disk(error) => error.fmt(f),
            Self::Failed { operation, cause, .. } => write!(f, "{}: {cause}", operation.code()),
            Self::Home(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
            Self::Lock(error) => error.fmt(f),
            Self::NotEnrolled => f.write_str("this device has no certificate"),
            Self::Output(error) => write!(f, "standard output: {error}"),
            Self::Setup(error) => error.fmt(f),
            Self::Start(error) => error.fmt(f),
            Self::StateDir(error) => error.fmt(f),
            Self::Unfinished { trouble: Some(trouble), .. } => write!(f, "not yet: {trouble}"),
            Self::Unfinished { trouble: None, .. } => f.write_str("not yet"),
        }
    }
}

impl std::error::Error for CliError {}
