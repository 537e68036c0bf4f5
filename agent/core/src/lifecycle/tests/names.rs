//! Small facts: names, texts, gates, randomness.

use std::collections::BTreeSet;
use std::string::ToString;

use super::super::entropy::Entropy;
use super::super::gate::{Gates, Lane};
use super::super::{ActionId, Phase, Timer, Unexpected};
use crate::event::Operation;
use crate::policy::FAILURES_MAX;
use crate::time::Mono;

#[test]
fn phases_and_timers_have_distinct_codes() {
    use Phase as P;
    let phases = [
        P::Active,
        P::Decommissioned,
        P::Enrolling,
        P::Proving,
        P::Quarantined,
        P::Recovering,
        P::Renewing,
        P::Unenrolled,
        P::Waiting,
    ];
    let codes: BTreeSet<&str> = phases.into_iter().map(Phase::code).collect();
    assert_eq!(codes.len(), phases.len());
    use Timer as T;
    let timers = [T::Consult, T::Expiry, T::Idle, T::Renew, T::Retry, T::RetryLocal];
    let codes: BTreeSet<&str> = timers.into_iter().map(Timer::code).collect();
    assert_eq!(codes.len(), timers.len());
    assert!(codes.iter().all(|code| code.len() > 3));
}

#[test]
fn an_unexpected_answer_says_what_was_expected() {
    let found = ActionId(3);
    let idle = Unexpected { expected: None, found };
    assert_eq!(idle.to_string(), "answer to action 3 while nothing is in flight");
    let busy = Unexpected { expected: Some((ActionId(4), Operation::Enroll)), found };
    assert_eq!(busy.to_string(), "answer to action 3 while action 4 (enroll) is in flight");
}

#[test]
fn a_gate_opens_at_its_time_and_counts_up_to_its_limit() {
    let mut gates = Gates::default();
    assert!(gates.is_open(Lane::Storage, Mono(0)));
    gates.close(Lane::Storage, Mono(10));
    assert!(!gates.is_open(Lane::Storage, Mono(9)));
    assert!(gates.is_open(Lane::Storage, Mono(10)));
    assert!(gates.is_open(Lane::Use, Mono(0)), "lanes are apart");
    assert_eq!(gates.closed_until(Lane::Storage), Mono(10));
    assert_eq!((gates.count(Lane::Use), gates.count(Lane::Use)), (1, 2));
    for _ in 0..300 {
        gates.count(Lane::Use);
    }
    assert_eq!(gates.count(Lane::Use), FAILURES_MAX);
    gates.close(Lane::Use, Mono(99));
    gates.reset(Lane::Use);
    assert!(gates.is_open(Lane::Use, Mono(0)));
    assert_eq!(gates.count(Lane::Use), 1);
    assert!(!gates.is_open(Lane::Storage, Mono(9)), "lanes are apart");
}

#[test]
fn entropy_depends_on_the_seed_and_never_repeats_itself() {
    let mut one = Entropy::new([1; 32]);
    let mut same = Entropy::new([1; 32]);
    let mut other = Entropy::new([2; 32]);
    let drawn: BTreeSet<u64> = (0..1000).map(|_| one.uniform()).collect();
    assert_eq!(drawn.len(), 1000);
    assert!(drawn.contains(&same.uniform()));
    assert!(!drawn.contains(&other.uniform()));
    assert_ne!(one.request_id(), one.request_id());
    let shown = std::format!("{one:?}");
    assert!(shown.contains("drawn") && !shown.contains("seed"), "{shown}");
}
