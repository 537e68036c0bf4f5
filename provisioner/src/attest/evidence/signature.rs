//! Verifying what an attestation key signed, in the one scheme that the key was made for.
//!
//! Nothing is chosen by the signature: scheme and hash are the key's, and a signature that names
//! others is refused before any arithmetic.

use ecdsa::{
    Signature, SignatureSize, VerifyingKey, hazmat::VerifyPrimitive,
    signature::hazmat::PrehashVerifier as _,
};
use fleetcert_tpm::{
    hash::HashAlg,
    public::{self, HashId, Scheme},
    signature as tpm,
};
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, FieldBytesSize, PrimeCurve, PrimeField as _, Scalar,
    ff::Field as _,
    sec1::{FromEncodedPoint, ModulusSize, ToEncodedPoint},
};
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey, traits::PublicKeyParts as _};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::error::{EvidenceError, KeyFault, Number};
use crate::attest::spki::{Curve, Key, Numbers};

/// A scheme in which an attestation key may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureScheme {
    Ecdsa(HashAlg),
    RsaPss(HashAlg),
    RsaSsa(HashAlg),
}

impl SignatureScheme {
    /// The fixed scheme of a key that signs.
    pub(super) fn of(key: &public::Key<'_>) -> Result<Self, KeyFault> {
        match key.scheme() {
            Scheme::Ecdsa(hash) => strong(hash).map(Self::Ecdsa),
            Scheme::RsaPss(hash) => strong(hash).map(Self::RsaPss),
            Scheme::RsaSsa(hash) => strong(hash).map(Self::RsaSsa),
            found => Err(KeyFault::Scheme { found }),
        }
    }

    const fn hash(self) -> HashAlg {
        match self {
            Self::Ecdsa(hash) | Self::RsaPss(hash) | Self::RsaSsa(hash) => hash,
        }
    }

    /// As a public area has it.
    const fn named(self) -> Scheme {
        match self {
            Self::Ecdsa(hash) => Scheme::Ecdsa(HashId(hash.id())),
            Self::RsaPss(hash) => Scheme::RsaPss(HashId(hash.id())),
            Self::RsaSsa(hash) => Scheme::RsaSsa(HashId(hash.id())),
        }
    }
}

/// SHA-256 or stronger.
fn strong(found: HashId) -> Result<HashAlg, KeyFault> {
    found.alg().ok_or(KeyFault::Hash { found })
}

