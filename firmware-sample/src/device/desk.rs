//! Where the machine's shell and the driver meet.
//!
//! **What it is.** The shell is a future that only waits; the driver polls it and does the work.
//! What needs the network goes over this desk: the shell lays an [`Order`] on it and waits, the
//! driver takes it, does it with the one connection there is room for, and lays a [`Reply`] in its
//! place. The other way go commands; and reports, which the driver tells the fleet when it can.
//!
//! **What it must never do.** Hold two papers: an order is answered before the next is given, as
//! the machine does one thing at a time.
//!
//! **Why that is sound.** There is one thread of control. A paper is moved in and out whole, and
//! nobody holds the desk while doing anything else.

use core::cell::{Cell, RefCell, RefMut};
use core::future::poll_fn;
use core::task::Poll;

use fleetcert_core::event::{Event, Failure};
use fleetcert_core::lifecycle::{Command, Phase};
use fleetcert_core::port::{Advice, Answer, Proof};
use fleetcert_core::record::{Identity, Request, Slot};
use fleetcert_core::time::{Mono, Reading, Wall};
use heapless::Deque;

/// Reports that wait to be told, at most; of more, the oldest are on the serial line only.
const REPORTS_MAX: usize = 8;

/// What the machine wants of the network. The identities that it means are those of the durable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The slot's identity is to be used from now on.
    Adopt { slot: Slot },
    /// The provisioner's advice about the slot's identity.
    Consult { slot: Slot, reading: Reading },
    /// A certificate for the key in `slot`, asked for with the identity in use where there is one.
    Enroll { slot: Slot, request: Request, current: Option<Slot>, reading: Reading },
    /// Whether provisioner and broker accept the slot's identity.
    Prove { slot: Slot, reading: Reading },
    /// No identity is to be used any more.
    Release,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Of [`Order::Consult`].
    Consulted(Answer<Advice>),
    /// Of [`Order::Adopt`] and [`Order::Release`].
    Done(Result<(), Failure>),
    /// Of [`Order::Enroll`]; an identity that was issued lies on the desk beside it.
    Enrolled(Answer<()>),
    /// Of [`Order::Prove`].
    Proven(Answer<Proof>),
}

/// What lies on the desk.
#[derive(Debug)]
enum Paper {
    Nothing,
    Order(Order),
    Reply(Reply),
}

/// What the machine last said of itself.
#[derive(Clone, Copy, Debug)]
struct View {
    phase: Phase,
    reading: Reading,
    at: Mono,
}

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    paper: RefCell<Paper>,
    /// What was issued last.
    issued: RefCell<Identity>,
    /// When the shell is to be woken, while it waits for nothing else.
    alarm: Cell<Option<Mono>>,
    command: Cell<Option<Command>>,
    /// What happened, and when.
    reports: RefCell<Deque<(Mono, Event), REPORTS_MAX>>,
    view: Cell<View>,
    is_over: Cell<bool>,
}

impl Desk {
    /// An empty desk of a device that knows `reading` of the time.
    pub(super) const fn new(reading: Reading, at: Mono) -> Self {
        Self {
            paper: RefCell::new(Paper::Nothing),
            issued: RefCell::new(Identity::new()),
            alarm: Cell::new(None),
            command: Cell::new(None),
            reports: RefCell::new(Deque::new()),
            view: Cell::new(View { phase: Phase::Unenrolled, reading, at }),
            is_over: Cell::new(false),
        }
    }

    /// For the shell: what was issued, after the reply that says so.
    pub(super) fn issued(&self) -> Option<Identity> {
        Some(self.issued.try_borrow().ok()?.clone())
    }

