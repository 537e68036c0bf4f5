//! A run: so many clients, so many certificates, and what it cost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::{Device, LoadError};

/// How a client behaves between two certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// One connection for all.
    KeptAlive,
    /// A full handshake for each.
    New,
}

/// What a run gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Certificates.
    pub issued: u64,
    /// Wall time of the whole run.
    pub elapsed: Duration,
    /// How long each answer took, in order.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    /// Certificates a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.issued as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that `share` of all answers stayed within.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(at.min(last)).copied().unwrap_or_default()
    }
}

/// Has the devices re-enroll, each in a thread of its own, until `count` certificates are issued.
///
/// # Errors
///
/// The first thing that was not a certificate.
#[expect(clippy::disallowed_methods, reason = "a load is measured by the clock")]
pub fn reenroll(
    devices: &mut [Device],
    count: u64,
    connections: Connections,
) -> Result<Outcome, LoadError> {
    let left = AtomicU64::new(count);
    let latencies = Mutex::new(Vec::new());
    let began = Instant::now();
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    let work = |device: &mut Device| -> Result<(), LoadError> {
        let mut own = Vec::new();
        while take().is_ok() {
            let asked = Instant::now();
            device.reenroll()?;
            own.push(asked.elapsed());
            if connections == Connections::New {
                device.hang_up();
            }
        }
        latencies.lock().map_err(|_| "a client panicked")?.append(&mut own);
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            devices.iter_mut().map(|device| scope.spawn(|| work(device))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client panicked")?)
    })?;
    let elapsed = began.elapsed();
    let mut latencies = latencies.into_inner().map_err(|_| "a client panicked")?;
    latencies.sort_unstable();
    Ok(Outcome { issued: latencies.len() as u64, elapsed, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_read_off_the_sorted_latencies() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let outcome = Outcome { issued: 100, elapsed: Duration::from_secs(2), latencies };
        assert_eq!(outcome.quantile(0.5), Duration::from_millis(51));
        assert_eq!(outcome.quantile(0.99), Duration::from_millis(100));
        assert_eq!(outcome.quantile(1.0), Duration::from_millis(100));
        assert!((outcome.rate() - 50.0).abs() < f64::EPSILON);
        assert_eq!(Outcome::default().quantile(0.5), Duration::ZERO);
    }
}
