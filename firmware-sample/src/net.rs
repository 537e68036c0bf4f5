//! The network: an address by DHCP, names by DNS, and TCP connections that never wait without an
//! end.
//!
//! **What it is.** smoltcp over whatever a board's [`Link`] is. [`Net`] owns the stack and lends it
//! to at most [`CONNECTIONS_MAX`] [`Connection`]s, which read and write as `embedded-io` has it, so
//! that TLS can stand on them. While one of them waits, all of them are served.
//!
//! **What it must never do.** Wait without a deadline: each connection has one, an instant of the
//! board's clock that its user sets before each exchange, and all other waits have one as an
//! argument. Nor say "timeout" and leave people to guess: an unplugged cable, a network without a
//! DHCP server, a refusal, a reset and silence are different errors, because different people mend
//! them.
//!
//! **Why that is sound.** There is one loop that waits (`Net::until`); it serves the stack a
//! bounded amount, looks, and gives up at its deadline. The buffers are lent by the caller, once.

mod connection;
mod sieve;
mod stack;

#[cfg(test)]
mod tests;

use core::cell::{Cell, RefCell};
use core::fmt;
use core::net::Ipv4Addr;

use smoltcp::iface::SocketStorage;
use smoltcp::wire::Ipv4Cidr;

use crate::board::{Clock, Link};
use crate::console::show_code;

use self::stack::{Stack, State};

pub use self::connection::Connection;

/// Connections at a time (`docs/decisions/0016-one-connection-on-a-microcontroller.md`).
pub const CONNECTIONS_MAX: usize = 1;

/// Octets received and not yet read, for each connection. A sender stops there, and goes on when
/// they are read.
const RECEIVE_LEN: usize = 2048;

/// Octets written and not yet acknowledged, for each connection: a full Ethernet frame's worth.
const SEND_LEN: usize = 1536;

/// DHCP, DNS where it is built in, and the connections.
const SOCKETS: usize = CONNECTIONS_MAX + 1 + cfg!(feature = "dns") as usize;

/// The octets of the connections, lent to the stack for good: all zero, so that they cost no flash.
pub struct Buffers {
    receive: [[u8; RECEIVE_LEN]; CONNECTIONS_MAX],
    send: [[u8; SEND_LEN]; CONNECTIONS_MAX],
}

/// What smoltcp knows about its sockets, lent to it for good.
pub struct Sockets<'a> {
    storage: [SocketStorage<'a>; SOCKETS],
    #[cfg(feature = "dns")]
    queries: [Option<smoltcp::socket::dns::DnsQuery>; 1],
}

impl Buffers {
    /// Buffers that nobody uses yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            receive: [[0; RECEIVE_LEN]; CONNECTIONS_MAX],
            send: [[0; SEND_LEN]; CONNECTIONS_MAX],
        }
    }
}

impl Sockets<'_> {
    /// No sockets yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            storage: [SocketStorage::EMPTY; SOCKETS],
            #[cfg(feature = "dns")]
            queries: [None],
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Sockets<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Buffers")
    }
}

impl fmt::Debug for Sockets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

/// What the network has given us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address, and how much of it is the network's.
    pub address: Ipv4Cidr,
    /// Where packets to other networks go.
    pub router: Option<Ipv4Addr>,
    /// Who knows names.
    pub name_server: Option<Ipv4Addr>,
}

/// What was being waited for when time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Our end of the connection was closed, and the peer has not closed its own.
    Close,
    /// A connection was asked for, and nobody answered.
    Connect,
    /// The peer did not send anything.
    Read,
    /// The name server did not answer.
    Resolve,
    /// The peer did not take, or not acknowledge, what was sent.
    Write,
}

/// Why the network did not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// All connections are in use: a fault in this program, as is using the network from within
    /// its own wait.
    Busy,
    /// The cable is out.
    LinkDown,
    /// The text is neither an IPv4 address nor a name that could be asked for; without the feature
    /// `dns`, no name can be.
    Name,
    /// There is no address yet, or no longer: no DHCP server answers.
    NoLease,
    /// The network has told no name server.
    NoNameServer,
    /// The host says that nobody listens at that port.
    Refused,
    /// The peer, or something that speaks for it, has broken the connection off.
    Reset,
    /// The name server knows no IPv4 address for the name, or has been silent for ten seconds.
    Unknown,
    /// Cable and address are there, and time was up.
    TimedOut {
        /// What was being waited for.
        during: Step,
    },
}

/// The network of a board with clock `C` behind device `D`.
pub struct Net<'a, D, C> {
    stack: RefCell<Stack<'a, D>>,
    /// Of the connection in each slot, milliseconds.
    deadlines: [Cell<u64>; CONNECTIONS_MAX],
    clock: C,
}

impl<'a, D: Link, C: Clock> Net<'a, D, C> {
    /// A network on `device`, which begins to ask for an address as soon as it is served. `seed` is
    /// random: ports and sequence numbers are drawn from it.
    #[inline(never)]
    pub fn new(
        device: D,
        clock: C,
        sockets: &'a mut Sockets<'a>,
        buffers: &'a mut Buffers,
        seed: u64,
    ) -> Self {
        let stack = Stack::new(device, sockets, buffers, seed, clock.now_ms());
        Self { stack: RefCell::new(stack), deadlines: Default::default(), clock }
    }

    /// The clock that deadlines are instants of.
    pub const fn clock(&self) -> C {
        self.clock
    }

