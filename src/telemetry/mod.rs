//! What is counted and what is logged.
//!
//! * `names`: every metric once
//! * `buckets`: the bounds of histograms
//! * `cells`: numbers with one writer
//! * `words`: closed lists of label values
//! * `handles`: the numbers of each route, upstream, listener and worker
//! * `policies`: the numbers of limits and compression
//! * `expose`: all numbers as text, at scrape time
//! * `process`: the process as the kernel sees it
//! * `estimate`: how many series a config can come to
//! * `access`: one JSON line per request
//! * `diagnostics`: what Weir says of itself, on stderr
//! * `trace`: which trace context may be passed on

pub mod access;
mod buckets;
pub mod cache;
pub mod cells;
pub mod diagnostics;
mod estimate;
pub mod expose;
pub mod handles;
pub mod names;
mod policies;
mod process;
pub mod trace;
pub mod words;

pub use diagnostics::init;
pub use estimate::series_estimate;

/// What is running, for `weir_build_info`, `/status` and `weir version`.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The version of the package.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The compiler.
    pub rustc: &'static str,
}
