//! A provisioner of our own with devices that are enrolled: where loads and budgets begin.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fleetcert_rig::provisioner::{Provisioner, Terms};
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::lab::programs;

use super::client::{Device, LoadError, Target};
use super::server::Watched;

/// strace attaches in milliseconds, unless the machine is busy.
const ATTACH_WAIT_MS_MAX: u64 = 30_000;

/// A running provisioner in a temporary folder.
#[derive(Debug)]
pub struct Bench {
    provisioner: Provisioner,
    target: Target,
    place: Workplace,
}

/// Counts a process's calls that make data durable, while it lives.
#[derive(Debug)]
pub struct Syncs {
    strace: Child,
    log: PathBuf,
}

impl Bench {
    /// Installs and starts it; `device_lifetime_s` is how long its certificates live.
    ///
    /// # Errors
    ///
    /// What the provisioner reports.
    pub fn start(device_lifetime_s: u32) -> Result<Self, LoadError> {
        let place = Workplace::new()?;
        let terms = Terms { trust_domain: "load.example", device_lifetime_s, more_names: &[] };
        let mut provisioner =
            Provisioner::install(&programs::with(programs::PROVISIONER), &place, terms)?;
        provisioner.start(&Stop::default())?;
        let target = Target {
            host: provisioner.url().trim_start_matches("https://").to_owned(),
            root: CertificateDer::from_pem_file(provisioner.server_root())?,
        };
        Ok(Self { provisioner, target, place })
    }

    /// The provisioner's process.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn watched(&self) -> Result<Watched, LoadError> {
        Ok(Watched::new(self.pid()?))
    }

    /// A device with its token, not enrolled.
    ///
    /// # Errors
    ///
    /// What the provisioner reports.
    pub fn device(&self, n: u32) -> Result<(Device, String), LoadError> {
        let (id, token) = (format!("load-{n}"), self.place.join(format!("token-{n}")));
        self.provisioner.admit(&id, &token)?;
        Ok((Device::new(&id, &self.target)?, fs::read_to_string(&token)?.trim().to_owned()))
    }

    /// Devices that are enrolled.
    ///
    /// # Errors
    ///
    /// What the provisioner reports.
    pub fn devices(&self, count: u32) -> Result<Vec<Device>, LoadError> {
        (0..count)
            .map(|n| {
                let (mut device, token) = self.device(n)?;
                device.enroll(&token)?;
                Ok(device)
            })
            .collect()
    }

    /// Counts syncs from here on.
    ///
    /// # Errors
    ///
    /// When there is no strace, or it may not attach.
    pub fn count_syncs(&self) -> Result<Syncs, LoadError> {
        Syncs::of(self.pid()?, self.place.join("syncs"))
    }

    fn pid(&self) -> Result<u32, LoadError> {
        Ok(self.provisioner.pid().ok_or("the provisioner does not run")?)
    }
}

impl Syncs {
    /// Counts those of a process from here on; what is seen of them goes to the file `log`.
    ///
    /// # Errors
    ///
    /// When there is no strace, or it may not attach.
    pub fn of(pid: u32, log: PathBuf) -> Result<Self, LoadError> {
        let strace = Command::new("strace")
            .args(["-f", "-e", "trace=fdatasync,fsync", "-p", &pid.to_string(), "-o"])
            .arg(&log)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace does not start: {error}"))?;
        let syncs = Self { strace, log };
        Stop::default()
            .until("strace to attach", ATTACH_WAIT_MS_MAX, || Ok(is_traced(pid).then_some(())))?;
        Ok(syncs)
    }

    /// How many there have been.
    ///
    /// # Errors
    ///
    /// When nothing was recorded.
    pub fn so_far(&self) -> Result<usize, LoadError> {
        let log = fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| line.contains("sync(")).count())
    }
}

impl Drop for Syncs {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing left to try.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Every thread must be: the one that syncs is not the first.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}
