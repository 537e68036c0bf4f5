//! The backend: somebody else's MQTT client that hears every device.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::RigError;
use crate::process::Process;

/// What a backend needs to connect.
#[derive(Clone, Debug)]
pub struct Access {
    /// The broker's port on `localhost`.
    pub port: u16,
    /// The root of the server tree, PEM.
    pub server_root: PathBuf,
    /// The backend's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What is made of what is heard.
pub trait Hear: Default + Send + 'static {
    /// A message came; devices' payloads are text without line ends.
    fn hear(&mut self, topic: &str, payload: &str);
}

/// A running `mosquitto_sub`.
#[derive(Debug)]
pub struct Subscriber<H> {
    process: Process,
    heard: Arc<Mutex<H>>,
}

impl Access {
    /// The command that hears `topic` and prints topic and payload, QoS 1.
    #[must_use]
    pub fn listen(&self, topic: &str) -> Command {
        let mut command = self.client("mosquitto_sub");
        command.args(["-v", "-t", topic]);
        command
    }

    /// The command that says `payload` on `topic`, QoS 1, and ends when the broker has it.
    #[must_use]
    pub fn say(&self, topic: &str, payload: &str) -> Command {
        let mut command = self.client("mosquitto_pub");
        command.args(["-t", topic, "-m", payload]);
        command
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-q", "1"]);
        command.arg("--cafile").arg(&self.server_root);
        command.arg("--cert").arg(&self.certificate).arg("--key").arg(&self.key);
        command
    }
}

impl<H: Hear> Subscriber<H> {
    /// Starts to listen to everything that devices say.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when there is no `mosquitto_sub`.
    pub fn start(access: &Access, log: PathBuf) -> Result<Self, RigError> {
        let mut command = access.listen("fleetcert/v1/#");
        let errors = std::fs::File::create(&log).map_err(RigError::io(&log))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut process = Process::start_piped("mosquitto_sub", command, &log)?;
        let heard = Arc::new(Mutex::new(H::default()));
        if let Some(output) = process.take_output() {
            let heard = Arc::clone(&heard);
            thread::spawn(move || listen(output, &heard));
        }
        Ok(Self { process, heard })
    }

    /// What was heard so far.
    pub fn heard(&self) -> MutexGuard<'_, H> {
        lock(&self.heard)
    }

    /// Whether it is up.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it is not: a backend that was thrown out hears nothing.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.process.check()
    }
}

/// Ends with the program: its death closes the stream. A line is `topic payload`.
fn listen(output: ChildStdout, heard: &Mutex<impl Hear>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some((topic, payload)) = line.split_once(' ') {
            lock(heard).hear(topic, payload);
        }
    }
}

/// A listener that panicked leaves a count that is true as far as it goes.
fn lock<H>(heard: &Mutex<H>) -> MutexGuard<'_, H> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
