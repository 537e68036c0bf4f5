//! Schedules and limits: pure functions of their arguments.
//!
//! What may be configured is in [`Policy`]; what follows from it and from a certificate is a
//! [`Schedule`]. The spread of a fleet's renewals is drawn *once per certificate*, from the device
//! id and the serial number. Drawn anew at each check, the earliest of many draws would win and
//! the whole fleet would crowd at the early edge.

use crate::device_id::DeviceId;
use crate::event::Failure;
use crate::record::{Identity, KeySource, Serial, Slot};
use crate::sha256::sha256;
use crate::time::{Validity, Wall};

/// A certificate is renewed at this share of its lifetime, plus or minus [`SPREAD_SHARE`].
const RENEWAL_SHARE: Share = Share { of: 2, in_parts: 3 };

/// Half the width of the interval that a fleet's renewals are spread over.
const SPREAD_SHARE: Share = Share { of: 1, in_parts: 12 };

/// No hint delays a renewal into the last part of a certificate's life.
const EMERGENCY_SHARE: Share = Share { of: 1, in_parts: 10 };

/// No availability target renews before this share: a certificate must be worth its issuance.
const EARLIEST_SHARE: Share = Share { of: 1, in_parts: 3 };

/// The first retry of anything waits this long.
pub const RETRY_WAIT_MS_MIN: u32 = 1_000;

/// No retry waits longer than a day, so that a healed fleet is whole within a day.
pub const RETRY_WAIT_MS_MAX: u32 = 24 * HOUR_MS;

/// Without a valid identity nothing is more urgent; an hour keeps a broken fleet off the CA.
pub const RETRY_WAIT_URGENT_MS_MAX: u32 = HOUR_MS;

/// Trouble on the device itself (storage, key store) is looked at again at least this often.
pub const RETRY_WAIT_LOCAL_MS_MAX: u32 = HOUR_MS / 12;

/// Advice is asked for again after this long when its refusal will not pass by waiting
/// (RFC 9773 §4.3.3).
pub const CONSULT_WAIT_MS_MAX: u32 = 6 * HOUR_MS;

/// A revoked device asks this often whether an operator has relented.
pub const QUARANTINE_WAIT_MS: u32 = 24 * HOUR_MS;

/// A peer's Retry-After is believed between these two, seconds.
pub const RETRY_AFTER_S_MIN: u32 = 1;
/// The longer of the two.
pub const RETRY_AFTER_S_MAX: u32 = 24 * 3600;

/// The machine looks at everything again at least this often, whatever it waits for.
pub const IDLE_MS_MAX: u64 = 24 * HOUR_MS as u64;

/// How often a request, or the identity that came of it, may be refused before it is given up and
/// a new one is drawn. A request can be spent without our knowing: issued, the answer lost, run out.
pub const REFUSALS_MAX: u8 = 8;

/// The floor moves this far beyond the durable one before it alone is worth a write to flash.
pub const FLOOR_STEP_S: u64 = 7 * 24 * 3600;

/// 2^17 s is more than a day: no wait grows beyond, and no counter either.
pub const FAILURES_MAX: u8 = 17;

const HOUR_MS: u32 = 3_600_000;

/// Whether a renewal makes a new key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rekey {
    /// A new key for each certificate.
    #[default]
    Always,
    /// The same key for the device's whole life.
    Never,
}

/// What may be configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// When this software was built: it is not earlier than that.
    pub build_time: Wall,
    /// Whether a renewal makes a new key.
    pub rekey: Rekey,
    /// The device must be able to stay offline for so long at any time, seconds; zero for no wish.
    pub availability_target_s: u64,
}

impl Policy {
    /// Where the key for the next identity comes from.
    #[must_use]
    pub fn key_source(&self, active: Option<Slot>) -> KeySource {
        match (self.rekey, active) {
            (Rekey::Never, Some(_)) => KeySource::Other,
            (Rekey::Always, _) | (Rekey::Never, None) => KeySource::Fresh,
        }
    }
}

/// The provisioner's suggestion when to renew (RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// First second.
    pub start: Wall,
    /// Last second; after `start`.
    pub end: Wall,
}

impl Window {
    /// A window with an inside; `None` for one that ends at or before its start.
    #[must_use]
    pub fn new(start: Wall, end: Wall) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }
}

/// When a certificate's renewal is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The renewal is due from here on.
    pub renew_at: Wall,
    /// The certificate's last second.
    pub not_after: Wall,
}

