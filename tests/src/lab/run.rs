//! Other programs, run to their end with a deadline.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use fleetcert_rig::wait::Stop;

use super::OrFail;

/// No program of a story's that is to end by itself takes longer.
const RUN_MS_MAX: u64 = 30_000;

/// How a program ended, and what it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run, as one would type it.
    pub line: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its output, as far as it is text.
    pub stdout: String,
    /// Its output, as it is.
    pub octets: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Outcome {
    /// Itself, unless the program reported anything but success.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    /// Itself, unless the exit code is another one.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.line, self.stdout, self.stderr);
        self
    }

    /// Both streams together.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `command` to its end with `input` on its standard input.
#[track_caller]
pub fn run(mut command: Command, input: &[u8]) -> Outcome {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().or_fail(&line);
    let feeder = feed(&mut child, input.to_vec());
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = Stop::default()
        .until("the end of a program", RUN_MS_MAX, || Ok(child.try_wait().or_fail(&line)));
    let status = status.unwrap_or_else(|error| {
        // It is ended either way; that it had ended by itself just now changes nothing.
        let _ended = child.kill();
        let said = [stdout.is_finished(), stderr.is_finished()];
        panic!("{line}: {error} (streams closed: {said:?})");
    });
    let _fed = feeder.join();
    let octets = stdout.join().unwrap_or_default();
    Outcome {
        line,
        code: status.code(),
        stdout: String::from_utf8_lossy(&octets).into_owned(),
        octets,
        stderr: String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned(),
    }
}

fn feed(child: &mut Child, input: Vec<u8>) -> JoinHandle<()> {
    let stdin = child.stdin.take();
    thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input to the end is within its rights.
            let _closed = stdin.write_all(&input);
        }
    })
}

fn drain(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut octets = Vec::new();
        if let Some(mut stream) = stream {
            let _cut = stream.read_to_end(&mut octets);
        }
        octets
    })
}
