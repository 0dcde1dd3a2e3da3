//! The state of the process, for `/status`: plain values, filled in by the context.
//!
//! The same values are the JSON and the page. Words (states, outcomes, protocols) are those of
//! the config and the metrics. Nothing here may hold a secret.

use serde::Serialize;

use crate::error::Reason;
use crate::gate::caps::CapStanding;
use crate::middleware::rate_limit::Count;
use crate::switch::Mode;
use crate::telemetry::handles::{
    LimiterMetrics, ListenerMetrics, Metrics, Reasons, RouteMetrics, UpstreamMetrics,
};
use crate::upstream::breaker::BreakerStatus;

/// Everything `/status` shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
    /// Seconds since the process started.
    pub uptime_seconds: u64,
    /// `ready`, `draining`, or what is missing.
    pub state: String,
    /// The generation of the plan in force.
    pub generation: u64,
    /// The hash of the config in force.
    pub config_hash: String,
    /// Plans that are still held.
    pub plans: u64,
    /// The last reload, if there was one.
    pub last_reload: Option<LastReload>,
    /// Listeners.
    pub listeners: Vec<Listener>,
    /// Routes, in the order of the config.
    pub routes: Vec<Route>,
    /// Rate limits, in the order of the config.
    pub limits: Vec<Limiter>,
    /// Upstreams.
    pub upstreams: Vec<Upstream>,
    /// The response cache, where a route has one.
    pub cache: Option<Cache>,
    /// Workers.
    pub workers: Vec<Worker>,
}

/// The response cache of all routes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cache {
    /// Keys under which something is stored.
    pub objects: u64,
    /// What is stored, in bytes.
    pub bytes: u64,
    /// The bound of that.
    pub capacity: u64,
    /// Answers given from the cache so far, fresh or stale.
    pub hits: u64,
    /// Requests that passed the cache so far.
    pub requests: u64,
}

/// The last reload.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LastReload {
    /// Unix seconds.
    pub at: u64,
    /// `applied`, `unchanged`, `rejected` or `needs_restart`.
    pub outcome: String,
    /// A sentence, or the problems as `weir check` renders them.
    pub message: String,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

/// A listener.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Listener {
    /// Its name in the config.
    pub name: String,
    /// Where it is bound.
    pub address: String,
    /// What it speaks: `http1`, `h2`.
    pub protocols: Vec<String>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Open client connections.
    pub connections: i64,
    /// Client connections so far.
    pub connections_total: u64,
    /// Its certificates.
    pub certificates: Vec<Certificate>,
}

/// A certificate.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Certificate {
    /// `cert` as written in the config.
    pub name: String,
    /// When it ends, in Unix seconds.
    pub not_after: i64,
}

/// A route.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Route {
    /// Its id in the config.
    pub id: String,
    /// What it matches, in a line.
    pub matches: String,
    /// Where it leads, in a line.
    pub target: String,
    /// Requests being served.
    pub in_flight: i64,
    /// Answers so far.
    pub requests: u64,
    /// Answers with 5xx so far.
    pub server_errors: u64,
    /// Requests Weir itself failed or refused so far.
    pub errors: u64,
    /// Caps on what is in flight.
    pub concurrency: Vec<CapStanding>,
}

/// A rate limit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Limiter {
    /// Its name.
    pub name: String,
    /// The route it stands on.
    pub route: String,
    /// Its rate, as written.
    pub rate: String,
    /// How many at once.
    pub burst: u32,
    /// What clients are told apart by.
    pub key: String,
    /// What it counts.
    pub count: Count,
    /// Whether it acts.
    pub mode: Mode,
    /// Keys that have used something of their burst.
    pub keys: usize,
    /// Cells for keys.
    pub capacity: usize,
    /// Requests admitted so far.
    pub allowed: u64,
    /// Requests refused so far.
    pub denied: u64,
    /// Requests it would have refused.
    pub observed: u64,
}

