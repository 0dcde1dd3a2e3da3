//! The time of a limit, counted in what it admits: pure.
//!
//! A limit's clock advances by its rate, so that one admission is always [`UNIT`] of its time. A
//! changed rate lets the same clock go on with another slope: what a client has used keeps its
//! meaning, and nothing that is stored need be written again. The clock begins above 0 (0 is an
//! empty cell of the table) and never goes back. `now` is an argument.

use std::time::{Duration, Instant};

use crate::units::Rate;

/// One admission. The clock stops at 2^62, at the largest rate after two years,
/// from where nothing can overflow; at one a day it is a second fine.
pub(super) const UNIT: u64 = 1 << 16;

/// The last time there is.
const END: u64 = 1 << 62;

/// Fraction bits of the slope: of 2^58 at the largest rate, and one part in a million at one a day.
const FRACTION: u32 = 52;

/// A clock with its slope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    since: Instant,
    at: u64,
    /// Of the clock's time in a nanosecond.
    slope: u64,
}

impl Pace {
    /// A clock that begins now.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Pace {
            since: now,
            at: UNIT,
            slope: slope(rate),
        }
    }

    /// The same clock, from now on at another rate.
    pub(super) fn turned(self, rate: Rate, now: Instant) -> Self {
        Pace {
            since: now,
            at: self.at(now),
            slope: slope(rate),
        }
    }

    /// What the clock shows.
    pub(super) fn at(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.since).as_nanos();
        let nanos = u128::from(u64::try_from(nanos).unwrap_or(u64::MAX));
        let passed = (nanos * u128::from(self.slope)) >> FRACTION;
        u64::try_from(passed)
            .unwrap_or(END)
            .saturating_add(self.at)
            .min(END)
    }

    /// How long until the clock has advanced by `units`, wherever between two of them it stands;
    /// never too short.
    pub(super) fn until(&self, units: u64) -> Duration {
        if units == 0 {
            return Duration::ZERO;
        }
        let nanos = (u128::from(units) << FRACTION).div_ceil(u128::from(self.slope));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn slope(rate: Rate) -> u64 {
    let scaled = (u128::from(rate.count()) * u128::from(UNIT)) << FRACTION;
    // upwards: who waits for as long as the rate says finds the clock there
    let slope = scaled.div_ceil(rate.period().as_nanos());
    u64::try_from(slope).expect("a rate is at most a million a second")
}

/// How a key stands: pure arithmetic over its theoretical arrival time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// What is left of the burst.
    pub(super) left: u32,
    /// Of the clock's time, until one more is; 0 when all is there.
    pub(super) next: u64,
}

impl Standing {
    /// Of a key whose theoretical arrival time is `tat` (0: it never came).
    pub(super) fn of(tat: u64, now: u64, burst: u32) -> Self {
        let used = tat.saturating_sub(now);
        let whole = u64::from(burst) * UNIT;
        let left = whole.saturating_sub(used) / UNIT;
        let after = u64::from(burst).saturating_sub(left + 1) * UNIT;
        Standing {
            left: u32::try_from(left).expect("no more is left than the burst"),
            next: used.saturating_sub(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        Rate::parse(text).expect("a rate")
    }

    #[test]
    fn the_clock_advances_by_one_admission_in_the_time_of_one() {
        let now = crate::clock::now();
        for (text, hours) in [("1000000/s", 1), ("100/s", 24), ("7/m", 24), ("1/d", 240)] {
            let rate = rate(text);
            let pace = Pace::new(rate, now);
            let passed = Duration::from_secs(hours * 3600);
            let units = pace.at(now + passed) - pace.at(now);
            let exact = f64::from(rate.count()) * passed.as_secs_f64() * UNIT as f64
                / rate.period().as_secs_f64();
            let error = (units as f64 - exact).abs() / exact;
            assert!(error < 2e-5, "{text}: {units} for {exact}");
        }
    }

    #[test]
    fn waiting_for_as_long_as_it_says_is_never_too_short() {
        let now = crate::clock::now();
        for text in ["1000000/s", "333/s", "7/m", "10/h", "1/d"] {
            let pace = Pace::new(rate(text), now);
            for (start, units) in [(0, 1), (17, UNIT), (99_999, 3 * UNIT + 7)] {
                let start = now + Duration::from_nanos(start);
                let later = start + pace.until(units);
                assert!(pace.at(later) >= pace.at(start) + units, "{text} {units}");
            }
        }
    }

    #[test]
    fn a_turned_clock_goes_on_and_a_clock_never_ends_in_an_overflow() {
        let now = crate::clock::now();
        let slow = Pace::new(rate("1/s"), now);
        let then = now + Duration::from_secs(10);
        let fast = slow.turned(rate("100/s"), then);
        assert_eq!(fast.at(then), slow.at(then));
        let second = then + Duration::from_secs(1);
        let error = (fast.at(second) - fast.at(then)).abs_diff(100 * UNIT);
        assert!(error <= 1, "{error}");
        assert_eq!(
            fast.at(now),
            fast.at(then),
            "a time before it counts as its begin"
        );
        let far = now + Duration::from_secs(20 * 365 * 86_400);
        assert_eq!(Pace::new(rate("1000000/s"), now).at(far), END);
    }

    #[test]
    fn what_is_left_and_when_one_more_is() {
        let of = |used: u64, burst| {
            let standing = Standing::of(1_000_000 + used, 1_000_000, burst);
            (standing.left, standing.next)
        };
        assert_eq!(of(0, 2), (2, 0));
        assert_eq!(of(UNIT / 2, 2), (1, UNIT / 2));
        assert_eq!(of(UNIT, 2), (1, UNIT));
        assert_eq!(of(2 * UNIT, 2), (0, UNIT));
        assert_eq!(of(2 * UNIT, 1), (0, 2 * UNIT), "the burst was made smaller");
        assert_eq!(Standing::of(0, 5, 3), Standing { left: 3, next: 0 });
    }
}
