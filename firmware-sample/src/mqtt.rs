//! A device's session with the broker: MQTT 3.1.1 as `docs/design/mqtt.md` lays it down.
//!
//! **What it is.** [`Session::open`] connects with the death of this generation as the last will,
//! subscribes, and says the birth. [`Session::poll`] does what is to be done now and returns: it
//! sends what waits in the [`Outbox`], reads what has come, keeps the connection alive. So the
//! board's one loop that waits can call it between two actions of the machine.
//!
//! **What it must never do.** Wait in `poll` for a broker that says nothing. Forget a message that
//! no broker has acknowledged. Acknowledge a message that nobody has looked at: the acknowledgement
//! leaves with the poll *after* the one that gave it out. Panic, whatever a broker sends.
//!
//! **Why that is sound.** Packets lie whole in one buffer before they are read, and every length is
//! checked on the way there (`packet`). One that is longer than the buffer and not longer than
//! [`INCOMING_LEN_MAX`] is passed over, acknowledged and reported: an error would have the broker
//! send it again in every session to come. Any other thing out of order ends the session, and the
//! outbox outlives it.

mod command;
mod event;
mod json;
mod outbox;
mod packet;
mod payload;

#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;

use embedded_io::{Read, ReadReady, Write};
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::Failure;
use fleetcert_core::topic::{Channel, Topic};

use crate::console::{info, show_code, warn};
use crate::tls::{Connection, TlsError};

use self::outbox::SUBSCRIBE_ID;
use self::packet::{Connect, DISCONNECT, Header, Incoming, PINGREQ, PublishHead};

pub use self::command::{
    Asked, COMMAND_ID_LEN_MAX, CommandId, HEARD_LEN_MAX, Heard, Order, RESULT_LEN_MAX, Refusal,
    result, verdict,
};
pub use self::event::{EVENT_LEN_MAX, Told, event};
pub use self::outbox::{IN_FLIGHT_MAX, Outbox, PUBLISH_LEN_MAX, PublishError, Ticket};
pub use self::packet::PacketError;
pub use self::payload::{
    PHASE_LEN_MAX, STATE_LEN_MAX, Seen, TELEMETRY_LEN_MAX, birth, death, parse_state, telemetry,
};

/// Octets of a packet that is given out, at most: a longer one is passed over.
pub const RECEIVE_LEN: usize = 1024;

/// Octets of a packet from the broker, at most; a longer one ends the session.
pub const INCOMING_LEN_MAX: usize = 16 * 1024;

/// The broker answers a PINGREQ within this, milliseconds.
pub const PONG_MS_MAX: u64 = 10_000;

/// Octets of CONNECT and of SUBSCRIBE, at most: three names, two of them topics, and a death.
const HELLO_LEN_MAX: usize = 320;

/// Packets that are taken between our DISCONNECT and the broker's end, at most.
const GOODBYE_PACKETS_MAX: usize = 64;

/// Reads of the stream in one poll, at most: a broker that always has more to say must not keep
/// the machine from its work.
const READS_MAX: usize = 64;

/// A stream that can be looked at without waiting.
pub trait Stream: Read<Error = TlsError> + Write<Error = TlsError> {
    /// Reads what is there, without waiting for anything to begin; `None` if nothing has.
    ///
    /// # Errors
    ///
    /// [`TlsError`], as [`Read::read`].
    fn read_if_ready(&mut self, octets: &mut [u8]) -> Result<Option<usize>, TlsError>;
}

impl<'a, T: Read + ReadReady + Write + 'a> Stream for Connection<'a, T> {
    fn read_if_ready(&mut self, octets: &mut [u8]) -> Result<Option<usize>, TlsError> {
        Connection::read_if_ready(self, octets)
    }
}

impl<S: Stream> Stream for &mut S {
    fn read_if_ready(&mut self, octets: &mut [u8]) -> Result<Option<usize>, TlsError> {
        S::read_if_ready(self, octets)
    }
}

/// Who we are to the broker.
#[derive(Clone, Copy, Debug)]
pub struct Introduction<'i, 'b> {
    /// The client id.
    pub device_id: &'i DeviceId,
    /// Larger than that of any session before.
    pub generation: u64,
    /// Seconds between two signs of life, at most; 0 for none.
    pub keep_alive_s: u16,
    /// What is said of us as long as the session lives: see [`birth`].
    pub birth: &'b [u8],
}

