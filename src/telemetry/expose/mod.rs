//! All numbers as Prometheus text, at scrape time, on the control thread.
//!
//! One custom `Collector` walks the cells with relaxed loads; the `prometheus` crate gives the
//! registry and the text encoder, never a counter of the request path. What the cells do not hold
//! (endpoint states, certificates) is asked of a [`Live`]. A histogram's count is the sum of its
//! buckets, so the two can never disagree. Series whose labels the config gives are there from
//! the start, with 0; those with `code`, `method`, `reason`, `result` or `kind` of violation
//! appear at their first event.
//!
//! * `live`: what no cell holds
//! * `family`: a metric and its series, being put together
//! * `openmetrics`: the other text form

mod family;
pub mod live;
pub mod openmetrics;

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use super::Build;
use super::cache::{Evicted, Inserted, Purged, Refreshed, Used};
use super::cells::{Cell, Gauge};
use super::handles::{
    BREAKER, ENDPOINT_STATES, LimiterCells, METHODS, Metrics, PoolClose, Refused, ReloadOutcome,
    RetryDenied, RouteCells, Skip, UpstreamCells, Violation, WorkerCells,
};
use super::names::{self, Metric};
use super::process::Process;
use crate::error::{Cause, Reason};
use crate::message::coding::Coding;
use crate::message::exchange::Step;
use crate::pressure;
use crate::pressure::config::Priority;
use family::{Family, Words, counters, counters_by, gauges, histograms, seconds, single, tallies};
pub use live::{Live, LiveCache, LiveCertificate, LiveLimiter, LiveUpstream};

/// The two text forms of all numbers.
pub struct Exposition(Registry);

impl Exposition {
    /// Over these cells and this live state.
    pub fn new(metrics: Arc<Metrics>, live: Arc<dyn Live>, build: Build) -> Self {
        let describe = |m: &Metric| {
            let labels = m.labels.iter().map(|l| (*l).to_owned()).collect();
            Desc::new(m.name.into(), m.help.into(), labels, Default::default())
        };
        let descs: Result<Vec<_>, _> = names::ALL.iter().map(describe).collect();
        let scrape = Scrape {
            descs: descs.expect("the names are a valid constant table"),
            metrics,
            live,
            build,
        };
        let registry = Registry::new();
        registry
            .register(Box::new(scrape))
            .expect("the only collector of a new registry");
        Exposition(registry)
    }

    /// Prometheus text 0.0.4.
    pub fn text(&self) -> Vec<u8> {
        TextEncoder::new()
            .encode_to_string(&self.0.gather())
            .expect("writing to a string cannot fail, and no family is empty")
            .into_bytes()
    }

    /// OpenMetrics 1.0.
    pub fn openmetrics(&self) -> Vec<u8> {
        openmetrics::encode(&self.0.gather()).into_bytes()
    }
}

struct Scrape {
    descs: Vec<Desc>,
    metrics: Arc<Metrics>,
    live: Arc<dyn Live>,
    build: Build,
}

impl Collector for Scrape {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Vec::with_capacity(names::ALL.len());
        self.routes(&mut out);
        self.upstreams(&mut out);
        self.pools(&mut out);
        self.compression(&mut out);
        self.cache(&mut out);
        self.live(&mut out);
        self.limiters(&mut out);
        self.listeners(&mut out);
        self.config(&mut out);
        self.pressure(&mut out);
        self.workers(&mut out);
        process(&mut out);
        out
    }
}

