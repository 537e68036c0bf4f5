//! Where random bytes come from: an argument, like the time.
//!
//! Serial numbers, tokens and authority keys are drawn through [`Random`], so that a simulation
//! replays from its seed. The nonce inside an ECDSA signature is not: ring draws that itself, and
//! nothing of ours depends on its value.

/// A source of random bytes.
///
/// The implementation for production must be a cryptographic one that never returns predictable
/// bytes: one that has no entropy blocks or ends the process, because no caller here could go on.
pub trait Random {
    /// Fills `bytes`, all of them.
    fn fill(&mut self, bytes: &mut [u8]);
}
