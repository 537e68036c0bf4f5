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
//! more: it was busy, testing itself, or full. One loop ([`Tpm`]'s private `call`) knows
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

use crate::command::{Code, Handle, Writer};
use crate::fault::{Patience, ResponseCode, TpmError};
use crate::reader::Parts;
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
    /// The command in the buffer.
    code: Code,
    /// Behind it, the parts of the response: its parameters, and the authorizations up to the end.
    parameters: Range<usize>,
    end: usize,
    buffer: [u8; BUFFER_LEN],
}

/// A response of success: what it loaded, and where in the buffer its parts are.
struct Answer {
    handle: Handle,
    parameters: Range<usize>,
    end: usize,
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
            code: Code::Startup,
            parameters: 0..0,
            end: 0,
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

    /// Begins a command with its handles.
    fn command(&mut self, code: Code, handles: &[Handle]) -> Writer<'_> {
        self.code = code;
        Writer::command(&mut self.buffer, code, handles)
    }

    /// What was answered to the last command.
    fn parameters(&self) -> Parts<'_> {
        Parts::new(self.buffer.get(self.parameters.clone()).unwrap_or_default())
    }
}

impl<T: Transact> Tpm<T> {
    /// Sends the command in the first `len` octets of the buffer until the TPM has carried it out
    /// or refused it for good. Returns the handle of what it has loaded.
    fn call(&mut self, len: usize) -> Result<Handle, TpmError<T::Error>> {
        let (mut waited_ms, mut pause_ms) = (0, PAUSE_MS_FIRST);
        loop {
            match self.exchange(len) {
                Err(TpmError::Refused { code, .. }) if waited_ms < self.patience_ms(code) => (),
                outcome => return outcome,
            }
            self.transport.pause_ms(pause_ms);
            waited_ms += pause_ms;
            pause_ms = (2 * pause_ms).min(PAUSE_MS_MAX);
        }
    }

    /// How long a refusal is worth waiting for.
    fn patience_ms(&self, refusal: ResponseCode) -> u32 {
        match refusal.patience() {
            Patience::Busy => BUSY_MS_MAX,
            // What fills the TPM is ours, and to be swept before others are waited for: the
            // kernel, behind a resource manager.
            Patience::Full if self.sharing == Sharing::Exclusive && !self.is_swept => 0,
            Patience::Full => FULL_MS_MAX,
            Patience::None => 0,
        }
    }

    /// Sends the command once.
    fn exchange(&mut self, len: usize) -> Result<Handle, TpmError<T::Error>> {
        let command = self.code;
        let parts = self.buffer.split_at_mut_checked(len);
        let (sent, response) = parts.ok_or(TpmError::CommandTooLong { command })?;
        let outcome = match self.transport.transact(sent, response) {
            Ok(octets) => parse(command, sent, response.get(..octets).unwrap_or_default()),
            Err(error) => Err(TpmError::Transport(error)),
        };
        if !matches!(outcome, Ok(_) | Err(TpmError::Refused { .. })) {
            self.lost |= command.loads();
        }
        let Answer { handle, parameters, end } = outcome?;
        (self.parameters, self.end) = (parameters, end);
        Ok(handle)
    }

    /// The answer to the last command is none.
    const fn malformed(&self) -> TpmError<T::Error> {
        TpmError::Malformed { command: self.code }
    }

    /// Has the last command be answered well, or not.
    const fn expect(&self, is_well: bool) -> Result<(), TpmError<T::Error>> {
        if is_well { Ok(()) } else { Err(self.malformed()) }
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
        let command = self.command(Code::FlushContext, &[]).u32(handle.0).end();
        match self.call(command) {
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

    /// Passes `outcome` on, with what is loaded as `handle` flushed if it is a failure. If that
    /// fails, too, it is owed; the first failure is the one to tell.
    pub(crate) fn unless_failed<R, E>(
        &mut self,
        handle: Handle,
        outcome: Result<R, E>,
    ) -> Result<R, E> {
        if outcome.is_err() {
            let _owed = self.flush(handle);
        }
        outcome
    }
}

/// Takes the response to `command`, behind which it stands, apart. TPM 2.0 Part 1 §18.
fn parse<E>(code: Code, command: &[u8], response: &[u8]) -> Result<Answer, TpmError<E>> {
    let mut parts = Parts::new(response);
    let (tag, len, refusal) = (parts.u16(), parts.u32(), parts.u32());
    let is_framed = usize::try_from(len) == Ok(response.len());
    if is_framed && parts.is_whole() && refusal != 0 {
        return Err(TpmError::Refused { command: code, code: ResponseCode(refusal) });
    }
    let is_answer = is_framed && tag == Parts::new(command).u16();
    let handle = Handle(if code.loads() { parts.u32() } else { Handle::NULL.0 });
    let len = match tag == TpmSt::Sessions as u16 {
        true => usize::try_from(parts.u32()).unwrap_or(usize::MAX),
        false => parts.rest().len(),
    };
    let from = command.len() + response.len() - parts.rest().len();
    parts.take(len);
    if !is_answer || !parts.is_whole() {
        return Err(TpmError::Malformed { command: code });
    }
    Ok(Answer { handle, parameters: from..from + len, end: command.len() + response.len() })
}

#[cfg(test)]
mod tests;
