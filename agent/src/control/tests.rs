use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::lifecycle::{Command, Machine};
use fleetcert_core::policy::Policy;
use fleetcert_core::record::Record;
use fleetcert_core::time::Wall;
use futures_lite::future::BoxedLocal;
use serde_json::Map;
use smol::channel::{Receiver, bounded};
use smol::future::{block_on, or};

use super::*;
use crate::clock::SystemClock;
use crate::context::Executor;
use crate::disk::StateDir;
use crate::keystore::KeyStore;
use crate::link::{Link, LinkStatus, Publication};
use crate::status::{Board, View};

/// A broker that acknowledges what it is told to.
struct Acknowledging {
    answer: Cell<Result<(), PublishFailure>>,
    published: RefCell<Vec<Publication>>,
}

impl Link for Acknowledging {
    fn publish(&self, publication: Publication) -> BoxedLocal<Result<(), PublishFailure>> {
        self.published.borrow_mut().push(publication);
        let answer = self.answer.get();
        Box::pin(async move { answer })
    }

    fn describe(&self, _state: Map<String, Value>) {}

    fn judge(&self, _reading: fleetcert_core::time::Reading) {}

    fn status(&self) -> LinkStatus {
        LinkStatus { broker: Some("broker:8883".into()), ..LinkStatus::default() }
    }

    fn close(&self) -> BoxedLocal<()> {
        Box::pin(async {})
    }
}

fn desk() -> (Rc<Desk>, Rc<Acknowledging>, Receiver<Command>, Board) {
    let device = DeviceId::parse("gw-1").unwrap();
    let board = Board::new(device.clone(), KeyStore::in_memory());
    let now = SystemClock.read();
    let machine = Machine::new(Policy::default(), device, Record::new(Wall(0)), [0; 32], now);
    board.show(View::of(&machine, now));
    let link = Rc::new(Acknowledging { answer: Cell::new(Ok(())), published: RefCell::default() });
    let (commands, queue) = bounded(1);
    let desk = Desk::new(board.clone(), Rc::clone(&link) as Rc<dyn Link>, commands);
    (Rc::new(desk), link, queue, board)
}

fn answer(desk: &Desk, line: &str) -> Value {
    serde_json::from_str(&block_on(desk.answer(line.as_bytes())).line()).unwrap()
}