/// What a poll has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// The broker has this message.
    Acknowledged(Ticket),
    /// A command to this device.
    Command {
        /// Unread.
        payload: &'e [u8],
        /// Whether the broker had kept it: then it is refused, commands are for now.
        is_retained: bool,
    },
    /// A message to this device was longer than [`RECEIVE_LEN`], and was passed over.
    PassedOver {
        /// Octets of its packet.
        len: usize,
    },
    /// A state of this device, as the broker has it: perhaps of an earlier session.
    State {
        /// Unread.
        payload: &'e [u8],
    },
    /// The broker has taken the subscriptions.
    Subscribed,
}

/// Why a session is over, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttError {
    /// The broker has ended the connection, and said so: as a rule, because another session took
    /// this one's place.
    Ended,
    /// Our introduction is longer than it can be.
    Introduction,
    /// What came is no packet that a broker may send us.
    Packet(PacketError),
    /// A PINGREQ was not answered within [`PONG_MS_MAX`].
    Silent,
    /// The connection.
    Stream(TlsError),
    /// The broker does not let us in: its return code (§3.2.2.3).
    Unwelcome {
        /// 1 to 5, as a rule.
        code: u8,
    },
    /// The packet may not come at this point.
    Unexpected,
    /// The broker does not give us a subscription: its ACL is not ours.
    Unsubscribed,
}

/// What came, with its place in the buffer.
struct Delivery {
    kind: Kind,
    payload: Range<usize>,
    is_retained: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Command,
    State,
}

/// A session with the broker.
pub struct Session<'s, S> {
    stream: S,
    outbox: &'s mut Outbox,
    device_id: &'s DeviceId,
    /// From one sign of life to the next PINGREQ, milliseconds.
    ping_ms: Option<u64>,
    sent_ms: u64,
    heard_ms: u64,
    pinged_ms: Option<u64>,
    inbox: &'s mut Inbox,
    /// What the last poll gave out: to be acknowledged.
    owed: Option<u16>,
}

/// Octets that have come: memory for one session at a time. It is large; a session, which is moved
/// about, is not.
pub struct Inbox {
    octets: [u8; RECEIVE_LEN],
    filled: usize,
    /// Octets at the front that were read.
    done: usize,
    /// Octets of a packet that is passed over which have not come yet, and of the whole packet.
    passing: Option<Passing>,
}

#[derive(Clone, Copy)]
struct Passing {
    left: usize,
    len: usize,
    id: Option<u16>,
}

/// What the inbox has at its front.
enum Front {
    Nothing,
    Packet { header: Header },
    Passed(Passing),
}

impl<'s, S: Stream> Session<'s, S> {
    /// Connects over `stream`, on which nothing was said yet, and waits for the broker's word that
    /// it accepts us, as long as the stream does. Subscriptions, what is unacknowledged, and the
    /// birth are on their way when this returns.
    ///
    /// # Errors
    ///
    /// [`MqttError`]; `outbox` has lost nothing.
    pub fn open(
        mut stream: S,
        introduction: Introduction<'s, '_>,
        outbox: &'s mut Outbox,
        inbox: &'s mut Inbox,
        now_ms: u64,
    ) -> Result<Self, MqttError> {
        let Introduction { device_id, keep_alive_s, birth, .. } = introduction;
        outbox.begin();
        inbox.clear();
        let state = Topic { device_id: device_id.clone(), channel: Channel::State };
        outbox.announce(&state, birth).map_err(|_| MqttError::Introduction)?;
        connect(&mut stream, &introduction)?;
        let mut session = Self {
            stream,
            outbox,
            device_id,
            ping_ms: (keep_alive_s > 0).then_some(u64::from(keep_alive_s) * 1_000 / 4 * 3),
            sent_ms: now_ms,
            heard_ms: now_ms,
            pinged_ms: None,
            inbox,
            owed: None,
        };
        session.subscribe()?;
        session.send_waiting(now_ms)?;
        Ok(session)
    }

    /// Takes a message, to be sent at the next poll.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was taken then.
    pub fn publish(
        &mut self,
        channel: Channel<'_>,
        payload: &[u8],
        is_retained: bool,
    ) -> Result<Ticket, PublishError> {
        let topic = Topic { device_id: self.device_id.clone(), channel };
        self.outbox.push(&topic, payload, is_retained)
    }

    /// Says a birth, kept by the broker, at the next poll: the state has changed, or a late death
    /// stands where our birth did.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] as long as the one before has not arrived.
    pub fn announce(&mut self, birth: &[u8]) -> Result<(), PublishError> {
        let topic = Topic { device_id: self.device_id.clone(), channel: Channel::State };
        self.outbox.announce(&topic, birth)
    }

