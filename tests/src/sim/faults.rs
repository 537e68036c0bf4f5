//! What goes wrong, how often, and for how long.
//!
//! A [`Faults`] profile is data: every fault has its rate here and nowhere else. Rates are per
//! device and mean interval; durations are drawn from a [`Span`], most of them short and a few very
//! long. All faults end when the world heals, and none begins after.

use super::clock::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use super::random::{Dice, Ppm, Span};

/// A named set of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The request never arrives.
    pub request_lost: Ppm,
    /// The request is served and the answer never arrives.
    pub answer_lost: Ppm,
    /// The answer arrives after the device gave up waiting.
    pub answer_late: Ppm,
    /// The request is served twice, and both answers arrive.
    pub doubled: Ppm,
    /// Power fails at a daily action: at its beginning, in it, or at its end.
    pub cut_daily: Ppm,
    /// The same for an action that makes, asks for, proves or erases something.
    pub cut_rare: Ppm,
    /// Between two troubles of one device, on average; zero: it has none.
    pub trouble_interval_ms: u64,
    /// Between two outages of the provisioner, on average; zero: there are none.
    pub provisioner_interval_ms: u64,
    /// How long the provisioner is away.
    pub provisioner_span: Span,
    /// Between two outages of the broker, on average; zero: there are none.
    pub broker_interval_ms: u64,
    /// How long the broker is away, or refuses everybody.
    pub broker_span: Span,
    /// Between two partitions of a whole site, on average; zero: there are none.
    pub site_interval_ms: u64,
    /// How long a site is cut off.
    pub site_span: Span,
    /// How many in a million devices are revoked in the course of the run.
    pub revoked: Ppm,
    /// How many in a million devices are decommissioned in the course of the run.
    pub decommissioned: Ppm,
    /// Between two commands to renew for one device, on average; zero: there are none.
    pub command_interval_ms: u64,
}

/// Something that happens to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The wall clock is set wrong.
    Clock,
    /// One copy of the record is damaged, and the device restarts.
    Damage,
    /// The file system is full or read-only.
    Disk,
    /// A key is lost, and the device restarts.
    KeyLoss,
    /// The key store does not answer.
    KeyStore,
    /// No network.
    Partition,
    /// No power.
    Power,
    /// Asleep.
    Suspend,
}

/// Troubles with their weights and durations. Weeks without network or power outlive a
/// certificate; a lost key needs an operator and is rare.
const TROUBLES: [(Trouble, u64, Span); 8] = [
    (Trouble::Clock, 20, span(MINUTE_MS, 7 * DAY_MS)),
    (Trouble::Damage, 10, span(SECOND_MS, MINUTE_MS)),
    (Trouble::Disk, 15, span(MINUTE_MS, 2 * DAY_MS)),
    (Trouble::KeyLoss, 2, span(SECOND_MS, MINUTE_MS)),
    (Trouble::KeyStore, 15, span(MINUTE_MS, DAY_MS)),
    (Trouble::Partition, 15, span(MINUTE_MS, 40 * DAY_MS)),
    (Trouble::Power, 15, span(MINUTE_MS, 60 * DAY_MS)),
    (Trouble::Suspend, 15, span(MINUTE_MS, 5 * DAY_MS)),
];

/// Devices that share a network.
pub const SITE_LEN: u32 = 5;

const NEVER: Span = span(SECOND_MS, SECOND_MS);

const fn span(shortest_ms: u64, longest_ms: u64) -> Span {
    Span { shortest_ms, longest_ms }
}

