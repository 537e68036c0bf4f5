//! Credentials: secrets that one TPM gives out, and only while it holds one attestation key.
//!
//! **What it is.** `MakeCredential` for an endorsement key of RSA-2048, RSA-3072, RSA-4096, P-256,
//! P-384 or P-521, whatever algorithm names it. A fresh seed goes to the endorsement key by
//! public-key arithmetic; what the seed does with the secret is
//! [`fleetcert_tpm::credential::wrap`].
//!
//! **What it must never do.** Take the endorsement key from a message because it is there: who
//! calls has compared its [`EkId`](super::EkId) with a certificate's or an allow-list's. Nor use a
//! seed or an ephemeral key twice: both are drawn here, each time.
//!
//! **Why that is sound.** The TPM opens a credential for an object of exactly the Name that it was
//! made for, and the Name was computed from the public area that was judged. So whoever has the
//! secret has a TPM that holds both keys. The arithmetic uses public keys and ephemeral ones, so
//! the advisory about the timing of `rsa` with private keys (RUSTSEC-2023-0071) is not about it.

use std::fmt;

use fleetcert_tpm::{
    credential::wrap,
    hash::{DIGEST_LEN_MAX, HashAlg},
    kdf::{Label, kdf_e},
    name::Name,
};
use p256::elliptic_curve::{
    AffinePoint, CurveArithmetic, FieldBytes, FieldBytesSize, PublicKey, SecretKey,
    ecdh::diffie_hellman,
    sec1::{Coordinates, FromEncodedPoint, ModulusSize, ToEncodedPoint},
};
use rsa::{
    BigUint, Oaep, RsaPublicKey,
    rand_core::{self, CryptoRng, RngCore},
};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::{
    evidence::EndorsementKey,
    spki::{Curve, Numbers},
};
use crate::random::Random;

/// The label under which a seed is encrypted to an RSA key, with the NUL that ends it. TPM 2.0
/// Part 1 §24.3 and §B.10.3.
const LABEL: &str = "IDENTITY\0";

/// How often an ephemeral key is drawn before the source of randomness is given up: no curve
/// refuses more than one of about 2³² draws.
const DRAWS_MAX: usize = 8;

/// What `TPM2_ActivateCredential` opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The content of a `TPM2B_ID_OBJECT`.
    pub blob: Vec<u8>,
    /// The content of a `TPM2B_ENCRYPTED_SECRET`.
    pub encrypted_secret: Vec<u8>,
}

/// Why no credential can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// The endorsement key's numbers are not those of a key.
    Key,
    /// The source of randomness gave nothing that is usable.
    Randomness,
}

/// A seed, and how it gets to the endorsement key.
struct Seed {
    octets: Zeroizing<[u8; DIGEST_LEN_MAX]>,
    encrypted: Vec<u8>,
}

/// Makes a credential that gives `secret` to the TPM with that endorsement key, for the object of
/// that Name. TPM 2.0 Part 1 §24, Part 3 §12.6.
///
/// # Errors
///
/// [`CredentialError`].
#[doc(alias = "MakeCredential")]
pub fn make(
    ek: &EndorsementKey,
    ak_name: &Name,
    secret: &[u8; 32],
    random: &mut dyn Random,
) -> Result<Credential, CredentialError> {
    let hash = ek.name_alg();
    let seed = match ek.key().numbers() {
        Numbers::Rsa { modulus, exponent } => rsa_seed(modulus, *exponent, hash, random),
        Numbers::Ec { curve: Curve::P256, point } => {
            ecc_seed::<p256::NistP256>(point, 0xff, hash, random)
        }
        Numbers::Ec { curve: Curve::P384, point } => {
            ecc_seed::<p384::NistP384>(point, 0xff, hash, random)
        }
        Numbers::Ec { curve: Curve::P521, point } => {
            ecc_seed::<p521::NistP521>(point, 0x01, hash, random)
        }
    }?;
    let wrapped = wrap(hash, &seed.octets[..hash.digest_len()], ek.aes(), ak_name, secret);
    let blob = wrapped.map_err(|_| CredentialError::Key)?.as_bytes().to_vec();
    Ok(Credential { blob, encrypted_secret: seed.encrypted })
}

