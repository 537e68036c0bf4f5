//! The firmware of both boards, as it is flashed, in QEMU: each part of a board used once by the
//! firmware's own self-test, and what it says when a part is missing.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use fleetcert_core::device_id::DeviceId;
use fleetcert_firmware::factory::{FACTORY_LEN_MAX, Factory, Policy, Server};
use fleetcert_rig::machine::{Board, Flash, Machine};
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::programs;

/// From power to the end of a self-test; a second on a quiet machine.
const SELF_TEST_MS_MAX: u64 = 60_000;

/// QEMU's user network shows the host's loopback there.
const HOST: &str = "10.0.2.2";

/// A line as one may say it, and nobody listens.
const UNUSED_PORT: u16 = 9;

/// A board on a desk, with its flash and its TPM.
struct Desk {
    board: Board,
    firmware: PathBuf,
    place: Workplace,
    flash: Flash,
    tpm: Option<Swtpm>,
}

impl Desk {
    fn new(board: Board) -> Self {
        let place = Workplace::new().or_fail("a temporary folder");
        let flash = Flash::blank(board, &place.join("")).or_fail("a flash");
        let tpm = board
            .has_tpm()
            .then(|| Swtpm::blank(&place.join("tpm")).or_fail("a software TPM").for_machine());
        Self { board, firmware: built(board), place, flash, tpm }
    }

    /// As the factory does it.
    fn configure(&self, port: u16) {
        let factory = Factory {
            device_id: DeviceId::parse("pump-7").or_fail("a device id"),
            policy: Policy { self_test: true, ..Policy::default() },
            provisioner: Server::new(HOST, port).or_fail("a server"),
            label: None,
            server_root: &[0x30, 0],
            token: None,
            broker: None,
        };
        let mut buffer = [0; FACTORY_LEN_MAX];
        let block = factory.emit(&mut buffer).or_fail("a factory configuration");
        self.flash.put(self.board.factory_offset(), block).or_fail("the flash");
    }

    /// Power for all of it, with the cable in or out.
    fn power(&mut self, is_plugged: bool) -> Machine {
        let stop = Stop::default();
        if let Some(tpm) = &mut self.tpm {
            tpm.restart(&stop).or_fail("the software TPM");
        }
        let (folder, firmware, tpm) = (self.place.join(""), &self.firmware, self.tpm.as_ref());
        let machine = if is_plugged {
            Machine::start(self.board, firmware, &folder, tpm)
        } else {
            Machine::start_unplugged(self.board, firmware, &folder, tpm, &stop)
        };
        machine.or_fail("a machine")
    }

    /// One self-test, to its end.
    fn self_test(&mut self) -> (bool, String) {
        let machine = self.power(true);
        Self::to_its_end(machine)
    }

    /// Whether it passed, and what was said.
    fn to_its_end(mut machine: Machine) -> (bool, String) {
        let passed = machine.wait_for_end(SELF_TEST_MS_MAX, &Stop::default());
        let said = machine.console().or_fail("the serial line");
        (passed.unwrap_or_else(|why| panic!("{why}\n{said}")), said)
    }
}

/// Builds the firmware of a board as it is flashed.
fn built(board: Board) -> PathBuf {
    let top = programs::top();
    let output = Command::new(top.join("firmware-sample/build"))
        .arg(board.name())
        .env_remove("RUSTFLAGS")
        .output()
        .or_fail("firmware-sample/build");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Answers each line with the same line, on a loopback port, as long as the test runs.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fail("a port");
    let port = listener.local_addr().or_fail("its number").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.or_fail("a connection");
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().or_fail("a second handle"));
            reader.read_line(&mut line).or_fail("a line");
            stream.write_all(line.as_bytes()).or_fail("the peer to take it");
        }
    });
    port
}

fn passes_its_self_test(board: Board) {
    let mut desk = Desk::new(board);
    desk.configure(echo());
    for _ in 0..2 {
        let (passed, said) = desk.self_test();
        assert!(passed, "{said}");
        for line in [
            "factory: pump-7",
            "signatures: as in the known examples",
            "flash: ",
            "network: 10.0.2.15/24",
            "self-test passed",
        ] {
            assert!(said.contains(line), "{line:?} is missing in:\n{said}");
        }
        assert_eq!(said.contains("tpm: starts"), board.has_tpm(), "{said}");
    }
}

/// Goal: the board with a TPM boots from what the build makes, and each of its parts works, twice.
#[test]
fn slow_riscv32_virt_passes_its_self_test() {
    passes_its_self_test(Board::Riscv32Virt);
}

/// Goal: so does the board without one.
#[test]
fn slow_mps2_an386_passes_its_self_test() {
    passes_its_self_test(Board::Mps2An386);
}

/// Goal: a part that is missing is named on the serial line, the exit status says that something
/// is wrong, and nothing panics or traps.
#[test]
fn slow_a_missing_part_is_named() {
    for board in Board::ALL {
        let mut desk = Desk::new(board);
        let expect = |desk: &mut Desk, words: &str| {
            let (passed, said) = desk.self_test();
            assert!(!passed && said.contains(words), "{words:?} is missing in:\n{said}");
            let is_orderly = said.contains("stack: ") && !said.contains("panicked");
            assert!(is_orderly && !said.contains("trap:"), "{said}");
        };
        expect(&mut desk, "factory.erased");
        desk.configure(UNUSED_PORT);
        expect(&mut desk, "net.refused");
        desk.flash.put(desk.board.factory_offset() + 20, &[0]).or_fail("the flash");
        expect(&mut desk, "factory.checksum");
        if desk.tpm.take().is_some() {
            desk.configure(UNUSED_PORT);
            expect(&mut desk, "TPM: tpm.absent");
        }
    }
}

/// Goal: a cable that is out is told from a network without addresses; one that is put in while
/// the board waits is used.
#[test]
fn slow_a_cable_that_is_out_is_named() {
    for board in Board::ALL {
        let mut desk = Desk::new(board);
        desk.configure(echo());
        let (passed, said) = Desk::to_its_end(desk.power(false));
        assert!(!passed && said.contains("net.no-link"), "{said}");
        let stop = Stop::default();
        let mut machine = desk.power(false);
        machine.wait_for("flash: ", SELF_TEST_MS_MAX, &stop).or_fail("the network's turn");
        machine.plug_in(&stop).or_fail("the monitor");
        let (passed, said) = Desk::to_its_end(machine);
        assert!(passed, "{said}");
    }
}
