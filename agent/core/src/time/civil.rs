//! Civil time in UTC, in the Gregorian calendar, and the seconds since 1970 that it is.

use super::Wall;

const DAY_S: u64 = 86_400;

/// The first year, and the last that has four digits.
const YEARS: core::ops::RangeInclusive<u16> = 1970..=9999;

/// Leap days from the year 1 to the end of 1969.
const LEAP_DAYS_BEFORE: u32 = 1969 / 4 - 1969 / 100 + 1969 / 400;

/// A second as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: u16,
    /// From 1.
    pub(crate) month: u16,
    /// From 1.
    pub(crate) day: u16,
    pub(crate) hour: u16,
    pub(crate) minute: u16,
    pub(crate) second: u16,
}

impl Civil {
    /// The second that it is, if there is such a one from 1970 to 9999. Leap seconds are none.
    pub(crate) fn wall(self) -> Option<Wall> {
        let Self { year, month, day, hour, minute, second } = self;
        let is_there = YEARS.contains(&year)
            && (1..=12).contains(&month)
            && (1..=month_len(year, month)).contains(&day)
            && (hour < 24 && minute < 60 && second < 60);
        let months: u32 = (1..month).map(|month| u32::from(month_len(year, month))).sum();
        let days = is_there.then(|| days_before(year) + months + u32::from(day) - 1)?;
        let minutes = u32::from(hour) * 60 + u32::from(minute);
        Some(Wall(u64::from(days) * DAY_S + u64::from(minutes * 60 + u32::from(second))))
    }

    /// What people write for a second; the end of the year 9999 for a later one.
    pub(crate) fn of(wall: Wall) -> Self {
        let wall = wall.min(super::WALL_WRITABLE_MAX);
        let (mut days, rest) = (to_u32(wall.0 / DAY_S), to_u32(wall.0 % DAY_S));
        // No year is longer, so this is none that comes later.
        let mut year = 1970 + to_u16(days / 366);
        while days_before(year + 1) <= days {
            year += 1;
        }
        days -= days_before(year);
        let mut month = 1;
        while days >= u32::from(month_len(year, month)) {
            days -= u32::from(month_len(year, month));
            month += 1;
        }
        let (minutes, second) = (rest / 60, to_u16(rest % 60));
        let (hour, minute) = (to_u16(minutes / 60), to_u16(minutes % 60));
        Self { year, month, day: to_u16(days) + 1, hour, minute, second }
    }
}

/// Days from 1970 to the beginning of a year.
fn days_before(year: u16) -> u32 {
    let (years, before) = (u32::from(year) - 1970, u32::from(year) - 1);
    years * 365 + (before / 4 - before / 100 + before / 400) - LEAP_DAYS_BEFORE
}

const fn month_len(year: u16, month: u16) -> u16 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + is_leap as u16,
        // Every other month is a long one, and the turn changes with August.
        _ => 30 + ((month ^ month >> 3) & 1),
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn to_u16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use der::DateTime;

    use super::super::WALL_WRITABLE_MAX;
    use super::{Civil, DAY_S};
    use crate::time::Wall;

    /// Goal: every day from 1970 to 9999 is the one that another calendar says, there and back.
    #[test]
    fn every_day_is_as_another_calendar_has_it() {
        for day in 0..=WALL_WRITABLE_MAX.0 / DAY_S {
            let wall = Wall(day * DAY_S + day % DAY_S);
            let judged = DateTime::from_unix_duration(Duration::from_secs(wall.0)).unwrap();
            let civil = Civil::of(wall);
            assert_eq!(
                (civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second),
                (
                    judged.year(),
                    u16::from(judged.month()),
                    u16::from(judged.day()),
                    u16::from(judged.hour()),
                    u16::from(judged.minutes()),
                    u16::from(judged.seconds())
                )
            );
            assert_eq!(civil.wall(), Some(wall));
        }
        assert_eq!(Civil::of(Wall(u64::MAX)), Civil::of(WALL_WRITABLE_MAX));
    }

    #[test]
    fn what_is_no_second_is_none() {
        let civil = Civil { year: 2023, month: 2, day: 28, hour: 23, minute: 59, second: 59 };
        assert_eq!(civil.wall(), Some(Wall(1_677_628_799)));
        for none in [
            Civil { year: 1969, ..civil },
            Civil { year: 10_000, ..civil },
            Civil { month: 0, ..civil },
            Civil { month: 13, ..civil },
            Civil { day: 0, ..civil },
            Civil { day: 29, ..civil },
            Civil { hour: 24, ..civil },
            Civil { minute: 60, ..civil },
            Civil { second: 60, ..civil },
        ] {
            assert_eq!(none.wall(), None, "{none:?}");
        }
    }
}
