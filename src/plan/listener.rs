//! placeholder: ListenerPlan and its compile (helper "server")
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ListenerConfig;
use crate::files::Files;
use crate::problem::{Located, Problems};
use crate::telemetry::handles::ListenerMetrics;

/// A listener, ready to accept.
pub struct ListenerPlan {
    /// Its name in the config.
    pub name: Arc<str>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// HTTP/1 is spoken.
    pub http1: bool,
    /// HTTP/2 is spoken: by ALPN with TLS, by prior knowledge without.
    pub h2: bool,
    /// A PROXY header must come first.
    pub proxy_protocol: bool,
    /// Cap on this listener's connections, over all workers.
    pub max_connections: Option<u32>,
    /// What one client may take.
    pub limits: Limits,
    /// TLS.
    pub tls: Option<Arc<TlsPlan>>,
    /// Its numbers.
    pub metrics: Arc<ListenerMetrics>,
}

/// What one client may take of us.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "named as in config::LimitsConfig")]
pub struct Limits {
    pub headers: usize,
    pub header_bytes: usize,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_idle_timeout: Duration,
    pub write_timeout: Duration,
    pub streams: u32,
}

/// TLS of a listener.
pub struct TlsPlan {
    /// One for all workers, so that resumption works.
    pub config: Arc<rustls::ServerConfig>,
    /// For `weir_tls_certificate_not_after_timestamp_seconds`: `cert` as written, Unix seconds.
    pub not_after: Vec<(String, i64)>,
}

impl TlsPlan {
    /// Whether a connection that asked for `server_name` may carry requests for `host` (both lower
    /// case, without port): the same name, or one that the same certificate serves. Else 421.
    pub fn covers(&self, server_name: &str, host: &str) -> bool {
        let _ = (server_name, host);
        true
    }
}

impl ListenerPlan {
    /// Compiles one section; pushes every problem and gives `None` if there was any.
    pub fn compile(
        name: &Located<String>,
        config: &ListenerConfig,
        files: &Files,
        metrics: Arc<ListenerMetrics>,
        previous: Option<&Arc<ListenerPlan>>,
        problems: &mut Problems,
    ) -> Option<ListenerPlan> {
        let _ = (name, config, files, metrics, previous, problems);
        None
    }
}
