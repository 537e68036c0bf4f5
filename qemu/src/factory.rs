//! The factory's configuration of a board, as the factory writes it into flash.
//!
//! **What it is.** `docs/design/factory-config.md`, from the writer's side.
//!
//! **What it must never do.** Judge: the board does that, and a rig that refuses to write what a
//! board refuses to read could not show that it does. Only what has no form at all is an error.
//!
//! **Why there is a second writer.** The firmware has its own, for its tests. The rig links none of
//! our crates, and the page is meant to suffice for writing a tool; that both write the same
//! octets is tested (`tests/tests/firmware_life.rs`).

use std::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::error::RigError;

/// What every block begins with.
const MAGIC: &[u8] = b"FCFC";

/// The version that is written here.
const VERSION: u8 = 1;

/// The device enrolls with evidence of its TPM or not at all.
const ATTESTED_ONLY: u16 = 1;

/// The device ends its life in the fleet at its next start.
const DECOMMISSION: u16 = 1 << 3;

/// CRC-32/ISO-HDLC.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// What a device is told at the factory.
#[derive(Clone, PartialEq, Eq)]
pub struct Factory {
    /// Its name.
    pub device_id: String,
    /// Whether it enrolls with evidence of its TPM or not at all.
    pub attested_only: bool,
    /// Whether it ends its life in the fleet at its next start, for good.
    pub decommission: bool,
    /// Host and port of the provisioner.
    pub provisioner: (String, u16),
    /// The certificate that servers' certificates must lead to, DER.
    pub server_root: Vec<u8>,
    /// The one-time token of its first contact, if that is how. A secret.
    pub token: Option<String>,
    /// Host and port of the broker.
    pub broker: Option<(String, u16)>,
}

impl Factory {
    /// The block, octet by octet.
    ///
    /// # Errors
    ///
    /// [`RigError::Answer`] names a field that is longer than its length can say.
    pub fn block(&self) -> Result<Vec<u8>, RigError> {
        let bits = [(self.attested_only, ATTESTED_ONLY), (self.decommission, DECOMMISSION)];
        let policy = bits.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit);
        let (broker, broker_port) =
            self.broker.as_ref().map_or(("", 0), |(host, port)| (host.as_str(), *port));
        let mut content = policy.to_le_bytes().to_vec();
        text(&mut content, "device id", &self.device_id)?;
        text(&mut content, "provisioner", &self.provisioner.0)?;
        content.extend(self.provisioner.1.to_le_bytes());
        text(&mut content, "label", "")?;
        content.extend(length::<u16>("server root", self.server_root.len())?.to_le_bytes());
        content.extend(&self.server_root);
        text(&mut content, "token", self.token.as_deref().unwrap_or_default())?;
        text(&mut content, "broker", broker)?;
        content.extend(broker_port.to_le_bytes());

        let mut block = [MAGIC, &[VERSION]].concat();
        block.extend(length::<u16>("content", content.len())?.to_le_bytes());
        block.extend(content);
        block.extend(CHECKSUM.checksum(&block).to_le_bytes());
        Ok(block)
    }
}

/// One octet of length, and the text.
fn text(content: &mut Vec<u8>, field: &str, text: &str) -> Result<(), RigError> {
    content.push(length::<u8>(field, text.len())?);
    content.extend(text.as_bytes());
    Ok(())
}

fn length<T: TryFrom<usize>>(field: &str, len: usize) -> Result<T, RigError> {
    T::try_from(len).map_err(|_| RigError::Answer {
        from: "the factory's configuration",
        found: format!("{field} of {len} octets"),
        expected: "a length that fits its field",
    })
}

impl fmt::Debug for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Factory").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factory() -> Factory {
        Factory {
            device_id: "d1".to_owned(),
            attested_only: true,
            decommission: false,
            provisioner: ("10.0.2.2".to_owned(), 0x1234),
            server_root: vec![0x30, 0],
            token: None,
            broker: None,
        }
    }

    /// Goal: a block is what the page says, octet by octet; its checksum is that of zlib's crc32.
    #[test]
    fn a_block_is_as_documented() {
        let expected = b"FCFC\x01\x19\0\x01\0\x02d1\x0810.0.2.2\x34\x12\0\x02\0\x30\0\0\0\0\0";
        let block = factory().block().unwrap();
        let (content, checksum) = block.split_at(block.len() - 4);
        assert_eq!(content, expected);
        assert_eq!(checksum, [0x6b, 0x0f, 0xc8, 0x6c]);
    }

    /// Goal: token and broker have their places, and a secret is not shown.
    #[test]
    fn token_and_broker_have_their_places() {
        let full = Factory {
            attested_only: false,
            decommission: true,
            token: Some("s3cret".to_owned()),
            broker: Some(("b".to_owned(), 1)),
            ..factory()
        };
        let block = full.block().unwrap();
        assert_eq!(block[7..9], [8, 0]);
        assert!(block[..block.len() - 4].ends_with(b"\x06s3cret\x01b\x01\0"));
        assert!(!format!("{full:?}").contains("s3cret"));
    }

    /// Goal: what its length cannot say is an error, not another block.
    #[test]
    fn a_field_that_is_too_long_is_named() {
        let long = Factory { device_id: "d".repeat(256), ..factory() };
        assert!(long.block().unwrap_err().to_string().contains("device id of 256 octets"));
    }
}
