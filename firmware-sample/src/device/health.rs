//! The application's part: what it reports of itself to the fleet, again and again.
//!
//! Replace it by what your device is for. It shows what there is to take care of: a message counts
//! as told when the broker has acknowledged it, and one that was not is sent again by a later
//! session, under the same number.

use fleetcert_core::lifecycle::Phase;
use fleetcert_core::time::Mono;
use fleetcert_core::topic::{Channel, DataPath};

use crate::console::info;
use crate::mqtt::{Outbox, Session, Stream, Ticket, telemetry};

/// The topic: below the device's `data`.
const TOPIC: Channel<'_> = match DataPath::parse("health") {
    Ok(path) => Channel::Data(path),
    Err(_) => panic!("no path"),
};

/// Between two messages, while there is a session.
const EVERY_MS: u64 = 5_000;

/// What was told, and what is next.
#[derive(Debug)]
pub(super) struct Health {
    /// The number of the last message.
    number: u64,
    next_at: Mono,
    on_its_way: Option<(Ticket, u64)>,
}

impl Health {
    /// Nothing was told yet.
    pub(super) const fn new() -> Self {
        Self { number: 0, next_at: Mono(0), on_its_way: None }
    }

    /// A session is about to begin: the fleet hears at once. What `outbox` has let go, the broker has:
    /// it said so while we took leave of it, and nobody was there to be told.
    pub(super) fn begin(&mut self, outbox: &Outbox) {
        self.next_at = Mono(0);
        if let Some((ticket, _)) = self.on_its_way.filter(|(ticket, _)| !outbox.holds(*ticket)) {
            self.acknowledged(ticket);
        }
    }

    /// When there is something to tell.
    pub(super) const fn next_at(&self) -> Mono {
        self.next_at
    }

    /// Tells what is to be told at `now`.
    pub(super) fn tell<S: Stream>(
        &mut self,
        session: &mut Session<'_, S>,
        generation: u64,
        phase: Phase,
        now: Mono,
    ) {
        if now < self.next_at || self.on_its_way.is_some() {
            return;
        }
        self.next_at = now.plus_ms(EVERY_MS);
        let number = self.number.saturating_add(1);
        let message = telemetry(generation, number, now.0, phase);
        // A full outbox is told again at the next time.
        if let Ok(ticket) = session.publish(TOPIC, message.as_bytes(), false) {
            self.number = number;
            self.on_its_way = Some((ticket, number));
        }
    }

    /// The broker has this message.
    pub(super) fn acknowledged(&mut self, ticket: Ticket) {
        if let Some((_, number)) = self.on_its_way.take_if(|(ours, _)| *ours == ticket) {
            info(format_args!("data: {number} acknowledged"));
        }
    }
}
