//! A real mosquitto on loopback, and somebody who listens to it.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use fleetcert_agent::config::Endpoint;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Connect, Packet, PubAck, Publish, Subscribe};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::net::TcpStream;

use super::pki::{Authority, Issued};
use super::soon;

/// Where Debian puts it.
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// How often a port that somebody else took meanwhile is replaced.
const ATTEMPTS_MAX: usize = 5;

/// A running broker, killed when dropped.
pub(crate) struct Mosquitto {
    process: Child,
    /// Mutual TLS.
    pub(crate) port: u16,
    /// Plain, for listeners.
    pub(crate) plain_port: u16,
}

impl Mosquitto {
    /// A broker that admits devices of one tree, each under its own name. `crl` in PEM, if any.
    pub(crate) fn start(
        dir: &Path,
        server: &Issued,
        devices: &Authority,
        crl: Option<&str>,
    ) -> Self {
        (0..ATTEMPTS_MAX)
            .find_map(|_| Self::try_start(dir, server, devices, crl, free_port()))
            .expect("mosquitto does not start")
    }

    /// The same on a port that is known already.
    pub(crate) fn start_at(port: u16, dir: &Path, server: &Issued, devices: &Authority) -> Self {
        Self::try_start(dir, server, devices, None, port).expect("mosquitto does not start")
    }

    fn try_start(
        dir: &Path,
        server: &Issued,
        devices: &Authority,
        crl: Option<&str>,
        port: u16,
    ) -> Option<Self> {
        let plain_port = free_port();
        let crl_line = crl.map(|_| format!("crlfile {}/crl.pem\n", dir.display()));
        let config = format!(
            "per_listener_settings true\npersistence false\nuser root\n\
             listener {port} 127.0.0.1\ncafile {dir}/devices.pem\ncertfile {dir}/server.pem\n\
             keyfile {dir}/server.key\nrequire_certificate true\nuse_identity_as_username true\n\
             use_username_as_clientid true\nacl_file {dir}/acl\n{crl}\
             listener {plain_port} 127.0.0.1\nallow_anonymous true\n",
            dir = dir.display(),
            crl = crl_line.unwrap_or_default(),
        );
        let files = [
            ("mosquitto.conf", config),
            ("devices.pem", devices.pem.clone()),
            ("server.pem", server.pem.clone()),
            ("server.key", server.key.serialize_pem()),
            ("acl", "pattern readwrite fleetcert/v1/%u/#\n".into()),
            ("crl.pem", crl.unwrap_or_default().into()),
        ];
        for (name, content) in files {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let mut process = Command::new(MOSQUITTO)
            .args(["-v", "-c"])
            .arg(dir.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let is_running = log.any(|line| line.is_ok_and(|line| line.ends_with(" running")));
        // The log is read to its end, or the broker would block on a full pipe.
        std::thread::spawn(move || log.for_each(drop));
        let broker = Self { process, port, plain_port };
        is_running.then_some(broker)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port: self.port }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A client of the plain port: sees everything and may say anything.
pub(crate) struct Observer {
    stream: TcpStream,
    received: BytesMut,
}

impl Observer {
    /// Subscribed to everything when this returns.
    pub(crate) async fn new(broker: &Mosquitto) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.plain_port)).await.unwrap();
        let mut observer = Self { stream, received: BytesMut::new() };
        observer.send(Packet::Connect(Connect::new("observer"))).await;
        assert!(matches!(soon(observer.packet()).await, Packet::ConnAck(_)));
        let mut subscribe = Subscribe::new("fleetcert/v1/#", QoS::AtLeastOnce);
        subscribe.pkid = 1;
        observer.send(Packet::Subscribe(subscribe)).await;
        assert!(matches!(soon(observer.packet()).await, Packet::SubAck(_)));
        observer
    }

    /// The next message to the topic that ends like this.
    pub(crate) async fn message(&mut self, ending: &str) -> Publish {
        soon(async {
            loop {
                if let Packet::Publish(publish) = self.packet().await {
                    if publish.pkid != 0 {
                        self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
                    }
                    if publish.topic.ends_with(ending) {
                        return publish;
                    }
                }
            }
        })
        .await
    }

    /// The next message there, as JSON.
    pub(crate) async fn json(&mut self, ending: &str) -> serde_json::Value {
        serde_json::from_slice(&self.message(ending).await.payload).unwrap()
    }

    pub(crate) async fn publish(&mut self, topic: &str, retain: bool, payload: &str) {
        let mut publish = Publish::new(topic, QoS::AtMostOnce, payload);
        publish.retain = retain;
        self.send(Packet::Publish(publish)).await;
    }

    async fn send(&mut self, packet: Packet) {
        let mut octets = BytesMut::new();
        packet.write(&mut octets, 1 << 20).unwrap();
        self.stream.write_all(&octets).await.unwrap();
    }

    async fn packet(&mut self) -> Packet {
        loop {
            if let Ok(packet) = Packet::read(&mut self.received, 1 << 20) {
                return packet;
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0, "the broker hung up on the observer");
            self.received.extend_from_slice(&chunk[..read]);
        }
    }
}

/// Long enough for a message that must not come to have come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
