//! The life of the firmware of both boards, as it is flashed, in QEMU, against the real provisioner and
//! a real mosquitto: on good days with power cuts, and on bad ones.
//!
//! A failed test shows the last lines of the serial line; `docs/rig.md` says how to replay a story.

use std::fs;
use std::path::Path;
use std::slice::from_mut;

use fleetcert_core::device_id::DeviceId;
use fleetcert_core::enroll::Token;
use fleetcert_firmware::factory::{FACTORY_LEN_MAX, Factory, Policy, Server};
use fleetcert_rig::bench::Bench;
use fleetcert_rig::device::{Device, Model};
use fleetcert_rig::error::RigError;
use fleetcert_rig::machine::{Board, Conditions};
use fleetcert_rig::timeline::Timeline;
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use fleetcert_rig::{factory, firmware, fleet, programs};
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::programs::{PROVISIONER, with};
use fleetcert_tests::lab::tpm::{is_locked_out, lock_out, lockout_counter, tool};

/// Certificates that outlive every test but the one about their end.
const LIFETIME_S: u32 = 3_600;

/// Certificates whose renewal is worth waiting for.
const SHORT_LIFETIME_S: u32 = 45;

/// From power to whatever is waited for, on a busy machine, milliseconds.
const WAIT_MS_MAX: u64 = 120_000;

/// Long enough for a board to do what it should not, milliseconds.
const WATCH_MS: u64 = 5_000;

/// What a board runs, built from the sources.
fn model(board: Board) -> Model {
    let firmware = programs::build_firmware(board).or_fail("firmware-sample/build");
    Model { board, firmware }
}

