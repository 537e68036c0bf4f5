use std::format;
use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::testing::swtpm;

/// Where the fields of `ak-p256` begin.
const TYPE_AT: usize = 0;
const NAME_ALG_AT: usize = 2;
const ATTRIBUTES_AT: usize = 4;
const POLICY_AT: usize = 8;
const SYMMETRIC_AT: usize = 10;
const SCHEME_AT: usize = 12;
const KDF_AT: usize = 18;
const X_AT: usize = 20;

const ATTRIBUTES: [Attribute; 14] = [
    Attribute::FixedTpm,
    Attribute::StClear,
    Attribute::FixedParent,
    Attribute::SensitiveDataOrigin,
    Attribute::UserWithAuth,
    Attribute::AdminWithPolicy,
    Attribute::FirmwareLimited,
    Attribute::SvnLimited,
    Attribute::NoDa,
    Attribute::EncryptedDuplication,
    Attribute::Restricted,
    Attribute::Decrypt,
    Attribute::Sign,
    Attribute::X509Sign,
];

/// `ak-p256` with other octets from a place on.
fn changed(at: usize, octets: &[u8]) -> Vec<u8> {
    let mut area = swtpm("ak-p256");
    area[at..at + octets.len()].copy_from_slice(octets);
    area
}

/// `ak-p256` with more octets at a place, and `without` of those that stood there.
fn spliced(at: usize, without: usize, octets: &[u8]) -> Vec<u8> {
    let mut area = swtpm("ak-p256");
    area.splice(at..at + without, octets.iter().copied());
    area
}

fn refused(area: &[u8]) -> PublicAreaError {
    PublicArea::parse(area).unwrap_err()
}

/// The attributes that are set.
fn set(area: &PublicArea<'_>) -> Vec<Attribute> {
    ATTRIBUTES.into_iter().filter(|attribute| area.attributes.has(*attribute)).collect()
}

/// Goal: an attestation key of a TPM is read field by field.
#[test]
fn an_elliptic_curve_key_of_a_tpm_is_read() {
    let octets = swtpm("ak-p256");
    let area = PublicArea::parse(&octets).unwrap();
    let expected = [
        Attribute::FixedTpm,
        Attribute::FixedParent,
        Attribute::SensitiveDataOrigin,
        Attribute::UserWithAuth,
        Attribute::NoDa,
        Attribute::Restricted,
        Attribute::Sign,
    ];
    assert_eq!(set(&area), expected);
    assert_eq!(area.name_alg, HashAlg::Sha256);
    assert_eq!(*area.name(), Name::of_public_area(&octets).unwrap());
    assert!(area.auth_policy.is_empty());
    let key = Key::Ecc {
        curve: CurveId::P256,
        x: &octets[X_AT + 2..X_AT + 34],
        y: &octets[X_AT + 36..],
        scheme: Scheme::Ecdsa(HashId(0x000B)),
        symmetric: Symmetric::Null,
        kdf: Kdf::Null,
    };
    assert_eq!(area.key, key);
}

/// Goal: an endorsement key of a TPM, RSA with a policy, is read field by field.
#[test]
fn an_rsa_key_of_a_tpm_is_read() {
    let octets = swtpm("ek-rsa2048");
    let area = PublicArea::parse(&octets).unwrap();
    let expected = [
        Attribute::FixedTpm,
        Attribute::FixedParent,
        Attribute::SensitiveDataOrigin,
        Attribute::AdminWithPolicy,
        Attribute::Restricted,
        Attribute::Decrypt,
    ];
    assert_eq!(set(&area), expected);
    assert_eq!(area.auth_policy, &octets[10..42]);
    let symmetric = Symmetric::Cipher { alg: 0x0006, bits: 128, mode: 0x0043 };
    let key = Key::Rsa {
        bits: 2048,
        exponent: 65_537,
        modulus: &octets[octets.len() - 256..],
        scheme: Scheme::Null,
        symmetric,
    };
    assert_eq!(area.key, key);
    assert_eq!(area.key.symmetric(), symmetric);
    assert_eq!(area.key.scheme(), Scheme::Null);
}

