//! A board in an emulator: QEMU in a process of its own, with a flash that outlives it.
//!
//! **What it is.** What a firmware engineer has on the desk: a [`Board`] with a serial line that is
//! written down, a flash whose content is a file ([`Flash`]), a cable that can be pulled, and, on the
//! board that has one, a TPM ([`Swtpm`]). [`Machine::kill`] is a power cut: QEMU is not asked.
//!
//! **What it must never do.** Know the firmware. It is given an ELF file, looks at the serial line
//! as people do, and knows of a program's end what its exit status says.
//!
//! **Why a power cut is one.** What the firmware has programmed into flash is in QEMU's file when
//! the command that programmed it is done, and stays there when QEMU is killed; nothing else
//! survives. The TPM is another process with its own non-volatile memory: whoever cuts the power
//! of the board cuts the TPM's too ([`Swtpm::kill`]).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::error::RigError;
use crate::process::Process;
use crate::programs;
use crate::swtpm::Swtpm;
use crate::wait::Stop;

/// From start to a monitor that takes commands.
const MONITOR_WAIT_MS_MAX: u64 = 10_000;

/// What erased flash holds.
const ERASED: u8 = 0xff;

/// The boards that the firmware is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// Cortex-M4, no TPM; flash and randomness come from the host.
    Mps2An386,
    /// RISC-V with a TPM.
    Riscv32Virt,
}

/// The content of a board's flash, in a file.
#[derive(Debug)]
pub struct Flash {
    path: PathBuf,
}

/// What is out of the ordinary when power comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// What the battery-backed clock says, as `1970-01-01` or `1970-01-01T00:00:00`; otherwise it is
    /// the host's time.
    pub clock: Option<&'static str>,
    /// Each instruction takes a nanosecond of the board's time, so that its clocks count them; the
    /// emulation is slower.
    pub counts_instructions: bool,
    /// It stands still before its first instruction until [`Machine::go`].
    pub is_held: bool,
}

/// A board with power.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    console: PathBuf,
    console_start: u64,
    monitor: PathBuf,
}

impl Board {
    /// Both, in the order of their names.
    pub const ALL: [Self; 2] = [Self::Mps2An386, Self::Riscv32Virt];

    /// Its name, as the firmware's build takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mps2An386 => "mps2-an386",
            Self::Riscv32Virt => "riscv32-virt",
        }
    }

    /// The emulator's program.
    #[must_use]
    pub const fn emulator(self) -> &'static str {
        match self {
            Self::Mps2An386 => "qemu-system-arm",
            Self::Riscv32Virt => "qemu-system-riscv32",
        }
    }

    /// Whether it can be emulated here.
    #[must_use]
    pub fn is_installed(self) -> bool {
        programs::locate(self.emulator()).is_ok()
    }

    /// Whether it has a TPM.
    #[must_use]
    pub const fn has_tpm(self) -> bool {
        matches!(self, Self::Riscv32Virt)
    }

    /// Octets of its flash: what the emulator insists on, or what the firmware uses.
    #[must_use]
    pub const fn flash_len(self) -> usize {
        match self {
            Self::Mps2An386 => 64 * 1024,
            Self::Riscv32Virt => 32 * 1024 * 1024,
        }
    }

    /// Where the region of the keys begins in its flash; it ends where the factory's begins.
    #[must_use]
    pub const fn keys_offset(self) -> u64 {
        match self {
            Self::Mps2An386 => 8 * 4096,
            Self::Riscv32Virt => 4 * 256 * 1024,
        }
    }

    /// Where the region of the factory's configuration begins in its flash.
    #[must_use]
    pub const fn factory_offset(self) -> u64 {
        match self {
            Self::Mps2An386 => 12 * 4096,
            Self::Riscv32Virt => 8 * 256 * 1024,
        }
    }
}

impl Flash {
    /// An erased flash for `board`, as the file `flash.img` in the folder of its machine.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when it cannot be written.
    pub fn blank(board: Board, folder: &Path) -> Result<Self, RigError> {
        let path = folder.join("flash.img");
        fs::write(&path, vec![ERASED; board.flash_len()]).map_err(RigError::io(&path))?;
        Ok(Self { path })
    }

    /// Writes octets, as a programmer does that erases what it needs to.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`].
    pub fn put(&self, offset: u64, octets: &[u8]) -> Result<(), RigError> {
        let file =
            File::options().write(true).open(&self.path).map_err(RigError::io(&self.path))?;
        file.write_all_at(octets, offset).map_err(RigError::io(&self.path))
    }

    /// Reads octets.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`], for octets beyond the end too.
    pub fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, RigError> {
        let file = File::open(&self.path).map_err(RigError::io(&self.path))?;
        let mut octets = vec![0; len];
        file.read_exact_at(&mut octets, offset).map_err(RigError::io(&self.path))?;
        Ok(octets)
    }
}

