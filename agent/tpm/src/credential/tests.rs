use std::format;
use std::string::ToString as _;

use super::*;
use crate::testing::{hex, swtpm, tools};

fn secret() -> [u8; 32] {
    core::array::from_fn(|index| u8::try_from(index).unwrap())
}

fn object() -> Name {
    Name::of_public_area(&swtpm("ak-p256")).unwrap()
}

/// Goal: from the same seed, the blob is that of tpm2-tools, octet for octet, for every algorithm.
#[test]
fn a_blob_is_what_tpm2_makecredential_writes() {
    for (name, alg, aes) in [
        ("rsa-sha256", HashAlg::Sha256, AesKey::Bits128),
        ("rsa-sha384", HashAlg::Sha384, AesKey::Bits256),
        ("p384-sha384", HashAlg::Sha384, AesKey::Bits256),
        ("rsa-sha512", HashAlg::Sha512, AesKey::Bits256),
        ("p521-sha512", HashAlg::Sha512, AesKey::Bits256),
    ] {
        let seed = tools(&format!("{name}-seed"));
        let blob = wrap(alg, &seed, aes, &object(), &secret()).unwrap();
        assert_eq!(blob.as_bytes(), tools(&format!("{name}-blob")), "{name}");
    }
}

/// Goal: the blob is for one object: another Name changes what is encrypted, and the HMAC.
#[test]
fn a_blob_is_for_one_object() {
    let other = Name::of_public_area(&swtpm("device")).unwrap();
    let seed = tools("rsa-sha256-seed");
    let [one, two] = [object(), other]
        .map(|object| wrap(HashAlg::Sha256, &seed, AesKey::Bits128, &object, &secret()).unwrap());
    assert_ne!(one, two);
    assert_ne!(one.as_bytes()[..34], two.as_bytes()[..34]);
    assert_ne!(one.as_bytes()[34..], two.as_bytes()[34..]);
}

/// Goal: lengths are those of the specification, also for an empty secret and the longest one.
#[test]
fn a_blob_has_the_length_of_its_parts() {
    let blob = |alg: HashAlg, len| {
        wrap(alg, &[7; 64][..alg.digest_len()], AesKey::Bits128, &object(), &[1; 65][..len])
    };
    assert_eq!(blob(HashAlg::Sha256, 0).unwrap().as_bytes().len(), 2 + 32 + 2);
    assert_eq!(blob(HashAlg::Sha512, 64).unwrap().as_bytes().len(), CREDENTIAL_LEN_MAX);
    assert_eq!(CREDENTIAL_LEN_MAX, 2 + 64 + 2 + 64);
    assert_eq!(blob(HashAlg::Sha512, 65), Err(SecretTooLong { found: 65, max: 64 }));
    let refused = blob(HashAlg::Sha256, 33).unwrap_err();
    assert_eq!(refused.to_string(), "secret of 33 octets, a credential carries at most 32");
}

/// Goal: what is printed of a blob is its length only.
#[test]
fn a_blob_is_not_printed() {
    let blob = wrap(HashAlg::Sha256, &hex("00"), AesKey::Bits128, &object(), &[1]).unwrap();
    assert_eq!(format!("{blob:?}"), "IdObject(37 octets)");
}
