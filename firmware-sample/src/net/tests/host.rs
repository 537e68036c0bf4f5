//! The other end of the cable: a host with an own smoltcp, a DHCP server, and one port at which it
//! shows its manners.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use core::net::Ipv4Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, IpCidr, IpEndpoint};

use crate::board::{Link, MAC_LEN};

/// The host's address; it is the router, too.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The address that it gives us.
pub(super) const US: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

const HOST_MAC: [u8; MAC_LEN] = [2, 0, 0, 0, 0, 1];
const OUR_MAC: [u8; MAC_LEN] = [2, 0, 0, 0, 0, 2];

/// Sockets that listen at the port: as many connections as we try, and some that linger.
const LISTENERS: usize = 4;

/// How the host behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// Sends back what it gets.
    Echo,
    /// Takes a connection, and reads nothing.
    Full,
    /// Sends three octets and its end.
    Goodbye,
    /// Gives addresses without saying what its own is, for a minute.
    Nameless,
    /// Gives no addresses.
    NoLeases,
    /// Breaks off after the first octet.
    Reset,
    /// Tells that other networks are reached by way of this.
    Router(Ipv4Addr),
    /// Reads everything, and says nothing.
    Silent,
}

/// Our end of the cable.
pub(super) struct Card(Rc<RefCell<World>>);

/// A hand on the cable.
pub(super) struct Cable(Rc<RefCell<World>>);

struct World {
    host: Host,
    is_plugged: bool,
}

struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    dns: SocketHandle,
    listeners: [SocketHandle; LISTENERS],
    port: u16,
    manners: Manners,
    leases: usize,
}

/// What is under way.
#[derive(Default)]
struct Wire {
    to_host: VecDeque<Vec<u8>>,
    to_us: VecDeque<Vec<u8>>,
}

/// A card, and a cable from it to a host.
pub(super) fn connected(manners: Manners, port: u16) -> (Card, Cable) {
    let world = World { host: Host::new(manners, port), is_plugged: true };
    let world = Rc::new(RefCell::new(world));
    (Card(world.clone()), Cable(world))
}

impl Cable {
    pub(super) fn unplug(&self) {
        self.0.borrow_mut().is_plugged = false;
    }

    pub(super) fn plug_in(&self) {
        self.0.borrow_mut().is_plugged = true;
    }

    /// Addresses given so far.
    pub(super) fn leases(&self) -> usize {
        self.0.borrow().host.leases
    }
}

impl Host {
    fn new(manners: Manners, port: u16) -> Self {
        let mut wire = Wire::default();
        let config = Config::new(EthernetAddress(HOST_MAC).into());
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(HOST.into(), 24)).unwrap();
        });
        let mut sockets = SocketSet::new(vec![]);
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
        let mut dhcp = udp::Socket::new(buffer(), buffer());
        dhcp.bind(67).unwrap();
        let dhcp = sockets.add(dhcp);
        let mut dns = udp::Socket::new(buffer(), buffer());
        dns.bind(53).unwrap();
        let dns = sockets.add(dns);
        let listeners = [(); LISTENERS].map(|()| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
            sockets.add(tcp::Socket::new(buffer(), buffer()))
        });
        Self { wire, interface, sockets, dhcp, dns, listeners, port, manners, leases: 0 }
    }

    fn step(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.give_leases();
        self.tell_names();
        for listener in self.listeners {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(listener);
            behave(socket, self.manners, self.port);
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    fn tell_names(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dns);
        while let Ok((question, from)) = socket.recv() {
            let answer = answer(question);
            if self.manners != Manners::Silent {
                socket.send_slice(&answer, from.endpoint).unwrap();
            }
        }
    }

    fn give_leases(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.dhcp);
        while let Ok((datagram, _)) = socket.recv() {
            let packet = DhcpPacket::new_checked(datagram).unwrap();
            let asked = DhcpRepr::parse(&packet).unwrap();
            let message_type = match asked.message_type {
                _ if self.manners == Manners::NoLeases => continue,
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                DhcpMessageType::Request => DhcpMessageType::Ack,
                _ => continue,
            };
            self.leases += usize::from(message_type == DhcpMessageType::Ack);
            let (router, lease_s, from) = match self.manners {
                Manners::Router(router) => (router, 86_400, None),
                Manners::Nameless => (HOST, 60, Some(Ipv4Addr::UNSPECIFIED.into())),
                _ => (HOST, 86_400, None),
            };
            let answer = DhcpRepr {
                message_type,
                your_ip: US,
                server_ip: HOST,
                router: Some(router),
                subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                server_identifier: Some(HOST),
                dns_servers: Some([HOST].into_iter().collect()),
                lease_duration: Some(lease_s),
                requested_ip: None,
                client_identifier: None,
                parameter_request_list: None,
                max_size: None,
                ..asked.clone()
            };
            let mut octets = vec![0; answer.buffer_len()];
            answer.emit(&mut DhcpPacket::new_unchecked(&mut octets)).unwrap();
            let to = udp::UdpMetadata {
                local_address: from,
                ..udp::UdpMetadata::from(IpEndpoint::from((Ipv4Addr::BROADCAST, 68)))
            };
            socket.send_slice(&octets, to).unwrap();
        }
    }
}

