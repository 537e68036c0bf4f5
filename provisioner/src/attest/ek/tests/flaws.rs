//! Octets that are no certificates, or not quite.

use super::*;
use crate::{
    attest::forge::{
        AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, EK_PURPOSE, EXT_KEY_USAGE, POLICIES, SET,
        SUBJECT_ALT_NAME, assemble, directory, key_usage, name, oid, purposes, tpm_name,
    },
    authority::der::{
        BIT_STRING, BOOLEAN, INTEGER, OCTET_STRING, SEQUENCE, content, element, elements,
    },
};

fn empty() -> Vec<u8> {
    element(SEQUENCE, &[])
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    element(SEQUENCE, &[&parts.concat()])
}

fn flaw_of_leaf(leaf: &Draft) -> Flaw {
    match Cast::new().refusal_of_leaf(leaf) {
        EkError::Flaw { at: 0, flaw } => flaw,
        other => panic!("{other:?}"),
    }
}

// Goal: nothing at all is a refusal of its own: policies may let such devices in otherwise.
#[test]
fn no_certificate_is_told_from_a_bad_one() {
    assert_eq!(verify(&[], &Cast::new().roots(), NOW).unwrap_err(), EkError::Missing);
}

// Goal: every limit holds exactly where it says.
#[test]
fn octets_and_certificates_are_limited() {
    let cast = Cast::new();
    let leaf = cast.leaf().signed(&cast.issuer);
    let issuer = cast.issuer().signed(&cast.root);
    let times = |count: usize| [leaf.clone(), issuer.repeat(count - 1)].concat();
    verify(&times(CERTIFICATES_MAX), &cast.roots(), NOW).unwrap();
    let error = verify(&times(CERTIFICATES_MAX + 1), &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::TooMany);

    let filled = |len: usize| {
        let whole = |octet: u8, count: usize| {
            let comment = element(OCTET_STRING, &[&vec![octet; count]]);
            let leaf = cast.leaf().with("1.3.6.1.4.1.55555.1", false, comment);
            [leaf.signed(&cast.issuer), issuer.clone()].concat()
        };
        // The lengths around the filling grow with it, and a signature's with its numbers.
        let most = len - whole(0, 0).len();
        let mut tries = (0..64).flat_map(|less| (0..4).map(move |octet| (octet, most - less)));
        let fits = tries
            .find_map(|(octet, count)| Some(whole(octet, count)).filter(|sent| sent.len() == len));
        fits.unwrap_or_else(|| panic!("no filling gives {len} octets"))
    };
    verify(&filled(CERTIFICATES_LEN_MAX), &cast.roots(), NOW).unwrap();
    let error = verify(&filled(CERTIFICATES_LEN_MAX + 1), &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::TooLong { found_len: CERTIFICATES_LEN_MAX + 1 });
}

// Goal: whatever is cut off, nothing of it is believed and nothing panics.
#[test]
fn every_cut_is_noticed() {
    let cast = Cast::new();
    let leaf = cast.leaf().signed(&cast.issuer);
    let issuer = cast.issuer().signed(&cast.root);
    let sent = [&leaf[..], &issuer].concat();
    for len in 1..sent.len() {
        let error = verify(&sent[..len], &cast.roots(), NOW).unwrap_err();
        let expected = match len.checked_sub(leaf.len()) {
            None => EkError::Flaw { at: 0, flaw: Flaw::Malformed },
            Some(0) => EkError::UnknownRoot { issuer: format!("CN={ISSUER}") },
            Some(_) => EkError::Flaw { at: 1, flaw: Flaw::Malformed },
        };
        assert_eq!(error, expected, "{len} octets");
    }
    let padded = [&sent[..], &[0]].concat();
    let error = verify(&padded, &cast.roots(), NOW).unwrap_err();
    assert_eq!(error, EkError::Flaw { at: 2, flaw: Flaw::Malformed });
}

