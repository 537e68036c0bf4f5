//! One connection to the broker, from CONNECT to its end.

use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, LastWill, Packet};

use crate::clock::within;
use crate::net::NetError;

use super::codec::Framed;
use super::outbox::Outbox;
use super::{MqttError, message};

/// The broker answers CONNECT within this.
const CONNACK_MAX: Duration = Duration::from_secs(10);

/// The network takes what we send within this; a broker that reads nothing for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// A broker that got DISCONNECT closes the connection within this; if not, we do.
const GOODBYE_MAX: Duration = Duration::from_millis(250);

/// Who we are to the broker.
#[derive(Clone, Debug)]
pub(super) struct Introduction {
    /// The client id: the device id.
    pub(super) client_id: String,
    /// Seconds between two signs of life.
    pub(super) keep_alive_s: u16,
    /// Where births and deaths are said.
    pub(super) state_topic: String,
}

/// A session that the broker accepted.
#[derive(Debug)]
pub(super) struct Session<S> {
    framed: Framed<S>,
    /// The number of this session's birth and death.
    pub(super) generation: u64,
    /// Whether the session has begun to speak.
    pub(super) is_greeted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Sends CONNECT and waits for CONNACK: the broker's word that it accepts us.
    pub(super) async fn open(
        stream: S,
        introduction: &Introduction,
        generation: u64,
    ) -> Result<Self, MqttError> {
        let mut framed = Framed::new(stream);
        framed.queue(&Packet::Connect(connect(introduction, generation)))?;
        let answer = within(CONNACK_MAX, async {
            framed.flush().await?;
            framed.read().await
        });
        let late = NetError::Deadline { step: "MQTT CONNECT", limit: CONNACK_MAX };
        match answer.await.ok_or(late)?? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                log::debug!("connected to the broker, session present: {}", ack.session_present);
                Ok(Self { framed, generation, is_greeted: false })
            }
            Packet::ConnAck(ack) => Err(MqttError::Refused(ack.code)),
            _ => Err(MqttError::NoConnack),
        }
    }

    /// The next packet. Dropping the future loses nothing.
    pub(super) async fn read(&mut self) -> Result<Packet, MqttError> {
        self.framed.read().await
    }

    /// Puts a packet into the buffer of what is to be sent.
    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), MqttError> {
        self.framed.queue(packet)
    }

    /// Whether something is queued.
    pub(super) fn has_queued(&self) -> bool {
        self.framed.has_queued()
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), MqttError> {
        let late = NetError::Deadline { step: "write", limit: WRITE_MAX };
        within(WRITE_MAX, self.framed.flush()).await.ok_or(late)?
    }

    /// Sends DISCONNECT, so that no last will fires, and takes the acknowledgements that are still
    /// on their way until the broker has closed the connection: then it is certain that the broker
    /// saw the end of this session before it sees the beginning of another.
    pub(super) async fn close(mut self, outbox: &mut Outbox) {
        let goodbye = async {
            self.framed.queue(&Packet::Disconnect)?;
            self.framed.flush().await?;
            loop {
                let packet = self.framed.read().await?;
                if matches!(packet, Packet::PubAck(_)) {
                    outbox.receive(packet)?;
                }
            }
        };
        let end: Option<Result<(), MqttError>> = within(GOODBYE_MAX, goodbye).await;
        if let Some(Err(error)) = end {
            log::debug!("old session ended: {error}");
        }
    }
}

/// MQTT 3.1.1 §3.1: the session outlives the connection, the will is the death of this generation.
fn connect(introduction: &Introduction, generation: u64) -> Connect {
    let Introduction { client_id, keep_alive_s, state_topic } = introduction;
    let death = message::death(generation);
    let mut connect = Connect::new(client_id.clone());
    connect.clean_session = false;
    connect.keep_alive = *keep_alive_s;
    connect.last_will = Some(LastWill::new(state_topic.clone(), death, QoS::AtLeastOnce, true));
    connect
}