impl Scrape {
    fn routes(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.routes();
        let mut codes = Family::new(&names::REQUESTS);
        let mut methods = Family::new(&names::REQUESTS_BY_METHOD);
        let mut errors = Family::new(&names::REQUEST_ERRORS);
        let mut observed = Family::new(&names::OBSERVED);
        let mut degraded = Family::new(&names::DEGRADED);
        for (name, cells) in &all {
            let mut counts = std::collections::BTreeMap::new();
            for (code, n) in cells.iter().flat_map(|c| c.codes.counts()) {
                *counts.entry(code).or_insert(0) += n;
            }
            for (code, n) in counts {
                codes.number(&[name, &code], n as f64);
            }
            for (at, method) in METHODS.iter().chain(&["_OTHER"]).enumerate() {
                methods.seen(&[name, method], cells.sum(|c| c.methods[at].get()));
            }
            for reason in Reason::ALL {
                let labels = [name, reason.side().as_str(), reason.as_str()];
                errors.seen(&labels, cells.sum(|c| c.errors.get(*reason)));
                let count = cells.sum(|c| c.observed.get(*reason));
                observed.seen(&[name, reason.as_str()], count);
            }
            for (cause, cause_word) in Cause::ALL {
                for (step, step_word) in Step::ALL {
                    let cell = |c: &RouteCells| c.degraded[*cause as usize][*step as usize].get();
                    degraded.seen(&[name, cause_word, step_word], cells.sum(cell));
                }
            }
        }
        out.extend([codes.done(), methods.done(), errors.done()]);
        out.extend([observed.done(), degraded.done()]);
        out.push(histograms(&names::REQUEST_DURATION, &all, |c| &c.duration));
        out.push(histograms(&names::REQUEST_FIRST_BYTE, &all, |c| {
            &c.first_byte
        }));
        out.push(histograms(&names::REQUEST_OVERHEAD, &all, |c| &c.overhead));
        out.push(gauges(&names::REQUESTS_IN_FLIGHT, &all, |c| &c.in_flight));
        out.push(gauges(&names::QUEUE_WAITING, &all, |c| &c.queue_waiting));
        out.push(histograms(&names::QUEUE_WAIT, &all, |c| &c.queue_wait));
        out.push(counters(&names::REQUEST_BODY_BYTES, &all, |c| {
            &c.request_bytes
        }));
        out.push(counters(&names::RESPONSE_BODY_BYTES, &all, |c| {
            &c.response_bytes
        }));
    }

    fn upstreams(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.upstreams();
        let mut attempts = Family::new(&names::UPSTREAM_ATTEMPTS);
        let mut checks = Family::new(&names::UPSTREAM_HEALTH_CHECKS);
        let mut denied = Family::new(&names::RETRIES_DENIED);
        for (name, cells) in &all {
            attempts.seen(&[name, "ok"], cells.sum(|c| c.ok.get()));
            attempts.seen(&[name, "server_error"], cells.sum(|c| c.server_error.get()));
            attempts.seen(&[name, "cancelled"], cells.sum(|c| c.cancelled.get()));
            for reason in Reason::ALL {
                let failed = cells.sum(|c| c.failed.get(*reason));
                attempts.seen(&[name, reason.as_str()], failed);
            }
            checks.seen(&[name, "pass"], cells.sum(|c| c.checks_pass.get()));
            checks.seen(&[name, "fail"], cells.sum(|c| c.checks_fail.get()));
            checks.seen(&[name, "timeout"], cells.sum(|c| c.checks_timeout.get()));
            for (why, word) in RetryDenied::ALL {
                let count = cells.sum(|c| c.retries_denied[*why as usize].get());
                denied.seen(&[name, word], count);
            }
        }
        out.extend([attempts.done(), checks.done(), denied.done()]);
        let by_outcome: Words<UpstreamCells, Cell> = &[
            ("success", |c| &c.retries_success),
            ("failure", |c| &c.retries_failure),
        ];
        out.push(counters_by(&names::RETRIES, &all, by_outcome));
        out.push(histograms(&names::UPSTREAM_ATTEMPT_DURATION, &all, |c| {
            &c.attempt_duration
        }));
        out.push(histograms(&names::UPSTREAM_CONNECT, &all, |c| &c.connect));
        out.push(histograms(&names::UPSTREAM_TLS_HANDSHAKE, &all, |c| {
            &c.tls_handshake
        }));
        let mut breakers = Family::new(&names::BREAKER_TRANSITIONS);
        for (name, cells) in &all {
            for (at, word) in BREAKER.iter().enumerate() {
                let count = cells.sum(|c| c.breaker_transitions[at].get());
                breakers.number(&[name, word], count as f64);
            }
        }
        out.push(breakers.done());
        out.push(counters(&names::BREAKER_REFUSALS, &all, |c| {
            &c.breaker_refusals
        }));
        out.push(gauges(&names::UPSTREAM_IN_FLIGHT, &all, |c| &c.in_flight));
        out.push(counters(&names::UPSTREAM_EJECTIONS, &all, |c| &c.ejections));
    }

