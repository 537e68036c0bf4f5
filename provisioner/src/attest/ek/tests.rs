//! Chains right and wrong. `leaf` is about the endorsement certificate, `chain` about its issuers
//! and the search for them, `flaws` about octets, `peers` about what others made.

use fleetcert_core::time::Wall;

use super::*;
use crate::{
    attest::{
        forge::{Draft, Signer, ca, key_usage},
        model::{Field, ModelError},
        spki::KeyError,
    },
    testing::NOW,
};

mod chain;
mod flaws;
mod leaf;
mod peers;

/// A device's leaf key, an intermediate authority and a root: names, keys and right certificates.
struct Cast {
    leaf: Signer,
    issuer: Signer,
    root: Signer,
}

const ISSUER: &str = "Maker EK CA 1";
const ROOT: &str = "Maker EK Root";

impl Cast {
    fn new() -> Self {
        Self { leaf: Signer::new(1), issuer: Signer::new(2), root: Signer::new(3) }
    }

    fn leaf(&self) -> Draft {
        Draft::leaf(&self.leaf.key(), ISSUER)
    }

    fn issuer(&self) -> Draft {
        Draft::authority(ISSUER, &self.issuer.key(), ROOT)
    }

    fn root(&self) -> Draft {
        Draft::authority(ROOT, &self.root.key(), ROOT)
    }

    fn roots(&self) -> Vec<EkRoot> {
        vec![EkRoot::parse(&self.root().signed(&self.root)).unwrap()]
    }

    /// The verdict on a leaf below the right issuer and root.
    fn verify_leaf(&self, leaf: &Draft) -> Result<EkCertificate, EkError> {
        self.verify(leaf, &self.issuer())
    }

    /// The verdict on a right leaf below this issuer.
    fn verify_issuer(&self, issuer: &Draft) -> Result<EkCertificate, EkError> {
        self.verify(&self.leaf(), issuer)
    }

    fn verify(&self, leaf: &Draft, issuer: &Draft) -> Result<EkCertificate, EkError> {
        let sent = [leaf.signed(&self.issuer), issuer.signed(&self.root)].concat();
        verify(&sent, &self.roots(), NOW)
    }

    fn refusal_of_leaf(&self, leaf: &Draft) -> EkError {
        self.verify_leaf(leaf).unwrap_err()
    }

    fn refusal_of_issuer(&self, issuer: &Draft) -> EkError {
        self.verify_issuer(issuer).unwrap_err()
    }
}

// Goal: the usual case, and everything that is told about it.
#[test]
fn a_leaf_below_an_intermediate_below_a_root_is_accepted_with_its_whole_chain() {
    let cast = Cast::new();
    let [leaf, issuer] = [cast.leaf().signed(&cast.issuer), cast.issuer().signed(&cast.root)];
    let roots = cast.roots();
    let found = verify(&[&leaf[..], &issuer].concat(), &roots, NOW).unwrap();
    assert_eq!(found.chain, [leaf, issuer, roots[0].der().to_vec()]);
    assert_eq!(found.spki_der, cast.leaf.key().spki_der());
    assert_eq!(found.id, cast.leaf.key().ek_id());
    assert_eq!(found.model.to_string(), "IFX SLB9670 id:0D0B");
    assert!(!found.model.is_virtual());
    let (not_before, not_after) = cast.leaf().validity;
    assert_eq!(found.validity, Validity { not_before, not_after });
}

// Goal: every refusal can be told from every other by its code, and by its text.
#[test]
fn every_refusal_has_a_code_and_a_text_of_its_own() {
    let all = [refusals_of_octets(), refusals_of_leaves(), refusals_of_issuers()].concat();
    let is_code = |code: &str| {
        let is_allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        (1..=32).contains(&code.len()) && code.chars().all(is_allowed)
    };
    for (index, (error, code, text)) in all.iter().enumerate() {
        assert_eq!(error.code(), *code);
        assert_eq!(error.to_string(), *text);
        assert!(is_code(code), "{code}");
        let is_unique = |other: &Refusal| other.1 != *code && other.2 != *text;
        assert!(all[..index].iter().all(is_unique), "{code}");
    }
}

type Refusal = (EkError, &'static str, &'static str);

fn extension() -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap("2.5.29.36")
}

const TOO_SHORT: KeyError = KeyError::ModulusBits { found: 1024 };
const EARLY: Wall = Wall(0);
/// 2100-01-01T00:00:00Z.
const LATE: Wall = Wall(4_102_444_800);