/// Goal: curves, hashes, ciphers and schemes of other keys are read as what they are.
#[test]
fn keys_of_other_algorithms_are_read() {
    for (name, alg, scheme, aes) in [
        ("ak-p384", HashAlg::Sha384, Scheme::Ecdsa(HashId(0x000C)), None),
        ("ak-p521", HashAlg::Sha512, Scheme::Ecdsa(HashId(0x000D)), None),
        ("ak-rsassa", HashAlg::Sha256, Scheme::RsaSsa(HashId(0x000B)), None),
        ("ak-rsapss384", HashAlg::Sha256, Scheme::RsaPss(HashId(0x000C)), None),
        ("ek-p256", HashAlg::Sha256, Scheme::Null, Some(AesKey::Bits128)),
        ("ek-p384", HashAlg::Sha384, Scheme::Null, Some(AesKey::Bits256)),
        ("ek-rsa3072", HashAlg::Sha384, Scheme::Null, Some(AesKey::Bits256)),
        ("ek-p521", HashAlg::Sha512, Scheme::Null, Some(AesKey::Bits256)),
    ] {
        let octets = swtpm(name);
        let area = PublicArea::parse(&octets).unwrap();
        assert_eq!(area.name_alg, alg, "{name}");
        assert_eq!(area.key.scheme(), scheme, "{name}");
        assert_eq!(area.key.symmetric().aes_cfb(), aes, "{name}");
    }
}

/// Goal: each asymmetric scheme of the specification is read, with what stands behind it.
#[test]
fn every_scheme_is_read() {
    let sha1 = HashId(0x0004);
    assert_eq!(sha1.alg(), None);
    assert_eq!(HashId(0x000B).alg(), Some(HashAlg::Sha256));
    for (octets, expected) in [
        (&b"\0\x19\0\x04"[..], Scheme::Ecdh(sha1)),
        (b"\0\x1a\0\x04\0\0", Scheme::Ecdaa(sha1)),
        (b"\0\x1b\0\x04", Scheme::Sm2(sha1)),
        (b"\0\x1c\0\x04", Scheme::EcSchnorr(sha1)),
        (b"\0\x1d\0\x04", Scheme::Ecmqv(sha1)),
        (b"\0\x10", Scheme::Null),
    ] {
        let area = spliced(SCHEME_AT, 4, octets);
        assert_eq!(PublicArea::parse(&area).unwrap().key.scheme(), expected);
    }
    let rsa = swtpm("ak-rsassa");
    for (octets, expected) in [
        (&b"\0\x15"[..], Scheme::Rsaes),
        (b"\0\x17\0\x04", Scheme::Oaep(sha1)),
        (b"\0\x10", Scheme::Null),
    ] {
        let mut area = rsa.clone();
        area.splice(SCHEME_AT..SCHEME_AT + 4, octets.iter().copied());
        assert_eq!(PublicArea::parse(&area).unwrap().key.scheme(), expected);
    }
}

/// Goal: only AES-128 and AES-256 in CFB mode pass for what a credential is encrypted with.
#[test]
fn ciphers_are_told_apart() {
    let symmetric = |octets: &[u8]| {
        let area = spliced(SYMMETRIC_AT, 2, octets);
        PublicArea::parse(&area).unwrap().key.symmetric().aes_cfb()
    };
    assert_eq!(symmetric(b"\0\x06\0\x80\0\x43"), Some(AesKey::Bits128));
    assert_eq!(symmetric(b"\0\x06\x01\0\0\x43"), Some(AesKey::Bits256));
    assert_eq!(symmetric(b"\0\x06\0\xc0\0\x43"), None);
    assert_eq!(symmetric(b"\0\x06\0\x80\0\x40"), None);
    assert_eq!(symmetric(b"\0\x13\0\x80\0\x43"), None);
    assert_eq!(symmetric(b"\0\x26\0\x80\0\x43"), None);
    assert_eq!((AesKey::Bits128.key_len(), AesKey::Bits256.key_len()), (16, 32));
}

/// Goal: a key derivation is read with its hash.
#[test]
fn a_key_derivation_is_read() {
    let area = spliced(KDF_AT, 2, b"\0\x20\0\x0b");
    let Key::Ecc { kdf, .. } = PublicArea::parse(&area).unwrap().key else { panic!() };
    assert_eq!(kdf, Kdf::Scheme { alg: 0x20, hash: HashId(0x000B) });
}

/// Goal: an exponent is read as it stands, unless it is the default.
#[test]
fn an_exponent_is_read() {
    let mut octets = swtpm("ak-rsassa");
    octets[18..22].copy_from_slice(&[0, 0, 0, 3]);
    let Key::Rsa { exponent, .. } = PublicArea::parse(&octets).unwrap().key else { panic!() };
    assert_eq!(exponent, 3);
}

