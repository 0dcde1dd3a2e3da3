//! A listener, compiled: address, protocols, limits, TLS.
//!
//! That values are in their ranges is `config/check`'s to say, so that it is said once. No I/O: sockets are bound by `server` once the whole plan is good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{LimitsConfig, ListenerConfig, ListenerProtocol};
use crate::files::Files;
use crate::problem::{Located, Problems};
use crate::telemetry::handles::ListenerMetrics;

pub use super::tls::{ClientRoots, TlsPlan};

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
        let before = problems.len();
        let (http1, h2) = protocols(config);
        let tls = config.tls.as_ref().map(|section| {
            let previous = previous.and_then(|p| p.tls.as_ref());
            TlsPlan::compile(section, alpn(http1, h2), files, previous, problems)
        });
        if problems.len() > before {
            return None;
        }
        Some(ListenerPlan {
            name: name.value.as_str().into(),
            // one that does not parse is `config/check`'s to report
            address: config.address.value.parse().ok()?,
            http1,
            h2,
            proxy_protocol: config.proxy_protocol,
            max_connections: config.max_connections.as_ref().map(|cap| cap.value),
            limits: Limits::compile(&config.limits),
            tls: tls.flatten(),
            metrics,
        })
    }
}

/// HTTP/1 and HTTP/2, each spoken or not.
fn protocols(config: &ListenerConfig) -> (bool, bool) {
    let Some(written) = &config.protocols else {
        return (true, config.tls.is_some());
    };
    let speaks = |protocol| written.value.contains(&protocol);
    (
        speaks(ListenerProtocol::Http1),
        speaks(ListenerProtocol::H2),
    )
}

fn alpn(http1: bool, h2: bool) -> Vec<Vec<u8>> {
    let offered = [(h2, &b"h2"[..]), (http1, b"http/1.1")];
    let offered = offered.into_iter().filter(|(speaks, _)| *speaks);
    offered.map(|(_, name)| name.to_vec()).collect()
}

impl Limits {
    fn compile(config: &LimitsConfig) -> Limits {
        Limits {
            headers: usize::from(config.headers.value),
            header_bytes: config.header_bytes.value.bytes(),
            header_timeout: config.header_timeout.value.0,
            idle_timeout: config.idle_timeout.value.0,
            body_idle_timeout: config.body_idle_timeout.value.0,
            write_timeout: config.write_timeout.value.0,
            streams: config.streams.value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::handles::Metrics;

    fn compile(change: impl FnOnce(&mut ListenerConfig)) -> Result<ListenerPlan, usize> {
        let mut config = ListenerConfig {
            address: Located::unstated("127.0.0.1:8080".to_owned()),
            protocols: None,
            proxy_protocol: false,
            max_connections: None,
            tls: None,
            limits: LimitsConfig::default(),
        };
        change(&mut config);
        let name = Located::unstated("web".to_owned());
        let cells = Metrics::new(1).listener("web");
        let mut problems = Problems::new();
        let plan = ListenerPlan::compile(
            &name,
            &config,
            &Files::default(),
            cells,
            None,
            &mut problems,
        );
        plan.ok_or(problems.len())
    }

    #[test]
    fn a_cleartext_listener_speaks_http1_unless_told_otherwise() {
        let plan = compile(|_| {}).expect("a good section");
        assert_eq!((plan.http1, plan.h2), (true, false));
        let h2 = vec![ListenerProtocol::H2];
        let plan = compile(|c| c.protocols = Some(Located::unstated(h2))).expect("a good section");
        assert_eq!((plan.http1, plan.h2), (false, true));
    }
}
