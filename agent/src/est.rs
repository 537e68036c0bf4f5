//! Exchanges with the provisioner: one request, one answer, over TLS.
//!
//! **What it is.** The core writes requests and reads answers (`fleetcert_core::enroll`); here they
//! cross the network. A request and its answer share one buffer and one deadline; the requests of
//! one enrollment share a connection, where the server keeps it.
//!
//! **What it must never do.** Keep a token longer than the request that carries it, or send one
//! before the server was verified. Believe a time that was told outside the validity of the
//! certificate it was told under. Take silence for a refusal.
//!
//! **Why that is sound.** The stream that a request is written to exists only after the server's
//! chain was verified under the pinned root; the buffer is zeroed when it is dropped; each way to
//! fail has its own variant, and [`EstError::failure`] is a total match.

mod attest;
mod line;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use fleetcert_core::der::{Certificate, RENEWAL_ID_LEN_MAX};
use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::{
    self, AnswerError, Dated, Enrollment, Label, LeafError, Provisioner, Refusal, TOKEN_LEN_MAX,
    Token, Unanswered, check_leaf,
};
use fleetcert_core::est::csr::{CsrError, P256Signature, UnsignedRequest};
use fleetcert_core::est::evidence::{BufferTooSmall, EVIDENCE_ATTRIBUTE_LEN_MAX};
use fleetcert_core::event::{Failure, Reason, Unfit};
use fleetcert_core::http::{RequestError, Response, ResponseError};
use fleetcert_core::policy::Window;
use fleetcert_core::port::Advice;
use fleetcert_core::record::{
    CERTIFICATE_LEN_MAX, Identity, KeySource, Kind, Request, Serial, Slot,
};
use fleetcert_core::time::{Reading, Wall};
use fleetcert_core::wire::NONCE_LEN;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::config;
use crate::entropy::{Entropy, NoEntropy};
use crate::keystore::{KeyFailure, KeyStore, Signer};
use crate::net::NetError;
use crate::offload::offload;
use crate::tls::{Client, believable};

use self::attest::Attested;
use self::line::{Line, Raw};

/// Octets of a request or an answer, at most: a head of 8 KiB and as much again for a certificate
/// in base64, several times over.
const BUFFER_LEN: usize = 16 * 1024;

/// Octets of a PKCS#10 request, at most: 512 without attributes, and the evidence.
const CSR_LEN_MAX: usize = 512 + EVIDENCE_ATTRIBUTE_LEN_MAX;

/// The port that a `Host` header does not name (RFC 9110 §4.2.2).
const HTTPS_PORT: u16 = 443;

/// For whose key a certificate is asked.
#[derive(Clone, Debug)]
pub struct Applicant<'a> {
    /// The key store that has it.
    pub keys: &'a KeyStore,
    /// The slot that it is in.
    pub slot: Slot,
    /// The key.
    pub signer: Arc<dyn Signer>,
}

/// An outcome, with the time that the provisioner told, if it did.
#[derive(Debug)]
pub struct Told<T> {
    /// The outcome.
    pub outcome: Result<T, EstError>,
    /// The provisioner's time.
    pub server_time: Option<Wall>,
}

/// Why an exchange gave nothing.
#[derive(Debug)]
pub enum EstError {
    /// The answer is not one.
    Answer(AnswerError),
    /// The provisioner asks to come back later.
    Busy {
        /// Seconds, where it said.
        retry_after_s: Option<u32>,
    },
    /// The issued certificate is not the one that was asked for.
    CertificateUnfit {
        /// What the machine has to know.
        unfit: Unfit,
        /// What a person has to know.
        reason: String,
    },
    /// The request for a certificate could not be written.
    Csr(CsrError),
    /// The evidence is longer than that of any key of ours.
    Evidence(BufferTooSmall),
    /// The answer is not HTTP.
    Http(ResponseError),
    /// Our key store did not sign.
    Key(KeyFailure),
    /// The connection.
    Net(NetError),
    /// The operating system gave no random bytes.
    NoEntropy,
    /// An operator has yet to approve.
    Pending {
        /// When to ask again, seconds.
        retry_after_s: u32,
    },
    /// The provisioner refused.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason code.
        reason: Reason,
        /// What it says to people; what we know besides.
        detail: String,
    },
    /// The request could not be written.
    Request(RequestError),
    /// The provisioner says that this identity was revoked.
    Revoked,
    /// The provisioner saw the certificate of another device.
    WrongDevice {
        /// The device id that it saw.
        found: String,
    },
}

