//! What a device's own processor does for its TPM: command sequences over a TPM's answers, played
//! from memory.
//!
//! **What it is.** Each [`Task`] is done once on a software TPM, with random numbers that repeat,
//! and its answers are kept. Played back they are the same to the octet, so that the task can be
//! done again as often as wanted, without a TPM and without a system call, in `played` and nowhere
//! else: what `valgrind --tool=callgrind --toggle-collect` counts there is the work of the crate
//! `fleetcert-tpm` alone, the same on every machine of an architecture.
//!
//! **What it must never do.** Play answers to other commands than were recorded: a session's
//! authorization would not fit, and the task would fail.

use std::io;

use fleetcert_provisioner::attest::credential::{self, Credential};
use fleetcert_provisioner::attest::evidence;
use fleetcert_provisioner::entropy::SystemEntropy;
use fleetcert_rig::swtpm::Swtpm;
use fleetcert_tpm::template::Template;
use fleetcert_tpm::tpm::Sharing;
use fleetcert_tpm::transact::Transact;
use fleetcert_tpm::vault::{CERTIFIED_LEN_MAX, EkKey, KeyBlob, Options, Vault, VaultError};

use crate::fuzz::repeated;
use crate::tpm_socket::TpmSocket;

use super::client::LoadError;

/// Octets of an endorsement key and its certificates, more than a software TPM's take.
const ENDORSEMENT_LEN_MAX: usize = 4096;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// A credential is opened.
    Activate,
    /// One key's statement about another.
    Certify,
    /// Everything for a first certificate, from the TPM's start: its endorsement key, two new keys,
    /// a credential, a statement, the signature under a request.
    Enroll,
    /// A key is made.
    Make,
    /// The TPM is opened and its storage primary made.
    Open,
    /// A digest is signed, the key's context being saved.
    Sign,
}

/// What a task took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Commands each time.
    pub commands: usize,
    /// Octets of their answers.
    pub octets_in: usize,
}

/// A TPM, or what it has said.
struct Tape {
    tpm: TpmSocket,
    answers: Vec<Vec<u8>>,
    is_playing: bool,
    at: usize,
}

/// The keys of a device.
struct Keys {
    ek: EkKey,
    ak: KeyBlob,
    key: KeyBlob,
}

type Failure = VaultError<io::Error>;
type Taped<'t> = Vault<&'t mut Tape>;

/// Records `task` on `tpm`, which has power and has not been started, and plays it `count` times.
///
/// # Errors
///
/// What the TPM answers.
pub fn play(task: Task, tpm: &Swtpm, count: u32) -> Result<Played, LoadError> {
    let socket = TpmSocket::new(&tpm.data_socket());
    let mut tape = Tape { tpm: socket, answers: Vec::new(), is_playing: false, at: 0 };
    let (keys, credential) = prepare(&mut tape)?;
    match task {
        Task::Enroll | Task::Open => {
            let work = |tape: &mut Tape| match task {
                Task::Open => open(tape).map(drop),
                _ => enroll(tape, &credential, &keys.ak),
            };
            tape.record();
            work(&mut tape)?;
            tape.rewind();
            played(count, &mut || work(&mut tape))?;
        }
        Task::Activate | Task::Certify | Task::Make | Task::Sign => {
            let mut vault = open(&mut tape)?;
            // Once for the contexts that are saved from then on.
            work(&mut vault, task, &keys, &credential)?;
            vault.tpm().transport().record();
            work(&mut vault, task, &keys, &credential)?;
            vault.tpm().transport().rewind();
            played(count, &mut || work(&mut vault, task, &keys, &credential))?;
        }
    }
    Ok(tape.sum())
}

/// Does `work`, which is all that is to be counted.
#[inline(never)]
fn played(count: u32, work: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    (0..count).try_for_each(|_| work())
}

fn open(tape: &mut Tape) -> Result<Taped<'_>, Failure> {
    let mut vault = Vault::open(tape, Options { parent: None, sharing: Sharing::Exclusive })?;
    vault.parent()?;
    Ok(vault)
}

