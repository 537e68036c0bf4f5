//! A broker whose revocation list ran out tells every device that its certificate has expired.
//! None may believe it.

use std::fs;

use fleetcert_tests::lab::{Lab, OrFail};

/// Goal: a device that a broker calls expired keeps its identity, keeps trying, and is back when
/// the broker has a list that is good.
#[test]
fn slow_a_broker_with_an_expired_list_is_not_believed() {
    let lab = Lab::new();
    let mut broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    device.start();
    let before = device.await_online();
    broker.kill();
    fs::write(broker.file("crl.pem"), lab.expired_crl()).or_fail("the expired list");
    broker.start();
    let refused = device.await_status("the broker's refusal", 20_000, |status| {
        status.broker_failure() == Some("our-identity-refused")
    });
    assert_eq!((refused.phase(), refused.serial()), ("active", before.serial()));
    let advice = refused.text("/mqtt/last_failure/what_to_do").or_fail("an advice");
    assert!(advice.contains("CRL"), "{advice}");
    let tries = |device: &fleetcert_tests::lab::device::Device| {
        device.log().matches("next attempt in").count()
    };
    let tried = tries(&device);
    fleetcert_tests::lab::wait::until("two more tries", 20_000, || {
        (tries(&device) >= tried + 2).then_some(())
    });
    assert_eq!(lab.issued("dev-1"), 1, "a device re-enrolled because of a broker's list");

    lab.publish_crl(&broker);
    broker.reload();
    let after = device.await_online();
    assert_eq!(after.serial(), before.serial());
    assert_eq!(after.0.pointer("/mqtt/last_failure"), Some(&serde_json::Value::Null));
    assert_eq!(lab.issued("dev-1"), 1);
}
