//! Civil time, written for people.

use fleetcert_core::time::Wall;

/// 9999-12-31T23:59:59Z: a four-digit year is all that RFC 3339 can write.
const WALL_S_MAX: u64 = 253_402_300_799;

const DAY_S: u64 = 86_400;

/// The RFC 3339 form of an instant, in UTC: `2026-11-22T00:15:07Z`.
#[must_use]
pub fn rfc3339(wall: Wall) -> String {
    let wall_s = wall.0.min(WALL_S_MAX);
    let (year, month, day) = civil_from_days(wall_s / DAY_S);
    let second = wall_s % DAY_S;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// The civil date of a day counted from 1970-01-01, by 400-year eras that begin on 1 March, so
/// that the leap day is the last of its year.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: the calendar agrees with an independent one where calendars go wrong.
    #[test]
    fn instants_are_written_with_their_civil_date() {
        for (wall, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(Wall(wall)), text);
        }
    }
}
