//! Who claims to be a device with a TPM: a whole enrollment, by hand, every part of which a test
//! can exchange.
//!
//! **What it is.** The device's side of `docs/design/attestation.md` over a TPM of the test's own:
//! ask ([`Asking`]), solve ([`Claimant::solve`]), certify ([`Claimant::certify`]), request
//! ([`Request`]). Each step takes what the last one gave, or what a test puts in its place.
//!
//! **What it must never do.** Judge: what is wrong is the provisioner's to find. What a TPM would
//! not do is done here with its bytes afterwards, never by a TPM that is none.

use std::io;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::est::csr::{P256Signature, UnsignedRequest, p256_spki};
use fleetcert_core::est::evidence::Evidence;
use fleetcert_core::wire::{CHALLENGE_HEADER, CHALLENGE_PATH, Challenge, ChallengeRequest};
use fleetcert_core::wire::{MEDIA_TYPE, VERSION};
use fleetcert_provisioner::attest::evidence::endorsement_key;
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_tpm::attest::qualifying_data;
use fleetcert_tpm::command::{Handle, Hierarchy};
use fleetcert_tpm::ek::EkTemplate;
use fleetcert_tpm::fault::TpmError;
use fleetcert_tpm::name::Name;
use fleetcert_tpm::public::{Key, PublicArea};
use fleetcert_tpm::template::{TEMPLATE_LEN_MAX, Template};
use fleetcert_tpm::tpm::{Parent, Sharing, Tpm};
use fleetcert_tpm::vault::{CERTIFIED_LEN_MAX, EkKey, KeyBlob, Options, Vault};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::by_hand::base64;
use super::https::{Https, Reply};
use super::{Lab, OrFail};
use crate::tpm_socket::TpmSocket;

/// Octets of a request for a certificate, more than any here takes.
const REQUEST_LEN_MAX: usize = 16 * 1024;

/// Octets of the length before a part of a message, at most.
const LENGTH_LEN_MAX: usize = 10;

/// Octets of an endorsement key and its certificates, more than any here takes.
const ENDORSEMENT_LEN_MAX: usize = 8 * 1024;

/// Where the attributes stand in a public area (TPM 2.0 Part 2 §12.2.4).
const ATTRIBUTES_AT: usize = 4;

/// A device with a TPM: keys of the templates that an honest one has.
#[derive(Debug)]
pub struct Claimant {
    /// Its TPM.
    pub tpm: Swtpm,
    /// The keys in it.
    pub vault: Vault<TpmSocket>,
    /// Its endorsement key.
    pub ek: EkKey,
    /// The public area of that.
    pub ek_public: Vec<u8>,
    /// The certificates that lie in the TPM, DER, one behind the other.
    pub certificates: Vec<u8>,
    /// Its attestation key.
    pub ak: KeyBlob,
    /// Its device key.
    pub key: KeyBlob,
}

/// What a challenge is asked with.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The device that is said to ask.
    pub device: String,
    /// The public area of the endorsement key.
    pub ek_public: Vec<u8>,
    /// Its certificates.
    pub ek_certificates: Vec<u8>,
    /// The public area of the attestation key.
    pub ak_public: Vec<u8>,
}

/// A challenge.
#[derive(Clone, Debug)]
pub struct Given {
    /// Its name.
    pub id: [u8; 16],
    /// Its nonce.
    pub nonce: [u8; 32],
    /// The credential.
    pub credential: Vec<u8>,
    /// The encrypted seed.
    pub encrypted_secret: Vec<u8>,
}

/// What a TPM stated of a key.
#[derive(Clone, Debug)]
pub struct Stated {
    /// `TPMS_ATTEST`.
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
    /// `TPMT_PUBLIC` of the key.
    pub public: Vec<u8>,
}

/// A request for a certificate.
#[derive(Debug)]
pub struct Request<'a> {
    /// The name it asks for.
    pub device: &'a str,
    /// The key it is for.
    pub spki: Vec<u8>,
    /// Its attributes, DER, one behind the other.
    pub attributes: Vec<u8>,
    /// The challenge that it names.
    pub challenge: Option<[u8; 16]>,
}

/// A key in memory, as anybody can make one.
#[derive(Debug)]
pub struct SoftwareKey(EcdsaKeyPair, ring::rand::SystemRandom);

