//! What has become of a device: what it said, what the provisioner has on record, and what a backend
//! has heard, held against each other.

use std::collections::BTreeSet;

use crate::device::Device;
use crate::error::RigError;
use crate::machine::Board;
use crate::provisioner::History;
use crate::telemetry::Telemetry;

/// Numbers about a device, from its first boot on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Where it said that its keys are, in any of its boots.
    pub key_backends: BTreeSet<String>,
    /// Whether the provisioner has seen proof that they are in a TPM.
    pub attested: bool,
    /// Certificates that it was issued as a first contact.
    pub enrollments: u64,
    /// Certificates that it was issued beyond.
    pub renewals: u64,
    /// How often it had no identity any more, by its own word or because it enrolled anew.
    pub identities_lost: u64,
    /// Messages of which the broker told it that they arrived.
    pub published: u64,
    /// Different messages that the backend has heard.
    pub received: u64,
    /// Messages that it was told to have arrived, and that the backend has not heard.
    pub missing: u64,
    /// The most that its stack has held, octets.
    pub stack_peak_len: u64,
}

impl Account {
    /// Draws it up.
    #[must_use]
    pub fn of(device: &Device, history: &History, telemetry: &Telemetry) -> Self {
        let boots = || device.boots();
        let missing = boots().map(|boot| len(telemetry.missing(device.id(), boot).len()));
        let enrollments = u64::from(history.enrollments);
        Self {
            key_backends: boots().filter_map(|boot| boot.key_backend.clone()).collect(),
            attested: history.attested,
            enrollments,
            renewals: u64::from(history.renewals),
            identities_lost: device.identities_lost() + enrollments.saturating_sub(1),
            published: boots().map(|boot| len(boot.acknowledged.len())).sum(),
            received: telemetry.received(device.id()),
            missing: missing.sum(),
            stack_peak_len: boots().filter_map(|boot| boot.stack_peak_len).max().unwrap_or(0),
        }
    }

    /// The account of several devices as one: sums, and the highest peak.
    #[must_use]
    pub fn of_all(accounts: &[Self]) -> Self {
        let sum = |part: fn(&Self) -> u64| accounts.iter().map(part).sum();
        Self {
            key_backends: accounts.iter().flat_map(|one| one.key_backends.clone()).collect(),
            attested: accounts.iter().all(|one| one.attested),
            enrollments: sum(|one| one.enrollments),
            renewals: sum(|one| one.renewals),
            identities_lost: sum(|one| one.identities_lost),
            published: sum(|one| one.published),
            received: sum(|one| one.received),
            missing: sum(|one| one.missing),
            stack_peak_len: accounts.iter().map(|one| one.stack_peak_len).max().unwrap_or(0),
        }
    }

    /// Where the keys are, if it always said the same.
    #[must_use]
    pub fn key_backend(&self) -> &str {
        match self.key_backends.first() {
            Some(only) if self.key_backends.len() == 1 => only,
            _ => "",
        }
    }

    /// Whether all is as claimed of a device on `board` that has renewed `renewals` times or more.
    ///
    /// # Errors
    ///
    /// [`RigError::Claim`], the first that does not hold.
    pub fn check(&self, board: Board, renewals: u64) -> Result<(), RigError> {
        let (has_tpm, enrollments, lost) =
            (board.has_tpm(), self.enrollments, self.identities_lost);
        let backend = if has_tpm { "tpm" } else { "software" };
        let (published, missing) = (self.published, self.missing);
        let all = [
            (
                self.key_backend() == backend && self.attested == has_tpm,
                "the keys are where the board has a place for them, proven if that is a TPM",
                format!("keys in {:?}, attested: {}", self.key_backends, self.attested),
            ),
            (
                lost == 0 && enrollments == 1,
                "it enrolls once and never loses its identity",
                format!("enrolled {enrollments} times, lost {lost} times"),
            ),
            (
                self.renewals >= renewals,
                "it renews as often as it was told to",
                format!("{} of {renewals} times", self.renewals),
            ),
            (
                published > 0 && missing == 0,
                "it publishes, and every acknowledged message arrives",
                format!("{missing} of {published} did not"),
            ),
        ];
        let failed = all.into_iter().find(|(holds, ..)| !holds);
        failed.map_or(Ok(()), |(_, claim, found)| Err(RigError::Claim { claim, found }))
    }
}

fn len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Account {
        Account {
            key_backends: BTreeSet::from(["tpm".to_owned()]),
            attested: true,
            enrollments: 1,
            renewals: 3,
            identities_lost: 0,
            published: 20,
            received: 21,
            missing: 0,
            stack_peak_len: 9,
        }
    }

    /// Goal: each claim fails by itself, and an account that holds passes.
    #[test]
    fn each_claim_can_fail() {
        let board = Board::Riscv32Virt;
        sound().check(board, 3).unwrap();
        let both = BTreeSet::from(["software".to_owned(), "tpm".to_owned()]);
        for (account, words) in [
            (Account { key_backends: both, ..sound() }, "keys in"),
            (Account { attested: false, ..sound() }, "attested: false"),
            (Account { enrollments: 2, ..sound() }, "enrolled 2 times"),
            (Account { enrollments: 0, ..sound() }, "enrolled 0 times"),
            (Account { identities_lost: 1, ..sound() }, "lost 1 times"),
            (Account { renewals: 2, ..sound() }, "2 of 3"),
            (Account { missing: 1, ..sound() }, "1 of 20"),
            (Account { published: 0, ..sound() }, "0 of 0"),
        ] {
            let error = account.check(board, 3).unwrap_err().to_string();
            assert!(error.contains(words), "{words:?} in {error:?}");
        }
        let error = sound().check(Board::Mps2An386, 3).unwrap_err().to_string();
        assert!(error.contains("tpm"), "{error}");
    }

    /// Goal: several accounts make one.
    #[test]
    fn accounts_add_up() {
        let other = Account { renewals: 1, stack_peak_len: 11, attested: false, ..sound() };
        let both = Account::of_all(&[sound(), other]);
        assert_eq!((both.enrollments, both.renewals, both.published), (2, 4, 40));
        assert_eq!((both.stack_peak_len, both.attested, both.key_backend()), (11, false, "tpm"));
    }
}
