//! The command line: what to run, how to report it, and how Ctrl-C ends it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use async_signal::{Signal, Signals};
use clap::{Parser, Subcommand};
use futures_lite::{StreamExt, future};

use crate::demo;
use crate::error::RigError;
use crate::timeline::Timeline;
use crate::wait::Stop;

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
        /// End with one line of JSON on the standard output.
        #[arg(long)]
        json: bool,
        /// Leave everything running at the end, to look around, until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let Task::Demo { json, keep } = Arguments::parse().command;
    let stop = Stop::default();
    let outcome = watch_signals(stop.clone())
        .map_err(|source| RigError::Io { path: "signals".into(), source })
        .and_then(|()| demo::run(&stop, &Timeline::to_stderr(), keep));
    match outcome {
        Ok(report) => {
            let text = if json { report.json() } else { report.table() };
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "fleetcert-rig: {error}");
            ExitCode::FAILURE
        }
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