/// A random seed, encrypted with OAEP. TPM 2.0 Part 1 §B.10.3 and §B.4.
fn rsa_seed(
    modulus: &[u8],
    exponent: u32,
    hash: HashAlg,
    random: &mut dyn Random,
) -> Result<Seed, CredentialError> {
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), exponent.into());
    let key = key.map_err(|_| CredentialError::Key)?;
    let mut octets = Zeroizing::new([0; DIGEST_LEN_MAX]);
    let seed = &mut octets[..hash.digest_len()];
    random.fill(seed);
    let padding = match hash {
        HashAlg::Sha256 => Oaep::new_with_label::<Sha256, _>(LABEL),
        HashAlg::Sha384 => Oaep::new_with_label::<Sha384, _>(LABEL),
        HashAlg::Sha512 => Oaep::new_with_label::<Sha512, _>(LABEL),
    };
    let encrypted = key.encrypt(&mut Source(random), padding, seed);
    Ok(Seed { encrypted: encrypted.map_err(|_| CredentialError::Key)?, octets })
}

/// A seed agreed on with an ephemeral key, whose public half is what travels. TPM 2.0 Part 1
/// §C.6.3. `mask` clears what the first octet of a number of the curve never has.
fn ecc_seed<C>(
    point: &[u8],
    mask: u8,
    hash: HashAlg,
    random: &mut dyn Random,
) -> Result<Seed, CredentialError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let ek = PublicKey::<C>::from_sec1_bytes(point).map_err(|_| CredentialError::Key)?;
    let ephemeral = ephemeral::<C>(mask, random)?;
    let shared = diffie_hellman::<C>(ephemeral.to_nonzero_scalar(), ek.as_affine());
    let (public, ek) = (coordinates(&ephemeral.public_key())?, coordinates(&ek)?);
    let mut octets = Zeroizing::new([0; DIGEST_LEN_MAX]);
    let seed = &mut octets[..hash.digest_len()];
    kdf_e(hash, shared.raw_secret_bytes(), Label::Identity, &public.0, &ek.0, seed);
    Ok(Seed { octets, encrypted: [sized(&public.0), sized(&public.1)].concat() })
}

fn ephemeral<C: CurveArithmetic>(
    mask: u8,
    random: &mut dyn Random,
) -> Result<SecretKey<C>, CredentialError> {
    let mut octets = Zeroizing::new(FieldBytes::<C>::default().to_vec());
    for _ in 0..DRAWS_MAX {
        random.fill(&mut octets);
        octets[0] &= mask;
        if let Ok(key) = SecretKey::from_slice(&octets) {
            return Ok(key);
        }
    }
    Err(CredentialError::Randomness)
}

/// The coordinates of a point, each of the full length of its curve.
fn coordinates<C>(key: &PublicKey<C>) -> Result<(Vec<u8>, Vec<u8>), CredentialError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromEncodedPoint<C> + ToEncodedPoint<C>,
    FieldBytesSize<C>: ModulusSize,
{
    match key.to_encoded_point(false).coordinates() {
        Coordinates::Uncompressed { x, y } => Ok((x.to_vec(), y.to_vec())),
        _ => Err(CredentialError::Key),
    }
}

/// A `TPM2B` of at most one coordinate.
fn sized(octets: &[u8]) -> Vec<u8> {
    [&(octets.len() as u16).to_be_bytes()[..], octets].concat()
}

/// The injected randomness, as the library takes it.
pub(super) struct Source<'a>(pub(super) &'a mut dyn Random);

impl RngCore for Source<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, octets: &mut [u8]) {
        self.0.fill(octets);
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(octets);
        Ok(())
    }
}

/// [`Random`] promises it.
impl CryptoRng for Source<'_> {}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "the endorsement key's numbers are not those of a key",
            Self::Randomness => "the source of randomness gives nothing that is usable",
        })
    }
}

impl std::error::Error for CredentialError {}

#[cfg(test)]
mod tests;
