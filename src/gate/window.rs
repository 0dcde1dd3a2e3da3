//! What is measured of a gate between two looks of its gradient.
//!
//! Sums that all workers add to; whoever first comes after the end of a window takes them and
//! begins the next. A sum that is taken while another adds to it is off by one sample, which
//! an average does not feel.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Ended;

/// A window lasts at least this long, and at least twice the time that answers take.
const LENGTH: Duration = Duration::from_millis(100);
/// And has at least this many answers.
const FEWEST: u32 = 10;

/// What a window came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The mean time to an answer; `None` if nothing was answered.
    pub took: Option<Duration>,
    /// The most that was in at once.
    pub peak: u32,
    /// Something took too long.
    pub timed_out: bool,
}

/// The window under way.
#[derive(Debug, Default)]
pub(super) struct Window {
    nanos: AtomicU64,
    answers: AtomicU32,
    peak: AtomicU32,
    timed_out: AtomicBool,
    /// When the first sample came: what times are counted from.
    began: Mutex<Option<Instant>>,
}

impl Window {
    /// Adds one; gives what the window came to, if this ends it.
    pub(super) fn add(&self, ended: Ended, inside: u32, now: Instant) -> Option<Measured> {
        match ended {
            Ended::Answered(took) => {
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.nanos.fetch_add(nanos, Relaxed);
                self.answers.fetch_add(1, Relaxed);
            }
            Ended::TimedOut => self.timed_out.store(true, Relaxed),
        }
        self.peak.fetch_max(inside, Relaxed);
        // Whoever finds another at it leaves it to them.
        let mut began = self.began.try_lock()?;
        let since = now.saturating_duration_since(*began.get_or_insert(now));
        let answers = self.answers.load(Relaxed);
        let enough = answers >= FEWEST || self.timed_out.load(Relaxed);
        if since < LENGTH || since < 2 * self.mean(answers) || !enough {
            return None;
        }
        *began = Some(now);
        let answers = self.answers.swap(0, Relaxed);
        let took = (answers > 0).then(|| self.mean(answers));
        self.nanos.store(0, Relaxed);
        Some(Measured {
            took,
            peak: self.peak.swap(0, Relaxed),
            timed_out: self.timed_out.swap(false, Relaxed),
        })
    }

    fn mean(&self, answers: u32) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed) / u64::from(answers.max(1)))
    }
}
