//! The task that owns the connection to the broker.
//!
//! It is in one of four phases: without an identity, dialling, waiting for the next attempt, or in
//! a session. Orders from the machine ([`Control`]) are obeyed between packets in every phase, so
//! none waits for a broker longer than for a deadline.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use fleetcert_core::lifecycle::Command;
use fleetcert_core::time::Mono;
use fleetcert_core::topic::{Channel, Topic};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish, Subscribe, SubscribeReasonCode};
use serde_json::{Map, Value};
use smol::channel::{RecvError, Sender};
use smol::future::or;

use crate::clock::{SystemClock, timer, within};
use crate::config::{Endpoint, Mqtt};
use crate::context::Context;
use crate::entropy::Entropy;
use crate::link::{LinkStatus, Publication, Trouble};
use crate::net::{Stream, dial};
use crate::tls::Client;

use super::backoff::Backoff;
use super::generation::Generations;
use super::message::{self, Asked, Order, Refusal};
use super::outbox::{Done, Outbox, SUBSCRIBE_ID};
use super::session::{Introduction, Session};
use super::{Broker, Control, Inbox, Judged, MqttError, Queued};

/// The broker answers a PINGREQ within this.
const PONG_MS_MAX: u64 = 10_000;

/// A planned death is acknowledged within this, or goes unsaid.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Messages of our own (births, results) that wait, at most. More than that a broker must ask for.
const OWN_LEN_MAX: usize = 16;

/// Ids of commands that are remembered, so that a second delivery is not a second command.
const HEARD_LEN_MAX: usize = 16;

/// What happens next in a session.
enum Next {
    Control(Result<Control, RecvError>),
    Described(Result<(), RecvError>),
    Packet(Result<Packet, MqttError>),
    Queued(Result<Queued, RecvError>),
    SignOfLife,
}

/// Where the task stands.
enum Phase {
    /// Without an identity.
    Idle,
    /// On the way to the broker.
    Dialling,
    /// Until the next attempt.
    Waiting { until: Mono },
    /// In a session since then.
    Serving { session: Box<Session<Stream>>, since: Mono },
    /// Nobody can tell us anything any more.
    Over,
}

/// Who we are and where we speak.
struct Settings {
    endpoint: Endpoint,
    introduction: Introduction,
    state_topic: String,
    command_topic: String,
    result_topic: String,
}

/// The task.
pub(super) struct Task {
    settings: Rc<Settings>,
    clock: SystemClock,
    entropy: Entropy,
    commands: Sender<Command>,
    inbox: Inbox,
    judged: Rc<Cell<Judged>>,
    /// What the daemon last said of its state: part of every birth.
    details: Rc<RefCell<Map<String, Value>>>,
    status: Rc<RefCell<LinkStatus>>,
    client: Option<Client>,
    outbox: Outbox,
    backoff: Backoff,
    generations: Generations,
    own: VecDeque<Publish>,
    heard: VecDeque<String>,
    last_sent: Mono,
    last_received: Mono,
    pinged_at: Mono,
}

impl Task {
    pub(super) fn new(context: &Context, mqtt: &Mqtt, broker: &Broker, inbox: Inbox) -> Self {
        let now = context.clock.mono();
        Self {
            settings: Rc::new(Settings::new(context, mqtt)),
            clock: context.clock,
            entropy: context.entropy.clone(),
            commands: context.commands.clone(),
            inbox,
            judged: Rc::clone(&broker.judged),
            details: Rc::clone(&broker.details),
            status: Rc::clone(&broker.status),
            client: None,
            outbox: Outbox::new(),
            backoff: Backoff::default(),
            generations: Generations::new(&context.config.state_dir),
            own: VecDeque::new(),
            heard: VecDeque::new(),
            last_sent: now,
            last_received: now,
            pinged_at: now,
        }
    }

