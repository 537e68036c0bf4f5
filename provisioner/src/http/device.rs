//! Our own questions and answers beside EST: whoami, renewal windows, revocation lists, health.

use hyper::{
    StatusCode,
    header::{ACCEPT, HeaderName},
};
use serde_json::json;

use fleetcert_core::{
    time::Wall,
    wire::{self, MEDIA_TYPE, MESSAGE_LEN_MAX, NONCE_LEN, REQUEST_ID_LEN},
};

use super::{
    Asked, Edge,
    answer::{self, Answer},
    failed, refused,
};
use crate::{
    challenge::ChallengeId,
    enroll::{Published, Refusal, Seen, ServiceError},
    store::Store,
};

impl<S: Store> Edge<S> {
    /// Which certificate do we see? Proves to a device that its new identity works.
    pub(super) async fn whoami(&self, query: Option<&str>, asked: &Asked<'_>) -> Answer {
        if asked.identity.is_none() {
            return refused(&Refusal::CertificateRequired, asked.now);
        }
        let Some(nonce) = query.and_then(nonce) else {
            let text = "the query has no nonce= of 32 hexadecimal digits";
            return Answer::refusal(StatusCode::BAD_REQUEST, "nonce", text);
        };
        match self.provisioner.whoami(&asked.peer(), nonce, asked.now).await {
            Ok(seen) => seen_answer(&seen, asked.accepts_postcard()).uncached(),
            Err(error) => failed(&error, asked.now),
        }
    }

    /// When should this certificate be renewed (RFC 9773 §4.2)? Anybody may ask.
    pub(super) async fn renewal_info(&self, id: &str, asked: &Asked<'_>) -> Answer {
        match self.provisioner.renewal_info(id, asked.now).await {
            Ok(Some(info)) => window_answer(&info, asked.accepts_postcard())
                .retry_after_s(u64::from(info.retry_after_s))
                .uncached(),
            Ok(None) => {
                let text = "no certificate of this identifier was issued here";
                Answer::refusal(StatusCode::NOT_FOUND, "certificate-unknown", text)
            }
            Err(error) => failed(&error, asked.now),
        }
    }

    /// The revocation list of the device tree's issuing authority.
    pub(super) async fn crl(&self, aki: &str, now: Wall) -> Answer {
        if !self.provisioner.authority().key_id().to_string().eq_ignore_ascii_case(aki) {
            return Answer::not_found();
        }
        match self.published(now).await {
            Ok(published) => Answer::ok(answer::CRL, published.crl.der),
            Err(error) => failed(&error, now),
        }
    }

    /// Does the database answer, and is there a revocation list to give out? A list that is due is
    /// made here too, so that whoever watches learns of it when that does not work.
    pub(super) async fn health(&self, now: Wall) -> Answer {
        match self.published(now).await {
            Ok(Published { crl, overdue }) => json_answer(&json!({
                "schema": 1,
                "healthy": true,
                "crl": {
                    "number": crl.number,
                    "nextUpdate": crl.next_update.to_string(),
                    "overdue": overdue.is_some(),
                },
            })),
            Err(error) => failed(&error, now),
        }
        .uncached()
    }

    /// The list to give out; warns if it should be a newer one.
    async fn published(&self, now: Wall) -> Result<Published, ServiceError> {
        let published = self.provisioner.published(now).await?;
        if let Some(error) = &published.overdue {
            log::warn!(
                "revocation list {} is past half of its validity and no new one can be made: \
                 {error}; brokers refuse every device after {}",
                published.crl.number,
                published.crl.next_update
            );
        }
        Ok(published)
    }
}

