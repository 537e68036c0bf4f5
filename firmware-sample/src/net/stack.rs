//! smoltcp, and what we ask of its sockets. Nothing here waits.

use core::net::Ipv4Addr;

use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::socket::tcp::SocketBuffer;
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr};

use crate::board::Link;

use super::sieve::Sieve;
use super::{Buffers, CONNECTIONS_MAX, Lease, NetError, Sockets, Step};

/// Frames taken in at one service: who floods us does not keep us from looking at the clock.
const FRAMES_MAX: usize = 16;

/// Between two questions for an address: the first wait of RFC 2131 §4.1.
const DISCOVER_WAIT_S: u64 = 4;

/// Between two looks at the cable.
const LINK_LOOK_MS: u64 = 500;

/// The first port that is ours to use for our ends (RFC 6335 §6).
const PORT_FIRST: u16 = 0xc000;

/// Whether a service of the stack has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Changed,
    Same,
}

/// A socket that may carry a connection.
#[derive(Clone, Copy)]
struct Slot {
    handle: SocketHandle,
    is_taken: bool,
}

pub(super) struct Stack<'a, D> {
    device: D,
    interface: Interface,
    sockets: SocketSet<'a>,
    slots: [Slot; CONNECTIONS_MAX],
    dhcp: SocketHandle,
    #[cfg(feature = "dns")]
    dns: SocketHandle,
    lease: Option<Lease>,
    link: LinkWatch,
    port: u16,
}

/// The cable, looked at now and then.
struct LinkWatch {
    is_up: bool,
    next_look_ms: u64,
}

impl<'a, D: Link> Stack<'a, D> {
    pub(super) fn new(
        mut device: D,
        memory: &'a mut Sockets<'a>,
        buffers: &'a mut Buffers,
        seed: u64,
        now_ms: u64,
    ) -> Self {
        let mut config = Config::new(EthernetAddress(device.mac()).into());
        config.random_seed = seed;
        let interface = Interface::new(config, &mut device, instant(now_ms));
        let mut sockets = SocketSet::new(&mut memory.storage[..]);
        let mut dhcp = dhcpv4::Socket::new();
        let mut retry = dhcp.get_retry_config();
        retry.discover_timeout = Duration::from_secs(DISCOVER_WAIT_S);
        dhcp.set_retry_config(retry);
        let dhcp = sockets.add(dhcp);
        #[cfg(feature = "dns")]
        let dns = sockets.add(smoltcp::socket::dns::Socket::new(&[], &mut memory.queries[..]));
        let [receive] = &mut buffers.receive;
        let [send] = &mut buffers.send;
        let slots = [(receive, send)].map(|(receive, send)| {
            let (receive, send) = (&mut receive[..], &mut send[..]);
            let mut socket = tcp::Socket::new(SocketBuffer::new(receive), SocketBuffer::new(send));
            // We write whole messages: waiting for more only delays the peer's answer.
            socket.set_nagle_enabled(false);
            Slot { handle: sockets.add(socket), is_taken: false }
        });
        let [low, high, ..] = seed.to_le_bytes();
        Self {
            device,
            interface,
            sockets,
            slots,
            dhcp,
            #[cfg(feature = "dns")]
            dns,
            lease: None,
            link: LinkWatch { is_up: true, next_look_ms: now_ms },
            // Another one after each start: the peer may still hold what a power cut has ended.
            port: PORT_FIRST | u16::from_le_bytes([low, high]),
        }
    }

    /// Takes in and sends out what there is, a bounded amount.
    pub(super) fn poll(&mut self, now_ms: u64) -> State {
        self.watch_link(now_ms);
        let now = instant(now_ms);
        let mut state = State::Same;
        for _ in 0..FRAMES_MAX {
            let mut device = Sieve(&mut self.device);
            match self.interface.poll_ingress_single(now, &mut device, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => state = State::Changed,
            }
        }
        let sent = self.interface.poll_egress(now, &mut self.device, &mut self.sockets);
        if sent == PollResult::SocketStateChanged {
            state = State::Changed;
        }
        self.take_lease();
        state
    }

