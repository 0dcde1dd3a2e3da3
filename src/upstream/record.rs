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
use super::choose::{Slot, stand};
use super::eject;
use super::endpoint::Endpoint;
use super::retry;
use super::send::{ClientLate, Sender, Stale};
use crate::clock;
use crate::error::{GatewayError, Reason, Side};
use crate::message::Response;

/// One try. Dropped before its headers, it was cancelled; dropped after them, it was answered.
pub(super) struct Record {
    pub(super) sender: Arc<Sender>,
    pub(super) slot: Arc<Slot>,
    started: Instant,
    /// When its headers came.
    pub(super) came: Instant,
    /// The breakers' leave, until they know how it ended.
    tickets: Tickets,
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
        sender: Arc<Sender>,
        slot: Arc<Slot>,
        tickets: Tickets,
        started: Instant,
    ) -> Self {
        Record {
            sender,
            slot,
            started,
            came: started,
            tickets,
            state: State::Asking,
        }
    }

    /// The response headers are here, or will never be. Gives how long that took.
    pub(super) fn headers(
        &mut self,
        result: &Result<(Response, Option<Ending>), GatewayError>,
    ) -> Duration {
        let now = clock::now();
        self.came = now;
        let took = now - self.started;
        let cells = self.slot.pool.cells();
        cells.attempt_duration.observe(took);
        self.state = State::Counted;
        match result {
            Ok((response, _)) if response.status().is_server_error() => {
                cells.server_error.inc();
                let stay_away = back_pressure(response).unwrap_or_default();
                self.bad(Outcome::Bad(stay_away), now);
            }
            Ok((response, ending)) => {
                self.slot.pool.observe(took, false, now);
                self.state = State::Answered;
                // What the client took to send its body is not the upstream's slowness.
                let upload = ending.as_ref().and_then(|e| e.upload.as_ref());
                let asked = upload.map_or(self.started, |u| u.moved());
                let waited = now.saturating_duration_since(asked);
                match back_pressure(response) {
                    Some(stay_away) => self.end(Outcome::Bad(stay_away), now),
                    None => self.tell(Outcome::Answered(waited), now),
                }
            }
            Err(error) => {
                cells.failed.inc(error.reason());
                if is_its_fault(error) {
                    self.bad(Outcome::Bad(Duration::ZERO), now);
                }
            }
        }
        took
    }

    /// The answer is whole, as of `now`.
    pub(super) fn whole(mut self, now: Instant) {
        self.settle(now);
    }

    /// The body broke off, or stalled.
    pub(super) fn broken(mut self, why: Reason) {
        if matches!(self.state, State::Answered) {
            self.state = State::Counted;
            self.slot.pool.cells().failed.inc(why);
            retry::answered(&self.sender.upstream, self.slot.pool.cells(), why);
            self.bad(Outcome::Broken, clock::now());
        }
    }

    /// Tells the breakers how it ended, once.
    fn end(&mut self, outcome: Outcome, now: Instant) {
        self.tell(outcome, now);
        self.tickets = Tickets::default();
    }

    fn tell(&self, outcome: Outcome, now: Instant) {
        let tickets = self.tickets;
        let (upstream, endpoint) = (&self.sender.upstream, &self.slot.endpoint);
        upstream.tell(tickets, endpoint, outcome, self.sender.pools.worker, now);
    }

    /// Counts a failure of the endpoint, which may eject it or open a breaker.
    fn bad(&mut self, outcome: Outcome, now: Instant) {
        self.end(outcome, now);
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
        let count = |what: &dyn Fn(&Endpoint) -> bool| {
            let endpoints = set.endpoints.iter();
            endpoints.filter(|e| what(e)).count()
        };
        let ejected = count(&|e| e.standing.is_ejected(now));
        let usable = count(&|e| stand(upstream, e, now).usable);
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
        && !error
            .source()
            .is_some_and(|s| s.is::<Stale>() || s.is::<ClientLate>())
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.tickets.is_held() || !matches!(self.state, State::Counted) {
            self.settle(clock::now());
        }
    }
}

impl Record {
    /// Counts what has not been counted, and tells the breakers.
    fn settle(&mut self, now: Instant) {
        let cells = self.slot.pool.cells();
        let outcome = match self.state {
            State::Asking => {
                cells.cancelled.inc();
                Outcome::Nothing
            }
            State::Answered => {
                cells.ok.inc();
                self.slot.endpoint.standing.succeeded();
                Outcome::Whole
            }
            State::Counted => Outcome::Nothing,
        };
        self.state = State::Counted;
        if self.tickets.is_held() {
            self.end(outcome, now);
        }
    }
}
