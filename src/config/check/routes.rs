//! Rules of routes: each has a name of its own, does one thing, and sends to what exists.
//! What two routes match alike is the router's to find, in `plan/compile`.

use std::collections::BTreeMap;

use super::super::decode::Lost;
use super::super::{Config, RouteConfig, SplitConfig};
use super::{at_least_one, is_token, name, nonzero, out_of_range};
use crate::problem::{Located, Problem, Problems, Span, nearest};

/// The largest weight of one part of a split.
const MOST_WEIGHT: u32 = 1_000_000;

/// The most keys of one limit.
const MOST_KEYS: u32 = 100_000_000;

/// Checks every route.
pub(super) fn check(config: &Config, lost: &Lost, problems: &mut Problems) {
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    let mut named: BTreeMap<String, Span> = BTreeMap::new();
    for route in &config.routes {
        name("a route", &route.id, problems);
        if let Some(first) = seen.insert(&route.id, &route.id.span) {
            let message = format!("route \"{}\" is defined twice", route.id.value);
            problems.push(Problem::at(&route.id.span, message).also(first, "first here"));
        }
        targets(route, config, lost, problems);
        steps(route, config, lost, problems);
        values(route, problems);
        limits(route, &mut named, problems);
        if !lost.touched("routes", &route.id) {
            one_action(route, problems);
            forwarding_only(route, problems);
            if let Some(concurrency) = &route.concurrency {
                concurrency.check(problems);
            }
        }
    }
}

/// What the route sends to is there.
fn targets(route: &RouteConfig, config: &Config, lost: &Lost, problems: &mut Problems) {
    if let Some(upstream) = &route.upstream {
        resolves(upstream, config, lost, problems);
    }
    let Some(split) = &route.split else { return };
    for part in split.iter() {
        resolves(&part.upstream, config, lost, problems);
        if part.weight.value > MOST_WEIGHT {
            out_of_range(&part.weight.span, "weight", "0 to 1000000", problems);
        }
    }
    let weight = |part: &SplitConfig| u64::from(part.weight.value);
    if split.iter().map(weight).sum::<u64>() == 0 && !lost.touched("routes", &route.id) {
        let message = "a split needs a part with a weight above 0";
        problems.push(Problem::at(&split.span, message));
    }
}

/// A step that asks another upstream asks one that is there, and none that was asked before: the
/// ladder would only go round.
fn steps(route: &RouteConfig, config: &Config, lost: &Lost, problems: &mut Problems) {
    let only = route.upstream.as_ref();
    let mut asked: Vec<&Located<String>> = only.into_iter().collect();
    for other in route.steps().filter_map(|step| step.upstream.as_ref()) {
        resolves(other, config, lost, problems);
        if let Some(before) = asked.iter().find(|name| name.value == other.value) {
            let message = format!("upstream \"{}\" has been asked by then", other.value);
            let problem = Problem::at(&other.span, message).also(&before.span, "first here");
            problems.push(problem.help("a step leads to another upstream, or is left out"));
        }
        asked.push(other);
    }
}

fn resolves(upstream: &Located<String>, config: &Config, lost: &Lost, problems: &mut Problems) {
    if config.upstreams.contains_key(upstream.as_str()) || lost.touched("upstreams", upstream) {
        return;
    }
    let problem = Problem::at(
        &upstream.span,
        format!("no upstream \"{}\"", upstream.value),
    );
    let names = config.upstreams.keys().map(|name| name.as_str());
    problems.push(match nearest(upstream, names) {
        Some(near) => problem.help(format!("did you mean \"{near}\"?")),
        None => problem.help(format!("define [upstreams.{}]", upstream.value)),
    });
}

fn values(route: &RouteConfig, problems: &mut Problems) {
    if let Some(timeout) = &route.timeout {
        nonzero(timeout, "timeout", problems);
    }
    for method in &route.matches.methods {
        let message = format!("\"{}\" is no method", method.value);
        if !is_token(method) {
            problems.push(Problem::at(&method.span, message));
        } else if method.chars().any(|c| c.is_ascii_lowercase()) {
            let help = format!("did you mean \"{}\"?", method.to_ascii_uppercase());
            problems.push(Problem::at(&method.span, message).help(help));
        }
    }
    for protocol in &route.upgrade {
        if !protocol.split('/').all(is_token) {
            let message = format!("\"{}\" cannot name a protocol", protocol.value);
            problems.push(Problem::at(&protocol.span, message));
        }
    }
}

