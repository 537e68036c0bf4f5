//! MQTT 3.1.1 packets on a byte stream, with limits.
//!
//! **What it is.** [`Framed`] reads and writes whole packets by the codec of `rumqttc`.
//!
//! **What it must never do.** Buffer more than one packet of the permitted length; parse a packet
//! that a broker has no business sending. Kinds and lengths are checked on the fixed header, before
//! the rest is read.

use std::io;

use bytes::BytesMut;
use futures_lite::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::Packet;

use crate::link::{PAYLOAD_LEN_MAX, TOPIC_LEN_MAX};
use crate::net::NetError;

use super::MqttError;

/// Octets of a packet from the broker, at most: commands are short, and so is our own state.
pub(super) const INCOMING_LEN_MAX: usize = 16 * 1024;

/// Octets of a packet to the broker, at most: the longest payload under the longest topic, with
/// our prefix and headers.
pub(super) const OUTGOING_LEN_MAX: usize = PAYLOAD_LEN_MAX + TOPIC_LEN_MAX + 256;

/// Octets read at once.
const CHUNK_LEN: usize = 2 * 1024;

/// A stream of packets.
#[derive(Debug)]
pub(super) struct Framed<S> {
    stream: S,
    received: BytesMut,
    chunk: Box<[u8]>,
    outgoing: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Framed<S> {
    pub(super) fn new(stream: S) -> Self {
        let chunk = vec![0; CHUNK_LEN].into_boxed_slice();
        Self { stream, received: BytesMut::new(), chunk, outgoing: BytesMut::new() }
    }

    /// The next packet. Dropping the future loses nothing.
    pub(super) async fn read(&mut self) -> Result<Packet, MqttError> {
        loop {
            if let Some(packet) = decode(&mut self.received)? {
                return Ok(packet);
            }
            let read = self.stream.read(&mut self.chunk).await.map_err(NetError::from)?;
            match self.chunk.get(..read) {
                None | Some([]) => return Err(NetError::Ended.into()),
                Some(chunk) => self.received.extend_from_slice(chunk),
            }
        }
    }

    /// Puts a packet into the buffer of what is to be sent.
    pub(super) fn queue(&mut self, packet: &Packet) -> Result<(), MqttError> {
        packet.write(&mut self.outgoing, OUTGOING_LEN_MAX)?;
        Ok(())
    }

    /// Whether something is queued.
    pub(super) fn has_queued(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Sends what is queued.
    pub(super) async fn flush(&mut self) -> Result<(), MqttError> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let sent: io::Result<()> = async {
            self.stream.write_all(&self.outgoing).await?;
            self.stream.flush().await
        }
        .await;
        self.outgoing.clear();
        Ok(sent.map_err(NetError::from)?)
    }
}

/// Takes one packet off the front, if it is whole.
fn decode(received: &mut BytesMut) -> Result<Option<Packet>, MqttError> {
    let Some(first) = received.first() else {
        return Ok(None);
    };
    if !is_from_a_broker(first >> 4) {
        return Err(MqttError::UnexpectedPacket { kind: first >> 4 });
    }
    match Packet::read(received, INCOMING_LEN_MAX) {
        Ok(packet) => Ok(Some(packet)),
        Err(CodecError::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a broker sends such packets to a client that publishes and subscribes at QoS 1 at most:
/// CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP (MQTT 3.1.1 §2.2.1).
const fn is_from_a_broker(kind: u8) -> bool {
    matches!(kind, 2 | 3 | 4 | 9 | 13)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use futures_lite::io::Cursor;
    use rumqttc::mqttbytes::v4::{Packet, PubAck};

    use super::{Framed, INCOMING_LEN_MAX, MqttError};

    fn framed(octets: &[u8]) -> Framed<Cursor<Vec<u8>>> {
        Framed::new(Cursor::new(octets.to_vec()))
    }

    #[test]
    fn packets_come_out_one_by_one_however_they_were_sent() {
        let mut framed = framed(&[0x40, 2, 0, 7, 0xd0, 0, 0x40, 2, 1, 0]);
        block_on(async {
            assert_eq!(framed.read().await.unwrap(), Packet::PubAck(PubAck::new(7)));
            assert_eq!(framed.read().await.unwrap(), Packet::PingResp);
            assert_eq!(framed.read().await.unwrap(), Packet::PubAck(PubAck::new(256)));
            assert!(framed.read().await.is_err());
        });
    }

    #[test]
    fn what_a_broker_never_sends_is_refused_by_its_first_octet() {
        for kind in [0, 1, 5, 6, 7, 8, 10, 11, 12, 14, 15] {
            let found = block_on(framed(&[kind << 4]).read()).unwrap_err();
            assert!(
                matches!(found, MqttError::UnexpectedPacket { kind: k } if k == kind),
                "{found}"
            );
        }
    }

    #[test]
    fn a_packet_that_claims_too_much_is_refused_before_it_is_read() {
        let len = INCOMING_LEN_MAX + 1;
        let seven = |shift: u32| u8::try_from((len >> shift) & 0x7f).unwrap();
        let header = [0x30, seven(0) | 0x80, seven(7) | 0x80, seven(14)];
        assert!(matches!(block_on(framed(&header).read()), Err(MqttError::Codec(_))));
    }

    /// Goal: no garbage makes the codec panic or wait for what cannot come.
    #[test]
    fn garbage_of_any_kind_ends_in_an_error() {
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut octets: Vec<u8> = (0..48)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    seed.to_be_bytes()[0]
                })
                .collect();
            octets[0] = [0x20, 0x32, 0x40, 0x90, 0xd0][usize::from(octets[0]) % 5];
            octets[1] %= 47;
            let mut framed = framed(&octets);
            while block_on(framed.read()).is_ok() {}
        }
    }
}