    /// A cable that comes back may lead into another network: the address is asked for again.
    fn watch_link(&mut self, now_ms: u64) {
        if now_ms < self.link.next_look_ms {
            return;
        }
        self.link.next_look_ms = now_ms.saturating_add(LINK_LOOK_MS);
        let is_up = self.device.is_up();
        if is_up && !self.link.is_up {
            self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).reset();
        }
        self.link.is_up = is_up;
    }

    /// smoltcp takes whatever is named as a router, and asserts that it is a host when it asks for it.
    fn take_lease(&mut self) {
        let lease = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).poll() {
            None => return,
            Some(dhcpv4::Event::Deconfigured) => None,
            Some(dhcpv4::Event::Configured(config)) => Some(Lease {
                address: config.address,
                router: config.router.filter(is_of_host),
                name_server: config.dns_servers.first().copied(),
            }),
        };
        self.lease = lease;
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // There is room for two.
            let _ = lease.map(|lease| addresses.push(IpCidr::Ipv4(lease.address)));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        // There is room for two of these, too.
        let _ = lease.and_then(|lease| lease.router).map(|by| routes.add_default_ipv4_route(by));
        #[cfg(feature = "dns")]
        self.use_name_server(lease.and_then(|lease| lease.name_server));
    }

    pub(super) const fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// Why nobody has answered, as far as we can see.
    pub(super) fn silence(&mut self, during: Step) -> NetError {
        if !self.device.is_up() {
            NetError::LinkDown
        } else if self.lease.is_none() {
            NetError::NoLease
        } else {
            NetError::TimedOut { during }
        }
    }

    /// Begins to connect; the slot is taken until it is released.
    pub(super) fn connect(&mut self, address: Ipv4Addr, port: u16) -> Result<usize, NetError> {
        let free = self.slots.iter().position(|slot| !slot.is_taken).ok_or(NetError::Busy)?;
        let slot = self.slots.get_mut(free).ok_or(NetError::Busy)?;
        self.port = PORT_FIRST | self.port.wrapping_add(1);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(slot.handle);
        let context = self.interface.context();
        socket.connect(context, (address, port), self.port).map_err(|why| match why {
            tcp::ConnectError::InvalidState => NetError::Busy,
            tcp::ConnectError::Unaddressable => NetError::Name,
        })?;
        slot.is_taken = true;
        Ok(free)
    }

    pub(super) fn connected(&mut self, slot: usize) -> Option<Result<(), NetError>> {
        match self.socket(slot)?.state() {
            tcp::State::SynSent | tcp::State::SynReceived => None,
            tcp::State::Closed => Some(Err(NetError::Refused)),
            _ => Some(Ok(())),
        }
    }

    /// Octets that have come; none are the peer's end.
    pub(super) fn receive(
        &mut self,
        slot: usize,
        octets: &mut [u8],
    ) -> Option<Result<usize, NetError>> {
        let socket = self.socket(slot)?;
        match socket.recv_slice(octets) {
            Ok(0) => None,
            Ok(len) => Some(Ok(len)),
            Err(tcp::RecvError::Finished) => Some(Ok(0)),
            Err(tcp::RecvError::InvalidState) => Some(Err(NetError::Reset)),
        }
    }

    pub(super) fn is_readable(&mut self, slot: usize) -> bool {
        self.socket(slot).is_none_or(|socket| socket.can_recv() || !socket.may_recv())
    }

    pub(super) fn send(&mut self, slot: usize, octets: &[u8]) -> Option<Result<usize, NetError>> {
        match self.socket(slot)?.send_slice(octets) {
            Ok(0) => None,
            Ok(len) => Some(Ok(len)),
            Err(tcp::SendError::InvalidState) => Some(Err(NetError::Reset)),
        }
    }

    pub(super) fn sent(&mut self, slot: usize) -> Option<Result<(), NetError>> {
        let socket = self.socket(slot)?;
        match (socket.send_queue(), socket.state()) {
            (0, _) => Some(Ok(())),
            (_, tcp::State::Closed) => Some(Err(NetError::Reset)),
            _ => None,
        }
    }

    pub(super) fn close(&mut self, slot: usize) {
        if let Some(socket) = self.socket(slot) {
            socket.close();
        }
    }

    /// Whether both ends are closed, and everything is acknowledged (RFC 9293 §3.3.2).
    pub(super) fn closed(&mut self, slot: usize) -> Option<Result<(), NetError>> {
        let socket = self.socket(slot)?;
        match (socket.state(), socket.send_queue()) {
            (tcp::State::TimeWait | tcp::State::Closed, 0) => Some(Ok(())),
            (tcp::State::Closed, _) => Some(Err(NetError::Reset)),
            _ => None,
        }
    }

    /// Breaks off what is left of the connection, tells the peer, and frees the slot.
    pub(super) fn release(&mut self, slot: usize, now_ms: u64) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        slot.is_taken = false;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(slot.handle);
        if socket.is_open() {
            socket.abort();
            self.interface.poll_egress(instant(now_ms), &mut self.device, &mut self.sockets);
        }
    }

    fn socket(&mut self, slot: usize) -> Option<&mut tcp::Socket<'a>> {
        let handle = self.slots.get(slot)?.handle;
        Some(self.sockets.get_mut(handle))
    }
}

