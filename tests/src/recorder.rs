//! Where the entries of a run go: into the hash, the tally, the checkers, and perhaps to a reader.

use std::fmt;

use serde::Serialize;

use crate::check::active_key::ActiveKey;
use crate::check::healthy::Healthy;
use crate::check::late_renewal::LateRenewal;
use crate::check::named_slot::NamedSlot;
use crate::check::one_certificate::OneCertificate;
use crate::check::one_enrollment::OneEnrollment;
use crate::check::peak::{Busiest, Peak};
use crate::check::progress::Progress;
use crate::check::record_kept::RecordKept;
use crate::check::revoked::Revoked;
use crate::check::stale_answer::StaleAnswer;
use crate::check::wall_time::WallTime;
use crate::check::{Check, Violation};
use crate::event_log::{Entry, Fact, Report, TraceHash};
use crate::sim::clock::At;

/// Violations that are kept; a broken rule tends to break often.
const VIOLATIONS_MAX: usize = 50;

/// Sees every entry as it happens.
pub type Reader = Box<dyn FnMut(&Entry)>;

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Devices made.
    pub made: u64,
    /// Times that power failed.
    pub power_cuts: u64,
    /// Of these in the middle of an action.
    pub power_cuts_in_actions: u64,
    /// Copies of records that were damaged.
    pub copies_damaged: u64,
    /// Boots that could read one copy only.
    pub boots_from_one_copy: u64,
    /// Keys that faults took.
    pub keys_lost: u64,
    /// Messages lost or late.
    pub messages_lost: u64,
    /// Late and doubled answers that were handed to the machine.
    pub stale_answers: u64,
    /// Consultations answered, or not.
    pub consultations: u64,
    /// Times that a certificate was asked for.
    pub requests_sent: u64,
    /// Requests that the provisioner refused, of any kind.
    pub refused: u64,
    /// Answers that an operator has to approve.
    pub pending: u64,
    /// Approvals.
    pub approved: u64,
    /// Tokens handed out to replace a spent one.
    pub tokens_given: u64,
    /// New identities proven and taken into use.
    pub proven: u64,
    /// New identities given up.
    pub discarded: u64,
    /// Identities that ran out.
    pub expired: u64,
    /// Devices revoked.
    pub revoked: u64,
    /// Devices that noticed.
    pub quarantined: u64,
    /// Devices that ended their life.
    pub decommissioned: u64,
    /// Broker connections.
    pub connected: u64,
}

/// The rules, each once.
#[derive(Debug, Default)]
struct Rules {
    active_key: ActiveKey,
    healthy: Healthy,
    late_renewal: LateRenewal,
    named_slot: NamedSlot,
    one_certificate: OneCertificate,
    one_enrollment: OneEnrollment,
    peak: Peak,
    progress: Progress,
    record_kept: RecordKept,
    revoked: Revoked,
    stale_answer: StaleAnswer,
    wall_time: WallTime,
}

/// Takes the entries of a run.
#[derive(Default)]
pub struct Recorder {
    hash: TraceHash,
    tally: Tally,
    rules: Rules,
    violations: Vec<Violation>,
    violated: u64,
    reader: Option<Reader>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("tally", &self.tally).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder that also shows every entry to `reader`.
    #[must_use]
    pub fn with_reader(reader: Reader) -> Self {
        Self { reader: Some(reader), ..Self::default() }
    }

    /// Something happened.
    pub fn see(&mut self, at: At, device: Option<u32>, fact: Fact) {
        let entry = Entry { at, device, fact };
        self.hash.see(&entry);
        self.tally.see(&fact);
        if let Some(reader) = &mut self.reader {
            reader(&entry);
        }
        let Self { rules, violations, violated, .. } = self;
        rules.each(&mut Judge { entry: &entry, violations, violated });
    }

    /// The run is over.
    pub fn end(&mut self, at: At) {
        let Self { rules, violations, violated, .. } = self;
        if let Err((at, why)) = rules.peak.end(at) {
            *violated += 1;
            violations.push(Violation { rule: Peak::NAME, at, device: None, why });
        }
    }

    /// Whether a device spins in one instant.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.rules.progress.stuck
    }

    /// How often rules were broken.
    #[must_use]
    pub const fn violated(&self) -> u64 {
        self.violated
    }

    /// The first of the violations.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often things happened.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many certificates were issued.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.rules.peak.issued
    }

    /// The busiest window of a run until `end`.
    #[must_use]
    pub fn busiest(&self, end: At) -> Option<Busiest> {
        self.rules.peak.busiest(end)
    }

    /// How many entries there were.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.hash.entries
    }

    /// The trace hash, in hexadecimal.
    #[must_use]
    pub fn trace_hash(&self) -> String {
        self.hash.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

struct Judge<'a> {
    entry: &'a Entry,
    violations: &'a mut Vec<Violation>,
    violated: &'a mut u64,
}

impl Judge<'_> {
    fn ask<C: Check>(&mut self, rule: &mut C) {
        if let Err(why) = rule.see(self.entry) {
            *self.violated += 1;
            if self.violations.len() < VIOLATIONS_MAX {
                let Entry { at, device, .. } = *self.entry;
                self.violations.push(Violation { rule: C::NAME, at, device, why });
            }
        }
    }
}

impl Rules {
    fn each(&mut self, judge: &mut Judge<'_>) {
        judge.ask(&mut self.active_key);
        judge.ask(&mut self.healthy);
        judge.ask(&mut self.late_renewal);
        judge.ask(&mut self.named_slot);
        judge.ask(&mut self.one_certificate);
        judge.ask(&mut self.one_enrollment);
        judge.ask(&mut self.peak);
        judge.ask(&mut self.progress);
        judge.ask(&mut self.record_kept);
        judge.ask(&mut self.revoked);
        judge.ask(&mut self.stale_answer);
        judge.ask(&mut self.wall_time);
    }
}

impl Tally {
    fn see(&mut self, fact: &Fact) {
        match fact {
            Fact::Acted { doing, .. } => {
                self.consultations += u64::from(doing.0.code() == "consult");
            }
            Fact::Approved => self.approved += 1,
            Fact::Booted { readable, .. } => self.boots_from_one_copy += u64::from(*readable == 1),
            Fact::Connected { .. } => self.connected += 1,
            Fact::CopyDamaged => self.copies_damaged += 1,
            Fact::KeyLost { .. } => self.keys_lost += 1,
            Fact::Made => self.made += 1,
            Fact::MessageLost => self.messages_lost += 1,
            Fact::Pending => self.pending += 1,
            Fact::PowerCut { during } => {
                self.power_cuts += 1;
                self.power_cuts_in_actions += u64::from(during.is_some());
            }
            Fact::Refused { .. } => self.refused += 1,
            Fact::Reported { report, .. } => self.reported(*report),
            Fact::Revoked => self.revoked += 1,
            Fact::Sent { .. } => self.requests_sent += 1,
            Fact::Stale { .. } => self.stale_answers += 1,
            Fact::TokenGiven => self.tokens_given += 1,
            _ => {}
        }
    }

    const fn reported(&mut self, report: Report) {
        match report {
            Report::CandidateDiscarded => self.discarded += 1,
            Report::Decommissioned => self.decommissioned += 1,
            Report::Expired => self.expired += 1,
            Report::Proven => self.proven += 1,
            Report::Quarantined => self.quarantined += 1,
            _ => {}
        }
    }
}
