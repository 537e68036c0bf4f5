//! Certificates as a device must read them: RFC 5280 in DER, over a slice.
//!
//! **What it is.** A [`Certificate`] is a view of one certificate: where its parts begin and end,
//! and the few of them that a device acts on. It is read once, by [`Certificate::parse`], and
//! whatever an accessor returns was checked there.
//!
//! **What it must never do.** Trust: no signature is verified here and no path is built; that is
//! the affair of the TLS stack. Nor may it panic, whatever the bytes.
//!
//! **Why that is sound.** Every length is read by the [`reader`], which knows the end of its input
//! and refuses what is not canonical; nothing here indexes. An element that RFC 5280 wants
//! non-empty (`SIZE (1..MAX)`) and that is empty is refused, not skipped.

mod certificate;
mod extension;
pub mod reader;
mod writer;

use self::reader::{Reader, Tag};

pub use self::certificate::{
    CERTIFICATE_LEN_MAX, Certificate, CertificateError, CommonNameError, Part, RENEWAL_ID_LEN_MAX,
    RenewalIdError, renewal_id,
};
pub use self::extension::{GeneralNames, Purpose};
pub(crate) use self::writer::{TooSmall, Writer, lay_out};

/// The content of the element with this tag that `bytes` consists of.
pub(crate) fn only(bytes: &[u8], tag: Tag) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    let content = reader.content(tag)?;
    reader.is_finished().then_some(content)
}

/// The elements inside the element with this tag that `bytes` consists of.
pub(crate) fn inside(bytes: &[u8], tag: Tag) -> Option<Reader<'_>> {
    only(bytes, tag).map(Reader::new)
}

/// DER for tests, of any shape.
#[cfg(test)]
pub(crate) mod testing {
    use std::vec::Vec;

    /// An element with a header in its shortest form.
    pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        let mut out = match len {
            [0, short @ 0..=127] => Vec::from([tag, short]),
            [0, long] => Vec::from([tag, 0x81, long]),
            [high, low] => Vec::from([tag, 0x82, high, low]),
        };
        out.extend_from_slice(content);
        out
    }
}
