//! Servers under the pinned root, verified when their certificates have to be valid.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use fleetcert_core::time::server::{Instants, Server, TimeFault};
use fleetcert_core::time::{Confidence, Reading, Wall};

use super::{SetupError, Trust};

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
        Instants::of(self.server, self.reading()).verify(time_fault, |wall| {
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

/// What time has to do with an error of rustls.
const fn time_fault(error: &Error) -> TimeFault {
    use CertificateError as E;
    match error {
        Error::InvalidCertificate(E::NotValidYetContext { not_before, .. }) => {
            TimeFault::Begins(Wall(not_before.as_secs()))
        }
        Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. } | E::NotValidYet) => {
            TimeFault::Other
        }
        _ => TimeFault::None,
    }
}

fn unix_time(wall: Wall) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(wall.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: of rustls's errors those that time explains are told, with a beginning where there
    /// is one; and no other.
    #[test]
    fn faults_of_time_are_told_from_others() {
        let (time, not_before, not_after) =
            (unix_time(Wall(5)), unix_time(Wall(7)), unix_time(Wall(3)));
        for (error, fault) in [
            (CertificateError::Expired, TimeFault::Other),
            (CertificateError::ExpiredContext { time, not_after }, TimeFault::Other),
            (CertificateError::NotValidYet, TimeFault::Other),
            (CertificateError::NotValidYetContext { time, not_before }, TimeFault::Begins(Wall(7))),
            (CertificateError::UnknownIssuer, TimeFault::None),
            (CertificateError::NotValidForName, TimeFault::None),
            (CertificateError::Revoked, TimeFault::None),
        ] {
            assert_eq!(time_fault(&error.into()), fault);
        }
        assert_eq!(time_fault(&Error::DecryptError), TimeFault::None);
    }
}