    /// Runs until every [`Broker`] is gone.
    pub(super) async fn run(mut self) {
        let mut phase = Phase::Idle;
        loop {
            phase = match phase {
                Phase::Idle => match self.inbox.control.recv().await {
                    Ok(control) => self.obey(Phase::Idle, control).await,
                    Err(RecvError) => Phase::Over,
                },
                Phase::Dialling => self.dial().await,
                Phase::Waiting { until } => self.wait(until).await,
                Phase::Serving { session, since } => self.serve(session, since).await,
                Phase::Over => return,
            };
        }
    }

    async fn wait(&mut self, until: Mono) -> Phase {
        let ms = until.ms_since(self.clock.mono());
        let elapsed = async {
            timer(Duration::from_millis(ms)).await;
            None
        };
        match or(async { Some(self.inbox.control.recv().await) }, elapsed).await {
            Some(Ok(control)) => self.obey(Phase::Waiting { until }, control).await,
            Some(Err(RecvError)) => Phase::Over,
            None => Phase::Dialling,
        }
    }

    async fn dial(&mut self) -> Phase {
        let Some(client) = self.client.clone() else {
            return Phase::Idle;
        };
        let attempt = self.attempt(client);
        let control = self.inbox.control.clone();
        let told = async { Err(control.recv().await) };
        match or(told, async { Ok(attempt.await) }).await {
            Ok(Ok(session)) => self.begin(session),
            Ok(Err(error)) => self.back_off(&error),
            Err(Ok(control)) => self.obey(Phase::Dialling, control).await,
            Err(Err(RecvError)) => Phase::Over,
        }
    }

    /// One attempt to get a session with an identity; it borrows nothing.
    fn attempt(
        &mut self,
        client: Client,
    ) -> impl Future<Output = Result<Session<Stream>, MqttError>> + use<> {
        let reading = self.judged.get().at(self.clock.mono());
        let generation = self.generations.next();
        let settings = Rc::clone(&self.settings);
        async move {
            let stream = dial(&settings.endpoint, &client, reading).await?;
            Session::open(stream, &settings.introduction, generation).await
        }
    }

    /// CONNACK came.
    fn begin(&mut self, session: Session<Stream>) -> Phase {
        let now = self.clock.mono();
        (self.last_sent, self.last_received) = (now, now);
        let mut status = self.status.borrow_mut();
        (status.connected_since, status.trouble) = (Some(now), None);
        drop(status);
        log::info!("connected to the broker at {}", self.settings.endpoint);
        Phase::Serving { session: Box::new(session), since: now }
    }

    fn back_off(&mut self, error: &MqttError) -> Phase {
        // Without randomness the wait is the shortest of its kind: no reason to stay away.
        let uniform = self.entropy.octets().map_or(0, u64::from_be_bytes);
        let wait = self.backoff.next(uniform);
        let endpoint = &self.settings.endpoint;
        log::warn!("broker {endpoint}: {error}; next attempt in {} ms", wait.as_millis());
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let at = self.clock.mono();
        let until = at.plus_ms(ms);
        let cause = format!("broker {endpoint}: {error}");
        let trouble = Trouble { failure: error.failure(), cause, at, retry_at: until };
        self.status.borrow_mut().trouble = Some(trouble);
        Phase::Waiting { until }
    }

    async fn serve(&mut self, mut session: Box<Session<Stream>>, since: Mono) -> Phase {
        let error = match self.drive(&mut session).await {
            Ok(control) => return self.obey(Phase::Serving { session, since }, control).await,
            Err(None) => {
                self.end(*session).await;
                return Phase::Over;
            }
            Err(Some(error)) => error,
        };
        self.backoff.lived(self.clock.mono().ms_since(since));
        match error {
            // Nothing is wrong with the session but its number: it ends as a planned one.
            MqttError::Outnumbered { .. } => self.end(*session).await,
            _ => self.interrupted(),
        }
        self.back_off(&error)
    }

