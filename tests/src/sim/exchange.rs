//! What a device asks of the provisioner and the broker, and what becomes of it.
//!
//! The part of the world that a device's connections meet: provisioner, broker, and the network
//! between. TLS itself is not simulated, its judgements are: a device that lacks the key of a
//! certificate cannot present it, a provisioner sees an expired peer as one, a broker refuses what
//! ran out or stands in its CRL, and a device refuses a server by the rule of
//! `docs/decisions/0003-server-time.md`.

use std::collections::BTreeSet;

use fleetcert_core::der::Certificate;
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::check_leaf;
use fleetcert_core::event::{Failure, Operation, Unfit};
use fleetcert_core::lifecycle::BrokerProof;
use fleetcert_core::record::{CertificateBytes, Identity, Kind, Request, Serial, Slot};
use fleetcert_core::time::{Confidence, Reading, Validity, Wall};

use super::authority::{Ask, Authority, AuthorityError, Denied, Grant};
use super::clock::{At, BEGINNING, BUILD_TIME, SECOND_MS};
use super::device::{Device, Reply, Session, Task, failed, leaf};
use super::faults::Faults;
use super::keys::{KeyError, Pool};
use super::net::{self, Fate};
use crate::event_log::{Fact, Mark};

/// When the certificates of provisioner and broker are valid: from before the devices were built
/// and for five years. A clock that is ten years wrong is outside either way.
const SERVERS: Validity =
    Validity { not_before: BUILD_TIME, not_after: Wall(BEGINNING.0 + 5 * 365 * 86_400) };

/// The broker.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    /// Away until then.
    pub away: At,
    /// Refusing everybody until then.
    pub refusing: At,
    /// Counts its starts: a session of an earlier one is gone.
    pub epoch: u32,
    /// What its CRL lists.
    pub revoked: BTreeSet<Mark>,
}

/// Provisioner, broker and the network.
#[derive(Debug)]
pub struct Peers {
    /// The provisioner.
    pub authority: Authority,
    /// Away until then.
    pub provisioner_away: At,
    /// The broker.
    pub broker: Broker,
    /// Everybody's keys.
    pub pool: Pool,
    /// What becomes of messages.
    pub faults: Faults,
}

/// A fault of the simulator or of the provisioner's code, not of the simulated world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The provisioner does not work.
    Authority(AuthorityError),
    /// A key does not work.
    Key(KeyError),
    /// The machine polled out what makes no sense.
    Machine(&'static str),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Authority(why) => why.fmt(f),
            Self::Key(why) => why.fmt(f),
            Self::Machine(what) => write!(f, "the machine asked for {what}"),
        }
    }
}

impl std::error::Error for Broken {}

impl From<AuthorityError> for Broken {
    fn from(why: AuthorityError) -> Self {
        Self::Authority(why)
    }
}

impl From<KeyError> for Broken {
    fn from(why: KeyError) -> Self {
        Self::Key(why)
    }
}

/// The result of one exchange with the provisioner.
#[derive(Debug)]
pub struct Exchange {
    /// What the device hears.
    pub reply: Reply,
    /// When it does, milliseconds from now.
    pub after_ms: u64,
    /// What it hears besides, too late or twice.
    pub stale: Option<Reply>,
    /// What happened meanwhile, in order.
    pub facts: Vec<Fact>,
    /// The reason code of a refusal, for the operators.
    pub refused: Option<&'static str>,
}

impl Exchange {
    fn local(reply: Reply) -> Self {
        Self { reply, after_ms: SECOND_MS, stale: None, facts: Vec::new(), refused: None }
    }
}

/// What one serving of a request gave.
struct Served {
    reply: Reply,
    facts: Vec<Fact>,
    refused: Option<&'static str>,
}

