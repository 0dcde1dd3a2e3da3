//! The numbers of each thing that is counted, resolved before a request needs them.
//!
//! `plan/compile` takes a handle by name from [`Metrics`] (the same one as long as the name is in
//! the plan, so that counts survive a reload) and a worker writes into its own block of it. No
//! label is formatted and nothing is looked up by name while a request runs; `expose` walks these
//! structures at scrape time and gives each number its name from `names`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode};
use parking_lot::Mutex;

pub use super::buckets::{AGE, LOOP, REQUEST, SIZE, WAIT};
use super::cache::{CacheCells, Used};
use super::cells::{Cell, Gauge, Histogram, PerWorker};
pub use super::policies::{CodingCells, CompressionCells, LimiterCells};
pub use super::words::{BREAKER, CODES, ENDPOINT_STATES, METHODS};
pub use super::words::{PoolClose, Refused, ReloadOutcome, RetryDenied, Skip, Violation};
use crate::error::{Cause, Reason};
use crate::message::exchange::Step;
use crate::pressure::config::Priority;
use crate::pressure::{self, Pressure};

/// Answers by status.
#[derive(Debug)]
pub struct Codes {
    exact: Box<[Cell]>,
    classes: [Cell; 5],
}

impl Default for Codes {
    fn default() -> Self {
        let exact = CODES.iter().map(|_| Cell::default()).collect();
        Codes {
            exact,
            classes: Default::default(),
        }
    }
}

impl Codes {
    /// Counts an answer.
    #[inline]
    pub fn inc(&self, status: StatusCode) {
        self.inc_code(status.as_u16());
    }

    /// Counts a code that is no status of HTTP, such as 499.
    pub fn inc_code(&self, code: u16) {
        match CODES.binary_search(&code) {
            Ok(at) => self.exact[at].inc(),
            Err(_) => self.classes[usize::from((code / 100).clamp(1, 5)) - 1].inc(),
        }
    }

    /// Every label that has counted something, with its count.
    pub fn counts(&self) -> impl Iterator<Item = (String, u64)> {
        let exact = CODES
            .iter()
            .zip(&self.exact)
            .map(|(code, cell)| (code.to_string(), cell));
        let classes = self
            .classes
            .iter()
            .enumerate()
            .map(|(i, c)| (format!("{}xx", i + 1), c));
        exact
            .chain(classes)
            .map(|(label, cell)| (label, cell.get()))
            .filter(|c| c.1 > 0)
    }
}

/// A count for each [`Reason`].
#[derive(Debug)]
pub struct Reasons(Box<[Cell]>);

impl Default for Reasons {
    fn default() -> Self {
        Reasons(Reason::ALL.iter().map(|_| Cell::default()).collect())
    }
}

impl Reasons {
    /// Counts one.
    pub fn inc(&self, reason: Reason) {
        self.0[reason.index()].inc();
    }

    /// How often.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason.index()].get()
    }
}

/// One block of a route's numbers.
#[derive(Debug)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.2")]
pub struct RouteCells {
    pub codes: Codes,
    pub methods: [Cell; METHODS.len() + 1],
    pub duration: Histogram,
    pub first_byte: Histogram,
    pub overhead: Histogram,
    pub in_flight: Gauge,
    pub request_bytes: Cell,
    pub response_bytes: Cell,
    pub errors: Reasons,
    pub observed: Reasons,
    /// By [`Cause`] and [`Step`].
    pub degraded: [[Cell; Step::ALL.len()]; Cause::ALL.len()],
    pub queue_waiting: Gauge,
    pub queue_wait: Histogram,
    /// By [`Used`].
    pub cache: [Cell; Used::ALL.len()],
    pub cache_age: Histogram,
    pub cache_object: Histogram,
}

impl Default for RouteCells {
    fn default() -> Self {
        RouteCells {
            codes: Codes::default(),
            methods: Default::default(),
            duration: Histogram::new(REQUEST),
            first_byte: Histogram::new(REQUEST),
            overhead: Histogram::new(LOOP),
            in_flight: Gauge::default(),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
            errors: Reasons::default(),
            observed: Reasons::default(),
            degraded: Default::default(),
            queue_waiting: Gauge::default(),
            queue_wait: Histogram::new(WAIT),
            cache: Default::default(),
            cache_age: Histogram::new(AGE),
            cache_object: Histogram::sizes(SIZE),
        }
    }
}

impl RouteCells {
    /// Counts a request's method.
    #[inline]
    pub fn method(&self, method: &Method) {
        let at = METHODS
            .iter()
            .position(|m| *m == method.as_str())
            .unwrap_or(METHODS.len());
        self.methods[at].inc();
    }
}

