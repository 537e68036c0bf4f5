//! Signatures of certificates: what the vendors of TPMs use, and SHA-1 never.
//!
//! RSA (PKCS#1 v1.5 and PSS) is ring's; ECDSA is that of the curves' own crates, because vendors
//! sign on P-521 and mix any of the three curves with any of the three hashes. Everything here
//! works on public octets, so nothing has to take the same time.

use der::asn1::ObjectIdentifier;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::{digest, signature};

use crate::{
    attest::spki::{Curve, Key, Numbers, stripped},
    authority::der::{INTEGER, OID, SEQUENCE, content, elements, split_element},
};

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureFault {
    /// The algorithm is not one of ours, or not one for that kind of key.
    Algorithm { found: ObjectIdentifier },
    /// It is not by that key over those octets.
    Mismatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Ecdsa,
    Pkcs1,
    Pss,
}

/// sha*WithRSAEncryption (RFC 8017 appendix A.2.4), ecdsa-with-SHA* (RFC 5758 §3.2).
const ALGORITHMS: [(ObjectIdentifier, Scheme, Hash); 6] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), Scheme::Pkcs1, Hash::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), Scheme::Pkcs1, Hash::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), Scheme::Pkcs1, Hash::Sha512),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), Scheme::Ecdsa, Hash::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), Scheme::Ecdsa, Hash::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), Scheme::Ecdsa, Hash::Sha512),
];

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");

const NULL: [u8; 2] = [0x05, 0];

impl Hash {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// RFC 4055 §2.1.
    const fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
            Self::Sha384 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
            Self::Sha512 => ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        }
    }

    fn digest(self, message: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, message)
    }

    const fn digest_len(self) -> u8 {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// How a certificate is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Algorithm {
    pub(super) oid: ObjectIdentifier,
    /// DER, empty if there are none.
    pub(super) parameters: Vec<u8>,
}

impl Algorithm {
    /// Reads the DER of an `AlgorithmIdentifier`, whole.
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let (oid, parameters) = identifier(der)?;
        Some(Self { oid, parameters: parameters.to_vec() })
    }

    fn scheme(&self) -> Option<(Scheme, Hash)> {
        if self.oid == RSASSA_PSS {
            return Some((Scheme::Pss, pss_hash(&self.parameters)?));
        }
        let (_, scheme, hash) = ALGORITHMS.into_iter().find(|(oid, ..)| *oid == self.oid)?;
        // RFC 4055 §5: NULL, and readers take nothing as well. RFC 5758 §3.2: nothing.
        let may_be_null = scheme == Scheme::Pkcs1;
        let is_plain = self.parameters.is_empty() || (may_be_null && self.parameters == NULL);
        is_plain.then_some((scheme, hash))
    }
}

