//! One test for each check, each turning one thing of a genuine claim.

use fleetcert_tpm::{
    attest::ClockInfo,
    name::Name,
    public::{Attribute, PublicArea},
};
use rsa::Pss;
use sha2::{Digest as _, Sha256};

use super::{attestation_key, check, endorsement_key};
use crate::attest::{
    EkId,
    evidence::{Expected, Statement},
    testing::{
        CHALLENGE, CURVE_AT, Claim, NONCE, SCHEME_AT, SECRET, X_AT, changed, ecdsa_sha256, hex,
        rsa_1024, rsa_key, turned, vector, with_rsa_key,
    },
};
use crate::{attest::credential::Source, testing::Seeded};

mod errors;
mod statement;

/// Where the scheme, and the symmetric algorithm, of `ek-p256` begin.
const EK_SCHEME_AT: usize = 48;
const EK_SYMMETRIC_AT: usize = 42;

/// Where the curve of `ek-p256` begins, and its x coordinate.
const EK_CURVE_AT: usize = 50;
const EK_X_AT: usize = 56;

/// Octets of `ek-rsa2048` and of `ak-rsassa` before the modulus.
const EK_RSA_PARAMETERS_LEN: usize = 58;
const AK_RSA_PARAMETERS_LEN: usize = 24;

/// The name algorithm of any key.
const NAME_ALG_AT: usize = 2;

const SHA1: [u8; 2] = [0, 4];
const P224: [u8; 2] = [0, 2];

/// The order of P-256.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// An area with `without` octets at a place exchanged for others.
fn spliced(mut area: Vec<u8>, at: usize, without: usize, octets: &[u8]) -> Vec<u8> {
    area.splice(at..at + without, octets.iter().copied());
    area
}

fn point_off_curve(mut area: Vec<u8>, x_at: usize) -> Vec<u8> {
    area[x_at + 9] ^= 1;
    area
}

