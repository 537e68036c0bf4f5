//! What key the evidence is about: a device key, made in this TPM, that cannot leave it.

use fleetcert_core::est::csr::{P256Signature, p256_spki};
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::claimant::{
    Claimant, Request, SoftwareKey, Stated, point_of, public_of, spki, template, with_attributes,
};
use fleetcert_tpm::template::Template;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;

use crate::bench::{Bench, DEVICE, Open};
use crate::chip::attribute::{DECRYPT, FIXED_PARENT, FIXED_TPM, SIGN, USER_WITH_AUTH};
use crate::chip::{certify, certify_external, raw, sign, sign_restricted, sized};

/// A bench, a device, and its challenge.
fn opened() -> (Bench, Claimant, Open) {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    (bench, device, open)
}

/// A request for `spki` with that evidence.
fn request(open: &Open, spki: Vec<u8>, stated: &Stated) -> Request<'static> {
    let (attributes, challenge) = (stated.attribute(), Some(open.given.id));
    Request { device: DEVICE, spki, attributes, challenge }
}

/// Sends a request that is signed by `sign` and is refused so.
#[track_caller]
fn refused(
    bench: &Bench,
    request: &Request<'_>,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
    expected: (u16, &str),
) {
    let csr = request.signed(sign);
    let reply = request.send(&bench.lab.https(), "/.well-known/est/simpleenroll", &csr);
    bench.no_certificate(&reply, expected);
}

