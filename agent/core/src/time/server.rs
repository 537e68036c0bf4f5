//! When a server's certificates have to be valid, for a device that may not know the time.
//!
//! A verifier of certificates judges at an instant. Which one that is follows from what the device
//! knows ([`Reading`]) and from whom it talks to; `docs/decisions/0003-server-time.md` argues why,
//! and [`Instants::of`] is its table. Daemon and firmware have verifiers of their own, so a
//! verifier is an argument here, and what it refuses a chain for is told as a [`TimeFault`].
//!
//! It must never accept what its verifier did not: [`Instants::verify`] only chooses when to ask.

use super::{Confidence, Reading, Wall};

/// Whom a connection is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The MQTT broker.
    Broker,
    /// The provisioning service, which can also tell us the time.
    Provisioner,
}

/// What time has to do with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFault {
    /// A certificate begins later, and then. More may be wrong.
    Begins(Wall),
    /// Nothing: something else is wrong.
    None,
    /// A certificate is over, or begins later and nobody said when. More may be wrong.
    Other,
}

/// When a server's chain has to be valid: one of the times is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    /// When it should be.
    first: When,
    /// When it may be instead, if with `first` nothing but its time is wrong.
    second: Option<When>,
}

/// A time that a chain is verified at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At this instant.
    At(Wall),
    /// At some instant that is not before this one: we know no more. What ended before it is
    /// expired; what begins after it may well have begun.
    NotBefore(Wall),
}

/// How often [`When::NotBefore`] may move on to the beginning of a certificate: once for each of a
/// chain, and a chain has three.
const BEGINNINGS_MAX: usize = 3;

impl Instants {
    /// What `reading` allows towards `server`.
    #[must_use]
    pub fn of(server: Server, reading: Reading) -> Self {
        let Reading { wall, confidence, floor } = reading;
        let first = wall.map_or(When::NotBefore(floor), When::At);
        let second = match (confidence, server) {
            (Confidence::Floored, Server::Provisioner) => Some(When::NotBefore(floor)),
            (Confidence::Floored | Confidence::Trusted | Confidence::Unknown, _) => None,
        };
        Self { first, second }
    }

    /// Verifies at these times: whatever `verify` says last, and never a success that it did not
    /// report itself. `fault` says what time has to do with a refusal of its.
    ///
    /// # Errors
    ///
    /// That of the first time: the second is an offer, and its failure would name a time that
    /// nobody believes in.
    pub fn verify<T, E>(
        self,
        fault: impl Fn(&E) -> TimeFault,
        mut verify: impl FnMut(Wall) -> Result<T, E>,
    ) -> Result<T, E> {
        let error = match self.first.verify(&fault, &mut verify) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        match self.second {
            Some(second) if fault(&error) != TimeFault::None => {
                second.verify(&fault, &mut verify).map_err(|_| error)
            }
            _ => Err(error),
        }
    }
}

