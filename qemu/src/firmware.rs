//! The story of one board: it enrolls, renews and is heard, and the power fails at random moments.
//!
//! Whatever is not as claimed ends the run with an error and the last words of the serial line; a
//! [`Life`] therefore is a list of claims that held.
//!
//! **Where the power fails.** The first quarter of the cuts come at moments drawn between 0.1 and at
//! last 1.2 seconds after power: into the start of a board that has no identity, its first key, its
//! enrollment. Of the others, as many as renewals are asked for come in the midst of one: the board is
//! told to renew, says that it asks for a certificate, and loses its power up to 0.3 seconds later.
//! The rest come between 0.1 and 4 seconds after power, into whatever is done then. All moments follow
//! from the seed; what the board is doing then does not, because emulators run in real time.

use std::slice::from_mut;

use serde_json::{Value, json};

use crate::account::Account;
use crate::bench::Bench;
use crate::device::{Device, Model};
use crate::dice::Dice;
use crate::elf::Footprint;
use crate::error::RigError;
use crate::machine::{Board, Conditions};
use crate::programs::Programs;
use crate::report;
use crate::serial::Boot;
use crate::timeline::Timeline;
use crate::wait::Stop;
use crate::workplace::Workplace;

/// The device of the story.
const DEVICE_ID: &str = "pump-7";

/// No cut comes earlier after power: the emulator itself has to start.
const CUT_MS_MIN: u64 = 100;

/// A board has enrolled by then, which takes a little less than a second on a quiet machine.
const CUT_EARLY_MS_MAX: u64 = 1_200;

/// A board is at rest by then, with a session and a message told.
const CUT_MS_MAX: u64 = 4_000;

/// A renewal is over by then, which takes about 200 ms on a quiet machine.
const CUT_IN_RENEWAL_MS_MAX: u64 = 300;

/// From power to messages that flow, the first enrollment included, and a renewal: seconds on a
/// quiet machine, and a device that was cut off in the midst of something may have to wait.
const ACTIVE_WAIT_MS_MAX: u64 = 120_000;

/// Instructions are counted at a tenth of the usual speed.
const COUNTED_WAIT_MS_MAX: u64 = 240_000;

/// Messages that show that traffic flows.
const FLOWING_MESSAGES: usize = 3;

/// What is to happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The board and what it runs.
    pub model: Model,
    /// Renewals, at least.
    pub renewals: u32,
    /// Power cuts.
    pub reboots: u32,
    /// What the moments of the cuts are drawn from.
    pub seed: u64,
    /// How long a certificate lives, seconds. The board renews by itself after two thirds of it.
    pub lifetime_s: u32,
}

/// What a life that went as claimed has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The board.
    pub board: Board,
    /// Power cuts.
    pub reboots: u32,
    /// What became of the device.
    pub account: Account,
    /// What the firmware takes of the board's memory.
    pub footprint: Footprint,
    /// The fewest instructions of a TLS handshake.
    pub handshake_instructions: u64,
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
) -> Result<Life, RigError> {
    let footprint = Footprint::of(&plan.model.firmware)?;
    let place = Workplace::new()?;
    timeline.chapter("setting the stage");
    let model = plan.model.clone();
    let mut bench = Bench::install(programs, model, plan.lifetime_s, &place, (stop, timeline))?;
    bench.serve()?;
    let mut device = bench.make(DEVICE_ID)?;
    timeline.note("rig", &format!("moments drawn from seed {}", plan.seed));
    let mut story = Story { bench: &mut bench, device: &mut device, dice: Dice::seeded(plan.seed) };
    let cuts_before = plan.reboots.div_ceil(4);
    story.enroll_under_cuts(cuts_before)?;
    story.live_under_cuts(plan.reboots - cuts_before, plan.renewals)?;
    story.renew_in_peace(plan.renewals)?;
    let handshake_instructions = story.count_instructions()?;
    let account = bench.settle(from_mut(&mut device), plan.renewals)?;
    bench.end(from_mut(&mut device), keep)?;
    let (board, reboots) = (plan.model.board, plan.reboots);
    Ok(Life { board, reboots, account, footprint, handshake_instructions })
}

/// A device, the side of the fleet, and what the moments are drawn from.
struct Story<'a, 'b> {
    bench: &'a mut Bench<'b>,
    device: &'a mut Device,
    dice: Dice,
}