/// One block of an upstream's numbers.
#[derive(Debug)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.3")]
pub struct UpstreamCells {
    pub ok: Cell,
    pub server_error: Cell,
    pub cancelled: Cell,
    pub failed: Reasons,
    pub attempt_duration: Histogram,
    pub connect: Histogram,
    pub tls_handshake: Histogram,
    pub in_flight: Gauge,
    pub ejections: Cell,
    pub checks_pass: Cell,
    pub checks_fail: Cell,
    pub checks_timeout: Cell,
    pub pool_active: Gauge,
    pub pool_idle: Gauge,
    pub pool_connecting: Gauge,
    pub checkouts_idle: Cell,
    pub checkouts_shared: Cell,
    pub checkouts_new: Cell,
    pub pool_waiting: Gauge,
    pub pool_wait: Histogram,
    pub pool_closes: [Cell; PoolClose::ALL.len()],
    pub retries_success: Cell,
    pub retries_failure: Cell,
    pub retries_denied: [Cell; RetryDenied::ALL.len()],
    /// By [`BREAKER`].
    pub breaker_transitions: [Cell; BREAKER.len()],
    pub breaker_refusals: Cell,
    /// Addresses that are no endpoints any more and still have requests or connections.
    pub leaving: Mutex<BTreeSet<SocketAddr>>,
}

impl Default for UpstreamCells {
    fn default() -> Self {
        UpstreamCells {
            ok: Cell::default(),
            server_error: Cell::default(),
            cancelled: Cell::default(),
            failed: Reasons::default(),
            attempt_duration: Histogram::new(REQUEST),
            connect: Histogram::new(WAIT),
            tls_handshake: Histogram::new(WAIT),
            in_flight: Gauge::default(),
            ejections: Cell::default(),
            checks_pass: Cell::default(),
            checks_fail: Cell::default(),
            checks_timeout: Cell::default(),
            pool_active: Gauge::default(),
            pool_idle: Gauge::default(),
            pool_connecting: Gauge::default(),
            checkouts_idle: Cell::default(),
            checkouts_shared: Cell::default(),
            checkouts_new: Cell::default(),
            pool_waiting: Gauge::default(),
            pool_wait: Histogram::new(WAIT),
            pool_closes: Default::default(),
            retries_success: Cell::default(),
            retries_failure: Cell::default(),
            retries_denied: Default::default(),
            breaker_transitions: Default::default(),
            breaker_refusals: Cell::default(),
            leaving: Mutex::default(),
        }
    }
}

/// One block of a listener's numbers.
#[derive(Debug)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.5")]
pub struct ListenerCells {
    pub connections: Gauge,
    pub http1: Cell,
    pub h2: Cell,
    pub tunnels: Cell,
    pub refused: [Cell; Refused::ALL.len()],
    pub violations: [Cell; Violation::ALL.len()],
    pub tls_handshake: Histogram,
}

impl Default for ListenerCells {
    fn default() -> Self {
        ListenerCells {
            connections: Gauge::default(),
            http1: Cell::default(),
            h2: Cell::default(),
            tunnels: Cell::default(),
            refused: Default::default(),
            violations: Default::default(),
            tls_handshake: Histogram::new(WAIT),
        }
    }
}

/// A worker's own numbers.
#[derive(Debug)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.5")]
pub struct WorkerCells {
    pub connections: Gauge,
    pub requests_in_flight: Gauge,
    pub config_generation: Gauge,
    pub accepts: Cell,
    pub busy_nanos: Cell,
    pub loop_lag: Histogram,
    pub drain_aborted_requests: Cell,
    pub drain_aborted_tunnels: Cell,
    /// By [`Priority`] and cause of [`pressure::Cause`].
    pub shed: [[Cell; pressure::Cause::ALL.len()]; Priority::ALL.len()],
}

impl Default for WorkerCells {
    fn default() -> Self {
        WorkerCells {
            connections: Gauge::default(),
            requests_in_flight: Gauge::default(),
            config_generation: Gauge::default(),
            accepts: Cell::default(),
            busy_nanos: Cell::default(),
            loop_lag: Histogram::new(LOOP),
            drain_aborted_requests: Cell::default(),
            drain_aborted_tunnels: Cell::default(),
            shed: Default::default(),
        }
    }
}

/// What only the control thread counts.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as the metrics of CONVENTIONS 1.5")]
pub struct ConfigCells {
    pub reloads: [Cell; ReloadOutcome::ALL.len()],
    pub generation: Gauge,
    pub last_success: Gauge,
    /// Unix seconds.
    pub last_applied: Gauge,
    pub plans: Gauge,
    pub draining: Gauge,
    /// The hash of the config in force, for `weir_config_info`.
    pub hash: Mutex<String>,
}

/// The numbers of a route, a block for each worker.
pub type RouteMetrics = PerWorker<RouteCells>;
/// The numbers of an upstream.
pub type UpstreamMetrics = PerWorker<UpstreamCells>;
/// The numbers of a listener.
pub type ListenerMetrics = PerWorker<ListenerCells>;
/// The numbers of a limit.
pub type LimiterMetrics = PerWorker<LimiterCells>;

