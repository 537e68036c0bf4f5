//! The state directory on bad days: read-only, full, torn, corrupted, taken, exposed. The identity
//! is kept where it can be, and what is wrong is named where it cannot.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetcert_tests::lab::by_hand::{openssl, text};
use fleetcert_tests::lab::device::Device;
use fleetcert_tests::lab::run::run;
use fleetcert_tests::lab::wait::until;
use fleetcert_tests::lab::{Lab, OrFail};
use serde_json::json;

const RECORDS: [&str; 2] = ["record.a", "record.b"];
const KEYS: [&str; 2] = ["key.a", "key.b"];

/// A device that enrolled by `enroll`; no agent runs.
fn enrolled(lab: &Lab) -> (Device, String) {
    let token_file = lab.token_file("dev-1");
    let device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    device.run(&["enroll"]).expect_success();
    let serial = serial(&device);
    (device, serial)
}

fn serial(device: &Device) -> String {
    device.status_command().0.serial().or_fail("a serial number").to_owned()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).or_fail("a mode");
}

/// Starts the agent, which must end by itself; returns what it said.
#[track_caller]
fn refused_start(device: &Device) -> String {
    let told = device.run(&["run"]).expect_code(1).stderr;
    assert!(told.contains("to do:"), "{told}");
    told
}

/// The agent's command line, run by `script` as `"$@"` in a mount namespace of its own: what is
/// mounted there is gone with it. `None` where this user may not mount.
#[expect(clippy::print_stderr, reason = "a story that was not played should say so")]
fn in_own_mounts(device: &Device, script: &str) -> Option<Command> {
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "true"]);
    if run(probe, b"").code != Some(0) {
        eprintln!("not played: this user may not mount (unshare --mount)");
        return None;
    }
    let agent = device.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(agent.get_program()).args(agent.get_args());
    command.env("STATE", device.state_dir());
    Some(command)
}

/// The agent, run where a file that gets too long is an error and not the end, with `limits` set.
fn with_limits(device: &Device, limits: &str) -> Command {
    let agent = device.command();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; {limits}; exec \"$@\" run"), "sh"]);
    command.arg(agent.get_program()).args(agent.get_args());
    command
}

/// The process that holds the lock of the state directory.
fn lock_holder(device: &Device) -> String {
    fs::read_to_string(device.file("lock")).or_fail("the lock").trim().to_owned()
}

/// Goal: on a read-only medium the agent does not start half: it names the file and what to do.
#[test]
fn a_read_only_directory_is_named() {
    let lab = Lab::new();
    let (device, before) = enrolled(&lab);
    let script = "mount --bind \"$STATE\" \"$STATE\" && mount -o remount,ro,bind \"$STATE\" && \
                  exec \"$@\" run";
    let Some(command) = in_own_mounts(&device, script) else { return };
    let outcome = run(command, b"").expect_code(1);
    let told = outcome.stderr;
    assert!(told.contains(text(device.state_dir())) && told.contains("to do:"), "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
    assert_eq!(serial(&device), before);
}

/// Goal: a medium that fills up under a running agent costs no identity: the renewal waits, and
/// comes when there is room again.
#[test]
fn a_medium_that_fills_up_delays_the_renewal() {
    let lab = Lab::new();
    let (mut device, before) = enrolled(&lab);
    device.start_as(with_limits(&device, "true"));
    device.await_active();
    let pid = lock_holder(&device);
    let limit = |octets: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--fsize={octets}:")]);
        run(command, b"").expect_success();
    };
    limit("100");
    device.ask(&json!({"renew": {}}));
    let status = device.await_failure("persist", "storage-unavailable");
    assert_eq!(status.serial(), Some(before.as_str()));
    assert!(status.cause().or_fail("a cause").contains("record."), "{:#}", status.0);
    assert_eq!(lab.issued("dev-1"), 1);
    limit("unlimited");
    device.await_other_than(&before, 20_000);
    assert_eq!(lab.issued("dev-1"), 2);
}

/// Goal: on a full medium the certificate is not taken into use before it is on the medium, and
/// is not asked for twice: a limit on the length of files stands for the full medium.
#[test]
fn a_full_medium_costs_no_second_certificate() {
    let lab = Lab::new();
    let token_file = lab.token_file("dev-1");
    let mut device = lab.device("dev-1", |settings| settings.token_file = Some(token_file));
    // 512 octets a file: a record with a request fits, one with a certificate does not.
    device.start_as(with_limits(&device, "ulimit -f 1"));
    let status = device.await_failure("persist", "storage-unavailable");
    assert_eq!(status.serial(), None);
    assert!(status.cause().or_fail("a cause").contains("record."), "{:#}", status.0);
    assert_eq!(lab.issued("dev-1"), 1);
    device.kill();
    device.start();
    device.await_active();
    assert_eq!(lab.issued("dev-1"), 1);
}

