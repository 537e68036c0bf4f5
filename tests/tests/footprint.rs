//! What the firmware of both boards takes, as it is flashed: octets of flash and RAM, instructions,
//! octets on the wire, and the panics that could be. The pages have the limits and the reasons
//! (`docs/footprint.md`, `docs/panics.md`); what they say has to be true in both directions.
//!
//! With `FLEETCERT_UPDATE_SNAPSHOTS=1` the numbers that were measured are written into the page.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::slice::from_mut;

use fleetcert_rig::bench::{Bench, HOST};
use fleetcert_rig::device::{Device, Model};
use fleetcert_rig::elf::Footprint;
use fleetcert_rig::error::RigError;
use fleetcert_rig::machine::{Board, Conditions};
use fleetcert_rig::programs::build_firmware;
use fleetcert_rig::timeline::Timeline;
use fleetcert_rig::wait::Stop;
use fleetcert_rig::workplace::Workplace;
use fleetcert_tests::footprint::component;
use fleetcert_tests::footprint::image::Image;
use fleetcert_tests::footprint::listing::{Complaint, Listing};
use fleetcert_tests::footprint::page::{self, Table, number};
use fleetcert_tests::footprint::panics;
use fleetcert_tests::lab::OrFail;
use fleetcert_tests::lab::programs::{PROVISIONER, top, with};
use fleetcert_tests::lab::relay::Relay;

/// Set to write the numbers of the page anew instead of comparing them.
const UPDATE_VARIABLE: &str = "FLEETCERT_UPDATE_SNAPSHOTS";

/// The boards, in the order of the page's columns.
const BOARDS: [Board; 2] = [Board::Riscv32Virt, Board::Mps2An386];

/// What is measured, in the order of the page's rows.
const BUDGETS: [&str; 4] = ["flash", "RAM", "a TLS handshake", "an enrollment"];

/// What the page says may differ so much from what is found, percent: each compiler, and each run,
/// is a little different.
const DRIFT_PERCENT_MAX: u64 = 10;

/// And a component, besides, by so many octets: what is inlined where is a compiler's mood.
const DRIFT_LEN_MAX: u64 = 2048;

/// Certificates that outlive the measurement.
const LIFETIME_S: u32 = 3_600;

/// From power to whatever is waited for, on a busy machine, milliseconds.
const WAIT_MS_MAX: u64 = 120_000;

/// Instructions are counted at a tenth of the usual speed.
const COUNTED_WAIT_MS_MAX: u64 = 240_000;

fn firmware(board: Board) -> PathBuf {
    build_firmware(board).or_fail("firmware-sample/build")
}

fn image(board: Board) -> Image {
    Image::read(&firmware(board)).or_fail("the firmware")
}

fn page_path() -> PathBuf {
    top().join("docs/footprint.md")
}

fn page() -> String {
    fs::read_to_string(page_path()).or_fail("docs/footprint.md")
}

fn is_update() -> bool {
    env::var_os(UPDATE_VARIABLE).is_some()
}

/// The page's table whose first cell is this.
fn table(first: &str) -> Table {
    let is_it = |table: &Table| table.head.first().is_some_and(|cell| cell == first);
    page::tables(&page()).into_iter().find(is_it).or_fail(first)
}

fn write(table: &Table) {
    let replaced = page::replace(&page(), table).or_fail("a table with this first line");
    fs::write(page_path(), replaced).or_fail("docs/footprint.md");
}

/// What a board's firmware takes, in the order of [`BUDGETS`]: octets, octets, instructions, octets.
fn measure(board: Board) -> [u64; BUDGETS.len()] {
    let firmware = firmware(board);
    let sizes = Image::read(&firmware).or_fail("the firmware").sizes();
    let (place, stop) = (Workplace::new().or_fail("a temporary folder"), Stop::default());
    let (timeline, programs) = (Timeline::to_stderr(), with(PROVISIONER));
    let (model, watched) = (Model { board, firmware }, (&stop, &timeline));
    let mut bench =
        Bench::install(&programs, model, LIFETIME_S, &place, watched).or_fail("a bench");
    let relay = Relay::start(bench.servers.provisioner.port());
    let mut device = bench.make("pump-7").or_fail("a device");
    let token = fs::read_to_string(place.join("pump-7-token")).ok();
    let token = token.map(|token| token.trim().to_owned());
    let mut factory = bench.factory("pump-7", token).or_fail("a configuration");
    factory.provisioner = (HOST.to_owned(), relay.port());
    device.configure(&factory).or_fail("a configuration");
    let lived = live(&mut bench, &mut device, &stop);
    let (stack_peak_len, handshake) = lived.or_fail("a life");
    let enrollment = relay.passed().first().copied().or_fail("an enrollment");
    let ram = u64::from(sizes.ram) + stack_peak_len;
    [u64::from(sizes.flash), ram, handshake, enrollment]
}

/// Enrolls, renews and starts again; the peak of the stack, and the instructions of the cheapest
/// handshake.
fn live(bench: &mut Bench<'_>, device: &mut Device, stop: &Stop) -> Result<(u64, u64), RigError> {
    bench.serve()?;
    bench.power_on(device)?;
    bench.until_heard(from_mut(device), 1, WAIT_MS_MAX)?;
    assert_eq!(device.boot().count("failed"), 0, "the first connection is the enrollment");
    bench.renew_all(from_mut(device), WAIT_MS_MAX)?;
    device.cut_power()?;
    let counting = Conditions { counts_instructions: true, ..Conditions::default() };
    device.power_on_under(counting, stop)?;
    bench.until_heard(from_mut(device), 1, COUNTED_WAIT_MS_MAX)?;
    let handshake = device.boot().handshakes.values().copied().min().or_fail("a handshake");
    device.cut_power()?;
    Ok((bench.account(device)?.stack_peak_len, handshake))
}

