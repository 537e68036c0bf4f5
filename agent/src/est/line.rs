//! The connection of one piece of work, and the exchanges that it carries.
//!
//! **What it is.** A connection is made for the first exchange and kept for the next one of the same
//! work: a handshake costs a device with a TPM a signature, and both sides most of their time.
//!
//! **What it must never do.** Carry the work of one identity, or of one reading of the clock, on a
//! connection that was made for another: a line has one client and one reading, and ends with the
//! work. Send a request twice: whether the first one was heard is the machine's to find out.
//!
//! **Why that is sound.** A connection is kept only where its answer was read to the end and leaves
//! it open; and it is used again only if nothing has come on it since, so that a server that has
//! gone in the meantime (a TPM may have worked for longer than the server waits) is met anew.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use fleetcert_core::http::{Progress, Response, ResponseReader};
use fleetcert_core::time::Reading;
use futures_lite::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _};

use super::EstError;
use crate::clock::within;
use crate::config::Endpoint;
use crate::net::{NetError, Stream, dial, exchange_max};
use crate::tls::Client;

/// A way to one server.
pub(super) struct Line<'c> {
    endpoint: &'c Endpoint,
    client: &'c Client,
    reading: Reading,
    kept: Option<Stream>,
}

/// What comes back, before it is read.
pub(super) struct Raw<'b> {
    pub(super) response: Response<'b>,
    /// The server's certificate, DER.
    pub(super) leaf: Vec<u8>,
}

impl<'c> Line<'c> {
    /// A way to the server at `endpoint` as `client`; servers are judged by `reading`. Nothing is
    /// connected yet.
    pub(super) const fn new(endpoint: &'c Endpoint, client: &'c Client, reading: Reading) -> Self {
        Self { endpoint, client, reading, kept: None }
    }

    /// Sends the first `len` octets of the buffer and reads the answer into it.
    pub(super) async fn exchange<'b>(
        &mut self,
        len: usize,
        buffer: &'b mut [u8],
    ) -> Result<Raw<'b>, EstError> {
        let limit = exchange_max(self.client);
        let exchange = async {
            let mut stream = self.stream().await.map_err(EstError::Net)?;
            let leaf = leaf(&stream);
            send(&mut stream, buffer.get(..len).unwrap_or_default()).await?;
            let response = receive(&mut stream, buffer).await?;
            self.kept = (!response.head.closes()).then_some(stream);
            Ok(Raw { response, leaf })
        };
        let late = NetError::Deadline { step: "exchange", limit };
        within(limit, exchange).await.ok_or(EstError::Net(late))?
    }

    /// Makes the next exchange on a new connection.
    pub(super) fn hang_up(&mut self) {
        self.kept = None;
    }

    async fn stream(&mut self) -> Result<Stream, NetError> {
        if let Some(mut kept) = self.kept.take()
            && is_quiet(&mut kept).await
        {
            return Ok(kept);
        }
        dial(self.endpoint, self.client, self.reading).await
    }
}

/// Whether the server has neither ended the connection nor said anything for which nobody asked.
async fn is_quiet(stream: &mut Stream) -> bool {
    let mut octet = [0; 1];
    poll_fn(|context| {
        Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut octet).is_pending())
    })
    .await
}

fn leaf(stream: &Stream) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates();
    chain.and_then(<[_]>::first).map(|leaf| leaf.to_vec()).unwrap_or_default()
}

async fn send(stream: &mut Stream, request: &[u8]) -> Result<(), EstError> {
    let sent: io::Result<()> = async {
        stream.write_all(request).await?;
        stream.flush().await
    }
    .await;
    sent.map_err(|error| EstError::Net(error.into()))
}

async fn receive<'b>(stream: &mut Stream, buffer: &'b mut [u8]) -> Result<Response<'b>, EstError> {
    let mut reader = ResponseReader::new(buffer);
    loop {
        let received = match stream.read(reader.space()).await {
            Ok(received) => received,
            // Without close_notify an end is not known to be the end: it is no answer's.
            Err(error) => return Err(EstError::Net(error.into())),
        };
        if reader.advance(received).map_err(EstError::Http)? == Progress::Done {
            return reader.finish().map_err(EstError::Http);
        }
    }
}
