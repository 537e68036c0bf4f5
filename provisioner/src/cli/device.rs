//! `device …`: the inventory.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use fleetcert_core::device_id::DeviceId;

use super::{DeviceCommand, Failure, Format, import, output, tpm};
use crate::{
    clock::{Clock, SystemClock},
    installation::Installation,
    inventory::{Device, Status},
    store::{Mark, PAGE_LEN_MAX, Scope, Store, StoreError, StoredCertificate},
};

/// Certificates that `device show` shows, newest first.
const SHOWN_CERTIFICATES: u32 = 20;

pub(super) async fn run(config: &Path, command: DeviceCommand) -> Result<(), Failure> {
    let installation = Installation::open(config).await?;
    let (now, operator) = (SystemClock.wall(), output::operator());
    let provisioner = &installation.provisioner;
    match command {
        DeviceCommand::Add { id, group } => {
            let device = provisioner.add_device(id, group, &operator, now).await?;
            let text = format!("{} added to group {}\n", device.id, device.group);
            output::print(&text);
        }
        DeviceCommand::Approve { id, key } => {
            let device = provisioner.approve(id, key, &operator, now).await?;
            output::print(&format!(
                "{} approved; it gets its certificate when it asks\n",
                device.id
            ));
        }
        DeviceCommand::Import { file, group } => {
            import::run(&installation, &file, group, &operator, now).await?;
        }
        DeviceCommand::List(format) => list(provisioner.store(), format).await?,
        DeviceCommand::Reject { id } => {
            let device = provisioner.reject(id, &operator, now).await?;
            output::print(&format!("{} turned down\n", device.id));
        }
        DeviceCommand::Replace { id, ek } => {
            let device = provisioner.replace(id, ek, &operator, now).await?;
            provisioner.crl(now, true).await?;
            output::print(&replaced(&device));
        }
        DeviceCommand::Revoke { id, reason } => {
            let device = provisioner.revoke(id, reason, &operator, now).await?;
            provisioner.crl(now, true).await?;
            output::print(&revoked(&device));
        }
        DeviceCommand::Show { id, format } => show(provisioner.store(), id, format).await?,
    }
    provisioner.store().close().await;
    Ok(())
}

/// What is done, and what only the operator can do: a broker reads the list when it is told to, and
/// looks at it when a client connects, not while one is connected.
fn revoked(device: &Device) -> String {
    format!(
        "{id} is revoked: this service refuses it from now on. Brokers still serve it until you
1. give each of them the new list, so that it cannot connect again:
     fleetcert-provisioner crl write --out FOLDER/crl.pem && kill -HUP \"$(pidof mosquitto)\"
2. end the session that it may have now: restart the broker; where mosquitto's dynamic security
   plugin is in use, `mosquitto_ctrl dynsec disableClient {id}` ends this one alone.
",
        id = device.id
    )
}

fn replaced(device: &Device) -> String {
    let id = &device.id;
    if device.status == Status::Revoked {
        return format!("{id} stays revoked; its TPM may be another device's now\n");
    }
    format!(
        "{id} is expected to enroll anew. Its certificates are revoked: give brokers the new list
     fleetcert-provisioner crl write --out FOLDER/crl.pem && kill -HUP \"$(pidof mosquitto)\"
"
    )
}