    /// Serves the stack once, without waiting: to be called whenever there is nothing else to do.
    /// Whether anything may have changed for a connection.
    pub fn poll(&self) -> bool {
        let now_ms = self.clock.now_ms();
        self.stack.try_borrow_mut().is_ok_and(|mut stack| stack.poll(now_ms) == State::Changed)
    }

    /// Serves the stack until something may have changed for a connection, or until `deadline_ms`.
    pub fn wait(&self, deadline_ms: u64) {
        while !self.poll() && self.clock.now_ms() < deadline_ms {
            self.clock.rest();
        }
    }

    /// What the network has given us, if it has.
    pub fn lease(&self) -> Option<Lease> {
        self.stack.try_borrow().ok()?.lease()
    }

    /// Waits until there is an address, until `deadline_ms`.
    ///
    /// # Errors
    ///
    /// [`NetError::LinkDown`] or [`NetError::NoLease`].
    pub fn wait_for_lease(&self, deadline_ms: u64) -> Result<Lease, NetError> {
        self.until(deadline_ms, Step::Connect, |stack| stack.lease().map(Ok))
    }

    /// The address of a host: of an IPv4 address in dots itself; with the feature `dns`, of a name
    /// the first that the network's name server tells, until `deadline_ms`.
    ///
    /// # Errors
    ///
    /// [`NetError::Name`], [`NetError::NoNameServer`], [`NetError::Unknown`], or what keeps the
    /// name server from answering.
    pub fn resolve(&self, host: &str, deadline_ms: u64) -> Result<Ipv4Addr, NetError> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        self.look_up(host, deadline_ms)
    }

    #[cfg(not(feature = "dns"))]
    fn look_up(&self, _: &str, _: u64) -> Result<Ipv4Addr, NetError> {
        Err(NetError::Name)
    }

    #[cfg(feature = "dns")]
    fn look_up(&self, name: &str, deadline_ms: u64) -> Result<Ipv4Addr, NetError> {
        self.wait_for_lease(deadline_ms)?;
        let query = self.stack.try_borrow_mut().map_err(|_| NetError::Busy)?.ask(name)?;
        let answer = self.until(deadline_ms, Step::Resolve, |stack| stack.answer(query));
        let is_open = !matches!(answer, Ok(_) | Err(NetError::Busy | NetError::Unknown));
        if is_open && let Ok(mut stack) = self.stack.try_borrow_mut() {
            stack.forget(query);
        }
        answer
    }

    /// A TCP connection, opened until `deadline_ms`, which is also its first deadline.
    ///
    /// # Errors
    ///
    /// [`NetError`]. [`NetError::Refused`] is said by the host; silence is
    /// [`NetError::TimedOut`].
    pub fn connect(
        &self,
        address: Ipv4Addr,
        port: u16,
        deadline_ms: u64,
    ) -> Result<Connection<'_, 'a, D, C>, NetError> {
        self.wait_for_lease(deadline_ms)?;
        let slot =
            self.stack.try_borrow_mut().map_err(|_| NetError::Busy)?.connect(address, port)?;
        let deadline = self.deadlines.get(slot).ok_or(NetError::Busy)?;
        deadline.set(deadline_ms);
        let connection = Connection::new(self, slot, deadline);
        self.until(deadline_ms, Step::Connect, |stack| stack.connected(slot))?;
        Ok(connection)
    }

    /// The one loop that waits: `look` is asked after each service of the stack.
    fn until<T>(
        &self,
        deadline_ms: u64,
        during: Step,
        mut look: impl FnMut(&mut Stack<'a, D>) -> Option<Result<T, NetError>>,
    ) -> Result<T, NetError> {
        loop {
            let now_ms = self.clock.now_ms();
            let mut stack = self.stack.try_borrow_mut().map_err(|_| NetError::Busy)?;
            let state = stack.poll(now_ms);
            if let Some(outcome) = look(&mut stack) {
                return outcome;
            }
            if now_ms >= deadline_ms {
                return Err(stack.silence(during));
            }
            drop(stack);
            if state == State::Same {
                self.clock.rest();
            }
        }
    }
}

impl<D, C> fmt::Debug for Net<'_, D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl NetError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::LinkDown => "no-link",
            Self::Name => "name",
            Self::NoLease => "no-lease",
            Self::NoNameServer => "no-name-server",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unknown => "name-unknown",
            Self::TimedOut { during: Step::Close } => "close-timed-out",
            Self::TimedOut { during: Step::Connect } => "connect-timed-out",
            Self::TimedOut { during: Step::Read } => "read-timed-out",
            Self::TimedOut { during: Step::Resolve } => "resolve-timed-out",
            Self::TimedOut { during: Step::Write } => "write-timed-out",
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "net", self.code())
    }
}

impl core::error::Error for NetError {}

impl embedded_io::Error for NetError {
    fn kind(&self) -> embedded_io::ErrorKind {
        use embedded_io::ErrorKind;
        match self {
            Self::Busy => ErrorKind::OutOfMemory,
            Self::LinkDown | Self::NoLease => ErrorKind::NotConnected,
            Self::Name => ErrorKind::InvalidInput,
            Self::NoNameServer | Self::Unknown => ErrorKind::NotFound,
            Self::Refused => ErrorKind::ConnectionRefused,
            Self::Reset => ErrorKind::ConnectionReset,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
        }
    }
}
