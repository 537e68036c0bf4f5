//! A small fleet in a temporary folder: where the end-to-end stories are played.
//!
//! **What it is.** The real provisioner, a real mosquitto and real agents, each in its own process
//! on a free loopback port, started and broken through [`fleetcert_rig`]; beside them what only a
//! story needs: an operator's hands ([`Lab::operate`]), openssl and curl, forged certificates,
//! servers that lie.
//!
//! **What it must never do.** Wait for a while and hope: every wait is for a condition, with a
//! deadline ([`wait`]). Nor look into our programs: it sees what an operator sees, that is exit
//! codes, `--json`, files and the wire.
//!
//! **How it fails.** A story that cannot go on has failed, so these functions panic with what
//! happened ([`OrFail`]); guards then end every process, and the last lines of every log are shown
//! ([`Lab`]'s end).

pub mod broker;
pub mod by_hand;
pub mod claimant;
pub mod device;
pub mod fake;
pub mod firmware;
pub mod flash;
pub mod forge;
pub mod https;
pub mod liar;
pub mod pki;
pub mod programs;
pub mod relay;
pub mod run;
pub mod site;
pub mod thief;
pub mod tpm;
pub mod tpm_bus;
pub mod wait;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use fleetcert_rig::ports;
use fleetcert_rig::provisioner::{Provisioner, Terms};
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use serde_json::Value;

use self::broker::Broker;
use self::device::{Device, Settings};
use self::https::Https;
use self::programs::{AGENT, PROVISIONER};
use self::run::Outcome;

/// The trust domain of every lab.
pub const TRUST_DOMAIN: &str = "lab.example";

/// Lines of each log that a failed story shows, at most.
const LOG_LINES_SHOWN: usize = 40;

/// Ends a story that cannot go on.
pub trait OrFail<T> {
    /// The value, or a panic that says what was being done and why it did not work.
    #[track_caller]
    fn or_fail(self, what: &str) -> T;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    #[track_caller]
    fn or_fail(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

impl<T> OrFail<T> for Option<T> {
    #[track_caller]
    fn or_fail(self, what: &str) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}: nothing found"),
        }
    }
}

/// What a lab's provisioner is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Seconds of a device certificate's life.
    pub lifetime_s: u32,
    /// Seconds after expiry in which a device recovers by itself.
    pub recovery_window_s: u64,
    /// What a first contact has to show in the group `default`.
    pub admission: &'a str,
    /// Whether TPMs that are programs are believed there.
    pub allow_virtual_tpm: bool,
    /// More of the configuration, TOML: whole tables, written behind the rest.
    pub more: &'a str,
}

impl Default for Plan<'_> {
    /// Certificates that outlive every story, and recovery for an hour; a token admits.
    fn default() -> Self {
        Self {
            lifetime_s: 3_600,
            recovery_window_s: 3_600,
            admission: "token",
            allow_virtual_tpm: false,
            more: "",
        }
    }
}

impl Plan<'_> {
    /// Whoever proves that its key is in a TPM of a trusted maker's is admitted; software TPMs of
    /// such a maker's pass for genuine.
    #[must_use]
    pub fn attested() -> Self {
        Self { admission: "ek-chain", allow_virtual_tpm: true, ..Self::default() }
    }
}

/// A provisioner with its folder; everything else of a story is made from it.
#[derive(Debug)]
pub struct Lab {
    /// The provisioning service; running unless a story stopped it.
    pub provisioner: Provisioner,
    place: Workplace,
}

