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

/// 9999-12-31T23:59:59Z: a four-digit year is all that HTTP can write.
const HTTP_DATE_WALL_S_MAX: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: `Date` has the one form that HTTP allows to be sent.
    #[test]
    fn dates_are_written_in_the_form_of_http() {
        assert_eq!(http_date(Wall(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(Wall(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
