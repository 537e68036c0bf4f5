//! `fleet-bench`: what an agent costs its device while it does nothing, and while it renews. See
//! `docs/performance.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fleetcert_rig::agent::{Agent, Settings};
use fleetcert_rig::broker::Broker;
use fleetcert_rig::ports;
use fleetcert_rig::programs::Programs;
use fleetcert_rig::provisioner::{Provisioner, Terms};
use fleetcert_rig::wait::{Stop, pause};
use fleetcert_rig::workplace::Workplace;
use fleetcert_tests::load::client::LoadError;
use fleetcert_tests::load::server::{Usage, Watched};
use serde_json::json;

/// Everything that is waited for happens in a second or so.
const WAIT_MS_MAX: u64 = 30_000;

/// Runs one agent beside a provisioner and a broker, on loopback, and looks at it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How long to watch it doing nothing, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    idle_s: u64,
    /// Renewals to watch.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    renewals: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            say(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String, LoadError> {
    let (place, stop) = (Workplace::new()?, Stop::default());
    let programs = Programs::beside_ourselves()?;
    let (trust_domain, device_lifetime_s) = ("bench.example", 86_400);
    let terms = Terms { trust_domain, device_lifetime_s, more_names: &[] };
    let mut provisioner = Provisioner::install(&programs, &place, terms)?;
    provisioner.start(&stop)?;
    let [port] = ports::free()?;
    provisioner.configure_broker(&place.join("broker"), port)?;
    let _broker = Broker::start(&place.join("broker"), port, place.join("mosquitto.log"), &stop)?;
    let token_file = place.join("token");
    provisioner.admit("bench-1", &token_file)?;
    let settings = Settings {
        device_id: "bench-1".to_owned(),
        provisioner_url: provisioner.url(),
        server_root: provisioner.server_root(),
        token_file: Some(token_file),
        broker_port: port,
        tpm: None,
    };
    let mut agent = Agent::install(&programs, &place.join("device"), &settings)?;
    agent.start()?;
    let mut serial = next_identity(&mut agent, &stop, None)?;
    let watched = Watched::new(agent.pid().ok_or("the agent does not run")?);
    let (before, after) = watch_idle(watched, arguments.idle_s)?;
    for _ in 0..arguments.renewals {
        agent.renew()?;
        serial = next_identity(&mut agent, &stop, Some(&serial))?;
    }
    let renewed = watched.usage()?;
    let wake_ups = (after.voluntary_switches - before.voluntary_switches) as f64;
    let cpu_ms = (renewed.cpu_ms - after.cpu_ms) as f64;
    Ok(json!({
        "schema": 1,
        "rss_idle_kib": after.rss_kib,
        "rss_peak_kib": renewed.rss_peak_kib,
        "threads_idle": after.threads,
        "threads_renewing": renewed.threads,
        "wake_ups_per_minute_idle": wake_ups * 60.0 / arguments.idle_s as f64,
        "cpu_ms_idle": after.cpu_ms - before.cpu_ms,
        "renewals": arguments.renewals,
        "cpu_ms_each_renewal": cpu_ms / f64::from(arguments.renewals),
    })
    .to_string())
}

/// The serial number in use once it is another than `before`.
fn next_identity(
    agent: &mut Agent,
    stop: &Stop,
    before: Option<&str>,
) -> Result<String, LoadError> {
    let serial = stop.until("an identity in use", WAIT_MS_MAX, || {
        let serial = agent.status()?.filter(|status| status.phase == "active");
        Ok(serial.and_then(|status| status.serial).filter(|serial| Some(&**serial) != before))
    })?;
    Ok(serial)
}

/// Nothing is waited for here: the time itself is what is looked at.
fn watch_idle(watched: Watched, idle_s: u64) -> Result<(Usage, Usage), LoadError> {
    pause(SETTLE.as_millis().try_into()?);
    let before = watched.usage()?;
    pause(idle_s * 1000);
    Ok((before, watched.usage()?))
}

/// After the switch the agent still asks for advice and tells its state.
const SETTLE: Duration = Duration::from_secs(3);

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn say(report: &str) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "there is no other place to say it")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("fleet-bench: {error}");
}
