use crate::time::Wall;
use crate::time::civil::Civil;

/// As one form of three has them; the others have the first three letters.
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// What follows the day's name in each form: `@` stands for a letter of the month's name, `_` for
/// a digit of the day or a blank, and a letter of [`FIELDS`] for a digit of that number.
const IMF_FIXDATE: &[u8] = b", DD @@@ YYYY hh:mm:ss GMT";
const RFC_850: &[u8] = b", DD-@@@-YY hh:mm:ss GMT";
const ASCTIME: &[u8] = b" @@@ _D hh:mm:ss YYYY";

/// The numbers of a form: year, day, hour, minute, second.
const FIELDS: &[u8; 5] = b"YDhms";

/// Reads an HTTP-date in any of the three forms that a recipient must accept (RFC 9110 §5.6.7);
/// from 1970 on. A two-digit year is of the century that begins with 1970: there is no clock here
/// to judge it by. A leap second is the second before it.
#[must_use]
#[doc(alias = "IMF-fixdate")]
pub fn parse_date(text: &str) -> Option<Wall> {
    let (name_len, form) = match text.bytes().position(|octet| octet == b',') {
        Some(3) => (3, IMF_FIXDATE),
        Some(len) => (len, RFC_850),
        None => (3, ASCTIME),
    };
    let (name, rest) = text.as_bytes().split_at_checked(name_len)?;
    let is_day = |day: &str| {
        day.as_bytes().starts_with(name) && (form != RFC_850 || day.len() == name.len())
    };
    if !DAYS.into_iter().any(is_day) || rest.len() != form.len() {
        return None;
    }
    let [year, day, hour, minute, second] = numbers(form, rest)?;
    let century = match year {
        _ if form != RFC_850 => 0,
        0..70 => 2000,
        _ => 1900,
    };
    let second = if second == 60 { 59 } else { second };
    Civil { year: century + year, month: month(form, rest)?, day, hour, minute, second }.wall()
}

/// The numbers at the places that the form has for them, if all that is no number is as in the form.
fn numbers(form: &[u8], text: &[u8]) -> Option<[u16; 5]> {
    let mut numbers = [0; FIELDS.len()];
    for (wanted, found) in form.iter().zip(text) {
        let wanted = match (wanted, found) {
            (b'@', _) | (b'_', b' ') => continue,
            (b'_', _) => &b'D',
            _ => wanted,
        };
        match FIELDS.iter().position(|field| field == wanted) {
            Some(field) if found.is_ascii_digit() => {
                let number = numbers.get_mut(field)?;
                *number = *number * 10 + u16::from(found & 0x0f);
            }
            None if wanted == found => {}
            _ => return None,
        }
    }
    Some(numbers)
}

/// The month whose name stands where the form has it, from 1.
fn month(form: &[u8], text: &[u8]) -> Option<u16> {
    let at = form.iter().position(|octet| *octet == b'@')?;
    let name = text.get(at..)?.first_chunk()?;
    let before = MONTHS.iter().position(|month| *month == name)?;
    u16::try_from(before + 1).ok()
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
