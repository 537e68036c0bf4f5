//! A real mosquitto with the configuration that the provisioner wrote, and clients of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleetcert_rig::broker::Broker as Running;
use fleetcert_rig::process::Process;
use fleetcert_rig::wait::Stop;

use super::OrFail;
use super::by_hand::Credential;
use super::run::{self, Outcome};
use super::wait::until;

/// A broker, running or not.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    port: u16,
    log: PathBuf,
    server_root: PathBuf,
    running: Option<Running>,
}

/// A running `mosquitto_sub` that writes what it hears to a file.
#[derive(Debug)]
pub struct Listener {
    process: Process,
    heard: PathBuf,
}

impl Broker {
    pub(super) const fn new(
        folder: PathBuf,
        port: u16,
        log: PathBuf,
        server_root: PathBuf,
    ) -> Self {
        Self { folder, port, log, server_root, running: None }
    }

    /// The loopback port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A file of its configuration.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Starts it and waits until it listens.
    pub fn start(&mut self) {
        let running = Running::start(&self.folder, self.port, self.log.clone(), &Stop::default());
        self.running = Some(running.or_fail("mosquitto"));
    }

    /// Takes it away.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Tells it to read its revocation list again, and waits until it says that it does.
    #[track_caller]
    pub fn reload(&self) {
        let reloads = || self.log().matches("Reloading config").count();
        let before = reloads();
        self.running.iter().for_each(Running::reload);
        until("the broker to reload", 5_000, || (reloads() > before).then_some(()));
    }

    /// What it wrote to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `mosquitto_pub` or `mosquitto_sub` with the broker's address and this identity.
    #[must_use]
    pub fn client(&self, program: &str, credential: Option<&Credential>) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-q", "1"]);
        command.arg("--cafile").arg(&self.server_root);
        if let Some(Credential { certificate, key }) = credential {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        command
    }

    /// Publishes one message at QoS 1 to its end.
    #[track_caller]
    pub fn publish(&self, credential: Option<&Credential>, topic: &str, payload: &str) -> Outcome {
        let mut command = self.client("mosquitto_pub", credential);
        command.args(["-t", topic, "-m", payload]);
        run::run(command, b"")
    }

    /// Listens to `topic` and waits until the broker has taken the subscription.
    #[track_caller]
    pub fn listen(&self, credential: &Credential, topic: &str, heard: &Path) -> Listener {
        self.listen_with(credential, &["-t", topic], heard)
    }

    /// As [`Broker::listen`], with more arguments for `mosquitto_sub`.
    #[track_caller]
    pub fn listen_with(
        &self,
        credential: &Credential,
        arguments: &[&str],
        heard: &Path,
    ) -> Listener {
        let mut command = Command::new("stdbuf");
        command.arg("-oL");
        let client = self.client("mosquitto_sub", Some(credential));
        command.arg(client.get_program()).args(client.get_args()).args(["-v", "-d"]);
        command.args(arguments);
        let out = fs::File::create(heard).or_fail("a file for what is heard");
        let err = out.try_clone().or_fail("the same file");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let process = Process::start_piped("mosquitto_sub", command, heard);
        let mut listener =
            Listener { process: process.or_fail("mosquitto_sub"), heard: heard.to_path_buf() };
        until("a subscription", 10_000, || {
            listener.process.check().or_fail("mosquitto_sub");
            listener.text().contains("Subscribed (mid").then_some(())
        });
        listener
    }
}

impl Listener {
    /// The payloads heard on `topic` so far.
    #[must_use]
    pub fn heard(&self, topic: &str) -> Vec<String> {
        let prefix = format!("{topic} ");
        let text = self.text();
        text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// Waits until something heard on `topic` satisfies `wanted`.
    #[track_caller]
    pub fn await_message(
        &mut self,
        waited_for: &'static str,
        limit_ms: u64,
        topic: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        until(waited_for, limit_ms, || {
            self.process.check().or_fail("mosquitto_sub");
            self.heard(topic).into_iter().find(|payload| wanted(payload))
        })
    }

    /// Everything it wrote: messages as `topic payload`, and its protocol.
    #[must_use]
    pub fn text(&self) -> String {
        let octets = fs::read(&self.heard).unwrap_or_default();
        String::from_utf8_lossy(&octets).into_owned()
    }

    /// Whether it is still connected and has never been thrown out.
    #[track_caller]
    #[must_use]
    pub fn is_undisturbed(&mut self) -> bool {
        self.process.check().is_ok() && self.text().matches("received CONNACK").count() == 1
    }
}
