//! The provisioning service: set up once, started and killed as often as the story wants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::RigError;
use crate::ports;
use crate::process::{self, Process};
use crate::programs::Programs;
use crate::tpm_maker::TpmMaker;
use crate::wait::Stop;
use crate::workplace::Workplace;

/// From start to ready: trees and database exist by then, so this is generous.
const START_WAIT_MS_MAX: u64 = 20_000;

/// The backends that the broker lets use every device's topics: one name has one session, so that
/// who hears and who commands are two.
pub const BACKENDS: [&str; 2] = ["fleet", "orders"];

/// An installation of the provisioner, running or not.
#[derive(Debug)]
pub struct Provisioner {
    programs: Programs,
    folder: PathBuf,
    log: PathBuf,
    names: Vec<String>,
    port: u16,
    process: Option<Process>,
}

/// What an installation issues.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The trust domain of all identities.
    pub trust_domain: &'a str,
    /// How long a device's certificate lives, seconds.
    pub device_lifetime_s: u32,
    /// Names and addresses besides `localhost` under which devices reach provisioner and broker.
    pub more_names: &'a [&'a str],
}

/// What the provisioner knows of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Certificates that it got by showing what a first contact shows: a token, or evidence.
    pub enrollments: u32,
    /// Certificates that it got by showing the one before.
    pub renewals: u32,
    /// The serial number of the newest, hexadecimal.
    pub serial: Option<String>,
    /// Whether it has shown proof that its key lives in a TPM.
    pub attested: bool,
}

impl Provisioner {
    /// Makes both certificate trees, the database and the configuration; starts nothing.
    ///
    /// # Errors
    ///
    /// What the program reports.
    pub fn install(
        programs: &Programs,
        place: &Workplace,
        terms: Terms<'_>,
    ) -> Result<Self, RigError> {
        let [port] = ports::free()?;
        let this = Self {
            programs: programs.clone(),
            folder: place.join("provisioner"),
            log: place.join("provisioner.log"),
            names: names(terms.more_names),
            port,
            process: None,
        };
        let mut command = programs.provisioner();
        command.arg("init").arg("--dir").arg(&this.folder);
        command.args(["--trust-domain", terms.trust_domain, "--name"]).args(&this.names);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--device-lifetime-s", &terms.device_lifetime_s.to_string()]);
        process::run("fleetcert-provisioner init", command, &this.log)?;
        Ok(this)
    }

    /// Asks a first contact for proof that its key lives in a TPM of `maker`'s, a software TPM
    /// included; from the next start on.
    ///
    /// # Errors
    ///
    /// What the program reports, [`RigError::Answer`] when its configuration has no such policy.
    pub fn ask_for_evidence(&self, maker: &TpmMaker) -> Result<(), RigError> {
        let path = self.folder.join("provisioner.toml");
        let text = fs::read_to_string(&path).map_err(RigError::io(&path))?;
        let changed = text.replace(
            "\nadmission = \"token\"\n",
            "\nadmission = \"ek-chain\"\nallow_virtual_tpm = true\n",
        );
        if changed == text {
            let expected = "a group with admission = \"token\"";
            return Err(RigError::Answer { from: "init", found: text, expected });
        }
        fs::write(&path, changed).map_err(RigError::io(&path))?;
        self.run("attest ek-roots add", |command| {
            command.args(["attest", "ek-roots", "add"]).arg(maker.certificates())
        })
    }

