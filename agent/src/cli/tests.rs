use std::path::Path;

use fleetcert_core::event::{Failure, Reason};
use fleetcert_core::record::{Identity, Record, Slot, SlotState};
use fleetcert_core::time::{Validity, Wall};

use super::*;
use crate::cause::Causes;
use crate::daemon::BUILD_TIME;
use crate::disk::{Lock, StateDir};
use crate::store::Store;

const LEAF: &[u8] = include_bytes!("../../core/testdata/leaf.der");

/// A configuration in a folder of its own, whose state directory does not exist yet.
fn config(folder: &Path) -> Config {
    let path = folder.join("agent.toml");
    let text = include_str!("../../agent.example.toml").replace("/var/lib/fleetcert", "state");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

fn command(folder: &Path, words: &[&str]) -> Result<Exit, CliError> {
    let config = folder.join("agent.toml");
    let head = ["fleetcert-agent", "--config", config.to_str().unwrap()];
    perform(&Arguments::try_parse_from(head.iter().chain(words)).unwrap())
}

/// A record with a certificate that lasts for ten years.
fn enrolled(state: &StateDir) -> Record {
    let identity = Identity {
        serial: [7].into_iter().collect(),
        validity: Validity {
            not_before: BUILD_TIME,
            not_after: Wall(BUILD_TIME.0 + 10 * 365 * 86_400),
        },
        spki_sha256: [7; 32],
        certificate: LEAF.iter().copied().collect(),
    };
    let slots = [SlotState::Certified(identity), SlotState::Empty];
    let record = Record { generation: 1, active: Some(Slot::A), slots, ..Record::new(BUILD_TIME) };
    let state = StateDir::open(&crate::disk::Disk::path(state, "")).unwrap();
    Store::new(std::rc::Rc::new(state), Causes::default()).write(&record).unwrap();
    record
}

// Goal: the argument grammar is consistent, and usage errors have their own exit code.
#[test]
fn the_arguments_are_well_formed() {
    Arguments::command().debug_assert();
    for words in [vec![], vec!["fly"], vec!["inspect", "--json", "--pem"], vec!["publish", "x"]] {
        let words = std::iter::once("fleetcert-agent").chain(words);
        assert!(Arguments::try_parse_from(words).unwrap_err().use_stderr());
    }
    let path = ["fleetcert-agent", "status", "--config", "/nowhere/agent.toml"];
    let error = perform(&Arguments::try_parse_from(path).unwrap()).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage);
    assert!(error.to_string().contains("/nowhere/agent.toml"), "{error}");
}

// Goal: a device that has never enrolled is told so by each command that looks, without any trace.
#[test]
fn looking_at_a_device_that_never_enrolled_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    assert_eq!(command(folder.path(), &["status", "--json"]).unwrap(), Exit::NotEnrolled);
    assert_eq!(command(folder.path(), &["status"]).unwrap(), Exit::NotEnrolled);
    let error = command(folder.path(), &["inspect"]).unwrap_err();
    assert_eq!(error.exit(), Exit::NotEnrolled);
    let error = command(folder.path(), &["renew"]).unwrap_err();
    assert_eq!(error.exit(), Exit::NotEnrolled);
    let error = command(folder.path(), &["publish", "data/x", "1"]).unwrap_err();
    assert!(error.to_string().contains("no agent is running"), "{error}");
    assert!(!config.state_dir.exists());
}

// Goal: what destroys wants to be confirmed, and wants the agent stopped.
#[test]
fn wiping_needs_a_confirmation_and_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let state = StateDir::make(&config.state_dir).unwrap();
    enrolled(&state);
    std::fs::write(config.state_dir.join("key.a"), "a key").unwrap();
    for words in [["wipe"], ["decommission"]] {
        assert_eq!(command(folder.path(), &words).unwrap_err().exit(), Exit::Usage);
    }
    let lock = Lock::take(&state).unwrap();
    let error = command(folder.path(), &["wipe", "--yes"]).unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert!(config.state_dir.join("key.a").exists());
    drop(lock);
    assert_eq!(command(folder.path(), &["wipe", "--yes"]).unwrap(), Exit::Ok);
    let left: Vec<_> = std::fs::read_dir(&config.state_dir).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock and nothing else: {left:?}");
}

// Goal: without an agent the record alone answers, and other tools read the certificate.
#[test]
fn the_certificate_of_a_device_at_rest_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let record = enrolled(&StateDir::make(&config.state_dir).unwrap());
    assert_eq!(command(folder.path(), &["status", "--json"]).unwrap(), Exit::Ok);
    for words in [&["inspect"][..], &["inspect", "--json"], &["inspect", "--pem"]] {
        assert_eq!(command(folder.path(), words).unwrap(), Exit::Ok);
    }
    let pem = inspect::pem(record.active_identity().unwrap());
    let path = folder.path().join("leaf.pem");
    std::fs::write(&path, pem).unwrap();
    let openssl = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-in"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
}

// Goal: a state directory that holds another device's identity is refused by name.
#[test]
fn a_foreign_identity_stops_the_agent_before_it_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    enrolled(&StateDir::make(&config.state_dir).unwrap());
    let error = command(folder.path(), &["enroll"]).unwrap_err();
    assert!(error.to_string().contains("expected gateway-0001"), "{error}");
    assert!(error.advice().contains("device_id or state_dir"));
    assert_eq!(error.exit(), Exit::Failure);
}

// Goal: scripts can tell who has to act.
#[test]
fn failures_have_the_exit_code_of_who_has_to_act() {
    for (failure, exit) in [
        (Failure::Refused { status: 403, reason: Reason::new() }, Exit::Refused),
        (Failure::Revoked, Exit::Refused),
        (Failure::Pending { retry_after_s: 9 }, Exit::TryLater),
        (Failure::Unreachable, Exit::TryLater),
        (Failure::ServerUntrusted, Exit::Failure),
        (Failure::StorageUnavailable, Exit::Failure),
    ] {
        assert_eq!(Exit::of_failure(&failure), exit, "{failure}");
    }
    assert_eq!(Exit::TryLater as u8, 75);
}