impl EstError {
    /// What the machine has to know of it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Answer(_) => Failure::AnswerMalformed,
            Self::Busy { retry_after_s } => Failure::Busy { retry_after_s: *retry_after_s },
            Self::CertificateUnfit { unfit, .. } => Failure::CertificateUnfit(*unfit),
            Self::Csr(_) | Self::Evidence(_) | Self::NoEntropy => Failure::KeyUnavailable,
            Self::Http(ResponseError::Closed | ResponseError::Truncated) => Failure::Unreachable,
            Self::Http(_) => Failure::AnswerMalformed,
            Self::Key(failure) => failure.into(),
            Self::Net(error) => error.failure(),
            Self::Pending { retry_after_s } => Failure::Pending { retry_after_s: *retry_after_s },
            Self::Refused { status, reason, .. } => {
                Failure::Refused { status: *status, reason: reason.clone() }
            }
            // Configuration names hosts and labels that no request can carry: nothing was sent.
            Self::Request(_) => Failure::Unreachable,
            Self::Revoked => Failure::Revoked,
            Self::WrongDevice { .. } => Failure::WrongCertificateSeen,
        }
    }
}

/// The provisioner, as one device speaks to it.
#[derive(Debug)]
pub struct Est {
    config: Arc<config::Config>,
    host: String,
    entropy: Entropy,
}

impl Est {
    /// The provisioner of a configuration.
    #[must_use]
    pub fn new(config: Arc<config::Config>, entropy: Entropy) -> Self {
        let endpoint = &config.provisioner.endpoint;
        let host = match endpoint.port {
            HTTPS_PORT if endpoint.host.contains(':') => format!("[{}]", endpoint.host),
            HTTPS_PORT => endpoint.host.clone(),
            _ => endpoint.to_string(),
        };
        Self { config, host, entropy }
    }

    /// Asks for a certificate for the applicant's key (RFC 7030 §4.2), as `client`, and checks that
    /// the answer is one for this key and this device. A key that has no certificate yet comes with
    /// evidence, where there can be any.
    pub async fn enroll(
        &self,
        client: &Client,
        request: &Request,
        applicant: Applicant<'_>,
        reading: Reading,
    ) -> Told<Identity> {
        let Applicant { keys, slot, signer } = applicant;
        let mut line = self.line(client, reading);
        let attested = match request.source {
            KeySource::Fresh => self.attest(&mut line, keys, slot).await,
            KeySource::Other => Told { outcome: Ok(None), server_time: None },
        };
        let attested = match attested {
            Told { outcome: Ok(attested), .. } => attested,
            Told { outcome: Err(error), server_time } => {
                return Told { outcome: Err(error), server_time };
            }
        };
        let told = self.ask(&mut line, request, &signer, attested.as_ref()).await;
        if told.outcome.is_ok() {
            keys.note(slot, signer.spki(), attested.is_some());
        }
        told
    }

    async fn ask(
        &self,
        line: &mut Line<'_>,
        request: &Request,
        signer: &Arc<dyn Signer>,
        attested: Option<&Attested>,
    ) -> Told<Identity> {
        let spki_sha256 = Sha256::digest(signer.spki()).into();
        let attributes = attested.map(|attested| attested.attribute.as_slice());
        let attributes = attributes.unwrap_or_default();
        let csr = match sign_request(&self.config.device_id, signer, attributes).await {
            Ok(csr) => csr,
            Err(error) => return Told::failed(error),
        };
        let credentials = match request.kind {
            Kind::First => self.token(),
            Kind::Renew | Kind::Recover => Credentials::Certificate,
        };
        let mut buffer = buffer();
        let challenge = attested.map(|attested| attested.challenge);
        let enrollment = Enrollment { id: request.id.0, csr: &csr, challenge };
        let written = self.write_enrollment(enrollment, &credentials, &mut buffer);
        let len = match written {
            Ok(len) => len,
            Err(error) => return Told::failed(error),
        };
        match line.exchange(len, &mut buffer).await {
            Ok(raw) => {
                let Told { outcome, server_time } = raw.read(enroll::read_enroll, |certificate| {
                    identity(&certificate, &spki_sha256, &self.config.device_id)
                });
                Told { outcome: outcome.map_err(|error| credentials.explain(error)), server_time }
            }
            Err(error) => Told::failed(error),
        }
    }

    fn write_enrollment(
        &self,
        enrollment: Enrollment<'_>,
        credentials: &Credentials,
        buffer: &mut [u8],
    ) -> Result<usize, EstError> {
        let device_id = &self.config.device_id;
        let provisioner = self.provisioner();
        let request = match credentials {
            Credentials::Certificate => enroll::simplereenroll(provisioner, enrollment, buffer),
            Credentials::Token(token) => {
                let token = Token::parse(token).ok().map(|token| (device_id, token));
                enroll::simpleenroll(provisioner, enrollment, token, buffer)
            }
            Credentials::None { .. } => enroll::simpleenroll(provisioner, enrollment, None, buffer),
        };
        request.map(<[u8]>::len).map_err(EstError::Request)
    }

