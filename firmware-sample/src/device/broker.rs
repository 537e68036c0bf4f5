//! The session with the broker: begun, kept alive, and ended when its line is needed.
//!
//! **What it is.** What lasts from one session to the next ([`Lasting`]): messages on their way,
//! the number of the next session, how long to stay away. And one session ([`Online`]): it says
//! what the device has to say, and hears what it is told.
//!
//! **What it must never do.** Begin a session with a number that was used before. Do what a command
//! asks for: it is handed to the machine, and the answer says whether it was taken.

use core::cell::Cell;

use fleetcert_core::lifecycle::{Command, Phase};
use fleetcert_core::policy::backoff_ms;
use fleetcert_core::time::Mono;
use fleetcert_core::topic::Channel;
use p256::elliptic_curve::rand_core::RngCore as _;

use crate::board::Board;
use crate::console::{info, warn};
use crate::mqtt::{
    self, Asked, Event, Heard, Inbox, Introduction, MqttError, Order, Outbox, PublishError,
    Refusal, Session, birth,
};
use crate::store::Generations;

use super::desk::Desk;
use super::health::Health;
use super::line::{Context, Line, Stream};

/// Seconds between two signs of life.
const KEEP_ALIVE_S: u16 = 60;

/// What has begun to come, and what is sent, comes and goes within this, or the session is over.
const SESSION_MS_MAX: u64 = 10_000;

/// No wait for a broker is longer: one that comes back has its fleet back within this.
const WAIT_MS_MAX: u32 = 120_000;

/// A session that lived so long was a good one: the next failure is counted as the first.
const LIVED_MS_MIN: u64 = 60_000;

/// For taking leave of a broker: it takes what we say, and ends its side.
const GOODBYE_MS_MAX: u64 = 1_000;

/// What outlives a session.
pub(super) struct Lasting {
    outbox: Outbox,
    generations: Generations,
    heard: Heard,
    health: Health,
    failures: u8,
    dial_at: Mono,
}

/// A session.
pub(super) struct Online<'a, 'l, 't, B: Board> {
    session: Session<'a, &'a mut Stream<'l, 't, B>>,
    deadline_ms: &'a Cell<u64>,
    heard: &'a mut Heard,
    health: &'a mut Health,
    generation: u64,
    /// The phase that the last birth told.
    phase: Phase,
}

/// How a session went that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It broke, or did not come about.
    Lost,
    /// The state that the broker keeps is of a later session: of this number.
    Overtaken(u64),
    /// We have ended it.
    Planned,
}

/// What was heard at one look.
enum News {
    Nothing,
    Overtaken(u64),
    Something,
}

impl Lasting {
    pub(super) const fn new() -> Self {
        Self {
            outbox: Outbox::new(),
            generations: Generations::new(0),
            heard: Heard::new(),
            health: Health::new(),
            failures: 0,
            dial_at: Mono(0),
        }
    }

    /// Goes on behind the numbers that were reserved before.
    pub(super) const fn resume(&mut self, reserved: u64) {
        self.generations = Generations::new(reserved);
    }

    /// When the broker may be tried.
    pub(super) const fn dial_at(&self) -> Mono {
        self.dial_at
    }

    /// Begins a session on `line`, on which an identity was shown.
    #[inline(never)]
    pub(super) fn begin<'a, 'l, 't, B: Board>(
        &'a mut self,
        context: &Context<'a, B>,
        line: Line<'a, 'l, 't, B>,
        inbox: &'a mut Inbox,
    ) -> Result<Online<'a, 'l, 't, B>, MqttError> {
        let Line { stream, deadline_ms } = line;
        let Self { outbox, generations, heard, health, .. } = self;
        let generation = generations.next(|end| context.reserve(end));
        let phase = context.desk.phase();
        let birth = birth(generation, phase);
        let introduction = Introduction {
            device_id: &context.factory.device_id,
            generation,
            keep_alive_s: KEEP_ALIVE_S,
            birth: birth.as_bytes(),
        };
        health.begin(outbox);
        let session = Session::open(stream, introduction, outbox, inbox, context.now().0)?;
        info(format_args!("broker: connected, generation {generation}"));
        Ok(Online { session, deadline_ms, heard, health, generation, phase })
    }

    /// Notes how a session ended that was begun at `since`, or how the attempt at one did.
    pub(super) fn ended<B: Board>(
        &mut self,
        context: &Context<'_, B>,
        ending: Ending,
        since: Mono,
    ) {
        let now = context.now();
        if now.ms_since(since) >= LIVED_MS_MIN || ending == Ending::Planned {
            self.failures = 0;
        }
        self.dial_at = now;
        match ending {
            Ending::Planned => {}
            Ending::Overtaken(seen) => self.generations.raise(seen),
            Ending::Lost => {
                self.failures = self.failures.saturating_add(1);
                let uniform = context.random.try_borrow_mut().map_or(0, |mut r| r.next_u64());
                let wait_ms = backoff_ms(self.failures, WAIT_MS_MAX, uniform);
                self.dial_at = now.plus_ms(wait_ms.into());
            }
        }
    }
}

