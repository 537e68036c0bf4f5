//! Enrollment over Secure Transport (RFC 7030, RFC 8951).

use base64ct::{Base64, Encoding};
use hyper::{
    StatusCode,
    header::{AUTHORIZATION, HeaderMap, USER_AGENT},
};
use zeroize::Zeroizing;

use fleetcert_core::time::Wall;

use super::{
    Asked, Edge,
    answer::{self, Answer},
    body::{self, BodyError, Style},
    cms, failed, refused,
};
use crate::{
    enroll::{self, Basic, Operation, Peer, Refusal},
    inventory::Name,
    store::Store,
};

/// An empty `CsrAttrs` (RFC 7030 §4.5.2): a device asks for its key and its name, no more.
const NO_ATTRIBUTES: [u8; 2] = [0x30, 0x00];

impl<S: Store> Edge<S> {
    /// RFC 7030 §4.1. The same at every label.
    pub(super) fn ca_certs(&self, label: Option<&str>, asked: &Asked<'_>) -> Answer {
        if let Err(answer) = self.label(label, asked.now) {
            return answer;
        }
        let style = Style::for_user_agent(asked.field(USER_AGENT).unwrap_or_default());
        Answer::ok(answer::PKCS7, style.encode(&self.ca_certificates)).in_base64()
    }

    /// RFC 7030 §4.5.
    pub(super) fn csr_attrs(&self, label: Option<&str>, now: Wall) -> Answer {
        match self.label(label, now) {
            Ok(_) => {
                Answer::ok(answer::CSR_ATTRS, Style::OneLine.encode(&NO_ATTRIBUTES)).in_base64()
            }
            Err(answer) => answer,
        }
    }

    /// RFC 7030 §4.2.
    pub(super) async fn enroll(
        &self,
        operation: Operation,
        label: Option<&str>,
        asked: Asked<'_>,
    ) -> Answer {
        let now = asked.now;
        match self.order(operation, label, asked).await {
            Ok((request, style)) => self.decide(request, style, now).await,
            Err(answer) => answer,
        }
    }

    /// Everything the domain wants to know of a request, cheap and telling checks first.
    async fn order(
        &self,
        operation: Operation,
        label: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<(enroll::Request, Style), Answer> {
        let label = self.label(label, asked.now)?;
        let (peer, basic) = (asked.peer(), basic(asked.request.headers())?);
        if let Some(refusal) = self.hopeless(operation, label.as_ref(), &peer, basic.is_some()) {
            return Err(refused(&refusal, asked.now));
        }
        let (request_id, challenge) = (asked.request_id()?, asked.challenge()?);
        let body = self.body(asked.request, usize::MAX).await?;
        let csr_der = body::decode(&body).map_err(no_csr)?;
        let request =
            enroll::Request { operation, label, peer, basic, csr_der, request_id, challenge };
        Ok((request, Style::of(&body)))
    }

    async fn decide(&self, request: enroll::Request, style: Style, now: Wall) -> Answer {
        let mut entropy = self.entropy.clone();
        match self.provisioner.enroll(request, now, &mut entropy).await {
            Ok(enroll::Answer::Issued { leaf_der, serial }) => {
                log::info!("issued {serial}");
                Answer::ok(answer::PKCS7, style.encode(&cms::certs_only(&[&leaf_der])))
                    .in_base64()
                    .uncached()
            }
            Ok(enroll::Answer::Pending { retry_after_s }) => {
                let text = "an operator has to approve this key; repeat the request later";
                Answer::pending(text).retry_after_s(u64::from(retry_after_s))
            }
            Err(error) => failed(&error, now),
        }
    }

    /// The label, if it exists.
    fn label(&self, text: Option<&str>, now: Wall) -> Result<Option<Name>, Answer> {
        let Some(text) = text else { return Ok(None) };
        let label = Name::parse(text).map_err(|_| Answer::not_found())?;
        if self.provisioner.settings().labels.contains_key(&label) {
            return Ok(Some(label));
        }
        Err(refused(&Refusal::LabelUnknown { label }, now))
    }

    /// Why a request would be refused whatever its body says.
    fn hopeless(
        &self,
        operation: Operation,
        label: Option<&Name>,
        peer: &Peer,
        has_basic: bool,
    ) -> Option<Refusal> {
        if has_basic || *peer != Peer::Anonymous {
            return None;
        }
        if operation == Operation::Reenroll {
            return Some(Refusal::CertificateRequired);
        }
        let settings = self.provisioner.settings();
        let mut groups = settings.groups.iter().filter(|(name, _)| {
            label.is_none_or(|label| settings.labels.get(label) == Some(*name))
        });
        let open = groups.any(|(_, group)| group.admission.is_open());
        (!open).then_some(Refusal::CredentialsRequired)
    }
}

/// The user and password of HTTP Basic (RFC 7617), if there are any.
fn basic(headers: &HeaderMap) -> Result<Option<Basic>, Answer> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let credentials = || {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        let octets = Zeroizing::new(Base64::decode_vec(token.trim()).ok()?);
        let (user, password) = str::from_utf8(&octets).ok()?.split_once(':')?;
        scheme
            .eq_ignore_ascii_case("Basic")
            .then(|| Basic { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
    };
    credentials().map(Some).ok_or_else(|| {
        let text = "the Authorization field is not HTTP Basic with a device id and a token";
        Answer::refusal(StatusCode::UNAUTHORIZED, "credentials-malformed", text)
    })
}

fn no_csr(error: BodyError) -> Answer {
    let text = match error {
        BodyError::Empty => "the body is empty, expected a PKCS#10 request in base64",
        BodyError::NotBase64 => "the body is not base64, expected a PKCS#10 request",
    };
    Answer::refusal(StatusCode::BAD_REQUEST, "csr-malformed", text)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(value: &str) -> Result<Option<(String, String)>, StatusCode> {
        let value = HeaderValue::try_from(value).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let pair = |basic: Basic| (basic.user, basic.password.to_string());
        basic(&headers).map(|basic| basic.map(pair)).map_err(|answer| answer.status())
    }

    // Goal: a password may hold a colon, a user may not (RFC 7617 §2).
    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let pair = Some(("dev1".to_owned(), "a:b".to_owned()));
        assert_eq!(read("Basic ZGV2MTphOmI="), Ok(pair.clone()));
        assert_eq!(read("basic  ZGV2MTphOmI="), Ok(pair));
    }

    // Goal: credentials that cannot be read are not the same as none.
    #[test]
    fn other_credentials_are_refused() {
        for value in ["", "Basic", "Basic *", "Basic ZGV2MQ==", "Bearer ZGV2MTphOmI=", "Basic /w=="]
        {
            assert_eq!(read(value), Err(StatusCode::UNAUTHORIZED), "{value}");
        }
        assert!(basic(&HeaderMap::new()).unwrap().is_none());
    }
}
