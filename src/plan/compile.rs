//! A config becomes a plan: all of it, or problems.
//!
//! Takes over from the plan in force whatever the new config leaves as it was: upstreams with
//! their endpoints, routes with their stacks, listeners with their TLS sessions, and all numbers
//! by name. No I/O (`config/load` has read all there is to read) and no clocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::listener::ListenerPlan;
use super::route::{Context, RoutePlan};
use super::router::Router;
use super::{Plan, ServerPlan};
use crate::config::load::Invalid;
use crate::config::{Loaded, ServerConfig};
use crate::middleware::cache::Store;
use crate::middleware::rate_limit::Limit;
use crate::pressure::config::ShedConfig;
use crate::problem::{Problem, Problems};
use crate::telemetry::handles::Metrics;
use crate::upstream::Upstream;

/// Compiles a config, with what it can take over from `previous`.
pub fn compile(
    loaded: Arc<Loaded>,
    previous: Option<&Plan>,
    metrics: &Metrics,
) -> Result<Plan, Problems> {
    let mut problems = Problems::new();
    let server = server(&loaded.config.server);
    let listeners = listeners(&loaded, previous, metrics, &mut problems);
    let upstreams = upstreams(&loaded, previous, metrics, &mut problems);
    let store = store(&loaded, previous, metrics, &mut problems);
    let router = Router::compile(&loaded.config.routes, &mut problems);
    let limits: BTreeMap<&str, &Arc<Limit>> = previous
        .iter()
        .flat_map(|plan| plan.limits())
        .map(|limit| (&*limit.name, limit))
        .collect();
    let context = Context {
        loaded: &loaded,
        identity: &server.identity,
        shed: server.shed.map(|rules| rules.mode),
        upstream: &|name| upstreams.get(name).cloned(),
        metrics,
        limit: &|name| limits.get(name).copied(),
        store: store.as_ref(),
    };
    let routes = routes(&context, previous, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let none = RoutePlan::none(&server.identity, metrics.route("_none"));
    let none = keep(none, previous.map(|p| &p.none), false);
    Ok(Plan {
        generation: previous.map_or(1, |p| p.generation + 1),
        hash: loaded.hash,
        server,
        listeners,
        upstreams,
        router,
        routes,
        store,
        none,
        loaded,
    })
}

/// All that is wrong with a config that did not load: also what compiling its sound parts shows.
/// Whoever refuses a config tells this, so that `check`, a start and a reload say the same.
pub fn all_faults(mut invalid: Invalid) -> Invalid {
    if let Some(salvage) = invalid.salvage.take() {
        let compiled = compile(Arc::new(*salvage), None, &Metrics::new(1));
        invalid
            .problems
            .extend(compiled.err().into_iter().flatten());
    }
    invalid
}

fn server(config: &ServerConfig) -> ServerPlan {
    // An entry that does not parse is `config/check`'s to report.
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let net = |text: &str| text.parse::<IpNet>().ok().or_else(|| address(text));
    let trusted = config
        .trusted_proxies
        .iter()
        .filter_map(|entry| net(&entry.value));
    ServerPlan {
        identity: config.identity.value.as_str().into(),
        trusted: trusted.collect(),
        max_connections: config.max_connections.value,
        shed: config.shed.on().map(ShedConfig::rules),
        drain_delay: config.drain.delay.0,
        drain_timeout: config.drain.timeout.0,
    }
}

/// The least that a store may have.
const LEAST_MEMORY: u64 = 1 << 20;

/// The store of routes with a cache: the one there is, unless its memory changes.
fn store(
    loaded: &Loaded,
    previous: Option<&Plan>,
    metrics: &Metrics,
    problems: &mut Problems,
) -> Option<Arc<Store>> {
    let config = &loaded.config;
    let memory = &config.cache.memory;
    if memory.value.0 < LEAST_MEMORY {
        let problem = Problem::at(&memory.span, "cache.memory is out of range");
        problems.push(problem.help("at least \"1MiB\""));
        return None;
    }
    let caches = config
        .routes
        .iter()
        .any(|r| r.caches(&config.defaults).is_some());
    let before = previous.and_then(|p| p.store.as_ref());
    let same = before.filter(|store| store.memory() == memory.value.0);
    let new = || Arc::new(Store::new(memory.value.0, metrics.cache.clone()));
    caches.then(|| same.cloned().unwrap_or_else(new))
}

fn listeners(
    loaded: &Loaded,
    previous: Option<&Plan>,
    metrics: &Metrics,
    problems: &mut Problems,
) -> BTreeMap<Arc<str>, Arc<ListenerPlan>> {
    let mut listeners = BTreeMap::new();
    for (name, config) in &loaded.config.listeners {
        let before = previous.and_then(|p| p.listeners.get(name.value.as_str()));
        let numbers = metrics.listener(&name.value);
        let plan = ListenerPlan::compile(name, config, &loaded.files, numbers, before, problems);
        if let Some(plan) = plan {
            listeners.insert(plan.name.clone(), Arc::new(plan));
        }
    }
    listeners
}

fn upstreams(
    loaded: &Loaded,
    previous: Option<&Plan>,
    metrics: &Metrics,
    problems: &mut Problems,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let zone = loaded.config.server.zone.as_deref();
    let mut upstreams = BTreeMap::new();
    for (name, config) in &loaded.config.upstreams {
        let before = previous.and_then(|p| p.upstreams.get(name.value.as_str()));
        let unchanged = previous.is_some_and(|p| {
            let old = p.loaded.config.upstreams.get(name.value.as_str());
            let same_zone = p.loaded.config.server.zone.as_deref() == zone;
            let mut files = config.tls.iter().flat_map(|tls| tls.files());
            let same_files = files.all(|f| p.loaded.files.same(&loaded.files, &f.value));
            old == Some(config) && same_zone && same_files
        });
        if let Some(before) = before.filter(|_| unchanged) {
            upstreams.insert(before.name.clone(), before.clone());
            continue;
        }
        let numbers = metrics.upstream(&name.value);
        let plan = Upstream::compile(name, config, zone, &loaded.files, numbers, before, problems);
        if let Some(plan) = plan {
            upstreams.insert(plan.name.clone(), Arc::new(plan));
        }
    }
    upstreams
}

fn routes(
    context: &Context<'_>,
    previous: Option<&Plan>,
    problems: &mut Problems,
) -> Vec<Arc<RoutePlan>> {
    let files_changed = previous.is_some_and(|p| p.loaded.files != context.loaded.files);
    let before: BTreeMap<&str, &Arc<RoutePlan>> = previous
        .iter()
        .flat_map(|p| &p.routes)
        .map(|route| (&*route.id, route))
        .collect();
    let configs = context.loaded.config.routes.iter();
    let compiled = configs.filter_map(|config| {
        let before = before.get(config.id.as_str()).copied();
        let route = RoutePlan::compile(config, context, before.map(|b| &**b), problems)?;
        Some(keep(route, before, files_changed))
    });
    compiled.collect()
}

/// The route as it was, if it is as it was.
fn keep(route: RoutePlan, before: Option<&Arc<RoutePlan>>, files_changed: bool) -> Arc<RoutePlan> {
    match before {
        Some(before) if route.same_as(before, files_changed) => before.clone(),
        _ => Arc::new(route),
    }
}
