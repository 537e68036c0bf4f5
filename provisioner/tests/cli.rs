//! The program as an operator's shell sees it: files and their modes, exit codes, JSON.
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a test waits for the service before it fails.
const WAIT: Duration = Duration::from_secs(20);

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetcert-provisioner"));
    command.arg("--config").arg(folder.join("ca/provisioner.toml")).current_dir(folder);
    command
}

fn run(folder: &Path, line: &str) -> Output {
    program(folder).args(line.split(' ')).output().unwrap()
}

fn ok(folder: &Path, line: &str) -> String {
    let output = run(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(folder: &Path, line: &str) -> Value {
    let value: Value = serde_json::from_str(&ok(folder, line)).unwrap();
    assert_eq!(value["schema"], 1, "{line}");
    value
}

/// A folder with a fresh installation in `ca`.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), INIT);
    folder
}

const INIT: &str =
    "init --dir ca --trust-domain fleet.example --name localhost 127.0.0.1 --listen 127.0.0.1:0";

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

// Goal: everything that is secret is readable by its owner only, and roots are encrypted.
#[test]
fn an_installation_keeps_its_secrets() {
    let folder = installed();
    let ca = folder.path().join("ca");
    for name in ["private", "offline"] {
        assert_eq!(mode(ca.join(name)), 0o700, "{name}");
        for entry in fs::read_dir(ca.join(name)).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    assert_eq!(mode(ca.join("fleetcert.db")), 0o600);
    for name in ["device-root.key", "server-root.key"] {
        let key = fs::read_to_string(ca.join("offline").join(name)).unwrap();
        assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{name}");
    }
    for name in ["device-ca.pem", "server-root.pem", "provisioner.toml"] {
        assert_eq!(mode(ca.join(name)), 0o644, "{name}");
    }
}

// Goal: nothing that exists is overwritten, by `init` or by any command that writes a folder.
#[test]
fn what_exists_is_left_alone() {
    let folder = installed();
    let root = fs::read(folder.path().join("ca/server-root.pem")).unwrap();
    let again = run(folder.path(), INIT);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("new or empty"));
    assert_eq!(fs::read(folder.path().join("ca/server-root.pem")).unwrap(), root);
    ok(folder.path(), "device add dev1");
    ok(folder.path(), "token issue dev1 --out token");
    assert_eq!(run(folder.path(), "token issue dev1 --out token").status.code(), Some(1));
    for line in ["ca issue-server --name b --out ca", "broker mosquitto --name b --out ca"] {
        assert_eq!(run(folder.path(), line).status.code(), Some(1), "{line}");
    }
}

// Goal: the service and every command that it needs daily run without the root keys.
#[test]
fn the_offline_folder_is_not_needed() {
    let folder = installed();
    fs::remove_dir_all(folder.path().join("ca/offline")).unwrap();
    ok(folder.path(), "device add dev1");
    ok(folder.path(), "ca issue-server --name broker.example --out server");
    ok(folder.path(), "crl write --out crl.pem");
}

// Goal: arguments that make no sense are refused before a folder is made.
#[test]
fn nothing_is_written_for_wrong_arguments() {
    let folder = tempfile::tempdir().unwrap();
    for (wrong, right) in [
        ("--trust-domain Fleet/x", "--trust-domain fleet.example"),
        ("--name *.example", "--name localhost"),
        ("--device-lifetime-s 1 --name", "--name"),
    ] {
        let output = run(folder.path(), &INIT.replacen(right, wrong, 1));
        assert!(!output.status.success(), "{wrong}");
        assert!(!folder.path().join("ca").exists(), "{wrong}");
    }
}

// Goal: each reading command speaks JSON of one schema.
#[test]
fn reading_commands_speak_json() {
    let folder = installed();
    ok(folder.path(), "device add dev1");
    let list = json(folder.path(), "device list --json");
    assert_eq!(list["devices"][0]["id"], "dev1");
    assert_eq!(list["devices"][0]["status"], "expected");
    let shown = json(folder.path(), "device show dev1 --json");
    assert_eq!(shown["device"]["group"], "default");
    assert_eq!(shown["certificates"].as_array().unwrap().len(), 0);
    assert_eq!(json(folder.path(), "ca show --json")["trustDomain"], "fleet.example");
    assert!(json(folder.path(), "crl show --json")["number"].is_u64());
    let audit = json(folder.path(), "audit list --device dev1 --json");
    assert_eq!(audit["events"][0]["event"], "device-added");
}

// Goal: exit codes tell a script what happened, and the text what to do.
#[test]
fn failures_say_what_to_do() {
    let folder = installed();
    let unknown = run(folder.path(), "device show nobody");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("device add"));
    assert_eq!(run(folder.path(), "device add backend.x").status.code(), Some(2));
    assert_eq!(run(folder.path(), "token issue dev1 --ttl-s 0").status.code(), Some(2));
    assert_eq!(run(folder.path(), "device show a/b").status.code(), Some(2));
    let other = folder.path().join("none");
    fs::create_dir(&other).unwrap();
    let missing = run(&other, "device list");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--config"));
}

