//! The agent's control socket, as a local program uses it: one JSON object a line, each way.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// An answer longer than this is no answer of the agent's.
const ANSWER_LEN_MAX: u64 = 64 * 1024;

/// Longer than any identity switch that keeps the product's word, shorter than a bored spectator.
const ANSWER_WAIT_MS_MAX: u64 = 3_000;

/// A connection to a running agent.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// When no agent listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_millis(ANSWER_WAIT_MS_MAX)))?;
        stream.set_write_timeout(Some(Duration::from_millis(ANSWER_WAIT_MS_MAX)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its answer. After an error the connection is of no more use: an
    /// answer that came too late would be taken for the next one's.
    ///
    /// # Errors
    ///
    /// When the agent hangs up, takes too long, or says anything but a JSON object in a line.
    pub fn ask(&mut self, request: &Value) -> io::Result<Value> {
        let mut line = request.to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        let len = (&mut self.stream).take(ANSWER_LEN_MAX).read_line(&mut answer)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&answer).map_err(io::Error::from)
    }
}
