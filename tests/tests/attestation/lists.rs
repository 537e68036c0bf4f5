//! Endorsement keys that an operator vouches for: with no certificate, or with one of whomever.

use fleetcert_tests::lab::Plan;
use fleetcert_tests::lab::pki::{self, CHIP_MAKER, Node};

use crate::bench::{Bench, DEVICE, enrolled};

fn listing() -> Bench {
    Bench::with(Plan { admission: "ek-allowlist", ..Plan::default() })
}

/// Goal: a TPM without any certificate serves the device that it is listed for.
#[test]
fn a_listed_tpm_without_a_certificate_enrolls() {
    let bench = listing();
    let mut device = bench.bare_device("tpm");
    bench.import("list.csv", &format!("{DEVICE},{}\n", device.ek_id())).expect_success();
    enrolled(&bench.enroll(&mut device, DEVICE));
    let bound = &bench.tpm(DEVICE)["bound"];
    assert_eq!(bound["ekSha256"], device.ek_id());
    assert_eq!(
        (&bound["source"], &bound["admission"]),
        (&"allowlist".into(), &"ek-allowlist".into())
    );
    assert_eq!(bound["ekChain"], serde_json::json!([]));
}

/// Goal: the list reads as CSV with a head and as JSON lines, and the same again changes nothing.
#[test]
fn lists_are_read_as_csv_and_as_json_lines() {
    let bench = listing();
    let mut one = bench.bare_device("one");
    let mut two = bench.bare_device("two");
    let csv = format!("device_id,ek_sha256\n{DEVICE},{}\n", one.ek_id().to_uppercase());
    let json = format!("{{\"device_id\": \"gw-2\", \"ek_sha256\": \"{}\"}}\n", two.ek_id());
    for _ in 0..2 {
        bench.import("list.csv", &csv).expect_success();
        bench.import("list.jsonl", &json).expect_success();
    }
    enrolled(&bench.enroll(&mut one, DEVICE));
    enrolled(&bench.enroll(&mut two, "gw-2"));
}

/// Goal: a list that contradicts itself, or what is known, is not entered in part.
#[test]
fn a_list_with_a_wrong_line_is_not_imported() {
    let bench = listing();
    let device = bench.bare_device("tpm");
    let good = format!("{DEVICE},{}\n", device.ek_id());
    let wrong = [
        format!("{good}gw-2,{}\n", &device.ek_id()[1..]),
        format!("{good}gw-2,{}\n", device.ek_id()),
        format!("{good}{DEVICE},{}\n", "0".repeat(64)),
        format!("{good}backend.x,{}\n", "0".repeat(64)),
    ];
    for text in wrong {
        let outcome = bench.import("list.csv", &text);
        assert_ne!(outcome.code, Some(0), "{}", outcome.text());
        assert_eq!(bench.sql("SELECT count(*) FROM device"), "0", "{text}");
        bench.no_challenge(&device.asking(DEVICE), (403, "ek-unknown"));
    }
}

/// Goal: where a list is the policy, the best certificate is none.
#[test]
fn a_tpm_that_is_not_listed_is_refused() {
    let bench = listing();
    let mut device = bench.device("tpm");
    let reply = bench.enroll(&mut device, DEVICE);
    bench.no_certificate(&reply, (403, "ek-not-listed"));
}

/// Goal: the TPM of one device is not another's, where a list says so.
#[test]
fn a_tpm_that_is_listed_for_another_device_is_refused() {
    for admission in ["ek-allowlist", "ek-chain", "approval"] {
        let bench = Bench::with(Plan { admission, ..Plan::default() });
        let mut device = bench.device("tpm");
        bench.import("list.csv", &format!("gw-2,{}\n", device.ek_id())).expect_success();
        let reply = bench.enroll(&mut device, DEVICE);
        assert_eq!(reply.verdict(), (409, "ek-listed-elsewhere"), "{admission}");
        assert_eq!(bench.sql("SELECT count(*) FROM binding"), "0");
        assert_eq!(bench.lab.issued(DEVICE), 0);
    }
}

/// Goal: a device for which a TPM is listed comes with that one, whatever its group admits.
#[test]
fn another_tpm_than_the_listed_one_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let other = bench.device("other");
    bench.import("list.csv", &format!("{DEVICE},{}\n", other.ek_id())).expect_success();
    let reply = bench.enroll(&mut device, DEVICE);
    assert_eq!(reply.verdict(), (403, "ek-not-listed"), "{}", reply.text());
    assert_eq!(
        (bench.lab.issued(DEVICE), bench.sql("SELECT count(*) FROM binding")),
        (0, "0".into())
    );
}

/// Goal: an operator's word stands beside a certificate of a maker that nobody trusts, and nothing
/// of that certificate is believed.
#[test]
fn a_listed_tpm_of_an_unknown_maker_enrolls() {
    let bench = listing();
    let mut device = bench.bare_device("tpm");
    let stranger = Node::root(pki::authority("Somebody's EK Root"));
    device.certificates = stranger.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    bench.import("list.csv", &format!("{DEVICE},{}\n", device.ek_id())).expect_success();
    enrolled(&bench.enroll(&mut device, DEVICE));
    let bound = &bench.tpm(DEVICE)["bound"];
    assert_eq!((&bound["source"], &bound["tpm"]), (&"allowlist".into(), &serde_json::Value::Null));
}

/// Goal: a group that wants a chain takes no list for one.
#[test]
fn a_listed_tpm_without_a_certificate_is_refused_where_a_chain_is_wanted() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    bench.import("list.csv", &format!("{DEVICE},{}\n", device.ek_id())).expect_success();
    let reply = bench.enroll(&mut device, DEVICE);
    assert_eq!(reply.verdict(), (403, "ek-chain-required"), "{}", reply.text());
    assert_eq!(bench.lab.issued(DEVICE), 0);
}
