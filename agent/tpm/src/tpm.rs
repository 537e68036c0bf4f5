//! TPM 2.0 commands, one method each, over one buffer.
//!
//! **What it is.** [`Tpm`] owns the transport and the only large buffer of this crate. Each method
//! writes a command, has it answered and reads the answer where it lies. Sequences that mean
//! something to a device stand above it, in [`crate::vault`].
//!
//! **What it must never do.** Lose a handle. A TPM has three slots for keys and three for
//! sessions, and one that is forgotten stays taken until a reset. Whatever is loaded is flushed by
//! the method that loaded it or by [`Tpm::during`], whether or not its work succeeded. A flush
//! that fails is *owed* and made up for before anything else happens ([`Tpm::settle`]); a handle
//! that went down with its answer cannot be named, so that [`Sharing`] says whether everything
//! may be flushed instead.
//!
//! **Why it waits here and nowhere else.** After some answers a TPM wants the same command once
//! more: it was busy, testing itself, or full. One loop ([`Tpm`]'s private `answer`) knows
//! them, waits through [`Transact::pause_ms`], doubling, and gives up after a fixed sum. A command
//! is a sequence of bytes that is still in the buffer then, session nonces included, as TPM 2.0
//! Part 1 §19.6.5 allows: a command that was not carried out has rolled no nonce.

mod capability;
mod key;
mod nv;
mod secret;
mod start;

use core::fmt;
use core::ops::Range;

use tpm2_protocol::data::TpmSt;

use crate::command::{Code, HEADER_LEN, Handle, Malformed, Writer};
use crate::fault::{Patience, ResponseCode, TpmError};
use crate::reader::Reader;
use crate::transact::Transact;

pub use self::capability::{Firmware, Lockout, Properties};
pub use self::key::{CONTEXT_LEN_MAX, Certified};
pub use self::secret::{Loaded, Parent, SECRET_LEN_MAX, Secret};
pub use self::start::SelfTest;

/// Octets of the buffer that a command and its response share. The longest pair is the making of
/// an RSA-4096 endorsement key: 640 octets of command, a thousand of response.
pub const BUFFER_LEN: usize = 2048;

/// The first pause before a command is sent again, milliseconds; each one doubles.
const PAUSE_MS_FIRST: u32 = 2;

/// The longest pause, milliseconds: a slot that becomes free is noticed within it.
const PAUSE_MS_MAX: u32 = 250;

/// All pauses for a busy TPM together, milliseconds. Chips test themselves in less than two
/// seconds; a TPM that was busy for ten is stuck.
const BUSY_MS_MAX: u32 = 10_000;

/// All pauses for slots together, milliseconds: programs that put their keys away do it at once.
const FULL_MS_MAX: u32 = 3_000;

/// Handles owed at most: what one sequence holds at a time is four.
const OWED_MAX: usize = 6;

/// Who else uses the TPM through this transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody. What is loaded is ours, perhaps of a life that ended early, and may be flushed. A
    /// resource manager such as `/dev/tpmrm0` shows every program only its own, so that it counts
    /// as this.
    Exclusive,
    /// Others, whose handles are visible and not to be touched.
    Shared,
}

/// A TPM, command by command. `T` is the way to it.
pub struct Tpm<T> {
    transport: T,
    sharing: Sharing,
    owed: [Option<Handle>; OWED_MAX],
    lost: bool,
    /// Nothing of ours is in the way: everything has been flushed since the call began.
    is_swept: bool,
    buffer: [u8; BUFFER_LEN],
}

/// Where in the buffer the parts of a response are.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    handle: Handle,
    parameters: Range<usize>,
    authorizations: Range<usize>,
}

impl<T> fmt::Debug for Tpm<T> {
    /// Shows nothing of the buffer: it may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").field("sharing", &self.sharing).field("owed", &self.owed).finish()
    }
}

impl<T> Tpm<T> {
    /// A TPM behind `transport`. Nothing is sent.
    pub const fn new(transport: T, sharing: Sharing) -> Self {
        Self {
            transport,
            sharing,
            owed: [None; OWED_MAX],
            lost: false,
            is_swept: false,
            buffer: [0; BUFFER_LEN],
        }
    }

    /// Who else uses it.
    pub const fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The way to it.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// The way to it, for whoever made it.
    pub fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// What has been answered. Only the last answer's ranges make sense.
    fn parameters(&self, answer: &Answer) -> Reader<'_> {
        Reader::new(self.buffer.get(answer.parameters.clone()).unwrap_or_default())
    }
}

