//! What an operator decides: one TOML file, read once at start.
//!
//! A key that is not known is refused with its line and the keys that are, because a misspelt
//! setting must not be read as none. Paths are relative to the file, so that a folder can be
//! moved. Every value is checked while it is read, so that the message points at it; nothing
//! behind this room checks it again. `agent/agent.example.toml` explains each key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::Label;
use fleetcert_core::policy::{Policy, Rekey};
use fleetcert_core::time::Wall;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::transport::Address;

/// Octets of a configuration file, at most: a folder given by mistake is not read to its end.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Octets of a host name, at most (RFC 1035 §2.3.4).
const HOST_LEN_MAX: usize = 253;

/// Seconds between two signs of life to the broker, at least; less drains batteries and links.
const KEEP_ALIVE_S_MIN: u64 = 5;

/// Seconds between two signs of life to the broker, at most (MQTT 3.1.1 §3.1.2.10).
const KEEP_ALIVE_S_MAX: u64 = 65_535;

/// Seconds between two signs of life to the broker when nothing is said.
const KEEP_ALIVE_S: u16 = 60;

/// Seconds between two reports of the state, at least, unless they are off (0).
const STATE_INTERVAL_S_MIN: u64 = 10;

/// Seconds between two reports of the state, at most: a week.
const STATE_INTERVAL_S_MAX: u64 = 7 * 86_400;

/// Days a device may want to stay offline, at most: ten years.
const AVAILABILITY_TARGET_DAYS_MAX: u64 = 3_660;

const DAY_S: u64 = 86_400;
const HTTPS_PORT: u16 = 443;
const MQTTS_PORT: u16 = 8883;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of this device.
    pub device_id: DeviceId,
    /// Where the record, the keys, the lock and the control socket are. One agent each.
    pub state_dir: PathBuf,
    /// The provisioning service.
    pub provisioner: Provisioner,
    /// The broker, if this device speaks to one.
    pub mqtt: Option<Mqtt>,
    /// When and how to renew.
    #[serde(default)]
    pub renewal: Renewal,
    /// Where keys live.
    #[serde(default)]
    pub key: Key,
}

/// The provisioning service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioner {
    /// `https://host[:port]`.
    #[serde(rename = "url", deserialize_with = "https")]
    pub endpoint: Endpoint,
    /// The pinned root of the server tree, PEM.
    pub server_root: PathBuf,
    /// The EST label (RFC 7030 §3.2.2).
    #[serde(default, deserialize_with = "label")]
    pub label: Option<String>,
    /// A file with the one-time token of the first contact.
    pub token_file: Option<PathBuf>,
}

/// The broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// `mqtts://host[:port]`.
    #[serde(rename = "url", deserialize_with = "mqtts")]
    pub endpoint: Endpoint,
    /// The pinned root of the broker's certificate, PEM; the provisioner's when missing.
    pub server_root: Option<PathBuf>,
    /// Seconds between two signs of life.
    #[serde(default = "default_keep_alive_s", deserialize_with = "keep_alive_s")]
    pub keep_alive_s: u16,
    /// Seconds between two reports of the state; zero for reports at changes only.
    #[serde(default, deserialize_with = "state_interval_s")]
    pub state_interval_s: u32,
}

/// When and how to renew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Whether a renewal makes a new key.
    #[serde(default, deserialize_with = "rekey")]
    pub rekey: Rekey,
    /// The device must be able to stay offline for so many days at any time; zero for no wish.
    #[serde(default, deserialize_with = "availability_target_days")]
    pub availability_target_days: u16,
}

/// Where keys live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The kind of key store.
    #[serde(default)]
    pub backend: KeyBackend,
    /// Where the TPM is.
    #[serde(default, deserialize_with = "tpm")]
    pub tpm: Address,
    /// A file with the authorisation value of the TPM's owner hierarchy, where it has one.
    pub owner_auth_file: Option<PathBuf>,
}

/// The kind of key store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyBackend {
    /// A TPM where there is one, files otherwise; decided when the first key is made, once for
    /// the life of the state directory.
    #[default]
    Auto,
    /// Files in the state directory.
    Software,
    /// A TPM.
    Tpm,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A DNS name, or an IP address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Why a text is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointError {
    scheme: &'static str,
}

