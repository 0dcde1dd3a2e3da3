//! How an upstream stands, for `/status` and the gauges. Read on the control thread.
//! Only reads: what it says may be a moment old, and decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::breaker::BreakerStatus;
use super::endpoint::Endpoint;
use super::{Upstream, balance, choose};
use crate::gate::caps::CapStanding;
use crate::telemetry::cells::Gauge;

/// One upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    /// Its name in the config.
    pub name: Arc<str>,
    /// Its endpoints; a name without an answer is one that is `unresolved`, and an address that is
    /// no endpoint any more one that is `draining`.
    pub endpoints: Vec<EndpointStatus>,
    /// Too few endpoints are usable, so all are used.
    pub panic: bool,
    /// Requests under way, over all workers.
    pub in_flight: i64,
    /// Retry budget left, 0 to 1; `None` without retries.
    pub retry_budget: Option<f64>,
    /// The cap on requests at it, if there is one.
    pub concurrency: Vec<CapStanding>,
    /// Its breaker, if it has one.
    pub breaker: Option<BreakerStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// The address, or the name as written while there is none.
    pub address: String,
    /// As written in the config.
    pub name: Arc<str>,
    /// A word of `ENDPOINT_STATES`; one with an open breaker is `ejected`.
    pub state: &'static str,
    /// Its share; 0 while it drains.
    pub weight: u16,
    /// 0 is used first.
    pub priority: u8,
    /// Its zone, if it has one.
    pub zone: Option<Arc<str>>,
    /// Its breaker, if endpoints have one.
    pub breaker: Option<BreakerStatus>,
}

pub(super) fn of(upstream: &Upstream, now: Instant) -> UpstreamStatus {
    let set = upstream.live.set();
    let seen = choose::seen(upstream, &set, now);
    let threshold = upstream.config.panic_threshold.value;
    let is_barred = |e: &Endpoint| choose::bar(upstream, e, now).is_some();
    let resolved = set.endpoints.iter().map(|endpoint| EndpointStatus {
        address: endpoint.address.to_string(),
        name: Arc::clone(&endpoint.written),
        state: if endpoint.standing.is_unhealthy() {
            "unhealthy"
        } else if endpoint.standing.is_ejected(now) || is_barred(endpoint) {
            "ejected"
        } else {
            "healthy"
        },
        weight: endpoint.weight,
        priority: endpoint.priority,
        zone: endpoint.zone.clone(),
        breaker: breaker(upstream, endpoint, now),
    });
    let unresolved = upstream.live.unresolved();
    let unresolved = unresolved.iter().map(|spec| EndpointStatus {
        address: spec.written.to_string(),
        name: Arc::clone(&spec.written),
        state: "unresolved",
        weight: spec.weight,
        priority: spec.priority,
        zone: spec.zone.clone(),
        breaker: None,
    });
    let mut leaving = BTreeSet::new();
    for cells in upstream.metrics.iter() {
        leaving.extend(cells.leaving.lock().iter().copied());
    }
    // A worker tells once a second: it may not know yet that one is back.
    for endpoint in &set.endpoints {
        leaving.remove(&endpoint.address);
    }
    let leaving = leaving.iter().map(|address| EndpointStatus {
        address: address.to_string(),
        name: address.to_string().into(),
        state: "draining",
        weight: 0,
        priority: 0,
        zone: None,
        breaker: None,
    });
    UpstreamStatus {
        name: Arc::clone(&upstream.name),
        endpoints: resolved.chain(unresolved).chain(leaving).collect(),
        panic: balance::eligible(&seen, threshold).panic,
        in_flight: upstream
            .metrics
            .iter()
            .map(|c| Gauge::get(&c.in_flight))
            .sum(),
        retry_budget: upstream
            .retry()
            .map(|retry| upstream.budget.left(retry.budget.value, now)),
        concurrency: upstream.concurrency.standing(),
        breaker: upstream
            .guard
            .as_ref()
            .map(|guard| guard.breaker.status(&guard.rule, now)),
    }
}

fn breaker(upstream: &Upstream, endpoint: &Endpoint, now: Instant) -> Option<BreakerStatus> {
    let (rule, breaker) = upstream
        .endpoint_rule
        .as_ref()
        .zip(endpoint.breaker.as_ref())?;
    Some(breaker.status(rule, now))
}
