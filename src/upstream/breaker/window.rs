//! Counts of the last while, in a ring of buckets of equal length. Pure: `now` is an argument.
//!
//! A bucket knows when it began, so that one from an earlier round, or from before the window was
//! given another length, is never taken for a young one.

/// Buckets in a window.
const BUCKETS: u64 = 10;

/// How tries ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

impl Counts {
    pub(super) fn plus(self, other: Counts) -> Counts {
        Counts {
            total: self.total + other.total,
            failed: self.failed + other.failed,
            slow: self.slow + other.slow,
        }
    }

    /// The share of failures; 0 of nothing.
    pub(super) fn error_ratio(self) -> f64 {
        share(self.failed, self.total)
    }

    /// The share of slow ones.
    pub(super) fn slow_ratio(self) -> f64 {
        share(self.slow, self.total)
    }
}

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// One worker's counts. Lengths and times in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Window([Bucket; BUCKETS as usize]);

#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    begun: u64,
    counts: Counts,
}

impl Window {
    /// Adds to the bucket of `now`.
    pub(super) fn add(&mut self, counts: Counts, length: u64, now: u64) {
        let each = (length / BUCKETS).max(1);
        let nth = now / each;
        let bucket = &mut self.0[(nth % BUCKETS) as usize];
        if bucket.begun != nth * each {
            *bucket = Bucket {
                begun: nth * each,
                counts: Counts::default(),
            };
        }
        bucket.counts = bucket.counts.plus(counts);
    }

    /// All that is no older than the window.
    pub(super) fn sum(&self, length: u64, now: u64) -> Counts {
        let young = |b: &&Bucket| b.begun <= now && b.begun + length > now;
        let young = self.0.iter().filter(young);
        young.fold(Counts::default(), |sum, b| sum.plus(b.counts))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Window::default();
    }
}
