//! The operator's address: metrics, health, status, reload.
//!
//! Served on the control thread, so that it answers when every worker is saturated, and within
//! limits of its own, so that nobody can hold it up. What it shows and does comes through
//! [`Context`], which knows the running process; nothing here reaches for plans or workers, and no
//! secret comes this way. Whatever changes state needs a POST that no foreign web page sent.
//!
//! * `server`: connections and their limits
//! * `endpoints`: what is answered
//! * `origin`: who makes a browser ask
//! * `status`, `page`: the state of the process, and how people see it
//! * `healthcheck`: the other end, for `weir healthcheck`

mod endpoints;
mod healthcheck;
mod origin;
mod page;
mod server;
pub mod status;

use std::future::Future;
use std::pin::Pin;

use crate::middleware::cache::purge::Wanted;
use crate::plan::explain::{Asked, Explanation};
pub use crate::telemetry::handles::ReloadOutcome;
use crate::upstream::breaker::{BreakerStatus, State};
pub use healthcheck::healthcheck;
pub use server::serve;
pub use status::Status;

/// Which endpoints an address serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Full,
    /// `/metrics`, `/healthz` and `/readyz` alone, for the pod network.
    ScrapeOnly,
}

/// The running process, as the admin address sees it. Called on the control thread; must not
/// block.
pub trait Context: Send + Sync + 'static {
    /// All metrics: OpenMetrics 1.0, or Prometheus text 0.0.4.
    fn metrics_text(&self, openmetrics: bool) -> Vec<u8>;
    /// A plan in force, listeners bound, not draining; else what is missing.
    fn ready(&self) -> Result<(), String>;
    /// Stopping: reloads are refused.
    fn draining(&self) -> bool;
    /// Everything `/status` shows.
    fn status(&self) -> Status;
    /// The config in force; secrets only as the file or the variable that holds them.
    fn config_json(&self) -> serde_json::Value;
    /// What would become of a request.
    fn explain(&self, asked: &Asked) -> Explanation;
    /// Holds the breaker of an upstream in a state, or lets it go. Gives how it stands then; `None`
    /// where there is no such upstream, or it has no breaker.
    fn force_breaker(&self, upstream: &str, to: Option<State>) -> Option<BreakerStatus>;
    /// Serves nothing stored any more that this names; false where no route stores anything.
    fn purge(&self, wanted: &Wanted) -> bool;
    /// Reloads, and says how it went. A client that leaves drops the future: dropping it must not
    /// stop a reload halfway.
    fn reload(&self) -> Pin<Box<dyn Future<Output = ReloadReport> + Send>>;
}

/// How a reload went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadReport {
    /// In one word.
    pub outcome: ReloadOutcome,
    /// In a sentence, or the problems as `weir check` renders them.
    pub message: String,
    /// What changed, a line each.
    pub changes: Vec<String>,
}

impl ReloadReport {
    /// The word of the outcome, as in `weir_config_reloads_total`.
    pub fn word(&self) -> &'static str {
        ReloadOutcome::ALL[self.outcome as usize].1
    }
}

#[cfg(test)]
mod tests;
