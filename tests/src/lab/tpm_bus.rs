//! The bus to a TPM: several programs, one chip, and everything that can happen on the way.
//!
//! **What it is.** A Unix socket that takes commands as swtpm's own does, from any number of
//! programs at once, and passes them on one after the other. It counts them by command code, makes
//! each take longer ([`TpmBus::delay`]), and spoils single ones ([`TpmBus::spoil`]).
//!
//! **What it must never do.** Manage anything: no handle is translated and nothing is flushed for
//! a program that has gone, so one program's leftovers are in the way of the next, as on
//! `/dev/tpm0`. Nor hide a power cut: when the TPM is gone, its programs' connections break.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::wait::pause;

use super::OrFail;
use super::wait::until;

/// Tag, length and code in front of every command and response. TPM 2.0 Part 1 §18.2
const HEADER_LEN: usize = 10;

/// Longer than any command or response of a TPM; what claims more is no TPM traffic.
const MESSAGE_LEN_MAX: usize = 16 * 1024;

/// From the request to spoil a command to that command.
const HELD_MS_MAX: u64 = 20_000;

/// What happens to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The TPM does nothing and answers with this code.
    Answer(u32),
    /// The command waits, unheard by the TPM, until [`TpmBus::go_on`]; everyone else does, too.
    Hold,
    /// The TPM does it; the connection breaks before the answer is heard.
    LoseAnswer,
    /// The connection breaks before the TPM has heard it.
    LoseCommand,
}

/// What has passed, of one command code or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Commands.
    pub commands: usize,
    /// Answers with another code than success.
    pub refusals: usize,
    /// Octets of the commands.
    pub octets_out: usize,
    /// Octets of the answers.
    pub octets_in: usize,
}

/// One command and its answer, as they passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command.
    pub command: Vec<u8>,
    /// The answer.
    pub answer: Vec<u8>,
}

/// A bus with its programs; it ends with this guard.
#[derive(Debug)]
pub struct TpmBus {
    socket: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    tpm: PathBuf,
    /// Held from a command's arrival to its answer: the chip does one thing at a time.
    chip: Mutex<Option<UnixStream>>,
    notes: Mutex<Notes>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct Notes {
    quit: bool,
    delay_ms: u64,
    plans: Vec<(u32, Mishap)>,
    refused: (Vec<u32>, u32),
    is_holding: bool,
    counts: BTreeMap<u32, Count>,
    recording: Option<Vec<Exchange>>,
    programs: Vec<UnixStream>,
}

impl TpmBus {
    /// Listens at `socket` for `tpm`, which listens on its own; nobody else may be connected to it.
    #[must_use]
    pub fn start(socket: &Path, tpm: &Swtpm) -> Self {
        let listener = UnixListener::bind(socket).or_fail("a socket for the bus");
        // tpm2-tss looks for it beside the data socket.
        let control = PathBuf::from(format!("{}.ctrl", socket.display()));
        symlink(tpm.control_socket(), control).or_fail("the way to the control socket");
        let shared = Arc::new(Shared {
            tpm: tpm.data_socket(),
            chip: Mutex::default(),
            notes: Mutex::default(),
            released: Condvar::new(),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { socket: socket.to_path_buf(), shared, thread: Some(thread) }
    }

    /// Where programs connect.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The address as an agent's configuration has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("swtpm:{}", self.socket.display())
    }

    /// From now on each command takes so much longer, milliseconds.
    pub fn delay(&self, ms: u64) {
        self.shared.notes().delay_ms = ms;
    }

    /// The next command of `code` meets with `mishap`; once, after those planned before.
    pub fn spoil(&self, code: u32, mishap: Mishap) {
        self.shared.notes().plans.push((code, mishap));
    }

    /// From now on every command of these codes is answered with `answer`, and the TPM does none of
    /// them.
    pub fn refuse(&self, codes: &[u32], answer: u32) {
        self.shared.notes().refused = (codes.to_vec(), answer);
    }

    /// Whether everything planned has happened.
    #[must_use]
    pub fn is_as_planned(&self) -> bool {
        self.shared.notes().plans.is_empty()
    }

    /// Whether a command is held just now.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.shared.notes().is_holding
    }

    /// Waits until a command is held.
    #[track_caller]
    pub fn await_held(&self) {
        until("a command to be held", HELD_MS_MAX, || self.shared.notes().is_holding.then_some(()));
    }

    /// Lets a held command go on to the TPM.
    pub fn go_on(&self) {
        self.shared.notes().is_holding = false;
        self.shared.released.notify_all();
    }

    /// What has passed so far, by command code.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<u32, Count> {
        self.shared.notes().counts.clone()
    }