impl Schedule {
    /// The schedule of one certificate. The provisioner's window overrides both ways, within the
    /// certificate's life and never into its last tenth.
    #[must_use]
    pub fn new(
        policy: &Policy,
        device: &DeviceId,
        identity: &Identity,
        window: Option<Window>,
    ) -> Self {
        let Validity { not_before, not_after } = identity.validity;
        let lifetime_s = identity.validity.lifetime_s();
        let emergency = not_after.minus_s(EMERGENCY_SHARE.of_s(lifetime_s));
        let planned = match window {
            Some(window) => hinted(device, &identity.serial, window),
            None => own_plan(policy, device, identity),
        };
        Self { renew_at: planned.clamp(not_before, emergency.max(not_before)), not_after }
    }
}

/// `not_before + lifetime × (2/3 ± spread)`, earlier where the availability target asks for it.
fn own_plan(policy: &Policy, device: &DeviceId, identity: &Identity) -> Wall {
    let Validity { not_before, not_after } = identity.validity;
    let lifetime_s = identity.validity.lifetime_s();
    let spread_s = SPREAD_SHARE.of_s(lifetime_s);
    let from = not_before.plus_s(RENEWAL_SHARE.of_s(lifetime_s)).minus_s(spread_s);
    let plan = from.plus_s(draw(device, &identity.serial, b"spread", 2 * spread_s));
    if policy.availability_target_s == 0 {
        return plan;
    }
    let earliest = not_before.plus_s(EARLIEST_SHARE.of_s(lifetime_s));
    plan.min(not_after.minus_s(policy.availability_target_s)).max(earliest)
}

/// A uniformly drawn instant inside the window, the same at every look at the same window.
fn hinted(device: &DeviceId, serial: &Serial, window: Window) -> Wall {
    window.start.plus_s(draw(device, serial, b"window", window.end.s_since(window.start)))
}

/// A number from 0 to `up_to`, both included, that this device and certificate always draw.
fn draw(device: &DeviceId, serial: &Serial, purpose: &[u8], up_to: u64) -> u64 {
    let device = device.as_str().as_bytes();
    let digest = sha256(&[b"fleetcert draw ", purpose, &[0], device, &[0], serial]);
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    scale(u64::from_be_bytes(head), up_to)
}

/// Maps a uniform 64-bit number onto 0 ..= `up_to`.
fn scale(uniform: u64, up_to: u64) -> u64 {
    let product = u128::from(uniform) * (u128::from(up_to) + 1);
    // The high half of a 64 × 64 bit product is below the second factor.
    u64::try_from(product >> 64).unwrap_or(up_to)
}

/// Maps the upper half of a uniform 64-bit number onto 0 ..= `up_to`: for waits.
fn drawn(uniform: u64, up_to: u32) -> u32 {
    let product = (uniform >> 32) * (u64::from(up_to) + 1);
    // The high half of a 32 × 32 bit product is below the second factor.
    u32::try_from(product >> 32).unwrap_or(up_to)
}

/// How urgent the request for a certificate is: the ceiling of its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// There is no usable identity, or nobody knows whether there is.
    Urgent,
    /// The identity in use is good for so many seconds more.
    Slack {
        /// Seconds to the end of its validity.
        remaining_s: u64,
    },
}

impl Urgency {
    /// No wait is longer than an eighth of what is left, so that about eight tries remain; and
    /// none is so short a fleet that was cut off would come back at one instant.
    #[must_use]
    pub fn wait_ms_max(self) -> u32 {
        match self {
            Self::Urgent => RETRY_WAIT_URGENT_MS_MAX,
            Self::Slack { remaining_s } => {
                let remaining_s = u32::try_from(remaining_s).unwrap_or(u32::MAX);
                remaining_s.saturating_mul(1000 / 8).clamp(RETRY_WAIT_MS_MIN, RETRY_WAIT_MS_MAX)
            }
        }
    }
}

/// The wait before the next try, milliseconds: exponential in the number of failures so far, the
/// upper half of it drawn, capped by `wait_ms_max`. `uniform` is a uniform random number.
#[must_use]
pub fn backoff_ms(failures: u8, wait_ms_max: u32, uniform: u64) -> u32 {
    let exponent = u32::from(failures.saturating_sub(1).min(FAILURES_MAX));
    let whole = (RETRY_WAIT_MS_MIN << exponent).min(wait_ms_max.max(RETRY_WAIT_MS_MIN));
    whole / 2 + drawn(uniform, whole - whole / 2)
}

