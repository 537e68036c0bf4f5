//! The command line.
//!
//! **What it is.** Each command reads the configuration, does one thing, and ends with an exit code
//! that a script can rely on ([`Exit`]). What it found goes to standard output, what went wrong to
//! standard error: what happened, and what to do about it.
//!
//! **What it must never do.** Take a secret as an argument, or write to a state directory that a
//! running agent owns: it asks that agent instead.

mod args;
mod error;
mod inspect;
mod life;
mod look;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::config::Config;
use crate::logger;

pub use args::Arguments;
pub use error::{CliError, Exit};

use args::Command;

/// Does what the arguments say, and gives the exit code.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // Whoever asked for help may have stopped reading.
            let _unread = error.print();
            return exit.into();
        }
    };
    logger::install(arguments.log_level);
    match perform(&arguments) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let told = format!("fleetcert-agent: {error}\n  to do: {}\n", error.advice());
            let _unread = io::stderr().lock().write_all(told.as_bytes());
            error.exit().into()
        }
    }
}

fn perform(arguments: &Arguments) -> Result<Exit, CliError> {
    if let Command::Completions { shell } = arguments.command {
        let mut script = Vec::new();
        let mut command = Arguments::command();
        clap_complete::generate(shell, &mut command, "fleetcert-agent", &mut script);
        return say(&String::from_utf8_lossy(&script));
    }
    let config = Config::read(&arguments.config).map_err(CliError::Config)?;
    match &arguments.command {
        Command::Completions { .. } => Ok(Exit::Ok),
        Command::Decommission { yes } => life::decommission(config, *yes),
        Command::Enroll { wait } => life::enroll(config, *wait),
        Command::Inspect { json, pem } => inspect::inspect(&config, *json, *pem),
        Command::Publish { topic, payload } => look::publish(&config, topic, payload),
        Command::Renew => life::renew(config),
        Command::Run => life::run(config),
        Command::Status { json } => look::status(&config, *json),
        Command::Wipe { yes } => life::wipe(&config, *yes),
    }
}

/// Writes to standard output; a reader that has gone away is no failure of ours.
fn say(text: &str) -> Result<Exit, CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(Exit::Ok),
    }
}

#[cfg(test)]
mod tests;
