//! The fleet simulator, and what the end-to-end tests share.
//!
//! **What it is.** The one crate that may see all the others: it runs the device's real machine
//! against the provisioner's real rules in virtual time, and it starts the real programs beside
//! other people's brokers, clients and verifiers.
//!
//! **What it must never do.** Replace a rule of the product by one of its own. A simulator that
//! decides for the code under test finds only its own mistakes; what it adds is faults, and
//! checkers that look from outside.
#![forbid(unsafe_code)]

pub mod check;
pub mod event_log;
pub mod fleet;
pub mod footprint;
pub mod fuzz;
pub mod lab;
pub mod load;
pub mod recorder;
pub mod sim;
pub mod tpm_socket;
pub mod verify_chain;