    /// Asks which certificate the provisioner sees on a connection of `client`.
    pub async fn whoami(&self, client: &Client, reading: Reading) -> Told<Serial> {
        let nonce: [u8; NONCE_LEN] = match self.entropy.octets() {
            Ok(nonce) => nonce,
            Err(NoEntropy) => return Told::failed(EstError::NoEntropy),
        };
        let mut buffer = buffer();
        let written = enroll::whoami(self.provisioner(), &nonce, &mut buffer).map(<[u8]>::len);
        let len = match written {
            Ok(len) => len,
            Err(error) => return Told::failed(EstError::Request(error)),
        };
        match self.line(client, reading).exchange(len, &mut buffer).await {
            Ok(raw) => raw.read(
                |response| enroll::read_whoami(response, &nonce),
                |seen| {
                    if seen.device_id != self.config.device_id.as_str() {
                        return Err(EstError::WrongDevice { found: seen.device_id.to_owned() });
                    }
                    Serial::from_slice(seen.serial).map_err(|_| too_long("serial number"))
                },
            ),
            Err(error) => Told::failed(error),
        }
    }

    /// Asks when to renew `certificate`, DER, as `client`.
    pub async fn renewal_info(
        &self,
        client: &Client,
        certificate: &[u8],
        reading: Reading,
    ) -> Told<Advice> {
        let mut buffer = buffer();
        let len = match self.write_renewal_info(certificate, &mut buffer) {
            Ok(len) => len,
            Err(error) => return Told::failed(error),
        };
        match self.line(client, reading).exchange(len, &mut buffer).await {
            Ok(raw) => raw.read(enroll::read_renewal_info, |info| {
                let window = Window::new(info.start, info.end);
                Ok(Advice { window, retry_after_s: info.retry_after_s })
            }),
            Err(error) => Told::failed(error),
        }
    }

    fn write_renewal_info(&self, certificate: &[u8], buffer: &mut [u8]) -> Result<usize, EstError> {
        let unnamed = |reason: String| EstError::CertificateUnfit { unfit: Unfit::Form, reason };
        let mut id = [0; RENEWAL_ID_LEN_MAX];
        let certificate =
            Certificate::parse(certificate).map_err(|error| unnamed(error.to_string()))?;
        let id = certificate.renewal_id(&mut id).map_err(|error| unnamed(error.to_string()))?;
        enroll::renewal_info(self.provisioner(), id, buffer)
            .map(<[u8]>::len)
            .map_err(EstError::Request)
    }

    fn provisioner(&self) -> Provisioner<'_> {
        let label = self.config.provisioner.label.as_deref();
        Provisioner { host: &self.host, label: label.and_then(|label| Label::parse(label).ok()) }
    }

    /// A way to the provisioner as `client`.
    fn line<'c>(&'c self, client: &'c Client, reading: Reading) -> Line<'c> {
        Line::new(&self.config.provisioner.endpoint, client, reading)
    }

    /// The token of the first contact, read at each use: it may have come since the last.
    fn token(&self) -> Credentials {
        let Some(path) = self.config.provisioner.token_file.clone() else {
            return Credentials::None { why: "none is configured".into() };
        };
        match read_token(&path) {
            Ok(token) if Token::parse(&token).is_ok() => Credentials::Token(token),
            Ok(_) => Credentials::None {
                why: format!("{} holds no token on one line", path.display()).into(),
            },
            Err(error) => Credentials::None { why: format!("{}: {error}", path.display()).into() },
        }
    }
}

/// What a request for a certificate is authenticated with.
enum Credentials {
    /// The client certificate of the connection.
    Certificate,
    /// Nothing: the provisioner decides what that is worth.
    None { why: Cow<'static, str> },
    /// A one-time token.
    Token(Zeroizing<String>),
}

impl Credentials {
    /// Adds to a refusal what the provisioner cannot know: why it got no token.
    fn explain(&self, error: EstError) -> EstError {
        match (self, error) {
            (Self::None { why }, EstError::Refused { status, reason, detail }) => {
                let detail = match detail.as_str() {
                    "" => format!("no token was sent: {why}"),
                    detail => format!("{detail}; no token was sent: {why}"),
                };
                EstError::Refused { status, reason, detail }
            }
            (_, error) => error,
        }
    }
}

fn read_token(path: &PathBuf) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(2 * TOKEN_LEN_MAX));
    let limit = 2 * TOKEN_LEN_MAX as u64;
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// A PKCS#10 request for the key of `signer`, signed by it (RFC 2986).
async fn sign_request(
    device_id: &DeviceId,
    signer: &Arc<dyn Signer>,
    attributes: &[u8],
) -> Result<Vec<u8>, EstError> {
    let mut buffer = [0; CSR_LEN_MAX];
    let request = UnsignedRequest::new(device_id, signer.spki(), attributes, &mut buffer)
        .map_err(EstError::Csr)?;
    let to_be_signed = request.to_be_signed().to_vec();
    let signature = if signer.is_slow() {
        let signer = Arc::clone(signer);
        offload(move || signer.sign(&to_be_signed))
            .await
            .map_err(|error| EstError::Net(error.into()))?
    } else {
        signer.sign(&to_be_signed)
    };
    let signature = P256Signature::parse(&signature.map_err(EstError::Key)?);
    let signature = signature.map_err(EstError::Csr)?;
    request.finish(&signature).map(<[u8]>::to_vec).map_err(EstError::Csr)
}