    /// Starts it and waits until it says that it serves.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it does not stay up, and what waiting can fail with.
    pub fn start(&mut self, stop: &Stop) -> Result<(), RigError> {
        let ready = self.folder.with_extension("ready");
        if ready.exists() {
            fs::remove_file(&ready).map_err(RigError::io(&ready))?;
        }
        let mut command = self.command();
        command.arg("serve").arg("--ready-file").arg(&ready);
        let mut process = Process::start("fleetcert-provisioner serve", command, &self.log)?;
        stop.until("the provisioner to serve", START_WAIT_MS_MAX, || {
            process.check()?;
            Ok(ready.exists().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Takes it away, as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Stops it in the middle of whatever it does.
    pub fn freeze(&self) {
        self.process.iter().for_each(Process::freeze);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.iter().for_each(Process::thaw);
    }

    /// Whether it is up, if it should be.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it should and is not.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// Registers a device.
    ///
    /// # Errors
    ///
    /// What the program reports.
    pub fn expect(&self, device_id: &str) -> Result<(), RigError> {
        self.run("device add", |command| command.args(["device", "add", device_id]))
    }

    /// Registers a device and writes its one-time token to `token`.
    ///
    /// # Errors
    ///
    /// What the program reports.
    pub fn admit(&self, device_id: &str, token: &Path) -> Result<(), RigError> {
        self.expect(device_id)?;
        self.run("token issue", |command| {
            command.args(["token", "issue", device_id, "--out"]).arg(token)
        })
    }

    /// Writes a complete mosquitto configuration for `port`, and for the provisioner's own names,
    /// into `folder`. Its backends are `fleet` and `orders`.
    ///
    /// # Errors
    ///
    /// What the program reports.
    pub fn configure_broker(&self, folder: &Path, port: u16) -> Result<(), RigError> {
        self.run("broker mosquitto", |command| {
            command.args(["broker", "mosquitto", "--name"]).args(&self.names);
            BACKENDS.iter().for_each(|backend| {
                command.args(["--backend", backend]);
            });
            command.args(["--port", &port.to_string(), "--out"]).arg(folder)
        })
    }

    /// Issues a backend's certificate and key into `folder`. Returns both paths.
    ///
    /// # Errors
    ///
    /// What the program reports.
    pub fn admit_backend(&self, name: &str, folder: &Path) -> Result<(PathBuf, PathBuf), RigError> {
        self.run("ca issue-backend", |command| {
            command.args(["ca", "issue-backend", name, "--out"]).arg(folder)
        })?;
        Ok((folder.join("backend.pem"), folder.join("backend.key")))
    }

    /// What it knows of a device.
    ///
    /// # Errors
    ///
    /// What the program reports, [`RigError::Answer`] when what it says cannot be read.
    pub fn history(&self, device_id: &str) -> Result<History, RigError> {
        let device = self.ask("device show", &["device", "show", device_id])?;
        let audit = self.ask("audit list", &["audit", "list", "--device", device_id])?;
        History::read(&device, &audit).ok_or_else(|| RigError::Answer {
            from: "fleetcert-provisioner",
            found: format!("{device} {audit}"),
            expected: "a device and its events",
        })
    }

    /// The URL that devices on this machine use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The loopback port on which it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The root of the server tree.
    #[must_use]
    pub fn server_root(&self) -> PathBuf {
        self.folder.join("server-root.pem")
    }

    fn run(
        &self,
        what: &str,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<(), RigError> {
        let mut command = self.command();
        arguments(&mut command);
        process::run(&format!("fleetcert-provisioner {what}"), command, &self.log)
    }

    /// The JSON that a reading command prints.
    fn ask(&self, what: &str, arguments: &[&str]) -> Result<Value, RigError> {
        let mut command = self.command();
        command.args(arguments).arg("--json");
        let text = process::ask(&format!("fleetcert-provisioner {what}"), command, &self.log)?;
        serde_json::from_str(&text).map_err(|_| RigError::Answer {
            from: "fleetcert-provisioner",
            found: text,
            expected: "JSON",
        })
    }

    /// The program with this installation's configuration; a subcommand is still missing.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.programs.provisioner();
        command.arg("--config").arg(self.folder.join("provisioner.toml"));
        command
    }
}

/// `localhost` comes first: it is the name that stands in certificates as the place of the CRL.
fn names(more: &[&str]) -> Vec<String> {
    std::iter::once(&"localhost").chain(more).map(|name| (*name).to_owned()).collect()
}

impl History {
    /// A certificate is recorded behind the request that it answers, in one transaction.
    fn read(device: &Value, audit: &Value) -> Option<Self> {
        let mut history = Self {
            attested: device["attested"].as_bool()?,
            serial: device.pointer("/device/serial")?.as_str().map(str::to_owned),
            ..Self::default()
        };
        let mut is_renewal = false;
        for entry in audit["events"].as_array()? {
            match (entry["event"].as_str()?, entry["detail"].as_str()?) {
                ("requested", how) => is_renewal = how.starts_with("re-enroll"),
                ("issued", _) if is_renewal => history.renewals += 1,
                ("issued", _) => history.enrollments += 1,
                _ => {}
            }
        }
        Some(history)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Goal: first certificates are told from renewals by what was shown for them, and requests
    /// that got none count for nothing.
    #[test]
    fn a_history_is_read_from_the_audit_trail() {
        let event = |event: &str, detail: &str| json!({"event": event, "detail": detail});
        let device = json!({"device": {"serial": "0a1b"}, "attested": true});
        let audit = json!({"events": [
            event("device-added", ""),
            event("requested", "enroll by evidence for challenge 00"),
            event("refused", "challenge-unknown: …"),
            event("requested", "enroll by evidence for challenge 01"),
            event("bound", ""),
            event("issued", "key 02"),
            event("requested", "re-enroll by certificate 0a"),
            event("attested", ""),
            event("issued", "key 03"),
        ]});
        let history = History::read(&device, &audit).unwrap();
        let serial = Some("0a1b".to_owned());
        let expected = History { enrollments: 1, renewals: 1, serial, attested: true };
        assert_eq!(history, expected);
        assert_eq!(History::read(&device, &json!({})), None);
    }

    /// Goal: an expected device that never came has no history.
    #[test]
    fn a_device_that_never_came_has_no_history() {
        let device = json!({"device": {"serial": null}, "attested": false});
        let audit = json!({"events": []});
        assert_eq!(History::read(&device, &audit), Some(History::default()));
    }
}