    /// For the driver: where to lay what is issued, before it answers.
    pub(super) fn issue(&self) -> Option<RefMut<'_, Identity>> {
        self.issued.try_borrow_mut().ok()
    }

    /// For the shell: gives an order and waits for what comes of it.
    pub(super) async fn ask(&self, order: Order) -> Option<Reply> {
        self.put(Paper::Order(order));
        poll_fn(|_| match self.take(|paper| matches!(paper, Paper::Reply(_))) {
            Some(Paper::Reply(reply)) => Poll::Ready(Some(reply)),
            Some(_) | None => Poll::Pending,
        })
        .await
    }

    /// For the shell: waits for a command, or until `deadline` by the clock that `now` reads.
    pub(super) async fn sleep(&self, deadline: Mono, now: impl Fn() -> Mono) -> Option<Command> {
        self.alarm.set(Some(deadline));
        let command = poll_fn(|_| match self.command.take() {
            Some(command) => Poll::Ready(Some(command)),
            None if now() >= deadline => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await;
        self.alarm.set(None);
        command
    }

    /// For the shell: how the machine stands now.
    pub(super) fn show(&self, phase: Phase, reading: Reading, at: Mono) {
        self.view.set(View { phase, reading, at });
    }

    /// For the shell: this life in the fleet is over, and that is durable.
    pub(super) fn end(&self) {
        self.is_over.set(true);
    }

    /// For the shell: something happened.
    pub(super) fn report(&self, at: Mono, event: &Event) {
        let Ok(mut reports) = self.reports.try_borrow_mut() else { return };
        if reports.is_full() {
            let _oldest = reports.pop_front();
        }
        let _room = reports.push_back((at, event.clone()));
    }

    /// For the driver: the order that waits, if one does. It is to be answered.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.take_order_if(|_| true)
    }

    /// For the driver: the order that waits, if it is such a one.
    pub(super) fn take_order_if(&self, is: impl FnOnce(&Order) -> bool) -> Option<Order> {
        match self.take(|paper| matches!(paper, Paper::Order(order) if is(order))) {
            Some(Paper::Order(order)) => Some(order),
            Some(_) | None => None,
        }
    }

    /// For the driver: whether an order waits.
    pub(super) fn has_order(&self) -> bool {
        self.paper.try_borrow().is_ok_and(|paper| matches!(&*paper, Paper::Order(_)))
    }

    /// For the driver: answers the order that was taken.
    pub(super) fn answer(&self, reply: Reply) {
        self.put(Paper::Reply(reply));
    }

    /// For the driver: hands a command to the machine; whether there was room for it.
    pub(super) fn command(&self, command: Command) -> bool {
        let waiting = self.command.take();
        self.command.set(waiting.or(Some(command)));
        waiting.is_none()
    }

    /// For the driver: the next report, with whoever takes it saying whether it is told.
    pub(super) fn tell(&self, told: &mut dyn FnMut(Mono, &Event) -> bool) {
        let Ok(mut reports) = self.reports.try_borrow_mut() else { return };
        while reports.front().is_some_and(|(at, event)| told(*at, event)) {
            let _told = reports.pop_front();
        }
    }

    /// For the driver: when the shell wants to be asked again.
    pub(super) fn alarm(&self) -> Option<Mono> {
        self.alarm.get()
    }

    /// For the driver: whether this life in the fleet is over, durably.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// For the driver: where the device stands.
    pub(super) fn phase(&self) -> Phase {
        self.view.get().phase
    }

    /// For the driver: when that was, in civil time, if the machine knows it now.
    pub(super) fn wall(&self, at: Mono) -> Option<Wall> {
        let View { reading, at: seen, .. } = self.view.get();
        let (ahead_s, ago_s) = (at.ms_since(seen) / 1000, seen.ms_since(at) / 1000);
        reading.wall.map(|wall| wall.plus_s(ahead_s).minus_s(ago_s))
    }

    /// For the driver: what the machine knows of the time at `now`.
    pub(super) fn reading(&self, now: Mono) -> Reading {
        Reading { wall: self.wall(now), ..self.view.get().reading }
    }

    fn put(&self, paper: Paper) {
        // Nobody holds it while doing anything else.
        if let Ok(mut place) = self.paper.try_borrow_mut() {
            *place = paper;
        }
    }

    fn take(&self, is: impl FnOnce(&Paper) -> bool) -> Option<Paper> {
        let mut place = self.paper.try_borrow_mut().ok()?;
        is(&place).then(|| core::mem::replace(&mut *place, Paper::Nothing))
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;
    use core::task::{Context, Waker};

    use fleetcert_core::time::Confidence;

    use super::*;

    const READING: Reading =
        Reading { wall: Some(Wall(100)), confidence: Confidence::Trusted, floor: Wall(50) };

    fn desk() -> Desk {
        Desk::new(READING, Mono(0))
    }

    fn poll<T>(future: core::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Goal: an order waits until it is answered, and is given out once.
    #[test]
    fn an_order_is_taken_once_and_its_reply_goes_to_who_asked() {
        let desk = desk();
        let mut asking = pin!(desk.ask(Order::Release));
        assert_eq!(poll(asking.as_mut()), Poll::Pending);
        assert_eq!((desk.has_order(), desk.take_order_if(|_| false)), (true, None));
        assert_eq!(desk.take_order(), Some(Order::Release));
        assert_eq!((desk.has_order(), desk.take_order()), (false, None));
        assert_eq!(poll(asking.as_mut()), Poll::Pending);
        desk.answer(Reply::Done(Ok(())));
        assert_eq!(desk.take_order(), None);
        assert_eq!(poll(asking), Poll::Ready(Some(Reply::Done(Ok(())))));
    }

    /// Goal: a sleeper wakes for a command and for the time, and for nothing else.
    #[test]
    fn a_sleeper_wakes_for_a_command_or_at_its_time() {
        let (desk, now) = (desk(), Cell::new(Mono(0)));
        let mut sleeping = pin!(desk.sleep(Mono(10), || now.get()));
        assert_eq!(poll(sleeping.as_mut()), Poll::Pending);
        assert_eq!(desk.alarm(), Some(Mono(10)));
        now.set(Mono(10));
        assert_eq!(poll(sleeping), Poll::Ready(None));
        assert_eq!(desk.alarm(), None);
        assert!(desk.command(Command::Renew));
        assert!(!desk.command(Command::Decommission), "there is room for one");
        let awake = pin!(desk.sleep(Mono(20), || now.get()));
        assert_eq!(poll(awake), Poll::Ready(Some(Command::Renew)));
    }

    /// Goal: reports are told in order, kept while nobody listens, and the oldest give way.
    #[test]
    fn reports_wait_in_order_and_the_oldest_give_way() {
        let desk = desk();
        for offered in 0..=u64::try_from(REPORTS_MAX).unwrap() {
            desk.report(Mono(offered), &Event::ClockRefused { offered: Wall(offered) });
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
    fn a_reading_goes_on_with_the_clock() {
        let desk = desk();
        desk.show(Phase::Active, READING, Mono(5_000));
        assert_eq!(desk.reading(Mono(8_999)).wall, Some(Wall(103)));
        assert_eq!(desk.wall(Mono(2_001)), Some(Wall(98)), "and back to what was before");
        assert_eq!(desk.phase(), Phase::Active);
    }
}
