//! Reason codes: each says one thing, and all can stand in a header.

use std::collections::BTreeMap;

use super::*;
use crate::{
    attest::{EkId, ek::EkError, evidence::EvidenceError},
    binding::{KeyName, TpmKind},
    challenge::{ChallengeError, ChallengeId},
    enroll::TpmRefusal,
};

/// Every source that gives codes to refusals.
const SOURCES: [(&str, &str); 6] = [
    ("refusal", include_str!("../refusal.rs")),
    ("tpm", include_str!("../refusal/tpm.rs")),
    ("challenge", include_str!("../../challenge.rs")),
    ("token", include_str!("../../token.rs")),
    ("ek", include_str!("../../attest/ek/refusal.rs")),
    ("evidence", include_str!("../../attest/evidence/error.rs")),
];

/// The roles that codes of evidence about a key begin with.
const ROLES: [&str; 3] = ["ak", "ek", "key"];

/// The text between `begin` and the next quotation mark, wherever `begin` stands.
fn quoted<'a>(source: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    source.split(begin).skip(1).filter_map(|rest| rest.split('"').next())
}

/// The codes of a source up to its tests: what an arm of a match gives, or a role and its end.
fn codes(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let plain = quoted(source, "=> \"").chain(quoted(source, "=> {\n                \""));
    let of_roles = quoted(source, "concat!($role, \"");
    let of_roles = of_roles.flat_map(|end| ROLES.map(|role| format!("{role}{end}")));
    plain.map(str::to_owned).chain(of_roles).collect()
}

// Goal: a code in a log leads to one place in the program, whichever room it came from.
#[test]
fn every_code_is_of_one_refusal_and_can_stand_in_a_header() {
    let mut seen = BTreeMap::from([("revoked".to_owned(), "wire")]);
    for (room, source) in SOURCES {
        let found = codes(source);
        assert!(found.len() >= 4, "{room}: {found:?}");
        for code in found {
            let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
            assert!((1..=32).contains(&code.len()) && code.bytes().all(is_allowed), "{code}");
            let other = seen.insert(code.clone(), room);
            assert_eq!(other, None, "{code} is of {room} too");
        }
    }
    for known in ["ek-bound", "challenge-used", "ek-unknown-root", "ak-not-restricted", "csr-ca"] {
        assert!(seen.contains_key(known), "{known}");
    }
}

fn tpm_refusals() -> Vec<TpmRefusal> {
    let (ek, other) = (EkId([1; 32]), EkId([2; 32]));
    let (found, expected) = (device("gw-1"), device("gw-2"));
    let (key, recorded) = ([1, 2]).map(|n| KeyName::from_octets(&[n; 34]).unwrap()).into();
    let text = |text: &str| text.to_owned();
    let (manufacturer, model, version) = (text("IBM"), text("swtpm"), text("1"));
    vec![
        TpmRefusal::AkBound { found: ek, seen_under: other },
        TpmRefusal::AkChanged { found: key, recorded },
        TpmRefusal::Challenge(ChallengeError::Expired { expires_at: NOW, now: NOW }),
        TpmRefusal::Challenge(ChallengeError::OtherDevice { found: found.clone() }),
        TpmRefusal::Challenge(ChallengeError::Unknown { id: ChallengeId([0; 16]) }),
        TpmRefusal::Challenge(ChallengeError::Used { at: NOW }),
        TpmRefusal::ChallengeDevice { found, expected: expected.clone() },
        TpmRefusal::ChallengeMissing,
        TpmRefusal::ChallengesFull { open_max: 1, retry_after_s: 2 },
        TpmRefusal::Ek(EkError::Missing),
        TpmRefusal::EkBound { ek, holder: expected.clone() },
        TpmRefusal::EkChainRequired { ek },
        TpmRefusal::EkConflict { found: ek, recorded: other },
        TpmRefusal::EkListedElsewhere { ek, listed_for: expected.clone() },
        TpmRefusal::EkMismatch { certified: other, found: ek },
        TpmRefusal::EkNotListed { ek, device: expected.clone() },
        TpmRefusal::EkRevoked { ek, holder: expected },
        TpmRefusal::EkUnknown { ek },
        TpmRefusal::Evidence(EvidenceError::SignatureWrong),
        TpmRefusal::EvidenceMissing,
        TpmRefusal::EvidenceRequired { bound: None },
        TpmRefusal::EvidenceRequired { bound: Some(ek) },
        TpmRefusal::VirtualTpm { kind: TpmKind { manufacturer, model, version, is_virtual: true } },
    ]
}

// Goal: who reads a refusal learns what was found, and no two read alike.
#[test]
fn every_refusal_of_a_tpm_has_a_text_of_its_own() {
    let texts: Vec<String> =
        tpm_refusals().into_iter().map(|it| Refusal::from(it).to_string()).collect();
    for (index, text) in texts.iter().enumerate() {
        assert!(text.len() > 20 && !text.ends_with('.'), "{text}");
        assert!(!texts[..index].contains(text), "{text}");
    }
    let waits: Vec<_> =
        tpm_refusals().into_iter().filter_map(|it| Refusal::from(it).retry_after_s(NOW)).collect();
    assert_eq!(waits, [2], "waiting helps where there is no room, and nowhere else");
}

#[test]
fn every_admission_reads_back_from_its_code_and_nobody_gets_in_by_default() {
    for code in ["approval", "deny", "ek-allowlist", "ek-chain", "token", "token+ek"] {
        assert_eq!(Admission::from_code(code).map(Admission::code), Some(code));
    }
    assert_eq!(Admission::from_code("idevid"), None);
    assert_eq!(Admission::default(), Admission::Deny);
    assert_eq!(StatusClass::Conflict.http(), 409);
}
