//! Connections: accepting them, TLS, HTTP/1.1 framing, and an end to each.
//!
//! **What it is.** The loop that takes connections and gives each request to a [`Handler`] with
//! the [`Identity`] that its connection has proven. It knows no route and no domain.
//!
//! **What it must never do.** Wait for a peer without a limit: each wait has one in [`Limits`].
//! Read ahead of what it may hold: heads are bounded by hyper's buffer, bodies are the handler's
//! to bound. Accept more connections than it has room for: further ones wait in the kernel.
//!
//! **Why framing is sound.** hyper reads the head; where it finds both `Transfer-Encoding` and
//! `Content-Length` it goes by the former and closes the connection after the answer, as RFC 9112
//! §6.1 asks, so nothing can hide behind the request.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_rustls::{TlsAcceptor, server::TlsStream};
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use smol::{
    Executor,
    channel::{Receiver, Sender},
    future,
    lock::Semaphore,
    net::{TcpListener, TcpStream},
};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::{
    linger::{Heard, Linger},
    stall::Stall,
};
use crate::{
    clock::{timer, within},
    config, tls,
    tls::Identity,
};

/// Octets of a request's line and header fields, at most.
pub const HEAD_LEN_MAX: usize = 16 * 1024;

/// Header fields of a request, at most.
const HEAD_FIELDS_MAX: usize = 64;

/// How long to leave the listener alone after it failed, for want of file descriptors mostly.
const ACCEPT_PAUSE_MS: u64 = 100;

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections served at once.
    pub connections_max: usize,
    /// Octets of a request's body, at most.
    pub body_len_max: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from the handshake, or from the last answer, to the last octet of the next request's
    /// head: the keep-alive limit and the limit for slow senders in one.
    pub head: Duration,
    /// Time from a request's head to its answer, its body included.
    pub request: Duration,
    /// Time that a write may wait for the peer to read on.
    pub stall: Duration,
    /// Time that a peer whose request was not read to its end gets to end, once it is answered.
    pub linger: Duration,
    /// Octets that it may still send meanwhile.
    pub linger_len_max: usize,
    /// Time that requests in flight get to finish when the service stops.
    pub drain: Duration,
}

impl Default for Limits {
    /// Ten seconds for each step, two for an end that has been announced; a body of 64 KiB holds any
    /// certification request, and one that does not was meant for another service: of 4 MiB, most
    /// are heard out.
    fn default() -> Self {
        let step = Duration::from_secs(10);
        Self {
            connections_max: config::CONNECTIONS_MAX,
            body_len_max: 64 * 1024,
            handshake: step,
            head: step,
            request: step,
            stall: step,
            linger: Duration::from_secs(2),
            linger_len_max: 4 * 1024 * 1024,
            drain: step,
        }
    }
}

/// Nothing may be answered: the connection ends without a word. Even a refusal would be dated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence;

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nothing may be answered now")
    }
}

impl std::error::Error for Silence {}

/// Answers requests. What goes wrong is an answer too, as long as anything may be answered.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of a peer that has proven to be `identity`, or has proven nothing.
    ///
    /// # Errors
    ///
    /// [`Silence`] ends the connection.
    fn handle(
        &self,
        identity: Option<&Identity>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Silence>> + Send;
}

/// A service that has a socket and is ready to serve.
pub struct Server<H> {
    listener: TcpListener,
    shared: Arc<Shared<H>>,
    slots: Arc<Semaphore>,
}

struct Shared<H> {
    acceptor: TlsAcceptor,
    handler: H,
    limits: Limits,
}

impl<H: Handler> Server<H> {
    /// Takes the socket.
    ///
    /// # Errors
    ///
    /// The operating system's, if the address is not ours or taken.
    pub async fn bind(
        address: SocketAddr,
        acceptor: TlsAcceptor,
        handler: H,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let slots = Arc::new(Semaphore::new(limits.connections_max));
        Ok(Self { listener, shared: Arc::new(Shared { acceptor, handler, limits }), slots })
    }

