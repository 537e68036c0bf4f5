//! One run of the simulator, from its settings to what is said of it.

use std::fmt::Write as _;

use crate::check::Violation;
use crate::check::peak::Busiest;
use crate::recorder::{Recorder, Tally};
use crate::sim::clock::{At, DAY_MS};
use crate::sim::exchange::Broken;
use crate::sim::world::{Settings, World};

/// The version of [`Outcome::json`].
const SCHEMA: u32 = 1;

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was run.
    pub settings: Settings,
    /// How often things happened.
    pub tally: Tally,
    /// How often rules were broken.
    pub violated: u64,
    /// The first of these.
    pub violations: Vec<Violation>,
    /// Certificates issued.
    pub issued: u64,
    /// The busiest window, if anything was issued.
    pub busiest: Option<Busiest>,
    /// Entries of the event log.
    pub entries: u64,
    /// SHA-256 over them, hexadecimal.
    pub trace_hash: String,
}

/// Runs a fleet.
///
/// # Errors
///
/// [`Broken`] if the simulator or the provisioner's code failed.
pub fn run(settings: Settings, recorder: Recorder) -> Result<Outcome, Broken> {
    let recorder = World::new(settings, recorder)?.run()?;
    let end = At(u64::from(settings.days) * DAY_MS);
    Ok(Outcome {
        settings,
        tally: *recorder.tally(),
        violated: recorder.violated(),
        violations: recorder.violations().to_vec(),
        issued: recorder.issued(),
        busiest: recorder.busiest(end),
        entries: recorder.entries(),
        trace_hash: recorder.trace_hash(),
    })
}

impl Outcome {
    /// What happened, a line each: name and number.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _written = writeln!(table, "{name:<24} {value:>12}");
        };
        line("devices", &self.settings.devices);
        line("days", &self.settings.days);
        line("seed", &self.settings.seed);
        line("faults", &self.settings.faults.name());
        let rows = serde_json::to_value(self.tally).unwrap_or_default();
        for (name, count) in rows.as_object().into_iter().flatten() {
            line(&name.replace('_', " "), count);
        }
        line("certificates issued", &self.issued);
        if let Some(busiest) = self.busiest {
            line("peak window, hours", &busiest.window_hours);
            line("certificates in peak", &busiest.peak);
        }
        line("peak to mean", &format!("{:.2}", self.peak_to_mean()));
        line("events", &self.entries);
        line("violations", &self.violated);
        table
    }

    /// The peak over the mean; zero if nothing was issued.
    #[must_use]
    pub fn peak_to_mean(&self) -> f64 {
        self.busiest.map_or(0.0, |busiest| busiest.to_mean_percent as f64 / 100.0)
    }

    /// The outcome as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        format!(
            "{{\"schema\":{SCHEMA},\"devices\":{},\"violations\":{},\"power_cuts\":{},\
             \"issued\":{},\"peak_to_mean\":{:.2},\"trace_hash\":\"{}\"}}",
            self.settings.devices,
            self.violated,
            self.tally.power_cuts,
            self.issued,
            self.peak_to_mean(),
            self.trace_hash,
        )
    }
}

/// The command that shows a run again: around a violation, if there is one.
#[must_use]
pub fn replay_command(settings: &Settings, violation: Option<&Violation>) -> String {
    let Settings { devices, days, seed, faults, lifetime_days } = settings;
    let mut command = format!(
        "cargo run --release -p fleetcert-tests --bin fleetsim -- --devices {devices} \
         --days {days} --seed {seed} --faults {} --lifetime {lifetime_days} --replay",
        faults.name()
    );
    if let Some(Violation { at, device, .. }) = violation {
        let day = at.0 / DAY_MS;
        if let Some(device) = device {
            // Writing to a string does not fail.
            let _written = write!(command, " --device {device}");
        }
        let _written = write!(command, " --from {} --until {}", day.saturating_sub(2), day + 1);
    }
    command
}
