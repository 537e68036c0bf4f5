//! `audit …`: what happened, and who did it.

use std::path::Path;

use serde_json::json;

use fleetcert_core::device_id::DeviceId;

use super::{AuditCommand, Failure, output};
use crate::{
    audit::Row,
    installation::Installation,
    store::{PAGE_LEN_MAX, Store, StoreError},
};

pub(super) async fn run(config: &Path, command: AuditCommand) -> Result<(), Failure> {
    let AuditCommand::List { device, after, format } = command;
    let installation = Installation::open(config).await?;
    let store = installation.provisioner.store();
    let rows = all(store, after, device.as_ref()).await?;
    if format.json {
        let events: Vec<serde_json::Value> = rows.iter().map(json_of).collect();
        output::print_json(&json!({ "schema": output::SCHEMA, "events": events }));
    } else {
        let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
        let head = ["NUMBER", "TIME", "EVENT", "DEVICE", "BY", "DETAIL"];
        output::print(&output::table(&head, &rows));
    }
    store.close().await;
    Ok(())
}

async fn all(
    store: &impl Store,
    mut after: u64,
    device: Option<&DeviceId>,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    loop {
        let page = store.audit(after, PAGE_LEN_MAX).await?;
        let is_last = page.len() < PAGE_LEN_MAX as usize;
        after = page.last().map_or(after, |row| row.number);
        let wanted = |row: &Row| device.is_none_or(|id| row.entry.device.as_ref() == Some(id));
        rows.extend(page.into_iter().filter(wanted));
        if is_last {
            return Ok(rows);
        }
    }
}

fn row(row: &Row) -> Vec<String> {
    let entry = &row.entry;
    let device = entry.device.as_ref().map_or("-", |device| device.as_str());
    let serial = entry.serial.map(|serial| format!("{serial} ")).unwrap_or_default();
    vec![
        row.number.to_string(),
        entry.at.to_string(),
        entry.event.code().to_owned(),
        device.to_owned(),
        entry.actor.to_string(),
        format!("{serial}{}", entry.detail.escape_default()),
    ]
}

fn json_of(row: &Row) -> serde_json::Value {
    let entry = &row.entry;
    json!({
        "number": row.number,
        "at": entry.at.to_string(),
        "event": entry.event.code(),
        "device": entry.device.as_ref().map(|device| device.as_str()),
        "serial": entry.serial.map(|serial| serial.to_string()),
        "actor": entry.actor.to_string(),
        "detail": entry.detail,
    })
}
