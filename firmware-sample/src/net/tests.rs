//! The network against a host at the other end of a cable, in virtual time: each rest is a
//! millisecond, and nothing takes any time but resting.

mod host;

use core::cell::Cell;
use core::net::Ipv4Addr;
use std::boxed::Box;

use embedded_io::{Read, ReadReady, Write};

use super::*;

use self::host::{Cable, Card, HOST, Manners, US};

/// A port of the host's at which somebody listens.
const OPEN_PORT: u16 = 7;

/// An address on the same network that nobody has.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 99);

/// An address on another network.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

#[derive(Clone, Copy)]
struct TestClock(&'static Cell<u64>);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.get()
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }

    fn rest(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Our end, and what is at the other end of its cable. Leaks a little: a test is a process.
fn world(manners: Manners) -> (Net<'static, Card, TestClock>, Cable) {
    let clock = TestClock(Box::leak(Box::new(Cell::new(0))));
    let (card, cable) = host::connected(manners, OPEN_PORT);
    let sockets = Box::leak(Box::new(Sockets::new()));
    let buffers = Box::leak(Box::new(Buffers::new()));
    (Net::new(card, clock, sockets, buffers, 0x1234_5678), cable)
}

fn after(net: &Net<'_, Card, TestClock>, ms: u64) -> u64 {
    net.clock().now_ms() + ms
}

/// Goal: what DHCP tells is what we use.
#[test]
fn an_address_is_taken_from_the_network() {
    let (net, _cable) = world(Manners::Echo);
    assert_eq!(net.lease(), None);
    let lease = net.wait_for_lease(after(&net, 10_000)).unwrap();
    assert_eq!(lease.address.address(), US);
    assert_eq!((lease.router, lease.name_server), (Some(HOST), Some(HOST)));
    assert_eq!(net.lease(), Some(lease));
}

/// Goal: what is written comes back whole, more of it than any buffer holds, and the end is seen
/// by both sides.
#[test]
fn octets_go_to_the_host_and_back() {
    let (net, _cable) = world(Manners::Echo);
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    for round in 0..20_u8 {
        let message: [u8; 1000] = core::array::from_fn(|i| round ^ i.to_le_bytes()[0]);
        connection.set_deadline_ms(after(&net, 1_000));
        connection.write_all(&message).unwrap();
        connection.flush().unwrap();
        let mut echo = [0; 1000];
        connection.read_exact(&mut echo).unwrap();
        assert_eq!(echo, message);
    }
    assert_eq!(connection.read_ready(), Ok(false));
    connection.close().unwrap();
}

/// Goal: each way of not getting a connection has its own name, and none takes longer than its
/// deadline.
#[test]
fn the_ways_of_not_connecting_are_told_apart() {
    let (net, cable) = world(Manners::Echo);
    let refused = net.connect(HOST, 9, after(&net, 10_000)).unwrap_err();
    assert_eq!(refused, NetError::Refused);
    let deadline_ms = after(&net, 3_000);
    let silent = net.connect(NOBODY, OPEN_PORT, deadline_ms).unwrap_err();
    assert_eq!(silent, NetError::TimedOut { during: Step::Connect });
    assert_eq!(net.clock().now_ms(), deadline_ms);
    cable.unplug();
    let unplugged = net.connect(HOST, OPEN_PORT, after(&net, 3_000)).unwrap_err();
    assert_eq!(unplugged, NetError::LinkDown);
    let (net, _cable) = world(Manners::NoLeases);
    let nowhere = net.connect(HOST, OPEN_PORT, after(&net, 30_000)).unwrap_err();
    assert_eq!(nowhere, NetError::NoLease);
}

/// Goal: a host that takes everything and says nothing holds us up until the deadline, no longer.
#[test]
fn a_silent_peer_is_waited_for_until_the_deadline() {
    let (net, _cable) = world(Manners::Silent);
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    let deadline_ms = after(&net, 700);
    connection.set_deadline_ms(deadline_ms);
    connection.write_all(b"anybody?").unwrap();
    let error = connection.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error, NetError::TimedOut { during: Step::Read });
    assert_eq!(net.clock().now_ms(), deadline_ms);
}

/// Goal: a host that does not read holds us up until the deadline, too.
#[test]
fn a_peer_that_takes_nothing_is_waited_for_until_the_deadline() {
    let (net, _cable) = world(Manners::Full);
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    let deadline_ms = after(&net, 5_000);
    connection.set_deadline_ms(deadline_ms);
    let error = connection.write_all(&[0; 20_000]).unwrap_err();
    assert_eq!(error, NetError::TimedOut { during: Step::Write });
    assert_eq!(net.clock().now_ms(), deadline_ms);
}