/// Requests carry tokens: the buffer is zeroed when it is dropped.
fn buffer() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![0; BUFFER_LEN])
}

impl<'b> Raw<'b> {
    /// Reads the answer, and the time as far as it is to be believed.
    fn read<A, T>(
        self,
        parse: impl FnOnce(Response<'b>) -> Dated<'b, A>,
        take: impl FnOnce(A) -> Result<T, EstError>,
    ) -> Told<T> {
        let Dated { server_time, answer } = parse(self.response);
        let outcome = answer.map_err(EstError::from).and_then(take);
        let believed = server_time.and_then(|told| believable(told, &self.leaf));
        if let (Some(told), None) = (server_time, believed) {
            log::warn!("the provisioner says it is {}, outside its own certificate", told.0);
        }
        Told { outcome, server_time: believed }
    }
}

impl<T> Told<T> {
    /// A failure that told no time.
    pub(crate) const fn failed(error: EstError) -> Self {
        Self { outcome: Err(error), server_time: None }
    }
}

impl From<Unanswered<'_>> for EstError {
    fn from(unanswered: Unanswered<'_>) -> Self {
        match unanswered {
            Unanswered::Busy { retry_after_s } => Self::Busy { retry_after_s },
            Unanswered::Pending { retry_after_s } => Self::Pending { retry_after_s },
            Unanswered::Refused(refusal) => refusal.into(),
            Unanswered::Unreadable(error) => Self::Answer(error),
        }
    }
}

/// Checks an issued certificate and keeps what decisions rest on.
fn identity(
    certificate: &Certificate<'_>,
    spki_sha256: &[u8; 32],
    device_id: &DeviceId,
) -> Result<Identity, EstError> {
    check_leaf(certificate, spki_sha256, device_id).map_err(|error| {
        let unfit = if matches!(error, LeafError::Key { .. }) { Unfit::Key } else { Unfit::Form };
        EstError::CertificateUnfit { unfit, reason: error.to_string() }
    })?;
    Ok(Identity {
        serial: Serial::from_slice(certificate.serial()).map_err(|_| too_long("serial number"))?,
        validity: certificate.validity(),
        spki_sha256: *spki_sha256,
        certificate: heapless::Vec::from_slice(certificate.as_der()).map_err(|_| {
            let found = certificate.as_der().len();
            let reason = format!("certificate has {found} octets, at most {CERTIFICATE_LEN_MAX}");
            EstError::CertificateUnfit { unfit: Unfit::Form, reason }
        })?,
    })
}

fn too_long(what: &str) -> EstError {
    EstError::CertificateUnfit { unfit: Unfit::Form, reason: format!("{what} is too long") }
}

impl From<Refusal<'_>> for EstError {
    fn from(refusal: Refusal<'_>) -> Self {
        if refusal.is_revoked() {
            return Self::Revoked;
        }
        let Refusal { status, reason, detail } = refusal;
        Self::Refused { status, reason, detail: detail.to_owned() }
    }
}

impl fmt::Display for EstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => error.fmt(f),
            Self::Busy { retry_after_s: Some(s) } => write!(f, "come back in {s} s, it says"),
            Self::Busy { retry_after_s: None } => f.write_str("come back later, it says"),
            Self::CertificateUnfit { reason, .. } => f.write_str(reason),
            Self::Csr(error) => error.fmt(f),
            Self::Evidence(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Key(failure) => failure.fmt(f),
            Self::Net(error) => error.fmt(f),
            Self::NoEntropy => NoEntropy.fmt(f),
            Self::Pending { retry_after_s } => {
                write!(f, "an operator has to approve; the next look is in {retry_after_s} s")
            }
            Self::Refused { status, reason, detail } => {
                write!(f, "status {status}")?;
                for text in [reason.as_str(), detail] {
                    if !text.is_empty() {
                        write!(f, ", {text}")?;
                    }
                }
                Ok(())
            }
            Self::Request(error) => error.fmt(f),
            Self::Revoked => f.write_str("this identity was revoked"),
            Self::WrongDevice { found } => write!(f, "it saw a certificate of device {found}"),
        }
    }
}

impl std::error::Error for EstError {}
