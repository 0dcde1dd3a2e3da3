//! One try in the numbers: from the choice of its endpoint to the end of its answer.
//!
//! A try is counted once. One that fails, or is answered with 5xx, is counted when that is known;
//! any other when its answer has ended, since a body may still break off, and an endpoint that
//! breaks off every body is no better than one that refuses. What the client broke counts against
//! nobody. Here, and nowhere else, traffic changes how an endpoint stands.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::choose::Slot;
use super::eject;
use super::endpoint::Standing;
use super::retry;
use super::send::{Sender, Stale};
use crate::clock;
use crate::error::{GatewayError, Reason, Side};

/// One try. Dropped before its headers, it was cancelled; dropped after them, it was answered.
pub(super) struct Record {
    sender: Arc<Sender>,
    slot: Arc<Slot>,
    started: Instant,
    state: State,
}

enum State {
    /// No headers yet.
    Asking,
    /// Good headers; the body is under way.
    Answered,
    /// Counted.
    Counted,
}

impl Record {
    pub(super) fn begin(sender: &Arc<Sender>, slot: &Arc<Slot>, started: Instant) -> Self {
        Record {
            sender: Arc::clone(sender),
            slot: Arc::clone(slot),
            started,
            state: State::Asking,
        }
    }

    /// The response headers are here, or will never be. Gives how long that took.
    pub(super) fn headers(&mut self, result: Result<StatusCode, &GatewayError>) -> Duration {
        let now = clock::now();
        let took = now - self.started;
        let cells = self.slot.pool.cells();
        cells.attempt_duration.observe(took);
        self.state = State::Counted;
        match result {
            Ok(status) if status.is_server_error() => {
                cells.server_error.inc();
                self.bad(now);
            }
            Ok(_) => {
                self.slot.pool.observe(took, false, now);
                self.state = State::Answered;
            }
            Err(error) => {
                cells.failed.inc(error.reason());
                if is_its_fault(error) {
                    self.bad(now);
                }
            }
        }
        took
    }

    /// The body broke off, or stalled.
    pub(super) fn broken(mut self, why: Reason) {
        if matches!(self.state, State::Answered) {
            self.state = State::Counted;
            self.slot.pool.cells().failed.inc(why);
            retry::answered(&self.sender.upstream, self.slot.pool.cells(), why);
            self.bad(clock::now());
        }
    }

    /// Counts a failure of the endpoint, which may eject it.
    fn bad(&self, now: Instant) {
        let pool = &self.slot.pool;
        pool.observe(now - self.started, true, now);
        let upstream = &self.sender.upstream;
        let Some(rule) = &upstream.rule else {
            return;
        };
        let standing = &self.slot.endpoint.standing;
        let Some(ejection) = standing.failed(now, rule) else {
            return;
        };
        let set = upstream.live.set();
        let count = |what: &dyn Fn(&Standing) -> bool| {
            set.endpoints.iter().filter(|e| what(&e.standing)).count()
        };
        let ejected = count(&|s| s.is_ejected(now));
        let usable = count(&|s| s.is_usable(now));
        if eject::may(rule, set.endpoints.len(), ejected, usable) {
            standing.eject(now, &ejection);
            upstream.live.changed();
            pool.cells().ejections.inc();
            tracing::warn!(
                upstream = %upstream.name,
                endpoint = %self.slot.endpoint.address,
                seconds = ejection.length.as_secs_f64(),
                "endpoint ejected"
            );
        }
    }
}

/// A failure says something about the endpoint: it is neither the client's doing nor our own cap,
/// nor one idle connection that was closed.
fn is_its_fault(error: &GatewayError) -> bool {
    error.reason().side() == Side::Upstream
        && error.reason() != Reason::ConnectionLimitReached
        && !error.source().is_some_and(|s| s.is::<Stale>())
}

impl Drop for Record {
    fn drop(&mut self) {
        let cells = self.slot.pool.cells();
        match self.state {
            State::Asking => cells.cancelled.inc(),
            State::Answered => {
                cells.ok.inc();
                self.slot.endpoint.standing.succeeded();
            }
            State::Counted => {}
        }
    }
}