impl Story<'_, '_> {
    fn enroll_under_cuts(&mut self, cuts: u32) -> Result<(), RigError> {
        self.chapter("a new board enrolls; the power fails meanwhile");
        for cut in 1..=u64::from(cuts) {
            // Later and later: a cut that comes too late leaves nothing for those behind it.
            self.cut_within(CUT_EARLY_MS_MAX * cut / u64::from(cuts))?;
        }
        self.await_active()?;
        self.note("enrolled; messages flow");
        Ok(())
    }

    fn live_under_cuts(&mut self, cuts: u32, renewals: u32) -> Result<(), RigError> {
        self.chapter("the power fails in renewals, and whenever");
        for cut in 0..cuts {
            if is_in_renewal(cut, cuts, renewals) {
                self.cut_in_renewal()?;
            } else {
                self.cut_within(CUT_MS_MAX)?;
            }
        }
        self.await_active()?;
        self.note("the power is back; messages flow");
        Ok(())
    }

    fn renew_in_peace(&mut self, renewals: u32) -> Result<(), RigError> {
        self.chapter("the board renews undisturbed, and is heard");
        while self.bench.account(self.device)?.renewals < u64::from(renewals) {
            self.bench.renew_all(from_mut(self.device), ACTIVE_WAIT_MS_MAX)?;
            self.note("renewed");
        }
        self.await_messages(FLOWING_MESSAGES, ACTIVE_WAIT_MS_MAX)
    }

    /// The fewest instructions of a handshake, in a boot of its own: counting makes everything
    /// slower. A renewal brings three handshakes more to choose from.
    fn count_instructions(&mut self) -> Result<u64, RigError> {
        self.chapter("the instructions of a TLS handshake are counted");
        let newest = self.bench.servers.provisioner.history(self.device.id())?.serial;
        self.device.cut_power()?;
        let counting = Conditions { counts_instructions: true, ..Conditions::default() };
        self.device.power_on_under(counting, self.bench.stop())?;
        self.await_messages(1, COUNTED_WAIT_MS_MAX)?;
        self.check_identity(newest.as_deref())?;
        self.bench.renew_all(from_mut(self.device), COUNTED_WAIT_MS_MAX)?;
        let fewest = self.device.boot().handshakes.values().copied().min();
        let fewest = fewest.ok_or_else(|| {
            self.device.blame(RigError::Claim {
                claim: "the firmware says how many instructions a handshake takes",
                found: "it did not".to_owned(),
            })
        })?;
        self.device.cut_power()?;
        self.note(&format!("{fewest} instructions"));
        Ok(fewest)
    }

    /// After all that has happened, the board is who the provisioner takes it for.
    fn check_identity(&self, newest: Option<&str>) -> Result<(), RigError> {
        let number = |serial: &str| serial.trim_start_matches('0').to_owned();
        let found = self.device.boot().identity.clone().flatten();
        if found.as_deref().map(number) == newest.map(number) {
            return Ok(());
        }
        Err(self.device.blame(RigError::Claim {
            claim: "a board finds the identity that was issued last",
            found: format!("issued {newest:?}, found {found:?}"),
        }))
    }

    /// Power, and a cut at a random moment after it.
    fn cut_within(&mut self, ms_max: u64) -> Result<(), RigError> {
        self.bench.power_on(self.device)?;
        let ms = self.dice.between(CUT_MS_MIN, ms_max.max(CUT_MS_MIN));
        self.cut_after(ms, "power")
    }

    /// A board that asks for its next certificate, and a cut at a random moment after that.
    fn cut_in_renewal(&mut self) -> Result<(), RigError> {
        self.await_active()?;
        self.bench.begin_renewals(from_mut(self.device), ACTIVE_WAIT_MS_MAX)?;
        let ms = self.dice.between(0, CUT_IN_RENEWAL_MS_MAX);
        self.cut_after(ms, "it asked for a certificate")
    }

    fn cut_after(&mut self, ms: u64, what: &str) -> Result<(), RigError> {
        self.bench.let_pass(from_mut(self.device), ms)?;
        self.device.cut_power()?;
        let last = self.device.boots().last().and_then(Boot::last_event);
        let last = last.map_or("nothing yet", |event| event.name.as_str());
        self.note(&format!("power cut {ms} ms after {what}; last event: {last}"));
        Ok(())
    }

    fn await_active(&mut self) -> Result<(), RigError> {
        self.bench.power_on(self.device)?;
        self.await_messages(1, ACTIVE_WAIT_MS_MAX)
    }

    fn await_messages(&mut self, count: usize, limit_ms: u64) -> Result<(), RigError> {
        self.bench.until_heard(from_mut(self.device), count, limit_ms)
    }

    fn chapter(&self, title: &str) {
        self.bench.timeline().chapter(title);
    }