impl Claimant {
    /// A device with a TPM that has power, whose endorsement key is the one of `template`.
    #[must_use]
    pub fn new(tpm: Swtpm, template: EkTemplate) -> Self {
        let options = Options { parent: None, sharing: Sharing::Exclusive };
        let vault = Vault::open(TpmSocket::new(&tpm.data_socket()), options);
        let mut vault: Vault<TpmSocket> = vault.or_fail("a vault");
        let mut out = [0; ENDORSEMENT_LEN_MAX];
        let found = vault.endorsement_of(&[template], &mut out).or_fail("an endorsement key");
        let (ek, ek_public) = (found.key, found.public_area.to_vec());
        let certificates = found.certificates.to_vec();
        let ak = vault.make(Template::AttestationKey).or_fail("an attestation key");
        let key = vault.make(Template::DeviceKey).or_fail("a device key");
        Self { tpm, vault, ek, ek_public, certificates, ak, key }
    }

    /// The SubjectPublicKeyInfo of its endorsement key, DER.
    #[must_use]
    pub fn ek_spki(&self) -> Vec<u8> {
        let key = endorsement_key(&self.ek_public).or_fail("an endorsement key");
        key.spki_der()
    }

    /// The name of its endorsement key: SHA-256 of that, hexadecimal.
    #[must_use]
    pub fn ek_id(&self) -> String {
        hex(&Sha256::digest(self.ek_spki()))
    }

    /// What an honest device asks with.
    #[must_use]
    pub fn asking(&self, device: &str) -> Asking {
        Asking {
            device: device.to_owned(),
            ek_public: self.ek_public.clone(),
            ek_certificates: self.certificates.clone(),
            ak_public: self.ak.public_area().to_vec(),
        }
    }

    /// Has the TPM open the credential of a challenge for its attestation key.
    #[must_use]
    pub fn solve(&mut self, given: &Given) -> Vec<u8> {
        let secret = self.try_to_solve(given).or_fail("the secret");
        assert_eq!(secret.len(), 32);
        secret
    }

    /// The same, where the TPM may refuse.
    ///
    /// # Errors
    ///
    /// What the TPM answers.
    pub fn try_to_solve(&mut self, given: &Given) -> Result<Vec<u8>, String> {
        let (credential, encrypted) = (&given.credential, &given.encrypted_secret);
        let opened = self.vault.activate(&self.ek, &self.ak, credential, encrypted);
        opened.map(|secret| secret.as_bytes().to_vec()).map_err(|error| error.to_string())
    }

    /// Has the attestation key state that `key` is in this TPM.
    #[must_use]
    pub fn certify(&mut self, key: &KeyBlob, qualifying: &[u8; 32]) -> Stated {
        let mut out = [0; CERTIFIED_LEN_MAX];
        let stated = self.vault.certify(key, &self.ak, qualifying, &mut out);
        let stated = stated.or_fail("a statement");
        let (attest, signature) = (stated.attest.to_vec(), stated.signature.to_vec());
        Stated { attest, signature, public: key.public_area().to_vec() }
    }

    /// The honest answer to a challenge, for the device key.
    #[must_use]
    pub fn stated(&mut self, given: &Given) -> Stated {
        let secret = self.solve(given);
        let key = self.key.clone();
        self.certify(&key, &given.qualifying(&secret, &spki(&key)))
    }

    /// A request for the device key that the device key signs.
    #[must_use]
    pub fn signed(&mut self, request: &Request<'_>) -> Vec<u8> {
        let (vault, key) = (&mut self.vault, &self.key);
        request.signed(|content| {
            let raw = vault.sign(key, &Sha256::digest(content).into()).or_fail("a signature");
            P256Signature::from_raw(&raw).or_fail("r and s").as_der().to_vec()
        })
    }

    /// The whole enrollment, as an honest device does it.
    #[must_use]
    pub fn enroll(&mut self, lab: &Lab, device: &str) -> Reply {
        match self.asking(device).ask(&lab.https()) {
            Err(refusal) => refusal,
            Ok(given) => {
                let stated = self.stated(&given);
                self.answer(lab, device, &given, &stated)
            }
        }
    }

    /// The second half: a request with that statement, answering that challenge.
    #[must_use]
    pub fn answer(&mut self, lab: &Lab, device: &str, given: &Given, stated: &Stated) -> Reply {
        let request = Request {
            device,
            spki: spki(&self.key),
            attributes: stated.attribute(),
            challenge: Some(given.id),
        };
        let csr = self.signed(&request);
        request.send(&lab.https(), "/.well-known/est/simpleenroll", &csr)
    }