    /// What has passed so far.
    #[must_use]
    pub fn total(&self) -> Count {
        self.counts().values().fold(Count::default(), |sum, count| Count {
            commands: sum.commands + count.commands,
            refusals: sum.refusals + count.refusals,
            octets_out: sum.octets_out + count.octets_out,
            octets_in: sum.octets_in + count.octets_in,
        })
    }

    /// Keeps every exchange from now on, until [`TpmBus::recording`] takes them.
    pub fn record(&self) {
        self.shared.notes().recording = Some(Vec::new());
    }

    /// Every exchange since [`TpmBus::record`].
    #[must_use]
    pub fn recording(&self) -> Vec<Exchange> {
        self.shared.notes().recording.take().unwrap_or_default()
    }
}

impl Drop for TpmBus {
    fn drop(&mut self) {
        let programs = {
            let mut notes = self.shared.notes();
            notes.quit = true;
            notes.is_holding = false;
            std::mem::take(&mut notes.programs)
        };
        self.shared.released.notify_all();
        programs.iter().for_each(hang_up);
        // The listener waits in accept: this is what wakes it.
        let _woken = UnixStream::connect(&self.socket);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// Passes one command to the chip; the connection is made when it is needed, and given up when
    /// it breaks.
    fn pass(&self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut chip = lock(&self.chip);
        let (mishap, delay_ms) = self.notes().take(command);
        pause(delay_ms);
        match mishap {
            Some(Mishap::Answer(code)) => return Ok(bare_answer(code)),
            Some(Mishap::LoseCommand) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Mishap::Hold) => self.hold(),
            Some(Mishap::LoseAnswer) | None => {}
        }
        let answer = ask(&mut chip, &self.tpm, command).inspect_err(|_| *chip = None)?;
        if mishap == Some(Mishap::LoseAnswer) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(answer)
    }

