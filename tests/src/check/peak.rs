//! The busiest hour issues at most three times the mean.
//!
//! Each new certificate counts, for whatever reason it was asked for: nothing is left out. The same
//! certificate sent again does not count.
//!
//! Chance alone makes peaks in a small fleet: with one certificate an hour on average, an hour with
//! four is no fault of anybody. So the hour is stretched until [`MEAN_MIN`] certificates fall into
//! it on average; at 5000 devices with certificates of thirty days that is the hour itself. Windows
//! do not overlap and begin at time zero.

use super::{Check, PerDevice};
use crate::event_log::{Entry, Fact, Mark};
use crate::sim::clock::{At, HOUR_MS};

/// Certificates in a window, on average, at least.
pub const MEAN_MIN: u64 = 9;

/// The busiest window may issue so many times the mean.
pub const PEAK_TO_MEAN_MAX: u64 = 3;

/// The checker.
#[derive(Debug, Default)]
pub struct Peak {
    last: PerDevice<Option<Mark>>,
    hours: Vec<u64>,
    /// How many certificates were issued.
    pub issued: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busiest {
    /// How long a window is, hours.
    pub window_hours: u64,
    /// Certificates in the busiest one.
    pub peak: u64,
    /// When that begins.
    pub at: At,
    /// The peak over the mean, in hundredths.
    pub to_mean_percent: u64,
}

impl Peak {
    /// The busiest window of a run that lasted until `end`; `None` if nothing was issued.
    #[must_use]
    pub fn busiest(&self, end: At) -> Option<Busiest> {
        let hours = (end.0 / HOUR_MS).max(1);
        if self.issued == 0 {
            return None;
        }
        let window_hours = (MEAN_MIN * hours).div_ceil(self.issued).max(1);
        let size = usize::try_from(window_hours).unwrap_or(usize::MAX);
        let windows = self.hours.chunks(size).map(|window| window.iter().sum::<u64>());
        let (index, peak) = windows
            .zip(0..)
            .map(|(sum, index)| (index, sum))
            .max_by_key(|(index, sum): &(u64, u64)| (*sum, u64::MAX - index))?;
        Some(Busiest {
            window_hours,
            peak,
            at: At(index * window_hours * HOUR_MS),
            to_mean_percent: peak * hours * 100 / (self.issued * window_hours),
        })
    }
}

impl Check for Peak {
    const NAME: &'static str = "peak";

    fn see(&mut self, entry: &Entry) -> Result<(), String> {
        let (Some(device), Fact::Issued { leaf, .. }) = (entry.device, entry.fact) else {
            return Ok(());
        };
        if self.last.of(device).replace(leaf.serial) == Some(leaf.serial) {
            return Ok(());
        }
        let hour = usize::try_from(entry.at.0 / HOUR_MS).unwrap_or(usize::MAX);
        if hour >= self.hours.len() {
            self.hours.resize(hour + 1, 0);
        }
        self.hours[hour] += 1;
        self.issued += 1;
        Ok(())
    }

    fn end(&mut self, at: At) -> Result<(), (At, String)> {
        match self.busiest(at) {
            Some(Busiest { window_hours, peak, at, to_mean_percent })
                if to_mean_percent > 100 * PEAK_TO_MEAN_MAX =>
            {
                let why = format!(
                    "{peak} certificates in {window_hours} h, {to_mean_percent} % of the mean"
                );
                Err((at, why))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MEAN_MIN, Peak};
    use crate::check::Check;
    use crate::check::made_up::leaf;
    use crate::event_log::{Entry, Fact, Mark};
    use crate::sim::clock::{At, HOUR_MS};

    /// A run of 100 hours with so many certificates in each.
    fn run(per_hour: impl Fn(u64) -> u64) -> Peak {
        let mut checker = Peak::default();
        let mut serial = 0;
        for hour in 0..100 {
            for _ in 0..per_hour(hour) {
                serial += 1;
                let fact = Fact::Issued { request: Mark(serial), leaf: leaf(serial, 1) };
                let entry = Entry { at: At(hour * HOUR_MS), device: Some(1), fact };
                checker.see(&entry).unwrap();
                checker.see(&entry).unwrap();
            }
        }
        checker
    }

    const END: At = At(100 * HOUR_MS);

    #[test]
    fn a_level_load_passes_and_its_repetitions_do_not_count() {
        let mut level = run(|_| MEAN_MIN);
        assert_eq!(level.issued, 100 * MEAN_MIN);
        assert_eq!(level.busiest(END).unwrap().to_mean_percent, 100);
        assert_eq!(level.end(END), Ok(()));
    }

    #[test]
    fn one_hour_with_four_times_the_mean_is_seen() {
        let mut peaked = run(|hour| if hour == 50 { 4 * MEAN_MIN + 4 } else { MEAN_MIN });
        assert!(peaked.end(END).is_err());
        assert_eq!(peaked.busiest(END).unwrap().at, At(50 * HOUR_MS));
    }

    #[test]
    fn the_window_of_a_small_fleet_is_longer() {
        let small = run(|hour| u64::from(hour % 2 == 0));
        assert_eq!(small.busiest(END).unwrap().window_hours, 2 * MEAN_MIN);
        assert_eq!(Peak::default().busiest(END), None);
    }
}
