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

/// The instants at which a server's chain may be valid: one of them is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// Where the chain should be valid.
    pub first: Wall,
    /// Where it may be valid instead, if at `first` nothing but its time is wrong.
    pub second: Option<Wall>,
}

impl Instants {
    /// What `reading` allows towards `server` (`docs/decisions/0003-server-time.md`).
    #[must_use]
    pub fn of(server: Server, reading: Reading) -> Self {
        let Reading { wall, confidence, floor } = reading;
        let wall = wall.unwrap_or(floor);
        match (confidence, server) {
            (Confidence::Unknown, _) => Self { first: floor, second: None },
            (Confidence::Floored, Server::Provisioner) if wall != floor => {
                Self { first: wall, second: Some(floor) }
            }
            (Confidence::Floored | Confidence::Trusted, _) => Self { first: wall, second: None },
        }
    }

    /// Verifies at these instants: whatever `verify` says last, and never a success that it did
    /// not report itself.
    ///
    /// # Errors
    ///
    /// That of the first instant: the second is an offer, and its failure would name a time that
    /// nobody believes in.
    pub fn verify<T>(self, mut verify: impl FnMut(Wall) -> Result<T, Error>) -> Result<T, Error> {
        let error = match verify(self.first) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        match self.second {
            Some(second) if is_of_time(&error) => verify(second).map_err(|_| error),
            _ => Err(error),
        }
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
    use rustls::{CertificateError, Error};

    use fleetcert_core::time::{Confidence, Reading, Wall};

    use super::{Instants, Server};

    const FLOOR: Wall = Wall(1_000);
    const WALL: Wall = Wall(5_000);

    fn reading(confidence: Confidence) -> Reading {
        let wall = (confidence != Confidence::Unknown).then_some(WALL);
        Reading { wall, confidence, floor: FLOOR }
    }

    #[test]
    fn a_trusted_clock_is_the_only_instant_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Trusted));
            assert_eq!(instants, Instants { first: WALL, second: None });
        }
    }

    #[test]
    fn without_a_clock_the_floor_is_the_only_instant_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Unknown));
            assert_eq!(instants, Instants { first: FLOOR, second: None });
        }
    }

    #[test]
    fn an_unvouched_clock_gives_the_provisioner_alone_a_second_instant() {
        let floored = reading(Confidence::Floored);
        let provisioner = Instants::of(Server::Provisioner, floored);
        assert_eq!(provisioner, Instants { first: WALL, second: Some(FLOOR) });
        let broker = Instants::of(Server::Broker, floored);
        assert_eq!(broker, Instants { first: WALL, second: None });
    }

    /// Goal: the second instant is tried after errors of time only, and the first error is told.
    #[test]
    fn only_a_fault_of_time_leads_to_the_second_instant() {
        let instants = Instants { first: WALL, second: Some(FLOOR) };
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
    fn a_failure_at_both_instants_tells_the_one_at_the_time_we_believe_in() {
        let instants = Instants { first: WALL, second: Some(FLOOR) };
        let verified: Result<(), _> = instants.verify(|at| {
            let expired = CertificateError::Expired;
            let unknown = CertificateError::UnknownIssuer;
            Err(Error::InvalidCertificate(if at == WALL { expired } else { unknown }))
        });
        assert_eq!(verified, Err(CertificateError::Expired.into()));
    }
}
