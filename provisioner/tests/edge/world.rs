//! A whole provisioner in this process: real TLS on loopback, time by our own clock, limits short
//! enough to wait for, the database in memory.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use fleetcert_provisioner::{
    authority::{
        Authority, Identity, Profile, PublicKey,
        profile::{DnsName, Kind, TrustDomain},
        tree::{self, NewTree, TreeKind, TreeSettings},
    },
    clock::Clock,
    enroll::{Admission, Group, Provisioner, ServerOrder, Settings, TokenOrder},
    entropy::SystemEntropy,
    http::{
        Edge,
        server::{Limits, Server},
    },
    inventory::Name,
    store::{Store, memory::MemoryStore},
    tls::{self, Material},
};
use rcgen::PublicKeyData;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use fleetcert_core::{device_id::DeviceId, time::Wall};

/// When each test begins: 2026-01-01.
pub(crate) const START: Wall = Wall(1_767_225_600);

/// Seconds of a device certificate's life.
pub(crate) const LIFETIME_S: u64 = 86_400;

/// Seconds after expiry in which a device still recovers.
pub(crate) const RECOVERY_WINDOW_S: u64 = 3_600;

/// How long a test waits for an answer before it fails.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn wall(&self) -> Wall {
        Wall(self.0.load(Ordering::SeqCst))
    }
}

/// A key pair with a certificate chain.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) pkcs8: Vec<u8>,
}

/// A running provisioner.
pub(crate) struct World<S> {
    pub(crate) provisioner: Arc<Provisioner<S>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) device_tree: NewTree,
    pub(crate) server_tree: NewTree,
    pub(crate) server: Credential,
    address: SocketAddr,
    stop: Option<smol::channel::Sender<()>>,
    thread: Option<JoinHandle<usize>>,
}

/// Limits that a test can wait for.
pub(crate) fn limits() -> Limits {
    let short = Duration::from_millis(300);
    Limits {
        connections_max: 8,
        handshake: short,
        head: short,
        request: short,
        stall: short,
        ..Limits::default()
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn group(admission: Admission) -> Group {
    Group {
        admission,
        profile: Profile { lifetime_s: LIFETIME_S, backdate_s: 60, ..Profile::new(Kind::Device) },
        dns_domain: None,
        recovery_window_s: RECOVERY_WINDOW_S,
        recovery_interval_s: 60,
        retry_after_s: 7,
        allow_virtual_tpm: false,
    }
}

/// Tokens in the group `default`, approval in `lab`, each with a label.
pub(crate) fn settings(tokens_only: bool) -> Settings {
    let mut groups = BTreeMap::from([(name("default"), group(Admission::Token))]);
    let mut labels = BTreeMap::from([(name("line-1"), name("default"))]);
    if !tokens_only {
        groups.insert(name("lab"), group(Admission::Approval));
        labels.insert(name("lab"), name("lab"));
    }
    Settings {
        trust_domain: TrustDomain::parse("fleet.example").unwrap(),
        groups,
        labels,
        default_group: Some(name("default")),
        pending_max: 2,
        crl_validity_s: 86_400,
    }
}

pub(crate) fn tree_of(kind: TreeKind) -> NewTree {
    let settings = TreeSettings {
        organisation: "fleet.example".into(),
        root_lifetime_s: 10 * 365 * 86_400,
        issuing_lifetime_s: 5 * 365 * 86_400,
    };
    let passphrase = "a passphrase for tests";
    tree::create(kind, &settings, passphrase, START, &mut SystemEntropy::new()).unwrap()
}

pub(crate) fn authority_of(tree: &NewTree) -> Authority {
    let key = tree::key_from_pem(&tree.issuing_key_pem).unwrap();
    Authority::from_der(&tree.issuing_certificate, &key).unwrap()
}

fn private_key(pkcs8: &[u8]) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.to_vec()))
}

fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

impl World<MemoryStore> {
    /// A provisioner with every policy.
    pub(crate) fn new() -> Self {
        Self::over(MemoryStore::default(), settings(false), limits())
    }

    /// A provisioner that admits by token only.
    pub(crate) fn with_tokens_only() -> Self {
        Self::over(MemoryStore::default(), settings(true), limits())
    }

    /// A provisioner with other limits.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::over(MemoryStore::default(), settings(false), limits)
    }

    /// Enters a device and makes its token.
    pub(crate) fn token(&self, device: &str) -> String {
        let order = TokenOrder {
            device: DeviceId::parse(device).unwrap(),
            group: Some(name("default")),
            label: None,
            ttl_s: 3_600,
        };
        let now = self.clock.wall();
        let mut entropy = SystemEntropy::new();
        let secret = self.provisioner.issue_token(order, "test", now, &mut entropy);
        smol::block_on(secret).unwrap().text().to_string()
    }

    /// Enrolls a device by token and gives its credential with the issuing CA.
    pub(crate) fn enrolled(&self, device: &str) -> Credential {
        let request = Csr::new(device);
        let answer =
            self.ask(None, &request.post("simpleenroll", Some((device, &self.token(device)))));
        assert_eq!(answer.status, 200, "{answer:?}");
        let chain =
            vec![answer.certificates().remove(0), self.device_tree.issuing_certificate.clone()];
        Credential { chain, pkcs8: request.pkcs8 }
    }
}

