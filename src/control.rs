//! The running process as its operator sees it: metrics, readiness, status, config, reload.
//!
//! Answers for the admin address and for a scrape, on the control thread. Reads what the plan in
//! force and the cells say; asks for a reload and never does one itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{self, ReloadOutcome, ReloadReport, Status, status};
use crate::clock;
use crate::config::{Loaded, describe};
use crate::filled::Filled;
use crate::gate::caps::Caps;
use crate::middleware::cache::Store;
use crate::middleware::cache::purge::Wanted;
use crate::middleware::rate_limit::Limit;
use crate::plan::SharedPlan;
use crate::plan::explain::{self, Asked, Explanation};
use crate::plan::listener::ListenerPlan;
use crate::telemetry::access;
use crate::telemetry::cache::Used;
use crate::telemetry::expose::{
    Exposition, Live, LiveCache, LiveCertificate, LiveLimiter, LiveUpstream,
};
use crate::telemetry::handles::{ENDPOINT_STATES, Metrics};
use crate::upstream::breaker::{BreakerStatus, State};
use crate::upstream::config::UpstreamConfig;
use crate::upstream::{EndpointStatus, Upstream};

/// What the operator may ask.
pub struct Control {
    shared: SharedPlan,
    metrics: Arc<Metrics>,
    exposition: Exposition,
    ask: mpsc::Sender<oneshot::Sender<ReloadReport>>,
    bound: Mutex<BTreeMap<Arc<str>, SocketAddr>>,
    last: Mutex<Option<status::LastReload>>,
    started: Instant,
}

impl Control {
    /// Over what runs; reloads are asked for through `ask`.
    pub fn new(
        shared: SharedPlan,
        metrics: Arc<Metrics>,
        access: Arc<access::Control>,
        ask: mpsc::Sender<oneshot::Sender<ReloadReport>>,
    ) -> Self {
        let live = Arc::new(PlanLive {
            shared: shared.clone(),
            access,
        });
        let exposition = Exposition::new(metrics.clone(), live, crate::BUILD);
        let started = clock::now();
        let (bound, last) = (Mutex::default(), Mutex::default());
        Control {
            shared,
            metrics,
            exposition,
            ask,
            bound,
            last,
            started,
        }
    }

    /// Where the listeners are bound now.
    pub fn bound(&self, addresses: BTreeMap<Arc<str>, SocketAddr>) {
        *self.bound.lock() = addresses;
    }

    /// Keeps how a reload went.
    pub fn reloaded(&self, report: &ReloadReport) {
        let at = clock::wall()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        *self.last.lock() = Some(status::LastReload {
            at,
            outcome: report.word().to_owned(),
            message: report.message.clone(),
            changes: report.changes.clone(),
        });
    }

    fn listener(&self, plan: &ListenerPlan, loaded: &Loaded) -> status::Listener {
        let bound = self
            .bound
            .lock()
            .get(&plan.name)
            .copied()
            .unwrap_or(plan.address);
        let protocols = [("http1", plan.http1), ("h2", plan.h2)];
        status::Listener {
            name: plan.name.to_string(),
            address: bound.to_string(),
            protocols: protocols
                .iter()
                .filter(|p| p.1)
                .map(|p| p.0.to_owned())
                .collect(),
            tls: plan.tls.is_some(),
            certificates: certificates(plan, loaded)
                .map(|(name, not_after)| status::Certificate {
                    name: name.to_owned(),
                    not_after,
                })
                .collect(),
            ..status::Listener::default()
        }
        .counted(&plan.metrics)
    }
}

/// The certificates of a listener, each as the config writes it, and when it ends.
fn certificates<'a>(
    plan: &'a ListenerPlan,
    loaded: &'a Loaded,
) -> impl Iterator<Item = (&'a str, i64)> {
    let config = loaded.config.listeners.get(&*plan.name);
    let written = config.and_then(|listener| listener.tls.as_ref());
    let written = written.into_iter().flat_map(|tls| &tls.certificates.value);
    let ends = plan.tls.iter().flat_map(|tls| &tls.not_after);
    let pairs = written.zip(ends);
    pairs.map(|(written, ends)| (loaded.sources.filled.shown(&written.cert), *ends))
}

