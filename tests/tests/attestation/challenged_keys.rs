//! Who asks for a challenge with keys that no TPM of ours has: the endorsement key and the
//! attestation key are judged by their public areas before anything is encrypted for them.

use fleetcert_provisioner::attest::evidence::{attestation_key, endorsement_key};
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::claimant::{SoftwareKey, public_of, spki, template, with_attributes};
use fleetcert_tpm::template::Template;
use fleetcert_tpm::vault::KeyBlob;

use crate::bench::{Bench, DEVICE};
use crate::chip::attribute::{
    ADMIN_WITH_POLICY, DECRYPT, ENCRYPTED_DUPLICATION, FIXED_PARENT, FIXED_TPM, RESTRICTED,
    SENSITIVE_DATA_ORIGIN, SIGN,
};
use crate::chip::sized;

/// Where the parts of a public area stand whose policy is empty, as that of an attestation key on a
/// curve.
mod ak_at {
    pub(super) const NAME_ALG: usize = 2;
    pub(super) const SCHEME: usize = 12;
    pub(super) const HASH: usize = 14;
    pub(super) const CURVE: usize = 16;
    pub(super) const X: usize = 22;
}

/// The same where the policy is a SHA-256, as that of an endorsement key on a curve.
mod ek_at {
    pub(super) const NAME_ALG: usize = 2;
    pub(super) const SYMMETRIC_BITS: usize = 44;
    pub(super) const SYMMETRIC_MODE: usize = 46;
    pub(super) const SCHEME: usize = 48;
    pub(super) const CURVE: usize = 50;
    pub(super) const X: usize = 56;
}

/// What becomes of a public area.
type Change<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// With two octets replaced.
fn with_u16(area: &[u8], at: usize, value: u16) -> Vec<u8> {
    let mut area = area.to_vec();
    area[at..at + 2].copy_from_slice(&value.to_be_bytes());
    area
}

/// With one octet changed.
fn with_change(area: &[u8], at: usize) -> Vec<u8> {
    let mut area = area.to_vec();
    area[at] ^= 1;
    area
}

