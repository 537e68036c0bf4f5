//! The device identity on a microcontroller.
//!
//! **What it is.** What stands between `fleetcert-core` and a board: the durable record on NOR
//! flash ([`store`]) and a software key store beside it ([`keystore`]), both through the ports of
//! the core, so that the one lifecycle machine of the Linux daemon drives a device without a heap
//! or an operating system; the network ([`net`]) and what the factory has written ([`factory`]);
//! and, behind the traits of [`board`], the boards themselves, each a module of register code.
//!
//! **What it must never do.** Decide. When to renew and what to trust is the core's; a board only
//! stores, signs and moves octets. Nor speak TLS before there is a verifier: a stack that accepts
//! any certificate is not a beginning, so TLS comes together with its verifier.
//!
//! **Why that is sound.** Nothing here allocates, and nothing is `unsafe` but the boards, which are
//! compiled for their own targets only: a device cannot do without addresses, and everything else
//! can. The tests cut the power at every single flash operation, with torn writes, and look at what
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
