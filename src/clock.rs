//! The only place that asks what time it is.
//!
//! Time is tokio's, so that a test may pause and advance it; pure cores (balance, retry budget,
//! health, router) never call this and take `now` as an argument. Wall-clock time is for dates
//! that people and RFCs read, never for measuring.

use std::time::{Instant, SystemTime};

/// Monotonic now. About 25 ns; take it once and pass it on.
#[inline]
#[expect(clippy::disallowed_methods, reason = "the one clock")]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall-clock now, for dates.
#[expect(clippy::disallowed_methods, reason = "the one calendar")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
