//! The device key, as rustls wants to use it.

use std::fmt;
use std::sync::Arc;

use rustls::sign::{Signer as TlsSigner, SigningKey};
use rustls::{Error, OtherError, SignatureAlgorithm, SignatureScheme};

use crate::keystore::{KeyFailure, Signer};

/// The one scheme of a P-256 device key, in TLS 1.2 and 1.3.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// A key that the key store holds.
#[derive(Clone)]
pub(super) struct StoredKey(pub(super) Arc<dyn Signer>);

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKey")
    }
}

impl SigningKey for StoredKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn TlsSigner>> {
        offered.contains(&SCHEME).then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl TlsSigner for StoredKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0
            .sign(message)
            .map_err(|failure| Error::Other(OtherError(Arc::new(SigningFailed(failure)))))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// The key store did not sign; carried through rustls so that the blame stays with us.
#[derive(Debug)]
pub(crate) struct SigningFailed(pub(crate) KeyFailure);

impl fmt::Display for SigningFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key store did not sign: {}", self.0)
    }
}

impl std::error::Error for SigningFailed {}
