//! Virtual time, and the clocks by which a device sees it.
//!
//! The world has one time, [`At`]. A device sees it through [`DeviceClock`]: a monotonic clock that
//! is right (it counts suspend and begins anew at each boot) and a wall clock that may be missing,
//! stopped, drifting, or wrong by ten years.

use fleetcert_core::time::{Mono, Now, Wall};
use serde::Serialize;

use super::random::Dice;

/// Milliseconds since the simulation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct At(pub u64);

/// One second.
pub const SECOND_MS: u64 = 1_000;
/// One minute.
pub const MINUTE_MS: u64 = 60 * SECOND_MS;
/// One hour.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// One day.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// Civil time at the beginning: 2027-01-15T08:00:00Z.
pub const BEGINNING: Wall = Wall(1_800_000_000);

/// When the simulated software was built: ten days before the first device boots.
pub const BUILD_TIME: Wall = Wall(BEGINNING.0 - 10 * 86_400);

const TEN_YEARS_S: u64 = 10 * 365 * 86_400;

impl At {
    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here, zero if that is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// True civil time.
    #[must_use]
    pub const fn wall(self) -> Wall {
        Wall(BEGINNING.0 + self.0 / SECOND_MS)
    }
}

impl std::fmt::Display for At {
    /// Days, hours, minutes, seconds and milliseconds: `12d03:04:05.006`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(ms) = *self;
        write!(
            f,
            "{}d{:02}:{:02}:{:02}.{:03}",
            ms / DAY_MS,
            ms / HOUR_MS % 24,
            ms / MINUTE_MS % 60,
            ms / SECOND_MS % 60,
            ms % SECOND_MS
        )
    }
}

/// What keeps civil time while the device is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rtc {
    /// Nothing, and nothing sets the clock later either: there is no wall clock.
    Missing,
    /// Nothing: the wall clock begins in 1970 at each boot.
    Stopped,
    /// A clock that gains or loses.
    Runs {
        /// Parts per million, ahead of true time if positive.
        drift_ppm: i64,
    },
}

/// How a wall clock is wrong for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Step {
    /// It says 1970.
    Epoch,
    /// It says ten years later.
    Future,
    /// It says ten years earlier.
    Past,
}

/// The clocks of one device.
#[derive(Clone, Debug)]
pub struct DeviceClock {
    rtc: Rtc,
    /// How long after a boot NTP has set the clock, milliseconds; `None`: never.
    ntp_after_ms: Option<u64>,
    booted_at: At,
    step: Option<(Step, At)>,
}

impl DeviceClock {
    /// The clocks of a device that nothing is wrong with: right, and set by NTP at once.
    #[must_use]
    pub const fn right() -> Self {
        Self {
            rtc: Rtc::Runs { drift_ppm: 0 },
            ntp_after_ms: Some(0),
            booted_at: At(0),
            step: None,
        }
    }

    /// Clocks as they come in a fleet: half of them good, the rest missing, stopped or drifting.
    pub fn draw(dice: &mut Dice) -> Self {
        let soon = dice.between(5 * SECOND_MS, 10 * MINUTE_MS);
        let drift_ppm = i64::try_from(dice.below(401)).unwrap_or(0) - 200;
        let (rtc, ntp_after_ms) = match dice.below(10) {
            0 => (Rtc::Missing, None),
            1 => (Rtc::Stopped, None),
            2 | 3 => (Rtc::Stopped, Some(soon)),
            4 => (Rtc::Runs { drift_ppm }, None),
            _ => (Rtc::Runs { drift_ppm }, Some(soon)),
        };
        Self { rtc, ntp_after_ms, booted_at: At(0), step: None }
    }

    /// The device boots.
    pub const fn boot(&mut self, at: At) {
        self.booted_at = at;
    }

    /// Somebody sets the wall clock wrong until `until`.
    pub const fn step(&mut self, step: Step, until: At) {
        self.step = Some((step, until));
    }

