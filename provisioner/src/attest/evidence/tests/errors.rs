//! Reason codes, and what is said with them.

use std::collections::BTreeSet;

use der::asn1::ObjectIdentifier;
use fleetcert_tpm::{
    attest::AttestError,
    name::{Name, NameError},
    public::{CurveId, HashId, PublicAreaError, Scheme, Symmetric},
    reader::Framing,
    signature::SignatureError,
};

use crate::attest::{
    evidence::{EvidenceError, KeyFault, Number, Requirement, StatementError},
    spki::{Curve, KeyError},
    testing::vector,
};

const TRAILING: Framing = Framing::Trailing { found: 3 };
const SHORT: Framing = Framing::Truncated { needed: 2, found: 1 };
const SHA1: HashId = HashId(4);
const SHA256: HashId = HashId(0x000B);

const REQUIREMENTS: [(Requirement, &str, &str); 11] = [
    (Requirement::AdminWithPolicy, "not-admin-with-policy", "adminWithPolicy is clear"),
    (Requirement::Decrypt, "not-decrypt", "decrypt is clear"),
    (Requirement::FixedParent, "not-fixed-parent", "fixedParent is clear"),
    (Requirement::FixedTpm, "not-fixed-tpm", "fixedTPM is clear"),
    (Requirement::NoDecrypt, "decrypt", "decrypt is set"),
    (Requirement::NoEncryptedDuplication, "encrypted-duplication", "encryptedDuplication is set"),
    (Requirement::NoRestricted, "restricted", "restricted is set"),
    (Requirement::NoSign, "sign", "sign is set"),
    (Requirement::Restricted, "not-restricted", "restricted is clear"),
    (Requirement::SensitiveDataOrigin, "not-data-origin", "sensitiveDataOrigin is clear"),
    (Requirement::Sign, "not-sign", "sign is clear"),
];

/// Every other fault of a key, with its code behind the role's and what is said of it.
fn faults() -> Vec<(KeyFault, &'static str, &'static str)> {
    let key = KeyFault::Key;
    vec![
        (
            KeyFault::Area(PublicAreaError::Name(NameError::Algorithm { found: 4 })),
            "name-alg",
            "no public area: name algorithm 0x0004 is none of SHA-256, SHA-384 and SHA-512",
        ),
        (
            KeyFault::Area(PublicAreaError::Framing(TRAILING)),
            "malformed",
            "no public area: 3 octets follow the structure",
        ),
        (KeyFault::Curve { found: CurveId(2) }, "curve", "curve 0x0002 is not allowed"),
        (KeyFault::Hash { found: SHA1 }, "hash", "hash algorithm 0x0004 is not allowed"),
        (
            key(KeyError::Exponent { found: Some(2) }),
            "exponent",
            "the public exponent is 2, expected an odd one from 3 on",
        ),
        (
            key(KeyError::ModulusBits { found: 1024 }),
            "size",
            "the modulus has 1024 bits, expected 2048, 3072 or 4096",
        ),
        (
            key(KeyError::Point { curve: Curve::P256 }),
            "point",
            "the key is no uncompressed point of P-256",
        ),
        (KeyFault::Scheme { found: Scheme::Rsaes }, "scheme", "scheme Rsaes is not allowed"),
        (
            KeyFault::Symmetric { found: Symmetric::Null },
            "symmetric",
            "Null is neither AES-128 nor AES-256 in CFB mode",
        ),
        (KeyFault::Type, "type", "an RSA key, expected one on an elliptic curve"),
    ]
}

