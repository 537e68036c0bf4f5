//! The agent: configured once, started and killed as often as the story wants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::control::Control;
use crate::error::RigError;
use crate::process::Process;
use crate::programs::Programs;

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device's name.
    pub device_id: String,
    /// `https://host:port` of the provisioner.
    pub provisioner_url: String,
    /// The root of the server tree, PEM.
    pub server_root: PathBuf,
    /// The one-time token of the first contact, where one is asked for.
    pub token_file: Option<PathBuf>,
    /// The broker's port on `localhost`.
    pub broker_port: u16,
    /// The address of the TPM that the key lives in; without one it lives in a file.
    pub tpm: Option<String>,
}

/// A device, its agent running or not.
#[derive(Debug)]
pub struct Agent {
    programs: Programs,
    config: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// What an agent says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The phase of its lifecycle.
    pub phase: String,
    /// The serial number in use, hexadecimal.
    pub serial: Option<String>,
    /// The failure that stands in the way.
    pub last_failure: Option<Failure>,
    /// Where its key lives.
    pub key_backend: String,
    /// Whether the provisioner has seen proof of that.
    pub attested: bool,
}

/// A failure, as an agent tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A code of what was attempted.
    pub operation: String,
    /// What happened.
    pub cause: String,
}

impl Agent {
    /// Writes the configuration of a new device into `folder`; starts nothing.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it cannot be written.
    pub fn install(
        programs: &Programs,
        folder: &Path,
        settings: &Settings,
    ) -> Result<Self, RigError> {
        fs::create_dir_all(folder).map_err(RigError::io(folder))?;
        let this = Self {
            programs: programs.clone(),
            config: folder.join("agent.toml"),
            state_dir: folder.join("state"),
            log: folder.join("agent.log"),
            process: None,
        };
        fs::write(&this.config, this.configuration(settings))
            .map_err(RigError::io(&this.config))?;
        Ok(this)
    }

    /// Debug's quoting of a Rust string is a TOML basic string for everything that occurs here.
    fn configuration(&self, settings: &Settings) -> String {
        let Settings { device_id, provisioner_url, server_root, token_file, broker_port, tpm } =
            settings;
        let state_dir = &self.state_dir;
        let token = token_file.as_ref().map(|file| format!("token_file = {file:?}\n"));
        let key = match tpm {
            Some(address) => format!("backend = \"tpm\"\ntpm = {address:?}\n"),
            None => "backend = \"software\"\n".to_owned(),
        };
        format!(
            "device_id = {device_id:?}\nstate_dir = {state_dir:?}\n\n\
             [provisioner]\nurl = {provisioner_url:?}\nserver_root = {server_root:?}\n{}\n\
             [mqtt]\nurl = \"mqtts://localhost:{broker_port}\"\n\n[key]\n{key}",
            token.unwrap_or_default()
        )
    }

    /// Starts it; [`Agent::status`] answers once it listens.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when it was not built.
    pub fn start(&mut self) -> Result<(), RigError> {
        let mut command = self.command();
        command.arg("run");
        self.process = Some(Process::start("fleetcert-agent run", command, &self.log)?);
        Ok(())
    }

    /// Its process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Takes it away, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What it says about itself; `None` while it does not listen.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it does not run any more, [`RigError::Answer`] when what it says
    /// is no status.
    pub fn status(&mut self) -> Result<Option<Status>, RigError> {
        if let Some(process) = &mut self.process {
            process.check()?;
        }
        let asked =
            Control::connect(&self.socket()).and_then(|mut c| c.ask(&json!({"status": {}})));
        asked.map_or(Ok(None), |answer| Status::read(&answer))
    }

    /// Asks it to renew at once, whatever its schedule says.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it does not listen, [`RigError::Answer`] when it declines.
    pub fn renew(&self) -> Result<(), RigError> {
        let socket = self.socket();
        let answer = Control::connect(&socket)
            .and_then(|mut control| control.ask(&json!({"renew": {}})))
            .map_err(RigError::io(&socket))?;
        if answer["ok"] == true {
            return Ok(());
        }
        Err(RigError::Answer {
            from: "fleetcert-agent",
            found: answer.to_string(),
            expected: "ok to renew",
        })
    }

    /// The program with this device's configuration; a subcommand is still missing.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.programs.agent();
        command.arg("--config").arg(&self.config);
        command
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }
}

impl Status {
    /// Why a certificate was asked for in vain, if that is what stands in the way.
    #[must_use]
    pub fn enrollment_failure(&self) -> Option<&str> {
        let failure = self.last_failure.as_ref()?;
        (failure.operation == "enroll").then_some(failure.cause.as_str())
    }

    /// Whether an identity is in use and the next one is being made.
    #[must_use]
    pub fn is_renewing(&self) -> bool {
        self.serial.is_some() && matches!(&*self.phase, "renewing" | "proving")
    }

    /// Reads an answer; `None` from an agent that has not looked at itself yet.
    fn read(answer: &Value) -> Result<Option<Self>, RigError> {
        let text = |pointer| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        match (text("/status/phase"), text("/status/key/backend")) {
            (Some(phase), Some(key_backend)) => Ok(Some(Self {
                phase,
                serial: text("/status/identity/serial"),
                last_failure: text("/status/last_failure/operation")
                    .zip(text("/status/last_failure/cause"))
                    .map(|(operation, cause)| Failure { operation, cause }),
                key_backend,
                attested: answer.pointer("/status/key/attested") == Some(&Value::Bool(true)),
            })),
            _ if answer["ok"] == false && answer["retry"] == true => Ok(None),
            _ => Err(RigError::Answer {
                from: "fleetcert-agent",
                found: answer.to_string(),
                expected: "a status with phase and key.backend",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what the story needs is found where the agent's schema has it.
    #[test]
    fn a_status_is_read_from_its_schema() {
        let answer = json!({"ok": true, "status": {
            "schema": 1, "phase": "renewing", "key": {"backend": "tpm", "attested": true},
            "identity": {"serial": "0a1b"}, "last_failure": {"operation": "enroll", "cause": "no connection"},
        }});
        let status = Status::read(&answer).unwrap().unwrap();
        assert!(status.is_renewing());
        assert_eq!(status.serial.as_deref(), Some("0a1b"));
        let failure = Failure { operation: "enroll".into(), cause: "no connection".into() };
        assert_eq!(status.last_failure, Some(failure));
        assert_eq!((&*status.key_backend, status.attested), ("tpm", true));
    }

    /// Goal: an agent that has just started is asked again; nonsense is reported.
    #[test]
    fn an_early_answer_is_told_from_nonsense() {
        let early = json!({"ok": false, "error": "just started", "retry": true});
        assert_eq!(Status::read(&early).unwrap(), None);
        assert!(matches!(Status::read(&json!({"ok": true})), Err(RigError::Answer { .. })));
    }
}
