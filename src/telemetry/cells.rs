//! Counters that cost a load and a store.
//!
//! Every number has one writer: the worker that owns the block of cells it stands in, or the
//! control thread for the last block. So there is no atomic read-modify-write on the request path
//! and no shared cache line; a scrape sums the blocks with relaxed loads. A [`Cell`] that two
//! threads wrote would lose counts, never anything worse.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that only grows and that many threads write: for what is rare.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls. Its blocks may be negative one by one; their sum is the truth.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    /// One less.
    #[inline]
    pub fn dec(&self) {
        self.0.store(self.0.load(Relaxed) - 1, Relaxed);
    }

    /// This and nothing else.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// As it stands.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Times or sizes in fixed buckets, in nanoseconds or bytes inside.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Of one unit as it is shown: a second, a byte.
    unit: f64,
    buckets: Box<[Cell]>,
    sum: Cell,
}

impl Histogram {
    /// Of times, with these upper bounds, ascending; one more bucket takes the rest.
    pub fn new(bounds: &'static [u64]) -> Self {
        Histogram::of(bounds, 1e9)
    }

    /// Of sizes.
    pub fn sizes(bounds: &'static [u64]) -> Self {
        Histogram::of(bounds, 1.0)
    }

    fn of(bounds: &'static [u64], unit: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Cell::default()).collect();
        Histogram {
            unit,
            bounds,
            buckets,
            sum: Cell::default(),
        }
    }

    /// Counts a time.
    #[inline]
    pub fn observe(&self, time: Duration) {
        self.observe_value(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts nanoseconds or bytes.
    #[inline]
    pub fn observe_value(&self, value: u64) {
        let bucket = self
            .bounds
            .iter()
            .position(|b| value <= *b)
            .unwrap_or(self.bounds.len());
        self.buckets[bucket].inc();
        self.sum.add(value);
    }

    /// A number of the inside as it is shown: in seconds or bytes.
    pub fn shown(&self, value: u64) -> f64 {
        value as f64 / self.unit
    }

    /// The upper bounds, in nanoseconds or bytes.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// The count of each bucket by itself, the open one last.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Cell::get)
    }

    /// Sum, in nanoseconds or bytes.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// One block of cells for each worker, and a last one for the control thread. The blocks stand on
/// cache lines of their own.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[Aligned<T>]>);

#[derive(Debug)]
#[repr(align(128))]
struct Aligned<T>(T);

impl<T> PerWorker<T> {
    /// Blocks for `workers` workers and the control thread.
    pub fn new(workers: usize, block: impl Fn() -> T) -> Self {
        PerWorker((0..=workers).map(|_| Aligned(block())).collect())
    }

    /// The block that only worker `index` writes.
    #[inline]
    pub fn of(&self, index: usize) -> &T {
        &self.0[index].0
    }

    /// The block that only the control thread writes.
    pub fn control(&self) -> &T {
        &self.0[self.0.len() - 1].0
    }

    /// All blocks, to be summed.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|block| &block.0)
    }

    /// The sum of one number over all blocks.
    pub fn sum<N: std::iter::Sum>(&self, number: impl Fn(&T) -> N) -> N {
        self.iter().map(number).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_falls_into_the_bucket_of_that_bound() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        for nanos in [0, 1_000, 1_001, 2_000, 2_001, 99_999] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(histogram.sum(), 106_001);
    }

    #[test]
    fn a_gauge_raised_by_one_worker_and_lowered_by_another_sums_to_nothing() {
        let gauges = PerWorker::new(2, Gauge::default);
        gauges.of(0).inc();
        gauges.of(1).dec();
        gauges.control().inc();
        assert_eq!(gauges.sum(Gauge::get), 1);
    }
}
