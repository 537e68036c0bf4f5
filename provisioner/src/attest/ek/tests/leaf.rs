//! The endorsement certificate itself.

use super::*;
use crate::{
    attest::{
        forge::{
            AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, CRL_SIGN, EK_PURPOSE, EXT_KEY_USAGE,
            KEY_AGREEMENT, KEY_ENCIPHERMENT, KEY_USAGE, POLICIES, SUBJECT_ALT_NAME, alt_names,
            directory, name, name_of, oid, purposes, tpm_name,
        },
        model::{Field, ModelError},
        spki::KeyError,
    },
    authority::der::{BIT_STRING, BOOLEAN, OCTET_STRING, SEQUENCE, element},
};

/// The end of the year 9999: "no well-defined expiration date" (RFC 5280 §4.1.2.5).
const NEVER: Wall = Wall(253_402_300_799);

/// A key of a modulus that is nobody's.
fn rsa(len: usize) -> Key {
    Key::rsa(&vec![0xc5; len], 65_537).unwrap()
}

// Goal: a leaf is good through its first and its last second, and not one second around them.
#[test]
fn validity_includes_both_its_ends() {
    let cast = Cast::new();
    let [before, after] = [Wall(NOW.0 - 1), Wall(NOW.0 + 1)];
    for validity in [(NOW, NOW), (NOW, NEVER), (Wall(0), NOW)] {
        cast.verify_leaf(&Draft { validity, ..cast.leaf() }).unwrap();
    }
    let expired = Draft { validity: (Wall(0), before), ..cast.leaf() };
    let error = EkError::Expired { not_after: before, now: NOW };
    assert_eq!(cast.refusal_of_leaf(&expired), error);
    let early = Draft { validity: (after, NEVER), ..cast.leaf() };
    let error = EkError::NotYetValid { not_before: after, now: NOW };
    assert_eq!(cast.refusal_of_leaf(&early), error);
}

// Goal: nothing else in a certificate says that its key is in a TPM, so this has to.
#[test]
fn the_purpose_of_an_endorsement_certificate_is_required() {
    let cast = Cast::new();
    let server_auth = "1.3.6.1.5.5.7.3.1";
    let leaf = cast.leaf().with(EXT_KEY_USAGE, true, purposes(&[server_auth, EK_PURPOSE]));
    cast.verify_leaf(&leaf).unwrap();
    for others in [&[server_auth][..], &["2.5.29.37.0"], &["2.23.133.8.2", "2.23.133.8.3"]] {
        let leaf = cast.leaf().with(EXT_KEY_USAGE, false, purposes(others));
        assert_eq!(cast.refusal_of_leaf(&leaf), EkError::Usage, "{others:?}");
    }
    assert_eq!(cast.refusal_of_leaf(&cast.leaf().without(EXT_KEY_USAGE)), EkError::Usage);
}

// Goal: an authority is no TPM, whatever else it says.
#[test]
fn a_leaf_may_not_be_an_authority() {
    let cast = Cast::new();
    let leaf = cast.leaf().with(BASIC_CONSTRAINTS, true, ca(None));
    assert_eq!(cast.refusal_of_leaf(&leaf), EkError::IsCa);
    // CA:FALSE, written out although it is the default, or not at all.
    let spelt = element(SEQUENCE, &[&[BOOLEAN, 1, 0]]);
    cast.verify_leaf(&cast.leaf().with(BASIC_CONSTRAINTS, true, spelt)).unwrap();
    cast.verify_leaf(&cast.leaf().without(BASIC_CONSTRAINTS)).unwrap();
}

