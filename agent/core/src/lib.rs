//! The certificate lifecycle of one device, as a pure computation.
//!
//! **What it is.** The state machine that decides when a device makes a key, enrolls, proves,
//! adopts and erases ([`lifecycle`]); the durable memory it needs ([`record`]); what it knows of
//! time ([`time`]); its limits and schedules ([`policy`]); and the codecs for everything it says
//! to the provisioner ([`der`], [`est`], [`http`], [`wire`], [`enroll`]) and to the MQTT broker
//! ([`topic`]).
//!
//! **What it must never do.** Read a clock, draw a random number, open a socket or a file, take a
//! lock, or log. Time and entropy are arguments; effects are [`lifecycle::Action`]s that a shell
//! performs through the traits in [`port`]. The same code therefore runs in a Linux daemon, in
//! firmware without a heap, and in a simulator that drives thousands of devices through years.
//!
//! **Why that is sound.** Nothing here allocates, nothing is `unsafe`, and each length from
//! outside is compared with a named limit before it is used.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod der;
pub mod device_id;
pub mod enroll;
pub mod est;
pub mod event;
mod fields;
pub mod http;
pub mod lifecycle;
pub mod policy;
pub mod port;
pub mod record;
pub mod sha256;
pub mod shell;
pub mod time;
pub mod topic;
pub mod wire;