/// Failures in a row that may be bad luck: a lost message, a provisioner that restarts. Their waits
/// grow from a second and take a quarter of a minute together.
pub const BAD_LUCK_FAILURES_MAX: u8 = 4;

/// The wait before a provisioner that was not reached is asked for a certificate again,
/// milliseconds.
///
/// While the identity in use is good there is no hurry, and after some failures in a row the
/// provisioner is away for everybody. Waits that only grew as long as the outage already lasts would
/// bring most of those that fell due in it back in its first hour. So the fifth try and all later
/// ones are spread over three quarters of the ceiling at once.
#[must_use]
pub fn request_backoff_ms(failures: u8, urgency: Urgency, uniform: u64) -> u32 {
    let whole_ms = urgency.wait_ms_max();
    match urgency {
        Urgency::Slack { .. } if failures > BAD_LUCK_FAILURES_MAX => {
            whole_ms / 4 + drawn(uniform, whole_ms - whole_ms / 4)
        }
        Urgency::Slack { .. } | Urgency::Urgent => backoff_ms(failures, whole_ms, uniform),
    }
}

/// The wait before the next try after `failure`, milliseconds. A peer's Retry-After is obeyed
/// within its limits, a tenth of it added at random; what time alone will not mend is tried
/// seldom, however urgent.
#[must_use]
pub fn retry_wait_ms(failure: &Failure, failures: u8, wait_ms_max: u32, uniform: u64) -> u32 {
    if let Some(asked_s) = failure.retry_after_s() {
        let asked_ms = 1000 * asked_s.clamp(RETRY_AFTER_S_MIN, RETRY_AFTER_S_MAX);
        return (asked_ms + drawn(uniform, asked_ms / 10)).min(RETRY_WAIT_MS_MAX);
    }
    backoff_ms(failures, wait_ms_max, uniform)
}

/// A share of a lifetime, in whole parts.
struct Share {
    of: u64,
    in_parts: u64,
}

