//! What the tests of evidence share: what a software TPM answered, and a device that claims
//! whatever a test has it claim, signed by an attestation key whose private part is at hand.

use fleetcert_tpm::{
    attest::qualifying_data,
    name::Name,
    public::{Attribute, PublicArea},
};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use rsa::{RsaPrivateKey, pkcs1::DecodeRsaPrivateKey as _, traits::PublicKeyParts as _};

use super::evidence::{
    AttestationKey, EvidenceError, Expected, Proof, Statement, attestation_key, check,
};

pub(crate) const SECRET: [u8; 32] = counting(0);
pub(crate) const CHALLENGE: [u8; 16] = counting(0xa0);
pub(crate) const NONCE: [u8; 32] = counting(0x40);

/// Where parts of the vectors' areas begin: attributes of any key, the scheme of a key that
/// protects nothing, curve and coordinates of one on an elliptic curve with such a scheme.
pub(crate) const ATTRIBUTES_AT: usize = 4;
pub(crate) const SCHEME_AT: usize = 12;
pub(crate) const CURVE_AT: usize = 16;
pub(crate) const X_AT: usize = 22;
pub(crate) const Y_AT: usize = 56;

/// Where the qualifying data and the Name begin in a statement by a key whose Name is SHA-256's.
const QUALIFYING_DATA_AT: usize = 44;
const NAME_AT: usize = 103;

const fn counting<const N: usize>(from: u8) -> [u8; N] {
    let mut octets = [from; N];
    let mut index = 0;
    while index < N {
        octets[index] += index as u8;
        index += 1;
    }
    octets
}

/// Something that swtpm answered, by its name in the vectors.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let text = include_str!("../../../agent/tpm/vectors/swtpm.txt");
    let lines = text.lines().skip_while(|line| line.strip_suffix(':') != Some(name)).skip(1);
    let digits: String = lines.take_while(|line| !line.ends_with(':')).collect();
    assert!(!digits.is_empty(), "no vector {name}");
    hex(&digits)
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let octet = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(octet).collect()
}

/// The key of nobody: RSA-2048, an `RSAPrivateKey` that `openssl genrsa` would write.
pub(crate) fn rsa_key() -> RsaPrivateKey {
    let digits = include_str!("testing/rsa_key.hex").replace('\n', "");
    RsaPrivateKey::from_pkcs1_der(&hex(&digits)).unwrap()
}

/// An RSA-2048 area with the modulus of [`rsa_key`].
pub(crate) fn with_rsa_key(area: Vec<u8>) -> Vec<u8> {
    let modulus_at = area.len() - 256;
    changed(area, modulus_at, &rsa_key().n().to_bytes_be())
}

/// An area with other octets at a place.
pub(crate) fn changed(mut area: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    area[at..at + octets.len()].copy_from_slice(octets);
    area
}

/// An area with one attribute turned.
pub(crate) fn turned(mut area: Vec<u8>, attribute: Attribute) -> Vec<u8> {
    let bit = attribute as usize;
    area[ATTRIBUTES_AT + 3 - bit / 8] ^= 1 << (bit % 8);
    area
}

/// `ak-rsassa`, or another RSA key of that length, cut down to RSA-1024.
pub(crate) fn rsa_1024(area: &[u8], parameters_len: usize) -> Vec<u8> {
    let (parameters, modulus) = area.split_at(parameters_len);
    let (parameters, exponent) = parameters.split_at(parameters_len - 8);
    [parameters, &[0x04, 0], &exponent[2..6], &[0, 128], &modulus[..128]].concat()
}

/// A `TPMT_SIGNATURE` of ECDSA with SHA-256.
pub(crate) fn ecdsa_sha256(r: &[u8], s: &[u8]) -> Vec<u8> {
    let sized = |number: &[u8]| [&[0, number.len() as u8], number].concat();
    [vec![0, 0x18, 0, 0x0b], sized(r), sized(s)].concat()
}

/// What a device claims; genuine unless a test changes something.
#[derive(Clone)]
pub(crate) struct Claim {
    /// The private part of its attestation key.
    pub(crate) ak: SigningKey,
    /// Its attestation key.
    pub(crate) ak_area: Vec<u8>,
    /// The statement.
    pub(crate) attest: Vec<u8>,
    /// The device key.
    pub(crate) public: Vec<u8>,
    /// The request's key.
    pub(crate) spki: Vec<u8>,
}

impl Claim {
    /// The statement of a TPM about `device`, signed by another key than the TPM's.
    pub(crate) fn genuine() -> Self {
        let ak = SigningKey::from_slice(&[7; 32]).unwrap();
        let point = ak.verifying_key().to_encoded_point(false);
        let ak_area = changed(vector("ak-p256"), X_AT, point.x().unwrap());
        Self {
            ak_area: changed(ak_area, Y_AT, point.y().unwrap()),
            ak,
            attest: vector("attest-p256"),
            public: vector("device"),
            spki: vector("spki"),
        }
    }

    /// The same about another device key, which the statement names.
    pub(crate) fn about(public: Vec<u8>) -> Self {
        let name = Name::of_public_area(&public).unwrap();
        let genuine = Self::genuine();
        Self { attest: changed(genuine.attest, NAME_AT, name.as_bytes()), public, ..genuine }
    }

    /// The same for a request with another key.
    pub(crate) fn for_request(spki: Vec<u8>) -> Self {
        let data = qualifying_data(&SECRET, &CHALLENGE, &NONCE, &spki);
        let genuine = Self::genuine();
        Self { attest: changed(genuine.attest, QUALIFYING_DATA_AT, &data), spki, ..genuine }
    }

    /// A signature over the statement as it is now.
    pub(crate) fn signature(&self) -> Signature {
        self.ak.sign(&self.attest)
    }

    pub(crate) fn statement(&self) -> Statement {
        let (r, s) = self.signature().split_bytes();
        self.statement_signed(ecdsa_sha256(&r, &s))
    }

    pub(crate) fn statement_signed(&self, signature: Vec<u8>) -> Statement {
        Statement { attest: self.attest.clone(), signature, public: self.public.clone() }
    }

    pub(crate) fn attestation_key(&self) -> AttestationKey {
        attestation_key(&self.ak_area).unwrap()
    }

    pub(crate) fn check(&self) -> Result<Proof, EvidenceError> {
        self.check_statement(&self.statement())
    }

    pub(crate) fn check_statement(&self, statement: &Statement) -> Result<Proof, EvidenceError> {
        self.check_by(&self.attestation_key(), statement)
    }

    pub(crate) fn check_by(
        &self,
        ak: &AttestationKey,
        statement: &Statement,
    ) -> Result<Proof, EvidenceError> {
        let Self { spki, .. } = self;
        let expected = Expected { ak, secret: &SECRET, challenge: &CHALLENGE, nonce: &NONCE, spki };
        check(statement, &expected)
    }
}

// Goal: what the tests of evidence begin with is what it says it is.
#[test]
fn the_claim_that_tests_change_is_genuine() {
    let claim = Claim::genuine();
    let area = PublicArea::parse(&claim.public).unwrap();
    let proof = claim.check().unwrap();
    assert_eq!(proof.key_name, *area.name());
    assert_eq!(Claim::about(claim.public.clone()).attest, claim.attest);
    assert_eq!(Claim::for_request(claim.spki.clone()).attest, claim.attest);
}
