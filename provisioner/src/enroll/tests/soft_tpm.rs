//! A TPM of a few keys in memory, and its maker: as much of both as the rules look at.
//!
//! It answers like a TPM that has opened the credential: it is handed the secret from the store.
//! That a credential opens to it for the right TPM alone is shown where credentials are made, and
//! in `a_credential_opens_to_the_secret_of_its_challenge`.

use fleetcert_core::est::evidence::Evidence;
use fleetcert_tpm::{attest::qualifying_data, name::Name};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use rcgen::KeyPair;

use crate::{
    attest::{
        EkId,
        evidence::endorsement_key,
        forge::{Draft, SUBJECT_ALT_NAME, Signer, alt_names, directory, tpm_name},
        root::EkRoot,
        testing::{X_AT, Y_AT, changed, ecdsa_sha256, vector},
    },
    challenge::Challenge,
    testing::{DAY_S, NOW, csr_of, public, subject},
};

/// Where a statement by a key whose Name is SHA-256's holds what.
const QUALIFYING_DATA_AT: usize = 44;
const RESET_COUNT_AT: usize = 84;
const NAME_AT: usize = 103;

/// Octets of the two coordinates at the end of an area on P-256.
const POINT_LEN: usize = 2 * (2 + 32);

/// A maker of TPMs with a root of its own.
pub(super) struct Maker {
    name: &'static str,
    seed: u8,
}

pub(super) const MAKER: Maker = Maker { name: "Good TPMs", seed: 201 };
pub(super) const STRANGER: Maker = Maker { name: "Other TPMs", seed: 202 };

impl Maker {
    fn signer(&self) -> Signer {
        Signer::new(self.seed)
    }

    pub(super) fn root(&self) -> EkRoot {
        let draft = Draft::authority(self.name, &self.signer().key(), self.name);
        EkRoot::parse(&lasting(draft).signed(&self.signer())).unwrap()
    }

    fn certificate(&self, tpm: &SoftTpm, manufacturer: &str) -> Vec<u8> {
        let key = endorsement_key(&tpm.ek_area).unwrap();
        let names = alt_names(&[directory(&tpm_name(manufacturer))]);
        let draft = Draft::leaf(key.key(), self.name).with(SUBJECT_ALT_NAME, true, names);
        lasting(draft).signed(&self.signer())
    }
}

/// The same for ten years: devices live longer than the tests of certificates.
fn lasting(draft: Draft) -> Draft {
    Draft { validity: (NOW.minus_s(DAY_S), NOW.plus_s(3_650 * DAY_S)), ..draft }
}

/// A TPM with an endorsement key and an attestation key.
#[derive(Clone)]
pub(super) struct SoftTpm {
    pub(super) ek_area: Vec<u8>,
    pub(super) certificates: Vec<u8>,
    pub(super) ak_area: Vec<u8>,
    pub(super) ak: SigningKey,
    pub(super) reset_count: u32,
}

impl SoftTpm {
    /// A TPM without a certificate; `seed` below 100 makes its keys.
    pub(super) fn bare(seed: u8) -> Self {
        let (ak, ak_area) = attestation_key(seed + 100);
        let point = SigningKey::from_slice(&[seed; 32]).unwrap();
        let area = vector("ek-p256");
        let at = area.len() - POINT_LEN;
        let ek_area = changed(area, at, &coordinates(&point));
        Self { ek_area, certificates: Vec::new(), ak_area, ak, reset_count: 7 }
    }

    /// A TPM of a maker's.
    pub(super) fn of(maker: &Maker, seed: u8) -> Self {
        let bare = Self::bare(seed);
        Self { certificates: maker.certificate(&bare, "id:49465800"), ..bare }
    }

    /// A TPM of [`MAKER`].
    pub(super) fn new(seed: u8) -> Self {
        Self::of(&MAKER, seed)
    }

    /// One that is software, as its certificate by [`MAKER`] says.
    pub(super) fn software(seed: u8) -> Self {
        let bare = Self::bare(seed);
        Self { certificates: MAKER.certificate(&bare, "id:00001014"), ..bare }
    }

    /// The same TPM after it was cleared: another attestation key.
    pub(super) fn cleared(&self, seed: u8) -> Self {
        let (ak, ak_area) = attestation_key(seed + 100);
        Self { ak, ak_area, ..self.clone() }
    }

    /// This TPM with the attestation key of another.
    pub(super) fn with_ak_of(&self, other: &Self) -> Self {
        Self { ak: other.ak.clone(), ak_area: other.ak_area.clone(), ..self.clone() }
    }

    pub(super) fn ek(&self) -> EkId {
        endorsement_key(&self.ek_area).unwrap().id()
    }

    /// A request for `key` with evidence that it lives in this TPM.
    pub(super) fn csr(&self, challenge: &Challenge, key: &KeyPair, id: &str) -> Vec<u8> {
        let point = public(key);
        let area = changed(vector("device"), X_AT, &point.point()[1..33]);
        let area = changed(area, Y_AT, &point.point()[33..]);
        let attest = self.attest(challenge, &area, point.spki());
        let signature: Signature = self.ak.sign(&attest);
        let (r, s) = signature.split_bytes();
        let evidence =
            Evidence { attest: &attest, signature: &ecdsa_sha256(&r, &s), public: &area };
        let mut out = [0; 2_048];
        csr_of(key, &subject(&[(3, id)]), evidence.attribute(&mut out).unwrap())
    }

    fn attest(&self, challenge: &Challenge, area: &[u8], spki: &[u8]) -> Vec<u8> {
        let secret = challenge.secret.as_ref().map_or([0; 32], |secret| *secret.octets());
        let data = qualifying_data(&secret, &challenge.id.0, &challenge.nonce, spki);
        let name = Name::of_public_area(area).unwrap();
        let attest = changed(vector("attest-p256"), QUALIFYING_DATA_AT, &data);
        let attest = changed(attest, RESET_COUNT_AT, &self.reset_count.to_be_bytes());
        changed(attest, NAME_AT, name.as_bytes())
    }
}

fn attestation_key(seed: u8) -> (SigningKey, Vec<u8>) {
    let key = SigningKey::from_slice(&[seed; 32]).unwrap();
    let area = changed(vector("ak-p256"), X_AT - 2, &coordinates(&key));
    (key, area)
}

/// Both coordinates, each with its length before it.
fn coordinates(key: &SigningKey) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    [&[0, 32][..], point.x().unwrap(), &[0, 32], point.y().unwrap()].concat()
}
