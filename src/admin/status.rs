//! The state of the process, for `/status`: plain values, filled in by the context.
//!
//! The same values are the JSON and the page. Words (states, outcomes, protocols) are those of
//! the config and the metrics. Nothing here may hold a secret.

use serde::Serialize;

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
    /// Upstreams.
    pub upstreams: Vec<Upstream>,
    /// Workers.
    pub workers: Vec<Worker>,
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
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint of an upstream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Endpoint {
    /// Its address, after resolving.
    pub address: String,
    /// The name it was resolved from, if it is one.
    pub name: Option<String>,
    /// `healthy`, `unhealthy`, `ejected` or `draining`.
    pub state: String,
    /// Its share among its priority.
    pub weight: u32,
    /// 0 is used first.
    pub priority: u32,
    /// Its zone, if one is written.
    pub zone: Option<String>,
    /// Tries being made.
    pub in_flight: u64,
    /// Why it is in its state, or since when, if there is more to say.
    pub note: Option<String>,
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
}
