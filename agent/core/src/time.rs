//! What a device knows about time, and how sure it is.
//!
//! Timers run on [`Mono`], which never steps; validity is judged on [`Wall`], which a device may
//! not know at all. A [`Timekeeper`] joins the two: it holds a *floor* below which the wall clock
//! cannot be right, and an *anchor*, the last time an authenticated provisioner told us what time
//! it is. It must never raise the floor from a source that nobody authenticated: a floor set ten
//! years ahead by a stray NTP answer would make every true time look wrong for ten years.

pub(crate) mod civil;
pub mod server;

use core::fmt;

use serde::{Deserialize, Serialize};

use self::civil::Civil;

/// A point on the monotonic clock that also counts suspend (`CLOCK_BOOTTIME`), in milliseconds.
///
/// Its origin is arbitrary and changes at every boot; it is never stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

// Its arithmetic is not inlined: 64 bits take a 32-bit processor several instructions, in many places.
impl Mono {
    /// The point `ms` milliseconds later, or the end of time.
    #[must_use]
    #[inline(never)]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; zero if `earlier` is in fact later.
    #[must_use]
    #[inline(never)]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A point in civil time: seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub u64);

// Not inlined either.
impl Wall {
    /// The point `s` seconds later, or the end of time.
    #[must_use]
    #[inline(never)]
    pub const fn plus_s(self, s: u64) -> Self {
        Self(self.0.saturating_add(s))
    }

    /// The point `s` seconds earlier, or 1970.
    #[must_use]
    #[inline(never)]
    pub const fn minus_s(self, s: u64) -> Self {
        Self(self.0.saturating_sub(s))
    }

    /// Seconds from `earlier` to here; zero if `earlier` is in fact later.
    #[must_use]
    #[inline(never)]
    pub const fn s_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The last second that RFC 3339, X.509 and HTTP can write: they have four digits for the year.
const WALL_WRITABLE_MAX: Wall = Wall(253_402_300_799);

/// RFC 3339 §5.6, in UTC: `2026-11-22T00:15:07Z`. Later than the year 9999 reads as its end.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = Civil::of(*self);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The validity period of a certificate, both ends included (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Validity {
    /// First second of validity.
    pub not_before: Wall,
    /// Last second of validity.
    pub not_after: Wall,
}

impl Validity {
    /// Seconds between the two ends; zero for an inverted period.
    #[must_use]
    pub const fn lifetime_s(self) -> u64 {
        self.not_after.s_since(self.not_before)
    }

    /// Whether the period is over at `wall`.
    #[must_use]
    pub fn is_expired_at(self, wall: Wall) -> bool {
        wall > self.not_after
    }
}

/// What the platform's clocks say at one instant, unjudged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock, where there is one. It may be wrong by years.
    pub wall: Option<Wall>,
    /// Whether the platform claims that its wall clock is synchronised (NTP).
    pub synchronised: bool,
}

impl Now {
    /// An instant of a platform without a wall clock.
    #[must_use]
    pub const fn without_wall(mono: Mono) -> Self {
        Self { mono, wall: None, synchronised: false }
    }
}

/// How far the wall clock may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// There is no wall clock, or it is below the floor. Nothing may be judged by it.
    Unknown,
    /// The wall clock is at or above the floor; nobody vouches for more.
    Floored,
    /// Synchronised, or derived from a time that the provisioner gave us.
    Trusted,
}

/// A judged instant: what a decision about validity may rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Civil time; `None` exactly when the confidence is [`Confidence::Unknown`].
    pub wall: Option<Wall>,
    /// How far `wall` may be believed.
    pub confidence: Confidence,
    /// The time that it certainly is not before.
    pub floor: Wall,
}

/// A time was offered that lies below the floor and was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BelowFloor {
    /// What was offered.
    pub offered: Wall,
    /// The floor it had to reach.
    pub floor: Wall,
}

/// Joins the platform's clocks, the floor and the provisioner's time into one judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timekeeper {
    floor: Wall,
    anchor: Option<(Mono, Wall)>,
}

impl Timekeeper {
    /// A timekeeper that believes no time before `floor`.
    #[must_use]
    pub const fn new(floor: Wall) -> Self {
        Self { floor, anchor: None }
    }

    /// The time that it certainly is not before.
    #[must_use]
    pub const fn floor(&self) -> Wall {
        self.floor
    }

    /// Raises the floor to an authenticated time (a `notBefore` we accepted). Never lowers it.
    pub fn raise_floor(&mut self, authenticated: Wall) {
        self.floor = self.floor.max(authenticated);
    }

    /// Takes the time that an authenticated provisioner gave at `mono`.
    ///
    /// # Errors
    ///
    /// [`BelowFloor`] if it is older than something we already know to be past: nothing changes.
    pub fn anchor(&mut self, mono: Mono, authenticated: Wall) -> Result<(), BelowFloor> {
        if authenticated < self.floor {
            return Err(BelowFloor { offered: authenticated, floor: self.floor });
        }
        self.anchor = Some((mono, authenticated));
        self.floor = authenticated;
        Ok(())
    }