impl Machine {
    /// Gives `board` power, with `firmware` and with the flash that lies in `folder`. Its serial
    /// line is appended to `console.log` there. The TPM has been started for a machine.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] when the emulator is not installed, [`RigError::Ended`] when it does not
    /// begin.
    pub fn start(
        board: Board,
        firmware: &Path,
        folder: &Path,
        tpm: Option<&Swtpm>,
    ) -> Result<Self, RigError> {
        Self::start_under(Conditions::default(), board, firmware, folder, tpm)
    }

    /// As [`Machine::start`], with the network cable out.
    ///
    /// # Errors
    ///
    /// As [`Machine::start`], and [`Machine::unplug`].
    pub fn start_unplugged(
        board: Board,
        firmware: &Path,
        folder: &Path,
        tpm: Option<&Swtpm>,
        stop: &Stop,
    ) -> Result<Self, RigError> {
        let held = Conditions { is_held: true, ..Conditions::default() };
        let machine = Self::start_under(held, board, firmware, folder, tpm)?;
        machine.unplug(stop)?;
        machine.go(stop)?;
        Ok(machine)
    }

    /// As [`Machine::start`], under conditions that are out of the ordinary.
    ///
    /// # Errors
    ///
    /// As [`Machine::start`].
    pub fn start_under(
        conditions: Conditions,
        board: Board,
        firmware: &Path,
        folder: &Path,
        tpm: Option<&Swtpm>,
    ) -> Result<Self, RigError> {
        // The emulator runs in that folder: a relative path would mean another file there.
        let firmware = fs::canonicalize(firmware).map_err(RigError::io(firmware))?;
        let folder = fs::canonicalize(folder).map_err(RigError::io(folder))?;
        let (console, monitor) = (folder.join("console.log"), folder.join("monitor.sock"));
        let mut command = Command::new(board.emulator());
        command.current_dir(&folder).args(common_arguments()).args(conditions.arguments());
        match board {
            Board::Mps2An386 => command.args(mps2_arguments()).arg("-kernel").arg(firmware),
            Board::Riscv32Virt => command.args(riscv32_arguments()).arg("-bios").arg(firmware),
        };
        if let Some(tpm) = tpm {
            command.args(tpm_arguments(tpm));
        }
        let console_start = fs::metadata(&console).map_or(0, |file| file.len());
        let process = Process::start(board.emulator(), command, &folder.join("qemu.log"))?;
        Ok(Self { process, console, console_start, monitor })
    }

    /// What it has said since it has power.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`].
    pub fn console(&self) -> Result<String, RigError> {
        read_from(&self.console, self.console_start)
    }

    /// Waits until it has said `text`; gives all that it has said by then.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it ends before, [`RigError::TimedOut`].
    pub fn wait_for(&mut self, text: &str, limit_ms: u64, stop: &Stop) -> Result<String, RigError> {
        stop.until("the firmware to say something", limit_ms, || {
            // In this order: what it said last is read after it has ended.
            let ended = self.process.check();
            let said = self.console()?;
            if said.contains(text) {
                return Ok(Some(said));
            }
            ended.map(|()| None)
        })
    }

    /// Waits until it ends by itself; whether it says that it did what it should.
    ///
    /// # Errors
    ///
    /// [`RigError::TimedOut`].
    pub fn wait_for_end(&mut self, limit_ms: u64, stop: &Stop) -> Result<bool, RigError> {
        stop.until("the firmware to end", limit_ms, || {
            Ok(self.process.end()?.map(|status| status.success()))
        })
    }

    /// Whether it has power still.
    ///
    /// # Errors
    ///
    /// [`RigError::Ended`] when it has not.
    pub fn check(&mut self) -> Result<(), RigError> {
        self.process.check()
    }

    /// Waits until it takes commands: all its devices have been reset then.
    ///
    /// # Errors
    ///
    /// As [`Machine::unplug`].
    pub fn await_monitor(&self, stop: &Stop) -> Result<(), RigError> {
        self.tell("info status\n", stop)
    }

    /// Lets a machine that is held begin.
    ///
    /// # Errors
    ///
    /// As [`Machine::unplug`].
    pub fn go(&self, stop: &Stop) -> Result<(), RigError> {
        self.tell("cont\n", stop)
    }

    /// Pulls the network cable.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the emulator does not take the command.
    pub fn unplug(&self, stop: &Stop) -> Result<(), RigError> {
        self.tell("set_link net0 off\n", stop)
    }

    /// Puts the network cable in again.
    ///
    /// # Errors
    ///
    /// As [`Machine::unplug`].
    pub fn plug_in(&self, stop: &Stop) -> Result<(), RigError> {
        self.tell("set_link net0 on\n", stop)
    }

    /// Cuts the power.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Cuts the power. Returns all that it has said.
    ///
    /// # Errors
    ///
    /// As [`Machine::console`].
    pub fn kill_and_read(self) -> Result<String, RigError> {
        let Self { process, console, console_start, .. } = self;
        process.kill();
        read_from(&console, console_start)
    }

