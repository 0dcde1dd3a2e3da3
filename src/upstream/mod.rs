//! How a request leaves.
//!
//! An [`Upstream`] is one compiled section, shared by all workers; [`WorkerPools`] are one
//! worker's connections; [`client`] joins the two into the innermost service of a stack:
//! `retry` over `send`. What changes while a plan runs (who is healthy, where a name points,
//! budgets and caps) hangs below in `Arc`s that the next plan takes over by name and address.
//!
//! * `config`, `compile`: the section as written, and what is made of it
//! * `endpoint`, `eject`, `latency`, `balance`, `budget`: who is asked; pure but for `endpoint`
//! * `resolve`, `health`: the control thread's part
//! * `connect`, `tls`, `wire`, `driver`, `pool`, `caps`, `checkout`: connections
//! * `breaker`, `admit`: who is not asked for a while
//! * `views`, `choose`, `send`, `framing`, `upload`, `answer`, `record`: one try
//! * `retry`: further ones
//! * `tunnel`: both ways after a 101
//! * `status`: how it all stands, for people
//!
//! Nothing here knows routes or turns an error into a response.

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod config;
pub mod eject;
pub mod endpoint;
pub mod retry;
pub mod send;
pub mod tunnel;

mod admit;
mod answer;
mod caps;
mod checkout;
mod choose;
mod compile;
mod connect;
mod driver;
mod framing;
mod health;
mod latency;
mod pool;
mod record;
mod resolve;
mod status;
mod tls;
mod upload;
mod views;
mod wire;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::FixedState;

use crate::gate;
use crate::telemetry::handles::UpstreamMetrics;
use budget::Budget;
use caps::Caps;
use config::{RetryConfig, UpstreamConfig};
use connect::Connector;
use endpoint::Endpoint;
use resolve::Live;

pub use pool::WorkerPools;
pub use status::{EndpointStatus, UpstreamStatus};

/// A named set of endpoints, shared by all workers.
pub struct Upstream {
    /// Its name in the config.
    pub name: Arc<str>,
    config: UpstreamConfig,
    key: choose::HashKey,
    rule: Option<eject::Rule>,
    /// Its own breaker.
    guard: Option<admit::Guard>,
    /// How the breakers of its endpoints are set.
    endpoint_rule: Option<breaker::Rule>,
    connector: Connector,
    http1_connector: Connector,
    /// A hash of all that makes connections unequal but the address and the TLS name.
    identity: u64,
    live: Arc<Live>,
    caps: Arc<Caps>,
    budget: Arc<Budget>,
    /// The cap on requests here, if there is one.
    concurrency: gate::caps::Caps,
    metrics: Arc<UpstreamMetrics>,
}

impl Upstream {
    /// What it shares with the upstream of this name in the plan before follows its own section
    /// from now on. For the moment after its plan has been swapped in.
    pub fn put_in_force(&self) {
        self.caps.resize(self.config.pool.max_connections.value);
        self.concurrency.put_in_force();
        if self.config.health.is_none() {
            self.live.trust_all();
        }
    }

    /// Whether a name among the endpoints has no answer yet.
    pub fn is_unresolved(&self) -> bool {
        !self.live.unresolved().is_empty()
    }

    /// Asks once for every name among the endpoints; before it gets traffic.
    pub async fn resolve_once(&self) {
        self.live.resolve().await;
    }

    /// Health checks and name lookups, for ever. Holds what it needs and not the upstream, so
    /// that a retired plan is not kept alive by a task that has yet to be aborted.
    pub fn housekeeping(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let resolving = Resolving {
            live: Arc::clone(&self.live),
            interval: self.config.resolve_interval.value.0,
        };
        let checks = health::Checks::of(self);
        async move {
            tokio::join!(resolving.run(), async {
                if let Some(checks) = checks {
                    checks.run().await;
                }
            });
        }
    }

    /// How it stands.
    pub fn status(&self, now: Instant) -> UpstreamStatus {
        status::of(self, now)
    }

    /// The cap on requests at it, which whoever sends to it is to keep; `None` without one.
    pub fn concurrency(&self) -> Option<&gate::caps::Caps> {
        self.concurrency.whole.as_ref().map(|_| &self.concurrency)
    }

    fn retry(&self) -> Option<&RetryConfig> {
        self.config.retry.on()
    }

    /// What tells its connections from those of other upstreams, endpoint by endpoint.
    fn endpoints(&self) -> HashSet<(SocketAddr, u64), FixedState> {
        let set = self.live.set();
        let key = |e: &Arc<Endpoint>| (e.address, self.identity_of(e));
        set.endpoints.iter().map(key).collect()
    }

    /// A hash of all that makes connections to this endpoint unequal but its address.
    fn identity_of(&self, endpoint: &Endpoint) -> u64 {
        match &endpoint.server_name {
            Some(name) => self.identity ^ balance::hash(name.to_str().as_bytes()),
            None => self.identity,
        }
    }
}

struct Resolving {
    live: Arc<Live>,
    interval: std::time::Duration,
}

impl Resolving {
    async fn run(self) {
        while self.live.has_names() {
            tokio::time::sleep(self.interval).await;
            self.live.resolve().await;
        }
    }
}

/// The way to an upstream for one worker: retries around tries, each made by `tried` around the
/// innermost service, so that what it does to a request is done to each try. Made once for a
/// stack; clones share their view of the endpoints.
pub fn client<S: Clone>(
    upstream: &Arc<Upstream>,
    pools: &Arc<WorkerPools>,
    tried: impl FnOnce(send::Send) -> S,
) -> retry::Retry<S> {
    let send = send::Send::new(Arc::clone(upstream), Arc::clone(pools));
    retry::Retry::new(tried(send), upstream, pools.worker)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
