//! EST and our own questions over HTTPS.

mod answer;
mod body;
mod route;
pub mod server;
mod stall;
