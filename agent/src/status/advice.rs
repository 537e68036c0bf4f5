//! What to do about a failure: a total function, so that no failure leaves a person alone.

use fleetcert_core::event::{Failure, Operation, Unfit};

use crate::tpm::TpmTrouble;

/// What a person can do about `failure` of `operation`. One sentence, without a full stop.
#[must_use]
pub const fn advice(operation: Operation, failure: &Failure) -> &'static str {
    match failure {
        Failure::AnswerMalformed => answer_malformed(operation),
        Failure::Busy { .. } => "nothing: the agent comes back when the provisioner asked it to",
        Failure::CertificateUnfit(Unfit::Expired { .. }) => {
            "compare the clocks of this device and of the provisioner"
        }
        Failure::CertificateUnfit(Unfit::Form) => {
            "check the device profile on the provisioner, and that device_id is the name that is \
             registered there"
        }
        Failure::CertificateUnfit(Unfit::Key) => {
            "nothing, if it happens once; otherwise look for another device with this device_id"
        }
        Failure::KeyLost => {
            "nothing, where a first contact needs no token; otherwise issue a new token for this \
             device and put it into token_file"
        }
        Failure::KeyUnavailable => {
            "check owner (the agent's user) and mode (0600) of the key files in the state directory"
        }
        Failure::OurIdentityRefused => our_identity_refused(operation),
        Failure::Pending { .. } => {
            "let an operator approve it: `fleetcert-provisioner device approve <device-id>`"
        }
        Failure::Refused { .. } => refused(operation),
        Failure::Revoked => {
            "ask the operator why; after an approval the agent enrolls again by itself"
        }
        Failure::ServerUntrusted => {
            "check that server_root is the root of the server tree, that the certificate carries \
             the host name of the url, and the clock"
        }
        Failure::StorageUnavailable => {
            "free space in, or repair, the file system of the state directory"
        }
        Failure::Unreachable => unreachable(operation),
        Failure::WrongCertificateSeen => {
            "look for a proxy between this device and the provisioner: TLS must end there"
        }
    }
}

/// What a person can do about `failure` of `operation` where the keys are in a TPM, perhaps in
/// trouble. As [`advice`].
#[must_use]
pub const fn advice_in(
    operation: Operation,
    failure: &Failure,
    trouble: Option<&TpmTrouble>,
) -> &'static str {
    match (failure, trouble) {
        (Failure::KeyUnavailable, Some(trouble)) => trouble.advice(),
        _ => advice(operation, failure),
    }
}

/// What a person can do about `failure` of the session with the broker. As [`advice`].
#[must_use]
pub const fn broker_advice(failure: &Failure) -> &'static str {
    match failure {
        Failure::AnswerMalformed => "check that mqtt.url leads to an MQTT 3.1.1 broker",
        Failure::Unreachable => {
            "check network, name service and firewall towards mqtt.url; the agent tries again by \
             itself"
        }
        Failure::Busy { .. }
        | Failure::CertificateUnfit(_)
        | Failure::KeyLost
        | Failure::KeyUnavailable
        | Failure::OurIdentityRefused
        | Failure::Pending { .. }
        | Failure::Refused { .. }
        | Failure::Revoked
        | Failure::ServerUntrusted
        | Failure::StorageUnavailable
        | Failure::WrongCertificateSeen => advice(Operation::Adopt, failure),
    }
}

const fn answer_malformed(operation: Operation) -> &'static str {
    match operation {
        Operation::Enroll | Operation::Consult => {
            "check that provisioner.url leads to a fleetcert provisioner and not to something else"
        }
        Operation::Prove => "check that both urls lead to the provisioner and to an MQTT broker",
        Operation::Adopt
        | Operation::EnsureKey
        | Operation::EraseKey
        | Operation::Persist
        | Operation::Release => "report it together with the log",
    }
}

const fn our_identity_refused(operation: Operation) -> &'static str {
    match operation {
        Operation::Adopt | Operation::Prove | Operation::Release => {
            "check the broker's client CA file and the age of its CRL; nothing is decided about \
             this device by it"
        }
        Operation::Consult
        | Operation::Enroll
        | Operation::EnsureKey
        | Operation::EraseKey
        | Operation::Persist => {
            "check that the provisioner knows the issuer of this device's certificate"
        }
    }
}

const fn refused(operation: Operation) -> &'static str {
    match operation {
        Operation::Enroll => {
            "look the reason up with `fleetcert-provisioner device show <device-id>`; a wrong, \
             used or expired token needs a new one in token_file"
        }
        Operation::Adopt
        | Operation::Consult
        | Operation::EnsureKey
        | Operation::EraseKey
        | Operation::Persist
        | Operation::Prove
        | Operation::Release => {
            "look the reason up with `fleetcert-provisioner device show <device-id>`"
        }
    }
}

const fn unreachable(operation: Operation) -> &'static str {
    match operation {
        Operation::Prove => {
            "check network, name service and firewall towards both urls; the present identity \
             stays in use"
        }
        Operation::Adopt
        | Operation::Consult
        | Operation::Enroll
        | Operation::EnsureKey
        | Operation::EraseKey
        | Operation::Persist
        | Operation::Release => {
            "check network, name service and firewall towards provisioner.url; the agent tries \
             again by itself"
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::event::Reason;
    use fleetcert_core::time::Wall;

    use super::*;

    // Goal: every failure of every operation has an advice that reads as one sentence.
    #[test]
    fn every_failure_has_an_advice() {
        let failures = [
            Failure::AnswerMalformed,
            Failure::Busy { retry_after_s: None },
            Failure::CertificateUnfit(Unfit::Expired { time: Wall(2), not_after: Wall(1) }),
            Failure::CertificateUnfit(Unfit::Form),
            Failure::CertificateUnfit(Unfit::Key),
            Failure::KeyLost,
            Failure::KeyUnavailable,
            Failure::OurIdentityRefused,
            Failure::Pending { retry_after_s: 1 },
            Failure::Refused { status: 403, reason: Reason::new() },
            Failure::Revoked,
            Failure::ServerUntrusted,
            Failure::StorageUnavailable,
            Failure::Unreachable,
            Failure::WrongCertificateSeen,
        ];
        let operations = [
            Operation::Adopt,
            Operation::Consult,
            Operation::Enroll,
            Operation::EnsureKey,
            Operation::EraseKey,
            Operation::Persist,
            Operation::Prove,
            Operation::Release,
        ];
        for failure in &failures {
            for operation in operations {
                let text = advice(operation, failure);
                assert!(text.len() > 20 && !text.ends_with('.') && !text.contains('\n'), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    // Goal: a broker out of reach sends nobody to look at the provisioner.
    #[test]
    fn a_broker_out_of_reach_points_at_the_broker() {
        for failure in [Failure::AnswerMalformed, Failure::Unreachable] {
            let text = broker_advice(&failure);
            assert!(text.contains("mqtt.url") && !text.contains("provisioner"), "{text}");
        }
    }

    // Goal: a broker's refusal never sends anybody to re-enroll.
    #[test]
    fn a_brokers_refusal_points_at_the_broker() {
        let text = advice(Operation::Prove, &Failure::OurIdentityRefused);
        assert!(text.contains("broker's client CA"), "{text}");
        assert_eq!(broker_advice(&Failure::OurIdentityRefused), text);
        let text = advice(Operation::Enroll, &Failure::OurIdentityRefused);
        assert!(text.contains("provisioner"), "{text}");
    }
}
