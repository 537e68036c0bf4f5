//! The demo as a test: what `qemu/demo --json` promises in its last line holds.

use std::process::Command;

use fleetcert_rig::swtpm;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::programs::{self, AGENT, PROVISIONER};
use serde_json::Value;

/// The demo's program.
const RIG: &str = "fleetcert-rig";

/// Goal: the whole story goes as claimed: enrolled, with a key in a TPM where there is one, three
/// renewals and more, an outage and a kill survived, and no acknowledged message lost.
#[test]
fn slow_the_demo_keeps_every_promise_of_its_last_line() {
    for program in [AGENT, PROVISIONER, RIG] {
        let _there = programs::with(program);
    }
    let output = Command::new(programs::folder().join(RIG))
        .args(["demo", "--json"])
        .output()
        .or_fail("start the demo");
    let timeline = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "replay: qemu/demo --json\n{timeline}");

    let text = String::from_utf8(output.stdout).or_fail("text on standard output");
    let line = text.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(line).or_fail("a last line of JSON");
    assert_eq!(report["schema"], 1, "{line}");
    let has_tpm = swtpm::is_installed();
    assert_eq!(report["key_backend"], if has_tpm { "tpm" } else { "software" }, "{line}");
    assert_eq!(report["attested"], has_tpm, "{line}");
    for claim in ["enrolled", "outage_survived", "kill_survived"] {
        assert_eq!(report[claim], true, "{claim}: {line}");
    }
    assert!(report["renewals"].as_u64() >= Some(3), "{line}");
    assert!(report["published"].as_u64() > Some(0), "{line}");
    assert_eq!(report["published"], report["received"], "{line}");
    assert_eq!(report["lost"], 0, "{line}");
}