// Goal: an endorsement key decrypts; a usage that is stated has to say so, by kind of key.
#[test]
fn the_key_usage_fits_the_kind_of_key() {
    let cast = Cast::new();
    let cases = [
        (cast.leaf.key(), KEY_AGREEMENT, KEY_ENCIPHERMENT | CRL_SIGN),
        (rsa(256), KEY_ENCIPHERMENT, KEY_AGREEMENT | CRL_SIGN),
    ];
    for (key, right, wrong) in cases {
        let leaf = Draft::leaf(&key, ISSUER);
        cast.verify_leaf(&leaf.clone().with(KEY_USAGE, true, key_usage(right))).unwrap();
        cast.verify_leaf(&leaf.clone().without(KEY_USAGE)).unwrap();
        let leaf = leaf.with(KEY_USAGE, false, key_usage(wrong));
        assert_eq!(cast.refusal_of_leaf(&leaf), EkError::KeyUsage);
    }
}

// Goal: every size of RSA that TPMs have is taken, and the others are not.
#[test]
fn keys_of_other_kinds_are_refused_by_name() {
    let cast = Cast::new();
    for len in [256, 384, 512] {
        let key = rsa(len);
        let found = cast.verify_leaf(&Draft::leaf(&key, ISSUER)).unwrap();
        assert_eq!((found.spki_der, found.id), (key.spki_der(), key.ek_id()));
    }
    let ed25519 = element(
        SEQUENCE,
        &[&element(SEQUENCE, &[&oid("1.3.101.112")]), &element(BIT_STRING, &[&[0; 33]])],
    );
    let error = cast.refusal_of_leaf(&Draft { spki: ed25519, ..cast.leaf() });
    let found = KeyError::Algorithm { found: ObjectIdentifier::new_unwrap("1.3.101.112") };
    assert_eq!(error, EkError::KeyKind { found });
}

// Goal: what is critical and not understood ends it, wherever it stands, and is named.
#[test]
fn a_critical_extension_that_nobody_understands_is_refused_by_name() {
    let cast = Cast::new();
    let (name_constraints, unknown) = ("2.5.29.30", "1.3.6.1.4.1.55555.1");
    let value = || element(OCTET_STRING, &[b"?"]);
    let leaf = cast.leaf().with(unknown, true, value()).with("1.3.6.1.4.1.55555.2", true, value());
    let extension = ObjectIdentifier::new_unwrap(unknown);
    assert_eq!(cast.refusal_of_leaf(&leaf), EkError::CriticalExtension { extension });
    let subtrees = element(SEQUENCE, &[]);
    let issuer = cast.issuer().with(name_constraints, true, subtrees);
    let extension = ObjectIdentifier::new_unwrap(name_constraints);
    assert_eq!(cast.refusal_of_issuer(&issuer), EkError::CriticalExtension { extension });
    cast.verify_leaf(&cast.leaf().with(unknown, false, value())).unwrap();
}

// Goal: the critical extensions of real certificates do not stand in the way.
#[test]
fn extensions_that_are_understood_may_be_critical() {
    let cast = Cast::new();
    let policy = element(SEQUENCE, &[&oid("1.2.3.4")]);
    let policies = element(SEQUENCE, &[&policy]);
    let key_id = element(SEQUENCE, &[&element(0x80, &[&[9; 20]])]);
    let leaf = cast
        .leaf()
        .with(POLICIES, true, policies.clone())
        .with(AUTHORITY_KEY_ID, true, key_id)
        .with(EXT_KEY_USAGE, true, purposes(&[EK_PURPOSE]));
    let issuer = cast.issuer().with(POLICIES, true, policies).with(
        "2.5.29.14",
        true,
        element(OCTET_STRING, &[&[7; 20]]),
    );
    cast.verify(&leaf, &issuer).unwrap();
}

