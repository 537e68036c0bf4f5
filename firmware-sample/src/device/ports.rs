//! The core's ports, as this firmware has them: what needs no network is done at once, and blocks;
//! what does goes over the [`Desk`].

use core::cell::RefCell;
use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::{Event, Failure};
use fleetcert_core::port::{
    Advice, Answer, Clock, Keys, Peers, Proof, Reports, Storage, Wait, Wake,
};
use fleetcert_core::record::{Identity, KeySource, Record, Request, Slot};
use fleetcert_core::time::{Mono, Now, Reading, Wall};

use crate::blocking::block_on;
use crate::board;
use crate::console::{info, warn};
use crate::mqtt::Told;
use crate::store::FlashStore;

use super::desk::{Desk, Order, Reply};

/// The board's clocks. The one that runs without power is nobody's word but its own.
pub(super) struct BoardClock<C>(pub(super) C);

impl<C: board::Clock> Clock for BoardClock<C> {
    #[inline(never)]
    fn now(&mut self) -> Now {
        Now { mono: Mono(self.0.now_ms()), wall: self.0.wall_s().map(Wall), synchronised: false }
    }
}

/// The record's store, which the driver uses too: for the generations of sessions.
pub(super) struct SharedStore<'d, F: NorFlash> {
    pub(super) store: &'d RefCell<FlashStore<'static, F>>,
}

impl<F: NorFlash<Error: fmt::Display>> Storage for SharedStore<'_, F> {
    async fn persist(&mut self, record: &Record) -> Result<(), Failure> {
        let mut store = self.store.try_borrow_mut().map_err(|_| Failure::StorageUnavailable)?;
        block_on(store.persist(record))
    }
}

/// The key store, which the driver uses too: to sign.
pub(super) struct SharedKeys<'d, K: 'static>(pub(super) &'d RefCell<&'static mut K>);

impl<K: Keys> Keys for SharedKeys<'_, K> {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        let mut keys = self.0.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        block_on(keys.ensure(slot, source))
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        let mut keys = self.0.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        block_on(keys.erase(slot))
    }
}

/// Provisioner and broker, by way of the driver.
pub(super) struct RemotePeers<'d>(pub(super) &'d Desk);

/// What a reply of another kind would mean: that nothing came of the order.
const UNANSWERED: Failure = Failure::Unreachable;

impl RemotePeers<'_> {
    async fn done(&self, order: Order) -> Result<(), Failure> {
        match self.0.ask(order).await {
            Some(Reply::Done(outcome)) => outcome,
            _ => Err(UNANSWERED),
        }
    }
}

impl Peers for RemotePeers<'_> {
    async fn enroll(
        &mut self,
        request: &Request,
        slot: Slot,
        current: Option<(Slot, &Identity)>,
        reading: Reading,
    ) -> Answer<Identity> {
        let current = current.map(|(slot, _)| slot);
        match self.0.ask(Order::Enroll { slot, request: *request, current, reading }).await {
            Some(Reply::Enrolled(Answer { outcome, server_time })) => {
                let issued = || self.0.issued().ok_or(UNANSWERED);
                Answer { outcome: outcome.and_then(|()| issued()), server_time }
            }
            _ => Answer::failed(UNANSWERED),
        }
    }

    async fn prove(&mut self, slot: Slot, _: &Identity, reading: Reading) -> Answer<Proof> {
        match self.0.ask(Order::Prove { slot, reading }).await {
            Some(Reply::Proven(answer)) => answer,
            _ => Answer::failed(UNANSWERED),
        }
    }

    async fn consult(&mut self, slot: Slot, _: &Identity, reading: Reading) -> Answer<Advice> {
        match self.0.ask(Order::Consult { slot, reading }).await {
            Some(Reply::Consulted(answer)) => answer,
            _ => Answer::failed(UNANSWERED),
        }
    }

    async fn adopt(&mut self, slot: Slot, _: &Identity, _: Reading) -> Result<(), Failure> {
        self.done(Order::Adopt { slot }).await
    }

    async fn release(&mut self) -> Result<(), Failure> {
        self.done(Order::Release).await
    }
}

/// The serial line at once, and the fleet when there is a session.
pub(super) struct DeskReports<'d>(pub(super) &'d Desk);

impl Reports for DeskReports<'_> {
    fn report(&mut self, now: Now, event: &Event) {
        let say = match event {
            Event::CandidateDiscarded { .. }
            | Event::ClockRefused { .. }
            | Event::Expired { .. }
            | Event::Failed { .. }
            | Event::Quarantined => warn,
            _ => info,
        };
        say(format_args!("event {}: {}", event.code(), Told(event)));
        self.0.report(now.mono, event);
    }
}

/// Waiting is what the driver does.
pub(super) struct DeskWait<'d, C> {
    pub(super) desk: &'d Desk,
    pub(super) clock: C,
}

impl<C: board::Clock> Wait for DeskWait<'_, C> {
    async fn wait(&mut self, deadline: Mono) -> Wake {
        let clock = self.clock;
        match self.desk.sleep(deadline, || Mono(clock.now_ms())).await {
            Some(command) => Wake::Command(command),
            None => Wake::Tick,
        }
    }
}