impl Peers {
    /// Performs an action that needs the provisioner.
    ///
    /// # Errors
    ///
    /// [`Broken`], never for a fault of the simulated world.
    pub fn exchange(
        &mut self,
        device: &mut Device,
        task: &Task,
        at: At,
    ) -> Result<Exchange, Broken> {
        let Some(slot) = task.slot else { return Err(Broken::Machine("an exchange of no slot")) };
        if let Err(failure) = self.prepare(device, task, slot, at) {
            return Ok(Exchange::local(failed(failure)));
        }
        let mut facts = Vec::new();
        if let Some(Request { id, kind, .. }) = task.request {
            let (request, clocks) = (Mark::of(&id.0), device.clocks(at));
            facts.push(Fact::Sent { request, kind, clocks });
        }
        let (fate, after_ms) = net::draw(&self.faults, &mut device.dice);
        if fate == Fate::RequestLost {
            facts.push(Fact::MessageLost);
            let reply = failed(Failure::Unreachable);
            return Ok(Exchange { reply, after_ms, stale: None, facts, refused: None });
        }
        let heard = matches!(fate, Fate::Answered | Fate::Doubled);
        let Served { reply, facts: served, refused } = self.serve(device, task, slot, heard, at)?;
        facts.extend(served);
        let (reply, stale) = match fate {
            Fate::AnswerLost => (failed(Failure::Unreachable), None),
            Fate::Late => (failed(Failure::Unreachable), Some(reply)),
            Fate::Doubled => {
                let again = self.serve(device, task, slot, heard, at)?;
                facts.extend(again.facts);
                (reply, Some(again.reply))
            }
            Fate::Answered | Fate::RequestLost => (reply, None),
        };
        if !heard {
            facts.push(Fact::MessageLost);
        }
        Ok(Exchange { reply, after_ms, stale, facts, refused })
    }

    /// What has to be there before anything is sent.
    fn prepare(&self, device: &Device, task: &Task, slot: Slot, at: At) -> Result<(), Failure> {
        if at < device.windows.network || at < self.provisioner_away {
            return Err(Failure::Unreachable);
        }
        let reading = reading(device, at);
        if !trusts(reading, true) {
            return Err(Failure::ServerUntrusted);
        }
        if at < device.windows.keys {
            return Err(Failure::KeyUnavailable);
        }
        let current = authenticates_with(device, task.request.as_ref());
        let needed = [Some(slot), current];
        match needed.into_iter().flatten().all(|slot| device.keys.key(slot).is_some()) {
            true => Ok(()),
            false => Err(Failure::KeyLost),
        }
    }

    /// Serves a request; `heard` says whether the device will hear the answer and go on to the
    /// broker with it.
    fn serve(
        &mut self,
        device: &mut Device,
        task: &Task,
        slot: Slot,
        heard: bool,
        at: At,
    ) -> Result<Served, Broken> {
        match (task.operation, task.request) {
            (Operation::Enroll, Some(request)) => self.enroll(device, slot, &request, at),
            (Operation::Prove, _) => self.prove(device, slot, heard, at),
            (Operation::Consult, _) => self.consult(device, slot, at),
            _ => Err(Broken::Machine("an exchange of another kind")),
        }
    }

    fn enroll(
        &mut self,
        device: &Device,
        slot: Slot,
        request: &Request,
        at: At,
    ) -> Result<Served, Broken> {
        let now = at.wall();
        let key = device.keys.key(slot).ok_or(Broken::Machine("a request without a key"))?;
        let csr = self.pool.request(key, &device.id)?;
        let current =
            authenticates_with(device, Some(request)).and_then(|slot| device.identity(slot));
        let ask = Ask {
            device: &device.id,
            current: current.map(|identity| identity.certificate.as_slice()),
            expired: current.is_some_and(|identity| identity.validity.is_expired_at(now)),
            credential: &device.credential,
            csr: &csr,
            request: request.id,
        };
        Ok(match self.authority.enroll(&ask, now)? {
            Ok(Grant::Issued(der)) => {
                let identity = read(&der, &self.pool.spki_sha256(key), &device.id);
                issued(identity, request, now)
            }
            Ok(Grant::Pending(retry_after_s)) => Served {
                reply: refusal(Failure::Pending { retry_after_s }, now),
                facts: vec![Fact::Pending],
                refused: None,
            },
            Err(denied) => refused(&denied, now),
        })
    }

    fn prove(
        &mut self,
        device: &mut Device,
        slot: Slot,
        heard: bool,
        at: At,
    ) -> Result<Served, Broken> {
        let now = at.wall();
        let Some(identity) = device.identity(slot) else {
            return Err(Broken::Machine("a proof of nothing"));
        };
        let expired = identity.validity.is_expired_at(now);
        let seen = match self.authority.whoami(&identity.certificate, expired, now)? {
            Ok(seen) => seen,
            Err(denied) => return Ok(refused(&denied, now)),
        };
        let Ok(serial) = Serial::from_slice(&seen) else {
            return Err(Broken::Machine("a serial number that is too long"));
        };
        let session = Session { serial: Mark::of(&serial), broker_epoch: self.broker.epoch };
        let proven = |broker| Reply::Proven { serial: serial.clone(), broker, told: now };
        let (reply, facts) = match self.knock(device, identity, at) {
            _ if !heard => (proven(BrokerProof::Unreachable), Vec::new()),
            Ok(()) => {
                device.session = Some(session);
                (proven(BrokerProof::Connected), vec![Fact::Connected { serial: session.serial }])
            }
            Err(Failure::OurIdentityRefused) => {
                (refusal(Failure::OurIdentityRefused, now), Vec::new())
            }
            Err(_) => (proven(BrokerProof::Unreachable), Vec::new()),
        };
        Ok(Served { reply, facts, refused: None })
    }

