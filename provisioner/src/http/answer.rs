//! Answers as HTTP says them.
//!
//! Every refusal carries its reason code in a header, for devices, and a line of text, for the
//! operator who reads the device's log. Credentials are never repeated in either.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};

use fleetcert_core::{time::Wall, wire::REASON_HEADER};

use crate::clock::http_date;

/// What a client without credentials is told to show (RFC 7617 §2).
const BASIC_CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"fleetcert\", charset=\"UTF-8\"");

/// Certificates, no signature (RFC 7030 §4.1.3, §4.2.3).
pub(crate) const PKCS7: HeaderValue =
    HeaderValue::from_static("application/pkcs7-mime; smime-type=certs-only");

/// A revocation list (RFC 2585 §4.2).
pub(crate) const CRL: HeaderValue = HeaderValue::from_static("application/pkix-crl");

/// What a CSR should contain (RFC 7030 §4.5.2).
pub(crate) const CSR_ATTRS: HeaderValue = HeaderValue::from_static("application/csrattrs");

/// JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The messages of `fleetcert_core::wire`.
pub(crate) const POSTCARD: HeaderValue = HeaderValue::from_static(fleetcert_core::wire::MEDIA_TYPE);

/// A field of MIME that HTTP does not have (RFC 9112 §B.5) and EST does (RFC 7030 §4.1.3).
const TRANSFER_ENCODING: HeaderName = HeaderName::from_static("content-transfer-encoding");

/// Text for people.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Answer(Box<Response<Full<Bytes>>>);

impl Answer {
    /// 200 with a body.
    pub(crate) fn ok(content_type: HeaderValue, body: Vec<u8>) -> Self {
        Self::new(StatusCode::OK, content_type, body)
    }

    /// A refusal: status, reason code `[a-z0-9-]{1,32}`, and what an operator should know.
    pub(crate) fn refusal(status: StatusCode, code: &'static str, text: &str) -> Self {
        let mut answer = Self::new(status, TEXT, format!("{text}\n").into_bytes());
        // Written as the specification writes it, the name is not in the form of a static one.
        if let Ok(name) = HeaderName::try_from(REASON_HEADER) {
            answer = answer.with(name, HeaderValue::from_static(code));
        }
        match status {
            StatusCode::UNAUTHORIZED => answer.with(WWW_AUTHENTICATE, BASIC_CHALLENGE),
            _ => answer,
        }
    }

    /// 405 with the one method that the path has (RFC 9110 §15.5.6).
    pub(crate) fn wrong_method(allowed: &Method) -> Self {
        let text = format!("this path answers {allowed} only");
        let answer = Self::refusal(StatusCode::METHOD_NOT_ALLOWED, "method", &text);
        answer.with_text(ALLOW, allowed.as_str())
    }

    /// 404.
    pub(crate) fn not_found() -> Self {
        Self::refusal(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path")
    }

    fn new(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Self {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        Self(Box::new(response)).with(CONTENT_TYPE, content_type)
    }

    /// 202: the same request again later (RFC 7030 §4.2.3).
    pub(crate) fn pending(text: &str) -> Self {
        Self::new(StatusCode::ACCEPTED, TEXT, format!("{text}\n").into_bytes())
    }

    /// Says that the body is base64. Readers have to ignore it (RFC 8951 §3.1); those that do not
    /// expect it.
    pub(crate) fn in_base64(self) -> Self {
        self.with(TRANSFER_ENCODING, HeaderValue::from_static("base64"))
    }

    /// Adds a header field.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// Adds a header field whose value we made; one that HTTP could not carry is left out.
    pub(crate) fn with_text(self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::try_from(value) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    /// When to come again (RFC 9110 §10.2.3), seconds.
    pub(crate) fn retry_after_s(self, wait_s: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(wait_s))
    }

    /// Says that the connection ends here: what follows on it could not be trusted to be a
    /// request.
    pub(crate) fn last(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }

    /// Says that the answer is about this peer at this moment.
    pub(crate) fn uncached(self) -> Self {
        self.with(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// The response, dated: devices without a clock take the time from here.
    pub(crate) fn at(self, now: Wall) -> Response<Full<Bytes>> {
        *self.with_text(DATE, &http_date(now)).0
    }

    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status()
    }
}