/// A number as the page has it in the unit of its limit.
fn in_unit(value: u64, limit: &str) -> String {
    let (unit, factor) = if limit.ends_with('M') { ("M", 1e6) } else { ("KiB", 1024.0) };
    format!("{:.1} {unit}", value as f64 / factor)
}

fn has_drifted(said: u64, found: u64, free: u64) -> bool {
    said.abs_diff(found) > free.max(found * DRIFT_PERCENT_MAX / 100)
}

/// Goal: what is measured is within the limits of the page, and is what the page says.
#[test]
fn slow_the_boards_keep_their_budgets() {
    let mut table = table("budget");
    let found = BOARDS.map(measure);
    let names: Vec<&str> = table.rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(names, BUDGETS);
    let mut wrong = Vec::new();
    for (budget, row) in table.rows.iter_mut().enumerate() {
        for (board, of_board) in BOARDS.iter().zip(&found) {
            let [said, limit] = columns(*board);
            let (value, limit) = (of_board[budget], row[limit].clone());
            let measured = in_unit(value, &limit);
            let what = format!("{}, {}: {measured} of {limit}", BUDGETS[budget], board.name());
            if value > number(&limit).or_fail(&limit) {
                wrong.push(format!("over budget: {what}"));
            }
            if has_drifted(number(&row[said]).or_fail(&row[said]), value, 0) && !is_update() {
                wrong.push(format!("the page says {}: {what}", row[said]));
            }
            row[said] = measured;
        }
    }
    if is_update() {
        write(&table);
    }
    assert!(wrong.is_empty(), "{}\n\nmeasured:\n{table}", wrong.join("\n"));
}

/// Where a board's numbers are in a row: what was measured, and the limit.
fn columns(board: Board) -> [usize; 2] {
    match board {
        Board::Riscv32Virt => [1, 2],
        Board::Mps2An386 => [3, 4],
    }
}

/// Goal: the page says who takes flash and RAM, and nobody is forgotten.
#[test]
fn slow_flash_and_ram_are_whose_the_page_says() {
    let images = BOARDS.map(|board| (board.name(), image(board)));
    let named: Vec<_> = images.iter().map(|(name, image)| (*name, image)).collect();
    let found = component::table(&named);
    for (board, (_, image)) in BOARDS.iter().zip(&images) {
        let (sizes, rigs) =
            (image.sizes(), Footprint::of(&firmware(*board)).or_fail("the rig's numbers"));
        assert_eq!((u64::from(sizes.flash), u64::from(sizes.ram)), (rigs.flash_len, rigs.ram_len));
        let sums = component::shares(image);
        assert_eq!(sums.values().map(|share| share.flash()).sum::<u32>(), sizes.flash);
        assert_eq!(sums.values().map(|share| share.ram).sum::<u32>(), sizes.ram);
    }
    if is_update() {
        write(&found);
        return;
    }
    let said = table("component");
    assert_eq!(said.head, found.head);
    let row =
        |table: &Table, name: &str| {
            table.rows.iter().find(|row| row[0] == name).map(|row| {
                row[1..].iter().map(|cell| number(cell).or_fail(cell)).collect::<Vec<u64>>()
            })
        };
    let names: BTreeSet<&String> = said.rows.iter().chain(&found.rows).map(|row| &row[0]).collect();
    for name in names {
        // What is small in one build and not in another stands in one of the tables only.
        let none = || vec![0; found.head.len() - 1];
        let of = |table| row(table, name).unwrap_or_else(none);
        for (said, found) in of(&said).into_iter().zip(of(&found)) {
            let is_small = said.min(found) == 0 && said.max(found) < 2 * DRIFT_LEN_MAX;
            let is_wrong = has_drifted(said, found, DRIFT_LEN_MAX) && !is_small;
            assert!(!is_wrong, "{name}: the page says {said}, found {found}");
        }
    }
}

/// A board's firmware as `docs/panics.md` wants it: panics say where they are, and checks that cannot
/// fail have been proven away. In a folder of its own: what boots in other tests is the other one.
fn firmware_with_places(board: Board) -> PathBuf {
    let output = Command::new(top().join("firmware-sample/build"))
        .args([board.name(), "--features", "panic-text"])
        .env("CARGO_TARGET_DIR", top().join("target/panic-text"))
        .env("CARGO_PROFILE_FIRMWARE_OPT_LEVEL", "3")
        .env_remove("RUSTFLAGS")
        .output()
        .or_fail("firmware-sample/build");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Goal: whatever could panic is listed with the reason why it does not, or what follows; and what is
/// listed is there.
#[test]
fn slow_every_panic_has_its_reason() {
    let mut sites = BTreeSet::new();
    for board in BOARDS {
        let image = Image::read(&firmware_with_places(board)).or_fail("the firmware");
        sites.extend(panics::sites(&image).or_fail("a panic handler"));
    }
    // The search is not blind: it finds those that are known to be there.
    assert!(sites.len() > 50, "only {} places were found", sites.len());
    let page = fs::read_to_string(top().join("docs/panics.md")).or_fail("docs/panics.md");
    let complaints = Listing::parse(&page).judge(&sites, &top());
    let complaints: Vec<_> = complaints.iter().map(Complaint::to_string).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