    /// Runs a session until somebody orders something else; the error is `None` if nobody ever
    /// will again.
    async fn drive(&mut self, session: &mut Session<Stream>) -> Result<Control, Option<MqttError>> {
        self.greet(session)?;
        loop {
            self.send(session).await?;
            match self.next(session).await {
                Next::Control(Ok(control)) => return Ok(control),
                Next::Control(Err(RecvError))
                | Next::Described(Err(RecvError))
                | Next::Queued(Err(RecvError)) => return Err(None),
                Next::Described(Ok(())) => {
                    let birth = self.birth(session.generation);
                    self.speak(birth);
                }
                Next::Packet(packet) => self.receive(session, packet?)?,
                Next::Queued(Ok(queued)) => {
                    self.take(session, queued)?;
                    self.take_waiting(session)?;
                }
                Next::SignOfLife => self.sign_of_life(session)?,
            }
        }
    }

    /// Subscribes and is born, once. Subscribed first, so that the broker tells what it has of our
    /// state before the birth replaces it.
    fn greet(&mut self, session: &mut Session<Stream>) -> Result<(), MqttError> {
        if std::mem::replace(&mut session.is_greeted, true) {
            return Ok(());
        }
        let Settings { command_topic, state_topic, .. } = &*self.settings;
        let mut subscribe = Subscribe::new(command_topic, QoS::AtLeastOnce);
        subscribe.add(state_topic.clone(), QoS::AtLeastOnce);
        subscribe.pkid = SUBSCRIBE_ID;
        session.queue(&Packet::Subscribe(subscribe))?;
        self.own.retain(|publish| publish.topic != *state_topic);
        self.own.push_front(self.birth(session.generation));
        Ok(())
    }

    fn birth(&self, generation: u64) -> Publish {
        self.state(message::birth(generation, &self.details.borrow()))
    }

    fn state(&self, payload: Vec<u8>) -> Publish {
        let topic = self.settings.state_topic.as_str();
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.retain = true;
        publish
    }

    /// Sends what has to be sent again, then our own messages, as far as there is room.
    async fn send(&mut self, session: &mut Session<Stream>) -> Result<(), MqttError> {
        while let Some(packet) = self.outbox.next_again()? {
            session.queue(&packet)?;
        }
        while self.outbox.has_room()
            && let Some(publish) = self.own.pop_front()
        {
            self.hand_over(session, publish, None)?;
        }
        if session.has_queued() {
            session.flush().await?;
            self.last_sent = self.clock.mono();
        }
        Ok(())
    }

    fn hand_over(
        &mut self,
        session: &mut Session<Stream>,
        publish: Publish,
        done: Option<Done>,
    ) -> Result<(), MqttError> {
        match self.outbox.publish(publish, done)? {
            Some(packet) => session.queue(&packet),
            None => Ok(()),
        }
    }

    /// Waits for whatever is first; of several, the order of this list decides.
    async fn next(&self, session: &mut Session<Stream>) -> Next {
        let quiet_ms = self.quiet_until().ms_since(self.clock.mono());
        let control = async { Next::Control(self.inbox.control.recv().await) };
        let packet = async { Next::Packet(session.read().await) };
        let queued = async {
            if self.outbox.has_room() {
                Next::Queued(self.inbox.queue.recv().await)
            } else {
                std::future::pending().await
            }
        };
        let quiet = async {
            timer(Duration::from_millis(quiet_ms)).await;
            Next::SignOfLife
        };
        let described = async { Next::Described(self.inbox.described.recv().await) };
        or(control, or(packet, or(described, or(queued, quiet)))).await
    }

    /// When one of the two sides has been silent for too long.
    fn quiet_until(&self) -> Mono {
        if self.outbox.awaits_pong() {
            return self.pinged_at.plus_ms(PONG_MS_MAX);
        }
        let keep_alive_ms = 1000 * u64::from(self.settings.introduction.keep_alive_s);
        self.last_sent.min(self.last_received).plus_ms(keep_alive_ms)
    }

    fn sign_of_life(&mut self, session: &mut Session<Stream>) -> Result<(), MqttError> {
        let now = self.clock.mono();
        if now < self.quiet_until() {
            return Ok(());
        }
        if let Some(packet) = self.outbox.ping()? {
            session.queue(&packet)?;
            self.pinged_at = now;
        }
        Ok(())
    }

