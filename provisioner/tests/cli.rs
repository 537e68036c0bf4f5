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

/// SHA-256 of endorsement keys, for lists.
fn ek(octet: &str) -> String {
    octet.repeat(32)
}

// Goal: an operator's list of TPMs is taken whole or not at all, once, and its faults have lines.
#[test]
fn a_list_of_tpms_is_imported_whole_or_not_at_all() {
    let folder = installed();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("list.csv", format!("device_id,ek_sha256\n\ngw-1,{}\ngw-2,{}\n", ek("aa"), ek("bb")));
    let told = ok(folder.path(), "device import list.csv --group default");
    assert!(told.starts_with("2 devices added"), "{told}");
    let told = ok(folder.path(), "device import list.csv");
    assert!(told.ends_with("2 unchanged\n"), "{told}");
    let entry = |id: &str, octet: &str| {
        format!("{{\"device_id\": \"{id}\", \"ek_sha256\": \"{}\"}}\n", ek(octet))
    };
    write("other.json", entry("gw-3", "cc") + "\n" + &entry("gw-4", "aa"));
    write("broken.csv", format!("gw-5,{}\ngw-6,zz\n", ek("ee")));
    for (name, expected) in [
        ("other.json", "line 3: the endorsement key of gw-4 is listed for gw-1"),
        ("broken.csv", "line 2:"),
        ("missing.csv", "No such file"),
    ] {
        let output = run(folder.path(), &format!("device import {name}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let list = json(folder.path(), "device list --json");
    assert_eq!(list["devices"].as_array().unwrap().len(), 2, "{list}");
    assert_eq!(list["devices"][0]["attested"], false);
    let shown = json(folder.path(), "device show gw-1 --json");
    assert_eq!(shown["tpm"]["listed"]["ekSha256"], ek("aa").as_str());
    assert_eq!((&shown["attested"], &shown["tpm"]["bound"]), (&false.into(), &Value::Null));
    let audit = ok(folder.path(), "audit list --json");
    assert!(audit.contains("\"imported\"") && audit.contains("\"ek-listed\""), "{audit}");
}

// Goal: replaced hardware changes whom the list admits; another device's TPM is not given away.
#[test]
fn the_tpm_of_a_device_is_replaced() {
    let folder = installed();
    let list = format!("gw-1,{}\ngw-2,{}\n", ek("aa"), ek("bb"));
    fs::write(folder.path().join("list.csv"), list).unwrap();
    ok(folder.path(), "device import list.csv");
    let told = ok(folder.path(), &format!("device replace gw-1 --ek {}", ek("cc")));
    assert!(told.contains("enroll anew") && told.contains("crl write"), "{told}");
    let shown = json(folder.path(), "device show gw-1 --json");
    assert_eq!(shown["tpm"]["listed"]["ekSha256"], ek("cc").as_str());
    let taken = run(folder.path(), &format!("device replace gw-1 --ek {}", ek("bb")));
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("device replace gw-2"));
    assert_eq!(run(folder.path(), "device replace gw-1 --ek abc").status.code(), Some(2));
    assert_eq!(run(folder.path(), "device reject gw-1").status.code(), Some(1));
    let audit = ok(folder.path(), "audit list --device gw-1");
    assert!(audit.contains("device-replaced"), "{audit}");
}

// Goal: roots are added from files and folders, listed, and removed by their fingerprint.
#[test]
fn roots_of_endorsement_are_added_listed_and_removed() {
    let folder = installed();
    let root = root_certificate();
    fs::create_dir(folder.path().join("roots")).unwrap();
    fs::write(folder.path().join("roots/one.pem"), &root).unwrap();
    fs::write(folder.path().join("roots/README"), "not a certificate").unwrap();
    assert!(ok(folder.path(), "attest ek-roots add roots").starts_with("1 added, 0 trusted"));
    let again = ok(folder.path(), "attest ek-roots add roots/one.pem roots");
    assert!(again.starts_with("0 added, 1 trusted"), "{again}");
    let list = json(folder.path(), "attest ek-roots list --json");
    assert_eq!(list["ekRoots"].as_array().unwrap().len(), 1);
    assert_eq!(list["ekRoots"][0]["subject"], "CN=Maker of TPMs");
    let fingerprint = list["ekRoots"][0]["fingerprint"].as_str().unwrap();
    assert!(ok(folder.path(), "attest ek-roots list").contains(fingerprint));
    let bad = run(folder.path(), "attest ek-roots add roots/README");
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("no root was added"));
    ok(folder.path(), &format!("attest ek-roots remove {fingerprint}"));
    let gone = run(folder.path(), &format!("attest ek-roots remove {fingerprint}"));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("ek-roots list"));
    let audit = ok(folder.path(), "audit list");
    assert!(audit.contains("ek-root-added") && audit.contains("ek-root-removed"), "{audit}");
}

/// A root for endorsement certificates, PEM.
fn root_certificate() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Maker of TPMs");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
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