    fn pools(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.upstreams();
        let by_state: Words<UpstreamCells, Gauge> = &[
            ("active", |c| &c.pool_active),
            ("idle", |c| &c.pool_idle),
            ("connecting", |c| &c.pool_connecting),
        ];
        let by_source: Words<UpstreamCells, Cell> = &[
            ("idle", |c| &c.checkouts_idle),
            ("shared", |c| &c.checkouts_shared),
            ("new", |c| &c.checkouts_new),
        ];
        let mut connections = Family::new(&names::POOL_CONNECTIONS);
        let mut closes = Family::new(&names::POOL_CLOSES);
        for (name, cells) in &all {
            for (state, gauge) in by_state {
                connections.number(&[name, state], cells.sum(|c| gauge(c).get()) as f64);
            }
            for (why, word) in PoolClose::ALL {
                let count = cells.sum(|c| c.pool_closes[*why as usize].get());
                closes.seen(&[name, word], count);
            }
        }
        out.extend([connections.done(), closes.done()]);
        out.push(counters_by(&names::POOL_CHECKOUTS, &all, by_source));
        out.push(gauges(&names::POOL_WAITING, &all, |c| &c.pool_waiting));
        out.push(histograms(&names::POOL_WAIT, &all, |c| &c.pool_wait));
    }

    fn compression(&self, out: &mut Vec<MetricFamily>) {
        let cells = &self.metrics.compression;
        let mut responses = Family::new(&names::COMPRESSION_RESPONSES);
        let mut bytes = Family::new(&names::COMPRESSION_BYTES);
        let mut time = Family::new(&names::COMPRESSION_SECONDS);
        let mut decoded = Family::new(&names::COMPRESSION_DECODED);
        for coding in Coding::ALL {
            let (at, word) = (coding.index(), coding.token());
            let count: u64 = cells.sum(|c| c.codings[at].responses.get());
            responses.number(&[word], count as f64);
            let taken: u64 = cells.sum(|c| c.codings[at].bytes_in.get());
            bytes.number(&[word, "in"], taken as f64);
            let given: u64 = cells.sum(|c| c.codings[at].bytes_out.get());
            bytes.number(&[word, "out"], given as f64);
            time.number(&[word], seconds(cells.sum(|c| c.codings[at].nanos.get())));
            let count: u64 = cells.sum(|c| c.decoded[at].get());
            decoded.number(&[word], count as f64);
        }
        let mut skipped = Family::new(&names::COMPRESSION_SKIPPED);
        for (reason, word) in Skip::ALL {
            skipped.seen(&[word], cells.sum(|c| c.skipped[*reason as usize].get()));
        }
        let families = [bytes, responses, time, skipped, decoded];
        out.extend(families.map(Family::done));
    }

    fn cache(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.routes();
        let mut requests = Family::new(&names::CACHE_REQUESTS);
        for (name, cells) in &all {
            for (used, word) in Used::ALL {
                let count = cells.sum(|c| c.cache[*used as usize].get());
                requests.seen(&[name, word], count);
            }
        }
        out.push(requests.done());
        out.push(histograms(&names::CACHE_AGE, &all, |c| &c.cache_age));
        out.push(histograms(&names::CACHE_OBJECT, &all, |c| &c.cache_object));
        let live = self.live.cache().unwrap_or_default();
        for (metric, value) in [
            (&names::CACHE_OBJECTS, live.objects),
            (&names::CACHE_BYTES, live.bytes),
            (&names::CACHE_CAPACITY, live.capacity),
        ] {
            out.push(single(metric, &[], value as f64));
        }
        let cells = &self.metrics.cache;
        out.extend([
            tallies(&names::CACHE_INSERTIONS, Inserted::ALL, &cells.insertions),
            tallies(&names::CACHE_EVICTIONS, Evicted::ALL, &cells.evictions),
            tallies(&names::CACHE_PURGES, Purged::ALL, &cells.purges),
            tallies(&names::CACHE_REFRESHES, Refreshed::ALL, &cells.refreshes),
        ]);
    }

