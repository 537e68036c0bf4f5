//! The command that shows everything there is to see: the status, and the certificate in use.

use fleetcert_core::der::Certificate;
use fleetcert_core::est::base64::{Style, encode};
use fleetcert_core::record::Identity;
use serde::Serialize;
use serde_json::json;

use super::{CliError, Exit, look, say};
use crate::config::Config;
use crate::status::{Status, hex};

/// What `inspect --json` writes: what `status --json` does, and the certificate.
#[derive(Clone, Debug, Serialize)]
struct Inspection {
    #[serde(flatten)]
    status: Status,
    certificate: Facts,
}

/// What is in the certificate besides.
#[derive(Clone, Debug, Serialize)]
struct Facts {
    authority_key_id: Option<String>,
    subject_key_id: Option<String>,
    uris: Vec<String>,
    dns_names: Vec<String>,
    signature_algorithm: Option<String>,
    pem: String,
}

pub(super) fn inspect(config: &Config, as_json: bool, pem_only: bool) -> Result<Exit, CliError> {
    let machine = look::machine(config)?;
    let identity = machine.record().active_identity().ok_or(CliError::NotEnrolled)?;
    let pem = pem(identity);
    if pem_only {
        return say(&pem);
    }
    let status = look::look(config)?;
    let exit = Exit::of_status(&status);
    let inspection = Inspection { status, certificate: facts(identity, pem) };
    let text = if as_json { format!("{}\n", json!(inspection)) } else { inspection.to_string() };
    say(&text)?;
    Ok(exit)
}

fn facts(identity: &Identity, pem: String) -> Facts {
    let certificate = Certificate::parse(&identity.certificate).ok();
    let key_id = |id: Option<&[u8]>| id.map(hex);
    let texts = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    Facts {
        authority_key_id: key_id(certificate.and_then(|found| found.authority_key_id())),
        subject_key_id: key_id(certificate.and_then(|found| found.subject_key_id())),
        uris: texts(certificate.iter().flat_map(Certificate::uris).collect()),
        dns_names: texts(certificate.iter().flat_map(Certificate::dns_names).collect()),
        signature_algorithm: certificate
            .and_then(|found| found.signature_algorithm())
            .map(|algorithm| algorithm.to_string()),
        pem,
    }
}

/// RFC 7468 §5.1.
pub(super) fn pem(identity: &Identity) -> String {
    let der = &identity.certificate;
    let mut buffer = vec![0; Style::Wrapped.encoded_len(der.len())];
    // The buffer has the length that the encoder asks for.
    let body = encode(der, Style::Wrapped, &mut buffer).unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

impl std::fmt::Display for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, certificate } = self;
        let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        status.fmt(f)?;
        if let Some(identity) = &status.identity {
            writeln!(f, "renewal   {}", shown(&identity.renew_at))?;
            writeln!(f, "key       SHA-256 of SPKI {}", identity.spki_sha256)?;
        }
        writeln!(
            f,
            "names     {}",
            [&certificate.uris[..], &certificate.dns_names].concat().join(" ")
        )?;
        writeln!(f, "issuer    key {}", shown(&certificate.authority_key_id))?;
        writeln!(f, "signature {}", shown(&certificate.signature_algorithm))?;
        f.write_str(&certificate.pem)
    }
}
