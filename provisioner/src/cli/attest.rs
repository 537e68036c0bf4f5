//! `attest …`: whose TPMs are believed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{AttestCommand, EkRootsCommand, Failure, Format, output};
use crate::{
    attest::root::{self, EkRoot},
    clock::{Clock, SystemClock},
    enroll::RootsAdded,
    installation::Installation,
    store::{Scope, Store, StoreError, StoredRoot, TpmScope},
};

pub(super) async fn run(config: &Path, command: AttestCommand) -> Result<(), Failure> {
    let AttestCommand::EkRoots(command) = command;
    let installation = Installation::open(config).await?;
    let (now, operator) = (SystemClock.wall(), output::operator());
    let provisioner = &installation.provisioner;
    match command {
        EkRootsCommand::Add { paths } => {
            let added = provisioner.add_ek_roots(read(&paths)?, &operator, now).await?;
            output::print(&added_text(added));
        }
        EkRootsCommand::List(format) => list(provisioner.store(), format).await?,
        EkRootsCommand::Remove { fingerprint } => {
            provisioner.remove_ek_root(fingerprint, &operator, now).await?;
            output::print(&format!(
                "{fingerprint} removed; devices that are bound to TPMs of its makers stay bound\n"
            ));
        }
    }
    provisioner.store().close().await;
    Ok(())
}

/// Everything in all files and folders, each root once.
fn read(paths: &[PathBuf]) -> Result<Vec<EkRoot>, Failure> {
    let mut roots: Vec<EkRoot> = Vec::new();
    for path in paths {
        for root in root::read(path)? {
            if roots.iter().all(|known| known.id() != root.id()) {
                roots.push(root);
            }
        }
    }
    Ok(roots)
}

fn added_text(RootsAdded { added, known }: RootsAdded) -> String {
    format!("{added} added, {known} trusted already\n")
}

async fn list(store: &impl Store, format: Format) -> Result<(), Failure> {
    let scope = Scope::of_tpm(TpmScope { roots: true, ..TpmScope::default() });
    let stored = store.view(scope).await?.tpm.roots.roots;
    let mut roots = Vec::with_capacity(stored.len());
    for row in &stored {
        let root = EkRoot::parse(&row.der);
        roots.push((row, root.map_err(|_| StoreError::Corrupt { place: "ek_root.der" })?));
    }
    if format.json {
        let roots: Vec<Value> = roots.iter().map(|(row, root)| json_of(row, root)).collect();
        output::print_json(&json!({ "schema": output::SCHEMA, "ekRoots": roots }));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = roots.iter().map(|(row, root)| row_of(row, root)).collect();
    output::print(&output::table(&["FINGERPRINT", "EXPIRES", "ADDED", "SUBJECT"], &rows));
    Ok(())
}

fn json_of(row: &StoredRoot, root: &EkRoot) -> Value {
    let validity = root.validity();
    json!({
        "fingerprint": root.id().to_string(),
        "subject": root.subject(),
        "notBefore": validity.not_before.to_string(),
        "notAfter": validity.not_after.to_string(),
        "addedAt": row.added_at.to_string(),
    })
}

fn row_of(row: &StoredRoot, root: &EkRoot) -> Vec<String> {
    vec![
        root.id().to_string(),
        root.validity().not_after.to_string(),
        row.added_at.to_string(),
        root.subject().to_owned(),
    ]
}
