//! What the breakers say of a try before it is made, and what they are told of it afterwards.
//!
//! Two may have a say: the upstream's, before an endpoint is chosen, and the endpoint's. Each gives
//! a ticket that comes back exactly once, with an outcome. A change of state is logged and counted
//! here; one of an endpoint's makes every worker look at the endpoints again. A breaker in observe
//! mode goes through all of it and lets everything pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{RETRY_AFTER, UPGRADE};
use http::{HeaderMap, StatusCode};

use super::Upstream;
use super::breaker::{Asked, Breaker, BreakerStatus, Change, Outcome, Rule, State, Ticket};
use super::endpoint::Endpoint;
use crate::clock;
use crate::error::{GatewayError, Reason};
use crate::message::replay::is_idempotent;
use crate::message::{Exchange, Request, Response};
use crate::telemetry::handles::UpstreamCells;

/// An upstream's own breaker, and how it is set.
pub(super) struct Guard {
    pub(super) breaker: Arc<Breaker>,
    pub(super) rule: Rule,
}

/// A try that is to be made.
pub(super) struct Wish<'a> {
    pub(super) exchange: Option<&'a Arc<Exchange>>,
    /// The endpoint it prefers, by consistent hash.
    pub(super) hash: Option<u64>,
    /// Endpoints asked before: others come first.
    pub(super) avoid: &'a [SocketAddr],
    /// It may be a probe: making it twice would harm nobody, and it ends with its answer.
    pub(super) safe: bool,
    pub(super) worker: usize,
}

/// What a try was let through with.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tickets {
    pub(super) upstream: Option<Ticket>,
    pub(super) endpoint: Option<Ticket>,
}

impl Tickets {
    /// Somebody waits for the outcome.
    pub(super) fn is_held(self) -> bool {
        self.upstream.is_some() || self.endpoint.is_some()
    }
}

/// Whether a request may be a probe.
pub(super) fn is_safe(request: &Request) -> bool {
    is_idempotent(request.method()) && !request.headers().contains_key(UPGRADE)
}

/// A refusal by breakers.
pub(super) fn refusal(left: Duration, cells: &UpstreamCells) -> GatewayError {
    cells.breaker_refusals.inc();
    GatewayError::new(Reason::BreakerOpen).with_retry_after(left)
}

