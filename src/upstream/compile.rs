//! From the section as written to an [`Upstream`]: every rule checked, every problem reported.
//!
//! No I/O: certificates come from the files that were read, names are resolved later. What the
//! upstream of this name in the plan in force knows is taken over where it still applies.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use rustls_pki_types::ServerName;

use super::Upstream;
use super::admit::Guard;
use super::balance;
use super::breaker::{Breaker, BreakerConfig};
use super::budget::Budget;
use super::caps::Caps;
use super::choose::HashKey;
use super::config::{BalanceConfig, EndpointConfig, Protocol, UpstreamConfig};
use super::connect::Connector;
use super::eject;
use super::resolve::{Live, Spec};
use super::tls;
use crate::clock;
use crate::files::Files;
use crate::gate;
use crate::problem::{Located, Problem, Problems, Span};
use crate::telemetry::handles::UpstreamMetrics;
use crate::units::Time;

impl Upstream {
    /// Compiles one section. Endpoints that `previous` (the upstream of this name in the plan in
    /// force) also has keep their state. No I/O. Pushes every problem; `None` if there was any.
    pub fn compile(
        name: &Located<String>,
        config: &UpstreamConfig,
        zone: Option<&str>,
        files: &Files,
        metrics: Arc<UpstreamMetrics>,
        previous: Option<&Arc<Upstream>>,
        problems: &mut Problems,
    ) -> Option<Upstream> {
        let before = problems.len();
        check(config, problems);
        let specs = specs(config, zone, problems);
        let key = hash_key(&config.balance, problems);
        let connector = connector(config, config.protocol, files, problems);
        let http1_connector = connector.as_ref().map(|c| http1(c, config.protocol));
        if problems.len() > before {
            return None;
        }
        let now = clock::now();
        let hashed = !matches!(key, HashKey::None);
        let workers = metrics.iter().count() - 1;
        let guarded = config.endpoint_breaker.is_some().then_some(workers);
        let live = Live::new(specs, hashed, guarded, previous.map(|p| &*p.live), now);
        let caps = previous.map_or_else(
            || Arc::new(Caps::new(config.pool.max_connections.value)),
            |p| Arc::clone(&p.caps),
        );
        let concurrency = gate::caps::Caps::compile(
            &name.value,
            &config.concurrency,
            previous.map(|p| &p.concurrency),
            problems,
        );
        let workers = metrics.iter().count() - 1;
        let budget = previous.map_or_else(
            || Arc::new(Budget::new(workers, now)),
            |p| Arc::clone(&p.budget),
        );
        Some(Upstream {
            name: name.value.as_str().into(),
            config: config.clone(),
            key,
            rule: config.eject.on().map(|e| eject::Rule {
                consecutive: e.consecutive.value,
                base: e.base.value.0,
                max_percent: e.max_percent.value,
            }),
            guard: config.breaker.as_ref().map(|config| Guard {
                breaker: previous.and_then(|p| p.guard.as_ref()).map_or_else(
                    || Arc::new(Breaker::new(workers, now)),
                    |g| Arc::clone(&g.breaker),
                ),
                rule: config.rule(),
            }),
            endpoint_rule: config.endpoint_breaker.as_ref().map(BreakerConfig::rule),
            connector: connector?,
            http1_connector: http1_connector?,
            identity: identity(config, files),
            live: Arc::new(live),
            caps,
            budget,
            concurrency,
            metrics,
        })
    }
}

/// Rules on single values.
fn check(config: &UpstreamConfig, problems: &mut Problems) {
    let timeouts = &config.timeouts;
    for (key, time) in [
        ("connect", &timeouts.connect),
        ("first_byte", &timeouts.first_byte),
        ("idle", &timeouts.idle),
        ("idle_timeout", &config.pool.idle_timeout),
        ("max_age", &config.pool.max_age),
        ("pending_timeout", &config.pool.pending_timeout),
    ] {
        at_least(key, time, Duration::from_millis(1), problems);
    }
    let second = Duration::from_secs(1);
    at_least(
        "resolve_interval",
        &config.resolve_interval,
        second,
        problems,
    );
    let connections = &config.pool.max_connections;
    within("max_connections", connections, 1, 1_000_000, problems);
    within("panic_threshold", &config.panic_threshold, 0, 100, problems);
    check_health(config, problems);
    for breaker in config.breakers() {
        breaker.check(&timeouts.first_byte, problems);
    }
    if let Some(eject) = config.eject.on() {
        within("consecutive", &eject.consecutive, 1, 1_000_000, problems);
        within("max_percent", &eject.max_percent, 0, 100, problems);
        at_least("base", &eject.base, Duration::from_millis(1), problems);
    }
    if let Some(retry) = config.retry.on() {
        if !(1..=10).contains(&retry.attempts.value) {
            let problem = Problem::at(&retry.attempts.span, "`attempts` is from 1 to 10");
            problems.push(problem.help("retry = false turns retries off"));
        }
        if !(0.0..=1.0).contains(&retry.budget.value) {
            let message = "`budget` is a share: from 0 to 1";
            problems.push(Problem::at(&retry.budget.span, message));
        }
        if let Some(limit) = &retry.per_try_timeout {
            at_least("per_try_timeout", limit, Duration::from_millis(1), problems);
        }
    }
}

