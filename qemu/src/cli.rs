//! The command line: what to run, how to report it, and how Ctrl-C ends it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use async_signal::{Signal, Signals};
use clap::{Args, Parser, Subcommand};
use futures_lite::{StreamExt, future};

use crate::device::Model;
use crate::error::RigError;
use crate::machine::Board;
use crate::programs::{self, Programs};
use crate::timeline::Timeline;
use crate::wait::Stop;
use crate::{demo, firmware, fleet};

/// Seconds of a certificate's life in the stories of boards: renewals are ordered there, not waited
/// for.
const LIFETIME_S: u32 = 3_600;

/// Starts a fleet on this machine, breaks it, and says what happened.
#[derive(Debug, Parser)]
#[command(name = "fleetcert-rig", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Enrolls an agent, renews it under traffic, takes the provisioner away, kills the agent.
    Demo {
        #[command(flatten)]
        manner: Manner,
    },
    /// Boots the firmware of a board in an emulator, enrolls it, renews it, and cuts its power.
    #[command(after_help = FIRMWARE_HELP)]
    Firmware {
        #[command(flatten)]
        flashed: Flashed,
        /// How often the power is cut, in enrollment, in renewals and whenever.
        #[arg(long, value_name = "N", default_value_t = 5)]
        reboots: u32,
        /// How often the device renews, at least.
        #[arg(long, value_name = "N", default_value_t = 3)]
        renewals: u32,
        /// What the moments of the cuts are drawn from.
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
        #[command(flatten)]
        manner: Manner,
    },
    /// Boots several boards at once against one provisioner and one broker.
    Fleet {
        #[command(flatten)]
        flashed: Flashed,
        /// How many devices.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        devices: u32,
        /// How often each of them renews, at least.
        #[arg(long, value_name = "N", default_value_t = 1)]
        renewals: u32,
        #[command(flatten)]
        manner: Manner,
    },
}

/// What a board runs.
#[derive(Debug, Args)]
struct Flashed {
    /// The board.
    #[arg(long, value_name = "BOARD")]
    board: Board,
    /// This firmware instead of one that is built from the sources.
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
}

/// How to report, and how to end.
#[derive(Clone, Copy, Debug, Args)]
struct Manner {
    /// End with one line of JSON on the standard output.
    #[arg(long)]
    json: bool,
    /// Leave everything running at the end, to look around, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

/// What it needs, and what a failure looks like.
const FIRMWARE_HELP: &str = "\
It needs QEMU, mosquitto with its clients, openssl and, for a board with a TPM, swtpm: `qemu/setup
firmware` installs them. It builds the firmware and, where that is missing, the provisioner. The
timeline goes to the standard error stream. A claim that does not hold ends it with exit code 1, the
claim, and the last lines of the serial line.";

/// What a story has to say at its end, to machines and to people.
struct Ending {
    json: String,
    table: String,
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let task = Arguments::parse().command;
    let json = task.manner().json;
    let stop = Stop::default();
    let outcome = watch_signals(stop.clone())
        .map_err(|source| RigError::Io { path: "signals".into(), source })
        .and_then(|()| task.run(&stop, &Timeline::to_stderr()));
    match outcome {
        Ok(Ending { json: line, table }) => {
            let text = if json { line } else { table };
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "fleetcert-rig: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    const fn manner(&self) -> Manner {
        match self {
            Self::Demo { manner } | Self::Firmware { manner, .. } | Self::Fleet { manner, .. } => {
                *manner
            }
        }
    }

    fn run(self, stop: &Stop, timeline: &Timeline) -> Result<Ending, RigError> {
        let keep = self.manner().keep;
        let lifetime_s = LIFETIME_S;
        match self {
            Self::Demo { .. } => {
                let report = demo::run(stop, timeline, keep)?;
                Ok(Ending { json: report.json(), table: report.table() })
            }
            Self::Firmware { flashed, reboots, renewals, seed, .. } => {
                let (model, programs) = flashed.prepare(timeline)?;
                let plan = firmware::Plan { model, renewals, reboots, seed, lifetime_s };
                let life = firmware::run(&plan, &programs, (stop, timeline), keep)?;
                Ok(Ending { json: life.json(), table: life.table() })
            }
            Self::Fleet { flashed, devices, renewals, .. } => {
                let (model, programs) = flashed.prepare(timeline)?;
                let plan = fleet::Plan { model, devices, renewals, lifetime_s };
                let summary = fleet::run(&plan, &programs, (stop, timeline), keep)?;
                Ok(Ending { json: summary.json(), table: summary.table() })
            }
        }
    }
}

impl Flashed {
    /// Builds what is not there: the firmware, unless it is given, and the provisioner.
    fn prepare(self, timeline: &Timeline) -> Result<(Model, Programs), RigError> {
        let Self { board, elf } = self;
        let programs = Programs::beside_ourselves()?;
        if !programs.has_provisioner() {
            timeline.note("rig", "builds the provisioner");
            programs.build_provisioner()?;
        }
        let firmware = match elf {
            Some(file) => file,
            None => {
                timeline.note("rig", "builds the firmware");
                programs::build_firmware(board)?
            }
        };
        Ok((Model { board, firmware }, programs))
    }
}

/// Ctrl-C and the polite signals end every wait; the guards then clean up as after any error.
fn watch_signals(stop: Stop) -> io::Result<()> {
    let mut signals = Signals::new([Signal::Hup, Signal::Int, Signal::Term])?;
    thread::spawn(move || {
        future::block_on(signals.next());
        stop.request();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &str) -> Result<Task, clap::Error> {
        let words = std::iter::once("fleetcert-rig").chain(arguments.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| arguments.command)
    }

    /// Goal: the command line has no clashing or impossible arguments.
    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Goal: what other programs call is understood as documented.
    #[test]
    fn documented_commands_are_understood() {
        let task = parse("firmware --board riscv32-virt --renewals 3 --reboots 20 --json").unwrap();
        assert!(task.manner().json && !task.manner().keep);
        let Task::Firmware { flashed, reboots: 20, renewals: 3, seed: 1, .. } = task else {
            panic!("{task:?}")
        };
        assert_eq!((flashed.board, flashed.elf), (Board::Riscv32Virt, None));
        let fleet = parse("fleet --board mps2-an386 --devices 4 --elf x --keep").unwrap();
        assert!(matches!(fleet, Task::Fleet { devices: 4, renewals: 1, .. }));
        assert!(matches!(parse("demo --json").unwrap(), Task::Demo { .. }));
    }

    /// Goal: a board that is not there, and a fleet of none, are refused.
    #[test]
    fn what_cannot_be_is_refused() {
        assert!(parse("firmware --board esp32").is_err());
        assert!(parse("fleet --board mps2-an386 --devices 0").is_err());
        assert!(parse("fleet --board mps2-an386").is_err());
    }
}