/// Limits have names of their own, over all routes, and admit somebody.
fn limits(route: &RouteConfig, named: &mut BTreeMap<String, Span>, problems: &mut Problems) {
    for (position, limit) in route.rate_limit.0.iter().enumerate() {
        let place = limit.name.as_ref().map_or(&limit.rate.span, |n| &n.span);
        if let Some(given) = &limit.name {
            name("a limit", given, problems);
        }
        let own = limit.name(&route.id, position);
        match named.get(&own) {
            Some(first) => {
                let problem = Problem::at(place, format!("limit \"{own}\" is defined twice"));
                problems.push(problem.also(first, "first here"));
            }
            None => drop(named.insert(own.clone(), place.clone())),
        }
        if limit.key.words().next().is_none() {
            let message = format!("the key of limit \"{own}\" names nothing");
            let help = "leave it out for \"client_ip\", or write \"route\" for one bucket";
            problems.push(Problem::at(place, message).help(help));
        }
        if let Some(burst) = &limit.burst {
            at_least_one(burst, "burst", problems);
        }
        if !(1..=MOST_KEYS).contains(&limit.keys.value) {
            out_of_range(&limit.keys.span, "keys", "1 to 100000000", problems);
        }
        if !(1..=128).contains(&limit.ipv6_prefix.value) {
            out_of_range(&limit.ipv6_prefix.span, "ipv6_prefix", "1 to 128", problems);
        }
    }
}

/// Exactly one of `upstream`, `split`, `redirect`, `respond`.
fn one_action(route: &RouteConfig, problems: &mut Problems) {
    let respond = route.respond.as_ref().map(|respond| match &respond.body {
        Some(body) => body.span().clone(),
        None => respond.status.span.clone(),
    });
    let actions = [
        ("upstream", route.upstream.as_ref().map(|u| u.span.clone())),
        ("split", route.split.as_ref().map(|s| s.span.clone())),
        (
            "redirect",
            route.redirect.as_ref().map(|r| r.to.span.clone()),
        ),
        ("respond", respond),
    ];
    let given = actions
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)));
    let given: Vec<(&str, Span)> = given.collect();
    let id = &route.id;
    match given.as_slice() {
        [_] => {}
        [] => {
            let message = format!("route \"{}\" does nothing", id.value);
            let help = "give it one of upstream, split, redirect, respond";
            problems.push(Problem::at(&id.span, message).help(help));
        }
        several => {
            let keys: Vec<&str> = several.iter().map(|(key, _)| *key).collect();
            let message = format!(
                "route \"{}\" has {}: only one can be",
                id.value,
                keys.join(" and ")
            );
            let problem = Problem::at(&id.span, message);
            let point = |problem: Problem, (key, span): &(&str, Span)| problem.also(span, *key);
            problems.push(several.iter().fold(problem, point));
        }
    }
}

/// `rewrite` and `upgrade` change what an upstream sees and `cache` keeps what it answers, so they need one.
fn forwarding_only(route: &RouteConfig, problems: &mut Problems) {
    let fixed = route.redirect.is_some() || route.respond.is_some();
    let forwards = route.upstream.is_some() || route.split.is_some() || !fixed;
    let help = "a redirect or a fixed answer goes to no upstream";
    if let Some(rewrite) = &route.rewrite {
        if !forwards {
            let problem = Problem::at(&rewrite.span, "rewrite needs upstream or split");
            problems.push(problem.help(help));
        }
        let lonely = match (&rewrite.prefix, &rewrite.with) {
            (Some(prefix), None) => Some((prefix, "rewrite.prefix without rewrite.with")),
            (None, Some(with)) => Some((with, "rewrite.with without rewrite.prefix")),
            _ => None,
        };
        if let Some((value, message)) = lonely {
            problems.push(Problem::at(&value.span, message).help("give both, or neither"));
        }
    }
    if let Some(cache) = &route.cache
        && cache.value.on().is_some()
        && !forwards
    {
        let problem = Problem::at(&cache.span, "cache needs upstream or split");
        problems.push(problem.help(help));
    }
    if let Some(protocol) = route.upgrade.first()
        && !forwards
    {
        let problem = Problem::at(&protocol.span, "upgrade needs upstream or split");
        problems.push(problem.help(help));
    }
}
