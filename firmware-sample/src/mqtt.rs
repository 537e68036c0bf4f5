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
use fleetcert_core::topic::Channel;

use crate::console::{info, show_code, warn};
use crate::tls::{Connection, TlsError};

use self::outbox::SUBSCRIBE_ID;
use self::packet::{Connect, DISCONNECT, Header, Incoming, PINGREQ, PublishHead};

pub use self::command::{
    Asked, COMMAND_ID_LEN_MAX, CommandId, HEARD_LEN_MAX, Heard, Order, Refusal, result, verdict,
};
pub use self::event::{Told, event};
pub use self::json::{JSON_LEN_MAX, Json};
pub use self::outbox::{IN_FLIGHT_MAX, Outbox, PUBLISH_LEN_MAX, PublishError, Ticket};
pub use self::packet::PacketError;
pub use self::payload::{Seen, birth, death, parse_state, telemetry};

/// Octets of a packet that is given out, at most: a longer one is passed over.
pub const RECEIVE_LEN: usize = 1024;

/// Octets of a packet from the broker, at most; a longer one ends the session.
pub const INCOMING_LEN_MAX: usize = 16 * 1024;

/// The broker answers a PINGREQ within this, milliseconds.
pub const PONG_MS_MAX: u64 = 10_000;

/// Octets of CONNECT and of SUBSCRIBE, at most: three names, two of them topics, and a death.
const HELLO_LEN_MAX: usize = 320;

/// Reads of the stream in one poll, and between our DISCONNECT and the broker's end, at most: a
/// broker that always has more to say must not keep the machine from its work.
const READS_MAX: usize = 64;

/// Reads of the stream for CONNACK, at most: it has four octets.
const WELCOME_READS_MAX: usize = 8;

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
pub enum Event {
    /// The broker has this message.
    Acknowledged(Ticket),
    /// A command to this device: [`Session::payload`].
    Command {
        /// Whether the broker had kept it: then it is refused, commands are for now.
        is_retained: bool,
    },
    /// A message to this device was longer than [`RECEIVE_LEN`], and was passed over.
    PassedOver {
        /// Octets of its packet.
        len: usize,
    },
    /// A state of this device, as the broker has it: perhaps of an earlier session;
    /// [`Session::payload`].
    State,
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
    /// Where the message is that the last poll gave out.
    payload: Range<usize>,
    /// What the last poll gave out: to be acknowledged.
    owed: Option<u16>,
}

/// Octets that have come: memory for one session at a time. It is large; a session, which is moved
/// about, is not.
pub struct Inbox {
    octets: [u8; RECEIVE_LEN],
    filled: usize,
    /// Octets at the front that were given out.
    done: usize,
    passing: Passing,
}

