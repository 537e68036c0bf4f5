//! The packets of MQTT 3.1.1 that a device sends and hears, over octets.
//!
//! **What it must never do.** Believe a length. Each one is compared with what is there, or with a
//! named limit, before it is used; a packet that a broker has no business sending is refused by its
//! first octet, and one with an octet too many or too few by its kind.

use core::fmt;
use core::ops::Range;

use crate::console::show_code;

/// Why octets are no packet that a broker may send us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// The flags of a fixed header are not those of its kind (§2.2.2), or ask for QoS 2.
    Flags {
        /// Its first octet.
        found: u8,
    },
    /// No packet of this kind comes from a broker to a client of QoS 1 (§2.2.1).
    Kind {
        /// The kind, 0 to 15.
        found: u8,
    },
    /// What is in it does not have the length or the values that its kind has.
    Malformed {
        /// The kind, 0 to 15.
        kind: u8,
    },
    /// A remaining length of more than four octets (§2.2.3).
    RemainingLength,
    /// It is longer than any packet that we take.
    TooLong,
    /// The topic is longer than any of ours, or is no name (§4.7).
    Topic,
}

/// Kinds of packets, MQTT 3.1.1 §2.2.1.
mod kind {
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const PINGRESP: u8 = 13;
}

/// The flag of a PUBLISH that was sent before (§3.3.1.1).
pub(super) const DUP: u8 = 0x08;

/// The first octet of a PUBLISH at QoS 1.
pub(super) const PUBLISH_QOS_1: u8 = 0x32;

/// The flag of a PUBLISH that is to be kept, or was (§3.3.1.3).
pub(super) const RETAIN: u8 = 0x01;

/// PINGREQ, whole.
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];

/// DISCONNECT, whole.
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Octets of a remaining length, at most (§2.2.3).
const REMAINING_LEN_MAX: usize = 4;

/// Octets of the fixed header of a packet of ours, at most: of one that is shorter than 16 KiB.
const OUR_HEADER_LEN_MAX: usize = 3;

/// The fixed header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Kind and flags.
    pub(super) first: u8,
    /// Octets of the header.
    pub(super) len: usize,
    /// Octets of the whole packet.
    pub(super) total: usize,
}

/// A packet from a broker; ranges are within the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    ConnAck {
        is_session_present: bool,
        code: u8,
    },
    /// A PUBLISH that was longer than what is taken, of so many octets.
    PassedOver {
        len: usize,
        id: Option<u16>,
    },
    PingResp,
    PubAck {
        id: u16,
    },
    Publish {
        head: PublishHead,
        payload: Range<usize>,
    },
    SubAck {
        id: u16,
        is_granted: bool,
    },
}

/// What stands before the payload of a PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishHead {
    /// The topic's octets.
    pub(super) topic: Range<usize>,
    /// To be acknowledged, at QoS 1.
    pub(super) id: Option<u16>,
    /// Whether the broker had kept it.
    pub(super) is_retained: bool,
}

impl Header {
    /// Reads a fixed header, if it is whole. What it says was checked against `max`, the octets of
    /// a whole packet.
    pub(super) fn parse(octets: &[u8], max: usize) -> Result<Option<Self>, PacketError> {
        let Some((&first, rest)) = octets.split_first() else { return Ok(None) };
        check_first(first)?;
        let mut remaining = 0_usize;
        for (at, octet) in rest.iter().enumerate().take(REMAINING_LEN_MAX) {
            remaining |= usize::from(octet & 0x7f) << (7 * at);
            if octet & 0x80 == 0 {
                let len = at + 2;
                let total = len + remaining;
                if total > max {
                    return Err(PacketError::TooLong);
                }
                return Ok(Some(Self { first, len, total }));
            }
        }
        if rest.len() >= REMAINING_LEN_MAX { Err(PacketError::RemainingLength) } else { Ok(None) }
    }

