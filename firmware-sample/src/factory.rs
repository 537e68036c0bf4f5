//! The factory's configuration: what a device must be told before it can ask anybody.
//!
//! **What it is.** One block at the start of a region of flash, written once at the factory: the
//! device's name, where its provisioner is and by which root its servers are known, how it may
//! enroll, and where its broker is. `docs/design/factory-config.md` lays it out octet by octet.
//!
//! **What it must never do.** Half believe a block. A flipped bit in the server root would be a
//! device that trusts somebody else; one in the name, another device. So the checksum is looked at
//! before anything that it covers, and each field is checked for what it must be: what is parsed is
//! as good as what [`Factory::emit`] was given.
//!
//! **Why that is sound.** Each length is compared with what is there before it is used, each field
//! has a limit, nothing may follow the last one, and a view borrows from the block: there is no
//! copy that could be another.

mod flash;

#[cfg(test)]
mod tests;

use core::fmt;

use fleetcert_core::checksum::CHECKSUM;
use fleetcert_core::device_id::{DEVICE_ID_LEN_MAX, DeviceId};
use fleetcert_core::enroll::{LABEL_LEN_MAX, Label, TOKEN_LEN_MAX, Token};
use fleetcert_core::record::CERTIFICATE_LEN_MAX;

use crate::console::show_code;

pub use self::flash::{FactoryError, load};

/// What every block begins with.
pub const MAGIC: [u8; 4] = *b"FCFC";

/// The version that is written and read here.
pub const VERSION: u8 = 1;

/// Octets of a host, at most: those of a DNS name in text (RFC 1035 §2.3.4).
pub const HOST_LEN_MAX: usize = 253;

/// Octets of a block, at most.
pub const FACTORY_LEN_MAX: usize = HEADER_LEN + CONTENT_LEN_MAX + CHECKSUM_LEN;

/// Octets of a buffer for any block, in whole words of any flash.
pub const FACTORY_BUFFER_LEN: usize = FACTORY_LEN_MAX.next_multiple_of(32);

/// Magic, version and the length of the content.
const HEADER_LEN: usize = 7;

/// Octets of the checksum behind the content.
const CHECKSUM_LEN: usize = 4;

const CONTENT_LEN_MAX: usize = 2
    + (1 + DEVICE_ID_LEN_MAX)
    + (1 + HOST_LEN_MAX + 2)
    + (1 + LABEL_LEN_MAX)
    + (2 + CERTIFICATE_LEN_MAX)
    + (1 + TOKEN_LEN_MAX)
    + (1 + HOST_LEN_MAX + 2);

/// A host and a port of it. The host is an IPv4 address in dots or a DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    host: &'a str,
    port: u16,
}

/// How the device is to behave, as far as the factory decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// It enrolls with evidence of its TPM, or not at all: a board whose TPM is broken never falls
    /// back to a key in software.
    pub attested_only: bool,
    /// It ends its life in the fleet at its next start: gives its identity up and erases its keys.
    /// For who takes a device out of service; it does not begin again by itself.
    pub decommission: bool,
    /// A renewal keeps the key. By default each identity has one of its own.
    pub keep_key: bool,
    /// It checks itself, says what it found on its serial line, and ends: for the line and the rig.
    pub self_test: bool,
}

/// The configuration of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factory<'a> {
    /// Its name.
    pub device_id: DeviceId,
    /// How it is to behave.
    pub policy: Policy,
    /// The provisioner.
    pub provisioner: Server<'a>,
    /// The policy that it asks the provisioner for, where there are several.
    pub label: Option<Label<'a>>,
    /// The certificate that every server's certificate must lead to, DER.
    pub server_root: &'a [u8],
    /// The one-time token that it enrolls with, if that is how. A secret.
    pub token: Option<Token<'a>>,
    /// The broker, if it is to speak to one.
    pub broker: Option<Server<'a>>,
}

/// A field of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Host and port of the broker.
    Broker,
    /// The name of the device.
    DeviceId,
    /// The policy asked for.
    Label,
    /// The bits of behaviour.
    Policy,
    /// Host and port of the provisioner.
    Provisioner,
    /// The server root.
    ServerRoot,
    /// The token.
    Token,
}