/// Goal: the peer's end is the end of the octets, its reset is an error, and both come at once.
#[test]
fn an_end_is_no_reset() {
    let (net, _cable) = world(Manners::Goodbye);
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    let mut octets = [0; 8];
    assert_eq!(connection.read(&mut octets), Ok(3));
    assert_eq!(connection.read(&mut octets), Ok(0));
    connection.close().unwrap();
    let (net, _cable) = world(Manners::Reset);
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    connection.write_all(b"x").unwrap();
    assert_eq!(connection.read(&mut octets), Err(NetError::Reset));
    assert!(net.clock().now_ms() < 10_000, "without waiting for the deadline");
}

/// Goal: there are as many connections as are promised; one more is refused here, and one that has
/// ended makes room, however it ended.
#[test]
fn a_connection_that_ends_makes_room_for_the_next() {
    let (net, _cable) = world(Manners::Echo);
    let open = || net.connect(HOST, OPEN_PORT, after(&net, 10_000));
    let first = open().unwrap();
    assert_eq!(open().unwrap_err(), NetError::Busy);
    drop(first);
    for _ in 0..20 {
        let mut connection = open().unwrap();
        connection.write_all(b"again").unwrap();
        let mut octets = [0; 5];
        connection.read_exact(&mut octets).unwrap();
        assert_eq!(&octets, b"again");
        connection.close().unwrap();
    }
}

/// Goal: a cable that was out and comes back is used again, and the address is asked for anew.
#[test]
fn a_cable_that_comes_back_is_used_again() {
    let (net, cable) = world(Manners::Echo);
    net.wait_for_lease(after(&net, 10_000)).unwrap();
    cable.unplug();
    net.wait(after(&net, 2_000));
    net.connect(HOST, OPEN_PORT, after(&net, 2_000)).unwrap_err();
    let leases = cable.leases();
    cable.plug_in();
    let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 10_000)).unwrap();
    connection.write_all(b"back").unwrap();
    connection.read_exact(&mut [0; 4]).unwrap();
    assert!(cable.leases() > leases);
}

/// Goal: a router that cannot be one is none: who asks for a host on another network hears that
/// nobody answers.
#[test]
fn a_router_that_cannot_be_one_is_none() {
    for router in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        let (net, _cable) = world(Manners::Router(router));
        assert_eq!(net.wait_for_lease(after(&net, 10_000)).unwrap().router, None);
        let error = net.connect(ELSEWHERE, OPEN_PORT, after(&net, 3_000)).unwrap_err();
        assert_eq!(error, NetError::TimedOut { during: Step::Connect });
        let mut connection = net.connect(HOST, OPEN_PORT, after(&net, 3_000)).unwrap();
        connection.write_all(b"near").unwrap();
    }
}

/// Goal: a lease by a server that cannot be asked to renew it is none.
#[test]
fn a_lease_by_nobody_is_none() {
    let (net, _cable) = world(Manners::Nameless);
    assert_eq!(net.wait_for_lease(after(&net, 120_000)), Err(NetError::NoLease));
}

/// Goal: an address is its own answer, without a network; what is neither is refused.
#[test]
fn an_address_needs_no_name_server() {
    let (net, _cable) = world(Manners::NoLeases);
    assert_eq!(net.resolve("192.0.2.7", 0), Ok(Ipv4Addr::new(192, 0, 2, 7)));
    #[cfg(not(feature = "dns"))]
    assert_eq!(net.resolve("broker.example", 0), Err(NetError::Name));
}

/// Goal: a name is looked up where the lease says; one that does not exist and a name server that
/// is silent are errors, and leave room for the next question.
#[cfg(feature = "dns")]
#[test]
fn a_name_is_looked_up() {
    let (net, _cable) = world(Manners::Echo);
    for _ in 0..3 {
        assert_eq!(net.resolve("broker.example", after(&net, 10_000)), Ok(HOST));
        assert_eq!(net.resolve("nobody.example", after(&net, 10_000)), Err(NetError::Unknown));
        assert_eq!(net.resolve("a..b", after(&net, 10_000)), Err(NetError::Name));
    }
    let (net, _cable) = world(Manners::Silent);
    for _ in 0..3 {
        let error = net.resolve("broker.example", after(&net, 2_000)).unwrap_err();
        assert_eq!(error, NetError::TimedOut { during: Step::Resolve });
    }
}