    /// Does what is to be done at `now_ms`, and returns at once; to be called again until it says
    /// `None`, and then whenever there is time. What it returned is acknowledged by the next call.
    ///
    /// # Errors
    ///
    /// [`MqttError`]: the session is over, and to be dropped.
    pub fn poll(&mut self, now_ms: u64) -> Result<Option<Event<'_>>, MqttError> {
        self.inbox.forget();
        if let Some(id) = self.owed.take() {
            self.acknowledge(id, now_ms)?;
        }
        self.send_waiting(now_ms)?;
        let mut reads = 0..READS_MAX;
        let delivery = loop {
            let (event, delivery) = match self.inbox.front()? {
                Front::Nothing if reads.next().is_some() && self.receive(now_ms)? => (None, None),
                Front::Nothing => break None,
                Front::Passed(Passing { len, id, .. }) => {
                    self.owed = id;
                    (Some(Event::PassedOver { len }), None)
                }
                Front::Packet { header } => self.take(header, now_ms)?,
            };
            if event.is_some() {
                return Ok(event);
            }
            if delivery.is_some() {
                break delivery;
            }
        };
        if delivery.is_none() {
            self.keep_alive(now_ms)?;
        }
        Ok(delivery.map(|delivery| delivery.event(&self.inbox.octets)))
    }

    /// Ends the session in order: no last will is said. Waits for the broker to end the
    /// connection, as long as the stream does, and takes the acknowledgements that are on their
    /// way: then the broker has seen the end of this session before the beginning of the next.
    pub fn close(mut self) -> S {
        self.inbox.forget();
        let said = self.stream.write_all(&DISCONNECT).and_then(|()| self.stream.flush());
        let mut left = if said.is_ok() { GOODBYE_PACKETS_MAX } else { 0 };
        while left > 0 {
            left -= 1;
            match self.inbox.front() {
                Ok(Front::Nothing) => match self.stream.read(self.inbox.space()) {
                    Ok(len @ 1..) => self.inbox.fill(len),
                    Ok(0) | Err(_) => break,
                },
                Ok(Front::Packet { header }) => {
                    if let Ok(Incoming::PubAck { id }) = self.inbox.packet(header) {
                        self.outbox.acknowledge(id);
                    }
                    self.inbox.forget();
                }
                Ok(Front::Passed(_)) => {}
                Err(_) => break,
            }
        }
        self.stream
    }

    fn subscribe(&mut self) -> Result<(), MqttError> {
        let topic = |channel| Topic { device_id: self.device_id.clone(), channel }.emit();
        let (command, state) = (topic(Channel::Command), topic(Channel::State));
        let mut packet = [0; HELLO_LEN_MAX];
        let len = packet::subscribe(&[&command, &state], SUBSCRIBE_ID, &mut packet)
            .map_err(|_| MqttError::Introduction)?;
        self.stream.write_all(packet.get(..len).unwrap_or_default())?;
        Ok(())
    }

    fn send_waiting(&mut self, now_ms: u64) -> Result<(), MqttError> {
        let mut has_sent = false;
        while let Some(packet) = self.outbox.next() {
            self.stream.write_all(packet)?;
            has_sent = true;
        }
        if has_sent {
            self.stream.flush()?;
            self.sent_ms = now_ms;
        }
        Ok(())
    }

    fn say(&mut self, packet: &[u8], now_ms: u64) -> Result<(), MqttError> {
        self.stream.write_all(packet)?;
        self.stream.flush()?;
        self.sent_ms = now_ms;
        Ok(())
    }

    fn acknowledge(&mut self, id: u16, now_ms: u64) -> Result<(), MqttError> {
        self.say(&packet::puback(id), now_ms)
    }

    /// Reads what is there; whether anything was.
    fn receive(&mut self, now_ms: u64) -> Result<bool, MqttError> {
        match self.stream.read_if_ready(self.inbox.space())? {
            None => Ok(false),
            Some(0) => Err(MqttError::Ended),
            Some(len) => {
                self.inbox.fill(len);
                self.heard_ms = now_ms;
                Ok(true)
            }
        }
    }

    /// Takes the packet at the front of the inbox.
    fn take(
        &mut self,
        header: Header,
        now_ms: u64,
    ) -> Result<(Option<Event<'static>>, Option<Delivery>), MqttError> {
        let incoming = self.inbox.packet(header)?;
        let event = match incoming {
            Incoming::ConnAck { .. } => return Err(MqttError::Unexpected),
            Incoming::PingResp => {
                self.pinged_ms = None;
                None
            }
            Incoming::PubAck { id } => self.outbox.acknowledge(id).map(Event::Acknowledged),
            Incoming::Publish { head, payload } => return self.delivered(&head, payload, now_ms),
            Incoming::SubAck { id: SUBSCRIBE_ID, is_granted: true } => Some(Event::Subscribed),
            Incoming::SubAck { id: SUBSCRIBE_ID, .. } => return Err(MqttError::Unsubscribed),
            Incoming::SubAck { .. } => return Err(MqttError::Unexpected),
        };
        self.inbox.forget();
        Ok((event, None))
    }

    /// A message; one that is not for us is acknowledged and nothing else.
    fn delivered(
        &mut self,
        head: &PublishHead,
        payload: Range<usize>,
        now_ms: u64,
    ) -> Result<(Option<Event<'static>>, Option<Delivery>), MqttError> {
        let kind = self.inbox.kind(head, self.device_id);
        if let Some(kind) = kind {
            self.owed = head.id;
            let is_retained = head.is_retained;
            return Ok((None, Some(Delivery { kind, payload, is_retained })));
        }
        warn(format_args!("broker: message on a foreign topic"));
        self.inbox.forget();
        if let Some(id) = head.id {
            self.acknowledge(id, now_ms)?;
        }
        Ok((None, None))
    }

    /// §3.1.2.10, §3.12: a PINGREQ when either side was silent for three quarters of the
    /// keep-alive, since a signature or a new key may hold up the one after.
    fn keep_alive(&mut self, now_ms: u64) -> Result<(), MqttError> {
        let Some(ping_ms) = self.ping_ms else { return Ok(()) };
        if let Some(pinged_ms) = self.pinged_ms {
            let is_late = now_ms.saturating_sub(pinged_ms) >= PONG_MS_MAX;
            return if is_late { Err(MqttError::Silent) } else { Ok(()) };
        }
        let is_due = now_ms.saturating_sub(self.sent_ms.min(self.heard_ms)) >= ping_ms;
        if is_due {
            self.say(&PINGREQ, now_ms)?;
            self.pinged_ms = Some(now_ms);
        }
        Ok(())
    }
}

