//! When a server's certificate has to be valid, for a device that may not know the time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use fleetcert_core::time::{Confidence, Reading, Wall};

use super::{SetupError, Trust};

/// Whom a connection is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The MQTT broker.
    Broker,
    /// The provisioning service, which can also tell us the time.
    Provisioner,
}

/// When a server's chain has to be valid: one of the times is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// When it should be.
    pub first: When,
    /// When it may be instead, if with `first` nothing but its time is wrong.
    pub second: Option<When>,
}

/// A time that a chain is verified at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At this instant.
    At(Wall),
    /// At some instant that is not before this one: we know no more. What ended before it is
    /// expired; what begins after it may well have begun.
    NotBefore(Wall),
}

/// How often [`When::NotBefore`] may move on to the beginning of a certificate: once for each of a
/// chain, and a chain has three.
const BEGINNINGS_MAX: usize = 3;

impl Instants {
    /// What `reading` allows towards `server` (`docs/decisions/0003-server-time.md`).
    #[must_use]
    pub fn of(server: Server, reading: Reading) -> Self {
        let Reading { wall, confidence, floor } = reading;
        let wall = wall.map_or(When::NotBefore(floor), When::At);
        let second = match (confidence, server) {
            (Confidence::Floored, Server::Provisioner) => Some(When::NotBefore(floor)),
            (Confidence::Floored | Confidence::Trusted | Confidence::Unknown, _) => None,
        };
        Self { first: wall, second }
    }

    /// Verifies at these times: whatever `verify` says last, and never a success that it did not
    /// report itself.
    ///
    /// # Errors
    ///
    /// That of the first time: the second is an offer, and its failure would name a time that
    /// nobody believes in.
    pub fn verify<T>(self, mut verify: impl FnMut(Wall) -> Result<T, Error>) -> Result<T, Error> {
        let error = match self.first.verify(&mut verify) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        match self.second {
            Some(second) if is_of_time(&error) => second.verify(&mut verify).map_err(|_| error),
            _ => Err(error),
        }
    }
}

impl When {
    fn verify<T>(self, verify: &mut impl FnMut(Wall) -> Result<T, Error>) -> Result<T, Error> {
        let mut wall = match self {
            Self::At(wall) => return verify(wall),
            Self::NotBefore(floor) => floor,
        };
        let mut verdict = verify(wall);
        for _ in 0..BEGINNINGS_MAX {
            let Some(later) = verdict.as_ref().err().and_then(|error| beginning_after(wall, error))
            else {
                break;
            };
            wall = later;
            verdict = verify(wall);
        }
        verdict
    }
}

/// When the certificate begins that was refused for beginning after `wall`.
fn beginning_after(wall: Wall, error: &Error) -> Option<Wall> {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(Wall(not_before.as_secs())).filter(|beginning| *beginning > wall)
        }
        _ => None,
    }
}

/// Whether a certificate was refused because of the time. More may be wrong with it.
fn is_of_time(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }
        )
    )
}

/// Verifies servers under the pinned root, at the instants of the latest reading.
#[derive(Debug)]
pub(super) struct PinnedRoot {
    inner: Arc<WebPkiServerVerifier>,
    server: Server,
    reading: Mutex<Reading>,
}

