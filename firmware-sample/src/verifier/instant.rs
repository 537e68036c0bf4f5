//! When a server's chain has to be valid, for a device that may not know the time.

use fleetcert_core::time::{Confidence, Reading, Wall};

use super::Refusal;

/// Whom a connection is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The MQTT broker.
    Broker,
    /// The provisioning service, which can also tell us the time.
    Provisioner,
}

/// When a server's chain has to be valid: one of the times is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instants {
    first: When,
    second: Option<When>,
}

/// A time that a chain is verified at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At this instant.
    At(Wall),
    /// At some instant that is not before this one: what ended before it is expired; what begins
    /// after it may well have begun.
    NotBefore(Wall),
}

/// How often [`When::NotBefore`] may move on to the beginning of a certificate: once for each of a
/// chain, and a chain has three.
const BEGINNINGS_MAX: usize = 3;

impl Instants {
    /// What `reading` allows towards `server`: the table of `docs/decisions/0003-server-time.md`.
    pub(super) fn of(server: Server, reading: Reading) -> Self {
        let Reading { wall, confidence, floor } = reading;
        let first = wall.map_or(When::NotBefore(floor), When::At);
        let second = match (confidence, server) {
            (Confidence::Floored, Server::Provisioner) => Some(When::NotBefore(floor)),
            (Confidence::Floored | Confidence::Trusted | Confidence::Unknown, _) => None,
        };
        Self { first, second }
    }

    /// Verifies at these times. The second is tried only if nothing but the time is wrong with the
    /// first, and what is reported is the refusal at the first: nobody believes in the other.
    pub(super) fn verify<T>(
        self,
        mut verify: impl FnMut(Wall) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let refusal = match self.first.verify(&mut verify) {
            Ok(verified) => return Ok(verified),
            Err(refusal) => refusal,
        };
        match self.second {
            Some(second) if refusal.is_of_time() => second.verify(&mut verify).map_err(|_| refusal),
            _ => Err(refusal),
        }
    }
}

impl When {
    fn verify<T>(self, verify: &mut impl FnMut(Wall) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut wall = match self {
            Self::At(wall) => return verify(wall),
            Self::NotBefore(floor) => floor,
        };
        let mut verdict = verify(wall);
        for _ in 0..BEGINNINGS_MAX {
            match verdict {
                Err(Refusal::NotYetValid { not_before, .. }) if not_before > wall => {
                    wall = not_before;
                }
                _ => break,
            }
            verdict = verify(wall);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const FLOOR: Wall = Wall(1_000);
    const WALL: Wall = Wall(5_000);
    const END: Wall = Wall(9_000);

    fn reading(confidence: Confidence) -> Reading {
        let wall = (confidence != Confidence::Unknown).then_some(WALL);
        Reading { wall, confidence, floor: FLOOR }
    }

    /// A chain whose certificates begin at these times and end at [`END`].
    fn judge(beginnings: &[u64], time: Wall) -> Result<Wall, Refusal> {
        if time > END {
            return Err(Refusal::Expired { time, not_after: END });
        }
        match beginnings.iter().find(|beginning| **beginning > time.0) {
            Some(later) => Err(Refusal::NotYetValid { time, not_before: Wall(*later) }),
            None => Ok(time),
        }
    }

    #[test]
    fn only_an_unvouched_clock_gives_a_second_time_and_only_to_the_provisioner() {
        for server in [Server::Broker, Server::Provisioner] {
            let trusted = Instants::of(server, reading(Confidence::Trusted));
            assert_eq!(trusted, Instants { first: When::At(WALL), second: None });
            let unknown = Instants::of(server, reading(Confidence::Unknown));
            assert_eq!(unknown, Instants { first: When::NotBefore(FLOOR), second: None });
        }
        let floored = reading(Confidence::Floored);
        let second = Some(When::NotBefore(FLOOR));
        let provisioner = Instants::of(Server::Provisioner, floored);
        assert_eq!(provisioner, Instants { first: When::At(WALL), second });
        let broker = Instants::of(Server::Broker, floored);
        assert_eq!(broker, Instants { first: When::At(WALL), second: None });
    }

    #[test]
    fn a_chain_that_begins_after_the_floor_is_accepted_by_who_knows_the_floor_only() {
        let unknown = Instants::of(Server::Broker, reading(Confidence::Unknown));
        assert_eq!(unknown.verify(|at| judge(&[500, 2_000, 7_000], at)), Ok(Wall(7_000)));
        assert_eq!(unknown.verify(|at| judge(&[500, 600], at)), Ok(FLOOR));
        let trusted = Instants::of(Server::Broker, reading(Confidence::Trusted));
        trusted.verify(|at| judge(&[500, 7_000], at)).unwrap_err();
        let floored = Instants::of(Server::Provisioner, reading(Confidence::Floored));
        assert_eq!(floored.verify(|at| judge(&[500, 7_000], at)), Ok(Wall(7_000)));
    }

    #[test]
    fn a_chain_that_ended_before_the_floor_or_never_holds_at_once_is_refused() {
        let after = Reading { floor: Wall(9_001), ..reading(Confidence::Unknown) };
        Instants::of(Server::Broker, after).verify(|at| judge(&[500], at)).unwrap_err();
        let unknown = Instants::of(Server::Broker, reading(Confidence::Unknown));
        unknown.verify(|at| judge(&[500, 9_500], at)).unwrap_err();
        let mut looks = 0;
        let endless: Result<(), _> = unknown.verify(|at| {
            looks += 1;
            judge(&[at.0 + 1], at).map(drop)
        });
        endless.unwrap_err();
        assert_eq!(looks, 4);
    }

    /// Goal: the second chance is given after faults of time only, and the first fault is told.
    #[test]
    fn only_a_fault_of_time_leads_to_the_second_chance() {
        let instants = Instants::of(Server::Provisioner, reading(Confidence::Floored));
        let expired = Refusal::Expired { time: WALL, not_after: Wall(4_000) };
        for (first, tries, told) in [
            (expired, vec![WALL, FLOOR], expired),
            (Refusal::IssuerUnknown, vec![WALL], Refusal::IssuerUnknown),
        ] {
            let mut tried = Vec::new();
            let verified: Result<(), _> = instants.verify(|at| {
                tried.push(at);
                Err(if at == WALL { first } else { Refusal::NameMismatch })
            });
            assert_eq!((verified, tried), (Err(told), tries));
        }
    }
}
