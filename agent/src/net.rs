//! Connections to servers: TCP, then TLS, each with a deadline, and what their failures mean.
//!
//! **What it is.** [`dial`] gives a TLS stream to a verified server. [`NetError`] tells apart what
//! the machine must tell apart: a server that is not to be trusted, a server that did not want our
//! certificate, a key store that did not sign, and everything else, which says nothing about
//! anybody.
//!
//! **What it must never do.** Wait without a limit. Take silence for a verdict. Take a TLS alert
//! about our certificate for the truth about it: a broker whose CRL ran out says "certificate
//! expired" to every device.
//!
//! **Why that is sound.** In TLS 1.3 a client's handshake ends before the server has judged the
//! client, so a refusal may come as the error of any later read; [`NetError::from`] therefore
//! classifies the errors of handshakes and of streams by the same rules.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::task::Poll;
use std::time::Duration;

use futures_lite::io::AsyncRead;
use futures_rustls::client::TlsStream;
use rustls::{AlertDescription, CertificateError, Error as TlsError, OtherError};
use smol::net::TcpStream;

use fleetcert_core::event::Failure;
use fleetcert_core::time::Reading;

use crate::clock::within;
use crate::config::Endpoint;
use crate::keystore::KeyFailure;
use crate::offload::offload;
use crate::tls::{Client, SetupError, SigningFailed, server_name};
use crate::tpm::SIGN_MAX;

/// A name is resolved and a TCP connection is made within this.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A TLS handshake ends within this, the signature of a slow key store aside.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// An HTTP exchange ends within this, connection included and the signature of a slow key store
/// aside.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(30);

/// A server that sends no session ticket is taken to have accepted us after this: long enough for
/// an alert to cross a slow link, short beside the interval between renewals.
pub const VERDICT_MAX: Duration = Duration::from_millis(750);

/// Addresses of one host that are tried, at most.
const ADDRESSES_MAX: usize = 8;

/// A TLS stream to a verified server.
pub type Stream = TlsStream<TcpStream>;

/// Why a connection was not made, or ended.
#[derive(Debug)]
pub enum NetError {
    /// It took too long.
    Deadline {
        /// What did.
        step: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// The server ended the connection where more was expected.
    Ended,
    /// The network or the TLS protocol.
    Io(io::Error),
    /// Our key store did not sign.
    Key {
        /// What the machine has to know of it.
        failure: Failure,
        /// What a person has to know of it.
        reason: String,
    },
    /// The host has no address.
    NoAddress,
    /// The server sent this alert, which is about our certificate. Hearsay.
    OurIdentityRefused(AlertDescription),
    /// The server's certificate does not verify.
    ServerUntrusted(TlsError),
    /// There is no TLS to speak.
    Setup(SetupError),
}

impl NetError {
    /// What the machine has to know of it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        match self {
            Self::Deadline { .. } | Self::Ended | Self::Io(_) | Self::NoAddress => {
                Failure::Unreachable
            }
            Self::Key { failure, .. } => failure.clone(),
            Self::OurIdentityRefused(_) => Failure::OurIdentityRefused,
            Self::ServerUntrusted(_) | Self::Setup(_) => Failure::ServerUntrusted,
        }
    }
}

impl From<&KeyFailure> for NetError {
    fn from(failure: &KeyFailure) -> Self {
        Self::Key { failure: failure.into(), reason: failure.to_string() }
    }
}

/// Classifies the error of a handshake or of a later read or write.
impl From<io::Error> for NetError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() {
            return Self::Ended;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match tls {
            Some(TlsError::AlertReceived(alert)) if is_about_us(*alert) => {
                Self::OurIdentityRefused(*alert)
            }
            Some(TlsError::Other(OtherError(inner))) => {
                match inner.downcast_ref::<SigningFailed>() {
                    Some(SigningFailed(failure)) => failure.into(),
                    None => Self::Io(error),
                }
            }
            Some(
                untrusted @ (TlsError::InvalidCertificate(_)
                | TlsError::NoCertificatesPresented
                | TlsError::UnsupportedNameType),
            ) => Self::ServerUntrusted(untrusted.clone()),
            _ => Self::Io(error),
        }
    }
}

/// Whether an alert speaks of the certificate that we showed, or did not show (RFC 8446 §6.2).
/// `decrypt_error` is a signature that does not verify: that of our handshake, or, where another
/// authority of the same name issued our certificate, that in it.
const fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::NoCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// How long a signature of this client may take beyond what every client has.
fn signature_max(client: &Client) -> Duration {
    if client.is_slow() { SIGN_MAX } else { Duration::ZERO }
}

