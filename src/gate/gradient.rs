//! A limit from latency: as much at once as a server answers without making requests wait.
//!
//! What answers take when the server has room is the *baseline*. While they take about as long,
//! the limit grows by the square root of itself; once they take longer, by more than the
//! tolerance, it shrinks in proportion. It grows only while it is used: a quiet hour says nothing
//! of what a server can take. The baseline follows faster answers at once and slower ones over
//! minutes, so that a server that has become slower for good is believed. So that a long overload
//! is not taken for that, the limit is quartered for a moment every fifteen seconds of full use, and the
//! baseline measured anew. Pure: the time is an argument.

use std::time::{Duration, Instant};

use super::window::Measured;

/// Where a limit begins that knows nothing yet.
const FIRST: u32 = 20;
/// How much longer than the baseline answers may take.
const TOLERANCE: f64 = 1.3;
/// How much of the way to its target a limit goes in one step.
const SMOOTHING: f64 = 0.2;
/// One step takes at most this share of a limit.
const STEEPEST: f64 = 0.5;
/// What is left of a limit after something took too long.
const BACK_OFF: f64 = 0.9;
/// How much of the way to faster answers the baseline goes in one step.
const QUICK: f64 = 0.3;
/// Over this time it follows slower ones.
const SLOW: Duration = Duration::from_secs(300);
/// A pause counts for no more than this.
const LONGEST: Duration = Duration::from_secs(1);
/// After so much full use the baseline is measured anew.
const PROBE_AFTER: Duration = Duration::from_secs(15);
/// Already after so much while the baseline may be one of overload: at first, and while measuring
/// anew finds less.
const PROBE_SOON_AFTER: Duration = Duration::from_secs(2);

/// Between what a limit stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At least this.
    pub min: u32,
    /// At most this.
    pub max: u32,
}

/// A limit that finds itself.
#[derive(Debug, Clone)]
pub struct Gradient {
    bounds: Bounds,
    limit: f64,
    /// Seconds.
    baseline: Option<f64>,
    last: Option<Instant>,
    /// Full use since the last probe.
    used: Duration,
    probe: Probe,
}

/// Where measuring anew stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    No,
    /// Lowered; what was in before is leaving.
    Emptying,
    /// Lowered; what is measured now counts.
    Measuring,
}

