use std::format;
use std::vec::Vec;

use super::*;
use crate::ek::EkTemplate;
use crate::testing::bus;

/// The recorded bus: it answers as the TPM did, if it is asked as the TPM was.
#[derive(Debug, Default)]
struct Recording {
    next: usize,
    draws: u8,
    changed: Option<Change>,
}

/// One bit of one answer is another one.
#[derive(Clone, Copy, Debug)]
struct Change {
    answer: usize,
    octet: usize,
}

impl Transact for Recording {
    type Error = &'static str;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, &'static str> {
        let (number, changed) = (self.next, self.changed);
        if changed.is_some_and(|changed| number > changed.answer) {
            // What follows a failure was not recorded: flushes, which succeed.
            return answer(&[0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0], response);
        }
        assert_eq!(command, bus(&format!("command {number}")), "command {number}");
        self.next += 1;
        let mut recorded = bus(&format!("answer {number}"));
        if let Some(Change { octet, .. }) = changed.filter(|changed| changed.answer == number) {
            recorded[octet] ^= 0x10;
        }
        answer(&recorded, response)
    }

    fn pause_ms(&mut self, _: u32) {}

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), &'static str> {
        self.draws += 1;
        out.fill(self.draws);
        Ok(())
    }
}

fn answer(octets: &[u8], response: &mut [u8]) -> Result<usize, &'static str> {
    response[..octets.len()].copy_from_slice(octets);
    Ok(octets.len())
}

fn open(changed: Option<Change>) -> Vault<Recording, 0> {
    let recording = Recording { changed, ..Recording::default() };
    Vault::open(recording, Options { parent: None, sharing: Sharing::Exclusive }).unwrap()
}

fn activate(
    vault: &mut Vault<Recording, 0>,
) -> Result<Secret, VaultError<<Recording as Transact>::Error>> {
    let key = KeyBlob::parse(&bus("key")).unwrap();
    let name = Name::recorded(&bus("endorsement name")).unwrap();
    let ek = EkKey { template: EkTemplate::P256, name };
    vault.activate(&ek, &key, &bus("credential"), &bus("encrypted secret"))
}

/// Goal: what was recorded is what we send, octet by octet, sealed parameters and HMACs of three
/// kinds of sessions included; and what the TPM answered is understood.
#[test]
fn a_recorded_enrollment_is_replayed() {
    let mut vault = open(None);
    let key = vault.make(Template::AttestationKey).unwrap();
    assert_eq!(key.as_bytes(), bus("key"));
    assert_eq!(vault.random().unwrap().as_bytes(), bus("random"));
    let mut out = [0; 1024];
    let found = vault.endorsement(&mut out).unwrap();
    assert_eq!(found.key.name.as_bytes(), bus("endorsement name"));
    assert!(found.certificates.is_empty());
    let secret = activate(&mut vault).unwrap();
    assert_eq!(secret.as_bytes(), b"known to the credential's maker.");
    assert_eq!(vault.tpm().transport().next, 32, "all of it");
}

/// Goal: whatever octet of an answer in a session is changed, nothing of it is used.
#[test]
fn every_changed_octet_of_a_session_is_noticed() {
    const CREATE: usize = 6;
    for octet in 0..bus("answer 6").len() {
        let mut vault = open(Some(Change { answer: CREATE, octet }));
        let refused = vault.make(Template::AttestationKey).unwrap_err();
        let told = match refused {
            VaultError::Tpm(TpmError::Tampered { command } | TpmError::Malformed { command }) => {
                Some(command)
            }
            // In the header: it seems to be a refusal.
            VaultError::Tpm(TpmError::Refused { command, .. }) if octet < 10 => Some(command),
            _ => None,
        };
        assert_eq!(told, Some(Code::Create), "octet {octet}: {refused:?}");
    }
}

/// A TPM that is reset while it flushes the recorded endorsement key, and makes none thereafter.
#[derive(Debug, Default)]
struct Reset {
    has_made: bool,
    has_flushed: bool,
}

impl Transact for Reset {
    type Error = &'static str;