impl Lab {
    /// A running provisioner with certificates that outlive the story.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Plan::default())
    }

    /// A running provisioner by `plan`.
    #[must_use]
    pub fn with(plan: Plan<'_>) -> Self {
        let mut lab = Self::stopped(plan);
        lab.start_provisioner();
        lab
    }

    /// A provisioner by `plan` that is installed and not started.
    #[must_use]
    pub fn stopped(plan: Plan<'_>) -> Self {
        let programs = programs::with(PROVISIONER);
        let place = Workplace::new().or_fail("a temporary folder");
        let terms = Terms {
            trust_domain: TRUST_DOMAIN,
            device_lifetime_s: plan.lifetime_s,
            more_names: &[],
        };
        let provisioner =
            Provisioner::install(&programs, &place, terms).or_fail("fleetcert-provisioner init");
        let lab = Self { provisioner, place };
        lab.rewrite_configuration(plan);
        lab
    }

    fn rewrite_configuration(&self, plan: Plan<'_>) {
        let path = self.path("provisioner/provisioner.toml");
        let text = fs::read_to_string(&path).or_fail("the provisioner's configuration");
        let line = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.or_fail(&format!("{key} in it")).to_owned()
        };
        let mut changes = vec![(
            line("recovery_window_s"),
            format!(
                "recovery_window_s = {}\nrecovery_interval_s = 0\nretry_after_s = 1",
                plan.recovery_window_s
            ),
        )];
        if plan.admission != Plan::default().admission {
            let virtually = format!("allow_virtual_tpm = {}", plan.allow_virtual_tpm);
            let admission = format!("admission = {:?}\n{virtually}", plan.admission);
            changes.push((line("admission"), admission));
        }
        let text = changes.iter().fold(text, |text, (old, new)| text.replace(old, new));
        fs::write(&path, format!("{text}\n{}\n", plan.more)).or_fail("its new text");
    }

    /// Starts the provisioner and waits until it serves.
    pub fn start_provisioner(&mut self) {
        self.provisioner.start(&Stop::default()).or_fail("fleetcert-provisioner serve");
    }

    /// A path in the lab's folder.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.place.join(name)
    }

    /// The loopback port on which the provisioner listens when it runs.
    #[must_use]
    pub fn provisioner_port(&self) -> u16 {
        let url = self.provisioner.url();
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
        port.or_fail("a port in the provisioner's URL")
    }

    /// Runs a command of the provisioner that must succeed; returns what it printed.
    #[track_caller]
    pub fn operate(&self, arguments: &[&str]) -> String {
        self.try_to_operate(arguments).expect_success().stdout
    }

    /// Runs a command of the provisioner.
    pub fn try_to_operate(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.provisioner.command();
        command.args(arguments);
        run::run(command, b"")
    }

    /// Runs a reading command of the provisioner; returns its JSON.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let text = self.operate(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).or_fail("JSON from the provisioner")
    }

    /// The audit entries about `device`, oldest first.
    #[track_caller]
    pub fn audit(&self, device: &str) -> Vec<Value> {
        let answer = self.ask(&["audit", "list", "--device", device]);
        answer["events"].as_array().or_fail("events").clone()
    }

    /// How many certificates `device` was issued.
    #[track_caller]
    pub fn issued(&self, device: &str) -> usize {
        self.audit(device).iter().filter(|entry| entry["event"] == "issued").count()
    }

    /// Enters `device` and makes its token; returns the token's file.
    #[track_caller]
    pub fn token_file(&self, device: &str) -> PathBuf {
        let path = self.path(format!("{device}.token"));
        self.provisioner.admit(device, &path).or_fail("device add, token issue");
        path
    }

    /// Enters `device` and makes its token; returns the token.
    #[track_caller]
    pub fn token(&self, device: &str) -> String {
        let text = fs::read_to_string(self.token_file(device)).or_fail("the token's file");
        text.trim().to_owned()
    }

    /// A device whose agent knows the provisioner; `change` says what else it knows. Its agent is
    /// configured and not started.
    #[must_use]
    pub fn device(&self, id: &str, change: impl FnOnce(&mut Settings)) -> Device {
        let mut settings = Settings::new(id, &self.provisioner.url(), self.server_root());
        change(&mut settings);
        Device::install(&programs::with(AGENT), &self.path(id), &settings)
    }

    /// A device that has been entered and has its token, and knows the broker.
    #[must_use]
    pub fn expected_device(&self, id: &str, broker: &Broker) -> Device {
        let token_file = self.token_file(id);
        self.device(id, |settings| {
            settings.token_file = Some(token_file);
            settings.broker_port = Some(broker.port());
        })
    }

    /// A broker with the configuration that the provisioner writes for it; not started. Its
    /// backends are `fleet` and `orders`.
    #[must_use]
    pub fn stopped_broker(&self) -> Broker {
        let [port] = ports::free().or_fail("a free port");
        let folder = self.path("broker");
        let (port_text, out) = (port.to_string(), folder.to_string_lossy());
        let backends = ["--backend", "fleet", "--backend", "orders"];
        let address = ["--name", "localhost", "--port", &port_text, "--out", &out];
        self.operate(&[&["broker", "mosquitto"], &address[..], &backends].concat());
        Broker::new(folder, port, self.path("mosquitto.log"), self.server_root())
    }

    /// A running broker with the configuration that the provisioner writes for it.
    #[must_use]
    pub fn broker(&self) -> Broker {
        let mut broker = self.stopped_broker();
        broker.start();
        broker
    }

    /// Writes the newest revocation list into the broker's folder.
    #[track_caller]
    pub fn publish_crl(&self, broker: &Broker) {
        self.operate(&["crl", "write", "--out", &broker.file("crl.pem").to_string_lossy()]);
    }

    /// curl, pointed at the provisioner.
    #[must_use]
    pub fn https(&self) -> Https {
        Https::new(&self.provisioner.url(), self.server_root())
    }

    /// The root of the server tree, PEM.
    #[must_use]
    pub fn server_root(&self) -> PathBuf {
        self.provisioner.server_root()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    /// A failed story shows what its programs said last.
    #[expect(clippy::print_stderr, reason = "the test's captured output is where one looks")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in logs(&self.path("")) {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            eprintln!(
                "--- {}, from line {}:\n{}",
                log.display(),
                from + 1,
                lines[from..].join("\n")
            );
        }
    }
}

/// The files called `….log` in `folder` and in the folders right below it.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut paths = entries(folder);
    let below: Vec<PathBuf> =
        paths.iter().filter(|p| p.is_dir()).flat_map(|p| entries(p)).collect();
    paths.extend(below);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}
