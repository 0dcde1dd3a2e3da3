//! Memory that bodies take before they are stored, and after that as long as somebody reads them.
//!
//! Beside the store's own bound, so that neither many fetches at once nor slow readers of them take
//! more than a share of it. Who gets no room passes the body on and stores nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much there is, and how much is taken.
#[derive(Debug)]
pub struct Budget {
    most: u64,
    taken: AtomicU64,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(most: u64) -> Self {
        let taken = AtomicU64::new(0);
        Budget { most, taken }
    }

    /// Takes so many bytes if there is room. The first to come always gets some.
    pub fn take(&self, bytes: u64) -> bool {
        let before = self.taken.fetch_add(bytes, Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= self.most;
        if !fits {
            self.give(bytes);
        }
        fits
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Relaxed);
    }

    /// Takes so many bytes, room or not, until the hold is dropped.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Hold {
        self.taken.fetch_add(bytes, Relaxed);
        Hold(Arc::clone(self), bytes)
    }
}

/// Bytes that are taken while it lives.
#[derive(Debug)]
pub struct Hold(Arc<Budget>, u64);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.give(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_there_again() {
        let budget = Arc::new(Budget::new(10));
        assert!(budget.take(20), "the first one");
        assert!(!budget.take(1));
        budget.give(20);
        assert!(budget.take(5) && budget.take(5) && !budget.take(1));
        let hold = budget.hold(7);
        budget.give(10);
        assert!(budget.take(3) && !budget.take(1));
        drop(hold);
        assert!(budget.take(7));
    }
}
