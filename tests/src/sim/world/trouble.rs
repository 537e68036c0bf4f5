//! What befalls devices, sites, the provisioner and the broker.

use fleetcert_core::record::Slot;

use super::{What, World, until};
use crate::event_log::{Fact, Impairment};
use crate::sim::clock::{At, Step};
use crate::sim::exchange::Broken;
use crate::sim::faults::{self, SITE_LEN, Trouble};
use crate::sim::random::Dice;

impl World {
    /// The next instant of something that comes every `interval_ms`, if faults still come then.
    pub(super) fn again(&mut self, interval_ms: u64, what: What) {
        if let Some(ms) = faults::wait_ms(&mut self.dice, interval_ms) {
            self.schedule_in(ms, what);
        }
    }

    pub(super) fn provisioner_outage(&mut self) -> Result<(), Broken> {
        if self.at < self.heal_at {
            let faults = self.settings.faults;
            let ms = self.dice.span_ms(faults.provisioner_span);
            let until = until(&mut self.dice, self.at, ms, self.heal_at);
            self.peers.provisioner_away = until;
            self.tell_all(Fact::Impaired { by: Impairment::ProvisionerOutage, until });
            self.again(faults.provisioner_interval_ms, What::ProvisionerOutage);
        }
        Ok(())
    }

    pub(super) fn broker_trouble(&mut self) -> Result<(), Broken> {
        if self.at < self.heal_at {
            let faults = self.settings.faults;
            let ms = self.dice.span_ms(faults.broker_span);
            let until = until(&mut self.dice, self.at, ms, self.heal_at);
            let broker = &mut self.peers.broker;
            let by = if self.dice.below(2) == 0 {
                broker.away = until;
                broker.epoch += 1;
                Impairment::BrokerOutage
            } else {
                broker.refusing = until;
                Impairment::BrokerRefusal
            };
            self.tell_all(Fact::Impaired { by, until });
            self.again(faults.broker_interval_ms, What::BrokerTrouble);
        }
        Ok(())
    }

    pub(super) fn site_outage(&mut self) -> Result<(), Broken> {
        if self.at < self.heal_at {
            let faults = self.settings.faults;
            let first = u32::try_from(self.dice.below(u64::from(self.settings.devices)));
            let first = first.unwrap_or(0) / SITE_LEN * SITE_LEN;
            let ms = self.dice.span_ms(faults.site_span);
            let until = until(&mut self.dice, self.at, ms, self.heal_at);
            for number in first..self.settings.devices.min(first + SITE_LEN) {
                self.cut_off(number, until);
            }
            self.again(faults.site_interval_ms, What::SiteOutage);
        }
        Ok(())
    }

    fn cut_off(&mut self, number: u32, until: At) {
        let device = self.device(number);
        device.windows.network = device.windows.network.max(until);
        device.session = None;
        self.tell(number, Fact::Impaired { by: Impairment::Partition, until });
        self.schedule(until, What::Wake { device: number, clock_was_set: false });
    }

    pub(super) fn trouble(&mut self, number: u32) -> Result<(), Broken> {
        if self.at >= self.heal_at {
            return Ok(());
        }
        let interval_ms = self.settings.faults.trouble_interval_ms;
        let device = self.device(number);
        let wait_ms = faults::wait_ms(&mut device.dice, interval_ms);
        let (trouble, ms) = faults::trouble(&mut device.dice);
        let is_on = device.machine.is_some();
        if let Some(wait_ms) = wait_ms {
            self.schedule_in(wait_ms, What::Trouble { device: number });
        }
        if is_on {
            self.befall(number, trouble, ms);
        }
        Ok(())
    }

    fn befall(&mut self, number: u32, trouble: Trouble, ms: u64) {
        let (at, heal_at) = (self.at, self.heal_at);
        let end = until(&mut self.device(number).dice, at, ms, heal_at);
        let off_ms = end.ms_since(self.at);
        match trouble {
            Trouble::Clock => self.step_clock(number, end),
            Trouble::Damage => {
                let device = self.device(number);
                if device.disk.damage(&mut device.dice) {
                    self.tell(number, Fact::CopyDamaged);
                }
                self.power_cut(number, None, off_ms);
            }
            Trouble::Disk => {
                self.device(number).windows.disk = end;
                self.tell(number, Fact::Impaired { by: Impairment::Disk, until: end });
            }
            Trouble::KeyLoss => {
                self.lose_key(number);
                self.power_cut(number, None, off_ms);
            }
            Trouble::KeyStore => {
                self.device(number).windows.keys = end;
                self.tell(number, Fact::Impaired { by: Impairment::KeyStore, until: end });
            }
            Trouble::Partition => self.cut_off(number, end),
            Trouble::Power => self.power_cut(number, None, off_ms),
            Trouble::Suspend => {
                let device = self.device(number);
                device.windows.asleep = end;
                device.session = None;
                self.tell(number, Fact::Impaired { by: Impairment::Suspend, until: end });
                self.schedule(end, What::Wake { device: number, clock_was_set: false });
            }
        }
    }

    fn step_clock(&mut self, number: u32, end: At) {
        let device = self.device(number);
        let step = draw_step(&mut device.dice);
        device.clock.step(step, end);
        self.tell(number, Fact::Impaired { by: Impairment::Clock(step), until: end });
        for at in [self.at, end] {
            self.schedule(at, What::Wake { device: number, clock_was_set: true });
        }
    }

    fn lose_key(&mut self, number: u32) {
        let device = self.device(number);
        let slot = if device.dice.below(2) == 0 { Slot::A } else { Slot::B };
        if device.keys.key(slot).is_some() {
            device.keys.erase(slot);
            self.tell(number, Fact::KeyLost { slot });
        }
    }
}

fn draw_step(dice: &mut Dice) -> Step {
    match dice.below(3) {
        0 => Step::Epoch,
        1 => Step::Future,
        _ => Step::Past,
    }
}
