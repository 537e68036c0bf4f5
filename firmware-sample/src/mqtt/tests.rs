use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use embedded_io::ErrorType;
use fleetcert_core::topic::DataPath;

use super::*;

/// A broker without a network: it has said `says`, and hears.
#[derive(Default)]
struct Broker {
    says: Vec<u8>,
    /// Whether it ends the connection when it has said all.
    ends: bool,
    heard: Vec<u8>,
    /// Octets given out at once, at most.
    piece: usize,
}

impl Broker {
    fn new(says: &[u8]) -> Self {
        let says = [&[0x20, 2, 0, 0], says].concat();
        Self { says, piece: usize::MAX, ..Self::default() }
    }
}

impl ErrorType for &mut Broker {
    type Error = TlsError;
}

impl Read for &mut Broker {
    fn read(&mut self, octets: &mut [u8]) -> Result<usize, TlsError> {
        let len = octets.len().min(self.says.len()).min(self.piece);
        octets[..len].copy_from_slice(&self.says[..len]);
        self.says.drain(..len);
        Ok(len)
    }
}

impl Write for &mut Broker {
    fn write(&mut self, octets: &[u8]) -> Result<usize, TlsError> {
        self.heard.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> Result<(), TlsError> {
        Ok(())
    }
}

impl Stream for &mut Broker {
    fn read_if_ready(&mut self, octets: &mut [u8]) -> Result<Option<usize>, TlsError> {
        if self.says.is_empty() && !self.ends {
            return Ok(None);
        }
        self.read(octets).map(Some)
    }
}

fn id() -> DeviceId {
    DeviceId::parse("d").unwrap()
}

const BIRTH: &[u8] = br#"{"online":true}"#;

/// A session of device `d`, keep-alive of 40 s, generation 7, opened at 0.
fn open<'s>(
    broker: &'s mut Broker,
    device_id: &'s DeviceId,
    outbox: &'s mut Outbox,
) -> Result<Session<'s, &'s mut Broker>, MqttError> {
    let introduction = Introduction { device_id, generation: 7, keep_alive_s: 40, birth: BIRTH };
    let inbox = Box::leak(Box::new(Inbox::new()));
    Session::open(broker, introduction, outbox, inbox, 0)
}

fn data<'a>(path: &'a str) -> Channel<'a> {
    Channel::Data(DataPath::parse(path).unwrap())
}

/// PUBLISH from the broker.
fn message(first: u8, topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    body.extend_from_slice(payload);
    let (low, high) = (body.len() % 128, body.len() / 128);
    let head = [first, low as u8 | 0x80, (high % 128) as u8 | 0x80, (high / 128) as u8];
    [&head, &body[..]].concat()
}

/// All packets heard, one by one.
fn packets(heard: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut rest) = (vec![], heard);
    while !rest.is_empty() {
        let (low, high) = (rest[1], rest[2]);
        let len = match low {
            0x80.. => 3 + usize::from(low & 0x7f) + 128 * usize::from(high),
            _ => 2 + usize::from(low),
        };
        all.push(rest[..len].to_vec());
        rest = &rest[len..];
    }
    all
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}

/// Polls until the session has nothing more to tell; the error that ended it, or the payloads.
fn drain(session: &mut Session<'_, &mut Broker>) -> Result<Vec<Vec<u8>>, MqttError> {
    let mut payloads = vec![];
    while let Some(event) = session.poll(0)? {
        if let Event::Command { .. } | Event::State = event {
            payloads.push(session.payload().to_vec());
        }
    }
    Ok(payloads)
}

#[test]
fn a_session_begins_with_its_will_then_subscribes_and_says_the_birth() {
    let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
    open(&mut broker, &id(), &mut outbox).unwrap();
    let [connect, subscribe, birth] = &packets(&broker.heard)[..] else { panic!("three packets") };
    assert_eq!(&connect[2..12], b"\0\x04MQTT\x04\x2c\0\x28");
    let will = br#"{"schema":1,"generation":7,"online":false}"#;
    assert!(contains(connect, b"fleetcert/v1/d/state") && connect.ends_with(will));
    assert_eq!(subscribe[0], 0x82);
    assert!(contains(subscribe, b"fleetcert/v1/d/command\x01"));
    assert_eq!(birth[0], 0x33, "kept, at QoS 1");
    assert!(birth.ends_with(BIRTH));
}