/// Verifies a `TPMT_SIGNATURE` over `message`.
pub(super) fn verify(
    key: &Key,
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> Result<(), EvidenceError> {
    let signature = tpm::Signature::parse(signature).map_err(EvidenceError::Signature)?;
    check_scheme(scheme, &signature)?;
    let hash = scheme.hash();
    let digest = digest(hash, message);
    match (key.numbers(), signature) {
        (Numbers::Ec { curve, point }, tpm::Signature::Ecdsa { r, s, .. }) => match curve {
            Curve::P256 => ecdsa::<p256::NistP256>(point, &digest, r, s),
            Curve::P384 => ecdsa::<p384::NistP384>(point, &digest, r, s),
            Curve::P521 => ecdsa::<p521::NistP521>(point, &digest, r, s),
        },
        (Numbers::Rsa { modulus, exponent }, tpm::Signature::RsaPss { signature, .. }) => {
            let key = rsa_key(modulus, *exponent)?;
            right(pss(&key, hash, &digest, signature))
        }
        (Numbers::Rsa { modulus, exponent }, tpm::Signature::RsaSsa { signature, .. }) => {
            let key = rsa_key(modulus, *exponent)?;
            right(ssa(&key, hash, &digest, signature))
        }
        // A public area in which key and scheme do not go together is none.
        _ => right(false),
    }
}

fn right(verified: bool) -> Result<(), EvidenceError> {
    if verified { Ok(()) } else { Err(EvidenceError::SignatureWrong) }
}

/// The signature says of itself that it is in the key's scheme.
fn check_scheme(
    scheme: SignatureScheme,
    signature: &tpm::Signature<'_>,
) -> Result<(), EvidenceError> {
    let (expected, found) = (scheme.named(), signature.scheme());
    if found == expected { Ok(()) } else { Err(EvidenceError::SignatureScheme { expected, found }) }
}

fn digest(hash: HashAlg, message: &[u8]) -> Vec<u8> {
    match hash {
        HashAlg::Sha256 => Sha256::digest(message).to_vec(),
        HashAlg::Sha384 => Sha384::digest(message).to_vec(),
        HashAlg::Sha512 => Sha512::digest(message).to_vec(),
    }
}

/// FIPS 186-5 §6.4.2.
#[expect(deprecated, reason = "ecdsa 0.16 states its bounds in terms of generic-array 0.14")]
fn ecdsa<C>(point: &[u8], digest: &[u8], r: &[u8], s: &[u8]) -> Result<(), EvidenceError>
where
    C: PrimeCurve + CurveArithmetic,
    AffinePoint<C>: VerifyPrimitive<C> + FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
    SignatureSize<C>: p256::elliptic_curve::generic_array::ArrayLength<u8>,
{
    let r = scalar::<C>(r).ok_or(EvidenceError::SignatureRange { number: Number::R })?;
    let s = scalar::<C>(s).ok_or(EvidenceError::SignatureRange { number: Number::S })?;
    let wrong = |_| EvidenceError::SignatureWrong;
    let key = VerifyingKey::<C>::from_sec1_bytes(point).map_err(wrong)?;
    let signature = Signature::<C>::from_scalars(r, s).map_err(wrong)?;
    key.verify_prehash(&padded::<C>(digest), &signature).map_err(wrong)
}

/// A number from 1 to the order of the curve less 1, of the curve's length.
fn scalar<C: PrimeCurve + CurveArithmetic>(number: &[u8]) -> Option<FieldBytes<C>> {
    let mut octets = FieldBytes::<C>::default();
    let start = octets.len().checked_sub(number.len())?;
    octets[start..].copy_from_slice(number);
    let scalar: Option<Scalar<C>> = Scalar::<C>::from_repr(octets.clone()).into();
    scalar.filter(|scalar| !bool::from(scalar.is_zero())).map(|_| octets)
}

/// A digest at least as long as a number of the curve. The library takes none that is shorter than
/// half of that, which SHA-256 is for P-521; as a number it is the same with zeros in front.
fn padded<C: PrimeCurve>(digest: &[u8]) -> Vec<u8> {
    let zeros = FieldBytes::<C>::default().len().saturating_sub(digest.len());
    [vec![0; zeros].as_slice(), digest].concat()
}

/// Refused if the modulus is even: then no signature is right.
fn rsa_key(modulus: &[u8], exponent: u32) -> Result<RsaPublicKey, EvidenceError> {
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), exponent.into());
    key.map_err(|_| EvidenceError::SignatureWrong)
}

/// RSASSA-PKCS1-v1_5, RFC 8017 §8.2.2.
fn ssa(key: &RsaPublicKey, hash: HashAlg, digest: &[u8], signature: &[u8]) -> bool {
    let scheme = match hash {
        HashAlg::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        HashAlg::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        HashAlg::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    };
    key.verify(scheme, digest, signature).is_ok()
}

/// RSASSA-PSS, RFC 8017 §8.1.2, with either salt that a TPM may take: the longest that fits, or one
/// as long as the digest (TPM 2.0 Part 1 §B.7).
fn pss(key: &RsaPublicKey, hash: HashAlg, digest: &[u8], signature: &[u8]) -> bool {
    let longest = key.size().saturating_sub(digest.len() + 2);
    [longest, digest.len()].into_iter().any(|salt_len| {
        let scheme = match hash {
            HashAlg::Sha256 => Pss::new_with_salt::<Sha256>(salt_len),
            HashAlg::Sha384 => Pss::new_with_salt::<Sha384>(salt_len),
            HashAlg::Sha512 => Pss::new_with_salt::<Sha512>(salt_len),
        };
        key.verify(scheme, digest, signature).is_ok()
    })
}
