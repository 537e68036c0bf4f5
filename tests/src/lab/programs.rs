//! Our programs, beside the test; built once when they are not there.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetcert_rig::programs::Programs;

use super::OrFail;

/// The device's program.
pub const AGENT: &str = "fleetcert-agent";

/// The service's program.
pub const PROVISIONER: &str = "fleetcert-provisioner";

/// The folder into which cargo has built this test, with `program` in it.
///
/// `tests/run` builds our programs first. A test that is run by itself builds what is missing, and
/// says so; what is there is taken as it is.
#[must_use]
pub fn with(program: &str) -> Programs {
    let folder = folder();
    if !folder.join(program).exists() {
        build(program, &folder);
    }
    Programs::in_folder(folder)
}

/// `target/<profile>`: tests are in its folder `deps`.
#[must_use]
pub fn folder() -> PathBuf {
    let own = env::current_exe().or_fail("the path of this test");
    let folder = own.parent().or_fail("the folder of this test");
    let folder = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    folder.or_fail("the folder above it").to_path_buf()
}

/// The top of the sources.
#[must_use]
pub fn top() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().or_fail("the folder above this crate").to_path_buf()
}

/// Tests run in processes of their own, so a lock in the file system lets one of them build.
#[expect(clippy::print_stderr, reason = "a build takes minutes: whoever waits should know why")]
fn build(program: &str, folder: &Path) {
    let lock = File::create(folder.join("programs.lock")).or_fail("a lock for the build");
    lock.lock().or_fail("the lock for the build");
    if folder.join(program).exists() {
        return;
    }
    eprintln!("{program} is not built yet: building it now; `tests/run` does so first");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(top()).args(["build", "--package", program, "--bin", program]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().or_fail("cargo build");
    assert!(status.success(), "cargo build of {program} ended with {status}");
}
