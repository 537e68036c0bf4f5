//! What vouches for an endorsement key: its certificate, and the operator who trusts its maker.

use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::claimant::Claimant;
use fleetcert_tests::lab::pki::{self, CHIP_MAKER, Node, element};
use fleetcert_tpm::ek::EkTemplate;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData as _,
};
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::OctetString;
use x509_cert::der::oid::ObjectIdentifier;

use crate::bench::{Bench, DEVICE, maker};

/// id-ce-extKeyUsage and id-ce-subjectAltName.
const EXT_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// The trusted maker has signed a certificate that says something else than a good one; it is
/// refused, and the good one is not.
#[track_caller]
fn refused_certificate(code: &str, change: impl FnOnce(&mut CertificateParams)) {
    let bench = Bench::new();
    let device = bench.device("tpm");
    let mut params = pki::endorsement(CHIP_MAKER);
    change(&mut params);
    let mut asking = device.asking(DEVICE);
    asking.ek_certificates = bench.maker.signs_for(&params, &device.ek_spki());
    bench.no_challenge(&asking, (403, code));
    bench.challenge(&device.asking(DEVICE));
}

/// The same for what no library would put into a certificate.
#[track_caller]
fn refused_spoilt(code: &str, changes: &[&dyn Fn(&mut TbsCertificate)]) {
    let bench = Bench::new();
    let device = bench.device("tpm");
    for change in changes {
        let mut asking = device.asking(DEVICE);
        asking.ek_certificates = bench.maker.signs_again(&device.certificates, change);
        bench.no_challenge(&asking, (403, code));
    }
    bench.challenge(&device.asking(DEVICE));
}

fn extension_set(content: &mut TbsCertificate, oid: ObjectIdentifier, value: &[u8]) {
    let extensions = content.extensions.as_mut().or_fail("extensions");
    let extension = extensions.iter_mut().find(|extension| extension.extn_id == oid);
    extension.or_fail("the extension").extn_value = OctetString::new(value).or_fail("octets");
}

/// Goal: a good certificate is worth nothing beside another key than its own.
#[test]
fn the_certificate_of_another_tpm_is_refused() {
    let bench = Bench::new();
    let (device, other) = (bench.device("tpm"), bench.device("other"));
    let mut asking = device.asking(DEVICE);
    asking.ek_certificates = other.certificates.clone();
    bench.no_challenge(&asking, (403, "ek-mismatch"));
}

/// Goal: not even beside another endorsement key of the same TPM.
#[test]
fn the_certificate_of_another_key_of_the_same_tpm_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let mut asking = device.asking(DEVICE);
    device.vault.tpm().transport().hang_up();
    let mut p384 = Claimant::new(device.tpm, EkTemplate::P384High);
    p384.certificates = bench.certificate(&p384);
    asking.ek_certificates = p384.certificates.clone();
    bench.no_challenge(&asking, (403, "ek-mismatch"));
    let mut asking = p384.asking(DEVICE);
    bench.challenge(&asking);
    asking.ek_public.clone_from(&device.ek_public);
    bench.no_challenge(&asking, (403, "ek-mismatch"));
}

/// Goal: a maker that nobody trusts vouches for nobody, though he sends his root along.
#[test]
fn a_certificate_of_an_unknown_maker_is_refused() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    let stranger = Node::root(pki::authority("Somebody's EK Root"));
    let leaf = stranger.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    for certificates in [leaf.clone(), [leaf, stranger.der].concat()] {
        device.certificates = certificates;
        bench.no_challenge(&device.asking(DEVICE), (403, "ek-unknown-root"));
    }
}

/// Goal: a maker of the same name is another one.
#[test]
fn a_signature_by_a_namesake_of_the_maker_is_refused() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    device.certificates = maker().signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-signature"));
    device.certificates = bench.certificate(&device);
    let last = device.certificates.len() - 1;
    device.certificates[last] ^= 1;
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-signature"));
}

