//! Where the service takes civil time from, and how it writes it for people.
//!
//! The domain is given the time as an argument; this is the one place that reads a clock. It must
//! never be read twice for one request: a certificate, its audit entry and the answer's `Date`
//! would then disagree. [`Clock`] is a trait so that a test can say what time it is, to the TLS
//! verifier too.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use smol::Timer;

use fleetcert_core::time::Wall;

/// A source of civil time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Seconds since 1970, now.
    fn wall(&self) -> Wall;
}

/// The machine's own clock. A time before 1970 reads as 1970: nothing is valid then.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn wall(&self) -> Wall {
        Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

/// A timer of real time: the limits of a connection are of that, whatever [`Clock`] says.
#[expect(clippy::disallowed_methods, reason = "this is the one place that waits")]
pub(crate) fn timer(duration: Duration) -> Timer {
    Timer::after(duration)
}

/// What `future` gives, or `None` if it takes longer than `limit`.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let late = async {
        timer(limit).await;
        None
    };
    smol::future::or(async { Some(future.await) }, late).await
}

/// Lets rustls judge validity by the same clock as everything else.
#[derive(Debug)]
pub(crate) struct TlsClock(pub(crate) Arc<dyn Clock>);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.wall().0)))
    }
}

/// The HTTP form of an instant (RFC 9110 §5.6.7), as in `Date`.
pub(crate) fn http_date(wall: Wall) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(wall.0.min(HTTP_DATE_WALL_S_MAX)))
}

/// 9999-12-31T23:59:59Z: a four-digit year is all that HTTP, X.509 and RFC 3339 can write.
const HTTP_DATE_WALL_S_MAX: u64 = 253_402_300_799;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// The RFC 3339 form of an instant, in UTC: `2026-11-22T00:15:07Z`.
#[must_use]
pub fn rfc3339(wall: Wall) -> String {
    let wall_s = wall.0.min(HTTP_DATE_WALL_S_MAX);
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

    // Goal: `Date` has the one form that HTTP allows to be sent.
    #[test]
    fn dates_are_written_in_the_form_of_http() {
        assert_eq!(http_date(Wall(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(Wall(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
