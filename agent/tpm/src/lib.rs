//! What a device identity needs of a TPM 2.0, over bytes.
//!
//! **What it is.** Two halves. What both ends of an attestation must agree on: an object's
//! [`name`], the key derivations of the specification ([`kdf`]), public areas ([`public`],
//! [`template`]), statements ([`attest`], [`signature`]) and credentials ([`credential`]). And what
//! a device does with its TPM: commands one by one ([`tpm`]), endorsement keys as makers leave them
//! ([`ek`]), and above them the few calls that an agent or a firmware needs ([`vault`]).
//!
//! **What it must never do.** Open a device, wait or draw a random number by itself
//! ([`transact::Transact`] does), allocate, or trust a length it was sent. The wire types of
//! `tpm2-protocol` stay behind ours, so that the crate below can be exchanged.
//!
//! **Why that is sound.** Structures are functions of their arguments, and their tests compare
//! with answers of a TPM and of other implementations, not with themselves. Sequences run against
//! software TPMs, with a failure injected at each of their commands.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod attest;
mod cfb;
pub mod command;
pub mod credential;
pub mod ek;
pub mod fault;
pub mod hash;
pub mod kdf;
pub mod name;
pub mod public;
pub mod reader;
mod session;
pub mod signature;
pub mod template;
pub mod tpm;
pub mod transact;
pub mod vault;

#[cfg(test)]
mod testing;