impl Asked<'_> {
    fn accepts_postcard(&self) -> bool {
        let is_ours = |range: &str| {
            range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(MEDIA_TYPE))
        };
        self.field(ACCEPT).is_some_and(|accept| accept.split(',').any(is_ours))
    }

    /// The name that the device gave this request; `Err` for a field that is none.
    pub(super) fn request_id(&self) -> Result<Option<[u8; REQUEST_ID_LEN]>, Answer> {
        let text = "Fleetcert-Request is not 32 hexadecimal digits";
        self.hex_field(wire::REQUEST_ID_HEADER, "request-id", text)
    }

    /// The challenge that the evidence of this request answers; `Err` for a field that is none.
    pub(super) fn challenge(&self) -> Result<Option<ChallengeId>, Answer> {
        let text = "Fleetcert-Challenge is not 32 hexadecimal digits";
        Ok(self.hex_field(wire::CHALLENGE_HEADER, "challenge-id", text)?.map(ChallengeId))
    }

    fn hex_field<const N: usize>(
        &self,
        name: &str,
        code: &'static str,
        text: &str,
    ) -> Result<Option<[u8; N]>, Answer> {
        let refusal = || Answer::refusal(StatusCode::BAD_REQUEST, code, text);
        let Ok(name) = HeaderName::try_from(name) else { return Ok(None) };
        match self.request.headers().get(name) {
            None => Ok(None),
            Some(value) => value.to_str().ok().and_then(hex).map(Some).ok_or_else(refusal),
        }
    }
}

fn seen_answer(seen: &Seen, postcard: bool) -> Answer {
    let (serial, device_id) = (seen.serial.as_octets(), seen.device.as_str());
    if postcard {
        return message(&wire::WhoAmI {
            version: wire::VERSION,
            nonce: seen.nonce,
            serial,
            device_id,
            server_time: seen.server_time,
        });
    }
    let nonce: String = seen.nonce.iter().map(|octet| format!("{octet:02x}")).collect();
    json_answer(&json!({
        "schema": 1,
        "nonce": nonce,
        "serial": seen.serial.to_string(),
        "deviceId": device_id,
        "serverTime": seen.server_time.to_string(),
    }))
}

fn window_answer(info: &wire::RenewalInfo, postcard: bool) -> Answer {
    if postcard {
        return message(info);
    }
    json_answer(&json!({
        "suggestedWindow": { "start": info.start.to_string(), "end": info.end.to_string() },
        "serverTime": info.server_time.to_string(),
    }))
}

fn json_answer(value: &serde_json::Value) -> Answer {
    Answer::ok(answer::JSON, format!("{value}\n").into_bytes())
}

fn message(message: &impl serde::Serialize) -> Answer {
    match postcard::to_slice(message, &mut [0; MESSAGE_LEN_MAX]) {
        Ok(octets) => Answer::ok(answer::POSTCARD, octets.to_vec()),
        Err(error) => {
            log::error!("a message of ours has no room in {MESSAGE_LEN_MAX} octets: {error}");
            let text = "the answer does not fit its format";
            Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
        }
    }
}

fn nonce(query: &str) -> Option<[u8; NONCE_LEN]> {
    hex(query.split('&').find_map(|pair| pair.strip_prefix("nonce="))?)
}

/// Reads exactly `N` octets of hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = [0; N];
    for (octet, pair) in octets.iter_mut().zip(0..) {
        *octet = u8::from_str_radix(text.get(2 * pair..2 * pair + 2)?, 16).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: a nonce is 32 digits, no more, no fewer, no sign.
    #[test]
    fn nonces_are_read_exactly() {
        let digits = "00112233445566778899aAbBcCdDeEfF";
        let octets = nonce(&format!("x=1&nonce={digits}")).unwrap();
        assert_eq!((octets[1], octets[15]), (0x11, 0xff));
        for query in ["", "nonce=", "nonce=00", "nonce=+0112233445566778899aabbccddeeff"] {
            assert_eq!(nonce(query), None, "{query}");
        }
        assert_eq!(nonce(&format!("nonce={digits}0")), None);
        assert_eq!(nonce(&format!("Nonce={digits}")), None);
    }
}
