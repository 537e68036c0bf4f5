//! What a certificate of each kind contains: policy as data, decided before any request comes.

use std::{borrow::Cow, fmt, net::IpAddr};

use fleetcert_core::{
    device_id::DeviceId,
    time::{Validity, Wall},
};

use crate::inventory::Name;

/// Octets of a trust domain, at most (SPIFFE-ID §2.1 allows 255; the whole URI has to fit too).
pub const TRUST_DOMAIN_LEN_MAX: usize = 255;

/// Octets of a DNS name, at most (RFC 1035 §2.3.4).
pub const DNS_NAME_LEN_MAX: usize = 253;

/// How long before now a certificate's validity begins, seconds, unless the profile says else: an
/// hour forgives a peer's clock that is a little slow.
pub const BACKDATE_S_DEFAULT: u64 = 3_600;

/// How long a device's certificate lives unless the profile says else, seconds: ninety days.
pub const LIFETIME_S_DEFAULT: u64 = 90 * 86_400;

/// What a certificate is for. The kind fixes the extended key usages and the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A fleet backend: a TLS client that reads and writes every device's topics. From the device
    /// tree, because that is the only one that brokers trust; its name can be no device's.
    Backend,
    /// A device: TLS client, nothing else.
    Device,
    /// A gateway: a device that also serves TLS to what stands behind it.
    Gateway,
    /// The provisioner or a broker; from the server tree only.
    Server,
}

/// Everything about a certificate that does not depend on who gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What it is for.
    pub kind: Kind,
    /// From `notBefore` to `notAfter` without the backdating, seconds.
    pub lifetime_s: u64,
    /// How long before now `notBefore` lies, seconds.
    pub backdate_s: u64,
    /// Where CRLs are to be fetched (RFC 5280 §4.2.1.13); empty: no such extension.
    pub crl_urls: Vec<String>,
    /// Where the issuer's certificate is to be fetched (RFC 5280 §4.2.2.1); empty: none.
    pub issuer_urls: Vec<String>,
}

/// A SPIFFE trust domain: `[a-z0-9._-]`, 1 to [`TRUST_DOMAIN_LEN_MAX`] octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(String);

/// A DNS name in lower case ASCII: labels of letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DnsName(String);

/// A text that names nothing that could stand in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileNameError {
    /// The text, shortened.
    pub found: String,
}

/// Who a certificate is for, authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A fleet backend of a trust domain.
    Backend {
        /// Its name; the subject CN is [`backend_common_name`] of it.
        name: Name,
        /// The authority of the URI.
        trust_domain: TrustDomain,
    },
    /// A device of a trust domain.
    Device {
        /// Its name: the subject CN and the end of the URI.
        id: DeviceId,
        /// The authority of the URI.
        trust_domain: TrustDomain,
        /// Its DNS name, if it has one.
        dns: Option<DnsName>,
    },
    /// A server under its names; at least one of either kind.
    Server {
        /// DNS names.
        dns: Vec<DnsName>,
        /// IP addresses.
        addresses: Vec<IpAddr>,
    },
}

/// What the common name of every backend begins with, and that of no device may.
pub const BACKEND_PREFIX: &str = "backend.";

/// The common name, and so the MQTT user name, of a fleet backend.
#[must_use]
pub fn backend_common_name(name: &Name) -> String {
    format!("{BACKEND_PREFIX}{name}")
}

/// Whether a device id is kept for something that is no device.
#[must_use]
pub fn is_reserved(id: &DeviceId) -> bool {
    id.as_str()
        .get(..BACKEND_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(BACKEND_PREFIX))
}

impl Profile {
    /// A profile of that kind with the default times and no URLs.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            lifetime_s: LIFETIME_S_DEFAULT,
            backdate_s: BACKDATE_S_DEFAULT,
            crl_urls: Vec::new(),
            issuer_urls: Vec::new(),
        }
    }

    /// The validity of a certificate issued at `now`.
    #[must_use]
    pub const fn validity(&self, now: Wall) -> Validity {
        Validity {
            not_before: now.minus_s(self.backdate_s),
            not_after: now.plus_s(self.lifetime_s),
        }
    }
}

