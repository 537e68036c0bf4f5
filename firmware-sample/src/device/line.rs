//! The one protected connection that there is room for at a time.
//!
//! Where the address is asked for, the connection made, the server judged, and our key has signed,
//! in this order and before one deadline; to provisioner and broker alike.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::net::Ipv4Addr;

use embedded_io::Error as _;
use fleetcert_core::event::Failure;
use fleetcert_core::record::{IdentityView, Slot};
use fleetcert_core::time::{Mono, Reading};

use crate::board::{Board, Clock as _};
use crate::console::{info, show_code, warn};
use crate::factory::{Factory, Server};
use crate::keystore::{KeyFault, KeyStore};
use crate::net::{self, Net, NetError};
use crate::random::Generator;
use crate::store::FlashStore;
use crate::tls::{self, Peer, TlsError, Workspace};
use crate::verifier::{self, IpAddr, ServerName, Verifier};

use super::desk::Desk;

/// From the question for an address to the end of an exchange with the provisioner, or to the
/// broker's word that it accepts us. A TPM may take a few seconds for a signature, and a flow
/// with several of them is within this.
pub(super) const EXCHANGE_MS_MAX: u64 = 45_000;

/// For taking leave of a peer that may not be there any more.
const CLOSE_MS_MAX: u64 = 2_000;

/// A connection as TLS stands on it.
type Tcp<'l, B> = net::Connection<'l, 'static, <B as Board>::Link, <B as Board>::Clock>;

/// A protected stream to a server that has proven who it is.
pub(super) type Stream<'l, 't, B> = tls::Connection<'l, &'l mut Tcp<'t, B>>;

/// What a connection is made with: the parts of the device that outlive all of them.
pub(super) struct Context<'d, B: Board> {
    pub(super) clock: B::Clock,
    pub(super) desk: &'d Desk,
    pub(super) net: &'d Net<'static, B::Link, B::Clock>,
    pub(super) keys: &'d RefCell<&'static mut B::Keys>,
    pub(super) store: &'d RefCell<FlashStore<'static, B::Flash>>,
    pub(super) factory: &'d Factory<'d>,
    pub(super) verifier: &'d Verifier<'d, B::Ecdsa>,
    pub(super) random: &'d RefCell<Generator>,
}

/// Whom a connection is to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'t> {
    pub(super) server: Server<'t>,
    pub(super) role: verifier::Server,
}

/// A connection.
pub(super) struct Line<'s, 'l, 't, B: Board> {
    pub(super) stream: &'s mut Stream<'l, 't, B>,
    /// Until when whatever is said and heard must be, by the board's clock.
    pub(super) deadline_ms: &'s Cell<u64>,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// This device uses something of its own twice.
    Busy,
    /// The network.
    Net(NetError),
    /// TLS.
    Tls(TlsError),
}

impl<B: Board> Clone for Context<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Board> Copy for Context<'_, B> {}

impl<'d, B: Board> Context<'d, B> {
    pub(super) fn now(&self) -> Mono {
        Mono(self.clock.now_ms())
    }