    fn hold(&self) {
        let mut notes = self.notes();
        notes.is_holding = !notes.quit;
        while notes.is_holding {
            notes = self.released.wait(notes).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Notes {
    /// Counts a command, and looks up what is to happen to it.
    fn take(&mut self, command: &[u8]) -> (Option<Mishap>, u64) {
        let code = code_of(command);
        let count = self.counts.entry(code).or_default();
        count.commands += 1;
        count.octets_out += command.len();
        let planned = self.plans.iter().position(|(planned, _)| *planned == code);
        let mishap = planned.map(|index| self.plans.remove(index).1);
        let (refused, answer) = &self.refused;
        let refusal = refused.contains(&code).then_some(Mishap::Answer(*answer));
        (mishap.or(refusal), self.delay_ms)
    }

    fn answered(&mut self, command: &[u8], answer: &[u8]) {
        let count = self.counts.entry(code_of(command)).or_default();
        count.octets_in += answer.len();
        count.refusals += usize::from(code_of(answer) != 0);
        if let Some(recording) = &mut self.recording {
            recording.push(Exchange { command: command.to_vec(), answer: answer.to_vec() });
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for program in listener.incoming() {
        let mut notes = shared.notes();
        if notes.quit {
            return;
        }
        let Ok(program) = program else { continue };
        let Ok(copy) = program.try_clone() else { continue };
        notes.programs.push(copy);
        drop(notes);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Why a program's connection ended is the program's to say.
            let _ended = serve(&program, &shared);
            hang_up(&program);
        });
    }
}

fn serve(mut program: &UnixStream, shared: &Shared) -> io::Result<()> {
    loop {
        let command = read_message(&mut program)?;
        let answer = shared.pass(&command)?;
        shared.notes().answered(&command, &answer);
        program.write_all(&answer)?;
    }
}

fn ask(chip: &mut Option<UnixStream>, tpm: &Path, command: &[u8]) -> io::Result<Vec<u8>> {
    let chip = match chip {
        Some(chip) => chip,
        None => chip.insert(UnixStream::connect(tpm)?),
    };
    chip.write_all(command)?;
    read_message(chip)
}

fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER_LEN];
    stream.read_exact(&mut message)?;
    let len = u32::from_be_bytes([message[2], message[3], message[4], message[5]]) as usize;
    if !(HEADER_LEN..=MESSAGE_LEN_MAX).contains(&len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(len, 0);
    stream.read_exact(&mut message[HEADER_LEN..])?;
    Ok(message)
}

/// The command code of a command, the response code of a response.
fn code_of(message: &[u8]) -> u32 {
    u32::from_be_bytes([message[6], message[7], message[8], message[9]])
}

fn bare_answer(code: u32) -> Vec<u8> {
    let mut answer = vec![0x80, 0x01, 0, 0, 0, 10];
    answer.extend(code.to_be_bytes());
    answer
}

fn hang_up(program: &UnixStream) {
    // Whoever has gone already needs no telling.
    let _gone = program.shutdown(std::net::Shutdown::Both);
}

/// A thread that panicked leaves counts that are true as far as they go.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use fleetcert_rig::wait::{Stop, Stopwatch};

    use super::*;
    use crate::lab::tpm::tool;

    const STARTUP: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    const SELF_TEST: &[u8] = &[0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0x43, 0];
    const CC_SELF_TEST: u32 = 0x143;

    fn powered(place: &tempfile::TempDir) -> (Swtpm, TpmBus) {
        let mut tpm = Swtpm::blank(&place.path().join("tpm")).unwrap();
        tpm.start(&Stop::default()).unwrap();
        let bus = TpmBus::start(&place.path().join("bus.sock"), &tpm);
        (tpm, bus)
    }

    fn say(mut program: &UnixStream, command: &[u8]) -> io::Result<u32> {
        program.write_all(command)?;
        read_message(&mut program).map(|answer| code_of(&answer))
    }

    /// Goal: two programs use one TPM at once, and every command is counted and can be kept.
    #[test]
    fn programs_share_a_tpm_and_are_counted() {
        let place = tempfile::tempdir().unwrap();
        let (_tpm, bus) = powered(&place);
        bus.record();
        let [one, two] = [(); 2].map(|()| UnixStream::connect(bus.socket()).unwrap());
        assert_eq!(say(&one, STARTUP).unwrap(), 0);
        assert_eq!(say(&two, STARTUP).unwrap(), 0x100, "the other has started it");
        assert_eq!(say(&one, SELF_TEST).unwrap(), 0);
        let count = Count { commands: 2, refusals: 1, octets_out: 24, octets_in: 20 };
        assert_eq!(bus.counts()[&0x144], count);
        assert_eq!(bus.total().commands, 3);
        assert_eq!(bus.recording()[2].command, SELF_TEST);
    }

    /// Goal: tpm2-tools are programs like any other, beside one that stays connected.
    #[test]
    fn tools_reach_the_tpm_through_the_bus() {
        let place = tempfile::tempdir().unwrap();
        let (_tpm, bus) = powered(&place);
        let program = UnixStream::connect(bus.socket()).unwrap();
        say(&program, STARTUP).unwrap();
        let outcome = tool(bus.socket(), &["tpm2_getcap", "properties-variable"]);
        assert!(outcome.expect_success().stdout.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"));
        tool(bus.socket(), &["tpm2_clear"]).expect_success();
        assert_eq!(bus.counts()[&0x126].commands, 1, "TPM2_Clear");
        assert_eq!(say(&program, SELF_TEST).unwrap(), 0);
    }

    /// Goal: each mishap does what it is called, once, and the next command is as ever.
    #[test]
    fn single_commands_are_spoiled() {
        let place = tempfile::tempdir().unwrap();
        let (_tpm, bus) = powered(&place);
        let program = UnixStream::connect(bus.socket()).unwrap();
        say(&program, STARTUP).unwrap();
        bus.spoil(CC_SELF_TEST, Mishap::Answer(0x922));
        assert_eq!(say(&program, SELF_TEST).unwrap(), 0x922);
        assert_eq!(say(&program, SELF_TEST).unwrap(), 0);
        for mishap in [Mishap::LoseAnswer, Mishap::LoseCommand] {
            let program = UnixStream::connect(bus.socket()).unwrap();
            bus.spoil(CC_SELF_TEST, mishap);
            assert!(say(&program, SELF_TEST).is_err(), "{mishap:?}");
        }
        assert!(bus.is_as_planned());
        assert_eq!(say(&program, SELF_TEST).unwrap(), 0);
    }

    /// Goal: a command is held while the power is cut; its program notices, and may come back.
    #[test]
    fn the_power_is_cut_under_a_command() {
        let place = tempfile::tempdir().unwrap();
        let (mut tpm, bus) = powered(&place);
        let program = UnixStream::connect(bus.socket()).unwrap();
        say(&program, STARTUP).unwrap();
        bus.spoil(CC_SELF_TEST, Mishap::Hold);
        let asked = thread::spawn(move || say(&program, SELF_TEST));
        bus.await_held();
        tpm.kill();
        bus.go_on();
        assert!(asked.join().unwrap().is_err());
        tpm.start(&Stop::default()).unwrap();
        let program = UnixStream::connect(bus.socket()).unwrap();
        assert_eq!(say(&program, STARTUP).unwrap(), 0, "a TPM that has lost its power");
    }

    /// Goal: a delay is at least what was asked for.
    #[test]
    fn a_slow_tpm_is_slow() {
        let place = tempfile::tempdir().unwrap();
        let (_tpm, bus) = powered(&place);
        let program = UnixStream::connect(bus.socket()).unwrap();
        bus.delay(80);
        let watch = Stopwatch::start();
        say(&program, STARTUP).unwrap();
        assert!(watch.elapsed_ms() >= 80);
    }
}