// Goal: no octet of a chain can be changed so that it is accepted as another one, or panics.
#[test]
fn no_changed_octet_is_accepted() {
    let cast = Cast::new();
    let leaf = cast.leaf().signed(&cast.issuer);
    let sent = [&leaf[..], &cast.issuer().signed(&cast.root)].concat();
    let roots = cast.roots();
    for at in 0..sent.len() {
        for flip in [0x01, 0x80] {
            let mut changed = sent.clone();
            changed[at] ^= flip;
            assert!(verify(&changed, &roots, NOW).is_err(), "octet {at}, {flip:02x}");
        }
    }
}

// Goal: what is no certificate of version 3 is refused, however it is wrong.
#[test]
fn structures_that_are_not_quite_certificates_are_malformed() {
    let cast = Cast::new();
    let right = cast.leaf();
    let tbs = right.tbs();
    let sha384 = sequence(&[oid("1.2.840.10045.4.3.3")]);
    let v2 = Draft { version: vec![0xa0, 3, INTEGER, 1, 1], ..right.clone() };
    let v1 = Draft { version: vec![], ..right.clone() };
    let other_end = [&tbs[..], &[0; 2]].concat();
    for (what, certificate) in [
        ("version 2", v2.signed(&cast.issuer)),
        ("version 1", v1.signed(&cast.issuer)),
        ("two algorithms", assemble(&tbs, &sha384, &[0; 8])),
        ("an element more", assemble(&other_end, &right.algorithm, &[0; 8])),
        ("no bits", sequence(&[tbs.clone(), right.algorithm.clone(), vec![OCTET_STRING, 0]])),
        (
            "bits left over",
            sequence(&[tbs.clone(), right.algorithm.clone(), vec![BIT_STRING, 2, 1, 0]]),
        ),
        ("no certificate", empty()),
        ("a SET", element(SET, &[&tbs])),
    ] {
        let error = verify(&certificate, &cast.roots(), NOW).unwrap_err();
        assert_eq!(error, EkError::Flaw { at: 0, flaw: Flaw::Malformed }, "{what}");
    }
}

// Goal: extensions that decide something are read whole or not at all.
#[test]
fn extensions_that_cannot_be_read_are_malformed() {
    let cast = Cast::new();
    let odd_boolean = element(SEQUENCE, &[&[BOOLEAN, 1, 1]]);
    let longer = [&key_usage(8)[..], &[0]].concat();
    for (extension, value) in [
        (BASIC_CONSTRAINTS, odd_boolean),
        (BASIC_CONSTRAINTS, vec![SEQUENCE, 1]),
        (EXT_KEY_USAGE, sequence(&[vec![INTEGER, 1, 1]])),
        (EXT_KEY_USAGE, oid(EK_PURPOSE)),
        ("2.5.29.15", longer),
        ("2.5.29.15", vec![OCTET_STRING, 1, 8]),
        (SUBJECT_ALT_NAME, tpm_name("id:49465800")[..9].to_vec()),
        (SUBJECT_ALT_NAME, sequence(&[directory(&[INTEGER, 1, 1])])),
        (SUBJECT_ALT_NAME, sequence(&[directory(&oid(EK_PURPOSE))])),
        (POLICIES, vec![INTEGER, 1, 1]),
    ] {
        let leaf = cast.leaf().with(extension, false, value.clone());
        assert_eq!(flaw_of_leaf(&leaf), Flaw::Malformed, "{extension} {value:02x?}");
    }
}

// Goal: key identifiers are hints: what cannot be read is no hint, and no reason to refuse.
#[test]
fn key_identifiers_that_cannot_be_read_are_ignored() {
    let cast = Cast::new();
    for value in [empty(), sequence(&[element(0x81, &[b"?"])])] {
        cast.verify_leaf(&cast.leaf().with(AUTHORITY_KEY_ID, false, value)).unwrap();
    }
    let odd = cast.issuer().with("2.5.29.14", false, vec![INTEGER, 1, 1]);
    cast.verify_issuer(&odd).unwrap();
}

// Goal: an extension that is there twice has two meanings: refused, and named.
#[test]
fn repeated_extensions_are_refused() {
    let mut leaf = Cast::new().leaf();
    leaf.extensions.push((EXT_KEY_USAGE, false, purposes(&[EK_PURPOSE])));
    let extension = ObjectIdentifier::new_unwrap(EXT_KEY_USAGE);
    assert_eq!(flaw_of_leaf(&leaf), Flaw::RepeatedExtension { extension });
}