    fn take_waiting(&mut self, session: &mut Session<Stream>) -> Result<(), MqttError> {
        while self.outbox.has_room()
            && let Ok(queued) = self.inbox.queue.try_recv()
        {
            self.take(session, queued)?;
        }
        Ok(())
    }

    fn take(&mut self, session: &mut Session<Stream>, queued: Queued) -> Result<(), MqttError> {
        let Queued { publication: Publication { topic, payload, retain }, done } = queued;
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.retain = retain;
        self.hand_over(session, publish, Some(done))
    }

    fn receive(&mut self, session: &mut Session<Stream>, packet: Packet) -> Result<(), MqttError> {
        self.last_received = self.clock.mono();
        if let Packet::SubAck(ack) = &packet
            && ack.return_codes.contains(&SubscribeReasonCode::Failure)
        {
            log::warn!("the broker refused a subscription: no commands will come");
        }
        let received = self.outbox.receive(packet)?;
        if let Some(reply) = received.reply {
            session.queue(&reply)?;
        }
        match received.message {
            Some(message) => self.hear(session.generation, &message),
            None => Ok(()),
        }
    }

    fn hear(&mut self, generation: u64, message: &Publish) -> Result<(), MqttError> {
        if message.topic == self.settings.command_topic {
            self.command(message);
        } else if message.topic == self.settings.state_topic {
            self.witness(generation, message)?;
        }
        Ok(())
    }

    /// Sees its own state as others do. A death of an earlier session that came late is answered by
    /// another birth; a larger number than ours by a session with one that is larger still.
    fn witness(&mut self, generation: u64, message: &Publish) -> Result<(), MqttError> {
        let Some(seen) = message::parse_state(&message.payload) else {
            return Ok(());
        };
        if seen.generation > generation {
            self.generations.raise(seen.generation);
            return Err(MqttError::Outnumbered { seen: seen.generation });
        }
        if seen.generation < generation && !seen.online && !message.retain {
            let birth = self.birth(generation);
            self.speak(birth);
        }
        Ok(())
    }

    fn command(&mut self, message: &Publish) {
        let Asked { id, order } = message::parse_command(&message.payload);
        if id.as_ref().is_some_and(|id| self.heard.contains(id)) {
            return;
        }
        let order = if message.retain { Err(Refusal::Retained) } else { order };
        let outcome = order.and_then(|order| {
            let Order::Renew = order;
            let sent = self.commands.try_send(Command::Renew);
            sent.map(|()| order).map_err(|_| Refusal::Busy)
        });
        log::info!("command {}: {}", id.as_deref().unwrap_or("?"), message::verdict(outcome));
        let payload = message::result(id.as_deref(), outcome);
        let topic = self.settings.result_topic.as_str();
        self.speak(Publish::new(topic, QoS::AtLeastOnce, payload));
        if let (Some(id), Ok(_)) = (id, outcome) {
            self.heard.truncate(HEARD_LEN_MAX - 1);
            self.heard.push_front(id);
        }
    }

    /// Queues a message of our own; the oldest gives way when there are too many.
    fn speak(&mut self, publish: Publish) {
        if self.own.len() == OWN_LEN_MAX {
            self.own.pop_front();
        }
        self.own.push_back(publish);
    }

    /// A planned end: no last will fires, and what is in flight waits for the next session.
    async fn end(&mut self, session: Session<Stream>) {
        session.close(&mut self.outbox).await;
        self.interrupted();
    }

    fn interrupted(&mut self) {
        self.outbox.interrupt();
        self.status.borrow_mut().connected_since = None;
    }

    async fn obey(&mut self, phase: Phase, control: Control) -> Phase {
        match control {
            Control::Adopt { client, reply } => {
                let phase = self.adopt(phase, client).await;
                answer(&reply, ());
                phase
            }
            Control::Close { reply } => {
                if let Phase::Serving { mut session, .. } = phase {
                    self.say_farewell(&mut session).await;
                    self.end(*session).await;
                }
                self.client = None;
                self.status.borrow_mut().trouble = None;
                answer(&reply, ());
                Phase::Idle
            }
            Control::Switch { client, stream, reply } => {
                let (phase, outcome) = self.switch(phase, client, *stream).await;
                answer(&reply, outcome);
                phase
            }
        }
    }