/// An HTTP exchange of this client ends within this.
pub(crate) fn exchange_max(client: &Client) -> Duration {
    EXCHANGE_MAX + signature_max(client)
}

/// Connects to a server and verifies it at the time of `reading`.
///
/// That it returns says that the server is genuine. In TLS 1.3 it does not say that the server
/// wants us: see [`verdict`].
///
/// # Errors
///
/// [`NetError`], after [`CONNECT_MAX`] and [`HANDSHAKE_MAX`] at the latest, and [`SIGN_MAX`] where
/// the key is in a TPM.
pub async fn dial(
    endpoint: &Endpoint,
    client: &Client,
    reading: Reading,
) -> Result<Stream, NetError> {
    let name = server_name(&endpoint.host).map_err(NetError::Setup)?;
    let tcp = within(CONNECT_MAX, connect(endpoint))
        .await
        .ok_or(NetError::Deadline { step: "connect", limit: CONNECT_MAX })??;
    tcp.set_nodelay(true)?;
    acknowledge_at_once(&tcp);
    let limit = HANDSHAKE_MAX + signature_max(client);
    let handshake = within(limit, client.connector(reading).connect(name, tcp));
    let stream = if client.is_slow() {
        // The handshake signs inside of a poll. Another thread polls it to its end, deadline
        // included, and hands the same stream back, so the executor's thread waits for no TPM.
        offload(move || smol::block_on(handshake)).await?
    } else {
        handshake.await
    };
    let stream = stream.ok_or(NetError::Deadline { step: "handshake", limit })??;
    acknowledge_at_once(stream.get_ref().0);
    Ok(stream)
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, NetError> {
    let Endpoint { host, port } = endpoint;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(TcpStream::connect(SocketAddr::new(address, *port)).await?);
    }
    let name = (host.clone(), *port);
    let addresses = offload(move || name.to_socket_addrs().map(Vec::from_iter)).await??;
    let mut last = NetError::NoAddress;
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// Sends the next acknowledgements without delay: a server with Nagle's algorithm on holds its
/// session tickets back for them, 40 ms. A hint to the kernel; where it is refused nothing breaks.
fn acknowledge_at_once(tcp: &TcpStream) {
    if let Err(error) = rustix::net::sockopt::set_tcp_quickack(tcp, true) {
        log::debug!("TCP_QUICKACK refused: {error}");
    }
}

/// Waits until the server has judged our certificate, as far as that shows without saying
/// anything: by a session ticket (accepted), by an alert or the end (refused), or, where neither
/// comes, by [`VERDICT_MAX`].
///
/// # Errors
///
/// [`NetError`] when the connection ended, or when the server spoke before it was asked.
pub async fn verdict(stream: &mut Stream) -> Result<(), NetError> {
    let judged = futures_lite::future::poll_fn(|context| {
        let mut octet = [0; 1];
        match std::pin::Pin::new(&mut *stream).poll_read(context, &mut octet) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(NetError::Ended)),
            Poll::Ready(Ok(_)) => {
                let early = io::Error::new(io::ErrorKind::InvalidData, "data before a request");
                Poll::Ready(Err(NetError::Io(early)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if has_judged(stream) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    });
    within(VERDICT_MAX, judged).await.unwrap_or(Ok(()))
}

/// In TLS 1.2 the handshake ends with the server's word; in TLS 1.3 a ticket comes after it.
fn has_judged(stream: &Stream) -> bool {
    let (_, session) = stream.get_ref();
    session.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2)
        || session.tls13_tickets_received() > 0
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline { step, limit } => {
                write!(f, "{step} took longer than {} ms", limit.as_millis())
            }
            Self::Ended => f.write_str("the server ended the connection"),
            Self::Io(error) => error.fmt(f),
            Self::Key { reason, .. } => f.write_str(reason),
            Self::NoAddress => f.write_str("the host has no address"),
            Self::OurIdentityRefused(alert) => {
                write!(f, "the server sent the alert {alert:?} about our certificate")
            }
            Self::ServerUntrusted(TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer,
            )) => f.write_str("the server's certificate does not lead to the pinned server root"),
            Self::ServerUntrusted(error) => write!(f, "the server is not to be trusted: {error}"),
            Self::Setup(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NetError {}
