//! The core's ports for what a device does by itself, as this firmware has them: at once, and
//! blocking. Its peers are the driver's.

use core::cell::RefCell;
use core::fmt;

use embedded_storage_async::nor_flash::NorFlash;
use fleetcert_core::event::{Event, Failure};
use fleetcert_core::port::{Clock, Keys, Reports, Storage};
use fleetcert_core::record::{KeySource, Record, Slot};
use fleetcert_core::shell;
use fleetcert_core::time::{Mono, Now, Wall};

use crate::blocking::block_on;
use crate::board::{self, Board};
use crate::console::{info, warn};
use crate::keystore::KeyStore;
use crate::mqtt::Told;
use crate::store::FlashStore;

use super::desk::Desk;

/// The ports of a device on board `B`.
pub(super) type Ports<'d, B> = shell::Ports<
    BoardClock<<B as Board>::Clock>,
    SharedStore<'d, <B as Board>::Flash>,
    SharedKeys<'d, <B as Board>::Keys>,
    (),
    DeskReports<'d>,
    (),
>;

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

impl<K: KeyStore> Keys for SharedKeys<'_, K> {
    async fn ensure(&mut self, slot: Slot, source: KeySource) -> Result<[u8; 32], Failure> {
        let mut keys = self.0.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        Ok(keys.ensure(slot, source)?)
    }

    async fn erase(&mut self, slot: Slot) -> Result<(), Failure> {
        let mut keys = self.0.try_borrow_mut().map_err(|_| Failure::KeyUnavailable)?;
        Ok(keys.erase(slot)?)
    }
}

/// The serial line at once, and the fleet when there is a session.
pub(super) struct DeskReports<'d>(pub(super) &'d Desk);

impl Reports for DeskReports<'_> {
    fn report(&mut self, now: Now, event: Event) {
        let say = match &event {
            Event::CandidateDiscarded { .. }
            | Event::ClockRefused { .. }
            | Event::Expired { .. }
            | Event::Failed { .. }
            | Event::Quarantined => warn,
            _ => info,
        };
        say(format_args!("event {}: {}", event.code(), Told(&event)));
        self.0.report(now.mono, event);
    }
}
