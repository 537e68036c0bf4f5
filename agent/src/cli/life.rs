//! The commands that change something: run, enroll, renew, decommission, wipe.

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use smol::block_on;

use super::look;
use super::{CliError, Exit, say};
use crate::cause::Causes;
use crate::clock::{SystemClock, timer};
use crate::config::Config;
use crate::control::{AskError, Request, SOCKET, ask};
use crate::daemon::{Daemon, Ending, StartError, Until, leave_no_core_dumps};
use crate::disk::{Lock, LockError, StateDir};
use crate::keystore::{erase_anchor, erase_keys};
use crate::peers::Peers;
use crate::status::Status;
use crate::store::Store;

/// A running agent has so long to do what it was asked before we stop watching.
const WATCH_MS_MAX: u64 = 60_000;

/// How often we look meanwhile.
const WATCH_PAUSE: Duration = Duration::from_millis(200);

pub(super) fn run(config: Config) -> Result<Exit, CliError> {
    live(config, Until::Stopped).map(|_| Exit::Ok)
}

pub(super) fn enroll(config: Config, patient: bool) -> Result<Exit, CliError> {
    let enrolled = |status: &Status| status.phase == "active";
    match look::running(&config)? {
        Some(status) if enrolled(&status) => {
            return say("enrolled already; the agent is running\n");
        }
        Some(_) => return watch(&config, enrolled),
        None => {}
    }
    let state_dir = config.state_dir.clone();
    match live(config, Until::Enrolled { patient })? {
        Ending::Stopped => Ok(Exit::TryLater),
        _ => say(&format!("enrolled; the identity is in {}\n", state_dir.display())),
    }
}

pub(super) fn renew(config: Config) -> Result<Exit, CliError> {
    match ask(&config.state_dir.join(SOCKET), &Request::Renew {}) {
        Ok(_) => return watch(&config, renewed(look::running(&config)?)),
        Err(AskError::NotRunning) => {}
        Err(error) => return Err(CliError::Ask(error)),
    }
    if look::at_rest(&config)?.identity.is_none() {
        return Err(CliError::NotEnrolled);
    }
    match live(config, Until::Renewed)? {
        Ending::Stopped => Ok(Exit::TryLater),
        _ => say("renewed\n"),
    }
}

pub(super) fn decommission(config: Config, yes: bool) -> Result<Exit, CliError> {
    confirmed(yes, "decommission")?;
    match ask(&config.state_dir.join(SOCKET), &Request::Decommission {}) {
        Ok(_) => return watch(&config, |status| status.phase == "decommissioned"),
        Err(AskError::NotRunning) => {}
        Err(error) => return Err(CliError::Ask(error)),
    }
    match live(config, Until::Decommissioned)? {
        Ending::Stopped => Ok(Exit::TryLater),
        _ => say("decommissioned\n"),
    }
}

/// Keys first: were it cut off in between, a record without its key is a lost key, which the
/// agent can tell; a key without a record would stop it. What ties the directory to a TPM goes
/// last: without it, a record would be one of keys in files.
pub(super) fn wipe(config: &Config, yes: bool) -> Result<Exit, CliError> {
    confirmed(yes, "wipe")?;
    let state = StateDir::open(&config.state_dir).map_err(CliError::StateDir)?;
    let _lock = Lock::take(&state).map_err(CliError::Lock)?;
    let state = Rc::new(state);
    erase_keys(&*state).map_err(CliError::Disk)?;
    Store::new(state.clone(), Causes::default()).erase().map_err(CliError::Disk)?;
    erase_anchor(&*state).map_err(CliError::Disk)?;
    say("keys and record are erased\n")
}

fn confirmed(yes: bool, command: &'static str) -> Result<(), CliError> {
    if yes { Ok(()) } else { Err(CliError::Confirmation { command }) }
}

/// Runs an agent of our own, under the lock.
fn live(config: Config, until: Until) -> Result<Ending, CliError> {
    leave_no_core_dumps();
    let daemon = Daemon::prepare(config).map_err(|error| match error {
        StartError::Lock(error @ LockError::Held { .. }) => CliError::Lock(error),
        error => CliError::Start(error),
    })?;
    let peers = Peers::new(daemon.context().clone()).map_err(CliError::Setup)?;
    let link = peers.link();
    match daemon.run(peers, link, until).map_err(CliError::Start)? {
        Ending::Decommissioned => Err(CliError::Decommissioned),
        Ending::Failed { operation, failure, cause, tpm } => {
            Err(CliError::Failed { operation, failure, cause, tpm })
        }
        ending => Ok(ending),
    }
}

/// Whether another identity than this one is in use.
fn renewed(before: Option<Status>) -> impl Fn(&Status) -> bool {
    let serial = |status: &Status| status.identity.as_ref().map(|identity| identity.serial.clone());
    let before = before.as_ref().and_then(serial);
    move |status| status.phase == "active" && serial(status) != before
}

/// Watches the running agent until it is done, or has trouble, or for long enough.
fn watch(config: &Config, done: impl Fn(&Status) -> bool) -> Result<Exit, CliError> {
    let begun = SystemClock.mono();
    loop {
        let Some(status) = look::running(config)? else {
            return Err(CliError::Ask(AskError::NotRunning));
        };
        if done(&status) {
            return say("done\n");
        }
        let is_tpm = status.key.is_out_of_reach();
        let trouble = status.last_failure.filter(|failure| failure.operation != "consult");
        if trouble.is_some() || SystemClock.mono().ms_since(begun) > WATCH_MS_MAX {
            let trouble =
                trouble.map(|failure| format!("{}: {}", failure.operation, failure.cause));
            return Err(CliError::Unfinished { trouble, is_tpm });
        }
        block_on(timer(WATCH_PAUSE));
    }
}

/// The member of an answer that is a status.
pub(super) fn status_of(answer: &Value) -> Result<Status, CliError> {
    serde_json::from_value(answer["status"].clone()).map_err(|_| CliError::Ask(AskError::Malformed))
}