#[cfg(feature = "dns")]
mod names {
    //! Questions to the network's name server, one at a time.

    use smoltcp::socket::dns::{GetQueryResultError, QueryHandle, Socket, StartQueryError};
    use smoltcp::wire::{DnsQueryType, IpAddress};

    use super::{Ipv4Addr, Link, NetError, Stack};

    impl<D: Link> Stack<'_, D> {
        pub(super) fn use_name_server(&mut self, server: Option<Ipv4Addr>) {
            let servers = server.map(IpAddress::Ipv4);
            self.sockets.get_mut::<Socket<'_>>(self.dns).update_servers(servers.as_slice());
        }

        pub(in super::super) fn ask(&mut self, name: &str) -> Result<QueryHandle, NetError> {
            if self.lease.is_none_or(|lease| lease.name_server.is_none()) {
                return Err(NetError::NoNameServer);
            }
            let socket = self.sockets.get_mut::<Socket<'_>>(self.dns);
            socket.start_query(self.interface.context(), name, DnsQueryType::A).map_err(|why| {
                match why {
                    StartQueryError::NoFreeSlot => NetError::Busy,
                    StartQueryError::InvalidName | StartQueryError::NameTooLong => NetError::Name,
                }
            })
        }

        /// The query is over when there is an answer.
        pub(in super::super) fn answer(
            &mut self,
            query: QueryHandle,
        ) -> Option<Result<Ipv4Addr, NetError>> {
            match self.sockets.get_mut::<Socket<'_>>(self.dns).get_query_result(query) {
                Err(GetQueryResultError::Pending) => None,
                Err(GetQueryResultError::Failed) => Some(Err(NetError::Unknown)),
                Ok(addresses) => Some(addresses.first().map_or(Err(NetError::Unknown), |first| {
                    let IpAddress::Ipv4(address) = *first;
                    Ok(address)
                })),
            }
        }

        /// Gives up a query that was not answered.
        pub(in super::super) fn forget(&mut self, query: QueryHandle) {
            self.sockets.get_mut::<Socket<'_>>(self.dns).cancel_query(query);
        }
    }
}

/// Whether a host can have this address: RFC 1122 §3.2.1.3.
fn is_of_host(address: &Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_broadcast() || address.is_multicast())
}

/// smoltcp counts in signed microseconds: there is room for 292,000 years.
fn instant(now_ms: u64) -> Instant {
    Instant::from_millis(i64::try_from(now_ms).unwrap_or(i64::MAX / 1000))
}