/// Keys of the TPM, and a credential for them as a provisioner makes it.
fn prepare(tape: &mut Tape) -> Result<(Keys, Credential), LoadError> {
    let words = |error: Failure| error.to_string();
    let mut vault = open(tape).map_err(words)?;
    let mut room = [0; ENDORSEMENT_LEN_MAX];
    let found = vault.endorsement(&mut room).map_err(words)?;
    let (ek, area) = (found.key, evidence::endorsement_key(found.public_area));
    let area = area.map_err(|error| format!("{error:?}"))?;
    let ak = vault.make(Template::AttestationKey).map_err(words)?;
    let key = vault.make(Template::DeviceKey).map_err(words)?;
    let credential = credential::make(&area, &ak.name(), &[7; 32], &mut SystemEntropy::new());
    Ok((Keys { ek, ak, key }, credential.map_err(|error| format!("{error:?}"))?))
}

fn work(
    vault: &mut Taped<'_>,
    task: Task,
    keys: &Keys,
    credential: &Credential,
) -> Result<(), Failure> {
    let Keys { ek, ak, key } = keys;
    match task {
        Task::Activate => {
            vault.activate(ek, ak, &credential.blob, &credential.encrypted_secret).map(drop)
        }
        Task::Certify => vault.certify(key, ak, &[7; 32], &mut [0; CERTIFIED_LEN_MAX]).map(drop),
        Task::Sign => vault.sign(key, &[7; 32]).map(drop),
        Task::Make | Task::Enroll | Task::Open => vault.make(Template::DeviceKey).map(drop),
    }
}

/// The steps of a device, in their order. The credential is for `ak`, which takes the place of the
/// attestation key that is made here: that one's Name is another each time it is recorded.
fn enroll(tape: &mut Tape, credential: &Credential, ak: &KeyBlob) -> Result<(), Failure> {
    let mut vault = open(tape)?;
    let mut room = [0; ENDORSEMENT_LEN_MAX];
    let ek = vault.endorsement(&mut room)?.key;
    let _another = vault.make(Template::AttestationKey)?;
    let key = vault.make(Template::DeviceKey)?;
    vault.activate(&ek, ak, &credential.blob, &credential.encrypted_secret)?;
    vault.certify(&key, ak, &[7; 32], &mut [0; CERTIFIED_LEN_MAX])?;
    vault.sign(&key, &[7; 32]).map(drop)
}

impl Tape {
    fn record(&mut self) {
        self.answers.clear();
    }

    fn rewind(&mut self) {
        (self.is_playing, self.at) = (true, 0);
    }

    fn sum(&self) -> Played {
        let octets_in = self.answers.iter().map(Vec::len).sum();
        Played { commands: self.answers.len(), octets_in }
    }
}

impl Transact for Tape {
    type Error = io::Error;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> io::Result<usize> {
        if self.is_playing {
            let answer = &self.answers[self.at];
            response[..answer.len()].copy_from_slice(answer);
            self.at = (self.at + 1) % self.answers.len();
            return Ok(answer.len());
        }
        let len = self.tpm.transact(command, response)?;
        self.answers.push(response[..len].to_vec());
        Ok(len)
    }

    fn pause_ms(&mut self, _: u32) {}

    fn entropy(&mut self, out: &mut [u8]) -> io::Result<()> {
        repeated(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_rig::tpm_maker::TpmMaker;

    use super::*;
    use crate::lab::tpm::powered;

    /// Goal: every task can be played over and over, and takes the commands it is known to take.
    #[test]
    fn every_task_is_played_over_and_over() {
        let place = tempfile::tempdir().unwrap();
        let maker = TpmMaker::found(&place.path().join("maker"), "acme").unwrap();
        let mut commands = Vec::new();
        for task in
            [Task::Activate, Task::Certify, Task::Enroll, Task::Make, Task::Open, Task::Sign]
        {
            let folder = place.path().join(format!("{task:?}"));
            let tpm = powered(Swtpm::manufacture(&folder, &maker).unwrap());
            let taken = play(task, &tpm, 3).unwrap();
            println!("{task:?}: {taken:?}");
            commands.push(taken.commands);
        }
        assert_eq!(commands[5], 3, "load, sign, flush");
        assert!(commands[1] < commands[0] && commands[0] < commands[2], "{commands:?}");
    }
}
