//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use log::LevelFilter;

/// Keeps a device's certificate alive and speaks mutual TLS to an MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "fleetcert-agent", version, about, after_help = EXIT_CODES)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, short, global = true, default_value = "/etc/fleetcert/agent.toml")]
    pub config: PathBuf,
    /// How much to log: off, error, warn, info, debug or trace
    #[arg(long, global = true, default_value = "info")]
    pub log_level: LevelFilter,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Shown below the help.
const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 not enrolled, \
                          4 degraded or about to expire, 5 refused by the server, \
                          6 TPM unavailable, 75 try again later.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// End the device's life in the fleet and erase its keys, for good
    Decommission {
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
    /// Get the first certificate, then end
    Enroll {
        /// Wait out failures and pending approvals instead of ending at the first one
        #[arg(long)]
        wait: bool,
    },
    /// Show where the device stands, and the certificate in use
    Inspect {
        /// As JSON
        #[arg(long, conflicts_with = "pem")]
        json: bool,
        /// As PEM only, for other tools
        #[arg(long)]
        pem: bool,
    },
    /// Publish a message through the running agent, and wait for the broker's acknowledgement
    Publish {
        /// Where, below the device's own prefix: data/…
        topic: String,
        /// What, as text
        payload: String,
    },
    /// Renew now, whatever the schedule says
    Renew,
    /// Run as a daemon, until SIGTERM or SIGINT
    Run,
    /// Show where the device stands
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Erase keys and record, so that the device starts over; the provisioner is not told
    Wipe {
        /// Mean it
        #[arg(long)]
        yes: bool,
    },
}