// Goal: an issuer without a name is nobody.
#[test]
fn an_issuer_has_a_name() {
    let leaf = Draft { issuer: empty(), ..Cast::new().leaf() };
    assert_eq!(flaw_of_leaf(&leaf), Flaw::IssuerName);
}

// Goal: which certificate is meant is told: those that follow the leaf are counted.
#[test]
fn flaws_of_issuers_are_told_with_their_place() {
    let cast = Cast::new();
    let issuer = cast.issuer().with(EXT_KEY_USAGE, false, empty());
    let flaw = Flaw::EmptySequence { field: "extKeyUsage" };
    assert_eq!(cast.refusal_of_issuer(&issuer), EkError::Flaw { at: 1, flaw });
}

/// An extension of a list: its object identifier, its name, a value where the list is empty, and
/// one where it has an element.
type Place = (&'static str, &'static str, Vec<u8>, Vec<u8>);

/// Extensions that are such a list.
fn lists() -> Vec<Place> {
    let dns = element(0x82, &[b"a.example"]);
    let name = element(SEQUENCE, &[&dns]);
    let set = element(SET, &[&[5, 0]]);
    let attribute = element(SEQUENCE, &[&oid("1.2.3.4"), &set]);
    let point = element(SEQUENCE, &[&element(0xa0, &[&element(0xa0, &[&dns])])]);
    let access = element(SEQUENCE, &[&oid("1.2.3.4"), &dns]);
    let policy = element(SEQUENCE, &[&oid("1.2.3.4")]);
    let mapping = element(SEQUENCE, &[&oid("1.2.3.4"), &oid("1.2.3.5")]);
    let of_one = |one: &[u8]| element(SEQUENCE, &[one]);
    vec![
        ("2.5.29.9", "subjectDirectoryAttributes", empty(), of_one(&attribute)),
        ("2.5.29.18", "issuerAltName", empty(), name),
        ("2.5.29.18", "issuerAltName", empty(), of_one(&directory(&empty()))),
        ("2.5.29.31", "cRLDistributionPoints", empty(), of_one(&point)),
        ("2.5.29.32", "certificatePolicies", empty(), of_one(&policy)),
        ("2.5.29.33", "policyMappings", empty(), of_one(&mapping)),
        ("2.5.29.37", "extKeyUsage", empty(), purposes(&[EK_PURPOSE])),
        ("2.5.29.46", "freshestCRL", empty(), of_one(&point)),
        ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess", empty(), of_one(&access)),
        ("1.3.6.1.5.5.7.1.11", "subjectInfoAccess", empty(), of_one(&access)),
    ]
}

/// Lists inside of extensions.
fn inner_lists() -> Vec<Place> {
    let dns = element(0x82, &[b"a.example"]);
    let subtree = element(SEQUENCE, &[&dns]);
    let attribute = element(SEQUENCE, &[&oid("2.5.4.3"), &element(0x0c, &[b"x"])]);
    let of_one = |one: &[u8]| element(SEQUENCE, &[one]);
    let values = |values: &[u8]| of_one(&element(SEQUENCE, &[&oid("1.2.3.4"), values]));
    let point = |tag: u8, names: &[u8]| of_one(&of_one(&element(0xa0, &[&element(tag, &[names])])));
    let crl_issuer = |names: &[u8]| of_one(&of_one(&element(0xa2, &[names])));
    let tagged = |tag: u8, content: &[u8]| of_one(&element(tag, &[content]));
    let directory_of =
        |attributes: &[u8]| of_one(&directory(&of_one(&element(SET, &[attributes]))));
    let (none, nothing) = (&[][..], element(SET, &[]));
    let something = element(SET, &[&empty()]);
    let qualifier = element(SEQUENCE, &[&[5, 0]]);
    vec![
        ("2.5.29.9", "subjectDirectoryAttributes", values(&nothing), values(&something)),
        ("2.5.29.18", "issuerAltName", directory_of(none), directory_of(&attribute)),
        ("2.5.29.30", "nameConstraints", tagged(0xa0, none), tagged(0xa0, &subtree)),
        ("2.5.29.30", "nameConstraints", tagged(0xa1, none), tagged(0xa1, &subtree)),
        ("2.5.29.31", "cRLDistributionPoints", point(0xa0, none), point(0xa0, &dns)),
        ("2.5.29.31", "cRLDistributionPoints", point(0xa1, none), point(0xa1, &attribute)),
        ("2.5.29.31", "cRLDistributionPoints", crl_issuer(none), crl_issuer(&dns)),
        ("2.5.29.32", "certificatePolicies", values(&empty()), values(&qualifier)),
        ("2.5.29.35", "authorityKeyIdentifier", tagged(0xa1, none), tagged(0xa1, &dns)),
    ]
}

