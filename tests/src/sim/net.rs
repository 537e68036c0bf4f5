//! What becomes of a message.
//!
//! A request is served at the instant it is sent and all of the delay lies on its way back: when
//! exactly within a second the provisioner served it changes nothing that anybody can see. What
//! matters is whether it was served, and whether its answer arrived, late, or twice.

use super::clock::SECOND_MS;
use super::faults::Faults;
use super::random::Dice;

/// How long a device waits for an answer, milliseconds.
pub const TIMEOUT_MS: u64 = 30 * SECOND_MS;

/// What becomes of one request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Served; the answer arrives.
    Answered,
    /// Served; the answer never arrives.
    AnswerLost,
    /// Served twice; both answers arrive.
    Doubled,
    /// Served; the answer arrives when nobody waits for it any more.
    Late,
    /// Never served.
    RequestLost,
}

/// Draws a fate and the time until the device hears of it, milliseconds.
pub fn draw(faults: &Faults, dice: &mut Dice) -> (Fate, u64) {
    let mut rest = dice.below(1_000_000);
    let fates = [
        (faults.request_lost, Fate::RequestLost),
        (faults.answer_lost, Fate::AnswerLost),
        (faults.answer_late, Fate::Late),
        (faults.doubled, Fate::Doubled),
    ];
    for (probability, fate) in fates {
        match rest.checked_sub(u64::from(probability.0)) {
            Some(left) => rest = left,
            None if fate == Fate::Doubled => return (fate, round_trip_ms(dice)),
            None => return (fate, TIMEOUT_MS),
        }
    }
    (Fate::Answered, round_trip_ms(dice))
}

fn round_trip_ms(dice: &mut Dice) -> u64 {
    dice.between(40, 2_000)
}

#[cfg(test)]
mod tests {
    use super::{Fate, TIMEOUT_MS, draw};
    use crate::sim::faults::Faults;
    use crate::sim::random::Dice;

    // Goal: without faults every message arrives; with them every fate is met.
    #[test]
    fn fates_follow_the_profile() {
        let mut dice = Dice::new(1, 0);
        assert!((0..1_000).all(|_| draw(&Faults::NONE, &mut dice).0 == Fate::Answered));
        let drawn: Vec<_> = (0..1_000).map(|_| draw(&Faults::HARSH, &mut dice)).collect();
        let fates =
            [Fate::Answered, Fate::AnswerLost, Fate::Doubled, Fate::Late, Fate::RequestLost];
        for fate in fates {
            assert!(drawn.iter().any(|(drawn, _)| *drawn == fate), "{fate:?}");
        }
        assert!(drawn.iter().all(|(_, ms)| *ms <= TIMEOUT_MS));
    }
}
