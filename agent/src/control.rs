//! The control socket: what people and programs on the device may ask of the running agent.
//!
//! **What it is.** A Unix socket in the state directory; each line is one JSON object that names
//! one request, and is answered by one line: `{"ok":true,…}` or `{"ok":false,"error":…,"retry":…}`.
//! A publication is answered when the broker has acknowledged it, and not before.
//!
//! **What it must never do.** Let others in than the owner of the state directory: directory and
//! socket are closed to everybody else, and that is the whole authentication. Be made to hold
//! memory: lines, connections and idle time have limits.
//!
//! **Why a stale socket may be removed.** Whoever binds holds the lock of the state directory, so
//! nobody listens on a socket that is found there.

mod client;
mod server;

use fleetcert_core::topic::DATA_PATH_LEN_MAX;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::link::PublishFailure;
use crate::status::Status;

pub use client::{AskError, ask};
pub use server::{Desk, Socket, SocketError};

/// The socket's file name in the state directory.
pub const SOCKET: &str = "control.sock";

/// Octets of a request's line, at most: a payload of 32 KiB in which every second octet is quoted.
pub const REQUEST_LEN_MAX: usize = 64 * 1024;

/// Octets of an answer's line, at most.
pub const ANSWER_LEN_MAX: usize = 64 * 1024;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub enum Request {
    /// End the device's life in the fleet and erase its keys. Answered when it was taken; whether
    /// it is done, the status tells.
    Decommission {},
    /// Publish at QoS 1 below the device's own prefix. Answered when acknowledged.
    Publish {
        /// The topic, `data/` and what follows.
        topic: String,
        /// The payload.
        payload: String,
    },
    /// Renew now. Answered when it was taken; whether it is done, the status tells.
    Renew {},
    /// Where does the device stand?
    Status {},
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done, or taken.
    Done,
    /// It was not.
    Refused(Refusal),
    /// The status.
    Status(Box<Status>),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// So many commands wait already.
    Busy,
    /// So many connections are open already.
    Connections,
    /// The line is longer than [`REQUEST_LEN_MAX`].
    Length,
    /// The line is no request; the text says where.
    Malformed(String),
    /// The machine has not been looked at yet.
    NotReady,
    /// The broker did not acknowledge.
    Publish(PublishFailure),
    /// The topic is none that a program on the device may publish to.
    Topic,
}

impl Refusal {
    const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy | Self::Connections | Self::NotReady => true,
            Self::Length | Self::Malformed(_) | Self::Topic => false,
            Self::Publish(failure) => failure.is_retryable(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("too many commands wait"),
            Self::Connections => f.write_str("too many connections to the control socket"),
            Self::Length => write!(f, "request is longer than {REQUEST_LEN_MAX} octets"),
            Self::Malformed(what) => write!(f, "not a request: {what}"),
            Self::NotReady => f.write_str("the agent has just started"),
            Self::Publish(failure) => failure.fmt(f),
            Self::Topic => write!(
                f,
                "topic must be data/ and 1 to {DATA_PATH_LEN_MAX} printable octets without + and #"
            ),
        }
    }
}

impl Answer {
    /// The answer as a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let json = match self {
            Self::Done => json!({"ok": true}),
            Self::Refused(refusal) => json!({
                "ok": false,
                "error": refusal.to_string(),
                "retry": refusal.is_retryable(),
            }),
            Self::Status(status) => {
                json!({"ok": true, "status": serde_json::to_value(status).unwrap_or(Value::Null)})
            }
        };
        format!("{json}\n")
    }
}

#[cfg(test)]
mod tests;
