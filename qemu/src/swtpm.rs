//! A software TPM 2.0 in a process of its own, as unforgiving as the chip.
//!
//! **What it is.** `swtpm socket` over state in a private folder: [blank](Swtpm::blank), or
//! [manufactured](Swtpm::manufacture) with endorsement keys that a [`TpmMaker`] has certified
//! (RSA-2048 at 0x81010001 with its certificate at 0x01C00002; P-384 at 0x81010016 with its
//! certificate at 0x01C00016). Its state outlives the process: [`Swtpm::kill`] is a power cut,
//! [`Swtpm::start`] afterwards is power coming back.
//!
//! **How it behaves, and why so.** After each start it is a chip that has just got power: nobody
//! has sent `TPM2_Startup` yet, and everything else is answered with `TPM_RC_INITIALIZE` (0x100)
//! until somebody does. On a PC the firmware does; on a board without such firmware the driver or
//! we do, and that is the case worth testing. Hence `not-need-init` (power is on without a control
//! command) and no `startup-…` flag. Nor does it ever send `TPM2_Shutdown` by itself when it ends:
//! whoever ends it without one has made a disorderly shutdown, which the TPM remembers
//! ([`Swtpm::shutdown`] sends one).
//!
//! **One connection.** It serves one data connection at a time and keeps the next in the queue,
//! unanswered, until the first is closed; a closed connection changes nothing in the TPM. That is
//! `/dev/tpm0` without a resource manager: transient objects and sessions that one program leaves
//! loaded are in the way of the next.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::RigError;
use crate::process::{self, Process};
use crate::tpm_maker::TpmMaker;
use crate::wait::Stop;
use crate::{ports, programs};

/// From start to the first accepted connection.
const START_WAIT_MS_MAX: u64 = 10_000;

/// From the request to end to the end.
const END_WAIT_MS_MAX: u64 = 10_000;

/// `TPM2_Shutdown(TPM_SU_CLEAR)`. TPM 2.0 Part 3 §9.4
const SHUTDOWN_CLEAR: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0];

/// A response of nothing but `TPM_RC_SUCCESS`.
const SUCCESS: [u8; 10] = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0];

/// What the package calls the file in which a TPM lives across power cuts.
const PERMANENT_STATE: &str = "tpm2-00.permall";

/// A software TPM, powered or not.
#[derive(Debug)]
pub struct Swtpm {
    folder: PathBuf,
    tcp_port: Option<u16>,
    is_for_machine: bool,
    process: Option<Process>,
}

/// Whether software TPMs can be made and run here.
#[must_use]
pub fn is_installed() -> bool {
    ["swtpm", "swtpm_setup", "swtpm_localca"].iter().all(|name| programs::locate(name).is_ok())
}

impl Swtpm {
    /// A TPM that no factory has seen: no endorsement key is stored, and none is certified. The
    /// folder must not exist yet; nothing is started.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the folder cannot be made.
    pub fn blank(folder: &Path) -> Result<Self, RigError> {
        let this = Self {
            folder: folder.to_path_buf(),
            tcp_port: None,
            is_for_machine: false,
            process: None,
        };
        for part in [folder, &this.state_folder(), &this.temporary_folder()] {
            DirBuilder::new().mode(0o700).create(part).map_err(RigError::io(part))?;
        }
        Ok(this)
    }

    /// A new TPM with endorsement keys of its own, certified by `maker`. Takes about a second.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when `swtpm_setup` is not installed, [`RigError::Ended`] with its last
    /// words when it does not manufacture.
    pub fn manufacture(folder: &Path, maker: &TpmMaker) -> Result<Self, RigError> {
        let this = Self::blank(folder)?;
        let mut command = Command::new("swtpm_setup");
        command.env("TMPDIR", this.temporary_folder());
        command.args(["--tpm2", "--create-ek-cert", "--config"]).arg(maker.configuration());
        command.arg("--tpmstate").arg(this.state_folder());
        command.arg("--write-ek-cert-files").arg(&this.folder);
        process::run("swtpm_setup", command, &this.log())?;
        Ok(this)
    }

