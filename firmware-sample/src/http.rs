//! What a device asks of the provisioner, over a connection that has been proven.
//!
//! **What it is.** The core writes requests and reads answers (`fleetcert_core::enroll`); a
//! [`Client`] carries them over one TLS stream, each request and its answer in one buffer that the
//! caller lends, and all of them before one deadline.
//!
//! **What it must never do.** Keep a token longer than the request that carries it. Believe a time
//! that was told outside the validity of the certificate it was told under. Take silence, or an end
//! within an answer, for a refusal. Use a connection again of which nobody knows where it stands.
//!
//! **Why that is sound.** The stream exists only after the server has proven who it is. The buffer
//! is zeroed before the first octet of an answer is read, and when no request came about. A
//! connection is spent from the first octet of a request on, until its answer was read to the end
//! and leaves it open. Each way to fail has its own variant; what the machine learns of it is a
//! total match.

mod fault;

#[cfg(test)]
mod tests;

use core::fmt;

use embedded_io::{Read, Write};
use fleetcert_core::der::{self, Certificate};
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{
    self, Dated, Enrollment, LeafError, Provisioner, Refusal, Token, Unanswered, check_leaf,
};
use fleetcert_core::event::Unfit;
use fleetcert_core::http::{Progress, RequestError, Response, ResponseReader};
use fleetcert_core::policy::Window;
use fleetcert_core::port::Advice;
use fleetcert_core::record::{Identity, Serial};
use fleetcert_core::time::{Validity, Wall};
use fleetcert_core::wire::{Challenge, ChallengeRequest, NONCE_LEN};
use zeroize::Zeroize as _;

use crate::board::Clock;
use crate::console::warn;
use crate::tls::TlsError;

pub use self::fault::HttpError;

/// Octets that suffice for every exchange but a challenge, whose request carries what
/// certificates the TPM's endorsement key has: a head of 1 KiB, and 3 KiB for a request with
/// evidence or a certificate, in base64.
pub const BUFFER_LEN: usize = 4 * 1024;

/// What a request for a certificate is authenticated with.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// The certificate of the connection, which the new one is to follow (RFC 7030 §4.2.2).
    Certificate,
    /// Nothing in the request's head: a factory's certificate of the connection, or evidence in
    /// the request for a certificate.
    Other,
    /// A one-time token.
    Token(Token<'a>),
}

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// Us: no certificate is taken that names another device.
    pub device_id: &'a DeviceId,
    /// The provisioner.
    pub provisioner: Provisioner<'a>,
}

/// Until when exchanges must be over. A transport with a deadline of its own ends a wait; this
/// ends a peer that sends an octet at a time over one that has a limit for each read only.
#[derive(Clone, Copy, Debug)]
pub struct Deadline<C> {
    /// The board's clock.
    pub clock: C,
    /// An instant of it, milliseconds.
    pub at_ms: u64,
}

/// A connection to the provisioner, with the memory for an exchange.
pub struct Client<'c, S, C> {
    line: Line<'c, S, C>,
    /// When the server's certificate is valid.
    server: Validity,
    parties: Parties<'c>,
    buffer: &'c mut [u8],
    /// What the provisioner told in the last exchange, as far as it is to be believed.
    server_time: Option<Wall>,
}

/// The connection itself.
struct Line<'c, S, C> {
    stream: &'c mut S,
    deadline: Deadline<C>,
    is_spent: bool,
}

impl<'c, S: Read<Error = TlsError> + Write<Error = TlsError>, C: Clock> Client<'c, S, C> {
    /// A client on `stream`, a [`crate::tls::Connection`] as a rule, on which nothing was said
    /// yet; `server` is [`crate::tls::Connection::server_validity`]. What `buffer` holds is lost.
    pub fn new(
        stream: &'c mut S,
        server: Validity,
        parties: Parties<'c>,
        deadline: Deadline<C>,
        buffer: &'c mut [u8],
    ) -> Self {
        let line = Line { stream, deadline, is_spent: false };
        Self { line, server, parties, buffer, server_time: None }
    }

