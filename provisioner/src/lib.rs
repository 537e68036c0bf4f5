//! A self-hosted certificate authority and EST server for a fleet of devices.
//!
//! **What it is.** A domain without HTTP and SQL ([`authority`], [`enroll`], [`inventory`],
//! [`audit`], [`token`], [`csr`]) that takes store, clock and randomness as arguments; two stores
//! ([`store`]); and the edges: HTTPS ([`http`], [`tls`]), the configuration ([`config`]) and the
//! command line ([`cli`]), which joins them all in an [`installation`].
//!
//! **What it must never do.** Let an edge decide who gets a certificate, or the domain know that
//! there are sockets. A request flows one way: http → enroll → authority → store → http.
#![forbid(unsafe_code)]

pub mod attest;
pub mod audit;
pub mod authority;
pub mod binding;
mod broker;
pub mod challenge;
pub mod cli;
pub mod clock;
pub mod config;
mod credential;
pub mod csr;
pub mod enroll;
pub mod entropy;
mod files;
pub mod http;
mod init;
pub mod installation;
pub mod inventory;
pub mod journal;
mod pem;
pub mod random;
pub mod store;
pub mod tls;
pub mod token;

#[cfg(test)]
mod testing;
