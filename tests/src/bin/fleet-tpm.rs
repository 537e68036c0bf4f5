//! `fleet-tpm`: what a key in a TPM costs, on a software TPM. See `docs/performance.md`.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fleetcert_rig::agent::{Agent, Settings};
use fleetcert_rig::broker::Broker;
use fleetcert_rig::ports;
use fleetcert_rig::programs::Programs;
use fleetcert_rig::provisioner::{Provisioner, Terms};
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use fleetcert_tests::lab::claimant::Claimant;
use fleetcert_tests::lab::{Lab, Plan};
use fleetcert_tests::load::client::LoadError;
use fleetcert_tests::load::line::{Handshake, Line};
use fleetcert_tests::load::replay::{Task, play};
use fleetcert_tests::load::server::Watched;
use fleetcert_tpm::ek::EkTemplate;
use serde_json::{Value, json};

/// Everything that is waited for happens in a second or so.
const WAIT_MS_MAX: u64 = 30_000;

const ID: &str = "bench-1";

/// Measures what a key in a TPM costs, on software TPMs in a temporary folder.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// CPU time of a provisioner for challenges and attested enrollments, each on a new connection.
    Enrollments {
        /// How many.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Handshakes of an agent with its key in a TPM, and of one with its key in a file, in turn.
    Handshakes {
        /// Renewals of each agent.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        renewals: u32,
    },
    /// A device's own work for a task of its TPM, played from memory: to be counted by callgrind.
    Replay {
        /// The task.
        task: Task,
        /// How often.
        #[arg(long, default_value_t = 100)]
        count: u32,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
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

fn run(what: What) -> Result<Value, LoadError> {
    match what {
        What::Enrollments { count } => enrollments(count),
        What::Handshakes { renewals } => handshakes(renewals),
        What::Replay { task, count } => replay(task, count),
    }
}

fn replay(task: Task, count: u32) -> Result<Value, LoadError> {
    let place = Workplace::new()?;
    let (_maker, tpm) = powered_tpm(&place)?;
    let played = play(task, &tpm, count)?;
    Ok(json!({
        "schema": 1,
        "count": count,
        "commands_each": played.commands,
        "octets_in_each": played.octets_in,
    }))
}

fn powered_tpm(place: &Workplace) -> Result<(TpmMaker, Swtpm), LoadError> {
    let maker = TpmMaker::found(&place.join("maker"), "acme")?;
    let mut tpm = Swtpm::manufacture(&place.join("tpm"), &maker)?;
    tpm.start(&Stop::default())?;
    Ok((maker, tpm))
}

fn enrollments(count: u32) -> Result<Value, LoadError> {
    let lab = Lab::with(Plan::attested());
    let maker = lab.tpm_maker("acme");
    lab.trust(&maker);
    let mut claimant = Claimant::new(lab.tpm("tpm", &maker), EkTemplate::Rsa2048);
    lab.operate(&["device", "add", ID]);
    let watched = Watched::new(lab.provisioner.pid().ok_or("the provisioner does not run")?);
    let before = watched.usage()?;
    for _ in 0..count {
        let status = claimant.enroll(&lab, ID).status;
        if status != 200 {
            return Err(format!("status {status} instead of a certificate").into());
        }
    }
    let after = watched.usage()?;
    let cpu_ms = (after.cpu_ms - before.cpu_ms) as f64;
    Ok(json!({
        "schema": 1,
        "enrollments": count,
        "server_cpu_ms_each": cpu_ms / f64::from(count),
        "rss_peak_kib": after.rss_peak_kib,
    }))
}

/// An agent with a provisioner and a broker of its own, and a line to each.
struct Site {
    agent: Agent,
    to_provisioner: Line,
    to_broker: Line,
    _provisioner: Provisioner,
    _broker: Broker,
    _tpm: Option<Swtpm>,
    _place: Workplace,
}

impl Site {
    fn new(in_tpm: bool) -> Result<Self, LoadError> {
        let (place, stop) = (Workplace::new()?, Stop::default());
        let programs = Programs::beside_ourselves()?;
        let (trust_domain, device_lifetime_s) = ("bench.example", 86_400);
        let terms = Terms { trust_domain, device_lifetime_s, more_names: &[] };
        let mut provisioner = Provisioner::install(&programs, &place, terms)?;
        let token_file = place.join("token");
        let tpm = if in_tpm {
            let (maker, tpm) = powered_tpm(&place)?;
            provisioner.ask_for_evidence(&maker)?;
            provisioner.expect(ID)?;
            Some(tpm)
        } else {
            provisioner.admit(ID, &token_file)?;
            None
        };
        provisioner.start(&stop)?;
        let [port] = ports::free()?;
        provisioner.configure_broker(&place.join("broker"), port)?;
        let log = place.join("mosquitto.log");
        let broker = Broker::start(&place.join("broker"), port, log, &stop)?;
        let (to_broker, to_provisioner) = (Line::start(port)?, line_to(&provisioner)?);
        let settings = Settings {
            device_id: ID.to_owned(),
            provisioner_url: format!("https://localhost:{}", to_provisioner.port()),
            server_root: provisioner.server_root(),
            token_file: tpm.is_none().then_some(token_file),
            broker_port: to_broker.port(),
            tpm: tpm.as_ref().map(Swtpm::address),
        };
        let agent = install(&programs, &place.join("device"), &settings)?;
        let (_provisioner, _broker, _tpm, _place) = (provisioner, broker, tpm, place);
        let mut site =
            Self { agent, to_provisioner, to_broker, _provisioner, _broker, _tpm, _place };
        site.settle(0)?;
        Ok(site)
    }

    /// Renews, and waits for the session of the new identity. The agent is asked nothing before
    /// that: it would ask its TPM.
    fn renew(&mut self) -> Result<(), LoadError> {
        let before = self.to_broker.handshakes().len();
        self.agent.renew()?;
        self.settle(before)
    }

    fn settle(&mut self, before: usize) -> Result<(), LoadError> {
        let stop = Stop::default();
        stop.until("a session with the broker", WAIT_MS_MAX, || {
            Ok((self.to_broker.handshakes().len() > before).then_some(()))
        })?;
        stop.until("an identity in use", WAIT_MS_MAX, || {
            Ok(self.agent.status()?.filter(|status| status.phase == "active"))
        })?;
        Ok(())
    }
}

fn line_to(provisioner: &Provisioner) -> Result<Line, LoadError> {
    let url = provisioner.url();
    let (_, port) = url.rsplit_once(':').ok_or("no port")?;
    Ok(Line::start(port.parse()?)?)
}

fn install(programs: &Programs, folder: &Path, settings: &Settings) -> Result<Agent, LoadError> {
    let mut agent = Agent::install(programs, folder, settings)?;
    agent.start()?;
    Ok(agent)
}

/// Both agents in turn, so that what else the machine does meets both.
fn handshakes(renewals: u32) -> Result<Value, LoadError> {
    let (mut with_tpm, mut with_file) = (Site::new(true)?, Site::new(false)?);
    for _ in 0..renewals {
        with_tpm.renew()?;
        with_file.renew()?;
    }
    let report = |line: fn(&Site) -> &Line| {
        compared(&line(&with_tpm).handshakes(), &line(&with_file).handshakes())
    };
    Ok(json!({
        "schema": 1,
        "renewals": renewals,
        "broker": report(|site| &site.to_broker),
        "provisioner": report(|site| &site.to_provisioner),
    }))
}

fn compared(with_tpm: &[Handshake], with_file: &[Handshake]) -> Value {
    let medians = |part: fn(&Handshake) -> Duration| {
        let [tpm, file] = [with_tpm, with_file].map(|all| median_ms(all.iter().map(part)));
        json!({"tpm_p50_ms": tpm, "software_p50_ms": file, "ratio": tpm / file})
    };
    json!({
        "counted": [with_tpm.len(), with_file.len()],
        "whole": medians(|handshake| handshake.whole),
        "client": medians(|handshake| handshake.own),
    })
}

fn median_ms(durations: impl Iterator<Item = Duration>) -> f64 {
    let mut durations: Vec<Duration> = durations.collect();
    durations.sort_unstable();
    let median = durations.get(durations.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1000.0
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
fn say(report: &Value) {
    println!("{report}");
}

#[expect(clippy::print_stderr, reason = "there is no other place to say it")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("fleet-tpm: {error}");
}
