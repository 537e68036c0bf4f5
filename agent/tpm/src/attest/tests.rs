use std::format;
use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::name::Name;
use crate::testing::swtpm;

/// Where the fields of `attest-p256` begin.
const KIND_AT: usize = 4;
const EXTRA_DATA_AT: usize = 4 + 2 + 2 + 34;
const CLOCK_AT: usize = EXTRA_DATA_AT + 2 + 32;
const SAFE_AT: usize = CLOCK_AT + 8 + 4 + 4;
const NAME_AT: usize = SAFE_AT + 1 + 8;

fn changed(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut attest = swtpm("attest-p256");
    attest[at..at + octets.len()].copy_from_slice(octets);
    attest
}

/// Goal: every field of a TPM's statement is where we read it.
#[test]
fn a_statement_of_a_tpm_is_read() {
    let octets = swtpm("attest-p256");
    let attest = Attest::parse(&octets).unwrap();
    assert_eq!(attest.kind(), CERTIFY);
    assert_eq!(attest.extra_data, swtpm("qualifying"));
    let name = Name::of_public_area(&swtpm("device")).unwrap();
    let Body::Certify { name: certified, qualified_name } = attest.body else {
        panic!("{attest:?}");
    };
    assert_eq!(certified, name.as_bytes());
    let clock = ClockInfo {
        clock_ms: 0x13,
        reset_count: 0x225f_15c5,
        restart_count: 0xfa5d_5d8b,
        safe: true,
    };
    assert_eq!(attest.clock, clock);
    assert_eq!(attest.firmware_version, 0x058a_6b9a_5861_e91f);

    // A primary's qualified Name is the hash of its hierarchy's handle and its Name (TPM 2.0
    // Part 1 §16), under its own algorithm.
    let qualified = |area: &str| {
        let name = Name::of_public_area(&swtpm(area)).unwrap();
        let digest = HashAlg::Sha256.digest(&[&[0x40, 0, 0, 1], name.as_bytes()]);
        [&name.as_bytes()[..2], &digest[..32]].concat()
    };
    assert_eq!(qualified_name, qualified("device"));
    assert_eq!(attest.qualified_signer, qualified("ak-p256"));
}

/// Goal: a statement of creation is read as what it is.
#[test]
fn another_statement_is_named() {
    let octets = swtpm("creation-attest");
    let attest = Attest::parse(&octets).unwrap();
    assert_eq!(attest.body, Body::Other { kind: CREATION });
    assert_eq!(attest.kind(), CREATION);
    assert_eq!(attest.extra_data, swtpm("qualifying"));
}

/// Goal: no beginning of a statement is one, and nothing may follow it.
#[test]
fn only_whole_statements_are_read() {
    let octets = swtpm("attest-p256");
    for len in 0..octets.len() {
        let refused = Attest::parse(&octets[..len]);
        assert!(
            matches!(refused, Err(AttestError::Framing(Framing::Truncated { .. }))),
            "{len}: {refused:?}"
        );
    }
    let longer = [octets, vec![0]].concat();
    assert_eq!(Attest::parse(&longer), Err(AttestError::Framing(Framing::Trailing { found: 1 })));
}

/// Goal: each field that can be wrong is refused for itself.
#[test]
fn statements_with_a_wrong_field_are_refused() {
    let refused = |octets: &[u8]| Attest::parse(octets).unwrap_err().to_string();
    let said = "the statement begins with 0xff544346, a TPM's with 0xff544347";
    assert_eq!(refused(&changed(3, &[0x46])), said);
    let said = "a part of 67 octets, at most 66 are allowed";
    assert_eq!(refused(&changed(KIND_AT + 2, &[0, 67])), said);
    assert_eq!(refused(&changed(EXTRA_DATA_AT, &[0, 67])), said);
    assert_eq!(refused(&changed(NAME_AT, &[0, 67])), said);
    let said = "2 says nothing of a clock, expected 0 or 1";
    assert_eq!(refused(&changed(SAFE_AT, &[2])), said);
    assert_eq!(refused(&[0; ATTEST_LEN_MAX + 1]), "statement of 513 octets, at most 512");
    let zeros = [0; ATTEST_LEN_MAX];
    assert_eq!(Attest::parse(&zeros), Err(AttestError::Magic { found: 0 }));
}

/// Goal: a clock that is not safe is told from a safe one.
#[test]
fn an_unsafe_clock_is_seen() {
    let octets = changed(SAFE_AT, &[0]);
    assert!(!Attest::parse(&octets).unwrap().clock.safe);
}

/// Goal: the value that ties a statement to a request is the one that Python computes, and each
/// of its parts counts.
#[test]
fn qualifying_data_is_a_function_of_all_its_parts() {
    let secret: [u8; 32] = core::array::from_fn(|index| index as u8);
    let id: [u8; 16] = core::array::from_fn(|index| 0xa0 + index as u8);
    let nonce: [u8; 32] = core::array::from_fn(|index| 0x40 + index as u8);
    let spki = swtpm("spki");
    let data = qualifying_data(&secret, &id, &nonce, &spki);
    assert_eq!(data.as_slice(), swtpm("qualifying"));
    for other in [
        qualifying_data(&[0; 32], &id, &nonce, &spki),
        qualifying_data(&secret, &[0; 16], &nonce, &spki),
        qualifying_data(&secret, &id, &[0; 32], &spki),
        qualifying_data(&secret, &id, &nonce, &spki[1..]),
    ] {
        assert_ne!(other, data);
    }
}

/// Goal: no octets make the parser panic, and what it reads of a changed statement it read from
/// there: a statement with any octet changed is another one, or none.
#[test]
fn every_changed_octet_is_noticed() {
    let octets = swtpm("attest-p256");
    let genuine = format!("{:?}", Attest::parse(&octets));
    for at in 0..octets.len() {
        for flip in [1, 0x80, 0xff] {
            let mut octets = octets.clone();
            octets[at] ^= flip;
            assert_ne!(format!("{:?}", Attest::parse(&octets)), genuine, "octet {at}");
        }
    }
}