/// All numbers of the process, by the names of the config.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    routes: Mutex<BTreeMap<Arc<str>, Arc<RouteMetrics>>>,
    upstreams: Mutex<BTreeMap<Arc<str>, Arc<UpstreamMetrics>>>,
    listeners: Mutex<BTreeMap<Arc<str>, Arc<ListenerMetrics>>>,
    limiters: Mutex<BTreeMap<Arc<str>, Arc<LimiterMetrics>>>,
    /// A block for each worker (the last, the control thread's, stays at nothing).
    pub worker: PerWorker<WorkerCells>,
    /// A block for each worker.
    pub compression: PerWorker<CompressionCells>,
    /// Reloads and the plan in force.
    pub config: ConfigCells,
    /// What the process is short of.
    pub pressure: Pressure,
    /// The response cache of all routes.
    pub cache: Arc<CacheCells>,
}

impl Metrics {
    /// For a process with this many workers.
    pub fn new(workers: usize) -> Self {
        Metrics {
            workers,
            routes: Mutex::default(),
            upstreams: Mutex::default(),
            listeners: Mutex::default(),
            limiters: Mutex::default(),
            worker: PerWorker::new(workers, WorkerCells::default),
            compression: PerWorker::new(workers, CompressionCells::default),
            config: ConfigCells::default(),
            pressure: Pressure::new(workers),
            cache: Arc::default(),
        }
    }

    /// How many workers have blocks.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The numbers of a route: the same ones as long as the name is kept.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        take(&self.routes, name, || {
            PerWorker::new(self.workers, RouteCells::default)
        })
    }

    /// The numbers of an upstream.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        take(&self.upstreams, name, || {
            PerWorker::new(self.workers, UpstreamCells::default)
        })
    }

    /// The numbers of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        take(&self.listeners, name, || {
            PerWorker::new(self.workers, ListenerCells::default)
        })
    }

    /// The numbers of a limit.
    pub fn limiter(&self, name: &str) -> Arc<LimiterMetrics> {
        take(&self.limiters, name, || {
            PerWorker::new(self.workers, LimiterCells::default)
        })
    }

    /// The numbers of a listener, if a plan still has it; a name that is gone does not come back.
    pub fn known_listener(&self, name: &str) -> Option<Arc<ListenerMetrics>> {
        self.listeners.lock().get(name).cloned()
    }

    /// Forgets names that no plan has any more.
    pub fn retain(
        &self,
        route: impl Fn(&str) -> bool,
        upstream: impl Fn(&str) -> bool,
        listener: impl Fn(&str) -> bool,
        limiter: impl Fn(&str) -> bool,
    ) {
        self.routes.lock().retain(|name, _| route(name));
        self.upstreams.lock().retain(|name, _| upstream(name));
        self.listeners.lock().retain(|name, _| listener(name));
        self.limiters.lock().retain(|name, _| limiter(name));
    }

    /// All routes, in order of their names.
    pub fn routes(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        all(&self.routes)
    }

    /// All upstreams.
    pub fn upstreams(&self) -> Vec<(Arc<str>, Arc<UpstreamMetrics>)> {
        all(&self.upstreams)
    }

    /// All listeners.
    pub fn listeners(&self) -> Vec<(Arc<str>, Arc<ListenerMetrics>)> {
        all(&self.listeners)
    }

    /// All limits.
    pub fn limiters(&self) -> Vec<(Arc<str>, Arc<LimiterMetrics>)> {
        all(&self.limiters)
    }
}

type ByName<T> = Mutex<BTreeMap<Arc<str>, Arc<T>>>;

fn take<T>(map: &ByName<T>, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
    let mut map = map.lock();
    if let Some(found) = map.get(name) {
        return found.clone();
    }
    map.entry(name.into())
        .or_insert_with(|| Arc::new(new()))
        .clone()
}

fn all<T>(map: &ByName<T>) -> Vec<(Arc<str>, Arc<T>)> {
    map.lock()
        .iter()
        .map(|(name, cells)| (name.clone(), cells.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_is_not_listed_counts_as_its_class() {
        let codes = Codes::default();
        codes.inc_code(200);
        codes.inc_code(299);
        codes.inc_code(599);
        let counts: Vec<_> = codes.counts().collect();
        assert_eq!(
            counts,
            [("200".into(), 1), ("2xx".into(), 1), ("5xx".into(), 1)]
        );
    }

    #[test]
    fn a_listener_that_is_forgotten_does_not_come_back_by_being_asked_for() {
        let metrics = Metrics::new(1);
        assert!(metrics.known_listener("web").is_none());
        metrics.listener("web");
        assert!(metrics.known_listener("web").is_some());
        metrics.retain(|_| true, |_| true, |_| false, |_| true);
        assert!(metrics.known_listener("web").is_none());
        assert_eq!(metrics.listeners().len(), 0);
    }

    #[test]
    fn a_name_keeps_its_numbers_until_it_is_forgotten() {
        let metrics = Metrics::new(1);
        metrics.route("a").of(0).codes.inc_code(200);
        metrics.retain(|_| true, |_| true, |_| true, |_| true);
        assert_eq!(
            metrics
                .route("a")
                .sum(|r| r.codes.counts().map(|c| c.1).sum::<u64>()),
            1
        );
        metrics.retain(|_| false, |_| true, |_| true, |_| true);
        assert_eq!(
            metrics
                .route("a")
                .sum(|r| r.codes.counts().map(|c| c.1).sum::<u64>()),
            0
        );
    }
}
