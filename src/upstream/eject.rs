//! Passive ejection, pure: how long an endpoint is left out, and whether it may be.
//!
//! An endpoint that fails `consecutive` times in a row gets no traffic for `base`, doubled at
//! each further ejection up to ten times `base`; after a calm as long as that cap it starts
//! afresh. At most `max_percent` of the endpoints are out at once and never the last usable one:
//! a cap here, beside the panic threshold, keeps one bad deployment from emptying an upstream.
//! Failures that the client caused are not brought here at all.

use std::time::Duration;

/// The settings of `eject`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Failures in a row.
    pub consecutive: u32,
    /// Length of the first ejection.
    pub base: Duration,
    /// At most this share is out at once, 1 to 100.
    pub max_percent: u8,
}

/// One ejection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejection {
    /// Which one in a series, from 1.
    pub nth: u32,
    /// For how long.
    pub length: Duration,
}

/// The longest ejection, in multiples of `base`.
const CAP: u32 = 10;

/// The next ejection after `before` earlier ones, `calm` after the end of the last.
pub fn next(rule: &Rule, before: u32, calm: Duration) -> Ejection {
    let longest = rule.base.saturating_mul(CAP);
    let before = if calm > longest { 0 } else { before };
    let times = 1u32.checked_shl(before.min(16)).unwrap_or(CAP).min(CAP);
    Ejection {
        nth: before.saturating_add(1),
        length: rule.base.saturating_mul(times),
    }
}

/// Whether one more endpoint may be ejected. `total`: endpoints there are; `ejected`: already
/// out; `usable`: what would be asked now, the candidate included. One may always go when there
/// are others and `max_percent` is not 0, else a small upstream would never eject.
pub fn may(rule: &Rule, total: usize, ejected: usize, usable: usize) -> bool {
    let allowed = (total * usize::from(rule.max_percent) / 100).max(1);
    rule.max_percent > 0 && usable > 1 && ejected < allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        consecutive: 5,
        base: Duration::from_secs(10),
        max_percent: 50,
    };

    #[test]
    fn ejections_double_up_to_ten_times_the_base() {
        let lengths: Vec<u64> = (0..20)
            .map(|n| next(&RULE, n, Duration::ZERO).length.as_secs())
            .collect();
        assert_eq!(lengths[..5], [10, 20, 40, 80, 100]);
        assert!(lengths[5..].iter().all(|s| *s == 100));
    }

    #[test]
    fn a_long_calm_starts_afresh() {
        let after = next(&RULE, 7, Duration::from_secs(101));
        assert_eq!((after.nth, after.length.as_secs()), (1, 10));
    }

    #[test]
    fn never_more_than_the_share_and_never_the_last_usable_one() {
        for total in 1..50 {
            let mut ejected = 0;
            while may(&RULE, total, ejected, total - ejected) {
                ejected += 1;
            }
            assert!(ejected < total, "{total}");
            assert!(ejected <= (total / 2).max(1), "{total}");
            assert!(total == 1 || ejected > 0, "{total}");
        }
    }
}