    /// Whether another exchange can be tried on this connection.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        !self.line.is_spent
    }

    /// The time that the provisioner told in the last exchange, within the validity of its
    /// certificate; with an answer or with a refusal.
    #[must_use]
    pub const fn server_time(&self) -> Option<Wall> {
        self.server_time
    }

    /// Asks which certificate the provisioner sees on this connection: its serial number. `nonce`
    /// is random, and has to come back.
    ///
    /// # Errors
    ///
    /// [`HttpError`], [`HttpError::PeerSawAnother`] among them.
    pub fn whoami(&mut self, nonce: &[u8; NONCE_LEN]) -> Result<Serial, HttpError> {
        let Parties { device_id, provisioner } = self.parties;
        let written = enroll::whoami(provisioner, nonce, self.buffer).map(<[u8]>::len);
        let seen = self.exchange(written, |response| enroll::read_whoami(response, nonce))?;
        if seen.device_id != device_id.as_str() {
            return Err(HttpError::PeerSawAnother);
        }
        serial(seen.serial)
    }

    /// Asks when to renew `certificate`, DER.
    ///
    /// # Errors
    ///
    /// [`HttpError`]; [`HttpError::CertificateUnfit`] if it is no certificate.
    pub fn renewal_info(&mut self, certificate: &[u8]) -> Result<Advice, HttpError> {
        let mut text = [0; der::RENEWAL_ID_LEN_MAX];
        let renewal_id = Certificate::parse(certificate)
            .ok()
            .and_then(|certificate| certificate.renewal_id(&mut text).ok())
            .ok_or(HttpError::CertificateUnfit(Unfit::Form))?;
        let provisioner = self.parties.provisioner;
        let written = enroll::renewal_info(provisioner, renewal_id, self.buffer).map(<[u8]>::len);
        let info = self.exchange(written, enroll::read_renewal_info)?;
        let window = Window::new(info.start, info.end);
        Ok(Advice { window, retry_after_s: info.retry_after_s })
    }

    /// Asks what a TPM has to solve. The challenge lies in the buffer.
    ///
    /// # Errors
    ///
    /// [`HttpError`]; a server that knows no challenges refuses.
    pub fn challenge(
        &mut self,
        message: &ChallengeRequest<'_>,
    ) -> Result<Challenge<'_>, HttpError> {
        let provisioner = self.parties.provisioner;
        let written = enroll::challenge(provisioner, message, self.buffer).map(<[u8]>::len);
        self.exchange(written, enroll::read_challenge)
    }

    /// Asks for a certificate (RFC 7030 §4.2), and checks that what comes is one for this device
    /// and for the key whose SubjectPublicKeyInfo has this SHA-256. It lies in `issued` then.
    ///
    /// # Errors
    ///
    /// [`HttpError`], with nothing that may be used in `issued`.
    pub fn enroll(
        &mut self,
        enrollment: Enrollment<'_>,
        credential: Credential<'_>,
        spki_sha256: &[u8; 32],
        issued: &mut Identity,
    ) -> Result<(), HttpError> {
        let parties = self.parties;
        let written = write_enrollment(parties, enrollment, credential, self.buffer);
        let certificate = self.exchange(written, enroll::read_enroll)?;
        keep(&certificate, spki_sha256, parties.device_id, issued)
    }

    /// One exchange, and the time as far as it is to be believed.
    fn exchange<'b, T>(
        &'b mut self,
        written: Result<usize, RequestError>,
        read: impl FnOnce(Response<'b>) -> Dated<'b, T>,
    ) -> Result<T, HttpError> {
        self.server_time = None;
        let Dated { server_time, answer } = read(self.line.ask(self.buffer, written)?);
        self.server_time = believable(server_time, self.server);
        Ok(answer?)
    }
}

impl<S: Read<Error = TlsError> + Write<Error = TlsError>, C: Clock> Line<'_, S, C> {
    /// Sends what was written to the buffer, and reads what is answered into it.
    #[inline(never)]
    fn ask<'b>(
        &mut self,
        buffer: &'b mut [u8],
        written: Result<usize, RequestError>,
    ) -> Result<Response<'b>, HttpError> {
        let sent = match written {
            _ if self.is_spent => Err(HttpError::Spent),
            Ok(len) => self.send(buffer.get(..len).unwrap_or_default()),
            Err(error) => Err(HttpError::Request(error)),
        };
        // A token was in it, perhaps.
        buffer.zeroize();
        sent?;
        let response = self.receive(buffer)?;
        self.is_spent = response.head.closes();
        Ok(response)
    }

    fn send(&mut self, request: &[u8]) -> Result<(), HttpError> {
        self.is_spent = true;
        self.stream.write_all(request)?;
        self.stream.flush()?;
        Ok(())
    }

    fn receive<'b>(&mut self, buffer: &'b mut [u8]) -> Result<Response<'b>, HttpError> {
        let mut reader = ResponseReader::new(buffer);
        loop {
            if self.deadline.clock.now_ms() >= self.deadline.at_ms {
                return Err(HttpError::Late);
            }
            // An end that the server did not announce is an error of the stream, and no answer's end.
            let received = self.stream.read(reader.space())?;
            if reader.advance(received)? == Progress::Done {
                return Ok(reader.finish()?);
            }
        }
    }
}