/// Goal: no beginning of an area is one, and nothing may follow it.
#[test]
fn only_whole_areas_are_read() {
    for name in ["ak-p256", "ek-p384", "ek-rsa2048", "ak-rsapss"] {
        let octets = swtpm(name);
        for len in 0..octets.len() {
            assert!(PublicArea::parse(&octets[..len]).is_err(), "{name}, {len}");
        }
        let trailing = PublicAreaError::Framing(Framing::Trailing { found: 1 });
        assert_eq!(refused(&[octets, vec![0]].concat()), trailing);
    }
}

/// Goal: each field that can be wrong is refused for itself, with what was found.
#[test]
fn areas_with_a_wrong_field_are_refused() {
    for (area, said) in [
        (changed(TYPE_AT, &[0, 8]), "0x0008 is no type of an asymmetric key"),
        (
            changed(NAME_ALG_AT, &[0, 4]),
            "name algorithm 0x0004 is none of SHA-256, SHA-384 and SHA-512",
        ),
        (changed(SYMMETRIC_AT, &[0, 10]), "0x000a is no symmetric algorithm of a parent"),
        (changed(SCHEME_AT, &[0, 0x14]), "0x0014 is no scheme of such a key"),
        (changed(POLICY_AT, &[0, 65]), "a part of 65 octets, at most 64 are allowed"),
        (changed(X_AT, &[0, 67]), "a part of 67 octets, at most 66 are allowed"),
        (vec![0; 1025], "public area of 1025 octets, at most 1024"),
        (vec![0; 3], "public area of only 3 octets"),
    ] {
        assert_eq!(refused(&area).to_string(), said);
    }
    let mut rsa = swtpm("ak-rsassa");
    rsa[SCHEME_AT + 1] = 0x18;
    assert_eq!(refused(&rsa), PublicAreaError::Identifier { of: Field::Scheme, found: 0x18 });
}

/// Goal: a modulus has the length that the area states, and not more than RSA-4096.
#[test]
fn a_modulus_of_another_length_is_refused() {
    let mut octets = swtpm("ak-rsassa");
    octets[16..18].copy_from_slice(&1024_u16.to_be_bytes());
    let error = refused(&octets);
    assert_eq!(error, PublicAreaError::ModulusLen { bits: 1024, found: 256 });
    assert_eq!(error.to_string(), "a modulus of 256 octets, 1024 bits are stated");
    octets[22..24].copy_from_slice(&513_u16.to_be_bytes());
    let oversized = Framing::Oversized { found: 513, max: 512 };
    assert_eq!(refused(&octets), PublicAreaError::Framing(oversized));
}

/// Goal: every bit is an attribute that has a name, or refused.
#[test]
fn reserved_attributes_are_refused() {
    for bit in 0..32 {
        let bits = 1_u32 << bit;
        let octets = changed(ATTRIBUTES_AT, &bits.to_be_bytes());
        let known = ATTRIBUTES.into_iter().find(|attribute| *attribute as u32 == bit);
        match (PublicArea::parse(&octets), known) {
            (Ok(area), Some(known)) => assert_eq!(set(&area), [known]),
            (Err(error), None) => {
                assert_eq!(error, PublicAreaError::ReservedAttributes { found: bits });
                let said = format!("reserved attributes {bits:#010x} are set");
                assert_eq!(error.to_string(), said);
            }
            (result, known) => panic!("bit {bit}: {result:?}, {known:?}"),
        }
    }
}

/// Goal: attributes are printed as the specification calls them, and as bits in a dump.
#[test]
fn attributes_have_the_names_of_the_specification() {
    let names: Vec<_> = ATTRIBUTES.iter().map(|attribute| attribute.to_string()).collect();
    let expected = "fixedTPM stClear fixedParent sensitiveDataOrigin userWithAuth adminWithPolicy \
                    firmwareLimited svnLimited noDA encryptedDuplication restricted decrypt sign \
                    x509sign";
    assert_eq!(names.join(" "), expected);
    let octets = swtpm("ak-p256");
    let attributes = PublicArea::parse(&octets).unwrap().attributes;
    assert_eq!(format!("{attributes:?}"), "Attributes(0x00050472)");
}

/// Goal: no octets make the parser panic, and every octet counts: an area with one changed is
/// another key, or none.
#[test]
fn every_changed_octet_is_noticed() {
    for name in ["ak-p256", "ek-rsa2048"] {
        let octets = swtpm(name);
        let genuine = PublicArea::parse(&octets).unwrap();
        for at in 0..octets.len() {
            for flip in [1, 0x80, 0xff] {
                let mut octets = octets.clone();
                octets[at] ^= flip;
                assert_ne!(PublicArea::parse(&octets), Ok(genuine), "{name}, octet {at}");
            }
        }
    }
}