    pub(super) const fn is_publish(&self) -> bool {
        self.first >> 4 == kind::PUBLISH
    }
}

/// Kind and flags, which are fixed but for PUBLISH.
fn check_first(first: u8) -> Result<(), PacketError> {
    let found = first >> 4;
    // A bit for each value that the flags may have.
    let flags: u16 = match found {
        kind::CONNACK | kind::PUBACK | kind::SUBACK | kind::PINGRESP => 1,
        // DUP at QoS 0 may not be (§3.3.1.1).
        kind::PUBLISH => 0b1100_0000_1111,
        _ => return Err(PacketError::Kind { found }),
    };
    if flags >> (first & 0x0f) & 1 == 1 { Ok(()) } else { Err(PacketError::Flags { found: first }) }
}

/// Reads a whole packet, whose header was read from it.
pub(super) fn parse(header: Header, packet: &[u8]) -> Result<Incoming, PacketError> {
    let kind = header.first >> 4;
    let malformed = PacketError::Malformed { kind };
    let body = packet.get(header.len..header.total).ok_or(malformed)?;
    match (kind, body) {
        (kind::CONNACK, &[flags @ 0..=1, code]) => {
            Ok(Incoming::ConnAck { is_session_present: flags == 1, code })
        }
        (kind::PINGRESP, []) => Ok(Incoming::PingResp),
        (kind::PUBACK, &[high, low]) => Ok(Incoming::PubAck { id: id(high, low, malformed)? }),
        (kind::PUBLISH, _) => {
            let (head, at) = publish_head(header, packet)?.ok_or(malformed)?;
            Ok(Incoming::Publish { head, payload: at..header.total })
        }
        (kind::SUBACK, &[high, low, ref codes @ ..]) if !codes.is_empty() => {
            let is_granted = codes.iter().all(|code| *code <= 1);
            Ok(Incoming::SubAck { id: id(high, low, malformed)?, is_granted })
        }
        _ => Err(malformed),
    }
}

/// §2.3.1: no identifier is zero.
const fn id(high: u8, low: u8, error: PacketError) -> Result<u16, PacketError> {
    match u16::from_be_bytes([high, low]) {
        0 => Err(error),
        id => Ok(id),
    }
}

/// Reads what stands before the payload of a PUBLISH of which `octets` are there, and where the
/// payload begins; `None` as long as too little is there to know.
pub(super) fn publish_head(
    header: Header,
    octets: &[u8],
) -> Result<Option<(PublishHead, usize)>, PacketError> {
    let malformed = PacketError::Malformed { kind: kind::PUBLISH };
    let has_id = header.first & 0x06 != 0;
    let topic_at = header.len + 2;
    let Some(&[high, low]) = octets.get(header.len..topic_at) else {
        return if topic_at > header.total { Err(malformed) } else { Ok(None) };
    };
    let topic = topic_at..topic_at + usize::from(u16::from_be_bytes([high, low]));
    let end = topic.end + if has_id { 2 } else { 0 };
    if end > header.total {
        return Err(malformed);
    }
    let Some(octets) = octets.get(..end) else { return Ok(None) };
    check_topic(octets.get(topic.clone()).unwrap_or_default())?;
    let id = match octets.get(topic.end..end) {
        Some(&[high, low]) => Some(id(high, low, malformed)?),
        _ => None,
    };
    let is_retained = header.first & RETAIN != 0;
    Ok(Some((PublishHead { topic, id, is_retained }, end)))
}

/// §4.7: a name has at least one character, and no wildcard or U+0000 among them.
fn check_topic(octets: &[u8]) -> Result<(), PacketError> {
    let is_sound = !octets.is_empty()
        && core::str::from_utf8(octets).is_ok()
        && !octets.iter().any(|octet| matches!(octet, b'+' | b'#' | 0));
    if is_sound { Ok(()) } else { Err(PacketError::Topic) }
}

