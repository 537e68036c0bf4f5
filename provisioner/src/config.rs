//! What an operator decides: one TOML file, read once at start.
//!
//! A key that is not known is refused, because a misspelt policy must not be read as none. Paths
//! are relative to the file, so that the folder can be moved. Every number has bounds that are
//! checked here; nothing behind this room checks them again. `docs/runbooks/provisioner.md` shows
//! a whole file with each key explained.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Octets of a configuration file, at most: a folder given by mistake is not read to its end.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Seconds of a certificate's life, at least: less is over before it has been fetched.
pub const LIFETIME_S_MIN: u64 = 10;

/// Seconds of a certificate's life, at most: ten years.
pub const LIFETIME_S_MAX: u64 = 10 * 365 * 86_400;

/// Seconds by which `notBefore` lies in the past when nothing is said: devices' clocks are slow.
pub const BACKDATE_S: u64 = 300;

/// The part of a lifetime that may lie in the past when it begins: a twentieth. A certificate of
/// 20 seconds is backdated by one.
const BACKDATE_PART: u64 = 20;

/// Connections served at once when nothing is said. Each may hold a request of 64 KiB.
pub const CONNECTIONS_MAX: usize = 256;

/// Connections served at once, at most, whatever is said.
const CONNECTIONS_LIMIT: usize = 16_384;

/// Devices that may wait for an operator when nothing is said: more than a person looks through,
/// and 2 MiB of database that strangers can fill.
pub const PENDING_MAX: u32 = 4_096;

/// Devices that may wait for an operator, at most, whatever is said.
const PENDING_LIMIT: u64 = 1_000_000;

/// Threads that serve connections when nothing is said.
pub const THREADS: usize = 2;

/// Threads that serve connections, at most.
const THREADS_LIMIT: usize = 64;

/// Seconds between two recoveries of one device when nothing is said.
pub const RECOVERY_INTERVAL_S: u64 = 600;

/// Seconds after which a device that waits for approval asks again when nothing is said.
pub const RETRY_AFTER_S: u32 = 60;

/// Seconds that such a device may be told to wait, at most: an hour. Its operator is waiting too.
const RETRY_AFTER_S_MAX: u64 = 3_600;

/// The group of a device of which nothing is said.
pub const DEFAULT_GROUP: &str = "default";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How devices reach us, `https://host[:port]`, written into certificates as the place of the
    /// CRL; nothing is written when it is missing.
    pub external_url: Option<String>,
    /// The trust domain of `spiffe://<trust-domain>/device/<id>`.
    pub trust_domain: String,
    /// The SQLite database.
    pub database: PathBuf,
    /// Threads that serve connections.
    #[serde(default = "default_threads")]
    pub threads: usize,
    /// Connections served at once; more wait in the kernel's queue.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
    /// Devices that wait for an operator's first look; no unknown one is entered beyond it.
    #[serde(default = "default_pending_max")]
    pub pending_max: u32,
    /// Our own certificate.
    pub server: KeyPair,
    /// The authority that issues to devices: its chain up to the root, and its key.
    pub device_ca: KeyPair,
    /// The authority that issues to servers: its chain up to the root, and its key.
    pub server_ca: KeyPair,
    /// What a device's certificate is like.
    pub device: Profile,
    /// The revocation list.
    #[serde(default)]
    pub crl: Crl,
    /// The groups of devices, by name.
    #[serde(default = "default_groups")]
    pub groups: BTreeMap<String, Group>,
    /// The EST labels, by name.
    #[serde(default)]
    pub labels: BTreeMap<String, Label>,
}

/// A certificate chain and the key of its first certificate, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The chain, leaf or issuing CA first.
    pub certificate: PathBuf,
    /// The key, PKCS#8.
    pub key: PathBuf,
}

/// What a certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Seconds from `notBefore` to `notAfter`.
    pub lifetime_s: u64,
    /// Seconds by which `notBefore` lies before the moment of issue; never more than a twentieth
    /// of the lifetime, see [`Profile::backdate_s`].
    #[serde(default = "default_backdate_s", rename = "backdate_s")]
    pub backdate_s_max: u64,
}

