//! What went wrong and what happened, as facts.
//!
//! A [`Failure`] is the answer of an action that did not succeed; an [`Event`] is something a
//! person or a fleet service may want to know. Both are typed and small: texts for people are
//! made where people read them. Neither ever carries a secret.

use core::fmt;

use crate::record::{Kind, Serial, Slot};
use crate::time::Wall;

/// Characters of a provisioner's reason code, at most.
pub const REASON_LEN_MAX: usize = 32;

/// A provisioner's reason code, `[a-z0-9-]{1,32}`; for people, never for decisions.
pub type Reason = heapless::String<REASON_LEN_MAX>;

/// Why an action did not succeed: what we know, and whose side it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer answered something that is not the protocol.
    AnswerMalformed,
    /// The provisioner asked us to come back later (503, 429).
    Busy {
        /// Its Retry-After, seconds, where it gave one.
        retry_after_s: Option<u32>,
    },
    /// The certificate we were issued is not the one we asked for.
    CertificateUnfit(Unfit),
    /// The key of a slot is gone for good: the store says so, it is not merely out of reach.
    KeyLost,
    /// The key store did not answer, or refused; the key may still be there.
    KeyUnavailable,
    /// A peer did not want our certificate. Hearsay: a broker with an expired CRL says this of
    /// every device, so nothing about our identity is decided by it.
    OurIdentityRefused,
    /// An operator has yet to approve the request (202).
    Pending {
        /// When to ask again, seconds.
        retry_after_s: u32,
    },
    /// The authenticated provisioner refused the request.
    Refused {
        /// HTTP status, 400 to 599.
        status: u16,
        /// Its reason code; empty where it gave none.
        reason: Reason,
    },
    /// The authenticated provisioner says that this identity was revoked.
    Revoked,
    /// The peer's certificate does not lead to the pinned server root, for its name, at our time.
    ServerUntrusted,
    /// The record could not be made durable: full, read-only or broken storage.
    StorageUnavailable,
    /// No connection, or it ended before an answer: nothing is known of the other side.
    Unreachable,
    /// The provisioner saw another certificate than the one we meant to prove.
    WrongCertificateSeen,
}

/// What is wrong with a certificate we were issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is over already, by our clock.
    Expired {
        /// Our time.
        time: Wall,
        /// Its last second.
        not_after: Wall,
    },
    /// It does not parse, or is not a client certificate for this device.
    Form,
    /// It certifies another public key than the slot's.
    Key,
}

impl Failure {
    /// Whether asking again, unchanged, can be expected to help without anybody's doing.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::KeyUnavailable
            | Self::Pending { .. }
            | Self::StorageUnavailable
            | Self::Unreachable => true,
            Self::AnswerMalformed
            | Self::CertificateUnfit(_)
            | Self::KeyLost
            | Self::OurIdentityRefused
            | Self::Refused { .. }
            | Self::Revoked
            | Self::ServerUntrusted
            | Self::WrongCertificateSeen => false,
        }
    }

    /// The wait the peer asked for, seconds, unclamped.
    #[must_use]
    pub const fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::Busy { retry_after_s } => *retry_after_s,
            Self::Pending { retry_after_s } => Some(*retry_after_s),
            _ => None,
        }
    }

    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AnswerMalformed => "answer-malformed",
            Self::Busy { .. } => "busy",
            Self::CertificateUnfit(_) => "certificate-unfit",
            Self::KeyLost => "key-lost",
            Self::KeyUnavailable => "key-unavailable",
            Self::OurIdentityRefused => "our-identity-refused",
            Self::Pending { .. } => "pending",
            Self::Refused { .. } => "refused",
            Self::Revoked => "revoked",
            Self::ServerUntrusted => "server-untrusted",
            Self::StorageUnavailable => "storage-unavailable",
            Self::Unreachable => "unreachable",
            Self::WrongCertificateSeen => "wrong-certificate-seen",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnswerMalformed => f.write_str("the peer's answer is not the protocol"),
            Self::Busy { .. } => f.write_str("the provisioner asks to come back later"),
            Self::CertificateUnfit(Unfit::Expired { time, not_after }) => {
                write!(f, "issued certificate ended at {not_after}, it is {time}")
            }
            Self::CertificateUnfit(Unfit::Form) => {
                f.write_str("issued certificate is not a client certificate for this device")
            }
            Self::CertificateUnfit(Unfit::Key) => {
                f.write_str("issued certificate is for another key")
            }
            Self::KeyLost => f.write_str("the key is no longer in the key store"),
            Self::KeyUnavailable => f.write_str("the key store does not answer"),
            Self::OurIdentityRefused => f.write_str("the peer did not accept our certificate"),
            Self::Pending { .. } => f.write_str("waiting for an operator's approval"),
            Self::Refused { status, reason } if reason.is_empty() => {
                write!(f, "the provisioner refused with status {status}")
            }
            Self::Refused { status, reason } => {
                write!(f, "the provisioner refused with status {status}, reason {reason}")
            }
            Self::Revoked => f.write_str("the provisioner says this identity was revoked"),
            Self::ServerUntrusted => {
                f.write_str("the peer's certificate does not verify under the pinned server root")
            }
            Self::StorageUnavailable => f.write_str("the record could not be made durable"),
            Self::Unreachable => f.write_str("no connection, or it ended before an answer"),
            Self::WrongCertificateSeen => {
                f.write_str("the provisioner saw another certificate than the new one")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// What an action was for; says in a report which operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Taking an identity into use.
    Adopt,
    /// Asking the provisioner for the time and the renewal window.
    Consult,
    /// Asking for a certificate.
    Enroll,
    /// Making a key.
    EnsureKey,
    /// Erasing a key.
    EraseKey,
    /// Making the record durable.
    Persist,
    /// Proving a new identity to provisioner and broker.
    Prove,
    /// Ending the use of an identity.
    Release,
}

