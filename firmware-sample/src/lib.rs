//! The device identity on a microcontroller.
//!
//! **What it is.** The whole device ([`device`]), from power to a life in the fleet, driven by the
//! one lifecycle machine of the Linux daemon (`fleetcert-core`); what it stands on: the durable
//! record ([`store`]) and keys ([`keystore`]) on flash or in a TPM, what the factory has written
//! ([`factory`]), the network ([`net`]), TLS ([`tls`]) with a verifier of its own ([`verifier`]), the
//! provisioner ([`http`]) and the broker ([`mqtt`]); and, behind the traits of [`board`], the boards
//! themselves, each a module of register code.
//!
//! **What it must never do.** Decide. When to renew and what to trust is the core's; the rest only
//! stores, signs and moves octets. Nor say anything to a server that has not proven who it is.
//!
//! **Why that is sound.** Nothing here allocates, and nothing is `unsafe` but the boards, which are
//! compiled for their own targets only: a device cannot do without addresses, and everything else
//! can. The tests cut the power at every octet of every flash operation, and look at what
//! a device would find after it; they run the network against a host that misbehaves; and they boot
//! both boards in an emulator.
#![no_std]
#![deny(unsafe_code)]

#[cfg(not(target_os = "none"))]
extern crate std;

pub mod blocking;
pub mod board;
pub mod console;
pub mod device;
pub mod ecdsa;
pub mod factory;
#[cfg(not(target_os = "none"))]
pub mod flash_model;
pub mod http;
pub mod keystore;
pub mod mqtt;
pub mod net;
pub mod random;
pub mod self_test;
pub mod store;
pub mod tls;
pub mod verifier;