/// The revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crl {
    /// Seconds from `thisUpdate` to `nextUpdate`. A broker locks everyone out when a list is past
    /// its `nextUpdate`, so a new one is made at half of this.
    pub lifetime_s: u64,
}

/// What a first contact has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// An operator's approval of the key.
    Approval,
    /// Nobody gets in.
    Deny,
    /// Evidence by a TPM that `device import` listed for the device.
    EkAllowlist,
    /// Evidence by a TPM with a certificate of a maker that `attest ek-roots` trusts.
    EkChain,
    /// A one-time token.
    Token,
    /// A one-time token, and evidence by a TPM that is listed or has such a certificate.
    #[serde(rename = "token+ek")]
    TokenEk,
}

/// One group of devices.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What a first contact has to show; `policy` in configurations from before there were TPMs.
    #[serde(alias = "policy")]
    pub admission: Admission,
    /// Seconds after expiry in which the old key still fetches a new certificate by itself; after
    /// them an operator approves. Zero: an operator always does.
    #[serde(default)]
    pub recovery_window_s: u64,
    /// Seconds between two such recoveries of one device, at least.
    #[serde(default = "default_recovery_interval_s")]
    pub recovery_interval_s: u64,
    /// Seconds after which a device that waits for approval asks again.
    #[serde(default = "default_retry_after_s")]
    pub retry_after_s: u32,
    /// The domain of the DNS names `<id>.<domain>` in certificates; none when missing.
    #[serde(default)]
    pub dns_domain: Option<String>,
    /// Seconds of a certificate's life in this group; the device profile's when missing.
    #[serde(default)]
    pub lifetime_s: Option<u64>,
    /// Whether a TPM may be software: its keys can be copied by whoever runs it.
    #[serde(default)]
    pub allow_virtual_tpm: bool,
}

/// One EST label: `/.well-known/est/<label>/…`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The group whose devices enroll here.
    pub group: String,
}

/// Why a configuration is not taken.
#[derive(Debug)]
pub enum ConfigError {
    /// The external URL is not `https://host[:port]` or `http://host[:port]`.
    ExternalUrl {
        /// What was found.
        found: String,
    },
    /// The group of a label is not configured.
    LabelWithoutGroup {
        /// The label.
        label: String,
        /// The group it names.
        group: String,
    },
    /// A file that cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A number out of bounds.
    Range {
        /// The key.
        key: &'static str,
        /// What was found.
        found: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// Not the TOML we expect; the message shows the line.
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
}

const fn default_threads() -> usize {
    THREADS
}

const fn default_connections_max() -> usize {
    CONNECTIONS_MAX
}

const fn default_pending_max() -> u32 {
    PENDING_MAX
}

const fn default_backdate_s() -> u64 {
    BACKDATE_S
}

fn default_groups() -> BTreeMap<String, Group> {
    BTreeMap::from([(DEFAULT_GROUP.to_owned(), Group::default())])
}

const fn default_recovery_interval_s() -> u64 {
    RECOVERY_INTERVAL_S
}

const fn default_retry_after_s() -> u32 {
    RETRY_AFTER_S
}

impl Default for Group {
    /// A token for the first contact, an operator for everything unusual.
    fn default() -> Self {
        Self {
            admission: Admission::Token,
            recovery_window_s: 0,
            recovery_interval_s: RECOVERY_INTERVAL_S,
            retry_after_s: RETRY_AFTER_S,
            dns_domain: None,
            lifetime_s: None,
            allow_virtual_tpm: false,
        }
    }
}

impl Default for Crl {
    /// A week: long enough for a broker that is told of a new list once a day.
    fn default() -> Self {
        Self { lifetime_s: 7 * 86_400 }
    }
}

impl Profile {
    /// Seconds by which `notBefore` lies before the moment of issue.
    #[must_use]
    pub const fn backdate_s(self) -> u64 {
        let part = self.lifetime_s / BACKDATE_PART;
        if part < self.backdate_s_max { part } else { self.backdate_s_max }
    }
}

impl Config {
    /// Reads and checks a file, and makes its paths absolute to the file's folder.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says which key of which file is wrong, and what was expected.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            read_limited(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::from_text(&text, path)
    }

