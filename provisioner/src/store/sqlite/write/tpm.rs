//! What a verdict changes about TPMs.

use super::{Batch, seconds};
use crate::{
    binding::{Ak, Binding, Conflict, Endorsement, Evidence},
    challenge::Challenge,
    store::{Change, Listing, StoredRoot},
};

const ADD_AK: &str = "INSERT INTO ak (name, ek, first_at) VALUES (?, ?, ?);";

const ADD_CHALLENGE: &str = "INSERT INTO challenge (id, device, ek, source, chain, manufacturer, \
    model, version, is_virtual, ak_name, ak_public, nonce, secret, created_at, expires_at, \
    used_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);";

/// Not `OR REPLACE`: that would take a TPM from the device that it is bound to.
const ADD_BINDING: &str = "INSERT INTO binding (device, hold, ek, source, chain, manufacturer, \
    model, version, is_virtual, ak_name, ak_public, evidence_at, challenge, key, key_name, attest, \
    signature, public, clock_ms, reset_count, restart_count, safe, firmware, admission, since, \
    clone_signs, clone_sign_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);";

const REMOVE_BINDING: &str = "DELETE FROM binding WHERE device = ? AND hold = ?;";

const DROP_CHALLENGE: &str = "DELETE FROM challenge WHERE id = ?;";

const DROP_CHALLENGES: &str = "DELETE FROM challenge;";

const LIST: &str = "INSERT INTO ek_listed (ek, device, listed_at) VALUES (?, ?, ?);";

const PURGE_CHALLENGES: &str = "DELETE FROM challenge WHERE expires_at < ?;";

const PUT_CONFLICT: &str = "INSERT OR REPLACE INTO conflict (device, kind, ek, claimant, at) \
    VALUES (?, ?, ?, ?, ?);";

const ADD_ROOT: &str = "INSERT INTO ek_root (fingerprint, der, added_at) VALUES (?, ?, ?);";

const REMOVE_ROOT: &str = "DELETE FROM ek_root WHERE fingerprint = ?;";

const SETTLE_CONFLICTS: &str = "DELETE FROM conflict WHERE device = ?;";

const UNLIST: &str = "DELETE FROM ek_listed WHERE device = ?;";

const USE_CHALLENGE: &str = "UPDATE challenge SET used_at = ?, secret = NULL WHERE id = ?;";

impl Batch {
    pub(super) fn tpm_change(&mut self, change: &Change) {
        match change {
            Change::Ak { name, ek, at } => {
                self.statement(ADD_AK).octets(name.as_octets()).octets(&ek.0).time(*at);
            }
            Change::Bind(binding) => self.binding(binding),
            Change::Challenge(challenge) => self.challenge(challenge),
            Change::Conflict(conflict) => self.conflict(conflict),
            Change::DropChallenge(id) => {
                self.statement(DROP_CHALLENGE).octets(&id.0);
            }
            Change::DropChallenges => {
                self.statement(DROP_CHALLENGES);
            }
            Change::List { listing: Listing { ek, device }, at } => {
                self.statement(LIST).octets(&ek.0).text_of(device).time(*at);
            }
            Change::PurgeChallenges { before } => {
                self.statement(PURGE_CHALLENGES).time(*before);
            }
            Change::RemoveRoot(id) => {
                self.statement(REMOVE_ROOT).octets(&id.0);
            }
            Change::Root(StoredRoot { id, der, added_at }) => {
                self.statement(ADD_ROOT).octets(&id.0).octets(der).time(*added_at);
            }
            Change::SettleConflicts(device) => {
                self.statement(SETTLE_CONFLICTS).text_of(device);
            }
            Change::Unbind(device, hold) => {
                self.statement(REMOVE_BINDING).text_of(device).value(hold.code());
            }
            Change::Unlist(device) => {
                self.statement(UNLIST).text_of(device);
            }
            Change::UseChallenge { id, at } => {
                self.statement(USE_CHALLENGE).time(*at).octets(&id.0);
            }
            Change::Crl(_)
            | Change::Device(_)
            | Change::Request(_)
            | Change::RevokeCertificate { .. }
            | Change::RevokeDevice { .. }
            | Change::Token(_) => {}
        }
    }

    fn endorsement(&mut self, endorsement: &Endorsement) -> &mut Self {
        let Endorsement { ek, source, chain, kind } = endorsement;
        self.octets(&ek.0)
            .value(source.code())
            .value(chain.concat())
            .value(kind.as_ref().map(|kind| kind.manufacturer.clone()))
            .value(kind.as_ref().map(|kind| kind.model.clone()))
            .value(kind.as_ref().map(|kind| kind.version.clone()))
            .value(kind.as_ref().map(|kind| kind.is_virtual))
    }

    fn ak(&mut self, Ak { name, public }: &Ak) -> &mut Self {
        self.octets(name.as_octets()).octets(public)
    }

    fn evidence(&mut self, evidence: &Evidence) -> &mut Self {
        let clock = evidence.clock;
        self.time(evidence.at)
            .octets(&evidence.challenge.0)
            .octets(&evidence.key.0)
            .octets(evidence.key_name.as_octets())
            .octets(&evidence.attest)
            .octets(&evidence.signature)
            .octets(&evidence.public)
            .value(clock.clock_ms.cast_signed())
            .value(clock.reset_count)
            .value(clock.restart_count)
            .value(clock.safe)
            .value(evidence.firmware.cast_signed())
    }

    fn challenge(&mut self, challenge: &Challenge) {
        self.statement(ADD_CHALLENGE)
            .octets(&challenge.id.0)
            .text_of(&challenge.device)
            .endorsement(&challenge.endorsement)
            .ak(&challenge.ak)
            .octets(&challenge.nonce)
            .value(challenge.secret.as_ref().map(|secret| secret.octets().to_vec()))
            .time(challenge.created_at)
            .time(challenge.expires_at)
            .value(challenge.used_at.map(seconds));
    }

    fn binding(&mut self, binding: &Binding) {
        let (hold, signs) = (binding.hold.code(), binding.clone_signs);
        self.statement(REMOVE_BINDING).text_of(&binding.device).value(hold);
        self.statement(ADD_BINDING)
            .text_of(&binding.device)
            .value(hold)
            .endorsement(&binding.proven.endorsement)
            .ak(&binding.proven.ak)
            .evidence(&binding.proven.evidence)
            .value(binding.admission.code())
            .time(binding.since)
            .value(signs.map(|(count, _)| count))
            .value(signs.map(|(_, at)| seconds(at)));
    }

    fn conflict(&mut self, conflict: &Conflict) {
        self.statement(PUT_CONFLICT)
            .text_of(&conflict.device)
            .value(conflict.kind.code())
            .octets(&conflict.ek.0)
            .text_of(&conflict.claimant)
            .time(conflict.at);
    }
}
