//! `fleetcert-agent`; see the library for everything.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetcert_agent::cli::main(std::env::args_os())
}