fn cache(store: &Store, metrics: &Metrics) -> status::Cache {
    let routes = metrics.routes();
    let count = |words: &[Used]| -> u64 {
        let cells = routes.iter().flat_map(|(_, route)| route.iter());
        cells
            .map(|c| {
                words
                    .iter()
                    .map(|w| c.cache[*w as usize].get())
                    .sum::<u64>()
            })
            .sum()
    };
    let all: Vec<Used> = Used::ALL.iter().map(|(used, _)| *used).collect();
    let (objects, bytes) = store.size();
    status::Cache {
        objects,
        bytes,
        capacity: store.memory(),
        hits: count(&[Used::Hit, Used::Stale]),
        requests: count(&all),
    }
}

fn upstream(
    upstream: &Upstream,
    config: Option<&UpstreamConfig>,
    filled: &Filled,
) -> status::Upstream {
    let now = upstream.status(clock::now());
    let written: BTreeMap<&str, &str> = config
        .iter()
        .flat_map(|config| &config.endpoints.value)
        .map(|e| (e.address.as_str(), filled.shown(&e.address)))
        .collect();
    let endpoint = |e: &EndpointStatus| {
        let name = written.get(&*e.name).copied().unwrap_or(&e.name);
        let address = match e.state {
            "unresolved" => name,
            _ => &*e.address,
        };
        status::Endpoint {
            address: address.to_owned(),
            name: (name != address).then(|| name.to_owned()),
            state: e.state.to_owned(),
            weight: u32::from(e.weight),
            priority: u32::from(e.priority),
            zone: e.zone.as_deref().map(str::to_owned),
            breaker: e.breaker.clone(),
        }
    };
    status::Upstream {
        name: upstream.name.to_string(),
        protocol: config
            .map(|c| format!("{:?}", c.protocol).to_lowercase())
            .unwrap_or_default(),
        balance: config
            .map(|c| c.balance.value.to_string())
            .unwrap_or_default(),
        panic: now.panic,
        retry_budget: now.retry_budget,
        concurrency: now.concurrency,
        breaker: now.breaker,
        endpoints: now.endpoints.iter().map(endpoint).collect(),
        ..status::Upstream::default()
    }
}

fn limiter(route: &str, limit: &Limit) -> status::Limiter {
    let (keys, capacity) = limit.keys(clock::now());
    status::Limiter {
        name: limit.name.to_string(),
        route: route.to_owned(),
        rate: limit.rate().to_string(),
        burst: limit.burst(),
        key: limit.key(),
        count: limit.count(),
        mode: limit.mode(),
        keys,
        capacity,
        ..status::Limiter::default()
    }
    .counted(&limit.metrics)
}