/// The time that was told, if the server's own certificate is valid at it: a server where it is
/// not has a wrong clock or an old key, and neither may set ours.
fn believable(told: Option<Wall>, server: Validity) -> Option<Wall> {
    let told = told?;
    let is_within = server.not_before <= told && told <= server.not_after;
    if !is_within {
        warn(format_args!("provisioner: its time {} is outside its certificate", told.0));
    }
    is_within.then_some(told)
}

fn write_enrollment(
    Parties { device_id, provisioner }: Parties<'_>,
    enrollment: Enrollment<'_>,
    credential: Credential<'_>,
    out: &mut [u8],
) -> Result<usize, RequestError> {
    let request = match credential {
        Credential::Certificate => enroll::simplereenroll(provisioner, enrollment, out),
        Credential::Other => enroll::simpleenroll(provisioner, enrollment, None, out),
        Credential::Token(token) => {
            enroll::simpleenroll(provisioner, enrollment, Some((device_id, token)), out)
        }
    };
    request.map(<[u8]>::len)
}

/// Checks an issued certificate, and keeps what decisions rest on.
fn keep(
    certificate: &Certificate<'_>,
    spki_sha256: &[u8; 32],
    device_id: &DeviceId,
    issued: &mut Identity,
) -> Result<(), HttpError> {
    check_leaf(certificate, spki_sha256, device_id).map_err(|error| {
        warn(format_args!("provisioner: certificate {}", unfit_code(&error)));
        let is_key = matches!(error, LeafError::Key { .. });
        HttpError::CertificateUnfit(if is_key { Unfit::Key } else { Unfit::Form })
    })?;
    let der = certificate.as_der();
    issued.serial = serial(certificate.serial())?;
    issued.validity = certificate.validity();
    issued.spki_sha256 = *spki_sha256;
    issued.certificate.clear();
    let kept = issued.certificate.extend_from_slice(der);
    kept.map_err(|_| HttpError::CertificateTooLong { found: der.len() })
}

const fn unfit_code(error: &LeafError<'_>) -> &'static str {
    match error {
        LeafError::Authority => "authority",
        LeafError::CommonName(_) => "common-name",
        LeafError::DeviceId { .. } => "device-id",
        LeafError::Key { .. } => "key",
        LeafError::Purpose => "purpose",
        LeafError::Validity { .. } => "validity",
    }
}

fn serial(octets: &[u8]) -> Result<Serial, HttpError> {
    Serial::from_slice(octets).map_err(|_| HttpError::CertificateUnfit(Unfit::Form))
}

impl From<Unanswered<'_>> for HttpError {
    #[inline(never)]
    fn from(unanswered: Unanswered<'_>) -> Self {
        match unanswered {
            Unanswered::Busy { retry_after_s } => Self::Busy { retry_after_s },
            Unanswered::Pending { retry_after_s } => Self::Pending { retry_after_s },
            Unanswered::Refused(refusal) => refused(refusal),
            Unanswered::Unreadable(error) => Self::Answer(error),
        }
    }
}

/// What it says to people goes to where people look: nothing is decided by it.
fn refused(refusal: Refusal<'_>) -> HttpError {
    if !refusal.detail.is_empty() {
        warn(format_args!("provisioner: says {}", refusal.detail));
    }
    if refusal.is_revoked() {
        return HttpError::Revoked;
    }
    let Refusal { status, reason, .. } = refusal;
    HttpError::Refused { status, reason }
}

impl<S, C> fmt::Debug for Client<'_, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("is_spent", &self.line.is_spent).finish_non_exhaustive()
    }
}