/// Goal: one copy of the record torn, corrupted, emptied or gone: the other one counts, and both
/// are whole again.
#[test]
fn one_damaged_copy_of_the_record_is_healed() {
    let lab = Lab::new();
    let (device, before) = enrolled(&lab);
    let whole = fs::read(device.file("record.a")).or_fail("a record");
    let half = whole[..whole.len() / 2].to_vec();
    let mut corrupted = whole.clone();
    corrupted[whole.len() / 3] ^= 0x40;
    for name in RECORDS {
        for damage in [Some(half.as_slice()), Some(&corrupted), Some(b""), None] {
            match damage {
                Some(octets) => fs::write(device.file(name), octets).or_fail("a damaged copy"),
                None => fs::remove_file(device.file(name)).or_fail("a removal"),
            }
            assert_eq!(serial(&device), before, "{name} at rest");
            device.run(&["enroll"]).expect_success();
            assert_eq!(serial(&device), before, "{name}");
            assert_eq!(
                fs::read(device.file("record.a")).or_fail("a record"),
                fs::read(device.file("record.b")).or_fail("a record"),
                "{name}"
            );
        }
    }
    assert_eq!(lab.issued("dev-1"), 1);
}

/// Goal: both copies unreadable is told, not taken for a first boot: no key is erased, and after
/// a wipe a new token lets the device in again.
#[test]
fn two_damaged_copies_are_told_and_nothing_is_erased() {
    let lab = Lab::new();
    let (device, before) = enrolled(&lab);
    let keys = || KEYS.map(|name| fs::read(device.file(name)).ok());
    let kept = keys();
    let whole = fs::read(device.file("record.a")).or_fail("a record");
    for damage in [Some(&whole[..40]), None] {
        for name in RECORDS {
            match damage {
                Some(octets) => fs::write(device.file(name), octets).or_fail("a damaged copy"),
                None => fs::remove_file(device.file(name)).or_fail("a removal"),
            }
        }
        let told = refused_start(&device);
        assert!(told.contains("record") && told.contains("wipe"), "{told}");
        assert_eq!(keys(), kept);
        assert_ne!(device.run(&["status"]).code, Some(0));
    }
    device.run(&["wipe", "--yes"]).expect_success();
    let again = lab.operate(&["token", "issue", "dev-1"]);
    fs::write(lab.path("dev-1.token"), again).or_fail("the new token");
    device.run(&["enroll"]).expect_success();
    assert_ne!(serial(&device), before);
    assert_eq!(lab.issued("dev-1"), 2);
}

/// Goal: the second agent on a directory is told who the first one is, and disturbs nothing.
#[test]
fn a_directory_in_use_names_its_agent() {
    let lab = Lab::new();
    let (mut device, before) = enrolled(&lab);
    device.start();
    device.await_active();
    let pid = lock_holder(&device);
    for command in [&["run"][..], &["wipe", "--yes"]] {
        let told = device.run(command).expect_code(1).stderr;
        assert!(told.contains(&format!("process {pid}")) && told.contains("to do:"), "{told}");
    }
    assert_eq!(device.await_active().serial(), Some(before.as_str()));
}

/// Goal: a state directory or a key that others may read is not used, and is named with its mode.
#[test]
fn exposed_secrets_are_named_and_not_used() {
    let lab = Lab::new();
    let (mut device, before) = enrolled(&lab);
    chmod(device.state_dir(), 0o755);
    let told = refused_start(&device);
    assert!(told.contains("mode 0755, expected 0700"), "{told}");
    chmod(device.state_dir(), 0o700);

    let key = key_in_use(&device);
    chmod(&key, 0o644);
    device.start();
    let status = device.await_status("the exposed key", 10_000, |status| {
        status.failure().is_some_and(|(_, code)| code == "key-unavailable")
    });
    status.assert_failure_is_explained();
    let cause = status.cause().or_fail("a cause");
    assert!(cause.contains("mode 0644, expected 0600"), "{cause}");
    assert_eq!(status.serial(), Some(before.as_str()));
    chmod(&key, 0o600);
    device.stop();
    device.start();
    assert_eq!(device.await_active().serial(), Some(before.as_str()));
    assert_eq!(lab.issued("dev-1"), 1);
}