impl PinnedRoot {
    pub(super) fn new(trust: &Trust, server: Server) -> Result<Self, SetupError> {
        let roots = Arc::clone(&trust.roots);
        let provider = Arc::clone(&trust.provider);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|_| SetupError::NoServerRoot)?;
        let nothing =
            Reading { wall: None, confidence: Confidence::Unknown, floor: Wall::default() };
        Ok(Self { inner, server, reading: Mutex::new(nothing) })
    }

    pub(super) fn set_reading(&self, reading: Reading) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }

    fn reading(&self) -> Reading {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Instants::of(self.server, self.reading()).verify(|wall| {
            let now = unix_time(wall);
            self.inner.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            )
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// rustls asks this for the age of session tickets; our judgement beats a clock that may be unset.
impl TimeProvider for PinnedRoot {
    fn current_time(&self) -> Option<UnixTime> {
        let Reading { wall, floor, .. } = self.reading();
        Some(unix_time(wall.unwrap_or(floor)))
    }
}

fn unix_time(wall: Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(wall.0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::UnixTime;
    use rustls::{CertificateError, Error};

    use fleetcert_core::time::{Confidence, Reading, Wall};

    use super::{Instants, Server, When};

    const FLOOR: Wall = Wall(1_000);
    const WALL: Wall = Wall(5_000);

    fn reading(confidence: Confidence) -> Reading {
        let wall = (confidence != Confidence::Unknown).then_some(WALL);
        Reading { wall, confidence, floor: FLOOR }
    }

    #[test]
    fn a_trusted_clock_is_the_only_time_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Trusted));
            assert_eq!(instants, Instants { first: When::At(WALL), second: None });
        }
    }

    #[test]
    fn without_a_clock_it_is_not_before_the_floor_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Unknown));
            assert_eq!(instants, Instants { first: When::NotBefore(FLOOR), second: None });
        }
    }

    #[test]
    fn an_unvouched_clock_gives_the_provisioner_alone_a_second_chance() {
        let floored = reading(Confidence::Floored);
        let provisioner = Instants::of(Server::Provisioner, floored);
        let second = Some(When::NotBefore(FLOOR));
        assert_eq!(provisioner, Instants { first: When::At(WALL), second });
        let broker = Instants::of(Server::Broker, floored);
        assert_eq!(broker, Instants { first: When::At(WALL), second: None });
    }

    /// Goal: the second chance is given after errors of time only, and the first error is told.
    #[test]
    fn only_a_fault_of_time_leads_to_the_second_chance() {
        let instants = Instants { first: When::At(WALL), second: Some(When::NotBefore(FLOOR)) };
        let of_time = [CertificateError::Expired, CertificateError::NotValidYet];
        for error in of_time {
            let mut tried = Vec::new();
            let verified = instants.verify(|at| {
                tried.push(at);
                if at == FLOOR { Ok(at) } else { Err(Error::InvalidCertificate(error.clone())) }
            });
            assert_eq!((verified, tried), (Ok(FLOOR), vec![WALL, FLOOR]));
        }
        let others = [CertificateError::UnknownIssuer, CertificateError::NotValidForName];
        for error in others {
            let mut tried = Vec::new();
            let verified: Result<(), _> = instants.verify(|at| {
                tried.push(at);
                Err(Error::InvalidCertificate(error.clone()))
            });
            assert_eq!((verified.unwrap_err(), tried), (error.into(), vec![WALL]));
        }
    }

    #[test]
    fn a_failure_at_both_times_tells_the_one_at_the_time_we_believe_in() {
        let instants = Instants { first: When::At(WALL), second: Some(When::NotBefore(FLOOR)) };
        let verified: Result<(), _> = instants.verify(|at| {
            let expired = CertificateError::Expired;
            let unknown = CertificateError::UnknownIssuer;
            Err(Error::InvalidCertificate(if at == WALL { expired } else { unknown }))
        });
        assert_eq!(verified, Err(CertificateError::Expired.into()));
    }

    /// A chain whose certificates begin at these times and end at `END`, as webpki judges it: the
    /// issuers come first.
    fn judge(beginnings: &[u64], at: Wall) -> Result<Wall, Error> {
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at.0));
        if at > END {
            return Err(CertificateError::Expired.into());
        }
        match beginnings.iter().find(|beginning| **beginning > at.0) {
            Some(later) => {
                let not_before = UnixTime::since_unix_epoch(Duration::from_secs(*later));
                Err(CertificateError::NotValidYetContext { time, not_before }.into())
            }
            None => Ok(at),
        }
    }

    const END: Wall = Wall(9_000);

    /// Goal: a device without a clock that slept through a change of the server's certificate
    /// accepts the new one: it began after the floor, and so may have.
    #[test]
    fn a_chain_that_begins_after_the_floor_is_accepted_by_who_knows_the_floor_only() {
        let unknown = Instants::of(Server::Broker, reading(Confidence::Unknown));
        assert_eq!(unknown.verify(|at| judge(&[500, 2_000, 7_000], at)), Ok(Wall(7_000)));
        assert_eq!(unknown.verify(|at| judge(&[500, 600], at)), Ok(FLOOR));
        let trusted = Instants::of(Server::Broker, reading(Confidence::Trusted));
        trusted.verify(|at| judge(&[500, 7_000], at)).unwrap_err();
        let floored = Instants::of(Server::Provisioner, reading(Confidence::Floored));
        assert_eq!(floored.verify(|at| judge(&[500, 7_000], at)), Ok(Wall(7_000)));
        let broker = Instants::of(Server::Broker, reading(Confidence::Floored));
        broker.verify(|at| judge(&[500, 7_000], at)).unwrap_err();
    }

    #[test]
    fn a_chain_that_ended_before_the_floor_or_never_holds_at_once_is_refused() {
        let after = Reading { floor: Wall(9_001), ..reading(Confidence::Unknown) };
        Instants::of(Server::Broker, after).verify(|at| judge(&[500], at)).unwrap_err();
        let unknown = Instants::of(Server::Broker, reading(Confidence::Unknown));
        unknown.verify(|at| judge(&[500, 9_500], at)).unwrap_err();
        let mut looks = 0;
        let endless: Result<(), _> = unknown.verify(|at| {
            looks += 1;
            judge(&[at.0 + 1], at).map(drop)
        });
        endless.unwrap_err();
        assert_eq!(looks, 4);
    }
}