#[test]
fn a_broker_that_does_not_welcome_us_is_an_error() {
    for (says, expected) in [
        (&[0x20, 2, 0, 5][..], MqttError::Unwelcome { code: 5 }),
        (&[0x20, 2, 0], MqttError::Ended),
        (&[], MqttError::Ended),
        (&[0x20, 3, 0, 0, 0], MqttError::Packet(PacketError::Malformed { kind: 2 })),
        (&[0xd0, 0, 0x20, 2], MqttError::Unexpected),
        (&[0x40, 2, 0, 1], MqttError::Unexpected),
        (&[0x20, 2, 2, 0], MqttError::Packet(PacketError::Malformed { kind: 2 })),
        (b"HTTP/1.1 400", MqttError::Packet(PacketError::Flags { found: b'H' })),
        (&[0x90, 3, 0, 6, 1], MqttError::Unexpected),
        (&[0x20, 0xff, 0xff, 0xff], MqttError::Ended),
        (&[0x20, 0xff, 0xff, 0xff, 0xff], MqttError::Packet(PacketError::RemainingLength)),
    ] {
        let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
        broker.says = says.to_vec();
        broker.piece = 1;
        let found = open(&mut broker, &id(), &mut outbox).map(drop);
        assert_eq!(found, Err(expected), "{says:x?}");
    }
}

/// Goal: commands and states come out whole however the octets are cut, and each is acknowledged
/// by the poll after the one that gave it out.
#[test]
fn messages_are_acknowledged_after_they_were_given_out() {
    let says = [
        vec![0x90, 4, 0, 6, 1, 1],
        message(0x32, "fleetcert/v1/d/command", Some(9), b"one"),
        message(0x31, "fleetcert/v1/d/state", None, b"two"),
        message(0x3b, "fleetcert/v1/d/command", Some(258), b""),
    ]
    .concat();
    for piece in [1, 2, 7, 30, usize::MAX] {
        let (mut broker, mut outbox) = (Broker::new(&says), Outbox::new());
        broker.piece = piece;
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        assert_eq!(session.poll(0), Ok(Some(Event::Subscribed)));
        session.stream.heard.clear();
        assert_eq!(session.poll(0), Ok(Some(Event::Command { is_retained: false })));
        assert_eq!((session.payload(), &session.stream.heard[..]), (&b"one"[..], &b""[..]));
        assert_eq!(session.poll(0), Ok(Some(Event::State)));
        assert_eq!(session.payload(), b"two");
        assert_eq!(session.stream.heard, [0x40, 2, 0, 9]);
        assert_eq!(session.poll(0), Ok(Some(Event::Command { is_retained: true })));
        assert_eq!(session.payload(), b"");
        assert_eq!(session.poll(0), Ok(None));
        assert_eq!(session.stream.heard, [0x40, 2, 0, 9, 0x40, 2, 1, 2]);
    }
}

#[test]
fn messages_that_are_not_for_us_are_acknowledged_and_not_given_out() {
    for topic in ["fleetcert/v1/e/command", "fleetcert/v1/d/data/x", "$SYS/x", "x"] {
        let says = message(0x32, topic, Some(3), b"payload");
        let (mut broker, mut outbox) = (Broker::new(&says), Outbox::new());
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        assert_eq!(session.poll(0), Ok(None));
        assert!(session.stream.heard.ends_with(&[0x40, 2, 0, 3]), "{topic}");
    }
}

/// Goal: a message that is too long for us does not end the session, nor every one after it.
#[test]
fn a_message_that_does_not_fit_is_passed_over_and_acknowledged() {
    let long = message(0x32, "fleetcert/v1/d/command", Some(3), &[b'x'; 5_000]);
    let says = [&long[..], &message(0x30, "fleetcert/v1/d/command", None, b"next")].concat();
    for piece in [200, 1_000, usize::MAX] {
        let (mut broker, mut outbox) = (Broker::new(&says), Outbox::new());
        broker.piece = piece;
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        assert_eq!(session.poll(0), Ok(Some(Event::PassedOver { len: long.len() })));
        assert_eq!(session.poll(0), Ok(Some(Event::Command { is_retained: false })));
        assert_eq!(session.payload(), b"next");
        assert!(session.stream.heard.ends_with(&[0x40, 2, 0, 3]));
    }
}

