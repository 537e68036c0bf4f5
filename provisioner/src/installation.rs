//! A configuration with everything it names: keys read, database open, the domain ready.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use fleetcert_core::wire::CRL_PATH;

use crate::{
    authority::{
        Authority, AuthorityError, Profile,
        profile::{DnsName, Kind, ProfileNameError, TrustDomain},
    },
    config::{self, Config, ConfigError, DEFAULT_GROUP, KeyPair},
    enroll::{Admission, Group, Provisioner, Settings},
    inventory::{Name, NameError},
    store::{StoreError, sqlite::SqliteStore},
    tls::{TlsError, read_chain},
};

/// An installation in use.
pub struct Installation {
    /// Its configuration.
    pub config: Config,
    /// The domain over its database.
    pub provisioner: Arc<Provisioner<SqliteStore>>,
    /// The device tree: issuing CA first, root last.
    pub device_chain: Vec<CertificateDer<'static>>,
    /// The server tree: issuing CA first, root last.
    pub server_chain: Vec<CertificateDer<'static>>,
}

/// Why an installation cannot be used.
#[derive(Debug)]
pub enum InstallationError {
    /// A certificate and key that are no authority.
    Authority {
        /// The two files.
        files: KeyPair,
        /// What is wrong with them.
        source: AuthorityError,
    },
    /// The configuration.
    Config(ConfigError),
    /// A trust domain or DNS name that could not stand in a certificate.
    CertificateName(ProfileNameError),
    /// A group's or a label's name.
    Name(NameError),
    /// The database.
    Store(StoreError),
    /// A certificate or key file.
    Tls(TlsError),
}

impl Installation {
    /// Opens what a configuration file names.
    ///
    /// # Errors
    ///
    /// [`InstallationError`] names the file or key that is wrong.
    pub async fn open(path: &Path) -> Result<Self, InstallationError> {
        let config = Config::read(path)?;
        let device_chain = read_chain(&config.device_ca.certificate)?;
        let server_chain = read_chain(&config.server_ca.certificate)?;
        let authority = authority(&config.device_ca)?;
        let settings = settings(&config, &authority)?;
        let store = SqliteStore::open(&config.database).await?;
        let provisioner = Arc::new(Provisioner::new(store, settings, authority));
        Ok(Self { config, provisioner, device_chain, server_chain })
    }

    /// What `cacerts` gives out: the device chain, with which a device completes its own, and the
    /// server root, by which a stock EST client goes on to verify us (RFC 7030 §4.1.3).
    #[must_use]
    pub fn ca_certificates(&self) -> Vec<&[u8]> {
        self.device_chain.iter().chain(self.server_chain.last()).map(AsRef::as_ref).collect()
    }

    /// The server tree's issuing authority. The service itself does without it.
    ///
    /// # Errors
    ///
    /// [`InstallationError::Authority`], [`InstallationError::Tls`].
    pub fn server_authority(&self) -> Result<Authority, InstallationError> {
        authority(&self.config.server_ca)
    }
}

/// Reads an issuing authority: the first certificate of its chain, and its key.
///
/// # Errors
///
/// [`InstallationError::Authority`], [`InstallationError::Tls`].
pub(crate) fn authority(files: &KeyPair) -> Result<Authority, InstallationError> {
    let wrong = |source| InstallationError::Authority { files: files.clone(), source };
    let chain = read_chain(&files.certificate)?;
    let certificate = chain.first().ok_or_else(|| wrong(AuthorityError::Certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| {
        let path = files.key.clone();
        TlsError::Pem { path, expected: "a private key", source }
    })?;
    Authority::from_der(certificate, key.secret_der()).map_err(wrong)
}

/// The operator's decisions as the domain wants them.
///
/// # Errors
///
/// [`InstallationError::CertificateName`], [`InstallationError::Name`].
pub(crate) fn settings(
    config: &Config,
    authority: &Authority,
) -> Result<Settings, InstallationError> {
    let crl_urls: Vec<String> = config
        .external_url
        .iter()
        .map(|url| format!("{url}{CRL_PATH}{}.crl", authority.key_id()))
        .collect();
    let mut groups = BTreeMap::new();
    for (name, decided) in &config.groups {
        groups.insert(Name::parse(name)?, group(config, decided, &crl_urls)?);
    }
    let mut labels = BTreeMap::new();
    for (name, label) in &config.labels {
        labels.insert(Name::parse(name)?, Name::parse(&label.group)?);
    }
    let default_group = Name::parse(DEFAULT_GROUP)?;
    Ok(Settings {
        trust_domain: TrustDomain::parse(&config.trust_domain)?,
        default_group: groups.contains_key(&default_group).then_some(default_group),
        groups,
        labels,
        pending_max: config.pending_max,
        crl_validity_s: config.crl.lifetime_s,
    })
}

fn group(
    config: &Config,
    decided: &config::Group,
    crl_urls: &[String],
) -> Result<Group, InstallationError> {
    let profile = config.profile(decided);
    Ok(Group {
        admission: match decided.admission {
            config::Admission::Approval => Admission::Approval,
            config::Admission::Deny => Admission::Deny,
            config::Admission::EkAllowlist => Admission::EkAllowlist,
            config::Admission::EkChain => Admission::EkChain,
            config::Admission::Token => Admission::Token,
            config::Admission::TokenEk => Admission::TokenEk,
        },
        profile: Profile {
            lifetime_s: profile.lifetime_s,
            backdate_s: profile.backdate_s(),
            crl_urls: crl_urls.to_vec(),
            ..Profile::new(Kind::Device)
        },
        dns_domain: decided.dns_domain.as_deref().map(DnsName::parse).transpose()?,
        recovery_window_s: decided.recovery_window_s,
        recovery_interval_s: decided.recovery_interval_s,
        retry_after_s: decided.retry_after_s,
        allow_virtual_tpm: decided.allow_virtual_tpm,
    })
}

impl From<ConfigError> for InstallationError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<NameError> for InstallationError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<ProfileNameError> for InstallationError {
    fn from(error: ProfileNameError) -> Self {
        Self::CertificateName(error)
    }
}

impl From<StoreError> for InstallationError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<TlsError> for InstallationError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl fmt::Display for InstallationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority { files, source } => {
                let (certificate, key) = (files.certificate.display(), files.key.display());
                write!(f, "{certificate} and {key} are no issuing authority: {source}")
            }
            Self::CertificateName(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Name(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InstallationError {}
