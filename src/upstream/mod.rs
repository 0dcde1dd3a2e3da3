//! placeholder: How a request leaves (helper "upstream").
pub mod config;

use std::sync::Arc;

use crate::files::Files;
use crate::problem::{Located, Problems};
use crate::telemetry::handles::UpstreamMetrics;

/// A named set of endpoints, shared by all workers.
pub struct Upstream {
    /// Its name in the config.
    pub name: Arc<str>,
}

impl Upstream {
    /// Compiles one section. Endpoints that `previous` (the upstream of this name in the plan in
    /// force) also has keep their state. No I/O. Pushes every problem; `None` if there was any.
    pub fn compile(
        name: &Located<String>,
        config: &config::UpstreamConfig,
        zone: Option<&str>,
        files: &Files,
        metrics: Arc<UpstreamMetrics>,
        previous: Option<&Arc<Upstream>>,
        problems: &mut Problems,
    ) -> Option<Upstream> {
        let _ = (config, zone, files, metrics, previous, problems);
        Some(Upstream {
            name: name.value.as_str().into(),
        })
    }
}

/// This worker's connections to every upstream.
pub struct WorkerPools {
    /// The worker.
    pub worker: usize,
}

impl WorkerPools {
    /// Empty, for this worker.
    pub fn new(worker: usize) -> Self {
        WorkerPools { worker }
    }
}