#[test]
fn what_is_longer_than_anything_that_we_take_ends_the_session() {
    let too_long = message(0x32, "fleetcert/v1/d/command", Some(3), &[b'x'; INCOMING_LEN_MAX]);
    let topic = message(0x32, &"t".repeat(2_000), Some(3), b"");
    let acks = [&[0x90, 0xd0, 0x0f, 0, 6][..], &[1; 1_998]].concat();
    for (says, found) in [(too_long, None), (topic, Some(PacketError::Topic)), (acks, None)] {
        let (mut broker, mut outbox) = (Broker::new(&says), Outbox::new());
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        let Err(MqttError::Packet(error)) = session.poll(0) else { panic!("an error") };
        assert!(found.is_none_or(|found| found == error), "{error:?}");
        assert!(found.is_some() || matches!(error, PacketError::TooLong), "{error:?}");
        assert_eq!(session.poll(0), Err(MqttError::Packet(error)), "and it stays so");
    }
}

#[test]
fn packets_out_of_place_end_the_session() {
    for (says, expected) in [
        (&[0x20, 2, 0, 0][..], MqttError::Unexpected),
        (&[0x90, 3, 0, 7, 1], MqttError::Unexpected),
        (&[0x90, 4, 0, 6, 1, 0x80], MqttError::Unsubscribed),
        (&[0x34, 5, 0, 1, b'a', 0, 1], MqttError::Packet(PacketError::Flags { found: 0x34 })),
        (&[0xc0, 0], MqttError::Packet(PacketError::Kind { found: 12 })),
        (&[0x40, 3, 0, 1, 0], MqttError::Packet(PacketError::Malformed { kind: 4 })),
    ] {
        let (mut broker, mut outbox) = (Broker::new(says), Outbox::new());
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        assert_eq!(session.poll(0), Err(expected), "{says:x?}");
    }
}

/// Goal: a broker that ends at any octet gives out nothing that was not whole.
#[test]
fn an_end_at_any_octet_is_an_end() {
    let says = [
        message(0x32, "fleetcert/v1/d/command", Some(9), b"one"),
        message(0x30, "fleetcert/v1/d/state", None, b"two"),
    ]
    .concat();
    for cut in 0..=says.len() {
        let (mut broker, mut outbox) = (Broker::new(&says[..cut]), Outbox::new());
        broker.ends = true;
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        assert_eq!(drain(&mut session), Err(MqttError::Ended));
        let whole = cut >= says.len() / 2 + 2;
        assert_eq!(broker.heard.ends_with(&[0x40, 2, 0, 9]), whole, "{cut}");
    }
}

/// Goal: no octets make a session panic, or turn for ever.
#[test]
fn garbage_of_any_kind_ends_in_an_error() {
    let mut seed = 1_u64;
    for _ in 0..2_000 {
        let mut says: Vec<u8> = (0..64)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        says[0] = [0x20, 0x30, 0x32, 0x40, 0x90, 0xd0][usize::from(says[0]) % 6];
        says[1] %= 60;
        let (mut broker, mut outbox) = (Broker::new(&says), Outbox::new());
        broker.ends = true;
        let device_id = id();
        let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
        drain(&mut session).unwrap_err();
    }
}

#[test]
fn a_message_is_told_when_it_has_arrived_and_then_makes_room() {
    let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
    let device_id = id();
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    let tickets: Vec<_> =
        (0..IN_FLIGHT_MAX).map(|_| session.publish(data("x"), b"m", false).unwrap()).collect();
    assert_eq!(session.publish(data("x"), b"m", false), Err(PublishError::Full));
    assert_eq!(session.poll(0), Ok(None));
    session.stream.says = vec![0x40, 2, 0, 3, 0x40, 2, 0, 3, 0x40, 2, 0x7f, 0xff];
    assert_eq!(session.poll(0), Ok(Some(Event::Acknowledged(tickets[2]))));
    assert_eq!(session.poll(0), Ok(None), "twice, or for nothing, is nobody's");
    let long = [0; PUBLISH_LEN_MAX];
    assert_eq!(session.publish(data("x"), &long, false), Err(PublishError::TooLong));
    let ticket = session.publish(data("x"), b"m", false).unwrap();
    assert!(!tickets.contains(&ticket));
    assert_eq!(session.outbox.unacknowledged(), IN_FLIGHT_MAX);
}

