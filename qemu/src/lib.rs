//! Starts a whole fleet on one machine, breaks it, and says what happened.
//!
//! **What it is.** The programs as a user would run them (provisioner, agent, a real mosquitto, the
//! firmware of a board in an emulator) each in its own process, with faults that a process can
//! suffer: stopped, killed, started again. [`demo`], [`firmware`] and [`fleet`] are the stories that
//! it tells; the other rooms are what they are made of.
//!
//! **What it must never do.** Link any of our other crates: what it says about them it has seen
//! from outside, through files, sockets and the broker. Nor wait for a while and hope: every step
//! waits for a condition, with a deadline ([`wait`]).
//!
//! **Why nothing is left behind.** Every process leads a group of its own and dies with its guard;
//! a panic, which aborts a release build before guards are dropped, first passes through
//! [`leftovers`], which knows every group and folder there is.
#![forbid(unsafe_code)]

pub mod account;
pub mod agent;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod control;
pub mod demo;
pub mod device;
pub mod dice;
pub mod elf;
pub mod error;
pub mod factory;
pub mod firmware;
pub mod fleet;
pub mod leftovers;
pub mod machine;
pub mod ports;
pub mod process;
pub mod programs;
pub mod provisioner;
pub mod report;
pub mod serial;
pub mod servers;
pub mod stage;
pub mod subscriber;
pub mod swtpm;
pub mod telemetry;
pub mod timeline;
pub mod tpm_maker;
pub mod traffic;
pub mod wait;
pub mod workplace;
