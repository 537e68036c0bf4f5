//! What the daemon asks of the MQTT session.
//!
//! The session belongs to the peers: it follows the identity, reconnects by itself and survives an
//! identity switch. The rest of the daemon (control socket, reports, shutdown) sees it through
//! [`Link`] and must not care whether it is connected at the moment.

use std::fmt;

use fleetcert_core::event::Failure;
use fleetcert_core::time::{Mono, Reading};
use futures_lite::future::BoxedLocal;
use serde_json::{Map, Value};

/// Octets of a topic below the device's own prefix, at most.
pub const TOPIC_LEN_MAX: usize = 256;

/// Octets of a payload, at most.
pub const PAYLOAD_LEN_MAX: usize = 32 * 1024;

/// One message at QoS 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The topic below `fleetcert/v1/<device-id>/`, such as `event` or `data/temperature`.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
}

/// Why a message was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishFailure {
    /// The topic is no place where a device speaks, or the payload is longer than
    /// [`PAYLOAD_LEN_MAX`].
    Malformed,
    /// This device speaks to no broker.
    NotConfigured,
    /// So many messages wait already that this one was not taken.
    QueueFull,
    /// It was taken and no acknowledgement came in time; it may still arrive.
    Unacknowledged,
}

impl PublishFailure {
    /// Whether the same message may be tried again with hope.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Malformed | Self::NotConfigured => false,
            Self::QueueFull | Self::Unacknowledged => true,
        }
    }
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "expected event, state, result or data/… and at most 32 KiB",
            Self::NotConfigured => "no broker is configured",
            Self::QueueFull => "too many messages wait for the broker",
            Self::Unacknowledged => "the broker did not acknowledge in time",
        })
    }
}

impl std::error::Error for PublishFailure {}

/// How the session stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// The broker, `host:port`; `None` when none is configured.
    pub broker: Option<String>,
    /// Since when the session is connected (CONNACK); `None` while it is not.
    pub connected_since: Option<Mono>,
    /// Milliseconds without a session at the last identity switch.
    pub gap_ms_last: Option<u64>,
    /// The longest of these since the start.
    pub gap_ms_max: Option<u64>,
    /// What keeps the session away; `None` while it is connected or nothing was tried.
    pub trouble: Option<Trouble>,
}

/// What keeps the session away. Nothing is decided by it: a broker's word about us is hearsay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub failure: Failure,
    /// The same in words, with the particulars.
    pub cause: String,
    /// When.
    pub at: Mono,
    /// When the next attempt is made.
    pub retry_at: Mono,
}

/// A session with the broker.
pub trait Link {
    /// Publishes at QoS 1. The message is queued by the call itself, in the order of calls; the
    /// future ends with the broker's acknowledgement (PUBACK) or with the reason why there is
    /// none. Dropping the future does not take the message back.
    fn publish(&self, publication: Publication) -> BoxedLocal<Result<(), PublishFailure>>;

    /// Sets what the retained birth message tells besides the session's own members (`schema`,
    /// `online`, `generation`). The session publishes it at each CONNACK, and at once when it
    /// changed while connected; only the newest matters.
    fn describe(&self, state: Map<String, Value>);

    /// Tells what time it is, as the machine judges; servers' certificates are held against it.
    /// The session carries it forward until it is told again.
    fn judge(&self, reading: Reading);

    /// How the session stands now.
    fn status(&self) -> LinkStatus;

    /// Ends the session with DISCONNECT, so that no last will fires. Bounded in time; afterwards
    /// nothing is sent or received.
    fn close(&self) -> BoxedLocal<()>;
}