async fn list(store: &impl Store, format: Format) -> Result<(), Failure> {
    let (devices, marks) = (all(store).await?, marks(store).await?);
    let marked = devices.iter().map(|device| (device, marks.get(&device.id)));
    if format.json {
        let devices: Vec<Value> = marked.map(|(device, mark)| listed_json(device, mark)).collect();
        output::print_json(&json!({ "schema": output::SCHEMA, "devices": devices }));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = marked.map(|(device, mark)| row(device, mark)).collect();
    let head = ["DEVICE", "GROUP", "STATUS", "TPM", "EXPIRES", "LAST SEEN"];
    output::print(&output::table(&head, &rows));
    Ok(())
}

fn listed_json(device: &Device, mark: Option<&Mark>) -> Value {
    let mut value = json_of(device);
    let bound = mark.and_then(|mark| mark.bound);
    value["attested"] = bound.is_some().into();
    value["ekSha256"] = bound.map(|ek| ek.to_string()).into();
    value["conflicts"] = mark.map_or(0, |mark| mark.conflicts).into();
    value
}

async fn marks(store: &impl Store) -> Result<BTreeMap<DeviceId, Mark>, StoreError> {
    let mut marks: BTreeMap<DeviceId, Mark> = BTreeMap::new();
    loop {
        let after = marks.last_key_value().map(|(id, _)| id.clone());
        let page = store.marks(after, PAGE_LEN_MAX).await?;
        let is_last = page.len() < PAGE_LEN_MAX as usize;
        marks.extend(page.into_iter().map(|mark| (mark.device.clone(), mark)));
        if is_last {
            return Ok(marks);
        }
    }
}

async fn all(store: &impl Store) -> Result<Vec<Device>, StoreError> {
    let mut devices: Vec<Device> = Vec::new();
    loop {
        let after = devices.last().map(|device| device.id.clone());
        let page = store.devices(after, PAGE_LEN_MAX).await?;
        let is_last = page.len() < PAGE_LEN_MAX as usize;
        devices.extend(page);
        if is_last {
            return Ok(devices);
        }
    }
}

async fn show(store: &impl Store, id: DeviceId, format: Format) -> Result<(), Failure> {
    let view = store.view(Scope { device: Some(id.clone()), ..Scope::default() }).await?;
    let device = view.device.ok_or_else(|| Failure::DeviceUnknown(id.clone()))?;
    let certificates = store.certificates(id.clone(), SHOWN_CERTIFICATES).await?;
    let record = store.tpm(id).await?;
    if format.json {
        let certificates: Vec<Value> = certificates.iter().map(json_of_certificate).collect();
        output::print_json(&json!({
            "schema": output::SCHEMA,
            "device": json_of(&device),
            "attested": record.bound.is_some(),
            "tpm": tpm::json_of(&record),
            "certificates": certificates,
        }));
        return Ok(());
    }
    output::print(&format!("{}{}", text_of(&device), tpm::text_of(&record)));
    let rows: Vec<Vec<String>> = certificates.iter().map(row_of_certificate).collect();
    let head = ["SERIAL", "FROM", "UNTIL", "REVOKED"];
    output::print(&output::table(&head, &rows));
    Ok(())
}

const fn status(device: &Device) -> &'static str {
    match device.status {
        Status::Active => "active",
        Status::Expected => "expected",
        Status::Pending => "pending",
        Status::Revoked => "revoked",
    }
}

fn row(device: &Device, mark: Option<&Mark>) -> Vec<String> {
    let waits = device.approval.is_some_and(|approval| approval.approved_at.is_none());
    let status = format!("{}{}", status(device), if waits { ", key waits" } else { "" });
    let is_attested = mark.is_some_and(|mark| mark.bound.is_some());
    let has_conflict = mark.is_some_and(|mark| mark.conflicts > 0);
    let tpm = match (is_attested, has_conflict) {
        (false, false) => "-",
        (true, false) => "attested",
        (false, true) => "conflict",
        (true, true) => "attested, conflict",
    };
    vec![
        device.id.as_str().to_owned(),
        device.group.as_str().to_owned(),
        status,
        tpm.to_owned(),
        output::time_or_dash(device.not_after),
        output::time_or_dash(device.last_seen_at),
    ]
}

fn text_of(device: &Device) -> String {
    let mut text = format!("{}: group {}, {}\n", device.id, device.group, status(device));
    text += &format!("entered {}, ", device.created_at);
    text += &format!("last seen {}\n", output::time_or_dash(device.last_seen_at));
    if let Some(approval) = device.approval {
        let state = match approval.approved_at {
            Some(at) => format!("approved {}", at),
            None => format!("waits since {}", approval.asked_at),
        };
        text += &format!("key {} {state}\n", approval.key);
    }
    if let Some((at, reason)) = device.revoked {
        text += &format!("revoked {}: {}\n", at, reason.name());
    }
    text
}

fn json_of(device: &Device) -> Value {
    json!({
        "id": device.id.as_str(),
        "group": device.group.as_str(),
        "status": status(device),
        "createdAt": device.created_at.to_string(),
        "lastSeenAt": device.last_seen_at.map(|wall| wall.to_string()),
        "recoveredAt": device.recovered_at.map(|wall| wall.to_string()),
        "serial": device.serial.map(|serial| serial.to_string()),
        "notAfter": device.not_after.map(|wall| wall.to_string()),
        "approval": device.approval.map(|approval| json!({
            "key": approval.key.to_string(),
            "askedAt": approval.asked_at.to_string(),
            "approvedAt": approval.approved_at.map(|wall| wall.to_string()),
        })),
        "revoked": device.revoked.map(|(at, reason)| json!({
            "at": at.to_string(),
            "reason": reason.name(),
        })),
    })
}

fn row_of_certificate(certificate: &StoredCertificate) -> Vec<String> {
    vec![
        certificate.serial.to_string(),
        certificate.validity.not_before.to_string(),
        certificate.validity.not_after.to_string(),
        output::time_or_dash(certificate.revoked.map(|(at, _)| at)),
    ]
}

fn json_of_certificate(certificate: &StoredCertificate) -> Value {
    json!({
        "serial": certificate.serial.to_string(),
        "key": certificate.key.to_string(),
        "notBefore": certificate.validity.not_before.to_string(),
        "notAfter": certificate.validity.not_after.to_string(),
        "revokedAt": certificate.revoked.map(|(at, _)| at.to_string()),
    })
}
