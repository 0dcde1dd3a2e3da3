//! One try in the numbers: from the choice of its endpoint to the end of its answer.
//!
//! A try is counted once. One that fails, or is answered with 5xx, is counted when that is known;
//! any other when its answer has ended, since a body may still break off, and an endpoint that
//! breaks off every body is no better than one that refuses. What the client broke counts against
//! nobody. Here, and nowhere else, traffic changes how an endpoint stands.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admit::{Tickets, back_pressure};
use super::answer::Ending;
use super::breaker::Outcome;
use super::choose::Slot;
use super::eject;
use super::endpoint::Standing;
use super::send::{Sender, Stale};
use crate::clock;
use crate::error::{GatewayError, Reason, Side};
use crate::message::Response;

/// One try. Dropped before its headers, it was cancelled; dropped after them, it was answered.
pub(super) struct Record {
    sender: Arc<Sender>,
    slot: Arc<Slot>,
    started: Instant,
    /// The breakers' leave, until they know how it ended.
    tickets: Tickets,
    /// From the last of the request to the response headers.
    waited: Duration,
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
    pub(super) fn begin(
        sender: &Arc<Sender>,
        slot: &Arc<Slot>,
        tickets: Tickets,
        started: Instant,
    ) -> Self {
        Record {
            sender: Arc::clone(sender),
            slot: Arc::clone(slot),
            started,
            tickets,
            waited: Duration::ZERO,
            state: State::Asking,
        }
    }

    /// The response headers are here, or will never be. Gives how long that took.
    pub(super) fn headers(
        &mut self,
        result: &Result<(Response, Option<Ending>), GatewayError>,
    ) -> Duration {
        let now = clock::now();
        let took = now - self.started;
        let cells = self.slot.pool.cells();
        cells.attempt_duration.observe(took);
        self.state = State::Counted;
        match result {
            Ok((response, _)) if response.status().is_server_error() => {
                cells.server_error.inc();
                self.bad(back_pressure(response), now);
            }
            Ok((response, ending)) => {
                self.slot.pool.observe(took, false, now);
                self.state = State::Answered;
                // What the client took to send its body is not the upstream's slowness.
                let upload = ending.as_ref().and_then(|e| e.upload.as_ref());
                let asked = upload.map_or(self.started, |u| u.moved());
                self.waited = now.saturating_duration_since(asked);
                if let Some(stay_away) = back_pressure(response) {
                    self.tell(Outcome::Bad(stay_away), now);
                }
            }
            Err(error) => {
                cells.failed.inc(error.reason());
                if is_its_fault(error) {
                    self.bad(None, now);
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
            self.bad(None, clock::now());
        }
    }

    /// Tells the breakers, once.
    fn tell(&mut self, outcome: Outcome, now: Instant) {
        let tickets = std::mem::take(&mut self.tickets);
        let (upstream, endpoint) = (&self.sender.upstream, &self.slot.endpoint);
        upstream.tell(tickets, endpoint, outcome, self.sender.pools.worker, now);
    }

    /// Counts a failure of the endpoint, which may eject it or open a breaker. It may have asked
    /// to be left alone for a while.
    fn bad(&mut self, stay_away: Option<Duration>, now: Instant) {
        self.tell(Outcome::Bad(stay_away.unwrap_or_default()), now);
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
        let outcome = match self.state {
            State::Asking => {
                cells.cancelled.inc();
                Outcome::Nothing
            }
            State::Answered => {
                cells.ok.inc();
                self.slot.endpoint.standing.succeeded();
                Outcome::Good(self.waited)
            }
            State::Counted => Outcome::Nothing,
        };
        if self.tickets.is_held() {
            self.tell(outcome, clock::now());
        }
    }
}
