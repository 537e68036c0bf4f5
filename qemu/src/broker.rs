//! A real mosquitto with the configuration that the provisioner wrote for it.

use std::path::{Path, PathBuf};

use crate::error::RigError;
use crate::ports;
use crate::process::Process;
use crate::programs;
use crate::wait::Stop;

/// From start to its first accepted connection.
const START_WAIT_MS_MAX: u64 = 10_000;

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    process: Process,
}

impl Broker {
    /// Starts mosquitto with `folder`'s configuration, which names `port`.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] with its last words when it does not stay up.
    pub fn start(folder: &Path, port: u16, log: PathBuf, stop: &Stop) -> Result<Self, RigError> {
        let mut command = programs::daemon("mosquitto");
        command.arg("-c").arg(folder.join("mosquitto.conf"));
        let mut process = Process::start("mosquitto", command, &log)?;
        stop.until("mosquitto to listen", START_WAIT_MS_MAX, || {
            process.check()?;
            Ok(ports::accepts(port).then_some(()))
        })?;
        Ok(Self { port, process })
    }

    /// Tells it that its revocation list has changed; new connections are judged by the new one.
    pub fn reload(&self) {
        self.process.hang_up();
    }

    /// The loopback port of its TLS listener.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is up.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it is not.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.process.check()
    }
}
