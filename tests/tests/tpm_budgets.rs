//! What a TPM is asked: how many commands, how many octets. On a chip these are the latency: a
//! command takes it from ten to two hundred milliseconds, and its bus moves a few octets in each.
//!
//! Counted between the real agent and a software TPM. Times and instructions are measured by
//! `fleet-tpm`, and reported in `docs/performance.md`.

use std::collections::BTreeMap;

use fleetcert_rig::wait::{Stopwatch, pause};
use fleetcert_tests::lab::claimant::Claimant;
use fleetcert_tests::lab::site::{ID, Site};
use fleetcert_tests::lab::tpm_bus::Count;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use fleetcert_tests::load::lab::Syncs;
use fleetcert_tests::load::server::Watched;
use fleetcert_tpm::command::Code;
use fleetcert_tpm::ek::EkTemplate;
use serde_json::json;

/// From an event to what the agent makes of it, on a busy machine.
const WAIT_MS_MAX: u64 = 60_000;

/// What the agent logs when the broker has taken it.
const SESSION: &str = "connected to the broker at";

/// What it logs at the end of a renewal.
const SWITCH: &str = "identity switched";

/// What passed between two looks at the bus, by command code.
#[derive(Debug)]
struct Passed(BTreeMap<u32, Count>);

/// A site with its agent running and a session with the broker. Nobody asks the agent how it is:
/// it would ask the TPM.
fn online() -> Site {
    let mut site = Site::new();
    site.device.run(&["enroll"]).expect_success();
    site.device.start();
    await_logged(&site, SESSION, 0);
    site
}

/// How often the agent has logged this.
fn logged(site: &Site, text: &str) -> usize {
    site.device.log().matches(text).count()
}

/// Waits until it has, once more than `before`, and the TPM has nothing to do.
#[track_caller]
fn await_logged(site: &Site, text: &str, before: usize) {
    until("a line in the agent's log", WAIT_MS_MAX, || (logged(site, text) > before).then_some(()));
    let mut before = None;
    until("the TPM to have nothing to do", WAIT_MS_MAX, || {
        let now = Some(site.bus.total());
        let is_quiet = now == before;
        before = now;
        pause(200);
        is_quiet.then_some(())
    });
}

/// What passes on the bus while `work` is done; shown for `docs/performance.md`.
#[expect(clippy::print_stdout, reason = "what was found is of interest beside its limit")]
fn during(site: &mut Site, what: &str, work: impl FnOnce(&mut Site)) -> Passed {
    let before = site.bus.counts();
    work(site);
    let mut counts = site.bus.counts();
    for (code, count) in &mut counts {
        let before = before.get(code).copied().unwrap_or_default();
        count.commands -= before.commands;
        count.refusals -= before.refusals;
        count.octets_out -= before.octets_out;
        count.octets_in -= before.octets_in;
    }
    counts.retain(|_, count| *count != Count::default());
    let passed = Passed(counts);
    println!("{what}: {} commands, {} octets", passed.commands(), passed.octets());
    passed
}

impl Passed {
    fn of(&self, code: Code) -> usize {
        self.0.get(&code.id()).map_or(0, |count| count.commands)
    }

    fn commands(&self) -> usize {
        self.0.values().map(|count| count.commands).sum()
    }

    /// Both ways.
    fn octets(&self) -> usize {
        self.0.values().map(|count| count.octets_out + count.octets_in).sum()
    }

    #[track_caller]
    fn assert_within(&self, commands_max: usize, octets_max: usize) {
        let (commands, octets) = (self.commands(), self.octets());
        assert!(commands <= commands_max, "{commands} commands: {self:#?}");
        assert!(octets <= octets_max, "{octets} octets: {self:#?}");
    }
}

/// Goal: a handshake costs the TPM one signature, with its key loaded before and flushed after; an
/// agent that has nothing to sign asks it nothing; at the end it is shut down.
#[test]
fn a_handshake_takes_a_tpm_three_commands() {
    let mut site = online();
    let handshake = during(&mut site, "a handshake with the broker", |site| {
        let before = logged(site, SESSION);
        site.broker.kill();
        site.broker.start();
        await_logged(site, SESSION, before);
    });
    assert_eq!(handshake.of(Code::ContextLoad), 1, "{handshake:?}");
    assert_eq!(handshake.of(Code::Sign), 1, "{handshake:?}");
    assert_eq!(handshake.of(Code::FlushContext), 1, "{handshake:?}");
    handshake.assert_within(3, 700);
    let end = during(&mut site, "an orderly end", |site| site.device.stop());
    assert_eq!(end.of(Code::Shutdown), 1, "{end:?}");
    end.assert_within(1, 22);
}