/// A key of that template is made in the TPM, certified by its attestation key, asked for and
/// signed with; it is refused for what it is.
#[track_caller]
fn refused_template(
    template: &[u8],
    sign: impl FnOnce(&mut Claimant, &[u8], &[u8]) -> Vec<u8>,
    code: &str,
) {
    let (bench, mut device, open) = opened();
    let key = device.make(template);
    let spki = p256_spki(&point_of(&public_of(&key))).or_fail("a key").to_vec();
    let stated = certify(&mut device, &key, &open.given.qualifying(&open.secret, &spki));
    let request = request(&open, spki, &stated);
    let signed = |message: &[u8]| {
        let raw = raw(&sign(&mut device, &key, message));
        P256Signature::from_raw(&raw).or_fail("r and s").as_der().to_vec()
    };
    refused(&bench, &request, signed, (403, code));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// The template of a device key with a scheme to be chosen when it signs.
fn schemeless(set: u32) -> Vec<u8> {
    let area = with_attributes(&template(Template::DeviceKey), set, 0);
    [&area[..12], &[0x00, 0x10], &area[16..]].concat()
}

/// Goal: a genuine TPM vouches for its own keys only, not for one in memory.
#[test]
fn a_software_key_beside_a_genuine_attestation_key_is_refused() {
    let (bench, mut device, open) = opened();
    let software = SoftwareKey::new();
    let key = device.key.clone();
    let qualifying = open.given.qualifying(&open.secret, &software.spki());
    let stated = device.certify(&key, &qualifying);
    let with_tpms = request(&open, software.spki(), &stated);
    refused(&bench, &with_tpms, |content| software.sign(content), (403, "key-spki"));

    let point = software.point();
    let own = [&stated.public[..20], &sized(&point[1..33]), &sized(&point[33..])].concat();
    let stated = Stated { public: own, ..stated };
    let with_own = request(&open, software.spki(), &stated);
    refused(&bench, &with_own, |content| software.sign(content), (403, "attest-name"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// A software key whose number is known, as a public area with these attributes.
fn external(attributes: u32, scheme: &[u8]) -> (SecretKey, Vec<u8>) {
    let secret = SecretKey::from_slice(&[0x42; 32]).or_fail("a key");
    let point = secret.public_key().to_encoded_point(false);
    let (x, y) = (&point.as_bytes()[1..33], &point.as_bytes()[33..]);
    let head = [0x00, 0x23, 0x00, 0x0B];
    let tail = [0x00, 0x03, 0x00, 0x10];
    let no_policy_no_symmetric = [0x00, 0x00, 0x00, 0x10];
    let area = [&head[..], &attributes.to_be_bytes(), &no_policy_no_symmetric, scheme, &tail];
    (secret, [&area.concat()[..], &sized(x), &sized(y)].concat())
}

/// A key in memory is loaded into the TPM and certified there; the attributes say what it is.
#[track_caller]
fn refused_external(attributes: u32, scheme: &[u8], code: &str) {
    let (bench, mut device, open) = opened();
    let (secret, public) = external(attributes, scheme);
    let spki = p256_spki(&point_of(&public)).or_fail("a key").to_vec();
    let qualifying = open.given.qualifying(&open.secret, &spki);
    let stated = certify_external(&mut device, &public, &secret.to_bytes(), &qualifying);
    let request = request(&open, spki, &stated);
    let signed = |content: &[u8]| {
        let signature: DerSignature = SigningKey::from(&secret).sign(content);
        signature.as_bytes().to_vec()
    };
    refused(&bench, &request, signed, (403, code));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// The scheme of device keys, and none.
const ECDSA_SHA256: [u8; 4] = [0x00, 0x18, 0x00, 0x0B];
const NO_SCHEME: [u8; 2] = [0x00, 0x10];

/// Goal: a key that was brought into the TPM from outside is certified by a genuine attestation
/// key, and is outside still. Its TPM says so.
#[test]
fn a_software_key_loaded_into_the_tpm_is_refused() {
    refused_external(SIGN | USER_WITH_AUTH, &ECDSA_SHA256, "key-not-fixed-tpm");
}

/// Goal: nor is a key one that does not sign.
#[test]
fn a_device_key_that_does_not_sign_is_refused() {
    refused_external(DECRYPT | USER_WITH_AUTH, &NO_SCHEME, "key-not-sign");
}

/// Goal: a restricted key as a device key would sign what looks like a TPM's statement, in TLS.
#[test]
fn a_restricted_device_key_is_refused() {
    let area = template(Template::AttestationKey);
    refused_template(&area, sign_restricted, "key-restricted");
}

/// Goal: a key that may be duplicated may be elsewhere, though the TPM made it.
#[test]
fn a_duplicable_device_key_is_refused() {
    let area = with_attributes(&template(Template::DeviceKey), 0, FIXED_TPM | FIXED_PARENT);
    refused_template(&area, sign, "key-not-fixed-tpm");
}

/// Goal: one key, one purpose.
#[test]
fn a_device_key_that_decrypts_is_refused() {
    refused_template(&schemeless(DECRYPT), sign, "key-decrypt");
}

/// Goal: a device key signs in one scheme.
#[test]
fn a_device_key_without_a_fixed_scheme_is_refused() {
    refused_template(&schemeless(0), sign, "key-scheme");
}

/// Goal: the key of another TPM has no statement of this one, whoever asks and signs.
#[test]
fn the_device_key_of_another_tpm_is_refused() {
    let (bench, mut device, open) = opened();
    let mut other = bench.device("other");
    let others = spki(&other.key);
    let key = device.key.clone();
    let stated = device.certify(&key, &open.given.qualifying(&open.secret, &others));
    bench.refused(&mut other, &open.given, &stated, (403, "key-spki"));
    let stated = Stated { public: other.key.public_area().to_vec(), ..stated };
    bench.refused(&mut other, &open.given, &stated, (403, "attest-name"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: an RSA key of the TPM's beside a request for another key is no way around anything.
#[test]
fn an_rsa_device_key_is_refused() {
    let (bench, mut device, open) = opened();
    let head = &template(Template::DeviceKey)[2..10];
    let rsa_2048 = [0x00, 0x10, 0x00, 0x14, 0x00, 0x0B, 0x08, 0x00, 0, 0, 0, 0, 0, 0];
    let key = device.make(&[&[0x00, 0x01], head, &rsa_2048].concat());
    let request = spki(&device.key);
    let stated = certify(&mut device, &key, &open.given.qualifying(&open.secret, &request));
    bench.refused(&mut device, &open.given, &stated, (403, "key-type"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: nor is a key on another curve.
#[test]
fn a_device_key_on_another_curve_is_refused() {
    let (bench, mut device, open) = opened();
    let mut area = template(Template::DeviceKey);
    area[17] = 0x04;
    let key = device.make(&area);
    let request = spki(&device.key);
    let stated = certify(&mut device, &key, &open.given.qualifying(&open.secret, &request));
    bench.refused(&mut device, &open.given, &stated, (403, "key-curve"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: a key with another hash in its scheme is another kind of key.
#[test]
fn a_device_key_with_another_hash_is_refused() {
    let (bench, mut device, open) = opened();
    let mut area = template(Template::DeviceKey);
    area[15] = 0x0C;
    let key = device.make(&area);
    let request = spki(&device.key);
    let stated = certify(&mut device, &key, &open.given.qualifying(&open.secret, &request));
    bench.refused(&mut device, &open.given, &stated, (403, "key-hash"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: octets that mix RSA and elliptic curves, or are no public area, are named.
#[test]
fn a_device_key_that_is_no_public_area_is_refused() {
    let (bench, mut device, open) = opened();
    let honest = device.stated(&open.given);
    let spoilt: [fn(&mut Vec<u8>); 5] = [
        |public| public[1] = 0x01,
        |public| public.push(0),
        |public| public.truncate(public.len() - 1),
        Vec::clear,
        |public| public[21] = 0xFF,
    ];
    for spoil in spoilt {
        let mut stated = honest.clone();
        spoil(&mut stated.public);
        bench.refused(&mut device, &open.given, &stated, (403, "key-malformed"));
    }
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: the evidence is worth nothing to who cannot sign with the key.
#[test]
fn a_request_that_the_key_did_not_sign_is_refused() {
    let (bench, mut device, open) = opened();
    let stated = device.stated(&open.given);
    let thief = SoftwareKey::new();
    let stolen = request(&open, spki(&device.key), &stated);
    refused(&bench, &stolen, |content| thief.sign(content), (400, "csr-signature"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}
