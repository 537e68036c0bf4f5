//! The rig's command line; everything else is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use fleetcert_rig::{cli, leftovers};

fn main() -> ExitCode {
    leftovers::sweep_on_panic();
    cli::run()
}