/// CONNECT, and CONNACK: four octets, of which no more are read.
fn connect<S: Stream>(
    stream: &mut S,
    introduction: &Introduction<'_, '_>,
) -> Result<(), MqttError> {
    let Introduction { device_id, generation, keep_alive_s, .. } = *introduction;
    let topic = Topic { device_id: device_id.clone(), channel: Channel::State }.emit();
    let will = death(generation);
    let (client_id, will_topic) = (device_id.as_str(), topic.as_str());
    let hello = Connect { client_id, keep_alive_s, will_topic, will: will.as_bytes() };
    let mut packet = [0; HELLO_LEN_MAX];
    let len = packet::connect(&hello, &mut packet).map_err(|_| MqttError::Introduction)?;
    stream.write_all(packet.get(..len).unwrap_or_default())?;
    stream.flush()?;
    let mut answer = [0; 4];
    let mut filled = 0;
    while let Some(space) = answer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match stream.read(space)? {
            0 => return Err(MqttError::Ended),
            len => filled += len,
        }
        let octets = answer.get(..filled).unwrap_or_default();
        match Header::parse(octets, INCOMING_LEN_MAX) {
            Ok(Some(header)) if header.total != answer.len() => return Err(MqttError::Unexpected),
            Ok(Some(_) | None) => {}
            Err(error) => return Err(error.into()),
        }
    }
    welcome(&answer)
}

fn welcome(answer: &[u8; 4]) -> Result<(), MqttError> {
    let header = Header::parse(answer, answer.len())?.ok_or(MqttError::Unexpected)?;
    match packet::parse(header, answer)? {
        Incoming::ConnAck { code: 0, is_session_present } => {
            info(format_args!("broker: session present {is_session_present}"));
            Ok(())
        }
        Incoming::ConnAck { code, .. } => Err(MqttError::Unwelcome { code }),
        _ => Err(MqttError::Unexpected),
    }
}

impl Delivery {
    fn event(self, octets: &[u8]) -> Event<'_> {
        let payload = octets.get(self.payload).unwrap_or_default();
        match self.kind {
            Kind::Command => Event::Command { payload, is_retained: self.is_retained },
            Kind::State => Event::State { payload },
        }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Inbox {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { octets: [0; RECEIVE_LEN], filled: 0, done: 0, passing: None }
    }

    /// Forgets what came in another session.
    const fn clear(&mut self) {
        (self.filled, self.done, self.passing) = (0, 0, None);
    }