/// A test for each way to turn something: it is refused with that code.
macro_rules! refused {
    ($($(#[$goal:meta])* $name:ident: $result:expr => $code:literal;)*) => {
        $($(#[$goal])* #[test]
        fn $name() {
            assert_eq!($result.map(drop).map_err(|error| error.code()), Err($code));
        })*
    };
}

fn ek(attribute: Attribute) -> Vec<u8> {
    turned(vector("ek-p256"), attribute)
}

refused! {
    // Goal: an endorsement key is one by every attribute of its templates.
    an_ek_that_may_leave_its_tpm: endorsement_key(&ek(Attribute::FixedTpm)) => "ek-not-fixed-tpm";
    an_ek_that_may_move: endorsement_key(&ek(Attribute::FixedParent)) => "ek-not-fixed-parent";
    an_ek_from_outside:
        endorsement_key(&ek(Attribute::SensitiveDataOrigin)) => "ek-not-data-origin";
    an_ek_without_a_policy:
        endorsement_key(&ek(Attribute::AdminWithPolicy)) => "ek-not-admin-with-policy";
    an_ek_that_decrypts_anything:
        endorsement_key(&ek(Attribute::Restricted)) => "ek-not-restricted";
    an_ek_that_does_not_decrypt: endorsement_key(&ek(Attribute::Decrypt)) => "ek-not-decrypt";
    an_ek_that_signs: endorsement_key(&ek(Attribute::Sign)) => "ek-sign";
    an_ek_made_to_be_duplicated:
        endorsement_key(&ek(Attribute::EncryptedDuplication)) => "ek-encrypted-duplication";

    // Goal: its algorithms and numbers are those of an allowed key.
    an_ek_that_is_no_area: endorsement_key(&vector("ek-p256")[..121]) => "ek-malformed";
    an_ek_with_something_behind:
        endorsement_key(&[vector("ek-p256"), vec![0]].concat()) => "ek-malformed";
    an_ek_named_by_sha1:
        endorsement_key(&changed(vector("ek-p256"), NAME_ALG_AT, &SHA1)) => "ek-name-alg";
    an_ek_with_a_scheme:
        endorsement_key(&spliced(vector("ek-p256"), EK_SCHEME_AT, 2, b"\0\x19\0\x0b"))
        => "ek-scheme";
    an_ek_with_aes_192:
        endorsement_key(&changed(vector("ek-p256"), EK_SYMMETRIC_AT + 2, &[0, 192]))
        => "ek-symmetric";
    an_ek_on_another_curve:
        endorsement_key(&changed(vector("ek-p256"), EK_CURVE_AT, &P224)) => "ek-curve";
    an_ek_off_its_curve:
        endorsement_key(&point_off_curve(vector("ek-p256"), EK_X_AT)) => "ek-point";
    an_ek_of_rsa_1024:
        endorsement_key(&rsa_1024(&vector("ek-rsa2048"), EK_RSA_PARAMETERS_LEN)) => "ek-size";
    an_ek_with_an_even_exponent:
        endorsement_key(&changed(vector("ek-rsa2048"), EK_RSA_PARAMETERS_LEN - 3, &[2]))
        => "ek-exponent";
}

fn ak(attribute: Attribute) -> Vec<u8> {
    turned(vector("ak-p256"), attribute)
}

refused! {
    // Goal: an attestation key is one by every attribute that makes its statements true.
    an_ak_that_does_not_sign: attestation_key(&ak(Attribute::Sign)) => "ak-not-sign";
    an_ak_that_signs_anything: attestation_key(&ak(Attribute::Restricted)) => "ak-not-restricted";
    an_ak_that_may_leave_its_tpm: attestation_key(&ak(Attribute::FixedTpm)) => "ak-not-fixed-tpm";
    an_ak_that_may_move: attestation_key(&ak(Attribute::FixedParent)) => "ak-not-fixed-parent";
    an_ak_from_outside:
        attestation_key(&ak(Attribute::SensitiveDataOrigin)) => "ak-not-data-origin";
    an_ak_that_decrypts: attestation_key(&ak(Attribute::Decrypt)) => "ak-decrypt";
    an_ak_made_to_be_duplicated:
        attestation_key(&ak(Attribute::EncryptedDuplication)) => "ak-encrypted-duplication";

    // Goal: its algorithms and numbers are those of an allowed key.
    an_ak_that_is_no_area: attestation_key(&[]) => "ak-malformed";
    an_ak_with_something_behind:
        attestation_key(&[vector("ak-p256"), vec![0]].concat()) => "ak-malformed";
    an_ak_named_by_sha1:
        attestation_key(&changed(vector("ak-p256"), NAME_ALG_AT, &SHA1)) => "ak-name-alg";
    an_ak_without_a_scheme:
        attestation_key(&spliced(vector("ak-p256"), SCHEME_AT, 4, b"\0\x10")) => "ak-scheme";
    an_ak_with_an_anonymous_scheme:
        attestation_key(&spliced(vector("ak-p256"), SCHEME_AT, 4, b"\0\x1a\0\x0b\0\0"))
        => "ak-scheme";
    an_ecdsa_ak_that_hashes_by_sha1:
        attestation_key(&changed(vector("ak-p256"), SCHEME_AT + 2, &SHA1)) => "ak-hash";
    an_rsassa_ak_that_hashes_by_sha1:
        attestation_key(&changed(vector("ak-rsassa"), SCHEME_AT + 2, &SHA1)) => "ak-hash";
    an_rsapss_ak_that_hashes_by_sha1:
        attestation_key(&changed(vector("ak-rsapss"), SCHEME_AT + 2, &SHA1)) => "ak-hash";
    an_ak_on_another_curve:
        attestation_key(&changed(vector("ak-p256"), CURVE_AT, &P224)) => "ak-curve";
    an_ak_off_its_curve: attestation_key(&point_off_curve(vector("ak-p256"), X_AT)) => "ak-point";
    an_ak_of_rsa_1024:
        attestation_key(&rsa_1024(&vector("ak-rsassa"), AK_RSA_PARAMETERS_LEN)) => "ak-size";
    an_ak_with_an_even_exponent:
        attestation_key(&changed(vector("ak-rsassa"), AK_RSA_PARAMETERS_LEN - 3, &[2]))
        => "ak-exponent";
}

/// A claim whose statement is another one, signed.
fn stating(attest: Vec<u8>) -> Claim {
    Claim { attest, ..Claim::genuine() }
}

/// The genuine claim, judged for another challenge.
fn expecting(
    secret: &[u8; 32],
    challenge: &[u8; 16],
    nonce: &[u8; 32],
) -> Result<(), &'static str> {
    let claim = Claim::genuine();
    let (ak, spki) = (&claim.attestation_key(), claim.spki.as_slice());
    let expected = Expected { ak, secret, challenge, nonce, spki };
    check(&claim.statement(), &expected).map(drop).map_err(|error| error.code())
}

refused! {
    // Goal: a statement is one of TPM2_Certify, whole, for this challenge, about this key.
    a_statement_that_is_cut: stating(vector("attest-p256")[..172].to_vec()).check()
        => "attest-malformed";
    a_statement_with_something_behind: stating([vector("attest-p256"), vec![0]].concat()).check()
        => "attest-trailing";
    a_statement_that_no_tpm_made: stating(changed(vector("attest-p256"), 0, &[0xfe])).check()
        => "attest-magic";
    a_statement_of_creation: {
        let statement = Statement {
            attest: vector("creation-attest"),
            signature: vector("creation-sig"),
            public: vector("device"),
        };
        Claim::genuine().check_by(&attestation_key(&vector("ak-p256")).unwrap(), &statement)
    } => "attest-type";
    a_statement_about_another_key:
        Claim { public: vector("device"), ..Claim::about(turned(vector("device"), Attribute::NoDa)) }
            .check()
        => "attest-name";
    a_statement_for_another_request:
        Claim { spki: vector("spki"), ..Claim::for_request(vec![1]) }.check()
        => "attest-qualifying-data";
}

// Goal: each part of the challenge is in the statement.
#[test]
fn a_statement_for_another_challenge() {
    let refused = Err("attest-qualifying-data");
    assert_eq!(expecting(&SECRET, &CHALLENGE, &NONCE), Ok(()));
    assert_eq!(expecting(&[0; 32], &CHALLENGE, &NONCE), refused);
    assert_eq!(expecting(&SECRET, &[0; 16], &NONCE), refused);
    assert_eq!(expecting(&SECRET, &CHALLENGE, &[0; 32]), refused);
}

/// The genuine claim with another signature, of ECDSA.
fn signed(
    change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>),
) -> Result<super::Proof, super::EvidenceError> {
    let claim = Claim::genuine();
    let (r, s) = claim.signature().split_bytes();
    let (mut r, mut s) = (r.to_vec(), s.to_vec());
    change(&mut r, &mut s);
    claim.check_statement(&claim.statement_signed(ecdsa_sha256(&r, &s)))
}

refused! {
    // Goal: the signature is in the key's scheme, its numbers in range, and right.
    a_signature_that_is_cut:
        Claim::genuine().check_statement(&Claim::genuine().statement_signed(vec![0, 0x18, 0]))
        => "signature-malformed";
    a_signature_in_an_unknown_scheme:
        Claim::genuine().check_statement(&Claim::genuine().statement_signed(vec![0, 5, 0, 0x0b]))
        => "signature-scheme";
    a_signature_of_rsa_for_an_ecdsa_key:
        Claim::genuine().check_statement(&Claim::genuine().statement_signed(vector("sig-rsassa")))
        => "signature-scheme";
    a_signature_over_another_hash: {
        let claim = Claim::genuine();
        let signature = changed(claim.statement().signature, 2, &[0, 0x0c]);
        claim.check_statement(&claim.statement_signed(signature))
    } => "signature-scheme";
    a_signature_whose_r_is_zero: signed(|r, _| r.fill(0)) => "signature-r";
    a_signature_whose_r_is_empty: signed(|r, _| r.clear()) => "signature-r";
    a_signature_whose_r_is_the_order: signed(|r, _| *r = hex(ORDER)) => "signature-r";
    a_signature_whose_r_is_too_long: signed(|r, _| r.insert(0, 0)) => "signature-r";
    a_signature_whose_s_is_zero: signed(|_, s| s.fill(0)) => "signature-s";
    a_signature_whose_s_is_the_order: signed(|_, s| *s = hex(ORDER)) => "signature-s";
    a_signature_with_another_r: signed(|r, _| r[5] ^= 1) => "signature-wrong";
    a_signature_with_another_s: signed(|_, s| s[5] ^= 1) => "signature-wrong";
    a_signature_over_another_statement: {
        let claim = Claim::genuine();
        let other = Claim { attest: changed(claim.attest.clone(), 80, &[1]), ..claim.clone() };
        claim.check_statement(&claim.statement_signed(other.statement().signature))
    } => "signature-wrong";
    a_signature_by_another_key:
        Claim { ak_area: vector("ak-p256"), ..Claim::genuine() }.check()
        => "signature-wrong";
}

fn device(attribute: Attribute) -> Claim {
    Claim::about(turned(vector("device"), attribute))
}

refused! {
    // Goal: a device key is one by every attribute that keeps it in its TPM, and makes it its own.
    a_device_key_that_does_not_sign: device(Attribute::Sign).check() => "key-not-sign";
    a_restricted_key_as_device_key: device(Attribute::Restricted).check() => "key-restricted";
    a_device_key_that_decrypts: device(Attribute::Decrypt).check() => "key-decrypt";
    a_device_key_that_may_leave_its_tpm: device(Attribute::FixedTpm).check()
        => "key-not-fixed-tpm";
    a_device_key_that_may_move: device(Attribute::FixedParent).check() => "key-not-fixed-parent";
    a_device_key_from_outside: device(Attribute::SensitiveDataOrigin).check()
        => "key-not-data-origin";

    // Goal: its algorithms and numbers are what its certificate is for.
    a_device_key_that_is_no_area:
        Claim { public: vector("device")[..87].to_vec(), ..Claim::genuine() }.check()
        => "key-malformed";
    a_device_key_named_by_sha1: {
        let public = changed(vector("device"), NAME_ALG_AT, &SHA1);
        Claim { public, ..Claim::genuine() }.check()
    } => "key-name-alg";
    a_device_key_of_rsa:
        Claim::about(turned(vector("ak-rsassa"), Attribute::Restricted)).check() => "key-type";
    a_device_key_on_another_curve:
        Claim::about(changed(vector("device"), CURVE_AT, &[0, 4])).check() => "key-curve";
    a_device_key_without_a_scheme:
        Claim::about(spliced(vector("device"), SCHEME_AT, 4, b"\0\x10")).check() => "key-scheme";
    a_device_key_that_hashes_by_sha1:
        Claim::about(changed(vector("device"), SCHEME_AT + 2, &SHA1)).check() => "key-hash";
    a_device_key_that_hashes_by_sha384:
        Claim::about(changed(vector("device"), SCHEME_AT + 2, &[0, 0x0c])).check() => "key-hash";
    a_device_key_off_its_curve:
        Claim::about(point_off_curve(vector("device"), X_AT)).check() => "key-point";

    // Goal: the request is for the key that is proven: an attacker with a genuine TPM has it
    // certify a genuine key, and asks for a certificate of another.
    a_request_for_another_key: {
        let mut spki = vector("spki");
        *spki.last_mut().unwrap() ^= 1;
        Claim::for_request(spki).check()
    } => "key-spki";
}

// Goal: what attestation keys of every kind signed in a TPM is believed.
#[test]
fn statements_of_a_tpm_are_believed() {
    for kind in ["p256", "p384", "p521", "p521-sha256", "rsassa", "rsapss", "rsapss384"] {
        let [area, attest, signature] =
            ["ak", "attest", "sig"].map(|part| vector(&format!("{part}-{kind}")));
        let ak = attestation_key(&area).unwrap();
        assert_eq!(*ak.name(), Name::of_public_area(&area).unwrap());
        let statement = Statement { attest, signature, public: vector("device") };
        let proof = Claim::genuine().check_by(&ak, &statement).unwrap();
        assert_eq!(proof.key_name, Name::of_public_area(&vector("device")).unwrap(), "{kind}");

        let mut forged = statement.clone();
        *forged.signature.last_mut().unwrap() ^= 1;
        let refused = Claim::genuine().check_by(&ak, &forged).unwrap_err();
        assert_eq!(refused.code(), "signature-wrong", "{kind}");
    }
}

// Goal: what the TPM said of its clock and firmware is passed on.
#[test]
fn a_proof_has_what_the_tpm_said_of_itself() {
    let proof = Claim::genuine().check().unwrap();
    let clock = ClockInfo {
        clock_ms: 0x13,
        reset_count: 0x225f_15c5,
        restart_count: 0xfa5d_5d8b,
        safe: true,
    };
    assert_eq!(proof.clock, clock);
    assert_eq!(proof.firmware_version, 0x058a_6b9a_5861_e91f);
}

// Goal: of the salts of RSASSA-PSS, the two that TPMs take are right, and no other.
#[test]
fn salts_of_pss_are_the_longest_or_the_digest() {
    let ak = attestation_key(&with_rsa_key(vector("ak-rsapss"))).unwrap();
    let (message, key) = (b"a statement", rsa_key());
    let longest = 256 - 32 - 2;
    for salt_len in [longest, 32, 0, 31, 33, longest - 1] {
        let scheme = Pss::new_with_salt::<Sha256>(salt_len);
        let digest = Sha256::digest(message);
        let signature = key.sign_with_rng(&mut Source(&mut Seeded(1)), scheme, &digest).unwrap();
        let signature = [b"\0\x16\0\x0b\x01\0", signature.as_slice()].concat();
        let right = ak.verify(message, &signature).is_ok();
        assert_eq!(right, [longest, 32].contains(&salt_len), "{salt_len}");
    }
}

// Goal: a modulus that is even is of no key, whatever the signature.
#[test]
fn an_even_modulus_verifies_nothing() {
    let mut area = vector("ak-rsassa");
    *area.last_mut().unwrap() &= 0xfe;
    let ak = attestation_key(&area).unwrap();
    let refused = ak.verify(&vector("attest-rsassa"), &vector("sig-rsassa")).unwrap_err();
    assert_eq!(refused.code(), "signature-wrong");
}

// Goal: endorsement keys of every kind are accepted, and called by the hash of their key.
#[test]
fn endorsement_keys_of_a_tpm_are_accepted() {
    for name in ["ek-rsa2048", "ek-p256", "ek-p384", "ek-rsa3072", "ek-p521"] {
        let octets = vector(name);
        let area = PublicArea::parse(&octets).unwrap();
        let ek = endorsement_key(&octets).unwrap();
        assert_eq!(ek.name_alg(), area.name_alg, "{name}");
        assert_eq!(Some(ek.aes()), area.key.symmetric().aes_cfb(), "{name}");
        assert_eq!(ek.id(), EkId::of_spki(&ek.spki_der()), "{name}");
    }
    let ek = endorsement_key(&vector("ek-p256")).unwrap();
    let (x, y) = (&vector("ek-p256")[56..88], &vector("ek-p256")[90..122]);
    let spki = [&vector("spki")[..27], x, y].concat();
    assert_eq!(ek.spki_der(), spki);
}

// Goal: the key of an attestation key is told like that of any other.
#[test]
fn an_attestation_key_has_its_key() {
    let area = vector("ak-p256");
    let ak = attestation_key(&area).unwrap();
    let spki = [&vector("spki")[..27], &area[22..54], &area[56..]].concat();
    assert_eq!(ak.spki_der(), spki);
}

// Goal: no octets of any part make the verifier panic, and none but the genuine ones are believed.
#[test]
fn any_changed_octet_is_refused() {
    let claim = Claim::genuine();
    let genuine = claim.statement();
    let parts: [fn(&mut Statement) -> &mut Vec<u8>; 3] =
        [|it| &mut it.attest, |it| &mut it.signature, |it| &mut it.public];
    for part in parts {
        let len = part(&mut genuine.clone()).len();
        for at in 0..len {
            let mut changed = genuine.clone();
            part(&mut changed)[at] ^= 0x41;
            assert!(claim.check_statement(&changed).is_err(), "octet {at}");
            let mut cut = genuine.clone();
            part(&mut cut).truncate(at);
            assert!(claim.check_statement(&cut).is_err(), "{at} octets");
        }
    }
}