impl<S: Store + 'static> World<S> {
    /// A provisioner whose service runs over `store` from now on.
    pub(crate) fn over(store: S, settings: Settings, limits: Limits) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(START.0)));
        let (device_tree, server_tree) = (tree_of(TreeKind::Device), tree_of(TreeKind::Server));
        let server = server_credential(&server_tree);
        let provisioner = Arc::new(Provisioner::new(store, settings, authority_of(&device_tree)));
        let material = Material {
            server_chain: certificates(&server.chain),
            server_key: private_key(&server.pkcs8),
            device_chain: certificates(&[
                device_tree.issuing_certificate.clone(),
                device_tree.root_certificate.clone(),
            ]),
        };
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let acceptor = tls::acceptor(material, &shared).unwrap();
        let ca_certificates = [
            device_tree.issuing_certificate.as_slice(),
            &device_tree.root_certificate,
            &server_tree.root_certificate,
        ];
        let edge = Edge::new(Arc::clone(&provisioner), &ca_certificates, shared, limits);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = smol::block_on(Server::bind(any, acceptor, edge, limits)).unwrap();
        let address = bound.local_addr().unwrap();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let thread = std::thread::spawn(move || {
            let executor = Arc::new(smol::Executor::new());
            let stop = async {
                let _closed = stopped.recv().await;
            };
            smol::block_on(executor.run(bound.run(&executor, stop)))
        });
        let (stop, thread) = (Some(stop), Some(thread));
        Self { provisioner, clock, device_tree, server_tree, server, address, stop, thread }
    }

    /// What the clock says.
    pub(crate) fn now(&self) -> Wall {
        self.clock.wall()
    }

    /// Moves the clock.
    pub(crate) fn advance_s(&self, s: u64) {
        self.clock.0.fetch_add(s, Ordering::SeqCst);
    }

    /// Moves the clock back.
    pub(crate) fn set_back_s(&self, s: u64) {
        self.clock.0.fetch_sub(s, Ordering::SeqCst);
    }

    /// A TCP connection with nothing said on it.
    pub(crate) fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_WAIT)).unwrap();
        stream
    }

    /// How a client with this identity speaks TLS.
    pub(crate) fn client(&self, identity: Option<&Credential>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.server_tree.root_certificate.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(ClientTime))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(Credential { chain, pkcs8 }) => {
                builder.with_client_auth_cert(certificates(chain), private_key(pkcs8)).unwrap()
            }
        }
    }

    /// A TLS connection; its handshake happens when it is used.
    pub(crate) fn connect(&self, config: Arc<ClientConfig>) -> Connection {
        let server = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(config, server).unwrap();
        Connection(StreamOwned::new(client, self.tcp()))
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, identity: Option<&Credential>, request: &[u8]) -> Answer {
        self.try_ask(identity, request).unwrap()
    }

    /// As [`World::ask`], where TLS may be refused.
    pub(crate) fn try_ask(
        &self,
        identity: Option<&Credential>,
        request: &[u8],
    ) -> io::Result<Answer> {
        let mut connection = self.connect(Arc::new(self.client(identity)));
        connection.0.write_all(request)?;
        connection.answer()
    }

    /// `GET path` on a connection of its own.
    pub(crate) fn get(&self, identity: Option<&Credential>, path: &str) -> Answer {
        self.ask(identity, get(path).as_bytes())
    }

    /// Asks the service to stop, without waiting.
    pub(crate) fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits for the service to have stopped; how many connections it had to cut.
    pub(crate) fn stopped(mut self) -> usize {
        self.stop = None;
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<S> Drop for World<S> {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// The client's time, for the server's certificate: always [`START`].
#[derive(Debug)]
struct ClientTime;

impl rustls::time_provider::TimeProvider for ClientTime {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        Some(rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(START.0)))
    }
}