impl admin::Context for Control {
    fn metrics_text(&self, openmetrics: bool) -> Vec<u8> {
        if openmetrics {
            self.exposition.openmetrics()
        } else {
            self.exposition.text()
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.draining() {
            Err("draining".to_owned())
        } else {
            Ok(())
        }
    }

    fn draining(&self) -> bool {
        self.metrics.config.draining.get() != 0
    }

    fn status(&self) -> Status {
        let plan = self.shared.load();
        let (config, filled) = (&plan.loaded.config, &plan.loaded.sources.filled);
        let routes = config
            .routes
            .iter()
            .zip(&plan.routes)
            .map(|(config, route)| {
                let told = status::Route {
                    id: route.id.to_string(),
                    matches: describe::matches(config, filled),
                    target: describe::target(config, filled),
                    concurrency: route.concurrency.iter().flat_map(Caps::standing).collect(),
                    ..status::Route::default()
                };
                told.counted(&route.metrics)
            });
        let limits = plan.routes.iter().flat_map(|route| {
            let one = |limit: &Arc<Limit>| limiter(&route.id, limit);
            route.limits.iter().map(one).collect::<Vec<_>>()
        });
        let upstreams = plan.upstreams.iter().map(|(name, up)| {
            let told = upstream(up, config.upstreams.get(&**name), filled);
            told.counted(&self.metrics.upstream(name))
        });
        let listeners = plan.listeners.values();
        Status {
            version: crate::BUILD.version.to_owned(),
            revision: crate::BUILD.revision.to_owned(),
            uptime_seconds: (clock::now() - self.started).as_secs(),
            state: self.ready().err().unwrap_or_else(|| "ready".to_owned()),
            generation: plan.generation,
            config_hash: format!("{:016x}", plan.hash),
            plans: u64::try_from(self.metrics.config.plans.get()).unwrap_or(0),
            last_reload: self.last.lock().clone(),
            listeners: listeners
                .map(|listener| self.listener(listener, &plan.loaded))
                .collect(),
            routes: routes.collect(),
            limits: limits.collect(),
            upstreams: upstreams.collect(),
            cache: plan.store.as_ref().map(|store| cache(store, &self.metrics)),
            workers: status::workers(&self.metrics),
        }
    }

    fn purge(&self, wanted: &Wanted) -> bool {
        let plan = self.shared.load();
        let Some(store) = &plan.store else {
            return false;
        };
        wanted.purge(store);
        tracing::info!(what = %wanted, "purged");
        true
    }

    fn config_json(&self) -> serde_json::Value {
        self.shared.load().loaded.shown()
    }

    fn explain(&self, asked: &Asked) -> Explanation {
        explain::explain(&self.shared.load(), asked, clock::now())
    }

    fn force_breaker(&self, upstream: &str, to: Option<State>) -> Option<BreakerStatus> {
        let plan = self.shared.load();
        plan.upstreams.get(upstream)?.force_breaker(to)
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadReport> + Send>> {
        let ask = self.ask.clone();
        Box::pin(async move {
            let (reply, report) = oneshot::channel();
            let ended = || ReloadReport {
                outcome: ReloadOutcome::Rejected,
                message: "the process is ending".to_owned(),
                changes: Vec::new(),
            };
            match ask.send(reply).await {
                Ok(()) => report.await.unwrap_or_else(|_| ended()),
                Err(_) => ended(),
            }
        })
    }
}

/// What a scrape asks of the plan in force.
struct PlanLive {
    shared: SharedPlan,
    access: Arc<access::Control>,
}

impl Live for PlanLive {
    fn upstreams(&self) -> Vec<LiveUpstream> {
        let now = clock::now();
        self.shared
            .load()
            .upstreams
            .values()
            .map(|upstream| {
                let status = upstream.status(now);
                let count = |state| status.endpoints.iter().filter(|e| e.state == state).count();
                LiveUpstream {
                    name: upstream.name.clone(),
                    endpoints: ENDPOINT_STATES.map(count),
                    panic: status.panic,
                    retry_budget: status.retry_budget,
                    concurrency_limit: status.concurrency.first().map(|cap| cap.limit),
                    breaker: status.breaker.map(|b| b.state),
                }
            })
            .collect()
    }

    fn limiters(&self) -> Vec<LiveLimiter> {
        let now = clock::now();
        let plan = self.shared.load();
        let live = |limit: &Arc<Limit>| {
            let (keys, capacity) = limit.keys(now);
            LiveLimiter {
                name: limit.name.clone(),
                keys,
                capacity,
            }
        };
        plan.limits().map(live).collect()
    }

    fn certificates(&self) -> Vec<LiveCertificate> {
        let plan = self.shared.load();
        let all = plan.listeners.values().flat_map(|listener| {
            certificates(listener, &plan.loaded).map(|(certificate, not_after)| LiveCertificate {
                listener: listener.name.clone(),
                certificate: certificate.to_owned(),
                not_after,
            })
        });
        all.collect()
    }

    fn access_log(&self) -> (u64, u64) {
        self.access.counts()
    }

    fn cache(&self) -> Option<LiveCache> {
        let plan = self.shared.load();
        let store = plan.store.as_ref()?;
        let (objects, bytes) = store.size();
        let capacity = store.memory();
        Some(LiveCache {
            objects,
            bytes,
            capacity,
        })
    }
}
