//! A device with its key in a TPM, and everything around it: where most stories about TPMs begin.

use std::collections::BTreeMap;
use std::fs;

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_rig::wait::Stop;
use serde_json::Value;

use super::broker::Broker;
use super::device::{Device, Settings, Status};
use super::tpm::tool;
use super::tpm_bus::TpmBus;
use super::{Lab, OrFail, Plan};

/// The name of a site's device.
pub const ID: &str = "dev-1";

/// From trouble that has passed to an identity in use, on a busy machine. The agent's pauses
/// between two attempts grow to some seconds.
pub const BACK_MS_MAX: u64 = 60_000;

/// A device with its key in a TPM, and everything around it.
#[derive(Debug)]
pub struct Site {
    /// Configured to keep its key in the TPM behind the bus.
    pub device: Device,
    /// The broker that it speaks to.
    pub broker: Broker,
    /// Between agent and TPM.
    pub bus: TpmBus,
    /// The TPM.
    pub tpm: Swtpm,
    /// Who has made it, and is believed.
    pub maker: TpmMaker,
    /// The provisioner, which issues to proven keys.
    pub lab: Lab,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// The agent is configured and not started; the TPM has power.
    #[must_use]
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// The same with other settings of the agent's.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let lab = Lab::with(Plan::attested());
        let maker = lab.tpm_maker("acme");
        lab.trust(&maker);
        let tpm = lab.tpm("tpm", &maker);
        let bus = lab.tpm_bus(&tpm);
        let broker = lab.broker();
        lab.operate(&["device", "add", ID]);
        let device = lab.device(ID, |settings| {
            settings.broker_port = Some(broker.port());
            settings.keep_key_in(bus.address());
            change(settings);
        });
        Self { device, broker, bus, tpm, maker, lab }
    }

    /// The agent's settings from its next start on, with its TPM at `address`.
    #[must_use]
    pub fn settings(&self, backend: &'static str, address: String) -> Settings {
        let mut settings = Settings::new(ID, &self.lab.provisioner.url(), self.lab.server_root());
        settings.broker_port = Some(self.broker.port());
        settings.keep_key_in(address);
        settings.key_backend = Some(backend);
        settings
    }

    /// Gives the TPM its power back; nobody has started it up then.
    pub fn power_on(&mut self) {
        self.tpm.start(&Stop::default()).or_fail("swtpm");
    }

    /// What one of tpm2-tools says at the TPM.
    #[track_caller]
    pub fn tool(&self, arguments: &[&str]) -> String {
        tool(self.bus.socket(), arguments).expect_success().stdout
    }

    /// Starts the agent, and waits for an identity with proof; its serial number.
    #[track_caller]
    pub fn enrolled(&mut self) -> String {
        self.device.start();
        let status = self.device.await_online();
        assert_eq!(status.text("/key/backend"), Some("tpm"), "{:#}", status.0);
        assert_eq!(status.0["key"]["attested"], true, "{:#}", status.0);
        status.serial().or_fail("a serial number").to_owned()
    }

    /// Waits until the agent names `code` as what keeps it from its TPM, with what to do.
    #[track_caller]
    pub fn await_trouble(&mut self, code: &str) -> Status {
        let status = self.device.await_status("a state of the TPM", BACK_MS_MAX, |status| {
            status.tpm_trouble() == Some(code)
        });
        assert!(!status.text("/key/tpm/what_to_do").unwrap_or_default().is_empty());
        status
    }

    /// The binding of device and TPM, as the provisioner has it.
    #[track_caller]
    #[must_use]
    pub fn bound(&self) -> Value {
        let answer = self.lab.ask(&["device", "show", ID]);
        let bound = answer.pointer("/tpm/bound").filter(|bound| bound.is_object()).cloned();
        bound.or_fail(&format!("a binding in {answer:#}"))
    }

    /// Files of the state directory that hold keys or say whose they are.
    #[must_use]
    pub fn treasures(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.device.state_dir()).or_fail("the state directory");
        let names = entries.map(|entry| entry.or_fail("an entry").file_name().into_string());
        names
            .map(|name| name.ok().or_fail("a name in ASCII"))
            .filter(|name| ["key.", "anchor."].iter().any(|start| name.starts_with(start)))
            .map(|name| (name.clone(), fs::read(self.device.file(&name)).or_fail(&name)))
            .collect()
    }
}
