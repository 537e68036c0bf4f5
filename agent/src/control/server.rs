//! The agent's side of the control socket.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use fleetcert_core::lifecycle::Command;
use fleetcert_core::topic::DataPath;
use futures_lite::io::BufReader;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use smol::Async;
use smol::channel::Sender;

use super::{Answer, REQUEST_LEN_MAX, Refusal, Request, SOCKET};
use crate::clock::{SystemClock, within};
use crate::context::Executor;
use crate::disk::{Disk, StateDir};
use crate::link::{Link, Publication};
use crate::status::Board;
use crate::tpm::LOOK_MAX;

/// Connections served at once; each may hold a request of [`REQUEST_LEN_MAX`].
const CONNECTIONS_MAX: usize = 16;

/// A connection that says nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Somebody who does not read an answer for so long will not.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// After an error of `accept` (no descriptors left), the next try waits so long.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The prefix of the topics that programs on the device may publish to.
const DATA: &str = "data/";

/// The bound socket; removed when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Async<UnixListener>,
    path: PathBuf,
}

/// The socket could not be bound.
#[derive(Debug)]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// What the answers come from.
pub struct Desk {
    board: Board,
    link: Rc<dyn Link>,
    commands: Sender<Command>,
    open: Cell<usize>,
}

impl Socket {
    /// Binds the socket of a state directory whose lock the caller holds.
    ///
    /// # Errors
    ///
    /// [`SocketError`] with the path, which may be too long for a socket.
    pub fn bind(state: &StateDir) -> Result<Self, SocketError> {
        let path = state.path(SOCKET);
        let bound = state.remove(SOCKET).and_then(|()| {
            let listener = Async::<UnixListener>::bind(&path)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(SocketError { path, source }),
        }
    }

    /// Serves connections until it is dropped.
    pub async fn serve(self, desk: Rc<Desk>, executor: Executor) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => executor.spawn(Rc::clone(&desk).attend(stream)).detach(),
                Err(error) => {
                    log::warn!("control socket {}: {error}", self.path.display());
                    crate::clock::timer(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("{} was not removed: {error}", self.path.display());
        }
    }
}

impl Desk {
    /// A desk that answers from this board and passes on to this link and this queue.
    #[must_use]
    pub fn new(board: Board, link: Rc<dyn Link>, commands: Sender<Command>) -> Self {
        Self { board, link, commands, open: Cell::new(0) }
    }

    /// Serves one connection to its end.
    async fn attend(self: Rc<Self>, stream: Async<UnixStream>) {
        if self.open.get() >= CONNECTIONS_MAX {
            let _unheard = tell(&stream, &Answer::Refused(Refusal::Connections)).await;
            return;
        }
        self.open.set(self.open.get() + 1);
        if let Err(error) = self.converse(&stream).await {
            log::debug!("control connection: {error}");
        }
        self.open.set(self.open.get() - 1);
    }

    async fn converse(&self, stream: &Async<UnixStream>) -> io::Result<()> {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = REQUEST_LEN_MAX as u64 + 1;
            let mut limited = (&mut lines).take(limit);
            match within(IDLE_MAX, limited.read_until(b'\n', &mut line)).await.transpose()? {
                None | Some(0) => return Ok(()),
                Some(_) => {}
            }
            if line.len() > REQUEST_LEN_MAX {
                return tell(stream, &Answer::Refused(Refusal::Length)).await;
            }
            let answer = self.answer(&line).await;
            tell(stream, &answer).await?;
        }
    }

    /// Does what a line asks, and says what came of it.
    pub async fn answer(&self, line: &[u8]) -> Answer {
        let outcome = match serde_json::from_slice(line) {
            Err(error) => Err(Refusal::Malformed(error.to_string())),
            Ok(Request::Decommission {}) => self.command(Command::Decommission),
            Ok(Request::Publish { topic, payload }) => self.publish(topic, payload).await,
            Ok(Request::Renew {}) => self.command(Command::Renew),
            Ok(Request::Status {}) => {
                self.board.keys().look(LOOK_MAX).await;
                let status = self.board.status(SystemClock.mono(), self.link.status());
                status.map(|status| Answer::Status(Box::new(status))).ok_or(Refusal::NotReady)
            }
        };
        outcome.unwrap_or_else(Answer::Refused)
    }

    fn command(&self, command: Command) -> Result<Answer, Refusal> {
        self.commands.try_send(command).map(|()| Answer::Done).map_err(|_| Refusal::Busy)
    }

    async fn publish(&self, topic: String, payload: String) -> Result<Answer, Refusal> {
        let path = topic.strip_prefix(DATA).ok_or(Refusal::Topic)?;
        DataPath::parse(path).map_err(|_| Refusal::Topic)?;
        let publication = Publication { topic, payload: payload.into_bytes(), retain: false };
        self.link.publish(publication).await.map(|()| Answer::Done).map_err(Refusal::Publish)
    }
}

async fn tell(mut stream: &Async<UnixStream>, answer: &Answer) -> io::Result<()> {
    let line = answer.line();
    let told = within(WRITE_MAX, stream.write_all(line.as_bytes())).await;
    told.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("open", &self.open.get()).finish_non_exhaustive()
    }
}

impl SocketError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::InvalidInput => {
                "choose a shorter state_dir: the path of a socket has 107 octets at most"
            }
            kind => crate::disk::advice(kind),
        }
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for SocketError {}