impl Identity {
    /// The subject's common name: the device id, a backend's name, or the first DNS name of a
    /// server that fits; `None` leaves the subject empty and the subjectAltName critical (RFC 5280
    /// §4.2.1.6).
    #[must_use]
    pub fn common_name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Backend { name, .. } => Some(backend_common_name(name).into()),
            Self::Device { id, .. } => Some(id.as_str().into()),
            Self::Server { dns, .. } => {
                let mut names = dns.iter().map(DnsName::as_str);
                names.find(|name| name.len() <= COMMON_NAME_LEN_MAX).map(Cow::from)
            }
        }
    }

    /// The one URI of the subjectAltName; a server has none.
    #[must_use]
    pub fn uri(&self) -> Option<String> {
        match self {
            Self::Backend { name, trust_domain } => Some(trust_domain.backend_uri(name)),
            Self::Device { id, trust_domain, .. } => Some(trust_domain.device_uri(id)),
            Self::Server { .. } => None,
        }
    }

    /// The DNS names of the subjectAltName.
    #[must_use]
    pub fn dns_names(&self) -> &[DnsName] {
        match self {
            Self::Backend { .. } => &[],
            Self::Device { dns, .. } => dns.as_slice(),
            Self::Server { dns, .. } => dns,
        }
    }

    /// The IP addresses of the subjectAltName.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Backend { .. } | Self::Device { .. } => &[],
            Self::Server { addresses, .. } => addresses,
        }
    }

    /// The device, if it is one.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Device { id, .. } => Some(id),
            Self::Backend { .. } | Self::Server { .. } => None,
        }
    }

    /// Whether a certificate of `kind` may name it.
    #[must_use]
    pub const fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Backend { .. } => matches!(kind, Kind::Backend),
            Self::Device { .. } => matches!(kind, Kind::Device | Kind::Gateway),
            Self::Server { .. } => matches!(kind, Kind::Server),
        }
    }
}

/// Characters of a common name, at most (RFC 5280 appendix A.1, `ub-common-name`).
const COMMON_NAME_LEN_MAX: usize = 64;

impl TrustDomain {
    /// Takes a text as a trust domain.
    ///
    /// # Errors
    ///
    /// [`ProfileNameError`] unless it is 1 to [`TRUST_DOMAIN_LEN_MAX`] of `[a-z0-9._-]`.
    pub fn parse(text: &str) -> Result<Self, ProfileNameError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let fits = (1..=TRUST_DOMAIN_LEN_MAX).contains(&text.len());
        if fits && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(ProfileNameError::new(text))
    }

    /// The domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI of a fleet backend: `spiffe://<trust-domain>/backend/<name>`. It is no device's, so
    /// that a backend's certificate never passes for one in enrollment.
    #[must_use]
    pub fn backend_uri(&self, name: &Name) -> String {
        format!("spiffe://{}/backend/{name}", self.0)
    }

    /// The URI of a device: `spiffe://<trust-domain>/device/<id>`.
    #[must_use]
    pub fn device_uri(&self, id: &DeviceId) -> String {
        format!("spiffe://{}/device/{id}", self.0)
    }
}

impl DnsName {
    /// Takes a text as a DNS name.
    ///
    /// # Errors
    ///
    /// [`ProfileNameError`] unless each label is 1 to 63 of `[a-z0-9-]`, no hyphen at its ends
    /// (RFC 1123 §2.1), and the whole at most [`DNS_NAME_LEN_MAX`].
    pub fn parse(text: &str) -> Result<Self, ProfileNameError> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if text.len() <= DNS_NAME_LEN_MAX && text.split('.').all(label) {
            return Ok(Self(text.to_owned()));
        }
        Err(ProfileNameError::new(text))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProfileNameError {
    fn new(text: &str) -> Self {
        Self { found: text[..text.floor_char_boundary(64)].to_owned() }
    }
}

impl fmt::Display for ProfileNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no name for a certificate, expected lower case a-z, 0-9, '-', '.'",
            self.found
        )
    }
}

impl std::error::Error for ProfileNameError {}