    /// Gives the emulator's monitor a command. It says its prompt first, and again when it is done.
    fn tell(&self, command: &str, stop: &Stop) -> Result<(), RigError> {
        const PROMPT: &str = "(qemu) ";
        let mut door = stop.until("the emulator's monitor", MONITOR_WAIT_MS_MAX, || {
            Ok(UnixStream::connect(&self.monitor).ok())
        })?;
        let mut heard = Vec::new();
        let mut hear = |door: &mut UnixStream, prompts: usize| {
            let mut octet = [0];
            while String::from_utf8_lossy(&heard).matches(PROMPT).count() < prompts {
                door.read_exact(&mut octet)?;
                heard.extend(octet);
            }
            Ok(())
        };
        let wait = std::time::Duration::from_millis(MONITOR_WAIT_MS_MAX);
        door.set_read_timeout(Some(wait))
            .and_then(|()| hear(&mut door, 1))
            .and_then(|()| door.write_all(command.as_bytes()))
            .and_then(|()| hear(&mut door, 2))
            .map_err(RigError::io(&self.monitor))
    }
}

/// What a serial line has said from `start` on.
fn read_from(console: &Path, start: u64) -> Result<String, RigError> {
    let Ok(mut file) = File::open(console) else {
        // The emulator has not come so far.
        return Ok(String::new());
    };
    let mut said = Vec::new();
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_to_end(&mut said))
        .map_err(RigError::io(console))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

impl Conditions {
    fn arguments(self) -> Vec<String> {
        let clock = self.clock.map(|clock| ["-rtc".to_owned(), format!("base={clock}")]);
        let counts = self.counts_instructions.then(|| ["-icount", "shift=0"].map(str::to_owned));
        let held = self.is_held.then(|| "-S".to_owned());
        clock.into_iter().chain(counts).flatten().chain(held).collect()
    }
}

/// No window, no restart; a serial line and a monitor in files of the folder.
fn common_arguments() -> [&'static str; 10] {
    [
        "-display",
        "none",
        "-no-reboot",
        "-chardev",
        "file,id=line,path=console.log,append=on",
        "-serial",
        "chardev:line",
        "-monitor",
        "unix:monitor.sock,server=on,wait=off",
        "-nodefaults",
    ]
}

/// Semihosting reads and writes in the current folder.
fn mps2_arguments() -> [&'static str; 6] {
    [
        "-machine",
        "mps2-an386",
        "-semihosting-config",
        "enable=on,target=native",
        "-nic",
        "user,model=lan9118,id=net0",
    ]
}

/// Virtio as standardised, not as it was before; the flash is the machine's second bank, because a
/// firmware that QEMU loads takes the place of the first.
fn riscv32_arguments() -> [&'static str; 14] {
    [
        "-machine",
        "virt",
        "-m",
        "32",
        "-global",
        "virtio-mmio.force-legacy=false",
        "-netdev",
        "user,id=net0",
        "-device",
        "virtio-net-device,netdev=net0",
        "-device",
        "virtio-rng-device",
        "-drive",
        "if=pflash,format=raw,unit=1,file=flash.img",
    ]
}

fn tpm_arguments(tpm: &Swtpm) -> [String; 6] {
    let socket = format!("socket,id=tpm,path={}", tpm.control_socket().display());
    [
        "-chardev".to_owned(),
        socket,
        "-tpmdev".to_owned(),
        "emulator,id=tpm0,chardev=tpm".to_owned(),
        "-device".to_owned(),
        "tpm-tis-device,tpmdev=tpm0".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a board has one name, for people, builds and command lines.
    #[test]
    fn a_board_has_one_name() {
        for board in Board::ALL {
            assert_eq!(Board::from_str(board.name(), false), Ok(board));
        }
    }

    /// Goal: each condition is what the emulator calls it, and ordinarily there is none.
    #[test]
    fn conditions_are_arguments() {
        assert!(Conditions::default().arguments().is_empty());
        let all =
            Conditions { clock: Some("1970-01-01"), counts_instructions: true, is_held: true };
        let expected = ["-rtc", "base=1970-01-01", "-icount", "shift=0", "-S"];
        assert_eq!(all.arguments(), expected);
    }

    /// Goal: a blank flash is erased flash of the board's size, and keeps what is put there.
    #[test]
    fn a_flash_holds_what_is_put_there() {
        let folder = tempfile::tempdir().unwrap();
        for board in Board::ALL {
            let flash = Flash::blank(board, folder.path()).unwrap();
            flash.put(board.factory_offset(), b"FCFC").unwrap();
            let found = flash.read(board.factory_offset() - 1, 6).unwrap();
            assert_eq!(found, b"\xffFCFC\xff");
            assert!(flash.read(u64::try_from(board.flash_len()).unwrap(), 1).is_err());
        }
    }
}