impl Faults {
    /// The names of the profiles, for `--faults`.
    pub const NAMES: [&str; 3] = ["none", "default", "harsh"];

    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        request_lost: Ppm(0),
        answer_lost: Ppm(0),
        answer_late: Ppm(0),
        doubled: Ppm(0),
        cut_daily: Ppm(0),
        cut_rare: Ppm(0),
        trouble_interval_ms: 0,
        provisioner_interval_ms: 0,
        provisioner_span: NEVER,
        broker_interval_ms: 0,
        broker_span: NEVER,
        site_interval_ms: 0,
        site_span: NEVER,
        revoked: Ppm(0),
        decommissioned: Ppm(0),
        command_interval_ms: 0,
    };

    /// A bad neighbourhood: each device has a trouble every two months, power fails twice a year
    /// in the middle of something, the provisioner is away every three months for up to half a day.
    pub const DEFAULT: Self = Self {
        request_lost: Ppm(10_000),
        answer_lost: Ppm(5_000),
        answer_late: Ppm(5_000),
        doubled: Ppm(5_000),
        cut_daily: Ppm(1_000),
        cut_rare: Ppm(20_000),
        trouble_interval_ms: 60 * DAY_MS,
        provisioner_interval_ms: 90 * DAY_MS,
        provisioner_span: span(HOUR_MS, 12 * HOUR_MS),
        broker_interval_ms: 60 * DAY_MS,
        broker_span: span(HOUR_MS, DAY_MS),
        site_interval_ms: 10 * DAY_MS,
        site_span: span(HOUR_MS, 21 * DAY_MS),
        revoked: Ppm(4_000),
        decommissioned: Ppm(4_000),
        command_interval_ms: 400 * DAY_MS,
    };

    /// As bad as it may get while the fleet must still survive: one message in five is lost, power
    /// fails at every sixth rare action, the provisioner is away every month for up to a week.
    pub const HARSH: Self = Self {
        request_lost: Ppm(100_000),
        answer_lost: Ppm(100_000),
        answer_late: Ppm(50_000),
        doubled: Ppm(100_000),
        cut_daily: Ppm(20_000),
        cut_rare: Ppm(150_000),
        trouble_interval_ms: 12 * DAY_MS,
        provisioner_interval_ms: 30 * DAY_MS,
        provisioner_span: span(HOUR_MS, 7 * DAY_MS),
        broker_interval_ms: 20 * DAY_MS,
        broker_span: span(HOUR_MS, 5 * DAY_MS),
        site_interval_ms: 5 * DAY_MS,
        site_span: span(HOUR_MS, 40 * DAY_MS),
        revoked: Ppm(30_000),
        decommissioned: Ppm(30_000),
        command_interval_ms: 60 * DAY_MS,
    };

    /// The profile of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::NONE),
            "default" => Some(Self::DEFAULT),
            "harsh" => Some(Self::HARSH),
            _ => None,
        }
    }

    /// The name of a profile; a made-up one is "custom".
    #[must_use]
    pub fn name(&self) -> &'static str {
        match *self {
            Self::NONE => "none",
            Self::DEFAULT => "default",
            Self::HARSH => "harsh",
            _ => "custom",
        }
    }
}

/// The next trouble and how long it lasts, milliseconds.
pub fn trouble(dice: &mut Dice) -> (Trouble, u64) {
    let all: u64 = TROUBLES.iter().map(|(_, weight, _)| weight).sum();
    let mut drawn = dice.below(all);
    for (trouble, weight, span) in TROUBLES {
        match drawn.checked_sub(weight) {
            Some(rest) => drawn = rest,
            None => return (trouble, dice.span_ms(span)),
        }
    }
    (Trouble::Power, MINUTE_MS)
}

/// The wait for something that happens every `interval_ms` on average; `None`: never.
pub fn wait_ms(dice: &mut Dice, interval_ms: u64) -> Option<u64> {
    (interval_ms > 0).then(|| dice.below(2 * interval_ms))
}

/// What `--help` says of the faults.
pub const HELP: &str = "\
Faults (--faults none|default|harsh), all drawn from the seed:
  messages    lost before or after the provisioner served them, late, doubled
  power       cut at any action: before it, in it (a save stops between any two file
              operations; the copy being written may be torn), after it; and for up to 60 days
  record      one of two copies damaged; file system full or read-only for up to 2 days
  keys        key store silent for up to a day; a key lost (an operator then approves)
  clocks      no wall clock, one that starts in 1970, drift, NTP minutes after boot;
              steps to 1970 and by ten years either way for up to 7 days; suspend
  network     a device cut off for up to 40 days, a site for up to 21 (harsh: 40)
  provisioner away for up to half a day (harsh: 7 days)
  broker      away, or refusing everybody because its CRL expired, up to a day (harsh: 5 days)
  operators   revoke, decommission, command renewals, approve hours after they were asked
In the last part of a run (25 days, or a quarter of a short run) everything is healed.";

#[cfg(test)]
mod tests {
    use super::{Faults, TROUBLES, trouble};
    use crate::sim::random::Dice;

    #[test]
    fn every_profile_is_found_by_its_name() {
        for name in Faults::NAMES {
            assert_eq!(Faults::named(name).map(|faults| faults.name()), Some(name));
        }
        assert_eq!(Faults::named("calm"), None);
    }

    // Goal: no trouble is listed that never comes.
    #[test]
    fn every_trouble_comes() {
        let mut dice = Dice::new(1, 0);
        let drawn: Vec<_> = (0..2_000).map(|_| trouble(&mut dice).0).collect();
        for (expected, _, span) in TROUBLES {
            assert!(drawn.contains(&expected), "{expected:?} never came");
            assert!(span.shortest_ms < span.longest_ms);
        }
    }
}
