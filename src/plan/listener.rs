//! A listener, compiled: address, protocols, limits within their ranges, TLS.
//!
//! No I/O: sockets are bound by `server` once the whole plan is good.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{LimitsConfig, ListenerConfig, ListenerProtocol};
use crate::files::Files;
use crate::problem::{Located, Problem, Problems};
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
        let address = address(&config.address, problems);
        let (http1, h2) = protocols(config, problems);
        let limits = Limits::compile(&config.limits, problems);
        let max_connections = config.max_connections.as_ref();
        let max_connections = max_connections.map(|cap| within(cap, 1..=u32::MAX, problems));
        let tls = config.tls.as_ref().map(|section| {
            let previous = previous.and_then(|p| p.tls.as_ref());
            TlsPlan::compile(section, alpn(http1, h2), files, previous, problems)
        });
        if problems.len() > before {
            return None;
        }
        Some(ListenerPlan {
            name: name.value.as_str().into(),
            address: address?,
            http1,
            h2,
            proxy_protocol: config.proxy_protocol,
            max_connections,
            limits,
            tls: tls.flatten(),
            metrics,
        })
    }
}

fn address(written: &Located<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let parsed = written.value.parse();
    if parsed.is_err() {
        let message = format!("\"{}\" is not ip:port", written.value);
        let help = "such as \"0.0.0.0:8080\" or \"[::]:8080\"";
        problems.push(Problem::at(&written.span, message).help(help));
    }
    parsed.ok()
}

/// HTTP/1 and HTTP/2, each spoken or not.
fn protocols(config: &ListenerConfig, problems: &mut Problems) -> (bool, bool) {
    let Some(written) = &config.protocols else {
        return (true, config.tls.is_some());
    };
    if written.value.is_empty() {
        let message = "a listener speaks \"http1\", \"h2\" or both";
        problems.push(Problem::at(&written.span, message));
    }
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
    fn compile(config: &LimitsConfig, problems: &mut Problems) -> Limits {
        let mut time = |key: &Located<crate::units::Time>| {
            let range = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
            if !range.contains(&key.value.0) {
                let message = "must be from \"1ms\" to \"24h\"";
                problems.push(Problem::at(&key.span, message));
            }
            key.value.0
        };
        let header_timeout = time(&config.header_timeout);
        let idle_timeout = time(&config.idle_timeout);
        let body_idle_timeout = time(&config.body_idle_timeout);
        let write_timeout = time(&config.write_timeout);
        if !(1 << 10..=1 << 20).contains(&config.header_bytes.value.0) {
            let message = "must be from \"1KiB\" to \"1MiB\"";
            problems.push(Problem::at(&config.header_bytes.span, message));
        }
        Limits {
            headers: usize::from(within(&config.headers, 1..=10_000, problems)),
            header_bytes: config.header_bytes.value.bytes(),
            header_timeout,
            idle_timeout,
            body_idle_timeout,
            write_timeout,
            streams: within(&config.streams, 1..=10_000, problems),
        }
    }
}

fn within<T>(key: &Located<T>, range: RangeInclusive<T>, problems: &mut Problems) -> T
where
    T: Copy + PartialOrd + std::fmt::Display,
{
    if !range.contains(&key.value) {
        let message = format!("must be from {} to {}", range.start(), range.end());
        problems.push(Problem::at(&key.span, message));
    }
    key.value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::handles::Metrics;
    use crate::units::{Size, Time};

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

    #[test]
    fn every_value_out_of_its_range_is_a_problem_of_its_own() {
        let problems = compile(|c| {
            c.address.value = "localhost".into();
            c.protocols = Some(Located::unstated(Vec::new()));
            c.max_connections = Some(Located::unstated(0));
            c.limits.headers.value = 0;
            c.limits.header_bytes.value = Size(1023);
            c.limits.header_timeout.value = Time(Duration::ZERO);
            c.limits.streams.value = 0;
        });
        assert_eq!(problems.err(), Some(7));
    }
}