/// The answer to a question for an address, by RFC 1035 §4: ours for every name with a `b` at its
/// start, and that there is no such name for all others.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    let is_known = question[13] == b'b';
    answer[2..4].copy_from_slice(if is_known { &[0x81, 0x80] } else { &[0x81, 0x83] });
    if is_known {
        answer[7] = 1;
        // The name of the question, A, IN, a minute, four octets.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(HOST.octets());
    }
    answer
}

fn behave(socket: &mut tcp::Socket<'_>, manners: Manners, port: u16) {
    if !socket.is_open() {
        socket.listen(port).unwrap();
        return;
    }
    match manners {
        Manners::Echo | Manners::Nameless | Manners::NoLeases | Manners::Router(_) => {
            let mut octets = [0; 512];
            while socket.can_send() && socket.can_recv() {
                let room = octets.len().min(socket.send_capacity() - socket.send_queue());
                let len = socket.recv_slice(&mut octets[..room]).unwrap();
                assert_eq!(socket.send_slice(&octets[..len]), Ok(len));
            }
        }
        Manners::Full => {}
        Manners::Goodbye if socket.may_send() => {
            socket.send_slice(b"bye").unwrap();
            socket.close();
        }
        Manners::Goodbye => {}
        Manners::Reset if socket.can_recv() => socket.abort(),
        Manners::Reset => {}
        Manners::Silent => while socket.recv_slice(&mut [0; 512]).is_ok_and(|len| len > 0) {},
    }
    // The peer has ended: so do we.
    if socket.state() == tcp::State::CloseWait {
        socket.close();
    }
}

impl Link for Card {
    fn is_up(&mut self) -> bool {
        self.0.borrow().is_plugged
    }

    fn mac(&self) -> [u8; MAC_LEN] {
        OUR_MAC
    }
}

impl Device for Card {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room;

    fn receive(&mut self, now: Instant) -> Option<(Frame, Room)> {
        let mut world = self.0.borrow_mut();
        world.host.step(now);
        let frame = world.host.wire.to_us.pop_front()?;
        world.is_plugged.then(|| (Frame(frame), Room(self.0.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room> {
        Some(Room(self.0.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        ethernet()
    }
}

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = HostRoom<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, HostRoom<'_>)> {
        let frame = self.to_host.pop_front()?;
        Some((Frame(frame), HostRoom(&mut self.to_us)))
    }

    fn transmit(&mut self, _: Instant) -> Option<HostRoom<'_>> {
        Some(HostRoom(&mut self.to_us))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        ethernet()
    }
}

fn ethernet() -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = 1514;
    capabilities
}

/// A frame that has come.
pub(super) struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame of ours; without a cable it is lost.
pub(super) struct Room(Rc<RefCell<World>>);

impl TxToken for Room {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let outcome = f(&mut frame);
        let mut world = self.0.borrow_mut();
        if world.is_plugged {
            world.host.wire.to_host.push_back(frame);
        }
        outcome
    }
}

/// Room for a frame of the host's.
pub(super) struct HostRoom<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for HostRoom<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let outcome = f(&mut frame);
        self.0.push_back(frame);
        outcome
    }
}
