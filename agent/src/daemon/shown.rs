//! The peers, with what is being asked of them shown on the board.
//!
//! The shell shows the machine to us between actions only; a call to a peer is what takes long, so
//! that is when people look.

use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::Phase;
use fleetcert_core::port::{Advice, Answer, Peers, Proof};
use fleetcert_core::record::{Identity, Kind, Request, Slot};
use fleetcert_core::time::Reading;

use crate::status::Board;

/// Peers that are watched.
#[derive(Debug)]
pub(super) struct Shown<P> {
    pub(super) peers: P,
    pub(super) board: Board,
}

impl<P: Peers> Peers for Shown<P> {
    async fn enroll(
        &mut self,
        request: &Request,
        slot: Slot,
        current: Option<(Slot, &Identity)>,
        reading: Reading,
    ) -> Answer<Identity> {
        let phase = match request.kind {
            Kind::First => Phase::Enrolling,
            Kind::Recover => Phase::Recovering,
            Kind::Renew => Phase::Renewing,
        };
        let _busy = self.board.during(phase);
        self.peers.enroll(request, slot, current, reading).await
    }

    async fn prove(&mut self, slot: Slot, identity: &Identity, reading: Reading) -> Answer<Proof> {
        let _busy = self.board.during(Phase::Proving);
        self.peers.prove(slot, identity, reading).await
    }

    async fn consult(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Answer<Advice> {
        self.peers.consult(slot, identity, reading).await
    }

    async fn adopt(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> Result<(), Failure> {
        self.peers.adopt(slot, identity, reading).await
    }

    async fn release(&mut self) -> Result<(), Failure> {
        self.peers.release().await
    }
}
