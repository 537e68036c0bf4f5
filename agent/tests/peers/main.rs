//! The agent's peers against real and fake servers: TLS, EST, MQTT, and the switch of identity.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it goes wrong")]

#[path = "../support/mod.rs"]
mod support;

mod attest;
mod est;
mod session;
mod switch;
mod tls;