/// Goal: an enrollment makes two keys and the parent of both, proves one of them once, and what is
/// around that stays in bounds: from power-on to shutdown.
#[test]
fn a_first_enrollment_takes_a_tpm_a_bounded_effort() {
    let mut site = Site::new();
    let enrollment = during(&mut site, "a first enrollment", |site| {
        site.device.run(&["enroll"]).expect_success();
    });
    assert_eq!(enrollment.of(Code::CreatePrimary), 1, "{enrollment:?}");
    assert_eq!(enrollment.of(Code::Create), 2, "{enrollment:?}");
    assert_eq!(enrollment.of(Code::Certify), 1, "{enrollment:?}");
    enrollment.assert_within(72, 16 * 1024);
    let start = during(&mut site, "a start to the first session", |site| {
        site.device.start();
        await_logged(site, SESSION, 0);
    });
    assert_eq!(start.of(Code::Create), 0, "{start:?}");
    start.assert_within(24, 4 * 1024);
}

/// Goal: a renewal makes one key and proves it once; the parent, whose context is kept, is not made
/// again; challenge and request share a handshake, so that five signatures do: the request's, and
/// those of four connections.
#[test]
fn a_renewal_takes_a_tpm_one_new_key() {
    let mut site = online();
    let renewal = during(&mut site, "a renewal with a new key", |site| {
        let before = logged(site, SWITCH);
        assert_eq!(site.device.ask(&json!({"renew": {}}))["ok"], true);
        await_logged(site, SWITCH, before);
    });
    assert_eq!(renewal.of(Code::CreatePrimary), 0, "{renewal:?}");
    assert_eq!(renewal.of(Code::Create), 1, "{renewal:?}");
    assert_eq!(renewal.of(Code::Certify), 1, "{renewal:?}");
    assert_eq!(renewal.of(Code::Sign), 5, "{renewal:?}");
    renewal.assert_within(54, 13 * 1024);
}

/// Goal: a challenge that is answered costs the provisioner two syncs: one for the challenge, which
/// must not be good twice, and one for the certificate, its binding and its evidence together.
#[test]
fn an_attested_enrollment_costs_two_syncs() {
    const ENROLLMENTS: usize = 20;
    let lab = Lab::with(Plan::attested());
    let maker = lab.tpm_maker("acme");
    lab.trust(&maker);
    let mut claimant = Claimant::new(lab.tpm("tpm", &maker), EkTemplate::Rsa2048);
    lab.operate(&["device", "add", ID]);
    let pid = lab.provisioner.pid().or_fail("the provisioner runs");
    let syncs = Syncs::of(pid, lab.path("syncs")).or_fail("strace");
    for _ in 0..ENROLLMENTS {
        assert_eq!(claimant.enroll(&lab, ID).status, 200);
    }
    let syncs = syncs.so_far().or_fail("what strace saw");
    assert!(syncs >= 2 * ENROLLMENTS, "something was not durable before it was told: {syncs}");
    assert!(syncs <= 2 * ENROLLMENTS + 1, "{syncs} syncs for {ENROLLMENTS} enrollments");
}

/// Goal: a TPM costs one thread, which sleeps, and lets the TPM sleep, until there is work.
#[test]
fn slow_an_idle_agent_leaves_its_tpm_alone() {
    const WINDOW_MS: u64 = 20_000;
    let with_file = Lab::new();
    let broker = with_file.broker();
    let mut other = with_file.expected_device(ID, &broker);
    other.start();
    other.await_online();
    let mut site = online();
    let [with_file, with_tpm] = [&other, &site.device].map(|device| {
        let watched = Watched::new(device.pid().or_fail("the agent runs"));
        move || watched.usage().or_fail("the agent runs")
    });
    until("the agent to have settled", WINDOW_MS, || {
        let before = with_tpm();
        pause(500);
        (with_tpm() == before).then_some(())
    });
    let before = with_tpm();
    let idle = during(&mut site, "20 s of nothing", |_| {
        let clock = Stopwatch::start();
        until("the window to pass", 2 * WINDOW_MS, || {
            (clock.elapsed_ms() >= WINDOW_MS).then_some(())
        });
    });
    let (after, without) = (with_tpm(), with_file());
    assert_eq!(idle.commands(), 0, "{idle:?}");
    assert!(
        after.threads <= without.threads + 1,
        "{} threads, not {}",
        after.threads,
        without.threads
    );
    // One keep-alive exchange may fall into the window; twice a second would be forty.
    let wake_ups = after.voluntary_switches - before.voluntary_switches;
    assert!(wake_ups <= 20, "{wake_ups} wake-ups in 20 s");
}
