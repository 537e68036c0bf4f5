//! What EST puts on the wire: RFC 7030 as RFC 8951 clarified it, over slices.
//!
//! **What it is.** The formats inside an EST body: [`base64`], the PKCS#10 request that a device
//! writes ([`csr`]) with the [`evidence`] about its key, and the certs-only CMS message that it
//! reads ([`cms`]).
//!
//! **What it must never do.** Hold a key: who signs a request is not here, only what is signed.
//!
//! **Why that is sound.** Readers are liberal in what surrounds DER (line ends, PEM armour), where
//! the peers in the field differ, and strict inside of it, where a difference would be a fault.

pub mod base64;
pub mod cms;
pub mod csr;
pub mod evidence;