    /// Where to receive next: never empty, since what does not fit is passed over.
    fn space(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.filled..).unwrap_or_default()
    }

    fn fill(&mut self, len: usize) {
        self.filled = self.filled.saturating_add(len).min(RECEIVE_LEN);
    }

    /// Drops the packet that was read.
    fn forget(&mut self) {
        let done = core::mem::take(&mut self.done).min(self.filled);
        self.octets.copy_within(done..self.filled, 0);
        self.filled -= done;
    }

    fn received(&self) -> &[u8] {
        self.octets.get(..self.filled).unwrap_or_default()
    }

    /// What is at the front, if it is whole.
    fn front(&mut self) -> Result<Front, PacketError> {
        if let Some(passing) = self.passing {
            return Ok(self.pass(passing));
        }
        let Some(header) = Header::parse(self.received(), INCOMING_LEN_MAX)? else {
            return Ok(Front::Nothing);
        };
        if self.filled >= header.total {
            return Ok(Front::Packet { header });
        }
        if header.total <= RECEIVE_LEN {
            return Ok(Front::Nothing);
        }
        self.begin_passing(header)
    }

    fn begin_passing(&mut self, header: Header) -> Result<Front, PacketError> {
        let len = header.total;
        if !header.is_publish() {
            return Err(PacketError::TooLong { found: len, max: RECEIVE_LEN });
        }
        match packet::publish_head(header, self.received())? {
            Some((head, _)) => Ok(self.pass(Passing { left: len, len, id: head.id })),
            None if self.filled == RECEIVE_LEN => Err(PacketError::Topic),
            None => Ok(Front::Nothing),
        }
    }

    /// Drops what has come of a packet that is passed over.
    fn pass(&mut self, passing: Passing) -> Front {
        self.done = passing.left.min(self.filled);
        let passing = Passing { left: passing.left - self.done, ..passing };
        self.forget();
        self.passing = Some(passing).filter(|passing| passing.left > 0);
        if self.passing.is_some() { Front::Nothing } else { Front::Passed(passing) }
    }

    /// Reads the packet at the front; it is dropped by the next [`Inbox::forget`].
    fn packet(&mut self, header: Header) -> Result<Incoming, PacketError> {
        let incoming = packet::parse(header, self.received())?;
        self.done = header.total;
        Ok(incoming)
    }

    /// What a message is to this device.
    fn kind(&self, head: &PublishHead, device_id: &DeviceId) -> Option<Kind> {
        let name = core::str::from_utf8(self.octets.get(head.topic.clone())?).ok()?;
        let topic = Topic::parse(name).ok().filter(|topic| topic.device_id == *device_id)?;
        match topic.channel {
            Channel::Command => Some(Kind::Command),
            Channel::State => Some(Kind::State),
            Channel::Data(_) | Channel::Event | Channel::Result => None,
        }
    }
}

impl From<PacketError> for MqttError {
    fn from(error: PacketError) -> Self {
        Self::Packet(error)
    }
}

impl From<TlsError> for MqttError {
    fn from(error: TlsError) -> Self {
        Self::Stream(error)
    }
}

/// What the machine is told. A broker's word about us is hearsay, as an alert is.
impl From<MqttError> for Failure {
    fn from(error: MqttError) -> Self {
        match error {
            MqttError::Ended | MqttError::Introduction | MqttError::Silent => Self::Unreachable,
            MqttError::Packet(_) | MqttError::Unexpected => Self::AnswerMalformed,
            MqttError::Stream(error) => error.into(),
            MqttError::Unsubscribed | MqttError::Unwelcome { .. } => Self::OurIdentityRefused,
        }
    }
}

impl MqttError {
    /// A stable name, as `docs/serial.md` has it; that of the stream where it is the stream's.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Introduction => "introduction",
            Self::Packet(error) => error.code(),
            Self::Silent => "silent",
            Self::Stream(error) => error.code(),
            Self::Unexpected => "unexpected",
            Self::Unsubscribed => "unsubscribed",
            Self::Unwelcome { .. } => "refused",
        }
    }
}

impl fmt::Display for MqttError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Stream(error) = self {
            return error.fmt(f);
        }
        show_code(f, "mqtt", self.code())?;
        match self {
            Self::Unwelcome { code: number }
            | Self::Packet(
                PacketError::Flags { found: number }
                | PacketError::Kind { found: number }
                | PacketError::Malformed { kind: number },
            ) => write!(f, " {number}"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for MqttError {}

impl<S> fmt::Debug for Session<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}