    async fn adopt(&mut self, phase: Phase, client: Client) -> Phase {
        if self.client.as_ref().is_some_and(|current| current.is_same_identity(&client)) {
            return phase;
        }
        if let Phase::Serving { session, .. } = phase {
            self.end(*session).await;
        }
        self.client = Some(client);
        self.backoff = Backoff::default();
        Phase::Dialling
    }

    /// The broker has one session for a client id: the old one ends, cleanly, and the new one
    /// begins on a stream that stands already. Without CONNACK the old identity is back at once.
    async fn switch(
        &mut self,
        phase: Phase,
        client: Client,
        stream: Stream,
    ) -> (Phase, Result<(), MqttError>) {
        let usable_until = self.clock.mono();
        let elsewhere = match phase {
            Phase::Serving { session, .. } => {
                self.end(*session).await;
                None
            }
            other => Some(other),
        };
        let generation = self.generations.next();
        match Session::open(stream, &self.settings.introduction, generation).await {
            Ok(session) => {
                let phase = self.begin(session);
                if elsewhere.is_none() {
                    self.note_gap(self.clock.mono().ms_since(usable_until));
                }
                self.client = Some(client);
                (phase, Ok(()))
            }
            Err(error) => {
                let phase = match elsewhere {
                    Some(phase) => phase,
                    None => self.fall_back().await,
                };
                (phase, Err(error))
            }
        }
    }

    async fn fall_back(&mut self) -> Phase {
        let Some(client) = self.client.clone() else {
            return Phase::Idle;
        };
        match self.attempt(client).await {
            Ok(session) => self.begin(session),
            Err(error) => self.back_off(&error),
        }
    }

    fn note_gap(&self, ms: u64) {
        let mut status = self.status.borrow_mut();
        status.gap_ms_last = Some(ms);
        status.gap_ms_max = status.gap_ms_max.max(Some(ms));
        log::info!("identity switched, {ms} ms without a session");
    }

    /// Says what is left to say, and then a death of our own: a clean DISCONNECT fires no will, and
    /// a retained birth would stay for ever.
    async fn say_farewell(&mut self, session: &mut Session<Stream>) {
        let said = within(FAREWELL_MAX, async {
            self.settle(session).await?;
            let death = self.state(message::death(session.generation));
            self.hand_over(session, death, None)?;
            self.settle(session).await
        });
        match said.await {
            Some(Ok(())) => {}
            Some(Err(error)) => log::warn!("not all was said to the broker: {error}"),
            None => log::warn!("not all was said to the broker: it did not acknowledge in time"),
        }
    }

    /// Until everything that was taken is acknowledged.
    async fn settle(&mut self, session: &mut Session<Stream>) -> Result<(), MqttError> {
        loop {
            self.take_waiting(session)?;
            self.send(session).await?;
            if self.outbox.unacknowledged() == 0
                && self.own.is_empty()
                && self.inbox.queue.is_empty()
            {
                return Ok(());
            }
            let packet = session.read().await?;
            self.receive(session, packet)?;
        }
    }
}

impl Settings {
    fn new(context: &Context, mqtt: &Mqtt) -> Self {
        let topic = |channel| {
            let device_id = context.config.device_id.clone();
            Topic { device_id, channel }.emit().as_str().to_owned()
        };
        let state_topic = topic(Channel::State);
        Self {
            endpoint: mqtt.endpoint.clone(),
            introduction: Introduction {
                client_id: context.config.device_id.as_str().to_owned(),
                keep_alive_s: mqtt.keep_alive_s,
                state_topic: state_topic.clone(),
            },
            state_topic,
            command_topic: topic(Channel::Command),
            result_topic: topic(Channel::Result),
        }
    }
}

/// Answers an order; who gave it may have gone.
fn answer<T>(reply: &Sender<T>, answer: T) {
    if reply.try_send(answer).is_err() {
        log::debug!("nobody waits for the answer any more");
    }
}
