//! Why a command did not do what was asked, and the exit code that says so.

use std::{fmt, io, net::SocketAddr, path::PathBuf};

use fleetcert_core::device_id::DeviceId;

use crate::{
    attest::{allow::AllowError, root::RootsError},
    authority::{
        AuthorityError, IssueError, PublicKeyError, profile::ProfileNameError, tree::TreeError,
    },
    enroll::{ImportError, ServiceError},
    files::FileError,
    installation::InstallationError,
    store::StoreError,
    tls::TlsError,
};

/// The command failed.
const FAILURE: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// The domain refused.
const REFUSED: u8 = 5;
/// Try again later.
const AGAIN: u8 = 75;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A new authority cannot be used.
    Authority(AuthorityError),
    /// A number on the command line is out of bounds.
    Bounds {
        /// The argument.
        argument: &'static str,
        /// What was found.
        found: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// The device is not in the inventory.
    DeviceUnknown(DeviceId),
    /// A file.
    File(FileError),
    /// The installation cannot be opened.
    Installation(InstallationError),
    /// A key could not be made.
    Key(rcgen::Error),
    /// A list of endorsement keys that cannot be read.
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<AllowError>,
    },
    /// A line of a list that contradicts what is known.
    ListLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What it contradicts.
        error: Box<ImportError>,
    },
    /// The socket.
    Listen {
        /// Where to listen.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A name that could not stand in a certificate.
    Name(ProfileNameError),
    /// A path that the broker's configuration could not hold.
    PathText(PathBuf),
    /// A new public key cannot be certified.
    PublicKey(PublicKeyError),
    /// A file or folder of roots.
    Roots(RootsError),
    /// The domain did not do it.
    Service(ServiceError),
    /// Signals cannot be waited for.
    Signals(io::Error),
    /// The database.
    Store(StoreError),
    /// Certificates or key for TLS.
    Tls(TlsError),
    /// A certificate tree could not be made.
    Tree(TreeError),
    /// There is no such user on this machine.
    UserUnknown(String),
}

impl Failure {
    /// What a script is told.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Store(StoreError::Busy)
            | Self::Service(ServiceError::Store(StoreError::Busy))
            | Self::Installation(InstallationError::Store(StoreError::Busy)) => AGAIN,
            Self::Service(ServiceError::Refused(_)) => REFUSED,
            Self::Bounds { .. }
            | Self::Name(_)
            | Self::Service(ServiceError::ReservedName(_))
            | Self::UserUnknown(_) => USAGE,
            _ => FAILURE,
        }
    }

    /// What to do about it, where that is not plain.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::DeviceUnknown(_) | Self::Service(ServiceError::UnknownDevice(_)) => {
                Some("`device list` shows the devices, `device add` enters one")
            }
            Self::File(error) if error.source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Some("name a folder that is new or empty: nothing is ever overwritten")
            }
            Self::Installation(InstallationError::Config(_)) => {
                Some("`init` makes a configuration, --config names one")
            }
            Self::Service(ServiceError::UnknownRoot(_)) => {
                Some("`attest ek-roots list` shows the roots")
            }
            Self::Service(ServiceError::UnknownGroup(_)) => {
                Some("groups are the [groups.<name>] of the configuration file")
            }
            Self::Store(StoreError::Busy)
            | Self::Service(ServiceError::Store(StoreError::Busy)) => Some("try again"),
            _ => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(error) => write!(f, "the new authority is not usable: {error}")?,
            Self::Bounds { argument, found, min, max } => {
                write!(f, "{argument} is {found}, expected {min} to {max}")?;
            }
            Self::DeviceUnknown(id) => write!(f, "there is no device {id}")?,
            Self::File(error) => error.fmt(f)?,
            Self::Installation(error) => error.fmt(f)?,
            Self::Key(error) => write!(f, "no key could be made: {error}")?,
            Self::List { path, error } => {
                write!(f, "{}: {error}; nothing was imported", path.display())?;
            }
            Self::ListLine { path, line, error } => {
                write!(f, "{}: line {line}: {error}; nothing was imported", path.display())?;
            }
            Self::Listen { address, source } => write!(f, "not listening on {address}: {source}")?,
            Self::Name(error) => error.fmt(f)?,
            Self::PathText(path) => write!(
                f,
                "{} cannot stand in a mosquitto configuration, expected UTF-8 without line breaks",
                path.display()
            )?,
            Self::PublicKey(error) => error.fmt(f)?,
            Self::Roots(error) => write!(f, "{error}; no root was added")?,
            Self::Service(error) => error.fmt(f)?,
            Self::Signals(error) => write!(f, "signals cannot be waited for: {error}")?,
            Self::Store(error) => error.fmt(f)?,
            Self::Tls(error) => error.fmt(f)?,
            Self::Tree(error) => write!(f, "the certificate tree was not made: {error}")?,
            Self::UserUnknown(name) => write!(f, "there is no user {name:?} in /etc/passwd")?,
        }
        self.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

macro_rules! from {
    ($($variant:ident($source:ty)),+ $(,)?) => {
        $(impl From<$source> for Failure {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

from!(
    Authority(AuthorityError),
    File(FileError),
    Installation(InstallationError),
    Key(rcgen::Error),
    Name(ProfileNameError),
    PublicKey(PublicKeyError),
    Roots(RootsError),
    Service(ServiceError),
    Store(StoreError),
    Tls(TlsError),
    Tree(TreeError),
);

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::Installation(error.into())
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        Self::Service(ServiceError::Issue(error))
    }
}
