//! `crl …`: the revocation list of the device tree.

use std::path::Path;

use serde_json::json;

use super::{CrlCommand, Failure, output};
use crate::{
    authority::Crl,
    clock::{Clock, SystemClock, rfc3339},
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
        crl.number,
        crl.issuer,
        rfc3339(made),
        rfc3339(due),
        rfc3339(end)
    )
}

fn json_of(crl: &Crl) -> serde_json::Value {
    json!({
        "schema": output::SCHEMA,
        "issuer": crl.issuer.to_string(),
        "number": crl.number,
        "thisUpdate": rfc3339(crl.this_update),
        "dueAt": rfc3339(crl.due_at()),
        "nextUpdate": rfc3339(crl.next_update),
    })
}