impl Share {
    fn of_s(&self, whole_s: u64) -> u64 {
        (whole_s / self.in_parts).saturating_mul(self.of)
            + (whole_s % self.in_parts) * self.of / self.in_parts
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::record::CertificateBytes;

    const START: Wall = Wall(1_800_000_000);
    const DAY_S: u64 = 86_400;

    fn device(n: u32) -> DeviceId {
        let mut text = heapless::String::<16>::new();
        core::fmt::write(&mut text, format_args!("d{n}")).unwrap();
        DeviceId::parse(&text).unwrap()
    }

    fn identity(serial: &[u8], lifetime_s: u64) -> Identity {
        Identity {
            serial: Serial::from_slice(serial).unwrap(),
            validity: Validity { not_before: START, not_after: START.plus_s(lifetime_s) },
            spki_sha256: [0; 32],
            certificate: CertificateBytes::new(),
        }
    }

    fn renew_day(policy: &Policy, lifetime_days: u64, n: u32) -> f64 {
        let identity = identity(&n.to_be_bytes(), lifetime_days * DAY_S);
        let schedule = Schedule::new(policy, &device(n), &identity, None);
        schedule.renew_at.s_since(START) as f64 / DAY_S as f64
    }

    #[test]
    fn renewals_of_a_fleet_spread_evenly_over_two_thirds_plus_minus_a_twelfth() {
        let days: Vec<f64> = (0..2_000).map(|n| renew_day(&Policy::default(), 120, n)).collect();
        assert!(days.iter().all(|day| (70.0..=90.0).contains(day)));
        for bucket in 0..10 {
            let from = 70.0 + 2.0 * f64::from(bucket);
            let count = days.iter().filter(|day| (from..from + 2.0).contains(*day)).count();
            assert!((140..=260).contains(&count), "{count} renewals from day {from} on");
        }
    }

    #[test]
    fn the_draw_depends_on_device_serial_and_purpose_and_on_nothing_else() {
        let serial = Serial::from_slice(&[1, 2]).unwrap();
        let other = Serial::from_slice(&[1, 3]).unwrap();
        let draw_of =
            |n, serial: &Serial, purpose: &[u8]| draw(&device(n), serial, purpose, u64::MAX - 1);
        let one = draw_of(1, &serial, b"spread");
        assert_eq!(one, draw_of(1, &serial, b"spread"));
        assert_ne!(one, draw_of(2, &serial, b"spread"));
        assert_ne!(one, draw_of(1, &other, b"spread"));
        assert_ne!(one, draw_of(1, &serial, b"window"));
        // The value itself is a contract: a later release must not move a fleet's renewals.
        assert_eq!(draw(&device(1), &serial, b"spread", 999_999), DRAW_OF_DEVICE_ONE);
    }

    const DRAW_OF_DEVICE_ONE: u64 = 502_180;

    #[test]
    fn scaling_reaches_both_ends_and_no_further() {
        assert_eq!(scale(0, 9), 0);
        assert_eq!(scale(u64::MAX, 9), 9);
        assert_eq!(scale(1 << 63, 9), 5);
        assert_eq!(scale((1 << 63) - 1, 9), 4);
        assert_eq!(scale(u64::MAX, 0), 0);
        assert_eq!(scale(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!((drawn(0, 9), drawn(u64::MAX, 9), drawn(u64::MAX, u32::MAX)), (0, 9, u32::MAX));
        assert_eq!((drawn(1 << 63, 9), drawn((1 << 63) - 1, 9), drawn(u64::MAX, 0)), (5, 4, 0));
    }

    #[test]
    fn an_availability_target_renews_earlier_but_not_before_a_third() {
        let target =
            |days: u64| Policy { availability_target_s: days * DAY_S, ..Policy::default() };
        for n in 0..50 {
            assert_eq!(renew_day(&target(60), 120, n), 60.0);
            assert_eq!(renew_day(&target(100), 120, n), 40.0);
            assert_eq!(renew_day(&target(10), 120, n), renew_day(&target(0), 120, n));
        }
    }

    #[test]
    fn a_hint_overrides_both_ways_inside_the_window_and_never_into_the_last_tenth() {
        let policy = Policy { availability_target_s: 100 * DAY_S, ..Policy::default() };
        let identity = identity(&[7], 100 * DAY_S);
        let renew = |from: u64, to: u64| {
            let window = Window::new(START.plus_s(from * DAY_S), START.plus_s(to * DAY_S));
            assert!(window.is_some());
            Schedule::new(&policy, &device(1), &identity, window).renew_at.s_since(START) / DAY_S
        };
        assert!((10..=12).contains(&renew(10, 12)));
        assert!((85..=89).contains(&renew(85, 89)));
        assert_eq!(renew(95, 200), 90, "the emergency window");
        let past = Window::new(Wall(5), Wall(6));
        assert_eq!(Schedule::new(&policy, &device(1), &identity, past).renew_at, START);
        let windows: Vec<u64> = (0..40).map(|n| 40 + n % 3).collect();
        assert!(windows.iter().all(|from| (*from..=from + 5).contains(&renew(*from, from + 5))));
    }

    #[test]
    fn a_window_needs_an_inside() {
        assert_eq!(Window::new(START, START), None);
        assert_eq!(Window::new(START.plus_s(1), START), None);
        let window = Window { start: START, end: START.plus_s(1) };
        assert_eq!(Window::new(START, START.plus_s(1)), Some(window));
    }

    #[test]
    fn a_certificate_of_twenty_seconds_and_an_inverted_one_have_schedules_too() {
        let short = Schedule::new(&Policy::default(), &device(1), &identity(&[1], 20), None);
        assert!((11..=15).contains(&short.renew_at.s_since(START)));
        assert_eq!(short.not_after, START.plus_s(20));
        let mut inverted = identity(&[1], 20);
        inverted.validity.not_after = START.minus_s(20);
        let schedule = Schedule::new(&Policy::default(), &device(1), &inverted, None);
        assert_eq!(schedule.renew_at, START);
    }

    #[test]
    fn shares_are_exact_and_do_not_overflow() {
        assert_eq!(RENEWAL_SHARE.of_s(90), 60);
        assert_eq!(RENEWAL_SHARE.of_s(20), 13);
        assert_eq!(RENEWAL_SHARE.of_s(2), 1);
        assert_eq!(SPREAD_SHARE.of_s(23), 1);
        assert_eq!(EMERGENCY_SHARE.of_s(19), 1);
        assert!(RENEWAL_SHARE.of_s(u64::MAX) > u64::MAX / 2);
    }

    #[test]
    fn waits_double_from_a_second_up_to_the_cap_and_keep_their_lower_half() {
        for (failures, whole_ms) in [(0, 1_000), (1, 1_000), (2, 2_000), (3, 4_000), (10, 512_000)]
        {
            assert_eq!(backoff_ms(failures, RETRY_WAIT_MS_MAX, 0), whole_ms / 2);
            assert_eq!(backoff_ms(failures, RETRY_WAIT_MS_MAX, u64::MAX), whole_ms);
        }
        assert_eq!(backoff_ms(255, RETRY_WAIT_MS_MAX, u64::MAX), RETRY_WAIT_MS_MAX);
        assert_eq!(backoff_ms(18, u32::MAX, u64::MAX), 131_072_000);
        assert_eq!(backoff_ms(255, u32::MAX, u64::MAX), 131_072_000);
        assert_eq!(backoff_ms(9, 0, u64::MAX), RETRY_WAIT_MS_MIN);
        assert_eq!(backoff_ms(9, 10_001, 0), 5_000);
    }

    #[test]
    fn urgency_caps_the_wait_at_an_eighth_of_what_is_left() {
        assert_eq!(Urgency::Urgent.wait_ms_max(), 3_600_000);
        let slack = |remaining_s| Urgency::Slack { remaining_s }.wait_ms_max();
        assert_eq!(slack(80), 10_000);
        assert_eq!(slack(0), 1_000);
        assert_eq!(slack(5 * DAY_S), 54_000_000);
        assert_eq!(slack(u64::MAX), 86_400_000);
    }

    #[test]
    fn a_retry_after_is_clamped_and_never_undercut() {
        let wait = |asked_s, uniform| {
            let failure = Failure::Pending { retry_after_s: asked_s };
            retry_wait_ms(&failure, 1, 5_000, uniform)
        };
        assert_eq!(wait(0, 0), 1_000);
        assert_eq!(wait(600, 0), 600_000);
        assert_eq!(wait(600, u64::MAX), 660_000);
        assert_eq!(wait(u32::MAX, 0), 86_400_000);
        assert_eq!(wait(u32::MAX, u64::MAX), 86_400_000);
        let unasked = Failure::Busy { retry_after_s: None };
        assert_eq!(retry_wait_ms(&unasked, 3, 5_000, u64::MAX), 4_000);
        assert_eq!(retry_wait_ms(&unasked, 9, 5_000, u64::MAX), 5_000);
    }

    #[test]
    fn the_limits_are_these() {
        const HOURS_MS: u32 = 3_600_000;
        assert_eq!(RETRY_WAIT_MS_MAX, 24 * HOURS_MS);
        assert_eq!(RETRY_WAIT_URGENT_MS_MAX, HOURS_MS);
        assert_eq!(RETRY_WAIT_LOCAL_MS_MAX, 300_000);
        assert_eq!(CONSULT_WAIT_MS_MAX, 6 * HOURS_MS);
        assert_eq!(QUARANTINE_WAIT_MS, 24 * HOURS_MS);
        assert_eq!(IDLE_MS_MAX, 86_400_000);
        assert_eq!(RETRY_AFTER_S_MAX, 86_400);
        assert_eq!(FLOOR_STEP_S, 604_800);
        const { assert!(RETRY_WAIT_MS_MIN << FAILURES_MAX >= RETRY_WAIT_MS_MAX) };
    }

    #[test]
    fn a_first_key_is_always_fresh() {
        let never = Policy { rekey: Rekey::Never, ..Policy::default() };
        assert_eq!(never.key_source(None), KeySource::Fresh);
        assert_eq!(never.key_source(Some(Slot::B)), KeySource::Other);
        assert_eq!(Policy::default().key_source(Some(Slot::B)), KeySource::Fresh);
    }

    // Goal: bad luck is over in seconds; an outage spreads those that fall due in it over the better
    // part of a day, and without an identity nothing is spread.
    #[test]
    fn a_provisioner_that_stays_away_is_asked_again_at_a_drawn_part_of_the_whole_ceiling() {
        let slack = Urgency::Slack { remaining_s: 10 * DAY_S };
        for failures in 1..=BAD_LUCK_FAILURES_MAX {
            let wait_ms = request_backoff_ms(failures, slack, u64::MAX);
            assert_eq!(wait_ms, RETRY_WAIT_MS_MIN << (failures - 1));
        }
        let failures = BAD_LUCK_FAILURES_MAX + 1;
        assert_eq!(request_backoff_ms(failures, slack, 0), RETRY_WAIT_MS_MAX / 4);
        assert_eq!(request_backoff_ms(failures, slack, u64::MAX), RETRY_WAIT_MS_MAX);
        let short = Urgency::Slack { remaining_s: 4 };
        assert_eq!(request_backoff_ms(failures, short, u64::MAX), RETRY_WAIT_MS_MIN);
        assert_eq!(request_backoff_ms(failures, Urgency::Urgent, u64::MAX), 16_000);
    }
}
