//! The one thing a TPM needs of the world: somewhere to send a command, and a little time.

/// A way to a TPM.
///
/// An implementation moves bytes and nothing else: it neither looks into a command nor sends one
/// twice. What may be sent again, and when, is decided in one place, above it.
pub trait Transact {
    /// Why no response came.
    type Error: core::fmt::Debug;

    /// Sends one command and reads its whole response to the front of `response`; returns its
    /// octets. Blocks until the TPM has answered, which takes up to a minute where it makes an
    /// RSA key.
    ///
    /// # Errors
    ///
    /// Whatever keeps the response away, a response longer than `response` among it. The TPM may
    /// have carried out the command all the same.
    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, Self::Error>;

    /// Lets time pass before a command is sent again.
    fn pause_ms(&mut self, ms: u32);

    /// Fills `out` with random octets of a generator other than the TPM's own: nonces and salts of
    /// sessions come from here, so that the secrecy of a session does not hang on what somebody
    /// reads on the bus.
    ///
    /// # Errors
    ///
    /// If there are none; nothing in `out` may be used then.
    fn entropy(&mut self, out: &mut [u8]) -> Result<(), Self::Error>;
}

impl<T: Transact + ?Sized> Transact for &mut T {
    type Error = T::Error;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, Self::Error> {
        (**self).transact(command, response)
    }

    fn pause_ms(&mut self, ms: u32) {
        (**self).pause_ms(ms);
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        (**self).entropy(out)
    }
}
