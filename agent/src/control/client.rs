//! The asking side of the control socket: one question, one answer.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{ANSWER_LEN_MAX, Request};

/// An acknowledged publication may wait this long for its broker.
const ANSWER_MAX: Duration = Duration::from_secs(75);

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// What was answered is no answer.
    Malformed,
    /// Nobody listens: no agent is running on this state directory.
    NotRunning,
    /// The agent refused.
    Refused {
        /// Why, in its words.
        error: String,
        /// Whether the same may be asked again with hope.
        retry: bool,
    },
    /// The connection.
    Socket(io::Error),
}

/// Asks the agent behind the socket at `path`, and gives the members of its answer.
///
/// # Errors
///
/// [`AskError`].
pub fn ask(path: &Path, request: &Request) -> Result<Value, AskError> {
    let mut stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        _ => AskError::Socket(error),
    })?;
    let line = exchange(&mut stream, request).map_err(AskError::Socket)?;
    let answer: Value = serde_json::from_str(&line).map_err(|_| AskError::Malformed)?;
    match (answer["ok"].as_bool(), answer["error"].as_str()) {
        (Some(true), _) => Ok(answer),
        (Some(false), Some(error)) => {
            let retry = answer["retry"].as_bool().unwrap_or(false);
            Err(AskError::Refused { error: error.to_owned(), retry })
        }
        _ => Err(AskError::Malformed),
    }
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let line = format!("{}\n", serde_json::to_string(request)?);
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).take(ANSWER_LEN_MAX as u64).read_line(&mut answer)?;
    Ok(answer)
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the agent's answer is not understood"),
            Self::NotRunning => f.write_str("no agent is running on this state directory"),
            Self::Refused { error, .. } => f.write_str(error),
            Self::Socket(error) => write!(f, "control socket: {error}"),
        }
    }
}

impl std::error::Error for AskError {}