impl Upstream {
    /// Whether the upstream may be asked at all.
    pub(super) fn admit(
        &self,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Result<Option<Ticket>, GatewayError> {
        let Some(Guard { breaker, rule }) = &self.guard else {
            return Ok(None);
        };
        self.ask(breaker, rule, None, wish, now)
            .map_err(|left| refusal(left, self.metrics.of(wish.worker)))
    }

    /// Whether an endpoint may be asked; else when to come again.
    pub(super) fn admit_to(
        &self,
        endpoint: &Endpoint,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Result<Option<Ticket>, Duration> {
        match (&endpoint.breaker, &self.endpoint_rule) {
            (Some(breaker), Some(rule)) => self.ask(breaker, rule, Some(endpoint), wish, now),
            _ => Ok(None),
        }
    }

    fn ask(
        &self,
        breaker: &Breaker,
        rule: &Rule,
        endpoint: Option<&Endpoint>,
        wish: &Wish<'_>,
        now: Instant,
    ) -> Result<Option<Ticket>, Duration> {
        let (asked, change) = breaker.ask(rule, wish.safe, now);
        self.announce(change, endpoint, self.metrics.of(wish.worker));
        match asked {
            Asked::Granted(ticket) => Ok(Some(ticket)),
            Asked::Refused(_) if rule.observes => {
                if let Some(exchange) = wish.exchange {
                    exchange.observe(Reason::BreakerOpen);
                }
                Ok(None)
            }
            Asked::Refused(left) => Err(left),
        }
    }

    /// How the try of these tickets ended.
    pub(super) fn tell(
        &self,
        tickets: Tickets,
        endpoint: &Endpoint,
        outcome: Outcome,
        worker: usize,
        now: Instant,
    ) {
        if let (Some(ticket), Some(guard)) = (tickets.upstream, &self.guard) {
            let rule = &guard.rule;
            let change = guard.breaker.tell(rule, ticket, outcome, worker, now);
            self.announce(change, None, self.metrics.of(worker));
        }
        let breaker = endpoint.breaker.as_ref().zip(self.endpoint_rule.as_ref());
        if let (Some(ticket), Some((breaker, rule))) = (tickets.endpoint, breaker) {
            let change = breaker.tell(rule, ticket, outcome, worker, now);
            self.announce(change, Some(endpoint), self.metrics.of(worker));
        }
    }

    /// The try was not made after all.
    pub(super) fn take_back(&self, ticket: Option<Ticket>, worker: usize, now: Instant) {
        if let (Some(ticket), Some(Guard { breaker, rule })) = (ticket, &self.guard) {
            let change = breaker.tell(rule, ticket, Outcome::Nothing, worker, now);
            self.announce(change, None, self.metrics.of(worker));
        }
    }

    fn announce(&self, change: Option<Change>, endpoint: Option<&Endpoint>, cells: &UpstreamCells) {
        let Some(Change { to, why }) = change else {
            return;
        };
        cells.breaker_transitions[to as usize].inc();
        let rule = match endpoint {
            None => self.guard.as_ref().map(|g| &g.rule),
            Some(_) => {
                self.live.changed();
                self.endpoint_rule.as_ref()
            }
        };
        let observes = rule.is_some_and(|rule| rule.observes);
        let endpoint = endpoint.map(|e| tracing::field::display(e.address));
        let (upstream, state) = (&*self.name, to.as_str());
        match to {
            State::Open => {
                tracing::warn!(upstream, endpoint, state, %why, observes, "breaker opened");
            }
            State::HalfOpen | State::Closed => {
                tracing::info!(upstream, endpoint, state, %why, observes, "breaker changed");
            }
        }
    }

    /// Holds the upstream's own breaker in a state, or lets it go. Gives how it stands then;
    /// `None` where there is no breaker. On the control thread.
    pub fn force_breaker(&self, to: Option<State>) -> Option<BreakerStatus> {
        let Guard { breaker, rule } = self.guard.as_ref()?;
        let now = clock::now();
        self.announce(breaker.force(to, now), None, self.metrics.control());
        Some(breaker.status(rule, now))
    }
}

/// For how long an answer asks not to be asked again: 429 or 503 with Retry-After (RFC 9110
/// 10.2.3).
pub(super) fn back_pressure(response: &Response) -> Option<Duration> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            retry_after(response.headers())
        }
        _ => None,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(clock::wall()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;

    #[test]
    fn only_what_may_be_repeated_and_stays_http_is_a_probe() {
        let safe = |method: &str, upgrade: bool| {
            let mut request = Box::new(http::Request::new(Body::empty()));
            *request.method_mut() = method.parse().expect("a method");
            if upgrade {
                let websocket = http::HeaderValue::from_static("websocket");
                request.headers_mut().insert(UPGRADE, websocket);
            }
            is_safe(&request)
        };
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
            assert!(safe(method, false), "{method}");
            assert!(!safe(method, true), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "BREW"] {
            assert!(!safe(method, false), "{method}");
        }
    }

    #[test]
    fn only_429_and_503_with_a_time_that_can_be_read_are_back_pressure() {
        let of = |status: u16, after: &str| {
            let mut response = Box::new(http::Response::new(Body::empty()));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let value = after.parse().expect("a field value");
            response.headers_mut().insert(RETRY_AFTER, value);
            back_pressure(&response).map(|d| d.as_secs())
        };
        assert_eq!(of(429, "7"), Some(7));
        assert_eq!(of(503, " 120 "), Some(120));
        assert_eq!(of(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(of(503, "soon"), None);
        assert_eq!(of(503, "-1"), None);
        assert_eq!(of(500, "7"), None);
        assert_eq!(of(200, "7"), None);
        assert_eq!(
            back_pressure(&Box::new(http::Response::new(Body::empty()))),
            None
        );
    }
}