    /// Makes a key of any template under the storage primary: `TPM2B_PUBLIC ‖ TPM2B_PRIVATE`.
    #[must_use]
    pub fn make(&mut self, template: &[u8]) -> Vec<u8> {
        let made = self.with_primary(|tpm, parent| {
            let mut out = [0; 1024];
            tpm.create(parent, template, &mut out).map(|len| out[..len].to_vec())
        });
        made.or_fail("a key of that template")
    }

    /// Loads keys (`TPM2B_PUBLIC ‖ TPM2B_PRIVATE`), two at most, for as long as `work` takes.
    pub fn with_loaded<R>(
        &mut self,
        keys: &[&[u8]],
        work: impl FnOnce(&mut Tpm<TpmSocket>, &[Handle]) -> R,
    ) -> R {
        let handles = self.with_primary(|tpm, parent| {
            keys.iter().map(|key| tpm.load(parent.handle, key)).collect::<Result<Vec<_>, _>>()
        });
        let handles = handles.or_fail("the keys, loaded");
        let tpm = self.vault.tpm();
        let outcome = work(tpm, &handles);
        for handle in handles {
            tpm.flush(handle).or_fail("a flush");
        }
        outcome
    }

    fn with_primary<R>(
        &mut self,
        work: impl FnOnce(&mut Tpm<TpmSocket>, Parent<'_>) -> Result<R, TpmError<io::Error>>,
    ) -> Result<R, TpmError<io::Error>> {
        let tpm = self.vault.tpm();
        let mut area = [0; 256];
        let len = Template::StoragePrimary.write(&mut area).or_fail("a template");
        let (handle, len) = tpm.create_primary(Hierarchy::Owner, &[], &mut area, len)?;
        tpm.during(handle, |tpm, handle| {
            let name = Name::of_public_area(&area[..len]).or_fail("a Name");
            let point = point_of(&area[..len]);
            work(tpm, Parent { handle, name: &name, point: &point })
        })
    }
}

impl Asking {
    /// Asks; what is not a challenge is the refusal.
    ///
    /// # Errors
    ///
    /// The provisioner's answer, if it is no challenge.
    pub fn ask(&self, https: &Https) -> Result<Given, Reply> {
        Given::read(post_challenge(https, &self.body()))
    }

    /// The message, also where a device would write none such.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::from([VERSION]);
        for part in
            [self.device.as_bytes(), &self.ek_public, &self.ek_certificates, &self.ak_public]
        {
            let mut out = vec![0; LENGTH_LEN_MAX + part.len()];
            body.extend_from_slice(postcard::to_slice(part, &mut out).or_fail("a part"));
        }
        if let Ok(honest) = self.message() {
            assert_eq!(body, honest, "the message as the core writes it");
        }
        body
    }

    /// The message as a device writes it, if it is one that a device would write.
    fn message(&self) -> Result<Vec<u8>, fleetcert_core::wire::WireError> {
        let message = ChallengeRequest {
            version: VERSION,
            device_id: &self.device,
            ek_public: &self.ek_public,
            ek_certificates: &self.ek_certificates,
            ak_public: &self.ak_public,
        };
        message.emit(&mut vec![0; message.encoded_len()]).map(<[u8]>::to_vec)
    }
}

/// Posts a message of any content to where challenges are asked for.
#[must_use]
pub fn post_challenge(https: &Https, body: &[u8]) -> Reply {
    let https = https.clone().field("Content-Type", MEDIA_TYPE).field("Accept", MEDIA_TYPE);
    https.post(CHALLENGE_PATH, body)
}

impl Given {
    fn read(reply: Reply) -> Result<Self, Reply> {
        if reply.status != 200 {
            return Err(reply);
        }
        let challenge = Challenge::parse(&reply.body).or_fail("a challenge");
        Ok(Self {
            id: challenge.id,
            nonce: challenge.nonce,
            credential: challenge.credential.to_vec(),
            encrypted_secret: challenge.encrypted_secret.to_vec(),
        })
    }

    /// What an honest device puts into its statement.
    #[must_use]
    pub fn qualifying(&self, secret: &[u8], spki: &[u8]) -> [u8; 32] {
        qualifying_data(secret, &self.id, &self.nonce, spki)
    }
}