    /// As [`Config::read`], with the text that is at `path`, or will be.
    ///
    /// # Errors
    ///
    /// As [`Config::read`].
    pub fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|source| ConfigError::Syntax {
            path: path.into(),
            source: Box::new(source),
        })?;
        config.check()?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// The device profile of a group.
    #[must_use]
    pub fn profile(&self, group: &Group) -> Profile {
        Profile { lifetime_s: group.lifetime_s.unwrap_or(self.device.lifetime_s), ..self.device }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let lifetime = |key, found| range(key, found, LIFETIME_S_MIN, LIFETIME_S_MAX);
        lifetime("device.lifetime_s", self.device.lifetime_s)?;
        lifetime("crl.lifetime_s", self.crl.lifetime_s)?;
        range("device.backdate_s", self.device.backdate_s_max, 0, LIFETIME_S_MAX)?;
        range("threads", self.threads as u64, 1, THREADS_LIMIT as u64)?;
        range("connections_max", self.connections_max as u64, 1, CONNECTIONS_LIMIT as u64)?;
        range("pending_max", self.pending_max.into(), 1, PENDING_LIMIT)?;
        for group in self.groups.values() {
            lifetime("groups.*.lifetime_s", group.lifetime_s.unwrap_or(LIFETIME_S_MIN))?;
            range("groups.*.retry_after_s", group.retry_after_s.into(), 1, RETRY_AFTER_S_MAX)?;
            range("groups.*.recovery_window_s", group.recovery_window_s, 0, LIFETIME_S_MAX)?;
            let interval_s = group.recovery_interval_s;
            range("groups.*.recovery_interval_s", interval_s, 0, LIFETIME_S_MAX)?;
        }
        for (label, Label { group }) in &self.labels {
            if !self.groups.contains_key(group) {
                let (label, group) = (label.clone(), group.clone());
                return Err(ConfigError::LabelWithoutGroup { label, group });
            }
        }
        self.external_url.as_deref().map_or(Ok(()), check_url)
    }

    fn resolve(&mut self, folder: &Path) {
        let pairs = [&mut self.server, &mut self.device_ca, &mut self.server_ca];
        let files = pairs.into_iter().flat_map(|pair| [&mut pair.certificate, &mut pair.key]);
        for path in files.chain([&mut self.database]) {
            *path = folder.join(&*path);
        }
    }
}

fn read_limited(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    io::Read::read_to_string(&mut io::Read::take(file, FILE_LEN_MAX + 1), &mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB"));
    }
    Ok(text)
}

const fn range(key: &'static str, found: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if found < min || found > max {
        return Err(ConfigError::Range { key, found, min, max });
    }
    Ok(())
}