/// A packet that is passed over.
#[derive(Clone, Copy)]
struct Passing {
    /// Its octets that have not come yet; 0 when there is no such packet.
    left: usize,
    /// Its octets.
    len: usize,
    id: Option<u16>,
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
        stream: S,
        introduction: Introduction<'s, '_>,
        outbox: &'s mut Outbox,
        inbox: &'s mut Inbox,
        now_ms: u64,
    ) -> Result<Self, MqttError> {
        let Introduction { device_id, keep_alive_s, birth, .. } = introduction;
        outbox.begin();
        inbox.clear();
        let mut session = Self {
            stream,
            outbox,
            device_id,
            ping_ms: (keep_alive_s > 0).then_some(u64::from(keep_alive_s) * 1_000 / 4 * 3),
            sent_ms: now_ms,
            heard_ms: now_ms,
            pinged_ms: None,
            inbox,
            payload: 0..0,
            owed: None,
        };
        session.announce(birth).map_err(|_| MqttError::Introduction)?;
        session.greet(&introduction, now_ms)?;
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
        self.outbox.push(channel.name(self.device_id), payload, is_retained)
    }

    /// Says a birth, kept by the broker, at the next poll: the state has changed, or a late death
    /// stands where our birth did.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] as long as the one before has not arrived.
    pub fn announce(&mut self, birth: &[u8]) -> Result<(), PublishError> {
        self.outbox.announce(Channel::State.name(self.device_id), birth)
    }

    /// Does what is to be done at `now_ms`, and returns at once; to be called again until it says
    /// `None`, and then whenever there is time. What it returned is acknowledged by the next call.
    ///
    /// # Errors
    ///
    /// [`MqttError`]: the session is over, and to be dropped.
    pub fn poll(&mut self, now_ms: u64) -> Result<Option<Event>, MqttError> {
        if let Some(id) = self.owed.take() {
            self.say(&packet::puback(id), now_ms)?;
        }
        self.send_waiting(now_ms)?;
        let mut reads = 0..READS_MAX;
        loop {
            if let Some(incoming) = self.inbox.next()? {
                let event = self.take(incoming, now_ms)?;
                if event.is_some() {
                    return Ok(event);
                }
            } else if reads.next().is_none() || !self.receive(now_ms)? {
                break;
            }
        }
        self.keep_alive(now_ms)?;
        Ok(None)
    }

    /// What is in the message that the last poll gave out, unread.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.inbox.octets.get(self.payload.clone()).unwrap_or_default()
    }

    /// Ends the session in order: no last will is said. Waits for the broker to end the
    /// connection, as long as the stream does, and takes the acknowledgements that are on their
    /// way: then the broker has seen the end of this session before the beginning of the next.
    pub fn close(mut self) -> S {
        let said = self.say(&DISCONNECT, self.sent_ms);
        let mut reads = if said.is_ok() { 0..READS_MAX } else { 0..0 };
        while let Ok(incoming) = self.await_packet(&mut reads) {
            if let Incoming::PubAck { id } = incoming {
                let _ticket = self.outbox.acknowledge(id);
            }
        }
        self.stream
    }

    /// CONNECT, CONNACK, and SUBSCRIBE.
    fn greet(&mut self, introduction: &Introduction<'_, '_>, now_ms: u64) -> Result<(), MqttError> {
        let Introduction { device_id, generation, keep_alive_s, .. } = *introduction;
        let state = Channel::State.name(device_id);
        let will = death(generation);
        let (client_id, will) = (device_id.as_str(), will.as_str());
        let hello = Connect { client_id, keep_alive_s, will_topic: state, will };
        let mut packet = [0; HELLO_LEN_MAX];
        let len = packet::connect(&hello, &mut packet);
        self.say_hello(&packet, len, now_ms)?;
        self.welcome()?;
        let topics = [Channel::Command.name(device_id), state];
        let len = packet::subscribe(&topics, SUBSCRIBE_ID, &mut packet);
        self.say_hello(&packet, len, now_ms)
    }

    /// The broker's word that it accepts us.
    fn welcome(&mut self) -> Result<(), MqttError> {
        match self.await_packet(&mut (0..WELCOME_READS_MAX))? {
            Incoming::ConnAck { code: 0, is_session_present } => {
                info(format_args!("broker: session present {is_session_present}"));
                Ok(())
            }
            Incoming::ConnAck { code, .. } => Err(MqttError::Unwelcome { code }),
            _ => Err(MqttError::Unexpected),
        }
    }

    fn send_waiting(&mut self, now_ms: u64) -> Result<(), MqttError> {
        let mut has_sent = false;
        while let Some(packet) = self.outbox.next() {
            self.stream.write_all(packet)?;
            has_sent = true;
        }
        // All that is left to be done is to flush.
        if has_sent { self.say(&[], now_ms) } else { Ok(()) }
    }

    /// Says what was written to the front of `packet`, if there was room for it.
    fn say_hello(
        &mut self,
        packet: &[u8],
        len: Option<usize>,
        now_ms: u64,
    ) -> Result<(), MqttError> {
        let packet = len.and_then(|len| packet.get(..len)).ok_or(MqttError::Introduction)?;
        self.say(packet, now_ms)
    }

    fn say(&mut self, packet: &[u8], now_ms: u64) -> Result<(), MqttError> {
        self.stream.write_all(packet)?;
        self.stream.flush()?;
        self.sent_ms = now_ms;
        Ok(())
    }

    /// Reads what is there; whether anything was.
    fn receive(&mut self, now_ms: u64) -> Result<bool, MqttError> {
        let Some(len) = self.stream.read_if_ready(self.inbox.space())? else { return Ok(false) };
        self.heard_ms = now_ms;
        self.inbox.fill(len)?;
        Ok(true)
    }

    /// The next packet, waited for as long as the stream waits, and for so many reads.
    fn await_packet(&mut self, reads: &mut Range<usize>) -> Result<Incoming, MqttError> {
        loop {
            if let Some(incoming) = self.inbox.next()? {
                return Ok(incoming);
            }
            reads.next().ok_or(MqttError::Unexpected)?;
            let len = self.stream.read(self.inbox.space())?;
            self.inbox.fill(len)?;
        }
    }

    /// Takes a packet.
    fn take(&mut self, incoming: Incoming, now_ms: u64) -> Result<Option<Event>, MqttError> {
        match incoming {
            Incoming::PassedOver { len, id } => {
                self.owed = id;
                Ok(Some(Event::PassedOver { len }))
            }
            Incoming::PingResp => {
                self.pinged_ms = None;
                Ok(None)
            }
            Incoming::PubAck { id } => Ok(self.outbox.acknowledge(id).map(Event::Acknowledged)),
            Incoming::Publish { head: PublishHead { topic, id, is_retained }, payload } => {
                let name = self.inbox.octets.get(topic).unwrap_or_default();
                let is_for = |channel: Channel<'_>| channel.is_named(self.device_id, name);
                let event = if is_for(Channel::Command) {
                    Event::Command { is_retained }
                } else if is_for(Channel::State) {
                    Event::State
                } else {
                    return self.pass_over(id, now_ms);
                };
                (self.payload, self.owed) = (payload, id);
                Ok(Some(event))
            }
            Incoming::SubAck { id: SUBSCRIBE_ID, is_granted: true } => Ok(Some(Event::Subscribed)),
            Incoming::SubAck { id: SUBSCRIBE_ID, .. } => Err(MqttError::Unsubscribed),
            Incoming::ConnAck { .. } | Incoming::SubAck { .. } => Err(MqttError::Unexpected),
        }
    }

    /// A message that is not for us is acknowledged, and nothing else.
    fn pass_over(&mut self, id: Option<u16>, now_ms: u64) -> Result<Option<Event>, MqttError> {
        warn(format_args!("broker: message on a foreign topic"));
        if let Some(id) = id {
            self.say(&packet::puback(id), now_ms)?;
        }
        Ok(None)
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
        Self { octets: [0; RECEIVE_LEN], filled: 0, done: 0, passing: Passing::NOTHING }
    }

    /// Forgets what came in another session.
    const fn clear(&mut self) {
        (self.filled, self.done, self.passing) = (0, 0, Passing::NOTHING);
    }

    /// Where to receive next when [`Inbox::next`] had nothing: never empty then, since what does not
    /// fit is passed over.
    fn space(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note of what was received; nothing is the end.
    fn fill(&mut self, len: usize) -> Result<(), MqttError> {
        self.filled = self.filled.saturating_add(len).min(RECEIVE_LEN);
        if len > 0 { Ok(()) } else { Err(MqttError::Ended) }
    }

    /// Drops what was given out.
    fn forget(&mut self) {
        let done = core::mem::take(&mut self.done).min(self.filled);
        self.octets.copy_within(done..self.filled, 0);
        self.filled -= done;
    }

    /// Drops the packet before, and gives out the one behind it, if that is whole.
    fn next(&mut self) -> Result<Option<Incoming>, PacketError> {
        self.forget();
        if self.passing.left > 0 {
            return Ok(self.pass());
        }
        let received = self.octets.get(..self.filled).unwrap_or_default();
        let Some(header) = Header::parse(received, INCOMING_LEN_MAX)? else { return Ok(None) };
        let len = header.total;
        if len <= RECEIVE_LEN {
            if len > self.filled {
                return Ok(None);
            }
            let incoming = packet::parse(header, received)?;
            self.done = len;
            return Ok(Some(incoming));
        }
        if !header.is_publish() {
            return Err(PacketError::TooLong);
        }
        match packet::publish_head(header, received)? {
            Some((head, _)) => {
                self.passing = Passing { left: len, len, id: head.id };
                Ok(self.pass())
            }
            None if self.filled == RECEIVE_LEN => Err(PacketError::Topic),
            None => Ok(None),
        }
    }

    /// Drops what has come of a packet that is passed over; which that was, at its end.
    fn pass(&mut self) -> Option<Incoming> {
        self.done = self.passing.left.min(self.filled);
        self.passing.left -= self.done;
        self.forget();
        let Passing { left, len, id } = self.passing;
        (left == 0).then_some(Incoming::PassedOver { len, id })
    }
}

impl Passing {
    const NOTHING: Self = Self { left: 0, len: 0, id: None };
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
