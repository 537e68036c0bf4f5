//! How many signatures a peer can have us verify.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls_pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};

use crate::ecdsa::{Ecdsa, is_signed, point};

/// The algorithm as webpki wants it, which stops when its budget is used up: each verification
/// costs millions of instructions, and a peer chooses how many there could be.
#[derive(Debug)]
pub(super) struct Budgeted<'e, E> {
    ecdsa: &'e E,
    left: AtomicUsize,
    is_overdrawn: AtomicBool,
}

impl<'e, E: Ecdsa> Budgeted<'e, E> {
    pub(super) const fn new(ecdsa: &'e E, signatures: usize) -> Self {
        let is_overdrawn = AtomicBool::new(false);
        Self { ecdsa, left: AtomicUsize::new(signatures), is_overdrawn }
    }

    /// Whether more was asked for than there was.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.is_overdrawn.load(Ordering::Relaxed)
    }

    fn spend(&self) -> bool {
        // One thread: no other can come between.
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 0 {
            self.is_overdrawn.store(true, Ordering::Relaxed);
        }
        left > 0
    }
}

impl<E: Ecdsa> SignatureVerificationAlgorithm for Budgeted<'_, E> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let point = point(public_key).ok_or(InvalidSignature)?;
        let is_good = self.spend() && is_signed(self.ecdsa, &point, message, signature);
        if is_good { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_SHA256
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;
    use p256::ecdsa::{Signature, SigningKey};

    use super::*;
    use crate::ecdsa::Portable;

    #[test]
    fn a_budget_is_spent_and_then_says_so() {
        const MESSAGE: &[u8] = b"a message";
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: Signature = key.sign(MESSAGE);
        let signature = signature.to_der();
        let (point, signature) =
            (key.verifying_key().to_encoded_point(false), signature.as_bytes());
        let point = point.as_bytes();
        let budget = Budgeted::new(&Portable, 2);
        for _ in 0..2 {
            budget.verify_signature(point, MESSAGE, signature).unwrap();
        }
        assert!(!budget.is_overdrawn());
        budget.verify_signature(point, MESSAGE, signature).unwrap_err();
        assert!(budget.is_overdrawn());
    }
}