impl<T: Transact> Tpm<T> {
    /// Writes a command by `write`, sends it and has it answered.
    fn call(
        &mut self,
        code: Code,
        handles: &[Handle],
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Answer, TpmError<T::Error>> {
        let len = self.write(code, handles, write)?;
        self.answer(code, len)
    }

    /// Writes a command by `write`; returns its octets.
    fn write(
        &mut self,
        code: Code,
        handles: &[Handle],
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<usize, TpmError<T::Error>> {
        let mut command = Writer::command(&mut self.buffer, code, handles);
        write(&mut command);
        command.finish().map_err(|_| TpmError::CommandTooLong { command: code })
    }

    /// Sends the command in the first `len` octets of the buffer until the TPM has carried it out
    /// or refused it for good.
    fn answer(&mut self, code: Code, len: usize) -> Result<Answer, TpmError<T::Error>> {
        let (mut waited_ms, mut pause_ms) = (0, PAUSE_MS_FIRST);
        loop {
            let refusal = match self.exchange(code, len)? {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let patience_ms = match refusal.patience() {
                Patience::Busy => BUSY_MS_MAX,
                // What fills the TPM is ours, and to be swept before others are waited for: the
                // kernel, behind a resource manager.
                Patience::Full if self.sharing == Sharing::Exclusive && !self.is_swept => 0,
                Patience::Full => FULL_MS_MAX,
                Patience::None => 0,
            };
            if waited_ms >= patience_ms {
                return Err(TpmError::Refused { command: code, code: refusal });
            }
            self.transport.pause_ms(pause_ms);
            waited_ms += pause_ms;
            pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
        }
    }

    /// Sends the command once.
    fn exchange(
        &mut self,
        code: Code,
        len: usize,
    ) -> Result<Result<Answer, ResponseCode>, TpmError<T::Error>> {
        let parts = self.buffer.split_at_mut_checked(len);
        let (command, response) = parts.ok_or(TpmError::CommandTooLong { command: code })?;
        let available = response.len();
        let outcome = match self.transport.transact(command, response) {
            Ok(octets) if octets <= available => {
                parse(code, &self.buffer[..len + octets], len).map_err(|_| code)
            }
            Ok(_) => Err(code),
            Err(error) => {
                self.lost |= code.loads();
                return Err(TpmError::Transport(error));
            }
        };
        outcome.map_err(|command| {
            self.lost |= command.loads();
            TpmError::Malformed { command }
        })
    }

    /// Has `work` use what is loaded as `handle`, and flushes it, whatever came of it. The first
    /// failure is the one that is told.
    ///
    /// # Errors
    ///
    /// Those of `work`, and those of [`Tpm::flush`] made fit by `From`.
    pub fn during<R, E: From<TpmError<T::Error>>>(
        &mut self,
        handle: Handle,
        work: impl FnOnce(&mut Self, Handle) -> Result<R, E>,
    ) -> Result<R, E> {
        let outcome = work(self, handle);
        let flushed = self.flush(handle);
        let value = outcome?;
        flushed?;
        Ok(value)
    }

    /// Takes an object or a session out of the TPM. Part 3 §28.4.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; the handle is owed then, and flushed by [`Tpm::settle`]. A handle that is not
    /// there any more is flushed.
    pub fn flush(&mut self, handle: Handle) -> Result<(), TpmError<T::Error>> {
        match self.call(Code::FlushContext, &[], |command| {
            command.u32(handle.0);
        }) {
            Err(error) if !error.is(ResponseCode::is_no_such_handle) => {
                self.owe(handle);
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn owe(&mut self, handle: Handle) {
        match self.owed.iter_mut().find(|owed| owed.is_none_or(|owed| owed == handle)) {
            Some(place) => *place = Some(handle),
            None => self.lost = true,
        }
    }

    /// Flushes what could not be flushed when it was due, and everything if a handle got lost and
    /// the TPM is ours alone. Sends nothing when nothing is owed.
    ///
    /// # Errors
    ///
    /// [`TpmError`]; what is left stays owed.
    pub fn settle(&mut self) -> Result<(), TpmError<T::Error>> {
        self.is_swept = false;
        for index in 0..OWED_MAX {
            if let Some(handle) = self.owed[index].take() {
                self.flush(handle)?;
            }
        }
        if self.lost && self.sharing == Sharing::Exclusive {
            self.sweep()?;
        }
        Ok(())
    }

    /// Flushes every transient object and every loaded session.
    ///
    /// # Errors
    ///
    /// [`TpmError`].
    pub fn sweep(&mut self) -> Result<(), TpmError<T::Error>> {
        for first in [Handle::TRANSIENT, Handle::SESSIONS] {
            let mut handles = [Handle::NULL; 8];
            loop {
                let found = self.handles(first, &mut handles)?;
                for &handle in handles.iter().take(found) {
                    self.flush(handle)?;
                }
                if found < handles.len() {
                    break;
                }
            }
        }
        (self.lost, self.is_swept) = (false, true);
        Ok(())
    }

    /// Passes `value` on, or flushes what an answer has loaded that is malformed behind its handle.
    fn or_flush<R>(
        &mut self,
        code: Code,
        handle: Handle,
        value: Result<R, Malformed>,
    ) -> Result<R, TpmError<T::Error>> {
        value.or_else(|Malformed| {
            self.flush(handle)?;
            Err(TpmError::Malformed { command: code })
        })
    }
}

/// Takes the response behind the first `at` octets of `buffer` apart. TPM 2.0 Part 1 §18.
fn parse(code: Code, buffer: &[u8], at: usize) -> Result<Result<Answer, ResponseCode>, Malformed> {
    let (command, response) = buffer.split_at(at);
    let mut reader = Reader::new(response);
    let (tag, size, refusal) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if usize::try_from(size) != Ok(response.len()) {
        return Err(Malformed);
    }
    if refusal != 0 {
        return Ok(Err(ResponseCode(refusal)));
    }
    if Ok(tag) != Reader::new(command).u16() {
        return Err(Malformed);
    }
    let mut from = at + HEADER_LEN;
    let handle = if code.loads() {
        from += 4;
        Handle(reader.u32()?)
    } else {
        Handle::NULL
    };
    let mut to = buffer.len();
    if tag == TpmSt::Sessions as u16 {
        let len = usize::try_from(reader.u32()?).map_err(|_| Malformed)?;
        reader.take(len)?;
        from += 4;
        to = from + len;
    }
    Ok(Ok(Answer { handle, parameters: from..to, authorizations: to..buffer.len() }))
}

#[cfg(test)]
mod tests;