    /// The provisioner.
    pub(super) const fn provisioner(&self) -> Target<'d> {
        Target { server: self.factory.provisioner, role: verifier::Server::Provisioner }
    }

    /// The broker, if the factory has named one.
    pub(super) fn broker(&self) -> Option<Target<'d>> {
        self.factory.broker.map(|server| Target { server, role: verifier::Server::Broker })
    }

    /// The last number that is reserved for sessions.
    pub(super) fn reserved(&self) -> u64 {
        self.store.try_borrow_mut().map_or(0, |mut store| store.reserved())
    }

    /// Has `with` look at the identity in a slot of the durable record, which lies in the store's
    /// memory meanwhile.
    ///
    /// # Errors
    ///
    /// [`KeyFault::Lost`] when there is none, and [`KeyFault::Unavailable`] when nobody knows.
    pub(super) fn identity<T>(
        &self,
        slot: Slot,
        with: impl FnOnce(IdentityView<'_>) -> T,
    ) -> Result<T, KeyFault> {
        let mut store = self.store.try_borrow_mut().map_err(|_| KeyFault::Unavailable)?;
        match store.identity(slot) {
            Ok(identity) => identity.map(with).ok_or(KeyFault::Lost),
            Err(why) => {
                warn(format_args!("record: {why}"));
                Err(KeyFault::Unavailable)
            }
        }
    }

    /// Makes `end` the last number that is reserved for sessions.
    pub(super) fn reserve(&self, end: u64) -> Result<(), Failure> {
        let store = self.store.try_borrow_mut();
        store.map_err(|_| Failure::StorageUnavailable)?.reserve(end)
    }

    /// Opens a connection until `deadline_ms`, with an identity to show or with none, has `work`
    /// done over it, and ends it in order, as far as the peer takes part in that.
    ///
    /// The connection stays where it is made: it is large, and the stack is small.
    #[inline(never)]
    pub(super) fn with_line(
        &self,
        target: Target<'_>,
        workspace: &mut Workspace<'_>,
        shown: Option<Slot>,
        reading: Reading,
        deadline_ms: u64,
        work: &mut dyn FnMut(Line<'_, '_, '_, B>),
    ) -> Result<(), LineError> {
        let server = target.server;
        let address = self.net.resolve(server.host(), deadline_ms)?;
        let mut tcp = self.net.connect(address, server.port(), deadline_ms)?;
        let deadline_ms = tcp.deadline_ms();
        let done = {
            let mut stream = tls::Connection::new(&mut tcp, workspace);
            let greeted = self.greet(target, &mut stream, shown, reading);
            let done = greeted.map(|()| work(Line { stream: &mut stream, deadline_ms }));
            deadline_ms.set(self.now().plus_ms(CLOSE_MS_MAX).0);
            stream.close();
            done
        };
        // Whoever is not there to take leave of misses nothing.
        let _parted = tcp.close();
        done
    }

    /// The handshake.
    #[inline(never)]
    fn greet(
        &self,
        target: Target<'_>,
        stream: &mut Stream<'_, '_, B>,
        shown: Option<Slot>,
        reading: Reading,
    ) -> Result<(), LineError> {
        let Target { server, role } = target;
        let name = server_name(server.host())?;
        let peer = Peer { verifier: self.verifier, name, server: role, reading };
        let mut random = self.random.try_borrow_mut().map_err(|_| LineError::Busy)?;
        let mut shake_hands = |identity: Option<tls::Identity<'_>>| {
            let before = self.clock.instructions();
            stream.shake_hands(&peer, identity, &mut *random)?;
            let spent = self.clock.instructions().saturating_sub(before);
            info(format_args!("handshake with {target}: {spent} instructions"));
            Ok(())
        };
        let shaken = match shown {
            None => shake_hands(None),
            Some(slot) => {
                let mut signer = |digest: &[u8; 32]| sign(self.keys, slot, digest);
                let shaken = self.identity(slot, |IdentityView { certificate, .. }| {
                    shake_hands(Some(tls::Identity { certificate, signer: &mut signer }))
                });
                shaken.unwrap_or_else(|fault| Err(TlsError::LocalKey(fault)))
            }
        };
        shaken.map_err(LineError::Tls)
    }
}

/// What a server's certificate has to be for: an address of the kind that [`Net`] has, or a name.
fn server_name(host: &str) -> Result<ServerName<'_>, NetError> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => Ok(ServerName::IpAddress(IpAddr::V4(address.octets().into()))),
        Err(_) => dns_name(host),
    }
}

#[cfg(not(feature = "dns"))]
fn dns_name(_: &str) -> Result<ServerName<'_>, NetError> {
    Err(NetError::Name)
}

#[cfg(feature = "dns")]
fn dns_name(host: &str) -> Result<ServerName<'_>, NetError> {
    let name = verifier::DnsName::try_from(host).map_err(|_| NetError::Name)?;
    Ok(ServerName::DnsName(name))
}

fn sign<K: KeyStore>(
    keys: &RefCell<&mut K>,
    slot: Slot,
    digest: &[u8; 32],
) -> Result<[u8; 64], KeyFault> {
    let mut keys = keys.try_borrow_mut().map_err(|_| KeyFault::Unavailable)?;
    keys.sign(slot, digest)
}

impl From<NetError> for LineError {
    fn from(error: NetError) -> Self {
        Self::Net(error)
    }
}

impl From<TlsError> for LineError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

/// The network's own words are for people, who are told them; to the machine it is one failure.
impl From<LineError> for TlsError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Busy => Self::Transport(embedded_io::ErrorKind::OutOfMemory),
            LineError::Net(error) => Self::Transport(error.kind()),
            LineError::Tls(error) => error,
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => show_code(f, "net", "busy"),
            Self::Net(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.role {
            verifier::Server::Broker => "broker",
            verifier::Server::Provisioner => "provisioner",
        })
    }
}
