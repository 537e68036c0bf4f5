//! The one place that draws randomness from the operating system.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

/// The operating system's cryptographic generator; cheap to clone.
#[derive(Clone, Debug)]
pub struct Entropy(SystemRandom);

/// The operating system gave no random bytes: nothing secret may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl Entropy {
    /// The generator of this machine.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
    pub fn system() -> Self {
        Self(SystemRandom::new())
    }

    /// Fresh random octets.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] when the kernel gives none.
    pub fn octets<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        let mut octets = [0; N];
        self.fill(&mut octets)?;
        Ok(octets)
    }

    /// Fills `out` with fresh random octets.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] when the kernel gives none.
    pub fn fill(&self, out: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(out).map_err(|_| NoEntropy)
    }

    pub(crate) const fn generator(&self) -> &SystemRandom {
        &self.0
    }
}

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gives no random bytes")
    }
}

impl std::error::Error for NoEntropy {}
