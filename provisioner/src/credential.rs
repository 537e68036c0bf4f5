//! Keys and certificates that are made here, for those who cannot enroll: servers and backends.
//!
//! A device's key is never made here; it is made on the device and stays there.

use std::{net::IpAddr, path::Path};

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    authority::{
        Authority, Identity, Profile, PublicKey,
        profile::{DnsName, Kind, ProfileNameError, TrustDomain},
        tree,
    },
    cli::Failure,
    enroll::{Provisioner, ServerOrder},
    entropy::SystemEntropy,
    files::{self, FileError},
    inventory::Name,
    pem,
    store::Store,
};

/// A private key and the certificate for it.
pub(crate) struct Credential {
    /// The key, PKCS#8 in PEM.
    key: Zeroizing<String>,
    /// The certificate, DER.
    certificate: Vec<u8>,
}

/// Who orders a credential, and when.
pub(crate) struct Order<'a> {
    /// The operator, for the audit.
    pub(crate) operator: &'a str,
    /// Now.
    pub(crate) now: fleetcert_core::time::Wall,
    /// Seconds of its life.
    pub(crate) lifetime_s: u64,
}

/// Reads the names of a server: IP addresses, and DNS names for what is none.
///
/// # Errors
///
/// [`ProfileNameError`] for what is neither.
pub(crate) fn server_identity(names: &[String]) -> Result<Identity, ProfileNameError> {
    let (mut dns, mut addresses) = (Vec::new(), Vec::new());
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => dns.push(DnsName::parse(&name.to_ascii_lowercase())?),
        }
    }
    Ok(Identity::Server { dns, addresses })
}

impl Credential {
    /// A server's, from the server tree.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the names, the store or the authority say no.
    pub(crate) async fn server<S: Store>(
        provisioner: &Provisioner<S>,
        authority: &Authority,
        names: &[String],
        order: Order<'_>,
    ) -> Result<Self, Failure> {
        let identity = server_identity(names)?;
        Self::issue(provisioner, authority, Kind::Server, identity, order).await
    }

    /// A fleet backend's, from the device tree: the only one that brokers trust.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the store or the authority say no.
    pub(crate) async fn backend<S: Store>(
        provisioner: &Provisioner<S>,
        name: Name,
        trust_domain: TrustDomain,
        order: Order<'_>,
    ) -> Result<Self, Failure> {
        let identity = Identity::Backend { name, trust_domain };
        let authority = provisioner.authority();
        Self::issue(provisioner, authority, Kind::Backend, identity, order).await
    }

    async fn issue<S: Store>(
        provisioner: &Provisioner<S>,
        authority: &Authority,
        kind: Kind,
        identity: Identity,
        order: Order<'_>,
    ) -> Result<Self, Failure> {
        let mut entropy = SystemEntropy::new();
        let pkcs8 = tree::key(&mut entropy)?;
        let key = PublicKey::from_spki(&spki(&pkcs8)?)?;
        let profile = Profile { lifetime_s: order.lifetime_s, ..Profile::new(kind) };
        let request = ServerOrder { profile, identity, key };
        let (operator, now) = (order.operator, order.now);
        let issued =
            provisioner.issue_server(authority, request, operator, now, &mut entropy).await?;
        Ok(Self { key: tree::key_to_pem(&pkcs8)?, certificate: issued.der })
    }

    /// Writes `<stem>.pem`, the certificate and its issuing CAs, and `<stem>.key`. The root is
    /// left out: whoever verifies has it.
    ///
    /// # Errors
    ///
    /// [`FileError`]; existing files are left as they are.
    pub(crate) fn write(
        &self,
        certificate: &Path,
        key: &Path,
        authorities: &[CertificateDer<'_>],
    ) -> Result<(), FileError> {
        files::create(key, self.key.as_bytes(), files::PRIVATE)?;
        let issuing = authorities.split_last().map_or(&[][..], |(_root, issuing)| issuing);
        let chain = [self.certificate.as_slice()];
        let chain = chain.into_iter().chain(issuing.iter().map(AsRef::as_ref));
        files::create(certificate, pem::certificates(chain).as_bytes(), files::PUBLIC)
    }
}

fn spki(pkcs8: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
    use rcgen::PublicKeyData;
    rcgen::KeyPair::try_from(pkcs8).map(|pair| pair.subject_public_key_info())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: an address becomes an address, never a DNS name that looks like one.
    #[test]
    fn names_are_sorted_by_their_kind() {
        let names = ["Ca.Example", "127.0.0.1", "::1"].map(str::to_owned);
        let Identity::Server { dns, addresses } = server_identity(&names).unwrap() else {
            panic!("not a server");
        };
        assert_eq!(dns, [DnsName::parse("ca.example").unwrap()]);
        assert_eq!(addresses, ["127.0.0.1", "::1"].map(|a| a.parse::<IpAddr>().unwrap()));
        for name in ["", "a b", "https://x", "*.example"] {
            assert!(server_identity(&[name.to_owned()]).is_err(), "{name}");
        }
    }
}
