//! Steady application traffic through the agent: numbered messages, each repeated until the broker
//! has acknowledged it.
//!
//! The sender owns the numbers and never skips one, so that whoever listens can say what was lost:
//! a number acknowledged here and never seen there. It also measures how long a message had to
//! wait, apart for the time in which there was no agent at all.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::json;

use crate::control::Control;
use crate::error::RigError;
use crate::subscriber::Hear;
use crate::wait::{PROBE_PAUSE_MS, Stopwatch, pause};

/// Between two messages: many fall into each identity switch, and a slow machine keeps up.
const MESSAGE_PAUSE_MS: u64 = 25;

/// The channel below the device's data topics.
pub const TOPIC: &str = "data/demo";

/// A running sender.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    quit: AtomicBool,
    acknowledged: AtomicU64,
    repeated: AtomicU64,
    /// Odd while there is no agent.
    agent_changes: AtomicU64,
    wait_ms_max: AtomicU64,
    wait_without_agent_ms_max: AtomicU64,
}

/// What was sent, and how long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages 1 to this number were acknowledged.
    pub acknowledged: u64,
    /// Attempts that got no acknowledgement and were repeated.
    pub repeated: u64,
    /// The longest that a message waited for its acknowledgement while an agent ran, milliseconds.
    pub wait_ms_max: u64,
    /// The longest that a message waited when the agent was killed under it, milliseconds.
    pub wait_without_agent_ms_max: u64,
}

/// The numbers that a backend has heard.
#[derive(Debug, Default)]
pub struct Numbers {
    heard: BTreeSet<u64>,
    duplicates: u64,
}

impl Numbers {
    /// How many of the messages 1 to `up_to` have arrived.
    #[must_use]
    pub fn received(&self, up_to: u64) -> u64 {
        u64::try_from(self.heard.range(1..=up_to).count()).unwrap_or(u64::MAX)
    }

    /// Messages that arrived more than once.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.duplicates
    }
}

impl Hear for Numbers {
    fn hear(&mut self, topic: &str, payload: &str) {
        if !topic.ends_with(TOPIC) {
            return;
        }
        let Ok(number) = payload.parse() else { return };
        if !self.heard.insert(number) {
            self.duplicates += 1;
        }
    }
}

impl Traffic {
    /// Starts to send through the agent that listens at `socket`.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let shared = Arc::new(Shared::default());
        let sender = thread::spawn({
            let shared = Arc::clone(&shared);
            move || send(&shared, &socket)
        });
        Self { shared, sender }
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The agent is about to be killed, or is back: what waits across this counts apart.
    pub fn agent_changes(&self) {
        self.shared.agent_changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Finishes the message under way and stops.
    ///
    /// # Errors
    ///
    /// [`RigError::Claim`] if the sender panicked.
    pub fn finish(self) -> Result<Tally, RigError> {
        self.shared.quit.store(true, Ordering::Relaxed);
        let lost = |_| RigError::Claim {
            claim: "the traffic generator runs to its end",
            found: "it panicked".to_owned(),
        };
        self.sender.join().map_err(lost)?;
        Ok(Tally {
            acknowledged: self.shared.acknowledged.load(Ordering::Relaxed),
            repeated: self.shared.repeated.load(Ordering::Relaxed),
            wait_ms_max: self.shared.wait_ms_max.load(Ordering::Relaxed),
            wait_without_agent_ms_max: self
                .shared
                .wait_without_agent_ms_max
                .load(Ordering::Relaxed),
        })
    }
}

fn send(shared: &Shared, socket: &Path) {
    let mut control = None;
    for number in 1.. {
        if shared.quit.load(Ordering::Relaxed) || !deliver(shared, socket, &mut control, number) {
            return;
        }
        pause(MESSAGE_PAUSE_MS);
    }
}

/// Repeats one message until it is acknowledged. False if the rig quit before.
fn deliver(shared: &Shared, socket: &Path, control: &mut Option<Control>, number: u64) -> bool {
    let changes_before = shared.agent_changes.load(Ordering::Relaxed);
    let watch = Stopwatch::start();
    while publish(socket, control, number).is_err() {
        *control = None;
        shared.repeated.fetch_add(1, Ordering::Relaxed);
        if shared.quit.load(Ordering::Relaxed) {
            return false;
        }
        pause(PROBE_PAUSE_MS);
    }
    let changes = shared.agent_changes.load(Ordering::Relaxed);
    let always_there = changes == changes_before && changes.is_multiple_of(2);
    let longest =
        if always_there { &shared.wait_ms_max } else { &shared.wait_without_agent_ms_max };
    longest.fetch_max(watch.elapsed_ms(), Ordering::Relaxed);
    shared.acknowledged.store(number, Ordering::Relaxed);
    true
}

fn publish(socket: &Path, control: &mut Option<Control>, number: u64) -> io::Result<()> {
    let control = match control {
        Some(control) => control,
        None => control.insert(Control::connect(socket)?),
    };
    let request = json!({"publish": {"topic": TOPIC, "payload": number.to_string()}});
    let answer = control.ask(&request)?;
    if answer["ok"] == true { Ok(()) } else { Err(io::Error::other(answer.to_string())) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::wait::Stop;

    /// Reads one published number and answers it.
    fn answer(stream: &mut BufReader<std::os::unix::net::UnixStream>, text: &str) -> u64 {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let request: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(request["publish"]["topic"], TOPIC);
        writeln!(stream.get_mut(), "{text}").unwrap();
        request["publish"]["payload"].as_str().unwrap().parse().unwrap()
    }

    /// Goal: each number counts once, repetitions apart, and other topics not at all.
    #[test]
    fn repeated_messages_count_once() {
        let mut numbers = Numbers::default();
        for (topic, payload) in [
            ("fleetcert/v1/d/data/demo", "1"),
            ("fleetcert/v1/d/data/demo", "2"),
            ("fleetcert/v1/d/data/demo", "2"),
            ("fleetcert/v1/d/state", "3"),
            ("fleetcert/v1/d/data/demo", "four"),
        ] {
            numbers.hear(topic, payload);
        }
        assert_eq!((numbers.received(9), numbers.received(1), numbers.duplicates()), (2, 1, 1));
    }

    /// Goal: a message refused or cut off is sent again under its number; none is skipped.
    #[test]
    fn a_message_is_repeated_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let traffic = Traffic::start(socket);
        let accept = || BufReader::new(listener.accept().unwrap().0);

        assert_eq!(answer(&mut accept(), r#"{"ok":false}"#), 1);
        let mut stream = accept();
        assert_eq!(answer(&mut stream, r#"{"ok":true}"#), 1);
        assert_eq!(answer(&mut stream, r#"{"ok":true}"#), 2);
        let enough = || Ok((traffic.acknowledged() >= 2).then_some(()));
        Stop::default().until("two acknowledgements", 10_000, enough).unwrap();
        drop((stream, listener));

        let tally = traffic.finish().unwrap();
        assert_eq!(tally.acknowledged, 2);
        assert!(tally.repeated >= 1);
    }
}
