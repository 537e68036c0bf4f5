//! What a device identity needs of a TPM 2.0, as pure computation over bytes.
//!
//! **What it is.** The arithmetic that both ends of an attestation must agree on: an object's
//! [`name`], the key derivations of the specification ([`kdf`]), and the public areas of the keys
//! that a device makes ([`template`]). The device asks its TPM with them; the provisioner checks
//! with them what a device claims.
//!
//! **What it must never do.** Open a device, allocate, or trust a length it was sent. The wire
//! types of `tpm2-protocol` stay behind ours, so that the crate below can be exchanged.
//!
//! **Why that is sound.** Everything here is a function of its arguments, and its tests compare
//! with answers of a TPM and of other implementations, not with itself.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod attest;
pub mod command;
pub mod credential;
pub mod ek;
pub mod fault;
pub mod hash;
pub mod kdf;
pub mod name;
pub mod public;
pub mod reader;
pub mod signature;
mod session;
pub mod template;
pub mod tpm;
pub mod transact;
pub mod vault;

#[cfg(test)]
mod testing;
