//! The story of several boards at once: each enrolls, renews and is heard, against one provisioner and
//! one broker.
//!
//! Each device is an emulator of its own with its own flash and TPM. They get power at the same time
//! and are told to renew at the same time: what they share, the servers have to bear.

use serde_json::{Value, json};

use crate::account::Account;
use crate::bench::Bench;
use crate::device::{Device, Model};
use crate::error::RigError;
use crate::machine::Board;
use crate::programs::Programs;
use crate::report;
use crate::timeline::Timeline;
use crate::wait::Stop;
use crate::workplace::Workplace;

/// From power to messages that flow, and for a renewal, for the first device.
const WAIT_MS_MAX: u64 = 120_000;

/// And for each further one, since they share the processors of one machine.
const WAIT_MS_PER_DEVICE: u64 = 10_000;

/// Messages that show that traffic flows.
const FLOWING_MESSAGES: usize = 2;

/// What is to happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The board and what it runs.
    pub model: Model,
    /// How many devices.
    pub devices: u32,
    /// Renewals of each, at least.
    pub renewals: u32,
    /// How long a certificate lives, seconds.
    pub lifetime_s: u32,
}

/// What a fleet that did as claimed has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The board.
    pub board: Board,
    /// How many devices.
    pub devices: u32,
    /// What became of them, together.
    pub account: Account,
}

/// Tells the story, and reports what it has shown. With `keep`, everything keeps running at the end
/// until a stop is requested.
///
/// # Errors
///
/// The first claim that did not hold, or what kept the story from being told.
pub fn run(
    plan: &Plan,
    programs: &Programs,
    (stop, timeline): (&Stop, &Timeline),
    keep: bool,
) -> Result<Summary, RigError> {
    let place = Workplace::new()?;
    timeline.chapter("setting the stage");
    let model = plan.model.clone();
    let mut bench = Bench::install(programs, model, plan.lifetime_s, &place, (stop, timeline))?;
    bench.serve()?;
    let mut devices = make(&bench, plan.devices)?;
    timeline.note("rig", &format!("{} devices made", plan.devices));

    let limit_ms = WAIT_MS_MAX + WAIT_MS_PER_DEVICE * u64::from(plan.devices);
    timeline.chapter("all of them get power, and enroll");
    devices.iter_mut().try_for_each(|device| bench.power_on(device))?;
    bench.until_heard(&mut devices, 1, limit_ms)?;
    timeline.note("rig", "all are heard");
    timeline.chapter("all of them are told to renew");
    for renewal in 1..=plan.renewals {
        bench.renew_all(&mut devices, limit_ms)?;
        timeline.note("rig", &format!("all have renewed: {renewal}"));
    }
    bench.until_heard(&mut devices, FLOWING_MESSAGES, limit_ms)?;
    devices.iter_mut().try_for_each(Device::cut_power)?;
    let account = bench.settle(&mut devices, plan.renewals)?;
    bench.end(&mut devices, keep)?;
    Ok(Summary { board: plan.model.board, devices: plan.devices, account })
}

fn make(bench: &Bench<'_>, devices: u32) -> Result<Vec<Device>, RigError> {
    (1..=devices).map(|number| bench.make(&format!("pump-{number}"))).collect()
}

impl Summary {
    /// One line for machines. Only a fleet that held all its claims comes this far.
    #[must_use]
    pub fn json(&self) -> String {
        report::line(&self.members())
    }

    /// The same for people.
    #[must_use]
    pub fn table(&self) -> String {
        let account = &self.account;
        report::table(&[
            ("board", self.board.name().to_owned()),
            ("devices", self.devices.to_string()),
            ("keys in", account.key_backend().to_owned()),
            ("attested", report::yes_or_no(account.attested)),
            ("enrollments", account.enrollments.to_string()),
            ("renewals", account.renewals.to_string()),
            ("identities lost", account.identities_lost.to_string()),
            ("messages acknowledged", account.published.to_string()),
            ("messages received", account.received.to_string()),
        ])
    }

    fn members(&self) -> [(&'static str, Value); 10] {
        let Self { board, devices, account } = self;
        [
            ("schema", json!(report::SCHEMA)),
            ("board", json!(board.name())),
            ("key_backend", json!(account.key_backend())),
            ("attested", json!(account.attested)),
            ("devices", json!(devices)),
            ("enrollments", json!(account.enrollments)),
            ("renewals", json!(account.renewals)),
            ("identity_lost", json!(account.identities_lost)),
            ("messages_published", json!(account.published)),
            ("messages_received", json!(account.received)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn summary() -> Summary {
        let account = Account {
            key_backends: BTreeSet::from(["software".to_owned()]),
            enrollments: 4,
            renewals: 8,
            published: 30,
            received: 31,
            ..Account::default()
        };
        Summary { board: Board::Mps2An386, devices: 4, account }
    }

    /// Goal: the line that other programs read keeps its fields, their order and their form.
    #[test]
    fn the_json_line_keeps_its_schema() {
        assert_eq!(
            summary().json(),
            "{\"schema\":1,\"board\":\"mps2-an386\",\"key_backend\":\"software\",\"attested\":false,\
             \"devices\":4,\"enrollments\":4,\"renewals\":8,\"identity_lost\":0,\
             \"messages_published\":30,\"messages_received\":31}"
        );
    }

    /// Goal: the table has a line for each of them but the schema.
    #[test]
    fn the_table_shows_the_numbers() {
        let summary = summary();
        assert_eq!(summary.table().lines().count(), summary.members().len() - 1);
    }
}
