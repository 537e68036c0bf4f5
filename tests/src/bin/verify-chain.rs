//! Asks the firmware's verifier about a chain of certificates in files.
//!
//! Exit codes: 0 the chain is believed, 1 it is refused (the reason is on standard error, its
//! stable code first; what a board would say besides on its serial line follows), 2 the command
//! line makes no sense or a file cannot be read.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Parser, ValueEnum};
use log::{LevelFilter, Log, Metadata, Record};

use fleetcert_core::time::Wall;
use fleetcert_firmware::verifier::Server;
use fleetcert_tests::verify_chain::{self, Question};

const USAGE: u8 = 2;

/// Asks the firmware's verifier whether a chain of certificates is that of a server.
#[derive(Debug, Parser)]
#[command(name = "verify-chain", version)]
struct Options {
    /// A pinned root, PEM or DER; twice at most
    #[arg(long, required = true, value_name = "FILE")]
    anchor: Vec<PathBuf>,
    /// Certificates that the server sent, PEM or DER, the server's own first
    #[arg(long, required = true, value_name = "FILE", num_args = 1..)]
    chain: Vec<PathBuf>,
    /// The server's DNS name or address
    #[arg(long)]
    name: String,
    /// The time: RFC 3339, or seconds since 1970
    #[arg(long, value_parser = verify_chain::parse_time)]
    time: Wall,
    /// How far the device believes its clock
    #[arg(long, value_enum, default_value_t = Clock::Trusted)]
    clock: Clock,
    /// The time that it certainly is not before, where the clock is floored; without it, 1970
    #[arg(long, value_parser = verify_chain::parse_time)]
    floor: Option<Wall>,
    /// What the server is to the device
    #[arg(long, value_enum, default_value_t = Kind::Broker)]
    server: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Clock {
    /// TIME is the time
    Trusted,
    /// A clock that nobody vouches for says TIME
    Floored,
    /// There is no clock, and it is not before TIME
    Unknown,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The MQTT broker
    Broker,
    /// The provisioning service
    Provisioner,
}

/// What the verifier says, kept until the reason is told.
struct Notes(Mutex<Vec<String>>);

static NOTES: Notes = Notes(Mutex::new(Vec::new()));

impl Log for Notes {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Ok(mut notes) = self.0.lock() {
            notes.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn main() -> ExitCode {
    if log::set_logger(&NOTES).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    match verify_chain::ask(&question(Options::parse())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(no) => {
            let _gone = writeln!(io::stderr(), "verify-chain: {no}");
            for note in NOTES.0.lock().iter().flat_map(|notes| notes.iter()) {
                let _gone = writeln!(io::stderr(), "verify-chain: {note}");
            }
            if no.is_of_usage() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn question(options: Options) -> Question {
    let time = options.time;
    let reading = match options.clock {
        Clock::Trusted => verify_chain::trusted(time),
        Clock::Floored => verify_chain::floored(time, options.floor.unwrap_or_default()),
        Clock::Unknown => verify_chain::unknown(time),
    };
    let server = match options.server {
        Kind::Broker => Server::Broker,
        Kind::Provisioner => Server::Provisioner,
    };
    let Options { anchor: anchors, chain, name, .. } = options;
    Question { anchors, chain, name, server, reading }
}