/// Why octets are no factory configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The checksum is another than that of the octets before it.
    Checksum {
        /// The checksum of what is there.
        computed: u32,
        /// The checksum that is there.
        found: u32,
    },
    /// A field is not what it must be.
    Content(Field),
    /// A field reaches beyond the end of the content.
    FieldLength(Field),
    /// The region has never been written.
    Erased,
    /// The content is longer than the octets that are there, or than any content may be.
    Length {
        /// The length that the block states, octets.
        found: usize,
        /// The most that it could be, octets.
        max: usize,
    },
    /// It does not begin as a block does.
    Magic {
        /// What it begins with.
        found: [u8; 4],
    },
    /// There is something between the last field and the checksum.
    Trailing {
        /// How much, octets.
        len: usize,
    },
    /// There is not even a header.
    Truncated {
        /// What is there, octets.
        found: usize,
    },
    /// A block of a version that is not known here.
    Version {
        /// The version of the block.
        found: u8,
    },
}

/// Why a configuration cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// The buffer is too small; [`FACTORY_LEN_MAX`] always suffices.
    BufferLength {
        /// Its length, octets.
        found: usize,
    },
    /// A field could not be parsed again.
    Content(Field),
}

impl<'a> Server<'a> {
    /// A server.
    ///
    /// The host is `[A-Za-z0-9-]` in labels of 1 to 63 that dots separate, [`HOST_LEN_MAX`] in all;
    /// that is what an IPv4 address is, too. `None` for any other, and for port 0.
    #[must_use]
    pub fn new(host: &'a str, port: u16) -> Option<Self> {
        let is_plain = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'-';
        let is_label = |label: &[u8]| (1..=63).contains(&label.len()) && label.iter().all(is_plain);
        let mut labels = host.as_bytes().split(|octet| *octet == b'.');
        let is_host = host.len() <= HOST_LEN_MAX && labels.all(is_label);
        (is_host && port != 0).then_some(Self { host, port })
    }

    /// Its name or address.
    #[must_use]
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Policy {
    const ATTESTED_ONLY: u16 = 1;
    const KEEP_KEY: u16 = 1 << 1;
    const SELF_TEST: u16 = 1 << 2;
    const DECOMMISSION: u16 = 1 << 3;
    const KNOWN: u16 = Self::ATTESTED_ONLY | Self::KEEP_KEY | Self::SELF_TEST | Self::DECOMMISSION;

    /// A bit that is not known here may be a promise that this firmware does not keep.
    const fn from_bits(bits: u16) -> Option<Self> {
        if bits & !Self::KNOWN != 0 {
            return None;
        }
        Some(Self {
            attested_only: bits & Self::ATTESTED_ONLY != 0,
            decommission: bits & Self::DECOMMISSION != 0,
            keep_key: bits & Self::KEEP_KEY != 0,
            self_test: bits & Self::SELF_TEST != 0,
        })
    }

    const fn bits(self) -> u16 {
        let mut bits = 0;
        if self.attested_only {
            bits |= Self::ATTESTED_ONLY;
        }
        if self.decommission {
            bits |= Self::DECOMMISSION;
        }
        if self.keep_key {
            bits |= Self::KEEP_KEY;
        }
        if self.self_test {
            bits |= Self::SELF_TEST;
        }
        bits
    }
}

/// How long the block is that begins with `header`, and that it is one.
fn block_len(header: [u8; HEADER_LEN], available: usize) -> Result<usize, ParseError> {
    let [a, b, c, d, version, low, high] = header;
    let magic = [a, b, c, d];
    match magic {
        MAGIC => {}
        [0xff, 0xff, 0xff, 0xff] => return Err(ParseError::Erased),
        found => return Err(ParseError::Magic { found }),
    }
    // Before the checksum, whose place and kind another version may choose anew.
    if version != VERSION {
        return Err(ParseError::Version { found: version });
    }
    let found = usize::from(u16::from_le_bytes([low, high]));
    let room = available.saturating_sub(HEADER_LEN + CHECKSUM_LEN);
    let max = room.min(CONTENT_LEN_MAX);
    if found > max { Err(ParseError::Length { found, max }) } else { Ok(framed(found)) }
}

const fn framed(content_len: usize) -> usize {
    HEADER_LEN + content_len + CHECKSUM_LEN
}

impl<'a> Factory<'a> {
    /// Reads the block that `octets` begin with. What follows it is not looked at: the rest of the
    /// region.
    ///
    /// # Errors
    ///
    /// [`ParseError`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = ParseError::Truncated { found: octets.len() };
        let header = octets.first_chunk().ok_or(truncated)?;
        let len = block_len(*header, octets.len())?;
        let block = octets.get(..len).ok_or(truncated)?;
        let (covered, checksum) = block.split_last_chunk().ok_or(truncated)?;
        let (found, computed) = (u32::from_le_bytes(*checksum), CHECKSUM.checksum(covered));
        if found != computed {
            return Err(ParseError::Checksum { computed, found });
        }
        Self::parse_content(covered.get(HEADER_LEN..).ok_or(truncated)?)
    }

