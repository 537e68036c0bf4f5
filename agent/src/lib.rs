//! The Linux daemon around the core: a device's certificate, kept alive.
//!
//! **What it is.** The shell that `fleetcert-core` drives: files for the record and the keys
//! ([`store`], [`keystore`]), clocks and waiting ([`clock`]), the provisioner and the broker as
//! peers, a control socket for people and programs on the device ([`control`]), and the command
//! line ([`cli`]). Data flows one way: configuration → daemon → shell → machine → action → port →
//! answer → machine.
//!
//! **What it must never do.** Decide anything about the life of an identity: that is the core's.
//! Write a secret into a log, an error, an argument list or a core dump. Act on a record that is
//! not durable. Run twice on one state directory.
//!
//! **Why that is sound.** Ports answer facts and nothing else; secrets live in types that print
//! nothing; the record is made durable again before it is acted on; a lock on the state directory
//! is held for the life of the process. Everything runs on one executor thread, so there is no
//! order of events but the one that is written down.
#![deny(unsafe_code)]

pub mod cause;
pub mod cli;
pub mod clock;
pub mod config;
pub mod context;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod entropy;
pub mod est;
pub mod keystore;
pub mod link;
pub mod logger;
pub mod mqtt;
pub mod net;
pub mod notify;
mod offload;
pub mod peers;
pub mod reports;
pub mod status;
pub mod store;
pub mod tls;
pub mod tpm;
pub mod transport;
