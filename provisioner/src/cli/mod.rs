//! The command line: what an operator types, and what the exit code tells a script.
//!
//! **What it is.** The shape of the commands, and one function for each that opens an
//! [`Installation`](crate::installation::Installation), asks the domain, and prints. Every command
//! works beside a running `serve`: they meet in the database.
//!
//! **What it must never do.** Print a secret that was not asked for, or take one as an argument:
//! other users see arguments. The one secret it prints is a new token, whose purpose that is.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use fleetcert_core::device_id::DeviceId;

use crate::{
    attest::{EkId, root::RootId},
    authority::RevocationReason,
    inventory::Name,
};

mod attest;
mod audit;
mod ca;
mod crl;
mod device;
mod failure;
mod import;
mod output;
mod serve;
mod token;
mod tpm;

pub(crate) use self::{
    ca::SERVER_LIFETIME_S,
    failure::Failure,
    output::{operator, print},
};

/// Where a packaged installation keeps its configuration.
const CONFIG_PATH: &str = "/etc/fleetcert/provisioner.toml";

/// Certificate authority and EST server for a fleet of devices.
#[derive(Debug, Parser)]
#[command(name = "fleetcert-provisioner", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = CONFIG_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide whose TPMs are believed
    #[command(subcommand)]
    Attest(AttestCommand),
    /// Read what happened
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Write the configuration of an MQTT broker
    #[command(subcommand)]
    Broker(BrokerCommand),
    /// Look at the authorities, and issue to servers and backends
    #[command(subcommand)]
    Ca(CaCommand),
    /// Look at the revocation list, and publish it
    #[command(subcommand)]
    Crl(CrlCommand),
    /// Enter, import, look at, approve, replace and revoke devices
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Make a new installation: two certificate trees, database, server certificate, configuration
    Init(InitArgs),
    /// Serve devices until SIGTERM or SIGINT
    Serve(ServeArgs),
    /// Make one-time enrollment tokens
    #[command(subcommand)]
    Token(TokenCommand),
}

/// How a reading command answers.
#[derive(Clone, Copy, Debug, Args)]
struct Format {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// What `init` needs to know.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to make; it has to be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The trust domain of spiffe://<DOMAIN>/device/<id>
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) trust_domain: String,
    /// A DNS name or IP address under which devices reach this service; the first one is the
    /// address that they are told
    #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
    pub(crate) names: Vec<String>,
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    pub(crate) listen: SocketAddr,
    /// Seconds of a device certificate's life
    #[arg(long, value_name = "N", default_value_t = crate::init::DEVICE_LIFETIME_S)]
    pub(crate) device_lifetime_s: u64,
    /// Seconds after expiry in which a device still recovers by itself
    #[arg(long, value_name = "N", default_value_t = crate::init::RECOVERY_WINDOW_S)]
    pub(crate) recovery_window_s: u64,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Listen here instead of where the configuration says; port 0 takes any
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Write the address to this file once devices can connect
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// Enter a device that is expected
    Add {
        /// Its id
        #[arg(value_parser = device_id)]
        id: DeviceId,
        /// Its group
        #[arg(long, value_parser = Name::parse, default_value = crate::config::DEFAULT_GROUP)]
        group: Name,
    },
    /// Let the key that waits have a certificate; `device show` shows the evidence that came
    /// with it
    Approve {
        /// The device
        #[arg(value_parser = device_id)]
        id: DeviceId,
        /// Approve only if this is the fingerprint of the key that waits, as `device show` says
        #[arg(long, value_name = "SHA256", value_parser = output::fingerprint)]
        key: Option<crate::authority::KeyFingerprint>,
    },
    /// Enter devices and list the endorsement key (EK) of the TPM in each, all of them or none
    #[command(after_help = IMPORT_HELP)]
    Import {
        /// CSV or JSON lines
        file: PathBuf,
        /// The group of the devices
        #[arg(long, value_parser = Name::parse, default_value = crate::config::DEFAULT_GROUP)]
        group: Name,
    },
    /// List all devices
    List(Format),
    /// Turn down what waits for an operator: a key, and another TPM that came
    Reject {
        /// The device
        #[arg(value_parser = device_id)]
        id: DeviceId,
    },
    /// The hardware of a device was replaced: release its TPM, revoke its certificates as
    /// superseded and expect it to enroll anew. The TPM of a revoked device becomes free for another
    Replace {
        /// The device
        #[arg(value_parser = device_id)]
        id: DeviceId,
        /// The endorsement key of the TPM that alone may take the place, SHA-256 of its
        /// SubjectPublicKeyInfo; without it, any that the group's policy admits
        #[arg(long, value_name = "HASH", value_parser = EkId::parse)]
        ek: Option<EkId>,
    },
    /// Revoke a device and all its certificates
    Revoke {
        /// The device
        #[arg(value_parser = device_id)]
        id: DeviceId,
        /// Why (RFC 5280 §5.3.1)
        #[arg(long, value_parser = reason, default_value = RevocationReason::Unspecified.name())]
        reason: RevocationReason,
    },
    /// Show one device: its certificates, its TPM with evidence and chain, and conflicts
    Show {
        /// The device
        #[arg(value_parser = device_id)]
        id: DeviceId,
        #[command(flatten)]
        format: Format,
    },
}