/// Everything that is not about one key.
fn others() -> Vec<(EvidenceError, &'static str, &'static str)> {
    use EvidenceError as E;
    let computed = Name::of_public_area(&vector("device")).unwrap();
    let statement = E::Statement;
    vec![
        (
            E::Attest(AttestError::Framing(TRAILING)),
            "attest-trailing",
            "no statement of a TPM: 3 octets follow the structure",
        ),
        (
            E::Attest(AttestError::Magic { found: 1 }),
            "attest-magic",
            "no statement of a TPM: the statement begins with 0x00000001, a TPM's with 0xff544347",
        ),
        (
            E::Attest(AttestError::Framing(SHORT)),
            "attest-malformed",
            "no statement of a TPM: 2 octets should follow, 1 do",
        ),
        (
            E::AttestType { found: 0x801a, expected: 0x8017 },
            "attest-type",
            "the statement is of kind 0x801a, expected 0x8017 (certify)",
        ),
        (
            E::Name { certified: vec![0, 0x0b, 0xff], computed },
            "attest-name",
            "the statement is about key 000bff, the key that came with it is \
             Name(000bae7cfbfa1adfdd2ab40d02ef207baa46fea1483f9ad360c4c2a3f0f0a4391e90)",
        ),
        (
            E::QualifyingData,
            "attest-qualifying-data",
            "the statement was not made for this challenge and request with the credential's secret",
        ),
        (E::RequestKey, "key-spki", "the request is for another key than the one that is proven"),
        (
            E::Signature(SignatureError::Framing(SHORT)),
            "signature-malformed",
            "no signature of a TPM: 2 octets should follow, 1 do",
        ),
        (
            E::SignatureRange { number: Number::R },
            "signature-r",
            "r of the signature is not between zero and the curve's order",
        ),
        (
            E::SignatureRange { number: Number::S },
            "signature-s",
            "s of the signature is not between zero and the curve's order",
        ),
        (
            E::SignatureScheme { expected: Scheme::Ecdsa(SHA256), found: Scheme::RsaSsa(SHA1) },
            "signature-scheme",
            "the signature is RsaSsa(HashId(4)), its key makes Ecdsa(HashId(11))",
        ),
        (
            E::SignatureWrong,
            "signature-wrong",
            "the signature is not by the attestation key over this statement",
        ),
        (
            statement(StatementError::Empty),
            "evidence-empty",
            "the evidence holds no statement, expected one",
        ),
        (
            statement(StatementError::Malformed),
            "evidence-malformed",
            "the evidence is no DER of a bundle with one statement of TPM2_Certify",
        ),
        (
            StatementError::Several { found: 2 }.into(),
            "evidence-several",
            "the evidence holds 2 values or statements, expected one",
        ),
        (
            statement(StatementError::TooLong { found: 2305 }),
            "evidence-too-long",
            "evidence of 2305 octets, at most 2304",
        ),
        (
            statement(StatementError::Type { found: ObjectIdentifier::new_unwrap("1.2.3") }),
            "evidence-type",
            "the evidence is a statement of type 1.2.3, expected 2.23.133.20.1",
        ),
    ]
}

type Wrap = fn(KeyFault) -> EvidenceError;

const ROLES: [(Wrap, &str, &str); 3] = [
    (EvidenceError::AttestationKey, "ak", "attestation key"),
    (EvidenceError::DeviceKey, "key", "device key"),
    (EvidenceError::EndorsementKey, "ek", "endorsement key"),
];

// Goal: each fault has its own code in each role, and says whose it is and what was found.
#[test]
fn every_fault_of_a_key_has_a_code_and_a_sentence() {
    for (wrap, code, role) in ROLES {
        for (fault, suffix, said) in faults() {
            assert_eq!(wrap(fault).code(), format!("{code}-{suffix}"));
            assert_eq!(wrap(fault).to_string(), format!("{role}: {said}"));
        }
        for (requirement, suffix, said) in REQUIREMENTS {
            let error = wrap(KeyFault::Requirement(requirement));
            let wanted = if requirement.attribute().1 { "set" } else { "clear" };
            assert_eq!(error.code(), format!("{code}-{suffix}"));
            assert_eq!(error.to_string(), format!("{role}: {said}, it has to be {wanted}"));
        }
    }
}

// Goal: so has everything else.
#[test]
fn every_other_refusal_has_a_code_and_a_sentence() {
    for (error, code, said) in others() {
        assert_eq!(error.code(), code);
        assert_eq!(error.to_string(), said);
    }
    let scheme = EvidenceError::Signature(SignatureError::Scheme { found: 5 });
    assert_eq!(scheme.code(), "signature-scheme");
}

// Goal: codes are short, plain, and nobody shares one.
#[test]
fn codes_are_distinct_and_plain() {
    let of_keys = ROLES.into_iter().flat_map(|(wrap, ..)| {
        let required = REQUIREMENTS.map(|(it, ..)| KeyFault::Requirement(it));
        let faults = faults().into_iter().map(|(fault, ..)| fault).chain(required);
        faults.map(move |fault| wrap(fault).code())
    });
    let codes: Vec<_> = others().iter().map(|(error, ..)| error.code()).chain(of_keys).collect();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    for code in codes {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!((1..=32).contains(&code.len()) && code.chars().all(plain), "{code}");
    }
}
