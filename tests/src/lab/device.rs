//! One device: its configuration, its agent, and what it says about itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetcert_rig::control::Control;
use fleetcert_rig::process::Process;
use fleetcert_rig::programs::Programs;
use fleetcert_rig::wait::Stop;
use serde_json::{Value, json};

use super::OrFail;
use super::run::{self, Outcome};

/// The level of the agent's log.
const LOG_LEVEL: &str = "debug";

/// From the agent's start to an identity in use, on a busy machine.
pub const IDENTITY_MS_MAX: u64 = 20_000;

/// What an agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device's name.
    pub id: String,
    /// `https://host:port` of the provisioner.
    pub provisioner_url: String,
    /// The root that servers must lead to, PEM.
    pub server_root: PathBuf,
    /// The EST label.
    pub label: Option<String>,
    /// The one-time token of the first contact.
    pub token_file: Option<PathBuf>,
    /// The broker's port.
    pub broker_port: Option<u16>,
    /// The name under which the broker is reached.
    pub broker_host: String,
    /// Where record and keys are; a folder beside the configuration when missing.
    pub state_dir: Option<PathBuf>,
    /// `[key] backend`: `auto`, `software` or `tpm`; the agent's own choice when missing.
    pub key_backend: Option<&'static str>,
    /// `[key] tpm`: the address of the TPM.
    pub tpm: Option<String>,
    /// `[key] owner_auth_file`: beside the configuration.
    pub owner_auth_file: Option<&'static str>,
}

impl Settings {
    /// Of a device that knows the provisioner and nobody else.
    #[must_use]
    pub fn new(id: &str, provisioner_url: &str, server_root: PathBuf) -> Self {
        Self {
            id: id.to_owned(),
            provisioner_url: provisioner_url.to_owned(),
            server_root,
            label: None,
            token_file: None,
            broker_port: None,
            broker_host: "localhost".to_owned(),
            state_dir: None,
            key_backend: None,
            tpm: None,
            owner_auth_file: None,
        }
    }

    /// The key is to live in the TPM at `address`.
    pub fn keep_key_in(&mut self, address: String) {
        self.key_backend = Some("tpm");
        self.tpm = Some(address);
    }

    /// Debug's quoting of a Rust string is a TOML basic string for everything that occurs here.
    fn toml(&self, state_dir: &Path) -> String {
        let Self { id, provisioner_url, server_root, .. } = self;
        let mut text = format!(
            "device_id = {id:?}\nstate_dir = {state_dir:?}\n\n\
             [provisioner]\nurl = {provisioner_url:?}\nserver_root = {server_root:?}\n"
        );
        if let Some(label) = &self.label {
            text += &format!("label = {label:?}\n");
        }
        if let Some(token_file) = &self.token_file {
            text += &format!("token_file = {token_file:?}\n");
        }
        if let Some(port) = self.broker_port {
            text += &format!("\n[mqtt]\nurl = \"mqtts://{}:{port}\"\n", self.broker_host);
        }
        let key = [
            ("backend", self.key_backend),
            ("tpm", self.tpm.as_deref()),
            ("owner_auth_file", self.owner_auth_file),
        ];
        let line =
            |(name, value): (_, Option<_>)| value.map(|value| format!("{name} = {value:?}\n"));
        let key: String = key.into_iter().filter_map(line).collect();
        if !key.is_empty() {
            text += &format!("\n[key]\n{key}");
        }
        text
    }
}

/// A device, its agent running or not.
#[derive(Debug)]
pub struct Device {
    programs: Programs,
    id: String,
    config: PathBuf,
    state_dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// What an agent says about itself: `status --json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status(pub Value);

impl Device {
    pub(super) fn install(programs: &Programs, folder: &Path, settings: &Settings) -> Self {
        fs::create_dir_all(folder).or_fail("the device's folder");
        let state_dir = settings.state_dir.clone().unwrap_or_else(|| folder.join("state"));
        let config = folder.join("agent.toml");
        fs::write(&config, settings.toml(&state_dir)).or_fail("the agent's configuration");
        Self {
            programs: programs.clone(),
            id: settings.id.clone(),
            config,
            state_dir,
            log: folder.join("agent.log"),
            process: None,
        }
    }

    /// The device's name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes another configuration; a running agent goes on by the old one.
    pub fn reconfigure(&self, settings: &Settings) {
        fs::write(&self.config, settings.toml(&self.state_dir)).or_fail("the new configuration");
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// A file in the state directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    /// What the agent wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The program with this device's configuration; a subcommand is still missing.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.programs.agent();
        command.arg("--config").arg(&self.config);
        command
    }

    /// Runs a command of the agent's to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.command();
        command.args(arguments);
        run::run(command, b"")
    }

    /// Starts the agent.
    pub fn start(&mut self) {
        let mut command = self.command();
        command.args(["--log-level", LOG_LEVEL, "run"]);
        self.start_as(command);
    }

    /// Starts the agent by `command`.
    pub fn start_as(&mut self, command: Command) {
        let process = Process::start("fleetcert-agent run", command, &self.log);
        self.process = Some(process.or_fail("fleetcert-agent run"));
    }

