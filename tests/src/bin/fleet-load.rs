//! `fleet-load`: how fast and how dear a real provisioner issues. See `docs/performance.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use fleetcert_tests::load::client::LoadError;
use fleetcert_tests::load::lab::Bench;
use fleetcert_tests::load::plan::{Connections, reenroll};
use serde_json::json;

/// Puts load on a provisioner of its own, in a temporary folder, on loopback.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Devices that ask at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Certificates to be issued, the devices' first ones not counted.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    certificates: u64,
    /// A full TLS handshake for each certificate.
    #[arg(long)]
    new_connections: bool,
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
    let bench = Bench::start(86_400)?;
    let watched = bench.watched()?;
    let idle = watched.usage()?;
    let mut devices = bench.devices(arguments.clients)?;
    let connections =
        if arguments.new_connections { Connections::New } else { Connections::KeptAlive };
    let enrolled: usize = devices.iter().map(|device| device.wire().octets()).sum();
    let before = watched.usage()?;
    let outcome = reenroll(&mut devices, arguments.certificates, connections)?;
    let after = watched.usage()?;
    let total: usize = devices.iter().map(|device| device.wire().octets()).sum();
    let cpu_ms = (after.cpu_ms - before.cpu_ms) as f64 / outcome.issued as f64;
    Ok(json!({
        "schema": 1,
        "clients": arguments.clients,
        "new_connections": arguments.new_connections,
        "issued": outcome.issued,
        "per_second": outcome.rate().round(),
        "server_cpu_ms_each": (cpu_ms * 1000.0).round() / 1000.0,
        "p50_ms": outcome.quantile(0.5).as_secs_f64() * 1000.0,
        "p99_ms": outcome.quantile(0.99).as_secs_f64() * 1000.0,
        "octets_enrollment": enrolled / devices.len(),
        "octets_each": (total - enrolled) as u64 / outcome.issued,
        "rss_idle_kib": idle.rss_kib,
        "rss_peak_kib": after.rss_peak_kib,
        "threads": after.threads,
    })
    .to_string())
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn say(report: &str) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "there is no other place to say it")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("fleet-load: {error}");
}