fn refusals_of_octets() -> Vec<Refusal> {
    let flaw = |flaw| EkError::Flaw { at: 1, flaw };
    vec![
        (
            flaw(Flaw::EmptySequence { field: "extKeyUsage" }),
            "ek-empty-sequence",
            "EK certificate 1 of the chain: its extKeyUsage is empty, at least one element has to \
             be there",
        ),
        (
            flaw(Flaw::IssuerName),
            "ek-name",
            "EK certificate 1 of the chain: its issuer has no name",
        ),
        (
            flaw(Flaw::Malformed),
            "ek-certificate-malformed",
            "EK certificate 1 of the chain: it is no X.509 certificate (version 3) in DER",
        ),
        (
            flaw(Flaw::RepeatedExtension { extension: extension() }),
            "ek-repeated-extension",
            "EK certificate 1 of the chain: its extension 2.5.29.36 is there more than once",
        ),
        (EkError::Missing, "ek-missing", "the device sent no EK certificate"),
        (
            EkError::TooDeep,
            "ek-too-deep",
            "the EK certificate's chain has more than 8 certificates",
        ),
        (
            EkError::TooLong { found_len: 8193 },
            "ek-too-long",
            "the EK certificates have 8193 octets, at most 8192 may be",
        ),
        (EkError::TooMany, "ek-too-many", "the device sent more than 8 EK certificates"),
        (
            EkError::TooManySignatures,
            "ek-too-many-signatures",
            "no chain was found with 16 signatures checked: the EK certificates look too much \
             alike",
        ),
    ]
}

fn refusals_of_leaves() -> Vec<Refusal> {
    let now = NOW;
    vec![
        (
            EkError::Expired { not_after: EARLY, now },
            "ek-expired",
            "the EK certificate expired at 1970-01-01T00:00:00Z, it is 2026-01-01T00:00:00Z",
        ),
        (EkError::IsCa, "ek-is-ca", "the EK certificate is that of a certificate authority"),
        (
            EkError::KeyKind { found: TOO_SHORT },
            "ek-key-kind",
            "the EK certificate's key: the modulus has 1024 bits, expected 2048, 3072 or 4096",
        ),
        (
            EkError::KeyUsage,
            "ek-key-usage",
            "the EK certificate's keyUsage lacks keyEncipherment (RSA) or keyAgreement (EC)",
        ),
        (
            EkError::Model(ModelError::Missing { field: Field::Model }),
            "ek-model",
            "the EK certificate does not name its TPM: the TPM's model (2.23.133.2.2) is missing",
        ),
        (
            EkError::NotYetValid { not_before: LATE, now },
            "ek-not-yet-valid",
            "the EK certificate is valid from 2100-01-01T00:00:00Z, it is 2026-01-01T00:00:00Z",
        ),
        (
            EkError::Usage,
            "ek-usage",
            "the EK certificate's extKeyUsage lacks 2.23.133.8.1 (tcg-kp-EKCertificate)",
        ),
    ]
}

fn refusals_of_issuers() -> Vec<Refusal> {
    let (issuer, now) = (String::from("CN=X"), NOW);
    vec![
        (
            EkError::CriticalExtension { extension: extension() },
            "ek-critical-extension",
            "an EK certificate has the critical extension 2.5.29.36, which is not understood",
        ),
        (
            EkError::Algorithm { found: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5") },
            "ek-algorithm",
            "an EK certificate is signed by 1.2.840.113549.1.1.5 or with unusual parameters, \
             expected RSA or ECDSA as its issuer's key is, with SHA-256, SHA-384 or SHA-512",
        ),
        (
            EkError::IssuerExpired { issuer: issuer.clone(), not_after: EARLY, now },
            "ek-issuer-expired",
            "the EK issuer CN=X expired at 1970-01-01T00:00:00Z, it is 2026-01-01T00:00:00Z",
        ),
        (
            EkError::IssuerKeyKind { issuer: issuer.clone(), found: TOO_SHORT },
            "ek-issuer-key-kind",
            "the EK issuer CN=X has a key that is not taken: the modulus has 1024 bits, expected \
             2048, 3072 or 4096",
        ),
        (
            EkError::IssuerNotCa { issuer: issuer.clone() },
            "ek-issuer-not-ca",
            "the EK issuer CN=X is no certificate authority",
        ),
        (
            EkError::IssuerNotYetValid { issuer: issuer.clone(), not_before: LATE, now },
            "ek-issuer-not-yet-valid",
            "the EK issuer CN=X is valid from 2100-01-01T00:00:00Z, it is 2026-01-01T00:00:00Z",
        ),
        (
            EkError::IssuerUsage { issuer: issuer.clone() },
            "ek-issuer-usage",
            "the EK issuer CN=X may not sign EK certificates",
        ),
        (
            EkError::PathLength { issuer: issuer.clone(), found: 2, max: 1 },
            "ek-path-length",
            "below the EK issuer CN=X are 2 other authorities, it admits 1",
        ),
        (
            EkError::Signature { issuer: issuer.clone() },
            "ek-signature",
            "an EK certificate names CN=X and is not signed by it",
        ),
        (
            EkError::UnknownRoot { issuer },
            "ek-unknown-root",
            "the EK certificate's chain ends at CN=X, which is no trusted EK root",
        ),
    ]
}
