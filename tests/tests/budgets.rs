//! Budgets that are counts: they hold on any machine, however busy.
//!
//! Times, memory and instructions are measured and reported in `docs/performance.md`.

use std::process::Command;
use std::sync::atomic::Ordering;

use fleetcert_rig::wait::{Stop, Stopwatch, pause};
use fleetcert_tests::lab::{Lab, programs};
use fleetcert_tests::load::client::{Device, LoadError};
use fleetcert_tests::load::lab::Bench;
use fleetcert_tests::load::plan::{Connections, reenroll};
use fleetcert_tests::load::server::Watched;

/// One client: each certificate is durable before it is handed out, and that costs one sync.
#[test]
fn one_client_costs_one_sync_a_certificate() -> Result<(), LoadError> {
    let bench = Bench::start(86_400)?;
    let mut devices = bench.devices(1)?;
    let syncs = bench.count_syncs()?;
    let outcome = reenroll(&mut devices, 100, Connections::KeptAlive)?;
    let syncs = syncs.so_far()?;
    assert!(syncs >= 100, "a certificate was handed out before it was durable: {syncs}");
    assert!(syncs as f64 <= 1.05 * outcome.issued as f64, "{syncs} syncs for 100 certificates");
    Ok(())
}

/// Many clients share their syncs: those that wait while one runs go together in the next.
///
/// How many wait depends on how fast they come back, so whatever else runs on the machine can only
/// take from the sharing, never add to it: the best of some runs is what the provisioner can do.
#[test]
fn thirty_two_clients_share_their_syncs() -> Result<(), LoadError> {
    const RUNS_MAX: usize = 6;
    const EACH: u64 = 800;
    let bench = Bench::start(86_400)?;
    let mut devices = bench.devices(32)?;
    let counter = bench.count_syncs()?;
    let mut runs = Vec::new();
    while runs.len() < RUNS_MAX {
        let before = counter.so_far()?;
        let outcome = reenroll(&mut devices, EACH, Connections::KeptAlive)?;
        let syncs = counter.so_far()? - before;
        assert!(syncs > 0, "nothing was made durable");
        if syncs as f64 <= 0.15 * outcome.issued as f64 {
            return Ok(());
        }
        runs.push(syncs);
    }
    Err(format!("{EACH} certificates took so many syncs, run by run: {runs:?}").into())
}

/// Octets both ways over TCP and round trips waited for since `before`.
fn spent(device: &Device, before: (usize, usize)) -> (usize, usize) {
    let wire = device.wire();
    (wire.octets() - before.0, wire.turns.load(Ordering::Relaxed) - before.1)
}

/// What a device on a metered link pays for its identity, TLS included.
#[test]
fn an_enrollment_and_a_renewal_take_few_octets_and_two_round_trips() -> Result<(), LoadError> {
    let bench = Bench::start(86_400)?;
    let (mut device, token) = bench.device(0)?;
    device.enroll(&token)?;
    let (octets, round_trips) = spent(&device, (0, 0));
    assert!(octets <= 5 * 1024, "an enrollment took {octets} octets");
    assert!(round_trips <= 2, "an enrollment took {round_trips} round trips");
    let before = spent(&device, (0, 0));
    device.reenroll()?;
    let (octets, round_trips) = spent(&device, before);
    assert!(octets <= 6 * 1024, "a renewal took {octets} octets");
    assert!(round_trips <= 2, "a renewal took {round_trips} round trips");
    let before = spent(&device, (0, 0));
    device.reenroll()?;
    let (octets, round_trips) = spent(&device, before);
    assert!(octets <= 3 * 1024, "a renewal on a kept connection took {octets} octets");
    assert_eq!(round_trips, 1);
    Ok(())
}

/// An agent between two keep-alives has nothing to do, and must not look for something: on a
/// gateway that runs from a battery each wake-up is paid for.
#[test]
fn slow_an_idle_agent_has_few_threads_and_sleeps() -> Result<(), LoadError> {
    const WINDOW_MS: u64 = 20_000;
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("idle-1", &broker);
    device.start();
    device.await_online();
    let watched = Watched::new(device.pid().ok_or("the agent does not run")?);
    let stop = Stop::default();
    let quiet = stop.until("the agent to have settled", WINDOW_MS, || {
        let before = watched.usage().ok();
        pause(500);
        Ok(watched.usage().ok().filter(|after| Some(*after) == before))
    })?;
    let clock = Stopwatch::start();
    stop.until("the window to pass", 2 * WINDOW_MS, || {
        Ok((clock.elapsed_ms() >= WINDOW_MS).then_some(()))
    })?;
    let after = watched.usage()?;
    assert!(after.threads <= 3, "{} threads", after.threads);
    // One keep-alive exchange may fall into the window; twice a second would be forty.
    let wake_ups = after.voluntary_switches - quiet.voluntary_switches;
    assert!(wake_ups <= 20, "{wake_ups} wake-ups in 20 s");
    Ok(())
}

/// The agent that is shipped, without its symbols.
#[test]
fn slow_the_agent_fits_its_budget() -> Result<(), LoadError> {
    const AGENT_LEN_MAX: u64 = 4 * 1024 * 1024;
    let release = programs::folder().with_file_name("release");
    let agent = release.join(programs::AGENT);
    assert!(agent.exists(), "first: cargo build --release --workspace (tests/run does it)");
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("agent");
    let status = Command::new("strip").arg("-o").arg(&stripped).arg(&agent).status()?;
    assert!(status.success(), "strip ended with {status}");
    let len = stripped.metadata()?.len();
    assert!(len <= AGENT_LEN_MAX, "the agent has {len} octets");
    Ok(())
}