    /// Where we listen; the port is the real one when port 0 was asked for.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is done, then lets requests in flight finish, within the limit.
    /// Returns how many connections had to be cut.
    pub async fn run(self, executor: &Executor<'static>, stop: impl Future<Output = ()>) -> usize {
        let (stopping, stopped) = smol::channel::bounded(1);
        let accept = async {
            loop {
                self.accept_one(executor, &stopped).await;
            }
        };
        future::or(stop, accept).await;
        let Self { listener, shared, slots } = self;
        drop(listener);
        drain(&slots, stopping, shared.limits).await
    }

    async fn accept_one(&self, executor: &Executor<'static>, stopped: &Receiver<()>) {
        let slot = self.slots.acquire_arc().await;
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                let (shared, stopped) = (Arc::clone(&self.shared), stopped.clone());
                let connection = async move {
                    shared.connection(stream, peer, stopped).await;
                    drop(slot);
                };
                executor.spawn(connection).detach();
            }
            Err(error) => {
                log::warn!("accepting a connection: {error}");
                timer(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// Tells every connection to end, and waits until all have, or the limit is over.
async fn drain(slots: &Semaphore, stopping: Sender<()>, limits: Limits) -> usize {
    drop(stopping);
    let mut ended = Vec::with_capacity(limits.connections_max);
    let all = async {
        while ended.len() < limits.connections_max {
            ended.push(slots.acquire().await);
        }
    };
    let _in_time = within(limits.drain, all).await;
    limits.connections_max - ended.len()
}

impl<H: Handler> Shared<H> {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, stopped: Receiver<()>) {
        // Answers are small and complete: waiting to fill a segment only costs time.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("{peer}: no TCP_NODELAY: {error}");
        }
        let handshake = async {
            future::or(within(self.limits.handshake, self.acceptor.accept(stream)), async {
                let _closed = stopped.recv().await;
                None
            })
            .await
        };
        let tls = match handshake.await {
            Some(Ok(tls)) => tls,
            Some(Err(error)) if tls::is_refusal(&error) => {
                log::info!("{peer}: TLS refused: {error}");
                return;
            }
            Some(Err(error)) => return log::debug!("{peer}: TLS: {error}"),
            None => return log::debug!("{peer}: no TLS handshake in time"),
        };
        match Identity::of(tls.get_ref().1.peer_certificates()) {
            Ok(identity) => self.requests(tls, peer, identity.as_ref(), stopped).await,
            Err(error) => log::info!("{peer}: client certificate not readable: {error}"),
        }
    }

    async fn requests(
        &self,
        tls: TlsStream<TcpStream>,
        peer: SocketAddr,
        identity: Option<&Identity>,
        stopped: Receiver<()>,
    ) {
        let heard = Heard::default();
        let service = service_fn(|request| self.answer(identity, request, &heard));
        let tls = Stall::new(tls, self.limits.stall);
        let stream = FuturesIo::new(Linger::new(tls, &heard, self.limits));
        let mut connection = pin!(
            http1::Builder::new()
                .timer(SmolTimer::new())
                .header_read_timeout(self.limits.head)
                .max_buf_size(HEAD_LEN_MAX)
                .max_headers(HEAD_FIELDS_MAX)
                .serve_connection(stream, service)
        );
        let stop = async {
            let _closed = stopped.recv().await;
            None
        };
        let served = match future::or(async { Some(connection.as_mut().await) }, stop).await {
            Some(served) => served,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            log::debug!("{peer}: connection ended: {error}");
        }
    }
    /// Answers one request. That its body was read to the end is known of none that is refused.
    async fn answer(
        &self,
        identity: Option<&Identity>,
        request: Request<Incoming>,
        heard: &Heard,
    ) -> Result<Response<Full<Bytes>>, Silence> {
        let has_body = !request.body().is_end_stream();
        let answer = self.handler.handle(identity, request).await?;
        if !has_body || answer.status().is_success() {
            heard.all();
        }
        Ok(answer)
    }
}
