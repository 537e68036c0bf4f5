//! A device: a state directory with real key files, and the context that the daemon would make.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use fleetcert_agent::cause::Causes;
use fleetcert_agent::clock::SystemClock;
use fleetcert_agent::config::{Config, Endpoint};
use fleetcert_agent::context::{Context, Executor};
use fleetcert_agent::disk::StateDir;
use fleetcert_agent::entropy::Entropy;
use fleetcert_agent::keystore::KeyStore;
use fleetcert_agent::tls::{Client, Trust};
use fleetcert_core::der::Certificate;
use fleetcert_core::lifecycle::Command;
use fleetcert_core::port::Keys as _;
use fleetcert_core::record::{Identity, KeySource, Serial, Slot};
use fleetcert_core::time::server::Server;
use futures_lite::future::block_on;
use smol::LocalExecutor;
use smol::channel::{Receiver, bounded};
use tempfile::TempDir;

use super::pki::Authority;

pub(crate) const DEVICE: &str = "gw-1";

pub(crate) struct Device {
    pub(crate) context: Context,
    pub(crate) commands: Receiver<Command>,
    dir: TempDir,
}

impl Device {
    /// A device whose servers stand under one root.
    pub(crate) fn new(server_root: &Authority, provisioner: u16, broker: Option<u16>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("server-root.pem"), &server_root.pem).unwrap();
        let mqtt = broker
            .map(|port| format!("[mqtt]\nurl = \"mqtts://127.0.0.1:{port}\"\nkeep_alive_s = 5\n"));
        let config = format!(
            "device_id = \"{DEVICE}\"\nstate_dir = \"state\"\n\
             [provisioner]\nurl = \"https://127.0.0.1:{provisioner}\"\n\
             server_root = \"server-root.pem\"\ntoken_file = \"token\"\n{}",
            mqtt.unwrap_or_default()
        );
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, config).unwrap();
        let config = Config::read(&file).unwrap();
        let (sender, commands) = bounded(1);
        let (entropy, causes) = (Entropy::system(), Causes::default());
        let disk = Rc::new(StateDir::make(&config.state_dir).unwrap());
        let context = Context {
            config: Arc::new(config),
            keys: KeyStore::files(disk, entropy.clone(), causes.clone()),
            clock: SystemClock,
            entropy,
            executor: Executor::new(LocalExecutor::new()),
            commands: sender,
            causes,
        };
        Self { context, commands, dir }
    }

    /// Where the one-time token is looked for.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    /// Makes the slot's key and has it certified.
    pub(crate) fn identity(&self, slot: Slot, authority: &Authority) -> Identity {
        let spki_sha256 =
            block_on(self.context.keys.clone().ensure(slot, KeySource::Fresh)).unwrap();
        let signer = self.context.keys.signer(slot).unwrap();
        let der = authority.certify(DEVICE, signer.spki());
        let certificate = Certificate::parse(&der).unwrap();
        Identity {
            serial: Serial::from_slice(certificate.serial()).unwrap(),
            validity: certificate.validity(),
            spki_sha256,
            certificate: heapless::Vec::from_slice(&der).unwrap(),
        }
    }

    /// A client that shows the slot's identity.
    pub(crate) fn client(
        &self,
        root: &Authority,
        server: Server,
        slot: Slot,
        identity: &Identity,
    ) -> Client {
        let signer = self.context.keys.signer(slot).unwrap();
        Client::identified(&trust(root), server, &identity.certificate, signer).unwrap()
    }
}

pub(crate) fn trust(root: &Authority) -> Trust {
    Trust::new([root.certificate.clone()]).unwrap()
}

pub(crate) fn loopback(port: u16) -> Endpoint {
    Endpoint { host: "127.0.0.1".into(), port }
}