/// Writes a packet to the front of a slice, of less than 16 KiB. Whether there is room for all of it
/// is looked at once, at its end.
struct Writer<'o> {
    out: &'o mut [u8],
    /// Where it would end.
    end: usize,
}

impl<'o> Writer<'o> {
    /// A packet, of which the fixed header is written at last.
    const fn begin(out: &'o mut [u8]) -> Self {
        Self { out, end: OUR_HEADER_LEN_MAX }
    }

    fn octets(&mut self, octets: &[u8]) {
        let rest = self.out.get_mut(self.end..).unwrap_or_default();
        self.end = self.end.saturating_add(octets.len());
        if let Some(room) = rest.get_mut(..octets.len()) {
            room.copy_from_slice(octets);
        }
    }

    fn number(&mut self, number: u16) {
        self.octets(&number.to_be_bytes());
    }

    /// §1.5.3: a length of two octets, and the octets, which are given in parts.
    fn field(&mut self, parts: &[&str]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // What is longer has no room either.
        self.number(u16::try_from(len).unwrap_or(u16::MAX));
        for part in parts {
            self.octets(part.as_bytes());
        }
    }

    /// Sets the fixed header before it; its octets, or `None` if there is no room for them.
    fn finish(self, first: u8) -> Option<usize> {
        let Self { out, end } = self;
        let out = out.get_mut(..end)?;
        // Seven bits in each of two octets.
        let remaining =
            u16::try_from(end - OUR_HEADER_LEN_MAX).ok().filter(|len| len >> 14 == 0)?;
        let [high, low] = (remaining << 1).to_be_bytes();
        let header = out.first_chunk_mut()?;
        if high > 0 {
            *header = [first, low >> 1 | 0x80, high];
            return Some(end);
        }
        *header = [0, first, low >> 1];
        out.copy_within(1.., 0);
        Some(end - 1)
    }
}

/// The parts of a topic's name, which stand one behind the other.
pub(super) type Name<'n> = [&'n str; 4];

/// Who connects, and what is to be said when it is gone.
pub(super) struct Connect<'c> {
    pub(super) client_id: &'c str,
    pub(super) keep_alive_s: u16,
    pub(super) will_topic: Name<'c>,
    pub(super) will: &'c str,
}

/// CONNECT (§3.1): the session outlives the connection; the will is kept, at QoS 1.
pub(super) fn connect(connect: &Connect<'_>, out: &mut [u8]) -> Option<usize> {
    const FLAGS: u8 = 0x04 | 0x08 | 0x20;
    let mut writer = Writer::begin(out);
    writer.field(&["MQTT"]);
    writer.octets(&[4, FLAGS]);
    writer.number(connect.keep_alive_s);
    for field in [&[connect.client_id][..], &connect.will_topic, &[connect.will]] {
        writer.field(field);
    }
    writer.finish(0x10)
}

/// PUBLISH at QoS 1 (§3.3).
pub(super) fn publish(
    topic: Name<'_>,
    payload: &[u8],
    is_retained: bool,
    id: u16,
    out: &mut [u8],
) -> Option<usize> {
    let mut writer = Writer::begin(out);
    writer.field(&topic);
    writer.number(id);
    writer.octets(payload);
    writer.finish(PUBLISH_QOS_1 | if is_retained { RETAIN } else { 0 })
}

/// PUBACK (§3.4).
pub(super) const fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// SUBSCRIBE to topics at QoS 1 (§3.8).
pub(super) fn subscribe(topics: &[Name<'_>], id: u16, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::begin(out);
    writer.number(id);
    for topic in topics {
        writer.field(topic);
        writer.octets(&[1]);
    }
    writer.finish(0x82)
}

impl PacketError {
    /// A stable name, as `docs/serial.md` has it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Flags { .. } => "packet-flags",
            Self::Kind { .. } => "packet-kind",
            Self::Malformed { .. } => "packet-malformed",
            Self::RemainingLength => "packet-length",
            Self::TooLong => "packet-too-long",
            Self::Topic => "packet-topic",
        }
    }
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_code(f, "mqtt", self.code())
    }
}

