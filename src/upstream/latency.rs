//! Smoothed latency of an endpoint as one worker sees it.
//!
//! Later samples count for more, by time and at least a little by number. A failure counts as
//! slow however fast it came, or an endpoint that refuses at once would attract all traffic. What
//! has not been heard of for long is slowly forgiven, so that a once slow endpoint is tried again.

use std::time::{Duration, Instant};

/// Over what time a sample loses most of its say.
const MEMORY: f64 = 5.0;
/// What a sample counts at least.
const LEAST: f64 = 0.05;
/// What a failure counts at least, and how slow it is taken to be at least.
const FAILURE: f64 = 0.3;
const FAILURE_NANOS: f64 = 1e9;

/// A smoothed latency.
#[derive(Debug, Default)]
pub(super) struct Latency(Option<(f64, Instant)>);

impl Latency {
    /// Counts an answer that took so long, or a failure.
    pub(super) fn observe(&mut self, took: Duration, failed: bool, now: Instant) {
        let nanos = took.as_nanos() as f64;
        let sample = if failed {
            nanos.max(FAILURE_NANOS)
        } else {
            nanos
        };
        self.0 = Some(match self.0 {
            None => (sample, now),
            Some((value, at)) => {
                let age = now.saturating_duration_since(at).as_secs_f64();
                let least = if failed { FAILURE } else { LEAST };
                let weight = (age / (age + MEMORY)).max(least);
                (value + (sample - value) * weight, now)
            }
        });
    }

    /// As it stands, in nanoseconds.
    pub(super) fn at(&self, now: Instant) -> Option<f64> {
        let (value, at) = self.0?;
        let age = now.saturating_duration_since(at).as_secs_f64();
        Some(value / (1.0 + age / MEMORY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_failure_makes_an_endpoint_slow_and_silence_forgives() {
        let now = crate::clock::now();
        let mut latency = Latency::default();
        latency.observe(Duration::from_millis(1), false, now);
        latency.observe(Duration::from_micros(10), true, now);
        let after = latency.at(now).expect("a value");
        assert!(after > 1e8, "{after}");
        let later = latency.at(now + Duration::from_secs(60)).expect("a value");
        assert!(later < after / 10.0);
    }

    #[test]
    fn a_tenfold_slowdown_shows_within_a_few_dozen_answers() {
        let now = crate::clock::now();
        let mut latency = Latency::default();
        latency.observe(Duration::from_millis(1), false, now);
        for _ in 0..40 {
            latency.observe(Duration::from_millis(10), false, now);
        }
        assert!(latency.at(now).expect("a value") > 8e6);
    }
}