/// Checks `signature` over `message`.
///
/// # Errors
///
/// [`SignatureFault`].
pub(super) fn verify(
    key: &Key,
    algorithm: &Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureFault> {
    let unknown = SignatureFault::Algorithm { found: algorithm.oid };
    let (scheme, hash) = algorithm.scheme().ok_or(unknown)?;
    let is_valid = match (key.numbers(), scheme) {
        (Numbers::Ec { curve, point }, Scheme::Ecdsa) => {
            ecdsa_verifies(*curve, point, hash.digest(message).as_ref(), signature)
        }
        (Numbers::Rsa { modulus, exponent }, Scheme::Pkcs1 | Scheme::Pss) => {
            let exponent = exponent.to_be_bytes();
            let key = signature::RsaPublicKeyComponents { n: &modulus[..], e: stripped(&exponent) };
            key.verify(rsa_parameters(scheme, hash), message, signature).is_ok()
        }
        _ => return Err(unknown),
    };
    if is_valid { Ok(()) } else { Err(SignatureFault::Mismatch) }
}

/// The algorithm of an `AlgorithmIdentifier`, and what follows it.
fn identifier(der: &[u8]) -> Option<(ObjectIdentifier, &[u8])> {
    let (oid, parameters) = split_element(content(SEQUENCE, der)?)?;
    Some((ObjectIdentifier::from_bytes(content(OID, oid)?).ok()?, parameters))
}

/// The hash of `RSASSA-PSS-params` (RFC 4055 §3.1), if it is one of ours, MGF1 uses the same, and
/// the salt is as long as a digest: no other parameters are in use, and the defaults are SHA-1.
fn pss_hash(parameters: &[u8]) -> Option<Hash> {
    const TRAILER: [u8; 5] = [0xa3, 3, INTEGER, 1, 1];
    let fields = elements(content(SEQUENCE, parameters)?)?;
    let (hash, mask, salt_len) = match fields[..] {
        [hash, mask, salt_len] => (hash, mask, salt_len),
        [hash, mask, salt_len, trailer] if trailer == TRAILER => (hash, mask, salt_len),
        _ => return None,
    };
    let hash = hash_of(content(0xa0, hash)?)?;
    let (mask, mask_hash) = identifier(content(0xa1, mask)?)?;
    let salt_len = content(INTEGER, content(0xa2, salt_len)?)?;
    let is_usual =
        mask == MGF1 && hash_of(mask_hash) == Some(hash) && salt_len == [hash.digest_len()];
    is_usual.then_some(hash)
}

fn hash_of(algorithm: &[u8]) -> Option<Hash> {
    let (found, parameters) = identifier(algorithm)?;
    let hash = Hash::ALL.into_iter().find(|hash| hash.oid() == found)?;
    (parameters.is_empty() || parameters == NULL).then_some(hash)
}

fn rsa_parameters(scheme: Scheme, hash: Hash) -> &'static signature::RsaParameters {
    let is_pss = scheme == Scheme::Pss;
    match hash {
        Hash::Sha256 if is_pss => &signature::RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 if is_pss => &signature::RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 if is_pss => &signature::RSA_PSS_2048_8192_SHA512,
        Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

/// Whether `signature` is an ECDSA-Sig-Value (RFC 3279 §2.2.3) of that point over that digest.
fn ecdsa_verifies(curve: Curve, point: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let verified = match curve {
        Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).and_then(|key| {
            let signature = p256::ecdsa::Signature::from_der(signature)?;
            key.verify_prehash(digest, &signature)
        }),
        Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).and_then(|key| {
            let signature = p384::ecdsa::Signature::from_der(signature)?;
            key.verify_prehash(digest, &signature)
        }),
        Curve::P521 => p521::ecdsa::VerifyingKey::from_sec1_bytes(point).and_then(|key| {
            let signature = p521::ecdsa::Signature::from_der(signature)?;
            key.verify_prehash(&as_field_element(digest), &signature)
        }),
    };
    verified.is_ok()
}