impl When {
    fn verify<T, E>(
        self,
        fault: &impl Fn(&E) -> TimeFault,
        verify: &mut impl FnMut(Wall) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut wall = match self {
            Self::At(wall) => return verify(wall),
            Self::NotBefore(floor) => floor,
        };
        let mut verdict = verify(wall);
        for _ in 0..BEGINNINGS_MAX {
            match verdict.as_ref().map_err(fault) {
                Err(TimeFault::Begins(later)) if later > wall => wall = later,
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

    /// A refusal of a verifier's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Refusal {
        Expired,
        Name,
        NotYetValid(Wall),
    }

    fn fault(refusal: &Refusal) -> TimeFault {
        match refusal {
            Refusal::Expired => TimeFault::Other,
            Refusal::Name => TimeFault::None,
            Refusal::NotYetValid(beginning) => TimeFault::Begins(*beginning),
        }
    }

    /// A chain whose certificates begin at these times and end at [`END`], as webpki judges it:
    /// the issuers come first.
    fn judge(beginnings: &[u64], at: Wall) -> Result<Wall, Refusal> {
        if at > END {
            return Err(Refusal::Expired);
        }
        match beginnings.iter().find(|beginning| **beginning > at.0) {
            Some(later) => Err(Refusal::NotYetValid(Wall(*later))),
            None => Ok(at),
        }
    }

    fn verified(
        server: Server,
        confidence: Confidence,
        beginnings: &[u64],
    ) -> Result<Wall, Refusal> {
        Instants::of(server, reading(confidence)).verify(fault, |at| judge(beginnings, at))
    }

    #[test]
    fn a_trusted_clock_is_the_only_time_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Trusted));
            assert_eq!(instants, Instants { first: When::At(WALL), second: None });
        }
    }

    #[test]
    fn without_a_clock_it_is_not_before_the_floor_for_either_server() {
        for server in [Server::Broker, Server::Provisioner] {
            let instants = Instants::of(server, reading(Confidence::Unknown));
            assert_eq!(instants, Instants { first: When::NotBefore(FLOOR), second: None });
        }
    }

    #[test]
    fn an_unvouched_clock_gives_the_provisioner_alone_a_second_chance() {
        let floored = reading(Confidence::Floored);
        let provisioner = Instants::of(Server::Provisioner, floored);
        let second = Some(When::NotBefore(FLOOR));
        assert_eq!(provisioner, Instants { first: When::At(WALL), second });
        let broker = Instants::of(Server::Broker, floored);
        assert_eq!(broker, Instants { first: When::At(WALL), second: None });
    }

    /// Goal: the second chance is given after faults of time only, and the first fault is told.
    #[test]
    fn only_a_fault_of_time_leads_to_the_second_chance() {
        let instants = Instants { first: When::At(WALL), second: Some(When::NotBefore(FLOOR)) };
        for (refusal, expected, times) in [
            (Refusal::Expired, Ok(FLOOR), vec![WALL, FLOOR]),
            (Refusal::NotYetValid(END), Ok(FLOOR), vec![WALL, FLOOR]),
            (Refusal::Name, Err(Refusal::Name), vec![WALL]),
        ] {
            let mut tried = Vec::new();
            let verified = instants.verify(fault, |at| {
                tried.push(at);
                if at == FLOOR { Ok(at) } else { Err(refusal) }
            });
            assert_eq!((verified, tried), (expected, times));
        }
    }

    #[test]
    fn a_failure_at_both_times_tells_the_one_at_the_time_we_believe_in() {
        let instants = Instants { first: When::At(WALL), second: Some(When::NotBefore(FLOOR)) };
        let verified: Result<(), _> = instants
            .verify(fault, |at| Err(if at == WALL { Refusal::Expired } else { Refusal::Name }));
        assert_eq!(verified, Err(Refusal::Expired));
    }

    /// Goal: a device without a clock that slept through a change of the server's certificate
    /// accepts the new one: it began after the floor, and so may have.
    #[test]
    fn a_chain_that_begins_after_the_floor_is_accepted_by_who_knows_the_floor_only() {
        let (broker, provisioner) = (Server::Broker, Server::Provisioner);
        let unknown = Confidence::Unknown;
        assert_eq!(verified(broker, unknown, &[500, 2_000, 7_000]), Ok(Wall(7_000)));
        assert_eq!(verified(broker, unknown, &[500, 600]), Ok(FLOOR));
        verified(broker, Confidence::Trusted, &[500, 7_000]).unwrap_err();
        assert_eq!(verified(provisioner, Confidence::Floored, &[500, 7_000]), Ok(Wall(7_000)));
        verified(broker, Confidence::Floored, &[500, 7_000]).unwrap_err();
    }

    #[test]
    fn a_chain_that_ended_before_the_floor_or_never_holds_at_once_is_refused() {
        let after = Reading { floor: Wall(9_001), ..reading(Confidence::Unknown) };
        let ended = Instants::of(Server::Broker, after).verify(fault, |at| judge(&[500], at));
        assert_eq!(ended, Err(Refusal::Expired));
        let never = verified(Server::Broker, Confidence::Unknown, &[500, 9_500]);
        assert_eq!(never, Err(Refusal::Expired));
    }

    /// Goal: a verifier that always names another time is asked a bounded number of times, and one
    /// that names no later time only once.
    #[test]
    fn beginnings_are_followed_so_often_and_forwards_only() {
        let unknown = Instants::of(Server::Broker, reading(Confidence::Unknown));
        for (step, expected) in [(1, 4), (0, 1)] {
            let mut looks = 0;
            let endless: Result<(), _> = unknown.verify(fault, |at| {
                looks += 1;
                Err(Refusal::NotYetValid(at.plus_s(step)))
            });
            endless.unwrap_err();
            assert_eq!(looks, expected);
        }
    }
}
