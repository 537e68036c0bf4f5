//! Small TLS servers that do as a test tells them.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;

use fleetcert_agent::context::Executor;
use fleetcert_core::est::base64::{self, Style};
use fleetcert_core::wire::{MEDIA_TYPE, VERSION, WhoAmI};
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::{TcpListener, TcpStream};

use super::NOW;
use super::device::DEVICE;
use super::pki::{Authority, Issued};

pub(crate) type Connection = TlsStream<TcpStream>;

/// A listener with a certificate chain; clients are admitted with a certificate of `devices` or
/// with none.
pub(crate) struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn new(issued: &Issued, above: &[&Authority], devices: &Authority) -> Self {
        let mut chain = vec![issued.certificate.clone()];
        chain.extend(above.iter().map(|authority| authority.certificate.clone()));
        let mut roots = RootCertStore::empty();
        roots.add(devices.certificate.clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, issued.key_der())
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), port }
    }

    /// The next client that gets through its handshake.
    pub(crate) async fn accept(&self) -> Connection {
        loop {
            let (tcp, _) = self.listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            if let Ok(connection) = self.acceptor.accept(tcp).await {
                return connection;
            }
        }
    }

    /// Serves every client in its own task, for ever.
    pub(crate) fn serve<F: Future<Output = ()> + 'static>(
        self,
        executor: &Executor,
        mut serve: impl FnMut(Connection) -> F + 'static,
    ) -> u16 {
        let port = self.port;
        let spawner = executor.clone();
        let serving = async move {
            loop {
                let connection = self.accept().await;
                spawner.spawn(serve(connection)).detach();
            }
        };
        executor.spawn(serving).detach();
        port
    }
}

/// The certificate that a client showed.
pub(crate) fn shown(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection.get_ref().1.peer_certificates()?;
    chain.first().map(|certificate| certificate.clone().into_owned())
}

/// Reads one HTTP request: head and, by Content-Length, body.
pub(crate) async fn request(connection: &mut Connection) -> String {
    let mut octets = Vec::new();
    let mut octet = [0];
    while !octets.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut octet).await.unwrap();
        octets.push(octet[0]);
    }
    let head = String::from_utf8(octets).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    connection.read_exact(&mut body).await.unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// Sends an answer and leaves.
pub(crate) async fn answer(mut connection: Connection, octets: &[u8]) {
    connection.write_all(octets).await.unwrap();
    connection.close().await.unwrap();
}

/// An HTTP answer dated [`NOW`].
pub(crate) fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nDate: Fri, 15 Jan 2027 08:00:00 GMT\r\n{headers}\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A provisioner that can answer whoami and nothing else, truthfully.
pub(crate) async fn whoami(connection: Connection) {
    let certificate = shown(&connection).unwrap();
    let certificate = fleetcert_core::der::Certificate::parse(&certificate).unwrap();
    whoami_as(connection, certificate.serial(), DEVICE).await;
}

/// One that says this of whoever asks.
pub(crate) async fn whoami_as(mut connection: Connection, serial: &[u8], device_id: &str) {
    let request = request(&mut connection).await;
    let (_, nonce) = request.split_once("nonce=").unwrap();
    let nonce = std::array::from_fn(|i| u8::from_str_radix(&nonce[2 * i..][..2], 16).unwrap());
    let message = WhoAmI { version: VERSION, nonce, serial, device_id, server_time: NOW };
    let mut body = [0; 256];
    let body = message.emit(&mut body).unwrap();
    let headers = format!("Content-Type: {MEDIA_TYPE}\r\n");
    answer(connection, &http("200 OK", &headers, body)).await;
}

/// A certs-only CMS message (RFC 5652 §5.1, RFC 7030 §4.2.3) in base64.
pub(crate) fn issued(certificate: &[u8]) -> Vec<u8> {
    let data = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    let signed_data = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    let content =
        [&[0x02, 1, 1, 0x31, 0][..], &der(0x30, &data), &der(0xa0, certificate), &[0x31, 0]]
            .concat();
    let message = der(0x30, &[&signed_data[..], &der(0xa0, &der(0x30, &content))].concat());
    let mut out = vec![0; Style::Wrapped.encoded_len(message.len())];
    base64::encode(&message, Style::Wrapped, &mut out).unwrap().to_vec()
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match len {
        [0, short @ 0..=0x7f] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [&header[..], content].concat()
}
