//! A self-hosted certificate authority and EST server for a fleet of devices.
#![forbid(unsafe_code)]

pub mod audit;
pub mod authority;
pub mod clock;
pub mod config;
pub mod csr;
pub mod enroll;
pub mod entropy;
pub mod http;
pub mod inventory;
pub mod journal;
pub mod random;
pub mod store;
pub mod tls;
pub mod token;
