//! The fleet simulator on small fleets: many seeds, the same result for the same seed, and the
//! table of one scenario kept as it was.
#![expect(clippy::unwrap_used, reason = "a broken simulator ends the test")]

use std::path::Path;
use std::{env, fs};

use fleetcert_tests::fleet::{self, Outcome};
use fleetcert_tests::recorder::Recorder;
use fleetcert_tests::sim::faults::Faults;
use fleetcert_tests::sim::world::Settings;

/// The scenario whose table is kept.
const KEPT: Settings =
    Settings { devices: 50, days: 200, seed: 7, faults: Faults::DEFAULT, lifetime_days: 30 };

/// Set to write the table anew instead of comparing it.
const UPDATE_VARIABLE: &str = "FLEETCERT_UPDATE_SNAPSHOTS";

fn run(settings: Settings) -> Outcome {
    let outcome = fleet::run(settings, Recorder::default()).unwrap();
    let violation = outcome.violations.first();
    assert!(
        violation.is_none(),
        "{}\n{}",
        violation.map(ToString::to_string).unwrap_or_default(),
        fleet::replay_command(&settings, violation)
    );
    outcome
}

fn small(seed: u64, faults: Faults) -> Settings {
    Settings { devices: 24, days: 120, seed, faults, lifetime_days: 30 }
}

// Goal: every rule holds in a bad neighbourhood, whatever the dice say.
#[test]
fn small_fleets_survive_the_usual_faults() {
    for seed in 100..106 {
        let outcome = run(small(seed, Faults::DEFAULT));
        assert!(outcome.tally.power_cuts > 0, "seed {seed}: nothing went wrong");
    }
}

// Goal: every rule holds where much more goes wrong than may.
#[test]
fn small_fleets_survive_harsh_faults() {
    for seed in 200..204 {
        let outcome = run(small(seed, Faults::HARSH));
        assert!(outcome.tally.stale_answers > 0, "seed {seed}: no answer came late or twice");
    }
}

// Goal: without faults nothing fails, nothing expires, and each certificate is asked for once.
#[test]
fn a_fleet_without_faults_asks_once_for_each_certificate() {
    let outcome = run(small(1, Faults::NONE));
    let tally = outcome.tally;
    assert_eq!((tally.power_cuts, tally.expired, tally.discarded, tally.refused), (0, 0, 0, 0));
    assert_eq!(tally.requests_sent - tally.pending, outcome.issued);
    assert_eq!(tally.proven, outcome.issued);
}

// Goal: certificates of a day are as safe as those of a month.
#[test]
fn short_lived_certificates_are_renewed_in_time() {
    let settings = Settings { devices: 8, days: 60, lifetime_days: 2, ..small(5, Faults::NONE) };
    let outcome = run(settings);
    assert_eq!(outcome.tally.expired, 0);
    assert!(outcome.issued > 8 * 30, "{} issued", outcome.issued);
}

// Goal: a run is its settings: the same seed gives the same events, another seed others.
#[test]
fn a_seed_names_one_run() {
    let settings = small(42, Faults::HARSH);
    let (first, second) = (run(settings), run(settings));
    assert_eq!(first, second);
    assert_ne!(first.trace_hash, run(small(43, Faults::HARSH)).trace_hash);
}

// Goal: nobody changes what a fleet does without seeing it in a table.
#[test]
fn the_table_of_the_kept_scenario_is_as_it_was() {
    let table = run(KEPT).table();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fleetsim-table.txt");
    if env::var_os(UPDATE_VARIABLE).is_some() {
        fs::write(&path, &table).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(table, kept, "if this is meant: {UPDATE_VARIABLE}=1 cargo test -p fleetcert-tests");
}
