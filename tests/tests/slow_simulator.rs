//! The fleet simulator at length: more seeds, larger fleets, longer lives.
#![expect(clippy::unwrap_used, reason = "a broken simulator ends the test")]

use fleetcert_tests::fleet;
use fleetcert_tests::recorder::Recorder;
use fleetcert_tests::sim::faults::Faults;
use fleetcert_tests::sim::world::Settings;

fn survives(settings: Settings) {
    let outcome = fleet::run(settings, Recorder::default()).unwrap();
    let violation = outcome.violations.first();
    assert!(
        violation.is_none(),
        "{}\n{}",
        violation.map(ToString::to_string).unwrap_or_default(),
        fleet::replay_command(&settings, violation)
    );
}

// Goal: rare coincidences come too.
#[test]
fn slow_many_seeds_of_harsh_faults_break_no_rule() {
    for seed in 1_000..1_024 {
        let faults = Faults::HARSH;
        survives(Settings { devices: 20, days: 160, seed, faults, lifetime_days: 30 });
    }
}

// Goal: a fleet large enough that its hours are not chance keeps its peaks low.
#[test]
fn slow_a_large_fleet_keeps_its_peaks_low() {
    let faults = Faults::DEFAULT;
    survives(Settings { devices: 600, days: 200, seed: 11, faults, lifetime_days: 30 });
}

// Goal: certificates of ninety days outlast what those of thirty do not, and the other way round.
#[test]
fn slow_other_lifetimes_break_no_rule() {
    for (lifetime_days, days) in [(7, 120), (90, 500), (365, 1_500)] {
        let faults = Faults::DEFAULT;
        survives(Settings { devices: 30, days, seed: 3, faults, lifetime_days });
    }
}
