//! Where the programs are: ours beside this one, as cargo builds them; others on the path.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::RigError;
use crate::machine::Board;

/// Debian keeps daemons here, outside an ordinary user's path.
const DAEMONS: &str = "/usr/sbin";

const PROVISIONER: &str = "fleetcert-provisioner";

/// Our programs, found beside the rig's own.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Looks where this program itself is.
    ///
    /// # Errors
    ///
    /// [`RigError::Io`] when the system does not tell.
    pub fn beside_ourselves() -> Result<Self, RigError> {
        let own = env::current_exe().map_err(RigError::io(Path::new("/proc/self/exe")))?;
        Ok(Self { folder: own.parent().unwrap_or(Path::new(".")).to_path_buf() })
    }

    /// Those in `folder`.
    #[must_use]
    pub const fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// `fleetcert-agent`.
    #[must_use]
    pub fn agent(&self) -> Command {
        Command::new(self.folder.join("fleetcert-agent"))
    }

    /// `fleetcert-provisioner`.
    #[must_use]
    pub fn provisioner(&self) -> Command {
        Command::new(self.folder.join(PROVISIONER))
    }

    /// Whether `fleetcert-provisioner` has been built.
    #[must_use]
    pub fn has_provisioner(&self) -> bool {
        self.folder.join(PROVISIONER).is_file()
    }

    /// Builds `fleetcert-provisioner` from the sources, as cargo has built this program; cargo's
    /// output goes where ours goes.
    ///
    /// # Errors
    ///
    /// [`RigError::Start`] without cargo, [`RigError::Ended`] when it does not build.
    pub fn build_provisioner(&self) -> Result<(), RigError> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(top()).args(["build", "--package", PROVISIONER, "--bin", PROVISIONER]);
        if self.folder.ends_with("release") {
            command.arg("--release");
        }
        printed("cargo build", command).map(drop)
    }
}

/// Builds the firmware of a board from the sources. Returns the ELF file.
///
/// # Errors
///
/// [`RigError::Start`] when the sources are not where they were, [`RigError::Ended`] when it does
/// not build.
pub fn build_firmware(board: Board) -> Result<PathBuf, RigError> {
    let mut command = Command::new(top().join("firmware-sample/build"));
    // What a test's build is told is not for a board.
    command.arg(board.name()).env_remove("RUSTFLAGS");
    let printed = printed("firmware-sample/build", command)?;
    Ok(PathBuf::from(printed.trim()))
}

/// The top of the sources that this program was built from.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Runs a builder, whose complaints go where ours go. Returns what it printed.
fn printed(name: &str, mut command: Command) -> Result<String, RigError> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| RigError::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(RigError::Ended {
        program: name.to_owned(),
        status: output.status.to_string(),
        last_words: "(above)".to_owned(),
    })
}

/// Where a program of the system is.
///
/// # Errors
///
/// [`RigError::Start`] when it is not on the path, nor where Debian keeps daemons.
pub fn locate(name: &str) -> Result<PathBuf, RigError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from(DAEMONS)]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        RigError::Start { program: name.into(), source: io::ErrorKind::NotFound.into() }
    })
}

/// A daemon of the system.
#[must_use]
pub fn daemon(name: &str) -> Command {
    let usual = Path::new(DAEMONS).join(name);
    if usual.exists() { Command::new(usual) } else { Command::new(name) }
}

/// A command as one would type it; nothing in a workplace's paths needs quoting.
pub(crate) fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
