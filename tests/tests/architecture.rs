//! Keeps the house in the shape that `README.md` draws: who may depend on whom, what stands at
//! the top, what the two device crates may contain, and what no file may contain.
//!
//! Each rule is a function over text, so that beside the test of the real tree stands one that
//! shows the rule failing.
#![expect(clippy::expect_used, reason = "a manifest without what cargo demands ends the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Which of our crates each of our crates may name in its manifest. One way, nothing else.
const ARROWS: [(&str, &[&str]); 7] = [
    ("fleetcert-agent", &["fleetcert-core", "fleetcert-tpm"]),
    ("fleetcert-core", &[]),
    ("fleetcert-firmware", &["fleetcert-core", "fleetcert-tpm"]),
    ("fleetcert-provisioner", &["fleetcert-core", "fleetcert-tpm"]),
    ("fleetcert-rig", &[]),
    (
        "fleetcert-tests",
        &[
            "fleetcert-agent",
            "fleetcert-core",
            "fleetcert-firmware",
            "fleetcert-provisioner",
            "fleetcert-rig",
            "fleetcert-tpm",
        ],
    ),
    ("fleetcert-tpm", &[]),
];

/// What may stand at the top level; `target` and `.git` are not part of the sources.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".git",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "agent",
    "docs",
    "firmware-sample",
    "provisioner",
    "qemu",
    "target",
    "tests",
];

/// The crates that run without an operating system.
const DEVICE_CRATES: [&str; 2] = ["agent/core", "agent/tpm"];

/// Crates of which a second version would double a device's cryptography.
const SINGLE_VERSION: [&str; 2] = ["der", "p256"];

/// A file longer than this has a second idea in it.
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_path_buf()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn parse(text: &str) -> Table {
    text.parse().unwrap_or_else(|why| panic!("not TOML: {why}"))
}

fn members(workspace: &Table) -> Vec<String> {
    let members = workspace["workspace"]["members"].as_array().expect("members is a list");
    members.iter().map(|member| member.as_str().expect("a folder").to_owned()).collect()
}

/// Goal: no crate of ours depends on another one against the arrows.
#[test]
fn crates_depend_on_each_other_only_along_the_arrows() {
    let workspace = parse(&read(&root().join("Cargo.toml")));
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for member in members(&workspace) {
        let manifest = parse(&read(&root().join(&member).join("Cargo.toml")));
        seen.insert(package_name(&manifest));
        wrong.extend(forbidden_edges(&workspace, &manifest));
    }
    let drawn: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, drawn, "the crates of the workspace are not the ones of the drawing");
    assert!(wrong.is_empty(), "edges against the arrows:\n{}", wrong.join("\n"));
}

fn package_name(manifest: &Table) -> String {
    manifest["package"]["name"].as_str().expect("a package has a name").to_owned()
}

/// Edges from `manifest` to crates of ours that [`ARROWS`] does not draw.
fn forbidden_edges(workspace: &Table, manifest: &Table) -> Vec<String> {
    let from = package_name(manifest);
    let allowed = ARROWS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, to)| to);
    own_dependencies(workspace, manifest)
        .into_iter()
        .filter(|to| !allowed.contains(&to.as_str()))
        .map(|to| format!("{from} -> {to}"))
        .collect()
}

/// The crates that a manifest takes by path, itself or through the workspace's table.
fn own_dependencies(workspace: &Table, manifest: &Table) -> BTreeSet<String> {
    let shared = workspace["workspace"].get("dependencies").and_then(Value::as_table);
    let mut found = BTreeSet::new();
    for (name, dependency) in dependency_tables(manifest).into_iter().flatten() {
        let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
        let source = if inherited {
            shared.and_then(|shared| shared.get(name)).expect("an inherited dependency exists")
        } else {
            dependency
        };
        if source.get("path").is_some() {
            let package = source.get("package").and_then(Value::as_str).unwrap_or(name);
            found.insert(package.to_owned());
        }
    }
    found
}

fn dependency_tables(manifest: &Table) -> Vec<&Table> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest.get("target").and_then(Value::as_table);
    let per_target = targets.into_iter().flat_map(|t| t.values().filter_map(Value::as_table));
    std::iter::once(manifest)
        .chain(per_target)
        .flat_map(|table| KINDS.iter().filter_map(move |kind| table.get(*kind)?.as_table()))
        .collect()
}

/// Goal: each way of naming another crate is seen, so that none slips past the rule.
#[test]
fn an_edge_against_the_arrows_is_found_however_it_is_written() {
    let workspace =
        parse("[workspace.dependencies]\nfleetcert-agent = { path = \"agent\" }\nserde = \"1\"\n");
    for dependency in [
        "[dependencies]\nfleetcert-agent.workspace = true",
        "[dev-dependencies]\nfleetcert-agent = { path = \"..\" }",
        "[build-dependencies]\nother = { path = \"..\", package = \"fleetcert-agent\" }",
        "[target.'cfg(unix)'.dependencies]\nfleetcert-agent = { workspace = true }",
    ] {
        let manifest =
            parse(&format!("[package]\nname = \"fleetcert-core\"\n{dependency}\nserde = \"1\"\n"));
        let wrong = forbidden_edges(&workspace, &manifest);
        assert_eq!(wrong, ["fleetcert-core -> fleetcert-agent"], "{dependency}");
    }
}