impl<B: Board> Online<'_, '_, '_, B> {
    /// When there is something to say, or `idle`.
    pub(super) fn next_at(&self, idle: Mono) -> Mono {
        self.health.next_at().min(idle)
    }

    /// Hears what has come and says what there is to say, without waiting for anything to begin.
    /// How the session ended, if it has.
    pub(super) fn attend(&mut self, context: &Context<'_, B>) -> Option<Ending> {
        let (now, desk) = (context.now(), context.desk);
        self.deadline_ms.set(now.plus_ms(SESSION_MS_MAX).0);
        loop {
            match self.hear(desk, now) {
                Ok(News::Something) => {}
                Ok(News::Nothing) => break,
                Ok(News::Overtaken(seen)) => return Some(Ending::Overtaken(seen)),
                Err(error) => {
                    warn(format_args!("broker: {error}"));
                    return Some(Ending::Lost);
                }
            }
        }
        self.speak(context, now);
        None
    }

    /// Ends the session in order.
    pub(super) fn close(self, context: &Context<'_, B>) {
        let Self { session, deadline_ms, .. } = self;
        deadline_ms.set(context.now().plus_ms(GOODBYE_MS_MAX).0);
        session.close();
    }

    /// Takes one thing that has come.
    fn hear(&mut self, desk: &Desk, now: Mono) -> Result<News, MqttError> {
        let Some(event) = self.session.poll(now.0)? else { return Ok(News::Nothing) };
        match event {
            Event::Acknowledged(ticket) => self.health.acknowledged(ticket),
            Event::Command { is_retained } => {
                let asked = Asked::parse(self.session.payload(), is_retained);
                self.obey(desk, asked);
            }
            Event::PassedOver { len } => {
                warn(format_args!("broker: message of {len} octets passed over"));
                self.obey(desk, Asked { id: None, order: Err(Refusal::Malformed) });
            }
            Event::State => match mqtt::parse_state(self.session.payload()) {
                Some(seen) if seen.generation > self.generation => {
                    return Ok(News::Overtaken(seen.generation));
                }
                // A late death of an earlier session stands where our birth did.
                Some(seen) if !seen.online && seen.generation < self.generation => {
                    self.announce(self.phase);
                }
                Some(_) | None => {}
            },
            Event::Subscribed => {}
        }
        Ok(News::Something)
    }

    /// Hands a command to the machine, and answers whether it was taken.
    fn obey(&mut self, desk: &Desk, asked: Asked) {
        let Asked { id, order } = asked;
        if id.as_ref().is_some_and(|id| self.heard.contains(id)) {
            return;
        }
        let taken = order.and_then(|order| match order {
            Order::Renew if desk.command(Command::Renew) => Ok(order),
            Order::Renew => Err(Refusal::Busy),
        });
        info(format_args!("command: {}", mqtt::verdict(taken)));
        let result = mqtt::result(id.as_ref(), taken);
        // Who asks and hears nothing asks again.
        if let Err(why) = self.session.publish(Channel::Result, result.as_bytes(), false) {
            warn(format_args!("command: unanswered: {why}"));
        }
        if let (Ok(_), Some(id)) = (taken, id) {
            self.heard.note(id);
        }
    }

    fn speak(&mut self, context: &Context<'_, B>, now: Mono) {
        let (desk, device_id) = (context.desk, &context.factory.device_id);
        let phase = desk.phase();
        if phase != self.phase {
            self.announce(phase);
        }
        let Self { session, health, generation, .. } = self;
        health.tell(session, *generation, phase, now);
        desk.tell(&mut |at, event| {
            let told = mqtt::event(device_id, desk.wall(at), event);
            session.publish(Channel::Event, told.as_bytes(), false) != Err(PublishError::Full)
        });
    }

    /// Says how the device stands; again at the next look while the word before is on its way.
    fn announce(&mut self, phase: Phase) {
        let birth = birth(self.generation, phase);
        if self.session.announce(birth.as_bytes()).is_ok() {
            self.phase = phase;
        }
    }
}
