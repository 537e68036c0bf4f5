//! TLS with a client certificate whose key is in a TPM: what curl cannot do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use fleetcert_core::est::csr::P256Signature;
use fleetcert_tests::lab::by_hand::{certificates, openssl, text};
use fleetcert_tests::lab::claimant::Claimant;
use fleetcert_tests::lab::https::Reply;
use fleetcert_tests::lab::{Lab, OrFail};
use fleetcert_tests::tpm_socket::TpmSocket;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::vault::{KeyBlob, Options, Vault};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sha2::{Digest as _, Sha256};

/// A key in a TPM, used when nobody else uses the TPM.
#[derive(Clone, Debug)]
struct TpmKey {
    socket: PathBuf,
    key: KeyBlob,
}

/// What a device shows in TLS: its certificate, and that it has the key.
#[derive(Clone, Debug)]
pub(crate) struct TpmIdentity {
    certificate: CertificateDer<'static>,
    key: TpmKey,
}

impl SigningKey for TpmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let is_offered = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        is_offered.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TpmKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let options = Options { parent: None, sharing: Sharing::Exclusive };
        let vault = Vault::open(TpmSocket::new(&self.socket), options);
        let mut vault: Vault<TpmSocket> = vault.or_fail("a vault");
        let raw = vault.sign(&self.key, &Sha256::digest(message).into()).or_fail("a signature");
        Ok(P256Signature::from_raw(&raw).or_fail("r and s").as_der().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl ResolvesClientCert for TpmIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = Arc::new(self.key.clone());
        Some(Arc::new(CertifiedKey::new(vec![self.certificate.clone()], key)))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl TpmIdentity {
    /// The certificate in an EST answer, for the device key of `device`.
    pub(crate) fn issued(reply: &Reply, device: &Claimant) -> Self {
        let pem = certificates(&reply.body);
        let der = openssl(&["x509", "-outform", "DER"], pem.as_bytes()).octets;
        let key = TpmKey { socket: device.tpm.data_socket(), key: device.key.clone() };
        Self { certificate: CertificateDer::from(der), key }
    }

    /// POSTs over TLS with this identity; `device` lets go of its TPM meanwhile.
    pub(crate) fn post(
        &self,
        lab: &Lab,
        device: &mut Claimant,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        device.vault.tpm().transport().hang_up();
        let fields: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let len = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {len}\r\n{fields}\r\n"
        );
        let mut stream = self.connect(lab, lab.provisioner_port());
        stream.write_all(&[head.as_bytes(), body].concat()).or_fail("a request");
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => panic!("{error}"),
            _ => Reply::read(&answer).or_fail("an answer"),
        }
    }

    /// A connection to a server on that port, whose certificate is of the lab's server tree.
    pub(crate) fn connect(&self, lab: &Lab, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
        let root = CertificateDer::from_pem_file(text(&lab.server_root())).or_fail("the root");
        let mut roots = RootCertStore::empty();
        roots.add(root).or_fail("the root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .or_fail("TLS");
        let config =
            builder.with_root_certificates(roots).with_client_cert_resolver(Arc::new(self.clone()));
        let name = ServerName::try_from("localhost").or_fail("a name");
        let client = ClientConnection::new(Arc::new(config), name).or_fail("a client");
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        StreamOwned::new(client, stream.or_fail("a connection"))
    }
}
