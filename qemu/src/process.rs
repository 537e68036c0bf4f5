//! One program, in a process group of its own, that dies with its guard.
//!
//! What it writes goes to a file, so that nothing blocks on a full pipe and an unexpected end can
//! be shown with its last words.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::error::RigError;
use crate::leftovers;

/// Lines of a program's output that an error shows, at most.
const LAST_WORDS_LINES_MAX: usize = 15;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    collected: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output and errors are appended to `log`.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when there is no such program, [`RigError::Io`] for the log.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self, RigError> {
        let out = append_to(log)?;
        let err = out.try_clone().map_err(RigError::io(log))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        Self::start_piped(name, command, log)
    }

    /// Starts `command` with the streams it has; errors are shown from `log`.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when there is no such program.
    pub fn start_piped(name: &str, mut command: Command, log: &Path) -> Result<Self, RigError> {
        let program = PathBuf::from(command.get_program());
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|source| RigError::Start { program, source })?;
        leftovers::add_group(Pid::from_child(&child));
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf(), collected: None })
    }

    /// The stream that [`Process::start_piped`] was given for the program's output, once.
    pub fn take_output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] with its last words when it does not.
    pub fn check(&mut self) -> Result<(), RigError> {
        if self.collected.is_none() && !self.has_ended()? {
            return Ok(());
        }
        let status = self.collect().map_err(RigError::io(&self.log.clone()))?;
        Err(ended(&self.name, status, &self.log))
    }

    /// How it has ended, once it has; its whole group is ended with it.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the kernel does not tell.
    pub fn end(&mut self) -> Result<Option<ExitStatus>, RigError> {
        if self.collected.is_none() && !self.has_ended()? {
            return Ok(None);
        }
        self.collect().map(Some).map_err(RigError::io(&self.log.clone()))
    }

    /// Its number, for looking at it through the kernel.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, as a machine that hangs. Undone by [`Process::thaw`].
    pub fn freeze(&self) {
        if self.collected.is_none() {
            self.signal(Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        if self.collected.is_none() {
            self.signal(Signal::CONT);
        }
    }

    /// Tells it to read its files again (SIGHUP, by custom).
    pub fn hang_up(&self) {
        if self.collected.is_none() {
            self.signal(Signal::HUP);
        }
    }

    /// Asks it to end (SIGTERM); [`Process::check`] says when it has.
    pub fn terminate(&self) {
        if self.collected.is_none() {
            self.signal(Signal::TERM);
        }
    }

    /// Ends it without a chance to react (`kill -9`), and everything it started.
    pub fn kill(self) {
        drop(self);
    }

    /// Looks without collecting: an uncollected leader keeps the group's number from being reused.
    fn has_ended(&self) -> Result<bool, RigError> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), look)
            .map(|status| status.is_some())
            .map_err(|why| RigError::Io { path: self.log.clone(), source: why.into() })
    }

    /// Kills the group and collects its leader, once.
    fn collect(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.collected {
            return Ok(status);
        }
        self.signal(Signal::KILL);
        leftovers::forget_group(Pid::from_child(&self.child));
        let status = self.child.wait()?;
        self.collected = Some(status);
        Ok(status)
    }

    /// Must not be called once the leader is collected: the number may be a stranger's by then.
    fn signal(&self, signal: Signal) {
        // Nobody left to hear it is what a signal to an ended group means.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // There is nobody to tell, and nothing left to try.
        let _ = self.collect();
    }
}

/// Runs a program to its end.
///
/// # Errors
///
/// [`RigError::Start`], or [`RigError::Ended`] when it reports anything but success.
pub fn run(name: &str, mut command: Command, log: &Path) -> Result<(), RigError> {
    let out = append_to(log)?;
    let err = out.try_clone().map_err(RigError::io(log))?;
    let program = PathBuf::from(command.get_program());
    let status = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .status()
        .map_err(|source| RigError::Start { program, source })?;
    if status.success() { Ok(()) } else { Err(ended(name, status, log)) }
}

/// Runs a program to its end, and gives what it printed.
///
/// # Errors
///
/// As [`run`]; what it printed is no part of its last words then.
pub fn ask(name: &str, mut command: Command, log: &Path) -> Result<String, RigError> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .stdin(Stdio::null())
        .stderr(append_to(log)?)
        .output()
        .map_err(|source| RigError::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(ended(name, output.status, log))
}

fn append_to(log: &Path) -> Result<File, RigError> {
    File::options().create(true).append(true).open(log).map_err(RigError::io(log))
}

fn ended(name: &str, status: ExitStatus, log: &Path) -> RigError {
    RigError::Ended {
        program: name.to_owned(),
        status: status.to_string(),
        last_words: last_words(log),
    }
}

/// The last lines of a file, and nothing of one that is not there.
pub(crate) fn last_words(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_WORDS_LINES_MAX);
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::Stop;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Goal: an unexpected end shows what the program said last.
    #[test]
    fn an_ended_program_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process =
            Process::start("sh", shell("echo no such port >&2; exit 3"), &log).unwrap();
        let error =
            Stop::default().until("the end of sh", 10_000, || Ok(process.check().err())).unwrap();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no such port"), "{text}");
    }

    /// Goal: a guard takes the grandchildren with it.
    #[test]
    fn dropping_the_guard_ends_the_whole_group() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let process = Process::start("sh", shell("sleep 60 & echo $!; wait"), &log).unwrap();
        let grandchild: i32 = Stop::default()
            .until("the grandchild's number", 10_000, || {
                Ok(fs::read_to_string(&log).unwrap().trim().parse().ok())
            })
            .unwrap();
        process.kill();
        Stop::default()
            .until("the grandchild's end", 10_000, || {
                let stat = fs::read_to_string(format!("/proc/{grandchild}/stat"));
                // Gone, or a zombie that its new parent has not collected yet.
                Ok(stat.map_or(true, |stat| stat.contains(") Z ")).then_some(()))
            })
            .unwrap();
    }

    /// Goal: what a program prints is given, and not what it says on the side; a failure is one.
    #[test]
    fn a_question_is_answered_by_what_a_program_prints() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(ask("sh", shell("echo yes; echo no >&2"), &log).unwrap(), "yes\n");
        let error = ask("sh", shell("echo yes; exit 3"), &log).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no"), "{error}");
    }

    /// Goal: a program that is not there is named.
    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run("x", Command::new("/nonexistent/program"), &log).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/program does not start"), "{error}");
    }
}