impl Operation {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Consult => "consult",
            Self::Enroll => "enroll",
            Self::EnsureKey => "ensure-key",
            Self::EraseKey => "erase-key",
            Self::Persist => "persist",
            Self::Prove => "prove",
            Self::Release => "release",
        }
    }
}

/// Something that happened to the identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An identity is in use.
    Adopted {
        /// Its slot.
        slot: Slot,
        /// Its serial number.
        serial: Serial,
    },
    /// A new identity was given up because its peers would not have it, or it ran out.
    CandidateDiscarded {
        /// Its slot.
        slot: Slot,
    },
    /// The wall clock came to be believed, or ceased to be.
    ClockJudged {
        /// Whether decisions about validity can be made now.
        known: bool,
    },
    /// The provisioner's time lies below what we know to be past; it was not taken.
    ClockRefused {
        /// What it said.
        offered: Wall,
    },
    /// The device ended its life in the fleet; its keys are erased.
    Decommissioned,
    /// A certificate was issued and is durable; it is not in use yet.
    Enrolled {
        /// Its slot.
        slot: Slot,
        /// Its serial number.
        serial: Serial,
        /// Its last second.
        not_after: Wall,
    },
    /// The identity in use ran out, by a clock that we believe.
    Expired {
        /// Our time.
        time: Wall,
        /// Its last second.
        not_after: Wall,
    },
    /// An action failed and will be tried again.
    Failed {
        /// Which.
        operation: Operation,
        /// Why.
        failure: Failure,
        /// When it will be tried again, seconds from now, rounded up.
        retry_in_s: u32,
    },
    /// A new identity was proven and became the device's identity, durably.
    Proven {
        /// Its slot.
        slot: Slot,
        /// Its serial number.
        serial: Serial,
    },
    /// The provisioner revoked us: nothing is used or renewed until an operator approves.
    Quarantined,
    /// A certificate is going to be asked for.
    Requested {
        /// The slot it is for.
        slot: Slot,
        /// How we will authenticate.
        kind: Kind,
    },
}

impl Event {
    /// A stable name for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Adopted { .. } => "adopted",
            Self::CandidateDiscarded { .. } => "candidate-discarded",
            Self::ClockJudged { .. } => "clock-judged",
            Self::ClockRefused { .. } => "clock-refused",
            Self::Decommissioned => "decommissioned",
            Self::Enrolled { .. } => "enrolled",
            Self::Expired { .. } => "expired",
            Self::Failed { .. } => "failed",
            Self::Proven { .. } => "proven",
            Self::Quarantined => "quarantined",
            Self::Requested { .. } => "requested",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::string::ToString;
    use std::vec::Vec;

    use super::*;

