//! The file as run: the compiled, immutable form of one config.
//!
//! A [`Plan`] is made whole by `compile` on the control thread and swapped in by `reload`;
//! [`SharedPlan`] holds the only `ArcSwap` of the crate. A request sees one plan from its headers
//! to its last byte. Live state that outlives a plan (endpoints, budgets, counters) hangs below
//! it in `Arc`s that `compile` takes over from the plan before.
//!
//! * `compile`: (config, plan in force) to a plan, or problems
//! * `router`, `pattern`: host and path to a route
//! * `route`: what applies to a route's requests
//! * `explain`: what would become of a request
//! * `stack`: the order of the layers
//! * `listener`, `tls`: an address, ready to accept

pub mod compile;
pub mod explain;
pub mod listener;
pub mod pattern;
pub mod route;
pub mod router;
pub mod stack;
pub mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use ipnet::IpNet;

use crate::config::Loaded;
use crate::middleware::cache::Store;
use crate::middleware::rate_limit::Limit;
use crate::pressure::config::Rules;
use crate::upstream::Upstream;
use listener::ListenerPlan;
use route::RoutePlan;
use router::Router;

/// One config, ready to run.
pub struct Plan {
    /// Rises by one with each applied plan, from 1.
    pub generation: u64,
    /// The hash of the config and its files.
    pub hash: u64,
    /// What holds for the whole process.
    pub server: ServerPlan,
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, Arc<ListenerPlan>>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Which route takes a request, as an index into `routes`.
    pub router: Router,
    /// Routes in file order.
    pub routes: Vec<Arc<RoutePlan>>,
    /// What routes with a cache store, if there is one.
    pub store: Option<Arc<Store>>,
    /// The route of requests that no route takes.
    pub none: Arc<RoutePlan>,
    /// The config this was compiled from.
    pub loaded: Arc<Loaded>,
}

/// What holds for the whole process.
pub struct ServerPlan {
    /// Our name in Via, Proxy-Status and Server.
    pub identity: Arc<str>,
    /// Peers whose forwarding fields are believed.
    pub trusted: Vec<IpNet>,
    /// Client connections over all listeners and workers.
    pub max_connections: u32,
    /// When to shed; `None`: never.
    pub shed: Option<Rules>,
    /// SIGTERM to closing.
    pub drain_delay: Duration,
    /// Closing to giving up.
    pub drain_timeout: Duration,
}

impl Plan {
    /// The limits of all routes.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.routes.iter().flat_map(|route| &route.limits)
    }

    /// What changes at the very time at which it is swapped in.
    pub fn put_in_force(&self, now: Instant) {
        self.upstreams.values().for_each(|up| up.put_in_force());
        self.routes.iter().for_each(|route| route.put_in_force());
        self.limits().for_each(|limit| limit.put_in_force(now));
    }
}

impl ServerPlan {
    /// Whether the forwarding fields of a peer at `address` are believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// The plan in force.
#[derive(Clone)]
pub struct SharedPlan(Arc<ArcSwap<Plan>>);

impl SharedPlan {
    /// With the first plan.
    pub fn new(plan: Arc<Plan>) -> Self {
        SharedPlan(Arc::new(ArcSwap::new(plan)))
    }

    /// The plan in force. For the control thread; workers keep a [`PlanCache`].
    pub fn load(&self) -> Arc<Plan> {
        self.0.load_full()
    }

    /// Puts a new plan in force and gives back the old one, to be dropped off the request path.
    pub fn swap(&self, plan: Arc<Plan>) -> Arc<Plan> {
        self.0.swap(plan)
    }
}

/// One worker's view of the plan in force: a load costs a comparison while nothing changes.
pub struct PlanCache(Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>);

impl PlanCache {
    /// Of the plan that all share.
    pub fn new(shared: &SharedPlan) -> Self {
        PlanCache(Cache::new(shared.0.clone()))
    }

    /// The plan in force.
    pub fn load(&mut self) -> &Arc<Plan> {
        self.0.load()
    }
}
