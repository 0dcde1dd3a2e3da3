//! How many series a config can come to, for `weir check`.
//!
//! The worst case: every word of every closed list has been seen. Counted from the same lists
//! that `expose` walks; a test that touches every cell holds the two together.

use super::cache::{Evicted, Inserted, Purged, Refreshed, Used};
use super::handles::{
    AGE, BREAKER, CODES, ENDPOINT_STATES, LOOP, METHODS, PoolClose, REQUEST, Refused,
    ReloadOutcome, RetryDenied, SIZE, Skip, Violation, WAIT,
};
use crate::error::{Cause, Reason};
use crate::message::coding::Coding;
use crate::message::exchange::Step;
use crate::pressure;
use crate::pressure::config::Priority;

/// The most series that this many routes, limits, upstreams, listeners (one certificate each) and
/// workers can expose. The `_none` route that Weir itself counts is included.
pub fn series_estimate(
    routes: usize,
    limits: usize,
    upstreams: usize,
    listeners: usize,
    workers: usize,
) -> usize {
    (routes + 1) * route()
        + limits * limit()
        + upstreams * upstream()
        + listeners * listener()
        + workers * worker()
        + compression()
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
    let in_flight_waiting_and_bytes = 4;
    let histograms = 2 * histogram(REQUEST) + histogram(LOOP) + histogram(WAIT);
    let (errors, observed) = (Reason::ALL.len(), Reason::ALL.len());
    let degraded = Cause::ALL.len() * Step::ALL.len();
    let cache = Used::ALL.len() + histogram(AGE) + histogram(SIZE);
    let words = codes + methods + errors + observed + degraded + cache;
    words + in_flight_waiting_and_bytes + histograms
}

fn limit() -> usize {
    let (decisions, overflow, keys, capacity, evictions) = (3, 1, 1, 1, 1);
    decisions + overflow + keys + capacity + evictions
}

fn upstream() -> usize {
    let attempts = Reason::ALL.len() + 3;
    let histograms = histogram(REQUEST) + 3 * histogram(WAIT);
    // in flight, ejections, panic, pool waiting, budget, cap, refusals of breakers
    let single = 7;
    let (checks, pool_states, sources, outcomes) = (3, 3, 3, 2);
    let breaker = 2 * BREAKER.len();
    let words = ENDPOINT_STATES.len() + checks + pool_states + sources + outcomes + breaker;
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

fn compression() -> usize {
    // responses, bytes in and out, time, decoded
    let by_coding = 5;
    Coding::ALL.len() * by_coding + Skip::ALL.len()
}

fn process() -> usize {
    // generation, success, time, plans, two infos, draining; aborted by kind; access log; process_*
    let shed = Priority::ALL.len() * pressure::Cause::ALL.len();
    let ratios = pressure::Cause::ALL.len();
    let cache = Inserted::ALL.len() + Evicted::ALL.len() + Purged::ALL.len() + Refreshed::ALL.len();
    let what_is_stored = 3;
    ReloadOutcome::ALL.len() + 7 + 2 + 2 + 7 + shed + ratios + cache + what_is_stored
}
