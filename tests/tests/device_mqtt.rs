//! The firmware's MQTT session with a real mosquitto, through its own TLS; and with a broker that
//! speaks garbage.

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::event::Failure;
use fleetcert_core::lifecycle::Phase;
use fleetcert_core::topic::{Channel, DataPath};
use fleetcert_firmware::mqtt::{
    Event, Inbox, Introduction, MqttError, Outbox, Session, Stream, Ticket, birth, death,
};
use fleetcert_tests::lab::fake::{FakeServer, Manner};
use fleetcert_tests::lab::firmware::{ANSWER_MS_MAX, Device, Wire, dev_1};
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail};

const STATE: &str = "fleetcert/v1/dev-1/state";
const COMMAND: &str = "fleetcert/v1/dev-1/command";
const DATA: &str = "fleetcert/v1/dev-1/data/t";

/// The text of a birth.
fn alive(generation: u64) -> String {
    birth(generation, Phase::Active).as_str().to_owned()
}

fn id() -> DeviceId {
    DeviceId::parse("dev-1").or_fail("a device id")
}

fn data() -> Channel<'static> {
    Channel::Data(DataPath::parse("t").or_fail("a path"))
}

/// Opens a session to the broker at `port` and lets `run` use it.
fn with_session<T>(
    device: &mut Device,
    port: u16,
    outbox: &mut Outbox,
    generation: u64,
    run: impl FnOnce(Session<'_, fleetcert_firmware::tls::Connection<'_, Wire>>) -> T,
) -> Result<T, MqttError> {
    let (device_id, birth) = (id(), alive(generation));
    let connection = device.open(Wire::to(port)).or_fail("a connection");
    let birth = birth.as_bytes();
    let introduction = Introduction { device_id: &device_id, generation, keep_alive_s: 60, birth };
    Session::open(connection, introduction, outbox, &mut Inbox::new(), 0).map(run)
}

/// Polls until an event is what `wanted` wants.
fn await_event<S: Stream, T>(
    what: &'static str,
    session: &mut Session<'_, S>,
    wanted: impl Fn(Event) -> Option<T>,
) -> T {
    until(what, ANSWER_MS_MAX, || session.poll(0).or_fail("a living session").and_then(&wanted))
}

fn await_arrival<S: Stream>(session: &mut Session<'_, S>, ticket: Ticket) {
    await_event("an acknowledgement", session, |event| {
        (event == Event::Acknowledged(ticket)).then_some(())
    });
}

/// Polls until the session is over.
fn await_end<S: Stream>(session: &mut Session<'_, S>) -> MqttError {
    until("the end of the session", ANSWER_MS_MAX, || session.poll(0).err())
}

/// Goal: birth, data, commands and a planned end, as consumers and operators see them.
#[test]
fn a_device_is_born_speaks_listens_and_leaves_without_dying() {
    let lab = Lab::new();
    let (broker, backend) = (lab.broker(), lab.backend("fleet"));
    let mut heard = broker.listen(&backend, "fleetcert/v1/dev-1/#", &lab.path("heard"));
    let (mut device, mut outbox) = (dev_1(&lab), Outbox::new());
    with_session(&mut device, broker.port(), &mut outbox, 7, |mut session| {
        await_event("subscriptions", &mut session, |event| {
            (event == Event::Subscribed).then_some(())
        });
        heard.await_message("the birth", ANSWER_MS_MAX, STATE, |text| text == alive(7));
        let ticket = session.publish(data(), b"21.5", false).or_fail("room");
        await_arrival(&mut session, ticket);
        heard.await_message("the data", ANSWER_MS_MAX, DATA, |text| text == "21.5");

        let command = r#"{"schema":1,"id":"1","command":"renew"}"#;
        let _sent = broker.publish(Some(&backend), COMMAND, command);
        let is_retained = await_event("a command", &mut session, |event| match event {
            Event::Command { is_retained } => Some(is_retained),
            _ => None,
        });
        assert_eq!((session.payload(), is_retained), (command.as_bytes(), false));

        let long = "x".repeat(5_000);
        let _sent = broker.publish(Some(&backend), COMMAND, &long);
        await_event("a command that is too long", &mut session, |event| {
            matches!(event, Event::PassedOver { len } if len > 5_000).then_some(())
        });
        session.close().close();
    })
    .or_fail("a session");
    assert!(!heard.text().contains(death(7).as_str()), "it was a planned end");
}

