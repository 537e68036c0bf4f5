//! EST and our own questions over HTTPS.
//!
//! **What it is.** One request's way: `route` says what the path means, this room checks method
//! and credentials and reads the body within its limits, the domain answers, `answer` writes
//! that as HTTP. [`server`] keeps the connections.
//!
//! **What it must never do.** Decide who gets a certificate; that is `enroll`'s. It does refuse
//! early what `enroll` would refuse anyway, so that a stranger's body is not even read.
//!
//! **Why that is sound.** Without a client certificate or a token only public things are answered
//! with 200: CA certificates, CSR attributes, CRLs, renewal windows and the state of health.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, header::CONTENT_LENGTH};

use fleetcert_core::time::Wall;

use self::{
    answer::Answer,
    route::{Est, Route},
    server::{Handler, Limits, Silence},
};
use crate::{
    clock::{Clock, within},
    enroll::{Operation, Peer, Provisioner, Refusal, ServiceError},
    entropy::SystemEntropy,
    store::Store,
    tls::Identity,
};

mod answer;
pub mod body;
mod challenge;
mod cms;
mod device;
mod est;
mod linger;
mod route;
pub mod server;
mod stall;

/// When to come again after trouble of ours, seconds.
const TROUBLE_RETRY_AFTER_S: u64 = 30;

/// The service behind the paths.
pub struct Edge<S> {
    provisioner: Arc<Provisioner<S>>,
    ca_certificates: Vec<u8>,
    clock: Arc<dyn Clock>,
    entropy: SystemEntropy,
    limits: Limits,
}

/// One request, with everything that was established about it.
struct Asked<'a> {
    request: Request<Incoming>,
    identity: Option<&'a Identity>,
    now: Wall,
}

impl<S: Store> Edge<S> {
    /// A service that gives out `ca_certificates` (DER, issuing CAs before roots) to whoever asks.
    pub fn new(
        provisioner: Arc<Provisioner<S>>,
        ca_certificates: &[&[u8]],
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Self {
        let ca_certificates = cms::certs_only(ca_certificates);
        Self { provisioner, ca_certificates, clock, entropy: SystemEntropy::new(), limits }
    }

    async fn answer(&self, asked: Asked<'_>) -> Answer {
        let uri = asked.request.uri().clone();
        let Some(route) = Route::of(uri.path()) else { return Answer::not_found() };
        if *asked.request.method() != route.method() {
            return Answer::wrong_method(&route.method());
        }
        if uri.query().is_some_and(|query| query.len() > route::QUERY_LEN_MAX) {
            return Answer::refusal(StatusCode::URI_TOO_LONG, "query", "the query is too long");
        }
        match route {
            Route::Challenge => self.challenge(asked).await,
            Route::Crl(aki) => self.crl(aki, asked.now).await,
            Route::Est(label, Est::CaCerts) => self.ca_certs(label, &asked),
            Route::Est(label, Est::CsrAttrs) => self.csr_attrs(label, asked.now),
            Route::Est(label, Est::SimpleEnroll) => {
                self.enroll(Operation::Enroll, label, asked).await
            }
            Route::Est(label, Est::SimpleReenroll) => {
                self.enroll(Operation::Reenroll, label, asked).await
            }
            Route::Health => self.health(asked.now).await,
            Route::RenewalInfo(id) => self.renewal_info(id, &asked).await,
            Route::WhoAmI => self.whoami(uri.query(), &asked).await,
        }
    }

    /// Reads a body within the limits of length and time; `len_max` octets at most, however much
    /// the server would let through.
    async fn body(&self, request: Request<Incoming>, len_max: usize) -> Result<Bytes, Answer> {
        let len_max = len_max.min(self.limits.body_len_max);
        let too_large = || {
            let text = format!("the body is longer than {len_max} octets");
            Answer::refusal(StatusCode::PAYLOAD_TOO_LARGE, "too-large", &text).last()
        };
        if announced_len(&request).is_some_and(|len| len > len_max as u64) {
            return Err(too_large());
        }
        let collected = Limited::new(request.into_body(), len_max).collect();
        match within(self.limits.request, collected).await {
            Some(Ok(body)) => Ok(body.to_bytes()),
            Some(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Some(Err(_)) => {
                let text = "the body is not framed as its head says";
                Err(Answer::refusal(StatusCode::BAD_REQUEST, "framing", text).last())
            }
            None => {
                let text = "the body did not come in time";
                Err(Answer::refusal(StatusCode::REQUEST_TIMEOUT, "slow", text).last())
            }
        }
    }
}

fn announced_len(request: &Request<Incoming>) -> Option<u64> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl<S: Store + 'static> Handler for Edge<S> {
    async fn handle(
        &self,
        identity: Option<&Identity>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Silence> {
        let now = self.clock.wall();
        if let Err(error) = self.provisioner.check_clock(now) {
            log::error!("not answered: {error}");
            return Err(Silence);
        }
        let line = (request.method().clone(), request.uri().path().to_owned());
        let asked = Asked { request, identity, now };
        // Twice the time for a body: what is slow after that is ours, not the sender's.
        let answer = within(self.limits.request * 2, self.answer(asked)).await;
        let answer = answer.unwrap_or_else(|| trouble(&"no answer from the database in time"));
        log::debug!("{} {:?}: {}", line.0, line.1, answer.status());
        Ok(answer.at(now))
    }
}

impl Asked<'_> {
    /// Who asks, as the domain sees it.
    fn peer(&self) -> Peer {
        self.identity.map_or(Peer::Anonymous, |identity| Peer::Device {
            leaf_der: identity.leaf_der().to_vec(),
            expired: identity.is_expired_at(self.now),
        })
    }

    /// A header field as text.
    fn field(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }
}

/// A domain's refusal as HTTP.
fn refused(refusal: &Refusal, now: Wall) -> Answer {
    let status = StatusCode::from_u16(refusal.status().http()).unwrap_or(StatusCode::FORBIDDEN);
    log::info!("refused: {}: {refusal}", refusal.code());
    let answer = Answer::refusal(status, refusal.code(), &refusal.to_string());
    match refusal.retry_after_s(now) {
        Some(wait_s) => answer.retry_after_s(wait_s),
        None => answer,
    }
}

/// What the domain could not do, as HTTP.
fn failed(error: &ServiceError, now: Wall) -> Answer {
    match error {
        ServiceError::Refused(refusal) => refused(refusal, now),
        ServiceError::Store(error) => trouble(error),
        error => {
            log::error!("not answered: {error}");
            let text = "the provisioner could not do this; its log says why";
            Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
        }
    }
}

/// Trouble of ours that passes: 503 (RFC 9110 §15.6.4). The peer is not told what it is.
fn trouble(error: &dyn fmt::Display) -> Answer {
    log::error!("not answered: {error}");
    let text = "the provisioner cannot use its database now; come again";
    Answer::refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text)
        .retry_after_s(TROUBLE_RETRY_AFTER_S)
}