impl Stated {
    /// The statement as the attribute of a request.
    #[must_use]
    pub fn attribute(&self) -> Vec<u8> {
        let (attest, signature, public) = (&self.attest, &self.signature, &self.public);
        let evidence = Evidence { attest, signature, public };
        let mut out = vec![0; evidence.attribute_len()];
        evidence.attribute(&mut out).or_fail("an attribute").to_vec()
    }
}

impl Request<'_> {
    /// The PKCS#10 request with the signature that `sign` makes (an `ECDSA-Sig-Value`).
    #[must_use]
    pub fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let device = DeviceId::parse(self.device).or_fail("a device id");
        let mut buffer = vec![0; REQUEST_LEN_MAX];
        let request = UnsignedRequest::new(&device, &self.spki, &self.attributes, &mut buffer);
        let request = request.or_fail("a request");
        let signature = sign(request.to_be_signed());
        let signature = P256Signature::parse(&signature).or_fail("a signature");
        request.finish(&signature).or_fail("a request").to_vec()
    }

    /// Sends `csr` with what it names.
    #[must_use]
    pub fn send(&self, https: &Https, path: &str, csr: &[u8]) -> Reply {
        let https = https.clone();
        let https = match &self.challenge {
            Some(id) => https.field(CHALLENGE_HEADER, &hex(id)),
            None => https,
        };
        https.post(path, base64(csr).as_bytes())
    }
}

impl SoftwareKey {
    /// A new one.
    #[expect(clippy::disallowed_methods, reason = "a forger's key is a real one")]
    #[must_use]
    pub fn new() -> Self {
        let rng = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng);
        let pkcs8 = pkcs8.ok().or_fail("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &rng);
        Self(pair.ok().or_fail("a key"), rng)
    }

    /// Its point, `04 ‖ x ‖ y`.
    #[must_use]
    pub fn point(&self) -> [u8; 65] {
        self.0.public_key().as_ref().try_into().or_fail("a point")
    }

    /// Its SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        p256_spki(&self.point()).or_fail("a key").to_vec()
    }

    /// Signs: an `ECDSA-Sig-Value`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&self.1, message).ok().or_fail("a signature").as_ref().to_vec()
    }
}

impl Default for SoftwareKey {
    fn default() -> Self {
        Self::new()
    }
}

/// The SubjectPublicKeyInfo of a key in a TPM, DER.
#[must_use]
pub fn spki(key: &KeyBlob) -> Vec<u8> {
    p256_spki(&key.point()).or_fail("a key").to_vec()
}

/// The point of a P-256 key's public area, `04 ‖ x ‖ y`.
#[must_use]
pub fn point_of(area: &[u8]) -> [u8; 65] {
    let area = PublicArea::parse(area).or_fail("a public area");
    let Key::Ecc { x, y, .. } = area.key else { panic!("a key on a curve was expected") };
    let mut point = [0; 65];
    point[0] = 4;
    point[33 - x.len()..33].copy_from_slice(x);
    point[65 - y.len()..].copy_from_slice(y);
    point
}

/// A template, or a public area, with some attributes set and others cleared.
#[must_use]
pub fn with_attributes(area: &[u8], set: u32, clear: u32) -> Vec<u8> {
    let mut area = area.to_vec();
    let place = &mut area[ATTRIBUTES_AT..ATTRIBUTES_AT + 4];
    let found = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
    place.copy_from_slice(&((found | set) & !clear).to_be_bytes());
    area
}

/// The octets of a template.
#[must_use]
pub fn template(template: Template) -> Vec<u8> {
    let mut out = [0; TEMPLATE_LEN_MAX];
    let len = template.write(&mut out).or_fail("a template");
    out[..len].to_vec()
}

/// The public area at the front of `TPM2B_PUBLIC ‖ TPM2B_PRIVATE`.
#[must_use]
pub fn public_of(key: &[u8]) -> Vec<u8> {
    let len = usize::from(u16::from_be_bytes([key[0], key[1]]));
    key[2..2 + len].to_vec()
}

/// What the provisioner has on record of a device's TPM.
#[must_use]
pub fn recorded(lab: &Lab, device: &str) -> Value {
    lab.ask(&["device", "show", device])
}

/// Octets in hexadecimal.
#[must_use]
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The octets of hexadecimal digits.
#[must_use]
pub fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    let pair = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap_or_default(), 16);
    assert!(digits.len().is_multiple_of(2), "an odd number of digits");
    pairs.map(|octets| pair(octets).or_fail("two digits")).collect()
}