/// Goal: an operator who trusts a maker no longer is obeyed at once, by a service that runs.
#[test]
fn a_root_that_was_removed_vouches_no_longer() {
    let bench = Bench::new();
    let device = bench.device("tpm");
    bench.challenge(&device.asking(DEVICE));
    let roots = bench.lab.ask(&["attest", "ek-roots", "list"]);
    let fingerprint = roots["ekRoots"][0]["fingerprint"].as_str().or_fail("a fingerprint");
    bench.lab.operate(&["attest", "ek-roots", "remove", fingerprint]);
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-unknown-root"));
}

/// Goal: an intermediate authority that came along leads to the root.
#[test]
fn a_chain_that_the_device_sends_leads_to_the_root() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    let issuer = bench.maker.signs(pki::authority("Chip Maker EK Issuer 7"));
    let leaf = issuer.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    device.certificates = leaf.clone();
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-unknown-root"));
    device.certificates = [leaf, issuer.der].concat();
    bench.challenge(&device.asking(DEVICE));
}

/// Goal: an endorsement key signs no certificates, whatever its own says of it.
#[test]
fn an_issuer_that_is_no_authority_is_refused() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    let issuer = bench.maker.signs(pki::device("not an authority"));
    let leaf = issuer.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    device.certificates = [leaf, issuer.der].concat();
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-issuer-not-ca"));
}

/// The certificates of a device under a chain of issuers, from the one below the root to the last.
fn chained(bench: &Bench, device: &Claimant, issuers: &[CertificateParams]) -> Vec<u8> {
    let mut chain: Vec<Node> = Vec::new();
    for params in issuers {
        chain.push(chain.last().unwrap_or(&bench.maker).signs(params.clone()));
    }
    let last = chain.last().or_fail("an issuer");
    let leaf = last.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    let others = chain.iter().flat_map(|node| node.der.clone());
    leaf.into_iter().chain(others).collect()
}

/// An authority below the root, with something changed.
fn issuer(number: usize, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = pki::authority(&format!("Chip Maker EK Issuer {number}"));
    change(&mut params);
    params
}