/// Why a configuration is not taken.
#[derive(Debug)]
pub enum ConfigError {
    /// A file that cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not the TOML we expect; the message shows the line.
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// More octets than a configuration can have.
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl Config {
    /// Reads and checks a file, and makes its paths absolute to the file's folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says which line of which file is wrong, and what was expected.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_limited(path)?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.into(),
            source: Box::new(source),
        })?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// The policy of the lifecycle machine.
    #[must_use]
    pub fn policy(&self, build_time: Wall) -> Policy {
        Policy {
            build_time,
            rekey: self.renewal.rekey,
            availability_target_s: u64::from(self.renewal.availability_target_days) * DAY_S,
        }
    }

    fn resolve(&mut self, folder: &Path) {
        let broker_root = self.mqtt.as_mut().and_then(|mqtt| mqtt.server_root.as_mut());
        let paths = [&mut self.state_dir, &mut self.provisioner.server_root];
        let owner_auth = self.key.owner_auth_file.as_mut();
        let optional = [self.provisioner.token_file.as_mut(), broker_root, owner_auth];
        self.key.tpm.resolve(folder);
        for path in paths.into_iter().chain(optional.into_iter().flatten()) {
            *path = folder.join(&*path);
        }
    }
}

impl KeyBackend {
    /// As it is written in a configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Software => "software",
            Self::Tpm => "tpm",
        }
    }
}

impl Mqtt {
    /// The root that the broker's certificate must lead to.
    #[must_use]
    pub fn root<'a>(&'a self, provisioner: &'a Provisioner) -> &'a Path {
        self.server_root.as_ref().unwrap_or(&provisioner.server_root)
    }
}

impl Endpoint {
    /// Reads `<scheme>://host[:port]`, with nothing behind it but perhaps a slash.
    ///
    /// # Errors
    ///
    /// [`EndpointError`] says what was expected.
    pub fn parse(url: &str, scheme: &'static str, port: u16) -> Result<Self, EndpointError> {
        let error = EndpointError { scheme };
        let rest = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let authority = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest)).ok_or(error)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(error)?;
                let port = match rest {
                    "" => Some(port),
                    _ => rest.strip_prefix(':').and_then(parse_port),
                };
                (host.parse::<std::net::Ipv6Addr>().is_ok().then_some(host), port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (is_host(host).then_some(host), parse_port(port)),
                None => (is_host(authority).then_some(authority), Some(port)),
            },
        };
        Ok(Self { host: host.ok_or(error)?.to_owned(), port: port.ok_or(error)? })
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0)
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.len() <= HOST_LEN_MAX && text.split('.').all(is_label)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme } = self;
        write!(f, "expected {scheme}://host or {scheme}://host:port, without a path")
    }
}

impl std::error::Error for EndpointError {}

fn read_limited(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(ConfigError::TooLong { path: path.into() });
    }
    Ok(text)
}

fn https<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    let url = String::deserialize(deserializer)?;
    Endpoint::parse(&url, "https", HTTPS_PORT).map_err(D::Error::custom)
}

fn mqtts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    let url = String::deserialize(deserializer)?;
    Endpoint::parse(&url, "mqtts", MQTTS_PORT).map_err(D::Error::custom)
}

fn tpm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let text = String::deserialize(deserializer)?;
    Address::parse(&text)
        .map_err(|error| D::Error::custom(format_args!("tpm is {text:?}: {error}")))
}

fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let label = String::deserialize(deserializer)?;
    match Label::parse(&label) {
        Ok(_) => Ok(Some(label)),
        Err(error) => Err(D::Error::custom(format_args!("label is {label:?}: {error}"))),
    }
}

const fn default_keep_alive_s() -> u16 {
    KEEP_ALIVE_S
}

fn keep_alive_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let found = u64::deserialize(deserializer)?;
    let checked = range::<D>("keep_alive_s", found, KEEP_ALIVE_S_MIN, KEEP_ALIVE_S_MAX)?;
    u16::try_from(checked).map_err(D::Error::custom)
}

fn state_interval_s<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let found = u64::deserialize(deserializer)?;
    if found == 0 {
        return Ok(0);
    }
    let (min, max) = (STATE_INTERVAL_S_MIN, STATE_INTERVAL_S_MAX);
    let checked = range::<D>("state_interval_s", found, min, max)?;
    u32::try_from(checked).map_err(D::Error::custom)
}

fn availability_target_days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let found = u64::deserialize(deserializer)?;
    let max = AVAILABILITY_TARGET_DAYS_MAX;
    let checked = range::<D>("availability_target_days", found, 0, max)?;
    u16::try_from(checked).map_err(D::Error::custom)
}

fn range<'de, D: Deserializer<'de>>(
    key: &str,
    found: u64,
    min: u64,
    max: u64,
) -> Result<u64, D::Error> {
    if (min..=max).contains(&found) {
        return Ok(found);
    }
    Err(D::Error::custom(format_args!("{key} is {found}, expected {min} to {max}")))
}

fn rekey<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rekey, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "always" => Ok(Rekey::Always),
        "never" => Ok(Rekey::Never),
        other => Err(D::Error::unknown_variant(other, &["always", "never"])),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => write!(f, "{} not readable: {source}", path.display()),
            Self::Syntax { path, source } => {
                write!(f, "{} is no configuration: {source}", path.display())
            }
            Self::TooLong { path } => {
                write!(f, "{} is longer than {FILE_LEN_MAX} octets", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
