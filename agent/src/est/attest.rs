//! The evidence of an enrollment: a challenge asked for, solved in the TPM, and answered.
//!
//! What goes out and comes back is laid out in `docs/design/attestation.md`. The challenge's secret
//! is opened and used up within the key store; it is never here.

use fleetcert_core::enroll;
use fleetcert_core::est::evidence::{EVIDENCE_ATTRIBUTE_LEN_MAX, Evidence as Written};
use fleetcert_core::record::Slot;
use fleetcert_core::wire::{CHALLENGE_ID_LEN, ChallengeRequest, VERSION};

use super::line::Line;
use super::{Est, EstError, Told, buffer};
use crate::keystore::{Evidence, Introduction, KeyStore};
use crate::tpm::chip::Challenge;

/// Statuses of a server that was never told of challenges: an EST server (RFC 9110 §15.5.5, §15.5.6).
const UNKNOWN: [u16; 2] = [404, 405];

/// What an enrollment carries beside the request itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attested {
    /// The challenge that is answered.
    pub(super) challenge: [u8; CHALLENGE_ID_LEN],
    /// The attribute of the PKCS#10 request.
    pub(super) attribute: Vec<u8>,
}

impl Est {
    /// Evidence for the key in `slot`; none where the keys are not in a TPM, or where the server
    /// does not ask for any.
    pub(super) async fn attest(
        &self,
        line: &mut Line<'_>,
        keys: &KeyStore,
        slot: Slot,
    ) -> Told<Option<Attested>> {
        let introduction = match keys.introduction().await {
            Ok(Some(introduction)) => introduction,
            Ok(None) => return Told { outcome: Ok(None), server_time: None },
            Err(failure) => return Told::failed(EstError::Key(failure)),
        };
        let Told { outcome, server_time } = self.challenge(line, &introduction).await;
        let challenge = match outcome {
            Ok(challenge) => challenge,
            Err(EstError::Refused { status, .. }) if UNKNOWN.contains(&status) => {
                log::warn!("the server knows no challenges: enrolling without evidence of the TPM");
                // Of connections after such an answer nothing is known either.
                line.hang_up();
                return Told { outcome: Ok(None), server_time };
            }
            Err(error) => return Told { outcome: Err(error), server_time },
        };
        let id = challenge.id;
        let outcome = match keys.vouch(slot, introduction, challenge).await {
            Ok(evidence) => {
                attribute(&evidence).map(|attribute| Some(Attested { challenge: id, attribute }))
            }
            Err(failure) => Err(EstError::Key(failure)),
        };
        Told { outcome, server_time }
    }

    async fn challenge(&self, line: &mut Line<'_>, introduction: &Introduction) -> Told<Challenge> {
        let message = ChallengeRequest {
            version: VERSION,
            device_id: self.config.device_id.as_str(),
            ek_public: introduction.ek_public(),
            ek_certificates: introduction.ek_certificates(),
            ak_public: introduction.ak_public(),
        };
        let mut buffer = buffer();
        let written = enroll::challenge(self.provisioner(), &message, &mut buffer);
        let len = match written.map(<[u8]>::len) {
            Ok(len) => len,
            Err(error) => return Told::failed(EstError::Request(error)),
        };
        match line.exchange(len, &mut buffer).await {
            Ok(raw) => raw.read(enroll::read_challenge, |challenge| {
                Ok(Challenge {
                    id: challenge.id,
                    nonce: challenge.nonce,
                    credential: challenge.credential.to_vec(),
                    encrypted_secret: challenge.encrypted_secret.to_vec(),
                })
            }),
            Err(error) => Told::failed(error),
        }
    }
}

fn attribute(evidence: &Evidence) -> Result<Vec<u8>, EstError> {
    let Evidence { attest, signature, public } = evidence;
    let mut out = [0; EVIDENCE_ATTRIBUTE_LEN_MAX];
    let attribute = Written { attest, signature, public }.attribute(&mut out);
    attribute.map(<[u8]>::to_vec).map_err(EstError::Evidence)
}