    fn note(&self, what: &str) {
        self.bench.timeline().note(self.device.id(), what);
    }
}

/// Whether cut number `cut` of `cuts` is one of the `renewals` that are spread evenly over them.
fn is_in_renewal(cut: u32, cuts: u32, renewals: u32) -> bool {
    let before = |cut: u32| u64::from(cut) * u64::from(renewals.min(cuts)) / u64::from(cuts);
    before(cut + 1) > before(cut)
}

impl Life {
    /// One line for machines. Only a life that held all its claims comes this far.
    #[must_use]
    pub fn json(&self) -> String {
        report::line(&self.fields())
    }

    /// The same for people.
    #[must_use]
    pub fn table(&self) -> String {
        let account = &self.account;
        report::table(&[
            ("board", self.board.name().to_owned()),
            ("keys in", account.key_backend().to_owned()),
            ("attested", report::yes_or_no(account.attested)),
            ("power cuts", self.reboots.to_string()),
            ("enrollments", account.enrollments.to_string()),
            ("renewals", account.renewals.to_string()),
            ("identities lost", account.identities_lost.to_string()),
            ("messages acknowledged", account.published.to_string()),
            ("messages received", account.received.to_string()),
            ("flash", format!("{} octets", self.footprint.flash_len)),
            ("RAM without stack", format!("{} octets", self.footprint.ram_len)),
            ("stack at its peak", format!("{} octets", account.stack_peak_len)),
            ("a TLS handshake", format!("{} instructions", self.handshake_instructions)),
        ])
    }

    fn fields(&self) -> [(&'static str, Value); 14] {
        let Self { board, reboots, account, footprint, handshake_instructions } = self;
        [
            ("schema", json!(report::SCHEMA)),
            ("board", json!(board.name())),
            ("key_backend", json!(account.key_backend())),
            ("attested", json!(account.attested)),
            ("enrollments", json!(account.enrollments)),
            ("renewals", json!(account.renewals)),
            ("reboots", json!(reboots)),
            ("identity_lost", json!(account.identities_lost)),
            ("messages_published", json!(account.published)),
            ("messages_received", json!(account.received)),
            ("flash_bytes", json!(footprint.flash_len)),
            ("ram_static_bytes", json!(footprint.ram_len)),
            ("stack_peak_bytes", json!(account.stack_peak_len)),
            ("handshake_instructions", json!(handshake_instructions)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn life() -> Life {
        let account = Account {
            key_backends: BTreeSet::from(["tpm".to_owned()]),
            attested: true,
            enrollments: 1,
            renewals: 4,
            identities_lost: 0,
            published: 40,
            received: 41,
            missing: 0,
            stack_peak_len: 20_480,
        };
        Life {
            board: Board::Riscv32Virt,
            reboots: 20,
            account,
            footprint: Footprint { flash_len: 200_000, ram_len: 30_000 },
            handshake_instructions: 38_123_456,
        }
    }

    /// Goal: the line that other programs read keeps its fields, their order and their form.
    #[test]
    fn the_json_line_keeps_its_schema() {
        assert_eq!(
            life().json(),
            "{\"schema\":1,\"board\":\"riscv32-virt\",\"key_backend\":\"tpm\",\"attested\":true,\
             \"enrollments\":1,\"renewals\":4,\"reboots\":20,\"identity_lost\":0,\
             \"messages_published\":40,\"messages_received\":41,\"flash_bytes\":200000,\
             \"ram_static_bytes\":30000,\"stack_peak_bytes\":20480,\
             \"handshake_instructions\":38123456}"
        );
    }

    /// Goal: every number of the line stands in the table, too.
    #[test]
    fn the_table_shows_the_numbers() {
        let table = life().table();
        for text in ["riscv32-virt", "tpm", "yes", "200000 octets", "38123456 instructions"] {
            assert!(table.contains(text), "{text} in\n{table}");
        }
    }

    /// Goal: as many cuts come in renewals as there are renewals, or all; none crowds the others.
    #[test]
    fn renewals_are_spread_over_the_cuts() {
        for (cuts, renewals, expected) in [(15, 3, 3), (4, 9, 4), (7, 0, 0), (1, 1, 1)] {
            let found = (0..cuts).filter(|cut| is_in_renewal(*cut, cuts, renewals)).count();
            assert_eq!(found, expected, "{renewals} of {cuts}");
        }
        let spread: Vec<u32> = (0..15).filter(|cut| is_in_renewal(*cut, 15, 3)).collect();
        assert_eq!(spread, [4, 9, 14]);
    }
}