/// A server's certificate for `localhost`, from this tree.
pub(crate) fn server_credential(tree: &NewTree) -> Credential {
    let mut entropy = SystemEntropy::new();
    let pkcs8 = tree::key(&mut entropy).unwrap().to_vec();
    let pair = rcgen::KeyPair::try_from(pkcs8.as_slice()).unwrap();
    let order = ServerOrder {
        profile: Profile::new(Kind::Server),
        identity: Identity::Server {
            dns: vec![DnsName::parse("localhost").unwrap()],
            addresses: Vec::new(),
        },
        key: PublicKey::from_spki(&pair.subject_public_key_info()).unwrap(),
    };
    let authority = authority_of(tree);
    let issuer = Provisioner::new(MemoryStore::default(), settings(true), authority_of(tree));
    let issued = issuer.issue_server(&authority, order, "test", START, &mut entropy);
    let leaf = smol::block_on(issued).unwrap().der;
    Credential { chain: vec![leaf, tree.issuing_certificate.clone()], pkcs8 }
}

/// A key and a certification request for it.
pub(crate) struct Csr {
    pub(crate) pkcs8: Vec<u8>,
    pub(crate) der: Vec<u8>,
}

impl Csr {
    /// A request under a common name.
    pub(crate) fn new(common_name: &str) -> Self {
        Self::with_san(common_name, None)
    }

    /// A request for the names of an enrolled device, as a re-enrollment makes it.
    pub(crate) fn again(device: &str) -> Self {
        Self::with_san(device, Some(format!("spiffe://fleet.example/device/{device}")))
    }

    fn with_san(common_name: &str, uri: Option<String>) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.subject_alt_names =
            uri.map(|uri| rcgen::SanType::URI(uri.try_into().unwrap())).into_iter().collect();
        let der = params.serialize_request(&pair).unwrap().der().to_vec();
        Self { pkcs8: pair.serialize_der(), der }
    }

    /// The request as a POST to an operation, on one line.
    pub(crate) fn post(&self, operation: &str, basic: Option<(&str, &str)>) -> Vec<u8> {
        post(&format!("/.well-known/est/{operation}"), basic, base64(&self.der).as_bytes())
    }
}

pub(crate) fn base64(octets: &[u8]) -> String {
    use base64ct::Encoding;
    base64ct::Base64::encode_string(octets)
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

pub(crate) fn post(path: &str, basic: Option<(&str, &str)>, body: &[u8]) -> Vec<u8> {
    let authorization = basic.map_or_else(String::new, |(user, password)| {
        format!("Authorization: Basic {}\r\n", base64(format!("{user}:{password}").as_bytes()))
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\
         Content-Type: application/pkcs10\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A client's connection.
pub(crate) struct Connection(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.0.write_all(octets.as_ref()).unwrap();
    }

    /// Whether these octets can be sent, as far as we can tell.
    pub(crate) fn goes_out(&mut self, octets: &[u8]) -> bool {
        self.0.write_all(octets).and_then(|()| self.0.flush()).is_ok()
    }

    /// Reads one answer, to the end of its body.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut octet = [0];
            self.0.read_exact(&mut octet)?;
            head.push(octet[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let (line, fields) = head.split_once("\r\n").unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let fields = fields.lines().filter_map(|line| line.split_once(": "));
        let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let mut answer = Answer { status, fields, body: Vec::new() };
        answer.body = vec![0; answer.field("content-length").map_or(0, |len| len.parse().unwrap())];
        self.0.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Whether the server ends the connection without another octet.
    pub(crate) fn ends(&mut self) -> bool {
        let mut octet = [0];
        match self.0.read(&mut octet) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub(crate) fn reason(&self) -> &str {
        self.field("fleetcert-reason").unwrap_or("")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The certificates of a certs-only body.
    pub(crate) fn certificates(&self) -> Vec<Vec<u8>> {
        use base64ct::Encoding;
        assert_eq!(
            self.field("content-type"),
            Some("application/pkcs7-mime; smime-type=certs-only")
        );
        let der = base64ct::Base64::decode_vec(&self.text().replace('\n', "")).unwrap();
        let (_, content) = element(&der);
        let (_oid, content) = element_and_rest(content);
        let (_, signed_data) = element(element(content).1);
        let (_version, rest) = element_and_rest(signed_data);
        let (_algorithms, rest) = element_and_rest(rest);
        let (_content, rest) = element_and_rest(rest);
        let mut rest = element(rest).1;
        let mut certificates = Vec::new();
        while !rest.is_empty() {
            let (certificate, after) = element_and_rest(rest);
            certificates.push(certificate.to_vec());
            rest = after;
        }
        certificates
    }
}

/// The first DER element's tag and content.
fn element(der: &[u8]) -> (u8, &[u8]) {
    let (head, len) = match der[1] {
        short if short < 0x80 => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        _ => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
    };
    (der[0], &der[head..head + len])
}

/// The first DER element, whole, and what follows it.
fn element_and_rest(der: &[u8]) -> (&[u8], &[u8]) {
    let (_, content) = element(der);
    let head = if content.len() < 0x80 {
        2
    } else if content.len() < 0x100 {
        3
    } else {
        4
    };
    der.split_at(head + content.len())
}
