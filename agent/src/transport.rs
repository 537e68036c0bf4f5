//! Ways to a TPM: a character device of the kernel's, or swtpm's socket.
//!
//! **What it is.** [`Address`] says where a TPM is; [`Connect`] opens it and gives a [`Wire`], over
//! which one command goes out and one response comes back. [`Port`] is such a wire as
//! `fleetcert-tpm` wants to use it.
//!
//! **What it must never do.** Speak to a TPM over a network: a raw command carries whatever the
//! owner may do. Believe a length that was sent. Use a wire again on which a response was missed:
//! the next answer could be that of the last question.
//!
//! **Why that is sound.** An address that is not loopback is refused while the configuration is
//! read. A response has as many octets as its header says, within [`RESPONSE_LEN_MAX`]; anything
//! else is an error. Whoever gets an error drops the wire (`crate::tpm`), and opens another.

mod char_device;
mod swtpm;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetcert_core::time::Mono;
use fleetcert_tpm::transact::Transact;
use smol::block_on;

use crate::clock::{SystemClock, timer};
use crate::entropy::{Entropy, NoEntropy};

use self::char_device::CharDevice;
use self::swtpm::Swtpm;

/// Octets of a response, at most: more than any TPM sends, the kernel's own limit.
pub const RESPONSE_LEN_MAX: usize = 4096;

/// Octets of a response's head: tag, length, code (TPM 2.0 Part 1 §18.2).
const HEAD_LEN: usize = 10;

/// A usual command is answered within this: signatures take up to a second on slow chips, and the
/// kernel exchanges sessions and keys before and after each command.
pub const COMMAND_MAX: Duration = Duration::from_secs(15);

/// A command that makes a key, or tests everything, is answered within this: an RSA key takes a
/// slow chip up to a minute.
pub const MAKING_MAX: Duration = Duration::from_secs(120);

/// Codes of the commands that [`MAKING_MAX`] is for: CreatePrimary, SelfTest, Create (TPM 2.0
/// Part 2 §6.5.2).
const MAKING: [[u8; 4]; 3] = [[0, 0, 1, 0x31], [0, 0, 1, 0x43], [0, 0, 1, 0x53]];

/// Where a TPM is when nothing is said: behind the kernel's resource manager, which keeps the keys
/// and sessions of several programs apart.
const DEVICE: &str = "/dev/tpmrm0";

/// What precedes swtpm's socket.
const SWTPM: &str = "swtpm:";

/// Where a TPM is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A character device: `/dev/tpmrm0`, or `/dev/tpm0`, which one program alone can open.
    Device(PathBuf),
    /// The Unix socket on which swtpm takes commands.
    Socket(PathBuf),
    /// The TCP port on loopback on which swtpm takes commands.
    Tcp(SocketAddr),
}

/// Why a text is no address of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It is none of the forms.
    Form,
    /// It leads over a network.
    NotLoopback,
}

/// Why a command was not answered.
#[derive(Debug)]
pub enum TransportError {
    /// There is nothing at the address.
    Absent {
        /// The address.
        address: Address,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another program has it, and it can be had by one only.
    Busy {
        /// The address.
        address: Address,
    },
    /// The connection ended where a response was expected.
    Ended,
    /// The kernel or the network failed.
    Io {
        /// What was being done.
        act: &'static str,
        /// Why it was not.
        source: io::Error,
    },
    /// No response came in time.
    Late {
        /// How long it was waited for.
        limit: Duration,
    },
    /// A response's length is none that a response can have.
    Length {
        /// The octets that it claims or has.
        found: usize,
        /// The most that were expected.
        max: usize,
    },
    /// The operating system gave no random bytes.
    NoEntropy,
    /// We may not open it.
    NoPermission {
        /// The address.
        address: Address,
        /// The group to which it belongs, by name, or by number where it has none.
        group: Option<String>,
    },
}

/// A way on which one command goes out and one response comes back.
pub trait Wire: Send {
    /// Sends one command and reads its whole response to the front of `response`; gives its
    /// octets. Blocks, for no longer than until `deadline`, which is `limit` from now.
    ///
    /// # Errors
    ///
    /// [`TransportError`]; nothing may be sent on this wire afterwards.
    fn exchange(
        &mut self,
        command: &[u8],
        response: &mut [u8],
        deadline: Deadline,
    ) -> Result<usize, TransportError>;
}

/// What opens a wire.
pub trait Connect: Send {
    /// Opens a new wire.
    ///
    /// # Errors
    ///
    /// [`TransportError`].
    fn connect(&self) -> Result<Box<dyn Wire>, TransportError>;
}

/// When to give a response up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    at: Mono,
}