impl core::error::Error for PacketError {}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const MAX: usize = 1_000;

    /// One good packet of each kind.
    fn good() -> [Vec<u8>; 7] {
        [
            vec![0x20, 2, 1, 0],
            vec![0x40, 2, 1, 0],
            vec![0x90, 4, 0, 6, 1, 0],
            vec![0xd0, 0],
            b"\x30\x05\0\x01ahi".to_vec(),
            b"\x33\x07\0\x01a\x01\x02hi".to_vec(),
            b"\x3a\x05\0\x01a\x01\x02".to_vec(),
        ]
    }

    fn read(octets: &[u8]) -> Result<Option<Incoming>, PacketError> {
        match Header::parse(octets, MAX)? {
            Some(header) if octets.len() >= header.total => parse(header, octets).map(Some),
            _ => Ok(None),
        }
    }

    #[test]
    fn each_packet_is_read() {
        let head = |id, is_retained| PublishHead { topic: 4..5, id, is_retained };
        let expected = [
            Incoming::ConnAck { is_session_present: true, code: 0 },
            Incoming::PubAck { id: 256 },
            Incoming::SubAck { id: 6, is_granted: true },
            Incoming::PingResp,
            Incoming::Publish { head: head(None, false), payload: 5..7 },
            Incoming::Publish { head: head(Some(258), true), payload: 7..9 },
            Incoming::Publish { head: head(Some(258), false), payload: 7..7 },
        ];
        for (packet, expected) in good().into_iter().zip(expected) {
            assert_eq!(read(&packet), Ok(Some(expected)));
        }
    }

    /// Goal: a packet that is not whole is waited for, and one that says it is shorter than what is
    /// in it is malformed.
    #[test]
    fn packets_cut_at_any_octet_are_waited_for_or_malformed() {
        for packet in good() {
            for cut in 0..packet.len() {
                assert_eq!(read(&packet[..cut]), Ok(None), "{packet:x?} at {cut}");
            }
            for len in 0..packet[1] {
                let mut shorter = packet[..usize::from(len) + 2].to_vec();
                shorter[1] = len;
                // A payload may end anywhere, and so may a list of answers.
                let is_whole = packet[0] >> 4 == kind::PUBLISH
                    && len >= if packet[0] & 6 == 0 { 3 } else { 5 }
                    || packet[0] >> 4 == kind::SUBACK && len >= 3;
                let malformed = PacketError::Malformed { kind: packet[0] >> 4 };
                let found = read(&shorter);
                assert!(found == Err(malformed) || is_whole && found.is_ok(), "{shorter:x?}");
            }
        }
    }

    #[test]
    fn every_first_octet_but_those_of_a_broker_is_refused() {
        let good = [0x20, 0x40, 0x90, 0xd0, 0x30, 0x31, 0x32, 0x33, 0x3a, 0x3b];
        for first in 0..=255 {
            let found = Header::parse(&[first], MAX);
            assert_eq!(found.is_ok(), good.contains(&first), "{first:#x}: {found:?}");
        }
        assert_eq!(Header::parse(&[0x34], MAX), Err(PacketError::Flags { found: 0x34 }), "QoS 2");
        assert_eq!(Header::parse(&[0x10], MAX), Err(PacketError::Kind { found: 1 }), "CONNECT");
    }

    #[test]
    fn lengths_are_read_up_to_the_limit_and_not_beyond_four_octets() {
        for total in [2_usize, 129, 131, 1_000] {
            let (mut octets, header) = ([0; 1_100], if total < 130 { 2 } else { 3 });
            let mut writer = Writer::begin(&mut octets);
            writer.octets(&vec![7; total - header]);
            assert_eq!(writer.finish(0x30), Some(total));
            let found = Header::parse(&octets, MAX).unwrap().unwrap();
            assert_eq!((found.len, found.total), (header, total));
            assert_eq!(octets[header..total], vec![7; total - header]);
        }
        assert!(Header::parse(&[0x30, 0xe5, 0x07], MAX).unwrap().is_some());
        assert_eq!(Header::parse(&[0x30, 0xe6, 0x07], MAX), Err(PacketError::TooLong));
        assert_eq!(Header::parse(&[0x30, 0xff, 0xff, 0xff], MAX), Ok(None));
        let most = [0x30, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Header::parse(&most, MAX), Err(PacketError::TooLong));
        let endless = [0x30, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Header::parse(&endless, MAX), Err(PacketError::RemainingLength));
        // Longer than need be is no error (§2.2.3 does not say so), and no other number.
        assert_eq!(Header::parse(&[0xd0, 0x80, 0], MAX).unwrap().unwrap().total, 3);
    }

    #[test]
    fn identifiers_of_zero_and_topics_that_are_no_names_are_refused() {
        for packet in [&b"\x40\x02\0\0"[..], b"\x90\x03\0\0\0", b"\x32\x05\0\x01a\0\0"] {
            let kind = packet[0] >> 4;
            assert_eq!(read(packet), Err(PacketError::Malformed { kind }));
        }
        for packet in [
            &b"\x30\x02\0\0"[..],
            b"\x30\x03\0\x01#",
            b"\x30\x03\0\x01+",
            b"\x30\x03\0\x01\0",
            b"\x30\x03\0\x01\xff",
        ] {
            assert_eq!(read(packet), Err(PacketError::Topic));
        }
        let refused = read(&[0x90, 3, 0, 6, 0x80]);
        assert_eq!(refused, Ok(Some(Incoming::SubAck { id: 6, is_granted: false })));
    }

    /// Goal: no octets make the codec panic.
    #[test]
    fn garbage_of_any_kind_is_read_without_a_panic() {
        let mut seed = 1_u64;
        for _ in 0..200_000 {
            let octets: [u8; 24] = core::array::from_fn(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            });
            let mut octets = octets;
            octets[0] = [0x20, 0x30, 0x32, 0x40, 0x90, 0xd0][usize::from(octets[0]) % 6];
            octets[1] %= 23;
            octets[2] = 0;
            let _verdict = read(&octets);
        }
    }

    #[test]
    fn packets_are_written_as_the_standard_shows_them() {
        let mut out = [0; 64];
        let hello = |out: &mut [u8]| {
            let will_topic = ["", "t", "", ""];
            connect(&Connect { client_id: "d", keep_alive_s: 60, will_topic, will: "w" }, out)
        };
        let len = hello(&mut out).unwrap();
        let expected = b"\x10\x13\0\x04MQTT\x04\x2c\0\x3c\0\x01d\0\x01t\0\x01w";
        assert_eq!(&out[..len], expected);
        for short in 0..len {
            assert_eq!(hello(&mut out[..short]), None);
        }
        let len = publish(["", "a", "", ""], b"hi", true, 258, &mut out).unwrap();
        assert_eq!(&out[..len], b"\x33\x07\0\x01a\x01\x02hi");
        let names = [["a", "", "", "b"], ["", "c", "", ""]];
        let len = subscribe(&names, 6, &mut out).unwrap();
        assert_eq!(&out[..len], b"\x82\x0b\0\x06\0\x02ab\x01\0\x01c\x01");
        assert_eq!(puback(258), [0x40, 2, 1, 2]);
    }

    #[test]
    fn what_is_longer_than_its_length_can_say_is_not_written() {
        let mut out = vec![0; 17_000];
        let mut whole = |len| publish(["t", "", "", ""], &vec![0; len], false, 1, &mut out);
        assert_eq!(whole(16_378), Some(16_386));
        assert_eq!(whole(16_379), None);
    }
}
