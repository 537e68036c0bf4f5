//! Certificates that ran out while nobody was there, and devices that were revoked.

use fleetcert_tests::lab::device::Device;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail, Plan};
use serde_json::json;

/// The shortest life that the provisioner gives a certificate, seconds.
const LIFETIME_S: u32 = 10;

/// A device that enrolled, and whose certificate has run out since.
fn expired(lab: &Lab) -> (Device, String) {
    let token_file = lab.token_file("dev-1");
    let device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    device.run(&["enroll"]).expect_success();
    let (status, _) = device.status_command();
    let serial = status.serial().or_fail("a serial number").to_owned();
    until("the certificate to run out", 20_000, || {
        let (status, code) = device.status_command();
        let expired = status.0["identity"]["expired"] == true;
        assert!(!expired || code == Some(4), "exit code {code:?} of an expired device");
        expired.then_some(())
    });
    (device, serial)
}

/// Goal: inside the window a device that was off comes back by itself.
#[test]
fn slow_inside_the_window_a_device_recovers_by_itself() {
    let lab = Lab::with(Plan { lifetime_s: LIFETIME_S, ..Plan::default() });
    let (mut device, serial) = expired(&lab);
    device.start();
    device.await_other_than(&serial, 10_000);
    let audit = lab.audit("dev-1");
    assert!(audit.iter().any(|entry| entry["event"] == "recovered"), "{audit:#?}");
}

/// Goal: outside the window an operator has to look at it; until then the status says so.
#[test]
fn slow_outside_the_window_an_operator_brings_a_device_back() {
    let lab = Lab::with(Plan { lifetime_s: LIFETIME_S, recovery_window_s: 0, ..Plan::default() });
    let (mut device, serial) = expired(&lab);
    device.start();
    let status = device.await_failure("enroll", "pending");
    assert!(status.text("/last_failure/what_to_do").or_fail("advice").contains("device approve"));
    assert_eq!(status.serial(), Some(serial.as_str()));
    assert_eq!(device.status_command().1, Some(4));
    assert_eq!(lab.issued("dev-1"), 1);
    lab.operate(&["device", "approve", "dev-1"]);
    device.await_other_than(&serial, 20_000);
    assert_eq!(lab.issued("dev-1"), 2);
}

/// Goal: a revoked device is out: it uses no identity, ends its session for good, and says so; a
/// restart changes nothing.
#[test]
fn a_revoked_device_is_quarantined() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    device.await_online();
    lab.operate(&["device", "revoke", "dev-1"]);
    lab.publish_crl(&broker);
    broker.reload();
    device.ask(&json!({"renew": {}}));
    let quarantined = |device: &mut Device| {
        let status = device.await_status("the quarantine", 10_000, |status| {
            status.phase() == "quarantined" && !status.is_connected()
        });
        assert_eq!(device.status_command().1, Some(5));
        status
    };
    let status = quarantined(&mut device);
    assert_eq!(status.failure(), Some(("enroll", "revoked")));
    status.assert_failure_is_explained();
    let connections = || broker.log().matches("New client connected").count();
    let before = connections();
    device.stop();
    device.start();
    quarantined(&mut device);
    assert_eq!(connections(), before, "a revoked device connected again");
    let outcome = device.run(&["renew"]);
    assert_ne!(outcome.code, Some(0), "{}", outcome.text());
    assert_eq!(lab.issued("dev-1"), 1);
}