/// A wire, as command sequences use it.
pub struct Port {
    wire: Box<dyn Wire>,
    entropy: Entropy,
}

impl Address {
    /// Reads `/dev/…`, `swtpm:PATH` or `swtpm:ADDRESS:PORT`.
    ///
    /// # Errors
    ///
    /// [`AddressError`] says what was expected.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(rest) = text.strip_prefix(SWTPM) else {
            let is_path = text.starts_with('/');
            return if is_path { Ok(Self::Device(text.into())) } else { Err(AddressError::Form) };
        };
        match rest.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_loopback() => Err(AddressError::NotLoopback),
            Ok(address) if address.port() == 0 => Err(AddressError::Form),
            Ok(address) => Ok(Self::Tcp(address)),
            // A colon is more likely a host's than a file's.
            Err(_) if rest.is_empty() || rest.contains(':') => Err(AddressError::Form),
            Err(_) => Ok(Self::Socket(rest.into())),
        }
    }

    /// Makes a relative path one of `folder`.
    pub(crate) fn resolve(&mut self, folder: &Path) {
        if let Self::Device(path) | Self::Socket(path) = self {
            *path = folder.join(&*path);
        }
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Device(DEVICE.into())
    }
}

impl Connect for Address {
    fn connect(&self) -> Result<Box<dyn Wire>, TransportError> {
        Ok(match self {
            Self::Device(path) => Box::new(CharDevice::open(path)?),
            Self::Socket(_) | Self::Tcp(_) => Box::new(Swtpm::connect(self)?),
        })
    }
}

impl Deadline {
    /// The deadline of something that begins now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self { limit, at: SystemClock.mono().plus_ms(ms) }
    }

    /// What is left of it.
    ///
    /// # Errors
    ///
    /// [`TransportError::Late`] if nothing is.
    pub fn rest(self) -> Result<Duration, TransportError> {
        match self.at.ms_since(SystemClock.mono()) {
            0 => Err(self.missed()),
            ms => Ok(Duration::from_millis(ms)),
        }
    }

    /// The error of what was not done in time.
    #[must_use]
    pub const fn missed(self) -> TransportError {
        TransportError::Late { limit: self.limit }
    }
}

impl Port {
    /// A port over an open wire.
    #[must_use]
    pub fn new(wire: Box<dyn Wire>, entropy: Entropy) -> Self {
        Self { wire, entropy }
    }
}

impl Transact for Port {
    type Error = TransportError;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, TransportError> {
        self.wire.exchange(command, response, Deadline::after(limit(command)))
    }

    fn pause_ms(&mut self, ms: u32) {
        // The thread that owns the TPM has nothing else to do.
        block_on(timer(Duration::from_millis(ms.into())));
    }

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), TransportError> {
        self.entropy.fill(out).map_err(|NoEntropy| TransportError::NoEntropy)
    }
}

/// How long a command may take.
fn limit(command: &[u8]) -> Duration {
    let code = command.get(6..HEAD_LEN);
    let makes = code.is_some_and(|code| MAKING.iter().any(|making| making == code));
    if makes { MAKING_MAX } else { COMMAND_MAX }
}

/// The octets that a response has, as its head says, if it can be.
fn announced(head: [u8; HEAD_LEN]) -> Result<usize, TransportError> {
    let [_, _, a, b, c, d, ..] = head;
    let found = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let length = TransportError::Length { found, max: RESPONSE_LEN_MAX };
    if (HEAD_LEN..=RESPONSE_LEN_MAX).contains(&found) { Ok(found) } else { Err(length) }
}

/// What the kernel's refusal to open an address means.
fn refused(address: Address, source: io::Error) -> TransportError {
    use io::ErrorKind as Kind;
    match source.kind() {
        Kind::PermissionDenied => {
            let group = group(&address);
            TransportError::NoPermission { address, group }
        }
        Kind::ResourceBusy => TransportError::Busy { address },
        Kind::ConnectionRefused | Kind::NotFound | Kind::NotADirectory => {
            TransportError::Absent { address, source }
        }
        // A device node whose driver is gone.
        _ if matches!(source.raw_os_error(), Some(libc::ENXIO | libc::ENODEV)) => {
            TransportError::Absent { address, source }
        }
        _ => TransportError::Io { act: "open", source },
    }
}

/// The group that may open a device or socket.
fn group(address: &Address) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let (Address::Device(path) | Address::Socket(path)) = address else { return None };
    let id = std::fs::metadata(path).ok()?.gid().to_string();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    Some(name.unwrap_or(id))
}