/// The URL becomes part of certificates: a scheme and an authority, nothing behind them.
fn check_url(url: &str) -> Result<(), ConfigError> {
    let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_authority = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    if authority.is_some_and(is_authority) {
        return Ok(());
    }
    Err(ConfigError::ExternalUrl { found: url.to_owned() })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExternalUrl { found } => {
                write!(f, "external_url is {found:?}, expected https://host or https://host:port")
            }
            Self::LabelWithoutGroup { label, group } => {
                write!(f, "labels.{label} names group {group:?}, which is not under [groups]")
            }
            Self::Read { path, source } => write!(f, "{} not readable: {source}", path.display()),
            Self::Range { key, found, min, max } => {
                write!(f, "{key} is {found}, expected {min} to {max}")
            }
            Self::Syntax { path, source } => {
                write!(f, "{} is no configuration: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        listen = "127.0.0.1:8443"
        external_url = "https://ca.example:8443"
        trust_domain = "fleet.example"
        database = "fleetcert.db"
        server = { certificate = "server.pem", key = "private/server.key" }
        device_ca = { certificate = "device-ca.pem", key = "/etc/keys/device-ca.key" }
        server_ca = { certificate = "server-ca.pem", key = "private/server-ca.key" }
        device = { lifetime_s = 20 }
        [groups.default]
        admission = "approval"
        [labels.line-1]
        group = "default"
    "#;

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("provisioner.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path).map_err(|error| error.to_string())?;
        assert_eq!(config.database, folder.path().join("fleetcert.db"));
        Ok(config)
    }

    // Goal: a folder can be moved, and absolute paths stay where they are.
    #[test]
    fn paths_are_relative_to_the_file() {
        let config = read(WHOLE).unwrap();
        assert_eq!(config.device_ca.key, Path::new("/etc/keys/device-ca.key"));
        assert!(config.server.key.ends_with("private/server.key"));
        assert!(config.server.key.is_absolute());
        assert_eq!(config.connections_max, CONNECTIONS_MAX);
    }

    // Goal: a misspelt key, at any depth, is an error that names it.
    #[test]
    fn unknown_keys_are_refused_by_name() {
        for (known, unknown) in [
            ("trust_domain =", "trust_domian ="),
            ("lifetime_s =", "lifetime ="),
            ("admission =", "admision ="),
            ("group =", "groop ="),
            ("key = \"private/server.key\"", "kay = \"private/server.key\""),
        ] {
            let error = read(&WHOLE.replacen(known, unknown, 1)).unwrap_err();
            let name = unknown.split(' ').next().unwrap();
            assert!(error.contains("unknown field") && error.contains(name), "{error}");
        }
    }

    // Goal: values that make no sense are refused with what was found and what was expected.
    #[test]
    fn values_out_of_bounds_are_refused() {
        for (good, bad, expected) in [
            ("lifetime_s = 20", "lifetime_s = 9", "device.lifetime_s is 9, expected 10 to"),
            ("lifetime_s = 20", "lifetime_s = -1", "invalid value"),
            ("https://ca.example:8443", "ca.example", "external_url is \"ca.example\""),
            ("https://ca.example:8443", "https://ca.example/x", "external_url is"),
            ("group = \"default\"", "group = \"line\"", "labels.line-1 names group \"line\""),
            ("\"approval\"", "\"anyone\"", "unknown variant"),
            ("listen =", "threads = 0\nlisten =", "threads is 0, expected 1 to 64"),
            ("listen =", "pending_max = 0\nlisten =", "pending_max is 0, expected 1 to"),
        ] {
            let error = read(&WHOLE.replacen(good, bad, 1)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    // Goal: each way in is spelled as the runbook says, under the key's earlier name too.
    #[test]
    fn every_admission_is_read_by_its_name() {
        for (text, expected) in [
            ("approval", Admission::Approval),
            ("deny", Admission::Deny),
            ("ek-allowlist", Admission::EkAllowlist),
            ("ek-chain", Admission::EkChain),
            ("token", Admission::Token),
            ("token+ek", Admission::TokenEk),
        ] {
            let line = format!("admission = \"{text}\"");
            for line in [line.clone(), line.replace("admission", "policy")] {
                let config = read(&WHOLE.replace("admission = \"approval\"", &line)).unwrap();
                let group = &config.groups[DEFAULT_GROUP];
                assert_eq!((group.admission, group.allow_virtual_tpm), (expected, false), "{line}");
            }
        }
        let both = "admission = \"token\"\npolicy = \"token\"";
        assert!(read(&WHOLE.replace("admission = \"approval\"", both)).is_err());
        let software = "admission = \"ek-chain\"\nallow_virtual_tpm = true";
        let config = read(&WHOLE.replace("admission = \"approval\"", software)).unwrap();
        assert!(config.groups[DEFAULT_GROUP].allow_virtual_tpm);
    }

    // Goal: certificates of seconds are useful at once, those of months forgive slow clocks.
    #[test]
    fn backdating_shrinks_with_the_lifetime() {
        let backdate_s =
            |lifetime_s| Profile { lifetime_s, backdate_s_max: BACKDATE_S }.backdate_s();
        assert_eq!(backdate_s(20), 1);
        assert_eq!(backdate_s(10), 0);
        assert_eq!(backdate_s(90 * 86_400), BACKDATE_S);
    }
}
