//! What a TPM is said to have stated, and who is said to have signed it.

use fleetcert_core::est::csr::p256_spki;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::claimant::{
    SoftwareKey, Stated, point_of, spki, template, with_attributes,
};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::vault::KeyBlob;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

use crate::bench::{Bench, DEVICE};
use crate::chip::attribute::{NO_DA, RESTRICTED};
use crate::chip::{
    ECDSA, SHA256, blob, certify_by, certify_creation, numbers, quote, signature, sized,
};

/// Where the kind of a statement stands (TPM 2.0 Part 2 §10.12.12).
const KIND_AT: usize = 4;

/// Octets of a statement up to what the caller had put in, with a Name of SHA-256.
const EXTRA_DATA_AT: usize = 6 + 36;

/// The order of P-256.
const ORDER: [u8; 32] = [
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
];

/// What is done to an honest answer, and the status and code that it gets then.
type Row<'a> = (&'a dyn Fn(&mut Stated), (u16, &'a str));

/// Each change of an honest answer is refused with that status and code; the honest answer to the
/// same challenge, at the end, is not.
#[track_caller]
fn refused_changes(rows: &[Row<'_>]) {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let honest = device.stated(&given);
    for (change, expected) in rows {
        let mut stated = honest.clone();
        change(&mut stated);
        bench.refused(&mut device, &given, &stated, *expected);
    }
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: that the TPM made a key some time is not that it holds it now. The statement is genuine.
#[test]
fn a_statement_of_creation_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let qualifying = |public: &[u8]| {
        let spki = p256_spki(&point_of(public)).or_fail("a key");
        open.given.qualifying(&open.secret, &spki)
    };
    let (key, stated) = certify_creation(&mut device, &template(Template::DeviceKey), qualifying);
    device.key = KeyBlob::parse(&[&[1], &key[..]].concat()).or_fail("a key");
    assert_eq!(stated.attest[KIND_AT..KIND_AT + 2], [0x80, 0x1A]);
    bench.refused(&mut device, &open.given, &stated, (403, "attest-type"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: nor is what is in a PCR. The statement is genuine.
#[test]
fn a_quote_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let qualifying = open.given.qualifying(&open.secret, &spki(&device.key));
    let stated = quote(&mut device, &qualifying);
    assert_eq!(stated.attest[KIND_AT..KIND_AT + 2], [0x80, 0x18]);
    bench.refused(&mut device, &open.given, &stated, (403, "attest-type"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: what does not begin like a TPM's statement is none.
#[test]
fn a_statement_with_another_magic_is_refused() {
    refused_changes(&[
        (&|stated| stated.attest[0] ^= 1, (403, "attest-magic")),
        (&|stated| stated.attest[3] ^= 0x80, (403, "attest-magic")),
    ]);
}

/// Goal: a statement is its whole buffer.
#[test]
fn a_statement_with_trailing_octets_is_refused() {
    refused_changes(&[
        (&|stated| stated.attest.push(0), (403, "attest-trailing")),
        (&|stated| stated.attest.extend([0xFF; 64]), (403, "attest-trailing")),
    ]);
}

/// Goal: and all of it.
#[test]
fn a_truncated_statement_is_refused() {
    refused_changes(&[
        (&|stated| stated.attest.clear(), (403, "attest-malformed")),
        (&|stated| stated.attest.truncate(3), (403, "attest-malformed")),
        (&|stated| stated.attest.truncate(EXTRA_DATA_AT), (403, "attest-malformed")),
        (&|stated| stated.attest.truncate(stated.attest.len() - 1), (403, "attest-malformed")),
    ]);
}

/// Goal: a length inside that points outside, or a clock that is neither safe nor unsafe.
#[test]
fn a_malformed_statement_is_refused() {
    const SAFE_AT: usize = EXTRA_DATA_AT + 34 + 16;
    refused_changes(&[
        (&|stated| stated.attest[6] = 0xFF, (403, "attest-malformed")),
        (&|stated| stated.attest[EXTRA_DATA_AT] = 1, (403, "attest-malformed")),
        (&|stated| stated.attest[SAFE_AT] = 2, (403, "attest-malformed")),
    ]);
}

/// Goal: what was changed after it was signed was not signed, down to the last bit: signer, clock,
/// firmware version, qualified Name.
#[test]
fn a_statement_that_was_changed_is_refused() {
    const CLOCK_AT: usize = EXTRA_DATA_AT + 34;
    refused_changes(&[
        (&|stated| stated.attest[20] ^= 1, (403, "signature-wrong")),
        (&|stated| stated.attest[CLOCK_AT + 7] ^= 1, (403, "signature-wrong")),
        (&|stated| stated.attest[CLOCK_AT + 17] ^= 1, (403, "signature-wrong")),
        (&|stated| *stated.attest.last_mut().or_fail("an octet") ^= 1, (403, "signature-wrong")),
        (&|stated| stated.attest[EXTRA_DATA_AT + 2] ^= 1, (403, "attest-qualifying-data")),
        (&|stated| stated.attest[KIND_AT + 1] = 0x1A, (403, "attest-type")),
    ]);
}

/// Goal: an answer to an earlier challenge is none to this one.
#[test]
fn a_replayed_statement_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let earlier = bench.open(&mut device).given;
    let replayed = device.stated(&earlier);
    let given = bench.challenge(&device.asking(DEVICE));
    bench.refused(&mut device, &given, &replayed, (403, "attest-qualifying-data"));
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: each part that the qualifying data is made of counts.
#[test]
fn qualifying_data_of_other_parts_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let (key, request) = (device.key.clone(), spki(&device.key));
    let mut other_id = open.given.clone();
    other_id.id[0] ^= 1;
    let mut other_nonce = open.given.clone();
    other_nonce.nonce[31] ^= 1;
    let forged = [
        other_id.qualifying(&open.secret, &request),
        other_nonce.qualifying(&open.secret, &request),
        open.given.qualifying(&[0; 32], &request),
        open.given.qualifying(b"", &request),
        open.given.qualifying(&open.secret, &request[..90]),
        open.given.qualifying(&open.secret, &SoftwareKey::new().spki()),
        open.given.nonce,
    ];
    for qualifying in forged {
        let stated = device.certify(&key, &qualifying);
        bench.refused(&mut device, &open.given, &stated, (403, "attest-qualifying-data"));
    }
    let raw = blob(&key);
    for qualifying in [&[][..], &open.given.qualifying(&open.secret, &request)[..31]] {
        let ak = blob(&device.ak);
        let stated = device.with_loaded(&[&raw, &ak], |tpm, handles| {
            let mut out = [0; 1024];
            let made = tpm.certify(handles[0], handles[1], qualifying, &mut out);
            let made = made.or_fail("a statement");
            let (attest, rest) = out.split_at(made.attest_len);
            let signature = rest[..made.signature_len].to_vec();
            Stated { attest: attest.to_vec(), signature, public: key.public_area().to_vec() }
        });
        bench.refused(&mut device, &open.given, &stated, (403, "attest-qualifying-data"));
    }
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: evidence for one request is none for another of the same TPM.
#[test]
fn a_statement_for_another_request_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let given = bench.open(&mut device).given;
    let stated = device.stated(&given);
    let proven = device.key.clone();
    device.key = device.vault.make(Template::DeviceKey).or_fail("another key");
    bench.refused(&mut device, &given, &stated, (403, "attest-qualifying-data"));
    device.key = proven;
    bench.honest_answer_enrolls(&mut device, &given);
}

/// Goal: a key is known by the hash of its whole public area, so nothing in it can be bettered.
#[test]
fn a_public_area_that_was_changed_is_refused() {
    const NAME_AT: usize = EXTRA_DATA_AT + 34 + 25;
    refused_changes(&[
        (&|stated| stated.public = with_attributes(&stated.public, 0, NO_DA), (403, "attest-name")),
        (
            &|stated| stated.public = with_attributes(&stated.public, RESTRICTED, 0),
            (403, "attest-name"),
        ),
        (&|stated| stated.public[87] ^= 1, (403, "attest-name")),
        (&|stated| stated.attest[NAME_AT + 4] ^= 1, (403, "attest-name")),
    ]);
}

/// Goal: the Name is that of the key, not one that stands somewhere in the statement.
#[test]
fn a_statement_about_the_attestation_key_itself_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let qualifying = open.given.qualifying(&open.secret, &spki(&device.key));
    let (ak, public) = (blob(&device.ak), device.key.public_area().to_vec());
    let stated = certify_by(&mut device, &ak, &ak, &qualifying);
    let about_key = Stated { public, ..stated.clone() };
    bench.refused(&mut device, &open.given, &about_key, (403, "attest-name"));
    bench.refused(&mut device, &open.given, &stated, (403, "key-restricted"));
}

/// Goal: the key that was challenged signs, no other of the same TPM's.
#[test]
fn a_signature_by_another_attestation_key_of_the_tpm_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let challenged = device.ak.clone();
    device.ak = device.vault.make(Template::AttestationKey).or_fail("another one");
    let qualifying = open.given.qualifying(&open.secret, &spki(&device.key));
    let key = device.key.clone();
    let stated = device.certify(&key, &qualifying);
    bench.refused(&mut device, &open.given, &stated, (403, "signature-wrong"));
    device.ak = challenged;
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: nor does a key that signs anything: the statement is hand-made then.
#[test]
fn a_hand_made_statement_signed_by_the_device_key_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let open = bench.open(&mut device);
    let mut stated = device.stated(&open.given);
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&stated.attest).into();
    let key = device.key.clone();
    let raw = device.vault.sign(&key, &digest).or_fail("a signature");
    stated.signature = signature(ECDSA, SHA256, &raw[..32], &raw[32..]);
    bench.refused(&mut device, &open.given, &stated, (403, "signature-wrong"));
    let forger = SigningKey::from(&SecretKey::from_slice(&[7; 32]).or_fail("a key"));
    let by_forger: Signature = forger.sign(&stated.attest);
    let raw = by_forger.to_bytes();
    stated.signature = signature(ECDSA, SHA256, &raw[..32], &raw[32..]);
    bench.refused(&mut device, &open.given, &stated, (403, "signature-wrong"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// A signature by the same numbers but one.
fn with_numbers(stated: &mut Stated, r: Option<&[u8]>, s: Option<&[u8]>) {
    let (old_r, old_s) = numbers(&stated.signature);
    stated.signature = signature(ECDSA, SHA256, r.unwrap_or(old_r), s.unwrap_or(old_s));
}

/// Goal: zero, and what is not less than the order of the curve, are no first number.
#[test]
fn a_signature_with_r_out_of_range_is_refused() {
    let long = [&[1][..], &ORDER].concat();
    refused_changes(&[
        (&|stated| with_numbers(stated, Some(&[0]), None), (403, "signature-r")),
        (&|stated| with_numbers(stated, Some(&[]), None), (403, "signature-r")),
        (&|stated| with_numbers(stated, Some(&[0; 32]), None), (403, "signature-r")),
        (&|stated| with_numbers(stated, Some(&ORDER), None), (403, "signature-r")),
        (&|stated| with_numbers(stated, Some(&[0xFF; 32]), None), (403, "signature-r")),
        (&|stated| with_numbers(stated, Some(&long), None), (403, "signature-r")),
    ]);
}

/// Goal: nor a second one.
#[test]
fn a_signature_with_s_out_of_range_is_refused() {
    refused_changes(&[
        (&|stated| with_numbers(stated, None, Some(&[0])), (403, "signature-s")),
        (&|stated| with_numbers(stated, None, Some(&[0; 32])), (403, "signature-s")),
        (&|stated| with_numbers(stated, None, Some(&ORDER)), (403, "signature-s")),
        (&|stated| with_numbers(stated, None, Some(&[0xFF; 33])), (403, "signature-s")),
    ]);
}

/// Goal: numbers in range that are others are wrong.
#[test]
fn a_wrong_signature_is_refused() {
    refused_changes(&[
        (&|stated| *stated.signature.last_mut().or_fail("s") ^= 1, (403, "signature-wrong")),
        (&|stated| with_numbers(stated, Some(&[1]), Some(&[1])), (403, "signature-wrong")),
        (
            &|stated| {
                let (r, s) = numbers(&stated.signature);
                stated.signature = signature(ECDSA, SHA256, s, r);
            },
            (403, "signature-wrong"),
        ),
    ]);
}

/// Goal: a signature is its whole buffer too.
#[test]
fn a_malformed_signature_is_refused() {
    refused_changes(&[
        (&|stated| stated.signature.clear(), (403, "signature-malformed")),
        (&|stated| stated.signature.truncate(5), (403, "signature-malformed")),
        (
            &|stated| stated.signature.truncate(stated.signature.len() - 1),
            (403, "signature-malformed"),
        ),
        (&|stated| stated.signature.push(0), (403, "signature-malformed")),
        (&|stated| with_numbers(stated, Some(&[1; 67]), None), (403, "signature-malformed")),
    ]);
}

/// Goal: scheme and hash are the key's, whatever the signature calls itself.
#[test]
fn a_signature_of_another_scheme_or_hash_is_refused() {
    let named = |scheme: u16, hash: u16| {
        move |stated: &mut Stated| {
            let (r, s) = numbers(&stated.signature);
            stated.signature = signature(scheme, hash, r, s);
        }
    };
    let rsa = |scheme: u16| {
        move |stated: &mut Stated| {
            let head = [scheme.to_be_bytes(), SHA256.to_be_bytes()].concat();
            stated.signature = [head, sized(&[0xA5; 256])].concat();
        }
    };
    refused_changes(&[
        (&named(ECDSA, 0x000C), (403, "signature-scheme")),
        (&named(ECDSA, 0x0004), (403, "signature-scheme")),
        (&named(0x001C, SHA256), (403, "signature-scheme")),
        (&named(0x001A, SHA256), (403, "signature-scheme")),
        (&named(0x0010, SHA256), (403, "signature-scheme")),
        (&rsa(0x0014), (403, "signature-scheme")),
        (&rsa(0x0016), (403, "signature-scheme")),
    ]);
}

/// Goal: two TPMs whose owners work together are not one: the secret of one's endorsement key, the
/// statement of the other's attestation key.
#[test]
fn the_answer_of_another_tpm_is_refused() {
    let bench = Bench::new();
    let (mut device, mut other) = (bench.device("tpm"), bench.device("other"));
    let open = bench.open(&mut device);
    let qualifying = open.given.qualifying(&open.secret, &spki(&other.key));
    let key = other.key.clone();
    let stated = other.certify(&key, &qualifying);
    bench.refused(&mut other, &open.given, &stated, (403, "signature-wrong"));
    bench.honest_answer_enrolls(&mut device, &open.given);
}

/// Goal: nor do their keys mix in one challenge: no TPM opens it, and a guess is told.
#[test]
fn keys_of_two_tpms_share_no_challenge() {
    let bench = Bench::new();
    let (mut device, mut other) = (bench.device("tpm"), bench.device("other"));
    let mut asking = device.asking(DEVICE);
    asking.ak_public = other.ak.public_area().to_vec();
    let given = bench.challenge(&asking);
    assert!(other.try_to_solve(&given).is_err(), "it is for another endorsement key");
    assert!(device.try_to_solve(&given).is_err(), "it is for another attestation key");
    device.ak = other.ak.clone();
    assert!(device.try_to_solve(&given).is_err(), "that key is of another TPM");
    let key = other.key.clone();
    let stated = other.certify(&key, &given.qualifying(&[0; 32], &spki(&key)));
    bench.refused(&mut other, &given, &stated, (403, "attest-qualifying-data"));
}

/// The parts of two devices' honest answers, exchanged one by one.
fn mixed(device: &Stated, other: &Stated) -> [Stated; 3] {
    [
        Stated { attest: other.attest.clone(), ..device.clone() },
        Stated { signature: other.signature.clone(), ..device.clone() },
        Stated { public: other.public.clone(), ..device.clone() },
    ]
}

/// Goal: two messages that are each genuine are no third one.
#[test]
fn the_parts_of_two_genuine_answers_do_not_mix() {
    let bench = Bench::new();
    let (mut device, mut other) = (bench.device("tpm"), bench.device("other"));
    let given = bench.open(&mut device).given;
    let honest = device.stated(&given);
    let given_other = bench.challenge(&other.asking("gw-2"));
    let others = other.stated(&given_other);
    let codes = ["attest-qualifying-data", "signature-wrong", "attest-name"];
    for (stated, code) in mixed(&honest, &others).iter().zip(codes) {
        bench.refused(&mut device, &given, stated, (403, code));
    }
    bench.honest_answer_enrolls(&mut device, &given);
}