impl TransportError {
    fn of(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, source }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => path.display().fmt(f),
            Self::Socket(path) => write!(f, "{SWTPM}{}", path.display()),
            Self::Tcp(address) => write!(f, "{SWTPM}{address}"),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "expected a device such as /dev/tpmrm0, or swtpm:PATH, or swtpm:127.0.0.1:PORT"
            }
            Self::NotLoopback => "expected an address on loopback: a TPM does not leave its device",
        })
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { address, source } => write!(f, "no TPM at {address}: {source}"),
            Self::Busy { address } => write!(f, "{address} is open in another program"),
            Self::Ended => f.write_str("the TPM's connection ended before its response"),
            Self::Io { act, source } => write!(f, "cannot {act}: {source}"),
            Self::Late { limit } => {
                write!(f, "no response from the TPM within {} ms", limit.as_millis())
            }
            Self::Length { found, max } => {
                write!(f, "response of {found} octets, expected {HEAD_LEN} to {max}")
            }
            Self::NoEntropy => NoEntropy.fmt(f),
            Self::NoPermission { address, group: Some(group) } => {
                write!(f, "no permission to open {address}, which belongs to group {group}")
            }
            Self::NoPermission { address, group: None } => {
                write!(f, "no permission to open {address}")
            }
        }
    }
}

impl std::error::Error for AddressError {}

impl std::error::Error for TransportError {}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: each form is read, is written back the same, and nothing else passes for one.
    #[test]
    fn addresses_are_devices_and_sockets_on_this_machine() {
        for text in [
            "/dev/tpmrm0",
            "/dev/tpm0",
            "swtpm:/run/swtpm.sock",
            "swtpm:run/swtpm.sock",
            "swtpm:127.0.0.1:2321",
            "swtpm:[::1]:2321",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "tpmrm0", "swtpm:", "swtpm:localhost:2321", "swtpm:127.0.0.1:0", "tcp:"] {
            assert_eq!(Address::parse(text), Err(AddressError::Form), "{text}");
        }
        for text in ["swtpm:192.0.2.1:2321", "swtpm:0.0.0.0:2321", "swtpm:[::]:1"] {
            assert_eq!(Address::parse(text), Err(AddressError::NotLoopback), "{text}");
        }
        assert_eq!(Address::default().to_string(), "/dev/tpmrm0");
    }

    // Goal: commands that make keys have the time for it, and no other has.
    #[test]
    fn the_limit_is_that_of_the_command() {
        let command = |code: u8| [0x80, 1, 0, 0, 0, 10, 0, 0, 1, code];
        for code in [0x31, 0x43, 0x53] {
            assert_eq!(limit(&command(code)), MAKING_MAX);
        }
        assert_eq!(limit(&command(0x5d)), COMMAND_MAX);
        assert_eq!(limit(&[]), COMMAND_MAX);
    }

    // Goal: no length outside of what a response can have is believed.
    #[test]
    fn announced_lengths_are_checked() {
        let head = |len: u32| {
            let [a, b, c, d] = len.to_be_bytes();
            [0x80, 1, a, b, c, d, 0, 0, 0, 0]
        };
        for len in [10, 4096] {
            assert_eq!(announced(head(len)).unwrap(), usize::try_from(len).unwrap());
        }
        for len in [0, 9, 4097, u32::MAX] {
            let error = announced(head(len)).unwrap_err();
            assert!(matches!(error, TransportError::Length { max: 4096, .. }), "{error}");
        }
    }

    // Goal: what is not there, and what is not ours, is told apart, with what a person needs.
    #[test]
    fn a_refusal_to_open_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Address::Device(folder.path().join("tpmrm0"));
        let error = missing.connect().err().unwrap();
        assert!(matches!(error, TransportError::Absent { .. }), "{error}");
        assert!(error.to_string().contains("tpmrm0"), "{error}");

        let file = folder.path().join("closed");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, None, None).unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = refused(Address::Device(file), denied);
        let TransportError::NoPermission { group: Some(group), .. } = &error else {
            panic!("{error}");
        };
        assert!(error.to_string().ends_with(&format!("closed, which belongs to group {group}")));
        for errno in [libc::ENODEV, libc::ENXIO] {
            let gone = refused(Address::default(), io::Error::from_raw_os_error(errno));
            assert!(matches!(gone, TransportError::Absent { .. }), "{gone}");
        }
        let busy = refused(Address::default(), io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!(busy.to_string(), "/dev/tpmrm0 is open in another program");
    }
}