// Goal: a token is shown where it was asked for and nowhere else.
#[test]
fn a_token_is_written_once_and_privately() {
    let folder = installed();
    ok(folder.path(), "device add dev1");
    assert_eq!(ok(folder.path(), "token issue dev1 --out token"), "");
    let token = fs::read_to_string(folder.path().join("token")).unwrap();
    assert_eq!(mode(folder.path().join("token")), 0o600);
    assert!(!ok(folder.path(), "audit list --json").contains(token.trim()));
}

/// A service that is killed if its test fails.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Polls until `condition` gives something.
#[expect(clippy::disallowed_methods, reason = "a deadline for polling another process")]
fn poll<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < WAIT, "nothing happened in {WAIT:?}");
        std::thread::yield_now();
    }
}

// Goal: the ready file holds the address, commands work beside the service, SIGTERM ends it well.
#[test]
fn a_service_says_when_it_is_ready_and_stops_when_told() {
    let folder = installed();
    let mut serve = program(folder.path());
    serve.args(["serve", "--listen", "127.0.0.1:0", "--ready-file", "ready"]);
    let mut service = Service(serve.stderr(Stdio::null()).spawn().unwrap());
    let address = poll(|| fs::read_to_string(folder.path().join("ready")).ok());
    let address: std::net::SocketAddr = address.trim().parse().unwrap();
    assert_ne!(address.port(), 0);
    std::net::TcpStream::connect(address).unwrap();
    ok(folder.path(), "device add dev1");
    let told = ok(folder.path(), "device revoke dev1 --reason key-compromise");
    for part in ["dev1 is revoked", "crl write", "kill -HUP", "restart the broker"] {
        assert!(told.contains(part), "{told}");
    }
    let pid = rustix::process::Pid::from_child(&service.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = poll(|| service.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

// Goal: devices are told no time by a clock that stands below what was issued by it.
#[test]
fn a_service_whose_clock_is_behind_does_not_start() {
    let folder = installed();
    let database = folder.path().join("ca/fleetcert.db");
    smol::block_on(async {
        use sqlx::ConnectOptions;
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut connection = options.connect().await.unwrap();
        let ahead = "UPDATE certificate SET not_before = 4102444800";
        sqlx::query(ahead).execute(&mut connection).await.unwrap();
    });
    for line in
        ["serve --listen 127.0.0.1:0 --ready-file ready", "ca issue-server --name b --out b"]
    {
        let output = run(folder.path(), line);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("the clock says 20") && text.contains("2100-01-01T00:00:00Z"),
            "{text}"
        );
        assert!(text.contains("set the clock"), "{text}");
    }
    assert!(!folder.path().join("ready").exists());
}

// Goal: a broker's folder is complete, and only the broker can read its key.
#[test]
fn a_broker_folder_is_complete() {
    let folder = installed();
    ok(folder.path(), "broker mosquitto --out broker --name localhost --port 18883 --backend lab");
    let broker = folder.path().join("broker");
    for name in ["mosquitto.conf", "acl", "ca.pem", "crl.pem", "server.pem"] {
        assert!(fs::metadata(broker.join(name)).unwrap().len() > 0, "{name}");
    }
    assert_eq!(mode(broker.join("server.key")), 0o600);
    assert!(fs::read_to_string(broker.join("acl")).unwrap().contains("user backend.lab\n"));
    ok(folder.path(), "ca issue-backend lab --out backend");
    assert_eq!(mode(folder.path().join("backend/backend.key")), 0o600);
}