    fn live(&self, out: &mut Vec<MetricFamily>) {
        let mut endpoints = Family::new(&names::UPSTREAM_ENDPOINTS);
        let mut panic = Family::new(&names::UPSTREAM_PANIC);
        let mut budget = Family::new(&names::RETRY_BUDGET);
        let mut limit = Family::new(&names::CONCURRENCY_LIMIT);
        let mut breaker = Family::new(&names::BREAKER_STATE);
        for upstream in self.live.upstreams() {
            let name = &*upstream.name;
            for (state, count) in ENDPOINT_STATES.iter().zip(upstream.endpoints) {
                endpoints.number(&[name, state], count as f64);
            }
            panic.number(&[name], f64::from(u8::from(upstream.panic)));
            if let Some(left) = upstream.retry_budget {
                budget.number(&[name], left);
            }
            if let Some(now) = upstream.concurrency_limit {
                limit.number(&[name], f64::from(now));
            }
            if let Some(state) = upstream.breaker {
                for word in BREAKER {
                    let is = f64::from(u8::from(*word == state));
                    breaker.number(&[name, word], is);
                }
            }
        }
        let mut certificates = Family::new(&names::CERTIFICATE_NOT_AFTER);
        for c in self.live.certificates() {
            certificates.number(&[&c.listener, &c.certificate], c.not_after as f64);
        }
        let (lines, dropped) = self.live.access_log();
        out.extend([
            endpoints.done(),
            panic.done(),
            budget.done(),
            limit.done(),
            breaker.done(),
            certificates.done(),
            single(&names::ACCESS_LOG_LINES, &[], lines as f64),
            single(&names::ACCESS_LOG_DROPPED, &[], dropped as f64),
        ]);
    }

    fn limiters(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.limiters();
        let by_decision: Words<LimiterCells, Cell> = &[
            ("allow", |c| &c.allow),
            ("deny", |c| &c.deny),
            ("observed", |c| &c.observed),
        ];
        out.push(counters_by(&names::LIMITER_DECISIONS, &all, by_decision));
        out.push(counters(&names::LIMITER_OVERFLOW, &all, |c| &c.overflow));
        out.push(counters(&names::LIMITER_EVICTIONS, &all, |c| &c.evictions));
        let mut keys = Family::new(&names::LIMITER_KEYS);
        let mut capacity = Family::new(&names::LIMITER_CAPACITY);
        for limiter in self.live.limiters() {
            keys.number(&[&limiter.name], limiter.keys as f64);
            capacity.number(&[&limiter.name], limiter.capacity as f64);
        }
        out.extend([keys.done(), capacity.done()]);
    }

    fn listeners(&self, out: &mut Vec<MetricFamily>) {
        let all = self.metrics.listeners();
        let mut refused = Family::new(&names::CONNECTIONS_REFUSED);
        let mut violations = Family::new(&names::PROTOCOL_VIOLATIONS);
        for (name, cells) in &all {
            for (why, word) in Refused::ALL {
                let count = cells.sum(|c| c.refused[*why as usize].get());
                refused.seen(&[name, word], count);
            }
            for (rule, word) in Violation::ALL {
                let count = cells.sum(|c| c.violations[*rule as usize].get());
                violations.seen(&[name, word], count);
            }
        }
        out.extend([refused.done(), violations.done()]);
        out.push(gauges(&names::CONNECTIONS, &all, |c| &c.connections));
        let protocols = counters_by(
            &names::CONNECTIONS_TOTAL,
            &all,
            &[
                ("http1", |c| &c.http1),
                ("h2", |c| &c.h2),
                ("tunnel", |c| &c.tunnels),
            ],
        );
        out.push(protocols);
        out.push(histograms(&names::TLS_HANDSHAKE, &all, |c| {
            &c.tls_handshake
        }));
    }