    fn parse_content(content: &'a [u8]) -> Result<Self, ParseError> {
        let mut reader = Reader { rest: content, fault: None };
        let policy = Policy::from_bits(reader.number(Field::Policy));
        let policy = reader.required(Field::Policy, policy);
        let device_id = DeviceId::parse(reader.text(Field::DeviceId)).ok();
        let device_id = reader.required(Field::DeviceId, device_id);
        let provisioner = reader.server(Field::Provisioner);
        let provisioner = reader.required(Field::Provisioner, provisioner);
        let label = reader.optional(Field::Label, |text| Label::parse(text).ok());
        let server_root = reader.certificate();
        let token = reader.optional(Field::Token, |text| Token::parse(text).ok());
        let broker = reader.server(Field::Broker);
        let len = reader.rest.len();
        match (policy, device_id, provisioner, reader.fault) {
            (Some(policy), Some(device_id), Some(provisioner), None) if len == 0 => {
                Ok(Self { device_id, policy, provisioner, label, server_root, token, broker })
            }
            (.., fault) => Err(fault.unwrap_or(ParseError::Trailing { len })),
        }
    }

    /// Writes the block to the front of `buffer`, which may have [`FACTORY_LEN_MAX`] octets, and
    /// returns it.
    ///
    /// # Errors
    ///
    /// [`EmitError`]. What is written can be parsed.
    pub fn emit<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], EmitError> {
        if !is_certificate(self.server_root) {
            return Err(EmitError::Content(Field::ServerRoot));
        }
        let mut writer = Writer { buffer, len: 0 };
        writer.put(&MAGIC)?;
        writer.put(&[VERSION, 0, 0])?;
        writer.put(&self.policy.bits().to_le_bytes())?;
        writer.text(self.device_id.as_str(), Field::DeviceId)?;
        writer.server(Some(self.provisioner), Field::Provisioner)?;
        writer.text(self.label.map_or("", |label| label.as_str()), Field::Label)?;
        writer.long(self.server_root, Field::ServerRoot)?;
        writer.text(self.token.map_or("", |token| token.reveal()), Field::Token)?;
        writer.server(self.broker, Field::Broker)?;
        writer.seal()
    }
}

/// A SEQUENCE, of a length that a certificate may have. Whether it is one that can be an anchor is
/// found out by who verifies with it.
fn is_certificate(octets: &[u8]) -> bool {
    octets.len() <= CERTIFICATE_LEN_MAX && octets.first() == Some(&0x30)
}

/// What is left of the content, and what was wrong with it first. It goes on behind a fault, with
/// values that mean nothing: whoever has read all of it looks whether there was one.
struct Reader<'a> {
    rest: &'a [u8],
    fault: Option<ParseError>,
}

impl<'a> Reader<'a> {
    fn fail(&mut self, fault: ParseError) {
        self.fault.get_or_insert(fault);
    }