/// Goal: a directory with another device's identity is not taken.
#[test]
fn another_devices_directory_is_refused() {
    let lab = Lab::new();
    let (device, _) = enrolled(&lab);
    let other = lab.device("dev-2", |settings| {
        settings.state_dir = Some(device.state_dir().to_path_buf());
    });
    let told = refused_start(&other);
    assert!(told.contains("dev-1") && told.contains("dev-2"), "{told}");
}

/// Goal: a wipe needs to be meant, and leaves neither key nor record.
#[test]
fn a_wipe_leaves_nothing() {
    let lab = Lab::new();
    let (device, _) = enrolled(&lab);
    device.run(&["wipe"]).expect_code(2);
    assert!(key_in_use(&device).exists());
    device.run(&["wipe", "--yes"]).expect_success();
    let left: Vec<PathBuf> = files(device.state_dir());
    let is_secret = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with("key") || name.starts_with("record")
    };
    assert_eq!(left.iter().filter(is_secret).count(), 0, "{left:?}");
    device.run(&["inspect"]).expect_code(3);
}

/// Goal: the private key is in its file of mode 0600 and nowhere else: in no other file, no
/// argument, no environment, no log even at its most talkative.
#[test]
fn the_private_key_is_in_one_place() {
    let lab = Lab::new();
    let broker = lab.broker();
    let mut device = lab.expected_device("dev-1", &broker);
    let mut command = device.command();
    command.args(["--log-level", "trace", "run"]);
    device.start_as(command);
    let first = device.await_online();
    device.ask(&json!({"renew": {}}));
    device.await_other_than(first.serial().or_fail("a serial number"), 20_000);
    let key = key_in_use(&device);
    let mode = fs::metadata(&key).or_fail("the key's file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    until("the old key to be erased", 5_000, || {
        (KEYS.iter().filter(|name| device.file(name).exists()).count() == 1).then_some(())
    });

    let scalar = private_scalar(&key);
    let forms = spellings(&scalar);
    let holds = |octets: &[u8]| forms.iter().any(|form| contains(octets, form));
    assert!(holds(&fs::read(&key).or_fail("the key")), "the search finds what is there");
    let pid = lock_holder(&device);
    let proc = Path::new("/proc").join(pid);
    let mut searched = 0;
    for path in
        files(&lab.path("")).into_iter().chain(["cmdline", "environ"].map(|it| proc.join(it)))
    {
        if path == key {
            continue;
        }
        let octets = fs::read(&path).unwrap_or_default();
        assert!(!holds(&octets), "the private key is in {}", path.display());
        searched += 1;
    }
    assert!(searched > 20, "{searched} files");
    assert!(device.log().contains("trace") || device.log().contains("debug"));
}

/// The file of the key in use.
fn key_in_use(device: &Device) -> PathBuf {
    let (status, _) = device.status_command();
    let slot = status.text("/identity/slot").or_fail("a slot").to_owned();
    device.file(&format!("key.{slot}"))
}

/// Every ordinary file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).or_fail("a folder").flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}

/// The 32 octets of a P-256 key that make it private.
fn private_scalar(key: &Path) -> Vec<u8> {
    let shown =
        openssl(&["pkey", "-inform", "DER", "-in", text(key), "-noout", "-text"], b"").stdout;
    let (_, rest) = shown.split_once("priv:").or_fail("priv:");
    let (digits, _) = rest.split_once("pub:").or_fail("pub:");
    let octets = digits.split(|c: char| !c.is_ascii_hexdigit()).filter(|part| !part.is_empty());
    let octets: Vec<u8> = octets.filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    octets[octets.len() - 32..].to_vec()
}

/// How a secret may be written down: as it is, in hexadecimal, and in base64 at each alignment.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let lower: String = secret.iter().map(|octet| format!("{octet:02x}")).collect();
    let mut forms = vec![secret.to_vec(), lower.to_uppercase().into_bytes(), lower.into_bytes()];
    for skip in 0..3 {
        let aligned = &secret[skip..skip + 27];
        let base64 = openssl(&["base64", "-A"], aligned).stdout.trim().to_owned();
        forms.push(base64.replace('+', "-").replace('/', "_").into_bytes());
        forms.push(base64.into_bytes());
    }
    forms
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}