    /// Its process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Takes the agent away, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the agent to end, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.terminate();
        super::wait::until("the end of the agent", 10_000, || process.check().err());
    }

    /// Why a running agent has ended, if it has.
    pub fn end(&mut self) -> Option<String> {
        self.process.as_mut().and_then(|process| process.check().err()).map(|e| e.to_string())
    }

    /// What the running agent says about itself; `None` while it does not listen.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let request = json!({"status": {}});
        let asked = Control::connect(&self.socket()).and_then(|mut c| c.ask(&request));
        asked.ok().map(|answer| answer["status"].clone()).filter(Value::is_object).map(Status)
    }

    /// What `status --json` says, and its exit code.
    #[track_caller]
    #[must_use]
    pub fn status_command(&self) -> (Status, Option<i32>) {
        let outcome = self.run(&["status", "--json"]);
        let value = serde_json::from_str(&outcome.stdout);
        (Status(value.or_fail(&outcome.text())), outcome.code)
    }

    /// Waits until the agent's status satisfies `wanted`.
    #[track_caller]
    pub fn await_status(
        &mut self,
        waited_for: &'static str,
        limit_ms: u64,
        wanted: impl Fn(&Status) -> bool,
    ) -> Status {
        let mut last = None;
        let found = Stop::default().until(waited_for, limit_ms, || {
            if let Some(process) = &mut self.process {
                process.check()?;
            }
            last = self.status().or(last.take());
            Ok(last.clone().filter(&wanted))
        });
        match found {
            Ok(status) => status,
            Err(error) => panic!("{error}; last status of {}: {last:#?}", self.id),
        }
    }

    /// Waits until an identity is in use, nothing is on its way, and all is well.
    #[track_caller]
    pub fn await_active(&mut self) -> Status {
        self.await_status("an identity in use", IDENTITY_MS_MAX, |status| {
            status.phase() == "active"
        })
    }

    /// Waits until an identity is in use, nothing is on its way, and the broker is connected.
    #[track_caller]
    pub fn await_online(&mut self) -> Status {
        self.await_status("an identity in use and the broker", IDENTITY_MS_MAX, |status| {
            status.phase() == "active" && status.is_connected()
        })
    }

    /// Waits until `operation` has failed with `code`; the status then says what to do.
    #[track_caller]
    pub fn await_failure(&mut self, operation: &str, code: &str) -> Status {
        let status = self.await_status("a certain failure", IDENTITY_MS_MAX, |status| {
            status.failure() == Some((operation, code))
        });
        status.assert_failure_is_explained();
        status
    }

    /// Waits until another identity than `serial` is in use and nothing else is on its way.
    #[track_caller]
    pub fn await_other_than(&mut self, serial: &str, limit_ms: u64) -> Status {
        self.await_status("another identity in use", limit_ms, |status| {
            status.phase() == "active" && status.serial().is_some_and(|found| found != serial)
        })
    }

    /// Asks the running agent something through its control socket.
    #[track_caller]
    pub fn ask(&self, request: &Value) -> Value {
        let socket = self.socket();
        let mut control = Control::connect(&socket).or_fail("the control socket");
        control.ask(request).or_fail("an answer through the control socket")
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("control.sock")
    }
}

impl Status {
    /// The phase of the lifecycle.
    #[track_caller]
    #[must_use]
    pub fn phase(&self) -> &str {
        self.text("/phase").or_fail("a phase")
    }

    /// The serial number in use, hexadecimal.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.text("/identity/serial")
    }

    /// Operation and code of the last failure.
    #[must_use]
    pub fn failure(&self) -> Option<(&str, &str)> {
        Some((self.text("/last_failure/operation")?, self.text("/last_failure/code")?))
    }

    /// The particulars of the last failure.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.text("/last_failure/cause")
    }

    /// The code of what keeps the broker away.
    #[must_use]
    pub fn broker_failure(&self) -> Option<&str> {
        self.text("/mqtt/last_failure/code")
    }

    /// Whether the broker has accepted the session.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.pointer("/mqtt/connected") == Some(&Value::Bool(true))
    }

    /// Milliseconds without a session at the worst identity switch.
    #[must_use]
    pub fn gap_ms_max(&self) -> Option<u64> {
        self.0.pointer("/mqtt/gap_ms_max").and_then(Value::as_u64)
    }

    /// The last failure says what happened and what to do about it.
    #[track_caller]
    pub fn assert_failure_is_explained(&self) {
        for member in ["cause", "what_to_do"] {
            let text = self.text(&format!("/last_failure/{member}")).unwrap_or_default();
            assert!(!text.is_empty(), "no {member}: {:#}", self.0);
        }
    }

    /// The name of what keeps the agent from its TPM.
    #[must_use]
    pub fn tpm_trouble(&self) -> Option<&str> {
        self.text("/key/tpm/state").filter(|state| *state != "ok")
    }

    /// A text by its JSON pointer (RFC 6901).
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }
}