/// A device asks with a changed attestation key, and is refused; with its own it is not.
#[track_caller]
fn no_challenge_for_ak(code: &str, changes: &[Change<'_>]) {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let honest = device.asking(DEVICE);
    for change in changes {
        let mut asking = honest.clone();
        asking.ak_public = change(&honest.ak_public);
        bench.no_challenge(&asking, (403, code));
    }
    bench.challenge(&honest);
}

/// A device asks with a changed endorsement key, and is refused; with its own it is not.
#[track_caller]
fn no_challenge_for_ek(code: &str, changes: &[Change<'_>]) {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let honest = device.asking(DEVICE);
    for change in changes {
        let mut asking = honest.clone();
        asking.ek_public = change(&honest.ek_public);
        bench.no_challenge(&asking, (403, code));
    }
    bench.challenge(&honest);
}

/// Goal: a key that signs what it is given cannot say what a TPM says. The TPM really makes it.
#[test]
fn an_attestation_key_that_is_not_restricted_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let anything = with_attributes(&template(Template::AttestationKey), 0, RESTRICTED);
    let key = device.make(&anything);
    let mut asking = device.asking(DEVICE);
    asking.ak_public = public_of(&key);
    bench.no_challenge(&asking, (403, "ak-not-restricted"));
}

/// Goal: a device key is none either; nor is the storage parent.
#[test]
fn an_attestation_key_that_does_not_sign_is_refused() {
    no_challenge_for_ak("ak-not-sign", &[&|area| with_attributes(area, 0, SIGN)]);
}

/// Goal: one key, one purpose.
#[test]
fn an_attestation_key_that_decrypts_is_refused() {
    no_challenge_for_ak("ak-decrypt", &[&|area| with_attributes(area, DECRYPT, 0)]);
}

/// Goal: what can leave its TPM says nothing of where it is.
#[test]
fn an_attestation_key_without_fixed_tpm_is_refused() {
    no_challenge_for_ak("ak-not-fixed-tpm", &[&|area| with_attributes(area, 0, FIXED_TPM)]);
}

/// Goal: the same for its parent.
#[test]
fn an_attestation_key_without_fixed_parent_is_refused() {
    no_challenge_for_ak("ak-not-fixed-parent", &[&|area| with_attributes(area, 0, FIXED_PARENT)]);
}

/// Goal: what was made elsewhere may be elsewhere still.
#[test]
fn an_attestation_key_of_foreign_origin_is_refused() {
    let change = |area: &[u8]| with_attributes(area, 0, SENSITIVE_DATA_ORIGIN);
    no_challenge_for_ak("ak-not-data-origin", &[&change]);
}

/// Goal: the attribute of keys that are made to be duplicated is believed by itself.
#[test]
fn an_attestation_key_with_encrypted_duplication_is_refused() {
    let change = |area: &[u8]| with_attributes(area, ENCRYPTED_DUPLICATION, 0);
    no_challenge_for_ak("ak-encrypted-duplication", &[&change]);
}

/// Goal: without a scheme of its own, or in one that is no signature of ours, it is not one key.
#[test]
fn an_attestation_key_without_a_fixed_scheme_is_refused() {
    let without =
        |area: &[u8]| [&area[..ak_at::SCHEME], &[0x00, 0x10], &area[ak_at::CURVE..]].concat();
    let schnorr = |area: &[u8]| with_u16(area, ak_at::SCHEME, 0x001C);
    no_challenge_for_ak("ak-scheme", &[&without, &schnorr]);
}

/// Goal: what SHA-1 hashes can be found twice.
#[test]
fn an_attestation_key_with_sha_1_is_refused() {
    no_challenge_for_ak("ak-hash", &[&|area| with_u16(area, ak_at::HASH, 0x0004)]);
}

/// Goal: nor is a Name of SHA-1 one.
#[test]
fn an_attestation_key_named_by_sha_1_is_refused() {
    no_challenge_for_ak("ak-name-alg", &[&|area| with_u16(area, ak_at::NAME_ALG, 0x0004)]);
}

/// Goal: curves nobody here verifies on (BN_P256, SM2_P256) are named.
#[test]
fn an_attestation_key_on_a_foreign_curve_is_refused() {
    let on = |curve| move |area: &[u8]| with_u16(area, ak_at::CURVE, curve);
    no_challenge_for_ak("ak-curve", &[&on(0x0010), &on(0x0020)]);
}

/// Goal: the numbers of a key are those of a point.
#[test]
fn an_attestation_key_off_its_curve_is_refused() {
    no_challenge_for_ak("ak-point", &[&|area| with_change(area, ak_at::X)]);
}

/// The attestation key of the template, as RSA of that many bits.
fn rsa(area: &[u8], bits: u16, exponent: u32) -> Vec<u8> {
    let modulus = vec![0xB5; usize::from(bits / 8)];
    let kind = [0x00, 0x01];
    let scheme = [0x00, 0x10, 0x00, 0x14, 0x00, 0x0B];
    let numbers = [&bits.to_be_bytes()[..], &exponent.to_be_bytes(), &sized(&modulus)].concat();
    [&kind, &area[2..10], &scheme, &numbers].concat()
}

/// Goal: RSA of 1024 bits is no key any more.
#[test]
fn an_attestation_key_of_rsa_1024_is_refused() {
    no_challenge_for_ak("ak-size", &[&|area| rsa(area, 1024, 0)]);
}

/// Goal: nor is one with an exponent that makes every signature its own message, or none.
#[test]
fn an_attestation_key_of_rsa_with_a_bad_exponent_is_refused() {
    let with = |exponent| move |area: &[u8]| rsa(area, 2048, exponent);
    no_challenge_for_ak("ak-exponent", &[&with(1), &with(2), &with(65_536)]);
}

/// Goal: a public area is one only if it is used up, and whole.
#[test]
fn an_attestation_key_that_is_no_public_area_is_refused() {
    let cut = |len: usize| move |area: &[u8]| area[..len].to_vec();
    let trailing = |area: &[u8]| [area, &[0]].concat();
    let other_type = |area: &[u8]| with_u16(area, 0, 0x0001);
    let changes: [Change<'_>; 5] = [&cut(1), &cut(20), &cut(87), &trailing, &other_type];
    no_challenge_for_ak("ak-malformed", &changes);
}

/// Goal: the endorsement key in the attestation key's place is told apart from one.
#[test]
fn keys_in_each_others_place_are_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let mut swapped = device.asking(DEVICE);
    std::mem::swap(&mut swapped.ek_public, &mut swapped.ak_public);
    bench.no_challenge(&swapped, (403, "ek-not-admin-with-policy"));
    let mut twice = device.asking(DEVICE);
    twice.ak_public = device.ek_public.clone();
    bench.no_challenge(&twice, (403, "ak-not-sign"));
}

/// Goal: an endorsement key that signs could sign a statement of anybody's.
#[test]
fn an_endorsement_key_that_signs_is_refused() {
    no_challenge_for_ek("ek-sign", &[&|area| with_attributes(area, SIGN, 0)]);
}

/// Goal: one that is not restricted decrypts for whoever asks.
#[test]
fn an_endorsement_key_that_is_not_restricted_is_refused() {
    no_challenge_for_ek("ek-not-restricted", &[&|area| with_attributes(area, 0, RESTRICTED)]);
}

/// Goal: one that does not decrypt opens no credential.
#[test]
fn an_endorsement_key_that_does_not_decrypt_is_refused() {
    no_challenge_for_ek("ek-not-decrypt", &[&|area| with_attributes(area, 0, DECRYPT)]);
}

/// Goal: the endorsement key is in the TPM and nowhere else, and made there.
#[test]
fn an_endorsement_key_without_fixed_tpm_is_refused() {
    no_challenge_for_ek("ek-not-fixed-tpm", &[&|area| with_attributes(area, 0, FIXED_TPM)]);
}

/// Goal: the same for its parent.
#[test]
fn an_endorsement_key_without_fixed_parent_is_refused() {
    no_challenge_for_ek("ek-not-fixed-parent", &[&|area| with_attributes(area, 0, FIXED_PARENT)]);
}

/// Goal: the same for its origin.
#[test]
fn an_endorsement_key_of_foreign_origin_is_refused() {
    let change = |area: &[u8]| with_attributes(area, 0, SENSITIVE_DATA_ORIGIN);
    no_challenge_for_ek("ek-not-data-origin", &[&change]);
}

/// Goal: a key that is no endorsement key by the profile is none.
#[test]
fn an_endorsement_key_without_a_policy_for_administration_is_refused() {
    let change = |area: &[u8]| with_attributes(area, 0, ADMIN_WITH_POLICY);
    no_challenge_for_ek("ek-not-admin-with-policy", &[&change]);
}

/// Goal: nor is one made to be duplicated.
#[test]
fn an_endorsement_key_with_encrypted_duplication_is_refused() {
    let change = |area: &[u8]| with_attributes(area, ENCRYPTED_DUPLICATION, 0);
    no_challenge_for_ek("ek-encrypted-duplication", &[&change]);
}

/// Goal: what it protects its credentials by is AES in the mode that we encrypt in.
#[test]
fn an_endorsement_key_with_other_encryption_is_refused() {
    let bits = |area: &[u8]| with_u16(area, ek_at::SYMMETRIC_BITS, 192);
    let mode = |area: &[u8]| with_u16(area, ek_at::SYMMETRIC_MODE, 0x0042);
    no_challenge_for_ek("ek-symmetric", &[&bits, &mode]);
}

/// Goal: the rest of its form: scheme, curve, Name, point, and that it is one at all.
#[test]
fn an_endorsement_key_of_another_form_is_refused() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let scheme = |area: &[u8]| {
        let ecdsa = [0x00, 0x18, 0x00, 0x0B];
        [&area[..ek_at::SCHEME], &ecdsa, &area[ek_at::CURVE..]].concat()
    };
    let rows: [(Change<'_>, &str); 6] = [
        (&scheme, "ek-scheme"),
        (&|area| with_u16(area, ek_at::CURVE, 0x0010), "ek-curve"),
        (&|area| with_u16(area, ek_at::NAME_ALG, 0x0004), "ek-name-alg"),
        (&|area| with_change(area, ek_at::X), "ek-point"),
        (&|area| [area, &[0]].concat(), "ek-malformed"),
        (&|area| area[..area.len() - 1].to_vec(), "ek-malformed"),
    ];
    for (change, code) in rows {
        let mut asking = device.asking(DEVICE);
        asking.ek_public = change(&device.ek_public);
        bench.no_challenge(&asking, (403, code));
    }
}

/// Goal: who claims an attestation key of better attributes than its own gets a challenge for a Name
/// that no TPM has: his own does not open it, and a guess is told.
#[test]
fn a_forged_name_of_the_attestation_key_opens_nothing() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let anything = with_attributes(&template(Template::AttestationKey), 0, RESTRICTED);
    let key = device.make(&anything);
    let public = public_of(&key);
    let mut asking = device.asking(DEVICE);
    asking.ak_public = with_attributes(&public, RESTRICTED, 0);
    assert!(attestation_key(&asking.ak_public).is_ok(), "it looks like one");
    let given = bench.challenge(&asking);

    device.ak = KeyBlob::parse(&[&[1], &key[..]].concat()).or_fail("a key");
    assert!(device.try_to_solve(&given).is_err(), "the TPM opens it for another Name");
    let guess = given.qualifying(&[0; 32], &spki(&device.key));
    let key = device.key.clone();
    let stated = device.certify(&key, &guess);
    bench.refused(&mut device, &given, &stated, (403, "attest-qualifying-data"));
}

/// Goal: a software key with the attributes of an endorsement key has everything but a certificate.
#[test]
fn a_software_endorsement_key_has_no_certificate() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let key = SoftwareKey::new();
    let mut asking = device.asking(DEVICE);
    asking.ek_public.truncate(ek_at::X - 2);
    let point = key.point();
    asking.ek_public.extend([sized(&point[1..33]), sized(&point[33..])].concat());
    assert!(endorsement_key(&asking.ek_public).is_ok(), "it looks like one");
    bench.no_challenge(&asking, (403, "ek-mismatch"));
    asking.ek_certificates.clear();
    bench.no_challenge(&asking, (403, "ek-unknown"));
}