/// Goal: a connection that breaks says the death of its generation; what was not acknowledged
/// arrives in the next session, and so does a command that came meanwhile.
#[test]
fn a_broken_connection_loses_nothing_in_either_direction() {
    let lab = Lab::new();
    let (broker, backend) = (lab.broker(), lab.backend("fleet"));
    let mut heard = broker.listen(&backend, "fleetcert/v1/dev-1/#", &lab.path("heard"));
    let (mut device, mut outbox) = (dev_1(&lab), Outbox::new());
    let ticket = with_session(&mut device, broker.port(), &mut outbox, 1, |mut session| {
        await_event("subscriptions", &mut session, |event| {
            (event == Event::Subscribed).then_some(())
        });
        let ticket = session.publish(data(), b"1", false).or_fail("room");
        session.poll(0).or_fail("to send it");
        ticket
    })
    .or_fail("a session");
    assert_eq!(outbox.unacknowledged(), 1);
    heard.await_message("the death", ANSWER_MS_MAX, STATE, |text| text == death(1).as_str());
    let _sent = broker.publish(Some(&backend), COMMAND, "meanwhile");

    with_session(&mut device, broker.port(), &mut outbox, 2, |mut session| {
        let (mut has_arrived, mut has_come) = (false, false);
        until("the message and the command", ANSWER_MS_MAX, || {
            let event = session.poll(0).or_fail("a living session");
            has_arrived |= event == Some(Event::Acknowledged(ticket));
            let is_command = matches!(event, Some(Event::Command { .. }));
            has_come |= is_command && session.payload() == b"meanwhile";
            (has_arrived && has_come).then_some(())
        });
        session.close().close();
    })
    .or_fail("a session");
    assert_eq!(outbox.unacknowledged(), 0);
    heard.await_message("the message", ANSWER_MS_MAX, DATA, |text| text == "1");
}

/// Goal: a session whose place another takes ends; it says nothing about the identity.
#[test]
fn a_session_that_is_taken_over_ends() {
    let lab = Lab::new();
    let broker = lab.broker();
    let (mut first, mut first_outbox) = (dev_1(&lab), Outbox::new());
    let mut second = Device::clone_of(&first);
    let mut second_outbox = Outbox::new();
    with_session(&mut first, broker.port(), &mut first_outbox, 1, |mut old| {
        with_session(&mut second, broker.port(), &mut second_outbox, 2, |mut new| {
            let end = await_end(&mut old);
            assert_eq!(Failure::from(end), Failure::Unreachable, "{end}");
            let ticket = new.publish(data(), b"mine", false).or_fail("room");
            await_arrival(&mut new, ticket);
        })
        .or_fail("the second session");
    })
    .or_fail("the first session");
}

/// Goal: a broker that is ours and speaks garbage ends the session, or does not let it begin.
#[test]
fn garbage_from_a_broker_is_an_error() {
    let lab = Lab::new();
    let (mut device, chain) = (dev_1(&lab), lab.flawless());
    for (says, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Failure::AnswerMalformed),
        (b"\x20\x02\x00\x05", Failure::OurIdentityRefused),
        (b"\x20\x02\x00", Failure::Unreachable),
        (b"\x20\x02\x00\x00\x30\xff\xff\xff\xff\x7f", Failure::AnswerMalformed),
        (b"\x20\x02\x00\x00\x62\x02\x00\x01", Failure::AnswerMalformed),
        (b"\x20\x02\x00\x00\x32\x05\x00\x09a\x00\x01", Failure::AnswerMalformed),
        (b"\x20\x02\x00\x00\x32\x20\x00\x01a", Failure::Unreachable),
    ] {
        let server = FakeServer::start(0, &chain, Manner::Say(says.to_vec()));
        let mut outbox = Outbox::new();
        let end = with_session(&mut device, server.port(), &mut outbox, 1, |mut session| {
            await_end(&mut session)
        });
        let failure = Failure::from(end.unwrap_or_else(|error| error));
        assert_eq!(failure, expected, "{says:x?}");
    }
}