    /// Judges an instant. An anchored time beats the platform's wall clock, whatever that says.
    #[must_use]
    pub fn reading(&self, now: Now) -> Reading {
        let floor = self.floor;
        if let Some((since, wall)) = self.anchor {
            let wall = wall.plus_s(now.mono.ms_since(since) / 1000).max(floor);
            return Reading { wall: Some(wall), confidence: Confidence::Trusted, floor };
        }
        match now.wall {
            Some(wall) if wall >= floor => {
                let confidence =
                    if now.synchronised { Confidence::Trusted } else { Confidence::Floored };
                Reading { wall: Some(wall), confidence, floor }
            }
            _ => Reading { wall: None, confidence: Confidence::Unknown, floor },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const FLOOR: Wall = Wall(1_000);

    fn at(ms: u64, wall: u64, synchronised: bool) -> Now {
        Now { mono: Mono(ms), wall: Some(Wall(wall)), synchronised }
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono(5).plus_ms(7), Mono(12));
        assert_eq!(Mono(u64::MAX).plus_ms(1), Mono(u64::MAX));
        assert_eq!(Mono(12).ms_since(Mono(5)), 7);
        assert_eq!(Mono(5).ms_since(Mono(12)), 0);
        assert_eq!(Wall(5).plus_s(7), Wall(12));
        assert_eq!(Wall(u64::MAX).plus_s(1), Wall(u64::MAX));
        assert_eq!(Wall(5).minus_s(3), Wall(2));
        assert_eq!(Wall(5).minus_s(7), Wall(0));
        assert_eq!(Wall(12).s_since(Wall(5)), 7);
        assert_eq!(Wall(5).s_since(Wall(12)), 0);
    }

    /// Goal: the calendar agrees with an independent one where calendars go wrong.
    #[test]
    fn instants_are_written_with_their_civil_date() {
        for (wall, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Wall(wall).to_string(), text);
        }
    }

    #[test]
    fn a_certificate_is_valid_through_its_last_second() {
        let validity = Validity { not_before: Wall(10), not_after: Wall(30) };
        assert_eq!(validity.lifetime_s(), 20);
        assert!(!validity.is_expired_at(Wall(30)));
        assert!(validity.is_expired_at(Wall(31)));
        assert_eq!(Validity { not_before: Wall(30), not_after: Wall(10) }.lifetime_s(), 0);
    }

    #[test]
    fn confidence_is_unknown_below_the_floor_floored_at_it_and_trusted_when_synchronised() {
        let time = Timekeeper::new(FLOOR);
        let below = time.reading(at(0, 999, true));
        assert_eq!((below.wall, below.confidence), (None, Confidence::Unknown));
        assert_eq!(below.floor, FLOOR);
        let on = time.reading(at(0, 1_000, false));
        assert_eq!((on.wall, on.confidence), (Some(FLOOR), Confidence::Floored));
        assert_eq!(time.reading(at(0, 1_000, true)).confidence, Confidence::Trusted);
        let none = time.reading(Now::without_wall(Mono(3)));
        assert_eq!((none.wall, none.confidence), (None, Confidence::Unknown));
    }

    #[test]
    fn an_anchor_beats_the_platforms_clock_and_runs_on_the_monotonic_one() {
        let mut time = Timekeeper::new(FLOOR);
        time.anchor(Mono(10_000), Wall(2_000)).unwrap();
        assert_eq!(time.floor(), Wall(2_000));
        for wall in [0, 999, 5_000_000] {
            let reading = time.reading(at(12_999, wall, true));
            assert_eq!(reading.wall, Some(Wall(2_002)));
            assert_eq!(reading.confidence, Confidence::Trusted);
        }
        assert_eq!(time.reading(Now::without_wall(Mono(13_000))).wall, Some(Wall(2_003)));
    }

    #[test]
    fn an_anchor_below_the_floor_is_refused_with_both_times_and_changes_nothing() {
        let mut time = Timekeeper::new(FLOOR);
        let before = time;
        let error = BelowFloor { offered: Wall(999), floor: FLOOR };
        assert_eq!(time.anchor(Mono(0), Wall(999)), Err(error));
        assert_eq!(time, before);
        time.anchor(Mono(0), FLOOR).unwrap();
    }

    #[test]
    fn the_floor_rises_and_never_falls_and_no_reading_is_below_it() {
        let mut time = Timekeeper::new(FLOOR);
        time.raise_floor(Wall(500));
        assert_eq!(time.floor(), FLOOR);
        time.anchor(Mono(0), Wall(1_500)).unwrap();
        time.raise_floor(Wall(1_800));
        assert_eq!(time.floor(), Wall(1_800));
        assert_eq!(time.reading(at(1_000, 0, false)).wall, Some(Wall(1_800)));
    }
}
