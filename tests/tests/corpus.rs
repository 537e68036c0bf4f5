//! The fuzz targets over their committed corpora: what a fuzzer once found stays found.
//!
//! A corpus is the folder `tests/fuzz/corpus/<target>`. Its files are the seeds a fuzzer starts
//! from, and every input that once broke something.
#![expect(clippy::unwrap_used, reason = "a corpus that cannot be read ends the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fleetcert_rig::swtpm::Swtpm;
use fleetcert_rig::tpm_maker::TpmMaker;
use fleetcert_tests::fuzz::{TARGETS, repeated, run, tpm_replay, tpm_session};
use fleetcert_tests::lab::tpm::powered;
use fleetcert_tests::tpm_socket::TpmSocket;
use fleetcert_tpm::transact::Transact;

/// When set, the seed of `tpm_responses` is recorded anew.
const UPDATE: &str = "FLEETCERT_UPDATE_SNAPSHOTS";

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

/// A TPM's answers, kept, to random numbers that repeat.
struct Recorder<'a> {
    tpm: TpmSocket,
    answers: &'a mut Vec<u8>,
}

impl Transact for Recorder<'_> {
    type Error = std::io::Error;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> std::io::Result<usize> {
        let len = self.tpm.transact(command, response)?;
        self.answers.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        self.answers.extend_from_slice(&response[..len]);
        Ok(len)
    }

    fn pause_ms(&mut self, ms: u32) {
        self.tpm.pause_ms(ms);
    }

    fn entropy(&mut self, out: &mut [u8]) -> std::io::Result<()> {
        repeated(out);
        Ok(())
    }
}

/// What a device's TPM answered when it was recorded: a session that goes well to its end.
#[test]
fn the_seed_of_tpm_responses_is_a_whole_session() {
    let path = fuzz().join("corpus/tpm_responses/session");
    if std::env::var_os(UPDATE).is_some() {
        let place = tempfile::tempdir().unwrap();
        let maker = TpmMaker::found(&place.path().join("maker"), "acme").unwrap();
        let tpm = powered(Swtpm::manufacture(&place.path().join("tpm"), &maker).unwrap());
        let mut answers = Vec::new();
        let socket = TpmSocket::new(&tpm.data_socket());
        tpm_session(Recorder { tpm: socket, answers: &mut answers });
        fs::write(&path, answers).unwrap();
    }
    let (mut answers, mut count) = (&*fs::read(&path).unwrap(), 0);
    while let Some((len, rest)) = answers.split_first_chunk() {
        answers = &rest[usize::from(u16::from_be_bytes(*len))..];
        count += 1;
    }
    assert!(count > 40, "only {count} answers");
    assert_eq!(tpm_replay(&fs::read(&path).unwrap()), 0, "octets that no command asked for");
}