/// Goal: each issuer is judged like the root: time, what it may sign, how far below it others may.
#[test]
fn an_issuer_that_may_not_vouch_is_refused() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    let expired = issuer(1, |params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let early = issuer(1, |params| params.not_before = rcgen::date_time_ymd(2039, 1, 1));
    let lists_only = issuer(1, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let for_servers = issuer(1, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let last = issuer(1, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let plain: Vec<_> = (1..=7).map(|number| issuer(number, |_| ())).collect();
    let rows = [
        (vec![expired], "ek-issuer-expired"),
        (vec![early], "ek-issuer-not-yet-valid"),
        (vec![lists_only], "ek-issuer-usage"),
        (vec![for_servers], "ek-issuer-usage"),
        (vec![last, issuer(2, |_| ())], "ek-path-length"),
        (plain.clone(), "ek-too-deep"),
    ];
    for (issuers, code) in rows {
        device.certificates = chained(&bench, &device, &issuers);
        bench.no_challenge(&device.asking(DEVICE), (403, code));
    }
    device.certificates = chained(&bench, &device, &plain[..6]);
    bench.challenge(&device.asking(DEVICE));
}

/// Goal: keys that nobody here verifies or encrypts with are named, of an issuer and of the leaf.
#[test]
fn a_key_of_an_unknown_kind_is_refused() {
    let bench = Bench::new();
    let mut device = bench.bare_device("tpm");
    let ed25519 = || KeyPair::generate_for(&PKCS_ED25519).or_fail("a key");
    let issuer = bench.maker.signs_with(pki::authority("Chip Maker EK Issuer 1"), ed25519());
    let leaf = issuer.signs_for(&pki::endorsement(CHIP_MAKER), &device.ek_spki());
    device.certificates = [leaf, issuer.der].concat();
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-issuer-key-kind"));
    let spki = ed25519().subject_public_key_info();
    device.certificates = bench.maker.signs_for(&pki::endorsement(CHIP_MAKER), &spki);
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-key-kind"));
}

/// Goal: time is looked at.
#[test]
fn an_expired_certificate_is_refused() {
    refused_certificate("ek-expired", |params| {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
}

/// Goal: in both directions.
#[test]
fn a_certificate_that_is_not_valid_yet_is_refused() {
    refused_certificate("ek-not-yet-valid", |params| {
        params.not_before = rcgen::date_time_ymd(2039, 1, 1);
    });
}

/// Goal: a certificate of a maker's that is for something else says nothing of a TPM.
#[test]
fn a_certificate_for_another_purpose_is_refused() {
    refused_certificate("ek-usage", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    refused_certificate("ek-usage", |params| params.extended_key_usages.clear());
}

/// Goal: a key that may only sign opens nothing.
#[test]
fn a_certificate_whose_key_may_not_agree_is_refused() {
    refused_certificate("ek-key-usage", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
}

/// Goal: an authority is no endorsement key.
#[test]
fn the_certificate_of_an_authority_is_refused() {
    refused_certificate("ek-is-ca", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
}

/// Goal: a certificate says what TPM it is for, or it is for none.
#[test]
fn a_certificate_that_names_no_tpm_is_refused() {
    refused_certificate("ek-model", |params| params.custom_extensions.clear());
    refused_certificate("ek-model", |params| *params = pki::endorsement("Infineon"));
}

/// Goal: what is critical and not understood is not passed over.
#[test]
fn an_unknown_critical_extension_is_refused() {
    refused_certificate("ek-critical-extension", |params| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
}

/// Goal: the sequences that have crashed other parsers are refused by name.
#[test]
fn an_empty_sequence_in_a_certificate_is_refused() {
    refused_spoilt(
        "ek-empty-sequence",
        &[
            &|content| extension_set(content, EXT_KEY_USAGE, &element(0x30, &[])),
            &|content| extension_set(content, SUBJECT_ALT_NAME, &element(0x30, &[])),
            &|content| content.extensions = Some(Vec::new()),
        ],
    );
}

/// Goal: the same extension twice can be read two ways.
#[test]
fn a_repeated_extension_is_refused() {
    refused_spoilt(
        "ek-repeated-extension",
        &[&|content| {
            let extensions = content.extensions.as_mut().or_fail("extensions");
            extensions.push(extensions[0].clone());
        }],
    );
}

/// Goal: what is no certificate, or more than one without a border, is named.
#[test]
fn what_is_no_certificate_is_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let good = device.certificates.clone();
    let cut = good[..good.len() - 1].to_vec();
    let not_der = [&[0x30, 0x80], &good[2..], &[0, 0]].concat();
    let trailing = [&good[..], &[0]].concat();
    for certificates in [b"\x30\x00".to_vec(), cut, not_der, trailing, vec![0xFF; 40]] {
        device.certificates = certificates;
        bench.no_challenge(&device.asking(DEVICE), (403, "ek-certificate-malformed"));
    }
}

/// Goal: there is a limit to what a stranger has us read.
#[test]
fn too_many_certificates_are_refused() {
    let bench = Bench::new();
    let mut device = bench.device("tpm");
    let issuer = bench.maker.signs(pki::authority("Chip Maker EK Issuer 7")).der;
    let seven = issuer.repeat(7);
    device.certificates = [&device.certificates[..], &seven].concat();
    bench.challenge(&device.asking(DEVICE));
    device.certificates.extend_from_slice(&issuer);
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-too-many"));
}

/// Goal: a TPM without a certificate is nobody's until an operator says whose.
#[test]
fn an_endorsement_key_without_a_certificate_is_refused() {
    let bench = Bench::new();
    let device = bench.bare_device("tpm");
    bench.no_challenge(&device.asking(DEVICE), (403, "ek-unknown"));
}