/// Goal: every crate obeys the lints that the workspace agreed on.
#[test]
fn every_crate_inherits_the_lints_of_the_workspace() {
    let workspace = parse(&read(&root().join("Cargo.toml")));
    for member in members(&workspace) {
        let manifest = parse(&read(&root().join(&member).join("Cargo.toml")));
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherits.and_then(Value::as_bool), Some(true), "{member}/Cargo.toml: [lints]");
    }
}

/// Goal: a visitor sees the whole house at one glance.
#[test]
fn nothing_stands_at_the_top_level_that_is_not_in_the_drawing() {
    let entries = fs::read_dir(root()).expect("the root can be listed");
    let strangers: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "not part of the top level: {strangers:?}");
}

/// Goal: what runs on a microcontroller needs no operating system, no heap and no trust in us.
#[test]
fn the_device_crates_are_no_std_without_alloc_or_unsafe() {
    for folder in DEVICE_CRATES {
        let lib = read(&root().join(folder).join("src/lib.rs"));
        for line in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(lib.lines().any(|l| l == line), "{folder}/src/lib.rs lacks {line}");
        }
        for path in rust_files(&root().join(folder).join("src")) {
            let text = read(&path);
            let wrong = heap_uses(&text);
            assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        }
    }
}

/// Lines that bring the heap or the standard library into code that is not a test.
fn heap_uses(text: &str) -> Vec<&str> {
    let mut before = "";
    let mut wrong = Vec::new();
    for line in text.lines().map(str::trim) {
        let brings = line == "extern crate std;" || line.starts_with("extern crate alloc");
        if brings && before != "#[cfg(test)]" {
            wrong.push(line);
        }
        before = line;
    }
    wrong
}

/// Goal: the rule tells a test's standard library from the code's.
#[test]
fn the_standard_library_is_for_tests_of_device_crates_only() {
    assert!(heap_uses("#[cfg(test)]\nextern crate std;\n").is_empty());
    assert_eq!(heap_uses("extern crate std;\n"), ["extern crate std;"]);
    assert_eq!(heap_uses("use x;\nextern crate alloc;\n"), ["extern crate alloc;"]);
}

/// Goal: one idea a file, and no lint silenced without a reason that the compiler can retire.
#[test]
fn source_files_are_short_and_silence_no_lint() {
    let workspace = parse(&read(&root().join("Cargo.toml")));
    let mut wrong = Vec::new();
    for member in members(&workspace) {
        for path in rust_files(&root().join(&member)) {
            let faults = faults_of(&read(&path));
            wrong.extend(faults.into_iter().map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn faults_of(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{lines} lines, at most {FILE_LINES_MAX}"));
    }
    for (index, line) in text.lines().map(str::trim_start).enumerate() {
        if ["#[allow", "#![allow"].iter().any(|bare| line.starts_with(bare)) {
            faults.push(format!("line {}: use #[expect(…, reason = \"…\")]", index + 1));
        }
    }
    faults
}

/// Goal: both faults are seen, and `expect` is not taken for one.
#[test]
fn a_long_file_and_a_silenced_lint_are_found() {
    assert_eq!(faults_of(&"\n".repeat(FILE_LINES_MAX)).len(), 0);
    assert_eq!(faults_of(&"\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
    assert_eq!(faults_of("  #[allow(dead_code)]\n#![allow(unused)]\n").len(), 2);
    assert_eq!(faults_of("#[expect(dead_code, reason = \"why\")]\n").len(), 0);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder can be listed") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Goal: one DER and one P-256 in everything we ship.
#[test]
fn the_lock_file_holds_one_version_of_each_cryptographic_base() {
    let lock = parse(&read(&root().join("Cargo.lock")));
    let versions = locked_versions(&lock);
    for name in SINGLE_VERSION {
        let found = versions.get(name).map_or(&[][..], Vec::as_slice);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
    }
}

fn locked_versions(lock: &Table) -> BTreeMap<&str, Vec<&str>> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("a list of packages") {
        let name = package["name"].as_str().expect("a name");
        versions.entry(name).or_default().push(package["version"].as_str().expect("a version"));
    }
    versions
}

/// Goal: a second version is seen as such.
#[test]
fn two_versions_of_one_crate_are_found() {
    let lock = parse(
        "[[package]]\nname = \"der\"\nversion = \"0.7.10\"\n\
         [[package]]\nname = \"der\"\nversion = \"0.8.0\"\n",
    );
    assert_eq!(locked_versions(&lock)["der"], ["0.7.10", "0.8.0"]);
}
