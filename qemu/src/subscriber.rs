//! The backend: somebody else's MQTT client that hears every device and counts.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::RigError;
use crate::process::Process;
use crate::traffic;

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

/// A running `mosquitto_sub`.
#[derive(Debug)]
pub struct Subscriber {
    process: Process,
    heard: Arc<Mutex<Heard>>,
}

/// What was heard so far.
#[derive(Debug, Default)]
struct Heard {
    numbers: BTreeSet<u64>,
    duplicates: u64,
    anything: bool,
}

impl Access {
    /// The command that hears `topic` and prints topic and payload, QoS 1.
    #[must_use]
    pub fn listen(&self, topic: &str) -> Command {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "localhost", "-p", &self.port.to_string(), "-q", "1", "-v"]);
        command.arg("--cafile").arg(&self.server_root);
        command.arg("--cert").arg(&self.certificate).arg("--key").arg(&self.key);
        command.args(["-t", topic]);
        command
    }
}

impl Subscriber {
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
        let heard = Arc::new(Mutex::new(Heard::default()));
        if let Some(output) = process.take_output() {
            let heard = Arc::clone(&heard);
            thread::spawn(move || listen(output, &heard));
        }
        Ok(Self { process, heard })
    }

    /// Whether any device has said anything.
    #[must_use]
    pub fn has_heard_anything(&self) -> bool {
        lock(&self.heard).anything
    }

    /// How many of the messages 1 to `up_to` have arrived.
    #[must_use]
    pub fn received(&self, up_to: u64) -> u64 {
        u64::try_from(lock(&self.heard).numbers.range(1..=up_to).count()).unwrap_or(u64::MAX)
    }

    /// Messages that arrived more than once.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        lock(&self.heard).duplicates
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

/// Ends with the program: its death closes the stream.
fn listen(output: ChildStdout, heard: &Mutex<Heard>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        lock(heard).take(&line);
    }
}

impl Heard {
    /// A line is `topic payload`.
    fn take(&mut self, line: &str) {
        self.anything = true;
        let Some((topic, payload)) = line.split_once(' ') else { return };
        if !topic.ends_with(traffic::TOPIC) {
            return;
        }
        let Ok(number) = payload.parse() else { return };
        if !self.numbers.insert(number) {
            self.duplicates += 1;
        }
    }
}

/// A listener that panicked leaves a count that is true as far as it goes.
fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each number counts once, repetitions apart, and other topics not at all.
    #[test]
    fn repeated_messages_count_once() {
        let mut heard = Heard::default();
        for line in [
            "fleetcert/v1/d/data/demo 1",
            "fleetcert/v1/d/data/demo 2",
            "fleetcert/v1/d/data/demo 2",
            "fleetcert/v1/d/state 3",
            "fleetcert/v1/d/data/demo four",
        ] {
            heard.take(line);
        }
        assert_eq!(heard.numbers, BTreeSet::from([1, 2]));
        assert_eq!(heard.duplicates, 1);
    }
}
