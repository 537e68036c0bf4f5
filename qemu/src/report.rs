//! Results: a table for people, one line for machines; and the result of a demo.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::traffic::Tally;

/// The schema of every line for machines.
pub const SCHEMA: u32 = 1;

/// One line for machines: an object with these members, in this order.
pub(crate) fn line(members: &[(&str, Value)]) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Lines for people: names to the left, values to the right.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let mut table = String::new();
    for (name, value) in rows {
        // Writing to a String does not fail.
        let _ = writeln!(table, "  {name:<28}{value:>12}");
    }
    table
}

/// A truth, for people.
pub(crate) fn yes_or_no(truth: bool) -> String {
    if truth { "yes" } else { "no" }.to_owned()
}

/// What a demo that went as claimed has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where the device key lives: `software` or `tpm`.
    pub key_backend: String,
    /// Whether the provisioner has seen proof of that.
    pub attested: bool,
    /// Identity switches seen.
    pub renewals: u32,
    /// What was sent.
    pub sent: Tally,
    /// Different messages that the subscriber received.
    pub received: u64,
    /// Messages acknowledged to the sender and never received.
    pub lost: u64,
    /// Copies that the subscriber received beyond the first: QoS 1 allows them.
    pub duplicates: u64,
}

impl Report {
    /// One line for machines. Only a demo that held all its claims comes this far.
    #[must_use]
    pub fn json(&self) -> String {
        line(&[
            ("schema", json!(SCHEMA)),
            ("enrolled", json!(true)),
            ("key_backend", json!(self.key_backend)),
            ("attested", json!(self.attested)),
            ("renewals", json!(self.renewals)),
            ("published", json!(self.sent.acknowledged)),
            ("received", json!(self.received)),
            ("lost", json!(self.lost)),
            ("identity_gap_ms_max", json!(self.sent.wait_ms_max)),
            ("outage_survived", json!(true)),
            ("kill_survived", json!(true)),
        ])
    }

    /// The same for people.
    #[must_use]
    pub fn table(&self) -> String {
        table(&[
            ("device key", self.key_backend.clone()),
            ("attested", yes_or_no(self.attested)),
            ("identity switches", self.renewals.to_string()),
            ("messages published", self.sent.acknowledged.to_string()),
            ("messages received", self.received.to_string()),
            ("messages lost", self.lost.to_string()),
            ("received twice (QoS 1 may)", self.duplicates.to_string()),
            ("attempts repeated", self.sent.repeated.to_string()),
            ("longest wait of a message", format!("{} ms", self.sent.wait_ms_max)),
            ("longest wait over kill -9", format!("{} ms", self.sent.wait_without_agent_ms_max)),
            ("provisioner outage", "survived".to_owned()),
            ("kill -9 during a renewal", "survived".to_owned()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let sent = Tally {
            acknowledged: 900,
            repeated: 4,
            wait_ms_max: 31,
            wait_without_agent_ms_max: 812,
        };
        Report {
            key_backend: "tpm".to_owned(),
            attested: true,
            renewals: 5,
            sent,
            received: 900,
            lost: 0,
            duplicates: 2,
        }
    }

    /// Goal: the line that other programs read keeps its fields, their order and their form.
    #[test]
    fn the_json_line_keeps_its_schema() {
        assert_eq!(
            report().json(),
            "{\"schema\":1,\"enrolled\":true,\"key_backend\":\"tpm\",\"attested\":true,\
             \"renewals\":5,\"published\":900,\"received\":900,\"lost\":0,\"identity_gap_ms_max\":31,\
             \"outage_survived\":true,\"kill_survived\":true}"
        );
    }

    /// Goal: every number of the line stands in the table, too.
    #[test]
    fn the_table_shows_the_numbers() {
        let table = report().table();
        for number in ["tpm", "yes", "900", "31 ms", "812 ms"] {
            assert!(table.contains(number), "{number} in\n{table}");
        }
    }
}
