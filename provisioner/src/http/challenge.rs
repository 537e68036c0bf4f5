//! What a TPM has to solve, asked and answered.

use hyper::{StatusCode, header::CONTENT_TYPE};

use fleetcert_core::{
    device_id::DeviceId,
    time::Wall,
    wire::{self, ChallengeRequest, MEDIA_TYPE, WireError},
};

use super::{
    Asked, Edge,
    answer::{self, Answer},
    failed,
};
use crate::{
    enroll::{ChallengeOrder, NewChallenge, Peer},
    store::Store,
};

impl<S: Store> Edge<S> {
    /// A challenge for a device and its TPM. Anybody may ask: who asks proves nothing, who answers
    /// does.
    pub(super) async fn challenge(&self, asked: Asked<'_>) -> Answer {
        let now = asked.now;
        let order = match self.challenge_order(asked).await {
            Ok(order) => order,
            Err(answer) => return answer,
        };
        let mut entropy = self.entropy.clone();
        match self.provisioner.challenge(order, now, &mut entropy).await {
            Ok(challenge) => {
                log::info!("challenge {}", challenge.id);
                challenge_answer(&challenge, now).uncached()
            }
            Err(error) => failed(&error, now),
        }
    }

    async fn challenge_order(&self, asked: Asked<'_>) -> Result<ChallengeOrder, Answer> {
        if !asked.is_postcard() {
            let text = format!("the body is of another type, expected {MEDIA_TYPE}");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Answer::refusal(status, "content-type", &text));
        }
        let peer = asked.peer();
        let body = self.body(asked.request, ChallengeRequest::MAX_LEN).await?;
        order(peer, &body)
    }
}

impl Asked<'_> {
    fn is_postcard(&self) -> bool {
        let media_type = self.field(CONTENT_TYPE).and_then(|field| field.split(';').next());
        media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case(MEDIA_TYPE))
    }
}

fn order(peer: Peer, body: &[u8]) -> Result<ChallengeOrder, Answer> {
    let message = ChallengeRequest::parse(body).map_err(|error| unread(&error))?;
    let device = DeviceId::parse(message.device_id).map_err(|_| unread(&WireError::Malformed))?;
    Ok(ChallengeOrder {
        peer,
        device,
        ek_public: message.ek_public.to_vec(),
        ek_certificates: message.ek_certificates.to_vec(),
        ak_public: message.ak_public.to_vec(),
    })
}

fn unread(error: &WireError) -> Answer {
    let code = match error {
        WireError::Version { .. } => "challenge-version",
        WireError::Buffer { .. } | WireError::Malformed => "challenge-malformed",
    };
    Answer::refusal(StatusCode::BAD_REQUEST, code, &error.to_string())
}

fn challenge_answer(challenge: &NewChallenge, now: Wall) -> Answer {
    let message = wire::Challenge {
        version: wire::VERSION,
        id: challenge.id.0,
        nonce: challenge.nonce,
        credential: &challenge.credential.blob,
        encrypted_secret: &challenge.credential.encrypted_secret,
        valid_s: challenge.valid_s,
        server_time: now,
    };
    match message.emit(&mut [0; wire::Challenge::MAX_LEN]) {
        Ok(octets) => Answer::ok(answer::POSTCARD, octets.to_vec()),
        Err(error) => {
            log::error!("a challenge of ours does not fit its format: {error}");
            let text = "the answer does not fit its format";
            Answer::refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
        }
    }
}
