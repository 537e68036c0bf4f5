//! What is said of a device's TPM.

use base64ct::{Base64, Encoding};
use der::Decode;
use serde_json::{Value, json};
use x509_cert::Certificate;

use crate::{
    attest::root::RootId,
    authority::sha256,
    binding::{Binding, Conflict, Evidence, TpmClock, TpmKind},
    store::TpmRecord,
    tls,
};

/// Everything on record about the TPM of a device, for scripts.
pub(super) fn json_of(record: &TpmRecord) -> Value {
    json!({
        "bound": record.bound.as_ref().map(json_of_binding),
        "waiting": record.waiting.as_ref().map(json_of_binding),
        "listed": record.listed.map(|(ek, at)| json!({
            "ekSha256": ek.to_string(),
            "listedAt": at.to_string(),
        })),
        "conflicts": record.conflicts.iter().map(json_of_conflict).collect::<Vec<_>>(),
    })
}

fn json_of_binding(binding: &Binding) -> Value {
    let endorsement = &binding.proven.endorsement;
    json!({
        "ekSha256": endorsement.ek.to_string(),
        "source": endorsement.source.code(),
        "admission": binding.admission.code(),
        "since": binding.since.to_string(),
        "tpm": endorsement.kind.as_ref().map(json_of_kind),
        "ekChain": endorsement.chain.iter().map(|der| json_of_certificate(der)).collect::<Vec<_>>(),
        "akName": binding.proven.ak.name.to_string(),
        "akPublic": Base64::encode_string(&binding.proven.ak.public),
        "cloneSigns": binding.clone_signs.map_or(0, |(count, _)| count),
        "lastCloneSignAt": binding.clone_signs.map(|(_, at)| at.to_string()),
        "evidence": json_of_evidence(&binding.proven.evidence),
    })
}

fn json_of_kind(kind: &TpmKind) -> Value {
    json!({
        "manufacturer": kind.manufacturer,
        "model": kind.model,
        "version": kind.version,
        "virtual": kind.is_virtual,
    })
}

fn json_of_certificate(der: &[u8]) -> Value {
    let validity = tls::validity(der);
    json!({
        "subject": subject(der),
        "fingerprint": RootId(sha256(der)).to_string(),
        "notBefore": validity.map(|validity| validity.not_before.to_string()),
        "notAfter": validity.map(|validity| validity.not_after.to_string()),
        "der": Base64::encode_string(der),
    })
}

fn subject(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(certificate.tbs_certificate.subject.to_string())
}

fn json_of_evidence(evidence: &Evidence) -> Value {
    let TpmClock { clock_ms, reset_count, restart_count, safe } = evidence.clock;
    json!({
        "at": evidence.at.to_string(),
        "challenge": evidence.challenge.to_string(),
        "key": evidence.key.to_string(),
        "keyName": evidence.key_name.to_string(),
        "attest": Base64::encode_string(&evidence.attest),
        "signature": Base64::encode_string(&evidence.signature),
        "public": Base64::encode_string(&evidence.public),
        "clock": {
            "clockMs": clock_ms,
            "resetCount": reset_count,
            "restartCount": restart_count,
            "safe": safe,
        },
        "firmware": format!("{:016x}", evidence.firmware),
    })
}

fn json_of_conflict(conflict: &Conflict) -> Value {
    json!({
        "kind": conflict.kind.code(),
        "ekSha256": conflict.ek.to_string(),
        "claimant": conflict.claimant.as_str(),
        "at": conflict.at.to_string(),
    })
}

/// The same for people.
pub(super) fn text_of(record: &TpmRecord) -> String {
    let mut text = String::new();
    if let Some(bound) = &record.bound {
        text += &format!("attested: {}", text_of_binding(bound));
    }
    if let Some(waiting) = &record.waiting {
        text += &format!("waits with the key: {}", text_of_binding(waiting));
    }
    if let Some((ek, at)) = record.listed {
        text += &format!("listed for it since {at}: endorsement key {ek}\n");
    }
    for conflict in &record.conflicts {
        let Conflict { ek, claimant, at, .. } = conflict;
        text += &format!(
            "CONFLICT at {at}: {claimant} came with the TPM of endorsement key {ek}; `device \
             replace` lets that TPM take the place, `device reject` turns it down\n"
        );
    }
    text
}

fn text_of_binding(binding: &Binding) -> String {
    let proven = &binding.proven;
    let endorsement = &proven.endorsement;
    let kind = match &endorsement.kind {
        Some(TpmKind { manufacturer, model, version, is_virtual }) => {
            let software = if *is_virtual { ", software" } else { "" };
            format!("{manufacturer} {model} {version}{software}")
        }
        None => "of a maker that no certificate names".to_owned(),
    };
    let mut text = format!(
        "TPM {kind}\n  endorsement key {} ({}), attestation key {}\n  since {} by {}, last \
         evidence {} for key {}\n",
        endorsement.ek,
        endorsement.source.code(),
        proven.ak.name,
        binding.since,
        binding.admission.code(),
        proven.evidence.at,
        proven.evidence.key,
    );
    for der in &endorsement.chain {
        let name = subject(der).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "no name".to_owned());
        text += &format!("  {} {}\n", RootId(sha256(der)), name.escape_debug());
    }
    if let Some((count, at)) = binding.clone_signs {
        text += &format!(
            "  CLONE? its counters went back {count} times, last at {at}: another TPM may run with \
             the same secrets\n"
        );
    }
    text
}
