//! Messages on their way to a broker's acknowledgement, over any number of sessions.
//!
//! **What it is.** The bookkeeping of QoS 1: packet identifiers and what is in flight are
//! `rumqttc`'s [`MqttState`]; who waits for which acknowledgement is ours. It has no I/O.
//!
//! **What it must never do.** Forget a message before a broker acknowledged it; tell somebody that
//! a message arrived that did not; give two messages in flight one identifier.
//!
//! **Why that is sound.** A message leaves the state only by its PUBACK. When a session ends,
//! [`Outbox::interrupt`] takes what is in flight out, and nothing new is taken before all of it was
//! sent again under its old identifier, so no new message can have been given one of those.

use std::collections::VecDeque;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish};
use rumqttc::{MqttState, Request, StateError};
use smol::channel::Sender;

use super::MqttError;

/// Messages in flight, at most: what a broker on a slow link can be trusted to hold, and what is
/// sent twice in the worst case.
pub(super) const IN_FLIGHT_MAX: u16 = 32;

/// The identifier of our one SUBSCRIBE; publications have those from 1 to [`IN_FLIGHT_MAX`].
pub(super) const SUBSCRIBE_ID: u16 = IN_FLIGHT_MAX + 1;

/// Told when a message is acknowledged.
pub(super) type Done = Sender<()>;

/// What a packet from the broker asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// To be sent.
    pub(super) reply: Option<Packet>,
    /// A message to us.
    pub(super) message: Option<Publish>,
}

/// Messages between the queue and their acknowledgement.
#[derive(Debug)]
pub(super) struct Outbox {
    state: MqttState,
    /// In flight when the last session ended, oldest first.
    again: VecDeque<Publish>,
    /// Who waits, by packet identifier.
    waiting: Vec<Option<Done>>,
    /// Who waits for the message that the state holds back until its identifier is free.
    held_back: Option<Done>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            state: MqttState::new(IN_FLIGHT_MAX, false),
            again: VecDeque::new(),
            waiting: vec![None; usize::from(IN_FLIGHT_MAX) + 1],
            held_back: None,
        }
    }

    /// Whether another message may be handed to [`Outbox::publish`].
    pub(super) fn has_room(&self) -> bool {
        self.again.is_empty()
            && self.state.collision.is_none()
            && self.state.inflight() < IN_FLIGHT_MAX
    }

    /// Messages not yet acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        usize::from(self.state.inflight())
            + self.again.len()
            + usize::from(self.state.collision.is_some())
    }

    /// Whether a PINGREQ is without its answer.
    pub(super) const fn awaits_pong(&self) -> bool {
        self.state.await_pingresp
    }

    /// A PINGREQ.
    pub(super) fn ping(&mut self) -> Result<Option<Packet>, MqttError> {
        self.hand_out(Request::PingReq(rumqttc::PingReq))
    }

    /// Takes a new message; the packet, if there is one, is to be sent now.
    pub(super) fn publish(
        &mut self,
        mut publish: Publish,
        done: Option<Done>,
    ) -> Result<Option<Packet>, MqttError> {
        publish.qos = QoS::AtLeastOnce;
        let packet = self.hand_out(Request::Publish(publish))?;
        match &packet {
            Some(Packet::Publish(publish)) => self.await_ack(publish.pkid, done),
            _ => self.held_back = done,
        }
        Ok(packet)
    }

    /// The next message that has to be sent again, if any.
    pub(super) fn next_again(&mut self) -> Result<Option<Packet>, MqttError> {
        let Some(publish) = self.again.pop_front() else {
            return Ok(None);
        };
        if publish.pkid == 0 {
            let done = self.held_back.take();
            return self.publish(publish, done);
        }
        self.hand_out(Request::Publish(publish))
    }

    /// Takes a packet from the broker.
    pub(super) fn receive(&mut self, packet: Packet) -> Result<Received, MqttError> {
        let acknowledged = match &packet {
            Packet::PubAck(ack) => Some(ack.pkid),
            _ => None,
        };
        let message = match &packet {
            Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                return Err(MqttError::UnexpectedQos);
            }
            Packet::Publish(publish) => Some(publish.clone()),
            _ => None,
        };
        let reply = self.state.handle_incoming_packet(packet);
        self.state.events.clear();
        let reply = reply?;
        if let Some(id) = acknowledged {
            self.acknowledged(id);
        }
        if let Some(Packet::Publish(publish)) = &reply {
            let done = self.held_back.take();
            self.await_ack(publish.pkid, done);
        }
        Ok(Received { reply, message })
    }

    /// The session ended: all in flight is to be sent again on the next one.
    pub(super) fn interrupt(&mut self) {
        let unsent = std::mem::take(&mut self.again);
        for request in self.state.clean() {
            if let Request::Publish(mut publish) = request {
                // MQTT 3.1.1 §3.3.1.1: a second delivery says that it is one.
                publish.dup = true;
                self.again.push_back(publish);
            }
        }
        self.again.extend(unsent);
        if let Some(mut held_back) = self.state.collision.take() {
            held_back.pkid = 0;
            self.again.push_back(held_back);
        }
    }

    fn hand_out(&mut self, request: Request) -> Result<Option<Packet>, MqttError> {
        let packet = self.state.handle_outgoing_packet(request);
        self.state.events.clear();
        Ok(packet?)
    }

    fn await_ack(&mut self, id: u16, done: Option<Done>) {
        if let Some(waiting) = self.waiting.get_mut(usize::from(id)) {
            *waiting = done;
        }
    }

    fn acknowledged(&mut self, id: u16) {
        let done = self.waiting.get_mut(usize::from(id)).and_then(Option::take);
        if let Some(done) = done {
            // Who asked may have gone; the message has arrived all the same.
            let _gone = done.try_send(());
        }
    }
}