    /// What the platform's clocks say at `at`.
    #[must_use]
    pub fn now(&self, at: At) -> Now {
        let since_boot_ms = at.ms_since(self.booted_at);
        let mono = Mono(since_boot_ms);
        if let Some((step, until)) = self.step
            && at < until
            && self.rtc != Rtc::Missing
        {
            return Now { mono, wall: Some(step.wall(at, since_boot_ms)), synchronised: false };
        }
        if self.ntp_after_ms.is_some_and(|after_ms| since_boot_ms >= after_ms) {
            return Now { mono, wall: Some(at.wall()), synchronised: true };
        }
        let wall = match self.rtc {
            Rtc::Missing => None,
            Rtc::Stopped => Some(Wall(since_boot_ms / SECOND_MS)),
            Rtc::Runs { drift_ppm } => Some(drifted(at, drift_ppm)),
        };
        Now { mono, wall, synchronised: false }
    }

    /// The instant at which the monotonic clock says `mono`.
    #[must_use]
    pub const fn at(&self, mono: Mono) -> At {
        self.booted_at.plus_ms(mono.0)
    }
}

fn drifted(at: At, drift_ppm: i64) -> Wall {
    let gained_s = i64::try_from(at.0 / SECOND_MS).unwrap_or(0) * drift_ppm / 1_000_000;
    Wall(at.wall().0.saturating_add_signed(gained_s))
}

impl Step {
    const fn wall(self, at: At, since_boot_ms: u64) -> Wall {
        match self {
            Self::Epoch => Wall(since_boot_ms / SECOND_MS),
            Self::Future => at.wall().plus_s(TEN_YEARS_S),
            Self::Past => at.wall().minus_s(TEN_YEARS_S),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetcert_core::time::{Mono, Wall};

    use super::{At, BEGINNING, DAY_MS, DeviceClock, HOUR_MS, MINUTE_MS, Rtc, Step};

    fn clock(rtc: Rtc, ntp_after_ms: Option<u64>) -> DeviceClock {
        DeviceClock { rtc, ntp_after_ms, booted_at: At(DAY_MS), step: None }
    }

    // Goal: the monotonic clock begins at boot and is never wrong.
    #[test]
    fn monotonic_time_counts_from_the_boot_and_leads_back() {
        let clock = clock(Rtc::Missing, None);
        let at = At(DAY_MS + 5);
        assert_eq!(clock.now(at).mono, Mono(5));
        assert_eq!(clock.at(Mono(5)), at);
        assert_eq!(clock.now(at).wall, None);
    }

    // Goal: a clock without a battery says 1970 until NTP sets it.
    #[test]
    fn a_stopped_clock_begins_in_1970_until_it_is_synchronised() {
        let clock = clock(Rtc::Stopped, Some(MINUTE_MS));
        let before = clock.now(At(DAY_MS + MINUTE_MS - 1));
        assert_eq!((before.wall, before.synchronised), (Some(Wall(59)), false));
        let after = clock.now(At(DAY_MS + MINUTE_MS));
        assert_eq!((after.wall, after.synchronised), (Some(Wall(BEGINNING.0 + 86_460)), true));
    }

    // Goal: drift adds up, and a step is wrong by what it says for as long as it lasts.
    #[test]
    fn drift_and_steps_are_wrong_by_what_they_say() {
        let mut clock = clock(Rtc::Runs { drift_ppm: 100 }, None);
        let at = At(100 * DAY_MS);
        assert_eq!(clock.now(at).wall, Some(at.wall().plus_s(864)));
        clock.step(Step::Past, at.plus_ms(HOUR_MS));
        assert_eq!(clock.now(at).wall, Some(at.wall().minus_s(super::TEN_YEARS_S)));
        clock.step(Step::Epoch, at.plus_ms(HOUR_MS));
        assert_eq!(clock.now(at).wall, Some(Wall(99 * 86_400)));
        assert_eq!(clock.now(at.plus_ms(HOUR_MS)).wall, Some(at.wall().plus_s(3600 + 864)));
    }

    #[test]
    fn instants_read_as_days_and_a_time_of_day() {
        assert_eq!(At(12 * DAY_MS + 3 * HOUR_MS + 65_004).to_string(), "12d03:01:05.004");
    }
}
