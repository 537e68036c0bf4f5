use crate::time::Wall;
use crate::time::civil::Civil;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const LONG_DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads an HTTP-date in any of the three forms that a recipient must accept (RFC 9110 §5.6.7);
/// from 1970 on. A two-digit year is of the century that begins with 1970: there is no clock here
/// to judge it by. A leap second is the second before it.
#[must_use]
#[doc(alias = "IMF-fixdate")]
pub fn parse_date(text: &str) -> Option<Wall> {
    let mut cursor = Cursor(text);
    let date = match text.find(',') {
        Some(3) => imf_fixdate(&mut cursor),
        Some(_) => rfc850_date(&mut cursor),
        None => asctime_date(&mut cursor),
    };
    date.filter(|_| cursor.0.is_empty())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(cursor: &mut Cursor<'_>) -> Option<Wall> {
    cursor.one_of(&DAYS)?;
    cursor.literal(", ")?;
    let day = cursor.number(2)?;
    cursor.literal(" ")?;
    let month = cursor.month()?;
    cursor.literal(" ")?;
    let year = cursor.number(4)?;
    cursor.literal(" ")?;
    let time = cursor.time()?;
    cursor.literal(" GMT")?;
    wall(year, month, day, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_date(cursor: &mut Cursor<'_>) -> Option<Wall> {
    cursor.one_of(&LONG_DAYS)?;
    cursor.literal(", ")?;
    let day = cursor.number(2)?;
    cursor.literal("-")?;
    let month = cursor.month()?;
    cursor.literal("-")?;
    let year = cursor.number(2)?;
    cursor.literal(" ")?;
    let time = cursor.time()?;
    cursor.literal(" GMT")?;
    let century = if year < 70 { 2000 } else { 1900 };
    wall(century + year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(cursor: &mut Cursor<'_>) -> Option<Wall> {
    cursor.one_of(&DAYS)?;
    cursor.literal(" ")?;
    let month = cursor.month()?;
    cursor.literal(" ")?;
    let day = match cursor.literal(" ") {
        Some(()) => cursor.number(1)?,
        None => cursor.number(2)?,
    };
    cursor.literal(" ")?;
    let time = cursor.time()?;
    cursor.literal(" ")?;
    let year = cursor.number(4)?;
    wall(year, month, day, time)
}

/// A time of day: hour, minute, second.
struct Time(u16, u16, u16);

fn wall(year: u16, month: u16, day: u16, time: Time) -> Option<Wall> {
    let Time(hour, minute, second) = time;
    Civil { year, month, day, hour, minute, second }.wall()
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn literal(&mut self, wanted: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(wanted)?;
        Some(())
    }

    fn one_of(&mut self, names: &[&str]) -> Option<()> {
        names.iter().find_map(|name| self.literal(name))
    }

    fn month(&mut self) -> Option<u16> {
        let name = self.take(3)?;
        let index = MONTHS.iter().position(|month| *month == name)?;
        u16::try_from(index + 1).ok()
    }

    fn number(&mut self, digits: usize) -> Option<u16> {
        let text = self.take(digits)?;
        text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
    }

    fn time(&mut self) -> Option<Time> {
        let hour = self.number(2)?;
        self.literal(":")?;
        let minute = self.number(2)?;
        self.literal(":")?;
        let second = self.number(2)?;
        let second = if second == 60 { 59 } else { second };
        Some(Time(hour, minute, second))
    }
}

#[cfg(test)]
mod tests {
    use super::parse_date;
    use crate::time::Wall;

    #[test]
    fn the_three_examples_of_rfc_9110_are_the_same_second() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text), Some(Wall(784_111_777)), "{text}");
            for len in 0..text.len() {
                assert_eq!(parse_date(&text[..len]), None, "{text} cut at {len}");
            }
            assert_eq!(parse_date(&[text, " "].concat()), None);
            assert_eq!(parse_date(&[" ", text].concat()), None);
        }
    }

    #[test]
    fn every_day_and_month_has_its_name() {
        for (text, s) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Mon, 02 Feb 1970 00:00:01 GMT", 32 * 86400 + 1),
            ("Tue, 03 Mar 1970 00:01:00 GMT", 61 * 86400 + 60),
            ("Wed, 01 Apr 1970 01:00:00 GMT", 90 * 86400 + 3600),
            ("Fri, 01 May 1970 00:00:00 GMT", 120 * 86400),
            ("Sat, 01 Jun 1970 00:00:00 GMT", 151 * 86400),
            ("Sun, 01 Jul 1970 00:00:00 GMT", 181 * 86400),
            ("Monday, 01-Aug-70 00:00:00 GMT", 212 * 86400),
            ("Tuesday, 01-Sep-70 00:00:00 GMT", 243 * 86400),
            ("Wednesday, 01-Oct-70 00:00:00 GMT", 273 * 86400),
            ("Thursday, 01-Nov-70 00:00:00 GMT", 304 * 86400),
            ("Friday, 01-Dec-70 00:00:00 GMT", 334 * 86400),
            ("Saturday, 31-Dec-70 23:59:59 GMT", 365 * 86400 - 1),
            ("Tue Feb 29 00:00:00 2000", 951_782_400),
            ("Sat, 21 Nov 2026 23:44:22 GMT", 1_795_304_662),
        ] {
            assert_eq!(parse_date(text), Some(Wall(s)), "{text}");
        }
    }

    #[test]
    fn a_two_digit_year_is_of_the_hundred_years_from_1970() {
        for (text, s) in [
            ("Thursday, 01-Jan-70 00:00:00 GMT", 0),
            ("Sunday, 31-Dec-69 23:59:59 GMT", 3_155_759_999),
        ] {
            assert_eq!(parse_date(text), Some(Wall(s)), "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_the_second_before_it() {
        let leap = parse_date("Sat, 31 Dec 2016 23:59:60 GMT");
        assert_eq!(leap, Some(Wall(1_483_228_799)));
        assert_eq!(leap, parse_date("Sat, 31 Dec 2016 23:59:59 GMT"));
    }

    #[test]
    fn what_is_no_date_of_a_calendar_is_refused() {
        for text in [
            "",
            "0",
            "-1",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sund, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 06 08:49:37 94",
            "Sun, 06 Né 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
