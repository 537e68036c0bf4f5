//! The session with the broker: kept, switched from one identity to the next, never lost.
//!
//! **What it is.** MQTT 3.1.1 by `rumqttc`'s codec and state, over our own TLS streams. One task
//! (`task`) owns the connection; [`Broker`] is how the rest of the daemon reaches it: messages go
//! into a bounded queue and are acknowledged to their sender when the broker acknowledged them.
//!
//! **What it must never do.** Drop a message that it took, unless the process ends. Let a planned
//! switch look like a death. Draw a conclusion about our identity: a broker that refuses us is
//! reported and tried again, for ever. Trust a command beyond the broker's ACL.
//!
//! **Why that is sound.** What is in flight is forgotten at its PUBACK only, whatever became of
//! the connection (`outbox`). The broker keeps the session (`clean_session = false`), so QoS 1
//! holds over a switch in both directions. Each session has a generation number, larger than any
//! before it (`generation`), in its birth and its death: a death that comes late says so. The
//! whole is laid out in `docs/design/mqtt.md`.

mod backoff;
mod codec;
mod generation;
mod message;
mod outbox;
mod session;
mod task;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use fleetcert_core::event::Failure;
use fleetcert_core::time::{Confidence, Mono, Reading, Wall};
use fleetcert_core::topic::{Channel, Topic};
use futures_lite::FutureExt as _;
use futures_lite::future::BoxedLocal;
use rumqttc::StateError;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::ConnectReturnCode;
use serde_json::{Map, Value};
use smol::channel::{Receiver, Sender, TrySendError, bounded};

use crate::clock::{SystemClock, within};
use crate::config::{Endpoint, Mqtt};
use crate::context::Context;
use crate::link::{Link, LinkStatus, PAYLOAD_LEN_MAX, Publication, PublishFailure};
use crate::net::{NetError, Stream};
use crate::tls::Client;

use self::outbox::Done;
use self::task::Task;

/// Messages that wait for a session or for room in flight, at most. With the longest payload each
/// this is 8 MiB, and a device that is offline fills it with the first messages, not the last.
pub const QUEUE_LEN_MAX: usize = 256;

/// A sender is told after this that there is no acknowledgement; its message waits on.
pub const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// Why a session was not made, or ended.
#[derive(Debug)]
pub enum MqttError {
    /// The broker sent what is no MQTT 3.1.1, or more than it may.
    Codec(CodecError),
    /// The broker did not answer a PINGREQ.
    KeepAlive,
    /// The connection.
    Net(NetError),
    /// The broker's first packet was not CONNACK.
    NoConnack,
    /// Another session has our number or a larger one; this one gave way to begin a new one.
    Outnumbered {
        /// The number that was seen.
        seen: u64,
    },
    /// The broker's CONNACK refused us.
    Refused(ConnectReturnCode),
    /// The broker acknowledged what was not sent.
    State(StateError),
    /// The broker sent a packet that clients send, or one of QoS 2's.
    UnexpectedPacket {
        /// Its type (MQTT 3.1.1 §2.2.1).
        kind: u8,
    },
    /// The broker sent a message at QoS 2, which was not subscribed to.
    UnexpectedQos,
}

impl MqttError {
    /// What the machine has to know of it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Net(error) => error.failure(),
            Self::Refused(
                ConnectReturnCode::BadClientId
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::NotAuthorized,
            ) => Failure::OurIdentityRefused,
            Self::Codec(_)
            | Self::NoConnack
            | Self::State(_)
            | Self::UnexpectedPacket { .. }
            | Self::UnexpectedQos => Failure::AnswerMalformed,
            Self::KeepAlive | Self::Outnumbered { .. } | Self::Refused(_) => Failure::Unreachable,
        }
    }
}

/// What the machine last knew of time, and when it knew it.
#[derive(Clone, Copy, Debug)]
struct Judged {
    reading: Reading,
    at: Mono,
}

impl Judged {
    const NOTHING: Self = Self {
        reading: Reading { wall: None, confidence: Confidence::Unknown, floor: Wall(0) },
        at: Mono(0),
    };

