//! The retry budget: retries as a share of the requests of the last ten seconds, over all
//! workers, above a floor of ten.
//!
//! A budget keeps retries from multiplying the load of an upstream that fails (M04). Each worker
//! counts into a window of its own under a lock nobody else takes on the request path; only a
//! retry, which is rare, sums over all of them. Two workers that ask at once may both be given
//! the last one: at most one retry too many per worker.

use std::time::Instant;

use parking_lot::Mutex;

/// Seconds the window spans.
const SECONDS: usize = 10;
/// Retries that are always allowed within a window.
const FLOOR: u64 = 10;

/// The budget of one upstream.
#[derive(Debug)]
pub struct Budget {
    start: Instant,
    windows: Box<[Aligned]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned(Mutex<Window>);

impl Budget {
    /// For this many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        let windows = (0..workers.max(1)).map(|_| Aligned::default()).collect();
        Budget {
            start: now,
            windows,
        }
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    /// Counts a request of a worker.
    pub fn request(&self, worker: usize, now: Instant) {
        let second = self.second(now);
        self.window(worker).lock().slot(second).requests += 1;
    }

    /// Takes one retry; `false` when there is none left. `ratio` is 0 to 1.
    pub fn take(&self, worker: usize, ratio: f64, now: Instant) -> bool {
        let (requests, retries) = self.sums(now);
        if retries >= allowance(requests, ratio) {
            return false;
        }
        let second = self.second(now);
        self.window(worker).lock().slot(second).retries += 1;
        true
    }

    /// What is left, 0 to 1.
    pub fn left(&self, ratio: f64, now: Instant) -> f64 {
        let (requests, retries) = self.sums(now);
        let allowed = allowance(requests, ratio);
        allowed.saturating_sub(retries) as f64 / allowed as f64
    }

    fn window(&self, worker: usize) -> &Mutex<Window> {
        &self.windows[worker % self.windows.len()].0
    }

    fn sums(&self, now: Instant) -> (u64, u64) {
        let second = self.second(now);
        let each = self.windows.iter().map(|w| w.0.lock().sums(second));
        each.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }
}

fn allowance(requests: u64, ratio: f64) -> u64 {
    FLOOR + (requests as f64 * ratio) as u64
}

#[derive(Debug, Default)]
struct Window([Slot; SECONDS]);

#[derive(Debug, Default, Clone, Copy)]
struct Slot {
    second: u64,
    requests: u64,
    retries: u64,
}

impl Window {
    fn slot(&mut self, second: u64) -> &mut Slot {
        let slot = &mut self.0[second as usize % SECONDS];
        if slot.second != second {
            *slot = Slot {
                second,
                ..Slot::default()
            };
        }
        slot
    }

    fn sums(&self, second: u64) -> (u64, u64) {
        let young = |s: &&Slot| s.second + SECONDS as u64 > second;
        let slots = self.0.iter().filter(young);
        slots.fold((0, 0), |(a, b), s| (a + s.requests, b + s.retries))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::upstream::balance::Random;

    #[test]
    fn retries_never_pass_the_share_of_any_ten_seconds_above_the_floor() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let start = crate::clock::now();
            let budget = Budget::new(4, start);
            let mut taken: Vec<u64> = Vec::new();
            let mut asked: Vec<u64> = Vec::new();
            let mut at = 0;
            for _ in 0..5_000 {
                at += random.bits() % 8;
                let now = start + Duration::from_millis(at);
                let worker = (random.bits() % 4) as usize;
                budget.request(worker, now);
                asked.push(at / 1000);
                if random.unit() < 0.9 && budget.take(worker, 0.2, now) {
                    taken.push(at / 1000);
                    let young = |s: &&u64| **s + 10 > at / 1000;
                    let retries = taken.iter().rev().take_while(young).count() as f64;
                    let requests = asked.iter().rev().take_while(young).count() as f64;
                    assert!(retries <= 10.0 + requests * 0.2, "{seed} at {at}");
                }
            }
            assert!(taken.len() >= 500, "the budget is given out");
        }
    }

    #[test]
    fn the_floor_holds_without_traffic_and_comes_back_after_the_window() {
        let start = crate::clock::now();
        let budget = Budget::new(1, start);
        let granted = (0..100).filter(|_| budget.take(0, 0.0, start)).count();
        assert_eq!(granted, 10);
        assert_eq!(budget.left(0.0, start), 0.0);
        let later = start + Duration::from_secs(10);
        assert_eq!(budget.left(0.0, later), 1.0);
        assert!(budget.take(0, 0.0, later));
    }
}