/// How a list for `device import` looks.
const IMPORT_HELP: &str = "\
A line of CSV is DEVICE,HASH (a first line device_id,ek_sha256 is skipped), a line of JSON is
{\"device_id\": \"gw-1\", \"ek_sha256\": \"...\"}. HASH is the SHA-256 of the endorsement key's
SubjectPublicKeyInfo, 64 hexadecimal digits: of an RSA or EC key in ek.pem,
  openssl pkey -pubin -in ek.pem -outform DER | sha256sum
Importing the same list again changes nothing; a line that contradicts what is known is named, and
then nothing is imported.";

#[derive(Debug, Subcommand)]
enum AttestCommand {
    /// The authorities whose certificates of endorsement keys (EK) are believed: the makers of TPMs
    #[command(subcommand)]
    EkRoots(EkRootsCommand),
}

#[derive(Debug, Subcommand)]
enum EkRootsCommand {
    /// Trust the authorities in these files: PEM or DER, and the *.pem, *.crt, *.cer and *.der of
    /// folders
    Add {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// List the authorities that are trusted
    List(Format),
    /// Trust an authority no longer; what is bound stays bound
    Remove {
        /// SHA-256 of its certificate, as `list` shows it
        #[arg(value_parser = RootId::parse)]
        fingerprint: RootId,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token that lets one device enroll once
    Issue(TokenArgs),
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// The device
    #[arg(value_parser = device_id)]
    id: DeviceId,
    /// Enter the device into this group if it is not known yet
    #[arg(long, value_parser = Name::parse)]
    group: Option<Name>,
    /// The EST label at which it is good; any of the device's group when missing
    #[arg(long, value_parser = Name::parse)]
    label: Option<Name>,
    /// Seconds for which it is good
    #[arg(long, value_name = "N", default_value_t = token::TTL_S)]
    ttl_s: u64,
    /// Write it to this new file, readable by its owner only, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Issue a client certificate for a fleet backend, which may use every device's topics
    IssueBackend {
        /// Its name; the broker knows it as backend.<NAME>
        #[arg(value_parser = Name::parse)]
        name: Name,
        /// The folder for certificate and key; it has to be new or empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seconds of its life
        #[arg(long, value_name = "N", default_value_t = ca::BACKEND_LIFETIME_S)]
        lifetime_s: u64,
    },
    /// Issue a server certificate, for a broker or for this service
    IssueServer {
        /// A DNS name or IP address of the server
        #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
        names: Vec<String>,
        /// The folder for certificate and key; it has to be new or empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seconds of its life
        #[arg(long, value_name = "N", default_value_t = SERVER_LIFETIME_S)]
        lifetime_s: u64,
    },
    /// Show the authorities and the server certificate, and when they expire
    Show(Format),
}

#[derive(Debug, Subcommand)]
enum CrlCommand {
    /// Show the current list
    Show(Format),
    /// Write the current list to a file, for a broker or a web server
    Write {
        /// The file, replaced at once
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// In DER instead of PEM
        #[arg(long)]
        der: bool,
        /// Make a new list even if none is due
        #[arg(long)]
        renew: bool,
    },
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List the events, oldest first
    List {
        /// Of this device only
        #[arg(long, value_name = "ID", value_parser = device_id)]
        device: Option<DeviceId>,
        /// From the event after this number
        #[arg(long, value_name = "N", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
enum BrokerCommand {
    /// A folder that `mosquitto -c DIR/mosquitto.conf` runs from
    Mosquitto(MosquittoArgs),
}

/// What a broker's configuration depends on.
#[derive(Debug, Args)]
pub(crate) struct MosquittoArgs {
    /// The folder to make; it has to be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A DNS name or IP address under which devices reach the broker
    #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
    pub(crate) names: Vec<String>,
    /// The port to listen on
    #[arg(long, value_name = "N", default_value_t = 8883)]
    pub(crate) port: u16,
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) listen: IpAddr,
    /// A fleet backend that may use every device's topics; `ca issue-backend` makes its identity
    #[arg(long = "backend", value_name = "NAME", value_parser = Name::parse, default_value = "fleet")]
    pub(crate) backends: Vec<Name>,
    /// The user that mosquitto changes to when root starts it; found out when missing
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
}

fn device_id(text: &str) -> Result<DeviceId, fleetcert_core::device_id::DeviceIdError> {
    DeviceId::parse(text)
}

fn reason(text: &str) -> Result<RevocationReason, &'static str> {
    RevocationReason::parse(text).ok_or(
        "expected unspecified, key-compromise, affiliation-changed, superseded or \
         cessation-of-operation",
    )
}

/// Runs the command that `args` (the program's name first) ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to say if there is nowhere to say it.
            let _closed = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { 0 });
        }
    };
    match smol::block_on(execute(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn execute(cli: Cli) -> Result<(), Failure> {
    let config = cli.config.as_path();
    match cli.command {
        Command::Attest(command) => attest::run(config, command).await,
        Command::Audit(command) => audit::run(config, command).await,
        Command::Broker(BrokerCommand::Mosquitto(args)) => {
            crate::broker::mosquitto(config, &args).await
        }
        Command::Ca(command) => ca::run(config, command).await,
        Command::Crl(command) => crl::run(config, command).await,
        Command::Device(command) => device::run(config, command).await,
        Command::Init(args) => crate::init::run(&args).await,
        Command::Serve(args) => serve::run(config, &args).await,
        Command::Token(TokenCommand::Issue(args)) => token::issue(config, args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    // Goal: the command line has no clashing or impossible arguments.
    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    // Goal: scripts can tell a usage error from every other.
    #[test]
    fn usage_errors_exit_with_two() {
        let exit = |args: &[&str]| run(args.iter().map(OsString::from));
        assert_eq!(exit(&["p", "device", "add", "a/b"]), ExitCode::from(2));
        assert_eq!(exit(&["p", "token", "issue", "d", "--token", "x"]), ExitCode::from(2));
        assert_eq!(exit(&["p", "--version"]), ExitCode::SUCCESS);
    }
}