// Goal: each place where RFC 5280 wants at least one element is watched, and the certificate is
// accepted with one element there.
#[test]
fn empty_sequences_are_refused_wherever_something_has_to_be() {
    let cast = Cast::new();
    for (extension, field, wrong, right) in lists().into_iter().chain(inner_lists()) {
        let leaf = cast.leaf().with(extension, false, wrong);
        assert_eq!(flaw_of_leaf(&leaf), Flaw::EmptySequence { field }, "{extension}");
        let accepted = cast.verify_leaf(&cast.leaf().with(extension, false, right));
        accepted.unwrap_or_else(|error| panic!("{field}: {error}"));
    }
}

// Goal: the same for what every certificate has: names, extensions, and the names of a TPM.
#[test]
fn empty_parts_of_names_and_empty_extensions_are_refused() {
    let leaf = || Cast::new().leaf();
    let hollow = || sequence(&[element(SET, &[])]);
    for (field, draft) in [
        ("issuer", Draft { issuer: hollow(), ..leaf() }),
        ("subject", Draft { subject: hollow(), ..leaf() }),
        ("extensions", Draft { extensions: vec![], ..leaf() }),
        ("subjectAltName", leaf().with(SUBJECT_ALT_NAME, true, empty())),
        ("subjectAltName", leaf().with(SUBJECT_ALT_NAME, true, sequence(&[directory(&hollow())]))),
    ] {
        assert_eq!(flaw_of_leaf(&draft), Flaw::EmptySequence { field });
    }
}

// Goal: a certificate without extensions can be read; it is just no endorsement certificate.
#[test]
fn a_certificate_without_extensions_is_refused_for_what_it_lacks() {
    let cast = Cast::new();
    let tbs = Draft { extensions: vec![], ..cast.leaf() }.tbs();
    let mut fields = content(SEQUENCE, &tbs).and_then(elements).unwrap();
    fields.pop();
    let tbs = element(SEQUENCE, &fields);
    let certificate = assemble(&tbs, &cast.leaf().algorithm, &[0; 8]);
    assert_eq!(verify(&certificate, &cast.roots(), NOW).unwrap_err(), EkError::Usage);
}

// Goal: a name from a stranger goes into logs: it cannot steer a terminal and does not fill a disk.
#[test]
fn names_in_refusals_are_safe_to_print_and_not_endless() {
    let cast = Cast::new();
    let ends_at = |text: &str| {
        let leaf = Draft { issuer: name(text), ..cast.leaf() };
        match cast.refusal_of_leaf(&leaf) {
            EkError::UnknownRoot { issuer } => issuer,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ends_at("Maker \u{202e}é\u{1b}"), "CN=Maker \\u{202e}\\u{e9}\\\\1b");
    let long = ends_at(&"x".repeat(1_000));
    assert_eq!(long, format!("CN={}", "x".repeat(253)));
    let strange = element(SET, &[&sequence(&[oid("1.2.3.4"), vec![INTEGER, 1, 5]])]);
    let strange = Draft { issuer: sequence(&[strange]), ..cast.leaf() };
    let error = EkError::UnknownRoot { issuer: "1.2.3.4=#020105".into() };
    assert_eq!(cast.refusal_of_leaf(&strange), error);
}
