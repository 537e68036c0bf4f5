//! Runs a simulated fleet and says what became of it.
//!
//! `docs/design/simulator.md` is the description. Exit codes: 0 every rule held, 1 one was broken,
//! 2 the command line makes no sense, 70 the simulator or the provisioner's code failed.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use fleetcert_tests::event_log::Entry;
use fleetcert_tests::fleet::{self, Outcome};
use fleetcert_tests::recorder::Recorder;
use fleetcert_tests::sim::clock::{At, DAY_MS};
use fleetcert_tests::sim::faults::{self, Faults};
use fleetcert_tests::sim::world::Settings;

const BROKEN: u8 = 70;

/// Simulates a fleet: real lifecycle machines and real provisioner rules in virtual time, with
/// faults, checked from outside.
#[derive(Debug, Parser)]
#[command(name = "fleetsim", version, after_help = faults::HELP)]
struct Options {
    /// How many devices
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// How many days
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(60..=7_300))]
    days: u32,
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What goes wrong
    #[arg(long, default_value = "default", value_parser = Faults::NAMES)]
    faults: String,
    /// How long certificates live, days
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=3_650))]
    lifetime: u32,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
    /// Print the event log
    #[arg(long)]
    replay: bool,
    /// Print only what happened to this device, or to all
    #[arg(long, requires = "replay")]
    device: Option<u32>,
    /// Print nothing before this day (12.5 is noon of the thirteenth)
    #[arg(long, requires = "replay", value_name = "DAY")]
    from: Option<f64>,
    /// Print nothing after this day
    #[arg(long, requires = "replay", value_name = "DAY")]
    until: Option<f64>,
    /// Wait for the return key after each line
    #[arg(long, requires = "replay")]
    step: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(outcome) if outcome.violated == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => {
            let _gone = writeln!(io::stderr(), "fleetsim: {why}");
            ExitCode::from(BROKEN)
        }
    }
}

fn run(options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    let settings = Settings {
        devices: options.devices,
        days: options.days,
        seed: options.seed,
        faults: Faults::named(&options.faults).ok_or("no such faults")?,
        lifetime_days: options.lifetime,
    };
    let recorder = if options.replay { replaying(options) } else { Recorder::default() };
    let outcome = fleet::run(settings, recorder)?;
    let mut out = io::stdout().lock();
    write!(out, "{}", outcome.table())?;
    for violation in &outcome.violations {
        writeln!(out, "{violation}\n  {}", fleet::replay_command(&settings, Some(violation)))?;
    }
    if options.json {
        writeln!(out, "{}", outcome.json())?;
    }
    Ok(outcome)
}

/// A recorder that prints what the options choose.
fn replaying(options: &Options) -> Recorder {
    let from = options.from.map_or(At(0), day);
    let until = options.until.map_or(At(u64::MAX), day);
    let (device, step) = (options.device, options.step);
    let mut out = io::stdout();
    Recorder::with_reader(Box::new(move |entry: &Entry| {
        let wanted = device.is_none() || entry.device.is_none() || entry.device == device;
        if wanted && (from..=until).contains(&entry.at) {
            // Nobody is left to be told that standard output is gone.
            let _gone = writeln!(out, "{entry}");
            if step {
                let _end = io::stdin().read_line(&mut String::new());
            }
        }
    }))
}

fn day(day: f64) -> At {
    At((day.max(0.0) * DAY_MS as f64) as u64)
}
