//! The file as run: the compiled, immutable form of one config.
//!
//! A [`Plan`] is made whole by `compile` on the control thread and swapped in by `reload`;
//! [`SharedPlan`] holds the only `ArcSwap` of the crate. A request sees one plan from its headers
//! to its last byte. Live state that outlives a plan (endpoints, budgets, counters) hangs below
//! it in `Arc`s that `compile` takes over from the plan before.

pub mod listener;
pub mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::config::Loaded;
use crate::upstream::Upstream;
use listener::ListenerPlan;

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
    /// SIGTERM to closing.
    pub drain_delay: Duration,
    /// Closing to giving up.
    pub drain_timeout: Duration,
}

/// The plan in force.
pub struct SharedPlan(ArcSwap<Plan>);

impl SharedPlan {
    /// With the first plan.
    pub fn new(plan: Arc<Plan>) -> Self {
        SharedPlan(ArcSwap::new(plan))
    }

    /// The plan in force. For the control thread; workers keep a cache.
    pub fn load(&self) -> Arc<Plan> {
        self.0.load_full()
    }
}