    fn config(&self, out: &mut Vec<MetricFamily>) {
        let config = &self.metrics.config;
        let mut reloads = Family::new(&names::CONFIG_RELOADS);
        for (outcome, word) in ReloadOutcome::ALL {
            reloads.number(&[word], config.reloads[*outcome as usize].get() as f64);
        }
        let hash = config.hash.lock().clone();
        let Build {
            version,
            revision,
            rustc,
        } = self.build;
        out.push(reloads.done());
        out.push(single(&names::CONFIG_INFO, &[&hash], 1.0));
        out.push(single(&names::BUILD_INFO, &[version, revision, rustc], 1.0));
        for (metric, gauge) in [
            (&names::CONFIG_GENERATION, &config.generation),
            (&names::CONFIG_LAST_SUCCESS, &config.last_success),
            (&names::CONFIG_LAST_APPLIED, &config.last_applied),
            (&names::CONFIG_PLANS, &config.plans),
            (&names::DRAINING, &config.draining),
        ] {
            out.push(single(metric, &[], gauge.get() as f64));
        }
    }

    fn pressure(&self, out: &mut Vec<MetricFamily>) {
        let mut shed = Family::new(&names::SHED);
        for (priority, word) in Priority::ALL {
            for (cause, cause_word) in pressure::Cause::ALL {
                let cell = |c: &WorkerCells| c.shed[*priority as usize][*cause as usize].get();
                let count: u64 = self.metrics.worker.sum(cell);
                shed.number(&[word, cause_word], count as f64);
            }
        }
        let mut ratios = Family::new(&names::PRESSURE);
        for (cause, ratio) in self.metrics.pressure.ratios() {
            ratios.number(&[cause], ratio);
        }
        out.extend([shed.done(), ratios.done()]);
    }

    fn workers(&self, out: &mut Vec<MetricFamily>) {
        let mut connections = Family::new(&names::WORKER_CONNECTIONS);
        let mut in_flight = Family::new(&names::WORKER_REQUESTS_IN_FLIGHT);
        let mut generation = Family::new(&names::WORKER_CONFIG_GENERATION);
        let mut accepts = Family::new(&names::WORKER_ACCEPTS);
        let mut busy = Family::new(&names::WORKER_BUSY);
        let mut lag = Family::new(&names::WORKER_LOOP_LAG);
        let all = &self.metrics.worker;
        for (index, cells) in all.iter().take(self.metrics.workers()).enumerate() {
            let label = index.to_string();
            let worker = [label.as_str()];
            connections.number(&worker, cells.connections.get() as f64);
            in_flight.number(&worker, cells.requests_in_flight.get() as f64);
            generation.number(&worker, cells.config_generation.get() as f64);
            accepts.number(&worker, cells.accepts.get() as f64);
            busy.number(&worker, seconds(cells.busy_nanos.get()));
            lag.histogram(&worker, std::iter::once(&cells.loop_lag));
        }
        let mut aborted = Family::new(&names::DRAIN_ABORTED);
        let requests: u64 = all.sum(|c| c.drain_aborted_requests.get());
        let tunnels: u64 = all.sum(|c| c.drain_aborted_tunnels.get());
        aborted.number(&["request"], requests as f64);
        aborted.number(&["tunnel"], tunnels as f64);
        let families = [connections, in_flight, generation, accepts, busy, lag];
        out.extend(families.map(Family::done));
        out.push(aborted.done());
    }
}

fn process(out: &mut Vec<MetricFamily>) {
    let process = Process::read();
    for (metric, value) in [
        (&names::PROCESS_CPU, process.cpu_seconds),
        (&names::PROCESS_RESIDENT_MEMORY, process.resident_bytes),
        (&names::PROCESS_VIRTUAL_MEMORY, process.virtual_bytes),
        (&names::PROCESS_OPEN_FDS, process.open_fds),
        (&names::PROCESS_MAX_FDS, process.max_fds),
        (&names::PROCESS_THREADS, process.threads),
        (&names::PROCESS_START_TIME, process.start_seconds),
    ] {
        out.extend(value.map(|value| single(metric, &[], value)));
    }
}

#[cfg(test)]
mod tests;
