//! A TPM on a Unix socket, as the TPM crate's [`Transact`]: it keeps count, and makes trouble.
//!
//! **What it is.** The shortest way from the command sequences to an `swtpm`: no thread, no queue,
//! no second attempt. It notes what passed ([`TpmSocket::take_exchanges`]) and spoils one command
//! of those to come ([`TpmSocket::spoil`]), so that a test can fail each command of a sequence in
//! turn.
//!
//! **What it must never do.** Look after the TPM: a connection that breaks is opened again by the
//! next command, and what was loaded stays loaded, as on `/dev/tpm0`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleetcert_tpm::transact::Transact;

/// Longer than any command of a TPM without power; an RSA key is made in less.
const ANSWER_S_MAX: u64 = 60;

/// Tag, length and code in front of every command and response. TPM 2.0 Part 1 §18.
const HEADER_LEN: usize = 10;

/// How one command goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The TPM does nothing and answers with this code.
    Answer(u32),
    /// The TPM does it, and one bit in the last octet of its answer is another one.
    FlipLastBit,
    /// The TPM does it, and the answer does not arrive.
    LoseAnswer,
    /// The TPM does not hear of it.
    LoseCommand,
}

/// One command and its answer, as they passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command.
    pub command: Vec<u8>,
    /// Its answer.
    pub answer: Vec<u8>,
}

impl Exchange {
    /// The command's code.
    #[must_use]
    pub fn code(&self) -> u32 {
        word(&self.command, 6)
    }

    /// The response code; 0 is success.
    #[must_use]
    pub fn response(&self) -> u32 {
        word(&self.answer, 6)
    }
}

/// The way to one TPM.
#[derive(Debug)]
pub struct TpmSocket {
    path: PathBuf,
    stream: Option<UnixStream>,
    exchanges: Vec<Exchange>,
    spoilt: Option<(usize, usize, Mishap)>,
    spoilt_code: Option<(u32, Mishap)>,
    /// What it was asked to wait, milliseconds; it does not.
    pub paused_ms: u32,
}

impl TpmSocket {
    /// A way to the TPM that listens at `path`. Nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let path = path.to_path_buf();
        Self {
            path,
            stream: None,
            exchanges: Vec::new(),
            spoilt: None,
            spoilt_code: None,
            paused_ms: 0,
        }
    }

    /// Makes `mishap` happen to the command after `spared` others, and to `count` in all.
    pub const fn spoil(&mut self, spared: usize, count: usize, mishap: Mishap) {
        self.spoilt = Some((spared, count, mishap));
    }

    /// Makes `mishap` happen to every command of this code from now on.
    pub const fn spoil_all(&mut self, code: u32, mishap: Mishap) {
        self.spoilt_code = Some((code, mishap));
    }

    /// Whether a mishap is still to come; it is called off.
    pub const fn call_off(&mut self) -> bool {
        let is_one_spoilt = self.spoilt.take().is_some();
        self.spoilt_code.take().is_some() || is_one_spoilt
    }

    /// Closes the connection: the TPM serves another program then.
    pub fn hang_up(&mut self) {
        self.stream = None;
    }

    /// What has passed since the last time.
    pub fn take_exchanges(&mut self) -> Vec<Exchange> {
        std::mem::take(&mut self.exchanges)
    }

    /// The mishap of the command that comes now.
    fn next_mishap(&mut self, code: u32) -> Option<Mishap> {
        if let Some((_, mishap)) = self.spoilt_code.filter(|&(spoilt, _)| spoilt == code) {
            return Some(mishap);
        }
        match self.spoilt {
            Some((0, 1, mishap)) => {
                self.spoilt = None;
                Some(mishap)
            }
            Some((0, count, mishap)) => {
                self.spoilt = Some((0, count - 1, mishap));
                Some(mishap)
            }
            Some((spared, count, mishap)) => {
                self.spoilt = Some((spared - 1, count, mishap));
                None
            }
            None => None,
        }
    }

    fn stream(&mut self) -> io::Result<&mut UnixStream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = UnixStream::connect(&self.path)?;
                stream.set_read_timeout(Some(Duration::from_secs(ANSWER_S_MAX)))?;
                stream
            }
        };
        Ok(self.stream.insert(stream))
    }

    fn exchange(&mut self, command: &[u8], response: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream()?;
        stream.write_all(command)?;
        let short = || io::Error::from(io::ErrorKind::InvalidData);
        let (header, rest) = response.split_at_mut_checked(HEADER_LEN).ok_or_else(short)?;
        stream.read_exact(header)?;
        let len = usize::try_from(word(header, 2)).map_err(|_| short())?;
        let body = len.checked_sub(HEADER_LEN).and_then(|len| rest.get_mut(..len));
        stream.read_exact(body.ok_or_else(short)?)?;
        Ok(len)
    }
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
}

impl Transact for TpmSocket {
    type Error = io::Error;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> io::Result<usize> {
        let lost = || Err(io::Error::from(io::ErrorKind::BrokenPipe));
        let mishap = self.next_mishap(word(command, 6));
        let answer_len = match mishap {
            Some(Mishap::LoseCommand) => return lost(),
            Some(Mishap::Answer(code)) => {
                response[..6].copy_from_slice(&[0x80, 0x01, 0, 0, 0, 10]);
                response[6..HEADER_LEN].copy_from_slice(&code.to_be_bytes());
                HEADER_LEN
            }
            Some(Mishap::FlipLastBit | Mishap::LoseAnswer) | None => {
                match self.exchange(command, response) {
                    Ok(len) => len,
                    Err(error) => {
                        self.stream = None;
                        return Err(error);
                    }
                }
            }
        };
        let answer = response[..answer_len].to_vec();
        self.exchanges.push(Exchange { command: command.to_vec(), answer });
        match mishap {
            Some(Mishap::LoseAnswer) => return lost(),
            Some(Mishap::FlipLastBit) => response[answer_len - 1] ^= 1,
            _ => (),
        }
        Ok(answer_len)
    }

    fn pause_ms(&mut self, ms: u32) {
        self.paused_ms += ms;
    }

    fn entropy(&mut self, out: &mut [u8]) -> io::Result<()> {
        File::open("/dev/urandom")?.read_exact(out)
    }
}