/// Goal: what was sent and not acknowledged goes out again, first, in order, with the flag DUP and
/// the same identifier; what was not sent goes out behind the birth, without it.
#[test]
fn what_no_broker_has_is_sent_again_by_the_next_session() {
    let mut outbox = Outbox::new();
    let device_id = id();
    let mut broker = Broker::new(&[]);
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    for payload in [b"a", b"b", b"c"] {
        session.publish(data("x"), payload, false).unwrap();
    }
    session.poll(0).unwrap();
    session.stream.says = vec![0x40, 2, 0, 1];
    session.poll(0).unwrap();
    session.publish(data("x"), b"d", true).unwrap();

    let mut broker = Broker::new(&[]);
    open(&mut broker, &device_id, &mut outbox).unwrap();
    let heard = packets(&broker.heard);
    let publications: Vec<_> = heard.iter().filter(|packet| packet[0] >> 4 == 3).collect();
    let first: Vec<_> = publications.iter().map(|packet| packet[0]).collect();
    assert_eq!(first, [0x3a, 0x3a, 0x33, 0x33]);
    assert!(publications[0].ends_with(&[0, 2, b'b']) && publications[1].ends_with(&[0, 3, b'c']));
    assert!(publications[2].ends_with(BIRTH));
    assert!(publications[3].ends_with(&[0, 1, b'd']));
}

#[test]
fn silence_is_met_with_a_ping_and_a_ping_without_an_answer_is_the_end() {
    let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
    let device_id = id();
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    session.stream.heard.clear();
    assert_eq!(session.poll(29_999), Ok(None));
    assert_eq!(session.stream.heard, b"");
    assert_eq!(session.poll(30_000), Ok(None));
    assert_eq!(session.stream.heard, PINGREQ);
    session.stream.says = vec![0xd0, 0];
    assert_eq!(session.poll(39_999), Ok(None));
    assert_eq!(session.poll(59_999), Ok(None));
    assert_eq!(session.poll(60_000), Ok(None));
    assert_eq!(session.stream.heard, [PINGREQ, PINGREQ].concat());
    assert_eq!(session.poll(60_000 + PONG_MS_MAX - 1), Ok(None));
    assert_eq!(session.poll(60_000 + PONG_MS_MAX), Err(MqttError::Silent));
}

#[test]
fn a_planned_end_is_said_and_late_acknowledgements_are_taken() {
    let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
    let device_id = id();
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    let ticket = session.publish(data("x"), b"m", false).unwrap();
    session.poll(0).unwrap();
    assert!(session.outbox.holds(ticket));
    session.stream.says = [&message(0x32, "t", Some(1), b"m")[..], &[0x40, 2, 0, 1]].concat();
    assert!(session.close().heard.ends_with(&DISCONNECT));
    assert_eq!(outbox.unacknowledged(), 0);
    assert!(!outbox.holds(ticket), "whoever asks learns that it has arrived");
}

#[test]
fn a_birth_is_said_again_when_the_one_before_has_arrived() {
    let (mut broker, mut outbox) = (Broker::new(&[]), Outbox::new());
    let device_id = id();
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    assert_eq!(session.announce(b"again"), Err(PublishError::Full));
    session.stream.says = vec![0x40, 2, 0, 5];
    assert_eq!(session.poll(0), Ok(None));
    session.announce(b"again").unwrap();
    session.poll(0).unwrap();
    assert!(session.stream.heard.ends_with(b"again"));
}

/// Goal: a broker that always has more to say does not keep the machine from its work.
#[test]
fn a_poll_reads_a_bounded_amount() {
    let (mut broker, mut outbox) = (Broker::new(&[0xd0, 0].repeat(200)), Outbox::new());
    broker.piece = 1;
    let device_id = id();
    let mut session = open(&mut broker, &device_id, &mut outbox).unwrap();
    assert_eq!(session.poll(0), Ok(None));
    assert_eq!(session.stream.says.len(), 400 - READS_MAX);
}

/// Goal: a broker that never ends, octet by octet, is left after so many reads, whatever it says:
/// in place of its welcome, and after our farewell.
#[test]
fn a_broker_that_says_more_than_it_may_is_left() {
    let (device_id, mut outbox) = (id(), Outbox::new());
    let long = message(0x30, "fleetcert/v1/x", None, &[b'x'; 16_000]);
    let mut broker = Broker { says: long.clone(), piece: 1, ..Broker::default() };
    let left = open(&mut broker, &device_id, &mut outbox).map(|_| ());
    assert_eq!(left, Err(MqttError::Unexpected));
    assert_eq!(broker.says.len(), long.len() - WELCOME_READS_MAX);

    let mut broker = Broker::new(&long.repeat(2));
    broker.piece = 1;
    let session = open(&mut broker, &device_id, &mut outbox).unwrap();
    session.close();
    assert_eq!(broker.says.len(), 2 * long.len() - READS_MAX);
}