impl Gradient {
    /// That knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        let first = FIRST.clamp(bounds.min, bounds.max.max(bounds.min));
        Gradient {
            bounds,
            limit: f64::from(first),
            baseline: None,
            last: None,
            used: PROBE_AFTER - PROBE_SOON_AFTER,
            probe: Probe::No,
        }
    }

    /// The same with other bounds.
    #[must_use]
    pub fn within(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self.limit = self.bounded(self.limit);
        self
    }

    /// The limit in force.
    pub fn limit(&self) -> u32 {
        let limit = match self.probe {
            Probe::No => self.limit,
            Probe::Emptying | Probe::Measuring => self.bounded(self.limit / 4.0),
        };
        // Bounded by two numbers of 32 bits.
        limit.round() as u32
    }

    fn bounded(&self, limit: f64) -> f64 {
        let (min, max) = (self.bounds.min.max(1), self.bounds.max);
        limit.clamp(f64::from(min), f64::from(max.max(min)))
    }

    /// Learns from a window; gives the limit from now on.
    pub fn update(&mut self, window: &Measured, now: Instant) -> u32 {
        let last = self.last.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(last).min(LONGEST);
        let full = f64::from(window.peak) * 2.0 >= self.limit;
        if let Some(took) = window.took {
            self.follow(took.as_secs_f64(), passed, full);
        } else if window.timed_out {
            self.limit = self.bounded(self.limit * BACK_OFF);
        }
        self.limit()
    }

    fn follow(&mut self, took: f64, passed: Duration, full: bool) {
        let baseline = *self.baseline.get_or_insert(took);
        match self.probe {
            Probe::Emptying => self.probe = Probe::Measuring,
            Probe::Measuring => {
                let less = took < baseline * 0.9;
                let soon = if less { PROBE_SOON_AFTER } else { PROBE_AFTER };
                self.baseline = Some(took);
                self.probe = Probe::No;
                self.used = PROBE_AFTER - soon;
            }
            Probe::No => {
                let share = if took < baseline {
                    QUICK
                } else {
                    passed.as_secs_f64() / SLOW.as_secs_f64()
                };
                let baseline = baseline + (took - baseline) * share;
                self.baseline = Some(baseline);
                self.move_limit(baseline, took, full);
                self.used += if full { passed } else { Duration::ZERO };
                if self.used >= PROBE_AFTER {
                    self.probe = Probe::Emptying;
                }
            }
        }
    }

    fn move_limit(&mut self, baseline: f64, took: f64, full: bool) {
        let gradient = (TOLERANCE * baseline / took.max(f64::MIN_POSITIVE)).clamp(STEEPEST, 1.0);
        let target = self.limit * gradient + self.limit.sqrt();
        if target < self.limit || full {
            let step = (target - self.limit) * SMOOTHING;
            self.limit = self.bounded(self.limit + step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    const BOUNDS: Bounds = Bounds { min: 2, max: 1000 };

    /// A server that does `room` things at once, each in 10 ms, and makes the others wait.
    struct Server {
        room: f64,
        alone: f64,
        chance: Chance,
    }

    impl Server {
        fn new(room: f64, seed: u64) -> Self {
            let chance = Chance::seeded(seed);
            let alone = 0.010;
            Server {
                room,
                alone,
                chance,
            }
        }

        /// With so much in flight, and up to a tenth of noise either way.
        fn takes(&self, in_flight: f64) -> Duration {
            let noise = 0.9 + self.chance.below(2_000) as f64 / 10_000.0;
            Duration::from_secs_f64(self.alone * (in_flight / self.room).max(1.0) * noise)
        }
    }

    /// Runs for so many seconds with `offered` clients who always ask; the limits along the way.
    fn run(g: &mut Gradient, server: &Server, offered: u32, from: Instant, secs: u64) -> Vec<u32> {
        let window = Duration::from_millis(100);
        let limits = (1..=secs * 10).map(|n| {
            let in_flight = g.limit().min(offered);
            let measured = Measured {
                took: Some(server.takes(in_flight.into())),
                peak: in_flight,
                timed_out: false,
            };
            g.update(&measured, from + window * u32::try_from(n).expect("few"))
        });
        limits.collect()
    }

    fn mean(limits: &[u32]) -> f64 {
        limits.iter().map(|n| f64::from(*n)).sum::<f64>() / limits.len() as f64
    }

    #[test]
    fn it_settles_a_little_above_what_the_server_does_at_once_and_stays_there_for_an_hour() {
        let start = crate::clock::now();
        for (seed, room) in [(1, 10.0), (2, 50.0), (3, 200.0)] {
            let (mut g, server) = (Gradient::new(BOUNDS), Server::new(room, seed));
            let limits = run(&mut g, &server, 100_000, start, 3600);
            for minute in limits[600..].chunks(600) {
                let mean = mean(minute);
                assert!(
                    mean > room * 0.95 && mean < room * 1.6 + 10.0,
                    "room {room}: {mean}"
                );
            }
        }
    }

    #[test]
    fn it_follows_a_server_that_loses_half_of_its_room_and_gets_it_back() {
        let start = crate::clock::now();
        let (mut g, mut server) = (Gradient::new(BOUNDS), Server::new(100.0, 4));
        let at = |secs| start + Duration::from_secs(secs);
        run(&mut g, &server, 100_000, start, 120);
        server.room = 50.0;
        let fewer = run(&mut g, &server, 100_000, at(120), 60);
        assert!(mean(&fewer[300..]) < 90.0, "{}", mean(&fewer[300..]));
        server.room = 100.0;
        let again = run(&mut g, &server, 100_000, at(180), 120);
        assert!(mean(&again[600..]) > 95.0, "{}", mean(&again[600..]));
    }

    #[test]
    fn a_server_that_is_slower_for_good_is_believed() {
        let start = crate::clock::now();
        let (mut g, mut server) = (Gradient::new(BOUNDS), Server::new(50.0, 5));
        run(&mut g, &server, 100_000, start, 120);
        server.alone = 0.040;
        let limits = run(
            &mut g,
            &server,
            100_000,
            start + Duration::from_secs(120),
            600,
        );
        let end = mean(&limits[5_000..]);
        assert!(end > 47.0 && end < 90.0, "{end}");
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let start = crate::clock::now();
        let (mut g, server) = (Gradient::new(BOUNDS), Server::new(100.0, 6));
        let limits = run(&mut g, &server, 5, start, 600);
        assert_eq!(limits.iter().max(), Some(&20));
    }

    #[test]
    fn silence_after_timeouts_lowers_it_to_its_bound_and_never_below() {
        let start = crate::clock::now();
        let mut g = Gradient::new(BOUNDS);
        let lost = Measured {
            took: None,
            peak: 20,
            timed_out: true,
        };
        for n in 1..100 {
            let limit = g.update(&lost, start + Duration::from_millis(100 * n));
            assert!(limit >= BOUNDS.min);
        }
        assert_eq!(g.limit(), BOUNDS.min);
        assert_eq!(g.within(Bounds { min: 7, max: 9 }).limit(), 7);
    }

    #[test]
    fn no_window_however_odd_takes_it_out_of_its_bounds() {
        let (start, chance) = (crate::clock::now(), Chance::seeded(9));
        let mut g = Gradient::new(BOUNDS);
        let mut now = start;
        for _ in 0..50_000 {
            now += Duration::from_millis(chance.below(2_000));
            let took = Duration::from_nanos(chance.next() >> chance.below(64));
            let window = Measured {
                took: (chance.below(5) > 0).then_some(took),
                peak: u32::try_from(chance.below(2_000)).expect("small"),
                timed_out: chance.below(7) == 0,
            };
            let limit = g.update(&window, now);
            assert!((BOUNDS.min..=BOUNDS.max).contains(&limit));
        }
    }
}
