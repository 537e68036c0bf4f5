//! What devices talk to: the provisioner and the broker, set up once, and two of the fleet's own
//! backends: one that hears and one that commands.
//!
//! Both servers listen on loopback alone, with certificates for `localhost` and for the names that
//! the terms add: an emulated board reaches them under another address.

use std::path::PathBuf;

use crate::broker::Broker;
use crate::error::RigError;
use crate::ports;
use crate::process;
use crate::programs::Programs;
use crate::provisioner::{BACKENDS, Provisioner, Terms};
use crate::subscriber::{Access, Hear, Subscriber};
use crate::wait::Stop;
use crate::workplace::Workplace;

/// The provisioner, the broker, and the ways in.
#[derive(Debug)]
pub struct Servers {
    /// The provisioning service.
    pub provisioner: Provisioner,
    /// The backend that hears: one name has one session.
    pub listening: Access,
    commanding: Access,
    broker: Option<Broker>,
    broker_folder: PathBuf,
    logs: Logs,
}

#[derive(Debug)]
struct Logs {
    broker: PathBuf,
    commands: PathBuf,
    subscriber: PathBuf,
}

impl Servers {
    /// Installs everything in `place`; starts nothing.
    ///
    /// # Errors
    ///
    /// What the provisioner's program reports.
    pub fn install(
        programs: &Programs,
        place: &Workplace,
        terms: Terms<'_>,
    ) -> Result<Self, RigError> {
        let provisioner = Provisioner::install(programs, place, terms)?;
        let ([port], broker_folder) = (ports::free()?, place.join("broker"));
        provisioner.configure_broker(&broker_folder, port)?;
        let access = |name: &str| {
            let (certificate, key) = provisioner.admit_backend(name, &place.join(name))?;
            Ok(Access { port, server_root: provisioner.server_root(), certificate, key })
        };
        let [listener, commander] = BACKENDS;
        let (listening, commanding) = (access(listener)?, access(commander)?);
        let logs = Logs {
            broker: place.join("mosquitto.log"),
            commands: place.join("mosquitto_pub.log"),
            subscriber: place.join("mosquitto_sub.log"),
        };
        Ok(Self { provisioner, listening, commanding, broker: None, broker_folder, logs })
    }

    /// Starts the broker, as before if it was killed; does nothing while it runs.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] with its last words when it does not stay up.
    pub fn start_broker(&mut self, stop: &Stop) -> Result<(), RigError> {
        if self.broker.is_none() {
            let (folder, log) = (&self.broker_folder, self.logs.broker.clone());
            self.broker = Some(Broker::start(folder, self.broker_port(), log, stop)?);
        }
        Ok(())
    }

    /// Takes the broker away, as a power cut would; whoever is connected is thrown out.
    pub fn kill_broker(&mut self) {
        self.broker = None;
    }

    /// The loopback port of the broker's TLS listener.
    #[must_use]
    pub const fn broker_port(&self) -> u16 {
        self.listening.port
    }

    /// A backend that hears every device, from now on.
    ///
    /// # Errors
    ///
    /// As [`Subscriber::start`].
    pub fn subscribe<H: Hear>(&self) -> Result<Subscriber<H>, RigError> {
        Subscriber::start(&self.listening, self.logs.subscriber.clone())
    }

    /// Publishes a message as the backend that commands, and waits until the broker has it.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when the broker does not take it.
    pub fn publish(&self, topic: &str, payload: &str) -> Result<(), RigError> {
        process::run("mosquitto_pub", self.commanding.say(topic, payload), &self.logs.commands)
    }

    /// Whether everyone is up who should be.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] names who is not.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.broker.as_mut().map_or(Ok(()), Broker::check)?;
        self.provisioner.check()
    }
}
