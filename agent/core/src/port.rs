//! What a shell must provide: the world, in small traits.
//!
//! The machine names effects; these traits perform them. They are asynchronous in their signatures
//! only: a firmware may implement them by blocking. Each call answers in bounded time, with a
//! [`Failure`] when its own deadline passes: the machine does one thing at a time and waits for it.

use crate::event::{Event, Failure};
use crate::lifecycle::{BrokerProof, Command};
use crate::policy::Window;
use crate::record::{Identity, KeySource, Record, Request, Serial, Slot};
use crate::time::{Mono, Now, Reading, Wall};

/// The platform's clocks.
pub trait Clock {
    /// What they say now, unjudged.
    fn now(&mut self) -> Now;
}

/// Durable storage for the record.
pub trait Storage {
    /// Makes `record` durable. It may return `Ok` only when the record will be found again after
    /// a power cut at any later instant; after an error either record may be found.
    fn persist(&mut self, record: &Record) -> impl Future<Output = Result<(), Failure>>;
}

/// The key store: two slots, private keys that never leave it.
pub trait Keys {
    /// Makes sure that the slot holds a key, and returns the SHA-256 of its SubjectPublicKeyInfo.
    /// A key that is there already is kept, whatever `source` says: the call is idempotent.
    /// [`KeySource::Other`] makes the slot hold the other slot's key.
    fn ensure(
        &mut self,
        slot: Slot,
        source: KeySource,
    ) -> impl Future<Output = Result<[u8; 32], Failure>>;

    /// Erases the slot's key beyond recovery; an empty slot is fine.
    fn erase(&mut self, slot: Slot) -> impl Future<Output = Result<(), Failure>>;
}

/// An answer from a peer, with the time that an authenticated provisioner told, if it did.
///
/// Times are set only from answers over a connection whose server certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The outcome.
    pub outcome: Result<T, Failure>,
    /// The provisioner's time.
    pub server_time: Option<Wall>,
}

impl<T> Answer<T> {
    /// A failure that told no time.
    #[must_use]
    pub const fn failed(failure: Failure) -> Self {
        Self { outcome: Err(failure), server_time: None }
    }
}

/// The provisioner's advice about the identity in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// When to renew; `None` where it has no opinion.
    pub window: Option<Window>,
    /// When to ask again, seconds.
    pub retry_after_s: u32,
}

/// A new identity was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The serial number that the provisioner saw.
    pub serial: Serial,
    /// How far the broker was reached.
    pub broker: BrokerProof,
}

/// The peers: provisioner and broker.
pub trait Peers {
    /// Asks the provisioner for a certificate for the key in `slot`. `current` is the identity in
    /// use; how to authenticate is in the request. The answer has been checked to be a client
    /// certificate for this device.
    fn enroll(
        &mut self,
        request: &Request,
        slot: Slot,
        current: Option<(Slot, &Identity)>,
        reading: Reading,
    ) -> impl Future<Output = Answer<Identity>>;

    /// Opens real connections to provisioner and broker with the slot's identity. On success the
    /// broker connection stays; on failure the previous one is back in use when this returns.
    fn prove(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> impl Future<Output = Answer<Proof>>;

    /// Asks the provisioner for the time and its advice on the identity in use.
    fn consult(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> impl Future<Output = Answer<Advice>>;

    /// Takes the identity into use for all connections from now on, without waiting for one.
    fn adopt(
        &mut self,
        slot: Slot,
        identity: &Identity,
        reading: Reading,
    ) -> impl Future<Output = Result<(), Failure>>;

    /// Ends all connections and uses no identity from now on.
    fn release(&mut self) -> impl Future<Output = Result<(), Failure>>;
}

/// Where reports go.
pub trait Reports {
    /// Tells people or a fleet service.
    fn report(&mut self, now: Now, event: Event);
}

/// What ends a wait of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The deadline passed, or something changed that is worth a look (a clock was set).
    Tick,
    /// Somebody wants something.
    Command(Command),
    /// The shell is to end.
    Stop,
}

/// Waiting.
pub trait Wait {
    /// Waits until `deadline`, a command, a clock step, or the end, whichever is first.
    fn wait(&mut self, deadline: Mono) -> impl Future<Output = Wake>;
}
