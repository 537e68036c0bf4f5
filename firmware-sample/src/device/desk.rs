//! What lies between the machine, the session with the broker, and the provisioner's answers.
//!
//! **What it is.** Whoever speaks to the fleet has the connection in his hands, and not the machine:
//! a command for the machine is laid on the desk, reports for the fleet wait there, what the
//! provisioner has issued lies there until the machine takes it, and how the machine stands is shown.
//!
//! **What it must never do.** Lose a command that was taken: there is room for one, and whoever
//! brings a second one is told.
//!
//! **Why that is sound.** There is one thread of control, and nobody holds the desk while doing
//! anything else.

use core::cell::{Cell, RefCell, RefMut};

use fleetcert_core::event::Event;
use fleetcert_core::lifecycle::{Command, Phase};
use fleetcert_core::record::Identity;
use fleetcert_core::time::{Mono, Wall};
use heapless::Deque;

/// Reports that wait to be told, at most; of more, the oldest are on the serial line only.
const REPORTS_MAX: usize = 8;

/// What the machine last said of itself.
#[derive(Clone, Copy, Debug)]
struct View {
    phase: Phase,
    /// Civil time at `at`, where it was known.
    wall: Option<Wall>,
    at: Mono,
}

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    /// What was issued last.
    issued: RefCell<Identity>,
    command: Cell<Option<Command>>,
    /// What happened, and when.
    reports: RefCell<Deque<(Mono, Event), REPORTS_MAX>>,
    view: Cell<View>,
}

impl Desk {
    /// An empty desk.
    pub(super) const fn new() -> Self {
        Self {
            issued: RefCell::new(Identity::new()),
            command: Cell::new(None),
            reports: RefCell::new(Deque::new()),
            view: Cell::new(View { phase: Phase::Unenrolled, wall: None, at: Mono(0) }),
        }
    }

    /// Where to lay what is issued, and where it lies after the answer that says so.
    pub(super) fn issued(&self) -> Option<RefMut<'_, Identity>> {
        self.issued.try_borrow_mut().ok()
    }

    /// How the machine stands now.
    pub(super) fn show(&self, phase: Phase, wall: Option<Wall>, at: Mono) {
        self.view.set(View { phase, wall, at });
    }

    /// Something happened.
    pub(super) fn report(&self, at: Mono, event: Event) {
        let Ok(mut reports) = self.reports.try_borrow_mut() else { return };
        if reports.is_full() {
            let _oldest = reports.pop_front();
        }
        let _room = reports.push_back((at, event));
    }

    /// Hands a command to the machine; whether there was room for it.
    pub(super) fn command(&self, command: Command) -> bool {
        let waiting = self.command.take();
        self.command.set(waiting.or(Some(command)));
        waiting.is_none()
    }

    /// For the machine: what it is to do.
    pub(super) const fn take_command(&self) -> Option<Command> {
        self.command.replace(None)
    }

    /// The next report, with whoever takes it saying whether it is told.
    pub(super) fn tell(&self, told: &mut dyn FnMut(Mono, &Event) -> bool) {
        let Ok(mut reports) = self.reports.try_borrow_mut() else { return };
        while reports.front().is_some_and(|(at, event)| told(*at, event)) {
            let _told = reports.pop_front();
        }
    }

    /// Where the device stands.
    pub(super) fn phase(&self) -> Phase {
        self.view.get().phase
    }

    /// What `at` is in civil time, if the machine knows that now.
    pub(super) fn wall(&self, at: Mono) -> Option<Wall> {
        let View { wall, at: seen, .. } = self.view.get();
        let (ahead_s, ago_s) = (at.ms_since(seen) / 1000, seen.ms_since(at) / 1000);
        wall.map(|wall| wall.plus_s(ahead_s).minus_s(ago_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a command is handed over once, and a second one is not taken meanwhile.
    #[test]
    fn there_is_room_for_one_command_until_it_is_taken() {
        let desk = Desk::new();
        assert_eq!(desk.take_command(), None);
        assert!(desk.command(Command::Renew));
        assert!(!desk.command(Command::Decommission), "there is room for one");
        assert_eq!((desk.take_command(), desk.take_command()), (Some(Command::Renew), None));
        assert!(desk.command(Command::Decommission));
    }

    /// Goal: reports are told in order, kept while nobody listens, and the oldest give way.
    #[test]
    fn reports_wait_in_order_and_the_oldest_give_way() {
        let desk = Desk::new();
        for offered in 0..=u64::try_from(REPORTS_MAX).unwrap() {
            desk.report(Mono(offered), Event::ClockRefused { offered: Wall(offered) });
        }
        desk.tell(&mut |_, _| false);
        let mut told = std::vec::Vec::new();
        desk.tell(&mut |at, event| {
            told.push((at, event.clone()));
            told.len() < 3
        });
        desk.tell(&mut |at, event| {
            told.push((at, event.clone()));
            true
        });
        let offered = |(at, event): &(Mono, Event)| match event {
            Event::ClockRefused { offered } if offered.0 == at.0 => offered.0,
            other => panic!("{other:?} at {at:?}"),
        };
        let told: std::vec::Vec<u64> = told.iter().map(offered).collect();
        assert_eq!(told, [1, 2, 3, 3, 4, 5, 6, 7, 8]);
    }

    /// Goal: what is known of the time goes on with the clock.
    #[test]
    fn what_is_known_of_the_time_goes_on_with_the_clock() {
        let desk = Desk::new();
        assert_eq!(desk.wall(Mono(1)), None);
        desk.show(Phase::Active, Some(Wall(100)), Mono(5_000));
        assert_eq!(desk.wall(Mono(8_999)), Some(Wall(103)));
        assert_eq!(desk.wall(Mono(2_001)), Some(Wall(98)), "and back to what was before");
        assert_eq!(desk.phase(), Phase::Active);
    }
}