fn check_health(config: &UpstreamConfig, problems: &mut Problems) {
    let Some(health) = &config.health else {
        return;
    };
    let shortest = Duration::from_millis(100);
    at_least("interval", &health.interval, shortest, problems);
    at_least(
        "timeout",
        &health.timeout,
        Duration::from_millis(1),
        problems,
    );
    within("rise", &health.rise, 1, 1000, problems);
    within("fall", &health.fall, 1, 1000, problems);
    let path = &health.path;
    let visible = |b: u8| b.is_ascii_graphic() && b != b'#';
    if !path.value.starts_with('/') || !path.value.bytes().all(visible) {
        let message = format!("\"{}\" is no path", path.value);
        problems.push(Problem::at(&path.span, message).help("write \"/healthz\""));
    }
    if let Some(host) = &health.host
        && host.value.parse::<http::uri::Authority>().is_err()
    {
        let message = format!("\"{}\" is no host", host.value);
        problems.push(Problem::at(&host.span, message));
    }
}

fn at_least(key: &str, time: &Located<Time>, least: Duration, problems: &mut Problems) {
    if time.value.0 < least {
        let message = format!("`{key}` is at least {}ms", least.as_millis());
        problems.push(Problem::at(&time.span, message));
    }
}

fn within<N: Copy + Into<u64>>(
    key: &str,
    number: &Located<N>,
    least: u64,
    most: u64,
    problems: &mut Problems,
) {
    if !(least..=most).contains(&number.value.into()) {
        let message = format!("`{key}` is from {least} to {most}");
        problems.push(Problem::at(&number.span, message));
    }
}

fn specs(config: &UpstreamConfig, zone: Option<&str>, problems: &mut Problems) -> Vec<Spec> {
    let endpoints = config.endpoints.value.iter();
    endpoints
        .filter_map(|endpoint| spec(endpoint, config, zone, problems))
        .collect()
}

fn spec(
    endpoint: &EndpointConfig,
    config: &UpstreamConfig,
    zone: Option<&str>,
    problems: &mut Problems,
) -> Option<Spec> {
    let address = &endpoint.address;
    within("weight", &endpoint.weight, 1, 1000, problems);
    // What is wrong with one that is no address is `config/check`'s to say.
    let (host, port) = split(&address.value)?;
    let server_name = match &config.tls {
        None => None,
        Some(tls) => {
            let (name, span): (&str, &Span) = match &tls.server_name {
                Some(name) => (&name.value, &name.span),
                None => (host, &address.span),
            };
            match ServerName::try_from(name.to_owned()) {
                Ok(name) => Some(name),
                Err(_) => {
                    let message = format!("\"{name}\" is no name for TLS");
                    problems.push(Problem::at(span, message));
                    return None;
                }
            }
        }
    };
    Some(Spec {
        written: address.value.as_str().into(),
        host: host.into(),
        port,
        weight: endpoint.weight.value,
        priority: endpoint.priority,
        zone: endpoint.zone.as_deref().map(Into::into),
        near: zone.is_none() || endpoint.zone.as_deref() == zone,
        server_name,
    })
}

/// Host (without brackets) and port.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|p| *p > 0)?;
    if let Some(v6) = host.strip_prefix('[') {
        let v6 = v6.strip_suffix(']')?;
        v6.parse::<std::net::Ipv6Addr>().ok()?;
        return Some((v6, port));
    }
    let of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(of_a_name);
    named.then_some((host, port))
}

fn hash_key(balance: &Located<BalanceConfig>, problems: &mut Problems) -> HashKey {
    match &balance.value {
        BalanceConfig::P2c | BalanceConfig::RoundRobin => HashKey::None,
        BalanceConfig::HashClientIp => HashKey::ClientIp,
        BalanceConfig::HashCookie(name) => HashKey::Cookie(name.as_str().into()),
        BalanceConfig::HashHeader(name) => match HeaderName::try_from(name) {
            Ok(name) => HashKey::Header(name),
            Err(_) => {
                let message = format!("\"{name}\" is no header name");
                problems.push(Problem::at(&balance.span, message));
                HashKey::None
            }
        },
    }
}

fn connector(
    config: &UpstreamConfig,
    protocol: Protocol,
    files: &Files,
    problems: &mut Problems,
) -> Option<Connector> {
    let tls = match &config.tls {
        Some(tls) => Some(tls::compile(tls, protocol, files, problems)?),
        None => None,
    };
    Some(Connector {
        protocol,
        tls,
        timeout: config.timeouts.connect.value.0,
        stall: config.timeouts.idle.value.0,
    })
}

/// The same, for connections that are to be upgraded.
fn http1(connector: &Connector, protocol: Protocol) -> Connector {
    let tls = connector.tls.as_ref().map(|tls| match protocol {
        Protocol::Http1 => Arc::clone(tls),
        Protocol::H2 | Protocol::Auto => {
            let mut tls = (**tls).clone();
            tls.alpn_protocols = tls::alpn(Protocol::Http1);
            Arc::new(tls)
        }
    });
    Connector {
        protocol: Protocol::Http1,
        tls,
        ..connector.clone()
    }
}

/// What makes connections unequal, as one number: the protocol, the TLS section, its files.
fn identity(config: &UpstreamConfig, files: &Files) -> u64 {
    let mut bytes = format!("{:?}", config.protocol).into_bytes();
    let Some(tls) = &config.tls else {
        return balance::hash(&bytes);
    };
    bytes.extend_from_slice(b" tls");
    for file in tls.files() {
        let found = files.iter().find(|(path, _)| **path == file.value);
        if let Some((path, Ok(content))) = found {
            bytes.extend_from_slice(path.as_bytes());
            bytes.extend_from_slice(content);
        }
    }
    balance::hash(&bytes)
}