    fn all() -> Vec<(Failure, bool)> {
        let reason = |text: &str| Reason::try_from(text).unwrap();
        std::vec![
            (Failure::AnswerMalformed, false),
            (Failure::Busy { retry_after_s: Some(7) }, true),
            (Failure::CertificateUnfit(Unfit::Key), false),
            (Failure::KeyLost, false),
            (Failure::KeyUnavailable, true),
            (Failure::OurIdentityRefused, false),
            (Failure::Pending { retry_after_s: 9 }, true),
            (Failure::Refused { status: 403, reason: reason("token-used") }, false),
            (Failure::Revoked, false),
            (Failure::ServerUntrusted, false),
            (Failure::StorageUnavailable, true),
            (Failure::Unreachable, true),
            (Failure::WrongCertificateSeen, false),
        ]
    }

    #[test]
    fn each_failure_says_whether_time_alone_may_mend_it() {
        for (failure, retryable) in all() {
            assert_eq!(failure.is_retryable(), retryable, "{failure:?}");
        }
    }

    #[test]
    fn codes_and_texts_are_distinct_and_texts_are_one_lower_case_phrase() {
        let codes: BTreeSet<&str> = all().iter().map(|(failure, _)| failure.code()).collect();
        assert_eq!(codes.len(), all().len());
        assert!(codes.iter().all(|code| code.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
        let texts: BTreeSet<_> = all().iter().map(|(failure, _)| failure.to_string()).collect();
        assert_eq!(texts.len(), all().len());
        assert!(texts.iter().all(|text| text.starts_with(char::is_lowercase)));
        assert!(texts.iter().all(|text| text.len() > 20 && !text.contains("failed to")));
    }

    #[test]
    fn texts_carry_both_sides() {
        let unfit = Unfit::Expired { time: Wall(9), not_after: Wall(5) };
        let text = Failure::CertificateUnfit(unfit).to_string();
        assert!(text.contains("00:00:05Z") && text.contains("00:00:09Z"), "{text}");
        let form = Failure::CertificateUnfit(Unfit::Form).to_string();
        assert!(form.contains("not a client certificate"));
        assert!(Failure::CertificateUnfit(Unfit::Key).to_string().contains("another key"));
        let (failure, _) = all().remove(7);
        assert_eq!(
            failure.to_string(),
            "the provisioner refused with status 403, reason token-used"
        );
        let silent = Failure::Refused { status: 500, reason: Reason::new() };
        assert_eq!(silent.to_string(), "the provisioner refused with status 500");
    }

    #[test]
    fn only_a_peer_that_asked_for_patience_has_a_retry_after() {
        for (failure, _) in all() {
            let expected = match failure {
                Failure::Busy { .. } => Some(7),
                Failure::Pending { .. } => Some(9),
                _ => None,
            };
            assert_eq!(failure.retry_after_s(), expected, "{failure:?}");
        }
    }

    #[test]
    fn operations_have_distinct_codes() {
        use Operation as O;
        let all = [
            O::Adopt,
            O::Consult,
            O::Enroll,
            O::EnsureKey,
            O::EraseKey,
            O::Persist,
            O::Prove,
            O::Release,
        ];
        let codes: BTreeSet<&str> = all.iter().map(|operation| operation.code()).collect();
        assert_eq!(codes.len(), all.len());
        assert!(codes.iter().all(|code| code.len() > 4));
    }

    #[test]
    fn events_have_distinct_codes() {
        let (slot, serial, not_after) = (Slot::A, Serial::new(), Wall(1));
        let all = [
            Event::Adopted { slot, serial: serial.clone() },
            Event::CandidateDiscarded { slot },
            Event::ClockJudged { known: true },
            Event::ClockRefused { offered: Wall(1) },
            Event::Decommissioned,
            Event::Enrolled { slot, serial: serial.clone(), not_after },
            Event::Expired { time: Wall(2), not_after },
            Event::Failed { operation: Operation::Adopt, failure: Failure::KeyLost, retry_in_s: 1 },
            Event::Proven { slot, serial },
            Event::Quarantined,
            Event::Requested { slot, kind: Kind::First },
        ];
        let codes: BTreeSet<&str> = all.iter().map(Event::code).collect();
        assert_eq!(codes.len(), all.len());
        assert!(codes.iter().all(|code| code.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    }
}