    fn take(&mut self, len: usize, field: Field) -> &'a [u8] {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            self.fail(ParseError::FieldLength(field));
            return &[];
        };
        self.rest = rest;
        taken
    }

    fn octet(&mut self, field: Field) -> u8 {
        self.take(1, field).first().copied().unwrap_or_default()
    }

    fn number(&mut self, field: Field) -> u16 {
        u16::from_le_bytes([self.octet(field), self.octet(field)])
    }

    /// One octet of length, and so much text.
    fn text(&mut self, field: Field) -> &'a str {
        let len = self.octet(field);
        let text = core::str::from_utf8(self.take(usize::from(len), field)).ok();
        self.required(field, text).unwrap_or_default()
    }

    /// A value that must be there.
    fn required<T>(&mut self, field: Field, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.fail(ParseError::Content(field));
        }
        value
    }

    /// Text that means something to `parse`; none at all is `None`.
    fn optional<T>(&mut self, field: Field, parse: impl FnOnce(&'a str) -> Option<T>) -> Option<T> {
        match self.text(field) {
            "" => None,
            text => self.required(field, parse(text)),
        }
    }

    /// A host and a port; no host and port 0 is `None`.
    #[inline(never)]
    fn server(&mut self, field: Field) -> Option<Server<'a>> {
        match (self.text(field), self.number(field)) {
            ("", 0) => None,
            (host, port) => self.required(field, Server::new(host, port)),
        }
    }

    /// Two octets of length, and so much DER.
    fn certificate(&mut self) -> &'a [u8] {
        let len = usize::from(self.number(Field::ServerRoot));
        let octets = self.take(len, Field::ServerRoot);
        if !is_certificate(octets) {
            self.fail(ParseError::Content(Field::ServerRoot));
        }
        octets
    }
}

/// What has been written.
struct Writer<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    fn put(&mut self, octets: &[u8]) -> Result<(), EmitError> {
        let full = EmitError::BufferLength { found: self.buffer.len() };
        let end = self.len.checked_add(octets.len()).ok_or(full)?;
        self.buffer.get_mut(self.len..end).ok_or(full)?.copy_from_slice(octets);
        self.len = end;
        Ok(())
    }

    fn text(&mut self, text: &str, field: Field) -> Result<(), EmitError> {
        let len = u8::try_from(text.len()).map_err(|_| EmitError::Content(field))?;
        self.put(&[len])?;
        self.put(text.as_bytes())
    }

    fn long(&mut self, octets: &[u8], field: Field) -> Result<(), EmitError> {
        let len = u16::try_from(octets.len()).map_err(|_| EmitError::Content(field))?;
        self.put(&len.to_le_bytes())?;
        self.put(octets)
    }

    fn server(&mut self, server: Option<Server<'_>>, field: Field) -> Result<(), EmitError> {
        let (host, port) = server.map_or(("", 0), |server| (server.host, server.port));
        self.text(host, field)?;
        self.put(&port.to_le_bytes())
    }

    /// Fills in the length, and adds the checksum.
    fn seal(mut self) -> Result<&'b [u8], EmitError> {
        let full = EmitError::BufferLength { found: self.buffer.len() };
        let content_len = u16::try_from(self.len - HEADER_LEN).map_err(|_| full)?;
        let place = self.buffer.get_mut(HEADER_LEN - 2..HEADER_LEN).ok_or(full)?;
        place.copy_from_slice(&content_len.to_le_bytes());
        let covered = self.buffer.get(..self.len).ok_or(full)?;
        let checksum = CHECKSUM.checksum(covered);
        self.put(&checksum.to_le_bytes())?;
        let Self { buffer, len } = self;
        buffer.get(..len).ok_or(full)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broker => "broker",
            Self::DeviceId => "device id",
            Self::Label => "label",
            Self::Policy => "policy",
            Self::Provisioner => "provisioner",
            Self::ServerRoot => "server root",
            Self::Token => "token",
        })
    }
}

impl ParseError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Checksum { .. } => "checksum",
            Self::Content(_) => "content",
            Self::Erased => "erased",
            Self::FieldLength(_) => "field-length",
            Self::Length { .. } => "length",
            Self::Magic { .. } => "magic",
            Self::Trailing { .. } => "trailing",
            Self::Truncated { .. } => "truncated",
            Self::Version { .. } => "version",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "factory", self.code())?;
        match self {
            Self::Content(field) | Self::FieldLength(field) => write!(f, " {field}"),
            _ => Ok(()),
        }
    }
}

impl core::error::Error for ParseError {}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferLength { found } => {
                write!(f, "{found} octets are too few; {FACTORY_LEN_MAX} suffice")
            }
            Self::Content(field) => write!(f, "the {field} is not what one may be"),
        }
    }
}

impl core::error::Error for EmitError {}