    fn transact(&mut self, command: &[u8], response: &mut [u8]) -> Result<usize, &'static str> {
        const CREATE_PRIMARY: [u8; 4] = [0, 0, 1, 0x31];
        const FLUSH_CONTEXT: [u8; 4] = [0, 0, 1, 0x65];
        let refusal = |code: u16| {
            let [high, low] = code.to_be_bytes();
            [0x80, 0x01, 0, 0, 0, 10, 0, 0, high, low]
        };
        let (code, is_again) = (command[6..].first_chunk::<4>(), self.has_made);
        let recorded = (0..32).find(|number| bus(&format!("command {number}")) == command);
        self.has_made |= code == Some(&CREATE_PRIMARY);
        match code {
            // TPM_RC_HIERARCHY, for handle 1.
            Some(&CREATE_PRIMARY) if is_again => answer(&refusal(0x185), response),
            // TPM_RC_INITIALIZE.
            Some(&FLUSH_CONTEXT) if !core::mem::replace(&mut self.has_flushed, true) => {
                answer(&refusal(0x100), response)
            }
            _ => {
                let recorded = recorded.map(|number| bus(&format!("answer {number}")));
                answer(&recorded.unwrap_or_else(|| refusal(0).to_vec()), response)
            }
        }
    }

    fn pause_ms(&mut self, _: u32) {}

    fn entropy(&mut self, out: &mut [u8]) -> Result<(), &'static str> {
        out.fill(1);
        Ok(())
    }
}

/// Goal: a TPM has an endorsement key if the last attempt to make it has made it: one that is reset
/// in between, and makes it no more, is another one, or without it.
#[test]
fn what_an_attempt_before_a_reset_has_found_is_forgotten() {
    let name = Name::recorded(&bus("endorsement name")).unwrap();
    let ek = EkKey { template: EkTemplate::P256, name };
    let options = Options { parent: None, sharing: Sharing::Exclusive };
    let mut vault = Vault::<_, 0>::open(Reset::default(), options).unwrap();
    assert_eq!(vault.recognises(&ek), Ok(false));
    assert!(vault.tpm().transport().has_flushed);
}

/// Goal: states are told from answers, whatever handle or session an answer is about.
#[test]
fn troubles_are_told_from_answers() {
    let refused = |code| {
        let (command, code) = (Code::Load, ResponseCode(code));
        VaultError::<&str>::Tpm(TpmError::Refused { command, code }).trouble()
    };
    assert_eq!(refused(0x902), Trouble::NoSlots);
    assert_eq!(refused(0x903), Trouble::NoSlots);
    let other = Trouble::Refused { command: Code::Load, code: ResponseCode(0x184) };
    assert_eq!(refused(0x184), other);
    let of = |error: TpmError<&'static str>| VaultError::from(error).trouble();
    assert_eq!(of(TpmError::Transport("gone")), Trouble::Unreachable);
    assert_eq!(of(TpmError::Malformed { command: Code::Load }), Trouble::Unreachable);
    let command = Code::GetRandom;
    assert_eq!(of(TpmError::Tampered { command }), Trouble::Tampered { command });
    let mut vault = open(None);
    for (hierarchy, trouble) in [
        (Hierarchy::Endorsement, Trouble::EndorsementAuthNeeded),
        (Hierarchy::Owner, Trouble::OwnerAuthNeeded),
    ] {
        let (command, code) = (Code::CreatePrimary, ResponseCode(0x9A2));
        let fault = Fault::of_hierarchy(TpmError::Refused { command, code }, hierarchy);
        assert_eq!(vault.explain(fault).trouble(), trouble);
    }
}

/// Goal: no secret is shown.
#[test]
fn nothing_secret_is_shown() {
    let mut vault = open(None);
    vault.make(Template::AttestationKey).unwrap();
    let secret = vault.random().unwrap();
    let shown = format!("{secret:?} {vault:?}");
    let octets: Vec<_> = secret.as_bytes()[..4].iter().map(|o| format!("{o}")).collect();
    assert!(!shown.contains(&octets.join(", ")), "{shown}");
    assert!(shown.starts_with("Secret(32 octets)"), "{shown}");
}
