//! The first steps of the README, played as they are written; only the ports are others, because
//! somebody may be listening there.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetcert_rig::ports;
use fleetcert_rig::process::Process;
use fleetcert_rig::workplace::Workplace;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::programs::{self, AGENT, PROVISIONER};
use fleetcert_tests::lab::run::run;
use fleetcert_tests::lab::wait::until;

/// The ports that the README names: the provisioner's and the broker's.
const PORTS: [&str; 2] = ["8443", "8883"];

/// A command that waits for what others have only just been told to do.
const STEP_MS_MAX: u64 = 20_000;

/// The fenced blocks of a section.
fn blocks<'a>(text: &'a str, section: &str) -> Vec<&'a str> {
    let (_, rest) = text.split_once(&format!("## {section}\n")).or_fail(section);
    let section = rest.split("\n## ").next().unwrap_or_default();
    section
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').or_fail("a block").1)
        .collect()
}

/// The commands of a block, those of several lines joined.
fn commands(block: &str) -> Vec<String> {
    block.replace("\\\n", " ").lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// A shell that is where the reader is and finds our programs as the reader does.
fn shell(place: &Workplace, line: &str) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let known = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let path = env::join_paths([programs::folder()].into_iter().chain(known)).or_fail("a path");
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(place.join("")).env("PATH", path);
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Goal: who follows the first steps of the README to the letter has a device that is heard.
#[test]
fn the_first_steps_lead_to_a_device_that_is_heard() {
    for program in [AGENT, PROVISIONER] {
        let _there = programs::with(program);
    }
    let free = ports::free::<2>().or_fail("free ports").map(|port| port.to_string());
    let mut readme = read(&programs::top().join("README.md"));
    for (written, ours) in PORTS.into_iter().zip(&free) {
        assert!(readme.contains(written), "{written} is not in the README any more");
        readme = readme.replace(written, ours);
    }
    let missing = "broker mosquitto --out broker --name localhost";
    let with_port = format!("{missing} --port {}", free[1]);
    assert!(readme.contains(missing), "the broker's default port is not relied on any more");
    let readme = readme.replace(missing, &with_port);

    let place = Workplace::new().or_fail("a temporary folder");
    let log = place.join("background.log");
    let heard = place.join("heard.log");
    let mut background = Vec::new();
    for block in blocks(&readme, "First steps") {
        if block.starts_with("cargo build") {
            continue;
        }
        if block.starts_with("device_id") {
            fs::write(place.join("agent.toml"), block).or_fail("agent.toml");
            continue;
        }
        for line in commands(block) {
            if let Some(line) = line.strip_suffix('&') {
                let process = Process::start(line, shell(&place, &format!("exec {line}")), &log);
                background.push(process.or_fail(line));
            } else if line.starts_with("mosquitto_sub") {
                let process = Process::start(&line, shell(&place, &format!("exec {line}")), &heard);
                background.push(process.or_fail(&line));
            } else if line.ends_with(" status") {
                until("the device to be well", STEP_MS_MAX, || {
                    (run(shell(&place, &line), b"").code == Some(0)).then_some(())
                });
            } else {
                run(shell(&place, &line), b"").expect_success();
            }
        }
    }
    until("the device to be heard", STEP_MS_MAX, || {
        for process in &mut background {
            process.check().or_fail(&read(&log));
        }
        read(&heard).contains("fleetcert/v1/press-7/state").then_some(())
    });
    assert_eq!(background.len(), 4, "broker, provisioner, agent, backend");
}

/// Where the firmware's codes are given out, and the room that each is of.
const SERIAL: [(&str, &str); 17] = [
    ("board", "board.rs"),
    ("device", "device.rs"),
    ("factory", "factory.rs"),
    ("flash", "console.rs"),
    ("http", "http/fault.rs"),
    ("keys", "keystore.rs"),
    ("mqtt", "mqtt.rs"),
    ("mqtt", "mqtt/outbox.rs"),
    ("mqtt", "mqtt/packet.rs"),
    ("net", "net.rs"),
    ("record", "store.rs"),
    ("record", "store/layout.rs"),
    ("test", "self_test/steps.rs"),
    ("tls", "keystore/fault.rs"),
    ("tls", "tls/fault.rs"),
    ("tls", "verifier/refusal.rs"),
    ("tpm", "board/riscv32_virt/tis.rs"),
];

/// Where codes without a room are given out.
const SERIAL_WORDS: [&str; 3] = ["http.rs", "keystore/tpm/trouble.rs", "mqtt/command.rs"];

/// What the functions of a source that give out codes can return.
fn codes_of(file: &str) -> Vec<String> {
    let source = read(&programs::top().join("firmware-sample/src").join(file));
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut codes = Vec::new();
    let mut is_inside = false;
    for line in source.lines() {
        is_inside |= line.contains("fn ") && line.contains("-> &'static str {");
        is_inside &= line.trim_end() != "}" && line != "    }";
        let code = line.rsplit_once("=> \"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some((code, _)) = code.filter(|_| is_inside) {
            codes.push(code.trim_start_matches(": ").to_owned());
        }
    }
    assert!(!codes.is_empty(), "{file} gives out no codes");
    codes
}

/// Goal: whoever meets a code on the serial line finds it explained.
#[test]
fn every_code_on_the_serial_line_is_explained() {
    let page = read(&programs::top().join("docs/serial.md"));
    let mut found = 0;
    let rooms = SERIAL.map(|(room, file)| (format!("{room}."), file));
    let words = SERIAL_WORDS.map(|file| (String::new(), file));
    for (room, file) in rooms.into_iter().chain(words) {
        for code in codes_of(file).into_iter().filter(|code| !code.is_empty()) {
            assert!(page.contains(&format!("`{room}{code}`")), "`{room}{code}` is not explained");
            found += 1;
        }
    }
    assert!(found > 130, "only {found} codes were found");
}

/// Where the reason codes of attestation are given out.
const CODES: [&str; 5] = [
    "provisioner/src/attest/ek/refusal.rs",
    "provisioner/src/attest/evidence/error.rs",
    "provisioner/src/challenge.rs",
    "provisioner/src/enroll/refusal/tpm.rs",
    "provisioner/src/http/challenge.rs",
];

/// Goal: an operator who meets a reason code of attestation finds it explained.
#[test]
fn every_reason_code_of_attestation_is_explained() {
    let page = read(&programs::top().join("docs/attestation.md"));
    let mut found = 0;
    for file in CODES {
        let source = read(&programs::top().join(file));
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // Whole codes stand alone behind an arrow, those of keys begin with the role's.
        for line in source.lines().map(str::trim) {
            let whole = line.rsplit_once("=> \"").map(|(_, code)| code);
            let ending = line.split_once("concat!($role, \"").map(|(_, code)| code);
            let alone = line.strip_prefix('"').filter(|rest| rest.ends_with('"'));
            let Some(code) = whole.or(ending).or(alone) else { continue };
            let code = code.split('"').next().unwrap_or_default();
            let is_code = |octet: u8| octet.is_ascii_lowercase() || octet == b'-';
            if code.contains('-') && code.bytes().all(is_code) {
                assert!(page.contains(&format!("`{code}`")), "{code} of {file} is not explained");
                found += 1;
            }
        }
    }
    assert!(found > 80, "only {found} codes were found");
}
