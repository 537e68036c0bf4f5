//! The one place that draws randomness from the operating system.

use ring::rand::{SecureRandom, SystemRandom};

use crate::random::Random;

/// The operating system's cryptographic generator.
#[derive(Clone, Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The generator; it holds nothing and costs nothing.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for SystemEntropy {
    /// Ends the process when the kernel gives nothing: a guessable serial or key is worse than no
    /// service, and every supported kernel gives or blocks.
    fn fill(&mut self, bytes: &mut [u8]) {
        if self.0.fill(bytes).is_err() {
            log::error!("the operating system gives no random bytes; stopping");
            std::process::abort();
        }
    }
}
