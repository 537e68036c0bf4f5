//! Messages on their way to a broker's acknowledgement, over any number of sessions.
//!
//! **What it must never do.** Forget a message before a broker acknowledged it; give two messages
//! one packet identifier.
//!
//! **Why that is sound.** A message lies in a slot, as the packet that it is, from when it is taken
//! to its PUBACK; the slot's number is the identifier. So sending again is sending the same octets
//! with the flag DUP.

use core::fmt;

use crate::console::show_code;

use super::packet::{self, DUP, Name};

/// Messages on their way, at most.
pub const IN_FLIGHT_MAX: usize = 4;

/// Octets of a message with its topic and all around them, at most.
pub const PUBLISH_LEN_MAX: usize = 512;

/// The identifier of a birth: the one behind those of the messages.
const BIRTH_ID: u16 = IN_FLIGHT_MAX as u16 + 1;

/// The identifier of our one SUBSCRIBE.
pub(super) const SUBSCRIBE_ID: u16 = BIRTH_ID + 1;

/// A message that was taken; it is told when the broker has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u32);

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// [`IN_FLIGHT_MAX`] messages are on their way: try again when one has arrived.
    Full,
    /// It has more than [`PUBLISH_LEN_MAX`] octets, with its topic and all around them.
    TooLong,
}

/// Messages on their way. It outlives sessions, and is lent to one at a time.
#[derive(Debug)]
pub struct Outbox {
    messages: [Slot; IN_FLIGHT_MAX],
    birth: Slot,
    next: u32,
}

#[derive(Debug)]
struct Slot {
    packet: [u8; PUBLISH_LEN_MAX],
    len: usize,
    /// The order of messages: one that was taken later has a larger number.
    ticket: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Empty,
    Sent,
    Waiting,
}

impl Slot {
    const EMPTY: Self =
        Self { packet: [0; PUBLISH_LEN_MAX], len: 0, ticket: 0, stage: Stage::Empty };

    fn put(
        &mut self,
        topic: Name<'_>,
        payload: &[u8],
        is_retained: bool,
        id: u16,
    ) -> Result<(), PublishError> {
        self.len = packet::publish(topic, payload, is_retained, id, &mut self.packet)
            .ok_or(PublishError::TooLong)?;
        self.stage = Stage::Waiting;
        Ok(())
    }

    fn octets(&self) -> &[u8] {
        self.packet.get(..self.len).unwrap_or_default()
    }
}

impl Outbox {
    /// No messages.
    #[must_use]
    pub const fn new() -> Self {
        Self { messages: [const { Slot::EMPTY }; IN_FLIGHT_MAX], birth: Slot::EMPTY, next: 0 }
    }

    /// Takes a message, to be sent by this session or the next.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was taken then.
    pub(super) fn push(
        &mut self,
        topic: Name<'_>,
        payload: &[u8],
        is_retained: bool,
    ) -> Result<Ticket, PublishError> {
        let ticket = self.next;
        let mut free = (1..).zip(&mut self.messages).filter(|(_, s)| s.stage == Stage::Empty);
        let (id, slot) = free.next().ok_or(PublishError::Full)?;
        slot.put(topic, payload, is_retained, id)?;
        slot.ticket = ticket;
        self.next = ticket.wrapping_add(1);
        Ok(Ticket(ticket))
    }

    /// Whether a message is on its way still: no broker has acknowledged it.
    #[must_use]
    pub fn holds(&self, ticket: Ticket) -> bool {
        let is_it = |slot: &Slot| slot.stage != Stage::Empty && slot.ticket == ticket.0;
        self.messages.iter().any(is_it)
    }

    /// Messages that no broker has acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.messages.iter().filter(|slot| slot.stage != Stage::Empty).count()
    }

    /// Takes a birth, which takes the place of an earlier one that was not sent.
    pub(super) fn announce(&mut self, topic: Name<'_>, birth: &[u8]) -> Result<(), PublishError> {
        if self.birth.stage == Stage::Sent {
            return Err(PublishError::Full);
        }
        self.birth.put(topic, birth, true, BIRTH_ID)
    }

    /// A new session begins: what was sent and not acknowledged is to be sent again. The birth of
    /// another session is of no use to anybody.
    pub(super) fn begin(&mut self) {
        self.birth.stage = Stage::Empty;
        for slot in &mut self.messages {
            if slot.stage == Stage::Sent {
                slot.stage = Stage::Waiting;
                slot.packet[0] |= DUP;
            }
        }
    }

    /// What is to be sent next, oldest first; what was sent before goes before the birth, and the
    /// birth before all else.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let is_waiting = |slot: &&mut Slot| slot.stage == Stage::Waiting;
        let oldest = self.messages.iter_mut().filter(is_waiting).min_by_key(|slot| slot.ticket);
        let is_again = oldest.as_ref().is_some_and(|slot| slot.packet[0] & DUP != 0);
        let birth = Some(&mut self.birth).filter(|birth| !is_again && is_waiting(birth));
        let slot = birth.or(oldest)?;
        slot.stage = Stage::Sent;
        Some(slot.octets())
    }

    /// Takes an acknowledgement: whose it was, if it was a message's. One for what was not sent is
    /// nobody's: a broker may say it twice.
    pub(super) fn acknowledge(&mut self, id: u16) -> Option<Ticket> {
        if id == BIRTH_ID && self.birth.stage == Stage::Sent {
            self.birth.stage = Stage::Empty;
        }
        let slot = self.messages.get_mut(usize::from(id).checked_sub(1)?)?;
        let is_ours = slot.stage == Stage::Sent;
        is_ours.then(|| {
            slot.stage = Stage::Empty;
            Ticket(slot.ticket)
        })
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl PublishError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Full => "outbox-full",
            Self::TooLong => "message-too-long",
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "mqtt", self.code())
    }
}

impl core::error::Error for PublishError {}
