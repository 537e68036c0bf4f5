//! The edge as a peer sees it: every route and every refusal over real TLS.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod access;
mod attestation;
mod framing;
mod identity;
mod outage;
mod world;
