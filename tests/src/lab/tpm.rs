//! TPMs in a lab: who makes them, who believes their makers, and another program at them.

use std::fs;
use std::path::Path;
use std::process::Command;

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_rig::wait::Stop;
use fleetcert_tpm::command::Handle;

use super::run::{self, Outcome};
use super::tpm_bus::TpmBus;
use super::{Lab, OrFail};

impl Lab {
    /// A maker of TPMs that nobody knows yet.
    #[must_use]
    pub fn tpm_maker(&self, name: &str) -> TpmMaker {
        TpmMaker::found(&self.path(format!("maker-{name}")), name).or_fail("a maker of TPMs")
    }

    /// A new TPM of `maker`'s in the folder `name`, with power, not started up.
    #[must_use]
    pub fn tpm(&self, name: &str, maker: &TpmMaker) -> Swtpm {
        let tpm = Swtpm::manufacture(&self.path(name), maker).or_fail("swtpm_setup");
        powered(tpm)
    }

    /// A bus for `tpm` in the lab's folder.
    #[must_use]
    pub fn tpm_bus(&self, tpm: &Swtpm) -> TpmBus {
        let name = tpm.folder().file_name().or_fail("the TPM's name");
        TpmBus::start(&self.path(name).with_extension("bus"), tpm)
    }

    /// The provisioner believes the TPMs of `maker` from now on.
    #[track_caller]
    pub fn trust(&self, maker: &TpmMaker) {
        let folder = maker.certificates();
        self.operate(&["attest", "ek-roots", "add", &folder.to_string_lossy()]);
    }
}

/// Gives a TPM power.
#[must_use]
pub fn powered(mut tpm: Swtpm) -> Swtpm {
    tpm.start(&Stop::default()).or_fail("swtpm");
    tpm
}

/// What a TPM counts of failed authorizations, by `tpm2_getcap`.
#[track_caller]
#[must_use]
pub fn lockout_counter(socket: &Path) -> u32 {
    let text = tool(socket, &["tpm2_getcap", "properties-variable"]).expect_success().stdout;
    let line = text.lines().find_map(|line| line.strip_prefix("TPM2_PT_LOCKOUT_COUNTER: 0x"));
    u32::from_str_radix(line.or_fail("a counter"), 16).or_fail("a number")
}

/// Guesses a password until the TPM answers to nobody who needs one, as a thief does.
#[track_caller]
pub fn lock_out(socket: &Path) {
    tool(socket, &["tpm2_nvdefine", "-C", "o", "-s", "8", "-p", "secret", NV_INDEX])
        .expect_success();
    for _ in 0..GUESSES_MAX {
        let guess = tool(socket, &["tpm2_nvread", "-P", "a guess", NV_INDEX]);
        assert_ne!(guess.code, Some(0), "a guess was right");
        if is_locked_out(socket) {
            return;
        }
    }
    panic!("{GUESSES_MAX} guesses, and no lockout");
}

/// Whether a TPM is locked out, by `tpm2_getcap`.
#[track_caller]
#[must_use]
pub fn is_locked_out(socket: &Path) -> bool {
    let text = tool(socket, &["tpm2_getcap", "properties-variable"]).expect_success().stdout;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("inLockout:"));
    line.or_fail("a state").trim() == "1"
}

/// What [`lock_out`] guesses the password of.
const NV_INDEX: &str = "0x01500016";

/// Guesses that [`lock_out`] makes, at most: TPMs take 3 to 32.
const GUESSES_MAX: u32 = 32;

/// Objects and sessions that programs have left in a TPM, by `tpm2_getcap`.
#[track_caller]
#[must_use]
pub fn leftovers(socket: &Path) -> Vec<String> {
    let kinds = ["handles-transient", "handles-loaded-session", "handles-saved-session"];
    let listed = kinds.map(|kind| tool(socket, &["tpm2_getcap", kind]).expect_success().stdout);
    listed.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

/// Puts `content` into an NV index that anybody may read, as makers do; `file` holds it meanwhile.
#[track_caller]
pub fn leave(socket: &Path, index: Handle, content: &[u8], file: &Path) {
    fs::write(file, content).or_fail("a file");
    let (index, len) = (index.to_string(), content.len().to_string());
    let attributes = "ownerwrite|ownerread|authread|no_da";
    tool(socket, &["tpm2_nvdefine", "-C", "o", "-s", &len, "-a", attributes, &index])
        .expect_success();
    tool(socket, &["tpm2_nvwrite", "-C", "o", "-i", &file.to_string_lossy(), &index])
        .expect_success();
}

/// Runs one of tpm2-tools at the TPM that listens at `socket`, as another program would.
#[track_caller]
pub fn tool(socket: &Path, arguments: &[&str]) -> Outcome {
    let (program, arguments) = arguments.split_first().or_fail("a program");
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("TPM2TOOLS_TCTI", format!("swtpm:path={}", socket.display()));
    command.env("TSS2_LOG", "all+none");
    run::run(command, b"")
}
