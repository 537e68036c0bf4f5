//! A TPM for tests: keys, seeds and endorsement keys without any cryptography.

use std::sync::{Arc, Mutex, MutexGuard};

use fleetcert_tpm::name::Name;
use fleetcert_tpm::template::{TEMPLATE_LEN_MAX, Template};
use fleetcert_tpm::vault::KeyBlob;

use super::chip::{Chip, Credentials, Facts, Open, Statement, Witness};
use super::{EkId, TpmTrouble};

/// Octets of the empty unique field at the end of a template.
const EMPTY_UNIQUE_LEN: usize = 4;

/// A TPM that survives its being opened and closed; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct FakeTpm(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct State {
    /// The owner hierarchy's seed.
    pub(crate) seed: u8,
    /// The endorsement key.
    pub(crate) ek: EkId,
    /// What is in the way of everything.
    pub(crate) trouble: Option<TpmTrouble>,
    /// Failed authorizations.
    pub(crate) failures: u32,
    /// Keys made so far.
    pub(crate) made: u8,
    opened: usize,
    closed: usize,
}

impl FakeTpm {
    pub(crate) fn new(seed: u8, ek: u8) -> Self {
        let ek = EkId([ek; 32]);
        let state = State { seed, ek, trouble: None, failures: 0, made: 0, opened: 0, closed: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// How often it was opened, and shut down.
    pub(crate) fn lives(&self) -> (usize, usize) {
        let state = self.state();
        (state.opened, state.closed)
    }

    fn check(&self, parent: Option<Name>) -> Result<(), TpmTrouble> {
        let state = self.state();
        if let Some(trouble) = &state.trouble {
            return Err(trouble.clone());
        }
        let found = name(state.seed);
        match parent {
            Some(expected) if expected != found => {
                Err(TpmTrouble::Changed { found: found.head(), expected: expected.head() })
            }
            _ => Ok(()),
        }
    }
}

/// The Name of the storage primary that comes from a seed.
pub(crate) fn name(seed: u8) -> Name {
    Name::recorded(&[&[0, 0x0b][..], &[seed; 32]].concat()).unwrap()
}

/// A key with this number, wrapped under the storage primary of this seed.
pub(crate) fn blob(template: Template, seed: u8, number: u8) -> KeyBlob {
    let mut head = [0; TEMPLATE_LEN_MAX];
    let len = template.write(&mut head).unwrap() - EMPTY_UNIQUE_LEN;
    let sized = |octets: &[u8]| {
        let len = u16::try_from(octets.len()).unwrap().to_be_bytes();
        [&len[..], octets].concat()
    };
    let area = [&head[..len], &sized(&[number; 32]), &sized(&[7; 32])].concat();
    KeyBlob::parse(&[&[1][..], &sized(&area), &sized(&[seed; 100])].concat()).unwrap()
}

struct FakeChip {
    tpm: FakeTpm,
    parent: Name,
}

impl Open for FakeTpm {
    fn open(&self, parent: Option<Name>) -> Result<Box<dyn Chip>, TpmTrouble> {
        self.check(parent)?;
        self.state().opened += 1;
        let parent = name(self.state().seed);
        Ok(Box::new(FakeChip { tpm: self.clone(), parent }))
    }
}

impl FakeChip {
    fn check(&self) -> Result<(), TpmTrouble> {
        self.tpm.check(Some(self.parent))
    }
}

impl Chip for FakeChip {
    fn facts(&mut self) -> Result<Facts, TpmTrouble> {
        self.check()?;
        Ok(Facts {
            manufacturer: "FAKE".to_owned(),
            firmware: "1.2.3.4".to_owned(),
            is_locked: false,
            failures: self.tpm.state().failures,
            failures_max: 3,
            recovery_s: 1000,
        })
    }

    fn parent(&mut self) -> Result<Name, TpmTrouble> {
        self.check()?;
        Ok(self.parent)
    }

    fn endorsement(&mut self) -> Result<Credentials, TpmTrouble> {
        self.check()?;
        let id = self.tpm.state().ek;
        Ok(Credentials { id, public: vec![0xee], certificates: Vec::new() })
    }

    fn make(&mut self, template: Template) -> Result<KeyBlob, TpmTrouble> {
        self.check()?;
        let mut state = self.tpm.state();
        state.made += 1;
        Ok(blob(template, state.seed, state.made))
    }

    fn probe(&mut self, key: &KeyBlob) -> Result<(), TpmTrouble> {
        self.check()?;
        let wrapped_under = key.as_bytes().last();
        let is_ours = wrapped_under == Some(&self.tpm.state().seed);
        if is_ours { Ok(()) } else { Err(TpmTrouble::ForeignKey) }
    }

    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32]) -> Result<[u8; 64], TpmTrouble> {
        self.probe(key)?;
        let mut signature = [1; 64];
        signature[..32].copy_from_slice(digest);
        Ok(signature)
    }

    fn vouch(&mut self, key: &KeyBlob, by: &Witness) -> Result<Statement, TpmTrouble> {
        self.probe(key)?;
        self.probe(&by.ak)?;
        Ok(Statement { attest: by.challenge.nonce.to_vec(), signature: by.spki.clone() })
    }

    fn close(self: Box<Self>) {
        self.tpm.state().closed += 1;
    }
}
