//! Rules of listeners and of the admin addresses: all of them are sockets of one process.
//! Two of them must not want one port, and each address must be one that can be bound.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::decode::Lost;
use super::super::{Config, LimitsConfig, ListenerConfig};
use super::{TOP, address, at_least_one, name, out_of_range};
use crate::problem::{Located, Problem, Problems};

/// The times that a client may be given.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_hours(24);

/// Checks every listener, and all addresses against each other.
pub(super) fn check(config: &Config, lost: &Lost, problems: &mut Problems) {
    if config.listeners.is_empty() && !lost.any("listeners") {
        let problem = Problem::at(&TOP, "no listeners: nothing would be served");
        problems.push(problem.help("add [listeners.web] with address = \"0.0.0.0:8080\""));
    }
    for (listener, section) in &config.listeners {
        name("a listener", listener, problems);
        one(listener, section, problems);
        let believed = !config.server.trusted_proxies.is_empty() || lost.any("server");
        if section.proxy_protocol && !believed {
            let message = "proxy_protocol without trusted_proxies: every client would be refused";
            let help = "list the load balancers in server.trusted_proxies";
            problems.push(Problem::at(&listener.span, message).help(help));
        }
    }
    sockets(config, problems);
}

fn one(listener: &Located<String>, section: &ListenerConfig, problems: &mut Problems) {
    if let Some(protocols) = &section.protocols
        && protocols.is_empty()
    {
        let problem = Problem::at(&protocols.span, "a listener must speak something");
        problems.push(problem.help("list \"http1\", \"h2\" or both"));
    }
    if let Some(most) = &section.max_connections {
        at_least_one(most, "max_connections", problems);
    }
    if let Some(tls) = &section.tls
        && tls.certificates.is_empty()
    {
        let message = format!("listener \"{}\" has no certificate", listener.value);
        problems.push(Problem::at(&tls.certificates.span, message));
    }
    limits(&section.limits, problems);
}

fn limits(limits: &LimitsConfig, problems: &mut Problems) {
    if !(1..=1000).contains(&limits.headers.value) {
        out_of_range(&limits.headers.span, "headers", "1 to 1000", problems);
    }
    if !(1 << 10..=1 << 20).contains(&limits.header_bytes.0) {
        let span = &limits.header_bytes.span;
        out_of_range(span, "header_bytes", "1KiB to 1MiB", problems);
    }
    if !(1..=10_000).contains(&limits.streams.value) {
        out_of_range(&limits.streams.span, "streams", "1 to 10000", problems);
    }
    for (key, time) in [
        ("header_timeout", &limits.header_timeout),
        ("idle_timeout", &limits.idle_timeout),
        ("body_idle_timeout", &limits.body_idle_timeout),
        ("write_timeout", &limits.write_timeout),
    ] {
        if !(SHORTEST..=LONGEST).contains(&time.0) {
            out_of_range(&time.span, key, "1ms to 24h", problems);
        }
    }
}

/// Every address parses, and no two of them want the same socket.
fn sockets(config: &Config, problems: &mut Problems) {
    let admin = [
        Some(("admin.address".to_owned(), &config.admin.address)),
        config
            .admin
            .scrape_address
            .as_ref()
            .map(|a| ("admin.scrape_address".to_owned(), a)),
    ];
    let listeners = config.listeners.iter();
    let listeners = listeners.map(|(name, l)| (format!("listener \"{}\"", name.value), &l.address));
    let mut taken: Vec<(String, SocketAddr, &Located<String>)> = Vec::new();
    for (who, text) in admin.into_iter().flatten().chain(listeners) {
        let Some(socket) = address::socket(text, problems) else {
            continue;
        };
        if let Some((holder, other, first)) = taken.iter().find(|t| address::clash(t.1, socket)) {
            let message = format!("{who} wants {socket}, but {holder} has {other}");
            let mut problem = Problem::at(&text.span, message).also(&first.span, "taken here");
            if first.span.is_empty() {
                problem = problem.help(format!("{holder} is {other} unless it is set"));
            }
            problems.push(problem);
        }
        taken.push((who, socket, text));
    }
}
