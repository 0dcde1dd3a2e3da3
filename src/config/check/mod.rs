//! Rules that span sections, and rules on values that no type and no compile step holds.
//!
//! Each file here owns the rules of one kind of section; this one owns the process and the words
//! they share. What is compiled elsewhere (paths, hosts, header fields, certificates, redirect
//! targets, the numbers of upstreams) is checked there and only there, since every refusal tells
//! the faults of both. A rule that relates several keys is left out for a section that lost
//! one of them on the way: its complaint has been made. Nothing is looked up outside the config.

mod address;
mod listeners;
mod routes;
mod upstreams;

use ipnet::IpNet;

use super::decode::Lost;
use super::{Config, ServerConfig};
use crate::problem::{Located, Problem, Problems, Span};
use crate::units::Time;

/// The first byte of the top file: the place of what is missing there altogether.
const TOP: Span = 1..2;

/// Checks a config that was decoded whole.
pub fn check(config: &Config, problems: &mut Problems) {
    check_partial(config, &Lost::default(), problems);
}

/// Checks what is left of a config after `lost` was taken out of it.
pub(super) fn check_partial(config: &Config, lost: &Lost, problems: &mut Problems) {
    server(&config.server, problems);
    if !(0.0..=1.0).contains(&config.log.access.sample.value) {
        out_of_range(&config.log.access.sample.span, "sample", "0 to 1", problems);
    }
    if config.log.access.to.is_empty() {
        let problem = Problem::at(&config.log.access.to.span, "the access log needs a target");
        let help = "use \"stdout\", \"stderr\", \"off\" or the path of a file";
        problems.push(problem.help(help));
    }
    if let Some(timeout) = &config.defaults.timeout {
        nonzero(timeout, "timeout", problems);
    }
    listeners::check(config, lost, problems);
    for (name, upstream) in &config.upstreams {
        upstreams::check(name, upstream, lost, problems);
    }
    routes::check(config, lost, problems);
}

fn server(server: &ServerConfig, problems: &mut Problems) {
    at_least_one(&server.max_connections, "max_connections", problems);
    for peer in &server.trusted_proxies {
        let address = peer.parse::<std::net::IpAddr>().is_ok();
        if !address && peer.parse::<IpNet>().is_err() {
            let message = format!("\"{}\" is no address and no range of addresses", peer.value);
            let problem = Problem::at(&peer.span, message);
            problems.push(problem.help("write \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\""));
        }
    }
    if !is_token(&server.identity) {
        let message = format!("\"{}\" is no token (RFC 9110)", server.identity.value);
        let problem = Problem::at(&server.identity.span, message);
        problems.push(problem.help("use letters, digits, \"-\", \".\" and \"_\""));
    }
}

/// Names are metric labels and parts of URLs: `[a-z0-9][a-z0-9_.-]{0,62}`.
fn name(whose: &str, name: &Located<String>, problems: &mut Problems) {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let rest = |c: char| first(c) || matches!(c, '_' | '.' | '-');
    if name.starts_with(first) && name.chars().all(rest) && name.len() <= 63 {
        return;
    }
    let message = format!("\"{}\" cannot be the name of {whose}", name.value);
    let help = "use up to 63 of a-z 0-9 \"_\" \".\" \"-\", the first a letter or digit";
    problems.push(Problem::at(&name.span, message).help(help));
}

/// A token of RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let mark = |c: char| "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || mark(c))
}

fn nonzero(time: &Located<Time>, key: &str, problems: &mut Problems) {
    if time.0.is_zero() {
        problems.push(Problem::at(&time.span, format!("{key} must be above 0")));
    }
}

fn at_least_one(count: &Located<u32>, key: &str, problems: &mut Problems) {
    if count.value == 0 {
        problems.push(Problem::at(
            &count.span,
            format!("{key} must be at least 1"),
        ));
    }
}

fn out_of_range(span: &Span, key: &str, range: &str, problems: &mut Problems) {
    problems.push(Problem::at(span, format!("{key} must be from {range}")));
}