    /// The reading, carried forward: a session that lasted for weeks reconnects by the time that
    /// it is now, and a clock that was stepped meanwhile has no say in it.
    fn at(self, now: Mono) -> Reading {
        let passed_s = now.ms_since(self.at) / 1000;
        let wall = self.reading.wall.map(|wall| wall.plus_s(passed_s));
        Reading { wall, ..self.reading }
    }
}

/// A message in the queue.
#[derive(Debug)]
struct Queued {
    publication: Publication,
    done: Done,
}

/// What the task is told. Each is answered when it was obeyed.
#[derive(Debug)]
enum Control {
    /// Use this identity from now on; without waiting for a session.
    Adopt { client: Client, reply: Sender<()> },
    /// End the session and use no identity.
    Close { reply: Sender<()> },
    /// Go over to this identity on this stream, or stay as you are.
    Switch { client: Client, stream: Box<Stream>, reply: Sender<Result<(), MqttError>> },
}

/// Orders to the task that are not yet taken, at most; there is one lifecycle machine.
const CONTROL_LEN_MAX: usize = 2;

/// The way to the task; clones share it.
#[derive(Clone, Debug)]
pub struct Broker {
    endpoint: Endpoint,
    device: fleetcert_core::device_id::DeviceId,
    clock: SystemClock,
    queue: Sender<Queued>,
    control: Sender<Control>,
    described: Sender<()>,
    judged: Rc<Cell<Judged>>,
    details: Rc<RefCell<Map<String, Value>>>,
    status: Rc<RefCell<LinkStatus>>,
}

/// The task's ends of what a [`Broker`] sends.
#[derive(Debug)]
struct Inbox {
    queue: Receiver<Queued>,
    control: Receiver<Control>,
    /// Something was described anew.
    described: Receiver<()>,
}

impl Broker {
    /// Starts the task on the context's executor. It connects when it is given an identity.
    #[must_use]
    pub fn start(context: &Context, mqtt: &Mqtt) -> Self {
        let (queue, queued) = bounded(QUEUE_LEN_MAX);
        let (control, controls) = bounded(CONTROL_LEN_MAX);
        let (described, changes) = bounded(1);
        let inbox = Inbox { queue: queued, control: controls, described: changes };
        let broker = Some(mqtt.endpoint.to_string());
        let broker = Self {
            endpoint: mqtt.endpoint.clone(),
            device: context.config.device_id.clone(),
            clock: context.clock,
            queue,
            control,
            described,
            judged: Rc::new(Cell::new(Judged::NOTHING)),
            details: Rc::default(),
            status: Rc::new(RefCell::new(LinkStatus { broker, ..LinkStatus::default() })),
        };
        let task = Task::new(context, mqtt, &broker, inbox);
        context.executor.spawn(task.run()).detach();
        broker
    }

    /// Where the broker is.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Uses this identity from now on. A session that runs with it already goes on.
    pub async fn adopt(&self, client: Client) {
        let (reply, answer) = bounded(1);
        self.tell(Control::Adopt { client, reply }, &answer).await;
    }

    /// Ends the session with a death of our own and DISCONNECT, and uses no identity until the next
    /// [`Broker::adopt`]. Messages that wait, wait on.
    pub async fn release(&self) {
        let (reply, answer) = bounded(1);
        self.tell(Control::Close { reply }, &answer).await;
    }

    /// Goes over to this identity on a stream that was opened with it: CONNACK is the proof.
    ///
    /// # Errors
    ///
    /// [`MqttError`] if the broker would not have it, or was gone; the identity before is in use
    /// again, and one attempt to connect with it was made.
    pub async fn switch(&self, client: Client, stream: Stream) -> Result<(), MqttError> {
        let (reply, answer) = bounded(1);
        let stream = Box::new(stream);
        self.tell(Control::Switch { client, stream, reply }, &answer)
            .await
            .unwrap_or(Err(NetError::Ended.into()))
    }

    async fn tell<T>(&self, control: Control, answer: &Receiver<T>) -> Option<T> {
        self.control.send(control).await.ok()?;
        answer.recv().await.ok()
    }