// Goal: the TPM is named in the alternative name, alone or among other names, in one set or three,
// or in the subject where some makers put it.
#[test]
fn the_model_is_found_where_makers_write_it() {
    let cast = Cast::new();
    let intel = || tpm_name("id:494E5443");
    let dns = element(0x82, &[b"tpm.example"]);
    let model = cast.verify_leaf(&cast.leaf()).unwrap().model;
    assert_eq!(model.manufacturer.to_string(), "IFX");
    for leaf in [
        cast.leaf().with(SUBJECT_ALT_NAME, false, alt_names(&[dns, directory(&intel())])),
        Draft { subject: intel(), ..cast.leaf().without(SUBJECT_ALT_NAME) },
        Draft { subject: name("x"), ..cast.leaf() }.with(
            SUBJECT_ALT_NAME,
            true,
            alt_names(&[directory(&in_one_set(&intel()))]),
        ),
    ] {
        let model = cast.verify_leaf(&leaf).unwrap().model;
        assert_eq!(model.to_string(), "INTC SLB9670 id:0D0B");
    }
    // What stands in the alternative name counts.
    let both = Draft { subject: intel(), ..cast.leaf() };
    assert_eq!(cast.verify_leaf(&both).unwrap().model, model);
}

/// A name whose attributes stand in one set together.
fn in_one_set(name: &[u8]) -> Vec<u8> {
    use crate::authority::der::{content, elements};
    let sets = content(SEQUENCE, name).and_then(elements).unwrap();
    let attributes: Vec<_> = sets.into_iter().map(|set| content(0x31, set).unwrap()).collect();
    element(SEQUENCE, &[&element(0x31, &[&attributes.concat()])])
}

// Goal: who cannot be told from a virtual TPM is not let in by mistake: a leaf that does not say
// what TPM it is for is refused.
#[test]
fn a_leaf_that_does_not_name_its_tpm_is_refused() {
    let cast = Cast::new();
    let missing = ModelError::Missing { field: Field::Manufacturer };
    let error = cast.refusal_of_leaf(&cast.leaf().without(SUBJECT_ALT_NAME));
    assert_eq!(error, EkError::Model(missing));
    let manufacturer = name_of(&[("2.23.133.2.1", "id:49465800")]);
    let named =
        |name: &[u8]| cast.leaf().with(SUBJECT_ALT_NAME, true, alt_names(&[directory(name)]));
    let error = cast.refusal_of_leaf(&named(&manufacturer));
    assert_eq!(error, EkError::Model(ModelError::Missing { field: Field::Model }));
    let error = cast.refusal_of_leaf(&named(&tpm_name("49465800")));
    assert_eq!(error, EkError::Model(ModelError::Manufacturer));
    // The attribute has to be a text: an INTEGER of the same octets is none.
    let value = element(0x02, &[b"id:49465800"]);
    let attribute = element(SEQUENCE, &[&oid("2.23.133.2.1"), &value]);
    let odd = element(SEQUENCE, &[&element(0x31, &[&attribute])]);
    let error = cast.refusal_of_leaf(&named(&odd));
    assert_eq!(error, EkError::Model(ModelError::Text { field: Field::Manufacturer }));
}

// Goal: an RSA key has one name, whichever of its two algorithm names a maker wrote.
#[test]
fn an_rsa_key_for_oaep_has_the_name_of_the_plain_key() {
    let cast = Cast::new();
    let key = rsa(256);
    let plain = Draft::leaf(&key, ISSUER);
    let rsa_encryption = element(SEQUENCE, &[&oid("1.2.840.113549.1.1.1"), &[5, 0]]);
    let sha256 = element(SEQUENCE, &[&oid("2.16.840.1.101.3.4.2.1")]);
    let parameters = element(SEQUENCE, &[&element(0xa0, &[&sha256])]);
    let oaep = element(SEQUENCE, &[&oid("1.2.840.113549.1.1.7"), &parameters]);
    let (found, key_bits) = plain.spki[4..].split_at(rsa_encryption.len());
    assert_eq!(found, rsa_encryption);
    let spki = element(SEQUENCE, &[&oaep, key_bits]);
    assert_ne!(spki, plain.spki);
    let found = cast.verify_leaf(&Draft { spki, ..plain }).unwrap();
    assert_eq!((found.spki_der, found.id), (key.spki_der(), key.ek_id()));
}
