//! Rules of one upstream: its endpoints, and values in their ranges.
//! Whether a name can be resolved is not asked here: a check does no I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::decode::Lost;
use super::{address, at_least_one, is_token, name, nonzero, out_of_range, percent};
use crate::problem::{Located, Problem, Problems};
use crate::upstream::config::{
    BalanceConfig, EjectConfig, EndpointConfig, HealthConfig, RetryConfig, UpstreamConfig,
};

/// Checks one upstream.
pub(super) fn check(
    upstream: &Located<String>,
    section: &UpstreamConfig,
    lost: &Lost,
    problems: &mut Problems,
) {
    name("an upstream", upstream, problems);
    endpoints(&section.endpoints, problems);
    balance(&section.balance, problems);
    timeouts(section, problems);
    percent(&section.panic_threshold, "panic_threshold", problems);
    section.health.iter().for_each(|h| health(h, problems));
    section
        .eject
        .on()
        .into_iter()
        .for_each(|e| eject(e, problems));
    for breaker in section.breakers() {
        breaker.check(&section.timeouts.first_byte, problems);
    }
    section
        .retry
        .on()
        .into_iter()
        .for_each(|r| retry(r, problems));
    if !lost.touched("upstreams", upstream) {
        client_certificate(section, problems);
    }
}

fn endpoints(endpoints: &Located<Vec<EndpointConfig>>, problems: &mut Problems) {
    if endpoints.is_empty() {
        problems.push(Problem::at(
            &endpoints.span,
            "an upstream needs an endpoint",
        ));
    }
    let mut seen = BTreeMap::new();
    for endpoint in endpoints.iter() {
        address::endpoint(&endpoint.address, problems);
        if !(1..=1000).contains(&endpoint.weight.value) {
            out_of_range(&endpoint.weight.span, "weight", "1 to 1000", problems);
        }
        let text = endpoint.address.to_ascii_lowercase();
        if let Some(first) = seen.insert(text, &endpoint.address.span) {
            let message = format!("endpoint \"{}\" stands here twice", endpoint.address.value);
            let problem = Problem::at(&endpoint.address.span, message).also(first, "first here");
            problems.push(problem.help("give one of them a higher weight instead"));
        }
    }
}

fn balance(balance: &Located<BalanceConfig>, problems: &mut Problems) {
    let (kind, name) = match &balance.value {
        BalanceConfig::HashHeader(name) => ("header field", name),
        BalanceConfig::HashCookie(name) => ("cookie", name),
        BalanceConfig::P2c | BalanceConfig::RoundRobin | BalanceConfig::HashClientIp => return,
    };
    if !is_token(name) {
        let message = format!("\"{name}\" cannot name a {kind}");
        problems.push(Problem::at(&balance.span, message));
    }
}

fn timeouts(section: &UpstreamConfig, problems: &mut Problems) {
    nonzero(&section.timeouts.connect, "connect", problems);
    nonzero(&section.timeouts.first_byte, "first_byte", problems);
    nonzero(&section.timeouts.idle, "idle", problems);
    let pool = &section.pool;
    at_least_one(&pool.max_connections, "max_connections", problems);
    nonzero(&pool.idle_timeout, "idle_timeout", problems);
    nonzero(&pool.max_age, "max_age", problems);
    nonzero(&pool.pending_timeout, "pending_timeout", problems);
    if section.resolve_interval.0 < Duration::from_secs(1) {
        let message = "resolve_interval must be at least \"1s\"";
        problems.push(Problem::at(&section.resolve_interval.span, message));
    }
}

fn health(health: &HealthConfig, problems: &mut Problems) {
    let visible = health
        .path
        .bytes()
        .all(|b| b.is_ascii_graphic() && b != b'#');
    if !health.path.starts_with('/') || !visible {
        let message = format!("\"{}\" is no path", health.path.value);
        problems.push(Problem::at(&health.path.span, message).help("write \"/healthz\""));
    }
    if let Some(host) = &health.host
        && host.parse::<http::uri::Authority>().is_err()
    {
        let message = format!("\"{}\" is no host", host.value);
        problems.push(Problem::at(&host.span, message));
    }
    nonzero(&health.interval, "interval", problems);
    nonzero(&health.timeout, "timeout", problems);
    at_least_one(&health.rise, "rise", problems);
    at_least_one(&health.fall, "fall", problems);
}

fn eject(eject: &EjectConfig, problems: &mut Problems) {
    at_least_one(&eject.consecutive, "consecutive", problems);
    nonzero(&eject.base, "base", problems);
    percent(&eject.max_percent, "max_percent", problems);
}

fn retry(retry: &RetryConfig, problems: &mut Problems) {
    if !(1..=10).contains(&retry.attempts.value) {
        let problem = Problem::at(&retry.attempts.span, "attempts must be from 1 to 10");
        problems.push(problem.help("retry = false turns retries off"));
    }
    if !(0.0..=1.0).contains(&retry.budget.value) {
        out_of_range(&retry.budget.span, "budget", "0 to 1", problems);
    }
    if let Some(timeout) = &retry.per_try_timeout {
        nonzero(timeout, "per_try_timeout", problems);
    }
}

/// A certificate is of no use without its key, nor a key without its certificate.
fn client_certificate(section: &UpstreamConfig, problems: &mut Problems) {
    let Some(tls) = &section.tls else { return };
    let lonely = match (&tls.cert, &tls.key) {
        (Some(cert), None) => Some((cert, "cert", "key")),
        (None, Some(key)) => Some((key, "key", "cert")),
        _ => None,
    };
    if let Some((file, has, lacks)) = lonely {
        let message = format!("{has} without {lacks}");
        problems.push(Problem::at(&file.span, message).help("give both, or neither"));
    }
}
