//! The certificate authority: what it may issue, and that it issues nothing else.
//!
//! **What it is.** Two disjoint trees ([`tree`]), each a root and an issuing authority: one for
//! devices, one for servers. Each certificate is built from a [`profile`] and an authenticated
//! identity, read back and compared with that policy ([`lint`]), stored, and only then signed
//! ([`issue`]). Revocations are published as CRLs ([`crl`]).
//!
//! **What it must never do.** Copy anything but a public key from a request; sign what is not
//! stored; issue from one tree what belongs to the other; hash a key into a serial number (a TPM
//! key would get the same serial at every renewal).
//!
//! **Why that is sound.** The private key is reachable through [`Authority::issue`] and
//! [`Authority::publish`] only, and the former takes a token that only a store can make.

pub mod crl;
pub(crate) mod der;
pub mod issue;
mod key;
pub mod leaf;
pub mod lint;
pub mod profile;
pub mod serial;
pub mod tree;

pub(crate) use self::key::{sha256, write_hex};
pub use self::{
    crl::{Crl, Revocation, RevocationReason},
    issue::{Authority, AuthorityError, Certificate, IssueError, Prepared, Reserved},
    key::{KeyFingerprint, KeyId, PublicKey, PublicKeyError},
    leaf::Leaf,
    profile::{Identity, Profile},
    serial::Serial,
};

#[cfg(test)]
mod tests;
