//! RustCrypto's `p256`.

use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};

use super::{Ecdsa, POINT_LEN, SECRET_LEN, SIGNATURE_LEN, Signing};

/// RustCrypto's `p256`: for every machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl Ecdsa for Portable {
    fn is_signed(
        &self,
        point: &[u8; POINT_LEN],
        digest: &[u8; 32],
        signature: &[u8; SIGNATURE_LEN],
    ) -> bool {
        let key = VerifyingKey::from_sec1_bytes(point);
        match (key, Signature::from_slice(signature)) {
            (Ok(key), Ok(signature)) => key.verify_prehash(digest, &signature).is_ok(),
            _ => false,
        }
    }
}

impl Signing for Portable {
    fn point(&self, secret: &[u8; SECRET_LEN]) -> Option<[u8; POINT_LEN]> {
        let key = SigningKey::from_slice(secret).ok()?;
        key.verifying_key().to_encoded_point(false).as_bytes().try_into().ok()
    }

    fn sign(&self, secret: &[u8; SECRET_LEN], digest: &[u8; 32]) -> Option<[u8; SIGNATURE_LEN]> {
        let key = SigningKey::from_slice(secret).ok()?;
        let signature: Signature = key.sign_prehash(digest).ok()?;
        Some(signature.to_bytes().into())
    }
}
