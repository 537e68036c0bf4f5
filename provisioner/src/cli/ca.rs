//! `ca …`: the authorities, and those to whom they issue by hand.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use serde_json::json;

use fleetcert_core::time::{Validity, Wall};

use super::{CaCommand, Failure, Format, output};
use crate::{
    clock::{Clock, SystemClock},
    config::{LIFETIME_S_MAX, LIFETIME_S_MIN},
    credential::{Credential, Order},
    files,
    installation::Installation,
    inventory::Name,
    pem,
    tls::{read_chain, validity},
};

/// Seconds of a server certificate's life when nothing is said: 825 days.
pub(crate) const SERVER_LIFETIME_S: u64 = 825 * 86_400;

/// Seconds of a backend certificate's life when nothing is said: a year. It can do more than a
/// device and sits on an ordinary disk.
pub(super) const BACKEND_LIFETIME_S: u64 = 365 * 86_400;

pub(super) async fn run(config: &Path, command: CaCommand) -> Result<(), Failure> {
    let installation = Installation::open(config).await?;
    let operator = output::operator();
    let order = |lifetime_s| {
        check(lifetime_s).map(|()| Order {
            operator: &operator,
            now: SystemClock.wall(),
            lifetime_s,
        })
    };
    match command {
        CaCommand::IssueBackend { name, out, lifetime_s } => {
            issue_backend(&installation, &name, &out, order(lifetime_s)?).await?;
        }
        CaCommand::IssueServer { names, out, lifetime_s } => {
            issue_server(&installation, &names, &out, order(lifetime_s)?).await?;
        }
        CaCommand::Show(format) => show(&installation, format, SystemClock.wall())?,
    }
    installation.provisioner.store().close().await;
    Ok(())
}

fn check(lifetime_s: u64) -> Result<(), Failure> {
    if (LIFETIME_S_MIN..=LIFETIME_S_MAX).contains(&lifetime_s) {
        return Ok(());
    }
    let (found, min, max) = (lifetime_s, LIFETIME_S_MIN, LIFETIME_S_MAX);
    Err(Failure::Bounds { argument: "--lifetime-s", found, min, max })
}

async fn issue_server(
    installation: &Installation,
    names: &[String],
    out: &Path,
    order: Order<'_>,
) -> Result<(), Failure> {
    let authority = installation.server_authority()?;
    let credential =
        Credential::server(&installation.provisioner, &authority, names, order).await?;
    files::empty_folder(out, files::PUBLIC_FOLDER)?;
    let (certificate, key) = (out.join("server.pem"), out.join("server.key"));
    credential.write(&certificate, &key, &installation.server_chain)?;
    output::print(&format!(
        "{} and {} written for {}\n",
        certificate.display(),
        key.display(),
        names.join(", ")
    ));
    Ok(())
}

async fn issue_backend(
    installation: &Installation,
    name: &Name,
    out: &Path,
    order: Order<'_>,
) -> Result<(), Failure> {
    let provisioner = &installation.provisioner;
    let trust_domain = provisioner.settings().trust_domain.clone();
    let credential = Credential::backend(provisioner, name.clone(), trust_domain, order).await?;
    files::empty_folder(out, files::PUBLIC_FOLDER)?;
    let (certificate, key) = (out.join("backend.pem"), out.join("backend.key"));
    credential.write(&certificate, &key, &installation.device_chain)?;
    let root = pem::certificates(installation.server_chain.last());
    files::create(&out.join("server-root.pem"), root.as_bytes(), files::PUBLIC)?;
    output::print(&format!(
        "{} and {} written; a broker has to list the backend: `broker mosquitto --backend {name}`\n",
        certificate.display(),
        key.display()
    ));
    Ok(())
}

/// One certificate that the installation depends on.
struct Shown {
    role: &'static str,
    validity: Option<Validity>,
    fingerprint: String,
}

fn show(installation: &Installation, format: Format, now: Wall) -> Result<(), Failure> {
    let mut shown = Vec::new();
    let server = read_chain(&installation.config.server.certificate)?;
    let chains = [
        (["device issuing CA", "device root"], installation.device_chain.as_slice()),
        (["server issuing CA", "server root"], installation.server_chain.as_slice()),
        (["server certificate", "server issuing CA in use"], server.as_slice()),
    ];
    for (roles, chain) in chains {
        shown.extend(roles.into_iter().zip(chain).map(|(role, der)| describe(role, der)));
    }
    if format.json {
        output::print_json(&json_of(&shown, installation));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = shown.iter().map(|shown| row(shown, now)).collect();
    output::print(&output::table(&["CERTIFICATE", "UNTIL", "SHA-256"], &rows));
    Ok(())
}

fn describe(role: &'static str, der: &CertificateDer<'_>) -> Shown {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let fingerprint = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    Shown { role, validity: validity(der), fingerprint }
}

fn row(shown: &Shown, now: Wall) -> Vec<String> {
    let until = match shown.validity {
        Some(validity) if validity.is_expired_at(now) => {
            format!("{} EXPIRED", validity.not_after)
        }
        Some(validity) => validity.not_after.to_string(),
        None => "not readable".to_owned(),
    };
    vec![shown.role.to_owned(), until, shown.fingerprint.clone()]
}

fn json_of(shown: &[Shown], installation: &Installation) -> serde_json::Value {
    let certificates: Vec<serde_json::Value> = shown
        .iter()
        .map(|shown| {
            json!({
                "role": shown.role,
                "notBefore": shown.validity.map(|validity| validity.not_before.to_string()),
                "notAfter": shown.validity.map(|validity| validity.not_after.to_string()),
                "sha256": shown.fingerprint,
            })
        })
        .collect();
    json!({
        "schema": output::SCHEMA,
        "trustDomain": installation.config.trust_domain,
        "externalUrl": installation.config.external_url,
        "deviceKeyId": installation.provisioner.authority().key_id().to_string(),
        "certificates": certificates,
    })
}
