//! The checksum of all that a device keeps.
//!
//! **What it is.** CRC-32 as Ethernet has it (CRC-32/ISO-HDLC): of the record, of an entry in
//! flash, and of the factory's configuration.
//!
//! **What it must never do.** Stand for a signature: it finds what time and a power cut have done,
//! and nothing that somebody did on purpose.
//!
//! **Why without a table.** Everything that is kept is read once a start; a table would take a
//! kilobyte of every device to make that a millisecond shorter.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

/// Computes checksums, four octets each.
pub const CHECKSUM: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the check value of the catalogue (CRC-32/ISO-HDLC) is ours.
    #[test]
    fn the_check_value_is_that_of_the_catalogue() {
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xcbf4_3926);
    }
}