impl From<StateError> for MqttError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::AwaitPingResp => Self::KeepAlive,
            other => Self::State(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::mqttbytes::QoS;
    use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish};
    use smol::channel::{Receiver, bounded};

    use super::{IN_FLIGHT_MAX, MqttError, Outbox};

    fn message(name: &str) -> Publish {
        Publish::new(name, QoS::AtLeastOnce, [])
    }

    fn send(outbox: &mut Outbox, name: &str) -> (Option<Publish>, Receiver<()>) {
        let (done, acknowledged) = bounded(1);
        (published(outbox.publish(message(name), Some(done)).unwrap()), acknowledged)
    }

    fn published(packet: Option<Packet>) -> Option<Publish> {
        packet.map(|packet| match packet {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        })
    }

    fn ack(outbox: &mut Outbox, id: u16) -> Option<Publish> {
        published(outbox.receive(Packet::PubAck(PubAck::new(id))).unwrap().reply)
    }

    #[test]
    fn only_the_acknowledgement_of_the_same_identifier_counts() {
        let mut outbox = Outbox::new();
        let (first, first_done) = send(&mut outbox, "a");
        let (second, second_done) = send(&mut outbox, "b");
        ack(&mut outbox, second.unwrap().pkid);
        assert!(first_done.try_recv().is_err());
        assert!(second_done.try_recv().is_ok());
        ack(&mut outbox, first.unwrap().pkid);
        assert!(first_done.try_recv().is_ok());
        assert_eq!(outbox.unacknowledged(), 0);
    }

    /// Goal: after an interruption everything unacknowledged goes out again, oldest first, under
    /// its identifier and marked as a second delivery, before anything new is taken.
    #[test]
    fn what_was_in_flight_is_sent_again_before_anything_new() {
        let mut outbox = Outbox::new();
        let sent: Vec<_> = ["a", "b", "c"].map(|name| send(&mut outbox, name)).into();
        let ids: Vec<_> = sent.iter().map(|(sent, _)| sent.as_ref().unwrap().pkid).collect();
        ack(&mut outbox, ids[0]);
        outbox.interrupt();
        assert!(!outbox.has_room());
        assert_eq!(outbox.unacknowledged(), 2);
        for (id, name) in [(ids[1], "b"), (ids[2], "c")] {
            let again = published(outbox.next_again().unwrap()).unwrap();
            assert_eq!((again.pkid, again.topic.as_str(), again.dup), (id, name, true));
        }
        assert!(outbox.has_room());
        assert!(sent[1].1.try_recv().is_err());
        ack(&mut outbox, ids[1]);
        assert!(sent[1].1.try_recv().is_ok());
    }

    #[test]
    fn an_interruption_while_sending_again_keeps_the_order_and_loses_nothing() {
        let mut outbox = Outbox::new();
        for name in ["a", "b", "c"] {
            send(&mut outbox, name);
        }
        outbox.interrupt();
        assert!(outbox.next_again().unwrap().is_some());
        outbox.interrupt();
        let mut again = Vec::new();
        while let Some(publish) = published(outbox.next_again().unwrap()) {
            again.push(publish.topic);
        }
        assert_eq!(again, ["a", "b", "c"]);
    }

    /// All identifiers in use but 2, and a message whose turn it is to have 1: the broker
    /// acknowledged out of order.
    fn with_one_held_back() -> (Outbox, Receiver<()>, Receiver<()>) {
        let mut outbox = Outbox::new();
        let mut others: Vec<_> = (0..IN_FLIGHT_MAX).map(|_| send(&mut outbox, "a").1).collect();
        assert!(!outbox.has_room());
        ack(&mut outbox, 2);
        let (held_back, done) = send(&mut outbox, "held back");
        assert_eq!(held_back, None);
        assert!(!outbox.has_room());
        (outbox, others.swap_remove(0), done)
    }

    #[test]
    fn a_message_whose_identifier_is_in_use_is_sent_when_it_is_free() {
        let (mut outbox, first, done) = with_one_held_back();
        let sent = ack(&mut outbox, 1).unwrap();
        assert_eq!((sent.topic.as_str(), sent.pkid), ("held back", 1));
        assert!(first.try_recv().is_ok());
        assert!(done.try_recv().is_err(), "told by the acknowledgement of another");
        ack(&mut outbox, 1);
        assert!(done.try_recv().is_ok());
    }

    /// Goal: what was never sent is not lost by an interruption, gets an identifier that nothing
    /// else has, and is not called a second delivery.
    #[test]
    fn a_message_that_was_held_back_survives_an_interruption() {
        let (mut outbox, first, done) = with_one_held_back();
        outbox.interrupt();
        let mut again = Vec::new();
        while let Some(publish) = published(outbox.next_again().unwrap()) {
            again.push(publish);
        }
        let ids: std::collections::BTreeSet<_> = again.iter().map(|again| again.pkid).collect();
        assert_eq!((again.len(), ids.len()), (IN_FLIGHT_MAX.into(), IN_FLIGHT_MAX.into()));
        let last = again.pop().unwrap();
        assert_eq!((last.topic.as_str(), last.dup), ("held back", false));
        assert!(again.iter().all(|again| again.dup));
        ack(&mut outbox, 1);
        assert!(first.try_recv().is_ok());
        assert!(done.try_recv().is_err());
        ack(&mut outbox, last.pkid);
        assert!(done.try_recv().is_ok());
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_a_fault_of_the_broker() {
        for id in [0, 1, IN_FLIGHT_MAX, IN_FLIGHT_MAX + 1, u16::MAX] {
            let found = Outbox::new().receive(Packet::PubAck(PubAck::new(id)));
            assert!(matches!(found, Err(MqttError::State(_))), "{found:?}");
        }
    }

    #[test]
    fn a_message_at_qos_1_is_acknowledged_and_one_at_qos_2_is_a_fault() {
        let mut outbox = Outbox::new();
        let mut incoming = message("a");
        incoming.pkid = 9;
        let received = outbox.receive(Packet::Publish(incoming.clone())).unwrap();
        assert_eq!(received.reply, Some(Packet::PubAck(PubAck::new(9))));
        assert_eq!(received.message, Some(incoming.clone()));
        incoming.qos = QoS::ExactlyOnce;
        let found = outbox.receive(Packet::Publish(incoming));
        assert!(matches!(found, Err(MqttError::UnexpectedQos)));
    }

    #[test]
    fn a_second_ping_without_an_answer_means_that_the_broker_is_gone() {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.ping().unwrap(), Some(Packet::PingReq));
        assert!(matches!(outbox.ping(), Err(MqttError::KeepAlive)));
        outbox.receive(Packet::PingResp).unwrap();
        assert_eq!(outbox.ping().unwrap(), Some(Packet::PingReq));
    }
}