    /// A TPM that believes it is `original`, with the same seeds and endorsement keys: what the
    /// chip's maker promises cannot be made, and a copied virtual machine is. Copies what
    /// `original` has written so far.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when there is no state to copy.
    pub fn clone_of(original: &Self, folder: &Path) -> Result<Self, RigError> {
        let this = Self::blank(folder)?;
        let from = original.state_folder().join(PERMANENT_STATE);
        fs::copy(&from, this.state_folder().join(PERMANENT_STATE)).map_err(RigError::io(&from))?;
        Ok(this)
    }

    /// Makes it listen on a free loopback port instead of a Unix socket, from the next start on.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when there is no free port.
    pub fn over_tcp(mut self) -> Result<Self, RigError> {
        let [port] = ports::free()?;
        self.tcp_port = Some(port);
        Ok(self)
    }

    /// Makes it the TPM of an emulated machine, from the next start on: it takes commands from QEMU
    /// alone, which finds it by its control socket, gives it power when it begins, and ends it when
    /// it ends in order. To begin again takes a [`Swtpm::restart`].
    #[must_use]
    pub fn for_machine(mut self) -> Self {
        self.is_for_machine = true;
        self
    }

    /// Takes it out of the machine, which has no power: from the next start on it takes commands from
    /// anybody again.
    #[must_use]
    pub fn for_the_desk(mut self) -> Self {
        self.is_for_machine = false;
        self
    }

    /// Gives it power, and waits until it listens. Nobody has sent `TPM2_Startup` then. Does
    /// nothing when it runs.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] with its last words when it does not stay up.
    pub fn start(&mut self, stop: &Stop) -> Result<(), RigError> {
        if self.process.is_some() {
            return self.check();
        }
        let mut process = Process::start("swtpm", self.command()?, &self.log())?;
        stop.until("the software TPM to listen", START_WAIT_MS_MAX, || {
            process.check()?;
            Ok(self.is_listening().then_some(()))
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Takes its power away (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A power cut, and power again.
    ///
    /// # Errors
    ///
    /// As [`Swtpm::start`].
    pub fn restart(&mut self, stop: &Stop) -> Result<(), RigError> {
        self.kill();
        self.start(stop)
    }

    /// Switches it off in order: `TPM2_Shutdown(CLEAR)`, then the end of the process. Whoever holds
    /// the data connection must have closed it.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the command gets no answer, [`RigError::Answer`] when the TPM refuses
    /// it, [`RigError::TimedOut`] when the process does not end.
    pub fn shutdown(&mut self, stop: &Stop) -> Result<(), RigError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let door = self.data_socket();
        let answer = self.exchange(&SHUTDOWN_CLEAR).map_err(RigError::io(&door))?;
        process.terminate();
        stop.until("the software TPM to end", END_WAIT_MS_MAX, || {
            Ok(process.check().is_err().then_some(()))
        })?;
        if answer == SUCCESS {
            return Ok(());
        }
        let found = format!("{answer:02x?}");
        Err(RigError::Answer { from: "swtpm", found, expected: "success of TPM2_Shutdown" })
    }

    /// Takes its non-volatile memory away under it, once it has read it: the next command that has to
    /// write there puts it into failure mode, which [`Swtpm::give_memory_back`] and a restart end.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when its memory is away already.
    pub fn take_memory_away(&self) -> Result<(), RigError> {
        let state = self.state_folder();
        fs::rename(&state, self.state_folder_away()).map_err(RigError::io(&state))
    }

    /// Gives its non-volatile memory back, as it was when it was taken.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it is not away.
    pub fn give_memory_back(&self) -> Result<(), RigError> {
        let away = self.state_folder_away();
        fs::rename(&away, self.state_folder()).map_err(RigError::io(&away))
    }

    /// Whether it runs, if it should.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] with its last words when it should and does not.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// Its process number while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Stops it where it is, in the middle of a command if there is one: a TPM that hangs.
    pub fn freeze(&self) {
        self.process.iter().for_each(Process::freeze);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.iter().for_each(Process::thaw);
    }

    /// The Unix socket that takes commands, one behind the other, as octets; unused over TCP.
    #[must_use]
    pub fn data_socket(&self) -> PathBuf {
        self.folder.join("tpm.sock")
    }

    /// The Unix socket for `swtpm_ioctl`, named as tpm2-tss expects it: with
    /// `swtpm:path=<data socket>` it finds both.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.folder.join("tpm.sock.ctrl")
    }

    /// The loopback port that takes commands, when it does not listen on a Unix socket.
    #[must_use]
    pub const fn tcp_port(&self) -> Option<u16> {
        self.tcp_port
    }

    /// The address as an agent's configuration has it: `swtpm:PATH` or `swtpm:HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        match self.tcp_port {
            Some(port) => format!("swtpm:{}:{port}", Ipv4Addr::LOCALHOST),
            None => format!("swtpm:{}", self.data_socket().display()),
        }
    }