/// Plays a story at a bench with one device of `board`; servers and device have no power yet.
fn at_a_bench(
    board: Board,
    lifetime_s: u32,
    story: impl FnOnce(&mut Bench<'_>, &mut Device) -> Result<(), RigError>,
) {
    let (place, stop) = (Workplace::new().or_fail("a temporary folder"), Stop::default());
    let (timeline, programs) = (Timeline::to_stderr(), with(PROVISIONER));
    let watched = (&stop, &timeline);
    let mut bench =
        Bench::install(&programs, model(board), lifetime_s, &place, watched).or_fail("a bench");
    let mut device = bench.make("pump-7").or_fail("a device");
    story(&mut bench, &mut device).or_fail("the story");
}

/// All that a device has said, in all of its boots.
fn said(device: &Device) -> String {
    fs::read_to_string(device.console()).unwrap_or_default()
}

/// Waits until a device has said `words`.
fn until_said(bench: &mut Bench<'_>, device: &mut Device, words: &str) -> Result<(), RigError> {
    bench.until_all(from_mut(device), "certain words", WAIT_MS_MAX, |device| {
        said(device).contains(words)
    })
}

/// Waits until a device has been told that the broker has a message of it.
fn until_heard(bench: &mut Bench<'_>, device: &mut Device) -> Result<(), RigError> {
    bench.until_heard(from_mut(device), 1, WAIT_MS_MAX)
}

/// Waits until a device has failed `count` times in its present boot, and tries again.
fn until_failed(bench: &mut Bench<'_>, device: &mut Device, count: usize) -> Result<(), RigError> {
    bench.until_all(from_mut(device), "failures that are told", WAIT_MS_MAX, |device| {
        device.boot().count("failed") >= count
    })
}

/// The identity that a device found at its last start.
fn identity(device: &Device) -> Option<String> {
    device.boot().identity.clone().flatten()
}

/// Goal: what the rig writes into flash is what the firmware's own writer would have written.
#[test]
fn the_rigs_configuration_is_the_firmwares() {
    for (attested_only, decommission, token, broker) in
        [(false, true, None, None), (true, false, Some("s3cret"), Some(("10.0.2.2", 8883)))]
    {
        let root = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let rigs = factory::Factory {
            device_id: "pump-7".to_owned(),
            attested_only,
            decommission,
            provisioner: ("ca.example".to_owned(), 8443),
            server_root: root.clone(),
            token: token.map(str::to_owned),
            broker: broker.map(|(host, port): (&str, u16)| (host.to_owned(), port)),
        };
        let firmwares = Factory {
            device_id: DeviceId::parse("pump-7").or_fail("a device id"),
            policy: Policy { attested_only, decommission, ..Policy::default() },
            provisioner: Server::new("ca.example", 8443).or_fail("a server"),
            label: None,
            server_root: &root,
            token: token.map(|token| Token::parse(token).or_fail("a token")),
            broker: broker.map(|(host, port)| Server::new(host, port).or_fail("a server")),
        };
        let mut buffer = [0; FACTORY_LEN_MAX];
        let expected = firmwares.emit(&mut buffer).or_fail("the firmware's block");
        assert_eq!(rigs.block().or_fail("the rig's block"), expected);
    }
}

fn lives(board: Board) {
    let (stop, timeline) = (Stop::default(), Timeline::to_stderr());
    let (model, lifetime_s) = (model(board), LIFETIME_S);
    let plan = firmware::Plan { model, renewals: 2, reboots: 3, seed: 1, lifetime_s };
    let life = firmware::run(&plan, &with(PROVISIONER), (&stop, &timeline), false);
    let life = life.or_fail("a life");
    assert_eq!((life.board, life.reboots), (board, 3));
    assert!(life.account.renewals >= 2, "{life:?}");
    assert!(life.account.received >= life.account.published, "{life:?}");
    assert!(life.account.stack_peak_len > 0 && life.footprint.flash_len > 0, "{life:?}");
}

/// Goal: the board with a TPM enrolls once, with evidence, keeps its identity through power cuts and
/// renewals, and loses no acknowledged message.
#[test]
fn slow_riscv32_virt_lives() {
    lives(Board::Riscv32Virt);
}

/// Goal: so does the board without one, with a token.
#[test]
fn slow_mps2_an386_lives() {
    lives(Board::Mps2An386);
}

fn lives_in_a_fleet(board: Board) {
    let (stop, timeline) = (Stop::default(), Timeline::to_stderr());
    let (model, lifetime_s) = (model(board), LIFETIME_S);
    let plan = fleet::Plan { model, devices: 2, renewals: 1, lifetime_s };
    let summary = fleet::run(&plan, &with(PROVISIONER), (&stop, &timeline), false);
    let account = summary.or_fail("a fleet").account;
    assert_eq!(account.enrollments, 2);
    assert!(account.renewals >= 2, "{account:?}");
}

/// Goal: two boards at once do not get into each other's way.
#[test]
fn slow_two_boards_of_a_kind_live_together() {
    Board::ALL.into_iter().for_each(lives_in_a_fleet);
}

/// Goal: a device renews by itself when two thirds of its certificate's life are over.
#[test]
fn slow_a_device_renews_at_its_time() {
    at_a_bench(Board::Mps2An386, SHORT_LIFETIME_S, |bench, device| {
        bench.serve()?;
        bench.power_on(device)?;
        bench.until_all(from_mut(device), "two identities", WAIT_MS_MAX, |device| {
            device.boot().count("proven") >= 2
        })?;
        until_heard(bench, device)?;
        bench.settle(from_mut(device), 1).map(drop)
    });
}

/// Goal: a provisioner that is down is told, asked again by policy, and found when it comes; nothing is
/// lost by a power cut meanwhile.
#[test]
fn slow_a_provisioner_that_is_down_is_asked_again() {
    for board in Board::ALL {
        at_a_bench(board, LIFETIME_S, |bench, device| {
            bench.start_broker()?;
            bench.power_on(device)?;
            until_failed(bench, device, 2)?;
            device.cut_power()?;
            bench.power_on(device)?;
            until_failed(bench, device, 1)?;
            assert_eq!(device.boot().count("enrolled"), 0);
            bench.start_provisioner()?;
            until_heard(bench, device)?;
            bench.settle(from_mut(device), 0).map(drop)
        });
    }
}

/// Goal: a broker that is down is no verdict on the identity: the device enrolls, keeps what it has
/// over a power cut, and is heard when the broker comes.
#[test]
fn slow_a_broker_that_is_down_changes_nothing_about_the_identity() {
    for board in Board::ALL {
        at_a_bench(board, LIFETIME_S, |bench, device| {
            bench.start_provisioner()?;
            bench.power_on(device)?;
            bench.until_all(
                from_mut(device),
                "a broker that is missed",
                WAIT_MS_MAX,
                |device| device.boot().count("enrolled") == 1 && said(device).contains("broker"),
            )?;
            bench.let_pass(from_mut(device), WATCH_MS)?;
            device.cut_power()?;
            bench.power_on(device)?;
            bench.let_pass(from_mut(device), WATCH_MS)?;
            bench.start_broker()?;
            until_heard(bench, device)?;
            bench.settle(from_mut(device), 0).map(drop)
        });
    }
}

/// Goal: a configuration that is damaged is told, and nothing else happens: no key is made, nobody
/// is asked, and record and keys stay as they are.
#[test]
fn slow_a_damaged_configuration_is_told_and_nothing_else_happens() {
    for board in Board::ALL {
        at_a_bench(board, LIFETIME_S, |bench, device| {
            device.flash().put(board.factory_offset() + 20, &[0])?;
            bench.power_on(device)?;
            let outcome = bench.let_pass(from_mut(device), WAIT_MS_MAX);
            let said = said(device);
            assert!(has_ended(&outcome), "{outcome:?}\n{said}");
            assert!(said.contains("factory.checksum"), "{said}");
            assert!(!said.contains("event ") && !said.contains("identity: "), "{said}");
            let before = usize::try_from(board.factory_offset()).or_fail("an offset");
            assert!(device.flash().read(0, before)?.iter().all(|octet| *octet == 0xff));
            Ok(())
        });
    }
}

/// Goal: a device that is told to end its life erases its keys and says so; it is nobody from then on,
/// however often it gets power, and makes no new key.
#[test]
fn slow_a_device_that_is_decommissioned_keeps_nothing() {
    for board in Board::ALL {
        at_a_bench(board, LIFETIME_S, |bench, device| {
            bench.serve()?;
            bench.power_on(device)?;
            until_heard(bench, device)?;
            assert!(!are_keys_erased(board, device));
            device.cut_power()?;
            let factory = bench.factory(device.id(), None)?;
            device.configure(&factory::Factory { decommission: true, ..factory.clone() })?;
            for _ in 0..2 {
                bench.power_on(device)?;
                bench.until_all(from_mut(device), "the end of a life", WAIT_MS_MAX, |device| {
                    device.boot().is_decommissioned
                })?;
                device.cut_power()?;
                assert!(are_keys_erased(board, device), "{}", said(device));
            }
            device.configure(&factory)?;
            bench.power_on(device)?;
            bench.let_pass(from_mut(device), WATCH_MS)?;
            assert_eq!(device.boot().identity, Some(None), "{}", said(device));
            assert_eq!(device.boot().count("requested"), 0, "{}", said(device));
            assert!(are_keys_erased(board, device), "{}", said(device));
            Ok(())
        });
    }
}

/// Whether the region of the keys is as empty as a new one.
fn are_keys_erased(board: Board, device: &Device) -> bool {
    let (start, end) = (board.keys_offset(), board.factory_offset());
    let len = usize::try_from(end - start).or_fail("a length");
    let keys = device.flash().read(start, len).or_fail("the flash");
    keys.iter().all(|octet| *octet == 0xff)
}

/// Whether a device has switched itself off.
fn has_ended(outcome: &Result<(), RigError>) -> bool {
    let Err(RigError::Device { cause, .. }) = outcome else { return false };
    matches!(**cause, RigError::Ended { .. })
}

/// Goal: a TPM that is not there, or that is in failure mode, is named; the identity is kept and used
/// again as soon as the TPM is back, without another enrollment.
#[test]
fn slow_a_tpm_that_is_away_or_fails_is_named_and_the_identity_kept() {
    at_a_bench(Board::Riscv32Virt, LIFETIME_S, |bench, device| {
        bench.serve()?;
        bench.power_on(device)?;
        until_heard(bench, device)?;
        device.cut_power()?;

        let tpm = device.tpm().take();
        bench.power_on(device)?;
        until_failed(bench, device, 2)?;
        until_said(bench, device, "TPM unreachable")?;
        let found = identity(device).or_fail("an identity without a TPM");
        device.cut_power()?;
        *device.tpm() = tpm;

        device.power_on_with_failing_tpm(bench.stop())?;
        until_failed(bench, device, 2)?;
        until_said(bench, device, "TPM failure-mode")?;
        assert_eq!(identity(device).as_ref(), Some(&found));
        device.cut_power()?;

        device.mend_tpm()?;
        bench.power_on(device)?;
        until_heard(bench, device)?;
        assert_eq!(identity(device).as_ref(), Some(&found));
        bench.settle(from_mut(device), 0).map(drop)
    });
}

/// Goal: a TPM that is locked out because somebody has guessed passwords says so on the serial line and
/// stops nothing, as no key of ours is subject to that: a device enrolls with evidence, comes back,
/// and renews, makes it no worse, and goes on when the lockout is cleared.
#[test]
fn slow_a_locked_tpm_is_told_and_stops_nothing() {
    const LOCKED: &str = "lockout 3 of 3";
    at_a_bench(Board::Riscv32Virt, LIFETIME_S, |bench, device| {
        bench.serve()?;
        at_the_desk(bench, device, lock_out)?;
        bench.power_on(device)?;
        until_heard(bench, device)?;
        assert!(said(device).contains(LOCKED), "{}", said(device));
        device.cut_power()?;

        // Locked still, and the device has not guessed anything.
        at_the_desk(bench, device, |socket| {
            assert!(is_locked_out(socket));
            assert_eq!(lockout_counter(socket), 3);
        })?;
        bench.power_on(device)?;
        until_heard(bench, device)?;
        let found = identity(device).or_fail("an identity with a locked TPM");
        bench.renew_all(from_mut(device), WAIT_MS_MAX)?;
        until_heard(bench, device)?;
        assert_eq!(said(device).matches(LOCKED).count(), 2, "{}", said(device));
        device.cut_power()?;

        at_the_desk(bench, device, |socket| {
            tool(socket, &["tpm2_dictionarylockout", "--clear-lockout"]).expect_success();
        })?;
        bench.power_on(device)?;
        until_said(bench, device, "lockout 0 of 3")?;
        until_heard(bench, device)?;
        assert!(identity(device).is_some_and(|renewed| renewed != found));
        bench.settle(from_mut(device), 1).map(drop)
    });
}

/// Takes the TPM out of a device without power, and does something to it.
fn at_the_desk(
    bench: &Bench<'_>,
    device: &mut Device,
    act: impl FnOnce(&Path),
) -> Result<(), RigError> {
    let mut tpm = device.tpm().take().or_fail("a TPM").for_the_desk();
    tpm.start(bench.stop())?;
    let socket = tpm.data_socket();
    tool(&socket, &["tpm2_startup", "--clear"]).expect_success();
    act(&socket);
    tpm.shutdown(bench.stop())?;
    *device.tpm() = Some(tpm.for_machine());
    Ok(())
}

/// Goal: a board whose battery is empty, so that it is 1970 at each start, enrolls, comes back after
/// a power cut, and renews.
#[test]
fn slow_a_clock_at_1970_keeps_nobody_from_anything() {
    at_a_bench(Board::Riscv32Virt, LIFETIME_S, |bench, device| {
        bench.serve()?;
        let empty = Conditions { clock: Some("1970-01-01"), ..Conditions::default() };
        for _ in 0..2 {
            device.power_on_under(empty, bench.stop())?;
            until_heard(bench, device)?;
            device.cut_power()?;
        }
        device.power_on_under(empty, bench.stop())?;
        until_heard(bench, device)?;
        bench.renew_all(from_mut(device), WAIT_MS_MAX)?;
        until_heard(bench, device)?;
        bench.settle(from_mut(device), 1).map(drop)
    });
}
