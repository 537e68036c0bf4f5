//! Load on a real provisioner: devices that enroll and re-enroll as fast as they are answered.
//!
//! **What it is.** A client per thread, closed loop: the request bytes of the core, over TLS with
//! connections kept alive or opened anew. It measures what a user pays: certificates a second,
//! the slowest answers, and the server's own CPU time and memory, read from the kernel.
//!
//! **What it must never do.** Gate on a time: the machines are shared. Counts (syncs a
//! certificate, bytes, round trips) are for tests, times are for `docs/performance.md`.

pub mod client;
pub mod lab;
pub mod line;
pub mod plan;
pub mod replay;
pub mod server;
