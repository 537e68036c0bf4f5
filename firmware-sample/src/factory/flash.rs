//! The block where it lies: at the start of a region of flash.

use core::fmt;

use embedded_storage_async::nor_flash::ReadNorFlash;

use crate::blocking::block_on;

use super::{FACTORY_BUFFER_LEN, Factory, ParseError};

/// Why there is no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactoryError<E> {
    /// The flash cannot be read.
    Flash(E),
    /// What is there is none.
    Parse(ParseError),
}

/// Reads the configuration from the start of `flash` into `buffer`, of which it is a view.
///
/// # Errors
///
/// [`FactoryError`].
pub fn load<'b, F: ReadNorFlash>(
    flash: &mut F,
    buffer: &'b mut [u8; FACTORY_BUFFER_LEN],
) -> Result<Factory<'b>, FactoryError<F::Error>> {
    block_on(flash.read(0, buffer)).map_err(FactoryError::Flash)?;
    Factory::parse(buffer).map_err(FactoryError::Parse)
}

impl<E: fmt::Display> fmt::Display for FactoryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => error.fmt(f),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for FactoryError<E> {}
