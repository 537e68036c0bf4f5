//! Where the programs are: ours beside this one, as cargo builds them; others on the path.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::RigError;

/// Debian keeps daemons here, outside an ordinary user's path.
const DAEMONS: &str = "/usr/sbin";

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
        Command::new(self.folder.join("fleetcert-provisioner"))
    }
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