/// An upstream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Upstream {
    /// Its name in the config.
    pub name: String,
    /// `http1`, `h2` or `auto`.
    pub protocol: String,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Too few endpoints are healthy, all are used.
    pub panic: bool,
    /// Tries being made.
    pub in_flight: i64,
    /// Tries so far.
    pub attempts: u64,
    /// Tries that failed so far.
    pub failures: u64,
    /// Share of the retry budget left, with retries.
    pub retry_budget: Option<f64>,
    /// The cap on requests at it, if there is one.
    pub concurrency: Vec<CapStanding>,
    /// Its breaker, if it has one.
    pub breaker: Option<BreakerStatus>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of an upstream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Endpoint {
    /// Its address, after resolving; the name while there is none.
    pub address: String,
    /// As written in the config, where that is something else.
    pub name: Option<String>,
    /// `healthy`, `unhealthy`, `ejected`, `draining` or `unresolved`.
    pub state: String,
    /// Its share among its priority.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Its zone, if one is written.
    pub zone: Option<String>,
    /// Its breaker, if endpoints have one.
    pub breaker: Option<BreakerStatus>,
}

/// A worker.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// Open client connections.
    pub connections: i64,
    /// Requests being served.
    pub in_flight: i64,
    /// The generation of the plan it has seen.
    pub generation: i64,
    /// Connections accepted so far.
    pub accepts: u64,
    /// How far it sheds: up to 1 the share of low priority, then of normal, then of high.
    pub shed_level: f64,
    /// For what it sheds: `memory`, `descriptors` or `lag`.
    pub shed_cause: Option<&'static str>,
}

impl Listener {
    /// With its numbers.
    #[must_use]
    pub fn counted(self, cells: &ListenerMetrics) -> Self {
        Listener {
            connections: cells.sum(|c| c.connections.get()),
            connections_total: cells.sum(|c| c.http1.get() + c.h2.get()),
            ..self
        }
    }
}

impl Route {
    /// With its numbers.
    #[must_use]
    pub fn counted(self, cells: &RouteMetrics) -> Self {
        let answers = |class: &str| -> u64 {
            let codes = cells.iter().flat_map(|c| c.codes.counts());
            let of_class = codes.filter(|(code, _)| code.starts_with(class));
            of_class.map(|(_, count)| count).sum()
        };
        Route {
            in_flight: cells.sum(|c| c.in_flight.get()),
            requests: answers(""),
            server_errors: answers("5"),
            errors: cells.sum(|c| all(&c.errors)),
            ..self
        }
    }
}

impl Limiter {
    /// With its numbers.
    #[must_use]
    pub fn counted(self, cells: &LimiterMetrics) -> Self {
        Limiter {
            allowed: cells.sum(|c| c.allow.get()),
            denied: cells.sum(|c| c.deny.get()),
            observed: cells.sum(|c| c.observed.get()),
            ..self
        }
    }
}

impl Upstream {
    /// With its numbers.
    #[must_use]
    pub fn counted(self, cells: &UpstreamMetrics) -> Self {
        let failures = cells.sum(|c| c.server_error.get() + all(&c.failed));
        let others: u64 = cells.sum(|c| c.ok.get() + c.cancelled.get());
        Upstream {
            in_flight: cells.sum(|c| c.in_flight.get()),
            attempts: others + failures,
            failures,
            ..self
        }
    }
}

/// Every worker with its numbers.
pub fn workers(metrics: &Metrics) -> Vec<Worker> {
    let own = metrics.worker.iter().take(metrics.workers());
    own.zip(metrics.pressure.levels())
        .enumerate()
        .map(|(index, (cells, (level, cause)))| Worker {
            shed_level: level,
            shed_cause: (level > 0.0).then_some(cause.as_str()),
            index,
            connections: cells.connections.get(),
            in_flight: cells.requests_in_flight.get(),
            generation: cells.config_generation.get(),
            accepts: cells.accepts.get(),
        })
        .collect()
}

fn all(reasons: &Reasons) -> u64 {
    Reason::ALL.iter().map(|r| reasons.get(*r)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_sums_over_the_workers() {
        let metrics = Metrics::new(2);
        let (route, upstream) = (metrics.route("api"), metrics.upstream("app"));
        for worker in 0..2 {
            route.of(worker).codes.inc_code(200);
            route.of(worker).codes.inc_code(502);
            route.of(worker).errors.inc(Reason::ConnectionRefused);
            upstream.of(worker).ok.inc();
            upstream.of(worker).failed.inc(Reason::ConnectionRefused);
            metrics.worker.of(worker).accepts.add(5);
        }
        let route = Route::default().counted(&route);
        assert_eq!(
            (route.requests, route.server_errors, route.errors),
            (4, 2, 2)
        );
        let upstream = Upstream::default().counted(&upstream);
        assert_eq!((upstream.attempts, upstream.failures), (4, 2));
        let workers = workers(&metrics);
        assert_eq!(workers.len(), 2);
        assert_eq!(workers[1].accepts, 5);
    }
}