    fn consult(&mut self, device: &mut Device, slot: Slot, at: At) -> Result<Served, Broken> {
        let now = at.wall();
        let renewal_id =
            device.renewal_id(slot).ok_or(Broken::Machine("advice on what has no identifier"))?;
        let (window, retry_after_s) = self.authority.advice(renewal_id, now)?;
        let reply = Reply::Consulted { window, retry_after_s, told: now };
        Ok(Served { reply, facts: Vec::new(), refused: None })
    }

    /// Whether the broker lets the device in with that identity.
    ///
    /// # Errors
    ///
    /// [`Failure`] says why it does not.
    pub fn knock(&self, device: &Device, identity: &Identity, at: At) -> Result<(), Failure> {
        let (now, validity) = (at.wall(), identity.validity);
        if at < device.windows.network || at < self.broker.away {
            return Err(Failure::Unreachable);
        }
        if !trusts(reading(device, at), false) {
            return Err(Failure::ServerUntrusted);
        }
        let listed = self.broker.revoked.contains(&Mark::of(&identity.serial));
        let in_time = validity.not_before <= now && !validity.is_expired_at(now);
        if at < self.broker.refusing || listed || !in_time {
            return Err(Failure::OurIdentityRefused);
        }
        Ok(())
    }
}

/// The slot of the certificate that authenticates a request.
fn authenticates_with(device: &Device, request: Option<&Request>) -> Option<Slot> {
    match request?.kind {
        Kind::First => None,
        Kind::Recover | Kind::Renew => device.machine.as_ref()?.record().active,
    }
}

fn reading(device: &Device, at: At) -> Option<Reading> {
    device.machine.as_ref().map(|machine| machine.reading(device.now(at)))
}

/// Whether the device accepts a server's certificate at the time that it believes in.
fn trusts(reading: Option<Reading>, provisioner: bool) -> bool {
    let Some(Reading { wall, confidence, floor }) = reading else { return false };
    let valid = |wall: Wall| SERVERS.not_before <= wall && !SERVERS.is_expired_at(wall);
    match (confidence, wall) {
        (Confidence::Floored, Some(wall)) => valid(wall) || (provisioner && valid(floor)),
        (Confidence::Trusted, Some(wall)) => valid(wall),
        _ => valid(floor),
    }
}

fn refusal(failure: Failure, now: Wall) -> Reply {
    Reply::Failed { failure, told: Some(now) }
}

fn refused(denied: &Denied, now: Wall) -> Served {
    let facts = vec![Fact::Refused { status: denied.status, reason: denied.reason }];
    Served { reply: refusal(denied.failure(), now), facts, refused: Some(denied.reason) }
}

/// An answer with a certificate, read as the device reads it.
fn issued(identity: Option<Identity>, request: &Request, now: Wall) -> Served {
    let request = Mark::of(&request.id.0);
    match identity {
        Some(identity) => {
            let facts = vec![Fact::Issued { request, leaf: leaf(&identity) }];
            let reply = Reply::Enrolled { identity: Box::new(identity), told: now };
            Served { reply, facts, refused: None }
        }
        None => {
            let failure = Failure::CertificateUnfit(Unfit::Form);
            Served { reply: refusal(failure, now), facts: Vec::new(), refused: None }
        }
    }
}

fn read(der: &[u8], spki_sha256: &[u8; 32], device: &DeviceId) -> Option<Identity> {
    let certificate = Certificate::parse(der).ok()?;
    check_leaf(&certificate, spki_sha256, device).ok()?;
    Some(Identity {
        serial: Serial::from_slice(certificate.serial()).ok()?,
        validity: certificate.validity(),
        spki_sha256: *spki_sha256,
        certificate: CertificateBytes::from_slice(der).ok()?,
    })
}
