//! What is asked of the running process at scrape time, because no cell holds it.
//! Plain values: the control thread fills them in, the scrape writes them out.

use std::sync::Arc;

use crate::telemetry::handles::ENDPOINT_STATES;

/// What is asked at scrape time because no cell holds it. Called on the control thread; must not
/// block.
pub trait Live: Send + Sync + 'static {
    /// The upstreams of the plan in force.
    fn upstreams(&self) -> Vec<LiveUpstream>;
    /// The limits of the plan in force.
    fn limiters(&self) -> Vec<LiveLimiter>;
    /// The certificates of the plan in force.
    fn certificates(&self) -> Vec<LiveCertificate>;
    /// Lines written to the access log, and lines lost.
    fn access_log(&self) -> (u64, u64);
    /// What is stored, where any route has a cache.
    fn cache(&self) -> Option<LiveCache>;
}

/// What is stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct LiveCache {
    /// Keys.
    pub objects: u64,
    /// What they weigh.
    pub bytes: u64,
    /// The bound of that.
    pub capacity: u64,
}

/// The state of an upstream.
#[derive(Debug, Clone, Default)]
pub struct LiveUpstream {
    /// Its name in the config.
    pub name: Arc<str>,
    /// How many endpoints are in each of [`ENDPOINT_STATES`].
    pub endpoints: [usize; ENDPOINT_STATES.len()],
    /// Too few are healthy, all are used.
    pub panic: bool,
    /// Share of the retry budget left, 0 to 1; `None` without retries.
    pub retry_budget: Option<f64>,
    /// How much may be in flight now; `None` without a cap.
    pub concurrency_limit: Option<u32>,
    /// The state of its breaker, if it has one.
    pub breaker: Option<&'static str>,
}

/// How full a limit's table is.
#[derive(Debug, Clone)]
pub struct LiveLimiter {
    /// Its name in the config.
    pub name: Arc<str>,
    /// Keys that have used something of their burst.
    pub keys: usize,
    /// Cells there are.
    pub capacity: usize,
}

/// When a certificate ends.
#[derive(Debug, Clone)]
pub struct LiveCertificate {
    /// The listener that presents it.
    pub listener: Arc<str>,
    /// `cert` as written in the config.
    pub certificate: String,
    /// Unix seconds.
    pub not_after: i64,
}
