//! What people do: approve, hand out tokens, revoke, retire, command.

use fleetcert_core::lifecycle::{Command, Input};

use super::{What, World};
use crate::event_log::Fact;
use crate::sim::clock::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::sim::exchange::Broken;
use crate::sim::faults;

/// Something that an operator does to or for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Approve the key that waits.
    Approve,
    /// End its life in the fleet.
    Decommission,
    /// Give it a new token.
    GiveToken,
    /// Turn the key that waits down: another one came since.
    Reject,
    /// Command a renewal.
    Renew,
    /// Revoke it.
    Revoke,
}

impl World {
    /// Draws who will be revoked, retired, commanded and troubled, and when.
    pub(super) fn schedule_fate(&mut self, number: u32) {
        let faults = self.settings.faults;
        let heal_ms = self.heal_at.0;
        // In the later part of the run: a device should have lived before it ends.
        let later = |dice: &mut crate::sim::random::Dice| dice.between(heal_ms / 4, heal_ms);
        if self.dice.happens(faults.revoked) {
            let ms = later(&mut self.dice);
            self.schedule_in(ms, What::Operate { device: number, order: Order::Revoke });
        } else if self.dice.happens(faults.decommissioned) {
            let ms = later(&mut self.dice);
            self.schedule_in(ms, What::Operate { device: number, order: Order::Decommission });
        }
        if let Some(ms) = faults::wait_ms(&mut self.dice, faults.command_interval_ms) {
            self.schedule_in(ms, What::Operate { device: number, order: Order::Renew });
        }
        if let Some(ms) = faults::wait_ms(&mut self.dice, faults.trouble_interval_ms) {
            self.schedule_in(ms, What::Trouble { device: number });
        }
    }

    /// Somebody will look at the device within half a day.
    pub(super) fn open_ticket(&mut self, number: u32, order: Order) {
        let open = &mut self.tickets[number as usize];
        if !std::mem::replace(open, true) {
            let ms = self.dice.between(30 * MINUTE_MS, 12 * HOUR_MS);
            self.schedule_in(ms, What::Operate { device: number, order });
        }
    }

    /// A refusal that a person has to look at.
    pub(super) fn complain(&mut self, number: u32, reason: &str) {
        match reason {
            "approval-conflict" => self.open_ticket(number, Order::Reject),
            "credentials-required"
            | "device-active"
            | "token-expired"
            | "token-used"
            | "token-unknown" => self.open_ticket(number, Order::GiveToken),
            _ => {}
        }
    }

    pub(super) fn operate(&mut self, number: u32, order: Order) -> Result<(), Broken> {
        let now = self.at.wall();
        let id = self.device(number).id.clone();
        match order {
            Order::Approve => {
                self.tickets[number as usize] = false;
                if self.peers.authority.approve(&id, now)? {
                    self.tell(number, Fact::Approved);
                }
            }
            Order::Reject => {
                self.tickets[number as usize] = false;
                self.peers.authority.reject(&id, now)?;
            }
            Order::GiveToken => {
                self.tickets[number as usize] = false;
                if let Some(token) = self.peers.authority.token(&id, now)? {
                    self.device(number).credential = token;
                    self.tell(number, Fact::TokenGiven);
                }
            }
            Order::Revoke => self.revoke(number)?,
            Order::Decommission => self.command(number, Command::Decommission)?,
            Order::Renew => self.command(number, Command::Renew)?,
        }
        Ok(())
    }

    fn revoke(&mut self, number: u32) -> Result<(), Broken> {
        let id = self.device(number).id.clone();
        if self.peers.authority.revoke(&id, self.at.wall())? {
            self.tell(number, Fact::Revoked);
            let ms = self.dice.between(15 * MINUTE_MS, 2 * HOUR_MS);
            self.schedule_in(ms, What::Crl);
        }
        Ok(())
    }

    /// Gives a command to a device that is on and idle; else tries again later.
    fn command(&mut self, number: u32, command: Command) -> Result<(), Broken> {
        let at = self.at;
        let device = self.device(number);
        if device.retired || at >= self.heal_at {
            return Ok(());
        }
        let device = self.device(number);
        if !device.is_awake(at) || device.answer.is_some() {
            let order = match command {
                Command::Decommission => Order::Decommission,
                Command::Renew => Order::Renew,
            };
            let ms = if order == Order::Renew { DAY_MS } else { HOUR_MS };
            self.schedule_in(ms, What::Operate { device: number, order });
            return Ok(());
        }
        match command {
            Command::Decommission => {
                device.retired = true;
                self.tell(number, Fact::Decommissioned);
            }
            Command::Renew => {
                self.tell(number, Fact::RenewCommanded);
                let interval_ms = self.settings.faults.command_interval_ms;
                self.again(interval_ms, What::Operate { device: number, order: Order::Renew });
            }
        }
        self.give(number, Input::Command(command))
    }

    /// The broker gets the newest CRL and throws out whom it lists.
    pub(super) fn publish_crl(&mut self) -> Result<(), Broken> {
        if self.at < self.peers.provisioner_away {
            self.schedule(self.peers.provisioner_away, What::Crl);
            return Ok(());
        }
        self.peers.broker.revoked = self.peers.authority.crl(self.at.wall())?;
        self.tell_all(Fact::CrlReached);
        for number in 0..self.settings.devices {
            let session = self.device(number).session;
            if session.is_some_and(|it| self.peers.broker.revoked.contains(&it.serial)) {
                self.disconnect(number);
            }
        }
        Ok(())
    }
}