    /// The full topic of a publication, if it names a place of ours where a device speaks.
    fn topic_of(&self, publication: &Publication) -> Option<String> {
        let name =
            format!("{}{}/{}", fleetcert_core::topic::PREFIX, self.device, publication.topic);
        let fits = publication.payload.len() <= PAYLOAD_LEN_MAX;
        let topic = Topic::parse(&name).ok()?;
        let is_ours = !matches!(topic.channel, Channel::Command | Channel::State);
        (fits && is_ours && topic.device_id == self.device).then_some(name)
    }
}

impl Link for Broker {
    fn publish(&self, publication: Publication) -> BoxedLocal<Result<(), PublishFailure>> {
        let Some(topic) = self.topic_of(&publication) else {
            return async { Err(PublishFailure::Malformed) }.boxed_local();
        };
        let (done, acknowledged) = bounded(1);
        let publication = Publication { topic, ..publication };
        match self.queue.try_send(Queued { publication, done }) {
            Ok(()) => async move {
                match within(ACKNOWLEDGED_MAX, acknowledged.recv()).await {
                    Some(Ok(())) => Ok(()),
                    _ => Err(PublishFailure::Unacknowledged),
                }
            }
            .boxed_local(),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                async { Err(PublishFailure::QueueFull) }.boxed_local()
            }
        }
    }

    fn describe(&self, state: Map<String, Value>) {
        *self.details.borrow_mut() = state;
        // Full: the task has yet to look, and will then see the newest.
        let _full = self.described.try_send(());
    }

    fn judge(&self, reading: Reading) {
        self.judged.set(Judged { reading, at: self.clock.mono() });
    }

    fn status(&self) -> LinkStatus {
        self.status.borrow().clone()
    }

    fn close(&self) -> BoxedLocal<()> {
        let broker = self.clone();
        async move { broker.release().await }.boxed_local()
    }
}

/// The link of a device that speaks to no broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBroker;

impl Link for NoBroker {
    fn publish(&self, _: Publication) -> BoxedLocal<Result<(), PublishFailure>> {
        async { Err(PublishFailure::NotConfigured) }.boxed_local()
    }

    fn describe(&self, _: Map<String, Value>) {}

    fn judge(&self, _: Reading) {}

    fn status(&self) -> LinkStatus {
        LinkStatus::default()
    }

    fn close(&self) -> BoxedLocal<()> {
        async {}.boxed_local()
    }
}

impl From<NetError> for MqttError {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

impl From<CodecError> for MqttError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

impl fmt::Display for MqttError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => write!(f, "the broker's packet is no MQTT 3.1.1: {error}"),
            Self::KeepAlive => f.write_str("the broker did not answer a ping"),
            Self::Net(error) => error.fmt(f),
            Self::NoConnack => f.write_str("the broker's first packet is not CONNACK"),
            Self::Outnumbered { seen } => {
                write!(f, "another session of ours has the number {seen}: beginning a new one")
            }
            Self::Refused(code) => write!(f, "the broker refused CONNECT: {code:?}"),
            Self::State(error) => write!(f, "the broker does not follow the protocol: {error}"),
            Self::UnexpectedPacket { kind } => {
                write!(f, "the broker sent a packet of type {kind}, which was not expected")
            }
            Self::UnexpectedQos => f.write_str("the broker sent a message at QoS 2"),
        }
    }
}

impl std::error::Error for MqttError {}

#[cfg(test)]
mod tests {
    use fleetcert_core::time::{Confidence, Mono, Reading, Wall};

    use super::Judged;

    #[test]
    fn a_reading_is_carried_forward_by_the_monotonic_clock_and_never_becomes_more_certain() {
        let reading =
            Reading { wall: Some(Wall(1000)), confidence: Confidence::Floored, floor: Wall(900) };
        let judged = Judged { reading, at: Mono(5_000) };
        assert_eq!(judged.at(Mono(5_999)), reading);
        assert_eq!(judged.at(Mono(65_000)), Reading { wall: Some(Wall(1060)), ..reading });
        assert_eq!(judged.at(Mono(0)), reading);
        assert_eq!(Judged::NOTHING.at(Mono(9_000_000)).wall, None);
    }
}
