//! The commands that look, and change nothing: status, and publishing through the agent.

use std::rc::Rc;

use fleetcert_core::lifecycle::Machine;
use fleetcert_core::record::Record;
use serde_json::json;
use smol::block_on;

use super::life::status_of;
use super::{CliError, Exit, say};
use crate::cause::Causes;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::{AskError, Request, SOCKET, ask};
use crate::daemon::BUILD_TIME;
use crate::disk::{StateDir, StateDirError};
use crate::entropy::Entropy;
use crate::keystore::KeyStore;
use crate::status::{KeyStatus, Status, View};
use crate::store::Store;
use crate::tpm::SIGN_MAX;

pub(super) fn status(config: &Config, as_json: bool) -> Result<Exit, CliError> {
    let status = look(config)?;
    let text = if as_json { format!("{}\n", json!(status)) } else { status.to_string() };
    say(&text)?;
    Ok(Exit::of_status(&status))
}

/// What the running agent says, or else the record.
pub(super) fn look(config: &Config) -> Result<Status, CliError> {
    match running(config)? {
        Some(status) => Ok(status),
        None => at_rest(config),
    }
}

pub(super) fn publish(config: &Config, topic: &str, payload: &str) -> Result<Exit, CliError> {
    let request = Request::Publish { topic: topic.to_owned(), payload: payload.to_owned() };
    ask(&config.state_dir.join(SOCKET), &request).map_err(CliError::Ask)?;
    say("acknowledged by the broker\n")
}

/// What the running agent says; `None` if none is running.
pub(super) fn running(config: &Config) -> Result<Option<Status>, CliError> {
    match ask(&config.state_dir.join(SOCKET), &Request::Status {}) {
        Ok(answer) => status_of(&answer).map(Some),
        Err(AskError::NotRunning) => Ok(None),
        Err(error) => Err(CliError::Ask(error)),
    }
}

/// What the record says; that of a device that has never enrolled if there is none.
pub(super) fn at_rest(config: &Config) -> Result<Status, CliError> {
    let now = SystemClock.read();
    let machine = machine(config)?;
    let view = View::of(&machine, now);
    let key = match keys(config, machine.record())? {
        None => KeyStatus::planned(config.key.backend),
        Some(keys) => block_on(async {
            // Nobody else asks the TPM for anything: it has the time that it needs.
            keys.look(SIGN_MAX).await;
            keys.close().await;
            keys.status(view.spki_sha256())
        }),
    };
    Ok(view.at_rest(&config.device_id, key, now.mono))
}

/// The key store, to be asked how it stands; none if there is no state directory yet.
fn keys(config: &Config, record: &Record) -> Result<Option<KeyStore>, CliError> {
    let state = match StateDir::open(&config.state_dir) {
        Ok(state) => Rc::new(state),
        Err(StateDirError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(CliError::StateDir(error)),
    };
    let (entropy, causes) = (Entropy::system(), Causes::default());
    let keys = KeyStore::open(state, &config.key, record, entropy, causes);
    keys.map(Some).map_err(CliError::Home)
}

/// A machine that is asked and never run: it needs no randomness.
pub(super) fn machine(config: &Config) -> Result<Machine, CliError> {
    let record = match StateDir::open(&config.state_dir) {
        Ok(state) => {
            Store::new(Rc::new(state), Causes::default()).peek().map_err(CliError::Load)?
        }
        Err(StateDirError::Missing { .. }) => None,
        Err(error) => return Err(CliError::StateDir(error)),
    };
    let record = record.unwrap_or_else(|| Record::new(BUILD_TIME));
    let policy = config.policy(BUILD_TIME);
    Ok(Machine::new(policy, config.device_id.clone(), record, [0; 32], SystemClock.read()))
}
