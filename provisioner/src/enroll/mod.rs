//! Who gets a certificate: the rules, and the service that applies them.
//!
//! **What it is.** [`Provisioner`] answers everything that the edges (EST, the command line) ask.
//! The rules are in `decide`: pure functions from a request and a [`View`](crate::store::View)
//! of the database to an answer and the changes that go with it.
//!
//! **What it must never do.** Issue on the word of a request alone. A name in a request is
//! compared with the identity that a token, a certificate or an operator vouches for; what nobody
//! vouches for is refused, or waits.
//!
//! **Why that is sound.** The decision runs inside the transaction that records it, so nothing can
//! happen between the look at a token and its use. Anything that no rule allows is a [`Refusal`].

use std::{collections::BTreeMap, fmt};

use fleetcert_core::{device_id::DeviceId, time::Wall, wire::NONCE_LEN};

use crate::{
    authority::{
        Profile, Serial,
        profile::{DnsName, TrustDomain},
    },
    challenge::ChallengeId,
    inventory::Name,
    store::RequestId,
};

mod decide;
pub mod guard;
pub mod ration;
pub mod refusal;
pub mod service;

pub use self::{
    guard::ClockBehind,
    refusal::{Refusal, StatusClass, TpmRefusal},
    service::{
        ChallengeOrder, ImportCount, ImportError, NewChallenge, Provisioner, Published, RootsAdded,
        ServerOrder, ServiceError, TokenOrder,
    },
};

/// How devices of a group get their first certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// An operator approves each key.
    Approval,
    /// Nobody gets in.
    #[default]
    Deny,
    /// Evidence by a TPM whose endorsement key an operator listed for the device.
    EkAllowlist,
    /// Evidence by a TPM whose endorsement key has a certificate that chains to a trusted root.
    EkChain,
    /// A one-time token.
    Token,
    /// A one-time token, and evidence by a TPM whose endorsement key is listed or chains.
    TokenEk,
}

impl Admission {
    const ALL: [Self; 6] =
        [Self::Approval, Self::Deny, Self::EkAllowlist, Self::EkChain, Self::Token, Self::TokenEk];

    /// Its stable name, as the configuration writes it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Deny => "deny",
            Self::EkAllowlist => "ek-allowlist",
            Self::EkChain => "ek-chain",
            Self::Token => "token",
            Self::TokenEk => "token+ek",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|admission| admission.code() == code)
    }

    /// Whether no key gets a certificate that is not proven to live in a TPM.
    #[must_use]
    pub const fn needs_evidence(self) -> bool {
        matches!(self, Self::EkAllowlist | Self::EkChain | Self::TokenEk)
    }

    /// Whether a first contact may come without a token.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Approval | Self::EkAllowlist | Self::EkChain)
    }
}

/// The policy of a group of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How its devices get in.
    pub admission: Admission,
    /// What their certificates contain.
    pub profile: Profile,
    /// The domain under which their DNS names are made (`<id>.<domain>`); `None`: no DNS name.
    pub dns_domain: Option<DnsName>,
    /// For how long after its expiry a certificate may still be replaced, seconds; 0: never.
    pub recovery_window_s: u64,
    /// How long a device waits between two recoveries at least, seconds.
    pub recovery_interval_s: u64,
    /// When a pending device should ask again, seconds.
    pub retry_after_s: u32,
    /// Whether a TPM may be software. Its keys can be copied by whoever runs it.
    pub allow_virtual_tpm: bool,
}

/// Everything an operator decides about enrollment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The authority of every device's URI.
    pub trust_domain: TrustDomain,
    /// The groups.
    pub groups: BTreeMap<Name, Group>,
    /// Which group a label serves.
    pub labels: BTreeMap<Name, Name>,
    /// The group of requests without a label that come from devices we do not know.
    pub default_group: Option<Name>,
    /// Devices that may wait for an operator. Beyond it no unknown one is entered; those that the
    /// inventory has may always ask.
    pub pending_max: u32,
    /// How long a CRL is good, seconds.
    pub crl_validity_s: u64,
}

/// Who is at the other end of the TLS connection. Chain and signature have been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// No client certificate.
    Anonymous,
    /// A certificate of the device tree.
    Device {
        /// The DER of the leaf.
        leaf_der: Vec<u8>,
        /// Whether it has expired and was let in for recovery only.
        expired: bool,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A first certificate (RFC 7030 §4.2.1).
    Enroll,
    /// A certificate in place of the current one (RFC 7030 §4.2.2).
    Reenroll,
}

/// The user and password of HTTP Basic: a device id and a token. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user.
    pub user: String,
    /// The password.
    pub password: zeroize::Zeroizing<String>,
}

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// At which EST label (RFC 7030 §3.2.2).
    pub label: Option<Name>,
    /// By whom.
    pub peer: Peer,
    /// With which credentials.
    pub basic: Option<Basic>,
    /// The PKCS#10, DER.
    pub csr_der: Vec<u8>,
    /// The name of the request.
    pub request_id: Option<RequestId>,
    /// The challenge that the evidence in the PKCS#10 answers.
    pub challenge: Option<ChallengeId>,
}

/// What a request gets that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A certificate.
    Issued {
        /// Its DER.
        leaf_der: Vec<u8>,
        /// Its serial number.
        serial: Serial,
    },
    /// An operator has to look at it first.
    Pending {
        /// When to ask again, with the same key, seconds.
        retry_after_s: u32,
    },
}

/// Which certificate we saw ([`WhoAmI`](fleetcert_core::wire::WhoAmI), owned).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The nonce of the question.
    pub nonce: [u8; NONCE_LEN],
    /// The serial number of the peer's certificate.
    pub serial: Serial,
    /// The authenticated device id.
    pub device: DeviceId,
    /// When we answered.
    pub server_time: Wall,
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