// Goal: a command reaches the machine's queue, and a full queue is told as such.
#[test]
fn commands_are_passed_on_while_there_is_room() {
    let (desk, _, queue, _) = desk();
    for (line, command) in
        [(r#"{"renew":{}}"#, Command::Renew), (r#"{"decommission":{}}"#, Command::Decommission)]
    {
        assert_eq!(answer(&desk, line), json!({"ok": true}));
        let full = answer(&desk, line);
        assert_eq!((&full["ok"], &full["retry"]), (&json!(false), &json!(true)));
        assert_eq!(queue.try_recv(), Ok(command));
    }
}

// Goal: a publication is good only when the broker has acknowledged it.
#[test]
fn a_publication_is_answered_with_what_the_broker_said() {
    let (desk, link, ..) = desk();
    let line = r#"{"publish":{"topic":"data/a/b","payload":"é 1"}}"#;
    assert_eq!(answer(&desk, line), json!({"ok": true}));
    let publication = link.published.borrow()[0].clone();
    assert_eq!((publication.topic.as_str(), publication.retain), ("data/a/b", false));
    assert_eq!(publication.payload, "é 1".as_bytes());
    for (failure, retry) in [
        (PublishFailure::Unacknowledged, true),
        (PublishFailure::QueueFull, true),
        (PublishFailure::NotConfigured, false),
    ] {
        link.answer.set(Err(failure));
        let expected = json!({"ok": false, "error": failure.to_string(), "retry": retry});
        assert_eq!(answer(&desk, line), expected);
    }
}

// Goal: no program on the device can speak in the agent's own topics or another device's.
#[test]
fn topics_outside_data_are_refused() {
    let (desk, link, ..) = desk();
    for topic in ["state", "event", "data", "data/", "data/#", "data/+/a", "data//a", "/data/a", ""]
    {
        let line = json!({"publish": {"topic": topic, "payload": ""}}).to_string();
        let refused = answer(&desk, &line);
        assert_eq!((&refused["ok"], &refused["retry"]), (&json!(false), &json!(false)), "{topic}");
    }
    assert!(link.published.borrow().is_empty());
}

// Goal: what is no request is answered with what is wrong with it.
#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    let (desk, ..) = desk();
    for (line, expected) in [
        ("", "EOF"),
        ("{}", "not a request"),
        (r#"{"reboot":{}}"#, "unknown variant `reboot`"),
        (r#"{"renew":{"now":true}}"#, "unknown field `now`"),
        (r#"{"publish":{"topic":"data/a"}}"#, "missing field `payload`"),
    ] {
        let refused = answer(&desk, line);
        assert!(refused["error"].as_str().unwrap().contains(expected), "{refused}");
        assert_eq!(refused["retry"], json!(false));
    }
}

/// Serves a desk on a socket while `client` runs on a thread of its own.
fn while_served<T: Send + 'static>(
    desk: Rc<Desk>,
    client: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::make(&folder.path().join("state")).unwrap();
    let path = folder.path().join("state").join(SOCKET);
    // A socket that a killed agent left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = Socket::bind(&state).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let executor = Executor::default();
    let mut served = executor.spawn(socket.serve(desk, Rc::clone(&executor)));
    let asked = path.clone();
    let client = smol::unblock(move || client(&asked));
    let outcome = block_on(executor.run(async {
        let ended = async {
            (&mut served).await;
            panic!("the server ended by itself");
        };
        let outcome = or(client, ended).await;
        served.cancel().await;
        outcome
    }));
    assert!(!path.exists(), "the socket is removed with its server");
    outcome
}

// Goal: the client's question and the server's answer meet over a real socket.
#[test]
fn the_client_is_answered_over_the_socket() {
    let (desk, ..) = desk();
    let status = while_served(desk, |path| ask(path, &Request::Status {}).unwrap());
    let status: Status = serde_json::from_value(status["status"].clone()).unwrap();
    assert_eq!((status.phase.as_str(), status.running), ("unenrolled", true));
    assert_eq!(status.mqtt.unwrap().broker, "broker:8883");
}

// Goal: one connection can ask many things; a line without end is cut off at its limit.
#[test]
fn a_connection_serves_many_lines_and_refuses_an_endless_one() {
    let (desk, _link, _queue, _board) = desk();
    let answers = while_served(desk, |path| {
        let mut stream = BufReader::new(UnixStream::connect(path).unwrap());
        let mut answers = Vec::new();
        let endless = "x".repeat(REQUEST_LEN_MAX + 1);
        for line in ["{\"renew\":{}}\n", "nonsense\n", "{\"status\":{}}\n", &endless] {
            stream.get_mut().write_all(line.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).unwrap();
            answers.push(answer);
        }
        let mut end = String::new();
        stream.read_line(&mut end).unwrap();
        answers.push(end);
        answers
    });
    assert_eq!(answers[0], "{\"ok\":true}\n");
    assert!(answers[1].contains("not a request") && answers[2].contains("\"schema\":1"));
    assert!(answers[3].contains("longer than 65536"), "{}", answers[3]);
    assert_eq!(answers[4], "", "the connection is closed");
}

// Goal: without an agent the client says so, in one type.
#[test]
fn nobody_listening_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET);
    assert!(matches!(ask(&path, &Request::Renew {}), Err(AskError::NotRunning)));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(ask(&path, &Request::Renew {}), Err(AskError::NotRunning)));
}

// Goal: a state directory with a path too long for a socket is named so.
#[test]
fn a_path_too_long_for_a_socket_has_an_advice() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::make(&folder.path().join("x".repeat(120))).unwrap();
    let error = Socket::bind(&state).unwrap_err();
    assert!(error.advice().contains("shorter state_dir"), "{error}");
}