    /// Where its endorsement keys' certificates lie as files besides, `ek-*.crt` in DER, if it has
    /// been manufactured.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it and `swtpm_setup` wrote.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("swtpm.log")
    }

    fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn state_folder_away(&self) -> PathBuf {
        self.folder.join("state-away")
    }

    fn temporary_folder(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// A relative state folder puts a TPM that leaves the current folder into failure mode.
    fn command(&self) -> Result<Command, RigError> {
        let folder = fs::canonicalize(&self.folder).map_err(RigError::io(&self.folder))?;
        let server = match self.tcp_port {
            Some(port) => format!("type=tcp,port={port},bindaddr={}", Ipv4Addr::LOCALHOST),
            None => format!("type=unixio,path={}", self.data_socket().display()),
        };
        let mut command = Command::new("swtpm");
        command.args(["socket", "--tpm2"]);
        if !self.is_for_machine {
            command.args(["--flags", "not-need-init", "--server", &server]);
        }
        command.args(["--ctrl", &format!("type=unixio,path={}", self.control_socket().display())]);
        command.args(["--tpmstate", &format!("dir={}", folder.join("state").display())]);
        Ok(command)
    }

    fn is_listening(&self) -> bool {
        if self.is_for_machine {
            return UnixStream::connect(self.control_socket()).is_ok();
        }
        self.connect().is_ok()
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let wait = Some(Duration::from_millis(END_WAIT_MS_MAX));
        if let Some(port) = self.tcp_port {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_read_timeout(wait)?;
            return Ok(Box::new(stream));
        }
        let stream = UnixStream::connect(self.data_socket())?;
        stream.set_read_timeout(wait)?;
        Ok(Box::new(stream))
    }

    /// A command whose answer is a bare response code.
    fn exchange(&self, command: &[u8]) -> io::Result<[u8; SUCCESS.len()]> {
        let mut stream = self.connect()?;
        stream.write_all(command)?;
        let mut answer = SUCCESS;
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// Either kind of connection.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTUP_CLEAR: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];

    fn code(tpm: &Swtpm, command: &[u8]) -> u32 {
        let answer = tpm.exchange(command).unwrap();
        u32::from_be_bytes(answer[6..].try_into().unwrap())
    }

    /// Goal: a start is power coming back, before anybody's TPM2_Startup; a cut leaves state that
    /// the next start takes up, and a stale socket is in nobody's way.
    #[test]
    fn a_restart_is_a_power_cut() {
        let place = tempfile::tempdir().unwrap();
        let mut tpm = Swtpm::blank(&place.path().join("tpm")).unwrap();
        let stop = Stop::default();
        tpm.start(&stop).unwrap();
        let first = tpm.pid().unwrap();
        assert_eq!(code(&tpm, &SHUTDOWN_CLEAR), 0x100, "not started yet");
        assert_eq!(code(&tpm, &STARTUP_CLEAR), 0);
        assert_eq!(code(&tpm, &STARTUP_CLEAR), 0x100, "started already");
        tpm.restart(&stop).unwrap();
        assert_ne!(tpm.pid().unwrap(), first);
        assert_eq!(code(&tpm, &STARTUP_CLEAR), 0, "a restart needs a startup again");
        tpm.shutdown(&stop).unwrap();
        assert_eq!(tpm.pid(), None);
        assert!(tpm.connect().is_err());
    }

    /// Goal: a TPM that cannot write is in failure mode, and has lost nothing when it can again.
    #[test]
    fn a_tpm_without_its_memory_fails() {
        const FAILURE: u32 = 0x101;
        let place = tempfile::tempdir().unwrap();
        let mut tpm = Swtpm::blank(&place.path().join("tpm")).unwrap();
        let stop = Stop::default();
        tpm.start(&stop).unwrap();
        assert_eq!(code(&tpm, &SHUTDOWN_CLEAR), 0x100, "not started, but with its memory read");
        tpm.take_memory_away().unwrap();
        let answers = [STARTUP_CLEAR, SHUTDOWN_CLEAR].map(|command| code(&tpm, &command));
        assert!(answers.contains(&FAILURE), "{answers:x?}");
        assert_eq!(code(&tpm, &SHUTDOWN_CLEAR), FAILURE);
        tpm.give_memory_back().unwrap();
        tpm.restart(&stop).unwrap();
        assert_eq!(code(&tpm, &STARTUP_CLEAR), 0);
    }

    /// Goal: the same over TCP.
    #[test]
    fn it_listens_on_a_port_when_asked_to() {
        let place = tempfile::tempdir().unwrap();
        let mut tpm = Swtpm::blank(&place.path().join("tpm")).unwrap().over_tcp().unwrap();
        tpm.start(&Stop::default()).unwrap();
        assert_eq!(code(&tpm, &STARTUP_CLEAR), 0);
        assert!(tpm.address().starts_with("swtpm:127.0.0.1:"));
    }

    /// Goal: two TPMs of one maker differ, a clone does not, and openssl follows their chains to
    /// their own maker and to no other.
    #[test]
    fn makers_vouch_for_their_own_tpms() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let maker = TpmMaker::found(&path("acme"), "Acme").unwrap();
        let other = TpmMaker::found(&path("other"), "Other").unwrap();
        let first = Swtpm::manufacture(&path("first"), &maker).unwrap();
        let second = Swtpm::manufacture(&path("second"), &maker).unwrap();
        for name in ["ek-rsa2048.crt", "ek-secp384r1.crt"] {
            let files = [&first, &second].map(|tpm| tpm.folder().join(name));
            assert_ne!(fs::read(&files[0]).unwrap(), fs::read(&files[1]).unwrap());
            for file in &files {
                assert!(is_chained(file, &maker), "{name}");
                assert!(!is_chained(file, &other), "{name}");
            }
        }
        let state = |tpm: &Swtpm| fs::read(tpm.state_folder().join(PERMANENT_STATE)).unwrap();
        let clone = Swtpm::clone_of(&first, &path("clone")).unwrap();
        assert_eq!(state(&clone), state(&first));
        assert_ne!(state(&second), state(&first));
        assert_eq!(fs::read_dir(first.temporary_folder()).unwrap().count(), 0);
    }

    fn is_chained(certificate: &Path, maker: &TpmMaker) -> bool {
        let mut openssl = Command::new("openssl");
        // The critical name of the TPM's model is nothing that openssl knows.
        openssl.args(["verify", "-ignore_critical", "-CAfile"]).arg(maker.root());
        openssl.arg("-untrusted").arg(maker.issuer()).arg(certificate);
        openssl.output().unwrap().status.success()
    }
}
