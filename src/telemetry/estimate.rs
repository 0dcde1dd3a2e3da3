//! How many series a config can come to, for `weir check`.
//!
//! The worst case: every word of every closed list has been seen. Counted from the same lists
//! that `expose` walks; a test that touches every cell holds the two together.

use super::cache::{Evicted, Inserted, Purged, Refreshed, Used};
use super::handles::{
    AGE, CODES, ENDPOINT_STATES, LOOP, METHODS, PoolClose, REQUEST, Refused, ReloadOutcome,
    RetryDenied, SIZE, Violation, WAIT,
};
use crate::error::{Cause, Reason};
use crate::message::exchange::Step;

/// The most series that this many routes, upstreams, listeners (one certificate each) and workers
/// can expose. The `_none` route that Weir itself counts is included.
pub fn series_estimate(routes: usize, upstreams: usize, listeners: usize, workers: usize) -> usize {
    (routes + 1) * route()
        + upstreams * upstream()
        + listeners * listener()
        + workers * worker()
        + process()
}

fn histogram(bounds: &[u64]) -> usize {
    // the open bucket, the count, the sum
    bounds.len() + 3
}

fn route() -> usize {
    let classes = 5;
    let codes = CODES.len() + classes;
    let methods = METHODS.len() + 1;
    let in_flight_and_bytes = 3;
    let histograms = 2 * histogram(REQUEST) + histogram(LOOP);
    let (errors, observed) = (Reason::ALL.len(), Reason::ALL.len());
    let degraded = Cause::ALL.len() * Step::ALL.len();
    let cache = Used::ALL.len() + histogram(AGE) + histogram(SIZE);
    codes + methods + errors + observed + degraded + in_flight_and_bytes + histograms + cache
}

fn upstream() -> usize {
    let attempts = Reason::ALL.len() + 3;
    let histograms = histogram(REQUEST) + 3 * histogram(WAIT);
    // in flight, ejections, panic, pool waiting, budget
    let single = 5;
    let (checks, pool_states, sources, outcomes) = (3, 3, 3, 2);
    let words = ENDPOINT_STATES.len() + checks + pool_states + sources + outcomes;
    attempts + histograms + single + words + PoolClose::ALL.len() + RetryDenied::ALL.len()
}

fn listener() -> usize {
    let (connections, protocols, certificates) = (1, 3, 1);
    let words = connections + protocols + certificates;
    words + Refused::ALL.len() + Violation::ALL.len() + histogram(WAIT)
}

fn worker() -> usize {
    // connections, requests, generation, accepts, busy
    5 + histogram(LOOP)
}

fn process() -> usize {
    // generation, success, time, plans, two infos, draining; aborted by kind; access log; process_*
    let cache = Inserted::ALL.len() + Evicted::ALL.len() + Purged::ALL.len() + Refreshed::ALL.len();
    let what_is_stored = 3;
    ReloadOutcome::ALL.len() + 7 + 2 + 2 + 7 + cache + what_is_stored
}
