//! The fuzz targets over their committed corpora: what a fuzzer once found stays found.
//!
//! A corpus is the folder `tests/fuzz/corpus/<target>`. Its files are the seeds a fuzzer starts
//! from, and every input that once broke something.
#![expect(clippy::unwrap_used, reason = "a corpus that cannot be read ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fleetcert_tests::fuzz::{TARGETS, run};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

// Goal: no input of any corpus breaks what has to hold.
#[test]
fn every_target_holds_over_its_corpus() {
    for target in TARGETS {
        let corpus = fuzz().join("corpus").join(target.name);
        let seeds = names(&corpus);
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        for seed in seeds {
            let input = fs::read(corpus.join(&seed)).unwrap();
            // Shown if the target panics.
            println!("{}: {seed}", target.name);
            run(target.name, &input);
        }
    }
}

// Goal: every seed cut at each length, with each octet changed, still returns.
#[test]
fn every_target_holds_over_damaged_seeds() {
    const OCTETS_MAX: usize = 512;
    for target in TARGETS {
        let corpus = fuzz().join("corpus").join(target.name);
        for seed in names(&corpus) {
            let input = fs::read(corpus.join(&seed)).unwrap();
            for at in 0..input.len().min(OCTETS_MAX) {
                run(target.name, &input[..at]);
                let mut changed = input.clone();
                changed[at] ^= 1 << (at % 8);
                run(target.name, &changed);
            }
        }
    }
}

// Goal: each target has a corpus and a program for the fuzzer, and nothing else is there.
#[test]
fn targets_corpora_and_fuzz_programs_are_the_same_names() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "two targets of one name");
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let programs = names(&fuzz().join("fuzz_targets"));
    let programs: BTreeSet<String> =
        programs.iter().map(|file| file.trim_end_matches(".rs").to_owned()).collect();
    assert_eq!(programs, targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
}