/// A digest with zeros before it, as long as a coordinate of P-521. The same number, and a number
/// is all it is to ECDSA (FIPS 186-5 §6.4.2); the curve's crate refuses octets of less than half
/// its length.
fn as_field_element(digest: &[u8]) -> Vec<u8> {
    let padding = Curve::P521.coordinate_len().saturating_sub(digest.len());
    [&vec![0; padding], digest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attest::forge::oid, authority::der::element};

    const SHA256: &str = "2.16.840.1.101.3.4.2.1";
    const SHA384: &str = "2.16.840.1.101.3.4.2.2";
    const SHA1: &str = "1.3.14.3.2.26";
    const PSS: &str = "1.2.840.113549.1.1.10";
    const MGF1: &str = "1.2.840.113549.1.1.8";

    fn algorithm(name: &str, parameters: &[u8]) -> Vec<u8> {
        element(SEQUENCE, &[&oid(name), parameters])
    }

    fn scheme(name: &str, parameters: &[u8]) -> Option<(Scheme, Hash)> {
        Algorithm::parse(&algorithm(name, parameters)).unwrap().scheme()
    }

    /// `RSASSA-PSS-params` of its four fields, each left out if it is empty.
    fn pss(hash: &[u8], mask: &[u8], salt_len: &[u8], trailer: &[u8]) -> Vec<u8> {
        let fields = [(0xa0, hash), (0xa1, mask), (0xa2, salt_len), (0xa3, trailer)];
        let fields = fields.into_iter().filter(|(_, field)| !field.is_empty());
        element(
            SEQUENCE,
            &[&fields.flat_map(|(tag, field)| element(tag, &[field])).collect::<Vec<_>>()],
        )
    }

    fn mask(hash: &[u8]) -> Vec<u8> {
        algorithm(MGF1, hash)
    }

    fn number(octets: &[u8]) -> Vec<u8> {
        element(INTEGER, &[octets])
    }

    // Goal: PSS in the one form that is in use is understood, however it spells its defaults.
    #[test]
    fn usual_pss_parameters_are_understood() {
        let plain = algorithm(SHA256, &[]);
        let null = algorithm(SHA256, &NULL);
        for parameters in [
            pss(&plain, &mask(&plain), &number(&[32]), &[]),
            pss(&null, &mask(&plain), &number(&[32]), &[]),
            pss(&plain, &mask(&null), &number(&[32]), &number(&[1])),
        ] {
            assert_eq!(scheme(PSS, &parameters), Some((Scheme::Pss, Hash::Sha256)));
        }
        let sha384 = algorithm(SHA384, &NULL);
        let parameters = pss(&sha384, &mask(&sha384), &number(&[48]), &[]);
        assert_eq!(scheme(PSS, &parameters), Some((Scheme::Pss, Hash::Sha384)));
    }

    // Goal: each way to be unusual is refused, the defaults (SHA-1) first of all.
    #[test]
    fn unusual_pss_parameters_are_refused() {
        let [sha1, sha256, sha384] = [SHA1, SHA256, SHA384].map(|name| algorithm(name, &NULL));
        let salt_len = number(&[32]);
        let other_mask = algorithm("1.2.840.113549.1.1.9", &sha256);
        for parameters in [
            vec![],
            NULL.to_vec(),
            pss(&[], &[], &[], &[]),
            pss(&sha256, &mask(&sha256), &[], &[]),
            pss(&[], &mask(&sha256), &salt_len, &[]),
            pss(&sha1, &mask(&sha1), &number(&[20]), &[]),
            pss(&sha256, &mask(&sha384), &salt_len, &[]),
            pss(&sha256, &mask(&sha1), &salt_len, &[]),
            pss(&sha256, &other_mask, &salt_len, &[]),
            pss(&sha256, &mask(&sha256), &number(&[20]), &[]),
            pss(&sha256, &mask(&sha256), &number(&[0, 32]), &[]),
            pss(&sha256, &mask(&sha256), &salt_len, &number(&[2])),
            pss(&algorithm(SHA256, &number(&[1])), &mask(&sha256), &salt_len, &[]),
        ] {
            assert_eq!(scheme(PSS, &parameters), None, "{parameters:02x?}");
        }
    }

    // Goal: the other algorithms have no parameters, but RSA's may be NULL.
    #[test]
    fn parameters_that_do_not_belong_are_refused() {
        let (rsa, ecdsa) = ("1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2");
        assert_eq!(scheme(rsa, &[]), Some((Scheme::Pkcs1, Hash::Sha256)));
        assert_eq!(scheme(rsa, &NULL), Some((Scheme::Pkcs1, Hash::Sha256)));
        assert_eq!(scheme(rsa, &number(&[1])), None);
        assert_eq!(scheme(ecdsa, &[]), Some((Scheme::Ecdsa, Hash::Sha256)));
        assert_eq!(scheme(ecdsa, &NULL), None);
        for sha1 in ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"] {
            assert_eq!(scheme(sha1, &[]), None);
            assert_eq!(scheme(sha1, &NULL), None);
        }
    }

    // Goal: an algorithm for another kind of key than the issuer's is refused by name.
    #[test]
    fn an_algorithm_has_to_fit_the_key() {
        let rsa = Key::rsa(&[0xc5; 256], 65_537).unwrap();
        let ec = crate::attest::forge::Signer::new(1).key();
        let [pkcs1, ecdsa] = ["1.2.840.113549.1.1.11", "1.2.840.10045.4.3.2"];
        for (key, name, fits) in
            [(&rsa, pkcs1, true), (&rsa, ecdsa, false), (&ec, ecdsa, true), (&ec, pkcs1, false)]
        {
            let algorithm = Algorithm::parse(&algorithm(name, &[])).unwrap();
            let error = verify(key, &algorithm, b"message", &[0x30, 0]).unwrap_err();
            let unfit = SignatureFault::Algorithm { found: ObjectIdentifier::new_unwrap(name) };
            assert_eq!(error, if fits { SignatureFault::Mismatch } else { unfit }, "{name}");
        }
    }
}
