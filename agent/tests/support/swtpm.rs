//! A software TPM of a test's own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running swtpm without endorsement certificates, killed when dropped.
pub(crate) struct Swtpm {
    process: Child,
    folder: TempDir,
}

impl Swtpm {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init"])
            .args(["--server", &format!("type=unixio,path={}", path("socket"))])
            .args(["--ctrl", &format!("type=unixio,path={}", path("control"))])
            .args(["--tpmstate", &format!("dir={}", folder.path().display())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        Self { process, folder }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Whether it takes connections: the socket is there a little earlier, and refuses them.
    pub(crate) fn is_listening(&self) -> bool {
        UnixStream::connect(self.socket()).is_ok()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}
