//! `crl …`: the revocation list of the device tree.

use std::path::Path;

use serde_json::json;

use super::{CrlCommand, Failure, output};
use crate::{
    authority::Crl,
    clock::{Clock, SystemClock},
    files,
    installation::Installation,
    pem,
};

pub(super) async fn run(config: &Path, command: CrlCommand) -> Result<(), Failure> {
    let installation = Installation::open(config).await?;
    let (provisioner, now) = (&installation.provisioner, SystemClock.wall());
    match command {
        CrlCommand::Show(format) => {
            let crl = provisioner.crl(now, false).await?;
            if format.json {
                output::print_json(&json_of(&crl))
            } else {
                output::print(&text(&crl))
            }
        }
        CrlCommand::Write { out, der, renew } => {
            let crl = provisioner.crl(now, renew).await?;
            let octets = if der { crl.der.clone() } else { pem::crl(&crl.der).into_bytes() };
            files::replace(&out, &octets, files::PUBLIC)?;
            output::print(&text(&crl));
        }
    }
    provisioner.store().close().await;
    Ok(())
}

fn text(crl: &Crl) -> String {
    let (made, due, end) = (crl.this_update, crl.due_at(), crl.next_update);
    format!(
        "list {} of authority {}, made {}, next one due {}, no longer good after {}\n",
        crl.number, crl.issuer, made, due, end
    )
}

fn json_of(crl: &Crl) -> serde_json::Value {
    json!({
        "schema": output::SCHEMA,
        "issuer": crl.issuer.to_string(),
        "number": crl.number,
        "thisUpdate": crl.this_update.to_string(),
        "dueAt": crl.due_at().to_string(),
        "nextUpdate": crl.next_update.to_string(),
    })
}
